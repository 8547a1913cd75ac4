"""Messages from one end to the other, and what ends them."""

import json
import os
import pickle
import signal
import threading
import time

import numpy as np
import pytest
import shmpipe


@pytest.mark.parametrize(
    "message",
    [b"", b"hello", bytearray(b"hello"), memoryview(b"hello"), np.arange(5.0), np.zeros((3, 4), dtype="i2")],
    ids=["empty", "bytes", "bytearray", "memoryview", "floats", "matrix"],
)
def test_anything_with_a_buffer_is_sent(ends, message):
    producer, consumer = ends
    producer.send(message)
    assert producer.try_send(message, tag=7)
    assert producer.send_many([message, message]) == 2
    for _ in range(4):
        assert consumer.recv(timeout=60) == bytes(memoryview(message))
    assert consumer.try_recv() is None


@pytest.mark.parametrize(
    ("message", "error"),
    [("text", TypeError), (None, TypeError), (7, TypeError), (memoryview(b"abcdef")[::2], BufferError)],
)
def test_anything_else_is_refused(ends, message, error):
    producer, consumer = ends
    with pytest.raises(error):
        producer.send(message)
    with pytest.raises(error):
        producer.try_send(message)
    with pytest.raises(error) as raised:
        producer.send_many([b"before", message, b"after"])
    assert raised.value.sent == 1
    assert consumer.recv_many() == [b"before"]


def test_tags_and_positions_travel(ends):
    producer, consumer = ends
    position = producer.send(b"one", tag=7)
    assert producer.send(b"two") > position
    assert consumer.recv_tagged() == (7, b"one")
    with consumer.borrow() as message:
        assert (message.tag, message.position > position) == (0, True)


def test_many_messages_go_through_a_small_pipe():
    pipe = shmpipe.create("memfd", capacity=4096)
    producer, consumer = pipe.producer(), pipe.consumer()
    messages = [number.to_bytes(4, "little") * (number % 100) for number in range(20_000)]
    sent = []
    sending = threading.Thread(daemon=True, target=lambda: sent.append(producer.send_many(iter(messages), timeout=60)))
    sending.start()
    received = []
    while len(received) < len(messages):
        some = consumer.recv_many(100, timeout=60)
        assert 0 < len(some) <= 100
        received += some
    sending.join(60)
    assert sent == [len(messages)]
    assert received == messages


def test_long_messages_are_whole():
    pipe = shmpipe.create("memfd", capacity=1 << 22)
    producer, consumer = pipe.producer(), pipe.consumer()
    messages = [os.urandom(size) for size in [65_535, 65_536, 1_000_000, 2_000_000]]

    def send():
        for message in messages:
            producer.send(message, timeout=60)
            producer.send(bytearray(message), timeout=60)

    sending = threading.Thread(daemon=True, target=send)
    sending.start()
    for message in messages:
        assert consumer.recv(timeout=60) == message
        assert consumer.recv_many(1, timeout=60) == [message]
    sending.join(60)


def test_a_failing_iterable_sends_what_it_gave(ends):
    producer, consumer = ends

    def messages():
        yield b"one"
        yield b"two"
        raise LookupError("no three")

    with pytest.raises(LookupError) as raised:
        producer.send_many(messages())
    assert raised.value.sent == 2
    assert consumer.recv_many() == [b"one", b"two"]


def test_a_full_pipe(ends):
    producer, consumer = ends
    sent = 0
    while producer.try_send(b"x" * 100):
        sent += 1
    assert sent > 10
    with pytest.raises(shmpipe.Timeout):
        producer.send(b"x" * 100, timeout=0.15)
    with pytest.raises(TimeoutError) as raised:
        producer.send_many([b"x" * 100] * 3, timeout=0)
    assert raised.value.sent == 0
    assert len(consumer.recv_many()) == sent
    producer.send(b"again", timeout=0)
    producer.count_dropped(3)


def test_a_message_that_never_fits(ends):
    producer, _ = ends
    with pytest.raises(shmpipe.TooLarge) as raised:
        producer.send(bytes(5000))
    assert (raised.value.length, raised.value.max) == (5000, producer.max_len)
    assert isinstance(raised.value, ValueError)
    producer.send(bytes(producer.max_len))


def test_a_batch_larger_than_the_ring_is_sent_in_parts():
    pipe = shmpipe.create("memfd", capacity=4096)
    producer, consumer = pipe.producer(), pipe.consumer()
    sending = threading.Thread(daemon=True, target=producer.send_many, args=([bytes(1000)] * 50,))
    sending.start()
    received = 0
    while received < 50:
        received += len(consumer.recv_many(timeout=60))
    sending.join(60)


def test_timeouts(ends):
    _, consumer = ends
    for receive in [
        consumer.recv,
        consumer.recv_tagged,
        consumer.borrow,
        consumer.recv_object,
        lambda timeout: consumer.recv_many(timeout=timeout),
        lambda timeout: consumer.recv_into(bytearray(10), timeout=timeout),
        lambda timeout: consumer.recv_items(np.zeros(3), timeout=timeout),
    ]:
        with pytest.raises(shmpipe.Timeout):
            receive(0.0)
        since = time.monotonic()
        with pytest.raises(shmpipe.Timeout):
            receive(0.25)
        assert time.monotonic() - since >= 0.25
    with pytest.raises(ValueError, match="not a number"):
        consumer.recv(float("nan"))
    with pytest.raises(shmpipe.Timeout):
        consumer.recv(-1)


def test_recv_into(ends):
    producer, consumer = ends
    producer.send(b"hello")
    with pytest.raises(shmpipe.WrongSize) as raised:
        consumer.recv_into(bytearray(4))
    assert (raised.value.message, raised.value.expected) == (5, 4)
    with pytest.raises(BufferError):
        consumer.recv_into(b"read-only")
    buffer = bytearray(b"........")
    assert consumer.recv_into(buffer) == 5
    assert buffer == b"hello..."


def test_items_of_numpy(ends):
    producer, consumer = ends
    dtype = np.dtype([("symbol", "S8"), ("price", "f8"), ("size", "u4")])
    ticks = np.array([(b"EURUSD", 1.0842 + n, n) for n in range(50)], dtype=dtype)
    assert producer.send_items(ticks) == 50
    assert consumer.recv(timeout=60) == ticks[0].tobytes()
    received = np.zeros(100, dtype=dtype)
    assert consumer.recv_items(received) == 49
    assert (received[:49] == ticks[1:]).all()
    assert (received[49:] == np.zeros(1, dtype=dtype)).all()


def test_an_item_of_another_size_stays_in_the_pipe(ends):
    producer, consumer = ends
    producer.send_many([bytes(8), bytes(8), bytes(9)])
    items = np.ones(10, dtype="i8")
    assert consumer.recv_items(items) == 2
    with pytest.raises(shmpipe.WrongSize) as raised:
        consumer.recv_items(items)
    assert (raised.value.message, raised.value.expected) == (9, 8)
    assert consumer.recv(timeout=60) == bytes(9)
    assert consumer.recv_items(np.zeros(0)) == 0


def test_objects_by_pickle(ends):
    producer, consumer = ends
    producer.send_object({"price": 1.0842, "sizes": [1, 2]})
    assert consumer.recv_object() == {"price": 1.0842, "sizes": [1, 2]}
    producer.send(b"no pickle")
    with pytest.raises(pickle.UnpicklingError):
        consumer.recv_object()


def test_a_borrowed_message_is_not_released_while_a_view_exists(ends):
    producer, consumer = ends
    numbers = np.arange(100.0)
    producer.send_many([numbers, b"next"])
    free = producer.free
    message = consumer.borrow()
    assert len(message) == 800
    array = np.frombuffer(message)
    view = memoryview(message)
    assert (array == numbers).all()
    assert view.readonly
    with pytest.raises(TypeError):
        view[0] = 1
    for call in [consumer.recv, consumer.try_recv, consumer.recv_many, consumer.borrow, consumer.close]:
        with pytest.raises(RuntimeError, match="borrowed"):
            call()
    with pytest.raises(BufferError, match=r"exist \(2\)"):
        message.release()
    del array
    with pytest.raises(BufferError, match=r"exist \(1\)"), message:
        pass
    assert producer.free == free
    view.release()
    message.release()
    message.release()
    assert producer.free > free
    with pytest.raises(ValueError, match="released"):
        memoryview(message)
    with pytest.raises(ValueError, match="released"):
        message.tobytes()
    assert consumer.recv(timeout=60) == b"next"


def test_an_exception_within_a_borrow_is_the_one_that_leaves_the_blocks():
    pipe = shmpipe.create("memfd")
    producer = pipe.producer()
    producer.send(bytes(8))
    with pytest.raises(LookupError) as raised:
        with pipe.consumer(trust_producer=True) as consumer, consumer.borrow() as message:
            view = memoryview(message)
            raise LookupError
    assert not consumer.closed
    producer.check()
    with pytest.raises(ValueError, match="released"):
        memoryview(message)
    # The last view releases the message, and with it the end aborts.
    view.release()
    assert consumer.closed
    with pytest.raises(shmpipe.PeerAborted):
        producer.send(b"x")
    del raised


def test_what_an_iterable_gives_is_sent_before_it_gives_more(ends):
    producer, consumer = ends

    def messages():
        for number in range(3):
            yield b"%d" % number
            assert consumer.try_recv() == b"%d" % number

    assert producer.send_many(messages()) == 3


def test_an_abort_behind_items_is_heard_by_the_next_call():
    pipe = shmpipe.create("memfd")
    producer, consumer = pipe.producer(), pipe.consumer()
    producer.send_items(np.arange(3))
    producer.abort(7)
    items = np.zeros(10, dtype=int)
    assert consumer.recv_items(items) == 3
    assert items[:3].tolist() == [0, 1, 2]
    with pytest.raises(shmpipe.PeerAborted):
        consumer.recv_items(items)


def test_too_little_memory_is_a_memory_error(python):
    program = """
import resource
pipe = shmpipe.create("memfd", capacity=1 << 28)
producer, consumer = pipe.producer(), pipe.consumer(trust_producer=True)
message = bytearray(100 << 20)
producer.send_many([message] * 2)
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (50 << 20), -1))
def fails(call):
    try:
        call()
    except MemoryError:
        return True
assert fails(consumer.recv)
assert fails(consumer.recv_many)
assert fails(lambda: producer.send(message, timeout=1))
with consumer.borrow() as borrowed:
    assert fails(borrowed.tobytes)
    assert len(borrowed) == 100 << 20
"""
    short = python(program)
    assert short.wait(60) == 0, short.stderr.read().decode()


def test_a_view_outlives_the_names_of_its_message(ends):
    producer, consumer = ends
    producer.send(b"first")
    view = memoryview(consumer.borrow())
    assert bytes(view) == b"first"
    with pytest.raises(RuntimeError, match="borrowed"):
        consumer.recv()
    del view
    producer.send(b"second")
    # The message was released with the last view.
    assert consumer.recv(timeout=60) == b"second"


def test_borrowing_needs_the_promise():
    pipe = shmpipe.create("memfd")
    with pytest.raises(TypeError, match="trust_producer"):
        pipe.consumer().borrow()


def test_iteration_ends_with_the_producer(ends):
    producer, consumer = ends
    producer.send_many([b"one", b"two"])
    producer.close()
    assert list(consumer) == [b"one", b"two"]
    with pytest.raises(shmpipe.Closed):
        consumer.recv()
    with pytest.raises(shmpipe.Closed):
        consumer.check()
    assert consumer.peer == "closed"
    for call in [lambda: producer.send(b"x"), lambda: producer.try_send(b"x"), producer.check]:
        with pytest.raises(ValueError, match="closed"):
            call()
    assert producer.closed
    producer.close()


def test_an_exception_aborts():
    pipe = shmpipe.create("memfd")
    consumer = pipe.consumer()
    with pytest.raises(LookupError), pipe.producer() as producer:
        producer.send(b"before")
        raise LookupError
    received = iter(consumer)
    assert next(received) == b"before"
    with pytest.raises(shmpipe.PeerAborted) as raised:
        next(received)
    assert raised.value.code == shmpipe.PANICKED
    producer = pipe.producer()
    consumer.abort(7)
    with pytest.raises(shmpipe.PeerAborted) as raised:
        producer.send(b"x")
    assert raised.value.code == 7


def test_flush_and_peers(ends):
    producer, consumer = ends
    producer.wait_for_peer(timeout=0)
    consumer.wait_for_peer(timeout=0)
    assert (producer.peer, consumer.peer) == ("open", "open")
    producer.send(b"x")
    with pytest.raises(shmpipe.Timeout):
        producer.flush(0)
    consumer.recv()
    producer.flush(0)
    producer.check()
    consumer.check()


def test_errors_of_opening(address):
    with pytest.raises(shmpipe.NotFound) as raised:
        shmpipe.open(address)
    assert isinstance(raised.value, FileNotFoundError)
    assert raised.value.errno == 2
    assert address in str(raised.value)
    pipe = shmpipe.create(address, capacity=4096)
    assert (pipe.created, pipe.capacity, pipe.address) == (True, 4096, address)
    with pytest.raises(FileExistsError):
        shmpipe.create(address)
    producer = pipe.producer()
    with pytest.raises(shmpipe.RoleTaken) as raised:
        shmpipe.open(address).producer()
    assert raised.value.pid == os.getpid()
    with pytest.raises(shmpipe.RoleTaken):
        shmpipe.unlink(address)
    producer.close()
    with pytest.raises(shmpipe.SetupError):
        shmpipe.open("no:such/kind")
    for wrong in [{"wait": "never"}, {"wait": 0.0}, {"wake_mode": "sometimes"}]:
        with pytest.raises(ValueError, match="it is|a sleep"):
            shmpipe.open_or_create(address, **wrong)


@pytest.mark.parametrize("create", [shmpipe.create, shmpipe.open_or_create])
def test_options_of_a_new_pipe(address, create, command, start):
    def stat():
        found = json.loads(start(command, "stat", "--json", address).communicate(timeout=60)[0])
        return found["remove_on_close"], found["remove_leftover"], found["latency_samples"]

    create(address)
    assert stat() == (False, False, None)
    shmpipe.unlink(address)
    pipe = create(address, remove_leftover=True, measure_latency=True)
    assert stat() == (False, True, 0)
    # Both sides are gone, and nothing is left to receive.
    producer, consumer = pipe.producer(), pipe.consumer()
    producer.close()
    assert list(consumer) == []
    consumer.close()
    del producer, consumer, pipe
    with pytest.raises(shmpipe.NotFound):
        shmpipe.open(address)


@pytest.mark.parametrize("wait", ["block", "yield", "spin", 0.001])
def test_ways_to_wait(wait):
    pipe = shmpipe.create("memfd", wait=wait)
    producer, consumer = pipe.producer(), pipe.consumer()
    sending = threading.Timer(0.05, producer.send, [b"hello"])
    sending.start()
    assert consumer.recv(timeout=60) == b"hello"
    sending.join(60)


def test_a_removed_pipe_is_lost(address, command, start):
    pipe = shmpipe.create(address)
    consumer = pipe.consumer()
    assert start(command, "rm", "--force", address).wait(60) == 0
    with pytest.raises(shmpipe.Lost):
        consumer.recv(timeout=60)


def until_busy(end):
    """Waits until a call of the end in another thread waits, without the interpreter."""
    deadline = time.monotonic() + 60
    while True:
        try:
            end.check()
        except RuntimeError as error:
            assert "another call" in str(error)
            return
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_one_thread_at_a_time_and_any_thread_cancels(ends):
    _, consumer = ends
    raised = []

    def receive():
        try:
            consumer.recv()
        except shmpipe.Cancelled as error:
            raised.append(error)

    receiving = threading.Thread(daemon=True, target=receive)
    receiving.start()
    until_busy(consumer)
    consumer.cancel()
    receiving.join(60)
    assert len(raised) == 1


@pytest.mark.parametrize("which", ["consumer", "producer"])
@pytest.mark.parametrize(
    ("end", "heard"),
    [(lambda waiting: waiting.close(), shmpipe.Closed), (lambda waiting: waiting.abort(7), shmpipe.PeerAborted)],
    ids=["close", "abort"],
)
def test_an_end_is_closed_while_another_thread_waits(ends, which, end, heard):
    producer, consumer = ends
    waiting, wait = {
        "consumer": (consumer, consumer.recv),
        "producer": (producer, lambda: producer.send_many([bytes(1000)] * 10)),
    }[which]
    raised = []

    def call():
        try:
            wait()
        except shmpipe.Error as error:
            raised.append(type(error))

    thread = threading.Thread(daemon=True, target=call)
    thread.start()
    until_busy(waiting)
    end(waiting)
    assert waiting.closed
    thread.join(60)
    assert raised == [shmpipe.Cancelled]
    with pytest.raises(ValueError, match="closed"):
        waiting.check()
    with pytest.raises(heard):
        if which == "consumer":
            producer.send(b"x", timeout=60)
        else:
            while True:
                consumer.recv(timeout=60)


def test_a_signal_handler_closes_what_waits(ends):
    _, consumer = ends
    previous = signal.signal(signal.SIGUSR1, lambda *_: consumer.close())
    try:
        sending = threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGUSR1])
        sending.start()
        with pytest.raises(shmpipe.Cancelled):
            consumer.recv(timeout=60)
        sending.join(60)
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert consumer.closed


def test_closing_a_removed_pipe_is_lost(address, command, start):
    pipe = shmpipe.create(address)
    producer, consumer = pipe.producer(), pipe.consumer()
    assert start(command, "rm", "--force", address).wait(60) == 0
    for end in [producer.close, lambda: consumer.abort(7)]:
        with pytest.raises(shmpipe.Lost):
            end()
    assert producer.closed
    assert consumer.closed
    producer.close()


def test_a_signal_handler_runs_during_a_wait(ends):
    producer, consumer = ends
    previous = signal.signal(signal.SIGUSR1, lambda *_: producer.send(b"from the handler"))
    try:
        sending = threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGUSR1])
        sending.start()
        assert consumer.recv(timeout=60) == b"from the handler"
        sending.join(60)
    finally:
        signal.signal(signal.SIGUSR1, previous)
