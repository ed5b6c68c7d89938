"""The rate limit: what is served, what is refused, and what each costs."""

import signal

import front
import tools
from tools import Failure, Report

LIMIT = 50_000
OFFERED = 500_000
TOLERANCE = 0.02
# Deep enough for most of a second of what is offered: the server refuses, no client waits.
LOAD = ["--hello", "--allow-refusals", "--op", "get", "--connections", 50, "--depth", 8192,
        "--rate", OFFERED]


def offer(bench, server, warmup=0):
    """CPU is of the whole run: it means something only without a warm-up, in which it would not be
    counted. What the burst gives at the start is a tenth of a second's requests, once."""
    before = server.cpu_ns()
    result = front.load(bench, server, *LOAD, *front.space(), "--warmup", warmup, "--seconds",
                        bench.arguments.seconds)
    if result["unsent"]:
        raise Failure(f"{result['unsent']} requests could not be offered in time")
    served = result["replies"] - result["refused"]
    return dict(tools.loaded(result), rate=served / result["seconds"],
                refused=result["refused"] / result["seconds"], cpu=server.cpu_ns() - before,
                served_count=served, refused_count=result["refused"])


def rate_limit(bench):
    """500,000 GETs a second offered in an open loop over 50 connections to a server with
    -ratelimit 50000, and to one without: what is served a second, once the bucket is empty; and,
    from the CPU time of both, what a refusal costs beside a request that is served. -busypoll 0,
    since waiting awake would count as work."""
    flags = ["-busypoll", 0]
    filled = front.minivault(bench, *flags, name="minivault-filled")
    front.fill(bench, filled)
    filled.end(signal.SIGTERM)
    limited = front.minivault(bench, *flags, "-ratelimit", LIMIT, name="minivault-limited",
                              folder=filled.folder)
    free = front.minivault(bench, *flags, name="minivault")
    front.fill(bench, free)
    report = Report("served/s")
    report.contenders = tools.interleave(bench, {
        "no limit": lambda: offer(bench, free),
        "limited": lambda: offer(bench, limited),
        "limited, after the burst": lambda: offer(bench, limited,
                                                  max(0.5, bench.arguments.warmup))})
    judge(report)
    return report


def judge(report):
    served = report.contenders["limited, after the burst"]["rate"]
    report.check("served a second, of the limit", served / LIMIT, 1 - TOLERANCE)
    report.check("served a second, of the limit", served / LIMIT, 1 + TOLERANCE, most=True)
    free, limited = report.contenders["no limit"], report.contenders["limited"]
    if not limited["refused_count"]:
        raise Failure("nothing was refused")
    per_served = free["cpu"] / free["served_count"]
    per_refusal = ((limited["cpu"] - per_served * limited["served_count"]) /
                   limited["refused_count"])
    report.note("every request was answered: the row breaks when one is not")
    report.value("refused", limited["refused"], "a second")
    report.value("CPU of the server a GET served", per_served, "ns")
    report.value("CPU of the server a refusal", per_refusal, "ns")
    report.check("CPU, a refusal / a served GET", per_refusal / per_served, 1, most=True)
