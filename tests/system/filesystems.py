"""Directories on file systems that are not what it is made for: it serves and says once what is lost,
or refuses and says why."""
import re
import time

from disks import Disk, assert_holds, noise
from harness import MIB, test, xxh64

DISK_SIZE = 512 * MIB


def fill(server, model, round_):
    with server.client() as client:
        for number in range(100):
            key, value = b"k %d" % number, noise(number + 1000 * round_, 10 ** (number % 5))
            client.set(key, value)
            model[key] = value
        client.delete(b"k 7")
        model[b"k 7"] = None
        large = noise(round_, MIB - 100)
        client.set(b"large", large)
        model[b"large"] = large


def said(server, level, pattern):
    """The lines of that level that match, and not by the directory's name alone."""
    lines = [line.replace(str(server.directory), "DATA") for line in server.lines]
    return [line for line in lines
            if re.search(rf"\b{level}\b", line) and re.search(pattern, line)]


def expect_one_warning(server, name, what):
    found = said(server, "WARN", rf"\b{name}\b")
    assert len(found) == 1, f"one warning that names {name}, not {found}:\n" + server.log()
    assert re.search(what, found[0], re.IGNORECASE), f"it does not say what is lost: {found[0]}"


def serves_with_a_warning(context, kind, what):
    disk = Disk(context, kind, DISK_SIZE)
    server, model = context.server("-cache", "4", directory=disk.point / "data"), {}
    fill(server, model, 0)
    assert_holds(server, model, "at first")
    fill(server, model, 1)
    server.restart()
    assert_holds(server, model, "after a restart")
    fill(server, model, 2)
    server.kill()
    server.start()
    assert_holds(server, model, "after kill -9")
    expect_one_warning(server, kind, what)


@test()
def btrfs_is_served_with_a_warning(context):
    """It turns O_DIRECT into buffered writes, and copies each block that is overwritten."""
    serves_with_a_warning(context, "btrfs", r"O_DIRECT|page cache|copy.on.write|copies")


@test()
def tmpfs_is_served_with_a_warning(context):
    """What is in memory does not survive the machine, whatever -durability says."""
    serves_with_a_warning(context, "tmpfs", r"memory.*(lost|gone|reboot|power)|"
                                            r"(lost|gone|reboot|power).*memory")


@test()
def a_large_value_lies_in_the_file_that_its_key_names(context):
    """DATA/<2 hex of XXH64>/<16 hex of XXH64>-<24 hex of the version>, the value's bytes and zeros."""
    server = context.server()
    folders = {"%02x" % number for number in range(256)}
    assert {path.name for path in server.directory.iterdir() if re.fullmatch("[0-9a-f]{2}", path.name)
            } == folders
    with server.client() as client:
        for number in range(12):
            key, value = b"key %027d!" % number, noise(number, 300000 + number)
            client.set(key, value)
            name = f"{xxh64(key):016x}"
            (path,) = server.directory.glob(f"*/{name}-*")
            assert path.parent.name == name[:2] and re.fullmatch(name + "-[0-9a-f]{24}", path.name)
            content = path.read_bytes()
            assert content[:len(value)] == value and not any(content[len(value):])
            assert len(content) == -(-len(value) // 4096) * 4096
            client.set(key, b"small")  # the file goes with the value
            deadline = time.monotonic() + 10
            while path.exists():
                assert time.monotonic() < deadline, f"{path.name} is still there"
                time.sleep(0.02)


@test()
def ramfs_is_served_or_refused_with_the_reason(context):
    """It has no O_DIRECT, and cannot reserve space either."""
    disk = Disk(context, "ramfs", DISK_SIZE)
    server = context.server("-cache", "4", directory=disk.point / "data", wait=False)
    try:
        server.wait_ready()
    except AssertionError:
        assert server.wait_exit() > 0
        assert said(server, "ERROR", r"\bramfs\b.*(O_DIRECT|space)"), (
            "which file system it is, and what it lacks, is not said:\n" + server.log())
        return
    model = {}
    fill(server, model, 0)
    server.restart()
    assert_holds(server, model, "after a restart")
    expect_one_warning(server, "ramfs", r"O_DIRECT|page cache|memory")


@test()
def ext4_and_xfs_are_served_without_one(context):
    for kind in ("ext4", "xfs"):
        disk = Disk(context, kind, DISK_SIZE)
        server = context.server("-cache", "4", directory=disk.point / "data")
        assert not said(server, "WARN", r"\bext4\b|\bxfs\b|file system"), server.log()
        assert server.terminate() == 0
        disk.unmount()
