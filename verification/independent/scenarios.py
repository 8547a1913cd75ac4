"""One situation each, between this implementation and the command line."""

import contextlib
import errno
import os
import random
import signal
import subprocess
import time

import ends
import kernel
import layout
import peers
import rounds
import sysv
from peers import CommandLine, ENDED, Fault, OK, PythonProcess, Sender

REMOVED, TAKEN, CORRUPT = 3, 4, 7
PROMISE = 5  # seconds for what happens within 200 ms on an idle machine


def require(condition, what):
    if not condition:
        raise Fault(what)


def until(condition, what, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        require(time.monotonic() < end, f"not within {seconds} s: {what}")
        time.sleep(0.002)


def soon():
    """A deadline that only a fault lets pass."""
    return time.monotonic() + 20


def open_new(name, wake="fence", **more):
    return sysv.open_pipe(name, sysv.Parameters(4096, wake_mode=rounds.WAKE_MODES[wake], **more))


def expect_end(kind, action, *arguments):
    """The end of the other side that `action` reports."""
    try:
        action(*arguments)
    except kind as end:
        return end
    raise Fault(f"{kind.__name__} was not reported")


def is_open(pipe, side):
    return pipe.memory.load(side.words + layout.STATE) & 3 == layout.OPEN and not sysv.role_is_free(pipe.memory, side)


def asleep(pipe, side):
    return is_open(pipe, side) and pipe.memory.load_half(side.words + layout.WAITER_EPOCH) % 2 == 1


def asleep_again(pipe, side, waker):
    """Whether a side sleeps, and was not woken since it went to sleep."""
    epoch = pipe.memory.load_half(side.words + layout.WAITER_EPOCH)
    return asleep(pipe, side) and epoch != waker.answered


class Count:
    """Messages of one byte each, for `Sender`."""

    def content(self, number):
        return bytes([number % 256])


# Each scenario has a pipe under `name` for itself, and leaves it to the caller to remove.

def roles_are_exclusive(name):
    pipe = open_new(name)
    receiver = CommandLine("recv", name)
    until(lambda: is_open(pipe, layout.CONSUMER), "recv claims")
    expect_end(sysv.Taken, ends.Consumer, pipe)
    expect_end(sysv.Taken, sysv.remove_pipe, name)
    producer = ends.Producer(pipe)
    CommandLine("send", name).expect(TAKEN)
    CommandLine("rm", name).expect(TAKEN)
    producer.close()
    receiver.expect(OK)
    CommandLine("send", name).expect(OK)  # the role was given up
    pipe.leave()


def ends_of_a_sender(name):
    pipe = open_new(name, "membarrier")
    consumer = peers.Consumer(pipe)

    sender = Sender(name, Count(), 0, 3)
    consumer.wait_for_successor(soon())
    for number in range(3):
        require(pipe.memory.payload(consumer.receive(soon())) == bytes([number]), "another message")
        consumer.release()
    expect_end(ends.Closed, consumer.receive, soon())
    expect_end(ends.Closed, consumer.receive, soon())  # again, since it stays closed
    sender.expect(OK)

    sender = CommandLine("send", "--chunk", "8", name, stdin=subprocess.PIPE)
    consumer.wait_for_successor(soon())
    sender.kill()
    start = time.monotonic()
    expect_end(ends.Died, consumer.receive, soon())
    require(time.monotonic() - start < PROMISE, "a death was noticed late")
    expect_end(ends.TimedOut, consumer.receive, time.monotonic() + 0.3)  # once

    sender = CommandLine("send", "--length-prefixed", name, stdin=subprocess.PIPE)
    consumer.wait_for_successor(soon())
    sender.child.stdin.write(b"\4\0\0\0abc")
    sender.child.stdin.close()
    require(expect_end(ends.Aborted, consumer.receive, soon()).args == (1,), "another code")
    sender.expect(1)
    consumer.close()
    pipe.leave()


def ends_of_a_receiver(name):
    pipe = open_new(name, "membarrier")
    producer = peers.Producer(pipe)

    receiver = CommandLine("recv", "--count", "1", name)
    producer.wait_for_successor(soon())
    producer.send(b"one")
    receiver.expect(OK)
    expect_end(ends.Closed, producer.send, b"two")

    receiver = CommandLine("recv", name)
    producer.wait_for_successor(soon())
    receiver.kill()
    start = time.monotonic()
    expect_end(ends.Died, fill, producer)
    require(time.monotonic() - start < PROMISE, "a death was noticed late")

    with open("/dev/full", "wb") as full:
        receiver = CommandLine("recv", name, stdout=full)
        receiver.expect(1)
    require(expect_end(ends.Aborted, fill, producer).args == (1,), "another code")
    producer.close()
    pipe.leave()


def fill(producer):
    while True:
        producer.send(bytes(100))


def our_ends(name):
    """What the command line says about ends of this side."""
    pipe = open_new(name)
    for end, code in ((lambda end: end.close(), OK), (lambda end: end.abort(5), ENDED)):
        producer = peers.Producer(pipe)
        receiver = CommandLine("recv", name)
        until(lambda: is_open(pipe, layout.CONSUMER), "recv claims")
        end(producer)
        receiver.expect(code)

    killed = PythonProcess(claim_and_sleep, name, peers.Producer)
    until(lambda: is_open(pipe, layout.PRODUCER), "the producer claims")
    receiver = CommandLine("recv", name)
    until(lambda: is_open(pipe, layout.CONSUMER), "recv claims")
    killed.kill()
    receiver.expect(ENDED)

    for end in (lambda end: end.close(), lambda end: end.abort(5)):
        consumer = peers.Consumer(pipe)
        while consumer.try_receive():
            consumer.release()
        sender = Sender(name, Count(), 0, 1 << 40)
        until(lambda: pipe.memory.load(layout.TAIL) != consumer.head, "send sends")  # so it does not find us closed at its claim
        end(consumer)
        sender.expect(ENDED)
    pipe.leave()


def claim_and_sleep(name, end):
    end(sysv.open_pipe(name))
    time.sleep(60)


def force(pipe, side):
    """Does what no participant does: frees a role that another process holds."""
    pipe.memory.store(side.words + layout.CLAIM, 0)


def a_role_lost_by_force(name):
    pipe = open_new(name)
    consumer = peers.Consumer(pipe)
    force(pipe, layout.CONSUMER)
    receiver = CommandLine("recv", name)
    until(lambda: asleep(pipe, layout.CONSUMER), "recv claims and sleeps")
    expect_end(ends.RoleLost, consumer.receive, soon())
    expect_end(ends.RoleLost, consumer.close)
    require(is_open(pipe, layout.CONSUMER), "the successor lost its role")
    force(pipe, layout.CONSUMER)
    consumer = peers.Consumer(pipe)
    receiver.expect(CORRUPT)
    require(consumer.role.is_ours() and is_open(pipe, layout.CONSUMER), "recv gave up a role that was not its own")
    consumer.close()
    pipe.leave()


def removed_in_use(name):
    pipe = open_new(name)
    consumer = peers.Consumer(pipe)
    CommandLine("rm", "--force", name).expect(OK)
    expect_end(sysv.Removed, consumer.receive, soon())
    consumer.close()
    pipe.leave()
    pipe = open_new(name)
    receiver = CommandLine("recv", name)
    until(lambda: is_open(pipe, layout.CONSUMER), "recv claims")
    kernel.remove_segment(pipe.memory.shmid)  # without its set, like a remover that dies in between
    receiver.expect(REMOVED)
    pipe.leave()
    CommandLine("rm", name).expect(OK, REMOVED)
    require(sysv.Set.find(sysv.key_of(name)) is None, "rm left a set without a segment")
    pipe = open_new(name)
    kernel.remove_segment(pipe.memory.shmid)
    expect_end(sysv.NotFound, sysv.remove_pipe, name)
    require(sysv.Set.find(sysv.key_of(name)) is None, "this side left a set without a segment")
    pipe.memory.detach()


def a_set_removed(name):
    """Each side adopts the segment that lost its set."""
    pipe = open_new(name)
    for adopt in (lambda: Sender(name, Count(), 0, 1).expect(OK), lambda: sysv.open_pipe(name).leave()):
        kernel.remove_set(sysv.Set.find(sysv.key_of(name)).semid)
        adopt()
        set = sysv.Set.find(sysv.key_of(name))
        require(set.guards(pipe.memory.shmid), "the new set does not guard the segment")
        require(sysv.watch(name)[1].sem_id == set.semid, "the segment does not name the new set")
    CommandLine("send", name).expect(OK)
    pipe.leave()


def removed_by_the_last(name):
    for create, leave in (("python", "shmpipe"), ("shmpipe", "python")):
        rounds.create_by(create, name, 4096, "fence", remove_on_close=True).expect(OK)
        if leave == "python":
            Sender(name, Count(), 0, 2).expect(OK)
            pipe = sysv.open_pipe(name)
            ends.Consumer(pipe).close()
            pipe.leave()
        else:
            pipe = sysv.open_pipe(name)
            producer = ends.Producer(pipe)
            receiver = CommandLine("recv", name)
            until(lambda: is_open(pipe, layout.CONSUMER), "recv claims")
            producer.close()
            pipe.leave()
            receiver.expect(OK)
        require(sysv.find_segment(sysv.key_of(name)) is None, "the last to leave did not remove the pipe")
        require(sysv.Set.find(sysv.key_of(name)) is None, "the last to leave did not remove the set")


def wakes(name):
    """Each side wakes the other one, which sleeps, in both wake modes."""
    for wake in ("fence", "membarrier"):
        pipe = open_new(name, wake)
        producer = peers.Producer(pipe)
        receiver = CommandLine("recv", name)
        until(lambda: is_open(pipe, layout.CONSUMER), "recv claims")
        peers.Checked.woke = 0
        for _ in range(20):
            until(lambda: asleep_again(pipe, layout.CONSUMER, producer), "recv sleeps")
            producer.send(b"wake")
            until(lambda: pipe.memory.load(layout.HEAD) == producer.tail, "recv receives")
        require(peers.Checked.woke > 0, "no wake-up met a sleeping recv")
        producer.close()
        receiver.expect(OK)
        consumer = peers.Consumer(pipe)
        sender = CommandLine("send", "--chunk", "1", name, stdin=subprocess.PIPE)
        consumer.wait_for_successor(soon())
        peers.Checked.woken = 0
        for _ in range(20):
            writer = PythonProcess(write_later, sender.child.stdin.fileno())
            consumer.receive(soon())
            consumer.release()
            writer.expect(OK)
        require(peers.Checked.woken > 0, "send never woke this side")
        sender.child.stdin.close()
        expect_end(ends.Closed, consumer.receive, soon())
        sender.expect(OK)
        consumer.close()
        pipe.leave()
        rounds.remove_by("python", name)


def write_later(descriptor):
    time.sleep(0.02)
    os.write(descriptor, b"x")


def space_wakes(name):
    """A producer that waits for space is woken by the release that makes what it asks for, and by none before. That can become free."""
    pipe = open_new(name)
    for start in (lambda: PythonProcess(fill_pipe, name), lambda: Sender(name, Count(), 0, 1 << 40)):
        consumer = peers.Consumer(pipe)
        sender = start()
        for _ in range(20):
            until(lambda: asleep_again(pipe, layout.PRODUCER, consumer), "the producer sleeps")
            threshold = pipe.memory.load(layout.PRODUCER.words + layout.WAKE_THRESHOLD)
            epoch = pipe.memory.load_half(layout.PRODUCER.words + layout.WAITER_EPOCH)
            require(threshold <= pipe.memory.load(layout.TAIL), "the producer asks for more than can become free")
            while consumer.head < threshold:
                wakes = pipe.memory.load_half(layout.CONSUMER.words + layout.EVENT_COUNT)
                consumer.receive(soon())
                consumer.release()
                woke = pipe.memory.load_half(layout.CONSUMER.words + layout.EVENT_COUNT) != wakes
                # It asks for a share of the ring for a moment, and then, in another sleep, for less.
                if pipe.memory.load_half(layout.PRODUCER.words + layout.WAITER_EPOCH) != epoch:
                    break
                require(woke == (consumer.head >= threshold), "it is not the release that makes what it asks for that wakes the producer")
        consumer.close()
        sender.expect(ENDED)
    pipe.leave()


def fill_pipe(name):
    producer = peers.Producer(sysv.open_pipe(name))
    try:
        while True:
            producer.send(b"x")
    except ends.Closed:
        producer.close()
        return ENDED


def neither_sleeps(name):
    pipe = open_new(name, "never")
    producer = peers.Producer(pipe)
    receiver = CommandLine("recv", "--count", "500", name)
    for _ in range(500):
        producer.send(bytes(100))
    receiver.expect(OK)
    producer.close()
    for side in (layout.PRODUCER, layout.CONSUMER):
        require(pipe.memory.load_half(side.words + layout.EVENT_COUNT) == 0, "an event count moved")
        require(pipe.memory.load_half(side.words + layout.WAITER_EPOCH) % 2 == 0, "a waiter epoch is odd")
    pipe.leave()


def creators_killed(name):
    """A process that is killed while it creates or opens leaves what the other implementation mends."""
    for n in range(30):
        kind, other = ("python", "shmpipe") if n % 3 else ("shmpipe", "python")
        if kind == "python":
            PythonProcess(peers.killed_at_line, random.randrange(400), open_new, name).wait()
        else:
            creator = rounds.create_by(kind, name, 4096, "fence")
            time.sleep(random.random() * 0.1)
            creator.kill()
        start = time.monotonic()
        if other == "python":
            pipe = open_new(name)
            ends.Producer(pipe).close()
            pipe.leave()
        else:
            CommandLine("send", name).expect(OK)
        require(time.monotonic() - start < PROMISE, "a pipe that was being created is kept for long")
        rounds.remove_by(other, name)


class Overtaken(ends.Consumer):
    """Lets something happen once, after it found nothing and before it looks at the state of the other side."""

    def end_of_other(self, ask_role):
        in_between, self.in_between = self.in_between, lambda: None
        in_between()
        return super().end_of_other(ask_role)


def a_message_before_the_end(name):
    pipe = open_new(name)
    consumer = Overtaken(pipe)
    consumer.in_between = lambda: Sender(name, Count(), 0, 1).expect(OK)
    require(pipe.memory.payload(consumer.receive(soon())) == bytes(1), "another message")
    consumer.release()
    expect_end(ends.Closed, consumer.receive, soon())
    consumer.close()
    pipe.leave()


class KilledAfterCommit(ends.Producer):
    """Dies between the commit and the store to `tail`."""

    def commit(self, first_word):
        super().commit(first_word)
        os.kill(os.getpid(), signal.SIGKILL)


def send_batch_and_die(name, payloads):
    KilledAfterCommit(sysv.open_pipe(name)).send_batch(payloads)


def tail_left_behind(name):
    """Each side recovers what was committed beyond `tail`, around the end of the ring too."""
    pipe = open_new(name)
    payloads = [bytes([n]) * (n * 71 % 500) for n in range(10)]
    for _ in range(4):
        PythonProcess(send_batch_and_die, name, payloads).expect(-signal.SIGKILL)
        Sender(name, Count(), 0, 1).expect(OK)
        consumer = ends.Consumer(pipe)
        for payload in payloads + [bytes(1)]:
            require(pipe.memory.payload(consumer.receive(soon())) == payload, "another message")
            consumer.release()
        consumer.close()
        PythonProcess(send_batch_and_die, name, payloads).expect(-signal.SIGKILL)
        producer = ends.Producer(pipe)
        producer.send(b"after")
        producer.close()
        output = os.path.join(peers.directory, "output")
        with open(output, "wb") as file:
            CommandLine("recv", "--length-prefixed", name, stdout=file).expect(OK)
        require(peers.frames(output) == (payloads + [b"after"], False), "other messages")
    pipe.leave()


def creation_that_fails(name):
    """Whoever fails to create a pipe leaves nothing."""
    with failure_of(sysv, "create_segment"):
        expect_end(OSError, open_new, name)
    require(sysv.Set.find(sysv.key_of(name)) is None, "a set stays")
    with failure_of(kernel, "membarrier"):
        expect_end(OSError, open_new, name, "membarrier")
    require(sysv.find_segment(sysv.key_of(name)) is None, "a segment stays")
    require(sysv.Set.find(sysv.key_of(name)) is None, "a set stays")
    CommandLine("create", name).expect(OK)


@contextlib.contextmanager
def failure_of(module, function):
    def fail(*_arguments):
        raise OSError(errno.ENOSPC, function)

    working = getattr(module, function)
    setattr(module, function, fail)
    try:
        yield
    finally:
        setattr(module, function, working)


def open_and_die(name):
    """Dies when it has created its presence, before it removes it."""
    kernel.remove_segment = lambda _: os.kill(os.getpid(), signal.SIGKILL)
    sysv.open_pipe(name)


def presences_left(name):
    """What a process leaves that dies while it creates its presence, the next one removes."""
    pipe = open_new(name)
    for successor in (lambda: CommandLine("send", name), lambda: PythonProcess(open_and_leave, name)):
        dead = PythonProcess(open_and_die, name)
        dead.expect(-signal.SIGKILL)
        require(leftovers(dead.pid), "no presence was left")
        successor().expect(OK)
        require(not leftovers(dead.pid), "a presence of a dead process stays")
    pipe.leave()


def open_and_leave(name):
    sysv.open_pipe(name).leave()


def leftovers(pid):
    """The segments without key that a process created."""
    with open("/proc/sysvipc/shm") as file:
        return [line for line in file if line.split()[0] == "0" and line.split()[4] == str(pid)]


def duplex_pipes_refused(name):
    """A pipe with a feature that this implementation does not know is refused, and left as it is."""
    CommandLine("create", "--duplex", name).expect(OK)
    shmid, _ = sysv.find_segment(sysv.key_of(name))
    for refused in (sysv.open_pipe, open_new, sysv.remove_pipe):
        foreign = expect_end(layout.Foreign, refused, name)
        require(str(foreign) == "features", f"refused for its {foreign}")
    now, stat = sysv.find_segment(sysv.key_of(name))
    require(now == shmid, "it was replaced")
    require(stat.nattch == 0, "it is still attached")
    CommandLine("stat", name).expect(OK)


SCENARIOS = (
    roles_are_exclusive,
    ends_of_a_sender,
    ends_of_a_receiver,
    our_ends,
    a_role_lost_by_force,
    removed_in_use,
    a_set_removed,
    removed_by_the_last,
    a_message_before_the_end,
    tail_left_behind,
    wakes,
    space_wakes,
    neither_sleeps,
    creation_that_fails,
    presences_left,
    duplex_pipes_refused,
    creators_killed,
)


def in_a_process(scenario, name):
    try:
        scenario(name)
    except Fault as fault:
        print(f"FAULT: {scenario.__name__}: {fault}", flush=True)
        return 1
    return OK


def run_all(seed):
    for scenario in SCENARIOS:
        name = f"independent-{seed}-{scenario.__name__}"
        try:
            if PythonProcess(in_a_process, scenario, name).wait(120) != OK:
                raise Fault(f"{scenario.__name__} failed")
            if sysv.find_segment(sysv.key_of(name)):
                rounds.remove_by("shmpipe", name)
        finally:
            rounds.remove_remains(name)
