"""kill -9 under load: nothing that was acknowledged is lost, and every restart succeeds.

A writer remembers each of its writes: when it was sent and when it was acknowledged. After the kill a
key may hold any write that no acknowledged one is certain to have replaced: a later one of the same
connection, or one that was sent after this one's answer had come.
"""
import collections
import json
import random
import selectors
import struct
import threading
import time

from harness import ERROR, KIB, MIB, OK, Client, delete, get, health, set_, test

CONNECTIONS = 8
OWN_KEYS = 300     # of each connection
SHARED_KEYS = 200  # of all of them
BATCH = 100        # requests in one send
WINDOW = 400       # requests in flight on one connection
FILLER = random.Random(11).randbytes(2 * MIB)

DEVICE_SECONDS = 1.0  # of interval durability: 10 ms by promise, and what the device takes on a busy machine


class Write:
    """value None: a delete."""
    __slots__ = ("value", "sent", "acknowledged", "writer")

    def __init__(self, value, sent, writer):
        self.value, self.sent, self.writer = value, sent, writer
        self.acknowledged = None


def make_value(key, serial, size):
    """Its head says which write it is; its length and filler show whether all of it is there."""
    head = struct.pack("<QI", serial, size) + key
    return head + FILLER[serial % MIB:serial % MIB + size]


class Load:
    """Several pipelining connections in one thread, until the server dies or `seconds` are over."""

    def __init__(self, history, chance):
        self.history, self.chance = history, chance
        self.acknowledged = 0
        self.refused = 0
        self.serial = max(history.serial, 1)

    def next_write(self, number):
        chance = self.chance
        if chance.random() < 0.7:
            key = b"own %d %d" % (number, chance.randrange(OWN_KEYS))
        else:
            key = b"shared %d" % chance.randrange(SHARED_KEYS)
        self.serial += 1
        kind = chance.random()
        if kind < 0.1:
            return key, None
        size = 100 if kind < 0.95 else chance.choice((0, 3000, 20 * KIB, 100 * KIB))
        if kind > 0.9997:
            size = MIB
        return key, make_value(key, self.serial, size)

    def send(self, client):
        now = time.monotonic()
        requests = []
        for _ in range(BATCH):
            key, value = self.next_write(client.number)
            write = Write(value, now, client.number)
            self.history.writes[key].append(write)
            client.outstanding.append(write)
            requests.append(delete(key) if value is None else set_(key, value))
        client.output += b"".join(requests)

    def take_answers(self, client, data):
        now = time.monotonic()
        client.input += data
        count = len(client.input) // 5
        for position in range(0, count * 5, 5):
            write = client.outstanding.popleft()
            if client.input[position:position + 5] == b"\0\0\0\0\0":
                write.acknowledged = now
                self.acknowledged += 1
            else:
                assert client.input[position] == ERROR, bytes(client.input[position:position + 5])
                self.refused += 1
        del client.input[:count * 5]

    def run(self, port, seconds):
        selector = selectors.DefaultSelector()
        clients = []
        for number in range(CONNECTIONS):
            client = Client(port)
            client.number = number
            client.outstanding = collections.deque()
            client.output, client.input = bytearray(), bytearray()
            client.socket.setblocking(False)
            selector.register(client.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, client)
            clients.append(client)
        deadline = time.monotonic() + seconds
        alive = len(clients)
        while alive and time.monotonic() < deadline:
            for key, events in selector.select(0.1):
                client = key.data
                try:
                    self.turn(client, events)
                except (ConnectionError, EOFError):
                    selector.unregister(client.socket)
                    alive -= 1
        for client in clients:
            client.close()
        self.history.serial = self.serial
        return alive

    def turn(self, client, events):
        if events & selectors.EVENT_READ:
            data = client.socket.recv(256 * KIB)
            if not data:
                raise EOFError
            self.take_answers(client, data)
        if events & selectors.EVENT_WRITE:
            if not client.output and len(client.outstanding) < WINDOW:
                self.send(client)
            if client.output:
                sent = client.socket.send(memoryview(client.output)[:256 * KIB].tobytes())
                del client.output[:sent]


class History:
    """What was written to each key, as far as it may still be there."""

    def __init__(self):
        self.writes = collections.defaultdict(list)
        self.serial = 0

    def allowed(self, key, horizon=float("inf")):
        """The writes that a crash may have left; `horizon`: acknowledgements after it do not count."""
        last_sent, replaced, allowed = None, set(), []
        writes = self.writes[key]
        for write in writes:
            if write.acknowledged is not None and write.acknowledged < horizon:
                last_sent = max(last_sent or 0.0, write.sent)
        for write in reversed(writes):
            in_time = (last_sent is None or write.acknowledged is None or
                       write.acknowledged >= last_sent)
            if in_time and write.writer not in replaced:
                allowed.append(write)
            if write.acknowledged is not None and write.acknowledged < horizon:
                replaced.add(write.writer)
        return allowed, last_sent is None

    def check(self, client, horizon=float("inf")):
        """Reads every key, and begins anew with what is there. Returns what is wrong."""
        problems = []
        keys = list(self.writes)
        for first in range(0, len(keys), 100):
            some = keys[first:first + 100]
            client.send(b"".join(get(key) for key in some))
            for key in some:
                status, value = client.answer()
                found = value if status == OK else None
                allowed, may_be_absent = self.allowed(key, horizon)
                if not (found is None and may_be_absent) and found not in [w.value for w in allowed]:
                    problems.append(describe(key, found, self.writes[key], allowed))
                base = Write(found, 0.0, None)
                base.acknowledged = 0.0
                self.writes[key] = [base]
        return problems


def describe(key, found, writes, allowed):
    known = [i for i, w in enumerate(writes) if w.value == found]
    acknowledged = [i for i, w in enumerate(writes) if w.acknowledged is not None]
    return (f"{key!r}: found {'nothing' if found is None else found[:30]!r}, which is write "
            f"{known or 'of nobody'} of {len(writes)}; acknowledged up to "
            f"{acknowledged[-1:]}, allowed {len(allowed)}")


def kill_later(server, seconds):
    timer = threading.Timer(seconds, server.process.kill)
    timer.daemon = True
    timer.start()
    return timer


def await_kill(server):
    """It ended because it was killed, not by itself a moment earlier."""
    code = server.process.wait(20)
    server.reader.join(5)
    assert code == -9, f"exit code {code}:\n" + server.log()


@test(slow=True, seconds=1800)
def kill_9_under_load(context):
    """--rounds of them, on one directory. Every fourth also kills the recovery."""
    chance = random.Random(context.options.seed)
    history, total, longest = History(), 0, 0.0
    server = context.server("-cache", "32")
    for round_ in range(context.options.rounds):
        load = Load(history, chance)
        kill_later(server, 0.05 + chance.random() * 0.6)
        assert load.run(server.port, 20) == 0, "the server was not killed"
        await_kill(server)
        total += load.acknowledged
        assert load.refused == 0, f"{load.refused} writes were refused"
        if round_ % 4 == 3:
            server.start(wait=False)
            time.sleep(chance.random() * 0.2)
            server.kill()
        begin = time.monotonic()
        server.start()
        longest = max(longest, time.monotonic() - begin)
        with server.client() as client:
            problems = history.check(client)
        assert not problems, f"round {round_}: {len(problems)} keys are wrong:\n" + "\n".join(
            problems[:10])
    print(f"        {context.options.rounds} kills, {total} acknowledged writes, "
          f"longest start {longest:.2f} s")
    assert total > 1000 * context.options.rounds, f"only {total} writes: no load"


@test(seconds=120)
def kill_9_three_times(context):
    """A short form of the above that also the sanitized binary runs."""
    chance = random.Random(context.options.seed + 1)
    history = History()
    server = context.server("-cache", "32")
    for _ in range(3):
        load = Load(history, chance)
        kill_later(server, 0.2 + chance.random() * 0.5)
        assert load.run(server.port, 20) == 0
        await_kill(server)
        server.start()
        with server.client() as client:
            problems = history.check(client)
        assert not problems, problems[:10]
        assert load.acknowledged > 100


@test(slow=True, seconds=180)
def kill_9_with_interval_durability_loses_only_the_last_moment(context):
    """Promised are 10 ms and what the device takes: a second is granted, what is older is there."""
    chance = random.Random(context.options.seed + 2)
    history = History()
    server = context.server("-cache", "32", "-durability", "interval")
    for round_ in range(3):
        load = Load(history, chance)
        timer = threading.Thread(target=time.sleep, args=(DEVICE_SECONDS + 0.5 + chance.random() * 0.5,))
        timer.start()
        killed = []

        def kill():
            timer.join()
            killed.append(time.monotonic())
            server.process.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        assert load.run(server.port, 20) == 0
        killer.join()
        await_kill(server)
        server.start()
        with server.client() as client:
            problems = history.check(client, killed[0] - DEVICE_SECONDS)
        assert not problems, f"round {round_}: {len(problems)}: " + "\n".join(problems[:10])
        assert load.acknowledged > 1000


@test(seconds=120)
def sigterm_under_load_keeps_every_acknowledged_write(context):
    for mode in ("commit", "interval", "none"):
        chance = random.Random(context.options.seed + 3)
        history = History()
        directory = context.directory / mode
        server = context.server("-durability", mode, "-cache", "32", directory=directory)
        load = Load(history, chance)
        timer = threading.Timer(0.5, server.process.terminate)
        timer.start()
        assert load.run(server.port, 20) == 0, "SIGTERM did not close the connections"
        code = server.wait_exit()
        assert code == 0, f"{mode}: exit code {code}:\n" + server.log()
        server.start()
        with server.client() as client:
            problems = history.check(client)
        assert not problems, (mode, problems[:10])
        assert load.acknowledged > 100, mode
        assert server.terminate() == 0


def count_keys(client):
    status, body = client.call(health())
    assert status == OK
    return json.loads(body)["keys"]


@test(seconds=120)
def kill_9_between_overwrites_leaves_the_number_of_keys(context):
    """Of keys that are in no cache the older write is still there after the kill, until it is proved."""
    keys, rounds = 100000, 2
    server = context.server("-cache", "1")
    for round_ in range(rounds):
        with server.client() as client:
            # The log keeps the older writes as long as their segment has others.
            for first in range(0, keys // (round_ + 1), BATCH):
                client.send(b"".join(set_(b"key %d" % key, FILLER[key + round_:key + round_ + 20])
                                     for key in range(first, first + BATCH)))
                for _ in range(BATCH):
                    assert client.answer()[0] == OK
        server.kill()
        server.start()
        with server.client() as client:
            found = count_keys(client)
            assert keys - 64 <= found <= keys, f"round {round_}: {found} keys, not {keys}"
            deadline = time.monotonic() + 60
            while count_keys(client) != keys:
                assert time.monotonic() < deadline, f"{count_keys(client)} keys, not {keys}"
                time.sleep(0.1)
            assert client.get(b"key 7") == FILLER[7 + round_:7 + round_ + 20]
