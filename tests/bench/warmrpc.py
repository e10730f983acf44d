# SPDX-License-Identifier: Apache-2.0
"""A small MessagePack-RPC client of warmd for benches and tests: no packages needed.

    with Daemon(build, ["--model", path]) as d, d.connect() as c:
        c.call("complete", prefix="int ", suffix="")
"""
import os, shutil, socket, struct, subprocess, tempfile, time


def pack_ids(ids):
    """Many tokens at once: 0xce and four bytes each. One by one they took longer than some prompts."""
    bytes_, raw = bytearray(b"\xce" * 5 * len(ids)), struct.pack(f">{len(ids)}I", *ids)
    for i in range(4):
        bytes_[i + 1 :: 5] = raw[i::4]
    return bytes(bytes_)


def pack(v):
    if v is None:
        return b"\xc0"
    if v is True or v is False:
        return b"\xc3" if v else b"\xc2"
    if isinstance(v, int):
        return bytes([v]) if 0 <= v < 128 else b"\xd3" + struct.pack(">q", v)
    if isinstance(v, float):
        return b"\xcb" + struct.pack(">d", v)
    if isinstance(v, str):
        b = v.encode()
        return (b"\xdb" + struct.pack(">I", len(b)) if len(b) > 31 else bytes([0xA0 | len(b)])) + b
    if isinstance(v, bytes):
        return b"\xc6" + struct.pack(">I", len(v)) + v
    if isinstance(v, list) and len(v) > 64 and set(map(type, v)) == {int} and min(v) >= 0 and max(v) < 1 << 32:
        return b"\xdd" + struct.pack(">I", len(v)) + pack_ids(v)
    if isinstance(v, dict):
        return b"\xdf" + struct.pack(">I", len(v)) + b"".join(pack(k) + pack(x) for k, x in v.items())
    return b"\xdd" + struct.pack(">I", len(v)) + b"".join(pack(x) for x in v)


class Short(Exception):
    """More bytes are needed."""


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        if self.at + n > len(self.data):
            raise Short
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self, form):
        return struct.unpack(">" + form, self.take(struct.calcsize(form)))[0]

    def value(self):
        t = self.take(1)[0]
        if t < 0x80:
            return t
        if t >= 0xE0:
            return t - 256
        if t < 0x90:
            return self.map(t & 15)
        if t < 0xA0:
            return self.array(t & 15)
        if t < 0xC0:
            return self.take(t & 31).decode()
        if t in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[t]
        if t in (0xC4, 0xC5, 0xC6):
            return self.take(self.number("BHI"[t - 0xC4]))
        if t in (0xD9, 0xDA, 0xDB):
            return self.take(self.number("BHI"[t - 0xD9])).decode()
        if t in (0xDC, 0xDD):
            return self.array(self.number("HI"[t - 0xDC]))
        if t in (0xDE, 0xDF):
            return self.map(self.number("HI"[t - 0xDE]))
        return self.number({0xCA: "f", 0xCB: "d", 0xCC: "B", 0xCD: "H", 0xCE: "I", 0xCF: "Q", 0xD0: "b", 0xD1: "h", 0xD2: "i", 0xD3: "q"}[t])

    def array(self, n):
        return [self.value() for _ in range(n)]

    def map(self, n):
        return {self.value(): self.value() for _ in range(n)}


class Refused(Exception):
    """The daemon's error: [code, name, what]."""


class Connection:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.next_id, self.buffer, self.notifications = 1, b"", []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def message(self):
        while True:
            try:
                r = Reader(self.buffer)
                v = r.value()
                self.buffer = self.buffer[r.at :]
                return v
            except Short:
                data = self.socket.recv(1 << 20)
                if not data:
                    raise ConnectionResetError from None
                self.buffer += data

    def start(self, method, **params):
        self.next_id += 1
        self.socket.sendall(pack([0, self.next_id, method, [params]]))
        return self.next_id

    def wait(self, wanted):
        while True:
            m = self.message()
            if m[0] == 2:
                self.notifications.append(m)
            elif m[1] == wanted:
                if m[2] is not None:
                    raise Refused(m[2])
                return m[3]

    def call(self, method, **params):
        return self.wait(self.start(method, **params))


class Daemon:
    """A private daemon; started is the time of its start (time.monotonic)."""

    def __init__(self, build, args=()):
        self.dir = tempfile.mkdtemp(prefix="warm-bench-")
        self.path = self.dir + "/s"
        self.started = time.monotonic()
        self.process = subprocess.Popen([os.path.join(build, "daemon", "warmd"), "--config", "/dev/null", "--socket", self.path, *args],
                                        stderr=open(self.dir + "/log", "w"))
        while not os.path.exists(self.path):
            if self.process.poll() is not None:
                raise SystemExit(open(self.dir + "/log").read())
            time.sleep(0.001)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.dir)

    def connect(self):
        for _ in range(1000):
            try:
                return Connection(self.path)
            except (ConnectionRefusedError, FileNotFoundError):
                time.sleep(0.001)
        raise SystemExit("the daemon does not answer")

    def pss_bytes(self):
        for line in open(f"/proc/{self.process.pid}/smaps_rollup"):
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
        return 0
