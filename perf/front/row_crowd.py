"""50,000 connections: what they cost while they are idle, and how fast they come."""

import front
import tools
from crowd import Crowd, kernel_bytes
from front import BOTH_CPUS
from tools import KIB, MIB, Failure, Report

SHARDS = 4
BUSY = 1_000
# The client has half of its CPU to spare then: at 50,000 its own queue would be in the p99.
BUSY_RATE = 20_000
EXTRA = 5
EXTRA_MS_MAX = 1000
OPEN_SECONDS_MAX = 5
CONNECTION_BYTES_MAX = 8 * KIB


def busy(bench, server):
    """1,000 connections, open loop: latency counts from when a request was due."""
    return tools.loaded(front.load(
        bench, server, "--op", "get", "--connections", BUSY, "--depth", 4, "--rate", BUSY_RATE,
        *front.space(), *tools.times(bench)))


class Idle:
    """Measures 1,000 busy connections alone, or beside the idle ones, and what these take."""

    def __init__(self, bench, server):
        self.bench, self.server = bench, server
        self.count = bench.arguments.crowd - BUSY
        self.resident = server.resident()
        self.peak, self.kernel = 0, []

    def alone(self):
        return busy(self.bench, self.server)

    def beside(self):
        kernel = kernel_bytes()
        with Crowd(self.bench, self.server, self.count, cpu=tools.CLIENT_CPU) as crowd:
            crowd.require_all()
            self.kernel.append(kernel_bytes() - kernel)
            figures = busy(self.bench, self.server)
            self.peak = max(self.peak, self.server.resident())
            closed = crowd.end()["closed"]
        if closed:
            raise Failure(f"{self.server.name} has closed {closed} of {self.count} idle ones")
        return figures

    def bytes_each(self):
        return (self.peak - self.resident) / (self.count + BUSY)

    def kernel_each(self):
        return sorted(self.kernel)[len(self.kernel) // 2] / self.count


def servers(bench, cpu):
    """A bare one and ours, each with four threads; those of the bare one would only spin in each
    other's way."""
    count = bench.arguments.crowd
    bare = front.bound(bench, SHARDS, "--no-pin", "--connections", count, "--host", "0.0.0.0",
                       "--busy-poll", 0, cpu=cpu)
    ours = front.minivault(bench, "-connections", count, shards=SHARDS, cpu=cpu)
    front.fill(bench, ours)
    return bare, ours


def held(bench):
    """1,000 connections that ask 20,000 GETs a second, evenly spaced, alone and beside 49,000 idle
    ones that have asked one each: latencies; the server's memory above what it has with its keys
    and no connection; beside it what the kernel keeps for both ends of an idle connection."""
    report, contenders, crowds = Report("GETs/s"), {}, {}
    for server in servers(bench, tools.SERVER_CPU):
        crowds[server.name] = idle = Idle(bench, server)
        contenders[f"{server.name}, alone"] = idle.alone
        contenders[f"{server.name}, beside idle"] = idle.beside
    report.contenders = tools.interleave(bench, contenders)
    report.check("minivault's memory a connection", crowds["minivault"].bytes_each(),
                 CONNECTION_BYTES_MAX, most=True, unit="B")
    for name in "minivault", f"bound-{SHARDS}":
        report.ratio(f"{name}, beside idle", f"{name}, alone",
                     2 if name == "minivault" else None, key="p99", most=True,
                     name=f"p99 beside idle / alone, {name}")
        report.value(f"resident at most, {name}", crowds[name].peak / MIB, "MiB")
        report.value(f"the kernel's memory a connection, {name}", crowds[name].kernel_each(), "B")
    report.note("the kernel's: unreclaimable slab and socket buffers, both ends, of the crowd's "
                "rings as well")
    return report


def open_all(bench, server, extra):
    with Crowd(bench, server, bench.arguments.crowd, "--extra", extra) as crowd:
        crowd.require_all()
        opened = crowd.opened
        crowd.end()
    latency = opened["latency_us"]
    ends = opened["extra"]
    return {"rate": opened["answered"] / opened["seconds"], "p50": latency["p50"],
            "p99": latency["p99"], "p99.9": latency["max"], "seconds": opened["seconds"],
            "refused": sum(one["fate"] in ("end", "reset") for one in ends),
            "extra_ms": max((one["ms"] for one in ends), default=0)}


def opened_at_once(bench):
    """50,000 connections, 1,000 at a time being opened, each asking one GET: from the first connect
    to the last answer. Then five more, one after the other: each must see the end of the stream or
    a reset within a second. The p99.9 column has the slowest of all."""
    bare, ours = servers(bench, BOTH_CPUS)
    report = Report("answered/s")
    report.contenders = tools.interleave(bench, {
        bare.name: lambda: open_all(bench, bare, 0),
        ours.name: lambda: open_all(bench, ours, EXTRA)})
    figures = report.contenders[ours.name]
    report.check("until all were answered", figures["seconds"], OPEN_SECONDS_MAX, most=True,
                 unit="s")
    report.value(f"the same, {bare.name}", report.contenders[bare.name]["seconds"], "s")
    report.check(f"refused cleanly, of {EXTRA} beyond", figures["refused"], EXTRA, unit="")
    report.check("the slowest of these refusals", figures["extra_ms"], EXTRA_MS_MAX, most=True,
                 unit="ms")
    return report
