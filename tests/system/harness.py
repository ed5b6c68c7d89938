"""What the system tests share: a real ./minivault on a directory of its own, and clients of it."""
import contextlib
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
KIB, MIB = 1024, 1024 * 1024

GET, SET, DELETE, SYNC, HEALTH, AUTH, HELLO = range(1, 8)
OK, ERROR = 0x00, 0xFF
NOT_FOUND, TOO_LARGE, BAD_REQUEST, UNSUPPORTED = 0x01, 0x09, 0x0A, 0x0B
AUTH_REQUIRED, NO_SPACE, OVERLOADED = 0x08, 0x06, 0x05
ERROR_FRAME = b"\xff\0\0\0\0"
OK_FRAME = b"\0\0\0\0\0"
VALUE_SIZE_MAX = 100 * MIB
STATS = 0x20
HELLO_NAME = b"minivault/2"

START_SECONDS = 30
STOP_SECONDS = 20


# ---- frames ----

def get(key):
    return struct.pack("<BH", GET, len(key)) + key


def set_(key, value, compressed=0):
    return struct.pack("<BH", SET, len(key)) + key + struct.pack("<IB", len(value), compressed) + value


def set_head(key, value_size, compressed=0):
    return struct.pack("<BH", SET, len(key)) + key + struct.pack("<IB", value_size, compressed)


def delete(key):
    return struct.pack("<BH", DELETE, len(key)) + key


def health(key=b""):
    return struct.pack("<BH", HEALTH, len(key)) + key


def auth(secret):
    return struct.pack("<BH", AUTH, len(secret)) + secret


def hello(name=HELLO_NAME):
    return struct.pack("<BH", HELLO, len(name)) + name


def typed(op, key, body, flags=0):
    return struct.pack("<BBHI", op, flags, len(key), len(body)) + key + body


def stats():
    return typed(STATS, b"", b"")


def answer(value, status=OK):
    return struct.pack("<BI", status, len(value)) + value


# ---- a client ----

class Client:
    """One connection. Everything has a time limit, so that a hang is a failure."""

    def __init__(self, port, timeout=20, source=None, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def reset(self):
        """Closes with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def receive(self, size):
        while len(self.buffer) < size:
            data = self.socket.recv(256 * KIB)
            if not data:
                raise EOFError(f"end of stream after {bytes(self.buffer[:64])!r}, wanted {size}")
            self.buffer += data
        result = bytes(self.buffer[:size])
        del self.buffer[:size]
        return result

    def answer(self):
        status, size = struct.unpack("<BI", self.receive(5))
        return status, self.receive(size)

    def call(self, request):
        self.send(request)
        return self.answer()

    def expect_end(self):
        """The server closes with FIN: a reset raises."""
        data = bytes(self.buffer) or self.socket.recv(64)
        assert data == b"", f"expected the end of the stream, got {data[:64]!r}"

    def get(self, key):
        status, value = self.call(get(key))
        if status == OK:
            return value
        assert (status, value) == (ERROR, b""), (status, value)
        return None

    def set(self, key, value):
        result = self.call(set_(key, value))
        assert result == (OK, b""), f"set: {result}"

    def delete(self, key):
        result = self.call(delete(key))
        assert result == (OK, b""), f"delete: {result}"


def converse(client, requests, expected_size, chunks=None):
    """Sends and receives at the same time, as a pipelining client must. `chunks`: how to cut."""
    failure = []

    def write():
        try:
            if chunks is None:
                client.send(requests)
            else:
                for chunk in chunks:
                    client.send(chunk)
        except OSError as error:
            failure.append(error)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        result = client.receive(expected_size)
    finally:
        writer.join(client.socket.gettimeout())
    assert not failure, failure
    return result


# ---- the server ----

class Server:
    shards = None  # how many when a test does not say; None: as many as there are CPUs
    patience = 1  # how many times as long others may wait, where tests run beside each other

    def __init__(self, binary, directory, flags, environment=None, wait=True, files=None,
                 group=None):
        self.binary, self.directory, self.flags = binary, directory, list(flags)
        self.environment, self.files, self.group = environment, files, group
        self.lines, self.port, self.process = [], None, None
        self.line_added = threading.Condition()
        self.stopped = False
        self.start(wait)

    @classmethod
    def usual_shards(cls):
        """Of a server that a test gives no count."""
        return cls.shards or len(os.sched_getaffinity(0))

    @property
    def sanitized(self):
        return "asan" in str(self.binary)

    def start(self, wait=True):
        command = [str(self.binary), "-data", str(self.directory)]
        given = {flag.lstrip("-").split("=")[0] for flag in self.flags}
        if "port" not in given:
            command += ["-port", "0"]
        if self.shards and "shards" not in given:
            command += ["-shards", str(self.shards)]
        if self.sanitized and "cache" not in given:
            command += ["-cache", "32"]  # the allocator's poisoning takes time for each free byte
        environment = {k: v for k, v in os.environ.items() if k not in ("JOURNAL_STREAM",
                                                                       "CLUSTER_NODES")}
        environment.update(self.environment or {})
        self.port, self.stopped = None, False
        self.lines = []
        self.process = subprocess.Popen(command + self.flags, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        env=environment, preexec_fn=self.enter_limits)
        self.reader = threading.Thread(target=self.read_log, args=(self.process, self.lines),
                                       daemon=True)
        self.reader.start()
        if wait:
            self.wait_ready()

    def enter_limits(self):
        """In the new process."""
        if self.group:
            (self.group / "cgroup.procs").write_text(str(os.getpid()))
        if self.files:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self.files, self.files))

    def read_log(self, process, lines):
        for line in process.stdout:
            with self.line_added:
                lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                self.line_added.notify_all()
        with self.line_added:
            self.line_added.notify_all()

    def wait_line(self, pattern, seconds=START_SECONDS, begin=0):
        """The first log line, from number `begin` on, that matches; a failure when the process ends
        without it."""
        deadline = time.monotonic() + seconds
        with self.line_added:
            while True:
                ended = not self.reader.is_alive()
                for line in self.lines[begin:]:
                    match = re.search(pattern, line)
                    if match:
                        return match
                left = deadline - time.monotonic()
                assert not ended and left > 0, (
                    f"no log line matches '{pattern}' after {seconds} s"
                    f"{' (the process ended)' if ended else ''}:\n" + self.log())
                self.line_added.wait(min(left, 0.2))

    def wait_ready(self):
        self.port = int(self.wait_line(r"listening on (?:\S*:|port )?(\d+)").group(1))

    def log(self):
        return "\n".join(self.lines[-40:])

    def client(self, **options):
        return Client(self.port, **options)

    def kill(self):
        self.process.kill()
        self.process.wait(STOP_SECONDS)
        self.stopped = True

    def terminate(self):
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait_exit()

    def wait_exit(self, seconds=STOP_SECONDS):
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s:\n" + self.log()) from None
        self.reader.join(5)
        self.stopped = True
        return code

    def restart(self):
        code = self.terminate()
        assert code == 0, f"exit code {code}:\n" + self.log()
        self.start()

    def finish(self):
        """At the end of a test: it must still run, and end well."""
        if not self.stopped:
            assert self.process.poll() is None, f"died ({self.process.poll()}):\n" + self.log()
            code = self.terminate()
            assert code == 0, f"exit code {code} at SIGTERM:\n" + self.log()
        text = "\n".join(self.lines)
        assert "Sanitizer" not in text and "runtime error:" not in text, text[-6000:]

    def shard_count(self):
        with self.client() as client:
            return json.loads(client.call(hello())[1])["shards"]

    def rss(self):
        """Resident bytes."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+) kB", status.read()).group(1)) * KIB

    def cpu_seconds(self):
        total = 0.0
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return total

    def assert_rss_below(self, limit, what):
        if not self.sanitized:
            rss = self.rss()
            assert rss < limit, f"{what}: {rss / MIB:.0f} MiB resident, more than {limit / MIB:.0f}"

    def assert_serves(self, seconds=2):
        """Somebody else gets an answer, soon."""
        begin = time.monotonic()
        with self.client() as client:
            client.set(b"somebody else", b"is served")
            assert client.get(b"somebody else") == b"is served"
        took = time.monotonic() - begin
        limit = seconds * self.patience * (5 if self.sanitized else 1)
        assert took < limit, f"others waited {took:.1f} s"

    def assert_serves_health(self):
        with self.client() as client:
            assert client.call(health())[0] == OK


# ---- tests ----

class Skip(Exception):
    """The machine does not let this test run."""


TESTS = []
SOAKS = []


def test(slow=False, seconds=120, soak=False):
    """Registers a test. `slow` ones do not run against the sanitized binary; `soak` ones only when they
    are asked for (run.py --soak)."""
    def register(function):
        (SOAKS if soak else TESTS).append((f"{function.__module__}.{function.__name__}", function, slow, seconds))
        return function
    return register


class Context:
    """What one test gets. Its directory is on the disk that the tree is on (O_DIRECT works)."""

    def __init__(self, name, options):
        self.options = options
        self.binary = options.binary
        self.directory = ROOT / "build" / "system" / name
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        self.servers = []
        self.stack = contextlib.ExitStack()

    def server(self, *flags, directory=None, environment=None, wait=True, files=None,
               group=None):
        server = Server(self.binary, directory or self.directory / "data", flags, environment, wait,
                        files, group)
        self.servers.append(server)
        return server

    def run(self, *flags, environment=None, seconds=STOP_SECONDS):
        """A start that ends by itself: (exit code, output)."""
        result = subprocess.run([str(self.binary), *flags], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds,
                                env={**os.environ, **(environment or {})}, check=False)
        return result.returncode, result.stdout.decode("utf-8", "replace")

    def finish(self):
        for server in self.servers:
            server.finish()

    def clean(self, keep):
        for server in self.servers:
            if server.process.poll() is None:
                server.process.kill()
                server.process.wait()
        self.stack.close()
        if not keep:
            shutil.rmtree(self.directory, ignore_errors=True)


def free_port():
    """Below those that outgoing connections are given: one of them could have it by the time."""
    while True:
        port = random.SystemRandom().randrange(12000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


def http_server(context, *flags, **options):
    """A server that also speaks HTTP, on server.http_port."""
    port = free_port()
    server = context.server("-http", str(port), *flags, **options)
    server.http_port = port
    return server


def eventually(check, seconds=20):
    """What `check` returns, once nothing that it asserts or tries fails any more."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except (AssertionError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def raise_file_limit():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, 200000), max(hard, 200000)))
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# ---- zstd frames, made by hand so that they can be wrong ----

ZSTD_MAGIC = bytes.fromhex("28b52ffd")
ZSTD_BLOCK_MAX = 128 * KIB


def zstd_block(kind, size, data, last):
    return ((size << 3) | (kind << 1) | last).to_bytes(3, "little") + data


def zstd_frame(value, window_log=20, content_size=None, dictionary=None, checksum=None):
    """`value` in raw blocks. Fields may be false: the frame says them anyway."""
    blocks = [value[i:i + ZSTD_BLOCK_MAX] for i in range(0, len(value), ZSTD_BLOCK_MAX)] or [b""]
    body = b"".join(zstd_block(0, len(b), b, i == len(blocks) - 1) for i, b in enumerate(blocks))
    return zstd_head(window_log, content_size, dictionary, checksum is not None) + body + (
        checksum or b"")


def zstd_run(size, window_log=20, content_size=None, byte=b"\0"):
    """`size` equal bytes in run-length blocks: 4 bytes for 128 KiB."""
    head = zstd_head(window_log, content_size, None, False)
    full, rest = divmod(size, ZSTD_BLOCK_MAX)
    return head + zstd_block(1, ZSTD_BLOCK_MAX, byte, False) * full + zstd_block(1, rest, byte, True)


def zstd_head(window_log, content_size, dictionary, checksum):
    descriptor = (3 << 6 if content_size is not None else 0) | (4 if checksum else 0) | (
        3 if dictionary is not None else 0)
    head = ZSTD_MAGIC + bytes([descriptor, (window_log - 10) << 3])
    if dictionary is not None:
        head += struct.pack("<I", dictionary)
    if content_size is not None:
        head += struct.pack("<Q", content_size)
    return head


def zstd_skippable(payload=b""):
    return struct.pack("<II", 0x184D2A50, len(payload)) + payload


# ---- XXH64, and keys that collide under it whatever their number ----

MASK = (1 << 64) - 1
P1, P2 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F
P3, P4, P5 = 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


def rotate(value, bits):
    return ((value << bits) | (value >> (64 - bits))) & MASK


def xxh64_round(lane, word):
    return rotate((lane + word * P2) & MASK, 31) * P1 & MASK


def xxh64_lanes(key):
    lanes = [(P1 + P2) & MASK, P2, 0, -P1 & MASK]
    for offset in range(0, len(key) // 32 * 32, 32):
        words = struct.unpack_from("<4Q", key, offset)
        lanes = [xxh64_round(lane, word) for lane, word in zip(lanes, words)]
    result = sum(rotate(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18))) & MASK
    for lane in lanes:
        result = ((result ^ xxh64_round(0, lane)) * P1 + P4) & MASK
    return result


def xxh64(key):
    """With seed 0."""
    result = xxh64_lanes(key) if len(key) >= 32 else P5
    result = (result + len(key)) & MASK
    tail = key[len(key) // 32 * 32:]
    while len(tail) >= 8:
        result = (rotate(result ^ xxh64_round(0, int.from_bytes(tail[:8], "little")), 27) * P1 + P4) & MASK
        tail = tail[8:]
    if len(tail) >= 4:
        result = (rotate(result ^ (int.from_bytes(tail[:4], "little") * P1 & MASK), 23) * P2 + P3) & MASK
        tail = tail[4:]
    for byte in tail:
        result = rotate(result ^ (byte * P5 & MASK), 11) * P1 & MASK
    result = (result ^ (result >> 33)) * P2 & MASK
    result = (result ^ (result >> 29)) * P3 & MASK
    return result ^ (result >> 32)


def colliding_keys(count):
    """64 bytes each, all with one XXH64: the second word of a lane cancels what the first did."""
    start, inverse = (P1 + P2) & MASK, pow(P2, -1, 1 << 64)
    base = xxh64_round(start, 0)
    keys = []
    for number in range(count):
        cancel = (base - xxh64_round(start, number)) * inverse & MASK
        keys.append(struct.pack("<8Q", number, 1, 2, 3, cancel, 5, 6, 7))
    return keys
