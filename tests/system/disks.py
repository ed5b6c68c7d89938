"""Small file systems of a test's own, in a file on a loop device. Only root can have them."""
import fcntl
import os
import random
import shutil
import struct
import subprocess

from harness import KIB, MIB, NOT_FOUND, OK, Skip, get, hello

MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-m", "0"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}
IN_MEMORY = ("tmpfs", "ramfs")

# include/uapi/linux/fs.h (XFS_IOC_GOINGDOWN, EXT4_IOC_SHUTDOWN): _IOR('X', 125, __u32).
GOING_DOWN = 2 << 30 | 4 << 16 | ord("X") << 8 | 125
SYNC_ALL, FLUSH_THE_JOURNAL, FLUSH_NOTHING = 0, 1, 2


def command(*words):
    """Skips the test when the machine does not let it."""
    if shutil.which(words[0]) is None:
        raise Skip(f"{words[0]} is not installed")
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    if result.returncode:
        raise Skip(f"{' '.join(words)}: {result.stderr.strip() or result.returncode}")


def unmount_below(directory):
    """Whatever a test has left, also one that was killed. os.path.ismount would say no to a file
    system that is down."""
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        points = [line.split()[1] for line in mounts]
    for point in points:
        if point.startswith(f"{directory}/"):
            subprocess.run(["umount", "-l", point], check=False)


class Disk:
    """Mounted at `point`; goes away with the test's context, whatever has happened to it."""

    def __init__(self, context, kind, size, options=""):
        if os.geteuid() != 0:
            raise Skip("only root can mount")
        self.kind, self.size, self.options = kind, size, options
        self.image = context.directory / f"{kind}.image"
        self.point = context.directory / f"{kind}.mount"
        self.point.mkdir()
        context.stack.callback(unmount_below, context.directory)
        if kind not in IN_MEMORY:
            with open(self.image, "wb") as file:
                file.truncate(size)
            command(*MAKE[kind], str(self.image))
        command(*self.mount_words())

    def mount_words(self):
        if self.kind in IN_MEMORY:
            options, device = f"size={self.size}", self.kind
        else:
            options, device = "loop" + self.options, str(self.image)
        return ["mount", "-t", self.kind, "-o", options, device, str(self.point)]

    def remount(self):
        """Also of one that was shut down: what it then has is what was on the device."""
        self.unmount()
        subprocess.run(self.mount_words(), check=True)

    def unmount(self):
        subprocess.run(["umount", str(self.point)], check=True)

    def shut_down(self, how):
        """The file system stops as it is: what it has not written, its journal included, is lost."""
        handle = os.open(self.point, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, GOING_DOWN, struct.pack("I", how))
        except OSError as error:
            raise Skip(f"{self.kind} knows no shutdown: {error}") from None
        finally:
            os.close(handle)

    def free(self):
        return shutil.disk_usage(self.point).free


class Filler:
    """A file of somebody else that takes the space away."""

    def __init__(self, disk):
        self.path = disk.point / "filler"
        with open(self.path, "wb", buffering=0) as file:
            size, step = 0, disk.free()
            while step >= 4 * KIB:  # what free() says is not always to be had in one piece
                try:
                    os.posix_fallocate(file.fileno(), size, step)
                    size += step
                except OSError:
                    step //= 2
        self.size = size

    def remove(self):
        self.path.unlink()


# ---- what a client should find ----

NOISE = random.Random(7).randbytes(4 * MIB)


def noise(number, size):
    """Bytes that tell their number and that nobody can compress."""
    start = number * 7919 % (len(NOISE) - MIB)
    return (struct.pack("<QI", number, size) + NOISE[start:start + size])[:size]


def compare(server, model):
    """`model`: key to value, None for deleted. Returns what is wrong, in words."""
    problems = []
    with server.client(timeout=60) as client:
        assert client.call(hello())[0] == OK
        keys = list(model)
        for first in range(0, len(keys), 50):
            some = keys[first:first + 50]
            client.send(b"".join(get(key) for key in some))
            for key in some:
                status, value = client.answer()
                wanted = (NOT_FOUND,) if model[key] is None else (OK, model[key])
                if (status, value)[:len(wanted)] != wanted:
                    problems.append(f"{key!r}: status {status}, {len(value)} bytes {value[:40]!r}, "
                                    f"not {wanted[0]}, {(model[key] or b'')[:40]!r}")
    return problems


def assert_holds(server, model, when):
    problems = compare(server, model)
    assert not problems, (f"{when}: {len(problems)} of {len(model)} keys are wrong:\n" +
                          "\n".join(problems[:10]))
