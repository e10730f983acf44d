#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""random_model.py OUT SHAPE: a GGUF in the shape of a real model, with random bf16 weights, to time engines at real sizes.

SHAPE is a name of SHAPES. Weights are random signs and fractions with one of four exponents (0.004 to 0.06), written at
the speed of the disk; the vocabulary is 256 bytes, filler, and the fill-in-the-middle marks. Needs numpy.
"""
import os, struct, sys

import numpy

# dim, layers, heads, KV heads, ffn, vocabulary, tied (published configurations of Qwen2.5-Coder)
SHAPES = {
    "coder-1.5b": (1536, 28, 12, 2, 8960, 151936, True),
    "coder-7b": (3584, 28, 28, 4, 18944, 152064, False),
    "small": (256, 4, 4, 2, 512, 1024, True),
}
MARKS = ["<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"]
F32, BF16 = 0, 30


def text(s):
    return struct.pack("<Q", len(s.encode())) + s.encode()


def value(v):
    if isinstance(v, bool):
        return struct.pack("<IB", 7, v)
    if isinstance(v, int):
        return struct.pack("<II", 4, v)
    if isinstance(v, float):
        return struct.pack("<If", 6, v)
    if isinstance(v, str):
        return struct.pack("<I", 8) + text(v)
    if isinstance(v[0], str):
        return struct.pack("<IIQ", 9, 8, len(v)) + b"".join(map(text, v))
    return struct.pack("<IIQ", 9, 5, len(v)) + struct.pack(f"<{len(v)}i", *v)


def byte_names():
    """GPT-2's printable stand-ins for the 256 bytes."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in shown]
    names = {b: chr(b) for b in shown} | {b: chr(256 + i) for i, b in enumerate(others)}
    return [names[b] for b in range(256)]


def tensors(dim, layers, heads, kv, ff, vocab, tied):
    head = dim // heads
    yield "token_embd.weight", (vocab, dim), BF16
    for i in range(layers):
        for name, shape in (("attn_norm", (dim,)), ("ffn_norm", (dim,))):
            yield f"blk.{i}.{name}.weight", shape, F32
        for name, rows in (("attn_q", heads * head), ("attn_k", kv * head), ("attn_v", kv * head)):
            yield f"blk.{i}.{name}.weight", (rows, dim), BF16
            yield f"blk.{i}.{name}.bias", (rows,), F32
        for name, shape in (("attn_output", (dim, heads * head)), ("ffn_gate", (ff, dim)), ("ffn_up", (ff, dim)), ("ffn_down", (dim, ff))):
            yield f"blk.{i}.{name}.weight", shape, BF16
    yield "output_norm.weight", (dim,), F32
    if not tied:
        yield "output.weight", (vocab, dim), BF16


def metadata(name, dim, layers, heads, kv, ff, vocab, tied):
    tokens = byte_names() + ["ab"] + [f"w{i}" for i in range(vocab - 257 - len(MARKS))] + MARKS
    first = vocab - len(MARKS)
    mark = {m: first + i for i, m in enumerate(MARKS)}
    return {
        "general.architecture": "qwen2", "general.name": name + "-random", "general.file_type": 32,
        "qwen2.block_count": layers, "qwen2.context_length": 32768, "qwen2.embedding_length": dim, "qwen2.feed_forward_length": ff,
        "qwen2.attention.head_count": heads, "qwen2.attention.head_count_kv": kv, "qwen2.rope.freq_base": 1e6,
        "qwen2.attention.layer_norm_rms_epsilon": 1e-6,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * first + [3] * len(MARKS), "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.eos_token_id": mark["<|endoftext|>"], "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.fim_pre_token_id": mark["<|fim_prefix|>"], "tokenizer.ggml.fim_suf_token_id": mark["<|fim_suffix|>"],
        "tokenizer.ggml.fim_mid_token_id": mark["<|fim_middle|>"], "tokenizer.ggml.fim_rep_token_id": mark["<|repo_name|>"],
        "tokenizer.ggml.fim_sep_token_id": mark["<|file_sep|>"],
    }


def write(path, name):
    shape = SHAPES[name]
    listed, infos, at = list(tensors(*shape)), b"", 0
    for tensor, dims, kind in listed:
        infos += text(tensor) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d) for d in reversed(dims)) + struct.pack("<IQ", kind, at)
        at += (int(numpy.prod(dims)) * (4 if kind == F32 else 2) + 31) // 32 * 32
    meta = metadata(name, *shape)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(listed), len(meta)) + b"".join(text(k) + value(v) for k, v in meta.items()) + infos
    rng = numpy.random.default_rng(1)
    with open(path + ".part", "wb") as f:
        f.write(head + b"\0" * (-len(head) % 32))
        for tensor, dims, kind in listed:
            n = int(numpy.prod(dims))
            if kind == F32:
                data = (numpy.ones if "norm" in tensor else numpy.zeros)(n, numpy.float32).tobytes()
                f.write(data + b"\0" * (-len(data) % 32))
                continue
            for begin in range(0, n, 1 << 25):  # a sign, an exponent of 119 to 122, a fraction
                r = rng.integers(0, 1 << 16, min(1 << 25, n - begin), numpy.uint16)
                f.write(((r & 0x807F) | (((r >> 7) & 3) + 119) << 7).astype(numpy.uint16).tobytes())
            f.write(b"\0" * (-2 * n % 32))
    os.rename(path + ".part", path)


if __name__ == "__main__":
    write(*sys.argv[1:3])
