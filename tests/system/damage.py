"""What is wrong with files counts at once, whoever finds it; and what cannot be read is not damaged."""
import json
import os
import signal
import urllib.error
import urllib.request

from disks import noise
from harness import (HELLO_NAME, KIB, MIB, OK, eventually, get, health, hello, http_server,
                     set_, test)
from images import shrink_log_files
from mutation import settle
from scrub import BLOCK, CHUNK_HEADER, first_record, flip, segments, wait_for

CORRUPT, ERROR_TYPED = 0x07, 0xFF


def told(server):
    with server.client() as client:
        return json.loads(client.call(health())[1])


def metric(server, name):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}/metrics", timeout=5) as answer:
        return sum(int(line.split()[-1]) for line in answer.read().decode().splitlines()
                   if line.startswith(f"minivault_{name}"))


def typed(server):
    client = server.client(timeout=30)
    assert client.call(hello(HELLO_NAME))[0] == OK
    return client


def value(number, size=300 * KIB):
    return noise(number, size)


def value_files(server):
    return [path for path in server.directory.glob("??/*-*") if "seg-" not in path.name]


def lines_about(server, path):
    """All that was said so far: a reload's line comes behind it."""
    begin = len(server.lines)
    server.process.send_signal(signal.SIGHUP)
    server.wait_line("reloaded", 10, begin)
    return [line for line in server.lines if path.name in line]


def expect(server, places):
    """Nobody has to wait for it."""
    now = told(server)
    assert now["scrub_damaged_places"] == places and (now["status"] == "healthy") == (places == 0), now
    assert metric(server, "damaged_places") == places


@test()
def what_a_start_finds_missing_counts_at_once(context):
    server = http_server(context, "-scrub", "off", "-cache", "32", "-shards", "1")
    with server.client() as client:
        for number in range(20):
            client.set(b"large %d" % number, value(number))
    expect(server, 0)
    assert server.terminate() == 0
    for path in value_files(server)[:10]:
        path.unlink()
    server.start()
    expect(server, 10)
    with typed(server) as client:
        for _ in range(2):
            answers = [client.call(get(b"large %d" % number)) for number in range(20)]
            assert [status for status, _ in answers].count(CORRUPT) == 10, answers
    expect(server, 10)  # the same places
    with server.client() as client:
        for number in range(20):
            client.set(b"large %d" % number, value(number))
    server.restart()
    expect(server, 0)


@test()
def what_a_get_finds_damaged_counts_at_once(context):
    server = http_server(context, "-scrub", "off", "-cache", "1", "-shards", "1")
    with server.client() as client:
        client.set(b"large", value(1))
        for number in range(60):
            client.set(b"key %d" % number, value(number, 100 * KIB))
    expect(server, 0)
    (large,) = value_files(server)
    flip(large, 70000)
    for _ in range(3):
        with typed(server) as client:
            assert client.call(get(b"large"))[0] == CORRUPT
            expect(server, 1)
    assert len(lines_about(server, large)) == 1, server.log()
    for log in server.directory.glob("log/wal-*"):
        place = log.read_bytes().find(b"key 3" + value(3, 100 * KIB)[:1000])
        if place >= 0:
            flip(log, place + 500)
    for _ in range(3):
        with typed(server) as client:
            assert client.call(get(b"key 3"))[0] == CORRUPT
            expect(server, 2)
    with server.client() as client:
        assert client.get(b"key 4") == value(4, 100 * KIB)


@test()
def a_log_that_lost_its_end_counts_at_once(context):
    server = http_server(context, "-scrub", "off", "-cache", "32", "-shards", "1")
    with server.client() as client:
        for number in range(20):
            client.set(b"key %d" % number, value(number, KIB))
    assert server.terminate() == 0
    newest = max(server.directory.glob("log/wal-*"),
                 key=lambda path: int.from_bytes(path.read_bytes()[48:56], "little"))
    newest.unlink()
    server.start()
    now = told(server)
    assert now["status"] != "healthy" and now["scrub_damaged_places"] > 0, now


# ---- unreadable ----

def away(path):
    """The server has no right left that others of its user have not (docs/operations.md)."""
    os.chmod(path, 0)


def back(path):
    os.chmod(path, 0o600)


def http_get(server, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}{path}", timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@test()
def a_value_file_that_may_not_be_opened_is_not_corrupt(context):
    server = http_server(context, "-scrub", "off", "-cache", "32", "-shards", "1")
    with server.client() as client:
        client.set(b"large", value(7, MIB))
    (path,) = value_files(server)
    for round_ in range(1, 3):
        away(path)
        with typed(server) as client:
            for _ in range(10):
                status, text = client.call(get(b"large"))
                assert status == ERROR_TYPED and b"Permission denied" in text, (status, text)
        for route in "/v1/kv/large", "/large":
            status, text = http_get(server, route)
            assert status == 500 and b"Permission denied" in text, (route, status, text)
        lines = lines_about(server, path)
        assert len(lines) == round_ and "Permission denied" in lines[-1], lines
        now = told(server)
        assert (now["unreadable_files"], now["scrub_damaged_places"]) == (1, 0), now
        assert now["status"] == "degraded: a file cannot be read", now
        assert metric(server, "unreadable_files") == 1
        back(path)
        with typed(server) as client:
            assert client.call(get(b"large")) == (OK, value(7, MIB))
        assert told(server)["unreadable_files"] == 0


@test()
def the_scrubber_tells_unreadable_from_damaged(context):
    server = http_server(context, "-scrub", "1000", "-cache", "32", "-shards", "1")
    with server.client() as client:
        client.set(b"large", value(7, MIB))
        client.set(b"rotten", value(8, MIB))
    first, second = value_files(server)
    away(first)
    flip(second, 70000)

    def passed(passes):
        assert told(server)["scrub_passes"] > passes

    def expect_after_a_pass(unreadable, damaged):
        passes = told(server)["scrub_passes"] + 1
        eventually(lambda: passed(passes))
        now = told(server)
        assert (now["unreadable_files"], now["scrub_damaged_places"]) == (unreadable, damaged), now

    expect_after_a_pass(1, 1)
    lines = lines_about(server, first)
    assert len(lines) == 1 and "Permission denied" in lines[0], lines
    back(first)
    expect_after_a_pass(0, 1)


def server_with_segments(context):
    """30000 small keys, of which the mover has some by now; none was read."""
    server = http_server(context, "-scrub", "off", "-cache", "1", "-shards", "1")
    data = server.directory
    assert server.terminate() == 0
    shrink_log_files(data, 2 * MIB)
    server.start()
    with server.client(timeout=60) as client:
        for first in range(0, 30000, 500):
            numbers = range(first, first + 500)
            client.send(b"".join(set_(b"key %d" % number, value(number, 300)) for number in numbers))
            for _ in numbers:
                assert client.answer() == (OK, b"")
    settle(data)
    return server, wait_for("segments", lambda: segments(data))[0]


@test(seconds=180)
def what_a_start_finds_lost_in_a_segment_counts_at_once(context):
    server, path = server_with_segments(context)
    server.kill()
    flip(path, BLOCK + CHUNK_HEADER + 5)  # the directory of its first chunk
    server.start()
    server.wait_line("1 partition segments have lost records", 5)
    expect(server, 1)
    server.kill()
    path.unlink()
    server.start()
    expect(server, 1)


@test(seconds=180)
def what_lies_in_a_segment_that_may_not_be_opened_is_not_corrupt(context):
    server, path = server_with_segments(context)
    key, _ = first_record(path)
    number = int(key.split()[1])
    away(path)
    with typed(server) as client:
        for _ in range(5):
            status, text = client.call(get(key))
            assert status == ERROR_TYPED and b"Permission denied" in text, (status, text)
        now = told(server)
        assert (now["unreadable_files"], now["scrub_damaged_places"]) == (1, 0), now
        assert len(lines_about(server, path)) == 1, server.log()
        back(path)
        assert client.call(get(key)) == (OK, value(number, 300))
    assert told(server)["unreadable_files"] == 0


@test(seconds=180)
def a_segment_that_is_gone_is_one_place(context):
    server, path = server_with_segments(context)
    keys = [b"key %d" % number for number in range(30000)]
    inside = [key for key in keys if key + value(int(key.split()[1]), 300)[:12] in path.read_bytes()]
    assert len(inside) > 5, inside
    path.unlink()
    with typed(server) as client:
        statuses = [client.call(get(key))[0] for key in inside]  # a few may be in the cache
    assert statuses.count(CORRUPT) > 5 and set(statuses) <= {OK, CORRUPT}, statuses
    expect(server, 1)
    assert len(lines_about(server, path)) == 1, server.log()


@test()
def a_value_of_another_shard_says_why_it_cannot_be_read(context):
    server = http_server(context, "-scrub", "off", "-cache", "32", "-shards", "3")
    with server.client() as client:
        for number in range(6):
            client.set(b"large %d" % number, value(number, MIB))
    for path in value_files(server):
        away(path)
    for _ in range(4):
        with typed(server) as client:
            for number in range(6):
                status, text = client.call(get(b"large %d" % number))
                assert status == ERROR_TYPED and b"Permission denied" in text, (status, text)
    assert eventually(lambda: metric(server, "unreadable_files")) >= 6
    for path in value_files(server):
        back(path)
    with typed(server) as client:
        for number in range(6):
            assert client.call(get(b"large %d" % number)) == (OK, value(number, MIB))
