"""What an operator sees and does: STATS, slow requests, secrets, reloading, what the process may do."""
import http.client
import itertools
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import time

from harness import (
    AUTH_REQUIRED, BAD_REQUEST, ERROR, KIB, MIB, OK, OK_FRAME, STATS, Skip, auth, delete, eventually,
    free_port, get, hello, http_server, set_, stats, test, typed, xxh64)

CACHE = ("-cache", "16")


def read_stats(client):
    status, text = client.call(stats())
    assert status == OK, status
    return json.loads(text)


@test()
def stats_count_every_request_by_its_outcome(context):
    server = context.server(*CACHE)
    with server.client() as plain, server.client() as client:
        assert client.call(hello())[0] == OK
        before = read_stats(client)
        sent = set_(b"k", b"v" * 1000) * 100 + get(b"k") * 50 + get(b"absent") * 7
        sent += set_(b"", b"") * 3 + delete(b"k") * 2
        plain.send(sent)
        assert plain.receive(100 * 5) == OK_FRAME * 100
        plain.receive(50 * 1005 + 10 * 5 + 2 * 5)
        asks = itertools.count(1)

        def check():
            asked, after = next(asks), read_stats(client)
            requests = after["requests"]
            assert requests["set"] == {"ok": 100, "bad_request": 3}, requests
            assert requests["get"] == {"ok": 50, "not_found": 7}, requests
            assert requests["delete"] == {"ok": 2}, requests
            assert requests["hello"] == {"ok": 1} and requests["stats"] == {"ok": asked}, requests
            for name, count in (("get", 57), ("set", 103), ("delete", 2)):
                latency = after["latency_ns"][name]
                assert latency["count"] == count, (name, latency)
                assert 0 < latency["p50"] <= latency["p99"] <= latency["p999"] <= latency["max"], latency
                assert latency["mean"] <= latency["max"], latency
            received = after["received_bytes"] - before["received_bytes"]
            assert received == len(sent) + asked * len(stats()), after
            assert after["sent_bytes"] - before["sent_bytes"] > 50 * 1005, after
            assert after["connections"] == 2 and after["connections_accepted"] == 2, after
            assert after["log_commits"] > 0 and after["keys"] == 0 and after["cache_hits"] >= 50, after
            assert after["ring_passes"] > 0 and after["disk_free_bytes"] > 0, after

        eventually(check)  # what other shards' stores count is copied once a second


@test()
def stats_count_large_values_and_what_comes_from_the_disk(context):
    server = context.server(*CACHE)
    value = bytes(range(256)) * (4 * MIB // 256)
    with server.client() as client:
        assert client.call(hello())[0] == OK
        client.send(set_(b"large", value))
        assert client.answer() == (OK, b"")
        assert client.call(get(b"large")) == (OK, value)
        result = read_stats(client)
    assert result["requests"]["set"] == {"ok": 1}, result["requests"]
    assert result["requests"]["get"] == {"ok": 1}, result["requests"]
    assert result["latency_ns"]["set"]["count"] == 1 and result["latency_ns"]["get"]["count"] == 1
    server.restart()
    with server.client() as client:
        assert client.call(hello())[0] == OK
        assert client.call(get(b"large")) == (OK, value)
        result = read_stats(client)
    assert result["requests"]["get"] == {"ok": 1}, result


@test()
def stats_wants_nothing_but_the_secret(context):
    server = context.server(*CACHE, "-auth", "the secret", "-authmode", "all")
    with server.client() as client:
        assert client.call(hello())[0] == OK
        assert client.call(stats())[0] == AUTH_REQUIRED
        client.expect_end()
    with server.client() as client:
        assert client.call(hello())[0] == OK
        assert client.call(auth(b"the secret"))[0] == OK
        for key, body in ((b"k", b""), (b"", b"b"), (b"", bytes(300 * KIB))):
            assert client.call(typed(STATS, key, body))[0] == BAD_REQUEST, (key, len(body))
        requests = read_stats(client)["requests"]
        assert requests["stats"] == {"ok": 0, "auth": 1, "bad_request": 3}, requests
    with server.client() as plain:
        plain.send(stats())
        assert plain.answer() == (ERROR, b""), "an operation of HELLO connections only"
        plain.expect_end()


SLOW = (r"WARN (?:shard \d+: )?slow (\w+) of key hash ([0-9a-f]{16}): (\w+), (\d+) bytes, connection (\d+), ([\d.]+) ms: "
        r"waited ([\d.]+), answered after ([\d.]+), durable after ([\d.]+), sent after ([\d.]+)$")


@test()
def a_slow_request_is_logged_with_where_its_time_went(context):
    """A client that does not read is slow for sure: its answers wait for it."""
    server = context.server(*CACHE, "-slowlog", "300")
    key = b"0123456789abcdef" * 2
    with server.client() as quick:
        quick.set(key, b"v" * 200 * KIB)
    begin = time.monotonic()
    with server.client(receive_buffer=4096) as slow:
        slow.send(get(key) * 100)
        time.sleep(1)
        slow.receive(100 * (5 + 200 * KIB))
    found = server.wait_line(SLOW, 5)
    operation, key_hash, outcome, size, connection, *times = found.groups()
    assert (operation, outcome, size, connection) == ("get", "ok", str(200 * KIB), "2"), found.groups()
    assert int(key_hash, 16) == xxh64(key), "the hash that the data directory knows"
    whole, *stages = map(float, times)
    assert whole >= 300 and abs(sum(stages) - whole) < 1, times
    assert key.decode() not in server.log(), "keys stay out of the log"
    with server.client() as client:
        assert client.call(hello())[0] == OK
        count = read_stats(client)["slow_requests"]

    def check():
        lines = [line for line in server.lines if re.search(SLOW, line)]
        left_out = sum(int(n) for n in re.findall(r"slow requests: (\d+) more", "\n".join(server.lines)))
        assert len(lines) + left_out == count <= 100, (len(lines), left_out, count)
        return len(lines)

    assert eventually(check) <= 10 * (time.monotonic() - begin + 1), "ten lines a second"


@test()
def a_secret_is_not_hashed_into_the_log(context):
    server = context.server(*CACHE, "-slowlog", "1", "-auth", "abc", "-authmode", "all")
    with server.client(receive_buffer=4096) as slow:
        slow.send(auth(b"abc") + set_(b"k", b"v" * 16 * MIB))
        slow.receive(10)
        time.sleep(1.1)
        slow.send(get(b"k") * 2 + auth(b"abc") * 3)
        time.sleep(0.5)
        slow.receive(2 * (5 + 16 * MIB) + 15)
    line = server.wait_line(r".*slow auth.*", 5).group(0)
    assert "key hash 0000000000000000" in line, line


@test()
def without_slowlog_nothing_is_logged(context):
    server = context.server(*CACHE)
    with server.client(receive_buffer=4096) as slow:
        slow.set(b"k", b"v" * 200 * KIB)
        slow.send(get(b"k") * 50)
        time.sleep(1)
        slow.receive(50 * (5 + 200 * KIB))
    assert server.terminate() == 0
    assert not re.search(r"\bslow\b", "\n".join(server.lines)), server.log()


def knows(server, secret):
    with server.client() as client:
        return client.call(auth(secret))[0] == OK


def hang_up(server, *patterns):
    """SIGHUP, and the lines that follow it."""
    begin = len(server.lines)
    server.process.send_signal(signal.SIGHUP)
    server.wait_line(r"reloaded: ", begin=begin)  # or "not reloaded: "
    with server.client() as client:  # another pass, so that the shard has taken it
        client.call(hello())
    text = "\n".join(server.lines[begin:])
    for pattern in patterns:
        assert re.search(pattern, text), f"no '{pattern}' in:\n{text}"


@test()
def sighup_reads_the_secret_again(context):
    path = context.directory / "secret"
    path.write_text("the first\n")
    server = context.server(*CACHE, "-auth-file", str(path), "-authmode", "all")
    with server.client() as old:
        assert old.call(auth(b"the first"))[0] == OK
        path.write_text("the second\n")
        assert not knows(server, b"the second"), "not before it is told"
        hang_up(server, r"reloaded: .*secret " + str(path))
        assert knows(server, b"the second") and not knows(server, b"the first")
        assert old.get(b"k") is None, "who has authenticated stays so"
        for wrong in ("", "a\0b", "x" * 5000):
            path.write_text(wrong)
            hang_up(server, r"ERROR cannot take the secret from ", r"ERROR not reloaded: ")
            assert knows(server, b"the second"), wrong[:10]
        path.unlink()
        hang_up(server, r"No such file or directory", r"ERROR not reloaded: ")
        assert knows(server, b"the second") and not knows(server, b"")


@test()
def sighup_reads_the_settings_again(context):
    path = context.directory / "settings"
    path.write_text("log-level = error\n")
    port = free_port()
    server = context.server(*CACHE, "-log-level", "info", "-settings", str(path), "-port", str(port),
                            wait=False)
    server.port = port
    eventually(server.assert_serves_health)
    path.write_text("# more of it\nlog-level = debug\nslowlog = 1\n")
    server.process.send_signal(signal.SIGHUP)
    server.wait_line(r"reloaded: log level debug, slow requests from 1 ms on")
    assert "reloaded: " in server.lines[0], "until then the settings counted, not the flag"
    begin = len(server.lines)
    path.write_text("slowlog = 1\nlog-level = loud\n")
    server.process.send_signal(signal.SIGHUP)
    server.wait_line(r"ERROR cannot take the settings from .*line 2", begin=begin)
    server.wait_line(r"ERROR not reloaded: ", begin=begin)
    path.write_text("")
    server.process.send_signal(signal.SIGHUP)
    server.wait_line(r"reloaded: log level info, slow requests from 0 ms on", begin=begin)


@test()
def sighup_takes_all_files_or_none(context):
    settings, secret = context.directory / "settings", context.directory / "secret"
    settings.write_text("slowlog = 1\n")
    secret.write_text("the first\n")
    server = http_server(context, *CACHE, "-settings", str(settings), "-auth-file", str(secret), "-authmode",
                         "writes")

    def gauges():
        connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=20)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return [min(float(v) for v in re.findall(rf"^minivault_{name}\S* (\S+)$", text, re.MULTILINE))
                for name in ("reload_ok", "reload_timestamp_seconds")]

    def expect(ok, taken):
        """What another shard counts is up to half a second old."""
        def check():
            found = gauges()
            assert found[0] == ok and taken(found[1]), found
        eventually(check)

    ok, begun = gauges()
    assert ok == 1 and abs(begun - time.time()) < 60, (ok, begun)
    settings.write_text("slowlog = 2\n")
    secret.write_text("")
    hang_up(server, r"ERROR cannot take the secret", r"ERROR not reloaded: ")
    expect(0, lambda taken: taken == begun)
    assert knows(server, b"the first")
    settings.write_text("slowlog = much\n")
    secret.write_text("the second\n")
    hang_up(server, r"ERROR cannot take the settings", r"ERROR not reloaded: ")
    expect(0, lambda taken: taken == begun)
    assert knows(server, b"the first") and not knows(server, b"the second")
    time.sleep(1)
    settings.write_text("slowlog = 3\n")
    hang_up(server, r"INFO reloaded: .*slow requests from 3 ms on")
    expect(1, lambda taken: taken > begun)
    assert knows(server, b"the second")


@test()
def slow_requests_are_logged_as_settings_come_and_go(context):
    """Also those that are under way meanwhile."""
    path = context.directory / "settings"
    path.write_text("")
    server = context.server(*CACHE, "-settings", str(path))
    with server.client() as client:
        client.set(b"k", b"v" * 200 * KIB)
    for setting, is_on in (("slowlog = 100", True), ("", False), ("slowlog = 100", True)):
        with server.client(receive_buffer=4096) as slow:
            slow.send(get(b"k") * 60)
            time.sleep(0.3)
            path.write_text(setting)
            hang_up(server)
            begin = len(server.lines)
            slow.send(get(b"k") * 60)
            time.sleep(0.3)
            slow.receive(120 * (5 + 200 * KIB))
        if is_on:
            server.wait_line(SLOW, begin=begin)
        else:
            assert not any(re.search(SLOW, line) for line in server.lines[begin:])


@test()
def sighup_changes_nothing_without_files(context):
    server = context.server(*CACHE, "-auth", "given", "-authmode", "writes")
    for _ in range(20):
        server.process.send_signal(signal.SIGHUP)
    hang_up(server, r"secret not from a file: as it was")
    assert knows(server, b"given")


@test()
def a_credential_of_systemds_is_the_secret(context):
    directory = context.directory / "credentials"
    directory.mkdir()
    (directory / "minivault-auth").write_text("from systemd\n")
    environment = {"CREDENTIALS_DIRECTORY": str(directory)}
    server = context.server(*CACHE, "-authmode", "all", environment=environment)
    assert knows(server, b"from systemd") and not knows(server, b"other")
    code, output = context.run("-data", str(context.directory / "refused"), "-port", "0",
                               environment=environment)
    assert code == 2 and "-authmode" in output, (code, output)


PAGE = 4096


def resident(pid):
    """(begin, end) of runs of pages that the process has, in memory or swapped."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/pagemap", "rb") as pagemap:
        for line in maps:
            begin, end = (int(part, 16) for part in line.split()[0].split("-"))
            if begin >= 1 << 47 or "io_uring" in line:
                continue
            pagemap.seek(begin // PAGE * 8)
            flags = pagemap.read((end - begin) // PAGE * 8)[7::8]  # bit 63: present, 62: swapped
            for run in re.finditer(rb"[\x40-\xff]+", flags, re.DOTALL):
                yield begin + run.start() * PAGE, begin + run.end() * PAGE


def holds(pid, needle):
    """Where in the process the bytes are, as root sees it."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for begin, end in resident(pid):
            try:
                memory.seek(begin)
                data = memory.read(end - begin)
            except OSError:
                continue  # what a device has mapped, pages that nobody may touch
            if needle in data:
                found.append(hex(begin + data.index(needle)))
    return found


@test()
def the_secret_is_nowhere_in_the_process(context):
    """Neither in its command line and environment nor in any of its memory, nor can it dump core."""
    if "asan" in str(context.binary):
        raise Skip("the shadow memory is too large to be read")
    secret = "Xk2-quite-unmistakable-9fQ"
    path = context.directory / "secret"
    path.write_text(secret + "\n")
    marker = "a-marker-that-is-found-8Zp"
    for flags in (["-auth", secret], [f"--auth={secret}"], ["-auth-file", str(path)]):
        server = context.server(*CACHE, *flags, "-authmode", "all",
                                directory=context.directory / "data",
                                environment={"MARKER": marker})
        proc = pathlib.Path(f"/proc/{server.process.pid}")
        for name in ("cmdline", "environ"):
            assert secret.encode() not in (proc / name).read_bytes(), (flags, name)
        assert holds(server.process.pid, marker.encode()), "the search finds what is there"
        assert not holds(server.process.pid, secret.encode()), flags
        assert (proc / "maps").stat().st_uid == 0
        server.process.send_signal(signal.SIGHUP)
        server.wait_line(r"reloaded")
        assert not holds(server.process.pid, secret.encode()), (flags, "after SIGHUP")
        assert knows(server, secret.encode())
        assert server.terminate() == 0


def dumps_core(command, directory, wait_for):
    """Whether it says, when it aborts, that it has dumped core."""
    pid = os.fork()
    if pid == 0:
        os.chdir(directory)
        resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(null, descriptor)
        os.execv(command[0], command)
    wait_for()
    os.kill(pid, signal.SIGABRT)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGABRT, status
    return os.WCOREDUMP(status)


@test()
def it_dumps_no_core(context):
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY:
        raise Skip("RLIMIT_CORE")
    data = context.directory / "data"

    def serves():
        for _ in range(300):
            if (data / "superblock").exists():
                return
            time.sleep(0.1)
        raise AssertionError("it does not start")

    if not dumps_core(["/bin/sleep", "60"], context.directory, lambda: time.sleep(0.5)):
        raise Skip("nothing dumps core here")
    assert not dumps_core([str(context.binary), "-data", str(data), "-port", "0"],
                          context.directory, serves)


@test()
def metrics_are_served_over_http(context):
    server = http_server(context, *CACHE)
    with server.client() as client:
        client.set(b"k", b"v")
    web = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=20)

    def ask(method, path, body=None, accept="*/*"):
        web.request(method, path, body, {"Accept": accept})
        reply = web.getresponse()
        return reply, reply.read().decode()

    assert ask("PUT", "/number", '{"value": 1}')[0].status == 200
    assert ask("PUT", "/number", "no json")[0].status == 400
    assert ask("GET", "/number")[0].status == 200
    assert ask("GET", "/absent")[0].status == 404
    assert ask("POST", "/health")[0].status == 405
    reply, text = ask("GET", "/metrics")
    assert reply.status == 200, reply.status
    assert reply.getheader("Content-Type") == "text/plain; version=0.0.4; charset=utf-8", reply.headers
    assert "# EOF" not in text, text[-100:]
    if shutil.which("promtool"):
        checked = subprocess.run(["promtool", "check", "metrics"], input=text, text=True,
                                 capture_output=True, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    reply, text = ask("GET", "/metrics", accept="application/openmetrics-text;version=1.0.0,"
                      "application/openmetrics-text;version=0.0.1;q=0.75,"
                      "text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
    assert reply.status == 200, reply.status
    assert reply.getheader("Content-Type").startswith("application/openmetrics-text"), reply.headers
    assert text.endswith("\n# EOF\n"), text[-100:]

    def total(operation, outcome):
        return sum(map(int, re.findall(rf'^minivault_requests_total{{shard="\d+",operation="{operation}",'
                                       rf'outcome="{outcome}"}} (\d+)$', text, re.MULTILINE)))

    counts = {(o, r): total(o, r) for o in ("get", "set", "other") for r in (
        "ok", "not_found", "bad_request")}
    assert counts["set", "ok"] == 2 and counts["set", "bad_request"] == 1, counts
    assert counts["get", "ok"] == 1 and counts["get", "not_found"] == 1, counts
    assert counts["other", "bad_request"] == 1, counts
    reply, body = ask("HEAD", "/metrics")
    assert body == "" and int(reply.getheader("Content-Length")) > 10000, reply.headers
