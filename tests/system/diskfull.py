"""A disk that runs full, by our own writes or by somebody else's: sets are refused with NO_SPACE, gets
and deletes work, and it goes on without a restart when there is space again."""
import random
import re
import time

from disks import Disk, Filler, assert_holds, noise
from harness import KIB, MIB, NO_SPACE, OK, Server, delete, get, hello, set_, test

DISK_SIZE = 400 * MIB  # for two shards at most: each one's log takes 96 MiB when nothing is in it
BATCH = 10
SIZES = (100, 3000, 20 * KIB, 100 * KIB, 100 * KIB, 300 * KIB)
BACK_SECONDS = 20


def connect(server):
    client = server.client(timeout=60)
    assert client.call(hello())[0] == OK
    return client


def set_until_full(client, model, prefix, chance):
    """Fills the model with what was acknowledged; returns those keys in order."""
    keys, refused, number = [], 0, 0
    while refused < 2 * BATCH:  # a small one may still fit where a large one does not
        writes = [(b"%s %d" % (prefix, n), noise(n, chance.choice(SIZES)))
                  for n in range(number, number + BATCH)]
        client.send(b"".join(set_(*write) for write in writes))
        for key, value in writes:
            status, message = client.answer()
            if status == OK:
                model[key] = value
                keys.append(key)
            else:
                assert status == NO_SPACE and message.decode(), (status, message)
                model.setdefault(key, None)
                refused += 1
        number += BATCH
        assert number < 20000, "it never becomes full"
    return keys


def overwrite(client, model, keys):
    """Refused is refused: what is there stays. Behind the writes some room may come back."""
    for key in keys:
        value = noise(1, 200 * KIB)
        status, message = client.call(set_(key, value))
        assert status in (OK, NO_SPACE), (key, status, message)
        if status == OK:
            model[key] = value
        assert client.call(get(key)) == (OK, model[key]), key


def delete_all(client, model, keys):
    for first in range(0, len(keys), 100):
        some = keys[first:first + 100]
        client.send(b"".join(delete(key) for key in some))
        for key in some:
            answer = client.answer()
            assert answer == (OK, b""), f"a delete was refused: {key!r}, {answer}"
            model[key] = None


def set_again(client, model, prefix, count=20):
    """Sets work, after a while at most; nobody restarts anything."""
    deadline = time.monotonic() + BACK_SECONDS
    for number in range(count):
        key, value = b"%s %d" % (prefix, number), noise(number, 100 * KIB)
        while (answer := client.call(set_(key, value)))[0] != OK:
            assert answer[0] == NO_SPACE, answer
            assert time.monotonic() < deadline, "there is space again, and sets are refused"
            time.sleep(0.1)
        model[key] = value


def full_by_our_own_writes(context, kind):
    disk = Disk(context, kind, DISK_SIZE * max(1, Server.usual_shards() // 2))
    server = context.server("-cache", "4", directory=disk.point / "data")
    chance, model = random.Random(context.options.seed), {}
    with connect(server) as client:
        keys = set_until_full(client, model, b"fill", chance)
        stored = sum(len(model[key]) for key in keys)
        print(f"        {kind}: {stored // MIB} of {disk.size // MIB} MiB are values when it is full")
        assert stored > disk.size // 8, f"full with {stored} bytes in it"
        overwrite(client, model, keys[-3:] + keys[:2])
        assert_holds(server, model, "full")
        delete_all(client, model, keys[:len(keys) * 3 // 4])
        set_again(client, model, b"again")
        assert_holds(server, model, "after deletes")
    server.restart()
    assert_holds(server, model, "after a restart")
    with connect(server) as client:
        set_until_full(client, model, b"more", chance)
    server.kill()
    server.start()
    assert_holds(server, model, "after kill -9 on a full disk")
    with connect(server) as client:
        delete_all(client, model, [key for key, value in model.items() if value is not None])
        set_again(client, model, b"at last")
    assert_holds(server, model, "after everything was deleted")


def full_by_a_file_of_others(context, kind):
    disk = Disk(context, kind, DISK_SIZE)
    server = context.server("-cache", "4", directory=disk.point / "data")
    chance, model = random.Random(context.options.seed + 1), {}
    with connect(server) as client:
        for number in range(200):
            key, value = b"early %d" % number, noise(number, chance.choice(SIZES[:4]))
            assert client.call(set_(key, value)) == (OK, b"")
            model[key] = value
        filler = Filler(disk)
        keys = set_until_full(client, model, b"fill", chance)
        overwrite(client, model, [b"early 3", b"early 4"])
        assert_holds(server, model, "full")
        delete_all(client, model, [b"early %d" % n for n in range(50)] + keys[:20])
        filler.remove()
        set_again(client, model, b"again")
        filler = Filler(disk)
        set_until_full(client, model, b"fill", chance)
        assert_holds(server, model, "full again")
        delete_all(client, model, [b"early 100"])
    server.kill()
    start_on_full_disk(context, server, filler, model)
    with connect(server) as client:
        set_again(client, model, b"at last")
    assert_holds(server, model, "with space again")
    server.restart()
    assert_holds(server, model, "after a restart")


def start_on_full_disk(context, server, filler, model):
    """It may want space to begin with; then it says so, and loses nothing."""
    server.start(wait=False)
    try:
        server.wait_ready()
    except AssertionError:
        code, output = server.wait_exit(), server.log()
        assert code > 0 and re.search(r"no space left|disk is full", output, re.IGNORECASE), output
        print("        it does not start on a full disk")
        filler.remove()
        server.start()
        assert_holds(server, model, "after kill -9 on a full disk")
        return
    assert_holds(server, model, "after kill -9, on a disk that is still full")
    with connect(server) as client:
        delete_all(client, model, [b"early 101", b"early 102"])
    filler.remove()


@test(seconds=180)
def full_by_our_own_writes_on_ext4(context):
    full_by_our_own_writes(context, "ext4")


@test(slow=True, seconds=180)
def full_by_our_own_writes_on_xfs(context):
    full_by_our_own_writes(context, "xfs")


@test(slow=True, seconds=180)
def full_by_a_file_of_others_on_ext4(context):
    full_by_a_file_of_others(context, "ext4")


@test(slow=True, seconds=180)
def full_by_a_file_of_others_on_xfs(context):
    full_by_a_file_of_others(context, "xfs")


@test(slow=True, seconds=180)
def restarts_on_a_full_disk(context):
    """Whoever wants to delete something has to get in: no start may use up what the next one needs."""
    disk = Disk(context, "ext4", DISK_SIZE)
    server = context.server("-cache", "4", directory=disk.point / "data")
    chance, model = random.Random(context.options.seed + 2), {}
    with connect(server) as client:
        keys = set_until_full(client, model, b"fill", chance)
    for round_ in range(6):
        if round_ % 2:
            server.restart()
        else:
            server.kill()
            server.start()
        with connect(server) as client:
            delete_all(client, model, keys[round_ * 10:round_ * 10 + 10])
    assert_holds(server, model, "after six restarts")
    with connect(server) as client:
        delete_all(client, model, keys)
        set_again(client, model, b"again")
