#!/usr/bin/env python3
"""Runs the system tests: run.py [--binary PATH] [--jobs N] [--list] [NAME...]

A NAME selects the tests whose names contain it. Each test has its own server and directory, under
build/system; the directory of a failed test is kept. With --jobs several tests run at a time, each in
a process of its own: most of them wait more than they work.
"""
import argparse
import contextlib
import io
import multiprocessing
import pathlib
import random
import shutil
import signal
import sys
import time
import traceback

import disks
import harness


class TimeIsUp(BaseException):
    """Not an Exception, so that no test takes it for an answer."""


def on_alarm(*_):
    raise TimeIsUp


def reason_of(error):
    """What went wrong and where, in a line."""
    where = traceback.extract_tb(error.__traceback__)
    places = " < ".join(f"{pathlib.Path(f.filename).name}:{f.lineno}" for f in reversed(where[1:]))
    return f"{type(error).__name__} {' '.join(str(error).split())[:300]} at {places}"


def run(name, function, seconds, options):
    """'passed', 'failed' or 'skipped'."""
    disks.unmount_below(harness.ROOT / "build" / "system" / name)
    context = harness.Context(name, options)
    random.seed(options.seed)
    begin = time.monotonic()
    outcome, detail = "passed", ""
    signal.alarm(seconds * (4 if "asan" in str(options.binary) else 1) * min(options.jobs, 2))
    try:
        function(context)
        context.finish()
    except harness.Skip as reason:
        outcome, detail = "skipped", f": {reason}"
    except (Exception, TimeIsUp) as error:  # whatever a test raises is its failure
        outcome, detail = "failed", f": {reason_of(error)}"
        traceback.print_exc(file=sys.stdout)
        for server in context.servers:
            print(f"--- the log of {server.directory}:\n{server.log()}")
    signal.alarm(0)
    context.clean(keep=outcome == "failed")
    print(f"{outcome:8}{name} ({time.monotonic() - begin:.1f} s){detail}", flush=True)
    return outcome


def run_quietly(test_and_options):
    """(outcome, what it printed), of a test that runs beside others."""
    (name, function, _, seconds), options = test_and_options
    with contextlib.redirect_stdout(io.StringIO()) as text:
        outcome = run(name, function, seconds, options)
    return outcome, text.getvalue()


def run_all(tests, options):
    """The outcomes, in no order."""
    if options.jobs == 1:
        return [run(name, function, seconds, options) for name, function, _, seconds in tests]
    outcomes = []
    with multiprocessing.get_context("fork").Pool(options.jobs) as pool:
        for outcome, text in pool.imap_unordered(run_quietly, [(t, options) for t in tests]):
            print(text, end="", flush=True)
            outcomes.append(outcome)
    for image in (harness.ROOT / "build" / "system").glob("admin.image.*"):
        shutil.rmtree(image)  # its process ended without its own clean-up
    return outcomes


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=pathlib.Path, default=harness.ROOT / "minivault")
    parser.add_argument("--rounds", type=int, default=20,
                        help="of kill -9; half as many of each kind of mutation, six times as many "
                             "of verdicts (default 20)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="leave the slow ones out")
    parser.add_argument("--soak", action="store_true", help="those that take long, and no others")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--jobs", type=int, default=1, help="tests at a time")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--shards", type=int, help="of servers that a test does not give a count")
    options = parser.parse_args()
    harness.Server.shards = options.shards
    harness.Server.patience = 1 if options.jobs == 1 else 3
    options.binary = options.binary.resolve()

    import admin, basic, hostile, crash, large, lifecycle  # noqa: E401, F401: they register their tests
    import mutation, diskfull, shutdown, filesystems, scrub, memory, moves, shards, web  # noqa: E401, F401
    import http_clients, haproxy, operations, confined, edges, limits, space, damage  # noqa: E401, F401
    import verdicts, refusals  # noqa: E401, F401
    tests = [t for t in (harness.SOAKS if options.soak else harness.TESTS)
             if (not options.names or any(name in t[0] for name in options.names))
             and not (options.quick and t[2])]
    if options.list:
        print("\n".join(name for name, *_ in tests))
        return 0
    harness.raise_file_limit()
    signal.signal(signal.SIGALRM, on_alarm)
    count = run_all(tests, options).count
    skipped = f", {count('skipped')} skipped" if count("skipped") else ""
    print(f"system: {count('passed')} passed, {count('failed')} failed{skipped}")
    return 1 if count("failed") or not count("passed") else 0


if __name__ == "__main__":
    sys.exit(main())
