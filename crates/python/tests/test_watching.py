"""Watching a pipe without taking part."""

import os
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
