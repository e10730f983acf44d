#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""check-includes.py ROOT: hold every #include against the dependency table of docs/ARCHITECTURE.md.

Arrows run downward only. A directory that the table does not name is an error, so that a new one is thought about.
"""
import os, re, sys

LIBC = {"assert", "cpuid", "ctype", "dirent", "dlfcn", "endian", "errno", "fcntl", "fenv", "float", "getopt", "grp", "immintrin", "inttypes", "limits",
        "locale", "math", "poll", "pthread", "pwd", "sched", "signal", "spawn", "stdalign", "stdarg", "stdatomic", "stdbool", "stddef", "stdint",
        "stdio", "stdlib", "string", "strings", "termios", "time", "unistd", "arm_neon", "arpa/inet", "netinet/in", "syslog", "ucontext"}
LIBC_DIRS = ("sys/", "linux/", "asm/")

# directory: (project directories it may use beside itself, libraries it may use)
TABLE = {
    "shm": ([], []),
    "kernels": ([], []),
    "kernels/cpu": (["kernels"], []),
    "kernels/cuda": (["kernels"], ["cuda"]),
    "client": (["shm"], ["msgpack", "xxhash", "json-c"]),
    "daemon": (["shm", "kernels", "client"], ["msgpack", "xxhash", "systemd", "ini"]),
    "tests": (["shm", "kernels", "kernels/cpu", "kernels/cuda", "client", "daemon"], ["*"]),
}
# the daemon may use what the client and it share, and nothing else of the client
CODEC_ONLY = {"client/codec.h", "client/frame.h", "client/wire.h"}


def area(path):
    best = ""
    for name in TABLE:
        if path.startswith(name + "/") and len(name) > len(best):
            best = name
    return best


def library_of(header):
    for start, name in (("systemd/", "systemd"), ("msgpack", "msgpack"), ("xxhash", "xxhash"), ("ini.h", "ini"), ("json-c/", "json-c"),
                        ("cuda", "cuda"), ("cooperative_groups", "cuda"), ("mma.h", "cuda")):
        if header.startswith(start):
            return name
    return None


def check(root, path, errors):
    here = area(path)
    if not here:
        errors.append(f"{path}: its directory is not in the dependency table")
        return
    may_use, may_link = TABLE[here]
    for number, line in enumerate(open(os.path.join(root, path), encoding="utf-8"), 1):
        m = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if not m:
            continue
        kind, header = m.groups()
        if kind == "<":
            stem = header[:-2] if header.endswith(".h") else header
            if stem in LIBC or header.startswith(LIBC_DIRS):
                continue
            if header == "warm/client.h" and here == "client":
                continue                # the example includes libwarm as its users do
            library = library_of(header)
            if "*" not in may_link and library not in may_link:
                errors.append(f"{path}:{number}: <{header}> is not a library that {here}/ may use")
            continue
        for base in (os.path.dirname(path), "", "daemon", "client"):
            target = os.path.normpath(os.path.join(base, header))
            if os.path.exists(os.path.join(root, target)):
                break
        else:
            continue                    # generated; its own directory
        there = area(target)
        if there == here:
            continue
        if there not in may_use:
            errors.append(f"{path}:{number}: {here}/ may not use {there}/ ({header})")
        elif here == "daemon" and there == "client" and target not in CODEC_ONLY:
            errors.append(f"{path}:{number}: of the client, the daemon may use the codec only ({header})")


def main():
    root, errors, n = sys.argv[1], [], 0
    for top in sorted({name.split("/")[0] for name in TABLE}):
        for folder, _, names in os.walk(os.path.join(root, top)):
            for name in sorted(names):
                if name.endswith((".c", ".h", ".cu", ".cuh")):
                    check(root, os.path.relpath(os.path.join(folder, name), root), errors)
                    n += 1
    print("\n".join(errors) if errors else f"{n} files keep to the dependency table")
    return 1 if errors or not n else 0


sys.exit(main())
