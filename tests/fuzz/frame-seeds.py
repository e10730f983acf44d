#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""frame-seeds.py PROTOCOL.md OUT...: what the clients of the document's examples send, dealt out to the files."""
import re, sys


def main():
    text = open(sys.argv[1], encoding="utf-8").read()
    blocks = re.findall(r"^```wire\n(.*?)^```", text, re.S | re.M)
    seeds = [b""] * len(sys.argv[2:])
    # frames that end a connection go last: what follows them is not read
    for i, block in enumerate(sorted(blocks, key=lambda b: '"frame-' in b)):
        sent = [line[1:].split(";")[0] for line in block.split("\n") if line.startswith(">")]
        seeds[i % len(seeds)] += bytes.fromhex("".join(sent))
    for path, data in zip(sys.argv[2:], seeds):
        with open(path, "wb") as out:
            out.write(data)


main()
