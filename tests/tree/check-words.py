#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""check-words.py ROOT: what no file of ours may hold: unfinished marks, dead code, a missing licence line."""
import os, re, sys

MARKS = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b|#\s*if\s+0\b")
CODE = (".c", ".h", ".cu", ".cuh", ".py", ".sh", ".lua", ".build")


def main():
    root, errors, n = sys.argv[1], [], 0
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if not f.startswith((".git", "build", "recipe", "__pycache__"))]
        for name in sorted(names):
            path = os.path.relpath(os.path.join(folder, name), root)
            if not name.endswith(CODE):
                continue
            n += 1
            text = open(os.path.join(root, path), encoding="utf-8").read()
            if "SPDX-License-Identifier: Apache-2.0" not in text[:400]:
                errors.append(f"{path}: no SPDX licence line at the top")
            for number, line in enumerate(text.split("\n"), 1):
                if MARKS.search(line):
                    errors.append(f"{path}:{number}: {line.strip()[:100]}")
    print("\n".join(errors) if errors else f"{n} files: licensed, no unfinished marks, no dead code")
    return 1 if errors or not n else 0


sys.exit(main())
