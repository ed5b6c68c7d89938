"""The many connections of a row, and what the kernel keeps for them."""

import json
import re
import subprocess
import time

import front
import tools
from tools import KIB, Failure

OPEN_SECONDS_MAX = 60
CLOSE_SECONDS_MAX = 30
SPARE_SOCKETS = 100  # of other programs
# Four rings hold 50,000 where a process may open 20,000 files.
THREADS = 4


class Crowd:
    """A running crowd; `opened` is what it said when all were open."""

    def __init__(self, bench, server, connections, *words, cpu=front.BOTH_CPUS):
        self.server, self.before = server, sockets()[0]
        command = [bench.tool("crowd"), "--port", str(server.port), "--connections",
                   str(connections), "--hold", "3600", "--timeout", str(OPEN_SECONDS_MAX)]
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            bench.place(cpu) + command + [str(word) for word in words], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=tools.die_with_parent)
        line = self.process.stdout.readline()
        if not line:
            raise Failure(f"crowd: {self.process.communicate()[1].strip()[-500:]}")
        self.opened = json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, problem, *_):
        """Waits until their sockets are closed on both sides."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if problem is None:
            wait_until_gone(self.before)

    def end(self):
        """What became of them."""
        try:
            output, _ = self.process.communicate("", timeout=CLOSE_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            raise Failure("crowd does not end") from None
        return json.loads(output)

    def require_all(self):
        """That each of them was answered."""
        if self.opened["failed"] or self.opened["error"]:
            raise Failure(f"against {self.server.name}: {self.opened['answered']} answered, "
                          f"{self.opened['failed']} failed: {self.opened['error']}\n"
                          f"its log ends:\n{self.server.log_tail()}")


def sockets():
    """TCP sockets in use on this machine, and the bytes that their buffers take."""
    with open("/proc/net/sockstat", encoding="ascii") as file:
        found = re.search(r"TCP: inuse (\d+) .*mem (\d+)", file.read())
    return int(found[1]), int(found[2]) * 4 * KIB


def kernel_bytes():
    """Slab and socket buffers, of the whole machine: only differences tell."""
    with open("/proc/meminfo", encoding="ascii") as file:
        slab = int(re.search(r"SUnreclaim:\s+(\d+)", file.read())[1]) * KIB
    return slab + sockets()[1]


def wait_until_gone(before):
    deadline = time.monotonic() + CLOSE_SECONDS_MAX
    while sockets()[0] > before + SPARE_SOCKETS:
        if time.monotonic() > deadline:
            raise Failure(f"{sockets()[0] - before} sockets are still there after "
                          f"{CLOSE_SECONDS_MAX} s")
        time.sleep(0.1)
    time.sleep(0.3)  # the server's own bookkeeping
