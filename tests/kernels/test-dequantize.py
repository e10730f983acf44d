#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""test-dequantize.py DEQUANTIZE: every block format against a second decoder, in NumPy, bit for bit.

The decoders below are written from the formats' description (whole arrays, bit planes), not from quant.c.
"""
import subprocess, sys

try:
    import numpy as np
except ImportError:
    print("NumPy is not installed")
    sys.exit(77)

f32 = np.float32


def halves(b, at, count=1):
    """count halves at byte `at` of each block, as float32 [blocks, count]"""
    return np.ascontiguousarray(b[:, at:at + 2 * count]).view("<f2").astype(f32)


def nibbles(b):
    """[blocks, 16 k] bytes -> [blocks, k, 2, 16]: low nibbles, then high"""
    return np.stack([b & 15, b >> 4], axis=1)


def q8_0(b):
    return halves(b, 0) * b[:, 2:].view(np.int8).astype(f32)


def simple(b, at, five, based):
    low = nibbles(b[:, at:at + 16]).reshape(len(b), 32).astype(np.int32)
    if five:
        bits = np.unpackbits(np.ascontiguousarray(b[:, at - 4:at]), axis=1, bitorder="little")
        low = low + 16 * bits.astype(np.int32)
    if based:
        return halves(b, 0) * low.astype(f32) + halves(b, 2)
    return halves(b, 0) * (low - (16 if five else 8)).astype(f32)


def scales_6bit(s):
    """12 bytes -> 8 scales, 8 mins. As one string of bits: bytes 0..3 and 4..7 carry six bits and two spare; the
    spare pairs are the upper bits of the entries 4..7, whose lower four are the nibbles of bytes 8..11."""
    a, b, c = s[:, 0:4], s[:, 4:8], s[:, 8:12]
    return (np.concatenate([a % 64, c % 16 + a // 64 * 16], axis=1), np.concatenate([b % 64, c // 16 + b // 64 * 16], axis=1))


def k45(b, five):
    scale, least = scales_6bit(b[:, 4:16])
    q = b[:, 48 if five else 16:].reshape(len(b), 4, 32)
    v = np.stack([q & 15, q >> 4], axis=2).reshape(len(b), 8, 32).astype(np.int32)
    if five:
        planes = np.unpackbits(np.ascontiguousarray(b[:, 16:48])[:, :, None], axis=2, bitorder="little")
        v = v + 16 * planes.transpose(0, 2, 1).astype(np.int32)
    step = halves(b, 0) * scale.astype(f32)
    base = halves(b, 2) * least.astype(f32)
    return (step[:, :, None] * v.astype(f32) - base[:, :, None]).reshape(len(b), 256)


def q6_k(b):
    low = b[:, 0:128].reshape(len(b), 2, 1, 64)
    low = np.concatenate([low & 15, low >> 4], axis=2).reshape(len(b), 256)
    high = b[:, 128:192].reshape(len(b), 2, 1, 32)
    high = np.concatenate([high >> s & 3 for s in (0, 2, 4, 6)], axis=2).reshape(len(b), 256)
    step = halves(b, 208) * b[:, 192:208].view(np.int8).astype(f32)
    return np.repeat(step, 16, axis=1) * (low.astype(np.int32) + 16 * high.astype(np.int32) - 32).astype(f32)


def bf16(b):
    return (b.view("<u2").astype(np.uint32) << 16).view(f32)


# name: bytes, where halves lie (kept finite), decoder
TYPES = {
    "F32": (4, [], lambda b: b.view("<f4")),
    "F16": (2, [0], lambda b: halves(b, 0)),
    "BF16": (2, [], bf16),
    "Q8_0": (34, [0], q8_0),
    "Q4_0": (18, [0], lambda b: simple(b, 2, False, False)),
    "Q4_1": (20, [0, 2], lambda b: simple(b, 4, False, True)),
    "Q5_0": (22, [0], lambda b: simple(b, 6, True, False)),
    "Q5_1": (24, [0, 2], lambda b: simple(b, 8, True, True)),
    "Q4_K": (144, [0, 2], lambda b: k45(b, False)),
    "Q5_K": (176, [0, 2], lambda b: k45(b, True)),
    "Q6_K": (210, [208], q6_k),
}


def blocks_of(rng, size, half_at, n):
    b = rng.integers(0, 256, (n, size), dtype=np.uint8)
    b[: n // 8] = 0
    b[n // 8: n // 4] = 255
    for at in half_at:                  # any finite half, denormals and zeros too
        bits = rng.integers(0, 0x7c00, n, dtype=np.uint16) | (rng.integers(0, 2, n, dtype=np.uint16) << 15)
        bits[::16] = [0, 1, 0x3ff, 0x400][at % 4]
        b[:, at:at + 2] = bits.astype("<u2").view(np.uint8).reshape(n, 2)
    return b


def main():
    rng = np.random.default_rng(20240917)
    failed = False
    for name, (size, half_at, decode) in TYPES.items():
        if name == "F16":               # all finite halves
            b = np.arange(65536, dtype="<u2")
            b = b[(b & 0x7c00) != 0x7c00].view(np.uint8).reshape(-1, 2)
        else:
            b = blocks_of(rng, size, half_at, 4096)
            if name in ("F32", "BF16"):
                b[:, size - 1] &= 0xbf  # no infinity, no NaN
        with np.errstate(all="ignore"):
            want = np.ascontiguousarray(decode(b), dtype=f32)
        out = subprocess.run([sys.argv[1], name], input=b.tobytes(), stdout=subprocess.PIPE, check=True).stdout
        got = np.frombuffer(out, dtype=np.uint32)
        # 0 * -x: the sign of a zero counts too, so bits are compared
        differ = np.flatnonzero(got != want.reshape(-1).view(np.uint32)) if got.size == want.size else [0]
        if len(differ):
            failed = True
            print(f"{name}: {len(differ)} of {want.size} values differ, first at {differ[0]}")
        else:
            print(f"{name}: {want.size} values equal")
    return 1 if failed else 0


sys.exit(main())
