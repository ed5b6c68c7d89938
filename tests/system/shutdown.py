"""The file system goes down under a running server, and forgets what was never synced: what was
acknowledged is there when it is back. Finds a missing sync of a file, of its size, of a directory."""
import random
import re
import threading
import time

from crash import History, Load
from disks import FLUSH_NOTHING, FLUSH_THE_JOURNAL, SYNC_ALL, Disk
from harness import OK, set_, test

DISK_SIZE = 512 << 20
EXIT_SECONDS = 5


class Blow:
    """Shuts the file system down in a while, and knows when it was certainly down."""

    def __init__(self, disk, how, seconds):
        self.disk, self.how, self.down, self.error = disk, how, None, None
        self.timer = threading.Timer(seconds, self.strike)
        self.timer.start()

    def strike(self):
        try:
            self.disk.shut_down(self.how)
            self.down = time.monotonic()
        except BaseException as error:  # told to the test, by join
            self.error = error

    def join(self):
        self.timer.join()
        if self.error:
            raise self.error


def expect_nothing_acknowledged(server):
    """By a server that may have ended already."""
    try:
        with server.client(timeout=EXIT_SECONDS) as client:
            status, _ = client.call(set_(b"too late", b"v"))
    except (OSError, EOFError):
        return
    assert status != OK, "a write was acknowledged by a file system that is down"


def expect_end(server, blow):
    code = server.wait_exit(EXIT_SECONDS * (4 if server.sanitized else 1))
    took = time.monotonic() - blow.down
    assert code > 0, f"exit code {code} after its file system went down:\n" + server.log()
    errors = [line for line in server.lines if re.search(r"\bERROR\b", line)]
    assert errors, "it ended without a word:\n" + server.log()
    assert any(re.search(r"Input/output error|shut ?down", line) for line in errors), errors
    return took


def late_answers(history, down):
    """Writes that were sent when everything was down already, and acknowledged all the same."""
    return [(key, write.sent - down) for key, writes in history.writes.items() for write in writes
            if write.sent > down and write.acknowledged is not None and write.writer is not None]


def rounds_of_shutdown(context, kind, rounds):
    disk = Disk(context, kind, DISK_SIZE)
    chance, history = random.Random(context.options.seed), History()
    server = context.server("-cache", "32", directory=disk.point / "data")
    total, longest = 0, 0.0
    for round_ in range(rounds):
        how = chance.choice((FLUSH_NOTHING, FLUSH_NOTHING, FLUSH_NOTHING, FLUSH_THE_JOURNAL, SYNC_ALL))
        load = Load(history, chance)
        blow = Blow(disk, how, 0.1 + chance.random() * 1.2)
        alive = load.run(server.port, 10)
        blow.join()
        assert alive == 0, "it served on after its file system went down:\n" + server.log()
        expect_nothing_acknowledged(server)
        longest = max(longest, expect_end(server, blow))
        assert not late_answers(history, blow.down), late_answers(history, blow.down)[:5]
        total += load.acknowledged
        disk.remount()
        server.start()
        with server.client(timeout=60) as client:
            problems = history.check(client)
        assert not problems, (f"round {round_} (shutdown {how}): {len(problems)} keys are wrong:\n" +
                              "\n".join(problems[:10]))
    print(f"        {kind}: {rounds} shutdowns, {total} acknowledged writes, "
          f"the server ended after {longest:.2f} s at most")
    assert total > 100 * rounds, f"only {total} writes: no load"


@test(slow=True, seconds=180)
def ext4_goes_down_under_load(context):
    rounds_of_shutdown(context, "ext4", 4)


@test(slow=True, seconds=180)
def xfs_goes_down_under_load(context):
    rounds_of_shutdown(context, "xfs", 4)


def idle_then_down(context, kind):
    """Nothing is under way: the next write finds out."""
    disk = Disk(context, kind, DISK_SIZE)
    server = context.server("-cache", "32", directory=disk.point / "data")
    with server.client() as client:
        for number in range(100):
            client.set(b"k %d" % number, b"v" * number)
        blow = Blow(disk, FLUSH_NOTHING, 0)
        blow.join()
        try:
            assert client.call(set_(b"k 1", b"too late"))[0] != OK
        except (OSError, EOFError):
            pass
    expect_end(server, blow)
    code, output = context.run("-port", "0", "-data", str(server.directory))
    assert code > 0 and re.search(r"Input/output error", output), (code, output)
    disk.remount()
    server.start()
    with server.client() as client:
        for number in range(100):
            assert client.get(b"k %d" % number) == b"v" * number, number


@test()
def ext4_goes_down_while_idle(context):
    idle_then_down(context, "ext4")


@test(slow=True)
def xfs_goes_down_while_idle(context):
    idle_then_down(context, "xfs")
