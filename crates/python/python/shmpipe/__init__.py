"""A pipe between two unrelated processes at the speed of shared memory.

One process sends, another one receives::

    import shmpipe

    with shmpipe.open_or_create("ticks").producer() as producer:
        producer.send(b"EURUSD 1.0842")

    with shmpipe.open_or_create("ticks").consumer() as consumer:
        for message in consumer:
            print(message)

Messages are whole, in order, and survive the death of either process. The other one may be in any language.
"""

import sys

# Without it the interpreter would only say that it finds no module for its kind.
if "t" in sys.abiflags:
    raise ImportError("shmpipe does not load in a free-threaded build of Python; use a build with the global interpreter lock")

from ._errors import (
    Cancelled,
    Closed,
    Corrupt,
    Error,
    Exists,
    Lost,
    NotFound,
    PeerAborted,
    PeerDied,
    PermissionDenied,
    RoleTaken,
    SetupError,
    Timeout,
    TooLarge,
    WrongSize,
)
from ._shmpipe import (
    PANICKED,
    Consumer,
    Direction,
    Latency,
    Message,
    Missed,
    Passed,
    Pipe,
    Producer,
    Side,
    Snapshot,
    Tap,
    __version__,
    create,
    inspect,
    open,
    open_or_create,
    unlink,
)

__all__ = [
    "PANICKED",
    "Cancelled",
    "Closed",
    "Consumer",
    "Corrupt",
    "Direction",
    "Error",
    "Exists",
    "Latency",
    "Lost",
    "Message",
    "Missed",
    "NotFound",
    "Passed",
    "PeerAborted",
    "PeerDied",
    "PermissionDenied",
    "Pipe",
    "Producer",
    "RoleTaken",
    "SetupError",
    "Side",
    "Snapshot",
    "Tap",
    "Timeout",
    "TooLarge",
    "WrongSize",
    "__version__",
    "create",
    "inspect",
    "open",
    "open_or_create",
    "unlink",
]
