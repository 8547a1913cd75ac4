"""Watching a pipe without taking part."""

import os
import threading
import time

import pytest
import shmpipe


def until(look, is_it):
    """Looks until it is so, and returns what was seen then."""
    deadline = time.monotonic() + 60
    while not is_it(seen := look()):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return seen


def snapshot(address):
    """The state of a pipe, once there is one."""
    try:
        return shmpipe.inspect(address)
    except shmpipe.NotFound:
        return None


def test_a_snapshot_has_the_numbers_of_both_sides(address):
    pipe = shmpipe.create(address, capacity=8192, schema=7, remove_on_close=True)
    producer = pipe.producer()
    producer.send(b"hello")
    producer.send(b"a longer message")
    producer.count_dropped(3)
    found = shmpipe.inspect(address)
    assert (found.capacity, found.max_len, found.schema) == (8192, pipe.max_len, 7)
    assert (found.remove_on_close, found.remove_leftover) == (True, False)
    assert (found.unread, found.dropped, found.latency, found.back) == (2, 3, None, None)
    sent = found.producer
    assert (sent.state, sent.pid, sent.messages, sent.bytes) == ("open", os.getpid(), 2, 21)
    assert sent.position == found.used > 21
    received = found.consumer
    assert (received.state, received.pid) == ("never came", None)
    assert (received.position, received.messages, received.bytes) == (0, 0, 0)
    assert repr(found) == (
        f"<shmpipe.Snapshot {found.used} of 8192 bytes used, unread 2, producer open, consumer never came>"
    )

    consumer = pipe.consumer()
    first = consumer.recv(timeout=60)
    producer.abort(7)
    found = shmpipe.inspect(address)
    assert (found.unread, found.consumer.messages, found.consumer.bytes) == (1, 1, len(first))
    assert found.used == found.producer.position - found.consumer.position
    assert (found.producer.state, found.producer.pid, found.consumer.state) == ("aborted", None, "open")


def test_a_snapshot_has_the_latency_that_the_pipe_measures(address):
    pipe = shmpipe.create(address, capacity=65536, measure_latency=True)
    producer, consumer = pipe.producer(), pipe.consumer()
    before = shmpipe.inspect(address).latency
    assert (before.samples, before.p50, before.p9999, before.mean, before.max) == (0, None, None, 0, 0)

    def exchange(messages):
        for _ in range(messages):
            producer.send(bytes(1000))
            consumer.recv(timeout=60)

    exchange(1000)
    first = shmpipe.inspect(address).latency
    assert first.samples > 10
    percentiles = [first.p50, first.p90, first.p99, first.p999, first.p9999]
    assert 0 < percentiles[0] and percentiles == sorted(percentiles)
    assert percentiles[-1] == first.max
    assert 0 < first.mean <= first.max
    exchange(500)
    both = shmpipe.inspect(address).latency
    assert both.since(first).samples == both.samples - first.samples > 0


def test_a_latency_is_in_seconds(address):
    pipe = shmpipe.create(address, measure_latency=True)
    producer, consumer = pipe.producer(), pipe.consumer()
    # As many as are sampled in any case; each is under way for at least as long as this process sleeps.
    producer.send_many([bytes(60_000)] * 8)
    time.sleep(0.05)
    for _ in range(8):
        consumer.recv(timeout=60)
    latency = shmpipe.inspect(address).latency
    assert latency.samples > 0
    assert 0.05 <= latency.p50 <= latency.max < 60


def test_a_snapshot_of_a_duplex_pipe_has_both_directions(address, command, start):
    a = start(command, "duplex", "--side", "a", address)
    a.stdin.write(b"one\ntwo\n")
    a.stdin.flush()
    found = until(lambda: snapshot(address), lambda found: found and found.producer.messages == 2)
    assert (found.unread, found.back.unread, found.back.used) == (2, 0, 0)
    assert (found.back.producer.state, found.back.consumer.state) == ("never came", "open")
    b = start(command, "duplex", "--side", "b", address)
    b.stdin.write(b"three\n")
    b.stdin.flush()
    assert (b.stdout.readline(), a.stdout.readline()) == (b"one\n", b"three\n")
    back = shmpipe.inspect(address).back
    assert (back.producer.state, back.producer.pid, back.producer.messages) == ("open", b.pid, 1)
    assert (back.dropped, back.latency, back.consumer.pid) == (0, None, a.pid)


def test_there_is_no_snapshot_of_what_is_not_there(address):
    with pytest.raises(shmpipe.NotFound):
        shmpipe.inspect(address)
    with pytest.raises(shmpipe.SetupError):
        shmpipe.inspect("no:such/kind")


def test_a_tap_sees_what_passes(address):
    pipe = shmpipe.create(address, capacity=4096)
    producer, consumer = pipe.producer(), pipe.consumer()
    producer.send(b"received before")
    consumer.recv(timeout=60)
    producer.send(b"unread")
    tap, from_unread = shmpipe.Tap(address), shmpipe.Tap(address, unread=True)
    assert tap.next() is None
    position = producer.send(b"hello", tag=7)
    producer.send(b"")
    assert consumer.recv_many() == [b"unread", b"hello", b""]
    seen = tap.next()
    assert (seen.position, seen.tag, seen.data) == (position, 7, b"hello")
    assert repr(seen) == f"<shmpipe.Passed at {position}, tag 7: b'hello'>"
    assert (tap.next().data, tap.next()) == (b"", None)
    assert [from_unread.next().data for _ in range(3)] == [b"unread", b"hello", b""]
    assert from_unread.next() is None
    assert (tap.producer, tap.back()) == ("open", None)
    with pytest.raises(shmpipe.NotFound):
        shmpipe.Tap(f"{address}-not-there")


def test_a_tap_says_what_it_missed():
    pipe = shmpipe.create("memfd", capacity=4096)
    producer, consumer = pipe.producer(), pipe.consumer()
    tap = shmpipe.Tap(pipe.address)
    for _ in range(10):
        producer.send(bytes(1000))
        consumer.recv(timeout=60)
    producer.send(b"next")
    missed, seen = tap.next(), tap.next()
    assert isinstance(missed, shmpipe.Missed)
    assert missed.bytes >= 10 * 1000
    assert repr(missed) == f"<shmpipe.Missed {missed.bytes} bytes>"
    assert (seen.data, seen.position) == (b"next", missed.bytes)


def test_a_tap_on_a_duplex_pipe_sees_either_direction(address, command, start):
    sides = {side: start(command, "duplex", "--side", side, address) for side in "ab"}
    for side, process in sides.items():
        process.stdin.write(f"from {side}\n".encode())
        process.stdin.flush()
    assert [process.stdout.readline() for process in sides.values()] == [b"from b\n", b"from a\n"]
    forth = shmpipe.Tap(address)
    back = forth.back()
    again = back.back()
    for side, process in sides.items():
        process.stdin.write(f"again from {side}\n".encode())
        process.stdin.flush()
        process.stdin.close()
    assert [seen.data for seen in forth.follow()] == [b"again from a"]
    assert [seen.data for seen in back.follow()] == [b"again from b"]
    assert again.next().data == b"again from a"


def test_following_a_tap_ends_with_the_producer(address):
    pipe = shmpipe.create(address)
    tap, seen = shmpipe.Tap(address), []

    def watch():
        for passed in tap.follow():
            seen.append(passed.data)

    # It waits for the producer, and then for messages, while this thread runs.
    watching = threading.Thread(daemon=True, target=watch)
    watching.start()
    with pipe.producer() as producer:
        for number in range(3):
            producer.send(b"%d" % number)
            until(lambda: len(seen), lambda count: count > number)
        assert watching.is_alive()
        producer.send(b"last")
    watching.join(60)
    assert seen == [b"0", b"1", b"2", b"last"]
    # What is not released comes before the end.
    assert [passed.data for passed in shmpipe.Tap(address, unread=True).follow()] == seen


@pytest.mark.parametrize("interval", [0, -1.0, float("nan"), float("inf")])
def test_a_pause_that_is_none_is_refused(interval):
    pipe = shmpipe.create("memfd")
    tap = shmpipe.Tap(pipe.address)
    with pytest.raises(ValueError, match="a sleep of"):
        tap.follow(interval)


def test_following_a_tap_hears_of_an_abort(address):
    producer = shmpipe.create(address).producer()
    follow = shmpipe.Tap(address).follow()
    producer.send(b"before")
    producer.abort(7)
    assert next(follow).data == b"before"
    with pytest.raises(shmpipe.PeerAborted) as raised:
        next(follow)
    assert raised.value.code == 7


def test_following_a_tap_hears_of_a_death(address, python):
    pipe = shmpipe.create(address)
    follow = shmpipe.Tap(address).follow()
    sender = python("producer = shmpipe.open(sys.argv[1]).producer(); producer.send(b'before'); sys.stdin.read()", address)
    assert next(follow).data == b"before"
    sender.kill()
    with pytest.raises(shmpipe.PeerDied):
        next(follow)
    # Its successor goes on.
    with pipe.producer() as producer:
        producer.send(b"after")
        assert next(follow).data == b"after"


def test_following_a_tap_hears_of_a_removal(address):
    shmpipe.create(address)
    follow = shmpipe.Tap(address).follow()
    shmpipe.unlink(address)
    with pytest.raises(shmpipe.Lost, match="removed"):
        next(follow)
    shmpipe.create(address)
    with pytest.raises(shmpipe.Lost, match="new one"):
        next(follow)
