"""Small disks: what they are refused for, what is said of it everywhere, and what comes back when keys go."""
import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request

from disks import Disk, noise
from harness import KIB, MIB, NO_SPACE, OK, Server, delete, eventually, health, hello, http_server, set_, test

BATCH = 1000


def readiness(server):
    """(code, the verbose text) of /readyz."""
    url = f"http://127.0.0.1:{server.http_port}/readyz?verbose"
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def status_of(server):
    with server.client() as client:
        return json.loads(client.call(health())[1])["status"]


def set_until_refused(client, prefix, size):
    """The keys that were taken. Small values go many at a time."""
    keys, refused, number = [], False, 0
    batch = max(1, min(1000, MIB // size))
    while not refused:
        some = [b"%s-%07d" % (prefix, n) for n in range(number, number + batch)]
        client.send(b"".join(set_(key, noise(n, size)) for n, key in enumerate(some, number)))
        for key in some:
            status, text = client.answer()
            if status == OK:
                keys.append(key)
                continue
            assert status == NO_SPACE and b"disk is full" in text, (status, text)
            refused = True
        number += batch
        assert number < 20_000_000, "it is never full"
    return keys


def delete_keys(client, keys):
    for first in range(0, len(keys), BATCH):
        some = keys[first:first + BATCH]
        client.send(b"".join(delete(key) for key in some))
        for key in some:
            assert client.answer()[0] == OK, key


@test(seconds=180)
def a_refusal_is_told_alike_by_readyz_health_and_log(context):
    """Large values are refused while small ones are taken; then both are."""
    disk = Disk(context, "ext4", 300 * MIB)
    server = http_server(context, "-shards", "1", "-cache", "4", directory=disk.point / "data")
    with server.client(timeout=60) as client:
        assert client.call(hello())[0] == OK
        assert status_of(server) == "healthy" and readiness(server)[0] == 200
        large = set_until_refused(client, b"large", 700 * KIB)

        def large_ones_are_refused():
            assert client.call(set_(b"one more", noise(1, 700 * KIB)))[0] == NO_SPACE
            code, text = readiness(server)
            assert code == 503 and "disk space failed" in text, text
            assert "large values are refused: the disk is full" in status_of(server), status_of(server)
        eventually(large_ones_are_refused)
        server.wait_line(r"WARN .*a large value was refused .*No space left on device: the disk is full")
        assert client.call(set_(b"small", b"value"))[0] == OK
        small = set_until_refused(client, b"small", 20 * KIB)

        def small_ones_are_refused():
            assert client.call(set_(b"one more", noise(1, 20 * KIB)))[0] == NO_SPACE
            assert status_of(server) == "failing: sets are refused: the disk is full"
            assert readiness(server)[0] == 503
            server.wait_line(r"WARN .*a (set|write) was refused .*: the disk is full", 0.1)
        eventually(small_ones_are_refused)
        for _ in range(500):
            client.call(set_(b"one more", noise(1, 20 * KIB)))
        lines = [line for line in server.lines if "was refused" in line]
        assert len(lines) < 100, f"{len(lines)} lines"
        delete_keys(client, large + small)

        def all_is_well():
            assert client.call(set_(b"one more", noise(1, 700 * KIB)))[0] == OK
            assert status_of(server) == "healthy" and readiness(server)[0] == 200
        eventually(all_is_well)


@test(seconds=120)
def a_file_system_without_inodes_is_not_called_full(context):
    disk = Disk(context, "ext4", 700 * MIB)
    server = http_server(context, "-shards", "1", "-cache", "4", directory=disk.point / "data")
    # Mounted anew with few inodes would be too few to begin with: somebody else takes the rest.
    others = disk.point / "others"
    others.mkdir()
    try:
        for number in range(200_000):
            (others / str(number)).touch()
        raise AssertionError("it has no end of inodes")
    except OSError:
        pass
    assert disk.free() > 300 * MIB, disk.free()
    with server.client() as client:
        assert client.call(hello())[0] == OK
        assert client.call(set_(b"large", noise(1, 700 * KIB)))[0] == NO_SPACE
        assert client.call(set_(b"small", b"value"))[0] == OK
    server.wait_line(r"WARN .*a large value was refused .*no inodes left: remove files")
    eventually(lambda: "no inodes left" in status_of(server) or (_ for _ in ()).throw(AssertionError))
    assert not any("disk is full" in line for line in server.lines), server.log()
    (others / "0").unlink()
    (others / "1").unlink()
    with server.client() as client:
        assert client.call(hello())[0] == OK
        assert client.call(set_(b"large", noise(1, 700 * KIB)))[0] == OK


# ---- filled and emptied ----

def used(directory):
    """Bytes that the directory takes on the disk."""
    output = subprocess.run(["du", "-s", "-B1", str(directory)], capture_output=True, text=True, check=False)
    return int(output.stdout.split()[0])


def empty_size(disk, shards):
    """docs/operations.md, "disk space of an empty shard"; the folders of a directory come on top."""
    log_file = min(max(disk.size // (16 * shards) // MIB, 4), 32) * MIB
    reserve = max(disk.size // 32 // shards, 2 * MIB)
    return shards * (3 * log_file + reserve + 2 * MIB) + 8 * MIB


def fill_and_empty(context, kind, size, shards, value_sizes, rounds):
    """Sets are taken again within 5 s of the last delete, and the empty node is as small as it should
    be within 10 s."""
    disk = Disk(context, kind, size)
    server = context.server("-shards", str(shards), "-cache", "16", directory=disk.point / "data")

    def is_small():
        assert used(server.directory) <= empty_size(disk, shards), \
            f"{used(server.directory) // MIB} MiB, not {empty_size(disk, shards) // MIB}"
    for round_ in range(rounds):
        value_size = value_sizes[round_ % len(value_sizes)]
        with server.client(timeout=120) as client:
            assert client.call(hello())[0] == OK
            keys = set_until_refused(client, b"round %d" % round_, value_size)
            assert len(keys) * value_size > size // 4, f"{len(keys)} values of {value_size} bytes"
            delete_keys(client, keys)
            begin = time.monotonic()
            for again in {value_size, value_sizes[(round_ + 1) % len(value_sizes)]}:
                def is_taken_again(value=bytes(again)):
                    assert client.call(set_(b"again", value))[0] == OK
                eventually(is_taken_again, 5 * Server.patience)
            waited = time.monotonic() - begin
            assert client.call(delete(b"again"))[0] == OK
        begin = time.monotonic()
        eventually(is_small, 10 * Server.patience)
        print(f"        {kind} {size // MIB} MiB, {shards} shards, round {round_}: {len(keys)} values of "
              f"{value_size} bytes; sets are taken again after {waited:.1f} s; it has "
              f"{used(server.directory) // MIB} MiB (at most {empty_size(disk, shards) // MIB}) after "
              f"{time.monotonic() - begin:.1f} s")
    with server.client(timeout=120) as client:
        assert client.call(hello())[0] == OK
        assert client.call(set_(b"the largest", bytes(100 * MIB)))[0] == OK
    server.restart()


@test(seconds=240)
def an_emptied_node_of_three_shards_is_small(context):
    fill_and_empty(context, "xfs", 700 * MIB, 3, (200 * KIB, 3 * MIB), 2)


@test(seconds=240)
def a_few_deleted_keys_leave_no_log_behind(context):
    """Fewer tombstones than are worth a round, in sealed files of the log."""
    disk = Disk(context, "ext4", 700 * MIB)
    server = context.server("-shards", "3", "-cache", "16", directory=disk.point / "data")
    keys = [b"key %d" % n for n in range(200)]
    with server.client(timeout=120) as client:
        for number, key in enumerate(keys):
            assert client.call(set_(key, noise(number, 240 * KIB)))[0] == 0
        delete_keys(client, keys)

    def is_small():
        assert used(server.directory) <= empty_size(disk, 3), \
            f"{used(server.directory) // MIB} MiB, not {empty_size(disk, 3) // MIB}"
    eventually(is_small, 10 * Server.patience)


VALUE_SIZES = (100, 4000, 200 * KIB, 3 * MIB, 20 * MIB)

for kind_ in "ext4", "xfs":
    for size_ in 500 * MIB, 700 * MIB, 2000 * MIB:
        for shards_ in 1, 3, 8:
            def ten_times(context, kind=kind_, size=size_, shards=shards_):
                fill_and_empty(context, kind, size, shards, VALUE_SIZES, 10)
            ten_times.__name__ = f"filled_and_emptied_{kind_}_{size_ // MIB}_{shards_}"
            test(soak=True, seconds=1800)(ten_times)
