"""Large values: from 256 KiB on a value lies in a file of its own and is never in memory as a whole."""
import random
import re
import struct
import threading
import time

from harness import (
    BAD_REQUEST, ERROR, ERROR_FRAME, KIB, MIB, NOT_FOUND, OK, OK_FRAME, VALUE_SIZE_MAX, Client, answer,
    converse, delete, get, hello, set_, set_head, test, zstd_block, zstd_frame, zstd_head, zstd_run)

FILE_MIN = 256 * KIB
CACHE = ("-cache", "32")
LIMIT = (32 + 256) * MIB
FILLER = random.Random(7).randbytes(VALUE_SIZE_MAX + 64 * KIB)
FILE_NAME = re.compile(r"[0-9a-f]{16}-[0-9a-f]{24}")


def value_of(number, size):
    """A view, so that many of them cost nothing."""
    start = number * 977 % (64 * KIB)
    return memoryview(FILLER)[start:start + size]


def value_files(context):
    return [path for path in (context.directory / "data").glob("??/*")
            if FILE_NAME.fullmatch(path.name)]


def wait_for_files(context, count, seconds=20):
    """Dead files go in the background."""
    deadline = time.monotonic() + seconds
    while len(value_files(context)) != count:
        assert time.monotonic() < deadline, (
            f"{len(value_files(context))} value files, expected {count}")
        time.sleep(0.05)


def upload(client, key, value, piece=MIB):
    client.send(set_head(key, len(value)))
    for start in range(0, len(value), piece):
        client.send(value[start:start + piece])


def download(client, key, expected, scratch=None):
    """Compares as it comes, so that a crowd of clients needs no memory either."""
    client.send(get(key))
    status, size = struct.unpack("<BI", client.receive(5))
    assert (status, size) == (OK, len(expected)), (status, size, len(expected))
    receive_rest(client, expected, scratch)


def receive_rest(client, expected, scratch=None):
    assert client.buffer == expected[:len(client.buffer)], "wrong bytes"
    at = len(client.buffer)
    client.buffer.clear()
    scratch = scratch or bytearray(256 * KIB)
    view = memoryview(scratch)
    while at < len(expected):
        got = client.socket.recv_into(view, min(len(view), len(expected) - at))
        assert got > 0, f"the end after {at} of {len(expected)} bytes"
        assert view[:got] == expected[at:at + got], f"wrong bytes after {at}"
        at += got


def insist(server, talk, attempts=20):
    """While others wait, a client that pauses for seconds is taken for one that stalls, and closed: on
    a machine that is busy enough that may be us. Then it says all again."""
    for attempt in range(attempts):
        try:
            with server.client(timeout=100) as client:
                return talk(client)
        except (EOFError, ConnectionError):
            assert attempt + 1 < attempts, "closed each time"


def upload_whole(client, key, value):
    upload(client, key, value)
    assert client.answer() == (OK, b"")


class Crowd:
    """Threads whose failures count."""

    def __init__(self):
        self.threads, self.failures = [], []

    def start(self, function, *arguments):
        def run():
            try:
                function(*arguments)
            except BaseException as failure:  # whatever it is, the test fails
                self.failures.append(failure)
        thread = threading.Thread(target=run, daemon=True)
        self.threads.append(thread)
        thread.start()

    def join(self, seconds):
        deadline = time.monotonic() + seconds
        for thread in self.threads:
            thread.join(max(0, deadline - time.monotonic()))
            assert not thread.is_alive(), f"not done after {seconds} s"
        assert not self.failures, self.failures[0]


@test(seconds=180)
def a_value_of_100_mib(context):
    server = context.server(*CACHE)
    value = value_of(1, VALUE_SIZE_MAX)
    with server.client(timeout=60) as client:
        upload(client, b"large", value)
        assert client.answer() == (OK, b"")
        download(client, b"large", value)
        wait_for_files(context, 1)
    server.restart()
    with server.client(timeout=60) as client:
        download(client, b"large", value)
        upload(client, b"large", value_of(2, VALUE_SIZE_MAX))
        assert client.answer() == (OK, b"")
        download(client, b"large", value_of(2, VALUE_SIZE_MAX))
        wait_for_files(context, 1)
        client.delete(b"large")
        assert client.get(b"large") is None
    wait_for_files(context, 0)
    server.assert_rss_below(LIMIT, "one value of 100 MiB")


def sizes_at_edges():
    edges = (FILE_MIN, FILE_MIN + 64 * KIB, 2 * FILE_MIN, 512 * KIB + 16 * KIB, MIB)
    return [edge + more for edge in edges for more in (-1, 0, 1)] + [FILE_MIN - 4096, 3 * MIB + 12345]


@test()
def sizes_around_the_edges(context):
    server = context.server(*CACHE)
    sizes = sizes_at_edges()
    files = sum(size >= FILE_MIN for size in sizes)
    with server.client() as client:
        for number, size in enumerate(sizes):
            client.set(b"%d" % number, bytes(value_of(number, size)))
        wait_for_files(context, files)
        # All at once, as they arrive in other pieces then.
        requests = b"".join(set_(b"p%d" % number, bytes(value_of(number, size)))
                            for number, size in enumerate(sizes))
        assert converse(client, requests, 5 * len(sizes)) == OK_FRAME * len(sizes)
        wait_for_files(context, 2 * files)
    for _ in range(2):
        with server.client() as client:
            requests = b"".join(get(b"%s%d" % (prefix, number)) for number in range(len(sizes))
                                for prefix in (b"", b"p"))
            client.send(requests)
            for number, size in enumerate(sizes):
                for _ in range(2):
                    status, received = struct.unpack("<BI", client.receive(5))
                    assert (status, received) == (OK, size), (status, received, size)
                    assert client.receive(size) == value_of(number, size), size
        server.restart()
    wait_for_files(context, 2 * files)


@test()
def an_overwrite_from_large_to_small_and_back(context):
    server = context.server(*CACHE)
    with server.client() as client:
        for _ in range(3):
            client.set(b"k", bytes(value_of(3, MIB)))
            client.set(b"k", b"small")
            assert client.get(b"k") == b"small"
            wait_for_files(context, 0)
            client.set(b"k", bytes(value_of(4, FILE_MIN)))
            assert client.get(b"k") == value_of(4, FILE_MIN)
            wait_for_files(context, 1)
    server.kill()
    server.start()
    with server.client() as client:
        assert client.get(b"k") == value_of(4, FILE_MIN)
        wait_for_files(context, 1)
        client.delete(b"k")
    wait_for_files(context, 0)


@test()
def compressed_large_values(context):
    server = context.server(*CACHE)
    cases = {
        b"raw blocks": (zstd_frame(bytes(value_of(1, 5 * MIB))), value_of(1, 5 * MIB)),
        b"declared": (zstd_frame(bytes(value_of(2, MIB)), content_size=MIB), value_of(2, MIB)),
        b"a few bytes": (zstd_run(30 * MIB + 1), bytes(30 * MIB + 1)),
        b"at the edge": (zstd_frame(bytes(value_of(3, FILE_MIN))), value_of(3, FILE_MIN)),
        b"below the edge": (zstd_frame(bytes(value_of(4, FILE_MIN - 1))), value_of(4, FILE_MIN - 1)),
        b"a run at the edge": (zstd_run(FILE_MIN), bytes(FILE_MIN)),
        b"a run below it": (zstd_run(FILE_MIN - 1), bytes(FILE_MIN - 1)),
        b"empty blocks": (zstd_head(20, None, None, False) + zstd_block(0, 0, b"", False) * 200000 +
                          zstd_block(0, 5, b"value", True), b"value"),
        b"only empty blocks": (zstd_head(20, None, None, False) +
                               zstd_block(0, 0, b"", False) * 200000 + zstd_block(0, 0, b"", True), b""),
    }
    with server.client() as client:
        for key, (frame, value) in cases.items():
            client.send(set_(key, frame, 1) + get(key) + get(b"absent"))
            assert client.answer() == (OK, b""), key
            assert client.answer() == (OK, value), key
            assert client.answer() == (ERROR, b""), key
    server.restart()
    with server.client() as client:
        for key, (frame, value) in cases.items():
            assert client.get(key) == value, key


@test()
def broken_large_frames(context):
    server = context.server(*CACHE)
    value = bytes(value_of(5, 2 * MIB))
    good = zstd_frame(value)
    wrong_block = bytearray(good)
    wrong_block[6 + 3 + 128 * KIB] |= 6  # the second block is of the reserved kind
    cases = {
        "cut": good[:-1],
        "cut early": good[:MIB],
        "bytes behind": good + b"x",
        "a frame behind": good + zstd_frame(b"y"),
        "a broken block": bytes(wrong_block),
        "a wrong size": zstd_frame(value, content_size=len(value) + 1),
        "a size over the limit": zstd_frame(value, content_size=VALUE_SIZE_MAX + 1),
        "a wrong checksum": zstd_frame(value, checksum=b"\1\2\3\4"),
        "a window of 16 MiB": zstd_frame(value, window_log=24),
        "no frame": value,
        "one byte over the limit": zstd_run(VALUE_SIZE_MAX + 1),
    }
    with server.client(timeout=60) as client:
        client.set(b"bad", b"before")
        for what, frame in cases.items():
            client.send(set_(b"bad", frame, 1) + set_(b"k", what.encode()) + get(b"k"))
            results = [client.answer() for _ in range(3)]
            assert results == [(ERROR, b""), (OK, b""), (OK, what.encode())], (what, results)
        assert client.get(b"bad") == b"before"
        assert client.call(hello())[0] == OK
        assert client.call(set_(b"bad", good + b"x", 1))[0] == BAD_REQUEST
    wait_for_files(context, 0)


# A shard's log files are written once with zeros, some of them while the server serves.
LOG_AT_START = 256 * MIB


def written_bytes(server):
    with open(f"/proc/{server.process.pid}/io", encoding="utf-8") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("write_bytes"))


@test(seconds=120)
def a_frame_over_the_limit_costs_no_more_than_a_value(context):
    """It says nothing of its size, so it is refused when it has reached the limit."""
    server = context.server(*CACHE)
    frame = zstd_run(20 * VALUE_SIZE_MAX)  # of 64 KiB
    with server.client(timeout=60) as client:
        client.set(b"k", b"before")
        for _ in range(3):
            assert client.call(set_(b"k", frame, 1)) == (ERROR, b"")
        wait_for_files(context, 0)
        most = 3 * VALUE_SIZE_MAX + LOG_AT_START * server.shard_count()
        assert written_bytes(server) <= most, f"{written_bytes(server)} bytes, for nothing"
        assert client.get(b"k") == b"before"
        declared = zstd_run(20 * VALUE_SIZE_MAX, content_size=20 * VALUE_SIZE_MAX)
        for _ in range(10):
            assert client.call(set_(b"k", declared, 1)) == (ERROR, b"")
        assert written_bytes(server) <= most, "what says so is refused at once"
    wait_for_files(context, 0)


@test()
def many_frames_at_once(context):
    """More than there are decoders: the others wait, nobody is refused."""
    server = context.server(*CACHE)
    clients = [server.client(timeout=60) for _ in range(30)]
    for number, client in enumerate(clients):
        client.send(set_(b"run %d" % number, zstd_run(5 * MIB + number), 1))
    slow = zstd_frame(bytes(value_of(9, MIB)))
    with server.client() as client:  # one that waits in the middle keeps nobody else from going on
        client.send(set_head(b"slow", len(slow), 1) + slow[:MIB // 2])
        for number, other in enumerate(clients):
            assert other.answer() == (OK, b""), number
        client.send(slow[MIB // 2:])
        assert client.answer() == (OK, b"")
        assert client.get(b"slow") == value_of(9, MIB)
    for number, client in enumerate(clients):
        assert client.get(b"run %d" % number) == bytes(5 * MIB + number)
        client.close()


@test()
def a_pipeline_around_large_values(context):
    server = context.server(*CACHE)
    chance = random.Random(3)
    large, other = bytes(value_of(6, 700 * KIB)), bytes(value_of(7, 2 * MIB))
    requests = [
        (set_(b"small", b"1"), OK_FRAME), (set_(b"large", large), OK_FRAME),
        (get(b"large"), answer(large)), (get(b"small"), answer(b"1")),
        (set_(b"large", other), OK_FRAME), (set_(b"small", b"2"), OK_FRAME),
        (get(b"large"), answer(other)), (delete(b"large"), OK_FRAME), (get(b"large"), ERROR_FRAME),
        (set_(b"large", large, 2), ERROR_FRAME), (get(b"small"), answer(b"2")),
        (set_(b"large", zstd_frame(large), 1), OK_FRAME), (get(b"large"), answer(large)),
        (set_(b"large", b"3"), OK_FRAME), (get(b"large"), answer(b"3"))]
    stream = b"".join(request for request, _ in requests)
    expected = b"".join(reply for _, reply in requests)
    with server.client() as client:
        for turn in range(12):
            cuts = sorted(chance.randrange(len(stream)) for _ in range(turn * 5))
            chunks = [stream[a:b] for a, b in zip([0] + cuts, cuts + [len(stream)])]
            assert converse(client, stream, len(expected), chunks) == expected, f"turn {turn}"
    wait_for_files(context, 0)


@test()
def many_large_gets_in_one_pipeline(context):
    server = context.server("-cache", "1")
    with server.client(timeout=60) as client:
        for number in range(20):
            client.set(b"k%d" % number, bytes(value_of(number, 300 * KIB)))
            client.set(b"s%d" % number, b"small %d" % number)
    server.restart()
    with server.client(timeout=60) as client:
        client.send(b"".join(get(b"k%d" % number) + get(b"s%d" % number) + get(b"absent") +
                             set_(b"k%d" % number, b"gone") for number in range(20)))
        for number in range(20):
            assert client.answer() == (OK, value_of(number, 300 * KIB)), number
            assert client.answer() == (OK, b"small %d" % number)
            assert client.answer() == (ERROR, b"")
            assert client.answer() == (OK, b"")
    wait_for_files(context, 0)


@test()
def overwritten_while_a_slow_reader_reads(context):
    server = context.server(*CACHE)
    old, new = value_of(8, 20 * MIB), value_of(9, 20 * MIB)
    with server.client() as writer:
        upload(writer, b"k", old)
        assert writer.answer() == (OK, b"")
        slow = server.client(receive_buffer=64 * KIB)
        slow.send(get(b"k") + get(b"k"))
        assert struct.unpack("<BI", slow.receive(5)) == (OK, len(old))
        upload(writer, b"k", new)
        assert writer.answer() == (OK, b"")
        download(writer, b"k", new)
        writer.delete(b"k")
        assert writer.get(b"k") is None
        receive_rest(slow, old)
        # With one shard the second get waits for the first; another shard may have executed it.
        expected = [(ERROR, b"")] + [(OK, old)] * (server.shard_count() > 1)
        assert slow.answer() in expected
        slow.close()
    wait_for_files(context, 0)


@test()
def everybody_overwrites_and_reads_one_key(context):
    """Old or new, always whole."""
    server = context.server(*CACHE)
    values = {bytes(value_of(number, 16)): number for number in range(16)}
    stop = time.monotonic() + 6
    crowd = Crowd()

    def write(first):
        with server.client(timeout=60) as client:
            number = first
            while time.monotonic() < stop:
                size = FILE_MIN + number * 40000
                upload(client, b"k", value_of(number, size))
                assert client.answer() == (OK, b"")
                number = (number + 3) % 16

    def read():
        with server.client(timeout=60) as client:
            while time.monotonic() < stop:
                status, value = client.call(get(b"k"))
                assert status == OK, status
                number = values[value[:16]]
                assert value == value_of(number, FILE_MIN + number * 40000)

    with server.client() as client:
        client.set(b"k", bytes(value_of(0, FILE_MIN)))
    for number in range(3):
        crowd.start(write, number)
        crowd.start(read)
    crowd.join(60)
    wait_for_files(context, 1)


@test()
def clients_that_stop_half_way(context):
    server = context.server(*CACHE)
    frame = zstd_frame(bytes(value_of(2, 3 * MIB)))
    starts = [set_head(b"k", 10 * MIB), set_head(b"k", 10 * MIB) + bytes(5 * MIB),
              set_head(b"k", 10 * MIB) + bytes(10 * MIB - 1), set_head(b"k", len(frame), 1) + frame[:-1]]
    ends = [Client.reset, Client.close, lambda client: client.socket.shutdown(1)]
    with server.client() as client:
        client.set(b"k", b"before")
    others = []
    for start in starts:
        for end in ends:
            other = server.client()
            other.send(set_(b"first", b"1") + start)
            assert other.answer() == (OK, b"")
            end(other)
            others.append(other)
    wait_for_files(context, 0)
    with server.client() as client:
        assert client.get(b"k") == b"before"
    # With FIN behind a whole value, it counts.
    with server.client() as client:
        client.send(set_(b"whole", bytes(value_of(1, MIB))) + get(b"whole"))
        client.socket.shutdown(1)
        assert client.answer() == (OK, b"")
        assert client.answer() == (OK, value_of(1, MIB))
        client.expect_end()
    for other in others:
        other.close()


def watch_rss(server, peaks, stop):
    while not stop.wait(0.05):
        peaks.append(server.rss())


def move_crowd(context, count, size):
    """Each of `count` connections sends a value, then reads another's."""
    server = context.server(*CACHE)
    crowd, peaks, stop = Crowd(), [], threading.Event()
    everybody = threading.Barrier(count)

    def move(number):
        with server.client(timeout=240) as client:
            upload(client, b"k%d" % number, value_of(number, size))
            assert client.answer() == (OK, b"")
            everybody.wait(240)
            other = (number + 1) % count
            download(client, b"k%d" % other, value_of(other, size))

    watcher = threading.Thread(target=watch_rss, args=(server, peaks, stop), daemon=True)
    watcher.start()
    for number in range(count):
        crowd.start(move, number)
    crowd.join(280)
    stop.set()
    watcher.join()
    peak = max(peaks)
    assert server.sanitized or peak < LIMIT, f"{peak / MIB:.0f} MiB resident, more than {LIMIT / MIB:.0f}"
    wait_for_files(context, count)


@test(slow=True, seconds=300)
def twenty_connections_with_100_mib_each(context):
    move_crowd(context, 20, VALUE_SIZE_MAX)


@test(slow=True, seconds=300)
def a_hundred_connections_with_20_mib_each(context):
    move_crowd(context, 100, 20 * MIB)


@test(slow=True)
def readers_that_stall_give_way(context):
    """More of them than there are buffers."""
    server = context.server(*CACHE)
    value = value_of(1, 20 * MIB)
    with server.client(timeout=60) as client:
        upload(client, b"k", value)
        assert client.answer() == (OK, b"")
    stalled = [server.client(receive_buffer=4 * KIB) for _ in range(200)]
    for other in stalled:
        other.send(get(b"k"))
    time.sleep(0.5)
    server.assert_serves(seconds=60)
    insist(server, lambda client: download(client, b"k", value))
    insist(server, lambda client: upload_whole(client, b"k", value_of(2, MIB)))
    server.assert_rss_below(LIMIT, "200 readers that stall")
    for other in stalled:
        other.reset()


@test(slow=True)
def writers_that_stall_give_way(context):
    server = context.server(*CACHE)
    stalled = [server.client() for _ in range(200)]
    for number, other in enumerate(stalled):
        other.send(set_head(b"s%d" % number, VALUE_SIZE_MAX) + bytes(100 * KIB))
    time.sleep(0.5)
    server.assert_serves(seconds=60)
    insist(server, lambda client: upload_whole(client, b"k", value_of(2, 5 * MIB)))
    insist(server, lambda client: download(client, b"k", value_of(2, 5 * MIB)))
    server.assert_rss_below(LIMIT, "200 writers that stall")
    for other in stalled:
        other.reset()
    wait_for_files(context, 1)


class Uploads:
    """One key a thread; remembers what was acknowledged."""

    def __init__(self):
        self.states = {}  # key: (acknowledged number or None, numbers sent since)

    def run(self, port, key, chance):
        acknowledged, sent = self.states.get(key, (None, []))
        try:
            with Client(port) as client:
                while True:
                    number = chance.randrange(60000)
                    sent = sent + [number]
                    self.states[key] = (acknowledged, sent)
                    upload(client, key, value_of(number, size_of(number)), 100 * KIB)
                    assert client.answer() == (OK, b"")
                    acknowledged, sent = number, []
                    self.states[key] = (acknowledged, sent)
        except (OSError, EOFError):
            pass  # it was killed

    def check(self, server):
        present = 0
        with server.client(timeout=60) as client:
            for key, (acknowledged, sent) in self.states.items():
                status, value = client.call(get(key))
                allowed = [acknowledged] if acknowledged is not None else []
                matches = [number for number in allowed + sent
                           if status == OK and value == value_of(number, size_of(number))]
                assert matches or (status == ERROR and acknowledged is None), (
                    f"{key}: status {status}, {len(value)} bytes, {len(sent)} sent since")
                self.states[key] = (matches[0] if matches else None, [])
                present += bool(matches)
        return present


def size_of(number):
    return FILE_MIN + number * 50


@test(slow=True, seconds=300)
def kill_9_during_uploads(context):
    server = context.server(*CACHE)
    uploads, chance = Uploads(), random.Random(context.options.seed)
    for _ in range(max(3, context.options.rounds // 2)):
        crowd = Crowd()
        for number in range(6):
            crowd.start(uploads.run, server.port, b"key %d" % number, random.Random(chance.random()))
        time.sleep(chance.uniform(0.05, 1.0))
        server.kill()
        crowd.join(60)
        server.start()
        present = uploads.check(server)
        wait_for_files(context, present)


@test()
def a_drain_ends_uploads_and_downloads(context):
    server = context.server(*CACHE)
    value = value_of(1, 10 * MIB)
    client, half = server.client(), server.client()
    upload(client, b"k", value)
    assert client.answer() == (OK, b"")
    half.send(set_head(b"half", MIB) + bytes(MIB // 2))
    time.sleep(0.2)
    begin = time.monotonic()
    code = []
    stopping = threading.Thread(target=lambda: code.append(server.terminate()), daemon=True)
    client.send(get(b"k"))
    assert struct.unpack("<BI", client.receive(5)) == (OK, len(value))
    stopping.start()
    receive_rest(client, value)
    stopping.join(20)
    assert code == [0], code
    assert time.monotonic() - begin < 8, "who stops half way is not waited for"
    server.start()
    with server.client() as after:
        assert after.get(b"half") is None
        download(after, b"k", value)
    wait_for_files(context, 1)


@test()
def a_file_that_is_gone_or_damaged_is_corrupt(context):
    server = context.server(*CACHE)
    with server.client() as client:
        for key in (b"gone", b"damaged", b"late", b"good"):
            client.set(key, bytes(value_of(1, MIB)))
    assert server.terminate() == 0
    # Which file is whose is not told: all but one are damaged, each in its way, and counted.
    for number, path in enumerate(sorted(value_files(context))[:3]):
        if number == 0:
            path.unlink()
            continue
        with open(path, "r+b") as file:
            file.seek(100 if number == 1 else 900 * KIB)
            file.write(b"damage")
    server.start()
    outcomes = []
    for key in (b"gone", b"damaged", b"late", b"good"):
        with server.client() as client:
            assert client.call(hello())[0] == OK
            client.send(get(key))
            try:
                status, size = struct.unpack("<BI", client.receive(5))
                data = client.receive(size)
                if status == OK:
                    assert data == value_of(1, MIB), "wrong bytes"
                assert status != NOT_FOUND, "unreadable is not 'not found'"
                outcomes.append(status)
            except (EOFError, ConnectionError):
                outcomes.append("cut off")
        server.assert_serves()
    assert sorted(map(str, outcomes)) == ["0", "7", "7", "cut off"], outcomes
