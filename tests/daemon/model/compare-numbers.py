#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""compare-numbers.py WRITE-LOGITS TOKENIZE-FILE [--tokens N] [--exact N] [--all] [--rope] [MODEL...]: are the numbers right?

N tokens of source text (default 2,048) run in windows of 512, each a sequence of its own, through
  the CPU backend, K and V in binary16,
  tests/kernels/oracle.py in float32 with nothing quantized but the weights (as the file has them),
  tests/kernels/exact.py (the first --exact tokens, in windows of 320): every rounding as the kernels do it,
  a peer: llama-perplexity, if WARM_PEERS names a folder with it: its log-probabilities come in 16 bits, cut at 16 below
  the highest; ours are rounded and float32's cut alike. Else oracle.py with the kernels' roundings, in float64: so it does
  not depend on the order in which a BLAS sums, which moves roundings (float32's logits hardly do).

Held, exit 1 otherwise:
  exact: the bound is 0; logits equal bit for bit in >= 99.9% of positions (each fma of the oracle may be rounded twice
  the wrong way in one of 2^29), top-1 in >= 99.9%;
  float32: top-1 and negative log-likelihood (NLL) no worse than the peer's by more than 3 standard errors of the
  difference, position by position; the root mean square of the logits' error not over 1.05 times the peer's; without
  llama.cpp NLL within 3 standard errors of float32's, too;
  the peer's root mean square is not over twice ours: else it computes something else than the plan says.
Scored are the positions that llama-perplexity scores: the second half of each window.

Why no fixed share of top-1: what int8 moves depends on how close the text's calls are, 1.2% of 30,600 positions of the
draft model, 2.5% of 1,020 of some texts, where one standard error is 0.4%, and 2.8% with SmolLM2. A peer on the same
positions has the same calls. How far chance alone carries two sides (51,000 positions of the main model, 30,600 of the
draft, warmd and llama.cpp and oracle.py with each other): top-1 and NLL show no autocorrelation at lags 1 to 50, so their
plain standard error is the right one (windows as the units: at most 1.14 times it); the ratio of the root mean squares
over 1,020 positions has a standard deviation of 0.02 (draft) and 0.03 to 0.05 (main: some windows err far more, on either
side). So one over 1.05 on another text of that length says nothing yet: take more tokens.

The text is numbers.txt as far as that goes: beginnings of source files, kept so that the test's result depends neither on
the machine's files nor on an edit here. Longer texts are pieces of source files of this repository and of this machine,
the first --skip bytes left out.

Without MODEL: the draft and the main model in models/. --all: also warm-nano as Q4_K_M (made by llama-quantize), and
SmolLM2 ($WARM_SMOLLM, a file or a folder of GGUF files). --rope: the draft model with metadata that scales RoPE, each
way that both read (qwen2's yarn_beta_*, yarn_ext_factor and yarn_attn_factor only daemon/model does); what comes out is
poorer text, but the same on all sides. docs/PERFORMANCE.md says how its table was made.
"""
import argparse, glob, json, os, subprocess, sys, tempfile, threading, time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")      # its threads spin, and lose against those of others

try:
    import numpy as np
except ImportError:
    print("numpy is not installed")
    sys.exit(77)

ROOT = os.environ.get("WARM_SOURCE_ROOT") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../..")
sys.path.insert(0, os.path.join(ROOT, "tests/kernels"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import exact, gguf_edit, oracle

PEERS = next((f for f in (os.environ.get("WARM_PEERS"), os.path.join(ROOT, "../shared/peers/llama-cpu"))
              if f and os.access(os.path.join(f, "llama-perplexity"), os.X_OK)), None)
WINDOW, EXACT_WINDOW, PIECE_BYTES = 512, 320, 6000
TEXTS = [(ROOT + "/daemon", ".c"), ("/usr/include", ".h"), ("/usr/lib/python3", ".py"), (ROOT + "/tests", ".py"), ("/usr/share/perl", ".pm"),
         ("/usr/include/c++", ".h"), (ROOT + "/kernels", ".h"), ("/usr/share/bash-completion", ""), (ROOT + "/client", ".c"), ("/usr/share", ".js"),
         (os.path.dirname(os.__file__), ".py")]


def files_of(top, ending, n_max=300):
    out = []
    for path, below, names in os.walk(top):
        below.sort()
        out += [os.path.join(path, n) for n in sorted(names) if n.endswith(ending) and os.path.isfile(os.path.join(path, n))]
        if len(out) > n_max:
            break
    return out


def text_of(n_bytes, skip):
    """numbers.txt, or pieces of source files, the kinds in turn, from the skip-th byte on."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "numbers.txt"), "rb") as f:
        text = f.read()
    if skip + n_bytes <= len(text):
        return text[skip:skip + n_bytes]
    n_bytes += skip
    kinds = [files_of(*t) for t in TEXTS]
    text = b""
    for i in range(max(map(len, kinds))):
        for paths in kinds:
            if i < len(paths) and len(text) < n_bytes:
                with open(paths[i], "rb") as f:
                    data = f.read(PIECE_BYTES).decode("utf-8", "ignore").replace("\r", "").replace("\0", "")
                text += data.rpartition("\n")[0].encode() + b"\n"
    return text[skip:]


class Peer:
    """What llama-perplexity writes as a base for divergences, checked against the tokens that we run."""

    def __init__(self, model, text, tokens, folder, threads):
        path, n = os.path.join(folder, "peer.kld"), len(tokens) // WINDOW
        run = subprocess.run([os.path.join(PEERS, "llama-perplexity"), "-m", model, "-f", text, "-c", str(WINDOW), "-b", str(WINDOW), "--chunks", str(n),
                              "-t", str(threads), "--no-escape", "--kl-divergence-base", path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             env=dict(os.environ, LD_LIBRARY_PATH=PEERS), check=False)
        if run.returncode:
            raise OSError(f"llama-perplexity ended with {run.returncode}: {run.stdout.decode(errors='replace')[-300:]}")
        head = np.fromfile(path, "<i4", 3, offset=8)
        self.n_vocab = int(head[1])
        assert head[0] == WINDOW and head[2] == n, head
        assert (np.fromfile(path, "<i4", len(tokens), offset=20) == tokens).all(), "the peer has other tokens"
        self.rows, self.cols = WINDOW - 1 - WINDOW // 2, 2 * ((self.n_vocab + 1) // 2) + 4
        self.data = np.memmap(path, "<u2", "r", 20 + 4 * len(tokens), (n, self.rows, self.cols))
        os.unlink(path)

    def logprobs(self, window):
        rows = self.data[window]
        scale, least = (rows[:, 2 * i:2 * i + 2].copy().view("<f4").astype(np.float64) for i in (0, 1))
        return least + scale * rows[:, 4:4 + self.n_vocab]


def windows(tool, model, tokens, window, threads, n_vocab):
    """The backend's logits, a window at a time."""
    p = subprocess.Popen([tool, model, "logits", str(window), str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def feed():
        p.stdin.write(tokens.astype("<i4").tobytes())
        p.stdin.close()

    threading.Thread(target=feed).start()
    for _ in range(len(tokens) // window):
        data = p.stdout.read(window * n_vocab * 4)
        assert len(data) == window * n_vocab * 4, "write-logits ended early"
        yield np.frombuffer(data, "<f4").reshape(window, n_vocab)
    p.stdout.close()
    if p.wait():
        raise OSError("write-logits failed")


def logprobs(logits, rounded=False):
    """Log-probabilities, cut where the peer's are; rounded: to 16 bits, as those."""
    x = logits.astype(np.float64)
    x -= x.max(axis=1, keepdims=True)
    total = np.log(np.exp(x).sum(axis=1, keepdims=True))
    x = np.maximum(x, -16)
    return (np.rint(x * (65535 / 16)) * (16 / 65535) if rounded else x) - total


class Score:
    """One side against float32, position by position."""

    def __init__(self):
        self.same, self.nll, self.square, self.worst, self.kl = [], [], [], 0, []

    def add(self, x, reference, tokens):
        at = np.arange(len(tokens))
        best = x[at, reference.argmax(axis=1)]
        self.same.append(best == x.max(axis=1))          # 16 bits have ties: all of them count
        self.nll.append(-x[at, tokens])
        error = x - reference
        error -= error.mean(axis=1, keepdims=True)       # of logits: without what the normalization shifts
        self.square.append((error ** 2).mean(axis=1))
        self.worst = max(self.worst, np.abs(error).max())
        self.kl.append((np.exp(reference) * (reference - x)).sum(axis=1))

    def end(self):
        self.same, self.nll, self.square, self.kl = (np.concatenate(v) for v in (self.same, self.nll, self.square, self.kl))

    def row(self, name):
        return (f"| {name} | {100 * self.same.mean():.2f}% | {self.nll.mean():.5f} | {np.sqrt(self.square.mean()):.4f} | {self.worst:.3f} "
                f"| {1e4 * self.kl.mean():.2f} |")


def difference(ours, theirs):
    """Mean and standard error of a paired difference."""
    d = ours.astype(np.float64) - theirs
    return d.mean(), d.std() / np.sqrt(len(d))


def plan_of(tool, model, folder):
    subprocess.run([tool, model, "plan", folder], check=True)
    with open(os.path.join(folder, "plan.json"), encoding="utf-8") as f:
        plan = json.load(f)
    return plan, np.memmap(os.path.join(folder, "tensors.f32"), "<f4", "r"), np.memmap(os.path.join(folder, "tensors.raw"), "u1", "r")


def compare_exact(args, model, plan, tensors, raw, tokens):
    """Return: an error or None."""
    reference, equal, same, worst, n_vocab = exact.Model(plan, tensors, raw), [], [], 0, plan["embedding"]["rows"]
    tokens = tokens[:max(1, args.exact // EXACT_WINDOW) * EXACT_WINDOW]
    for i, ours in enumerate(windows(args.write_logits, model, tokens, EXACT_WINDOW, args.threads, n_vocab)):
        theirs = reference.logits(tokens[i * EXACT_WINDOW:(i + 1) * EXACT_WINDOW])
        equal.append((ours == theirs).all(axis=1))
        same.append(ours.argmax(axis=1) == theirs.argmax(axis=1))
        worst = max(worst, np.abs(ours - theirs).max())
    equal, same = np.concatenate(equal), np.concatenate(same)
    print(f"against exact.py, {len(equal)} positions: {100 * equal.mean():.2f}% equal bit for bit, top-1 {100 * same.mean():.2f}%, "
          f"largest difference of a logit {worst:.3g} (bound: 0)", flush=True)
    return None if equal.mean() >= 0.999 and same.mean() >= 0.999 else "not the numbers that the headers define"


def compare_float(args, model, plan, tensors, tokens, peer):
    """Return: an error or None."""
    reference = oracle.Model(plan, tensors, quantize=False, kv_half=False, dtype=np.float32)
    rounding, name, half = oracle.Model(plan, tensors), "llama.cpp" if peer else "oracle.py", WINDOW // 2
    scores = {"float32": Score(), "warmd": Score(), name: Score()}
    for i, ours in enumerate(windows(args.write_logits, model, tokens, WINDOW, args.threads, plan["embedding"]["rows"])):
        ids = tokens[i * WINDOW:(i + 1) * WINDOW]
        truth, after = logprobs(reference.logits(ids)[half:-1]), ids[half + 1:]
        scores["float32"].add(truth, truth, after)
        scores["warmd"].add(logprobs(ours[half:-1], rounded=True), truth, after)
        scores[name].add(peer.logprobs(i) if peer else logprobs(rounding.logits(ids)[half:-1], rounded=True), truth, after)
    for s in scores.values():
        s.end()
    print(f"\n| {os.path.basename(model)}, {len(tokens)} tokens, {len(scores['warmd'].nll)} scored | top-1 as float32 | NLL, nats "
          "| logit error, rms | largest | KL, 1e-4 nats |\n|---|---|---|---|---|---|")
    for side, s in scores.items():
        print(s.row(side))
    ours, theirs = scores["warmd"], scores[name]
    nll, nll_error = difference(ours.nll, theirs.nll)
    same, same_error = difference(ours.same, theirs.same)
    print(f"\nwarmd less {name}: NLL {nll:+.5f} +- {nll_error:.5f}, top-1 {100 * same:+.2f}% +- {100 * same_error:.2f}%", flush=True)
    if theirs.square.mean() > 4 * ours.square.mean():
        return name + " computes another model"
    if nll > 3 * nll_error:
        return "a worse NLL than " + name
    loss, loss_error = difference(ours.nll, scores["float32"].nll)
    if not peer and loss > 3 * loss_error:
        return "a worse NLL than float32"
    if same < -3 * same_error or ours.square.mean() > 1.05 ** 2 * theirs.square.mean():
        return "further from float32 than " + name
    return None


def compare(args, model, text, folder):
    started, errors, peer = time.monotonic(), [], None
    plan, tensors, raw = plan_of(args.write_logits, model, folder)
    ids = subprocess.run([args.tokenize_file, model], input=text.encode() + b"\n", stdout=subprocess.PIPE, check=True).stdout
    ids = np.array(json.loads(ids), "<i4")
    tokens = ids[:-(-args.tokens // WINDOW) * WINDOW]
    assert len(tokens) >= args.tokens, "this machine has too little text"
    print(f"\n{os.path.basename(model)}", flush=True)
    if args.exact:
        errors.append(compare_exact(args, model, plan, tensors, raw, tokens))
    if PEERS:
        try:
            peer = Peer(model, text, tokens, folder, args.threads)
        except OSError as e:
            print(f"without llama.cpp: {e}")
    errors.append(compare_float(args, model, plan, tensors, tokens, peer))
    for e in filter(None, errors):
        print(f"{model}: {e}")
    print(f"({time.monotonic() - started:.0f} s)", flush=True)
    return any(errors)


def rope_models(folder):
    source = os.path.join(ROOT, "models/warm-nano-draft-q8_0.gguf")
    yarn = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 256}
    factors = [float(f) for f in np.concatenate([np.ones(10), np.linspace(1, 8, 12), np.full(10, 8)])]
    made = {
        "linear": ({"rope.scaling.type": "linear", "rope.scaling.factor": 3.0}, None, ()),
        "scale-linear": ({"rope.scale_linear": 2.5}, None, ()),
        "yarn": (yarn, None, ()),
        "yarn-attn": ({**yarn, "rope.scaling.attn_factor": 0.8}, None, ()),
        "llama-yarn": (yarn, "llama", ()),
        "llama-3": ({}, "llama", [("rope_freqs.weight", factors)]),
    }
    return [gguf_edit.edit(source, os.path.join(folder, name + ".gguf"), *how) for name, how in made.items()]


def models_of(args, folder):
    if args.rope:
        return rope_models(folder)
    shipped = os.path.join(ROOT, "models/warm-nano-q8_0.gguf")
    models = args.models or [os.path.join(ROOT, "models/warm-nano-draft-q8_0.gguf"), shipped]
    if args.all and PEERS:
        models.append(os.path.join(folder, "warm-nano-q4_k_m.gguf"))
        subprocess.run([os.path.join(PEERS, "llama-quantize"), "--allow-requantize", shipped, models[-1], "Q4_K_M"], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ, LD_LIBRARY_PATH=PEERS))
    place = os.environ.get("WARM_SMOLLM")
    if args.all and place:
        models += [place] if os.path.isfile(place) else sorted(glob.glob(os.path.join(place, "**/*.gguf"), recursive=True))[:1]
    return models


def main():
    p = argparse.ArgumentParser()
    p.add_argument("write_logits")
    p.add_argument("tokenize_file")
    p.add_argument("--tokens", type=int, default=2048)
    p.add_argument("--exact", type=int, default=2048, help="tokens; 0: not at all")
    p.add_argument("--skip", type=int, default=0, help="bytes of the text")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--all", action="store_true")
    p.add_argument("--rope", action="store_true")
    p.add_argument("models", nargs="*")
    args, failed = p.parse_intermixed_args(), False
    if args.rope and not PEERS:
        print("skipped: no llama-perplexity (WARM_PEERS names the folder with llama.cpp's binaries)")
        return 77
    with tempfile.TemporaryDirectory(prefix="warm-numbers-") as folder:
        text = os.path.join(folder, "text")
        with open(text, "wb") as f:
            f.write(text_of(max(args.tokens, args.exact) * 6, args.skip))
        for model in models_of(args, folder):
            failed |= compare(args, model, text, folder)
    return int(failed)


sys.exit(main())
