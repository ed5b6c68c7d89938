"""Rows of GETs: uncached small values, uncached large ones, absent keys."""

import itertools

import tools
from tools import KIB, MIB, Report

FILL = ["--connections", 50, "--depth", 16]


def fill(bench, server, keys, value_size, *words):
    tools.say(f"  {server.name}: {keys:,} keys of {value_size:,} bytes")
    tools.mvload(bench, server, "--keys", keys, "--value-size", value_size, "--prefill",
                 "--seconds", 0, *(words or FILL))


def uncached_figures(bench, server, keys, seed, connections):
    """Every round draws other keys: those of the last one are in the cache. 32 GETs are under way, on
    so many connections."""
    before = server.health()
    result = tools.mvload(bench, server, "--op", "get", "--keys", keys, "--value-size", KIB,
                          "--seed", seed, "--connections", connections, "--depth", 32 // connections,
                          *tools.times(bench))
    after = server.health()
    misses = after["cache_misses"] - before["cache_misses"]
    hits = after["cache_hits"] - before["cache_hits"]
    figures = tools.loaded(result)
    share = misses / max(1, misses + hits)
    return dict(figures, rate=figures["rate"] * share, uncached=share)


def get_uncached(bench):
    """Random GETs of 1 KiB; only those that were read from the disk count."""
    cache_mib = 16 if bench.arguments.quick else 256
    keys = 8 * cache_mib * MIB // KIB
    server = tools.minivault(bench, cache_mib)
    server.start()
    fill(bench, server, keys, KIB)
    server.settle()
    files = tools.lay_out(bench, bench.make_folder("fio"), keys * KIB)

    def random_reads():
        part = tools.fio(bench, "randread", f"--directory={files}", "--rw=randread", "--bs=4k",
                         "--ioengine=io_uring", "--iodepth=32", f"--size={keys * KIB}",
                         "--filename_format=file.$jobnum", "--time_based",
                         f"--ramp_time={bench.arguments.warmup}",
                         f"--runtime={bench.arguments.seconds}")["read"]
        return tools.fio_figures(part, part["iops"])

    seeds = itertools.count(2)
    report = Report("reads/s")
    report.contenders = tools.interleave(bench, {
        "32 x 1": lambda: uncached_figures(bench, server, keys, next(seeds), 32),
        "4 x 8": lambda: uncached_figures(bench, server, keys, next(seeds), 4),
        "fio": random_reads})
    report.ratio("32 x 1", "fio", 0.7)
    report.ratio("4 x 8", "fio", 0.7)
    report.value("share of GETs that went to the disk",
                 100 * report.contenders["32 x 1"]["uncached"], "%")
    report.note("minivault's latencies are those of all its GETs")
    server.stop()
    return report


def get_1m(bench):
    """GETs of 1 MiB from files, 8 connections."""
    count = 256 if bench.arguments.quick else 2048
    server, bound = tools.minivault(bench, 16), tools.loopback(bench, MIB)
    server.start()
    bound.start()
    fill(bench, server, count, MIB, "--connections", 8, "--depth", 1)
    server.settle()
    tools.forget_pages(server.folder)
    files = tools.lay_out(bench, bench.make_folder("fio"), count * MIB)

    def gets(target):
        result = tools.mvload(bench, target, "--op", "get", "--keys", count, "--value-size", MIB,
                              "--connections", 8, "--depth", 1, *tools.times(bench))
        return tools.loaded(result, 1)

    def sequential_reads():
        part = tools.fio(bench, "read", f"--directory={files}", "--rw=read", "--bs=1m",
                         "--ioengine=io_uring", "--iodepth=8", f"--size={count * MIB}",
                         "--filename_format=file.$jobnum", "--time_based",
                         f"--ramp_time={bench.arguments.warmup}",
                         f"--runtime={bench.arguments.seconds}")["read"]
        return tools.fio_figures(part, part["bw_bytes"] / MIB)

    report = Report("MiB/s")
    report.contenders = tools.interleave(bench, {
        "minivault": lambda: gets(server), "loopback": lambda: gets(bound),
        "fio": sequential_reads})
    report.better("lower bound", ("loopback", "fio"), lower=True)
    report.ratio("minivault", "lower bound", 0.85)
    server.stop()
    bound.stop()
    return report


def get_absent(bench):
    """GETs of keys that nobody has set, beside GETs of keys in memory."""
    keys = 100_000 if bench.arguments.quick else 1_000_000
    server = tools.minivault(bench, 512)
    server.start()
    fill(bench, server, keys, 100)
    server.settle()

    def gets(*words):
        return tools.loaded(tools.mvload(
            bench, server, "--op", "get", "--keys", keys, "--value-size", 100, "--connections", 50,
            "--depth", 16, *words, *tools.times(bench)))

    report = Report("GETs/s")
    report.contenders = tools.interleave(bench, {
        "absent": lambda: gets("--first-key", keys, "--allow-misses"), "cached": gets})
    report.ratio("absent", "cached", 1.0)
    server.stop()
    return report
