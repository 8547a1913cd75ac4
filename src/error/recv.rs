//! Why no message was received.

use super::{Aborted, CheckError, Lost, WaitError};
use crate::protocol::corruption::Corruption;
use crate::protocol::liveness::{End, PeerDied};
use crate::protocol::reader::RecvEnd;
use std::fmt;
use std::io;

/// Why no message was received at once.
///
/// ```
/// use shmpipe::TryRecvError;
///
/// # let pipe = shmpipe::Options::new().create("memfd")?;
/// # let mut consumer = pipe.consumer()?;
/// match consumer.try_recv() {
///     Ok(message) => println!("{} bytes", message.len()),
///     Err(TryRecvError::Empty) => println!("nothing now"),
///     Err(TryRecvError::Closed) => println!("nothing more"),
///     Err(error) => return Err(error.into()),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TryRecvError {
    /// There is no message now.
    Empty,
    /// The producer closed, and every message was received. Every call returns this until a new producer attaches. Or this consumer
    /// has [finished](crate::Consumer::finish).
    Closed,
    /// The producer aborted, and every message was received. Returned once.
    PeerAborted {
        /// The code that the producer gave; [`PANICKED`](crate::PANICKED) if it was dropped by a panic.
        code: u32,
    },
    /// The segment holds a value that no correct producer writes.
    Corrupt(Corruption),
}

/// Why no message was received.
///
/// ```
/// use shmpipe::RecvError;
///
/// # let pipe = shmpipe::Options::new().create("memfd")?;
/// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
/// # producer.send(b"a tick")?;
/// # producer.close()?;
/// loop {
///     match consumer.recv() {
///         Ok(message) => println!("{} bytes", message.len()),
///         Err(RecvError::Closed) => break,
///         Err(error) => return Err(error.into()),
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecvError {
    /// The producer closed, and every message was received. Every call returns this until a new producer attaches. Or this consumer
    /// has [finished](crate::Consumer::finish).
    Closed,
    /// The producer aborted, and every message was received. Returned once; the next call waits for its successor.
    PeerAborted {
        /// The code that the producer gave; [`PANICKED`](crate::PANICKED) if it was dropped by a panic.
        code: u32,
    },
    /// The producer died, and every message was received. Returned once; the next call waits for its successor.
    PeerDied,
    /// A [`CancelHandle`](crate::CancelHandle) cancelled the wait.
    Cancelled,
    /// The pipe or the consumer role is lost.
    Lost(Lost),
    /// The segment holds a value that no correct producer writes.
    Corrupt(Corruption),
}

/// Why no message was received before a deadline.
///
/// ```
/// # use std::time::Duration;
/// use shmpipe::RecvTimeoutError;
///
/// let pipe = shmpipe::Options::new().create("memfd")?;
/// let mut consumer = pipe.consumer()?;
/// let received = consumer.recv_timeout(Duration::from_millis(1));
/// assert!(matches!(received, Err(RecvTimeoutError::TimedOut)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecvTimeoutError {
    /// The deadline passed before there was a message.
    TimedOut,
    /// The producer closed, and every message was received. Every call returns this until a new producer attaches. Or this consumer
    /// has [finished](crate::Consumer::finish).
    Closed,
    /// The producer aborted, and every message was received. Returned once; the next call waits for its successor.
    PeerAborted {
        /// The code that the producer gave; [`PANICKED`](crate::PANICKED) if it was dropped by a panic.
        code: u32,
    },
    /// The producer died, and every message was received. Returned once; the next call waits for its successor.
    PeerDied,
    /// A [`CancelHandle`](crate::CancelHandle) cancelled the wait.
    Cancelled,
    /// The pipe or the consumer role is lost.
    Lost(Lost),
    /// The segment holds a value that no correct producer writes.
    Corrupt(Corruption),
}

const CLOSED: &str =
    "the producer closed the pipe and every message was received, or this consumer has finished";

fn aborted(f: &mut fmt::Formatter<'_>, code: u32) -> fmt::Result {
    let aborted = Aborted { who: "producer", code };
    write!(f, "{aborted} and every message was received; receive again to wait for its successor")
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TryRecvError::Empty => f.write_str("the pipe is empty; retry after the producer sends"),
            TryRecvError::Closed => f.write_str(CLOSED),
            TryRecvError::PeerAborted { code } => aborted(f, *code),
            TryRecvError::Corrupt(corruption) => corruption.fmt(f),
        }
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecvError::Closed => f.write_str(CLOSED),
            RecvError::PeerAborted { code } => aborted(f, *code),
            RecvError::PeerDied => f.write_str(
                "the producer died and every message was received; receive again to wait for its successor",
            ),
            RecvError::Cancelled => f.write_str("the wait for a message was cancelled"),
            RecvError::Lost(lost) => lost.fmt(f),
            RecvError::Corrupt(corruption) => corruption.fmt(f),
        }
    }
}

impl fmt::Display for RecvTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.without_timeout() {
            Some(error) => error.fmt(f),
            None => f.write_str("the pipe stayed empty until the deadline"),
        }
    }
}

impl std::error::Error for TryRecvError {}
impl From<CheckError> for RecvError {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Closed => RecvError::Closed,
            CheckError::PeerAborted { code } => RecvError::PeerAborted { code },
            CheckError::PeerDied => RecvError::PeerDied,
            CheckError::Lost(lost) => RecvError::Lost(lost),
            CheckError::Corrupt(corruption) => RecvError::Corrupt(corruption),
        }
    }
}

impl std::error::Error for RecvError {}
impl std::error::Error for RecvTimeoutError {}

impl RecvTimeoutError {
    /// Returns the same error of a call without a deadline; `None` for [`TimedOut`](Self::TimedOut).
    ///
    /// ```
    /// use shmpipe::{RecvError, RecvTimeoutError};
    ///
    /// assert_eq!(RecvTimeoutError::Closed.without_timeout(), Some(RecvError::Closed));
    /// assert_eq!(RecvTimeoutError::TimedOut.without_timeout(), None);
    /// ```
    #[must_use]
    pub fn without_timeout(self) -> Option<RecvError> {
        Some(match self {
            RecvTimeoutError::TimedOut => return None,
            RecvTimeoutError::Closed => RecvError::Closed,
            RecvTimeoutError::PeerAborted { code } => RecvError::PeerAborted { code },
            RecvTimeoutError::PeerDied => RecvError::PeerDied,
            RecvTimeoutError::Cancelled => RecvError::Cancelled,
            RecvTimeoutError::Lost(lost) => RecvError::Lost(lost),
            RecvTimeoutError::Corrupt(corruption) => RecvError::Corrupt(corruption),
        })
    }
}

impl From<RecvError> for RecvTimeoutError {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::Closed => RecvTimeoutError::Closed,
            RecvError::PeerAborted { code } => RecvTimeoutError::PeerAborted { code },
            RecvError::PeerDied => RecvTimeoutError::PeerDied,
            RecvError::Cancelled => RecvTimeoutError::Cancelled,
            RecvError::Lost(lost) => RecvTimeoutError::Lost(lost),
            RecvError::Corrupt(corruption) => RecvTimeoutError::Corrupt(corruption),
        }
    }
}

macro_rules! from_corruption {
    ($($error:ident)*) => {$(
        impl From<Corruption> for $error {
            fn from(corruption: Corruption) -> Self {
                $error::Corrupt(corruption)
            }
        }
    )*};
}

from_corruption!(TryRecvError RecvError RecvTimeoutError);

macro_rules! from_end {
    ($($error:ident)*) => {$(
        impl From<RecvEnd> for $error {
            fn from(end: RecvEnd) -> Self {
                match end {
                    RecvEnd::Ended(End::Closed) => $error::Closed,
                    RecvEnd::Ended(End::Aborted { code }) => $error::PeerAborted { code },
                    RecvEnd::Corrupt(corruption) => $error::Corrupt(corruption),
                }
            }
        }
    )*};
}

from_end!(TryRecvError RecvTimeoutError);

/// For code that reads from an [`io::Read`]. The error itself is inside: [`io::Error::downcast`].
///
/// | error | kind |
/// |---|---|
/// | [`Closed`](RecvError::Closed) | `UnexpectedEof` |
/// | [`PeerAborted`](RecvError::PeerAborted) | `ConnectionAborted` |
/// | [`PeerDied`](RecvError::PeerDied) | `ConnectionReset` |
/// | [`Cancelled`](RecvError::Cancelled) | `Other`, since callers repeat what was `Interrupted` |
/// | [`Lost`](RecvError::Lost) | `NotConnected` |
/// | [`Corrupt`](RecvError::Corrupt) | `InvalidData` |
impl From<RecvError> for io::Error {
    fn from(error: RecvError) -> Self {
        let kind = match error {
            RecvError::Closed => io::ErrorKind::UnexpectedEof,
            RecvError::PeerAborted { .. } => io::ErrorKind::ConnectionAborted,
            RecvError::PeerDied => io::ErrorKind::ConnectionReset,
            RecvError::Cancelled => io::ErrorKind::Other,
            RecvError::Lost(_) => io::ErrorKind::NotConnected,
            RecvError::Corrupt(_) => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}

impl From<WaitError> for RecvTimeoutError {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::TimedOut => RecvTimeoutError::TimedOut,
            WaitError::Cancelled => RecvTimeoutError::Cancelled,
            WaitError::Lost(lost) => RecvTimeoutError::Lost(lost),
        }
    }
}

impl From<Lost> for RecvTimeoutError {
    fn from(lost: Lost) -> Self {
        RecvTimeoutError::Lost(lost)
    }
}

impl From<PeerDied> for RecvTimeoutError {
    fn from(PeerDied: PeerDied) -> Self {
        RecvTimeoutError::PeerDied
    }
}

/// The message has another size than the value or the slice that it was to be copied to.
///
/// The message is untouched.
///
/// ```
/// use shmpipe::WrongSize;
///
/// # let pipe = shmpipe::Options::new().create("memfd")?;
/// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
/// producer.send(b"three")?;
/// let value = consumer.recv()?.value::<u64>();
/// assert_eq!(value, Err(WrongSize { message: 5, expected: 8 }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongSize {
    /// Bytes of the message.
    pub message: usize,
    /// Bytes of the value, or the most that the slice takes.
    pub expected: usize,
}

impl fmt::Display for WrongSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WrongSize { message, expected } = self;
        write!(f, "the message has {message} bytes, the destination {expected}; receive it as bytes instead")
    }
}

impl std::error::Error for WrongSize {}
