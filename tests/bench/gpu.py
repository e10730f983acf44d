#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""gpu.py [--rounds N] [--build DIR] [--device cuda:N] [--folder DIR] [--context N] [--chunk-ms N] [SHAPE|MODEL...]: warmd beside llama.cpp on a GPU.

One command for the table of docs/PERFORMANCE.md. A SHAPE (coder-1.5b, coder-7b, small) is written with random bf16 weights
into --folder (kept; by default a temporary one) and, where WARM_PEERS has llama-quantize, as Q8_0 and Q4_K_M too; a MODEL is a
file. Each round runs the peer, then warmd (A B A B); a cell is the median, a ratio the median over rounds with its
lowest and highest. warmd is asked through its socket, by token ids; llama-bench has none; both servers get the same
typing. Without WARM_PEERS (llama-bench, llama-server, llama-quantize of a build with CUDA) only warmd's side is printed. Asserts
nothing about time; needs python3 and, to write models, numpy.
"""
import argparse, json, os, random, statistics, subprocess, sys, tempfile, threading, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from compare import PEERS, ROOT, Peer, row
from warmrpc import Daemon

N_PREFILL, N_DECODE, N_NEW, N_TYPED = 2048, 128, 16, 20
DEFAULT = ["coder-1.5b", "coder-7b"]


def bench(model, *args):
    """tokens/s, the only figure of a run of llama-bench."""
    out = subprocess.run([PEERS + "/llama-bench", "-m", model, "-fa", "1", "-ngl", "99", "-r", "3", "-o", "json", *args],
                         capture_output=True, text=True, check=True).stdout
    return json.loads(out)[0]["avg_ts"]


def peer_round(model, depth, theirs):
    theirs["prefill"].append(max(bench(model, "-p", str(N_PREFILL), "-n", "0", "-ub", ub) for ub in ("512", "2048")))
    for at in (0, depth):
        theirs[f"decode {at}"].append(1e3 / bench(model, "-p", "0", "-n", str(N_DECODE), "-d", str(at)))
    with Peer(model, os.cpu_count(), ["-ngl", "99", "-c", str(depth + (N_TYPED + 2) * N_NEW + 64), "-fa", "on"]) as s:
        s.post("/completion", {"prompt": [300, 301], "n_predict": 1})
        theirs["start"].append(time.monotonic() - s.started)
        rng = random.Random(1)
        ids, times = new_ids(rng, depth), []
        for _ in range(N_TYPED + 1):
            t = time.monotonic()
            s.post("/completion", {"prompt": ids, "n_predict": 1, "cache_prompt": True})
            times.append((time.monotonic() - t) * 1e3)
            ids = ids + new_ids(rng, N_NEW)
        theirs["typed"].append(statistics.median(times[1:]))


def new_ids(rng, n):
    return [rng.randrange(300, 900) for _ in range(n)]


def ask(c, ids, n):
    return c.call("complete", prompt=ids, n_max=n, raw=True, temperature=0.0)


def token_ms(c, ids):
    """Of a decoded token at this depth: what n more of them cost the engine."""
    ask(c, ids, 1)
    times = []
    for _ in range(5):
        one, many = ask(c, ids, 1), ask(c, ids, N_DECODE + 1)
        times.append((many["time_us"]["engine"] - one["time_us"]["engine"]) / max(1, len(many["ids"]) - 1) / 1e3)
    return statistics.median(times)


def together(d, rng, n):
    """tokens/s of n sequences that decode at once."""
    connections, done = [d.connect() for _ in range(n)], [0] * n
    prompts = [new_ids(rng, 64) for _ in range(n)]
    for c, p in zip(connections, prompts):
        ask(c, p, 1)

    def one(i):
        done[i] = len(ask(connections[i], prompts[i], 2 * N_DECODE)["ids"])

    threads = [threading.Thread(target=one, args=(i,)) for i in range(n)]
    t = time.monotonic()
    for x in threads:
        x.start()
    for x in threads:
        x.join()
    t = time.monotonic() - t
    for c in connections:
        c.socket.close()
    return sum(done) / t


def our_round(model, depth, args, ours):
    with Daemon(args.build, ["--model", model, "--device", args.device, "--kv-memory", args.kv_memory, *(["--chunk-ms", args.chunk_ms] if args.chunk_ms else [])]) as d, d.connect() as c:
        ask(c, [300, 301], 1)
        ours["start"].append(time.monotonic() - d.started)
        rng = random.Random(2)
        times = [ask(c, new_ids(rng, N_PREFILL), 1)["time_us"]["prefill"] for _ in range(6)]
        ours["prefill"].append(N_PREFILL / (statistics.median(times[2:]) / 1e6))   # the first ones find out how long chunks may be
        for at in (0, depth):
            ours[f"decode {at}"].append(token_ms(c, new_ids(rng, max(2, at))))
        ids, times = new_ids(rng, depth), []
        for _ in range(N_TYPED + 1):
            t = time.monotonic()
            ask(c, ids, 1)
            times.append((time.monotonic() - t) * 1e3)
            ids = ids + new_ids(rng, N_NEW)
        ours["typed"].append(statistics.median(times[1:]))
        for n in (4, 16):
            ours[f"together {n}"].append(together(d, rng, n))
        ours["typed C"] += typed_in_c(d, args, depth)
        return c.call("status")


def typed_in_c(d, args, depth):
    """Milliseconds of the same by libwarm, which packs ids faster than Python does; none where there is no warmctl."""
    warmctl = os.path.join(args.build, "client", "warmctl", "warmctl")
    if not os.path.exists(warmctl):
        return []
    out = subprocess.run([warmctl, "--socket", d.path, "--json", "bench"], capture_output=True, text=True, check=True).stdout
    return [r["measured_ms"] for r in json.loads(out)["rows"] if r["name"] == "first text" and r["depth"] == depth and r["measured_ms"]]


def compare(model, args):
    ours, theirs = ({k: [] for k in ("prefill", "decode 0", f"decode {args.context}", "typed", "typed C", "start", "together 4", "together 16")} for _ in range(2))
    for _ in range(args.rounds):
        if PEERS:
            peer_round(model, args.context, theirs)
        status = our_round(model, args.context, args, ours)
    print(f"\n{os.path.basename(model)}, {status['engine'].get('description', args.device)}, {args.rounds} rounds\n\n| | llama.cpp | warmd | ratio |\n|---|---|---|---|")
    row(f"prefill {N_PREFILL}, tokens/s", ours["prefill"], theirs["prefill"])
    for at in (0, args.context):
        row(f"decode at depth {at}, ms a token", ours[f"decode {at}"], theirs[f"decode {at}"], True)
    row(f"{args.context} cached + {N_NEW} new, first token at the client, ms", ours["typed"], theirs["typed"], True)
    row("the same, asked by libwarm", ours["typed C"], theirs["typed"], True)
    for n in (4, 16):
        row(f"{n} sequences decoding, tokens/s", ours[f"together {n}"], [])
    row("start to first token, s", ours["start"], theirs["start"], True)


def files(names, folder):
    """The files of shapes and models, quantized where that can be done."""
    for name in names:
        if os.path.exists(name):
            yield name
            continue
        path = os.path.join(folder, name + ".gguf")
        if not os.path.exists(path):
            import random_model

            random_model.write(path, name)
        yield path
        for kind in ("Q8_0", "Q4_K_M") if PEERS and os.path.exists(PEERS + "/llama-quantize") else ():
            to = os.path.join(folder, f"{name}-{kind}.gguf")
            if not os.path.exists(to):
                subprocess.run([PEERS + "/llama-quantize", path, to, kind], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            yield to


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--build", default=os.path.join(ROOT, "build"))
    p.add_argument("--device", default="cuda:0")
    p.add_argument("--kv-memory", default="4G")
    p.add_argument("--context", type=int, default=8192)
    p.add_argument("--chunk-ms", help="what a piece of a prompt may take; by default the daemon's")
    p.add_argument("--folder")
    p.add_argument("models", nargs="*")
    args = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="warm-gpu-") as work:
        for model in files(args.models or DEFAULT, args.folder or work):
            compare(model, args)


main()
