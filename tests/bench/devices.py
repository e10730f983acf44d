#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""devices.py [--devices A,B] [--prompts N] [--new N] [--seed N] [--together N] [--bytes N] [--build DIR] [--json FILE] [--no-shipped]
[--no-float32] [MODEL...]: do two devices write the same? The same warmd, files and client, through the socket; default cpu,cuda:0.

A device may bring further options of warmd: cpu+kv-type=f32. The models are those in models/ (not with --no-shipped) and each MODEL.

Texts: N prompts (default 500) of 5 to 400 tokens are cut out of this repository's sources, as they are now, every other one around a cursor
(prefix and suffix, not healed), and each device adds up to 24 tokens, the likeliest each time. Up to the first difference both saw the same
tokens, so their logits can be compared: the logit error is the difference of the log-probabilities of the tokens that both have among their
8 likeliest, less its mean at that position. Its measure is the 95% quantile of its size over all those positions (two standard deviations,
were it normal): a few far-off positions, wrong ones perhaps, do not raise it. A first difference is a near-tie if the first device gives its
own token at most 4 times that measure more than the other's. Who ended has no list there: then the other's is taken, and the likeliest
control token in it. A larger gap may be the first device's own error: in float32 (below) the two tokens have to be that close then.

NLL: about 20 KB of the sources in windows of at most 512 tokens, by `score`, all but each window's first token; and in float32 with nothing
rounded but the weights (tests/kernels/oracle.py), where numpy and the build's write-logits are and the file is not over 1 GiB.

Held, exit 1 otherwise: each first difference is a near-tie; the second device's NLL is not above the first's by more than 3 standard errors
of the difference, token by token. Asserts nothing about time. Needs python3 only.
"""
import argparse, contextlib, itertools, json, math, os, random, statistics, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from warmrpc import Daemon

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SHIPPED = [os.path.join(ROOT, "models", name) for name in ("warm-nano-draft-q8_0.gguf", "warm-nano-q8_0.gguf")]
FOLDERS, ENDINGS = ("client", "daemon", "kernels", "shm", "tests"), (".c", ".h", ".cu", ".cuh", ".py")
N_LEAST, N_MOST, N_HOLE, N_TOP, N_WINDOW = 5, 400, 16, 8, 512
QUANTILE, TIE_ERRORS, NLL_ERRORS, N_SHOWN, FLOAT_BYTES_MAX = 0.95, 4, 3, 20, 1 << 30


def sources():
    """The repository's files, in an order that depends on their names alone."""
    out = []
    for top in FOLDERS:
        for path, below, names in os.walk(os.path.join(ROOT, top)):
            below.sort()
            out += [os.path.join(path, n) for n in sorted(names) if n.endswith(ENDINGS)]
    return [open(p, encoding="utf-8").read() for p in out]


class Device(Daemon):
    """A daemon on one device, for one model."""

    def __init__(self, spec, model, build):
        device, *options = spec.split("+")
        super().__init__(build, ["--model", model, "--device", device] + [a for o in options for a in ("--" + o).split("=", 1)])
        try:
            self.c = self.connect()
            self.context = self.c.call("models")["models"][0]["context"]
            self.description = self.c.call("status")["engine"]["description"]
        except OSError as e:            # the socket is there before the device is
            with open(self.dir + "/log", encoding="utf-8") as f:
                log = f.read()
            self.__exit__()
            raise SystemExit(f"{spec}: {log or e}") from None

    def text(self, ids):
        return self.c.call("tokenize", ids=ids)["text"]

    def answers(self, prompts, args):
        """One a prompt, args.together at a time, each on a connection of its own."""
        connections, out = [self.connect() for _ in range(args.together)], []
        for at in range(0, len(prompts), args.together):
            asked = [(c, c.start("complete", n_max=args.new, raw=True, lines=0, heal=False, temperature=0.0, logprobs=N_TOP, **p))
                     for c, p in zip(connections, prompts[at : at + args.together])]
            out += [c.wait(number) for c, number in asked]
        for c in connections:
            c.socket.close()
        return out

    def scores(self, windows):
        """Log-probabilities of the windows' tokens, the first of each left out."""
        return [x for ids in windows for x in self.c.call("score", ids=ids)["logprobs"][1:]]


def cut_prompts(device, texts, args):
    """Parameters of `complete`: starts of lines, as many tokens as a number whose logarithm is uniform."""
    rng, out, most = random.Random(args.seed), [], min(N_MOST, device.context - args.new - 64)
    sizes = [len(t) for t in texts]
    while len(out) < args.prompts:
        text, n = rng.choices(texts, sizes)[0], round(math.exp(rng.uniform(math.log(N_LEAST), math.log(most))))
        at = text.rfind("\n", 0, rng.randrange(len(text) + 1)) + 1
        ids = device.c.call("tokenize", text=text[at : at + 16 * (n + N_HOLE)])["ids"][: n + N_HOLE]
        if len(ids) < n + N_HOLE:
            continue
        cursor = rng.randrange(n // 2, n)
        if len(out) % 2:
            out.append({"prefix": device.text(ids[:cursor]), "suffix": device.text(ids[cursor + N_HOLE :])})
        else:
            out.append({"prompt": ids[:n]})
    return out


def cut_windows(device, texts, args):
    """About args.bytes of the sources, a piece of each of some files, as ids."""
    piece, step = 2000, max(1, len(texts) // max(1, args.bytes // 2000))
    text = "".join(t[:piece].rpartition("\n")[0] + "\n" for t in texts[step // 2 :: step])[: args.bytes]
    ids, n = device.c.call("tokenize", text=text)["ids"], min(N_WINDOW, device.context)
    return [w for w in (ids[at : at + n] for at in range(0, len(ids), n)) if len(w) > 1]


def first_difference(a, b):
    """The first token that differs, or that only one has; None if there is none."""
    for k, (x, y) in enumerate(itertools.zip_longest(a["ids"], b["ids"])):
        if x != y:
            return k
    return None if a["finish"] == b["finish"] else len(a["ids"])


def top_of(answer, k):
    return dict(answer["logprobs"][k]["top"]) if k < len(answer["logprobs"]) else {}


def errors_at(a, b, k):
    """Of the logits of the tokens that both lists have."""
    x, y = top_of(a, k), top_of(b, k)
    d = [y[t] - x[t] for t in x if t in y]
    return [v - statistics.fmean(d) for v in d] if len(d) > 1 else []


def gap_of(a, b, k, device):
    """How much more the first device gives its own token than the other's; inf: not told by its list."""
    x, y = top_of(a, k), top_of(b, k)
    if x and y:
        return x.get(a["ids"][k], math.inf) - x.get(b["ids"][k], -math.inf)
    top, went_on = (x, a) if x else (y, b)
    ends = [p for t, p in top.items() if not device.text([t])]
    return abs(top[went_on["ids"][k]] - max(ends)) if ends else math.inf


def quantile(values, q):
    return sorted(values)[min(len(values) - 1, int(q * len(values)))] if values else 0.0


def rms(values):
    return math.sqrt(statistics.fmean(v * v for v in values)) if values else 0.0


def mean_and_error(values):
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))


def compare_texts(prompts, ours, theirs, device):
    """Everything about the texts, as it goes into the JSON file."""
    errors, found, n_positions = [], [], 0
    for i, (a, b) in enumerate(zip(ours, theirs)):
        k = first_difference(a, b)
        for at in range(min(len(a["ids"]), len(b["ids"]), len(a["ids"]) if k is None else k + 1)):
            e = errors_at(a, b, at)
            errors += e
            n_positions += bool(e)
        if k is not None:
            found.append({"prompt": i, "at": k, "gap": gap_of(a, b, k, device), "texts_equal": a["text"] == b["text"],
                          "asked": prompts[i].get("prefix") or device.text(prompts[i]["prompt"]), "suffix": prompts[i].get("suffix", ""),
                          "answers": [a["text"], b["text"]], "finish": [a["finish"], b["finish"]]})
    sizes = [abs(e) for e in errors]
    bound = TIE_ERRORS * quantile(sizes, QUANTILE)
    for f in found:
        f["near_tie"] = f["gap"] <= bound
        if not f["near_tie"]:           # what judge() needs
            p, a, b, k = prompts[f["prompt"]], ours[f["prompt"]], theirs[f["prompt"]], f["at"]
            f["before"] = (p.get("prompt") or device.c.call("explain", heal=False, **p)["ids"]) + a["ids"][:k]
            f["tokens"] = [x["ids"][k] if k < len(x["ids"]) else None for x in (a, b)]
        f["gap"] = f["gap"] if f["gap"] < math.inf else None    # JSON has no infinity
    lengths = [a["cache"]["prompt"] for a in ours]
    return {"prompts": len(prompts), "fim": sum(a["fim"] for a in ours), "prompt_tokens": [min(lengths), statistics.median(lengths), max(lengths)],
            "equal": len(prompts) - len(found), "texts_equal": sum(a["text"] == b["text"] for a, b in zip(ours, theirs)),
            "tokens": sum(len(a["ids"]) for a in ours), "positions": n_positions, "error_rms": rms(errors), "error_quantile": bound / TIE_ERRORS,
            "error_largest": max(sizes, default=0.0), "bound": bound, "differences": found}


@contextlib.contextmanager
def float32(model, args):
    """ids -> log-probabilities [position][token] with nothing rounded but the weights; or why not, as text."""
    tool = os.path.join(args.build, "tests", "daemon", "model", "write-logits")
    if not args.float32 or os.path.getsize(model) > FLOAT_BYTES_MAX or not os.access(tool, os.X_OK):
        yield "not asked for" if not args.float32 else "the model is too large" if os.access(tool, os.X_OK) else "the build has no write-logits"
        return
    try:
        import numpy as np
    except ImportError:
        yield "numpy is not installed"
        return
    sys.path.insert(0, os.path.join(ROOT, "tests", "kernels"))
    import oracle

    def logprobs(ids):
        x = reference.logits(np.array(ids)).astype(np.float64)
        x -= x.max(axis=1, keepdims=True)
        return x - np.log(np.exp(x).sum(axis=1, keepdims=True))

    with tempfile.TemporaryDirectory(prefix="warm-devices-") as folder:
        subprocess.run([tool, model, "plan", folder], check=True)
        with open(os.path.join(folder, "plan.json"), encoding="utf-8") as f:
            plan = json.load(f)
        reference = oracle.Model(plan, np.memmap(os.path.join(folder, "tensors.f32"), "<f4", "r"), quantize=False, kv_half=False, dtype=np.float32)
        yield logprobs


def judge(found, logprobs):
    """Differences whose gap is beyond the bound: float32 knows how far apart the two tokens are."""
    for f in found["differences"]:
        if not f["near_tie"] and None not in f["tokens"]:
            row = logprobs(f["before"])[-1]
            f["float32_gap"] = abs(float(row[f["tokens"][0]] - row[f["tokens"][1]]))
            f["near_tie"] = f["float32_gap"] <= found["bound"]


def compare_nll(scores):
    """scores: log-probabilities by name; each row's difference is to the first and, if it is there, to float32."""
    names, out = list(scores), {}
    for name in names:
        out[name] = {"nll": -statistics.fmean(scores[name])}
        for other in (names[0], "float32"):
            if other in scores and other != name:
                d = [y - x for x, y in zip(scores[name], scores[other])]
                mean, error = mean_and_error(d)
                out[name]["less " + other] = {"mean": mean, "error": error, "rms": rms(d), "largest": max(map(abs, d))}
    return out


def print_texts(t, specs):
    gaps, rows = [math.inf if f["gap"] is None else f["gap"] for f in t["differences"]], []
    near = sum(f["near_tie"] for f in t["differences"])
    rows.append(("prompts: in all, with fill-in-the-middle", f"{t['prompts']}, {t['fim']}"))
    rows.append(("tokens of a prompt: least, median, most", ", ".join(f"{n:g}" for n in t["prompt_tokens"])))
    rows.append(("tokens written", f"{t['tokens']:,}"))
    rows.append(("texts equal", f"{t['texts_equal']}, {100 * t['texts_equal'] / t['prompts']:.1f}%"))
    rows.append(("tokens and end equal too", f"{t['equal']}, {100 * t['equal'] / t['prompts']:.1f}%"))
    rows.append(("positions compared", f"{t['positions']:,}"))
    rows.append((f"logit error: rms, {100 * QUANTILE:g}% quantile, largest", f"{t['error_rms']:.4f}, {t['error_quantile']:.4f}, {t['error_largest']:.4f}"))
    rows.append((f"first differences; near-ties, gap <= {TIE_ERRORS} x the quantile = {t['bound']:.4f}", f"{len(gaps)}; {near}"))
    if gaps:
        rows.append((f"their gaps: median, largest; within {TIE_ERRORS} x rms", f"{statistics.median(gaps):.4f}, {max(gaps):.4f}; "
                     f"{sum(g <= TIE_ERRORS * t['error_rms'] for g in gaps)}"))
    judged = [f["float32_gap"] for f in t["differences"] if "float32_gap" in f]
    if judged:
        rows.append(("beyond it, judged in float32; gaps there", f"{len(judged)}; " + ", ".join(f"{g:.4f}" for g in judged)))
    print(f"\n| {specs[1]} against {specs[0]} | |\n|---|---|")
    for row in rows:
        print(f"| {row[0]} | {row[1]} |")
    wrong = [f for f in t["differences"] if not f["near_tie"]]
    for f in wrong[:N_SHOWN]:
        print(f"\nNo near-tie: prompt {f['prompt']}, token {f['at']}, gap {f['gap'] if f['gap'] is not None else 'beyond the list'}\n  prompt: {f['asked']!r}")
        if f["suffix"]:
            print(f"  suffix: {f['suffix']!r}")
        for i in range(2):
            print(f"  {specs[i]}: {f['answers'][i]!r} ({f['finish'][i]})")
    if len(wrong) > N_SHOWN:
        print(f"\nand {len(wrong) - N_SHOWN} more (--json has them all)")


def print_nll(nll, n_tokens, n_windows, why):
    others = [o for o in (next(iter(nll)), "float32") if o in nll]
    print(f"\n| {n_tokens:,} tokens in {n_windows} windows | NLL, nats |" + "".join(f" less {o} | a token's log-probability: rms, largest |" for o in others))
    print("|---|---|" + "---|---|" * len(others))
    for name, r in nll.items():
        cells = [(f"{d['mean']:+.5f} +- {d['error']:.5f}", f"{d['rms']:.4f}, {d['largest']:.3f}") if d else ("-", "-")
                 for d in (r.get("less " + o) for o in others)]
        print(f"| {name} | {r['nll']:.5f} |" + "".join(f" {a} | {b} |" for a, b in cells))
    if why:
        print(f"\nWithout float32: {why}")


def compare(model, texts, args):
    """Return: what was found, for the JSON file."""
    answers, scores = [], {}
    print(f"\n{os.path.basename(model)}", flush=True)
    with Device(args.devices[0], model, args.build) as first, Device(args.devices[1], model, args.build) as second:
        prompts, windows = cut_prompts(first, texts, args), cut_windows(first, texts, args)
        for spec, d in zip(args.devices, (first, second)):
            name, started = spec if spec not in scores else spec + " again", time.monotonic()
            answers.append(d.answers(prompts, args))
            scores[name] = d.scores(windows)
            print(f"{name}: {d.description} ({time.monotonic() - started:.0f} s)", flush=True)
        found = compare_texts(prompts, *answers, first)
    names = list(scores)
    with float32(model, args) as reference:
        if not isinstance(reference, str):
            scores["float32"] = [float(row[token]) for ids in windows for row, token in zip(reference(ids), ids[1:])]
            judge(found, reference)
    nll = compare_nll(scores)
    print_texts(found, names)
    print_nll(nll, len(scores[names[0]]), len(windows), reference if isinstance(reference, str) else None)
    d, wrong = nll[names[1]]["less " + names[0]], sum(not f["near_tie"] for f in found["differences"])
    errors = [f"{wrong} first differences are no near-ties"] if wrong else []
    if d["mean"] > NLL_ERRORS * d["error"]:
        errors.append(f"{names[1]} has a worse NLL than {names[0]}")
    for e in errors:
        print(f"\n{os.path.basename(model)}: {e}", flush=True)
    return {"model": os.path.basename(model), "devices": names, "descriptions": [first.description, second.description], "texts": found, "nll": nll, "errors": errors}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--devices", type=lambda s: s.split(","), default=["cpu", "cuda:0"])
    p.add_argument("--prompts", type=int, default=500)
    p.add_argument("--new", type=int, default=24)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--together", type=int, default=1, help="prompts in flight")
    p.add_argument("--bytes", type=int, default=20000, help="of text to score")
    p.add_argument("--build", default=os.path.join(ROOT, "build"))
    p.add_argument("--json")
    p.add_argument("--no-shipped", dest="shipped", action="store_false")
    p.add_argument("--no-float32", dest="float32", action="store_false")
    p.add_argument("models", nargs="*")
    args = p.parse_intermixed_args()
    if len(args.devices) != 2:
        p.error("--devices wants two, as in cpu,cuda:0")
    texts = sources()
    results = [compare(m, texts, args) for m in (SHIPPED if args.shipped else []) + args.models]
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump({"seed": args.seed, "new": args.new, "together": args.together, "results": results}, f, indent=1)
    return int(any(r["errors"] for r in results))


sys.exit(main())
