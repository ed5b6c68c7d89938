"""Rows of durable SETs: small values under compaction, large values beside the bare sequence."""

import json

import tools
from row_reads import fill
from tools import GIB, KEY_SIZE, KIB, MIB, Report

SIZES = (64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, MIB)
INSERT_STEP = 1_000_000_000  # every run's new keys are its own


def sustained_load(bench, server, keys):
    """A function that loads once: half of the SETs overwrite, half are new keys."""
    state = {"next": INSERT_STEP}

    def load():
        written = server.written() if server.name == "minivault" else 0
        result = tools.mvload(bench, server, "--op", "set", "--keys", keys, "--value-size", KIB,
                              "--connections", 50, "--depth", 16, "--inserts", 0.5,
                              "--first-insert", state["next"],
                              *tools.times(bench, bench.arguments.sustained))
        state["next"] += INSERT_STEP
        figures = tools.loaded(result)
        if server.name == "minivault":
            length = result["seconds"] + bench.arguments.warmup
            given = figures["rate"] * length * (KEY_SIZE + KIB)
            figures["amplification"] = (server.written() - written) / given
        return figures

    return load


def set_commit(bench):
    """Durable SETs of 1 KiB, half overwrites, more data than memory."""
    keys = 200_000 if bench.arguments.quick else 2_000_000
    cache_mib = max(1, keys * (KEY_SIZE + KIB) // 4 // MIB)
    servers = [tools.minivault(bench, cache_mib), tools.redis_always(bench),
               tools.durable(bench, 1), tools.durable(bench, 2)]
    for server in servers:
        server.start()
        if not server.name.startswith("durable"):
            fill(bench, server, keys, KIB)
    report = Report("SETs/s")
    report.contenders = tools.interleave(
        bench, {server.name: sustained_load(bench, server, keys) for server in servers})
    report.better("durable-bound", ("durable-1", "durable-2"))
    report.ratio("minivault", "redis-always", 1.5)
    report.ratio("minivault", "durable-bound", 3, "p99.9", most=True,
                 name="p99.9 of minivault / durable-bound")
    report.ratio("minivault", "durable-bound", None)
    report.value("bytes written per byte given, meanwhile",
                 report.contenders["minivault"]["amplification"], "x")
    report.note("above 1.3 the background work (log to segments, compaction) was under way")
    for server in servers:
        server.stop()
    return report


def fresh_sets(bench, value_size, **more):
    """SETs of new keys into an empty server: files are created, none is removed."""
    def load():
        server = tools.minivault(bench, 64, **more)
        server.start()
        result = tools.mvload(bench, server, "--op", "set", "--keys", 1, "--value-size",
                              value_size, "--connections", 8, "--depth", 1, "--inserts", 1,
                              *tools.times(bench))
        server.stop()
        return tools.loaded(result, value_size / MIB)
    return load


def bare_sequence(bench, value_size):
    def run():
        folder = bench.make_folder("sequence")
        output = bench.run([bench.tool("sequence"), "--folder", folder, "--threads", "8",
                            "--value-size", str(value_size), "--seconds",
                            str(bench.arguments.seconds)], tools.SERVER_CPU)
        bench.remove(folder)
        return in_process(json.loads(output))
    return run


def in_process(result):
    return dict(result["latency_us"], rate=result["bytes_per_second"] / MIB)


def engine_sets(bench, value_size, value_file_min):
    def run():
        folder = bench.make_folder("engine")
        output = bench.run([bench.tool("engine"), "--folder", folder, "--benchmarks", "fillseq",
                            "--callers", "8", "--keys", "1000000000", "--value-size",
                            str(value_size), "--value-file-min", str(value_file_min), "--cache",
                            "64", "--seconds", str(bench.arguments.seconds)], tools.SERVER_CPU)
        bench.remove(folder)
        return in_process(json.loads(output))
    return run


def set_1m(bench):
    """Durable SETs of 1 MiB, 8 connections, beside create, write, fdatasync, directory sync."""
    report = Report("MiB/s")
    report.contenders = tools.interleave(bench, {
        "minivault": fresh_sets(bench, MIB), "sequence": bare_sequence(bench, MIB)})
    report.ratio("minivault", "sequence", 0.8)
    return report


def threshold(bench):
    """From which size on a value is better off in a file of its own."""
    report = Report("MiB/s")
    for size in SIZES:
        tools.say(f"  {size // KIB} KiB")
        found = tools.interleave(bench, {
            "sequence": bare_sequence(bench, size), "minivault": fresh_sets(bench, size),
            "engine, in the log": engine_sets(bench, size, 4 * MIB),
            "engine, in a file": engine_sets(bench, size, 4 * KIB)})
        for name, figures in found.items():
            report.contenders[f"{size // KIB} KiB: {name}"] = figures
        log, file = found["engine, in the log"], found["engine, in a file"]
        report.check(f"{size // KIB} KiB: file / log", file["rate"] / log["rate"], None)
        report.check(f"{size // KIB} KiB: minivault / sequence",
                     found["minivault"]["rate"] / found["sequence"]["rate"],
                     0.8 if size == MIB else None)
    report.note("what goes to the log is written once more when it is moved to a segment")
    return report


def set_16m(bench):
    """Durable SETs of 16 MiB, 8 connections, beside fio and a server that only receives. New keys
    need blocks that hold nothing yet, as fio's do that counts: devices that are thinly provisioned
    or have been trimmed take these slower than blocks that are overwritten."""
    size = 16 * MIB
    share = (GIB if bench.arguments.quick else 4 * GIB) // 8
    files = tools.lay_out(bench, bench.make_folder("fio"), 8 * share, 8)
    bound = tools.loopback(bench, 1)
    bound.start()

    def receives():
        return tools.loaded(tools.mvload(
            bench, bound, "--op", "set", "--keys", 1000, "--value-size", size, "--connections", 8,
            "--depth", 1, *tools.times(bench)), size / MIB)

    def writes(folder, *more):
        part = tools.fio(bench, "write", f"--directory={folder}", "--rw=write", "--bs=16m",
                         "--ioengine=psync", "--sync=dsync", "--numjobs=8",
                         "--filename_format=file.$jobnum", "--refill_buffers=0",
                         f"--runtime={bench.arguments.seconds}", *more)["write"]
        return tools.fio_figures(part, part["bw_bytes"] / MIB)

    def writes_new():
        folder = bench.make_folder("new")
        figures = writes(folder, "--fallocate=native", f"--size={4 * share}")
        bench.remove(folder)
        return figures

    report = Report("MiB/s")
    report.contenders = tools.interleave(bench, {
        "minivault": fresh_sets(bench, size), "loopback": receives, "fio, new files": writes_new,
        "fio, overwriting": lambda: writes(files, "--overwrite=1", "--time_based",
                                           f"--size={share}")})
    report.better("lower bound", ("loopback", "fio, new files"), lower=True)
    report.ratio("minivault", "lower bound", 0.85)
    report.ratio("minivault", "fio, overwriting", None)
    bound.stop()
    return report
