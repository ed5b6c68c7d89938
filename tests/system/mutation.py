"""Damage to a directory at rest: whatever one block or one file has come to, a key answers with its
newest value or with an error, or the server refuses to start and says which file is meant. It never
answers with wrong or older bytes, never that a key is absent that exists, and never with what was
deleted.

One exception, which docs/formats.md tells: a log that was not closed has no proof of its last one or
two batches, nor of what stood in a file that is gone. There the newest writes may be missing, as if
they had never been made: all of them from some write on.
"""
import concurrent.futures
import contextlib
import random
import re
import shutil
import struct
import time

from disks import noise
from harness import (
    ERROR, KIB, NOT_FOUND, OK, Server, delete, get, hello, set_, test)
from images import BLOCK, Image, Mutation, copy, shrink_log_files

CORRUPT = 0x07
FLAGS = ("-cache", "1", "-connections", "100", "-shards")
KEYS, SESSIONS, LARGE = 1500, 4, 256 * KIB
SINGLE_WRITES = 30  # at the end, each of them acknowledged before the next one: a batch each
UNPROVED = 4        # of them, at most, are in the batches that nothing proves yet
ABSENT = [b"absent %d" % number for number in range(20)]
AT_ONCE = 2
SEGMENT_SIZE = 2048 * KIB


class Model:
    """All writes in the order of the log."""

    def __init__(self):
        self.writes = []   # key, value (None: deleted)
        self.serials = {}  # of each key, ascending
        self.session = 0   # the first serial of the last session

    def add(self, key, value):
        self.serials.setdefault(key, []).append(len(self.writes))
        self.writes.append((key, value))

    def at(self, key, end):
        """Its value when only the first `end` writes had been made."""
        for serial in reversed(self.serials.get(key, ())):
            if serial < end:
                return self.writes[serial][1]
        return None

    def newest(self, key):
        return self.at(key, len(self.writes))

    def is_prefix(self, answers, floor):
        """Whether the answers are those of a log that ends early, but not before `floor`."""
        known = {key: value for key, (is_known, value) in answers.items() if is_known}
        late = {key for key, _ in self.writes[floor:]}
        if any(self.newest(key) != value for key, value in known.items() if key not in late):
            return False
        return any(all(self.at(key, end) == known[key] for key in late if key in known)
                   for end in range(len(self.writes), floor - 1, -1))


# ---- the directory ----

def make_value(chance, serial, size, pieces):
    """Text, noise, or pieces of the directory itself."""
    kind = chance.random()
    head = struct.pack("<Q", serial)
    if kind < 0.05 and pieces:
        return head + bytes(BLOCK - 8 - chance.randrange(64)) + chance.choice(pieces)
    if kind < 0.5:
        return (head + b"this is what write %d says; " % serial * (size // 20 + 1))[:max(size, 8)]
    return head + noise(serial, size)


def next_write(chance, model, pieces):
    key = b"key %d" % chance.randrange(KEYS)
    kind = chance.random()
    if kind < 0.1:
        return key, None
    size = chance.choice((10, 100, 300, 900))
    if kind > 0.93:
        size = chance.choice((5 * KIB, 20 * KIB, 60 * KIB))
    if kind > 0.996:
        key, size = b"large %d" % chance.randrange(10), chance.choice((LARGE, 300 * KIB, 700 * KIB))
        if kind > 0.9995:
            return key, None
    return key, make_value(chance, len(model.writes), size, pieces)


def write_some(client, chance, model, pieces, count, batch):
    for _ in range(0, count, batch):
        requests = []
        for _ in range(batch):
            key, value = next_write(chance, model, pieces)
            model.add(key, value)
            requests.append(delete(key) if value is None else set_(key, value))
        client.send(b"".join(requests))
        for _ in requests:
            assert client.answer() == (OK, b"")


def listing(directory):
    entries = []
    for path in sorted(directory.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            entries.append((path, path.stat().st_size))
    return entries


def settle(directory):
    """What goes on behind the writes comes to an end, or at least some way."""
    seen, since = None, time.monotonic()
    deadline = since + 3
    while time.monotonic() < min(since + 0.4, deadline):
        now = listing(directory)
        if now != seen:
            seen, since = now, time.monotonic()
        time.sleep(0.05)


def sample_blocks(chance, image):
    pieces = []
    for kind, files in image.files.items():
        for name in list(files)[:3]:
            with open(image.directory / name, "rb") as file:
                for block in [files[name][0], *chance.sample(files[name], min(5, len(files[name])))]:
                    file.seek(block * BLOCK)
                    pieces.append(file.read(BLOCK))
    return pieces


def format_small(context, directory):
    """With small segments, when this server's log can hold its largest record in one."""
    server = context.server(*FLAGS, context.shards, directory=directory)
    assert server.terminate() == 0
    before = shrink_log_files(directory, SEGMENT_SIZE)
    server.start(wait=False)
    try:
        server.wait_ready()
        assert server.terminate() == 0
    except AssertionError:
        assert server.wait_exit(5) > 0 and str(SEGMENT_SIZE) in server.log(), server.log()
        print("        this log needs its usual segments")
        (directory / "superblock").write_bytes(before)


def build(context, clean, shards=(1,) * SESSIONS):
    """The image, earlier images, and what is in it. `shards`: how many each session has."""
    context.shards = str(shards[0])
    chance, model, older, pieces = random.Random(context.options.seed), Model(), [], []
    directory = context.directory / "built"
    format_small(context, directory)
    for session in range(SESSIONS):
        model.session = len(model.writes)
        context.shards = str(shards[session])
        server = context.server(*FLAGS, context.shards, directory=directory)
        with server.client() as client:
            write_some(client, chance, model, pieces, 1200, 50)
            if session % 2:
                settle(directory)
            write_some(client, chance, model, pieces, SINGLE_WRITES, 1)
        if clean or session % 2 == 0 and session < SESSIONS - 1:
            assert server.terminate() == 0
        else:
            server.kill()
        copy(directory, context.directory / f"image{session}")
        older.append(Image(context.directory / f"image{session}"))
        pieces = sample_blocks(chance, older[-1])
    image = older.pop()
    assert not image.unknown, f"files of unknown kinds: {image.unknown}"
    print(f"        {len(model.writes)} writes of {len(model.serials)} keys; {image.summary()}")
    return image, older, model


# ---- what a server says of it ----

def read_large(server, key, expected):
    """(is known, value). What came before a reset has to be right as far as it goes."""
    with server.client() as client:
        try:
            assert client.call(hello())[0] == OK
            client.send(get(key))
            return understand(*client.answer())
        except (EOFError, ConnectionResetError):
            begin = bytes(client.buffer)
            assert expected is not None or not begin, f"{key!r} was deleted, and bytes of it came"
            if len(begin) >= 5 and begin[0] == OK:
                assert expected.startswith(begin[5:]), f"{key!r}: wrong bytes before a reset"
            return False, None


def understand(status, value):
    if status == OK:
        return True, value
    assert status in (NOT_FOUND, CORRUPT, ERROR), status
    return status == NOT_FOUND, None


def read_all(server, model):
    small = [key for key in model.serials if not key.startswith(b"large")] + ABSENT
    answers = {}
    with server.client() as client:
        assert client.call(hello())[0] == OK
        for first in range(0, len(small), 100):
            some = small[first:first + 100]
            client.send(b"".join(map(get, some)))
            for key in some:
                answers[key] = understand(*client.answer())
    for key in model.serials:
        if key.startswith(b"large"):
            answers[key] = read_large(server, key, model.newest(key))
    return answers


def describe(model, key, value):
    serials = model.serials.get(key, [])
    known = [serial for serial in serials if model.writes[serial][1] == value]
    return (f"{key!r}: {'not found' if value is None else value[:30]!r}, which is write "
            f"{known or 'of nobody'}, not {serials[-1:]} of {len(model.writes)}")


def judge(server, model, floor):
    """Reads everything; how many keys answer with an error."""
    answers = read_all(server, model)
    wrong = [(key, value) for key, (is_known, value) in answers.items()
             if is_known and value != model.newest(key)]
    if wrong and not (floor < len(model.writes) and model.is_prefix(answers, floor)):
        raise AssertionError(f"{len(wrong)} of {len(answers)} answers are wrong:\n" + "\n".join(
            describe(model, *pair) for pair in wrong[:8]))
    return sum(not is_known for is_known, _ in answers.values()), len(wrong)


def write_on(server, chance, model):
    """What is written after the damage is there, after a kill too."""
    written = {}
    with server.client() as client:
        assert client.call(hello())[0] == OK
        for key in chance.sample(sorted(model.serials), 30) + [b"after it all"]:
            value = None if chance.random() < 0.3 else b"after: " + key
            if client.call(delete(key) if value is None else set_(key, value))[0] == OK:
                written[key] = value
    return written


def expect_written(server, written):
    with server.client() as client:
        assert client.call(hello())[0] == OK
        for key, value in written.items():
            status, found = client.call(get(key))
            good = (status, found) == (OK, value) if value is not None else status == NOT_FOUND
            assert good, f"{key!r} was written after the damage: {status}, {found[:40]!r}"


# ---- one round ----

class Round:
    def __init__(self, context, image, model, mutation, number, clean):
        self.context, self.model, self.mutation, self.number = context, model, mutation, number
        self.directory = context.directory / f"round{number}"
        copy(image.directory, self.directory)
        if mutation:
            mutation.apply(self.directory)
        self.floor = len(model.writes)
        if mutation and not clean and mutation.kind == "log":
            at_end = mutation.is_cut and image.newest_log() in mutation.touched
            self.floor = model.session if at_end else self.floor - UNPROVED

    def start(self):
        """The server, or None when it refuses with a reason."""
        server = Server(self.context.binary, self.directory, (*FLAGS, self.context.shards),
                        wait=False)
        self.server = server
        try:
            server.wait_ready()
            return server
        except AssertionError:
            code = server.wait_exit(5)
        errors = "\n".join(line for line in server.lines if re.search(r"\bERROR\b", line))
        assert code > 0, f"died ({code}):\n" + server.log()
        names = [name.rpartition("/")[2] for name in self.mutation.touched]
        if self.mutation.what == "delete":
            names.append(str(self.directory))
        assert any(name in errors for name in names), (
            f"refuses to start and names none of {names}:\n" + server.log())
        return None

    def run(self):
        """'refused', or how many keys answered with an error, and with an earlier state."""
        server = self.start()
        if server is None:
            return "refused", 0
        result = judge(server, self.model, self.floor)
        if self.number % 3 == 0:
            chance = random.Random(self.number)
            written = write_on(server, chance, self.model)
            server.kill()
            server.start()
            expect_written(server, written)
            after = Model()
            after.writes, after.session = list(self.model.writes), self.model.session
            after.serials = {k: v for k, v in self.model.serials.items() if k not in written}
            judge(server, after, self.floor)
        server.finish()
        return result


def try_round(context, image, model, mutation, number, clean):
    """(outcome, None) or (None, what went wrong)."""
    round_ = Round(context, image, model, mutation, number, clean)
    try:
        return round_.run(), None
    except (AssertionError, OSError, EOFError, struct.error) as error:
        return None, (f"round {number}: {mutation}: {type(error).__name__}: {error}\n--- its log:\n" +
                      "\n".join(round_.server.lines))
    finally:
        if round_.server.process.poll() is None:
            round_.server.process.kill()
            round_.server.process.wait()
        shutil.rmtree(round_.directory, ignore_errors=True)


def count_of(context):
    return (context.options.rounds + 1) // 2 if "asan" not in str(context.binary) else 8


def mutate(context, clean, whole_file, **more):
    image, older, model = build(context, clean, **more)
    try_all(context, image, model, clean, [
        Mutation(random.Random(context.options.seed * 1000003 + number), image, older, whole_file)
        for number in range(1, count_of(context) + 1)])


class Chosen(Mutation):
    """This one, or another one of the same block that fits."""

    def __init__(self, chance, image, place, what):
        self.chance, self.image, self.older = chance, image, []
        self.kind, self.name, self.block = place
        self.touched, self.is_cut, self.what = [self.name], what == "truncate", what
        self.steps = getattr(self, what)() or self.zero()


def each_block(image):
    """Every block that holds anything, and every way to damage it."""
    return [((kind, name, block), what) for kind, files in image.files.items()
            for name, blocks in files.items() for block in blocks
            for what in ("flip", "swap", "zero", "truncate")]


def try_all(context, image, model, clean, mutations):
    count, mutations = len(mutations), [None, *mutations]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(
            lambda pair: try_round(context, image, model, pair[1], pair[0], clean),
            enumerate(mutations)))
    failures = [failure for _, failure in results if failure]
    report(results[1:], mutations[1:])
    assert not failures, "\n".join([f"{len(failures)} of {count} mutations:",
                                    *(failure.splitlines()[0] for failure in failures), "",
                                    *failures[:4]])
    assert results[0][0] == (0, 0), f"without any damage: {results[0]}"


def report(results, mutations):
    outcomes = [outcome for outcome, _ in results if outcome]
    refused = sum(outcome[0] == "refused" for outcome in outcomes)
    errors = sorted(outcome[0] for outcome in outcomes if outcome[0] not in ("refused", 0))
    earlier = sum(outcome[1] > 0 for outcome in outcomes)
    print(f"        {len(mutations)} mutations: {len(outcomes) - refused - len(errors)} without "
          f"consequence, {refused} refused at the start, {len(errors)} with keys that answer with an "
          f"error (median {errors[len(errors) // 2] if errors else 0} keys), {earlier} with the "
          f"newest writes gone")


@test(seconds=1800)
def a_block_of_a_closed_directory(context):
    """Half of --rounds of them. Nothing may be missing."""
    mutate(context, clean=True, whole_file=False)


@test(slow=True, seconds=7200)
def each_block_of_a_closed_directory(context):
    """Flipped, swapped, zeroed, the file cut off there: as many of all of them as twice --rounds,
    evenly over the directory; with another --seed others. With enough rounds it is all of them."""
    image, _, model = build(context, clean=True)
    places = each_block(image)
    step = max(1, len(places) // max(1, 4 * count_of(context))) | 1  # odd: every way comes
    print(f"        every {step}th of {len(places)}")
    try_all(context, image, model, True, [
        Chosen(random.Random(number), image, *places[number])
        for number in range(context.options.seed % step, len(places), step)])


@test(slow=True, seconds=1800)
def a_block_of_a_killed_directory(context):
    mutate(context, clean=False, whole_file=False)


@test(slow=True, seconds=1800)
def a_file_of_a_closed_directory(context):
    """Cut short, gone, an older one, another one in its place, there twice."""
    mutate(context, clean=True, whole_file=True)


@test(seconds=1800)
def a_block_of_a_directory_of_three_shards(context):
    """Closed, so that no shard's log misses its end. It had other numbers of shards before."""
    mutate(context, clean=True, whole_file=False, shards=(3, 1, 2, 3))


@test(slow=True, seconds=1800)
def a_file_of_a_directory_of_three_shards(context):
    mutate(context, clean=True, whole_file=True, shards=(3, 1, 2, 3))


@test(slow=True, seconds=1800)
def a_file_of_a_killed_directory(context):
    mutate(context, clean=False, whole_file=True)
