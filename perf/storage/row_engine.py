"""The engine in process beside RocksDB's db_bench."""

import json
import re

import tools
from tools import KEY_SIZE, KIB, MIB, Failure, Report

THREADS = (1, 16)


def db_bench(bench, folder, benchmarks, threads, keys, *words):
    """The figures of the last benchmark of the list."""
    output = bench.run(
        ["db_bench", f"--db={folder}", f"--benchmarks={benchmarks}", f"--threads={threads}",
         f"--num={keys}", f"--key_size={KEY_SIZE}", f"--value_size={KIB}",
         "--compression_type=none", f"--cache_size={cache_mib(keys) * MIB}", "--bloom_bits=10",
         "--histogram=1", "--use_direct_reads=1", "--use_direct_io_for_flush_and_compaction=1",
         *words], None)
    name = benchmarks.split(",")[-1]
    found = re.search(rf"^{name} .*?([\d.]+) ops/sec.*?Percentiles: P50: ([\d.]+) .*?"
                      r"P99: ([\d.]+) P99.9: ([\d.]+)", output, re.M | re.S)
    if found is None:
        raise Failure("db_bench said something else:\n" + output[-1000:])
    rate, middle, high, higher = map(float, found.groups())
    return {"rate": rate, "p50": middle, "p99": high, "p99.9": higher}


def cache_mib(keys):
    """An eighth of the data."""
    return max(8, keys * (KEY_SIZE + KIB) // 8 // MIB)


def engine(bench, folder, benchmarks, callers, keys, *words):
    output = bench.run(
        [bench.tool("engine"), "--folder", folder, "--benchmarks", benchmarks, "--callers",
         str(callers), "--keys", str(keys), "--value-size", str(KIB), "--cache",
         str(cache_mib(keys)), *words], None)
    result = json.loads(output.splitlines()[-1])
    return dict(result["latency_us"], rate=result["ops_per_second"], misses=result["misses"])


def fills(bench, threads, keys):
    """Both begin with nothing and set for so many seconds."""
    seconds = bench.arguments.seconds

    def ours():
        folder = bench.make_folder("engine")
        figures = engine(bench, folder, "fillrandom", threads, keys, "--requests", "1000000000000",
                         "--seconds", str(seconds))
        bench.remove(folder)
        return figures

    def theirs():
        folder = bench.make_folder("rocksdb")
        figures = db_bench(bench, folder, "fillrandom", threads, keys, "--sync=1",
                           f"--duration={max(1, round(seconds))}")
        bench.remove(folder)
        return figures

    return {"engine": ours, "db_bench": theirs}


def reads(bench, threads, keys, folders):
    """Both have all the keys."""
    seconds = bench.arguments.seconds

    def theirs():
        return db_bench(bench, folders["rocksdb"], "readrandom", threads, keys,
                        "--use_existing_db=1", f"--duration={max(1, round(seconds))}")

    def ours():
        figures = engine(bench, folders["engine"], "readrandom", threads, keys, "--requests",
                         "1000000000000", "--seconds", str(seconds))
        if figures["misses"] > 0:
            raise Failure(f"the engine missed {figures['misses']} keys")
        return figures

    return {"engine": ours, "db_bench": theirs}


def engine_row(bench):
    """fillrandom --sync and readrandom, 1 KiB, in process, nobody pinned, beside RocksDB's."""
    keys = 100_000 if bench.arguments.quick else 2_000_000
    report = Report("requests/s")
    folders = {name: bench.make_folder(name + "-full") for name in ("engine", "rocksdb")}
    tools.say(f"  both: {keys:,} keys of 1 KiB")
    engine(bench, folders["engine"], "fillseq", 512, keys)
    db_bench(bench, folders["rocksdb"], "fillseq", 1, keys)
    db_bench(bench, folders["rocksdb"], "waitforcompaction,readrandom", 1, keys,
             "--use_existing_db=1", "--reads=1000")
    for threads in THREADS:
        for name, contenders in (("fillrandom", fills(bench, threads, keys)),
                                 ("readrandom", reads(bench, threads, keys, folders))):
            found = tools.interleave(bench, contenders)
            for contender, figures in found.items():
                report.contenders[f"{name} x {threads}: {contender}"] = figures
            report.check(f"{name} x {threads}: engine / db_bench",
                         found["engine"]["rate"] / found["db_bench"]["rate"], None)
    report.note("db_bench has its threads on all cpus, the engine is one thread; a read of the "
                "engine checks the record's checksum")
    for folder in folders.values():
        bench.remove(folder)
    return report
