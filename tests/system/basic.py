"""The binary protocol, byte for byte as docs/protocol.md tells it."""
import json
import random
import socket
import struct
import time

from harness import (
    AUTH_REQUIRED, BAD_REQUEST, ERROR, ERROR_FRAME, HEALTH, KIB, MIB, NOT_FOUND, OK, OK_FRAME,
    STATS, UNSUPPORTED, VALUE_SIZE_MAX, answer, auth, colliding_keys, converse, delete, get,
    health, hello, set_, set_head, test, typed, xxh64, zstd_frame, zstd_run)

HEALTH_NUMBERS = ("uptime_seconds", "cache_items", "cache_size_mb", "storage_size_mb", "goroutines",
                  "memory_mb")


def value_of(size, seed=0):
    return random.Random(seed * 1000003 + size).randbytes(size)


@test()
def answers_byte_for_byte(context):
    with context.server().client() as client:
        for request, expected in [
                (get(b"k"), ERROR_FRAME),
                (delete(b"k"), OK_FRAME),
                (set_(b"k", b"value"), OK_FRAME),
                (get(b"k"), b"\0\5\0\0\0value"),
                (set_(b"k", b"other value"), OK_FRAME),
                (get(b"k"), b"\0\x0b\0\0\0other value"),
                (set_(b"k", b""), OK_FRAME),
                (get(b"k"), OK_FRAME),
                (delete(b"k"), OK_FRAME),
                (get(b"k"), ERROR_FRAME),
                (delete(b"k"), OK_FRAME)]:
            client.send(request)
            assert client.receive(len(expected)) == expected, request
        client.send(health(b"anything"))
        assert client.receive(1) == b"\0"
        (size,) = struct.unpack("<I", client.receive(4))
        json.loads(client.receive(size))
        client.socket.settimeout(0.2)
        try:
            assert not client.socket.recv(1), "closed"
            raise AssertionError("a byte that nobody asked for")
        except socket.timeout:
            pass


@test()
def an_empty_key_is_an_error_and_the_stream_goes_on(context):
    with context.server().client() as client:
        for request in (get(b""), set_(b"", b"value"), set_(b"", b""), delete(b"")):
            assert client.call(request) == (ERROR, b""), request
        client.set(b"k", b"v")
        assert client.get(b"k") == b"v"
        assert client.call(health(b""))[0] == OK


@test()
def keys_of_every_size_and_byte(context):
    server = context.server()
    keys = [bytes([byte]) for byte in range(256)]
    keys += [value_of(size) for size in (2, 7, 8, 255, 256, 4095, 4096, 4097, 65534, 65535)]
    keys += [b"../../etc/passwd", b"a\0b", b"a\0c", b"a", b"%2F", b"health", b"/health", b"..", b".",
             b"\0" * 65535, b"\xff" * 65535, "schlüssel".encode(), b"key\r\nkey", b" "]
    expected = {key: b"value %d" % number for number, key in enumerate(keys)}
    with server.client() as client:
        for key, value in expected.items():
            client.set(key, value)
        for key, value in expected.items():
            assert client.get(key) == value, key[:32]
    server.restart()
    with server.client() as client:
        for key, value in expected.items():
            assert client.get(key) == value, key[:32]


@test()
def values_of_every_size(context):
    server = context.server("-cache", "16")
    sizes = [0, 1, 2, 3, 4, 5, 100, 1000, 4090, 4096, 4100, 16379, 16384, 65535, 65536, 262143, 262144,
             MIB - 1, MIB, 5 * MIB + 1, 16 * MIB + 1]
    with server.client() as client:
        for size in sizes:
            client.set(b"size %d" % size, value_of(size))
        for size in sizes:
            assert client.get(b"size %d" % size) == value_of(size), size
    server.restart()
    with server.client() as client:
        for size in sizes:
            assert client.get(b"size %d" % size) == value_of(size), size


@test()
def a_large_value_that_is_refused_is_consumed(context):
    server = context.server()
    with server.client() as client:
        client.set(b"k", b"before")
        for size in (1 * MIB, 20 * MIB):
            client.send(set_head(b"k", size, 2) + set_(b"pwned", b"1") * 1000)
            left = size - len(set_(b"pwned", b"1")) * 1000
            client.send(bytes(left))
            assert client.answer() == (ERROR, b"")
            assert client.get(b"k") == b"before", "the stream is out of step"
        assert client.get(b"pwned") is None
        assert client.call(hello())[0] == OK
        client.send(set_head(b"k", 20 * MIB, 2) + bytes(20 * MIB))
        status, message = client.answer()
        assert status == BAD_REQUEST and message.decode(), (status, message)
        assert client.get(b"k") == b"before"


def mixed_requests(count, chance):
    """Requests, the bytes that must answer them, in order."""
    model, requests, answers = {}, [], []
    for number in range(count):
        key = b"key %d" % chance.randrange(200)
        kind = chance.random()
        if kind < 0.45:
            value = chance.randbytes(chance.choice((0, 1, 10, 100, 100, 1000)))
            model[key] = value
            requests.append(set_(key, value))
            answers.append(OK_FRAME)
        elif kind < 0.9:
            requests.append(get(key))
            answers.append(answer(model[key]) if key in model else ERROR_FRAME)
        elif kind < 0.97:
            model.pop(key, None)
            requests.append(delete(key))
            answers.append(OK_FRAME)
        elif kind < 0.98:
            requests.append(get(b""))
            answers.append(ERROR_FRAME)
        elif kind < 0.99:
            requests.append(set_(key, b"not stored", compressed=2))
            answers.append(ERROR_FRAME)
        else:
            value = b"packed %d " % number * 20
            model[key] = value
            requests.append(set_(key, zstd_frame(value), compressed=1))
            answers.append(OK_FRAME)
    return b"".join(requests), b"".join(answers)


def cut(data, size_max, chance):
    offset = 0
    while offset < len(data):
        size = chance.randint(1, size_max)
        yield data[offset:offset + size]
        offset += size


@test()
def ten_thousand_pipelined_in_any_split(context):
    server = context.server()
    for round_, size_max in enumerate((None, 100000, 5000, 300, 40)):
        chance = random.Random(round_)
        requests, expected = mixed_requests(10000, chance)
        with server.client() as client:
            for number in range(200):
                client.delete(b"key %d" % number)
            chunks = cut(requests, size_max, chance) if size_max else None
            assert converse(client, requests, len(expected), chunks) == expected, size_max


@test()
def every_split_of_every_frame(context):
    server = context.server()
    frames = [(set_(b"split", b"value"), OK_FRAME), (get(b"split"), answer(b"value")),
              (set_(b"pack", zstd_frame(b"packed"), 1), OK_FRAME), (get(b"pack"), answer(b"packed")),
              (set_(b"bad", b"value", 2), ERROR_FRAME), (auth(b"who"), None), (delete(b"split"), OK_FRAME),
              (get(b"split"), ERROR_FRAME), (get(b""), ERROR_FRAME), (hello(b"minivault/0"), None)]
    with server.client() as client:
        for frame, expected in frames:
            whole = client.call(frame)
            for position in range(1, len(frame)):
                if frame[0] in (2, 3):
                    client.call(set_(b"split", b"value"))
                client.send(frame[:position])
                # Its own segment: the server has seen the first part when this answer is here.
                client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                server.assert_serves()
                client.send(frame[position:])
                if expected is None:
                    assert client.answer() == whole, (frame, position)
                else:
                    assert client.receive(len(expected)) == expected, (frame, position)
            if frame == delete(b"split"):
                client.call(delete(b"split"))
        requests, expected = mixed_requests(60, random.Random(7))
        for number in range(200):
            client.delete(b"key %d" % number)
        assert converse(client, requests, len(expected),
                        (requests[i:i + 1] for i in range(len(requests)))) == expected


@test()
def a_get_sees_the_set_before_it_and_others_see_it_when_it_is_answered(context):
    server = context.server()
    with server.client() as one, server.client() as two:
        for number in range(300):
            value = b"%d" % number * 10
            one.send(set_(b"k", value) + get(b"k") + delete(b"k") + get(b"k") + set_(b"k", value))
            assert [one.answer() for _ in range(5)] == [
                (OK, b""), (OK, value), (OK, b""), (ERROR, b""), (OK, b"")]
            assert two.get(b"k") == value


@test()
def what_the_cache_does_not_hold_comes_from_the_disk(context):
    server = context.server("-cache", "1")
    count, size = 600, 20 * KIB
    with server.client() as client:
        for first in range(0, count, 50):
            numbers = range(first, first + 50)
            client.send(b"".join(set_(b"disk %d" % n, value_of(size, n)) for n in numbers))
            assert client.receive(50 * 5) == OK_FRAME * 50
        order = list(range(count)) * 2
        random.Random(3).shuffle(order)
        for first in range(0, len(order), 30):
            numbers = order[first:first + 30]
            client.send(b"".join(get(b"disk %d" % n) for n in numbers))
            for n in numbers:
                assert client.answer() == (OK, value_of(size, n)), n
        # Overwritten and deleted while only the disk has the old value.
        client.send(b"".join(set_(b"disk %d" % n, b"new %d" % n) for n in range(0, count, 3)) +
                    b"".join(delete(b"disk %d" % n) for n in range(1, count, 3)))
        assert client.receive(5 * 2 * (count // 3)) == OK_FRAME * (2 * (count // 3))
        for n in range(count):
            expected = (b"new %d" % n, None, value_of(size, n))[n % 3]
            assert client.get(b"disk %d" % n) == expected, n


@test()
def keys_with_one_xxh64_are_different_keys(context):
    server = context.server("-cache", "1")
    keys = colliding_keys(500)
    assert len({xxh64(key) for key in keys}) == 1
    with server.client() as client:
        for _ in range(2):
            client.send(b"".join(set_(key, b"%d" % i * 1000) for i, key in enumerate(keys)))
            assert client.receive(5 * len(keys)) == OK_FRAME * len(keys)
        client.send(b"".join(delete(key) for key in keys[::5]))
        assert client.receive(5 * len(keys[::5])) == OK_FRAME * len(keys[::5])
    for _ in range(2):
        with server.client() as client:
            for i, key in enumerate(keys):
                assert client.get(key) == (None if i % 5 == 0 else b"%d" % i * 1000), i
        server.restart()


def check_health(text):
    def no_float(digits):
        raise AssertionError(f"not an integer: {digits}")
    fields = json.loads(text, parse_float=no_float)
    assert isinstance(fields["status"], str) and fields["status"], fields
    for name in HEALTH_NUMBERS:
        assert type(fields[name]) is int and fields[name] >= 0, (name, fields)
    assert fields["goroutines"] >= 1, fields
    return fields


@test()
def health_is_json_with_integers(context):
    server = context.server()
    with server.client() as client:
        before = check_health(client.call(health())[1])
        client.send(b"".join(set_(b"k %d" % n, bytes(4096)) for n in range(3000)))
        assert client.receive(3000 * 5) == OK_FRAME * 3000
        deadline = time.monotonic() + 10  # other shards tell of themselves twice a second
        while True:
            after = check_health(client.call(health(b"ignored"))[1])
            if after["cache_items"] >= before["cache_items"] + 3000:
                break
            assert time.monotonic() < deadline, (before, after)
            time.sleep(0.1)
        assert after["cache_size_mb"] >= 11, after
        assert after["uptime_seconds"] < 100, after


@test()
def compressed_values_are_answered_decoded(context):
    server = context.server("-cache", "1")
    cases = {b"small": b"a", b"empty": b"", b"text": b"some text " * 1000,
             b"random": value_of(300000), b"blocks": value_of(3 * MIB)}
    with server.client() as client:
        for key, value in cases.items():
            assert client.call(set_(key, zstd_frame(value), 1)) == (OK, b""), key
            assert client.get(key) == value, key
            assert client.call(set_(key, zstd_frame(value, content_size=len(value)), 1)) == (OK, b"")
        for window_log in (10, 17, 23):
            assert client.call(set_(b"window", zstd_frame(b"w" * 1000, window_log), 1)) == (OK, b"")
        assert client.call(set_(b"run", zstd_run(VALUE_SIZE_MAX), 1)) == (OK, b"")
    for _ in range(2):
        with server.client() as client:
            for key, value in cases.items():
                assert client.get(key) == value, key
            assert client.get(b"window") == b"w" * 1000
            assert client.get(b"run") == bytes(VALUE_SIZE_MAX)
        server.restart()


@test()
def hello_types_the_statuses(context):
    server = context.server()
    with server.client() as client:
        status, text = client.call(hello())
        assert status == OK, status
        fields = json.loads(text)
        assert isinstance(fields, dict) and "version" in fields, fields
        for request, expected in [
                (get(b"absent"), NOT_FOUND), (get(b""), BAD_REQUEST), (set_(b"", b"v"), BAD_REQUEST),
                (set_(b"k", b"v", 2), BAD_REQUEST), (set_(b"k", b"no frame", 1), BAD_REQUEST)]:
            status, message = client.call(request)
            assert status == expected, (request, status, message)
            assert message.decode("utf-8"), request
        assert client.call(set_(b"k", b"v")) == (OK, b"")
        assert client.call(get(b"k")) == (OK, b"v")
        assert client.call(delete(b"absent")) == (OK, b"")
        assert client.call(hello())[0] == OK
    with server.client() as plain:
        assert plain.call(get(b"absent")) == (ERROR, b""), "HELLO is each connection's own"


@test()
def unknown_typed_operations_are_unsupported_and_the_stream_goes_on(context):
    server = context.server()
    with server.client() as client:
        client.send(hello() + get(b"k"))
        assert client.answer()[0] == OK
        assert client.answer()[0] == NOT_FOUND
        for op in set(range(0x10, 0x100)) - {STATS}:
            body = set_(b"pwned", b"1") * (op % 7)
            status, message = client.call(typed(op, b"key" * (op % 3), body, op % 5))
            assert status == UNSUPPORTED and message.decode(), (op, status)
        body = set_(b"pwned", b"1") * 200000
        assert client.call(typed(0x10, b"key", body))[0] == UNSUPPORTED
        assert client.call(get(b"pwned"))[0] == NOT_FOUND


@test()
def hello_with_another_name_leaves_the_connection_plain(context):
    with context.server().client() as client:
        for name in (b"", b"minivault/1", b"minivault/20", b"minivault/", b"MINIVAULT/2"):
            assert client.call(hello(name)) == (ERROR, b""), name
        assert client.call(get(b"absent")) == (ERROR, b"")


@test()
def auth_mode_writes(context):
    server = context.server("-auth", "secret", "-authmode", "writes")
    with server.client() as client:
        assert client.call(get(b"k")) == (ERROR, b""), "a read is public; the key is absent"
        assert client.call(auth(b"wrong")) == (ERROR, b"")
        assert client.call(auth(b"secret")) == (OK, b"")
        client.set(b"k", b"v")
    with server.client() as client:
        assert client.get(b"k") == b"v"
        assert client.call(health())[0] == OK
        assert client.call(hello())[0] == OK
        status, message = client.call(set_(b"k", b"forged"))
        assert status == AUTH_REQUIRED and message.decode(), status
        client.expect_end()
    with server.client() as client:
        assert client.call(delete(b"k")) == (ERROR, b"")
        client.expect_end()
    with server.client() as client:
        assert client.get(b"k") == b"v"


@test()
def auth_mode_all(context):
    server = context.server("--auth=secret", "--authmode=all")
    with server.client() as client:
        assert client.call(health())[0] == OK
        assert client.call(hello())[0] == OK
        assert client.call(auth(b"secret")) == (OK, b"")
        client.set(b"k", b"v")
    for request in (get(b"k"), get(b"absent"), set_(b"k", b"forged"), delete(b"k")):
        with server.client() as client:
            assert client.call(request) == (ERROR, b""), request
            client.expect_end()
    with server.client() as client:
        client.send(auth(b"secret") + get(b"k"))
        assert [client.answer(), client.answer()] == [(OK, b""), (OK, b"v")]


@test()
def auth_from_a_file(context):
    path = context.directory / "secret"
    path.write_bytes(b"from the file\n")
    server = context.server("-auth-file", str(path), "-authmode", "all")
    with server.client() as client:
        assert client.call(auth(b"from the file")) == (OK, b"")
        assert client.call(get(b"k")) == (ERROR, b"")
        assert client.call(health(b"k"))[0] == OK, HEALTH
