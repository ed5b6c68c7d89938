"""A node of several shards: every key from every connection, restarts with other counts, the drain."""
import json
import os
import random
import re
import shutil
import socket
import subprocess
import threading
import time

from disks import noise
from harness import (ERROR, KIB, MIB, OK, Client, converse, delete, get, health, hello, set_, test,
                     xxh64)
from images import shrink_log_files
from mutation import settle

VALUE_SIZES = (0, 1, 40, 41, 500, 2000, 2100, 3000, 5000, 70 * KIB, 300 * KIB)


def value_of(key, size):
    return random.Random(key + size.to_bytes(4, "little")).randbytes(size)


def shard_of(key, count):
    return (xxh64(key) >> 56) % count


def keys_of(shard, count, wanted, start=0):
    """Keys that belong to a shard."""
    keys, i = [], start
    while len(keys) < wanted:
        key = b"key %d" % i
        if shard_of(key, count) == shard:
            keys.append(key)
        i += 1
    return keys


def own_shard(client):
    """The shard that serves a connection, and how many there are."""
    status, text = client.call(hello())
    assert status == OK, status
    told = json.loads(text)
    return told["shard"], told["shards"]


def expect(client, model):
    for key, value in model.items():
        status, got = client.call(get(key))
        assert (status == OK) == (value is not None), (key, status)
        assert value is None or got == value, (key, len(value), len(got))


def fill(client, count, start=0):
    model = {}
    for i in range(start, start + count):
        key = b"key %d" % i
        size = VALUE_SIZES[i % len(VALUE_SIZES)]
        client.set(key, value_of(key, size))
        model[key] = value_of(key, size)
    for i in range(start, start + count, 7):
        key = b"key %d" % i
        client.delete(key)
        model[key] = None
    return model


@test()
def every_connection_reaches_every_key(context):
    server = context.server("-shards", "4")
    with server.client() as client:
        model = fill(client, 150)
    clients = [server.client() for _ in range(40)]
    seen = {own_shard(client)[0]: client for client in clients}
    assert sorted(seen) == [0, 1, 2, 3], f"connections came to shards {sorted(seen)} only"
    for client in seen.values():
        expect(client, model)
    for client in clients:
        client.close()


@test()
def a_pipeline_over_all_shards_keeps_its_order(context):
    server = context.server("-shards", "3")
    rng = random.Random(7)
    model, requests, expected = {}, [], bytearray()
    for step in range(6000):
        key = b"k%d" % rng.randrange(40)
        what = rng.random()
        if what < 0.5:
            value = rng.randbytes(rng.choice((0, 8, 40, 41, 100, 1000, 4000)))
            requests.append(set_(key, value))
            model[key] = value
            expected += b"\0\0\0\0\0"
        elif what < 0.6:
            requests.append(delete(key))
            model.pop(key, None)
            expected += b"\0\0\0\0\0"
        elif key in model:
            requests.append(get(key))
            expected += b"\0" + len(model[key]).to_bytes(4, "little") + model[key]
        else:
            requests.append(get(key))
            expected += b"\xff\0\0\0\0"
    with server.client() as client:
        assert converse(client, b"".join(requests), len(expected)) == bytes(expected)


@test()
def long_keys_and_large_values_of_other_shards(context):
    server = context.server("-shards", "2")
    with server.client() as client:
        own, count = own_shard(client)
    with server.client() as client:
        for shard in range(2):
            rng = random.Random(shard)
            keys = []
            while len(keys) < 6:
                key = rng.randbytes(rng.choice((1, 20, 21, 500, 4000, 65535)))
                if shard_of(key, 2) == shard:
                    keys.append(key)
            for i, key in enumerate(keys):
                for size in (10, 3900, 200 * KIB, 256 * KIB, 5 * MIB):
                    value = value_of(b"%d" % i, size)
                    client.set(key, value)
                    assert client.get(key) == value, (shard, len(key), size)
                client.delete(key)
                assert client.get(key) is None


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask_health_at_once(port, answers):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with Client(port) as client:
                answers.append(json.loads(client.call(health())[1]))
                return
        except ConnectionRefusedError:
            time.sleep(0.001)


@test()
def who_asks_before_all_shards_have_begun_is_told_of_all(context):
    data = context.directory / "data"
    context.server("-shards", "4", directory=data).kill()
    for _ in range(8):
        port, answers = free_port(), []
        askers = [threading.Thread(target=ask_health_at_once, args=(port, answers)) for _ in range(8)]
        for asker in askers:
            asker.start()
        server = context.server("-shards", "4", "-port", str(port), directory=data)
        for asker in askers:
            asker.join()
        assert [told["status"] for told in answers] == ["healthy"] * len(askers), server.log()
        assert all(told["log_segments"] >= 4 for told in answers), answers
        server.kill()


def contents(directory):
    return {path.relative_to(directory): path.read_bytes()
            for path in sorted(directory.rglob("*")) if path.is_file()}


@test(seconds=120)
def an_older_copy_of_one_shard_is_refused(context):
    data = context.directory / "data"
    server = context.server("-shards", "3", directory=data)
    with server.client() as client:
        fill(client, 60)
    assert server.terminate() == 0
    old, own = context.directory / "old", context.directory / "own"
    shutil.copytree(data / "shard-1", old)
    server.start()
    with server.client() as client:
        model = fill(client, 60, start=60)
    assert server.terminate() == 0
    (data / "shard-1").rename(own)
    shutil.copytree(old, data / "shard-1")
    before = contents(data)
    for count in ("3", "1"):
        code, output = context.run("-port", "0", "-data", str(data), "-shards", count)
        assert code > 0 and "shard 1 is an older copy" in output, (code, output)
        assert "-accept-loss" in output and "has start number 2, that of shard 0 has 4" in output, output
        assert contents(data) == before, "it was touched"
    shutil.rmtree(data / "shard-1")
    own.rename(data / "shard-1")
    server.start()
    with server.client() as client:
        expect(client, model)


# ---- older copies of one shard ----

def state_of(data, shard):
    """The names of what is the shard's own, in the data directory."""
    if shard > 0:
        return [f"shard-{shard}"]
    return [path.name for path in data.iterdir()
            if not re.fullmatch(r"[0-9a-f]{2}|shard-[0-9]+", path.name)]


def save(data, shard, target):
    target.mkdir()
    for name in state_of(data, shard):
        path = data / name
        (shutil.copytree if path.is_dir() else shutil.copy2)(path, target / name)


def replace(data, shard, source, saved=None):
    """Puts a saved state in the place of the shard's own, which goes to `saved`."""
    if saved:
        save(data, shard, saved)
    for name in state_of(data, shard):
        path = data / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in source.iterdir():
        (shutil.copytree if path.is_dir() else shutil.copy2)(path, data / path.name)


def told(server):
    with server.client() as client:
        return json.loads(client.call(health())[1])


def small(client, first, count):
    """Sets keys; returns what each has."""
    model = {b"key %d" % i: b"value %d" % i for i in range(first, first + count)}
    for key, value in model.items():
        client.set(key, value)
    return model


def begin_again(context):
    """A server in its second life, with 60 keys of the first."""
    server = context.server("-shards", "3", "-cache", "32")
    with server.client() as client:
        model = small(client, 0, 60)
    server.restart()
    return server, server.directory, model


def expect_what_is_left(server, model, lost, shard, count=3):
    """Keys of other shards have what they had, those of `lost` that were the shard's may have nothing."""
    with server.client() as client:
        assert client.call(hello())[0] == OK
        for key, value in {**model, **lost}.items():
            status, got = client.call(get(key))
            is_lost = key in lost and shard_of(key, count) == shard
            assert (status, got) == (OK, value) or (is_lost and status == 1), (key, status, got)
        gone = [key for key in lost if client.call(get(key))[0] != OK]
    assert gone, "nothing was lost: the test shows nothing"


@test(seconds=240)
def the_loss_of_an_older_copy_may_be_accepted(context):
    """Loudly: it is known damage. The start after that needs no leave any more."""
    for shard in (1, 0):
        old = context.directory / f"old-{shard}"
        server = context.server("-shards", "3", "-cache", "32",
                                directory=context.directory / f"data-{shard}")
        with server.client() as client:
            model = small(client, 0, 60)
        assert server.terminate() == 0
        save(server.directory, shard, old)
        server.start()
        with server.client() as client:
            lost = small(client, 60, 60)
        assert server.terminate() == 0
        replace(server.directory, shard, old)
        flags = ("-port", "0", "-data", str(server.directory), "-shards", "3")
        code, output = context.run(*flags)
        assert code == 1 and f"shard {shard} is an older copy" in output, output
        assert "-accept-loss" in output and "nothing was changed" in output, output
        server.flags.append("-accept-loss")
        server.start()
        assert re.search(f"WARN .*shard {shard} is an older copy", "\n".join(server.lines)), server.log()
        now = told(server)
        assert now["status"] != "healthy" and now["scrub_damaged_places"] > 0, now
        expect_what_is_left(server, model, lost, shard)
        with server.client() as client:
            model = {**model, **small(client, 200, 60)}
        server.kill()
        server.flags.remove("-accept-loss")
        server.start()
        expect_what_is_left(server, model, lost, shard)
        server.restart()
        expect_what_is_left(server, model, lost, shard)
        assert told(server)["status"] == "healthy", told(server)
        assert server.terminate() == 0


@test(seconds=240)
def an_older_copy_of_the_same_start_is_refused(context):
    """Taken while the server ran, put back after its clean stop: its start number is the right one."""
    server, data, model = begin_again(context)
    for shard in (1, 2, 0):
        old, own = context.directory / f"old-{shard}", context.directory / f"own-{shard}"
        with server.client() as client:
            model.update(small(client, 1000 * (shard + 1), 30))
        save(data, shard, old)
        with server.client() as client:
            late = small(client, 1000 * (shard + 1) + 500, 60)
        assert server.terminate() == 0
        replace(data, shard, old, own)
        before = contents(data)
        for count in ("3", "2"):
            code, output = context.run("-port", "0", "-data", str(data), "-shards", count)
            keeper = 1 if shard == 0 else 0
            assert code == 1 and f"shard {shard} is an older copy" in output, (code, output)
            assert f"shard {keeper} noted position" in output and "-accept-loss" in output, output
            assert contents(data) == before, "it was touched"
        tool = subprocess.run([context.binary.with_name("minivault-admin"), "check", data],
                              capture_output=True, text=True, check=False)
        folder = "log" if shard == 0 else f"shard-{shard}/log"
        assert tool.returncode == 1 and f"\n{folder}: " in "\n" + tool.stdout, tool.stdout
        # The remedy: the one that was here.
        replace(data, shard, own)
        server.start()
        with server.client() as client:
            expect(client, {**model, **late})
        assert server.terminate() == 0
        # Or what is left of it.
        replace(data, shard, old)
        server.flags.append("-accept-loss")
        server.start()
        now = told(server)
        assert now["status"] != "healthy" and now["scrub_damaged_places"] > 0, now
        expect_what_is_left(server, model, late, shard)
        server.kill()
        server.flags.remove("-accept-loss")
        server.start()
        expect_what_is_left(server, model, late, shard)
        model.update({key: value for key, value in late.items() if shard_of(key, 3) != shard})


def fill_segments(server, first, count):
    """Small keys, more than the logs keep."""
    with server.client(timeout=60) as client:
        for begin in range(first, first + count, 1000):
            numbers = range(begin, begin + 1000)
            client.send(b"".join(set_(b"key %d" % number, noise(number, 300)) for number in numbers))
            for _ in numbers:
                assert client.answer() == (OK, b"")
    settle(server.directory)


@test(seconds=240)
def segments_outlive_an_older_copy_of_what_names_them(context):
    """What has come to the partitions' segments since counts, also where they have only grown."""
    server = context.server("-cache", "32", "-shards", "1")
    assert server.terminate() == 0
    shrink_log_files(server.directory, 2 * MIB)
    server.flags = ["-cache", "32", "-shards", "3"]
    server.start()
    fill_segments(server, 0, 90000)
    old = context.directory / "old"
    save(server.directory, 1, old)
    fill_segments(server, 90000, 90000)
    assert server.terminate() == 0
    replace(server.directory, 1, old)
    server.flags.append("-accept-loss")
    server.start()
    kept = 0
    with server.client(timeout=60) as client:
        for number in range(0, 180000, 7):
            key = b"key %d" % number
            got = client.get(key)
            assert got in (noise(number, 300), None), key
            assert got is not None or (number >= 90000 and shard_of(key, 3) == 1), key
            kept += got is not None and number >= 90000 and shard_of(key, 3) == 1
    assert kept > 100, f"only {kept} later keys of shard 1 are left"


@test(seconds=240)
def what_is_no_older_copy_is_not_refused(context):
    """Kills, whole directories from elsewhere, other numbers of shards, notes that are gone or damaged."""
    server, data, model = begin_again(context)
    for step in range(3):
        with server.client() as client:
            expect(client, model)
            model.update(small(client, 1000 * (step + 1), 60))
        server.kill()
        copy = context.directory / f"killed-{step}"
        shutil.copytree(data, copy)
        server.start()
        other = context.server("-shards", "3", "-cache", "32", directory=copy)
        for one in (server, other):
            with one.client() as client:
                expect(client, model)
            assert "older copy" not in "\n".join(one.lines)
        assert other.terminate() == 0
    assert server.terminate() == 0
    copy = context.directory / "stopped"
    shutil.copytree(data, copy)
    for number, count in enumerate((2, 3, 1, 3, 4)):
        server = context.server("-shards", str(count), "-cache", "32", directory=copy)
        with server.client() as client:
            expect(client, model)
            model.update(small(client, 10000 * (number + 1), 20))
        if number % 2:
            server.kill()
        else:
            assert server.terminate() == 0
    server = context.server("-shards", "4", "-cache", "32", directory=copy)
    server.restart()
    for harm in (lambda path: path.unlink(), lambda path: path.write_bytes(b"x" * 9000),
                 lambda path: path.write_bytes(b""), lambda path: os.truncate(path, 5000)):
        assert server.terminate() == 0
        for keeper in ("reached", "shard-1/reached"):
            harm(copy / keeper)
        server.start()
        assert "older copy. " not in "\n".join(server.lines), server.log()
        with server.client() as client:
            expect(client, model)
    server.restart()


@test(seconds=240)
def a_restart_with_another_count_has_everything(context):
    data = context.directory / "data"
    model = {}
    counts = (1, 4, 3, 1, 16, 2, 2)
    for i, count in enumerate(counts):
        server = context.server("-shards", str(count), directory=data)
        with server.client() as client:
            expect(client, model)
            model.update(fill(client, 60, start=40 * i))
            told = json.loads(client.call(b"\5\0\0")[1])
            alive = sum(value is not None for value in model.values())
        with server.client() as client:
            assert own_shard(client)[1] == count
        deadline = time.monotonic() + 10
        while told["keys"] != alive and time.monotonic() < deadline:
            time.sleep(0.3)  # the others tell of themselves twice a second
            with server.client() as client:
                told = json.loads(client.call(b"\5\0\0")[1])
        assert told["keys"] == alive, (count, told["keys"], alive)
        if i % 2 == 0:
            assert server.terminate() == 0
        else:
            server.kill()
    server = context.server("-shards", "5", directory=data)
    with server.client() as client:
        expect(client, model)


@test()
def what_was_acknowledged_survives_a_kill_of_all_shards(context):
    data = context.directory / "data"
    server = context.server("-shards", "4", directory=data)
    acknowledged, stop = [{} for _ in range(4)], threading.Event()

    def write(number):
        with server.client() as client:
            step = 0
            while not stop.is_set():
                key = b"writer %d key %d" % (number, step % 500)
                value = b"step %d" % step
                try:
                    client.set(key, value)
                except (OSError, EOFError):
                    return
                acknowledged[number][key] = step
                step += 1

    writers = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for writer in writers:
        writer.start()
    time.sleep(1.5)
    server.kill()
    stop.set()
    for writer in writers:
        writer.join(20)
    server = context.server("-shards", "4", directory=data)
    count = 0
    with server.client() as client:
        for written in acknowledged:
            for key, step in written.items():
                value = client.get(key)
                assert value is not None, f"{key} was acknowledged and is gone"
                assert int(value[5:]) >= step, (key, value, step)
                count += 1
    assert count > 100, f"only {count} writes: the test shows nothing"


@test()
def a_drain_of_all_shards_answers_what_was_received(context):
    server = context.server("-shards", "4")
    clients = [server.client() for _ in range(12)]
    requests = b"".join(set_(b"drain %d" % i, bytes(500)) for i in range(300))
    for client in clients:
        client.send(requests)
    time.sleep(0.3)
    server.process.terminate()
    for client in clients:
        assert client.receive(5 * 300) == b"\0\0\0\0\0" * 300
        client.expect_end()
        client.close()
    assert server.wait_exit() == 0


@test()
def connections_are_limited_over_all_shards_together(context):
    server = context.server("-shards", "3", "-connections", "30")
    clients = []
    for _ in range(30):
        client = server.client()
        client.set(b"k", b"v")
        clients.append(client)
    refused = server.client()
    try:
        refused.send(get(b"k"))
        assert refused.socket.recv(1) == b"", "the 31st connection is served"
    except OSError:
        pass
    clients.pop().close()
    deadline = time.monotonic() + 10
    while True:
        try:
            with server.client() as client:
                if client.get(b"k") == b"v":
                    break
        except (OSError, EOFError):
            assert time.monotonic() < deadline, "a place that came free is not given again"
            time.sleep(0.05)
    for client in clients:
        assert client.get(b"k") == b"v"
        client.close()


@test()
def pins_and_counts_are_checked(context):
    for flags, says in ((("-shards", "257"), "256"), (("-shards", "x"), "shards"),
                        (("-pin", "1-"), "-pin"), (("-pin", "3-1"), "-pin"),
                        (("-pin", "1023"), "may not run"), (("-pin", ""), "-pin")):
        code, output = context.run("-data", str(context.directory / "refused"), "-port", "0", *flags)
        assert code != 0 and re.search(says, output), (flags, code, output)
    cpu = min(os.sched_getaffinity(0))
    server = context.server("-shards", "2", "-pin", str(cpu))
    server.assert_serves()
    pinned = []
    for task in os.listdir(f"/proc/{server.process.pid}/task"):
        pinned.append(os.sched_getaffinity(int(task)) == {cpu})
    assert sum(pinned) >= 2, pinned


@test()
def a_start_says_what_each_shard_has_and_what_all_have(context):
    server = context.server("-shards", "4")
    log = "\n".join(server.lines)
    assert "4 shards on" in log and "changes from" not in log, log
    for shard in range(4):
        assert len(re.findall(f"shard {shard}: recovered 0 keys", log)) == 1, log
    assert len(re.findall("recovered 0 keys in all", log)) == 1, log
    with server.client() as client:
        for i in range(20):
            client.set(b"key %d" % i, b"v")
    assert server.terminate() == 0
    server = context.server("-shards", "1")
    log = "\n".join(server.lines)
    assert "1 shard on" in log and re.search("number of shards changes from 4 to 1", log), log
    assert "is for -shards 1 now" in log, log
    assert server.terminate() == 0
    server = context.server("-shards", "2")
    log = "\n".join(server.lines)
    assert len(re.findall("recovered 20 keys in all", log)) == 1, log
    assert "1 shards" not in log, log


@test()
def a_limit_of_files_is_told_once(context):
    server = context.server("-shards", "2", files=5000)
    server.assert_serves()
    about = [line for line in server.lines if "of open files" in line or "are served at once" in line]
    assert len(about) == 1 and re.search(r"at most \d+ of 50000 connections", about[0]), about
    assert "RLIMIT_NOFILE 5000" in about[0] and "LimitNOFILE=" in about[0], about


@test()
def a_thousand_connections_are_within_5_percent_of_even(context):
    for count in (2, 3, 4, 8):
        server = context.server("-shards", str(count), "-cache", "64",
                                directory=context.directory / f"data-{count}")
        if any("spread" in line and "hash" in line for line in server.lines):
            print("steering cannot be tested here: the kernel's hash spreads connections")
            return
        clients = [server.client() for _ in range(1000)]
        for client in clients:
            client.send(hello())
        having = [0] * count
        for client in clients:
            status, text = client.answer()
            assert status == OK
            having[json.loads(text)["shard"]] += 1
        assert all(0.95 <= n * count / 1000 <= 1.05 for n in having), having
        for client in clients:
            client.close()
        assert server.terminate() == 0
