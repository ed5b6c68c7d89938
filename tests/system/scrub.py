"""The scrubber of a real server: bytes that change on the disk are found while it runs."""
import json
import os
import re
import struct
import time

from admin import check
from disks import noise
from harness import (HELLO_NAME, KIB, MIB, OK, OK_FRAME, Server, converse, get, health, hello, set_,
                     test)
from images import shrink_log_files
from mutation import settle

CORRUPT = 0x07
BLOCK = 4096
CHUNK_HEADER, ENTRY, RECORD_HEADER = 128, 24, 48
VALUE = 128 * KIB  # below what lies in a file of its own
KEYS = 1600 * max(2, Server.usual_shards())  # of 128 KiB: more than the logs keep
LARGE = 2 * MIB


def fill(server, keys):
    with server.client(timeout=60) as client:
        for first in range(0, len(keys), 200):
            some = keys[first:first + 200]
            requests = b"".join(set_(key, noise(number, VALUE))
                                for number, key in enumerate(some, first))
            assert converse(client, requests, len(OK_FRAME) * len(some)) == OK_FRAME * len(some)


def wait_for(what, condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not after {seconds} s: {what}"
        time.sleep(0.05)
    return result


def told(server):
    with server.client() as client:
        return json.loads(client.call(health())[1])


def first_record(path):
    """Key and offset of the first record in a partition segment."""
    with open(path, "rb") as file:
        file.seek(BLOCK)
        chunk = file.read(64 * KIB)
    if chunk[:8] != b"mvCHUNK1":
        return None
    at = CHUNK_HEADER + ENTRY * struct.unpack_from("<I", chunk, 24)[0]
    size = struct.unpack_from("<H", chunk, at + 8)[0]
    return chunk[at + RECORD_HEADER:at + RECORD_HEADER + size], BLOCK + at


def flip(path, offset):
    handle = os.open(path, os.O_RDWR)
    byte = os.pread(handle, 1, offset)
    os.pwrite(handle, bytes([byte[0] ^ 0x10]), offset)
    os.fsync(handle)
    os.close(handle)


def segments(directory):
    """Those that hold records, once as many as there will be."""
    return [path for path in sorted(directory.glob("??/seg-*")) if first_record(path)]


def typed_get(client, key):
    return client.call(get(key))


def assert_tells_once(server, path, words):
    lines = [line for line in server.lines if path.name in line and re.search(words, line)]
    assert len(lines) == 1, f"{len(lines)} lines about {path.name}:\n" + server.log()


@test()
def what_changes_on_the_disk_is_found_while_it_runs(context):
    server = context.server("-scrub", "1000", "-cache", "8")
    keys = [b"key %d" % number for number in range(KEYS)]
    with server.client() as client:
        client.set(b"large", noise(1, LARGE))
    fill(server, keys)
    with server.client() as client:
        for number in range(0, KEYS, 7):  # the mover has it by then
            assert client.get(keys[number]) == noise(number, VALUE)
    paths = wait_for("segments", lambda: segments(server.directory))
    large = next(path for path in server.directory.glob("??/*-*") if "seg-" not in path.name)
    before = wait_for("a pass", lambda: (h := told(server))["scrub_passes"] > 0 and h)
    assert before["status"] == "healthy" and before["scrub_rate_bytes"] == 1000 * MIB, before
    assert before["scrub_bytes_read"] > LARGE and before["scrub_damaged_places"] == 0, before

    key, offset = first_record(paths[0])
    flip(paths[0], offset + RECORD_HEADER + len(key) + 1000)
    flip(large, MIB + 5)
    begin = time.monotonic()
    server.wait_line(rf"{paths[0].name}: the record at offset {offset} is damaged", 10)
    server.wait_line(rf"{large.name} is damaged at offset {MIB}", 10)
    print(f"        found after {time.monotonic() - begin:.1f} s")

    passes = told(server)["scrub_passes"]
    wait_for("two more passes", lambda: told(server)["scrub_passes"] > passes + 1)
    after = told(server)
    assert after["scrub_damaged_places"] == 2 and after["status"] == "degraded: stored data is damaged", after
    assert_tells_once(server, paths[0], "is damaged")
    assert_tells_once(server, large, "is damaged")
    with server.client() as client:
        assert client.call(hello(HELLO_NAME))[0] == OK
        assert typed_get(client, key)[0] == CORRUPT, "wrong bytes are never shown"
        for number in range(0, KEYS, 17):
            if keys[number] != key:
                assert typed_get(client, keys[number]) == (OK, noise(number, VALUE)), number
    assert server.terminate() == 0, "while it scrubs"


@test(seconds=120)
def what_the_directory_is_lost_without_is_written_anew(context):
    """A byte in each copy of the superblock, in the manifest, in the checkpoint, while it runs."""
    server = context.server("-scrub", "1000", "-cache", "8", "-shards", "1")
    data = server.directory
    assert server.terminate() == 0
    shrink_log_files(data, 2 * MIB)
    server.start()
    keys = [b"key %d" % number for number in range(60000)]
    with server.client(timeout=60) as client:
        for first in range(0, len(keys), 1000):
            some = keys[first:first + 1000]
            requests = b"".join(set_(key, noise(number, 300)) for number, key in enumerate(some, first))
            assert converse(client, requests, len(OK_FRAME) * len(some)) == OK_FRAME * len(some)
    settle(data)
    assert server.terminate() == 0
    server.start()
    (checkpoint,) = data.glob("checkpoint-*")
    for number, (path, offset) in enumerate(((data / "superblock", 100),
                                             (data / "superblock", BLOCK + 100),
                                             (data / "manifest-0", 70), (checkpoint, 3 * BLOCK)), 1):
        flip(path, offset)
        server.wait_line(rf"{path.name} is damaged at offset {offset // BLOCK * BLOCK}.*anew", 20)
        wait_for("its repair", lambda: told(server)["scrub_mended_places"] == number)
        wait_for("a pass", lambda: told(server)["scrub_damaged_places"] == 0)
    assert told(server)["status"] == "healthy", told(server)
    wait_for("the old checkpoint's removal", lambda: not checkpoint.exists())
    server.kill()
    code, damage, _ = check(context, data)
    assert (code, damage) == (0, []), damage
    server.start()
    assert not any("corrupt" in line or "damaged" in line for line in server.lines), server.log()
    with server.client() as client:
        for number in range(0, len(keys), 501):
            assert client.get(keys[number]) == noise(number, 300)


@test(seconds=120)
def a_damaged_record_that_is_written_again_is_over(context):
    """Also when it is in no cache: nothing of it stays in quarantine."""
    server = context.server("-scrub", "1000", "-cache", "8")
    keys = [b"key %d" % number for number in range(KEYS)]
    fill(server, keys)
    wait_for("a pass", lambda: told(server)["scrub_passes"] > 0)
    path = wait_for("segments", lambda: segments(server.directory))[0]
    key, offset = first_record(path)
    flip(path, offset + RECORD_HEADER + len(key) + 1000)
    server.wait_line(rf"{path.name}: the record at offset {offset} is damaged", 10)
    wait_for("its report", lambda: told(server)["status"] == "degraded: stored data is damaged")
    with server.client() as client:
        client.set(key, b"again")
    wait_for("it is over", lambda: (h := told(server))["scrub_damaged_places"] == 0
             and h["status"] == "healthy")
    with server.client() as client:
        assert client.get(key) == b"again"


@test(slow=True)
def a_server_that_only_scrubs_is_all_but_idle(context):
    """At the rate that a small disk gets by itself, without the rest between passes."""
    server = context.server("-scrub", "1")
    fill(server, [b"key %d" % number for number in range(200)])
    time.sleep(1)
    before, begin, used = told(server), time.monotonic(), server.cpu_seconds()
    time.sleep(4)
    passed, used, after = time.monotonic() - begin, server.cpu_seconds() - used, told(server)
    read = after["scrub_bytes_read"] - before["scrub_bytes_read"]
    print(f"        {100 * used / passed:.2f} % of a core, {read / MIB / passed:.1f} MiB/s")
    assert 2 * MIB <= read <= (passed + 2) * MIB, read
    if not server.sanitized:
        assert used / passed < 0.01, f"{100 * used / passed:.1f} % of a core"


@test()
def off_means_off(context):
    server = context.server("-scrub", "off")
    with server.client() as client:
        client.set(b"key", b"value" * 1000)
    time.sleep(0.5)
    state = told(server)
    assert state["scrub_rate_bytes"] == state["scrub_bytes_read"] == 0, state
