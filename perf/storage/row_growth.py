"""Whether GETs notice that the index grows."""

import json
import os
import subprocess

import tools
from row_reads import fill
from tools import CLIENT_CPU, Failure, Report

BEGIN = 1_000_000
HOT_KEYS = 100_000
OVERWRITTEN_KEYS = 100_000
VALUE_SIZE = 64
# A quarter of what one server takes of such SETs: 19 M in 190 s, and GETs seldom stand behind them.
SET_RATE = 100_000
GET_RATE = 5_000
GETS = ["--op", "get", "--keys", HOT_KEYS, "--value-size", VALUE_SIZE, "--connections", 32]
SETS = ["--op", "set", "--value-size", VALUE_SIZE, "--connections", 50, "--depth", 16, "--rate",
        SET_RATE, "--warmup", 0]


class Writer:
    """A second client, beside the GETs."""

    def __init__(self, bench, server, *words):
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            bench.place(CLIENT_CPU) + tools.mvload_command(bench, server, *SETS, *words),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=tools.die_with_parent)

    def end(self):
        """Its own figures."""
        output, errors = self.process.communicate()
        if self.process.returncode != 0:
            raise Failure(f"the writer: {errors.strip()[-500:]}")
        return json.loads(output)


def measure(bench, server, seconds, *words):
    """GETs at a steady rate, ahead of the writer's turn on their processor: what is measured is the
    server, not who of the clients waits for whom."""
    before = server.health()
    first = ["chrt", "-f", "1"] if os.geteuid() == 0 else []
    command = tools.mvload_command(bench, server, *GETS, "--rate", GET_RATE, "--warmup", 0.5,
                                   "--seconds", seconds, *words)
    figures = tools.loaded(json.loads(bench.run(first + command, CLIENT_CPU)))
    after = server.health()
    misses = after["cache_misses"] - before["cache_misses"]
    if misses > 0:
        raise Failure(f"{misses:,} of the GETs were not answered from the cache")
    return figures


def beside(bench, server, seconds, *words):
    """The same while the writer is at work. Also what the writer reached."""
    writer = Writer(bench, server, *words)
    try:
        figures = measure(bench, server, seconds)
    finally:
        written = writer.end()
    return figures, written


def index_growth(bench):
    """GETs of cached keys, 5,000 a second, while another client inserts 19 M keys with values of 64
    bytes, 100,000 a second: beside the same GETs alone, and beside as many overwrites of cached
    keys. -durability interval, so that the device's flushes do not bound the growth."""
    end = 3_000_000 if bench.arguments.quick else 20_000_000
    seconds = bench.arguments.seconds
    server = tools.minivault(bench, 1024 if bench.arguments.quick else 6144, flags=("-durability", "interval"))
    server.start()
    fill(bench, server, BEGIN, VALUE_SIZE, "--connections", 50, "--depth", 64)
    tools.mvload(bench, server, *GETS, "--depth", 16, "--warmup", 0, "--seconds", 1)
    server.settle()
    figures = {"idle": measure(bench, server, seconds)}
    figures["overwrites"], overwritten = beside(
        bench, server, seconds, "--first-key", HOT_KEYS, "--keys", OVERWRITTEN_KEYS, "--seconds",
        seconds + 1)
    figures["growing"], grown = beside(
        bench, server, (end - BEGIN) / SET_RATE - 1, "--keys", 1, "--inserts", 1, "--first-insert",
        BEGIN, "--requests", end - BEGIN, "--seconds", 100_000)
    report = Report("GETs/s")
    report.contenders = {name: tools.summarize([figure]) for name, figure in figures.items()}
    report.ratio("growing", "idle", 2, key="p99.9", most=True, name="p99.9 growing / idle")
    report.ratio("growing", "overwrites", 2, key="p99.9", most=True,
                 name="p99.9 growing / overwrites")
    report.value("overwrites", overwritten["ops_per_second"], "a second")
    report.value("inserts", grown["ops_per_second"], "a second")
    report.value("keys at the end", server.health()["keys"])
    server.stop()
    return report
