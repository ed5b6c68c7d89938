#!/usr/bin/env python3
"""Long runs in little: soak.py memory SIZE_MIB MINUTES [--binary PATH]

memory: a server with nothing but defaults in a control group of so much memory, and load with twice as
much in data: tiny values, of which there are more keys than the index holds, and values up to some MiB, plain
and compressed, written, read and deleted; and beside it clients that read nothing, that never send the rest
of a request, and a crowd that does nothing. Nothing is killed, no answer is wrong, and the only error is
OVERLOADED.
"""
import argparse
import collections
import contextlib
import pathlib
import random
import re
import sys
import threading
import time

import harness
from disks import noise
from harness import KIB, MIB, NOT_FOUND, OK, OVERLOADED, Context, Skip, delete, get, hello, set_, zstd_frame
from limits import Group, limit_of

THREADS = 6
DEPTH = 64  # requests under way on a connection, at most, and about BYTES of them
BYTES = 2 * MIB
SIZES = (200, 4 * KIB, 100 * KIB, MIB, 3 * MIB)
WEIGHTS = (600, 300, 80, 15, 5)
TINY = 100
DEADLINE_SECONDS = 60  # for one answer
CROWD, READERS, SLOW = 1000, 20, 20  # clients that do nothing, read nothing, never finish
ROUND_SECONDS = 10  # of these; the server ends what it need not wait for any longer


class Load:
    """The keys of all threads: tiny ones, and others whose sizes their numbers decide."""

    def __init__(self, server, volume, keys_max):
        self.server = server
        self.tiny = keys_max * 5 // 4
        mean = sum(s * w for s, w in zip(SIZES, WEIGHTS)) // sum(WEIGHTS)
        self.other = max(volume - self.tiny * TINY, volume // 2) // mean
        self.end = False
        self.failures = []
        self.counts = collections.Counter()
        self.lock = threading.Lock()

    def size_of(self, number):
        return random.Random(number).choices(SIZES, WEIGHTS)[0]

    def request(self, chance):
        """(request, key's value when it is there)"""
        kind = chance.random()
        if chance.random() < 0.9 and kind < 0.9:
            number = chance.randrange(self.tiny)
            key, value = b"tiny %d" % number, None if kind >= 0.6 else noise(number, TINY)
            return (set_(key, value) if value else get(key)), "set" if value else "get", noise(number, TINY)
        number = chance.randrange(self.other)
        key, size = b"other %d" % number, self.size_of(number)
        value = noise(number, min(size, MIB)) * max(size // MIB, 1)
        if kind < 0.05:
            return delete(key), "delete", None
        if kind < 0.55:
            return get(key), "get", value
        if kind < 0.65:
            return set_(key, zstd_frame(value, window_log=23), 1), "set", None
        return set_(key, value), "set", None

    def judge(self, what, value, status, data):
        allowed = {"get": (OK, NOT_FOUND, OVERLOADED)}.get(what, (OK, OVERLOADED))
        if status not in allowed:
            raise AssertionError(f"{what}: status {status}, {data[:100]!r}")
        if what == "get" and status == OK and data != value:
            raise AssertionError(f"get: {len(data)} bytes {data[:40]!r}, not {len(value)}")

    def run(self, seed):
        chance, counts = random.Random(seed), collections.Counter()
        try:
            with self.server.client(timeout=DEADLINE_SECONDS) as client:
                assert client.call(hello())[0] == OK
                while not self.end and not self.failures:
                    batch, size = [], 0
                    while len(batch) < DEPTH and size < BYTES:
                        batch.append(self.request(chance))
                        size += len(batch[-1][0]) + (len(batch[-1][2] or b""))
                    sender = threading.Thread(target=client.send, args=(b"".join(r for r, *_ in batch),))
                    sender.start()
                    for _, what, value in batch:
                        status, data = client.answer()
                        self.judge(what, value, status, data)
                        counts[what, status] += 1
                    counts["written", OK] += sum(len(r) for r, what, _ in batch if what == "set")
                    sender.join()
        except Exception as error:  # whatever it is, it is what the soak is after
            self.failures.append(f"{type(error).__name__} {error}")
        with self.lock:
            self.counts += counts


def hold(load, begin):
    """Clients that hold what the server gives them, again and again."""
    def run():
        try:
            while not load.end:
                with contextlib.ExitStack() as stack:
                    for number in range(10**6):
                        if load.end or not begin(stack, number):
                            break
                    end = time.monotonic() + ROUND_SECONDS
                    while not load.end and time.monotonic() < end:
                        time.sleep(0.2)
        except ConnectionError:
            pass  # it may end them
        except Exception as error:
            load.failures.append(f"{type(error).__name__} {error}")
    return threading.Thread(target=run)


def holders(load):
    def in_crowd(stack, number):
        client = stack.enter_context(load.server.client(timeout=DEADLINE_SECONDS))
        client.call(hello())
        return number < CROWD

    def in_readers(stack, number):
        client = stack.enter_context(load.server.client(timeout=5, receive_buffer=4 * KIB))
        keys = [key for key in range(load.other) if load.size_of(key) == 100 * KIB][:40]
        client.send(b"".join(get(b"other %d" % key) for key in keys))
        return number < READERS

    def in_slow(stack, number):
        client = stack.enter_context(load.server.client(timeout=5))
        client.send(set_(b"other 0", bytes(200 * KIB))[:150 * KIB])
        return number < SLOW

    return [hold(load, begin) for begin in (in_crowd, in_readers, in_slow)]


def peak_of(server):
    with open(f"/proc/{server.process.pid}/status", encoding="ascii") as status:
        peak = int(re.search(r"VmHWM:\s+(\d+) kB", status.read()).group(1)) * KIB
    return peak


def memory(context, size, minutes):
    group = Group(context, size)
    server = context.server("-http", str(harness.free_port()), group=group.path)
    limit, keys_max = limit_of(server)
    load = Load(server, 2 * size, keys_max)
    threads = [threading.Thread(target=load.run, args=(seed,)) for seed in range(THREADS)] + holders(load)
    for thread in threads:
        thread.start()
    end, used = time.monotonic() + 60 * minutes, 0
    while time.monotonic() < end and not load.failures and server.process.poll() is None:
        time.sleep(1)
        used = max(used, group.used())
    load.end = True
    for thread in threads:
        thread.join()
    assert server.process.poll() is None, f"the server ended ({server.process.poll()}):\n" + server.log()
    peak = peak_of(server)
    written = load.counts.pop(("written", OK), 0)
    kinds = ", ".join(f"{what} {status:#x}: {count}" for (what, status), count in sorted(load.counts.items()))
    print(f"memory: group {size // MIB} MiB, -memory {limit // MIB}, room for {keys_max} keys: "
          f"{peak / MIB:.0f} MiB resident at the peak, {used / MIB:.0f} of the group without its page "
          f"cache, {group.kills()} kills; {written // MIB} MiB written, {kinds}")
    assert not load.failures, f"{load.failures[:3]}\n{server.log()}"
    assert group.kills() == 0
    assert peak < limit, "more resident than -memory"
    context.finish()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["memory"])
    parser.add_argument("size", type=int, help="MiB of the control group")
    parser.add_argument("minutes", type=float)
    parser.add_argument("--binary", type=pathlib.Path, default=harness.ROOT / "minivault")
    options = parser.parse_args()
    options.binary = options.binary.resolve()
    harness.raise_file_limit()
    context = Context(f"soak.{options.what}.{options.size}", options)
    try:
        memory(context, options.size * MIB, options.minutes)
    except Skip as reason:
        print(f"skipped: {reason}")
    finally:
        context.clean(keep=False)
    print("1 passed, 0 failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
