#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""test-protocol-examples.py SERVE PROTOCOL.md [--write]: send the examples of the document, hold the answers to it.

A block that begins with ```wire is one connection to a fresh server. Its lines:

    > 94 00 01 a1    bytes that the client sends       ; a comment
    < 94 01 01 c0    bytes that the server answers
    < [any]          one MessagePack value of any kind: it differs from run to run

All lines of one direction in a row are one write, and one answer. --write puts what the server answers today into the
document. Every method must have an example, and every error code of error.h a row in the document's table.
"""
import json, os, re, socket, struct, subprocess, sys, tempfile, time

VOLATILE = {"uid", "pid", "uptime_us", "buffer_bytes", "vocab_bytes"}
SIZES = {0xca: 4, 0xcb: 8, 0xcc: 1, 0xcd: 2, 0xce: 4, 0xcf: 8, 0xd0: 1, 0xd1: 2, 0xd2: 4, 0xd3: 8}
COUNTS = {0xc4: 1, 0xc5: 2, 0xc6: 4, 0xd9: 1, 0xda: 2, 0xdb: 4, 0xdc: 2, 0xdd: 4, 0xde: 2, 0xdf: 4}


def head(data, at):
    """(kind, value or count, bytes of the head) of the MessagePack value at `at`."""
    b = data[at]
    if b <= 0x7f:
        return "int", b, 1
    if b <= 0x8f:
        return "map", b & 15, 1
    if b <= 0x9f:
        return "array", b & 15, 1
    if b <= 0xbf:
        return "str", b & 31, 1
    if b in (0xc0, 0xc2, 0xc3):
        return "const", {0xc0: None, 0xc2: False, 0xc3: True}[b], 1
    if b in SIZES:
        raw = data[at + 1:at + 1 + SIZES[b]]
        if len(raw) < SIZES[b]:
            raise IndexError
        if b in (0xca, 0xcb):
            return "float", struct.unpack(">f" if b == 0xca else ">d", raw)[0], 1 + SIZES[b]
        return "int", int.from_bytes(raw, "big", signed=b >= 0xd0), 1 + SIZES[b]
    if b in COUNTS:
        raw = data[at + 1:at + 1 + COUNTS[b]]
        if len(raw) < COUNTS[b]:
            raise IndexError
        kind = "bin" if b <= 0xc6 else "str" if b <= 0xdb else "array" if b <= 0xdd else "map"
        return kind, int.from_bytes(raw, "big"), 1 + COUNTS[b]
    if b >= 0xe0:
        return "int", b - 256, 1
    raise ValueError(f"byte {b:02x}")


def end_of(data, at):
    """Where the value at `at` ends; IndexError if it is cut."""
    kind, n, size = head(data, at)
    at += size
    if kind in ("str", "bin"):
        if at + n > len(data):
            raise IndexError
        return at + n
    for _ in range(n if kind == "array" else 2 * n if kind == "map" else 0):
        at = end_of(data, at)
    return at


def show(data, at):
    kind, n, size = head(data, at)
    if kind in ("str", "bin"):
        body = data[at + size:at + size + n]
        text = body.decode("latin-1" if kind == "bin" else "utf-8")
        return ("" if kind == "str" else "bin ") + json.dumps(text) if n <= 80 else f"{kind}, {n} bytes"
    if kind in ("map", "array"):
        at += size
        parts = []
        for _ in range(n):
            key, at = (show(data, at) + ": ", end_of(data, at)) if kind == "map" else ("", at)
            parts.append(key + show(data, at))
            at = end_of(data, at)
        return ("{%s}" if kind == "map" else "[%s]") % ", ".join(parts)
    return {None: "nil", True: "true", False: "false"}[n] if kind == "const" else f"{n:.7g}" if kind == "float" else str(n)


def dump(data, mark):
    """Lines of the document for some messages: a line a value, deeper ones one by one while they are long."""
    lines = []

    def line(raw, comment):
        pieces = [raw[i:i + 16] for i in range(0, len(raw), 16)]
        for i, piece in enumerate(pieces):
            text = f"{mark} {piece.hex(' ')}"
            lines.append(f"{text:<50} ; {comment}" if i == 0 and comment else text)

    def value(at, label, indent):
        kind, n, size = head(data, at)
        stop = end_of(data, at)
        if kind in ("map", "array") and n and stop - at > 24 or indent == 0:
            line(data[at:at + size], "  " * indent + label + ("map of " if kind == "map" else "array of ") + str(n))
            at += size
            for _ in range(n):
                if kind == "array":
                    value(at, "", indent + 1)
                    at = end_of(data, at)
                    continue
                behind = end_of(data, at)
                key = show(data, at)
                if key.strip('"') in VOLATILE and mark == "<":
                    line(data[at:behind], "  " * (indent + 1) + key + ":")
                    lines.append(f"{'< [any]':<50} ; " + "  " * (indent + 2) + "differs")
                    at = end_of(data, behind)
                    continue
                k, m, _s = head(data, behind)
                if k in ("map", "array") and m and end_of(data, behind) - behind > 24:
                    line(data[at:behind], "  " * (indent + 1) + key + ":")
                    value(behind, "", indent + 2)
                else:
                    line(data[at:end_of(data, behind)], "  " * (indent + 1) + key + ": " + show(data, behind))
                at = end_of(data, behind)
        else:
            line(data[at:stop], "  " * indent + label + show(data, at))

    at = 0
    try:
        while at < len(data):
            behind = end_of(data, at)
            value(at, "", 0)
            at = behind
    except IndexError:
        line(data[at:], "")         # not a whole message, and meant so
    return lines


def parse_line(line):
    """(direction, list of ints and None for [any])"""
    body = line[1:].split(";")[0].split()
    return line[0], [None if t == "[any]" else int(t, 16) for t in body]


def steps_of(lines):
    """[(sent bytes, expected)], expected a list of bytes and None."""
    steps = []
    for text in lines:
        mark, items = parse_line(text)
        if mark == ">":
            if not steps or steps[-1][1]:
                steps.append((bytearray(), []))
            steps[-1][0].extend(items)
        else:
            steps[-1][1].extend(items)
    return steps


def matches(answer, expected):
    at = 0
    for item in expected:
        if at >= len(answer):
            return f"the answer ends after {at} bytes"
        if item is None:
            at = end_of(answer, at)
        elif answer[at] != item:
            return f"byte {at} is {answer[at]:02x}, the document says {item:02x}"
        else:
            at += 1
    return None if at == len(answer) else f"{len(answer) - at} bytes more than the document says"


class Server:
    def __init__(self, serve):
        self.folder = tempfile.TemporaryDirectory()
        path = os.path.join(self.folder.name, "s")
        self.process = subprocess.Popen([serve, path], stdin=subprocess.PIPE)
        self.socket = socket.socket(socket.AF_UNIX)
        for _ in range(1000):
            try:
                self.socket.connect(path)
                break
            except OSError:
                time.sleep(0.01)
        self.socket.settimeout(10)

    def ask(self, sent, n_wanted):
        """Send, and read until n_wanted values are whole and nothing follows for a moment."""
        self.socket.sendall(bytes(sent))
        answer = b""
        while True:
            try:
                at, n = 0, 0
                while at < len(answer):
                    at, n = end_of(answer, at), n + 1
            except IndexError:
                n = -1
            if n >= 0 and (n_wanted is not None and n >= n_wanted):
                self.socket.settimeout(0.02)
            else:
                self.socket.settimeout(0.3 if n_wanted is None else 10)
            try:
                more = self.socket.recv(1 << 20)
            except TimeoutError:
                return answer
            if not more:
                return answer
            answer += more

    def close(self):
        self.socket.close()
        self.process.stdin.close()
        status = self.process.wait(20)
        self.folder.cleanup()
        return status


def count_messages(expected):
    data = bytes(0xc0 if item is None else item for item in expected)
    at = n = 0
    while at < len(data):
        at, n = end_of(data, at), n + 1
    return n


def run_block(serve, number, lines, write):
    server = Server(serve)
    problems, out, seen = [], [], set()
    for sent, expected in steps_of(lines):
        answer = server.ask(sent, None if write else count_messages(expected))
        seen |= set(re.findall(rb"[a-z]{4,}", bytes(sent)))
        out += dump(bytes(sent), ">") + dump(answer, "<")
        problem = None if write else matches(answer, expected)
        if problem:
            problems.append(f"example at line {number}: {problem}\n  got " + "\n      ".join(dump(answer, "<")))
    if server.close() != 0:
        problems.append(f"example at line {number}: the server failed")
    return problems, out, seen


def check_names(text, seen, root):
    problems = []
    header = open(os.path.join(root, "daemon/rpc/error.h"), encoding="utf-8").read()
    source = open(os.path.join(root, "daemon/rpc/error.c"), encoding="utf-8").read()
    for symbol, code in re.findall(r"(WARM_RPC_E_\w+) = (\d+)", header):
        name = re.search(symbol + r',\s*"([^"]+)"', source).group(1)
        if not re.search(rf"^\| {code} \| `{name}` \|", text, re.M):
            problems.append(f"the table of errors lacks {code} `{name}`")
    dispatch = open(os.path.join(root, "daemon/rpc/dispatch.c"), encoding="utf-8").read()
    for name in re.findall(r'{ "(\w+)", warm_method_', dispatch):
        if f"### `{name}`" not in text or not any(name.encode() in word for word in seen):
            problems.append(f"method {name} has no section or no example")
    return problems


def main():
    serve, path, write = sys.argv[1], sys.argv[2], "--write" in sys.argv
    source = open(path, encoding="utf-8").read().split("\n")
    out, problems, seen, n, block = [], [], set(), 0, None
    for number, line in enumerate(source, 1):
        if block is not None and line == "```":
            bad, lines, words = run_block(serve, number - len(block), block, write)
            problems, seen, n = problems + bad, seen | words, n + 1
            out += (lines if write else block) + [line]
            block = None
        elif block is not None:
            block.append(line)
        else:
            out.append(line)
            if line == "```wire":
                block = []
    if write:
        open(path, "w", encoding="utf-8").write("\n".join(out))
    problems += check_names("\n".join(source), seen, os.environ.get("WARM_SOURCE_ROOT", "."))
    print("\n".join(problems) if problems else f"{n} examples answered byte for byte")
    return 1 if problems or n == 0 else 0


sys.exit(main())
