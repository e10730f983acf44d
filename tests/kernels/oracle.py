#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A forward pass in NumPy that rounds only where the CPU backend says it rounds: activations to int8 in front of a
product with quantized weights (kernels/cpu/matrix.h), K and V to binary16. All else in float64, or as told.

With quantize=False and kv_half=False nothing is rounded: the model as its file has it.
"""
import math

import numpy as np

FLOATS = ("F32", "F16", "BF16")
SILU, GELU, GELU_TANH, RELU = range(4)
NONE, ADJACENT, HALVES = range(3)
_, LINEAR, YARN = range(3)


def quantized(x):
    """Rows of activations as matrix.h rounds them: 32 columns share a scale max|x| / 127."""
    parts = x.reshape(*x.shape[:-1], -1, 32).astype(np.float32)
    most = np.abs(parts).max(axis=-1, keepdims=True)
    tiny = most < 2.0 ** -100
    inverse = np.where(tiny, np.float32(0), np.float32(127) / np.where(tiny, np.float32(1), most))
    q = np.rint(parts * inverse).astype(np.float64)
    return (q * np.where(tiny, 0, most / np.float32(127)).astype(np.float64)).reshape(x.shape)


def erf(x):
    return np.vectorize(math.erf)(x)


def activate(kind, x):
    if kind == SILU:
        return x / (1 + np.exp(-x))
    if kind == GELU:
        return 0.5 * x * (1 + erf(x / math.sqrt(2)))
    if kind == GELU_TANH:
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))
    return np.maximum(x, 0)


def cap(x, c):
    return c * np.tanh(x / c) if c else x


def rms(x, weight, epsilon):
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + epsilon) * weight


def frequencies(p):
    """One angle a position for each pair; see the papers named in kernels/rope.h."""
    n = p["n_dims"]
    f = p["base"] ** (-np.arange(0, n, 2) / n)
    if "factors" in p:
        f = f / np.array(p["factors"])
    if p["scaling"] == LINEAR:
        f = f * p["scale"]
    if p["scaling"] == YARN:
        def dimension(turns):
            return n * math.log(p["original"] / (turns * 2 * math.pi)) / (2 * math.log(p["base"]))
        low, high = max(0, math.floor(dimension(p["fast"]))), min(n - 1, math.ceil(dimension(p["slow"])))
        keep = (1 - np.clip((np.arange(n // 2) - low) / max(0.001, high - low), 0, 1)) * p["ext"]
        f = f * p["scale"] * (1 - keep) + f * keep
    return f


def rotate(x, p):
    """x [n][heads][dim], positions 0..n."""
    if p["kind"] == NONE:
        return x
    n = p["n_dims"]
    angle = np.arange(x.shape[0])[:, None, None] * frequencies(p)
    c, s = ((f(angle) * p["attention_factor"]).astype(x.dtype) for f in (np.cos, np.sin))
    y = x.copy()
    first, second = (slice(0, n, 2), slice(1, n, 2)) if p["kind"] == ADJACENT else (slice(0, n // 2), slice(n // 2, n))
    y[..., first] = x[..., first] * c - x[..., second] * s
    y[..., second] = x[..., first] * s + x[..., second] * c
    return y


class Model:
    def __init__(self, plan, tensors, quantize=True, kv_half=True, dtype=np.float64):
        """plan: as dump-plan.c writes it; tensors: float32, all in one; dtype: what everything is computed in."""
        self.plan, self.tensors, self.quantize, self.kv_half, self.dtype = plan, tensors, quantize, kv_half, dtype
        self.converted = {}

    def tensor(self, t):
        if t["at"] not in self.converted:
            values = self.tensors[t["at"]:t["at"] + t["rows"] * t["cols"]].astype(self.dtype, copy=False)
            self.converted[t["at"]] = values.reshape(t["rows"], t["cols"]) if t["rows"] > 1 else values
        return self.converted[t["at"]]

    def columns(self, t):
        """[cols][rows], kept: where NumPy has no BLAS but the reference one, a product with it takes half the time."""
        at = "columns", t["at"]
        if at not in self.converted:
            self.converted[at] = np.ascontiguousarray(self.tensor(t).reshape(t["rows"], t["cols"]).T)
        return self.converted[at]

    def vector(self, where, name):
        return self.tensor(where[name]).reshape(-1) if name in where else 0

    def product(self, x, t):
        return (quantized(x).astype(self.dtype, copy=False) if self.quantize and t["type"] not in FLOATS else x) @ self.columns(t)

    def attention(self, l, x):
        n, heads, kv_heads = len(x), l["n_heads"], l["n_kv_heads"]
        q, k, v = (self.product(x, l[name]) + self.vector(l, name + "_bias") for name in "qkv")
        q, k, v = q.reshape(n, heads, -1), k.reshape(n, kv_heads, -1), v.reshape(n, kv_heads, -1)
        if "q_norm" in l:
            q = rms(q, self.vector(l, "q_norm"), l["epsilon"])
        if "k_norm" in l:
            k = rms(k, self.vector(l, "k_norm"), l["epsilon"])
        q, k = rotate(q, l["rope"]), rotate(k, l["rope"])
        if self.kv_half:
            k, v = k.astype(np.float16).astype(self.dtype), v.astype(np.float16).astype(self.dtype)
        at = np.arange(n)
        hidden = at[None, :] > at[:, None]
        if l["window"]:
            hidden |= at[:, None] - at[None, :] >= l["window"]
        out = np.empty((n, heads, l["head_dim_v"]), self.dtype)
        for h in range(heads):
            g = h // (heads // kv_heads)
            scores = cap(q[:, h] @ k[:, g].T * l["attention_scale"], l["soft_cap"])
            scores[hidden] = -np.inf
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            out[:, h] = weights @ v[:, g] / weights.sum(axis=1, keepdims=True)
        return self.product(out.reshape(n, -1), l["o"]) + self.vector(l, "o_bias")

    def feed_forward(self, l, x):
        h = self.product(x, l["up"]) + self.vector(l, "up_bias")
        if "gate" in l:
            h = activate(l["activation"], self.product(x, l["gate"]) + self.vector(l, "gate_bias")) * h
        else:
            h = activate(l["activation"], h)
        return self.product(h, l["down"]) + self.vector(l, "down_bias")

    def logits(self, tokens):
        p = self.plan
        x = self.tensor(p["embedding"])[tokens] * p["embedding_scale"]
        for l in p["layers"]:
            x = x + l["residual_scale"] * self.attention(l, rms(x, self.vector(l, "mixer_norm"), l["epsilon"]))
            x = x + l["residual_scale"] * self.feed_forward(l, rms(x, self.vector(l, "ffn_norm"), l["epsilon"]))
        x = rms(x, self.vector(p, "output_norm"), p["epsilon"])
        logits = self.product(x, p.get("output", p["embedding"])) + self.vector(p, "output_bias")
        return cap(logits * p["logit_scale"], p["soft_cap"])
