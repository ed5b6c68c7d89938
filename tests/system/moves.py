"""Background moves of a real server: what HEALTH tells of them, and that deletes give everything back."""
import contextlib
import json
import os
import time

from disks import noise
from harness import KIB, MIB, OK_FRAME, Server, converse, delete, get, health, set_, test

VALUE = KIB
KEYS = 200_000 * max(2, Server.usual_shards())  # of 1 KiB: more than the logs keep
ROUND = 2000


def told(server):
    with server.client() as client:
        return json.loads(client.call(health())[1])


def each_key(server, request):
    with server.client(timeout=60) as client:
        for first in range(0, KEYS, ROUND):
            requests = b"".join(request(b"key %d" % n, n) for n in range(first, first + ROUND))
            assert converse(client, requests, len(OK_FRAME) * ROUND) == OK_FRAME * ROUND


def settle(server, condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition(last := told(server)):
        assert time.monotonic() < deadline, f"not after {seconds} s: {what}: {last}"
        time.sleep(0.2)
    return last


def disk_usage(directory):
    """Files may go meanwhile."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total


@test(slow=True, seconds=180)
def everything_deleted_leaves_next_to_nothing(context):
    server = context.server("-cache", "4", "-scrub", "off")
    base, block = disk_usage(server.directory), noise(1, VALUE + 256)
    each_key(server, lambda key, n: set_(key, block[n % 256:n % 256 + VALUE]))
    full = settle(server, lambda now: now["keys"] == KEYS and now["mover_phase"] == "idle" and
                  now["log_backlog_bytes"] == 0, "the log's surplus is moved")
    assert full["tombstones"] == 0, full
    assert full["segments_bytes"] > 100 * MIB and full["mover_bytes_moved"] > 100 * MIB, full
    assert 0 < full["log_sealed_bytes"] <= 256 * MIB * server.shard_count(), full
    assert full["segments_dead_bytes"] < full["segments_bytes"] // 10, full
    each_key(server, lambda key, _: delete(key))
    done = settle(server, lambda now: now["tombstones"] == 0 and now["segments"] == 0,
                  "no tombstones, no segments")
    assert done["keys"] == 0 and done["tombstones_purged"] > 0, done
    assert done["segments_bytes"] == done["segments_dead_bytes"] == 0, done
    # The log's spare segments, and the reserve. The other files go one by one.
    most = base + 4 * 64 * MIB * server.shard_count()
    settle(server, lambda _: disk_usage(server.directory) <= most, f"at most {most} bytes are used")
    server.kill()
    server.start()
    after = told(server)
    assert after["keys"] == after["tombstones"] == 0, after
    with server.client() as client:
        for number in range(0, KEYS, 1000):
            assert client.call(get(b"key %d" % number)) == (0xFF, b"")
