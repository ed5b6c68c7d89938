"""minivault-admin: what a server wrote is sound and is what it dumps; one wrong bit is found where it
is; nothing is ever changed; and what cannot be looked at is refused."""
import atexit
import base64
import fcntl
import hashlib
import json
import os
import random
import re
import shutil
import struct
import subprocess
import time

import harness
from harness import KIB, MIB, OK, Server, delete, set_, test, zstd_frame
from images import BLOCK, copy, shrink_log_files
from lifecycle import crc32c
from mutation import settle

SOUND, DAMAGED, USAGE, CANNOT = 0, 1, 2, 3
SEGMENT_SIZE = 2 * MIB
KEYS, OVERWRITTEN, DELETED = 60000, 10000, 300
CHUNK_HEADER = 128
FINDING = re.compile(r"(?P<file>.+?): (?P<offset>\d+): (?P<note>note: )?(?P<what>.*)")


class Image:
    """A directory that a server has closed, and what is in it: key -> value, None: deleted."""

    def __init__(self, options, directory):
        self.directory, self.model, self.writes = directory, {}, 0
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        self.data = directory / "data"
        server = Server(options.binary, self.data, ("-cache", "32", "-shards", "1"))
        assert server.terminate() == 0
        shrink_log_files(self.data, SEGMENT_SIZE)
        for session in (self.write_many, self.write_kinds):
            server.start()
            with server.client(timeout=60) as client:
                session(client, random.Random(options.seed))
            settle(self.data)
            assert server.terminate() == 0, server.log()

    def write(self, client, pairs):
        for first in range(0, len(pairs), 500):
            some = pairs[first:first + 500]
            client.send(b"".join(delete(key) if value is None else set_(key, value)
                                 for key, value in some))
            for _ in some:
                assert client.answer() == (OK, b"")
        self.model.update(pairs)
        self.writes += len(pairs)

    def write_many(self, client, chance):
        text = b"%d " * 60
        keys = [b"key %d" % number for number in range(KEYS)]
        self.write(client, [(key, (text % ((chance.randrange(KEYS),) * 60))[:300]) for key in keys])
        self.write(client, [(key, b"again") for key in chance.sample(keys, OVERWRITTEN)])
        self.write(client, [(key, None) for key in chance.sample(keys, DELETED)])

    def write_kinds(self, client, chance):
        """The kinds of keys and values that there are."""
        self.write(client, [
            (b"empty", b""), (b"\xff\x00 not text", b"\x80\x81"), (b'quote " \\ \n\x7f', b"\t\"\x01"),
            ("schlüssel €𐍈".encode(), "wert €".encode()), (b"long " * 13000, b"of a long key"),
            (b"surrogate \xed\xa0\x80", b"\xc0\xaf"),
            *((b"large %d" % number, chance.randbytes(256 * KIB + number * 70001))
              for number in range(5)),
            (b"large 3", chance.randbytes(MIB + 1)), (b"large 4", None)])
        value = b"compressed by its client, " * 1000
        assert client.call(set_(b"frame", zstd_frame(value, content_size=len(value)), 1)) == (OK, b"")
        self.model[b"frame"] = value
        self.writes += 1

    def alive(self):
        return {key: value for key, value in self.model.items() if value is not None}


IMAGES = {}


def take_image(context):
    """A copy of the image, which is made once in each process."""
    if "image" not in IMAGES:
        directory = harness.ROOT / "build" / "system" / f"admin.image.{os.getpid()}"
        IMAGES["image"] = Image(context.options, directory)
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
    copy(IMAGES["image"].data, context.directory / "data")
    return IMAGES["image"], context.directory / "data"


def admin(context, *arguments):
    """(exit code, stdout, stderr)."""
    binary = context.binary.with_name("minivault-admin")
    result = subprocess.run([str(binary), *map(str, arguments)], stdin=subprocess.DEVNULL,
                            capture_output=True, check=False, timeout=100)
    error = result.stderr.decode("utf-8", "replace")
    assert "Sanitizer" not in error and "runtime error:" not in error, error[-6000:]
    return result.returncode, result.stdout, error


def check(context, data):
    """(exit code, damage, notes) of findings (file, offset, what)."""
    code, output, _ = admin(context, "check", data)
    lines = output.decode().splitlines()
    found = [FINDING.fullmatch(line) for line in lines if not line.startswith("summary: ")]
    assert all(found), lines
    damage = [(m["file"], int(m["offset"]), m["what"]) for m in found if not m["note"]]
    notes = [(m["file"], int(m["offset"]), m["what"]) for m in found if m["note"]]
    if code in (SOUND, DAMAGED):
        verdict = "sound" if code == SOUND else "damaged"
        assert lines[-1].startswith(f"summary: {verdict}, {len(damage)} damaged places, "
                                    f"{len(notes)} notes;"), lines[-1]
    return code, damage, notes


def dump(context, data, *flags, code=SOUND):
    result, output, error = admin(context, "dump", *flags, data)
    assert result == code, (result, error)
    return [json.loads(line) for line in output.splitlines()]


def stat(context, data):
    code, output, error = admin(context, "stat", data)
    assert code == SOUND, error
    return dict(line.split(": ", 1) for line in output.decode().splitlines())


def bytes_of(line, name):
    if name in line:
        return line[name].encode()
    return base64.b64decode(line[name + "_base64"], validate=True)


def hashes(data):
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(data.rglob("*")) if path.is_file()}


def flip(path, offset, bit=0):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


def seal(path, offset, changes):
    """Changes bytes of the block at `offset` and makes its checksum right."""
    block = bytearray(path.read_bytes()[offset:offset + BLOCK])
    for place, change in changes.items():
        block[place:place + len(change)] = change
    struct.pack_into("<I", block, 8, crc32c(bytes(block[12:])))
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(block)


def files(data, kind):
    patterns = {"segment": "??/seg-*", "value": "??/*-*", "checkpoint": "checkpoint-*",
                "log": "log/wal-*"}
    return sorted(str(path.relative_to(data)) for path in data.glob(patterns[kind])
                  if kind != "value" or not path.name.startswith("seg-"))


# ---- sound directories ----

@test(slow=True)
def what_a_server_wrote_is_sound_and_stays_as_it_is(context):
    image, data = take_image(context)
    before = hashes(data)
    assert files(data, "segment") and files(data, "checkpoint") and files(data, "value")
    assert check(context, data)[:2] == (SOUND, [])
    dump(context, data)
    dump(context, data, "--all", "--values")
    stat(context, data)
    assert hashes(data) == before
    code, output, error = admin(context, "check", "--quiet", data)
    assert (code, error) == (SOUND, "")
    assert f" {len(image.alive())} keys, " in output.decode()


@test()
def a_dump_is_what_was_written(context):
    image, data = take_image(context)
    lines = dump(context, data, "--values")
    shown = {}
    for line in lines:
        key = bytes_of(line, "key")
        assert key not in shown, f"{key!r} twice"
        shown[key] = None if line["tombstone"] else bytes_of(line, "value")
        assert line["tombstone"] or line["size"] == len(shown[key])
    assert {key: value for key, value in shown.items() if value is not None} == image.alive()
    assert all(image.model[key] is None for key, value in shown.items() if value is None)
    bare = dump(context, data)
    assert not any("value" in line or "value_base64" in line for line in bare)
    assert [line["offset"] for line in bare] == [line["offset"] for line in lines]


@test()
def every_record_is_where_the_dump_says(context):
    image, data = take_image(context)
    lines = dump(context, data, "--all", "--values")
    assert len(image.model) < len(lines) <= 2 * image.writes
    newest, contents = {}, {}
    for line in lines:
        content = contents.setdefault(line["file"], (data / line["file"]).read_bytes())
        key = bytes_of(line, "key")
        at = line["offset"]
        (key_size,) = struct.unpack_from("<H", content, at + 8)
        origin, clock, position = struct.unpack_from("<IQQ", content, at + 20)
        assert content[at + 48:at + 48 + key_size] == key
        assert line["version"] == f"{clock}.{origin}" and line["position"] == position
        newest[key] = max(newest.get(key, (0, 0)), (clock, origin))
    for line in dump(context, data):
        assert tuple(map(int, line["version"].split("."))) == newest[bytes_of(line, "key")]


@test()
def the_numbers_are_right(context):
    image, data = take_image(context)
    numbers = stat(context, data)
    lines = dump(context, data)
    assert int(numbers["keys"]) == len(image.alive())
    assert int(numbers["tombstones"]) == sum(line["tombstone"] for line in lines)
    for kind, name in (("segment", "segments"), ("value", "values"), ("log", "log"),
                       ("checkpoint", "checkpoints")):
        sizes = [(data / file).stat().st_size for file in files(data, kind)]
        assert int(numbers[f"files.{name}.count"]) == len(sizes), kind
        assert int(numbers[f"files.{name}.bytes"]) == sum(sizes), kind
    assert numbers["files.others.count"] == "0" and numbers["values.orphans"] == "0"
    assert int(numbers["space.bytes"]) == sum(path.stat().st_size for path in data.rglob("*")
                                              if path.is_file())
    assert int(numbers["values.live_files"]) == len(files(data, "value")) == 4
    in_segments = sum(1 for line in lines if "seg-" in line["file"])
    assert 0 < float(numbers["segments.live_share"]) < 1 and in_segments > 0
    assert int(numbers["segments.live_bytes"]) >= in_segments * 48
    counted = sum(int(value) for name, value in numbers.items() if "with_live_percent" in name)
    assert counted == int(numbers["segments.counted"]) == len(files(data, "segment"))
    assert float(numbers["space.amplification"]) > 1
    assert 0 < int(numbers["checkpoint.slots"]) <= len(lines)
    assert int(numbers["checkpoint.age_s"]) < 3600
    assert int(numbers["log.last_position"]) == max(line["position"] for line in lines) == image.writes


@test()
def a_killed_server_leaves_a_sound_directory(context):
    server = context.server("-cache", "32")
    filler = random.Random(3).randbytes(3000)
    acknowledged = 0
    with server.client() as client:
        client.send(b"".join(set_(b"%d" % number, filler[:number % 3000]) for number in range(3000)))
        for acknowledged in range(2000):
            assert client.answer() == (OK, b"")
        server.kill()
    data = server.directory
    code, damage, _ = check(context, data)
    assert (code, damage) == (SOUND, [])
    lines = dump(context, data, "--values")
    assert acknowledged < len(lines) <= 3000
    for line in lines:
        number = int(bytes_of(line, "key"))
        assert bytes_of(line, "value") == filler[:number % 3000]
    assert stat(context, data)["directory.closed"] == "no"
    server.start()


# ---- one wrong bit ----

def expect(context, data, name, offset, upto=None):
    """Damage in this file alone, at this offset, or within [.., upto)."""
    code, damage, _ = check(context, data)
    assert code == DAMAGED and damage, (name, offset, code)
    assert all(file == name for file, _, _ in damage), (name, offset, damage)
    places = [place for _, place, _ in damage]
    good = places == [offset] if upto is None else any(
        place <= offset < int(re.search(r" up to (\d+)", what)[1])
        for _, place, what in damage if " up to " in what)
    assert good, (name, offset, damage)


def expect_flip(context, data, name, place, offset, upto=None):
    """A bit at `place` is found as damage at `offset`."""
    flip(data / name, place)
    expect(context, data, name, offset, upto)
    flip(data / name, place)


def chunk_at(content, offset):
    """(records, bytes of the chunk)."""
    assert content[offset:offset + 8] == b"mvCHUNK1"
    (records,) = struct.unpack_from("<I", content, offset + 24)
    (size,) = struct.unpack_from("<I", content, offset + 64)
    return records, -(-(CHUNK_HEADER + 24 * records + size) // BLOCK) * BLOCK


@test(seconds=240)
def a_wrong_bit_in_a_segment_is_found(context):
    _, data = take_image(context)
    in_segments = [line for line in dump(context, data, "--all") if "seg-" in line["file"]]
    line = random.Random(1).choice(in_segments)
    name = line["file"]
    content = (data / name).read_bytes()
    expect_flip(context, data, name, 40, 0)
    expect_flip(context, data, name, BLOCK + 60, BLOCK, BLOCK + chunk_at(content, BLOCK)[1])
    expect_flip(context, data, name, BLOCK + CHUNK_HEADER + 5, BLOCK + CHUNK_HEADER)
    for place in (0, 8, 30, 48, 50):
        expect_flip(context, data, name, line["offset"] + place, line["offset"])
    assert check(context, data)[0] == SOUND


@test()
def the_rest_of_a_damaged_segment_is_still_shown(context):
    _, data = take_image(context)
    before = dump(context, data, "--all")
    name = files(data, "segment")[0]
    flip(data / name, BLOCK + CHUNK_HEADER + 5)
    assert dump(context, data, "--all", code=DAMAGED) == before
    line = next(line for line in before if line["file"] == name)
    flip(data / name, line["offset"] + 50)
    known = {(line["file"], line["offset"]): line for line in before}
    after = dump(context, data, "--all", code=DAMAGED)
    records, _ = chunk_at((data / name).read_bytes(), BLOCK)
    assert 0 < len(before) - len(after) <= records
    assert all(known[line["file"], line["offset"]] == line for line in after)


@test(seconds=240)
def a_wrong_bit_in_the_log_is_found(context):
    _, data = take_image(context)
    in_log = [line for line in dump(context, data, "--all") if line["file"].startswith("log/")]
    first = min(in_log, key=lambda line: line["position"])
    middle = sorted(in_log, key=lambda line: line["position"])[len(in_log) // 2]
    for line in (first, middle):
        for place in (0, 12, 49):
            expect_flip(context, data, line["file"], line["offset"] + place, line["offset"],
                        line["offset"] + 50)
    expect_flip(context, data, first["file"], 2 * BLOCK + 9, 2 * BLOCK, 2 * BLOCK + 10)
    expect_flip(context, data, first["file"], 50, 0)
    assert check(context, data)[0] == SOUND


@test(seconds=240)
def a_wrong_bit_in_a_value_file_is_found(context):
    image, data = take_image(context)
    line = next(line for line in dump(context, data) if line.get("key") == "large 3")
    name, size = line["value_file"], len(image.model[b"large 3"])
    for place in (0, 65535, 65536, 700000, size - 1):
        expect_flip(context, data, name, place, place // 65536 * 65536)
    flip(data / name, 700000)
    lines = dump(context, data, "--values", code=DAMAGED)
    assert next(line for line in lines if line.get("key") == "large 3")["value_error"] == "damaged"
    assert sum("value_error" in line for line in lines) == 1
    (data / name).unlink()
    expect(context, data, name, 0)


def blocks_of_checkpoint(content):
    offset = 0
    while offset < len(content):
        assert content[offset:offset + 8] == b"mvCHKBLK"
        yield offset
        offset += struct.unpack_from("<I", content, offset + 52)[0]


@test(seconds=240)
def a_wrong_bit_in_the_other_files_is_found(context):
    _, data = take_image(context)
    for copy_offset in (0, BLOCK):
        expect_flip(context, data, "superblock", copy_offset + 100, copy_offset)
        expect_flip(context, data, "superblock", copy_offset + BLOCK - 1, copy_offset)
    expect_flip(context, data, "manifest-0", 100, 0)
    name = files(data, "checkpoint")[0]
    offsets = list(blocks_of_checkpoint((data / name).read_bytes()))
    for offset in (offsets[0], offsets[1], offsets[2], offsets[len(offsets) // 2], offsets[-1]):
        expect_flip(context, data, name, offset + 20, offset)
        expect_flip(context, data, name, offset + 65, offset)
    assert check(context, data)[0] == SOUND


def damage_block(chance, data, name):
    """What a device may do to a block. Returns what undoes it."""
    path = data / name
    before = path.read_bytes()
    place = chance.randrange(max(1, len(before) // BLOCK)) * BLOCK
    other = chance.randrange(max(1, len(before) // BLOCK)) * BLOCK
    block = bytearray(before[place:place + BLOCK])
    kind = chance.choice(("noise", "zeros", "other", "few", "cut"))
    if kind == "few":
        for _ in range(3):
            block[chance.randrange(len(block))] = chance.randrange(256)
    changed = {"noise": chance.randbytes(BLOCK), "zeros": bytes(BLOCK), "few": bytes(block),
               "other": before[other:other + BLOCK], "cut": b""}[kind]
    path.write_bytes(before[:place] + changed + (before[place + BLOCK:] if changed else b""))
    return kind, place, lambda: path.write_bytes(before)


@test(seconds=240)
def whatever_a_block_has_come_to_no_wrong_value_is_shown(context):
    _, data = take_image(context)
    known = {(bytes_of(line, "key"), line["version"]): line
             for line in dump(context, data, "--all", "--values")}
    for line in dump(context, data, "--values"):  # the values that have files of their own
        known[bytes_of(line, "key"), line["version"]] = line
    chance = random.Random(context.options.seed)
    for number in range(10 if "asan" in str(context.binary) else 20):
        kind = ("segment", "log", "value", "checkpoint", "manifest")[number % 5]
        name = "manifest-0" if kind == "manifest" else chance.choice(files(data, kind))
        how, place, undo = damage_block(chance, data, name)
        what = f"{how} at {place} of {name}"
        checked, dumped = (admin(context, *command, data) for command in
                           (("check",), ("dump", "--values")))
        assert checked[0] in (SOUND, DAMAGED, CANNOT), (what, checked)
        assert dumped[0] in (SOUND, DAMAGED, CANNOT), (what, dumped[0], dumped[2])
        assert admin(context, "stat", data)[0] in (SOUND, DAMAGED, CANNOT), what
        for line in map(json.loads, dumped[1].splitlines()):
            was = known[bytes_of(line, "key"), line["version"]]
            for field in ("tombstone", "size", "value", "value_base64"):
                assert "value_error" in line or line.get(field) == was.get(field), (what, line)
        undo()
    assert check(context, data)[0] == SOUND


# ---- files that are missing, cut off, or too many ----

@test()
def missing_and_short_files_are_damage(context):
    image, data = take_image(context)
    spare = context.directory / "spare"
    for name in (files(data, "segment")[3], "manifest-0", files(data, "value")[0]):
        os.rename(data / name, spare)
        expect(context, data, name, 0)
        os.rename(spare, data / name)
    name = files(data, "checkpoint")[0]
    os.rename(data / name, spare)
    expect(context, data, "manifest-0", 0)
    os.rename(spare, data / name)
    name = files(data, "segment")[5]
    content = (data / name).read_bytes()
    os.truncate(data / name, len(content) - BLOCK)
    code, damage, _ = check(context, data)
    assert code == DAMAGED and {file for file, _, _ in damage} == {name}, damage
    assert (len(content) - BLOCK) in [offset for _, offset, _ in damage], damage
    (data / name).write_bytes(content)
    assert check(context, data)[0] == SOUND
    assert image.alive()


@test()
def a_missing_file_of_the_log_is_damage(context):
    _, data = take_image(context)
    lines = sorted((line for line in dump(context, data, "--all") if line["file"].startswith("log/")),
                   key=lambda line: line["position"])
    spare = context.directory / "spare"
    for line in (lines[0], lines[len(lines) // 2], lines[-1]):
        os.rename(data / line["file"], spare)
        code, damage, _ = check(context, data)
        assert code == DAMAGED and all(name.startswith("log") for name, _, _ in damage), damage
        os.rename(spare, data / line["file"])
    assert check(context, data)[0] == SOUND


@test()
def an_older_log_and_an_older_manifest_are_damage(context):
    """Put back while the server was not shut down: the superblock says nothing, the files do."""
    server = context.server("-cache", "8")
    data, old, spare = (server.directory, *(context.directory / name for name in ("old", "spare")))
    assert server.terminate() == 0
    shutil.copy(data / "manifest-0", old)
    shrink_log_files(data, SEGMENT_SIZE)
    server.start()
    chance = random.Random(5)
    with server.client(timeout=60) as client:
        for first in range(0, 20000 * server.shard_count(), 500):
            client.send(b"".join(set_(b"%d" % number, chance.randbytes(1000))
                                 for number in range(first, first + 500)))
            for _ in range(500):
                assert client.answer() == (OK, b"")
    settle(data)
    server.kill()
    assert check(context, data)[:2] == (SOUND, [])
    os.rename(data / "manifest-0", spare)
    shutil.copy(old, data / "manifest-0")
    code, damage, _ = check(context, data)
    assert code == DAMAGED and any(name == "manifest-0" and "older than the log tells" in what
                                   for name, _, what in damage), damage
    os.rename(spare, data / "manifest-0")
    # The newest file with records, and with it the newest list: the others still tell.
    lines = [line for line in dump(context, data, "--all") if line["file"].startswith("log/")]
    newest = max(lines, key=lambda line: line["position"])["file"]
    os.rename(data / newest, spare)
    code, damage, _ = check(context, data)
    assert code == DAMAGED and any("had reached" in what for _, _, what in damage), damage
    os.rename(spare, data / newest)
    assert check(context, data)[:2] == (SOUND, [])


@test()
def another_shards_manifest_is_not_ours(context):
    _, data = take_image(context)
    shutil.copy(data / "manifest-0", data / "manifest-1")
    code, damage, notes = check(context, data)
    assert code == SOUND and damage == [], damage
    assert any(name == "manifest-1" and "not a file of ours" in what for name, _, what in notes)


@test()
def what_does_not_fit_to_the_superblock_is_damage(context):
    _, data = take_image(context)
    before = (data / "superblock").read_bytes()
    newer = max((0, BLOCK), key=lambda at: struct.unpack_from("<Q", before, at + 16))
    (log_last,) = struct.unpack_from("<Q", before, newer + 272)
    salt, blocks = struct.unpack_from("<QQ", before, newer + 288)
    for place, value, name in ((272, log_last + 1000, "log"), (288, salt ^ 1, "manifest-0"),
                               (296, blocks + 5, "manifest-0"), (296, 1, "manifest-0")):
        seal(data / "superblock", newer, {place: struct.pack("<Q", value)})
        expect(context, data, name, 0)
        (data / "superblock").write_bytes(before)


@test()
def what_nothing_names_is_a_note(context):
    _, data = take_image(context)
    before = check(context, data)[2]
    shutil.copy(data / files(data, "value")[0], data / "00" / ("0" * 16 + "-" + "1" * 24))
    shutil.copy(data / files(data, "segment")[0], data / "01" / ("seg-" + "f" * 16))
    shutil.copy(data / files(data, "checkpoint")[0], data / "checkpoint-00000000000000ff")
    shutil.copy(data / files(data, "checkpoint")[0], data / "checkpoint-0000000000000001.tmp")
    (data / "a\nfile").write_bytes(b"of somebody else")
    (data / "manifest-0.new").write_bytes(b"")
    code, damage, notes = check(context, data)
    assert (code, damage) == (SOUND, []) and len(notes) == len(before) + 6, notes
    assert "a\\x0afile" in [file for file, _, _ in notes]
    numbers = stat(context, data)
    assert numbers["values.orphans"] == "1" and numbers["files.others.count"] == "1"


# ---- what is refused ----

@test()
def a_directory_in_use_is_refused(context):
    server = context.server()
    server.assert_serves()
    for command in ("check", "dump", "stat"):
        code, output, error = admin(context, command, server.directory)
        assert (code, output) == (CANNOT, b"") and "is in use by a server" in error, (code, error)
    server.assert_serves()
    assert server.terminate() == 0
    with open(server.directory / "superblock", "rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert check(context, server.directory)[0] == SOUND  # another tool is no hindrance
        fcntl.flock(file, fcntl.LOCK_EX)
        assert admin(context, "check", server.directory)[0] == CANNOT


@test()
def what_is_no_directory_of_ours_is_refused(context):
    empty, foreign = context.directory / "empty", context.directory / "foreign"
    for path in (empty, foreign):
        path.mkdir()
    (foreign / "notes.txt").write_text("hello")
    for command in ("check", "dump", "stat"):
        for path, reason in ((empty, "no superblock"), (foreign, "no superblock"),
                             (context.directory / "absent", "No such file"),
                             (foreign / "notes.txt", "Not a directory")):
            code, output, error = admin(context, command, path)
            assert (code, output) == (CANNOT, b"") and reason in error, (code, error)
    (foreign / "superblock").write_bytes(bytes(2 * BLOCK))
    code, _, error = admin(context, "check", foreign)
    assert code == CANNOT and "never formatted" in error, error
    (foreign / "superblock").write_bytes(b"something" * 1000)
    code, _, error = admin(context, "check", foreign)
    assert code == CANNOT and "damaged in both copies" in error, error
    assert not list(empty.iterdir()), "something was created"


@test()
def a_new_directory_is_sound(context):
    server = context.server()
    assert server.terminate() == 0
    assert check(context, server.directory)[:2] == (SOUND, [])
    assert dump(context, server.directory) == []
    assert stat(context, server.directory)["keys"] == "0"


@test()
def other_formats_and_other_directories_are_refused(context):
    _, data = take_image(context)
    segment, log = files(data, "segment")[0], next(
        line["file"] for line in dump(context, data) if line["file"].startswith("log/"))
    # name, change of a block, what is said
    for name, changes, said in (
            ("superblock", {12: struct.pack("<I", 1)}, "format version 1"),
            ("superblock", {12: struct.pack("<I", 3)}, "format version 3"),
            ("superblock", {72: struct.pack("<I", 1 << 20)}, "something in it that is newer"),
            (segment, {12: struct.pack("<H", 2)}, "has format 2"),
            (segment, {16: struct.pack("<Q", 12345)}, "another data directory"),
            (log, {12: struct.pack("<H", 7)}, "has format 7"),
            (log, {16: struct.pack("<Q", 12345)}, "0000000000003039"),
            ("manifest-0", {12: struct.pack("<H", 2)}, "does not know"),
            ("manifest-0", {16: struct.pack("<Q", 12345)}, "0000000000003039")):
        before = (data / name).read_bytes()
        seal(data / name, 0, changes)
        code, output, error = admin(context, "check", data)
        assert code == CANNOT and said in output.decode() + error, (name, said, code, output, error)
        (data / name).write_bytes(before)
    assert check(context, data)[0] == SOUND


@test()
def wrong_usage_says_so(context):
    for arguments in ((), ("repair", "x"), ("check",), ("check", "a", "b"), ("check", "--all", "a"),
                      ("stat", "--values", "a"), ("dump", "--nothing", "a"), ("check", "")):
        code, output, error = admin(context, *arguments)
        assert (code, output) == (USAGE, b"") and "--help" in error, (arguments, code, error)
    code, output, _ = admin(context, "--help")
    assert code == SOUND and b"Exit codes:" in output and b"dump" in output
    code, output, _ = admin(context, "-version")
    assert code == SOUND and output.startswith(b"minivault-admin ")
    _, data = take_image(context)
    with open("/dev/full", "wb") as full:
        binary = str(context.binary.with_name("minivault-admin"))
        assert subprocess.run([binary, "dump", str(data)], stdout=full, stderr=subprocess.DEVNULL,
                              check=False).returncode == CANNOT


def slow_dump(context, data, *flags):
    """What stderr says of a dump whose reader begins only after 1.5 seconds."""
    binary = str(context.binary.with_name("minivault-admin"))
    with subprocess.Popen([binary, "dump", *flags, str(data)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        time.sleep(1.5)
        output, error = process.communicate()
        assert process.returncode == SOUND and len(output) > 2 * MIB
    return error.decode()


@test()
def what_takes_long_tells_how_far_it_is(context):
    _, data = take_image(context)
    lines = slow_dump(context, data).splitlines()
    assert lines and all(re.fullmatch(r"minivault-admin: dump: \d+ of \d+ MiB, at \S+", line)
                         for line in lines), lines
    assert slow_dump(context, data, "--quiet") == ""
