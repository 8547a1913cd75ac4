"""Rounds of numbered messages through one pipe, under kills."""

import os
import random
import time

import layout
import peers
import sysv
from layout import HEAD
from kernel import ACQUIRE
from peers import Fault


def remove_by(kind, name):
    if kind == "python":
        peers.PythonProcess(sysv.remove_pipe, name).expect(peers.OK)
    else:
        peers.CommandLine("rm", name).expect(peers.OK)


def remove_remains(name):
    """After a fault, nothing is to remain of the pipe, whatever is wrong with it."""
    if sysv.find_segment(sysv.key_of(name)) or sysv.Set.find(sysv.key_of(name)):
        peers.CommandLine("rm", "--force", name).wait()


WAKE_MODES = {"membarrier": layout.MEMBARRIER, "fence": layout.FENCE, "never": layout.NO_SLEEP}


def create_and_leave(name, parameters):
    sysv.open_pipe(name, parameters).leave()


def create_by(kind, name, capacity, wake, remove_on_close=False):
    if kind == "python":
        flags = layout.REMOVED_WHEN_CLOSED if remove_on_close else 0
        parameters = sysv.Parameters(capacity, wake_mode=WAKE_MODES[wake], flags=flags)
        return peers.PythonProcess(create_and_leave, name, parameters)
    more = ["--remove-on-close"] if remove_on_close else []
    return peers.CommandLine("create", name, "--capacity", str(capacity), "--wake", wake, *more)


class Totals:
    def __init__(self):
        self.messages = self.kills = self.repeats = self.rounds = 0


class Round:
    """One pipe. Each side is a sequence of processes, written in Python or not; each is killed, or ends as planned."""

    patience = 20  # seconds without any progress

    def __init__(self, seed, messages_module, totals):
        self.luck = random.Random(seed)
        self.totals = totals
        self.name = f"independent-{os.getpid()}-{seed}"
        self.capacity = self.luck.choice((4096, 4096, 8192, 65536))
        self.wake = self.luck.choice(("membarrier", "fence"))
        self.messages = messages_module.Messages(seed, self.capacity, self.luck.randrange(500, 3000))
        self.total = self.messages.total
        self.producer = self.consumer = None
        self.committed = self.received = self.released = 0
        # After how many messages a producer closed, aborted or died: what a consumer has received when it reports that.
        self.closes, self.aborts, self.deaths = set(), set(), set()
        self.consumer_has_ended = False

    def run(self):
        create_by(self.kind(), self.name, self.capacity, self.wake).expect(peers.OK)
        self.memory, _ = sysv.watch(self.name)
        try:
            self.pump()
            remove_by(self.kind(), self.name)
        finally:
            for process in (self.producer, self.consumer):
                if process is not None:
                    process.kill()
            self.memory.detach()
            remove_remains(self.name)
        self.totals.rounds += 1
        self.totals.messages += self.total

    def kind(self):
        return self.luck.choice(("python", "shmpipe"))

    def pump(self):
        kills = self.luck.randrange(4, 20)
        next_kill = time.monotonic() + self.luck.random() * 0.2
        self.progress = time.monotonic()
        last_seen = None
        while self.released < self.total:
            if self.producer is None and self.committed < self.total:
                self.start_producer()
            if self.consumer is None:
                self.start_consumer()
            time.sleep(0.001)
            now = time.monotonic()
            if kills and now >= next_kill:
                kills -= 1
                next_kill = now + self.luck.choice((0, 0.02, 0.1, 0.3)) * self.luck.random() * 2
                self.kill(self.luck.choice(("producer", "consumer")))
            if self.producer is not None and self.producer.poll() is not None:
                self.producer_ended()
            if self.consumer is not None and self.consumer.poll() is not None:
                self.consumer_ended()
            seen = self.memory.load(layout.TAIL), self.memory.load(HEAD), self.producer, self.consumer
            if seen != last_seen:
                last_seen, self.progress = seen, now
            elif now - self.progress > self.patience:
                raise Fault(f"no progress for {self.patience} s: {self.describe()}")
            if self.committed == self.total and self.number(self.memory.load(HEAD, ACQUIRE)) == self.total:
                break
        self.finish()

    def finish(self):
        """Everything was released. The end may already have been reported to a consumer that was killed."""
        if self.producer is not None:
            self.producer.wait()
            self.producer_ended()
        if self.consumer is not None:
            end = time.monotonic() + 0.3
            while self.consumer.poll() is None and time.monotonic() < end:
                time.sleep(0.002)
            if self.consumer.poll() is None:
                self.consumer.kill()
            self.consumer_ended()
        if self.released != self.total or self.received != self.total:
            raise Fault(f"{self.received} received, {self.released} released of {self.total}")

    def kill(self, side):
        process = getattr(self, side)
        if process is not None:
            process.kill()

    def start(self, function, *arguments):
        """Some Python processes are killed after a number of lines instead, since time seldom hits the shortest windows."""
        if self.luck.random() < 0.4:
            function, arguments = peers.killed_at_line, (self.luck.randrange(6000), function, *arguments)
        return peers.PythonProcess(function, *arguments)

    # The producer

    def start_producer(self):
        first = self.committed
        self.first, self.last, self.abort_code = first, self.total, None
        if self.luck.random() < 0.2:
            self.last = self.luck.randrange(first, self.total + 1)
        if self.kind() == "python":
            if self.last < self.total and self.luck.random() < 0.5:
                self.abort_code = self.luck.randrange(1 << 32)
            self.producer = self.start(peers.produce, self.name, self.messages, self.last, self.messages.positions[first],
                                       self.abort_code, self.luck.random())
        else:
            self.producer = peers.Sender(self.name, self.messages, first, self.last)

    def producer_ended(self):
        code, producer, self.producer = self.producer.code, self.producer, None
        self.committed = self.find_committed()
        if code == peers.OK:
            if self.committed != self.last:
                raise Fault(f"{producer.what} ended well, and did not send {self.first} to {self.last}: {self.describe()} {producer.errors()}")
            (self.closes if self.abort_code is None else self.aborts).add(self.committed)
        elif code == peers.ENDED:
            self.closes.add(self.committed)
            self.aborts.add(self.committed)
            if not self.consumer_has_ended and self.consumer is not None:
                self.consumer.wait()
                self.consumer_ended()
            if not self.consumer_has_ended:
                raise Fault(f"{producer.what} noticed an end that was none: {producer.errors()}")
        elif code == -9:
            self.totals.kills += 1
            for ends in (self.closes, self.aborts, self.deaths):
                ends.add(self.committed)
        else:
            raise Fault(f"{producer.what} ended with {code}: {producer.errors()}")

    def find_committed(self):
        """Walks the ring from the read position. No process writes to it now; the consumer may read meanwhile."""
        at = self.memory.load(HEAD, ACQUIRE)
        number = self.number(at)
        while (record := self.memory.record_at(at)) is not None:
            if number >= self.total or (record.start, record.length) != self.messages.place(number):
                raise Fault(f"message {number} is not where it belongs")
            at = record.end
            number += 1
        if number < self.committed:
            raise Fault(f"{self.committed} messages were committed, now {number}")
        return number

    def number(self, position):
        number = self.messages.number_at(position)
        if number is None:
            raise Fault(f"no message ends at {position}")
        return number

    # The consumer

    def start_consumer(self):
        self.output = os.path.join(peers.directory, "output")
        open(self.output, "wb").close()
        follow, limit, code = self.luck.random() < 0.6, None, None
        if self.luck.random() < 0.2:
            limit = self.luck.randrange(1, 300)
        if self.kind() == "python":
            if limit is not None and self.luck.random() < 0.5:
                code = self.luck.randrange(1 << 32)
            self.consumer = self.start(peers.consume, self.name, self.output, follow, limit, code, self.luck.random())
        else:
            more = (["--follow"] if follow else []) + (["--count", str(limit)] if limit else [])
            with open(self.output, "ab") as output:
                self.consumer = peers.CommandLine("recv", "--length-prefixed", self.name, *more, stdout=output)
        self.limit = limit

    def consumer_ended(self):
        """Compares its output with what it had to receive, and with what it released."""
        code, consumer, self.consumer = self.consumer.code, self.consumer, None
        if code not in (peers.OK, peers.ENDED, -9):
            raise Fault(f"{consumer.what} ended with {code}: {consumer.errors()}")
        expected = self.released
        found, cut = peers.frames(self.output)
        for n, payload in enumerate(found):
            number = expected + n
            if number >= self.total or payload != self.messages.content(number):
                raise Fault(f"message {number} is not the one that {consumer.what} wrote")
        if cut and code != -9:
            raise Fault(f"{consumer.what} left a part of a message")
        last = expected + len(found)
        self.released = self.number(self.memory.load(HEAD, ACQUIRE))
        if not expected <= self.released <= last:
            raise Fault(f"{consumer.what} wrote the messages {expected} to {last}, but released up to {self.released}")
        if code != -9 and self.released != last:
            raise Fault(f"{consumer.what} ended and did not release what it wrote")
        self.totals.kills += code == -9
        self.totals.repeats += last - self.released
        self.received = max(self.received, last)
        self.consumer_has_ended = True  # also if it was killed: perhaps after it closed
        reached_limit = self.limit is not None and len(found) == self.limit
        if code == peers.OK and not reached_limit:
            self.check_reported_end("a close", last, lambda: self.closes)
        elif code == peers.ENDED:
            self.check_reported_end("an abort or a death", last, lambda: self.aborts | self.deaths)

    def check_reported_end(self, what, last, ends):
        """An end is reported after all messages of a producer that ended so. It may have ended just now."""
        if last not in ends() and self.producer is not None:
            self.producer.wait()
            self.producer_ended()
        if last not in ends():
            raise Fault(f"a consumer noticed {what} after {last} messages: {self.describe()}")

    def describe(self):
        return (f"{self.committed} committed, {self.released} released of {self.total}; "
                f"closed {sorted(self.closes)}, aborted {sorted(self.aborts)}, died {sorted(self.deaths)}; "
                f"producer {self.producer and self.producer.what}, consumer {self.consumer and self.consumer.what}; "
                f"head {self.memory.load(HEAD)}, tail {self.memory.load(layout.TAIL)}")
