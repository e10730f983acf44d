#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""check-warmctl.py WARMCTL LIBWARM: exit statuses without a daemon, and that the library exports warm_client_* only."""
import os, subprocess, sys, tempfile

warmctl, library = sys.argv[1:3]
environment = {k: v for k, v in os.environ.items() if k != "XDG_RUNTIME_DIR"}
bad = []


def expect(status, needle, *args, text=None):
    r = subprocess.run([warmctl, *args], capture_output=True, text=True, input=text, env=environment)
    said = r.stdout + r.stderr
    if r.returncode != status or needle not in said:
        bad.append(f"{args}: exit {r.returncode} (wanted {status}), said {said!r} (wanted {needle!r})")


with tempfile.TemporaryDirectory() as d:
    nowhere, source = d + "/none.sock", d + "/a:b.c"
    open(source, "w").write("int x;\nint y;\n")
    expect(2, "no command")
    expect(2, "unknown command fly", "fly")
    expect(2, "--colour", "--colour", "status")
    expect(2, "missing after --socket", "status", "--socket")
    expect(2, "missing after --plot", "bench", "--plot")
    expect(2, "unexpected argument more", "status", "more")
    expect(2, "FILE:LINE:COLUMN is missing", "complete")
    expect(2, "is not FILE:LINE:COLUMN", "complete", source)
    expect(2, "is not FILE:LINE:COLUMN", "complete", source + ":0:1")
    expect(2, "whole number", "generate", "-n", "-4")
    expect(1, "No such file", "complete", d + "/none.c:1:1")
    expect(1, "beyond its end", "complete", source + ":2:8")
    expect(1, "beyond its end", "complete", source + ":9:1")
    expect(3, "no daemon", "--socket", nowhere, "complete", source + ":3:1")
    for command in ("status", "models", "trim", "bench"):
        expect(3, "no daemon", "--socket", nowhere, command)
    for command in ("generate", "tokenize", "score"):
        expect(3, "no daemon", "--socket", nowhere, command, "-", text="int")
    expect(1, "no daemon answers", "--socket", nowhere, "doctor")
    expect(0, "Usage", "--help")
    expect(0, "warmctl ", "--version")

names = [line.split()[-1].split("@")[0] for line in subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True).stdout.splitlines()]
foreign = [n for n in names if not n.startswith("warm_client_") and not n.startswith("LIBWARM")]
if foreign or len(names) < 20:
    bad.append(f"{library} exports {foreign or names}")
print("\n".join(bad) if bad else "every exit status is as documented; libwarm exports warm_client_* only")
sys.exit(1 if bad else 0)
