"""Two nodes behind HAProxy, which asks /readyz: a drain takes a node out, and no request fails."""
import http.client
import itertools
import signal
import socket
import subprocess
import tempfile
import threading
import time

from harness import free_port, http_server, test

CLIENTS = 8
CHECK_MS = 100
# Time in which the proxy sees that the node is not ready any more, in seconds.
DRAIN_DELAY = 1
SECONDS = 20
# No retries but those of a connection that could not be made, which are HAProxy's own default:
# a PUT that was sent once is not sent again.
CONFIGURATION = """
global
    stats socket {admin} mode 600
defaults
    mode http
    timeout connect 2s
    timeout client 20s
    timeout server 20s
    timeout check 2s
frontend clients
    bind 127.0.0.1:{port}
    default_backend nodes
backend nodes
    balance roundrobin
    http-reuse always
    option httpchk GET /readyz
    http-check expect status 200
    default-server check inter {check_ms}ms fall 1 rise 1
    server a 127.0.0.1:{a}
    server b 127.0.0.1:{b}
"""


class Proxy:
    def __init__(self, context, a, b):
        self.folder, self.port = context.directory, free_port()
        # A socket's name has 107 bytes at most, 97 for HAProxy: the clone may lie deeper than that.
        self.admin = context.stack.enter_context(tempfile.TemporaryDirectory()) + "/admin.sock"
        path = self.folder / "haproxy.cfg"
        path.write_text(CONFIGURATION.format(admin=self.admin, port=self.port, a=a.http_port,
                                             b=b.http_port, check_ms=CHECK_MS))
        self.log = open(self.folder / "haproxy.log", "wb")
        context.stack.callback(self.stop)
        self.process = subprocess.Popen(["haproxy", "-db", "-f", str(path)], stdout=self.log,
                                        stderr=subprocess.STDOUT)
        self.wait_for({"a": "UP", "b": "UP"})

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def statistics(self):
        """node: its line of `show stat`."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.settimeout(5)
            admin.connect(self.admin)
            admin.sendall(b"show stat\n")
            text = b"".join(iter(lambda: admin.recv(65536), b"")).decode()
        names = text.splitlines()[0].lstrip("# ").split(",")
        rows = [dict(zip(names, line.split(","))) for line in text.splitlines()[1:] if line]
        return {row["svname"]: row for row in rows if row["pxname"] == "nodes"}

    def wait_for(self, wanted):
        """`wanted`: node: how its status begins. HAProxy has to be up, and to have checked."""
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                found = self.statistics()
                if all(found[name]["status"].startswith(status) and found[name]["check_status"]
                       for name, status in wanted.items()):
                    return
            except OSError:
                found = {}
            assert self.process.poll() is None, (self.folder / "haproxy.log").read_text()
            assert time.monotonic() < deadline, f"never {wanted}: {found}"
            time.sleep(0.02)

    def served(self):
        """node: requests that it answered."""
        return {name: int(row["hrsp_2xx"]) for name, row in self.statistics().items()}


class Load:
    """Clients that put and get, each on a kept connection and one after the other."""

    def __init__(self, port):
        self.port, self.counts, self.failures = port, [0] * CLIENTS, []
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(number,), daemon=True)
                        for number in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def run(self, number):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            for turn in itertools.count():
                if self.ended.is_set():
                    break
                self.request(connection, "PUT", f"/client/{number}", b'{"value": %d}' % turn)
                self.request(connection, "GET", "/everywhere", None)
                self.counts[number] += 2
        except (OSError, AssertionError, http.client.HTTPException) as error:
            self.failures.append(f"client {number} after {self.counts[number]} requests: {error!r}")
        connection.close()

    def request(self, connection, method, path, body):
        connection.request(method, path, body)
        reply = connection.getresponse()
        data = reply.read()
        assert reply.status == 200, f"{method} {path}: {reply.status} {data[:200]!r}"
        if method == "GET":
            assert data == b'{"success":true,"data":"on both"}', data[:200]

    def wait_for_more(self, count):
        """Until each client has done `count` more, or one has failed."""
        before, deadline = list(self.counts), time.monotonic() + SECONDS
        while not self.failures and any(now - then < count
                                        for now, then in zip(self.counts, before)):
            assert time.monotonic() < deadline, (before, self.counts)
            time.sleep(0.02)
        assert not self.failures, self.failures

    def end(self):
        self.ended.set()
        for thread in self.threads:
            thread.join(SECONDS)
        assert not self.failures, self.failures


def drain(proxy, load, server, name):
    """SIGTERM under load: the proxy takes the node out, and everybody is served all the time."""
    server.process.send_signal(signal.SIGTERM)
    proxy.wait_for({name: "DOWN"})
    assert server.wait_exit() == 0, server.log()
    load.wait_for_more(50)


@test(slow=True, seconds=180)
def a_drain_takes_the_node_out_without_a_failed_request(context):
    nodes = {name: http_server(context, "-drain-delay", str(DRAIN_DELAY),
                               directory=context.directory / name) for name in "ab"}
    for server in nodes.values():
        with server.client() as client:
            client.set(b"everywhere", b'"on both"')
    proxy = Proxy(context, nodes["a"], nodes["b"])
    load = Load(proxy.port)
    load.wait_for_more(50)
    assert all(proxy.served()[name] > 0 for name in nodes), proxy.served()
    for name, server in nodes.items():
        drain(proxy, load, server, name)
        server.start()
        proxy.wait_for({name: "UP"})
        before = proxy.served()[name]
        load.wait_for_more(50)
        assert proxy.served()[name] > before, f"{name} is not used again"
    load.end()
    for name, row in proxy.statistics().items():
        assert (int(row["eresp"]), int(row["hrsp_5xx"] or 0)) == (0, 0), (name, row)


@test(seconds=120)
def a_node_that_is_killed_comes_back(context):
    """Without a drain requests fail; the proxy goes on with the other node, and takes it back."""
    nodes = {name: http_server(context, directory=context.directory / name) for name in "ab"}
    proxy = Proxy(context, nodes["a"], nodes["b"])
    nodes["a"].kill()
    proxy.wait_for({"a": "DOWN", "b": "UP"})
    nodes["a"].start()
    proxy.wait_for({"a": "UP", "b": "UP"})
