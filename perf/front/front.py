"""What the rows of the front share: servers on several CPUs, their CPU time, what a build has."""

import functools
import glob
import json
import re
import subprocess

import tools
from tools import Absent, Failure

BOTH_CPUS = f"{tools.SERVER_CPU},{tools.CLIENT_CPU}"
KEYS = 100_000
VALUE_SIZE = 100
RUN_SECONDS_MAX = 120


class Server(tools.Server):
    """A server on CPUs of its choice, whose clients may also come by HTTP."""

    def __init__(self, bench, name, protocol, command, cpu=tools.SERVER_CPU, folder=None):
        self.http_port = tools.free_port()
        command = [word.replace("{http}", str(self.http_port)) for word in command]
        super().__init__(bench, name, protocol, command, folder)
        placed = len(bench.place(tools.SERVER_CPU))
        self.command = bench.place(cpu) + self.command[placed:]

    def cpu_ns(self):
        """What all of its threads have run, in user and in kernel mode."""
        total = 0
        for path in glob.glob(f"/proc/{self.process.pid}/task/*/schedstat"):
            try:
                with open(path, encoding="ascii") as file:
                    total += int(file.read().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                pass  # a thread that has just ended
        return total

    def resident_most(self):
        """The most bytes that it ever had resident."""
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as file:
            return int(re.search(r"VmHWM:\s+(\d+)", file.read())[1]) * tools.KIB

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()


@functools.lru_cache
def help_text(binary):
    return subprocess.run([binary, "--help"], capture_output=True, text=True, check=False,
                          timeout=10).stdout


def has_flag(bench, flag):
    return re.search(rf"(?m)^\s+-{flag}\b", help_text(bench.arguments.minivault)) is not None


def minivault(bench, *flags, shards=1, name="minivault", cpu=tools.SERVER_CPU, folder=None,
              durability="commit"):
    """Started. With one shard also a build that knows no other number."""
    command = [bench.arguments.minivault, "-port", "{port}", "-data", "{folder}", "-durability",
               durability, *bench.arguments.minivault_flags.split(), *map(str, flags)]
    if has_flag(bench, "shards"):
        command += ["-shards", str(shards)]
    elif shards > 1:
        raise Absent("-shards")
    server = Server(bench, name, "binary", command, cpu, folder)
    server.start()
    later = re.search(r"(-(?:http|ratelimit)) \d+: .*comes with a later release", server.log())
    if later:
        raise Absent(later[1])
    return server


def bound(bench, threads, *flags, cpu=BOTH_CPUS, name=None):
    server = Server(bench, name or f"bound-{threads}", "binary", [
        bench.tool("bound"), "--port", "{port}", "--threads", str(threads), "--value-size",
        str(VALUE_SIZE), "--busy-poll", str(bench.arguments.bound_busy_poll),
        *map(str, flags)], cpu)
    server.start()
    return server


def load(bench, server, *words, cpu=tools.CLIENT_CPU, port=None):
    """One run of mvload; its JSON. A run with an error or a miss is no measurement."""
    command = [bench.tool("mvload"), "--json", "--port", str(port or server.port)]
    try:
        output = bench.run(command + [str(word) for word in words], cpu, timeout=RUN_SECONDS_MAX)
    except Failure as failure:
        raise Failure(f"against {server.name}: {failure}\nits log ends:\n"
                      f"{server.log_tail()}") from None
    return json.loads(output)


def fill(bench, server, keys=KEYS, value_size=VALUE_SIZE):
    load(bench, server, "--prefill", "--seconds", 0, "--keys", keys, "--value-size", value_size,
         cpu=BOTH_CPUS)


def space(value_size=VALUE_SIZE):
    """The words that name the keys of fill."""
    return ["--keys", KEYS, "--value-size", value_size]
