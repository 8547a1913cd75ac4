//! Why a message was not sent.

use super::{Aborted, CheckError, Lost, WaitError};
use crate::protocol::corruption::Corruption;
use crate::protocol::liveness::{End, PeerDied};
use std::fmt;
use std::io;

/// Why a message was not sent at once.
///
/// The pipe holds nothing of it.
///
/// ```
/// use shmpipe::TrySendError;
///
/// # let pipe = shmpipe::Options::new().create("memfd")?;
/// # let mut producer = pipe.producer()?;
/// match producer.try_send(b"a tick") {
///     Err(TrySendError::Full) => eprintln!("the consumer is slow: dropped a tick"),
///     sent => drop(sent?),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrySendError {
    /// There is no space now: the consumer has to release messages first.
    Full,
    /// The message, or the batch, is longer than this pipe can ever take.
    TooLarge {
        /// Bytes of the message; for a batch, the bytes that it would take in the ring.
        length: usize,
        /// Bytes that fit.
        max: usize,
    },
    /// The consumer closed while this producer was attached, or this producer has [finished](crate::Producer::finish).
    Closed,
    /// The consumer aborted. Returned once.
    PeerAborted {
        /// The code that the consumer gave; [`PANICKED`](crate::PANICKED) if it was dropped by a panic.
        code: u32,
    },
    /// The segment holds a value that no correct consumer writes.
    Corrupt(Corruption),
}

/// Why a message was not sent.
///
/// The pipe holds nothing of it.
///
/// ```
/// use shmpipe::SendError;
///
/// # let pipe = shmpipe::Options::new().create("memfd")?;
/// # let mut producer = pipe.producer()?;
/// loop {
///     match producer.send(b"a tick") {
///         // Waits for the next consumer.
///         Err(SendError::PeerDied) => continue,
///         sent => break sent?,
///     }
/// };
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The message, or the batch, is longer than this pipe can ever take.
    TooLarge {
        /// Bytes of the message; for a batch, the bytes that it would take in the ring.
        length: usize,
        /// Bytes that fit.
        max: usize,
    },
    /// The consumer closed while this producer was attached, or this producer has [finished](crate::Producer::finish).
    Closed,
    /// The consumer aborted. Returned once; the next call waits for its successor if the pipe is full.
    PeerAborted {
        /// The code that the consumer gave; [`PANICKED`](crate::PANICKED) if it was dropped by a panic.
        code: u32,
    },
    /// The consumer died, and the pipe is full. Returned once; the next call waits for its successor.
    PeerDied,
    /// A [`CancelHandle`](crate::CancelHandle) cancelled the wait for space.
    Cancelled,
    /// The pipe or the producer role is lost.
    Lost(Lost),
    /// The segment holds a value that no correct consumer writes.
    Corrupt(Corruption),
}

/// Why a message was not sent before its deadline.
///
/// The pipe holds nothing of it.
///
/// ```
/// # use std::time::Duration;
/// use shmpipe::SendTimeoutError;
///
/// let pipe = shmpipe::Options::new().capacity(4096).create("memfd")?;
/// let mut producer = pipe.producer()?;
/// while producer.try_send(&[0u8; 1000]).is_ok() {}
/// let sent = producer.send_timeout(&[0u8; 1000], Duration::from_millis(1));
/// assert_eq!(sent, Err(SendTimeoutError::TimedOut));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendTimeoutError {
    /// The deadline passed before there was space.
    TimedOut,
    /// The message, or the batch, is longer than this pipe can ever take.
    TooLarge {
        /// Bytes of the message; for a batch, the bytes that it would take in the ring.
        length: usize,
        /// Bytes that fit.
        max: usize,
    },
    /// The consumer closed while this producer was attached, or this producer has [finished](crate::Producer::finish).
    Closed,
    /// The consumer aborted. Returned once; the next call waits for its successor if the pipe is full.
    PeerAborted {
        /// The code that the consumer gave; [`PANICKED`](crate::PANICKED) if it was dropped by a panic.
        code: u32,
    },
    /// The consumer died, and the pipe is full. Returned once; the next call waits for its successor.
    PeerDied,
    /// A [`CancelHandle`](crate::CancelHandle) cancelled the wait for space.
    Cancelled,
    /// The pipe or the producer role is lost.
    Lost(Lost),
    /// The segment holds a value that no correct consumer writes.
    Corrupt(Corruption),
}

/// What every way to send can run into.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rejected {
    TooLarge { length: usize, max: usize },
    Ended(End),
    Corrupt(Corruption),
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rejected::TooLarge { length, max } => write!(
                f,
                "{length} bytes do not fit, at most {max} do; send less at a time, or create a pipe of larger capacity"
            ),
            Rejected::Ended(End::Closed) => {
                f.write_str("the consumer closed the pipe, or this producer has finished")
            }
            Rejected::Ended(End::Aborted { code }) => {
                write!(
                    f,
                    "{}; send again to wait for its successor",
                    Aborted { who: "consumer", code: *code }
                )
            }
            Rejected::Corrupt(corruption) => corruption.fmt(f),
        }
    }
}

impl fmt::Display for TrySendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            TrySendError::Full => f.write_str("the pipe is full; retry after the consumer releases messages"),
            TrySendError::TooLarge { length, max } => Rejected::TooLarge { length, max }.fmt(f),
            TrySendError::Closed => Rejected::Ended(End::Closed).fmt(f),
            TrySendError::PeerAborted { code } => Rejected::Ended(End::Aborted { code }).fmt(f),
            TrySendError::Corrupt(corruption) => corruption.fmt(f),
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            SendError::TooLarge { length, max } => Rejected::TooLarge { length, max }.fmt(f),
            SendError::Closed => Rejected::Ended(End::Closed).fmt(f),
            SendError::PeerAborted { code } => Rejected::Ended(End::Aborted { code }).fmt(f),
            SendError::PeerDied => f.write_str("the consumer died; send again to wait for its successor"),
            SendError::Cancelled => f.write_str("the wait for space was cancelled"),
            SendError::Lost(lost) => lost.fmt(f),
            SendError::Corrupt(corruption) => corruption.fmt(f),
        }
    }
}

impl fmt::Display for SendTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.without_timeout() {
            Some(error) => error.fmt(f),
            None => f.write_str("the pipe stayed full until the deadline"),
        }
    }
}

impl TrySendError {
    /// Returns the same error of a call that waits; `None` for [`Full`](Self::Full).
    ///
    /// ```
    /// use shmpipe::{SendError, TrySendError};
    ///
    /// assert_eq!(TrySendError::Closed.without_full(), Some(SendError::Closed));
    /// assert_eq!(TrySendError::Full.without_full(), None);
    /// ```
    #[must_use]
    pub fn without_full(self) -> Option<SendError> {
        Some(match self {
            TrySendError::Full => return None,
            TrySendError::TooLarge { length, max } => SendError::TooLarge { length, max },
            TrySendError::Closed => SendError::Closed,
            TrySendError::PeerAborted { code } => SendError::PeerAborted { code },
            TrySendError::Corrupt(corruption) => SendError::Corrupt(corruption),
        })
    }
}

impl std::error::Error for TrySendError {}
impl From<CheckError> for SendError {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Closed => SendError::Closed,
            CheckError::PeerAborted { code } => SendError::PeerAborted { code },
            CheckError::PeerDied => SendError::PeerDied,
            CheckError::Lost(lost) => SendError::Lost(lost),
            CheckError::Corrupt(corruption) => SendError::Corrupt(corruption),
        }
    }
}

impl std::error::Error for SendError {}
impl std::error::Error for SendTimeoutError {}

impl SendTimeoutError {
    /// Returns the same error of a call without a deadline; `None` for [`TimedOut`](Self::TimedOut).
    ///
    /// ```
    /// use shmpipe::{SendError, SendTimeoutError};
    ///
    /// assert_eq!(SendTimeoutError::Closed.without_timeout(), Some(SendError::Closed));
    /// assert_eq!(SendTimeoutError::TimedOut.without_timeout(), None);
    /// ```
    #[must_use]
    pub fn without_timeout(self) -> Option<SendError> {
        Some(match self {
            SendTimeoutError::TimedOut => return None,
            SendTimeoutError::TooLarge { length, max } => SendError::TooLarge { length, max },
            SendTimeoutError::Closed => SendError::Closed,
            SendTimeoutError::PeerAborted { code } => SendError::PeerAborted { code },
            SendTimeoutError::PeerDied => SendError::PeerDied,
            SendTimeoutError::Cancelled => SendError::Cancelled,
            SendTimeoutError::Lost(lost) => SendError::Lost(lost),
            SendTimeoutError::Corrupt(corruption) => SendError::Corrupt(corruption),
        })
    }
}

impl From<SendError> for SendTimeoutError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::TooLarge { length, max } => SendTimeoutError::TooLarge { length, max },
            SendError::Closed => SendTimeoutError::Closed,
            SendError::PeerAborted { code } => SendTimeoutError::PeerAborted { code },
            SendError::PeerDied => SendTimeoutError::PeerDied,
            SendError::Cancelled => SendTimeoutError::Cancelled,
            SendError::Lost(lost) => SendTimeoutError::Lost(lost),
            SendError::Corrupt(corruption) => SendTimeoutError::Corrupt(corruption),
        }
    }
}

macro_rules! from_rejected {
    ($($error:ident)*) => {$(
        impl From<Rejected> for $error {
            fn from(rejected: Rejected) -> Self {
                match rejected {
                    Rejected::TooLarge { length, max } => $error::TooLarge { length, max },
                    Rejected::Ended(End::Closed) => $error::Closed,
                    Rejected::Ended(End::Aborted { code }) => $error::PeerAborted { code },
                    Rejected::Corrupt(corruption) => $error::Corrupt(corruption),
                }
            }
        }

        impl From<Corruption> for $error {
            fn from(corruption: Corruption) -> Self {
                $error::Corrupt(corruption)
            }
        }
    )*};
}

from_rejected!(TrySendError SendError SendTimeoutError);

/// For code that writes to an [`io::Write`]. The error itself is inside: [`io::Error::downcast`].
///
/// | error | kind |
/// |---|---|
/// | [`TooLarge`](SendError::TooLarge) | `InvalidInput` |
/// | [`Closed`](SendError::Closed) | `BrokenPipe` |
/// | [`PeerAborted`](SendError::PeerAborted) | `ConnectionAborted` |
/// | [`PeerDied`](SendError::PeerDied) | `ConnectionReset` |
/// | [`Cancelled`](SendError::Cancelled) | `Other`, since callers repeat what was `Interrupted` |
/// | [`Lost`](SendError::Lost) | `NotConnected` |
/// | [`Corrupt`](SendError::Corrupt) | `InvalidData` |
impl From<SendError> for io::Error {
    fn from(error: SendError) -> Self {
        let kind = match error {
            SendError::TooLarge { .. } => io::ErrorKind::InvalidInput,
            SendError::Closed => io::ErrorKind::BrokenPipe,
            SendError::PeerAborted { .. } => io::ErrorKind::ConnectionAborted,
            SendError::PeerDied => io::ErrorKind::ConnectionReset,
            SendError::Cancelled => io::ErrorKind::Other,
            SendError::Lost(_) => io::ErrorKind::NotConnected,
            SendError::Corrupt(_) => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}

impl From<WaitError> for SendTimeoutError {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::TimedOut => SendTimeoutError::TimedOut,
            WaitError::Cancelled => SendTimeoutError::Cancelled,
            WaitError::Lost(lost) => SendTimeoutError::Lost(lost),
        }
    }
}

impl From<Lost> for SendTimeoutError {
    fn from(lost: Lost) -> Self {
        SendTimeoutError::Lost(lost)
    }
}

impl From<PeerDied> for SendTimeoutError {
    fn from(PeerDied: PeerDied) -> Self {
        SendTimeoutError::PeerDied
    }
}
