"""What the rows of compare share: servers, load generators, what the kernel and the disk tell."""

import ctypes
import json
import os
import random
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SERVER_CPU = "0"
CLIENT_CPU = "1"
KEY_SIZE = 16
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
START_SECONDS_MAX = 120
PR_SET_PDEATHSIG = 1
HEALTH = 5


class Failure(Exception):
    """Something the user must know; ends the row."""


class Absent(Exception):
    """What the row is about is not in this build."""


def say(text):
    print("compare: " + text, file=sys.stderr, flush=True)


def die_with_parent():
    """Runs in the child: should we be killed without a chance to clean up, it goes too."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port():
    """Below those that outgoing connections are given: one of them could have it by the time."""
    while True:
        port = random.randrange(12000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


def filesystem_of(path):
    """The type of the filesystem that holds path: the longest mount point above it."""
    best, kind = "", "unknown"
    with open("/proc/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            _, point, mount_kind = line.split()[:3]
            if (path + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(best):
                best, kind = point, mount_kind
    return kind


def disk_usage(folder):
    """Bytes of the blocks that everything below takes, as du counts."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(path, name)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total


def files_of(folder):
    return [os.path.join(path, name) for path, _, names in os.walk(folder) for name in names]


def forget_pages(folder):
    """The page cache forgets these files, and no others."""
    for path in files_of(folder):
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def spread(folder):
    """On ext4 each folder in this one lies in another part of the disk. Otherwise all are close to
    where the contender before has just removed thousands of files, and an ext4 without a journal
    steps over their inodes for minutes, one by one, for each new file. Elsewhere nothing happens."""
    subprocess.run(["chattr", "+T", folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   check=False)


def cat(paths):
    """Reads files from their start to their end, as cat does. Returns seconds and bytes."""
    start, size = time.monotonic(), 0
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while data := file.read(MIB):
                size += len(data)
    return time.monotonic() - start, size


class Bench:
    """The command line, the folder for everything, and what is running."""

    def __init__(self, arguments, folder):
        self.arguments = arguments
        self.folder = folder
        self.running = []

    def tool(self, name):
        return os.path.join(self.arguments.bin, name)

    def place(self, cpu):
        """What goes before a command line; None: any cpu."""
        urgent = ["nice", "-n", "-20"] if self.arguments.urgent else []
        if cpu is None or self.arguments.no_pin:
            return urgent
        return urgent + ["taskset", "-c", cpu]

    def make_folder(self, name):
        path = os.path.join(self.folder, name)
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(path)
        spread(path)
        return path

    def remove(self, path):
        """Also lets the file system get over it."""
        shutil.rmtree(path, ignore_errors=True)
        os.sync()

    def run(self, command, cpu, **more):
        """The standard output of a program that ends by itself."""
        done = subprocess.run(self.place(cpu) + command, capture_output=True, text=True,
                              check=False, **more)
        if done.returncode != 0:
            raise Failure(f"{' '.join(command)}: exit code {done.returncode}:\n"
                          f"{done.stderr.strip()[-1500:]}\n{done.stdout.strip()[-500:]}")
        return done.stdout

    def stop_all(self):
        for server in self.running[:]:
            server.stop()


class Server:
    """A server under test: its process, its port, its folder, its log."""

    def __init__(self, bench, name, protocol, command, folder=None):
        self.bench, self.name, self.protocol = bench, name, protocol
        self.port = free_port()
        self.folder = folder or bench.make_folder(name)
        self.log_path = os.path.join(bench.folder, name + ".log")
        words = {"port": str(self.port), "folder": self.folder}
        self.command = bench.place(SERVER_CPU) + [word.format(**words) for word in command]
        self.process = None
        bench.running.append(self)

    def start(self):
        """Returns the seconds until it answered."""
        began = time.monotonic()
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(  # pylint: disable=consider-using-with
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                start_new_session=True, preexec_fn=die_with_parent)
        while time.monotonic() < began + START_SECONDS_MAX:
            if self.process.poll() is not None:
                raise Failure(f"{self.name} ended at its start:\n{self.log_tail()}")
            try:
                if self.protocol == "binary" and self.name.startswith("minivault"):
                    self.health()
                else:
                    socket.create_connection(("127.0.0.1", self.port), 1).close()
                return time.monotonic() - began
            except OSError:
                time.sleep(0.01)
        raise Failure(f"{self.name} does not answer on port {self.port}:\n{self.log_tail()}")

    def end(self, number, seconds=60):
        """Sends a signal and waits for the end; started again, it has the same folder."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            if number == signal.SIGTERM:
                raise Failure(f"{self.name} did not end in {seconds} s:\n{self.log_tail()}") \
                    from None

    def stop(self, keep=False):
        """For good: its files go too."""
        try:
            self.end(signal.SIGKILL)
        finally:
            if self in self.bench.running:
                self.bench.running.remove(self)
            if not keep:
                self.bench.remove(self.folder)

    def log_tail(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return "".join("    " + line for line in log.readlines()[-8:])

    def health(self):
        """minivault's own figures."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as client:
            client.sendall(struct.pack("<BH", HEALTH, 0))
            data = b""
            while len(data) < 5 or len(data) < 5 + struct.unpack("<I", data[1:5])[0]:
                piece = client.recv(65536)
                if not piece:
                    raise OSError("closed")
                data += piece
        return json.loads(data[5:])

    def io(self):
        """/proc/PID/io: the kernel's count of what the process read from and wrote to devices."""
        with open(f"/proc/{self.process.pid}/io", encoding="utf-8") as file:
            return {name: int(value) for name, value in re.findall(r"(\w+): (\d+)", file.read())}

    def written(self):
        return self.io()["write_bytes"]

    def resident(self):
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as file:
            return int(re.search(r"VmRSS:\s+(\d+)", file.read())[1]) * KIB

    def settle(self, quiet=1.5, seconds=60):
        """Until it has written nothing for a while: background work is done."""
        deadline = time.monotonic() + seconds
        last, since = self.written(), time.monotonic()
        while time.monotonic() < min(deadline, since + quiet):
            time.sleep(0.1)
            now = self.written()
            if now != last:
                last, since = now, time.monotonic()
        return time.monotonic() < deadline


def minivault(bench, cache_mib, name="minivault", folder=None, flags=()):
    return Server(bench, name, "binary", [
        bench.arguments.minivault, "-port", "{port}", "-data", "{folder}", "-durability", "commit",
        "-cache", str(cache_mib), *bench.arguments.minivault_flags.split(), *flags], folder)


def redis_always(bench):
    return Server(bench, "redis-always", "resp", [
        "redis-server", "--port", "{port}", "--bind", "127.0.0.1", "--dir", "{folder}", "--save",
        "", "--auto-aof-rewrite-percentage", "0", "--appendonly", "yes", "--appendfsync",
        "always"])


def durable(bench, writes):
    return Server(bench, f"durable-{writes}", "binary", [
        bench.tool("bound"), "--port", "{port}", "--busy-poll", "50", "--durable", "{folder}",
        "--writes", str(writes)])


def loopback(bench, value_size):
    return Server(bench, "loopback", "binary", [
        bench.tool("loopback"), "--port", "{port}", "--value-size", str(value_size)])


def mvload_command(bench, server, *words):
    return [bench.tool("mvload"), "--json", "--noise", "--protocol", server.protocol, "--port",
            str(server.port), "--key-size", str(KEY_SIZE)] + [str(word) for word in words]


def mvload(bench, server, *words):
    """One run; mvload's JSON. A run with an error or a miss is no measurement."""
    try:
        return json.loads(bench.run(mvload_command(bench, server, *words), CLIENT_CPU))
    except Failure as failure:
        raise Failure(f"against {server.name}: {failure}\nits log ends:\n"
                      f"{server.log_tail()}") from None


def loaded(result, size=1):
    """mvload's result as figures of a contender; size: bytes a request is counted as."""
    latency = result["latency_us"]
    return {"rate": result["ops_per_second"] * size, "p50": latency["p50"], "p99": latency["p99"],
            "p99.9": latency["p99.9"], "client": result["client_cpu"]}


def times(bench, seconds=None):
    arguments = bench.arguments
    return ["--warmup", arguments.warmup, "--seconds", seconds or arguments.seconds]


def fio(bench, name, *words):
    """One job; fio's JSON of it. Its latency is that of a whole request."""
    command = ["fio", f"--name={name}", "--output-format=json", "--group_reporting", "--thread",
               "--direct=1", "--randrepeat=0", "--norandommap"] + list(words)
    output = bench.run(command, SERVER_CPU, cwd=bench.folder)
    return json.loads(output[output.index("{"):])["jobs"][0]


def fio_figures(part, value):
    latency = part["clat_ns"]["percentile"]
    return {"rate": value, "p50": latency["50.000000"] / 1e3, "p99": latency["99.000000"] / 1e3,
            "p99.9": latency["99.900000"] / 1e3}


def lay_out(bench, path, size, files=1):
    """Files of noise, really written: reads of reserved blocks would never reach the device."""
    os.makedirs(path, exist_ok=True)
    bench.run(["fio", "--name=file", "--output-format=json", f"--directory={path}", "--rw=write",
               "--bs=1m", "--direct=1", "--ioengine=io_uring", "--iodepth=4", "--refill_buffers",
               "--end_fsync=1", "--fallocate=none", f"--size={size // files}",
               f"--numjobs={files}", "--filename_format=file.$jobnum"], None)
    return path


def interleave(bench, contenders):
    """name: function that measures once. Returns name: medians, with least and most of the rate.
    Rounds rotate the order, so that a slow minute of the machine hits all."""
    names, runs = list(contenders), {name: [] for name in contenders}
    for number in range(bench.arguments.rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            os.sync()  # nobody pays for the dirty pages of the one before
            figures = contenders[name]()
            runs[name].append(figures)
            say(f"  round {number + 1}/{bench.arguments.rounds} {name}: {figures['rate']:,.1f}")
    return {name: summarize(figures) for name, figures in runs.items()}


def summarize(figures):
    merged = {key: statistics.median(figure[key] for figure in figures) for key in figures[0]}
    rates = [figure["rate"] for figure in figures]
    return dict(merged, least=min(rates), most=max(rates))


class Report:
    """What a row has found: figures of contenders, single values, ratios with what is required."""

    def __init__(self, unit="requests/s"):
        self.unit = unit
        self.contenders, self.values, self.checks, self.notes = {}, [], [], []

    def value(self, what, number, unit=""):
        self.values.append({"what": what, "value": number, "unit": unit})

    def note(self, text):
        self.notes.append(text)

    def check(self, what, value, required, most=False, unit="x"):
        """`most`: at most `required`, else at least. required None: only told."""
        result = None
        if required is not None:
            result = "PASS" if (value <= required if most else value >= required) else "MISS"
        self.checks.append({"what": what, "value": value, "unit": unit, "required": required,
                            "sense": "at most" if most else "at least", "result": result})

    def ratio(self, ours, base, required, key="rate", most=False, name=None):
        bottom = self.contenders[base][key]
        value = self.contenders[ours][key] / bottom if bottom else float("inf")
        self.check(name or f"{ours} / {base}", value, required, most)

    def better(self, name, names, lower=False):
        """The best (or the lowest) of several contenders becomes one of its own, not printed."""
        pick = min if lower else max
        best = pick(names, key=lambda each: self.contenders[each]["rate"])
        self.contenders[name] = dict(self.contenders[best], alias=best)
