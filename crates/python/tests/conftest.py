"""Pipes for the tests, and the command line as the other side."""

import contextlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import shmpipe

NUMBERS = itertools.count()
ROOT = Path(__file__).resolve().parents[3]
COMMAND = os.environ.get("SHMPIPE", str(ROOT / "target/debug/shmpipe"))


@pytest.fixture
def address():
    """The address of a pipe that only this test uses. The pipe is removed at the end."""
    address = f"py-{os.getpid()}-{next(NUMBERS)}"
    yield address
    try:
        shmpipe.unlink(address)
    except shmpipe.NotFound:
        pass
    except shmpipe.RoleTaken:
        # A test that failed still has its ends.
        subprocess.run([COMMAND, "rm", "--force", address], check=True)


@pytest.fixture
def ends():
    """A producer and a consumer of a small pipe, which need no other process."""
    pipe = shmpipe.create("memfd", capacity=4096)
    with pipe.producer() as producer, pipe.consumer(trust_producer=True) as consumer:
        yield producer, consumer


@pytest.fixture
def start():
    """Starts processes that are killed at the end at the latest."""
    with contextlib.ExitStack() as running:

        def start(*words, **options):
            process = running.enter_context(
                subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
            )
            running.callback(process.kill)
            return process

        yield start


@pytest.fixture
def python(start):
    """Starts a Python program that has imported shmpipe and can be interrupted, also where this process cannot."""
    first = "import shmpipe, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"

    def python(program, *words):
        return start(sys.executable, "-c", first + program, *words)

    return python


@pytest.fixture
def command():
    """The command line of the library."""
    return COMMAND
