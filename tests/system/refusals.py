"""What stands in the way of a start, or of minivault-admin, is said with the file, the reason and what to
do about it."""
import os
import re
import shutil
import struct
import subprocess

from admin import admin
from disks import Disk, command
from harness import KIB, MIB, Skip, test
from lifecycle import crc32c
from verdicts import CANNOT, DAMAGED, NOBODY, SOUND, NobodysServer

BLOCK = 4096
BACKUP = "put back the one that was here, or restore the data directory from a backup"
ALLOW = "let the user that runs this process read and write it"


def needs_root():
    if os.geteuid() != 0:
        raise Skip("only root can be somebody else")


def filled(context, shards, directory=None):
    """A directory that a server has closed, with a log, a manifest and a value file."""
    server = context.server("-cache", "8", "-shards", str(shards), directory=directory)
    with server.client() as client:
        for number in range(50):
            client.set(b"key %d" % number, b"value")
        client.set(b"large", os.urandom(300 * KIB))
    assert server.terminate() == 0
    return server.directory


def expect_refusal(server, file, reason, remedy):
    """In one line."""
    assert server.wait_exit() == 1
    errors = [line for line in server.lines if " ERROR " in line]
    good = [line for line in errors if file in line and reason in line and remedy in line]
    assert good, f"no line with {file!r}, {reason!r} and {remedy!r}:\n" + server.log()


def refuses(context, directory, *expected, shards=1, kind=None):
    flags = ("-cache", "8", "-shards", str(shards))
    if kind is None:
        server = context.server(*flags, directory=directory, wait=False)
    else:
        server = kind(context.binary, directory, flags, wait=False)
    expect_refusal(server, *expected)


def hand_over(directory):
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", str(directory)], check=True)


def lock_up(path):
    os.chown(path, 0, 0)
    path.chmod(0o700 if path.is_dir() else 0o600)


# ---- the server ----

@test()
def a_shard_that_is_missing(context):
    directory = filled(context, 2)
    shutil.move(directory / "shard-1", context.directory / "elsewhere")
    refuses(context, directory, f"{directory}/shard-1/superblock", "No such file", BACKUP, shards=2)


@test(slow=True)
def files_and_folders_of_another_user(context):
    needs_root()
    whole = filled(context, 1)
    for name in ("superblock", "manifest-0", "log/wal-00000001", "log", "00"):
        directory = context.directory / "copy"
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(whole, directory)
        hand_over(directory)
        lock_up(directory / name)
        refuses(context, directory, f"{directory}/{name}", "Permission denied", ALLOW,
                kind=NobodysServer)


@test(slow=True)
def a_directory_that_may_not_be_written(context):
    needs_root()
    directory = context.directory / "roots"
    directory.mkdir()
    refuses(context, directory, f"{directory}/superblock", "Permission denied", ALLOW,
            kind=NobodysServer)
    refuses(context, directory / "new", f"{directory}/new", "Permission denied", ALLOW,
            kind=NobodysServer)
    hand_over(directory)
    parent = context.directory / "parent"
    parent.mkdir(mode=0o711)
    parent.chmod(0o711)
    shutil.move(directory, parent / "data")  # whose name cannot be made durable
    refuses(context, parent / "data", str(parent), "Permission denied", ALLOW, kind=NobodysServer)


@test()
def a_file_system_that_is_read_only(context):
    disk = Disk(context, "ext4", 300 * MIB)
    directory = filled(context, 1, disk.point / "data")
    command("mount", "-o", "remount,ro", str(disk.point))
    refuses(context, directory, f"{directory}/superblock", "Read-only file system",
            "mount the file system writable")


@test()
def something_else_in_the_place_of_a_file(context):
    directory = filled(context, 1)
    shutil.rmtree(directory / "log")
    (directory / "log").write_text("a file")
    refuses(context, directory, f"{directory}/log", "Not a directory", BACKUP)


@test()
def a_superblock_of_another_version(context):
    directory = filled(context, 1)
    content = bytearray((directory / "superblock").read_bytes())
    for at in (0, BLOCK):
        struct.pack_into("<I", content, at + 12, 9)
        struct.pack_into("<I", content, at + 8, crc32c(bytes(content[at + 12:at + BLOCK])))
    (directory / "superblock").write_bytes(content)
    refuses(context, directory, str(directory), "format version 9", "use the release that wrote it")


@test()
def a_manifest_that_is_missing(context):
    """Without a segment: the log tells that it was there. With segments and without a log: these do, at
    the second start as at the first."""
    directory = filled(context, 1)
    (directory / "manifest-0").unlink()
    for _ in range(2):
        refuses(context, directory, f"{directory}/manifest-0", "it is missing", "-accept-loss")
        assert not (directory / "manifest-0").exists()
    server = context.server("-cache", "8", "-shards", "1", directory=context.directory / "killed")
    server.kill()
    directory = server.directory
    (directory / "manifest-0").unlink()
    shutil.rmtree(directory / "log")
    segment = directory / "00" / "seg-0000000000000001"
    segment.write_bytes(bytes(BLOCK))
    for _ in range(2):
        refuses(context, directory, f"{directory}/manifest-0", "it is missing", "-accept-loss")
        assert segment.exists() and not (directory / "manifest-0").exists()


@test()
def an_address_that_is_not_this_machines(context):
    server = context.server("-host", "192.0.2.1", wait=False)
    expect_refusal(server, "192.0.2.1", "Cannot assign requested address", "give -host a numeric address")


@test()
def ext4_with_its_data_in_the_journal_is_served_with_a_warning(context):
    disk = Disk(context, "ext4", 300 * MIB, ",data=journal")
    server = context.server("-cache", "8", directory=disk.point / "data")
    server.assert_serves()
    warned = [line for line in server.lines if re.search(r"WARN .*ext4 with data=journal", line)]
    assert len(warned) == 1 and "O_DIRECT" in warned[0] and "data=ordered" in warned[0], server.log()


@test()
def a_log_file_that_is_cut_within_its_first_block(context):
    """As a crash leaves one that was being made: to both it was never put to use."""
    server = context.server("-cache", "8", "-shards", "1")
    with server.client() as client:
        client.set(b"key", b"value")
    server.kill()
    os.truncate(server.directory / "log" / "wal-00000001", 2500)
    code, output, _ = admin(context, "check", server.directory)
    assert code == SOUND, output
    server.start()
    assert not any(" ERROR " in line for line in server.lines), server.log()


# ---- minivault-admin ----

def as_nobody(context, *words):
    tool = context.binary.with_name("minivault-admin")
    return subprocess.run([str(tool), *map(str, words)], capture_output=True, text=True, check=False,
                          user=NOBODY, group=NOBODY, extra_groups=[])


@test(slow=True)
def the_offline_tool_names_the_file_and_both_users(context):
    """Whatever it is asked for."""
    needs_root()
    directory = filled(context, 1)
    value = next(path for path in directory.glob("??/*-*"))
    names = [".", "superblock", "manifest-0", "log/wal-00000001", value.relative_to(directory), "log"]
    for name in names:
        if name != ".":
            hand_over(directory)
        lock_up(directory / name)
        for words in (("check",), ("dump",), ("dump", "--all", "--values"), ("stat",)):
            result = as_nobody(context, *words, directory)
            file = str(directory if name == "." else directory / name)
            assert result.returncode == CANNOT, (name, words, result)
            assert "lost" not in result.stdout + result.stderr, (name, words, result)
            lines = [line for line in result.stderr.splitlines() if f"{file} cannot be " in line]
            assert len(lines) == 1 and all(part in lines[0] for part in (
                "Permission denied", "belongs to root (0)", f"run as nobody ({NOBODY})")), result


def expect_stop(context, directory, code, said, shards=2):
    """From minivault-admin check, and from a server."""
    found, output, error = admin(context, "check", directory)
    text = output.decode() + error
    assert found == code and said in text, (found, text)
    if code == DAMAGED:
        assert "stop: " in text and text.rstrip().endswith("; a server refuses to start"), text
    refuses(context, directory, said, "", "", shards=shards)


@test()
def the_offline_tool_knows_what_a_start_refuses(context):
    """Without a segment, so that nothing but the file itself and what else tells of it can say so."""
    whole, directory = filled(context, 2), context.directory / "copy"

    def renew():
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(whole, directory)

    for manifest in ("manifest-0", "shard-1/manifest-1"):
        renew()
        (directory / manifest).unlink()
        expect_stop(context, directory, DAMAGED, "it is missing, although the log or segments tell")
    renew()
    for _ in range(2):
        assert context.server("-cache", "8", "-shards", "2", directory=directory).terminate() == 0
    shutil.rmtree(directory / "shard-1")
    shutil.copytree(whole / "shard-1", directory / "shard-1")
    expect_stop(context, directory, DAMAGED, "shard 1 is an older copy")
    renew()
    shutil.copy(directory / "superblock", directory / "shard-1" / "superblock")
    expect_stop(context, directory, DAMAGED, "it is that of shard 0 of 2")
    renew()
    shutil.copy(directory / "shard-1" / "superblock", directory / "superblock")
    expect_stop(context, directory, CANNOT, "it is that of shard 1 of 2")
    renew()
    shutil.copytree(directory / "shard-1", directory / "shard-2")
    expect_stop(context, directory, DAMAGED, "it tells of 2 shards, but there is shard-2, too")
