"""Two processes, one of which may be in another language, dies, is interrupted or forks."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import shmpipe


def test_lines_of_the_command_line_are_received(address, command, start):
    sender = start(command, "send", address)
    sender.stdin.write(b"one\ntwo\n" + b"x" * 1000 + b"\n")
    sender.stdin.close()
    with shmpipe.open_or_create(address).consumer() as consumer:
        assert list(consumer) == [b"one", b"two", b"x" * 1000]
    assert sender.wait(60) == 0


def test_the_command_line_receives_what_is_sent(address, command, start):
    receiver = start(command, "recv", address)
    lines = [b"line %d" % number for number in range(10_000)]
    with shmpipe.open_or_create(address).producer() as producer:
        assert producer.send_many(lines) == len(lines)
    assert receiver.communicate(timeout=60)[0].splitlines() == lines


def test_the_module_is_a_program(address, start):
    receiver = start(sys.executable, "-m", "shmpipe", "recv", address)
    sender = start(sys.executable, "-m", "shmpipe", "send", address)
    lines = b"".join(b"line %d\n" % number for number in range(10_000))
    sender.communicate(lines, timeout=60)
    assert receiver.communicate(timeout=60)[0] == lines
    assert (sender.returncode, receiver.returncode) == (0, 0)
    wrong = start(sys.executable, "-m", "shmpipe", "recv", "no:such/kind")
    assert wrong.wait(60) == 1
    assert wrong.stderr.read().startswith(b"shmpipe: ")


def test_a_killed_producer_has_died(address, python):
    consumer = shmpipe.create(address).consumer()
    sender = python(
        "producer = shmpipe.open(sys.argv[1]).producer()\n"
        "producer.send_many([b'one', b'two'])\n"
        "print('sent', flush=True)\n"
        "sys.stdin.read()",
        address,
    )
    assert sender.stdout.readline() == b"sent\n"
    sender.kill()
    sender.wait(60)
    assert consumer.recv(timeout=60) == b"one"
    assert consumer.recv(timeout=60) == b"two"
    with pytest.raises(shmpipe.PeerDied):
        consumer.recv(timeout=60)
    # Its successor goes on.
    with shmpipe.open(address).producer() as producer:
        producer.send(b"three")
    assert list(consumer) == [b"three"]


def test_a_killed_consumer_loses_only_what_it_has_received(address, python):
    producer = shmpipe.create(address).producer()
    producer.send_many([b"one", b"two", b"three"])
    receiver = python(
        "consumer = shmpipe.open(sys.argv[1]).consumer(trust_producer=True)\n"
        "consumer.recv()\n"
        "message = consumer.borrow()\n"
        "print('received', flush=True)\n"
        "sys.stdin.read()",
        address,
    )
    assert receiver.stdout.readline() == b"received\n"
    receiver.kill()
    receiver.wait(60)
    producer.close()
    assert list(shmpipe.open(address).consumer()) == [b"two", b"three"]


WAITS = {
    "recv": "end = shmpipe.open(sys.argv[1]).consumer(); end.recv()",
    "next": "end = shmpipe.open(sys.argv[1]).consumer(); next(end)",
    "recv_many": "end = shmpipe.open(sys.argv[1]).consumer(); end.recv_many()",
    "recv_into": "end = shmpipe.open(sys.argv[1]).consumer(); end.recv_into(bytearray(10))",
    "borrow": "end = shmpipe.open(sys.argv[1]).consumer(trust_producer=True); end.borrow()",
    "wait_for_peer": "end = shmpipe.open(sys.argv[1]).consumer(); end.wait_for_peer()",
    "send": "end = shmpipe.open(sys.argv[1]).producer(); end.send_many([bytes(1000)] * 4); end.send(bytes(1000))",
    "send a bytearray": "end = shmpipe.open(sys.argv[1]).producer(); end.send_many([bytes(1000)] * 4); end.send(bytearray(1000))",
    "send_many": "end = shmpipe.open(sys.argv[1]).producer(); end.send_many([bytes(100)] * 1000)",
    "follow": "tap = shmpipe.Tap(sys.argv[1]).follow(60); next(tap)",
    "flush": "end = shmpipe.open(sys.argv[1]).producer(); end.send(b'x'); end.flush()",
}


def until_asleep(process):
    """Waits until the process sleeps and goes on sleeping, so until its last call waits."""
    seen, deadline = 0, time.monotonic() + 60
    while seen < 5:
        assert time.monotonic() < deadline
        state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        seen = seen + 1 if state == "S" else 0
        time.sleep(0.03)


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS.keys())
def test_an_interrupt_ends_every_wait(address, python, wait):
    shmpipe.create(address, capacity=4096)
    *before, last = wait.split("; ")
    program = [*before, "print('started', flush=True)", last]
    waiting = python("\n".join(program), address)
    assert waiting.stdout.readline() == b"started\n"
    until_asleep(waiting)
    waiting.send_signal(signal.SIGINT)
    _, said = waiting.communicate(timeout=30)
    assert said.endswith(b"KeyboardInterrupt\n")
    assert f"line {1 + len(program)}, in".encode() in said


def test_a_forked_child_has_no_role(address):
    pipe = shmpipe.create(address)
    producer, consumer = pipe.producer(), pipe.consumer(trust_producer=True)
    tap = shmpipe.Tap(address)
    producer.send(b"one")
    message = consumer.borrow()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for call in [
                lambda: producer.send(b"from the child"),
                lambda: producer.try_send(b"from the child"),
                lambda: memoryview(message),
                message.tobytes,
                consumer.recv,
                tap.next,
                tap.back,
                lambda: tap.producer,
                lambda: next(tap.follow()),
            ]:
                with pytest.raises(shmpipe.Lost, match="forked"):
                    call()
            message.release()
            # What leaves a block in the child is no error either.
            producer.close()
            with consumer:
                pass
            del message, producer, consumer, tap
            # A pipe that the child opens itself is the child's.
            with pytest.raises(shmpipe.RoleTaken):
                shmpipe.open(address).producer()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert message.tobytes() == b"one"
    assert tap.next().data == b"one"
    message.release()
    producer.send(b"two")
    assert consumer.recv(timeout=60) == b"two"


def test_a_fork_within_a_call_ends_it_in_the_child(address, python):
    pipe = shmpipe.create(address)
    forking = python(
        """
import os
def messages():
    yield b"one"
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
    yield b"two"
producer = shmpipe.open(sys.argv[1]).producer()
try:
    producer.send_many(messages())
except shmpipe.Lost:
    os._exit(0)
""",
        address,
    )
    assert forking.wait(60) == 0, forking.stderr.read()
    assert list(pipe.consumer()) == [b"one", b"two"]


def test_a_subinterpreter_is_refused(start):
    interpreters = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    program = "i = sys.modules[sys.argv[1]]; sys.exit(i.run_string(i.create(), 'import shmpipe'))"
    refused = start(sys.executable, "-c", f"import sys, {interpreters}; {program}", interpreters)
    assert refused.wait(60) == 1
    # The module says so, or the interpreter for it.
    assert b"ImportError" in (said := refused.stderr.read()) and b"subinterpreter" in said


def test_a_free_threaded_build_is_refused(start):
    refused = start(sys.executable, "-c", "import sys; sys.abiflags = 't'; import shmpipe")
    assert refused.wait(60) == 1
    assert b"ImportError: shmpipe does not load in a free-threaded build" in refused.stderr.read()


WORKERS = """
import multiprocessing, shmpipe, sys

def work(address):
    with shmpipe.open(address).producer() as producer:
        producer.send(b"from a worker")

if __name__ == "__main__":
    worker = multiprocessing.get_context(sys.argv[2]).Process(target=work, args=[sys.argv[1]])
    worker.start()
    worker.join()
    sys.exit(worker.exitcode)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_open_the_pipe_by_its_address(address, start, tmp_path, method):
    pipe = shmpipe.create(address)
    program = tmp_path / "workers.py"
    program.write_text(WORKERS)
    workers = start(sys.executable, program, address, method)
    assert workers.wait(60) == 0, workers.stderr.read()
    assert list(pipe.consumer()) == [b"from a worker"]
