//! Why an endpoint did not join a set, and why a set stopped waiting.

use crate::protocol::liveness::Role;
use crate::protocol::sleep::Interest;
use std::fmt;
use std::io;

/// Why a [`WaitSet`](crate::WaitSet) did not wait.
///
/// ```
/// # use std::time::Instant;
/// use shmpipe::{Interest, WaitSet, WaitSetError};
///
/// let pipe = shmpipe::Options::new().create("memfd")?;
/// let mut set = WaitSet::new();
/// set.add(pipe.consumer()?, Interest::Message)?;
/// assert_eq!(set.wait(Some(Instant::now())).unwrap_err(), WaitSetError::TimedOut);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitSetError {
    /// The deadline passed.
    TimedOut,
    /// A [`CancelHandle`](crate::CancelHandle) cancelled the wait.
    Cancelled,
    /// The set has no members, so it would wait for ever.
    Empty,
}

impl fmt::Display for WaitSetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WaitSetError::TimedOut => "no member was ready until the deadline",
            WaitSetError::Cancelled => "the wait was cancelled",
            WaitSetError::Empty => "the set has no members, so nothing can end the wait; add one first",
        })
    }
}

impl std::error::Error for WaitSetError {}

/// Why a [`WaitSet`](crate::WaitSet) does not wait for an endpoint.
///
/// ```
/// use shmpipe::{AddError, Interest, Role, WaitSet};
///
/// let pipe = shmpipe::Options::new().create("memfd")?;
/// let refused = WaitSet::new().add(pipe.consumer()?, Interest::Space(8)).unwrap_err();
/// let expected = AddError::Interest { role: Role::Consumer, interest: Interest::Space(8) };
/// assert_eq!(refused.reason.to_string(), expected.to_string());
/// let _consumer = refused.member; // as it was
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum AddError {
    /// This role cannot wait for that.
    Interest {
        /// The role of the endpoint.
        role: Role,
        /// What was to be awaited.
        interest: Interest,
    },
    /// No space for a message of this length can ever be awaited.
    TooLarge {
        /// Bytes of the message.
        length: usize,
        /// Bytes of the longest message.
        max: usize,
    },
    /// The thread could not be started that the set needs for each 127 members after the first 127.
    Thread {
        /// Members of the set.
        members: usize,
        /// The reason.
        source: io::Error,
    },
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddError::Interest { role, interest } => {
                let fitting = match role {
                    Role::Producer => "Space",
                    Role::Consumer => "Message",
                };
                write!(f, "a {role} cannot wait for {interest:?}; it waits for {fitting} or End")
            }
            AddError::TooLarge { length, max } => {
                write!(
                    f,
                    "a message of {length} bytes never fits; the longest that this pipe takes has {max}"
                )
            }
            AddError::Thread { members, source } => write!(
                f,
                "the set has {members} members and needs a thread to wait for more: {source}; raise the limit of \
                 processes (ulimit -u), or use several sets"
            ),
        }
    }
}

impl std::error::Error for AddError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            AddError::Thread { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// A member that did not join its set, and why.
pub struct NotAdded<M> {
    /// The member, as it was.
    pub member: M,
    /// Why.
    pub reason: AddError,
}

impl<M> fmt::Debug for NotAdded<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotAdded").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<M> fmt::Display for NotAdded<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<M> std::error::Error for NotAdded<M> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.reason.source()
    }
}
