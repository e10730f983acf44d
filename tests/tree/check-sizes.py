#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""check-sizes.py ROOT: the size ratchet. No function over 70 lines (kernels: 120), no file over 800.

A function is what starts at a line in column 0, whose signature ends in '{' (not a type, not data), and ends at a '}'
in column 0: our format makes that exact. Generated tables are exempt by name.
"""
import os, re, sys

FILE_MAX, FUNCTION_MAX, KERNEL_MAX = 800, 70, 120
GENERATED = {"daemon/model/unicode-tables.c"}


def functions(lines):
    start = head = None
    for i, line in enumerate(lines):
        if start is None:
            if line[:1] not in (" ", "\t", "}", "/", "*", "#", "{", ""):
                head = i                # a signature may take several lines, the others indented
            if head is None or not line.rstrip().endswith(("{", ";")):
                continue
            text = " ".join(lines[head : i + 1])
            if line.rstrip().endswith("{") and ")" in text and "=" not in text.split("(")[0] \
                    and not re.match(r"(typedef|struct|enum|union)\b[^(]*\{", text):
                start = head
            head = None
        elif line.startswith("}"):
            yield start + 1, i - start + 1, lines[start].strip()
            start = head = None


def main():
    root, errors, n = sys.argv[1], [], 0
    for top in ("shm", "kernels", "client", "daemon", "tests"):
        for folder, _, names in os.walk(os.path.join(root, top)):
            for name in sorted(names):
                path = os.path.relpath(os.path.join(folder, name), root)
                if not name.endswith((".c", ".h", ".cu", ".cuh")) or path in GENERATED:
                    continue
                lines = open(os.path.join(root, path), encoding="utf-8").read().split("\n")
                if len(lines) - 1 > FILE_MAX:
                    errors.append(f"{path}: {len(lines) - 1} lines; at most {FILE_MAX}: split it by what it does")
                most = KERNEL_MAX if path.startswith("kernels/") else FUNCTION_MAX
                for at, length, head in functions(lines):
                    n += 1
                    if length > most:
                        errors.append(f"{path}:{at}: {length} lines; at most {most}: {head[:80]}")
    print("\n".join(errors) if errors else f"{n} functions within {FUNCTION_MAX} lines (kernels {KERNEL_MAX}), every file within {FILE_MAX}")
    return 1 if errors else 0


sys.exit(main())
