"""Rows of what the disk has to bear: bytes written, bytes taken."""

import os
import signal
import subprocess
import time

import tools
from row_reads import FILL, fill
from tools import GIB, KEY_SIZE, KIB, MIB, Failure, Report

GIVEN = KEY_SIZE + KIB

SORTED_OUT_S = 60


def put(bench, server, requests, *words):
    """So many SETs of 1 KiB. Returns how many it were."""
    result = tools.mvload(bench, server, "--op", "set", "--value-size", KIB, "--warmup", 0,
                          "--seconds", 100000, "--requests", requests, *FILL, *words)
    return result["replies"]


def write_amplification(bench):
    """Bytes written to the device for each byte of key and value: new keys, 1 KiB, uniform."""
    half = 700_000 if bench.arguments.quick else 3_000_000
    server = tools.minivault(bench, 64)
    server.start()
    start = server.written()
    done = put(bench, server, half, "--keys", 1, "--inserts", 1, "--first-insert", 1)
    middle = server.written()
    second = put(bench, server, half, "--keys", 1, "--inserts", 1, "--first-insert", half * 4)
    end = server.written()
    server.settle()
    settled = server.written()
    report = Report()
    report.check("second half", (end - middle) / (second * GIVEN), 2.2, most=True)
    report.check("all, until it is quiet", (settled - start) / ((done + second) * GIVEN), 2.2,
                 most=True)
    report.value("given", (done + second) * GIVEN / MIB, "MiB")
    report.value("written to the log", server.health()["log_bytes_written"] / MIB, "MiB")
    report.note("all: the formatting of the directory counts, which is more the less was given; "
                "the last of the log is moved later, which is less")
    server.stop()
    return report


class Disk:
    """A file system of limited size in a file, on a loop device. Only root can have it."""

    def __init__(self, bench, size):
        if os.geteuid() != 0:
            raise Failure("only root can mount a small disk")
        self.image = os.path.join(bench.folder, "disk.image")
        self.point = bench.make_folder("disk")
        with open(self.image, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        bench.run(["mkfs.ext4", "-q", "-F", "-m", "0", self.image], None)
        self.device = bench.run(["losetup", "--find", "--show", "--direct-io=on", self.image],
                                None).strip()
        try:
            bench.run(["mount", self.device, self.point], None)
        except Failure:
            self.remove()
            raise

    def remove(self):
        """A server that was killed may hold its files a little longer: until its ring is gone."""
        deadline = time.monotonic() + 20
        while os.path.ismount(self.point) and time.monotonic() < deadline:
            if subprocess.run(["umount", self.point], check=False,
                              capture_output=True).returncode != 0:
                time.sleep(0.2)
        subprocess.run(["losetup", "-d", self.device], check=False, capture_output=True)
        os.unlink(self.image)

    def size(self):
        status = os.statvfs(self.point)
        return status.f_blocks * status.f_frsize

    def used(self):
        status = os.statvfs(self.point)
        return (status.f_blocks - status.f_bfree) * status.f_frsize


def write_amplification_full(bench):
    """The same under Zipf overwrites when what is alive fills 70 % of a small disk."""
    size, share = (2 * GIB, 0.45) if bench.arguments.quick else (8 * GIB, 0.7)
    disk = Disk(bench, size)
    server = None
    try:
        server = tools.minivault(bench, 64, folder=os.path.join(disk.point, "data"))
        os.makedirs(server.folder)
        keys = int(disk.size() * share / GIVEN)
        server.start()
        fill(bench, server, keys, KIB)
        filled = disk.used() / disk.size()
        put(bench, server, keys // 4, "--keys", keys, "--distribution", "zipf", "--seed", 2)
        start = server.written()
        done = put(bench, server, keys, "--keys", keys, "--distribution", "zipf")
        report = Report()
        report.check("Zipf overwrites", (server.written() - start) / (done * GIVEN), 3, most=True)
        report.value("alive", 100 * keys * GIVEN / disk.size(), "% of the disk")
        report.value("used after the fill", 100 * filled, "% of the disk")
        report.value("used at the end", 100 * disk.used() / disk.size(), "% of the disk")
        report.value("overwritten", done * GIVEN / MIB, "MiB")
        if bench.arguments.quick:
            report.note("the log's fixed share is a quarter of so small a disk: less is alive")
        return report
    finally:
        if server is not None:
            server.stop()
        disk.remove()


def space_amplification(bench):
    """Bytes on the disk for each live byte, after overwriting ten times the data."""
    keys = 300_000 if bench.arguments.quick else 2_000_000
    server = tools.minivault(bench, 64)
    server.start()
    fill(bench, server, keys, KIB)
    put(bench, server, 10 * keys, "--keys", keys)
    live = keys * GIVEN
    at_once = tools.disk_usage(server.folder)
    server.settle()
    settled, health = tools.disk_usage(server.folder), server.health()
    report = Report()
    report.check("at once", at_once / live, 1.4, most=True)
    report.check("when it is quiet", settled / live, 1.4, most=True)
    report.value("alive", live / MIB, "MiB")
    report.value("of it log and segments", health["storage_size_mb"], "MiB")
    report.note("the log takes its fixed share, however little is alive")
    check_keys(bench, report, server, keys, KIB)
    server.stop()
    return report


def check_keys(bench, report, server, keys, value_size):
    """A miss is a failure. More than there are: old versions that nobody has looked at yet. Fewer,
    for a moment: after kill -9, writes that recovery is not sure of are still being looked at."""
    until = time.monotonic() + SORTED_OUT_S
    while (counted := server.health()["keys"]) < keys and time.monotonic() < until:
        time.sleep(0.1)
    if counted < keys:
        raise Failure(f"{counted:,} keys, not {keys:,}")
    if counted > keys:
        report.note(f"HEALTH counts {counted:,} keys, {keys:,} are alive")
    tools.mvload(bench, server, "--op", "get", "--keys", keys, "--value-size", value_size, *FILL,
                 *tools.times(bench))


def restart_files(folder):
    """What a restart reads whole: all but segments and value files."""
    return [path for path in tools.files_of(folder)
            if len(os.path.basename(os.path.dirname(path))) != 2]


def cold_start(server):
    """Returns the seconds until it answers, and the bytes that it read."""
    tools.forget_pages(server.folder)
    seconds = server.start()
    return seconds, server.io()["read_bytes"]


def restart(bench):
    """Many small keys: the index's memory, and how long a restart takes."""
    keys = 1_000_000 if bench.arguments.quick else 10_000_000
    report = Report()
    server = tools.minivault(bench, 64)
    server.start()
    empty = server.resident()
    fill(bench, server, keys, 100, "--connections", 50, "--depth", 64)
    server.settle()
    health = server.health()
    index = (health["memory_mb"] - health["cache_size_mb"]) * MIB
    report.value("index, by HEALTH", index / keys, "bytes a key")
    grown = server.resident() - empty - health["cache_size_mb"] * MIB
    report.value("resident memory without the cache, grown by", grown / keys, "bytes a key")
    began = time.monotonic()
    server.end(signal.SIGTERM)
    report.value("clean stop", time.monotonic() - began, "s")
    tell_restart(report, server, "clean", 3)
    check_keys(bench, report, server, keys, 100)
    tools.mvload(bench, server, "--op", "set", "--keys", keys, "--value-size", 100, *FILL,
                 *tools.times(bench))
    server.end(signal.SIGKILL)
    tell_restart(report, server, "after kill -9", 6)
    check_keys(bench, report, server, keys, 100)
    if not bench.arguments.quick:
        report.note(f"{keys:,} keys of 100 bytes")
    server.stop()
    return report


def tell_restart(report, server, how, required):
    tools.forget_pages(server.folder)
    seconds, size = tools.cat(restart_files(server.folder))
    report.value(f"cat of log, checkpoint and manifest ({size / MIB:,.0f} MiB)", seconds, "s")
    seconds, size = cold_start(server)
    report.check(f"restart {how}", seconds, required, most=True, unit="s")
    report.value(f"restart {how} read", size / MIB, "MiB")
