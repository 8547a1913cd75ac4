"""The exceptions of shmpipe."""


class Error(Exception):
    """The base of all exceptions of this package."""


class SetupError(Error, OSError):
    """A pipe could not be created, opened, claimed or removed.

    `errno` is set where there is one.
    """


class NotFound(SetupError, FileNotFoundError):
    """There is no pipe at this address."""


class Exists(SetupError, FileExistsError):
    """There is a pipe at this address already."""


class PermissionDenied(SetupError, PermissionError):
    """The system denies access."""


class RoleTaken(SetupError):
    """Another process, or another object of this one, has the role.

    `pid` is the process, if it is visible from here.
    """

    pid: int | None


class Closed(Error):
    """The peer closed, and everything that it sent was received."""


class PeerAborted(Error):
    """The peer aborted, and everything that it sent was received. Raised once.

    `code` is what it gave: `shmpipe.PANICKED` if an exception ended it.
    """

    code: int


class PeerDied(Error):
    """The peer died, and everything that it sent was received. Raised once: the next call waits for its successor."""


class Timeout(Error, TimeoutError):
    """Nothing happened before the timeout."""


class Cancelled(Error):
    """Another thread cancelled the wait."""


class TooLarge(Error, ValueError):
    """The message, of `length` bytes, is longer than this pipe can ever take, which is `max`."""

    length: int
    max: int


class WrongSize(Error, ValueError):
    """The message has `message` bytes, and `expected` were expected. It stays in the pipe."""

    message: int
    expected: int


class Lost(Error):
    """The pipe was removed while it was open, or this end lost its role."""


class Corrupt(Error):
    """The pipe holds a value that no correct peer writes."""
