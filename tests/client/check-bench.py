#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""check-bench.py WARMCTL SERVE: bench against an engine that computes nothing: columns, JSON's keys, a well-formed plot; no number but counts."""
import json, os, subprocess, sys, tempfile, time
import xml.etree.ElementTree as xml

warmctl, serve = sys.argv[1:3]
COLUMNS = ["depth", "batch", "tokens", "MB", "GFLOP", "floor ms", "measured ms", "tokens/s", "share"]
MEDIANS = {"cold_ms", "warm_ms", "prefill_tokens_per_s", "decode_ms", "socket_us"}
ROW = {"name", "depth", "batch", "tokens", "bytes", "flop", "floor_ms", "measured_ms", "low_ms", "high_ms", "tokens_per_s", "share"}


def bench(*args, status=0):
    r = subprocess.run([warmctl, "--socket", path, *args, "bench"], capture_output=True, text=True, timeout=50)
    assert r.returncode == status, (args, r)
    return r


with tempfile.TemporaryDirectory() as d:
    path, svg = d + "/s", d + "/p.svg"
    server = subprocess.Popen([serve, path], stdin=subprocess.PIPE)
    try:
        for _ in range(500):
            if os.path.exists(path):
                break
            time.sleep(0.01)
        lines = bench("--plot", svg).stdout.splitlines()
        head = next(line for line in lines if line.split()[:1] == ["depth"])
        assert all(c in head for c in COLUMNS), head
        assert any(line.startswith("copies ") for line in lines), lines
        assert lines[0].split() == ["median", "lowest", "..", "highest"], lines[0]
        rows = lines[lines.index(head) + 1:]
        assert all(row.endswith("%") for row in rows), rows

        found = json.loads(bench("--json").stdout)
        assert set(found) == MEDIANS | {"machine", "model", "rows"}, found.keys()
        assert all(set(found[k]) == {"median", "low", "high"} for k in MEDIANS), found
        assert set(found["machine"]) == {"backend", "description", "copy_bytes_per_s", "matmul_flop_per_s"}, found["machine"]
        assert set(found["model"]) == {"name", "quantization", "context", "weights_bytes", "kv_token_bytes", "row_flop", "visible_flop", "output_flop"}
        assert all(set(row) == ROW for row in found["rows"]), found["rows"]
        places = [(row["name"], row["depth"], row["batch"]) for row in found["rows"]]
        deep = [p for depth in (512, 2048) for p in (("prefill", 0, 1), ("first text", depth, 1), ("decode", depth, 1))]
        assert places == [("decode", 0, 1)] + deep + [("decode", 0, n) for n in (2, 4, 8, 16)], places    # the context is 4,096
        assert len(rows) == len(places), rows

        tree = xml.parse(svg).getroot()
        ns = "{http://www.w3.org/2000/svg}"
        assert tree.tag == ns + "svg", tree.tag
        drawn = [sum(e.get("class") == c for e in tree.iter(ns + t)) for t, c in (("circle", "point"), ("rect", "bar"), ("polyline", "roof"))]
        assert drawn == [len(rows), len(rows), 1], drawn
        assert "No such file" in bench("--plot", d + "/none/p.svg", status=1).stderr
        assert "unknown-model" in bench("--model", "none", status=1).stderr
    finally:
        server.kill()
        server.wait()
print(f"{len(rows)} rows in the table, the JSON and the plot")
