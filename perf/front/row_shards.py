"""Two shards: what they reach, and what it costs that half of the keys are at the other one."""

import front
import tools
from front import BOTH_CPUS
from tools import Report

GETS = ["--op", "get", "--connections", 50, "--depth", 16]


def two_shards(bench):
    """GETs of any keys by two client threads, each pinned to one of the two CPUs on which the two
    shards run too, so that both servers have half of the connections in each thread. Half of the
    requests are for keys of the other shard."""
    servers = [front.bound(bench, 2), front.minivault(bench, shards=2, cpu=BOTH_CPUS)]
    front.fill(bench, servers[1])
    words = ["--threads", 2, "--pin", *GETS, *front.space(), *tools.times(bench)]
    report = Report()
    report.contenders = tools.interleave(bench, {
        server.name: lambda server=server: tools.loaded(
            front.load(bench, server, *words, cpu=BOTH_CPUS)) for server in servers})
    report.ratio("minivault", "bound-2", 0.7)
    return report


def cpu_per_request(bench, server, *words):
    """The server's CPU time a request, all its threads, from before the clients' first connection
    until after their last."""
    before = server.cpu_ns()
    result = front.load(bench, server, *words, "--warmup", 0, "--seconds", bench.arguments.seconds,
                        cpu=BOTH_CPUS)
    return dict(tools.loaded(result), cpu=(server.cpu_ns() - before) / result["replies"])


def cross_shard(bench):
    """GETs of keys that are all at the shard of the connection (it says which that is in its answer
    to HELLO), or all at the other one: the server's CPU time, user and system, per request.
    -busypoll 0, since a shard that waits awake would count as one that works."""
    server = front.minivault(bench, "-busypoll", 0, shards=2, cpu=BOTH_CPUS)
    front.fill(bench, server)
    words = ["--threads", 2, "--pin", "--hello", *GETS, *front.space(), "--locality"]
    report = Report()
    report.contenders = tools.interleave(bench, {
        name: lambda name=name: cpu_per_request(bench, server, *words, name)
        for name in ("local", "cross")})
    for name, figures in report.contenders.items():
        report.value(f"CPU of the server, {name}", figures["cpu"], "ns/GET")
    report.ratio("cross", "local", 1.35, key="cpu", most=True, name="CPU per GET, cross / local")
    return report
