"""HTTP over real sockets: routes, bodies of every kind, pipelining, what is refused, and how."""
import json
import re
import socket
import time

from harness import Client, KIB, MIB, VALUE_SIZE_MAX, http_server, test

HOST = b"Host: x\r\n"


class Reply:
    def __init__(self, status, fields, body):
        self.status, self.fields, self.body = status, fields, body

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {self.fields} {self.body[:200]!r}"


class HttpClient(Client):
    def line(self):
        while b"\r\n" not in self.buffer:
            data = self.socket.recv(256 * KIB)
            if not data:
                raise EOFError(f"end of stream after {bytes(self.buffer[:200])!r}")
            self.buffer += data
        end = self.buffer.index(b"\r\n")
        line = bytes(self.buffer[:end])
        del self.buffer[:end + 2]
        return line

    def reply(self, method="GET"):
        version, status, _ = self.line().split(b" ", 2)
        assert version == b"HTTP/1.1", version
        fields = {}
        while True:
            line = self.line()
            if not line:
                break
            name, value = line.split(b": ", 1)
            assert name.lower() not in fields, name
            fields[name.lower().decode()] = value.decode()
        status = int(status)
        if status in (100, 204):
            assert "content-length" not in fields
            return Reply(status, fields, b"")
        size = int(fields["content-length"])
        return Reply(status, fields, b"" if method == "HEAD" else self.receive(size))

    def ask(self, method, path, body=None, fields=b""):
        self.send(request(method, path, body, fields))
        return self.reply(method)


def request(method, path, body=None, fields=b""):
    path = path if isinstance(path, bytes) else path.encode()
    length = b"" if body is None else b"Content-Length: %d\r\n" % len(body)
    return b"%s %s HTTP/1.1\r\n" % (method.encode(), path) + HOST + fields + length + b"\r\n" + (
        body or b"")


def chunked(method, path, chunks, fields=b""):
    body = b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks if c) + b"0\r\n\r\n"
    return request(method, path, None, fields + b"Transfer-Encoding: chunked\r\n") + body


def client_of(server, **options):
    return HttpClient(server.http_port, **options)


def put(client, key, text):
    reply = client.ask("PUT", "/" + key, b'{"value": %s}' % text)
    assert (reply.status, reply.json()) == (200, {"success": True}), reply


def value_of(seed, size):
    block = bytes((i * 7 + seed) % 251 for i in range(9973))
    return (block * (size // len(block) + 1))[:size]


# ---- the routes ----

@test()
def json_values_come_back_digit_for_digit(context):
    server = http_server(context)
    texts = [b"9007199254740993", b"1e400", b"-0", b"1E5", b"0.1", b"null", b'""', b"{}", b"[]",
             b"true", b'"\\u00e9\\n\\ud83d\\ude00"', '"é😀"'.encode(), b'{"a":[1,{"b":null}],"a":2}']
    with client_of(server) as client:
        for text in texts:
            put(client, "k", text)
            reply = client.ask("GET", "/k")
            assert reply.body == b'{"success":true,"data":' + text + b"}", reply
            assert reply.fields["content-type"] == "application/json"
        assert client.ask("POST", "/k", b' { "x" : 1 , "value" : [ 1 , "a b" ] } ').status == 200
        assert client.ask("GET", "/k").body == b'{"success":true,"data":[1,"a b"]}'
        head = client.ask("HEAD", "/k")
        assert (head.status, head.fields["content-length"]) == (200, "33"), head
        for _ in range(2):
            assert client.ask("DELETE", "/k").json() == {"success": True}
        reply = client.ask("GET", "/k")
        assert (reply.status, reply.json()) == (404, {"success": False, "error": "not found"})
        assert client.ask("HEAD", "/k").status == 404


@test()
def what_is_wrong_with_a_request_is_told_and_the_connection_stays(context):
    server = http_server(context)
    cases = [
        ("PUT", "/k", b"{", 400, "invalid json"),
        ("PUT", "/k", b"", 400, "invalid json"),
        ("PUT", "/k", None, 400, "invalid json"),
        ("PUT", "/k", b'{"value":"\\ud800"}', 400, "invalid json"),
        ("PUT", "/k", b"{}", 400, "missing value field"),
        ("PUT", "/k", b'{"value":1,"value":2}', 400, None),
        ("PUT", "/k", b'{"value":' + b"[" * 600 + b"]" * 600 + b"}", 400, None),
        ("PUT", "/", b'{"value":1}', 400, "key required"),
        ("GET", "/", None, 400, "key required"),
        ("GET", "/v1/kv/", None, 400, "key required"),
        ("GET", "/k?x=1", None, 400, None),
        ("GET", "/%zz", None, 400, None),
        ("GET", "/v1/other", None, 404, "no such route"),
        ("POST", "/v1/kv/k", b"x", 405, "method not allowed"),
        ("PATCH", "/k", b"x", 405, "method not allowed"),
        ("DELETE", "/health", None, 405, "method not allowed"),
        ("OPTIONS", "*", None, 405, "method not allowed"),
    ]
    with client_of(server) as client:
        for method, path, body, status, text in cases:
            reply = client.ask(method, path, body)
            assert reply.status == status, (method, path, reply)
            assert reply.json()["success"] is False
            assert text is None or reply.json()["error"] == text, (method, path, reply)
            assert ("allow" in reply.fields) == (status == 405)
        assert client.ask("GET", "/k").status == 404, "and nothing was stored"


@test()
def the_raw_route_reaches_every_key(context):
    server = http_server(context)
    keys = [b"health", b"v1/kv/x", b"a/../b", b"\0", b"\r\n", b"%", b"?", b"k" * 65535,
            bytes(range(256))]
    with client_of(server) as client, server.client() as binary:
        for key in keys:
            path = b"/v1/kv/" + b"".join(b"%%%02X" % byte for byte in key)
            value = b"value of " + key[:100]
            assert client.ask("PUT", path, value).status == 204, key[:50]
            reply = client.ask("GET", path)
            assert (reply.status, reply.body) == (200, value), key[:50]
            assert reply.fields["content-type"] == "application/octet-stream"
            assert binary.get(key) == value, "decoded once, and never more"
            head = client.ask("HEAD", path)
            assert head.fields["content-length"] == str(len(value))
            assert client.ask("DELETE", path).status == 204
            assert client.ask("GET", path).status == 404
        assert client.ask("PUT", "/v1/kv/e", b"").status == 204
        assert client.ask("GET", "/v1/kv/e").body == b""
        assert client.ask("GET", "/v1/kv/" + "%6b" * 65536).status == 400


@test()
def values_of_one_protocol_in_the_other(context):
    server = http_server(context)
    with client_of(server) as client, server.client() as binary:
        put(client, "k", b'{"a": [1, 2]}')
        assert binary.get(b"k") == b'{"a":[1,2]}'
        for value, data in ((b"not json", '"not json"'), (b"", '""'), (b" 1 ", " 1 "),
                            ("é\"\\\n\x01".encode(), '"é\\"\\\\\\n\\u0001"')):
            binary.set(b"k", value)
            assert client.ask("GET", "/k").body == ('{"success":true,"data":%s}' % data).encode()
        binary.set(b"k", b"\xff\xfe")
        reply = client.ask("GET", "/k")
        assert reply.status == 406 and "/v1/kv/" in reply.json()["error"]
        assert client.ask("GET", "/v1/kv/k").body == b"\xff\xfe"
        binary.set(b"k", b"[" * 600 + b"]" * 600)
        assert client.ask("GET", "/k").status == 400
        for size in (2040, 2050, 4000, 100 * KIB):
            binary.set(b"t", b"\x01" * size)
            assert client.ask("GET", "/t").json()["data"] == "\x01" * size
            binary.set(b"t", b'"' + b"a" * size + b'"')
            assert client.ask("GET", "/t").json()["data"] == "a" * size
            assert client.ask("HEAD", "/t").status == 200


@test()
def values_of_every_size_both_ways(context):
    server = http_server(context, "-cache", "8")
    with client_of(server) as client:
        for size in (1, 100, 2047, 2048, 2049, 16 * KIB, 256 * KIB - 1, 256 * KIB, 3 * MIB + 1):
            value = value_of(size, size)
            path = f"/v1/kv/{size}"
            for send in (request("PUT", path, value),
                         chunked("PUT", path, [value[i:i + 100003] for i in range(0, size, 100003)])):
                client.send(send)
                assert client.reply().status == 204, size
                assert client.ask("GET", path).body == value, size
                head = client.ask("HEAD", path)
                assert head.fields["content-length"] == str(size)
        for size in (1, 100, 2049, 256 * KIB - 1, 256 * KIB):
            assert client.ask("GET", f"/v1/kv/{size}").body == value_of(size, size)


@test(slow=True)
def the_largest_values(context):
    server = http_server(context)
    value = value_of(1, VALUE_SIZE_MAX)
    with client_of(server, timeout=60) as client:
        client.send(request("PUT", "/v1/kv/k", value))
        assert client.reply().status == 204
        assert client.ask("GET", "/v1/kv/k").body == value
        client.send(chunked("PUT", "/v1/kv/k", [value[:50 * MIB], value[50 * MIB:]]))
        assert client.reply().status == 204
        assert client.ask("GET", "/v1/kv/k").body == value
        reply = client.ask("GET", "/k")
        assert reply.status == 413 and "/v1/kv/" in reply.json()["error"], reply
    for send in (request("PUT", "/v1/kv/l", None, b"Content-Length: %d\r\n" % (VALUE_SIZE_MAX + 1)),
                 request("PUT", "/v1/kv/l", None, b"Transfer-Encoding: chunked\r\n") +
                 b"%x\r\n" % (VALUE_SIZE_MAX + 1)):
        with client_of(server) as client:
            client.send(send)
            reply = client.reply()
            assert (reply.status, reply.fields.get("connection")) == (413, "close"), reply
            client.expect_end()
    with server.client() as binary:
        assert binary.get(b"l") is None
    server.assert_rss_below(1024 * MIB, "values of 100 MiB")


@test()
def large_json_both_ways(context):
    server = http_server(context)
    with client_of(server, timeout=60) as client, server.client() as binary:
        for size in (100 * KIB, 256 * KIB, 300 * KIB, 3 * MIB):
            text = json.dumps([value_of(5, size).hex()[:size]]).encode()
            client.send(request("PUT", "/k", b'{ "value" : ' + text + b" } "))
            assert client.reply().status == 200
            assert client.ask("GET", "/k").body == b'{"success":true,"data":' + text + b"}"
            client.send(chunked("PUT", "/c", [b'{"value":', text[:70000], text[70000:], b"}"]))
            assert client.reply().status == 200
            assert client.ask("GET", "/c").json()["data"] == json.loads(text)
            assert binary.get(b"c") == text
            assert int(client.ask("HEAD", "/c").fields["content-length"]) == len(text) + 24
        text = ("é\"\n" * (200 * KIB)).encode()
        binary.set(b"t", text)
        assert client.ask("GET", "/t").json()["data"] == text.decode()
        assert client.ask("HEAD", "/t").status == 200
        binary.set(b"b", b"\xff" * MIB)
        assert client.ask("GET", "/b").status == 406
        binary.set(b"d", b"[" * MIB)
        assert client.ask("GET", "/d").status == 400
        assert client.ask("GET", "/k").status == 200, "and the connection stays"
    for body, status in ((b'{"value":"' + b"x" * (16 * MIB) + b'"}', 413),
                         (b'{"value":"' + b"x" * MIB + b'"', 400),
                         (b'{"valve":"' + b"x" * MIB + b'"}', 400)):
        with client_of(server, timeout=60) as client:
            client.send(request("PUT", "/n", body))
            reply = client.reply()
            assert reply.status == status, reply
        with client_of(server) as client:
            assert client.ask("GET", "/n").status == 404


# ---- the connection ----

@test()
def replies_come_in_request_order(context):
    server = http_server(context, "-cache", "1")
    count = 300
    with client_of(server) as client:
        for i in range(count):
            client.send(request("PUT", f"/v1/kv/p{i}", value_of(i, 100 + i * 53)))
            assert client.reply().status == 204
        pipeline, expected = b"", []
        for i in range(count):
            pipeline += request("GET", f"/v1/kv/p{i}")
            expected.append((200, value_of(i, 100 + i * 53)))
            pipeline += request("PUT", f"/q{i}", b'{"value":%d}' % i) + request("GET", f"/q{i}")
            expected += [(200, b'{"success":true}'), (200, b'{"success":true,"data":%d}' % i)]
            if i % 7 == 0:
                pipeline += request("GET", "/absent") + request("PUT", "/bad", b"{")
                expected += [(404, None), (400, None)]
        client.send(pipeline)
        for status, body in expected:
            reply = client.reply()
            assert reply.status == status and (body is None or reply.body == body), reply


@test()
def every_split_of_a_pipeline(context):
    server = http_server(context)
    pipeline = (request("PUT", "/a", b'{"value": [1, 2]}') + request("GET", "/a") + b"\r\n" +
                chunked("PUT", "/v1/kv/b", [b"abc", b"d" * 20]) + request("HEAD", "/v1/kv/b") +
                request("GET", "/v1/kv/b", None, b"Connection: close\r\n"))
    with client_of(server) as client:
        client.send(pipeline)
        expected = b""
        while data := client.socket.recv(KIB):
            expected += data
    assert expected.endswith(b"\r\n\r\nabc" + b"d" * 20), expected
    for cut in range(1, len(pipeline)):
        with client_of(server) as client:
            client.send(pipeline[:cut])
            if cut % 8 == 0:
                time.sleep(0.001)
            client.send(pipeline[cut:])
            assert client.receive(len(expected)) == expected, cut
            client.expect_end()
    with client_of(server) as client:
        for byte in pipeline:
            client.send(bytes([byte]))
        assert client.receive(len(expected)) == expected


@test()
def who_expects_a_hundred_is_told_to_go_on_or_refused(context):
    server = http_server(context, "-auth", "secret", "-authmode", "writes")
    good = b"Authorization: Bearer secret\r\nExpect: 100-continue\r\n"
    for size in (5, MIB):
        with client_of(server) as client:
            for _ in range(2):
                client.send(request("PUT", "/v1/kv/e", None, good + b"Content-Length: %d\r\n" % size))
                assert client.reply().status == 100
                client.send(value_of(0, size))
                assert client.reply().status == 204
            assert client.ask("GET", "/v1/kv/e").body == value_of(0, size)
    for fields, status in ((b"Expect: 100-continue\r\nContent-Length: 5\r\n", 401),
                           (good + b"Content-Length: 999999999\r\n", 413),
                           (b"Expect: something\r\nContent-Length: 0\r\n", 417)):
        with client_of(server) as client:
            client.send(request("PUT", "/v1/kv/f", None, fields))
            assert client.reply().status == status, "no 100 before it"
            if status != 417:
                client.expect_end()


@test()
def connections_are_kept_or_closed_as_asked(context):
    server = http_server(context)
    cases = [(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", True),
             (b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", False),
             (b"GET /health HTTP/1.0\r\n\r\n", False),
             (b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True)]
    for text, is_kept in cases:
        with client_of(server) as client:
            client.send(text)
            reply = client.reply()
            assert reply.status == 200
            assert (reply.fields.get("connection") != "close") == is_kept, reply
            if is_kept:
                client.send(text)
                assert client.reply().status == 200
            else:
                client.expect_end()
    with client_of(server) as client:
        client.send(request("GET", "/health", None, b"Connection: close\r\n") + request("GET", "/a"))
        assert client.reply().status == 200
        client.expect_end()


@test()
def authentication_by_mode(context):
    secret = b"Authorization: Bearer s3cret\r\n"
    wrong = [b"", b"Authorization: Bearer s3cre\r\n", b"Authorization: Bearer s3crett\r\n",
             b"Authorization: Basic s3cret\r\n", b"Authorization: Bearer\r\n"]
    server = http_server(context, "-auth", "s3cret", "-authmode", "writes")
    with client_of(server) as client:
        for fields in wrong:
            reply = client.ask("PUT", "/k", b'{"value":1}', fields)
            assert (reply.status, reply.json()["error"]) == (401, "unauthorized")
            assert "Bearer" in reply.fields["www-authenticate"]
            assert client.ask("DELETE", "/k", None, fields).status == 401
            assert client.ask("GET", "/k", None, fields).status == 404
        assert client.ask("PUT", "/k", b'{"value":1}', secret).status == 200
        assert client.ask("PUT", "/k", b'{"value":1}').status == 401, "with each request"
    server.terminate()
    server = http_server(context, "-auth", "s3cret", "-authmode", "all")
    with client_of(server) as client:
        for path in ("/health", "/livez", "/readyz"):
            assert client.ask("GET", path).status == 200
        for path in ("/k", "/v1/kv/k", "/metrics", "/ui", "/readyz?verbose"):
            assert client.ask("GET", path).status == 401, path
            assert client.ask("GET", path, None, secret).status == 200, path


@test()
def pages(context):
    server = http_server(context)
    with client_of(server) as client:
        assert client.ask("GET", "/health").json()["status"] == "healthy"
        assert client.ask("GET", "/livez").json()["success"] is True
        assert client.ask("GET", "/readyz").json()["status"] == "ready"
        checks = client.ask("GET", "/readyz?verbose").json()["checks"]
        assert re.fullmatch(r"(\w[\w ]* ok(, |$))+", checks), checks
        for name in ("draining", "log", "data directory", "disk space"):
            assert f"{name} ok" in checks
        assert client.ask("GET", "/metrics").body.startswith(b"# HELP minivault_build_info ")
        openmetrics = client.ask("GET", "/metrics", fields=b"Accept: application/openmetrics-text\r\n")
        assert openmetrics.body.endswith(b"# EOF\n")
        assert client.ask("GET", "/ui").body.startswith(b"<!doctype html>")
        assert client.ask("HEAD", "/ui").status == 200


@test()
def the_rate_limit_is_told_and_not_for_pages(context):
    server = http_server(context, "-ratelimit", "20")
    with client_of(server) as client:
        client.send(request("GET", "/k") * 200 + request("GET", "/health") * 10)
        statuses = []
        for _ in range(200):
            reply = client.reply()
            statuses.append(reply.status)
            assert reply.status == 404 or reply.fields["retry-after"] == "1"
        assert 1 <= statuses.count(404) <= 50 and statuses.count(429) >= 150, statuses
        assert all(client.reply().status == 200 for _ in range(10))


# ---- what is refused ----

@test()
def what_could_be_understood_in_two_ways_is_refused_and_closed(context):
    server = http_server(context)
    smuggled = request("DELETE", "/victim")
    length = b"Content-Length: %d\r\n" % len(smuggled)
    te = b"Transfer-Encoding: chunked\r\n"
    put_head = b"PUT /v1/kv/x HTTP/1.1\r\nHost: x\r\n"
    cases = [
        put_head + length + te + b"\r\n0\r\n\r\n" + smuggled,
        put_head + te + length + b"\r\n0\r\n\r\n" + smuggled,
        put_head + b"Content-Length: 5\r\n" + length + b"\r\nhello" + smuggled,
        put_head + b"Content-Length: +5\r\n\r\nhello" + smuggled,
        put_head + b"Content-Length: 0x5\r\n\r\nhello" + smuggled,
        put_head + b"Content-Length: 5,5\r\n\r\nhello" + smuggled,
        put_head + b"Content-Length: 18446744073709551621\r\n\r\nhello" + smuggled,
        put_head + b"Content-Length : 5\r\n\r\nhello" + smuggled,
        put_head + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + smuggled,
        put_head + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + smuggled,
        put_head + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + smuggled,
        put_head.replace(b"1.1", b"1.0") + te + b"\r\n0\r\n\r\n" + smuggled,
        put_head + te + b"\r\n5\nhello\r\n0\r\n\r\n" + smuggled,
        put_head + te + b"\r\n5\r\nhelloX\r\n0\r\n\r\n" + smuggled,
        put_head + te + b"\r\n1" + b"0" * 16 + b"\r\nhello" + smuggled,
        put_head + te + b"\r\n-1\r\nhello" + smuggled,
        put_head + te + b"\r\n0x5\r\nhello\r\n0\r\n\r\n" + smuggled,
        put_head + te + b"\r\n5;" + b"e" * 300 + b"\r\nhello" + smuggled,
        b"GET /a HTTP/1.1\nHost: x\n\n" + smuggled,
        b"GET /a HTTP/1.1\r\nHost: x\r\nA: b\r\n folded\r\n\r\n" + smuggled,
        b"GET /a HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n" + smuggled,
        b"GET /a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n" + smuggled,
        b"GET /a HTTP/1.1\r\n\r\n" + smuggled,
        b"GET  /a HTTP/1.1\r\nHost: x\r\n\r\n" + smuggled,
        b"GET /a  HTTP/1.1\r\nHost: x\r\n\r\n" + smuggled,
        b"GET /a HTTP/2.0\r\nHost: x\r\n\r\n" + smuggled,
        b"GET /a\r\n\r\n" + smuggled,
        b"\r\n\r\n" + smuggled,
        b"NOSUCH /a HTTP/1.1\r\nHost: x\r\n\r\n" + smuggled,
        bytes.fromhex("16030100c8010000c40303") + bytes(200),
        b"GET /" + b"a" * 200000 + b" HTTP/1.1\r\nHost: x\r\n\r\n" + smuggled,
        b"GET /a HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100000 + b"\r\n" + smuggled,
        b"GET /a HTTP/1.1\r\nHost: x\r\nA: " + b"b" * (4 * MIB) + b"\r\n\r\n" + smuggled,
    ]
    with server.client() as binary:
        binary.set(b"victim", b"1")
        for text in cases:
            with client_of(server) as client:
                client.send(request("GET", "/absent") + text)
                assert client.reply().status == 404, text[:80]
                reply = client.reply()
                assert reply.status >= 400, text[:80]
                assert reply.fields["connection"] == "close", (text[:80], reply)
                assert reply.json()["success"] is False
                client.expect_end()
            assert binary.get(b"victim") == b"1", text[:80]
            assert binary.get(b"x") is None, text[:80]
    for text, status in ((cases[-3], 414), (cases[-2], 431), (cases[-1], 431)):
        with client_of(server) as client:
            client.send(text)
            assert client.reply().status == status
    server.assert_serves()


@test()
def a_body_that_is_refused_never_becomes_requests(context):
    server = http_server(context)
    inner = request("DELETE", "/victim")
    for size, is_kept in ((len(inner), True), (60 * KIB, True), (70 * KIB, False), (MIB, False)):
        body = (inner * (size // len(inner) + 1))[:size]
        with server.client() as binary, client_of(server) as client:
            binary.set(b"victim", b"1")
            client.send(request("PATCH", "/k", body) + request("GET", "/absent"))
            assert client.reply().status == 405
            if is_kept:
                assert client.reply().status == 404
            else:
                client.expect_end()
            assert binary.get(b"victim") == b"1"


# ---- clients that behave badly ----

@test()
def a_client_that_stops_half_way_changes_nothing(context):
    server = http_server(context)
    for head in (request("PUT", "/k", None, b"Content-Length: 100\r\n") + b'{"value":1',
                 request("PUT", "/v1/kv/k", None, b"Content-Length: 1000\r\n") + bytes(999),
                 request("PUT", "/v1/kv/k", None, b"Content-Length: 9000000\r\n") + bytes(5000000),
                 request("PUT", "/v1/kv/k", None, b"Transfer-Encoding: chunked\r\n") +
                 b"100000\r\n" + bytes(0x100000) + b"\r\n",
                 b"GET /k HT"):
        for end in ("close", "reset", "shutdown"):
            client = client_of(server)
            client.send(head)
            if end == "shutdown":
                client.socket.shutdown(socket.SHUT_WR)
                assert client.socket.recv(100) == b""
            client.reset() if end == "reset" else client.close()
    with client_of(server) as client:
        assert client.ask("GET", "/k").status == 404
    for size in (5, MIB):  # but a whole request before the FIN is answered
        for send in (request("PUT", "/v1/kv/w", bytes(size)),
                     chunked("PUT", "/v1/kv/w", [bytes(size)])):
            with client_of(server) as client:
                client.send(send)
                client.socket.shutdown(socket.SHUT_WR)
                assert client.reply().status == 204, size
                client.expect_end()


@test()
def who_never_reads_costs_bounded_memory(context):
    server = http_server(context, "-cache", "16")
    with client_of(server) as client:
        client.send(request("PUT", "/v1/kv/big", value_of(1, 5 * MIB)))
        assert client.reply().status == 204
        client.send(request("PUT", "/small", b'{"value":"%s"}' % (b"x" * 1000)))
        assert client.reply().status == 200
    before = server.rss()
    silent = [client_of(server, receive_buffer=4096) for _ in range(40)]
    for number, client in enumerate(silent):
        client.socket.setblocking(False)
        text = request("GET", "/small" if number % 2 else "/v1/kv/big") * 2000
        for _ in range(20):
            try:
                client.socket.send(text)
            except BlockingIOError:
                break
    time.sleep(0.5)
    server.assert_serves()
    server.assert_rss_below(before + 300 * MIB, "40 clients that never read")
    for client in silent:
        client.close()
    server.assert_serves()


@test()
def a_slow_reader_gets_every_byte(context):
    server = http_server(context)
    value = value_of(3, 6 * MIB)
    with client_of(server, receive_buffer=8192) as client:
        client.send(request("PUT", "/v1/kv/k", value))
        assert client.reply().status == 204
        client.send(request("GET", "/v1/kv/k") + request("DELETE", "/v1/kv/k") +
                    request("GET", "/v1/kv/k"))
        time.sleep(0.3)
        assert client.reply().body == value
        assert client.reply().status == 204
        assert client.reply().status == 404


@test()
def a_drain_answers_what_has_arrived_and_says_close(context):
    server = http_server(context, "-drain-delay", "2")
    with client_of(server) as idle, client_of(server) as busy:
        assert idle.ask("GET", "/readyz").status == 200
        put(busy, "k", b"1")
        server.process.terminate()
        deadline = time.monotonic() + 2
        while True:
            with client_of(server) as probe:
                reply = probe.ask("GET", "/readyz")
            if reply.status == 503 or time.monotonic() > deadline:
                break
        assert reply.status == 503 and "draining" in reply.json()["error"], reply
        reply = busy.ask("GET", "/k")
        assert (reply.status, reply.fields.get("connection")) == (200, "close"), reply
        busy.expect_end()
        idle.expect_end()
    assert server.wait_exit() == 0
