#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""compare-tokens.py TOKENIZE-FILE [--bytes N] [--only NAME] [FOLDER]...: token for token against llama-tokenize.

Source text is what this machine has: the folders in PLACES, then those given. It is packed into texts of some 256 KiB,
each of one language, taken in turn until N bytes (default 10 MB) are there; a text of random Unicode and one of awkward
white space, digits and contractions come on top. Every vocabulary at hand tokenizes all of it:
  warm-nano (models/) under its own pre-tokenizer and renamed to each other one,
  SmolLM2 ($WARM_SMOLLM, a file or a folder of GGUF files; else WARM_PEERS/../smollm),
  a byte-level BPE vocabulary made up here whose merges reach across every cut, under each pre-tokenizer,
  a llama-spm vocabulary made up here from the words of the text itself.
The reference is WARM_PEERS/llama-tokenize --no-parse-special (else ../shared/peers/llama-cpu beside the source tree).
Exit: 0 no difference; 1 differences; 77 no reference here.

Left out of SentencePiece: texts with U+2581, which the reference reads as a space and we keep (detokenize gives back x).
"""
import argparse, collections, glob, json, os, random, re, struct, subprocess, sys, tempfile

PLACES = ["/usr/include", "/usr/lib", "/usr/share", "/usr/local", os.path.expanduser("~/.cargo")]
LANGUAGES = {"Python": ("py",), "C": ("c", "h"), "C++": ("cpp", "hpp", "cc", "hh"), "JavaScript": ("js", "mjs"), "TypeScript": ("ts",),
             "Go": ("go",), "Rust": ("rs",), "Java": ("java",), "Perl": ("pl", "pm"), "Shell": ("sh", "bash"), "PHP": ("php",),
             "Ruby": ("rb",), "Lua": ("lua",), "Vim script": ("vim",), "CSS": ("css",), "HTML": ("html",), "Tcl": ("tcl",),
             "JSON": ("json",), "Markdown": ("md",), "XML": ("xml",), "SQL": ("sql",)}
BY_ENDING = {e: name for name, endings in LANGUAGES.items() for e in endings}
PRES = ["qwen2", "llama-bpe", "llama-v3", "smollm", "gpt-2", "starcoder", "deepseek-coder", "seed-coder"]
TEXT_BYTES, FILES_MAX = 1 << 18, 5000    # files: of a language, from each place


def texts_of(folders, n_bytes, folder):
    """Texts of one language each, the languages in turn. A line over 4,000 bytes ends its file: std::regex, which the
    reference uses for some pre-tokenizers, calls itself for each character of a match."""
    files = collections.defaultdict(list)
    for top in folders:
        here = collections.Counter()
        for path, below, names in os.walk(top):
            below.sort()
            for name in sorted(names):
                language = BY_ENDING.get(name.rsplit(".", 1)[-1])
                if language and here[language] < FILES_MAX and not os.path.islink(os.path.join(path, name)):
                    files[language].append(os.path.join(path, name))
                    here[language] += 1
    for paths in files.values():
        random.Random(1).shuffle(paths)
    out, total, per_language = [], 0, collections.Counter()
    while total < n_bytes and any(files.values()):
        for language in [l for l in files if files[l]]:
            text = b""
            while files[language] and len(text) < TEXT_BYTES:
                try:
                    data = open(files[language].pop(), "rb").read(TEXT_BYTES)
                except OSError:
                    continue
                data = data.decode("utf-8", "ignore").encode()
                long = re.search(rb"[^\n]{4000}", data)
                text += data[:long.start()] if long else data
            if text and total < n_bytes:
                out.append(os.path.join(folder, f"{len(out):03d}-{language.replace(' ', '-')}"))
                open(out[-1], "wb").write(text)
                total += len(text)
                per_language[language] += len(text)
    return out, per_language


def odd_texts(folder):
    """All of Unicode in random order, and the shapes that pre-tokenizers disagree about."""
    r, out = random.Random(2), []
    points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    r.shuffle(points)
    kinds = {"all": lambda: "".join(map(chr, points[:200000])),
             "words": lambda: "".join(r.choice("abcXYZ\u00e9\u03b1\u4e2d\uac00\u0e01 \t\n\r0129\u0663\u00b2'.,!$+\u2581\u3000\u0301_-(\u201c")
                                      for _ in range(200000)),
             "shapes": lambda: "".join(r.choice(["'s", "'S", "'re", "'LL", "'vE", "'", " ", "  ", "\t", "\n", "\r\n", "\n\n", " \n", "\u00a0",
                                                 "\u2003", "a", "Zebra", "1", "22", "333", "4444", "\u0967\u0968", "\u2167", "+", " =", "==",
                                                 "();", ".\n", "\u4e2d\u6587", "\u65e5\u672c", "\ud55c\uad6d", "\u0939\u093f\u0928", "e\u0301",
                                                 "\U0001f600", "\u017f", "'\u017f", "\x00", "\x85", "\x1c", "~", "$", "<|fim_prefix|>", "<user>"])
                                       for _ in range(100000))}
    for name, make in kinds.items():
        out.append(os.path.join(folder, "odd-" + name))
        open(out[-1], "wb").write(make().encode())
    return out


# GGUF: just enough to copy the metadata and change it. The reference needs no tensors to tokenize.
def read_metadata(path):
    d, at, out = open(path, "rb").read(), 24, []
    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

    def skip(at, kind):
        if kind == 8:
            return at + 8 + struct.unpack_from("<Q", d, at)[0]
        if kind == 9:
            kind, n = struct.unpack_from("<IQ", d, at)
            at += 12
            if kind in sizes:
                return at + n * sizes[kind]
            for _ in range(n):
                at = skip(at, kind)
            return at
        return at + sizes[kind]

    for _ in range(struct.unpack_from("<Q", d, 16)[0]):
        n = struct.unpack_from("<Q", d, at)[0]
        key, kind = d[at + 8:at + 8 + n].decode(), struct.unpack_from("<I", d, at + 8 + n)[0]
        end = skip(at + 12 + n, kind)
        out.append((key, d[at + 8 + n:end]))
        at = end
    return out


def string(s):
    s = s.encode() if isinstance(s, str) else s
    return struct.pack("<Q", len(s)) + s


def value(v):
    if isinstance(v, bool):
        return struct.pack("<IB", 7, v)
    if isinstance(v, int):
        return struct.pack("<II", 4, v)
    if isinstance(v, float):
        return struct.pack("<If", 6, v)
    if isinstance(v, (str, bytes)):
        return struct.pack("<I", 8) + string(v)
    kind = 8 if isinstance(v[0], (str, bytes)) else 6 if isinstance(v[0], float) else 5
    return struct.pack("<IIQ", 9, kind, len(v)) + (b"".join(map(string, v)) if kind == 8 else
                                                  struct.pack(f"<{len(v)}{'f' if kind == 6 else 'i'}", *v))


def write_metadata(path, pairs):
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + b"".join(string(k) + v for k, v in pairs)
    open(path, "wb").write(head + b"\0" * (-len(head) % 32))


def renamed(path, source, pre):
    pairs = [(k, value(pre) if k == "tokenizer.ggml.pre" else v) for k, v in read_metadata(source)]
    write_metadata(path, pairs)
    return path


def letters():
    """GPT-2's byte alphabet: the character of each byte."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


def made_up_bpe(path, pre, text, n=700):
    """Merges learnt from text that nothing has cut, so that every cut that a pre-tokenizer makes shows in the tokens; tokens
    that no merge comes to, for the rules that take a piece whole; and a user token."""
    alphabet, merges, reserved = letters(), [], {"<user>", "<|fim_prefix|>"}
    symbols = [alphabet[b] for b in open(text, "rb").read()[:30000]]
    for _ in range(n):
        pairs = collections.Counter(p for p in zip(symbols, symbols[1:]) if p[0] + p[1] not in reserved)
        (a, b), _ = max(pairs.items(), key=lambda p: (p[1], p[0]))
        merges.append((a, b))
        out, i = [], 0
        while i < len(symbols):
            both = i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == (a, b)
            out.append(a + b if both else symbols[i])
            i += 1 + both
        symbols = out
    whole = [t for t in ["Zebra", "\u0120Zebra", "4444", "=();", "\u0120="] if t not in {a + b for a, b in merges}]
    tokens = [alphabet[b] for b in range(256)] + list(dict.fromkeys(a + b for a, b in merges)) + whole
    kinds = [1] * len(tokens) + [3, 4, 4]
    tokens += ["<|end|>", "<user>", "\n\n<user"]
    pairs = [("general.architecture", value("qwen2")), ("qwen2.block_count", value(1)), ("qwen2.context_length", value(64)),
             ("qwen2.embedding_length", value(32)), ("qwen2.feed_forward_length", value(32)), ("qwen2.attention.head_count", value(1)),
             ("qwen2.attention.layer_norm_rms_epsilon", value(1e-5)), ("tokenizer.ggml.model", value("gpt2")),
             ("tokenizer.ggml.pre", value(pre)), ("tokenizer.ggml.tokens", value(tokens)), ("tokenizer.ggml.token_type", value(kinds)),
             ("tokenizer.ggml.merges", value([a + " " + b for a, b in merges])), ("tokenizer.ggml.bos_token_id", value(len(tokens) - 3)),
             ("tokenizer.ggml.eos_token_id", value(len(tokens) - 3)), ("tokenizer.ggml.add_bos_token", value(False))]
    write_metadata(path, pairs)
    return path


def made_up_spm(path, texts, n=6000):
    """Every byte, frequent characters, then frequent beginnings, ends and insides of words: scores by rank, some equal."""
    count = collections.Counter()
    for t in texts:
        for word in re.findall(r" ?\w{1,12}| {2,16}|[^\w\s\0]{1,4}", open(t, encoding="utf-8").read()[:60000]):
            for a in range(len(word)):
                for b in range(a + 1, min(len(word), a + 10) + 1):
                    count[word[a:b].replace(" ", "\u2581")] += 1
    pieces = [p for p, _ in count.most_common(n)]
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + pieces + ["<never_split>", "\u00e9\u00e9"]
    kinds = [2, 3, 3] + [6] * 256 + [1] * len(pieces) + [4, 4]
    scores = [0.0] * 259 + [-float(i // 3) for i in range(len(pieces))] + [0.0, 0.0]
    seen, keep = set(), []
    for i, t in enumerate(tokens):
        if t not in seen:
            keep.append(i)
        seen.add(t)
    pick = lambda a: [a[i] for i in keep]
    write_metadata(path, [("general.architecture", value("llama")), ("llama.block_count", value(1)), ("llama.context_length", value(64)),
                          ("llama.embedding_length", value(32)), ("llama.feed_forward_length", value(32)),
                          ("llama.attention.head_count", value(1)), ("llama.attention.layer_norm_rms_epsilon", value(1e-5)),
                          ("tokenizer.ggml.model", value("llama")), ("tokenizer.ggml.tokens", value(pick(tokens))),
                          ("tokenizer.ggml.scores", value(pick(scores))), ("tokenizer.ggml.token_type", value(pick(kinds))),
                          ("tokenizer.ggml.bos_token_id", value(1)), ("tokenizer.ggml.eos_token_id", value(2)),
                          ("tokenizer.ggml.unknown_token_id", value(0))])
    return path


def compare(name, model, texts, tool, peer, flags=()):
    ours = subprocess.run([tool, *flags, model], input="\n".join(texts).encode(), stdout=subprocess.PIPE, check=True).stdout.splitlines()
    assert len(ours) == len(texts)
    n_tokens = n_bytes = n_different = 0
    env = dict(os.environ, LD_LIBRARY_PATH=os.path.dirname(peer))
    for path, line in zip(texts, ours):
        run = subprocess.run(["sh", "-c", 'ulimit -s unlimited; exec "$@"', "sh", peer, "-m", model, "-f", path, "--ids", "--no-parse-special",
                              "--no-bos", "--no-escape", "--log-disable"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
        if run.returncode:
            sys.exit(f"{name}: the reference failed on {path}: {run.stderr.decode()[-300:]}")
        mine, theirs = json.loads(line), json.loads(run.stdout)
        n_bytes += os.path.getsize(path)
        n_tokens += len(theirs)
        if mine == theirs:
            continue
        n_different += 1
        at = next((i for i, (a, b) in enumerate(zip(mine, theirs)) if a != b), min(len(mine), len(theirs)))
        print(f"  {name}: {os.path.basename(path)}: token {at}: ours {mine[at:at + 8]}, theirs {theirs[at:at + 8]}")
    print(f"{name}: {n_bytes / 1e6:.1f} MB, {n_tokens} tokens, {n_different} of {len(texts)} texts differ", flush=True)
    return n_different


def peer_path():
    for folder in (os.environ.get("WARM_PEERS"), os.path.join(os.environ.get("WARM_SOURCE_ROOT", "."), "../shared/peers/llama-cpu")):
        if folder and os.access(os.path.join(folder, "llama-tokenize"), os.X_OK):
            return os.path.join(folder, "llama-tokenize")
    print("skipped: no llama-tokenize (WARM_PEERS names the folder with llama.cpp's binaries)")
    sys.exit(77)


def smollm_files(peer):
    place = os.environ.get("WARM_SMOLLM") or os.path.join(os.path.dirname(peer), "../smollm")
    return [place] if os.path.isfile(place) else sorted(glob.glob(os.path.join(place, "**/*.gguf"), recursive=True))[:1]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("tool")
    p.add_argument("folders", nargs="*")
    p.add_argument("--bytes", type=int, default=10_000_000)
    p.add_argument("--only", default="")
    a = p.parse_args()
    peer, root = peer_path(), os.environ.get("WARM_SOURCE_ROOT", ".")
    nano, n = os.path.join(root, "models/warm-nano-q8_0.gguf"), 0
    with tempfile.TemporaryDirectory() as folder:
        texts, languages = texts_of([root + "/daemon", *PLACES, *a.folders], a.bytes, folder)
        print(", ".join(f"{l} {b / 1e6:.1f} MB" for l, b in languages.most_common()), flush=True)
        odd = odd_texts(folder)
        for pre in PRES:
            if a.only in pre:
                n += compare("warm-nano as " + pre, renamed(folder + "/model.gguf", nano, pre), texts + odd, a.tool, peer)
        shapes = [t for t in odd if t.endswith("shapes")]
        for pre in PRES:
            if a.only in pre:
                n += compare("made-up BPE as " + pre, made_up_bpe(folder + "/model.gguf", pre, shapes[0]), texts + odd, a.tool, peer)
        for path in smollm_files(peer):
            if a.only in "SmolLM2":
                n += compare("SmolLM2", path, texts + odd, a.tool, peer)
        if a.only in "llama-spm":
            plain = [t for t in texts + odd if "\u2581" not in open(t, encoding="utf-8").read()]
            n += compare("llama-spm", made_up_spm(folder + "/model.gguf", texts), plain, a.tool, peer, ["-s"])
    return 1 if n else 0


sys.exit(main())
