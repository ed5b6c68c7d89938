#!/usr/bin/env python3
"""Python's own HTTP client, keep-alive: client.py PORT. Says what went wrong, or what it did."""
import http.client
import json
import sys
import threading

ALL_BYTES = bytes(range(256))
LARGE = bytes(i * 7 % 251 for i in range(1 << 20))


class Client:
    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        self.connection.connect()
        self.socket = self.connection.sock
        self.requests = 0

    def ask(self, method, path, body=None, headers=None, chunked=False):
        """(status, header fields, body)"""
        self.connection.request(method, path, body, headers or {}, encode_chunked=chunked)
        reply = self.connection.getresponse()
        data = reply.read()
        self.requests += 1
        assert self.connection.sock is self.socket, f"{method} {path}: the connection was not kept"
        return reply.status, reply.headers, data

    def expect(self, status, method, path, body=None, **more):
        got, headers, data = self.ask(method, path, body, **more)
        assert got == status, f"{method} {path}: {got} {data[:200]!r}, expected {status}"
        return headers, data

    def put_json(self, path, text):
        _, data = self.expect(200, "PUT", path, b'{"value": ' + text + b"}")
        assert json.loads(data) == {"success": True}, data

    def get_json(self, path):
        """The text of the value, as it was sent."""
        headers, data = self.expect(200, "GET", path)
        assert headers["Content-Type"].startswith("application/json"), headers["Content-Type"]
        head, tail = b'{"success":true,"data":', b"}"
        assert data.startswith(head) and data.endswith(tail), data[:200]
        return data[len(head):-len(tail)]


def json_values(client):
    for text in (b'"hello"', b"9007199254740993", b"1e400", b"-0", b"null", b"[]",
                 '"grüße \\u00fc"'.encode(), b'{"a":[1,2,{"b":null}]}'):
        client.put_json("/python/json", text)
        assert client.get_json("/python/json") == text, text
    headers, data = client.expect(200, "HEAD", "/python/json")
    assert data == b"" and int(headers["Content-Length"]) > 0
    _, data = client.expect(400, "PUT", "/python/json", b'{"value": ')
    assert json.loads(data) == {"success": False, "error": "invalid json"}, data
    _, data = client.expect(400, "POST", "/python/json", b"{}")
    assert json.loads(data) == {"success": False, "error": "missing value field"}, data
    client.expect(200, "POST", "/python/json", b'{"value": 1}')
    client.expect(200, "DELETE", "/python/json")
    _, data = client.expect(404, "GET", "/python/json")
    assert json.loads(data) == {"success": False, "error": "not found"}, data


def raw_values(client):
    for value in (b"", b"x", ALL_BYTES, LARGE):
        path = f"/v1/kv/python/{len(value)}"
        client.expect(204, "PUT", path, value)
        headers, data = client.expect(200, "GET", path)
        assert data == value, f"{len(data)} bytes"
        assert headers["Content-Type"] == "application/octet-stream", headers["Content-Type"]
        headers, data = client.expect(200, "HEAD", path)
        assert data == b"" and int(headers["Content-Length"]) == len(value)
        client.expect(204, "DELETE", path)
        client.expect(404, "GET", path)
        client.expect(404, "HEAD", path)


def chunked_bodies(client):
    pieces = [LARGE[i:i + 100_000] for i in range(0, len(LARGE), 100_000)]
    client.expect(204, "PUT", "/v1/kv/python/chunked", iter(pieces),
                  headers={"Transfer-Encoding": "chunked"}, chunked=True)
    assert client.expect(200, "GET", "/v1/kv/python/chunked")[1] == LARGE
    client.expect(204, "DELETE", "/v1/kv/python/chunked")


def escaped_keys(client):
    client.put_json("/python/a%2Fb%20c%00", b"1")
    assert client.get_json("/python%2Fa/b%20c%00") == b"1"
    client.expect(200, "DELETE", "/python/a/b%20c%00")
    client.expect(404, "GET", "/python/a%2Fb%20c%00")


def many_requests(client, name):
    for number in range(200):
        client.put_json(f"/python/{name}/{number}", b"%d" % number)
        assert client.get_json(f"/python/{name}/{number}") == b"%d" % number
        client.expect(200, "DELETE", f"/python/{name}/{number}")


def main():
    port = int(sys.argv[1])
    client = Client(port)
    for part in json_values, raw_values, chunked_bodies, escaped_keys:
        part(client)
    clients, failures = [Client(port) for _ in range(8)], []

    def run(number):
        try:
            many_requests(clients[number], number)
        except (AssertionError, OSError, http.client.HTTPException) as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(clients))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    print(f"{sum(each.requests for each in [client, *clients])} requests, "
          f"{1 + len(clients)} connections")


if __name__ == "__main__":
    main()
