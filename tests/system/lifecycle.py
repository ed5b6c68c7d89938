"""Flags, start-up refusals, shutdown, logs, an idle server, a full disk."""
import json
import os
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import threading
import time

from harness import (
    ERROR, KIB, MIB, OK, OK_FRAME, Skip, delete, hello, set_, test)

FLAGS = ("port", "http", "public-url", "data", "auth", "auth-file", "authmode", "ratelimit", "cache",
         "workers", "host", "connections", "durability", "busypoll", "log-level", "log-format", "shards", "pin", "drain-delay", "accept-loss", "probe",
         "scrub", "slowlog", "settings", "help", "version")


def refused(context, *flags, says, environment=None, seconds=20):
    code, output = context.run("-data", str(context.directory / "refused"), "-port", "0", *flags,
                               environment=environment, seconds=seconds)
    assert code not in (0, None) and code > 0, (flags, code, output)
    assert re.search(says, output, re.IGNORECASE), f"{flags}: no '{says}' in:\n{output}"
    assert "Sanitizer" not in output, output
    return output


@test()
def help_and_version(context):
    for flag in ("-help", "--help"):
        code, output = context.run(flag)
        assert code == 0, (flag, code)
        for name in FLAGS:
            assert re.search(rf"(^|\s)--?{name}\b", output), f"{name} is not in --help:\n{output}"
        assert "10 ms" in output, "--help tells what -durability interval may lose"
    for flag in ("-version", "--version"):
        code, output = context.run(flag)
        assert code == 0 and re.search(r"minivault \d+\.\d+", output), (flag, code, output)


@test()
def flags_in_every_form(context):
    data = context.directory / "data"
    for form in (["-cache", "16"], ["--cache", "16"], ["-cache=16"], ["--cache=16"],
                 ["--authmode", "none", "-busypoll=0", "-workers", "1", "--log-level=debug"],
                 ["-probe"], ["-accept-loss"]):
        server = context.server(*form, directory=data)
        server.assert_serves()
        assert server.terminate() == 0, form


@test()
def wrong_flags_are_refused_with_what_to_do(context):
    for flags, says in [
            (["-chache", "16"], r"chache.*did you mean.*-cache"),
            (["--prot", "3000"], r"did you mean.*-port"),
            (["-zzzzzzzz"], r"zzzzzzzz.*|unknown"),
            (["stray"], r"stray"),
            (["-port", "65536"], r"port.*65,?535"),
            (["-port", "-1"], r"port"),
            (["-port", "30x0"], r"port"),
            (["-port", ""], r"port"),
            (["-port"], r"port"),
            (["-cache", "0"], r"cache"),
            (["-cache", "99999999999999999999"], r"cache"),
            (["-slowlog", "5s"], r"slowlog.*milliseconds"),
            (["-authmode", "some"], r"none.*writes.*all"),
            (["-durability", "maybe"], r"commit.*interval.*none"),
            (["-log-level", "loud"], r"debug.*info.*warn.*error"),
            (["-workers", "0"], r"workers"),
            (["-ratelimit", "-5"], r"ratelimit"),
            (["-auth", "secret"], r"authmode"),
            (["-authmode", "writes"], r"-auth"),
            (["-auth-file", str(context.directory / "absent"), "-authmode", "all"],
             r"absent.*No such file|No such file.*absent"),
            (["-settings", str(context.directory / "absent")], r"absent: No such file")]:
        output = refused(context, *flags, says=says)
        assert len(output.splitlines()) <= 4, f"one event, not a page:\n{output}"
    assert not (context.directory / "refused").exists(), "refused, yet it made a directory"


@test()
def flags_of_later_releases_say_so(context):
    server = context.server("-public-url", "localhost:3000")
    server.assert_serves()
    server.wait_line(r"-public-url\b.*(later|not yet)", 2)
    assert server.terminate() == 0
    server = context.server(environment={"CLUSTER_NODES": "localhost:3001,localhost:3002"})
    server.wait_line(r"CLUSTER_NODES.*(later|not yet)", 2)


@test()
def every_event_is_one_line_with_its_level(context):
    server = context.server("-log-level", "debug")
    with server.client() as client:
        client.send(b"\x99")
        client.answer()
    assert server.terminate() == 0
    for line in server.lines:
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.?\d*Z (DEBUG|INFO|WARN|ERROR) \S", line,
                        re.IGNORECASE), line


@test()
def as_json_every_line_is_an_object(context):
    server = context.server("-log-format", "json")
    server.restart()
    assert server.terminate() == 0
    lines = [json.loads(line) for line in server.lines]
    assert all(set(line) == {"time", "level", "message"} for line in lines), lines
    assert {line["level"] for line in lines} <= {"info", "warn"}
    assert lines[-1]["message"].endswith("drained: everything is on disk")


@test()
def under_systemd_lines_carry_the_journals_priority(context):
    """JOURNAL_STREAM names the device and inode of stderr, as systemd sets it."""
    command = (f'exec env JOURNAL_STREAM="$(stat -L -c %d:%i /proc/self/fd/2)" '
               f'{context.binary} -port 0 -data {context.directory / "journal"}')
    process = subprocess.Popen(["sh", "-c", command], stdin=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True)
    try:
        first = process.stderr.readline()
        process.terminate()
        rest = process.stderr.read()
        assert process.wait(20) == 0
    finally:
        process.kill()
    for line in (first + rest).splitlines():
        assert re.match(r"<[3-7]>\S", line), line
        assert not re.match(r"<\d>\d{4}-\d\d-\d\dT", line), "the journal has a time of its own"


@test()
def a_restart_keeps_everything(context):
    server = context.server()
    for round_ in range(4):
        with server.client() as client:
            for number in range(200):
                expected = b"%d" % (round_ - 1) if round_ and number % 5 else None
                assert client.get(b"k %d" % number) == expected, (round_, number)
            client.send(b"".join(set_(b"k %d" % n, b"%d" % round_) if n % 5 else delete(b"k %d" % n)
                                 for n in range(200)))
            assert client.receive(200 * 5) == OK_FRAME * 200
        server.restart()


@test()
def sigterm_drains(context):
    """What was sent before it is answered; then the connection ends with FIN."""
    server = context.server()
    clients = [server.client() for _ in range(10)]
    for client in clients:
        client.send(b"".join(set_(b"k %d" % n, b"v" * 1000) for n in range(500)))
    with server.client() as idle, server.client() as half:
        half.send(set_(b"half", b"value")[:-2])
        time.sleep(0.3)
        code = []
        waiter = threading.Thread(target=lambda: code.append(server.terminate()))
        begin = time.monotonic()
        waiter.start()
        for client in clients:
            assert client.receive(500 * 5) == OK_FRAME * 500
            client.expect_end()
            client.close()
        idle.expect_end()
        waiter.join()
        assert code == [0], code
        assert time.monotonic() - begin < 15
    begin = time.monotonic()
    server.start()
    assert time.monotonic() - begin < 10
    with server.client() as client:
        assert client.get(b"k 499") == b"v" * 1000
        assert client.get(b"half") is None


@test(slow=True)
def sigterm_while_clients_connect(context):
    """It ends whatever is in the backlog, and whenever the signal comes."""
    server = context.server()
    for round_ in range(5):
        end = time.monotonic() + 0.2 + round_ * 0.25
        clients = []
        killer = threading.Timer(end - time.monotonic(), server.process.terminate)
        killer.start()
        while time.monotonic() < end + 0.1 and len(clients) < 2000:
            try:
                client = server.client()
                client.send(set_(b"k", b"v" * 100) * 20)
                clients.append(client)
            except OSError:
                break
        code = server.wait_exit(15)
        assert code == 0, code
        for client in clients:
            client.close()
        server.start()


@test()
def sigint_ends_it_too_and_a_second_sigterm_does_no_harm(context):
    server = context.server()
    server.process.send_signal(2)
    assert server.wait_exit() == 0
    server.start()
    server.process.terminate()
    server.process.terminate()
    assert server.wait_exit() == 0


@test(slow=True)
def a_second_process_on_the_directory_is_refused(context):
    server = context.server()
    with server.client() as client:
        client.set(b"k", b"v")
    begin = time.monotonic()
    code, output = context.run("-port", "0", "-data", str(server.directory), seconds=40)
    assert code > 0, (code, output)
    assert re.search(r"in use|another process|locked", output), output
    assert str(server.directory) in output, output
    assert time.monotonic() - begin < 20
    server.assert_serves()
    with server.client() as client:
        assert client.get(b"k") == b"v"


@test(slow=True)
def a_port_in_use_is_refused(context):
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("0.0.0.0", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        code, output = context.run("-port", port, "-data", str(context.directory / "data"),
                                   seconds=40)
        assert code > 0 and port in output and re.search(r"in use", output), (code, output)


@test()
def a_directory_of_something_else_is_refused(context):
    other = context.directory / "other"
    other.mkdir()
    (other / "precious.txt").write_text("keep me")
    code, output = context.run("-port", "0", "-data", str(other))
    assert code > 0 and str(other) in output, (code, output)
    assert [p.name for p in other.iterdir()] == ["precious.txt"], "it was touched"
    file = context.directory / "file"
    file.write_text("not a directory")
    code, output = context.run("-port", "0", "-data", str(file))
    assert code > 0 and str(file) in output, (code, output)
    code, output = context.run("-port", "0", "-data", str(context.directory / "no" / "parent"))
    assert code > 0 and re.search(r"No such file", output), (code, output)


def crc32c(data):
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


@test()
def a_directory_without_a_valid_superblock_is_refused(context):
    server = context.server()
    with server.client() as client:
        client.set(b"k", b"v")
    assert server.terminate() == 0
    path = server.directory / "superblock"
    whole = path.read_bytes()
    for copy in range(len(whole) // 4096):  # one bad copy: the other one serves
        broken = bytearray(whole)
        broken[copy * 4096:(copy + 1) * 4096] = os.urandom(4096)
        path.write_bytes(broken)
        server.start()
        server.assert_serves()
        assert server.terminate() == 0
        whole = path.read_bytes()  # that start is counted: the one before is an older copy now
    path.write_bytes(os.urandom(len(whole)))
    code, output = context.run("-port", "0", "-data", str(server.directory))
    assert code > 0 and "superblock" in output, (code, output)
    path.write_bytes(whole)
    server.start()
    with server.client() as client:
        assert client.get(b"k") == b"v"


@test()
def a_directory_of_another_format_version_is_refused(context):
    server = context.server()
    assert server.terminate() == 0
    path = server.directory / "superblock"
    whole = path.read_bytes()
    for version in (1, 7):
        other = bytearray(whole)
        for copy in range(0, len(other), 4096):  # crc32c at 8 of what follows it, the format at 12
            struct.pack_into("<I", other, copy + 12, version)
            struct.pack_into("<I", other, copy + 8, crc32c(other[copy + 12:copy + 4096]))
        path.write_bytes(other)
        code, output = context.run("-port", "0", "-data", str(server.directory))
        assert code > 0 and f"has format version {version}, this release wants version 2" in output, (
            code, output)
        assert "use the release that wrote it, or give -data an empty" in output, output
        assert path.read_bytes() == other, "it was touched"
    path.write_bytes(whole)
    server.start()
    server.assert_serves()


@test()
def the_segments_of_another_directory_are_refused(context):
    directories = [context.directory / "one", context.directory / "two"]
    for directory in directories:
        server = context.server(directory=directory)
        with server.client() as client:
            client.set(b"k", str(directory).encode())
        assert server.terminate() == 0
    shutil.copy(directories[1] / "superblock", directories[0] / "superblock")
    code, output = context.run("-port", "0", "-data", str(directories[0]))
    assert code > 0 and re.search(r"another|other|foreign", output), (code, output)


@test(slow=True)
def an_idle_server_uses_no_cpu(context):
    server = context.server()
    clients = [server.client() for _ in range(20)]
    for client in clients:
        client.set(b"k", b"v")
    time.sleep(1)
    begin, used = time.monotonic(), server.cpu_seconds()
    time.sleep(5)
    share = (server.cpu_seconds() - used) / (time.monotonic() - begin)
    print(f"        {100 * share:.2f} % of a core")
    assert share < 0.01, f"an idle server uses {100 * share:.1f} % of a core"
    for client in clients:
        assert client.get(b"k") == b"v"


def mount_small_disk(context, size):
    """An ext4 of `size` bytes in a file, on a loop device."""
    if os.geteuid() != 0:
        raise Skip("only root can mount")
    image, point = context.directory / "disk", context.directory / "mount"
    with open(image, "wb") as file:
        file.truncate(size)
    point.mkdir()
    for command in (["mkfs.ext4", "-q", "-m", "0", str(image)],
                    ["mount", "-o", "loop", str(image), str(point)]):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise Skip(f"{command[0]}: {result.stderr.strip()}")
    context.stack.callback(subprocess.run, ["umount", "-l", str(point)], check=False)
    return point


def set_until_refused(client, prefix, value, count_max):
    """How many sets were acknowledged before one was refused."""
    for number in range(count_max):
        status, _ = client.call(set_(b"%s %d" % (prefix, number), value))
        if status != OK:
            return number, status
    raise AssertionError(f"{count_max} sets of {len(value)} bytes, and the disk is not full")


@test(seconds=180)
def a_full_disk_refuses_sets_and_recovers(context):
    point = mount_small_disk(context, 640 * MIB)
    server = context.server("-cache", "8", directory=point / "data")
    value = os.urandom(256 * KIB)
    with server.client(timeout=60) as client:
        client.set(b"first", b"value")
        count, status = set_until_refused(client, b"fill", value, 4000)
        assert status == ERROR and count > 100, (status, count)
        for _ in range(3):
            assert client.call(set_(b"more", value))[0] == ERROR, "still full"
        with server.client() as modern:
            modern.call(hello())
            status, message = modern.call(set_(b"more", value))
            assert status == 0x06 and message.decode(), f"NO_SPACE, not {status}"
        for number in list(range(0, count, 17)) + [count - 1]:
            assert client.get(b"fill %d" % number) == value, number
        assert client.get(b"first") == b"value"
        for number in range(count):  # deletes work, and what they free serves again
            client.delete(b"fill %d" % number)
        assert client.get(b"fill 0") is None
        deadline = time.monotonic() + 20
        while client.call(set_(b"again", value))[0] != OK:
            assert time.monotonic() < deadline, "all was deleted, and sets are still refused"
            time.sleep(0.1)
        assert client.get(b"again") == value
    server.restart()
    with server.client() as client:
        assert client.get(b"first") == b"value"
        assert client.get(b"again") == value
        assert client.get(b"fill 1") is None


@test(seconds=180)
def a_disk_that_others_filled_recovers_when_they_leave(context):
    point = mount_small_disk(context, 1024 * MIB)
    server = context.server("-cache", "8", directory=point / "data")
    value = os.urandom(256 * KIB)
    with server.client(timeout=60) as client:
        client.set(b"first", b"value")
        ballast = point / "ballast"
        free = shutil.disk_usage(point).free
        with open(ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, free - 4 * MIB)
        count, status = set_until_refused(client, b"fill", value, 4000)
        assert status == ERROR
        assert client.get(b"first") == b"value"
        client.delete(b"first")
        ballast.unlink()
        begin = time.monotonic()
        while client.call(set_(b"again", value))[0] != OK:
            assert time.monotonic() < begin + 20, "there is space again, and sets are refused"
            time.sleep(0.1)
        for number in range(count):
            assert client.get(b"fill %d" % number) == value, number
    server.kill()
    server.start()
    with server.client(timeout=60) as client:
        assert client.get(b"first") is None
        for number in range(count):
            assert client.get(b"fill %d" % number) == value, number


@test()
def a_disk_too_small_to_begin_with_is_refused(context):
    point = mount_small_disk(context, 8 * MIB)
    free = shutil.disk_usage(point).free
    with open(point / "ballast", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - MIB // 2)
    code, output = context.run("-port", "0", "-data", str(point / "data"))
    assert code > 0 and re.search(r"space", output, re.IGNORECASE), (code, output)


@test()
def a_small_disk_has_as_many_shards_as_it_holds(context):
    if len(os.sched_getaffinity(0)) < 2:
        raise Skip("needs two CPUs")
    point = mount_small_disk(context, 100 * MIB)
    server = context.server("-shards", "0", directory=point / "data")
    server.wait_line(r"1 shard \(as many as the disk holds\) on \d+ CPUs")
    with server.client() as client:
        client.set(b"key", b"value")


@test()
def the_readme_example_works(context):
    """The one that a reader pastes: as it stands there, with the port of this server."""
    readme = (pathlib.Path(__file__).parents[2] / "README.md").read_text()
    examples = [block for block in re.findall(r"```(?:sh|bash|python)\n(.*?)```", readme, re.DOTALL)
                if "3000" in block and "python3" in block]
    assert examples, "README.md has no example"
    server = context.server()
    for example in examples:
        result = subprocess.run(["bash", "-c", example.replace("3000", str(server.port))],
                                capture_output=True, text=True, timeout=20, check=False)
        assert result.returncode == 0 and "world" in result.stdout, result
