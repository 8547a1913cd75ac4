//! The ways from one process to the other that are compared.

mod backends;
mod bytestream;
mod classic;
mod eventfd;
mod fifo;
mod flag;
mod futex;
mod packets;
mod pipe;
mod posixqueue;
mod records;
mod sendbuf;
mod shmpipe;
mod slot;
mod sysvqueue;
mod tcp;
mod unix;

use std::fmt::{self, Display};
use std::io;

use crate::endpoint::Endpoint;
use crate::invitation::{Invitation, Invited};

pub use self::backends::{BACKENDS, FIRST_LAPS, Kind, LARGE, LargeRing};
pub use self::classic::CLASSIC;
pub use self::eventfd::EVENTFD;
pub use self::fifo::FIFO;
pub use self::flag::{FLAG_SLEEP, FLAG_SPIN};
pub use self::futex::FUTEX;
pub use self::packets::{DATAGRAM, SEQPACKET};
pub use self::pipe::{PIPE, PIPE_SPIN};
pub use self::posixqueue::POSIX_QUEUE;
pub use self::shmpipe::{
    SHMPIPE, SHMPIPE_BATCH, SHMPIPE_RESERVE, SHMPIPE_SPIN, SHMPIPE_TRUSTED, TRANSPORTS as SHMPIPES,
};
pub use self::sysvqueue::SYSV_QUEUE;
pub use self::tcp::{TCP, TCP_SPIN};
pub use self::unix::{UNIX, UNIX_SPIN};

/// Every transport of this crate.
pub const ALL: &[&dyn Transport] = &[
    CLASSIC,
    SHMPIPE,
    SHMPIPE_SPIN,
    SHMPIPE_TRUSTED,
    SHMPIPE_RESERVE,
    SHMPIPE_BATCH,
    FLAG_SPIN,
    FLAG_SLEEP,
    FUTEX,
    EVENTFD,
    PIPE,
    PIPE_SPIN,
    FIFO,
    UNIX,
    UNIX_SPIN,
    SEQPACKET,
    DATAGRAM,
    TCP,
    TCP_SPIN,
    SYSV_QUEUE,
    POSIX_QUEUE,
];

/// What the benches compare unless they are told otherwise: each more would take its share of the time.
pub const DEFAULT: &[&dyn Transport] = &[CLASSIC, SHMPIPE, SHMPIPE_SPIN, SHMPIPE_TRUSTED, PIPE, UNIX];

/// What the system offers, and what programs make of shared memory without a library.
pub const SYSTEM: &[&dyn Transport] = &[
    FLAG_SPIN,
    FLAG_SLEEP,
    FUTEX,
    EVENTFD,
    PIPE,
    PIPE_SPIN,
    FIFO,
    UNIX,
    UNIX_SPIN,
    SEQPACKET,
    DATAGRAM,
    TCP,
    TCP_SPIN,
    SYSV_QUEUE,
    POSIX_QUEUE,
];

/// Those that never sleep: comparable with one another.
pub const POLLING: &[&dyn Transport] = &[CLASSIC, SHMPIPE_SPIN, FLAG_SPIN, PIPE_SPIN, UNIX_SPIN, TCP_SPIN];

/// Those whose receiver sleeps in the kernel when it has to wait, at once or after a moment.
pub const BLOCKING: &[&dyn Transport] = &[
    SHMPIPE,
    SHMPIPE_TRUSTED,
    SHMPIPE_RESERVE,
    SHMPIPE_BATCH,
    FLAG_SLEEP,
    FUTEX,
    EVENTFD,
    PIPE,
    FIFO,
    UNIX,
    SEQPACKET,
    DATAGRAM,
    TCP,
    SYSV_QUEUE,
    POSIX_QUEUE,
];

/// What a transport does while there is nothing to receive or no room to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Looks again and again: a whole CPU. What lies in memory takes no system call for it.
    Polls,
    /// Polls for a moment, then sleeps in the kernel.
    PollsThenSleeps,
    /// Sleeps in the kernel at once.
    Sleeps,
}

impl Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Mode::Polls => "polls",
            Mode::PollsThenSleeps => "polls, sleeps",
            Mode::Sleeps => "sleeps",
        })
    }
}

/// A way to carry messages between two processes, or two threads, made by the parent and joined by its partner.
pub trait Transport: Sync {
    /// Its name in tables and on the command line: one word, no other transport's.
    fn name(&self) -> &'static str;

    /// What it does while it waits.
    fn mode(&self) -> Mode;

    /// One clause for the legend under a table.
    fn about(&self) -> &'static str;

    /// Whether [`make`](Transport::make) passes descriptors. The partner inherits them, so it is called before the partner
    /// starts; otherwise when the partner runs and can clean up after it.
    fn passes_descriptors(&self) -> bool {
        false
    }

    /// How many bytes a session sends each way before anything is timed: by default as many as a ring has room for, so that
    /// each of its pages has been used.
    fn warm_up_bytes(&self, capacity: usize) -> usize {
        capacity
    }

    /// Makes it, in the parent. What the partner needs to know goes into `invitation`; what can be used by one process only
    /// [hands the partner's end over](Invitation::hand_over) instead.
    ///
    /// # Errors
    /// Those of the system; `Unsupported` from `hand_over` if the partner is a process.
    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint>;

    /// Joins what [`make`](Transport::make) made, in the partner. Not called when `make` has handed its end over.
    ///
    /// # Errors
    /// Those of the system; `InvalidData` if the invitation reads differently from what `make` wrote.
    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        let _ = invited;
        Err(io::Error::new(io::ErrorKind::Unsupported, "it hands its other end over to a thread"))
    }
}

#[cold]
fn too_long(len: usize, room: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a message of {len} bytes, expected {room}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transport_has_a_name_of_its_own() {
        for (i, a) in ALL.iter().enumerate() {
            assert!(!a.name().contains(char::is_whitespace));
            assert!(ALL[..i].iter().all(|b| a.name() != b.name()));
        }
    }

    #[test]
    fn every_transport_either_polls_or_blocks() {
        let names = |group: &[&dyn Transport]| group.iter().map(|each| each.name()).collect::<Vec<_>>();
        let (polling, blocking): (Vec<_>, Vec<_>) = ALL.iter().partition(|each| each.mode() == Mode::Polls);
        assert_eq!((names(&polling), names(&blocking)), (names(POLLING), names(BLOCKING)));
        for group in [DEFAULT, SYSTEM] {
            assert!(names(group).iter().all(|name| names(ALL).contains(name)));
        }
    }
}
