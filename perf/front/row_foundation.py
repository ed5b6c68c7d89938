"""The foundation's table, with one shard."""

import json
import os
import subprocess

import front
import tools
from tools import Failure, Report

COMPARE = os.path.join(tools.ROOT, "perf", "compare")
SECONDS_MAX = 3600


def foundation(bench):
    """Every row of perf/compare, which has its own contenders and pins them itself."""
    arguments = bench.arguments
    flags = arguments.minivault_flags + (" -shards 1" if front.has_flag(bench, "shards") else "")
    command = [COMPARE, "--json", "--rounds", str(arguments.rounds), "--seconds",
               str(arguments.seconds), "--minivault", arguments.minivault,
               f"--minivault-flags={flags}", "--data-root", bench.folder, "--mvload",
               bench.tool("mvload"), "--bound", bench.tool("bound")]
    command += ["--no-pin"] * arguments.no_pin + ["--urgent"] * arguments.urgent
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False,
                          timeout=SECONDS_MAX)
    if done.returncode not in (0, 1):
        raise Failure(f"perf/compare: exit code {done.returncode}")
    table = json.loads(done.stdout)
    if table["void"]:
        raise Failure("perf/compare: void, a bound is too slow to judge by")
    report = Report()
    for row in table["rows"]:
        for check in row["checks"]:
            if check["ratio"] is None:
                raise Failure(f"perf/compare: {row['row']} was not measured")
            report.check(f"{row['row']}: {check['subject']} / {check['base']}", check["ratio"],
                         check["required"])
    return report
