#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""compare.py [--rounds N] [--threads N] [--build DIR] [MODEL...]: warmd beside llama.cpp on the same files, one table.

Each round runs the peer, then warmd (A B A B); a cell is the median, a ratio is the median over rounds with its lowest
and highest. Decode and prefill of warmd are measured through its socket, the peer's by llama-bench without one. Time to
first text is for one typed character in about 1,500 tokens of context, at the client, beside llama-server's /infill
with its prompt cache. Asserts nothing about time. Needs WARM_PEERS: a folder with llama-bench and llama-server; without
it only warmd's side is printed.

Without MODEL: the shipped model; with WARM_PEERS its Q4_K_M; with WARM_SMOLLM that file.
"""
import argparse, json, os, random, socket, statistics, subprocess, sys, tempfile, time, urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from warmrpc import Daemon

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PEERS = os.environ.get("WARM_PEERS")
N_PREFILL, N_DECODE, CONTEXT_BYTES = 1024, 64, 4600


def source_text():
    text = ""
    for name in ("daemon/sys/config.c", "client/client.c", "daemon/sys/listen.c"):
        text += open(os.path.join(ROOT, name)).read()
    return text


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Peer:
    """llama-server on a port of its own."""

    def __init__(self, model, threads, extra=()):
        self.port = free_port()
        self.started = time.monotonic()
        self.process = subprocess.Popen([PEERS + "/llama-server", "-m", model, "--port", str(self.port), "-c", "2048", "-np", "1", "--no-webui",
                                         "-t", str(threads), *extra], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=1)
                break
            except OSError:
                if self.process.poll() is not None:
                    raise SystemExit("llama-server ended") from None
                time.sleep(0.005)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def post(self, path, body):
        r = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
        return json.loads(urllib.request.urlopen(r, timeout=120).read())


def peer_speed(model, threads):
    """tokens/s of prefill and decode, by llama-bench."""
    out = subprocess.run([PEERS + "/llama-bench", "-m", model, "-t", str(threads), "-p", str(N_PREFILL), "-n", str(N_DECODE), "-r", "2", "-o", "json"],
                         capture_output=True, text=True, check=True).stdout
    rows = json.loads(out)
    return [next(r["avg_ts"] for r in rows if r["n_prompt"] == p) for p in (N_PREFILL, 0)]


def our_speed(c, rng, n_vocab):
    """The same through the socket: ids nobody asked about before, then a text that goes on."""
    ids = [rng.randrange(300, n_vocab - 300) for _ in range(N_PREFILL)]
    t = c.call("complete", prompt=ids, n_max=1, raw=True)["time_us"]
    prefill = N_PREFILL / (t["prefill"] / 1e6)
    best = None
    for k in range(8):
        prompt = f"static const int table_{rng.randrange(1 << 30)}[] = {{ 1, 2, 3, "
        r = c.call("complete", prompt=prompt, n_max=N_DECODE, raw=True, temperature=1.0, seed=k, heal=False)
        n = len(r["ids"])
        if n >= N_DECODE // 2 and r["time_us"]["first"]:
            speed = (n - 1) / ((r["time_us"]["total"] - r["time_us"]["first"]) / 1e6)
            best = max(best or 0, speed) if best else speed
            break
    return prefill, best


def typing(text, at, k):
    """prefix and suffix when k characters of the text behind `at` were typed."""
    return text[at - CONTEXT_BYTES : at + k], text[at + 40 : at + 1000]


def our_typing(c, text, at):
    """After each of 16 typed characters: ms to the first text at the client; the same in decode steps at this depth,
    healing's own steps taken off; and the microseconds of the request that the engine had no part in."""
    prefix, suffix = typing(text, at, 0)
    r = c.call("complete", prefix=prefix, suffix=suffix, n_max=33, raw=True, lines=100)
    step = (r["time_us"]["total"] - r["time_us"]["first"]) / max(1, len(r["ids"]) - 1) / 1e3
    times, steps, wire = [], [], []
    for k in range(1, 17):
        prefix, suffix = typing(text, at, k)
        t = time.monotonic()
        r = c.call("complete", prefix=prefix, suffix=suffix, n_max=1, raw=True)
        t = (time.monotonic() - t) * 1e3
        u = r["time_us"]
        t -= (u["total"] - u["first"]) / 1e3  # the answer's last token may come after its first text
        healing = len(r["ids"]) - (1 if u["total"] - u["first"] < step * 500 else 2)
        times.append(t)
        steps.append(t / step - max(0, healing))
        wire.append(u["total"] - u["engine"])
    return statistics.median(times), statistics.median(steps), statistics.median(wire)


def peer_typing(s, text, at):
    times = []
    for k in range(17):
        prefix, suffix = typing(text, at, k)
        t = time.monotonic()
        s.post("/infill", {"input_prefix": prefix, "input_suffix": suffix, "n_predict": 1, "cache_prompt": True, "temperature": 0})
        if k:
            times.append((time.monotonic() - t) * 1e3)
    return statistics.median(times)


def cell(values):
    values = [v for v in values if v]
    if not values:
        return "-"
    return f"{statistics.median(values):,.2f}" if statistics.median(values) < 100 else f"{statistics.median(values):,.0f}"


def ratio(ours, theirs, less_is_better=False):
    pairs = [(b / a if less_is_better else a / b) for a, b in zip(ours, theirs) if a and b]
    return f"{statistics.median(pairs):.2f}x ({min(pairs):.2f} .. {max(pairs):.2f})" if pairs else "-"


def row(name, ours, theirs, less_is_better=False):
    print(f"| {name} | {cell(theirs)} | {cell(ours)} | {ratio(ours, theirs, less_is_better)} |", flush=True)


def compare(model, args):
    rng, text = random.Random(7), source_text()
    at = CONTEXT_BYTES + 3000
    ours = {k: [] for k in ("prefill", "decode", "typing", "steps", "start", "wire")}
    theirs = {k: [] for k in ("prefill", "decode", "typing", "start")}
    infill = False
    for _ in range(args.rounds):
        if PEERS:
            prefill, decode = peer_speed(model, args.threads)
            theirs["prefill"].append(prefill)
            theirs["decode"].append(decode)
        with Daemon(args.build, ["--model", model, "--threads", str(args.threads)]) as d, d.connect() as c:
            info = c.call("models")["models"][0]
            c.call("complete", prompt="int", n_max=1)
            ours["start"].append(time.monotonic() - d.started)
            prefill, decode = our_speed(c, rng, info["vocab"])
            ours["prefill"].append(prefill)
            ours["decode"].append(decode)
            infill = info["order"] != "none"
            ms, steps, wire = our_typing(c, text, at)
            ours["typing"].append(ms)
            ours["steps"].append(steps)
            ours["wire"].append(wire)
            status, pss = c.call("status"), d.pss_bytes()
        if PEERS:
            with Peer(model, args.threads, ["--spm-infill"] if infill else []) as s:
                s.post("/completion", {"prompt": "int", "n_predict": 1})
                theirs["start"].append(time.monotonic() - s.started)
                if infill:
                    theirs["typing"].append(peer_typing(s, text, at))
    print(f"\n{os.path.basename(model)}, {args.threads} threads, {args.rounds} rounds\n\n| | llama.cpp | warmd | ratio |\n|---|---|---|---|")
    row(f"prefill {N_PREFILL}, tokens/s", ours["prefill"], theirs["prefill"])
    row("decode, tokens/s", ours["decode"], theirs["decode"])
    row("first text after one typed character, ms", ours["typing"], theirs["typing"], True)
    row("the same in decode steps at this depth, healing's apart", ours["steps"], [])
    row("complete beyond the engine's own time, in the daemon, us", ours["wire"], [])
    row("start to first token, s", ours["start"], theirs["start"], True)
    m = status["models"][0]
    held = m["weights_bytes"] + m["kv_bytes"] + m["cache"]["index_bytes"]
    print(f"\nMemory: PSS {pss / 2**20:.1f} MiB = weights {m['weights_bytes'] / 2**20:.1f} + KV {m['kv_bytes'] / 2**20:.1f} + index "
          f"{m['cache']['index_bytes'] / 2**20:.1f} + {(pss - held) / 2**20:.1f} (of which vocabulary {m['vocab_bytes'] / 2**20:.1f}, scratch "
          f"{status['engine']['scratch_bytes'] / 2**20:.1f}, buffers {status['server']['buffer_bytes'] / 2**20:.1f})")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--build", default=os.path.join(ROOT, "build"))
    p.add_argument("models", nargs="*")
    args = p.parse_args()
    shipped = os.path.join(ROOT, "models", "warm-nano-q8_0.gguf")
    with tempfile.TemporaryDirectory(prefix="warm-compare-") as work:
        models = args.models
        if not models:
            models = [shipped]
            if PEERS:
                models.append(work + "/warm-nano-q4_k_m.gguf")
                subprocess.run([PEERS + "/llama-quantize", "--allow-requantize", shipped, models[-1], "Q4_K_M"], check=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if os.environ.get("WARM_SMOLLM"):
                models.append(os.environ["WARM_SMOLLM"])
        for model in models:
            compare(model, args)


if __name__ == "__main__":
    main()
