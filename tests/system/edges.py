"""What a shell, a pipe and an operator do to the process: closed descriptors, a log that nobody reads."""
import contextlib
import fcntl
import http.client
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import images
from harness import (
    KIB, MIB, NOT_FOUND, OK, STOP_SECONDS, TOO_LARGE, Client, Skip, auth, eventually, free_port, get, health,
    hello, http_server, set_, test)

F_SETPIPE_SZ = 1031


def start(context, directory, *flags, shell=None, **options):
    """A server without the harness's pipe, perhaps by a line for sh: (process, port)."""
    port = free_port()
    words = ["sh", "-c", shell, "sh"] if shell else []
    words += [str(context.binary), "-data", str(directory), "-port", str(port), "-host", "127.0.0.1",
              "-cache", "32", *flags]
    process = subprocess.Popen(words, **options)
    eventually(lambda: Client(port, timeout=2).close(), 60)
    return process, port


def stop(process):
    process.send_signal(signal.SIGTERM)
    return process.wait(STOP_SECONDS)


@test()
def closed_descriptors_are_no_file_of_ours(context):
    """With 0, 1 and 2 closed the first files that are opened would be called so, and log lines go to 2."""
    shared = pathlib.Path("/dev/shm")  # tmpfs: what was written there in place of a superblock, stayed
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        words = (context, pathlib.Path(folder), "-shards", "1")
        process, port = start(*words, shell='exec "$@" <&- >&- 2>&-')
        try:
            with Client(port) as client:
                client.set(b"key", b"value")
            for number in range(3):
                assert os.readlink(f"/proc/{process.pid}/fd/{number}") == "/dev/null", number
            for _ in range(120):
                process.send_signal(signal.SIGHUP)
                time.sleep(0.005)
            assert stop(process) == 0
            process, port = start(*words)
            with Client(port) as client:
                assert client.get(b"key") == b"value"
            assert stop(process) == 0
        finally:
            process.kill()
            process.wait()


@test()
def the_offline_tool_opens_closed_descriptors_too(context):
    """Its report would go to a file of the directory: one for reading, so it would only be lost."""
    server = context.server()
    assert server.terminate() == 0
    tool = context.binary.with_name("minivault-admin")
    result = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", str(tool), "check",
                             str(server.directory)], check=False)
    assert result.returncode == 0, result


def remove(directory):
    shutil.rmtree(directory)


def move(directory):
    directory.rename(directory.with_name("elsewhere"))


def unready(server):
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}/readyz", timeout=5)
    except urllib.error.HTTPError as error:
        assert error.code == 503 and b"not ready: data directory" in error.read(), error
    else:
        raise AssertionError("it is ready")


def set_refused(client):
    assert client.call(set_(b"later", b"value"))[0] != OK


@test()
def a_directory_that_was_moved_or_removed_takes_no_writes(context):
    for shards in "1", "3":
        for go in remove, move:
            directory = context.directory / f"{go.__name__}-{shards}"
            directory.mkdir()
            server = http_server(context, "-shards", shards, "-cache", "32", directory=directory)
            with server.client() as client:
                for i in range(100):
                    client.set(b"key %d" % i, b"value %d" % i)
                go(directory)
                # Something else with the same name is not touched.
                directory.mkdir()
                (directory / "mine").write_text("stays")
                server.wait_line(r"ERROR .*the data directory .* was moved or removed")
                eventually(lambda: [set_refused(client) for _ in range(20)])
                eventually(lambda: unready(server))
                for i in range(100):
                    assert client.get(b"key %d" % i) == b"value %d" % i
                assert json.loads(client.call(health())[1])["status"].startswith("failing: ")
            assert server.terminate() == 1, server.log()
            text = "\n".join(server.lines)
            assert "everything is on disk" not in text and "if they still exist" in text, text
            assert [p.name for p in directory.iterdir()] == ["mine"]
            if go is move:
                again = context.server("-shards", shards, "-cache", "32",
                                       directory=directory.with_name("elsewhere"))
                with again.client() as client:
                    for i in range(100):
                        assert client.get(b"key %d" % i) == b"value %d" % i
                assert again.terminate() == 0
                shutil.rmtree(again.directory)


@test()
def a_directory_that_is_put_back_takes_writes_again(context):
    server = context.server("-cache", "32")
    directory = pathlib.Path(server.directory)
    with server.client() as client:
        client.set(b"key", b"value")
        move(directory)
        server.wait_line(r"ERROR .*the data directory .* was moved or removed")
        eventually(lambda: set_refused(client))
        directory.with_name("elsewhere").rename(directory)
        server.wait_line(r"WARN .* is back where it was")
        eventually(lambda: client.set(b"later", b"value"))
    server.restart()
    with server.client() as client:
        assert client.get(b"key") == b"value" and client.get(b"later") == b"value"


@test()
def a_log_that_nobody_reads_holds_nobody_up(context):
    """stderr is a pipe whose reader has stopped: clients, health checks and SIGTERM do not see it."""
    directory = context.directory / "data"
    long = context.directory.joinpath(*("d" * 200 for _ in range(8)))  # its name stands in each line
    long.mkdir(parents=True)
    (long / "secret").write_text("s3cret")
    reader, writer = os.pipe()
    fcntl.fcntl(writer, F_SETPIPE_SZ, 4096)
    http = free_port()
    process, port = start(context, directory, "-http", str(http), "-shards", "2",
                          "-authmode", "writes", "-auth-file", str(long / "secret"), stderr=writer)
    os.close(writer)

    def dropped():
        with urllib.request.urlopen(f"http://127.0.0.1:{http}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return max(int(line.split()[-1]) for line in lines
                   if line.startswith("minivault_messages_dropped_total"))

    def reload_until_lines_are_dropped():
        for _ in range(100):
            process.send_signal(signal.SIGHUP)
            time.sleep(0.002)
        assert dropped() > 0

    try:
        eventually(reload_until_lines_are_dropped, 60)
        for i in range(20):
            with Client(port) as client:
                assert client.call(auth(b"s3cret")) == (OK, b"")
                client.set(b"key %d" % i, b"value")
                assert client.get(b"key %d" % i) == b"value"
        with urllib.request.urlopen(f"http://127.0.0.1:{http}/livez", timeout=5) as answer:
            assert answer.status == 200
        # The reader comes back: it gets what was kept, and hears how much was not.
        os.set_blocking(reader, False)
        text = b""

        def read():
            nonlocal text
            try:
                text += os.read(reader, 1 << 20)
            except BlockingIOError:
                pass
            assert b" of this log w" in text, text[-500:]

        eventually(read)
        # And stops again.
        for _ in range(400):
            process.send_signal(signal.SIGHUP)
            time.sleep(0.002)
        assert stop(process) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reader)


def put_chunked(port, value):
    """Of a size that is not known before its end: nothing is allocated for it, so a write meets the limit."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request("PUT", "/v1/kv/large", iter([value]), {"Transfer-Encoding": "chunked"},
                           encode_chunked=True)
        return connection.getresponse().status


def refuses_large_values(context, directory, count, limit):
    """A server of `count` shards that may write files of `limit` bytes: what is larger is refused, the rest
    goes on. Returns what was set, and the log."""
    log, kept, http_port = context.directory / "log", {}, free_port()
    with open(log, "wb") as output:
        process, port = start(context, directory, "-shards", str(count), "-http", str(http_port),
                              stderr=output, preexec_fn=lambda: limit_files(limit))
    try:
        with Client(port, timeout=60) as client:
            assert client.call(hello())[0] == OK
            for i in range(40):
                kept[b"key %d" % i] = bytes([i]) * (MIB if i % 20 == 7 else 200 * KIB)
                client.set(b"key %d" % i, kept[b"key %d" % i])
                if i == 20:
                    result = client.call(set_(b"large", os.urandom(limit + 1)))
                    assert result[0] == TOO_LARGE, result
                    assert put_chunked(http_port, os.urandom(limit + 1)) == 413
            assert all(client.get(key) == value for key, value in kept.items())
            assert client.call(get(b"large"))[0] == NOT_FOUND
        assert stop(process) == 0
    finally:
        process.kill()
        process.wait()
    return kept, log.read_text()


def limit_files(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@test()
def a_limit_of_file_sizes_refuses_and_kills_nobody(context):
    """ulimit -f. What the log and the segments need has to be there at the start."""
    for count in 1, 3:
        directory = context.directory / f"data-{count}"
        server = context.server("-shards", str(count), "-cache", "32", directory=directory)
        assert server.terminate() == 0
        images.shrink_log_files(directory, 4 * MIB)
        kept, log = refuses_large_values(context, directory, count, 32 * MIB)
        assert "RLIMIT_FSIZE): larger values are refused. Raise the limit (LimitFSIZE=" in log, log
        refused = subprocess.run(
            [str(context.binary), "-data", str(directory), "-shards", str(count), "-port", "0"], timeout=60,
            capture_output=True, text=True, check=False, preexec_fn=lambda: limit_files(32 * MIB - 1))
        assert refused.returncode == 1, refused
        assert f"(RLIMIT_FSIZE), but needs {32 * MIB}. Raise the limit" in refused.stderr, refused
        server.start()
        with server.client() as client:
            assert all(client.get(key) == value for key, value in kept.items())


@contextlib.contextmanager
def group_with_one_cpu():
    """A control group of version 1 or 2 whose quota is one CPU."""
    name = f"minivault-test-{os.getpid()}"
    for root, quota, text in (("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", "100000"),
                              ("/sys/fs/cgroup", "cpu.max", "100000 100000")):
        group = pathlib.Path(root) / name
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / quota).write_text(text)
            yield group
            return
        except OSError:
            continue
        finally:
            eventually(group.rmdir)
    raise Skip("needs a control group with a CPU quota")


@test()
def the_number_of_shards_keeps_to_the_quota_of_the_control_group(context):
    cpus = len(os.sched_getaffinity(0))
    if cpus == 1:
        raise Skip("needs two CPUs")
    with group_with_one_cpu() as group:
        log = context.directory / "log"
        with open(log, "wb") as output:
            process, port = start(context, context.directory / "data", stderr=output,
                                  preexec_fn=lambda: (group / "cgroup.procs").write_text(str(os.getpid())))
            try:
                with Client(port) as client:
                    assert json.loads(client.call(hello())[1])["shards"] == 1
                assert stop(process) == 0
            finally:
                process.kill()
                process.wait()
        assert f"1 shard (the control group's CPU quota) on {cpus} CPUs" in log.read_text(), log.read_text()
