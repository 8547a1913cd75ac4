//! Errors: one type per operation, which can say only what can happen there.
//!
//! | operation | error |
//! |---|---|
//! | `try_send`, `try_reserve`, `try_push` | [`TrySendError`] |
//! | `send`, `reserve`, `push` | [`SendError`] |
//! | `*_timeout`, `*_deadline` of these | [`SendTimeoutError`] |
//! | `try_recv` | [`TryRecvError`] |
//! | `recv` | [`RecvError`] |
//! | `recv_timeout`, `recv_deadline`, `wait_for_message` | [`RecvTimeoutError`] |
//! | `wait_for_peer` | [`WaitError`] |
//! | `check` | [`CheckError`] |
//! | `wait` of a [`WaitSet`](crate::WaitSet) | [`WaitSetError`] |
//! | `add` and `set_interest` of one | [`AddError`] |
//! | `flush` | [`FlushError`] |
//! | `copy_to` and `value` of a message | [`WrongSize`] |
//! | `free`, `is_drained`, `next` of a drain | [`Corruption`] |
//! | create, open, claim a role, remove, inspect | [`SetupError`] |
//! | parse an address | [`AddressError`](crate::AddressError) |
//! | `close`, `finish`, `abort` | [`CloseError`] |
//!
//! [`SetupError`] names the kind of problem. These types, which only this module has, hold its details:
//!
//! | kind | details |
//! |---|---|
//! | [`SetupError::Unsupported`] | [`Unsupported`] |
//! | [`SetupError::Untrusted`] | [`Distrust`] |
//! | [`SetupError::File`] | [`FileProblem`] |
//! | [`SetupError::Incompatible`] | [`Mismatch`] |
//! | [`SetupError::Damaged`] | [`Damage`] |
//! | [`SetupError::Limit`] | [`Shortage`] |
//! | [`SetupError::Kernel`] | [`MissingFeature`] |
//!
//! Each message says what was found, what was expected and what to do about it:
//!
//! ```
//! let error = shmpipe::Pipe::open("memfd").unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "cannot open memfd: sysv:private and memfd always create a pipe; use create, or the address of that pipe",
//! );
//! ```

mod recv;
mod send;
mod setup;
mod wait_set;

pub use recv::{RecvError, RecvTimeoutError, TryRecvError, WrongSize};
pub(crate) use send::Rejected;
pub use send::{SendError, SendTimeoutError, TrySendError};
pub use setup::{Damage, Distrust, FileProblem, Mismatch, MissingFeature, SetupError, Shortage, Unsupported};
pub(crate) use setup::{failed, failed_to_map, os};
pub use wait_set::{AddError, NotAdded, WaitSetError};

use crate::protocol::corruption::Corruption;
use crate::protocol::liveness::{End, PANICKED, PeerDied};
use crate::protocol::reader::RecvEnd;
use std::fmt;
use std::io;

/// How an endpoint lost its pipe or its role.
///
/// The endpoint cannot be used further: drop it and reopen the pipe.
///
/// ```
/// use shmpipe::{Lost, Options, RecvError, unlink_force};
///
/// let pipe = Options::new().create("sysv:private")?;
/// let mut consumer = pipe.consumer()?;
/// unlink_force(pipe.address())?;
/// assert!(matches!(consumer.recv(), Err(RecvError::Lost(Lost::Removed))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lost {
    /// The pipe was removed, or this process left the pipe's IPC namespace.
    Removed,
    /// The pipe was removed, and its address now leads to another pipe.
    Replaced,
    /// The pipe exists, but our claim of the role does not: another process has overwritten it, or holds the role too.
    Role,
    /// The kernel refuses to say whether the roles are held, so that the death of the peer would go unnoticed: a seccomp filter
    /// forbids the call, or a security module does. Returned at the second check in a row that is refused.
    Refused {
        /// The call.
        call: &'static str,
        /// The error number.
        errno: i32,
    },
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lost::Refused { call, errno } => {
                return write!(
                    f,
                    "the kernel refuses to say whether the other side lives: {call} failed: {}; permit the call",
                    io::Error::from_raw_os_error(*errno)
                );
            }
            Lost::Removed => "the pipe was removed while open; reopen it",
            Lost::Replaced => {
                "the pipe was removed while open and a new one now has its address; reopen to use the new one"
            }
            Lost::Role => {
                "lost the role: another process took it by force; stop every user of the pipe, then reopen it"
            }
        })
    }
}

impl std::error::Error for Lost {}

/// What [`Producer::check`](crate::Producer::check) or [`Consumer::check`](crate::Consumer::check) found.
///
/// ```
/// use shmpipe::{CheckError, TryRecvError};
///
/// let pipe = shmpipe::Options::new().create("memfd")?;
/// let (producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
/// assert_eq!(consumer.check(), Ok(()));
/// producer.abort(7)?;
/// assert_eq!(consumer.check(), Err(CheckError::PeerAborted { code: 7 }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckError {
    /// The peer closed. Every call returns this until a new peer attaches.
    Closed,
    /// The peer aborted. Returned once.
    PeerAborted {
        /// The code that the peer gave; [`PANICKED`] if it was dropped by a panic.
        code: u32,
    },
    /// The peer died. Returned once.
    PeerDied,
    /// The pipe or the role is lost.
    Lost(Lost),
    /// The segment holds a value that no correct peer writes.
    Corrupt(Corruption),
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckError::Closed => f.write_str("the peer closed the pipe"),
            CheckError::PeerAborted { code } => Aborted { who: "peer", code: *code }.fmt(f),
            CheckError::PeerDied => f.write_str("the peer died and has no successor yet"),
            CheckError::Lost(lost) => lost.fmt(f),
            CheckError::Corrupt(corruption) => corruption.fmt(f),
        }
    }
}

impl std::error::Error for CheckError {}

impl From<End> for CheckError {
    fn from(end: End) -> Self {
        match end {
            End::Closed => CheckError::Closed,
            End::Aborted { code } => CheckError::PeerAborted { code },
        }
    }
}

impl From<PeerDied> for CheckError {
    fn from(PeerDied: PeerDied) -> Self {
        CheckError::PeerDied
    }
}

impl From<Lost> for CheckError {
    fn from(lost: Lost) -> Self {
        CheckError::Lost(lost)
    }
}

impl From<Corruption> for CheckError {
    fn from(corruption: Corruption) -> Self {
        CheckError::Corrupt(corruption)
    }
}

impl From<RecvEnd> for CheckError {
    fn from(end: RecvEnd) -> Self {
        match end {
            RecvEnd::Ended(end) => end.into(),
            RecvEnd::Corrupt(corruption) => corruption.into(),
        }
    }
}

/// Why a producer does not know that everything it sent was released.
///
/// What was not released stays in the pipe, for the consumer or its successor.
///
/// ```
/// use shmpipe::FlushError;
///
/// let pipe = shmpipe::Options::new().create("memfd")?;
/// let (mut producer, consumer) = (pipe.producer()?, pipe.consumer()?);
/// producer.send(b"a line")?;
/// consumer.close()?;
/// assert_eq!(producer.flush(None), Err(FlushError::Closed));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlushError {
    /// The deadline passed.
    TimedOut,
    /// A [`CancelHandle`](crate::CancelHandle) cancelled the wait.
    Cancelled,
    /// The consumer closed while this producer was attached, or this producer has [finished](crate::Producer::finish).
    Closed,
    /// The consumer aborted. Returned once; the next call waits for its successor.
    PeerAborted {
        /// The code that the consumer gave; [`PANICKED`] if it was dropped by a panic.
        code: u32,
    },
    /// The consumer died. Returned once; the next call waits for its successor.
    PeerDied,
    /// The pipe or the producer role is lost.
    Lost(Lost),
    /// The segment holds a value that no correct consumer writes.
    Corrupt(Corruption),
}

impl fmt::Display for FlushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlushError::TimedOut => f.write_str("not everything was received before the deadline"),
            FlushError::Cancelled => f.write_str("the wait for the consumer was cancelled"),
            FlushError::Closed => f.write_str(
                "not everything was received: the consumer closed the pipe, or this producer has finished",
            ),
            FlushError::PeerAborted { code } => {
                write!(
                    f,
                    "not everything was received: {}; flush again to wait for its successor",
                    Aborted { who: "consumer", code: *code }
                )
            }
            FlushError::PeerDied => f.write_str(
                "not everything was received: the consumer died; flush again to wait for its successor",
            ),
            FlushError::Lost(lost) => lost.fmt(f),
            FlushError::Corrupt(corruption) => corruption.fmt(f),
        }
    }
}

impl std::error::Error for FlushError {}

impl From<CheckError> for FlushError {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Closed => FlushError::Closed,
            CheckError::PeerAborted { code } => FlushError::PeerAborted { code },
            CheckError::PeerDied => FlushError::PeerDied,
            CheckError::Lost(lost) => FlushError::Lost(lost),
            CheckError::Corrupt(corruption) => FlushError::Corrupt(corruption),
        }
    }
}

/// The text for an abort.
struct Aborted {
    who: &'static str,
    code: u32,
}

impl fmt::Display for Aborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            PANICKED => write!(f, "the {} panicked", self.who),
            code => write!(f, "the {} aborted with code {code}", self.who),
        }
    }
}

/// Why a wait for the peer, for a message or for space ended without it.
///
/// ```
/// # use std::time::Instant;
/// use shmpipe::WaitError;
///
/// let pipe = shmpipe::Options::new().create("memfd")?;
/// let mut producer = pipe.producer()?;
/// assert_eq!(producer.wait_for_peer(Some(Instant::now())), Err(WaitError::TimedOut));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitError {
    /// The deadline passed.
    TimedOut,
    /// A [`CancelHandle`](crate::CancelHandle) cancelled the wait.
    Cancelled,
    /// The pipe or the role is lost.
    Lost(Lost),
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitError::TimedOut => f.write_str("the deadline passed"),
            WaitError::Cancelled => f.write_str("the wait was cancelled"),
            WaitError::Lost(lost) => lost.fmt(f),
        }
    }
}

impl std::error::Error for WaitError {}

impl From<Lost> for WaitError {
    fn from(lost: Lost) -> Self {
        WaitError::Lost(lost)
    }
}

/// Why an endpoint did not close in order.
///
/// It is gone all the same.
///
/// ```
/// use shmpipe::CloseError;
///
/// # let pipe = shmpipe::Options::new().create("memfd")?;
/// # let producer = pipe.producer()?;
/// match producer.close() {
///     Err(CloseError::Lost(lost)) => eprintln!("the consumer may not see the end: {lost}"),
///     closed => closed?,
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum CloseError {
    /// The pipe or the role was lost before.
    Lost(Lost),
    /// The system call that gives the role back failed.
    Os {
        /// The call.
        call: &'static str,
        /// The reason.
        source: io::Error,
    },
}

impl fmt::Display for CloseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseError::Lost(lost) => lost.fmt(f),
            CloseError::Os { call, source } => write!(f, "{call} failed: {source}"),
        }
    }
}

impl std::error::Error for CloseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CloseError::Lost(_) => None,
            CloseError::Os { source, .. } => Some(source),
        }
    }
}
