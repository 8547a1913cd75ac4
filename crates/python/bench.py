"""Compares pipes with what else Python programs use between processes, in one run.

    python bench.py [--seconds N] [--json]

Every row sends messages from one process to another. What is compared takes turns, a slice each, so that it meets the same machine.
A ratio is that of the medians to the pipe of multiprocessing.
"""

import argparse
import contextlib
import json
import multiprocessing
import socket
import statistics
import tempfile
import time
from multiprocessing import shared_memory

import shmpipe

try:
    import zmq
except ImportError:
    zmq = None

SIZES = [8, 64, 1024, 65536, 1 << 20]
BATCH = 256


class Shmpipe:
    """One call for each message."""

    name = "shmpipe, single calls"
    wait = None

    def make(self):
        self.there = shmpipe.create("sysv:private", capacity=4 << 20, wait=self.wait)
        self.back = shmpipe.create("sysv:private", capacity=4 << 20, wait=self.wait)
        self.addresses = [self.there.address, self.back.address]

    def ends(self, is_child):
        there, back = [shmpipe.open(address, wait=self.wait) for address in self.addresses]
        if is_child:
            self.consumer, self.producer = there.consumer(), back.producer()
        else:
            self.producer, self.consumer = there.producer(), back.consumer()

    def send(self, message, count):
        send = self.producer.send
        for _ in range(count):
            send(message)

    def recv(self, size, count):
        recv = self.consumer.recv
        for _ in range(count):
            recv()

    def remove(self):
        for address in self.addresses:
            shmpipe.unlink(address)


class ShmpipeSpin(Shmpipe):
    name = "shmpipe, polling"
    wait = "spin"


class ShmpipeMany(Shmpipe):
    """send_many and recv_many."""

    name = "shmpipe, many a call"

    def send(self, message, count):
        messages = [message] * min(BATCH, count)
        for first in range(0, count, BATCH):
            self.producer.send_many(messages[: count - first])

    def recv(self, size, count):
        while count:
            count -= len(self.consumer.recv_many(count))


class Pipe:
    name = "multiprocessing.Pipe"

    def make(self):
        self.pair = multiprocessing.Pipe()

    def ends(self, is_child):
        self.end = self.pair[is_child]

    def send(self, message, count):
        send = self.end.send_bytes
        for _ in range(count):
            send(message)

    def recv(self, size, count):
        recv = self.end.recv_bytes
        for _ in range(count):
            recv()

    def remove(self):
        pass


class Queue(Pipe):
    name = "multiprocessing.Queue"

    def make(self):
        self.queues = [multiprocessing.Queue(), multiprocessing.Queue()]

    def ends(self, is_child):
        self.out, self.into = self.queues[is_child], self.queues[not is_child]

    def send(self, message, count):
        put = self.out.put
        for _ in range(count):
            put(message)

    def recv(self, size, count):
        get = self.into.get
        for _ in range(count):
            get()


class Socket(Pipe):
    """A stream, so the reader counts bytes."""

    name = "Unix socket"

    def make(self):
        self.pair = socket.socketpair()

    def ends(self, is_child):
        self.end = self.pair[is_child]

    def send(self, message, count):
        send = self.end.sendall
        for _ in range(count):
            send(message)

    def recv(self, size, count):
        view = memoryview(bytearray(size))
        for _ in range(count):
            at = 0
            while at < size:
                at += self.end.recv_into(view[at:])
            bytes(view)


class SharedMemory:
    """A ring of one slot by hand: a flag, which the other side polls, and the bytes."""

    name = "shared_memory by hand"

    def make(self):
        self.memory = shared_memory.SharedMemory(create=True, size=2 * (16 + max(SIZES)))

    def ends(self, is_child):
        half = 16 + max(SIZES)
        halves = [self.memory.buf[:half], self.memory.buf[half:]]
        self.out, self.into = halves[is_child], halves[not is_child]

    def send(self, message, count):
        out, size = self.out, len(message)
        for _ in range(count):
            while out[0]:
                pass
            out[16 : 16 + size] = message
            out[0] = 1

    def recv(self, size, count):
        into = self.into
        for _ in range(count):
            while not into[0]:
                pass
            bytes(into[16 : 16 + size])
            into[0] = 0

    def remove(self):
        del self.out, self.into
        self.memory.close()
        self.memory.unlink()


class Zmq:
    name = "pyzmq ipc"

    def make(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addresses = [f"ipc://{self.directory.name}/{name}" for name in ("there", "back")]

    def ends(self, is_child):
        context = zmq.Context()
        kinds = [zmq.PULL, zmq.PUSH] if is_child else [zmq.PUSH, zmq.PULL]
        there, back = [context.socket(kind) for kind in kinds]
        for end, address in zip([there, back], self.addresses, strict=True):
            end.connect(address) if is_child else end.bind(address)
        self.out, self.into = (back, there) if is_child else (there, back)

    def send(self, message, count):
        send = self.out.send
        for _ in range(count):
            send(message)

    def recv(self, size, count):
        recv = self.into.recv
        for _ in range(count):
            recv()

    def remove(self):
        self.directory.cleanup()


WAYS = [ShmpipeMany, Shmpipe, ShmpipeSpin, Pipe, Queue, SharedMemory, Socket] + ([Zmq] if zmq else [])


def child(way, orders):
    """Does what the parent says, until it says nothing."""
    way.ends(True)
    while order := orders.recv():
        what, size, count = order
        if what == "stream":
            way.recv(size, count)
            orders.send("received")
        else:
            answer = bytes(size)
            for _ in range(count):
                way.recv(size, 1)
                way.send(answer, 1)


class Running:
    def __init__(self, kind):
        self.way = kind()
        self.way.make()
        self.orders, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=child, args=(self.way, theirs), daemon=True)
        self.process.start()
        self.way.ends(False)
        self.per_message, self.trips = {}, {}

    def stream(self, size, count):
        """Seconds a message."""
        message = bytes(size)
        self.orders.send(("stream", size, count))
        since = time.perf_counter()
        self.way.send(message, count)
        self.orders.recv()
        return (time.perf_counter() - since) / count

    def round_trips(self, size, count):
        """Seconds of each."""
        message, took = bytes(size), []
        self.orders.send(("trips", size, count))
        for _ in range(count):
            since = time.perf_counter()
            self.way.send(message, 1)
            self.way.recv(size, 1)
            took.append(time.perf_counter() - since)
        return took

    def end(self):
        self.orders.send(None)
        self.process.join()
        for end in ("producer", "consumer"):
            if hasattr(self.way, end):
                getattr(self.way, end).close()
        self.way.remove()


def measure(running, seconds):
    deadline = time.monotonic() + seconds
    counts = {}
    while time.monotonic() < deadline:
        for size in SIZES:
            for one in running:
                # Slices of about 20 ms.
                count = counts.setdefault((one.way.name, size), 32)
                took = one.stream(size, count)
                one.per_message.setdefault(size, []).append(took)
                counts[one.way.name, size] = max(32, min(100_000, int(0.02 / took)))
        for one in running:
            if not isinstance(one.way, ShmpipeMany):
                one.trips.setdefault(64, []).extend(one.round_trips(64, 200))


def report(running):
    rows = []
    base = next(one for one in running if one.way.name == Pipe.name)
    for size in SIZES:
        for one in running:
            median = statistics.median(one.per_message[size])
            rows.append(
                {
                    "what": "stream",
                    "size": size,
                    "way": one.way.name,
                    "messages_per_second": 1 / median,
                    "gigabytes_per_second": size / median / 1e9,
                    "times_multiprocessing_pipe": statistics.median(base.per_message[size]) / median,
                    "slices": len(one.per_message[size]),
                }
            )
    for one in running:
        if 64 in one.trips:
            trips = sorted(one.trips[64])
            rows.append(
                {
                    "what": "round trip",
                    "size": 64,
                    "way": one.way.name,
                    "p50_us": 1e6 * trips[len(trips) // 2],
                    "p99_us": 1e6 * trips[len(trips) * 99 // 100],
                    "times_multiprocessing_pipe": statistics.median(base.trips[64]) / statistics.median(trips),
                    "slices": len(trips) // 200,
                }
            )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--json", action="store_true", help="one object a row")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as ends:
        running = []
        for kind in WAYS:
            running.append(Running(kind))
            ends.callback(running[-1].end)
        measure(running, arguments.seconds)
    for row in report(running):
        if arguments.json:
            print(json.dumps(row))
        elif row["what"] == "stream":
            print(
                f"{row['size']:>8} B  {row['way']:<24} {row['messages_per_second']:>12,.0f} /s"
                f" {row['gigabytes_per_second']:>7.2f} GB/s {row['times_multiprocessing_pipe']:>7.2f} x  n = {row['slices']}"
            )
        else:
            print(
                f"{row['size']:>8} B  {row['way']:<24} round trip p50 {row['p50_us']:>8.2f} us, p99 {row['p99_us']:>8.2f} us"
                f" {row['times_multiprocessing_pipe']:>7.2f} x  n = {row['slices']}"
            )


if __name__ == "__main__":
    main()
