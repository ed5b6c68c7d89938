"""What a server does in little memory: a control group, -memory, and more keys than that holds."""
import contextlib
import json
import os
import pathlib
import re
import struct

from disks import noise
from harness import (
    ERROR, KIB, MIB, NOT_FOUND, OK, OK_FRAME, OVERLOADED, Skip, converse, delete, eventually, get,
    health, hello, http_server, set_, test)
from web import client_of

BATCH = 2000
OVERLOADED_TEXT = re.compile(rb"\x05....overloaded[^\x00\x05]*", re.DOTALL)


class Group:
    """A control group of version 1 or 2 with so much memory; goes away with the test's context."""

    def __init__(self, context, size):
        name = f"minivault-test-{os.getpid()}"
        for root, file in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
                           ("/sys/fs/cgroup", "memory.max")):
            self.path = pathlib.Path(root) / name
            self.is_v2 = file == "memory.max"
            with contextlib.suppress(OSError):
                self.path.mkdir()
                if not (self.path / file).exists():
                    self.path.rmdir()
                    continue
                context.stack.callback(lambda: eventually(self.path.rmdir))
                (self.path / file).write_text(str(size))
                return
        raise Skip("needs a control group with a memory limit")

    def numbers(self, file):
        return {name: int(number) for name, number in
                re.findall(r"^(\w+) (\d+)$", (self.path / file).read_text(), re.MULTILINE)}

    def used(self):
        """Without the page cache, which gives way."""
        if self.is_v2:
            return int((self.path / "memory.current").read_text()) - self.numbers("memory.stat")["file"]
        return int((self.path / "memory.usage_in_bytes").read_text()) - self.numbers("memory.stat")["cache"]

    def kills(self):
        return self.numbers("memory.events" if self.is_v2 else "memory.oom_control")["oom_kill"]


def limit_of(server):
    """Bytes, keys: as the start says."""
    found = server.wait_line(r"memory: at most (\d+) MiB .*, index \d+ \((\d+) keys\)")
    return int(found.group(1)) * MIB, int(found.group(2))


def write(client, prefix, first, count, size):
    """How many of these new keys were refused. Any other error fails."""
    requests = b"".join(set_(b"%s %d" % (prefix, i), noise(i, size)) for i in range(first, first + count))
    client.send(requests)
    refused = 0
    for _ in range(count):
        status, text = client.answer()
        assert status in (OK, OVERLOADED), (status, text)
        refused += status == OVERLOADED
    return refused


def fill(server, client, prefix, size, most):
    """New keys until they are refused: how many were taken."""
    taken = 0
    while taken < most:
        refused = write(client, prefix, taken, BATCH, size)
        if refused:
            return taken
        taken += BATCH
    raise AssertionError(f"{most} keys were taken:\n" + server.log())


def assert_full(server, client, prefix, keys):
    """New keys are refused, small and large ones; everything else goes on."""
    assert client.call(set_(b"new", b"value"))[0] == OVERLOADED
    assert client.call(set_(b"new and large", noise(1, MIB)))[0] == OVERLOADED
    assert client.call(get(b"new"))[0] == NOT_FOUND
    for i in range(0, keys, max(keys // 500, 1)):
        key = b"%s %d" % (prefix, i)
        assert client.call(set_(key, b"over %d" % i)) == (OK, b""), i
        assert client.call(get(key)) == (OK, b"over %d" % i), i
    large = b"%s 1" % prefix
    assert client.call(set_(large, noise(2, MIB)))[0] == OK
    assert client.call(get(large)) == (OK, noise(2, MIB))
    with server.client() as plain:
        assert plain.call(set_(b"new", b"value")) == (ERROR, b"")
    text = "\n".join(server.lines)
    assert "new keys are refused" in text and "Raise -memory" in text, text

    def health_says_so():
        status = json.loads(client.call(health())[1])["status"]
        assert status == "degraded: new keys are refused: -memory is used up", status
    eventually(health_says_so)


def assert_taken_again(client, prefix, keys):
    """Once some were deleted, and their records are gone."""
    for first in range(0, keys // 4, BATCH):
        some = range(first, min(first + BATCH, keys // 4))
        requests = b"".join(delete(b"%s %d" % (prefix, i)) for i in some)
        assert converse(client, requests, len(OK_FRAME) * len(some)) == OK_FRAME * len(some)

    def check():
        assert client.call(set_(b"new", b"value"))[0] == OK

    eventually(check, 60)


@test(slow=True, seconds=300)
def a_group_of_256_mib_is_never_outgrown(context):
    """With nothing but defaults: the server has a smaller cache, and keys until there are too many."""
    group = Group(context, 256 * MIB)
    server = http_server(context, "-shards", "0", group=group.path)
    if len(os.sched_getaffinity(0)) > 1:
        server.wait_line(r"1 shard \(as many as -memory holds\) on")
    server.wait_line("-cache 512 does not fit beside the rest")
    limit, keys_max = limit_of(server)
    assert limit == 256 * MIB // 100 * 80 // MIB * MIB
    with server.client(timeout=60) as client:
        assert client.call(hello())[0] == OK
        keys = fill(server, client, b"key", 40, 2 * keys_max)
        assert keys > keys_max * 0.98 - BATCH, (keys, keys_max)
        assert_full(server, client, b"key", keys)
        with client_of(server) as web:
            assert web.ask("PUT", "/new", b'{"value": 1}').status == 503
            metrics = web.ask("GET", "/metrics").body.decode()
            assert sum(int(n) for n in re.findall(r"keys_refused_total\S* (\d+)", metrics)) >= 2
        used = group.used()
        print(f"        {keys} of {keys_max} keys; {server.rss() / MIB:.0f} MiB resident, "
              f"{used / MIB:.0f} MiB of the group, of {limit / MIB:.0f}")
        assert server.rss() < limit and used < limit
        assert_taken_again(client, b"key", keys)
    assert group.kills() == 0
    server.restart()
    with server.client() as client:
        assert client.get(b"new") == b"value"


@test(slow=True, seconds=300)
def each_shard_keeps_to_its_part(context):
    server = context.server("-memory", "450", "-shards", "3", "-cache", "200")
    limit, keys_max = limit_of(server)
    assert limit == 450 * MIB
    with server.client(timeout=60) as client:
        assert client.call(hello())[0] == OK
        taken = 0
        while write(client, b"key", taken, BATCH, 40) < BATCH:
            taken += BATCH
        assert taken > keys_max * 0.98 - BATCH, (taken, keys_max)

        def nearly_all_have_a_key():  # the other shards' numbers are up to half a second old
            keys = json.loads(client.call(health())[1])["keys"]
            assert keys_max * 0.95 < keys <= keys_max, (keys, keys_max)
        eventually(nearly_all_have_a_key)
        for i in range(6):  # whichever shard the connection and the key belong to
            assert client.call(set_(b"large %d" % i, noise(i, MIB)))[0] == OVERLOADED, i
            assert client.call(set_(b"key %d" % i, noise(i, MIB)))[0] == OK, i
            assert client.call(get(b"key %d" % i)) == (OK, noise(i, MIB)), i
    server.assert_rss_below(limit, "three shards")


@test()
def a_start_takes_more_keys_than_its_memory_holds(context):
    """Data are never refused: the cache is smaller then, and new keys wait."""
    server = context.server("-shards", "1", "-memory", "400", "-cache", "16")
    most = 100 * BATCH
    with server.client(timeout=60) as client:
        for first in range(0, most, BATCH):
            assert write(client, b"key", first, BATCH, 40) == 0
    assert server.terminate() == 0
    server.flags[3] = "164"
    server.start()
    _, keys_max = limit_of(server)
    assert keys_max < most
    server.wait_line(f"there are {most} keys, but the index has memory for")
    with server.client() as client:
        assert client.call(hello())[0] == OK
        for i in range(0, most, 997):
            assert client.call(get(b"key %d" % i)) == (OK, noise(i, 40))
        assert_full(server, client, b"key", most)


@test()
def memory_that_is_too_little_is_refused_with_what_takes_it(context):
    data = ("-data", str(context.directory / "data"), "-port", "0")
    code, text = context.run("-memory", "300", "-shards", "8", *data)
    assert code == 1 and "300 MiB of memory (-memory) are too few" in text, (code, text)
    assert "8 of -shards" in text and "fewer take less" in text and "-connections" in text, text
    needed = int(re.search(r"Give it (\d+) MiB", text).group(1))
    code, text = context.run("-memory", "20", "-shards", "1", *data)
    assert code == 1 and "are too few" in text, (code, text)
    assert not (context.directory / "data").exists()
    server = context.server("-memory", str(needed + needed // 4), "-shards", "8")
    assert limit_of(server)[0] == (needed + needed // 4) * MIB
