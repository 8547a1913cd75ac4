"""The processes of a run: ends written in Python, and the command line, behind the same few methods."""

import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback

import ends
import sysv

OK, LOST, TIMED_OUT, ENDED, BROKEN = 0, 1, 5, 6, 70  # exit codes, as the command line uses them; the last is ours
shmpipe = None  # the path of the command line
directory = None  # for outputs


class Fault(Exception):
    """The run found something wrong."""


class Process:
    """A child that can be killed and asked how it ended."""

    def __init__(self, pid, what):
        self.pid, self.what, self.code = pid, what, None

    def poll(self):
        """The exit code, negative for a signal; None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def wait(self, seconds=20):
        end = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > end:
                self.kill()
                raise Fault(f"{self.what} did not end within {seconds} s: {self.errors()}")
            time.sleep(0.002)
        return self.code

    def expect(self, *codes):
        if self.wait() not in codes:
            raise Fault(f"{self.what} ended with {self.code}, not one of {codes}: {self.errors()}")

    def kill(self):
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.code = -signal.SIGKILL

    def errors(self):
        return ""


class PythonProcess(Process):
    """A fork that runs a function and exits with what it returns."""

    def __init__(self, function, *arguments):
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            code = BROKEN
            try:
                code = function(*arguments) or OK
            except ends.TimedOut:
                code = TIMED_OUT
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(code)
        super().__init__(pid, f"python {function.__name__}")


class CommandLine(Process):
    """`shmpipe` with these arguments."""

    def __init__(self, *arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL):
        self.stderr = tempfile.TemporaryFile(dir=directory)
        self.child = subprocess.Popen([shmpipe, *arguments], stdin=stdin, stdout=stdout, stderr=self.stderr)
        self.child.returncode = 0  # reaped here
        super().__init__(self.child.pid, "shmpipe " + " ".join(arguments))

    def errors(self):
        self.stderr.seek(0)
        return self.stderr.read().decode(errors="replace").strip()


# Checked sleep: no wake-up may be lost

class Checked:
    """Notices a sleep that only its time-out ended, although the other side should have ended it."""

    woken = woke = 0
    patience = 5

    def sleep(self, attempt, threshold, seconds):
        self.attempt = attempt
        return super().sleep(attempt, threshold, seconds)

    def park(self, seen, seconds):
        woken = super().park(seen, seconds)
        Checked.woken += woken
        if not woken and self.attempt() is not None and not self.answer_comes(seen):
            raise Fault(f"a {self.own.name} found something after its sleep, and was not woken")
        return woken

    def answer_comes(self, seen):
        """Whether the other side wakes this one after all, or ended before it could."""
        end = time.monotonic() + self.patience
        while self.load_half(self.other, ends.EVENT_COUNT) == seen:
            if sysv.role_is_free(self.memory, self.other):
                return True
            if time.monotonic() > end:
                return False
            time.sleep(0.002)
        return True

    def notify(self):
        woke = super().notify()
        Checked.woke += woke
        return woke


class Producer(Checked, ends.Producer):
    pass


class Consumer(Checked, ends.Consumer):
    pass


# Ends that send or receive numbered messages

def produce(name, messages, last, tail, abort_code, seed):
    """Sends the messages from `tail` on up to number `last`, then closes, or aborts if there is a code."""
    luck = random.Random(seed)
    pipe = sysv.open_pipe(name)
    producer = Producer(pipe)
    if producer.tail != tail:
        raise Fault(f"recovered the tail {producer.tail}, not {tail}")
    while (number := messages.number_at(producer.tail)) < last:
        batch = min(luck.choice((1, 1, 2, 30)), last - number)
        try:
            if batch == 1:
                producer.send(messages.content(number))
            else:
                producer.send_batch(messages.content(number + n) for n in range(batch))
        except ends.Died:
            continue
        except (ends.Closed, ends.Aborted):
            producer.close()
            return ENDED
        pause(luck)
    if abort_code is None:
        producer.close()
    else:
        producer.abort(abort_code)
    pipe.leave()
    return OK


def consume(name, output, follow, limit, abort_code, seed):
    """Writes each message after its length, and releases it then. Ends after `limit` messages, if there is a limit."""
    luck = random.Random(seed)
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    pipe = sysv.open_pipe(name)
    consumer = Consumer(pipe)
    received = 0
    while limit is None or received < limit:
        try:
            record = consumer.receive()
        except (ends.Closed, ends.Aborted, ends.Died) as end:
            if follow:
                consumer.wait_for_successor()
                continue
            consumer.close()
            return OK if isinstance(end, ends.Closed) else ENDED
        write_frame(file, pipe.memory.payload(record))
        received += 1
        for _ in range(luck.choice((0, 0, 1, 20))):
            if limit is not None and received == limit or consumer.take() is None:
                break
            write_frame(file, pipe.memory.payload(consumer.receive()))
            received += 1
        pause(luck)
        consumer.release()
    if abort_code is None:
        consumer.close()
    else:
        consumer.abort(abort_code)
    pipe.leave()
    return OK


def killed_at_line(line, function, *arguments):
    """Calls the function, and is killed when it has run so many lines."""
    def trace(_frame, _event, _argument):
        nonlocal line
        line -= 1
        if line < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    return function(*arguments)


def pause(luck):
    """Rarely, for longer than the other side polls before it sleeps; still more rarely, for longer than it sleeps."""
    chance = luck.random()
    if chance < 0.02:
        time.sleep(0.15 if chance < 0.001 else 0.005)


def write_frame(file, payload):
    os.write(file, struct.pack("<I", len(payload)) + payload)


def feed(descriptor, messages, first, last):
    """The input of `shmpipe send`."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    luck = random.Random(first)
    with open(descriptor, "wb") as pipe:
        for number in range(first, last):
            payload = messages.content(number)
            pipe.write(struct.pack("<I", len(payload)) + payload)
            if luck.random() < 0.02:
                pipe.flush()
            pause(luck)


class Sender(CommandLine):
    """`shmpipe send` with a feeder."""

    def __init__(self, name, messages, first, last):
        reading, writing = os.pipe()
        os.set_inheritable(writing, False)
        super().__init__("send", "--length-prefixed", name, stdin=reading)
        os.close(reading)
        self.feeder = PythonProcess(feed, writing, messages, first, last)
        os.close(writing)

    def poll(self):
        if super().poll() is not None:
            self.feeder.kill()
        return self.code


def frames(path):
    """The messages in an output, and whether the last one is cut."""
    with open(path, "rb") as file:
        data = file.read()
    found, at = [], 0
    while at + 4 <= len(data):
        (length,) = struct.unpack_from("<I", data, at)
        if at + 4 + length > len(data):
            break
        found.append(data[at + 4:at + 4 + length])
        at += 4 + length
    return found, at < len(data)
