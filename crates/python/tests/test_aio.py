"""Ends in an event loop."""

import asyncio
import threading

import pytest
import shmpipe
from shmpipe import aio


def small():
    return shmpipe.create("memfd", capacity=4096)


def test_tasks_converse():
    async def ask(out, back, count):
        for number in range(count):
            await out.send(number.to_bytes(8, "little"))
            assert int.from_bytes(await back.recv(), "little") == number

    async def answer(questions, out):
        async for question in questions:
            await out.send(question)

    async def main():
        there, back = small(), small()
        async with aio.consumer(back) as answers:
            async with aio.producer(there) as out:
                answering = asyncio.create_task(answer(aio.consumer(there), aio.producer(back)))
                await ask(out, answers, 2000)
            await answering

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_stream_waits_for_space_and_for_messages():
    async def main():
        pipe = small()
        producer, consumer = aio.producer(pipe), aio.consumer(pipe)
        messages = [number.to_bytes(4, "little") * (number % 50) for number in range(5000)]

        async def send():
            for message in messages:
                await producer.send(message)
            producer.close()

        sending = asyncio.create_task(send())
        assert [message async for message in consumer] == messages
        await sending

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_cancelled_wait_loses_nothing():
    async def main():
        pipe = small()
        producer, consumer = pipe.producer(), aio.consumer(pipe)
        for number in range(200):
            waiting = asyncio.create_task(consumer.recv())
            await asyncio.sleep(0)
            producer.send(b"%d" % number)
            waiting.cancel()
            try:
                received = await waiting
            except asyncio.CancelledError:
                received = await asyncio.wait_for(consumer.recv(), 60)
            assert received == b"%d" % number
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(consumer.recv(), 0.05)
        producer.send(b"last")
        assert await asyncio.wait_for(consumer.recv(), 60) == b"last"

    asyncio.run(main())


def test_the_loop_is_idle_during_a_wait():
    async def main():
        pipe = small()
        producer, consumer = pipe.producer(), aio.consumer(pipe)
        # Until then, the loop has nothing to do but to wait.
        threading.Timer(0.3, producer.send, [b"hello"]).start()
        loop, runs = asyncio.get_running_loop(), 0
        run_once = loop._run_once

        def count():
            nonlocal runs
            runs += 1
            run_once()

        loop._run_once = count
        assert await consumer.recv() == b"hello"
        assert runs < 20

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_call_that_need_not_wait_leaves_the_loop_to_others_now_and_then():
    async def main():
        pipe = small()
        producer, consumer = aio.producer(pipe), aio.consumer(pipe)
        turns = 0

        async def other():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        running = asyncio.create_task(other())
        # There is space for all of them.
        for _ in range(3 * 64):
            await producer.send(b"x")
        assert turns == 3
        for _ in range(3 * 64):
            assert await consumer.recv() == b"x"
        assert turns == 6
        running.cancel()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_closing_a_removed_pipe_is_lost(address, command, start):
    pipe = shmpipe.create(address)
    ends = [aio.producer(pipe), aio.consumer(pipe)]
    assert start(command, "rm", "--force", address).wait(60) == 0
    for end in ends:
        with pytest.raises(shmpipe.Lost):
            end.close()
        end.close()


def test_an_exception_aborts():
    async def main():
        pipe = small()
        consumer = pipe.consumer()
        with pytest.raises(LookupError):
            async with aio.producer(pipe) as producer:
                await producer.send(b"before")
                raise LookupError
        assert consumer.recv(timeout=60) == b"before"
        with pytest.raises(shmpipe.PeerAborted):
            consumer.recv(timeout=60)

    asyncio.run(main())


def test_ends_reach_the_loop():
    async def main():
        pipe = small()
        consumer = aio.consumer(pipe)
        waiting = asyncio.create_task(consumer.recv())
        await asyncio.sleep(0.01)
        pipe.producer().abort(7)
        with pytest.raises(shmpipe.PeerAborted) as raised:
            await asyncio.wait_for(waiting, 60)
        assert raised.value.code == 7
        waiting = asyncio.create_task(consumer.recv())
        await asyncio.sleep(0.01)
        with pytest.raises(RuntimeError, match="another task"):
            await consumer.recv()
        with pytest.raises(RuntimeError, match="a task waits"):
            consumer.close()
        pipe.producer().close()
        with pytest.raises(shmpipe.Closed):
            await asyncio.wait_for(waiting, 60)

    asyncio.run(main())
