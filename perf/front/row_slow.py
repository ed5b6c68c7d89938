"""Clients that ask for much and hardly read."""

import socket
import struct
import time

import front
import tools
from crowd import Crowd, kernel_bytes
from tools import KIB, MIB, Failure, Report

READERS = 1_000
BUSY = ["--op", "get", "--connections", 50, "--depth", 16]
BUSY_CONNECTIONS = 50
CACHE = 256
SETTLE_SECONDS = 2
# What each reader is owed: (name, size of the value, how many GETs).
OWED = [("1 x 100 MiB", 100 * MIB, 1), ("100 x 1 MiB", MIB, 100),
        ("1,000 x 100 KiB", 100 * KIB, 1000)]
# docs/operations.md, "Memory": large answers in no cache, and what is fixed. Nobody here sends a
# request in parts.
FIXED = (192 + 240) * MIB
KEY_BYTES = 32
CONNECTION_BYTES = 8 * KIB


def budget():
    keys = front.KEYS + len(OWED)
    connections = READERS + BUSY_CONNECTIONS
    return CACHE * MIB + KEY_BYTES * keys + CONNECTION_BYTES * connections + FIXED


def set_value(server, key, size):
    head = struct.pack("<BH", 2, len(key)) + key + struct.pack("<IB", size, 0)
    with socket.create_connection(("127.0.0.1", server.port), 60) as client:
        client.sendall(head + b"v" * size)
        if client.recv(5) != bytes(5):
            raise Failure(f"a SET of {size} bytes was refused")


class Slow:
    """Measures the busy ones beside the readers of one value."""

    def __init__(self, bench, server, size, asks):
        self.bench, self.server, self.size, self.asks = bench, server, size, asks
        self.key = f"owed:{size}"
        self.closed, self.kernel = [], []
        set_value(server, self.key.encode(), size)

    def measure(self):
        kernel = kernel_bytes()
        with Crowd(self.bench, self.server, READERS, "--slow", "--key", self.key, "--value-size",
                   self.size, "--asks", self.asks, cpu=tools.CLIENT_CPU) as crowd:
            crowd.require_all()
            time.sleep(SETTLE_SECONDS)
            figures = busy(self.bench, self.server)
            self.kernel.append(kernel_bytes() - kernel)
            self.closed.append(crowd.end()["closed"])
        return figures


def busy(bench, server):
    return tools.loaded(front.load(bench, server, *BUSY, *front.space(), *tools.times(bench)))


def slow_readers(bench):
    """1,000 readers that are each owed 100 MiB and take a byte a second, come again when they are
    closed, beside 50 connections that keep 16 GETs in flight each: these, beside themselves alone,
    and the most memory that the server ever had resident, beside its budget."""
    server = front.minivault(bench, "-cache", CACHE)
    front.fill(bench, server)
    readers = {f"beside {name}": Slow(bench, server, size, asks) for name, size, asks in OWED}
    report = Report("GETs/s")
    contenders = {"alone": lambda: busy(bench, server)}
    contenders.update((name, slow.measure) for name, slow in readers.items())
    report.contenders = tools.interleave(bench, contenders)
    for name in readers:
        report.ratio(name, "alone", 0.8)
    report.check("resident at most, of its budget", server.resident_most() / budget(), 1, most=True)
    report.value("resident at most", server.resident_most() / MIB, "MiB")
    for name, slow in readers.items():
        report.value(f"kernel's memory, {name}", max(slow.kernel) / MIB, "MiB")
        report.value(f"closed by the server, {name}", max(slow.closed))
    return report
