"""Images of a data directory, and what damage may do to them: one mutation of one block or one file,
as a device, a file system or an operator might leave it behind."""
import os
import re
import shutil
import struct
import subprocess

from harness import KIB
from lifecycle import crc32c

BLOCK = 4096
STATE = r"(shard-[0-9]+/)?"  # shard 0's is in the directory itself
KINDS = [
    ("log", STATE + r"log/wal-[0-9a-f]{8}"),
    ("segment", r"[0-9a-f]{2}/seg-[0-9a-f]{16}"),
    ("value", r"[0-9a-f]{2}/[0-9a-f]{16}-[0-9a-f]{24}"),
    ("manifest", STATE + r"manifest-[0-9]+"),
    ("checkpoint", STATE + r"checkpoint-[0-9a-f]{16}"),
    ("superblock", STATE + r"superblock"),
]
# What holds no data: the reserve, what shards note of each other, and what was cut short and is cleared away at the next start.
WITHOUT_DATA = r".*\.(tmp|new)|" + STATE + "(log/probe|reserve|reached)"
WEIGHTS = {"log": 5, "segment": 5, "value": 2, "manifest": 2, "checkpoint": 2, "superblock": 1}


def copy(source, target):
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-a", "--sparse=always", str(source), str(target)], check=True)


def kind_of(name):
    return next((kind for kind, pattern in KINDS if re.fullmatch(pattern, name)), None)


def blocks_of(path):
    """The numbers of its blocks that are not zero; holes are not read."""
    blocks = []
    with open(path, "rb", buffering=0) as file:
        handle, size, position = file.fileno(), os.path.getsize(path), 0
        while position < size:
            try:
                begin = os.lseek(handle, position, os.SEEK_DATA)
            except OSError:  # a hole up to the end
                break
            position = os.lseek(handle, begin, os.SEEK_HOLE)
            data = os.pread(handle, position - begin, begin)
            blocks += [(begin + offset) // BLOCK for offset in range(0, len(data), BLOCK)
                       if any(data[offset:offset + BLOCK])]
    return blocks


def shrink_log_files(directory, log_file_size):
    """Of a directory without a write in it: the next start makes log files of that size, so that a few
    megabytes fill many (docs/superblock.md), and as many shards as it wants. Returns the superblock
    as it was, of one shard."""
    path = directory / "superblock"
    before, after = (bytearray(path.read_bytes()) for _ in range(2))
    for place in range(0, len(after), BLOCK):
        struct.pack_into("<Q", after, place + 56, log_file_size)
        for image in (before, after):
            image[place + 272:place + 352] = bytes(80)  # what it says of logs, manifests and shards
            struct.pack_into("<I", image, place + 312, 1)
            struct.pack_into("<I", image, place + 8, crc32c(image[place + 12:place + BLOCK]))
    for entry in directory.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    path.write_bytes(after)
    return before


class Image:
    """A directory at rest: its files by kind, and which of their blocks hold anything."""

    def __init__(self, directory):
        self.directory = directory
        self.files, self.unknown = {}, []
        for path in sorted(directory.rglob("*")):
            name = str(path.relative_to(directory))
            if not path.is_file() or re.fullmatch(WITHOUT_DATA, name):
                continue
            kind = kind_of(name)
            if kind is None:
                self.unknown.append(name)
                continue
            blocks = blocks_of(path)
            if blocks:
                self.files.setdefault(kind, {})[name] = blocks

    def names(self, kind):
        return list(self.files.get(kind, ()))

    def newest_log(self):
        """The file that the log was in last: by its segment number (docs/formats.md)."""
        def number(name):
            with open(self.directory / name, "rb") as file:
                return int.from_bytes(file.read(BLOCK)[48:56], "little")
        return max(self.names("log"), key=number)

    def summary(self):
        return ", ".join(f"{len(files)} {kind} ({sum(map(len, files.values())) * BLOCK // KIB} KiB)"
                         for kind, files in self.files.items())


class Mutation:
    """Chosen by `chance` for a copy of `image`: of one block, or of a whole file. `older`: images of
    earlier moments."""

    def __init__(self, chance, image, older, whole_file):
        self.chance, self.image, self.older = chance, image, older
        makers = (self.truncate, self.stale_file, self.misplace, self.delete,
                  self.duplicate) if whole_file else (
            self.flip, self.flip, self.swap, self.zero, self.stale_block)
        for _ in range(100):
            kinds = list(image.files)
            self.kind = chance.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]
            self.name = self.choose_name()
            self.block = self.choose_block(image.files[self.kind][self.name])
            self.touched, self.is_cut = [self.name], False  # whether the end of a file may be gone
            maker = chance.choice(makers)
            self.what, self.steps = maker.__name__, maker()
            if self.steps:
                return
        raise AssertionError("no mutation fits this image")

    def __str__(self):
        return f"{self.what} {', '.join(self.touched)} (block {self.block})"

    def choose_name(self):
        files = self.image.files[self.kind]
        names = list(files)
        return self.chance.choices(names, [len(files[name]) ** 0.5 for name in names])[0]

    def choose_block(self, blocks):
        kind = self.chance.random()
        if kind < 0.15:
            return blocks[0]
        if kind < 0.35:
            return blocks[-1 - self.chance.randrange(min(3, len(blocks)))]
        return self.chance.choice(blocks)

    def apply(self, directory):
        for step in self.steps:
            step(directory)

    # ---- what it does: steps on a directory, or None when it does not fit ----

    def read(self, image, name, block):
        with open(image.directory / name, "rb") as file:
            file.seek(block * BLOCK)
            return file.read(BLOCK)

    def write(self, name, block, data):
        def step(directory):
            with open(directory / name, "r+b") as file:
                file.seek(block * BLOCK)
                file.write(data)
        return step

    def flip(self):
        data = bytearray(self.read(self.image, self.name, self.block))
        places = [i for i, byte in enumerate(data) if byte] if self.chance.random() < 0.7 else range(
            len(data))
        data[self.chance.choice(places)] ^= 1 << self.chance.randrange(8)
        return [self.write(self.name, self.block, data)]

    def zero(self):
        size = len(self.read(self.image, self.name, self.block))
        return [self.write(self.name, self.block, bytes(size))]

    def swap(self):
        other = self.name if self.chance.random() < 0.5 else self.chance.choice(
            self.image.names(self.kind))
        other_block = self.choose_block(self.image.files[self.kind][other])
        mine = self.read(self.image, self.name, self.block)
        theirs = self.read(self.image, other, other_block)
        if mine == theirs or len(mine) != len(theirs):
            return None
        self.touched.append(other)
        return [self.write(self.name, self.block, theirs), self.write(other, other_block, mine)]

    def truncate(self):
        size = self.block * BLOCK + (self.chance.randrange(BLOCK) if self.chance.random() < 0.3 else 0)
        if size >= (self.image.directory / self.name).stat().st_size:
            return None
        self.is_cut = True
        return [lambda directory: os.truncate(directory / self.name, size)]

    def stale_block(self):
        now = self.read(self.image, self.name, self.block)
        found = []
        for older in self.older:
            if (older.directory / self.name).exists():
                data = self.read(older, self.name, self.block)
                if data != now and len(data) == len(now):
                    found.append(data)
        return [self.write(self.name, self.block, self.chance.choice(found))] if found else None

    def replace(self, source):
        def step(directory):
            (directory / self.name).unlink()
            subprocess.run(["cp", "--sparse=always", str(source), str(directory / self.name)],
                           check=True)
        self.is_cut = True
        return [step]

    def stale_file(self):
        found = [older.directory / self.name for older in self.older
                 if (older.directory / self.name).exists() and
                 older.files[self.kind].get(self.name) != self.image.files[self.kind][self.name]]
        return self.replace(self.chance.choice(found)) if found else None

    def misplace(self):
        others = [name for name in self.image.names(self.kind) if name != self.name]
        if not others:
            return None
        other = self.chance.choice(others)
        self.touched.append(other)
        return self.replace(self.image.directory / other)

    def delete(self):
        self.is_cut = True
        return [lambda directory: (directory / self.name).unlink()]

    def duplicate(self):
        other = self.chance.choice(self.other_names())
        if (self.image.directory / other).exists():
            return None
        self.touched.append(other)

        def step(directory):
            (directory / other).parent.mkdir(exist_ok=True)
            subprocess.run(["cp", "--sparse=always", str(directory / self.name),
                            str(directory / other)], check=True)
        return [step]

    def other_names(self):
        folder, slash, name = self.name.rpartition("/")
        elsewhere = f"{(int(folder, 16) + 1) % 256:02x}" if self.kind in ("segment", "value") else ""
        if self.kind == "log":
            return [f"{folder}/wal-{int(name[4:], 16) + more:08x}" for more in (1, 16, 4096)]
        if self.kind == "segment":
            more = f"seg-{int(name[4:], 16) + self.chance.choice((1, 4096)):016x}"
            return [f"{folder}/{more}", f"{elsewhere}/{name}", f"{elsewhere}/{more}"]
        if self.kind == "value":
            hash_, _, version = name.partition("-")
            later = f"{(int(version, 16) + 1) % (1 << 96):024x}"
            other_hash = f"{int(hash_, 16) ^ 1:016x}"
            return [f"{folder}/{hash_}-{later}", f"{folder}/{other_hash}-{version}",
                    f"{elsewhere}/{name}"]
        if self.kind == "checkpoint":
            number = int(name.partition("-")[2], 16)
            return [f"{folder}{slash}checkpoint-{number + more:016x}" for more in (1, 4096)]
        others = {"manifest": ["manifest-1", "manifest-7"], "superblock": ["superblock.old"]}
        return [f"{folder}{slash}{other}" for other in others[self.kind] if other != name]
