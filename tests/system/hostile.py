"""Malicious and broken clients: each input gets its answer, memory stays within budget, and everybody
else is served."""
import os
import random
import resource
import socket
import struct
import threading
import time

from harness import (
    BAD_REQUEST, ERROR, ERROR_FRAME, KIB, MIB, OK, OK_FRAME, SYNC, VALUE_SIZE_MAX, ZSTD_MAGIC,
    answer, auth, colliding_keys, converse, delete, get, health, hello, set_, set_head, test,
    typed, zstd_frame, zstd_run, zstd_skippable)

PWNED = set_(b"pwned", b"1")
CACHE = ("-cache", "64")
# What unfinished requests may hold.
INPUT_BUDGET = 256 * MIB


def budget(server):
    """The cache, and 64 MiB for each shard."""
    return (64 + 64 * server.shard_count()) * MIB


def assert_not_pwned(server):
    with server.client() as client:
        assert client.get(b"pwned") is None, "value bytes were read as a command"


def expect_error_and_end(client, what):
    assert client.answer() == (ERROR, b""), what
    client.expect_end()


@test()
def a_key_that_never_comes(context):
    server = context.server(*CACHE)
    clients = [server.client() for _ in range(500)]
    for client in clients:
        client.send(struct.pack("<BH", 1, 65535) + b"k" * 30000)
    server.assert_serves()
    server.assert_rss_below(budget(server), "500 half keys")
    for client in clients:
        client.send(b"k" * 35535)
    for client in clients:
        assert client.answer() == (ERROR, b"")
        client.close()


@test()
def values_that_never_come(context):
    server = context.server(*CACHE)
    clients = [server.client() for _ in range(100)]
    begin = server.rss()
    for client in clients:
        client.send(set_head(b"k", VALUE_SIZE_MAX))
    time.sleep(0.5)
    server.assert_rss_below(begin + 16 * MIB, "declared lengths allocate nothing")
    for client in clients:
        client.socket.settimeout(1)
        try:
            client.send(bytes(15 * MIB))
        except OSError:
            pass  # the budget is used up: the server no longer reads, or has refused
    server.assert_serves()
    server.assert_rss_below(budget(server) + INPUT_BUDGET, "100 half values")
    for client in clients:
        client.reset()
    server.assert_serves()


@test()
def a_declared_length_of_four_gigabytes(context):
    server = context.server(*CACHE)
    for size in (0xFFFFFFFF, 100 * MIB + 1):
        for compressed in (0, 1, 2):
            with server.client() as client:
                client.send(set_head(b"k", size, compressed) + PWNED * 5000)
                expect_error_and_end(client, size)
    with server.client() as client:
        client.call(hello())
        client.send(struct.pack("<BBHI", 0x10, 0, 1, 0xFFFFFFFF) + b"k" + PWNED * 5000)
        assert client.answer()[0] not in (OK, ERROR)
    assert_not_pwned(server)
    server.assert_rss_below(budget(server), "declared lengths")


@test()
def a_value_over_the_limit_with_commands_inside(context):
    server = context.server(*CACHE)
    # The largest value there is, kept and refused; a larger one ends the connection.
    for compressed, reply in ((0, OK_FRAME), (1, ERROR_FRAME), (2, ERROR_FRAME)):
        with server.client(timeout=60) as client:
            size = VALUE_SIZE_MAX
            client.send(set_head(b"k", size, compressed))
            commands = PWNED * (size // len(PWNED)) + bytes(size % len(PWNED))
            received = converse(client, commands + get(b"pwned"), 10)
            assert received == reply + ERROR_FRAME, (compressed, received)
    assert_not_pwned(server)
    server.assert_rss_below(budget(server) + 32 * MIB, "values that are skipped")


@test()
def one_byte_every_so_often(context):
    server = context.server()
    requests = set_(b"slow", b"value") + get(b"slow") + delete(b"slow") + get(b"slow")
    with server.client() as client:
        for position in range(len(requests)):
            client.send(requests[position:position + 1])
            time.sleep(0.02)
            if position % 10 == 0:
                server.assert_serves()
        assert [client.answer() for _ in range(4)] == [
            (OK, b""), (OK, b"value"), (OK, b""), (ERROR, b"")]


@test()
def unknown_operations(context):
    server = context.server()
    for op in [0, *range(8, 256)]:
        with server.client() as client:
            client.send(set_(b"before", b"%d" % op) + bytes([op]) + PWNED * 3)
            assert client.answer() == (OK, b"")
            expect_error_and_end(client, op)
    for op in (0, *range(8, 16)):
        with server.client() as client:
            client.call(hello())
            client.send(bytes([op]) + PWNED * 3)
            assert client.answer()[0] not in (OK, ERROR), op
            client.expect_end()
    assert_not_pwned(server)
    with server.client() as client:
        assert client.get(b"before") == b"255"


@test()
def an_unknown_operation_behind_and_before_much(context):
    """Whatever has been received already, and in whatever pieces, is thrown away with it."""
    server = context.server()
    for key_size in (1, 5000, 20000, 42324, 65535):
        for size in (0, 1, 4096, 16384, 57000, 300000):
            with server.client() as client:
                client.send(hello() + get(b"k" * key_size) + b"\x0e" + bytes(size))
                assert client.answer()[0] == OK
                assert client.answer()[0] not in (OK, ERROR)
                assert client.answer()[0] not in (OK, ERROR)
                client.expect_end()
    server.assert_serves()


@test()
def a_client_that_plays_node(context):
    server = context.server()
    for tail in (b"", struct.pack("<H", 5) + b"pwned", PWNED * 10, bytes(100)):
        with server.client() as client:
            client.send(bytes([SYNC]) + tail)
            if len(tail) >= 2:
                expect_error_and_end(client, tail)
    with server.client() as client:
        client.send(struct.pack("<BH", SYNC, 5) + b"pwned" + struct.pack("<IB", 1, 0) + b"1")
        expect_error_and_end(client, "a whole SYNC")
    assert_not_pwned(server)


@test()
def other_protocols(context):
    server = context.server()
    tls = bytes.fromhex("16030100c8010000c40303") + bytes(190)
    for greeting in (tls, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"*1\r\n$4\r\nPING\r\n",
                     b"SSH-2.0-client\r\n", b"\x80\x9e\x01\x03\x01"):
        with server.client() as client:
            client.send(greeting)
            expect_error_and_end(client, greeting)


@test()
def bad_compression_is_refused_in_step(context):
    server = context.server()
    text = b"some text " * 100
    good = zstd_frame(text)
    cases = {
        "compressed=2": (text, 2),
        "compressed=255": (text, 255),
        "no frame at all": (text, 1),
        "an empty value": (b"", 1),
        "magic only": (ZSTD_MAGIC, 1),
        "bytes behind the frame": (good + b"x", 1),
        "two frames": (good + good, 1),
        "a skippable frame": (zstd_skippable(b"x" * 10), 1),
        "a skippable frame before": (zstd_skippable() + good, 1),
        "a skippable frame behind": (good + zstd_skippable(), 1),
        "10^5 skippable frames": (zstd_skippable() * 100000, 1),
        "10^5 skippable frames before": (zstd_skippable() * 100000 + good, 1),
        "a window of 16 MiB": (zstd_frame(text, window_log=24), 1),
        "a window of 2 GiB": (zstd_frame(text, window_log=31), 1),
        "a window beyond that": (zstd_frame(text, window_log=41), 1),
        "a dictionary": (zstd_frame(text, dictionary=12345), 1),
        "a size that is too small": (zstd_frame(text, content_size=len(text) - 1), 1),
        "a size that is too large": (zstd_frame(text, content_size=len(text) + 1), 1),
        "a size of 2^64-3": (zstd_frame(text, content_size=(1 << 64) - 3), 1),
        "a size of 1 GiB": (zstd_frame(text, content_size=1 << 30), 1),
        "a wrong checksum": (zstd_frame(text, checksum=b"\1\2\3\4"), 1),
        "1 GiB in 32 KiB": (zstd_run(1 << 30), 1),
        "1 GiB that says 100 bytes": (zstd_run(1 << 30, content_size=100), 1),
        "one byte over the limit": (zstd_run(VALUE_SIZE_MAX + 1), 1),
    }
    for size in range(1, len(good)):
        if size < 20 or size % 97 == 0 or size == len(good) - 1:
            cases[f"cut at {size}"] = (good[:size], 1)
    chance = random.Random(5)
    with server.client() as client:
        for what, (value, compressed) in cases.items():
            client.send(set_(b"bad", value, compressed) + set_(b"k", what.encode()) + get(b"k"))
            results = [client.answer() for _ in range(3)]
            assert results == [(ERROR, b""), (OK, b""), (OK, what.encode())], (what, results)
        assert client.get(b"bad") is None
        for _ in range(300):  # flipped bytes: refused or not, never out of step
            broken = bytearray(good)
            broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
            client.send(set_(b"flip", bytes(broken), 1) + get(b"absent"))
            client.answer()
            assert client.answer() == (ERROR, b"")
        client.call(hello())
        assert client.call(set_(b"bad", text, 1))[0] == BAD_REQUEST


@test()
def bombs_at_once(context):
    server = context.server(*CACHE)
    # One that does not say its size shows only once it has filled a value.
    bombs, legal = (zstd_run(1 << 30, content_size=1 << 30), zstd_run(1 << 30)), zstd_run(16 * MIB)
    clients = [server.client(timeout=60) for _ in range(40)]
    for number, client in enumerate(clients):
        bomb = bombs[number < 2]
        client.send(set_(b"bomb", bomb, 1) * 3 + set_(b"legal %d" % number, legal, 1))
    server.assert_serves(5)
    for client in clients:
        assert [client.answer() for _ in range(4)] == [(ERROR, b"")] * 3 + [(OK, b"")]
        client.close()
    server.assert_rss_below(budget(server) + INPUT_BUDGET, "40 bombs")


def fill(client, data, seconds):
    """Sends until nothing fits any more; returns how many bytes went."""
    client.socket.settimeout(seconds)
    view, sent = memoryview(data), 0
    try:
        while sent < len(view):
            sent += client.socket.send(view[sent:sent + MIB])
    except (socket.timeout, BlockingIOError):
        pass
    return sent


@test(seconds=180)
def a_million_gets_whose_answers_are_never_read(context):
    server = context.server(*CACHE)
    key, value = b"key" * 50, bytes(range(100))
    with server.client() as other:
        other.set(key, value)
    begin = server.rss()
    requests = get(key) * 1000000
    client = server.client(receive_buffer=64 * KIB)
    sent = fill(client, requests, 2)
    server.assert_serves()
    server.assert_rss_below(begin + 32 * MIB, "a reader who never reads")
    assert sent < len(requests), "everything was taken: nothing pushes back"
    client.socket.settimeout(60)  # it was only slow: nothing is lost, nothing is out of order
    writer = threading.Thread(target=client.socket.sendall, args=(memoryview(requests)[sent:],))
    writer.start()
    expected = answer(value)
    for _ in range(1000):
        assert client.receive(1000 * len(expected)) == expected * 1000
    writer.join()
    client.close()


def crowd_that_never_reads(context, *flags):
    server = context.server("-cache", "128", *flags)
    value = random.Random(1).randbytes(8 * MIB)
    with server.client() as client:
        for number in range(20):
            client.set(b"large %d" % number, value)
    begin = server.rss()
    clients = [server.client(receive_buffer=16 * KIB) for _ in range(100)]
    for number, client in enumerate(clients):
        client.send(get(b"large %d" % (number % 20)) * 20)
    time.sleep(1)
    server.assert_serves()
    server.assert_rss_below(begin + 300 * MIB, "values that nobody reads")
    readers = list(enumerate(clients))[1::20]
    for number, client in enumerate(clients):
        if number % 20 != 1:
            client.reset() if number % 2 else client.close()
    for _, client in readers:  # whoever begins to read gets everything, from the disk too
        for _ in range(3):
            assert client.answer() == (OK, value)
        client.close()
    server.assert_serves()


@test()
def many_who_never_read_large_values(context):
    crowd_that_never_reads(context)


@test()
def many_who_never_read_large_values_of_other_shards(context):
    """What waits for its turn in a pipeline must not hold buffers: readers would be given up for others."""
    crowd_that_never_reads(context, "-shards", "4")


@test()
def an_auth_flood_and_near_misses(context):
    secret = b"correct horse battery staple"
    server = context.server("-auth", secret.decode(), "-authmode", "all")
    misses = [b"", secret[:-1], secret + b"x", secret + b"\0", b"\0" + secret, secret.upper(),
              secret[::-1], secret + b"\n", b" " + secret, secret.replace(b" ", b""), b"x" * 65535,
              secret[:-1] + b"f", b"d" + secret[1:], secret * 2]
    with server.client() as client:
        for miss in misses:
            assert client.call(auth(miss)) == (ERROR, b""), miss[:40]
        flood = b"".join(auth(b"guess %d" % n) for n in range(100000))
        assert converse(client, flood, 5 * 100000) == ERROR_FRAME * 100000
        server.assert_serves_health()
        assert client.call(auth(secret)) == (OK, b"")
        client.set(b"k", b"v")
        assert client.call(auth(b"wrong again")) == (ERROR, b"")
    with server.client() as client:
        assert client.call(get(b"k")) == (ERROR, b"")
        client.expect_end()
    server.assert_rss_below(700 * MIB, "an AUTH flood")


@test()
def commands_before_auth_are_consumed_then_closed_with_fin(context):
    for mode in ("writes", "all"):
        server = context.server("-auth", "secret", "-authmode", mode)
        requests = [set_(b"k", b"v"), delete(b"k"), set_(b"k", bytes(1 * MIB)),
                    set_(b"k", zstd_frame(b"packed"), 1), set_(b"k", bytes(10 * MIB))]
        if mode == "all":
            requests += [get(b"k")]
        for request in requests:
            for behind in (b"", auth(b"secret") + PWNED, get(b"k") * 1000 + bytes(100000)):
                with server.client() as client:
                    client.send(request + behind)
                    assert client.answer() == (ERROR, b""), (mode, request[:20])
                    client.expect_end()
        with server.client() as client:  # refused even while its value still comes
            value = bytes(10 * MIB)
            client.send(set_head(b"k", len(value)))
            for offset in range(0, len(value), MIB):
                client.send(value[offset:offset + MIB])
                time.sleep(0.01)
            expect_error_and_end(client, mode)
        with server.client() as client:
            client.send(auth(b"secret") + get(b"k") + get(b"pwned"))
            assert [client.answer() for _ in range(3)] == [(OK, b""), (ERROR, b""), (ERROR, b"")]
        assert server.terminate() == 0


@test()
def resets_in_the_middle_of_everything(context):
    server = context.server(*CACHE)
    value = random.Random(2).randbytes(200000)
    chance = random.Random(3)
    with server.client() as client:
        client.set(b"large", value)
    for number in range(600):
        client = server.client()
        kind = number % 6
        if kind == 0:
            client.send(set_(b"half %d" % number, value)[:chance.randrange(1, len(value))])
        elif kind == 1:
            client.send(get(b"large") * 50)
        elif kind == 2:
            client.send(b"".join(set_(b"r %d" % n, b"v" * 100) for n in range(200)))
        elif kind == 3:
            client.send(set_(b"z", zstd_run(4 * MIB), 1) * 3)
        elif kind == 4:
            client.send(get(b"large"))
            client.receive(chance.randrange(1, 1000))
        if number % 2:
            client.reset()
        else:
            client.close()
    server.assert_serves()
    with server.client() as client:
        for number in range(0, 600, 6):
            assert client.get(b"half %d" % number) is None, "half a SET was stored"
        assert client.get(b"large") == value
    server.assert_rss_below(budget(server) + 64 * MIB, "resets")


@test()
def a_half_closed_connection_still_gets_its_answers(context):
    server = context.server()
    count = 2000
    for tail in (b"", set_(b"k", b"half")[:-2], b"\1", get(b"k")[:-1]):
        with server.client() as client:
            client.send(b"".join(set_(b"k", b"%d" % n) + get(b"k") for n in range(count)) + tail)
            client.socket.shutdown(socket.SHUT_WR)
            for n in range(count):
                assert client.answer() == (OK, b""), n
                assert client.answer() == (OK, b"%d" % n), n
            client.expect_end()
    with server.client() as client:
        client.socket.shutdown(socket.SHUT_WR)
        client.expect_end()
    large = random.Random(4).randbytes(8 * MIB)
    with server.client() as client:
        client.send(set_(b"large", large) + get(b"large") * 3)
        client.socket.shutdown(socket.SHUT_WR)
        assert client.answer() == (OK, b"")
        assert [client.answer() for _ in range(3)] == [(OK, large)] * 3
        client.expect_end()


@test()
def thousands_of_idle_connections(context):
    server = context.server(*CACHE)
    begin = server.rss()
    count = 5000
    clients = [server.client() for _ in range(count)]
    server.assert_serves()
    server.assert_rss_below(begin + count * 8 * KIB + 16 * MIB, f"{count} idle connections")
    for client in clients[::7]:
        client.send(set_(b"idle", b"value") + get(b"idle"))
    for client in clients[::7]:
        assert [client.answer(), client.answer()] == [(OK, b""), (OK, b"value")]
    for number, client in enumerate(clients):
        if number % 2:
            client.reset()
        else:
            client.close()
    server.assert_serves()
    again = [server.client() for _ in range(count)]
    server.assert_serves()
    server.assert_rss_below(begin + count * 8 * KIB + 16 * MIB, "the same number again")
    for client in again:
        client.close()


def assert_refused(server, **options):
    """Accepted and closed at once, or reset; never kept waiting."""
    with server.client(timeout=3, **options) as extra:
        try:
            extra.send(health())
            assert extra.socket.recv(1) == b"", "served beyond the limit"
        except (ConnectionResetError, BrokenPipeError):
            pass


def assert_limit(server, limit):
    """Every connection up to the limit works, further ones are refused, then places return."""
    begin = server.rss()
    sockets = []
    try:
        for number in range(limit):
            sockets.append(server.client(source=f"127.0.{1 + number // 20000}.1"))
    except OSError as error:
        raise AssertionError(f"connection {len(sockets)} of {limit}: {error}") from None
    for client in sockets[::max(1, limit // 50)] + sockets[-1:]:
        assert client.call(set_(b"k", b"v")) == (OK, b"")
    server.assert_rss_below(begin + limit * 8 * KIB + 64 * MIB, f"{limit} connections")
    for _ in range(20):
        assert_refused(server, source="127.0.9.1")
    assert sockets[0].call(get(b"k")) == (OK, b"v")
    for client in sockets:
        client.close()
    deadline = time.monotonic() + 5
    while True:
        try:
            server.assert_serves()
            break
        except (OSError, EOFError):
            assert time.monotonic() < deadline, "not back to normal after 5 s"
            time.sleep(0.1)


@test(slow=True, seconds=240)
def connection_50001_is_refused_cleanly(context):
    """With fewer descriptors to be had, as many as there are."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = 50000 if hard >= 60000 else hard // 2
    assert_limit(context.server(*CACHE, "-connections", str(limit)), limit)


@test()
def the_connection_after_the_last_is_refused_cleanly(context):
    assert_limit(context.server(*CACHE, "-connections", "100"), 100)


@test()
def when_descriptors_are_few_the_log_tells_how_many_connections_fit(context):
    server = context.server(*CACHE, files=5000)
    match = server.wait_line(r"at most (\d+) of \d+ connections", 1)
    fit = int(match.group(1))
    assert 100 <= fit <= 5000, fit
    # With several shards each has its part of the descriptors, and connections do not spread evenly.
    spare = 20 if server.shard_count() == 1 else fit // 4
    sockets = [server.client() for _ in range(fit - spare)]
    for client in sockets:
        assert client.call(get(b"k")) == (ERROR, b"")
    waiting = [server.client() for _ in range(3 * spare)]
    for client in waiting[2 * spare:]:  # surely beyond the limit: refused, not kept waiting
        client.socket.settimeout(3)
        try:
            assert client.socket.recv(1) == b""
        except ConnectionResetError:
            pass
    assert sockets[0].call(get(b"k")) == (ERROR, b"")
    for client in sockets + waiting:
        client.close()
    time.sleep(0.2)
    server.assert_serves()


@test(slow=True)
def crafted_collisions_are_not_linear(context):
    server = context.server(*CACHE)
    count = 20000
    crafted = colliding_keys(count)
    chance = random.Random(6)
    ordinary = [chance.randbytes(64) for _ in range(count)]

    def took(keys):
        begin = time.monotonic()
        with server.client(timeout=60) as client:
            for make, expected in ((lambda k: set_(k, k), OK_FRAME * count),
                                   (get, b"".join(answer(k) for k in keys)),
                                   (lambda k: set_(k, b"2"), OK_FRAME * count),
                                   (get, answer(b"2") * count)):
                requests = b"".join(make(key) for key in keys)
                assert converse(client, requests, len(expected)) == expected
        return time.monotonic() - begin

    base = took(ordinary)
    collided = took(crafted)
    assert collided < 5 * base + 0.5, f"{collided:.2f} s for collisions, {base:.2f} s without"


@test()
def garbage(context):
    server = context.server(*CACHE)
    chance = random.Random(8)
    for number in range(400):
        with server.client(timeout=0.05) as client:
            data = chance.randbytes(chance.choice((1, 3, 10, 100, 5000, 100000)))
            if number % 3 == 0:  # a valid beginning, then noise
                data = set_(b"k", b"v") + get(b"k") + bytes([chance.randrange(8)]) + data
            if number % 5 == 0:
                data = hello() + typed(chance.randrange(16, 256), b"k", b"body") + data
            try:
                client.send(data)
                while client.socket.recv(65536):
                    pass
            except OSError:
                pass
    server.assert_serves()
    server.assert_rss_below(budget(server) + INPUT_BUDGET, "garbage")


@test()
def many_connections_at_once_all_get_everything(context):
    """Each works on its own keys; every answer is its own."""
    server = context.server(*CACHE)
    problems = []

    def work(number):
        chance = random.Random(number)
        try:
            with server.client(timeout=60) as client:
                for _ in range(20):
                    keys = [b"c %d %d" % (number, chance.randrange(50)) for _ in range(50)]
                    values = [os.urandom(chance.randrange(2000)) for _ in keys]
                    requests = b"".join(set_(k, v) + get(k) for k, v in zip(keys, values))
                    expected = b"".join(OK_FRAME + answer(v) for v in values)
                    if converse(client, requests, len(expected)) != expected:
                        problems.append(number)
        except (OSError, EOFError) as error:
            problems.append((number, error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems, problems


@test(seconds=120)
def a_flood_that_fills_every_log_buffer_is_answered_whole(context):
    """Requests that had to wait for a buffer go on when one comes free, also in the very pass that stopped them."""
    server = context.server(*CACHE, "-durability", "interval")
    request = b"".join(set_(b"flood %d" % i, bytes(4 * KIB)) for i in range(64))
    problems = []

    def work():
        try:
            with server.client(timeout=20) as client:
                for _ in range(40):
                    client.send(request)
                    assert client.receive(64 * len(OK_FRAME)) == OK_FRAME * 64
        except (OSError, EOFError, AssertionError) as error:
            problems.append(error)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems, problems
