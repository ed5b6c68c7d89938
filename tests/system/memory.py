"""Resident memory under load stays within what docs/operations.md promises, at its peak too."""
import concurrent.futures
import json
import re
import subprocess

from disks import noise
from harness import KIB, MIB, OK, OK_FRAME, ROOT, converse, get, health, set_, test, zstd_frame
from scrub import told, wait_for

CACHE = 64
SMALL, MEDIUM, LARGE = 300000, 3000, 60
MEDIUM_SIZE, LARGE_SIZE, FRAME_SIZE = 100 * KIB, 3 * MIB, 9 * MIB  # frames: the largest window
CONNECTIONS = 40


def promised(keys, connections, shards):
    """The formula in the document, with what each key, connection and shard costs."""
    text = " ".join((ROOT / "docs" / "operations.md").read_text().split())
    found = re.search(r"`-cache` \+ (\d+) bytes × keys.*?\+ (\d+) KiB × connections.*? \+ (\d+) MiB "
                      r"\+ (\d+) MiB × \(shards - 1\)\.", text)
    assert found, "the document does not say what resident memory stays below"
    a_key, a_connection, rest, a_shard = map(int, found.groups())
    return (CACHE * MIB + a_key * keys + a_connection * KIB * connections + rest * MIB +
            a_shard * (shards - 1) * MIB)


def peak(server):
    """VmHWM: the greatest resident size so far."""
    with open(f"/proc/{server.process.pid}/status") as status:
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read()).group(1)) * KIB


def write(server, name, count, size, batch):
    with server.client(timeout=60) as client:
        for first in range(0, count, batch):
            some = range(first, min(first + batch, count))
            requests = b"".join(set_(b"%s %d" % (name, number), noise(number, size))
                                for number in some)
            assert converse(client, requests, len(OK_FRAME) * len(some)) == OK_FRAME * len(some)


def write_large(server, part):
    frame = zstd_frame(bytes(FRAME_SIZE), window_log=23)
    with server.client(timeout=60) as client:
        for number in range(part, LARGE, 8):
            client.set(b"large %d" % number, noise(number, LARGE_SIZE)[:LARGE_SIZE])
            assert client.call(set_(b"frame %d" % number, frame, 1)) == (OK, b"")


def read_some(server, part):
    with server.client(timeout=60) as client:
        for number in range(part, LARGE, 8):
            assert len(client.get(b"large %d" % number)) > MIB
            assert client.get(b"frame %d" % number) == bytes(FRAME_SIZE)
        for number in range(part, MEDIUM, 8):
            assert client.get(b"medium %d" % number) == noise(number, MEDIUM_SIZE)
        for number in range(part, SMALL, 8 * 97):
            assert client.get(b"small %d" % number) == noise(number, 64)


def all_at_once(server, work):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work, server, part) for part in range(8)]:
            done.result()


def check_memory(context, *flags):
    """Small keys, values in the log and in segments, value files both ways, frames, the mover, the
    scrubber at full speed; the cache is full, and full of different sizes."""
    server = context.server("-cache", str(CACHE), "-scrub", "100000", *flags)
    begin = peak(server)
    clients = [server.client() for _ in range(CONNECTIONS)]
    write(server, b"small", SMALL, 64, 2000)
    write(server, b"medium", MEDIUM, MEDIUM_SIZE, 50)
    all_at_once(server, write_large)
    all_at_once(server, read_some)
    write(server, b"small", SMALL, 64, 2000)  # again: most of them are in no cache by now
    all_at_once(server, read_some)
    passes = told(server)["scrub_passes"]
    wait_for("a pass", lambda: told(server)["scrub_passes"] > passes, 60)
    keys = SMALL + MEDIUM + 2 * LARGE
    state = wait_for("all keys", lambda: (h := told(server))["keys"] == keys and h)
    assert state["cache_size_mb"] <= CACHE, state
    assert state["cache_evictions"] > 0, "the cache was never full"
    shards = server.shard_count()
    limit, used = promised(keys, CONNECTIONS + 9, shards), peak(server)
    rest = used - (limit - promised(0, 0, shards)) - CACHE * MIB
    print(f"        {begin / MIB:.0f} MiB at the start, {used / MIB:.0f} MiB at the peak, of "
          f"{limit / MIB:.0f}; {rest / MIB:.0f} MiB beside cache, keys and connections")
    if not server.sanitized:
        assert used < limit, f"{used / MIB:.0f} MiB resident, more than {limit / MIB:.0f}"
    for client in clients:
        client.close()


@test(slow=True, seconds=180)
def resident_memory_stays_within_the_documented_sum(context):
    check_memory(context)


@test(slow=True, seconds=180)
def resident_memory_of_two_shards_stays_within_the_documented_sum(context):
    check_memory(context, "-shards", "2")


@test(slow=True, seconds=180)
def resident_memory_of_four_shards_stays_within_the_documented_sum(context):
    check_memory(context, "-shards", "4")


@test()
def every_member_of_health_is_documented(context):
    server = context.server()
    text = (ROOT / "docs" / "operations.md").read_text()
    with server.client() as client:
        state = json.loads(client.call(health())[1])
    missing = [name for name in state if f"`{name}`" not in text]
    assert not missing, missing


@test()
def every_flag_stands_in_the_document_with_its_default(context):
    usage = subprocess.run([str(context.binary), "--help"], capture_output=True, check=True).stdout
    flags = dict(re.findall(r"^  -([a-z-]+)(?: (\S+))?", usage.decode(), re.MULTILINE))
    text = (ROOT / "docs" / "operations.md").read_text()
    text = text[text.index("## Flags"):text.index("## Durability")]
    rows = {name: default.strip() for names, default in re.findall(
        r"^\| (`-[^|]*) \|([^|]*)\|", text, re.MULTILINE) for name in re.findall(r"`-([a-z-]+)`", names)}
    later = set(re.findall(r"`-([a-z-]+)`", text[text.index("`-public-url`"):text.index("later releases")]))
    for name, default in flags.items():
        if name in later or name.startswith("-"):
            continue
        assert name in rows, f"-{name} is not in the table"
        if default and default.isalnum() and default.islower() or default.isdigit():
            assert rows[name] == default, (name, rows[name], default)
    assert not set(rows) - set(flags), set(rows) - set(flags)
