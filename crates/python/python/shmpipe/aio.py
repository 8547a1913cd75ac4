"""Ends of a pipe for asyncio.

::

    from shmpipe import aio

    async with aio.consumer(shmpipe.open_or_create("ticks")) as consumer:
        async for message in consumer:
            print(message)

A wait costs no thread: the event loop waits for a descriptor. One task uses an end at a time. A wait that is cancelled loses nothing.
Other tasks run after 64 messages at the latest, also while there are always more.
"""

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from ._errors import Closed
from ._shmpipe import PANICKED, DescriptorConsumer, DescriptorProducer, Pipe

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["AsyncConsumer", "AsyncProducer", "consumer", "producer"]


E = TypeVar("E", DescriptorConsumer, DescriptorProducer)


def consumer(pipe: Pipe) -> "AsyncConsumer":
    """Claims the consumer role. Raises RoleTaken."""
    return AsyncConsumer(pipe.descriptor_consumer())


def producer(pipe: Pipe) -> "AsyncProducer":
    """Claims the producer role. Raises RoleTaken."""
    return AsyncProducer(pipe.descriptor_producer())


class _End(Generic[E]):
    def __init__(self, end: E) -> None:
        self._end: E = end
        self._waits = False
        self._calls = 0

    async def _turn(self) -> None:
        """Lets other tasks run now and then. A call that is cancelled here has done nothing."""
        self._calls += 1
        if self._calls % 64 == 0:
            await asyncio.sleep(0)

    async def _until_readable(self) -> None:
        """Waits until the end may be ready. Its descriptor is unreadable until then."""
        loop = asyncio.get_running_loop()
        readable = loop.create_future()

        def wake() -> None:
            if not readable.done():
                readable.set_result(None)

        if self._waits:
            raise RuntimeError("another task waits for this end; use it in one task at a time")
        self._waits = True
        loop.add_reader(self._end.fileno(), wake)
        try:
            await readable
        finally:
            loop.remove_reader(self._end.fileno())
            self._waits = False

    def close(self) -> None:
        """Closes this end. Does nothing if it is closed."""
        if self._waits:
            raise RuntimeError("a task waits for this end; cancel it first")
        self._end.close()

    def abort(self, code: int) -> None:
        """Closes this end in error: the other one gets the abort and its code."""
        if self._waits:
            raise RuntimeError("a task waits for this end; cancel it first")
        self._end.abort(code)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exception is None:
            self.close()
        else:
            self.abort(PANICKED)


class AsyncConsumer(_End[DescriptorConsumer]):
    """Receives messages in an event loop. An asynchronous iterator: of messages as bytes, until the producer closes."""

    async def recv(self) -> bytes:
        """Receives the next message. Raises Closed, PeerAborted, PeerDied, Lost or Corrupt."""
        await self._turn()
        while (message := self._end.try_recv()) is None:
            await self._until_readable()
        return message

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self.recv()
        except Closed:
            raise StopAsyncIteration from None


class AsyncProducer(_End[DescriptorProducer]):
    """Sends messages in an event loop."""

    async def send(self, message: "Buffer", *, tag: int = 0) -> None:
        """Sends a message, once there is space for it. Raises Closed, PeerAborted, PeerDied, TooLarge, Lost or Corrupt."""
        await self._turn()
        while not self._end.try_send(message, tag=tag):
            await self._until_readable()
