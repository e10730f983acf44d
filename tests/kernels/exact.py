#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The forward pass once more in NumPy, in the very order of operations that matrix.h, rows.h, expf.h, rope.h and
attention.h in kernels/cpu/ define, in float32: logits equal to the CPU backend's bit for bit.

Why: a rounding to int8 turns a difference in the last bit of an activation into a whole step now and then, each step
moves others, and after a few layers two passes that differ by nothing but the order of a sum are as far apart as the
quantization itself is from the exact model: oracle.py, in float32 or in float64, agrees with the backend in 98.8% of
top-1 tokens on warm-nano. Only a pass without any difference can tell a wrong kernel from that.

fma is computed in float64, where the product of two float32 is exact, and rounded twice: wrong by one unit in the last
place for about one in 2^29 results.
"""
import numpy as np

import oracle

F, D = np.float32, np.float64
SPAN, TILE = 256, 32
LOG2E, MAGIC = F(float.fromhex("0x1.715476p+0")), F(float.fromhex("0x1.8p23"))
LN2_HIGH, LN2_LOW = F(float.fromhex("0x1.62e4p-1")), F(float.fromhex("0x1.7f7d1cp-20"))
COEFFICIENTS = [F(float.fromhex(c)) for c in ("0x1.6a2434p-10", "0x1.1239e2p-7", "0x1.5558f2p-5", "0x1.555492p-3",
                                              "0x1.fffffcp-2", "0x1p0", "0x1p0")]


def fma(a, b, c):
    return (np.multiply(a, b, dtype=D) + c).astype(F)


def chain(a, b):
    """[..., m, k] times [..., k, n]: each output one chain of fma over k, ascending, from 0."""
    out = np.zeros((*a.shape[:-1], b.shape[-1]), D)
    part, rounded = np.empty_like(out), np.empty(out.shape, F)
    a, b = a.astype(D), b.astype(D)
    for i in range(a.shape[-1]):
        np.multiply(a[..., i:i + 1], b[..., i:i + 1, :], out=part)
        part += out
        rounded[...] = part
        out[...] = rounded
    return rounded


def halves(lanes):
    """Fold the last axis in halves."""
    while lanes.shape[-1] > 1:
        n = lanes.shape[-1] // 2
        lanes = lanes[..., :n] + lanes[..., n:]
    return lanes[..., 0]


def exp(x):
    t = fma(np.where(np.isfinite(x), x, 0), LOG2E, MAGIC)
    n = t - MAGIC
    r = fma(n, -LN2_LOW, fma(n, -LN2_HIGH, x))
    p = np.broadcast_to(COEFFICIENTS[0], x.shape)
    for c in COEFFICIENTS[1:]:
        p = fma(p, r, c)
    with np.errstate(invalid="ignore"):
        p = np.ldexp(p, n.astype(np.int32)).astype(F)
    return np.where(x > F(-87.3365), np.where(x > F(88.72283), F(np.inf), p), F(0))


def rms(x, weight, epsilon):
    n = x.shape[-1]
    lanes = np.zeros((*x.shape[:-1], 16), F)
    for i in range(0, n, 16):
        lanes = fma(x[..., i:i + 16], x[..., i:i + 16], lanes)
    factor = F(1) / np.sqrt(halves(lanes) / F(n) + F(epsilon))
    return x * factor[..., None] * weight


def half(a, at):
    return a[:, at:at + 2].copy().view(np.float16)[:, 0].astype(F)


def blocks_of(kind, raw):
    """Rows of 32 columns as matrix.h cuts them: step [n], integers [n][32], base [n] or None."""
    if kind == "Q8_0":
        b = raw.reshape(-1, 34)
        return half(b, 0), b[:, 2:].view(np.int8), None
    if kind in ("Q4_0", "Q4_1"):
        b = raw.reshape(-1, 18 if kind == "Q4_0" else 20)
        nibbles = np.concatenate([b[:, -16:] & 15, b[:, -16:] >> 4], axis=1).astype(F)
        return (half(b, 0), nibbles - 8, None) if kind == "Q4_0" else (half(b, 0), nibbles, -half(b, 2))
    if kind == "Q4_K":
        b = raw.reshape(-1, 144)
        s, q = b[:, 4:16], b[:, 16:].reshape(-1, 4, 1, 32)
        scale = np.concatenate([s[:, 0:4] & 63, (s[:, 8:12] & 15) | (s[:, 0:4] >> 6 << 4)], axis=1)
        least = np.concatenate([s[:, 4:8] & 63, (s[:, 8:12] >> 4) | (s[:, 4:8] >> 6 << 4)], axis=1)
        v = np.concatenate([q & 15, q >> 4], axis=2).reshape(-1, 32)
        return (half(b, 0)[:, None] * scale.astype(F)).ravel(), v, (half(b, 2)[:, None] * least.astype(F)).ravel()
    assert kind == "Q6_K", kind
    b = raw.reshape(-1, 210)
    low, high = b[:, :128].reshape(-1, 2, 1, 64), b[:, 128:192].reshape(-1, 2, 1, 32)
    low = np.concatenate([low & 15, low >> 4], axis=2).reshape(-1, 2, 4, 32)
    high = np.concatenate([high >> shift & 3 for shift in (0, 2, 4, 6)], axis=2)
    q = (low | high << 4).astype(F) - 32
    v = q.reshape(-1, 16, 16) * b[:, 192:208].view(np.int8).astype(F)[:, :, None]
    return np.repeat(half(b, 208), 8), v.reshape(-1, 32), None


class Activations:
    def __init__(self, x):
        parts = x.reshape(len(x), -1, 32)
        most = np.abs(parts).max(axis=-1)
        tiny = most < F(2.0 ** -100)
        inverse = np.where(tiny, F(0), F(127) / np.where(tiny, F(1), most))
        self.q = np.rint(parts * inverse[..., None])                   # [n][blocks][32]
        self.scale = np.where(tiny, F(0), most / F(127))               # [n][blocks]
        self.sum = self.scale * self.q.sum(axis=-1, dtype=F)


def supports(plan):
    """Not: caps, GELU, scales."""
    return (plan["soft_cap"] == 0 and plan["logit_scale"] == 1 and plan["embedding_scale"] == 1 and
            all(l["soft_cap"] == 0 and l["residual_scale"] == 1 and l["activation"] in (oracle.SILU, oracle.RELU) and
                ("gate" in l) == (l["activation"] == oracle.SILU) for l in plan["layers"]))


class Model:
    """plan, tensors, raw: as dump-plan.c writes them."""

    def __init__(self, plan, tensors, raw):
        assert supports(plan)
        self.plan, self.tensors, self.raw, self.blocks = plan, tensors, raw, {}

    def vector(self, where, name):
        t = where[name]
        return self.tensors[t["at"]:t["at"] + t["rows"] * t["cols"]]

    def weights(self, t):
        if t["at"] not in self.blocks:
            step, v, base = blocks_of(t["type"], self.raw[t["raw"]:t["raw"] + t["bytes"]])
            n = t["cols"] // 32
            shape = lambda a: None if a is None else np.ascontiguousarray(a.astype(F).reshape(t["rows"], n).T)
            v = np.ascontiguousarray(v.astype(F).reshape(t["rows"], n, 32).transpose(1, 2, 0))
            self.blocks[t["at"]] = shape(step), v, shape(base)         # [blocks][rows], [blocks][32][rows]
        return self.blocks[t["at"]]

    def product(self, x, where, name, bias=None):
        t, bias = where[name], bias or name + "_bias"
        if t["type"] in oracle.FLOATS:
            out = chain(x, self.tensors[t["at"]:t["at"] + t["rows"] * t["cols"]].reshape(t["rows"], -1).T)
        else:
            out = self.product_of_blocks(x, t)
        return out + self.vector(where, bias) if bias in where else out

    def product_of_blocks(self, x, t):
        step, v, base = self.weights(t)
        a = Activations(x)
        out = np.empty((len(a.q), step.shape[1]), F)
        for begin in range(0, out.shape[1], 256):                      # so that a piece stays in the cache
            rows = slice(begin, begin + 256)
            acc = np.zeros((len(a.q), step[0, rows].size), D)
            scale, rounded = np.empty(acc.shape, F), np.empty(acc.shape, F)
            for i in range(len(step)):
                np.multiply(a.scale[:, i:i + 1], step[i, rows], out=scale)
                part = (a.q[:, i] @ v[i][:, rows]).astype(D)           # exact: below 2^24
                part *= scale
                part += acc
                rounded[...] = part
                if base is not None:
                    part = np.multiply(a.sum[:, i:i + 1], -base[i, rows], dtype=D)
                    part += rounded
                    rounded[...] = part
                acc[...] = rounded
            out[:, rows] = rounded
        return out

    def rotate(self, x, p):
        """x [n][heads][dim]"""
        if p["kind"] == oracle.NONE:
            return x
        n, angle = p["n_dims"], np.arange(len(x))[:, None, None] * oracle.frequencies(p)
        c, s = (f(angle).astype(F) * F(p["attention_factor"]) for f in (np.cos, np.sin))
        first, second = (slice(0, n, 2), slice(1, n, 2)) if p["kind"] == oracle.ADJACENT else (slice(0, n // 2), slice(n // 2, n))
        y = x.copy()
        y[..., first] = x[..., first] * c - x[..., second] * s
        y[..., second] = x[..., first] * s + x[..., second] * c
        return y

    def attention(self, l, x):
        n, heads, kv_heads = len(x), l["n_heads"], l["n_kv_heads"]
        q, k, v = (self.product(x, l, name) for name in "qkv")
        q, k, v = q.reshape(n, heads, -1), k.reshape(n, kv_heads, -1), v.reshape(n, kv_heads, -1)
        if "q_norm" in l:
            q, k = rms(q, self.vector(l, "q_norm"), l["epsilon"]), rms(k, self.vector(l, "k_norm"), l["epsilon"])
        q, k = self.rotate(q, l["rope"]) * F(l["attention_scale"]), self.rotate(k, l["rope"])
        k, v = k.astype(np.float16).astype(F), v.astype(np.float16).astype(F)
        out = np.empty((n, heads, l["head_dim_v"]), F)
        for h in range(heads):
            g = h // (heads // kv_heads)
            most, mass, total = np.full(n, -np.inf, F), np.zeros(n, F), np.zeros((n, l["head_dim_v"]), F)
            for begin in range(0, n, SPAN):
                end, rows = min(n, begin + SPAN), slice(begin, n)      # earlier rows see nothing of this span
                merge(self.span(l, q[rows, h], k[begin:end, g], v[begin:end, g]), most[rows], mass[rows], total[rows])
            out[:, h] = total * (F(1) / mass)[:, None] + F(0)
        return self.product(out.reshape(n, -1), l, "o")

    @staticmethod
    def span(l, q, k, v):
        """Row i of q stands at place i of the span or behind it."""
        n_rows, n_slots = len(q), -len(k) % TILE + len(k)
        scores, total = np.full((n_rows, n_slots), -np.inf, F), np.zeros((n_rows, v.shape[1]), F)
        behind = np.arange(n_rows)[:, None] - np.arange(len(k))[None, :]
        seen = (behind >= 0) & (behind < (l["window"] or n_rows))
        pieces = [(slice(r, r + 64), slice(0, min(len(k), r + 64))) for r in range(0, n_rows, 64)]
        for rows, slots in pieces:
            scores[rows, slots] = np.where(seen[rows, slots], chain(q[rows], k[slots].T), -np.inf)
        most = scores.max(axis=1)
        blind = np.isneginf(most)
        weights = exp(scores - np.where(blind, F(0), most)[:, None])
        lanes = np.zeros((n_rows, TILE), F)
        for t in range(0, n_slots, TILE):
            lanes = lanes + weights[:, t:t + TILE]
        for rows, slots in pieces:
            total[rows] = chain(weights[rows, slots], v[slots])
        return most, halves(lanes), total

    def feed_forward(self, l, x):
        h = self.product(x, l, "up")
        if "gate" in l:
            gate = self.product(x, l, "gate")
            h = gate / (F(1) + exp(-gate)) * h
        else:
            h = np.maximum(h, F(0))
        return self.product(h, l, "down")

    def logits(self, tokens):
        p = self.plan
        e = p["embedding"]
        x = np.array(self.tensors[e["at"]:e["at"] + e["rows"] * e["cols"]].reshape(e["rows"], -1)[tokens])
        for l in p["layers"]:
            x = x + self.attention(l, rms(x, self.vector(l, "mixer_norm"), l["epsilon"]))
            x = x + self.feed_forward(l, rms(x, self.vector(l, "ffn_norm"), l["epsilon"]))
        x = rms(x, self.vector(p, "output_norm"), p["epsilon"])
        return self.product(x, p, "output" if "output" in p else "embedding", "output_bias")


def merge(part, most, mass, total):
    """A span into what the rows have so far, in place."""
    part_most, part_mass, part_total = part
    first, none = np.isneginf(most), np.isneginf(part_most)
    with np.errstate(invalid="ignore"):
        keep = np.where(first, F(0), np.where(part_most > most, exp(most - part_most), F(1)))
        take = np.where(first | (part_most > most), F(1), exp(part_most - most))
    both = np.where(part_most > most, part_most, most)
    new_mass = mass * keep + part_mass * take
    new_total = fma(part_total, take[:, None], total * keep[:, None])
    most[~none], mass[~none], total[~none] = both[~none], new_mass[~none], new_total[~none]
