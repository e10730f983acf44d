# SPDX-License-Identifier: Apache-2.0
"""A GGUF file with some metadata changed and tensors added; for compare-numbers.py. Trusts the file."""
import struct

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
ALIGNMENT = 32


def string(s):
    return struct.pack("<Q", len(s.encode())) + s.encode()


def value(v):
    """Type and bytes of a key's value."""
    if isinstance(v, int):
        return struct.pack("<II", 4, v)
    return struct.pack("<If", 6, v) if isinstance(v, float) else struct.pack("<I", 8) + string(v)


def end_of(d, at, kind):
    if kind == 8:
        return at + 8 + struct.unpack_from("<Q", d, at)[0]
    if kind != 9:
        return at + SIZES[kind]
    kind, n = struct.unpack_from("<IQ", d, at)
    at += 12
    if kind in SIZES:
        return at + n * SIZES[kind]
    for _ in range(n):
        at = end_of(d, at, kind)
    return at


def read(d):
    """keys: [(name, type and value)]; tensors: [(name, what follows the name but the offset, offset)]; data's start."""
    n_tensors, n_keys = struct.unpack_from("<QQ", d, 8)
    at, keys, tensors = 24, [], []

    def name():
        nonlocal at
        n = struct.unpack_from("<Q", d, at)[0]
        at += 8 + n
        return d[at - n:at].decode()

    for _ in range(n_keys):
        key = name()
        end = end_of(d, at + 4, struct.unpack_from("<I", d, at)[0])
        keys.append((key, d[at:end]))
        at = end
    for _ in range(n_tensors):
        key = name()
        n = 4 + 8 * struct.unpack_from("<I", d, at)[0] + 4
        tensors.append((key, d[at:at + n], struct.unpack_from("<Q", d, at + n)[0]))
        at += n + 8
    return keys, tensors, at + -at % ALIGNMENT


def edit(source, target, changes, architecture=None, vectors=()):
    """changes: {key without the architecture in front: value}; vectors: [(name, floats)] added as F32."""
    with open(source, "rb") as f:
        d = f.read()
    keys, tensors, start = read(d)
    old = next(v[12:].decode() for k, v in keys if k == "general.architecture")
    new, data = architecture or old, d[start:]
    out = {new + k[len(old):] if k.startswith(old + ".") else k: v for k, v in keys}
    out["general.architecture"] = value(new)
    out.update((f"{new}.{k}", value(v)) for k, v in changes.items())
    for name, floats in vectors:
        data += bytes(-len(data) % ALIGNMENT)
        tensors.append((name, struct.pack("<IQI", 1, len(floats), 0), len(data)))
        data += struct.pack(f"<{len(floats)}f", *floats)
    head = d[:8] + struct.pack("<QQ", len(tensors), len(out)) + b"".join(string(k) + v for k, v in out.items())
    head += b"".join(string(k) + entry + struct.pack("<Q", offset) for k, entry, offset in tensors)
    with open(target, "wb") as f:
        f.write(head + bytes(-len(head) % ALIGNMENT) + data)
    return target
