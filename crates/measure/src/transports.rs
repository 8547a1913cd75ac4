//! The transports to compare.

mod backends;
mod bytestream;
mod classic;
mod duplex;
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
pub use self::duplex::SHMPIPE_DUPLEX;
pub use self::eventfd::EVENTFD;
pub use self::fifo::FIFO;
pub use self::flag::{FLAG_SLEEP, FLAG_SPIN};
pub use self::futex::FUTEX;
pub use self::packets::{DATAGRAM, SEQPACKET};
pub use self::pipe::{PIPE, PIPE_SPIN};
pub use self::posixqueue::POSIX_QUEUE;
pub use self::shmpipe::{
    SHMPIPE, SHMPIPE_BATCH, SHMPIPE_NAP, SHMPIPE_RESERVE, SHMPIPE_SPIN, SHMPIPE_TRUSTED,
    TRANSPORTS as SHMPIPES,
};
pub use self::sysvqueue::SYSV_QUEUE;
pub use self::tcp::{TCP, TCP_SPIN};
pub use self::unix::{UNIX, UNIX_SPIN};

/// Every transport of this crate.
pub const ALL: &[&dyn Transport] = &[
    CLASSIC,
    SHMPIPE,
    SHMPIPE_SPIN,
    SHMPIPE_NAP,
    SHMPIPE_TRUSTED,
    SHMPIPE_RESERVE,
    SHMPIPE_BATCH,
    SHMPIPE_DUPLEX,
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

/// The default transports of the benches. Each more takes its share of the time.
pub const DEFAULT: &[&dyn Transport] = &[CLASSIC, SHMPIPE, SHMPIPE_SPIN, SHMPIPE_TRUSTED, PIPE, UNIX];

/// The system's transports, and shared memory without a library.
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

/// Transports that never sleep, comparable with each other.
pub const POLLING: &[&dyn Transport] = &[CLASSIC, SHMPIPE_SPIN, FLAG_SPIN, PIPE_SPIN, UNIX_SPIN, TCP_SPIN];

/// Transports whose receiver sleeps in the kernel when it has to wait, at once or after a moment.
pub const BLOCKING: &[&dyn Transport] = &[
    SHMPIPE,
    SHMPIPE_NAP,
    SHMPIPE_TRUSTED,
    SHMPIPE_RESERVE,
    SHMPIPE_BATCH,
    SHMPIPE_DUPLEX,
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

/// How a transport waits for a message or for space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Polls, and uses a whole CPU. Transports in memory poll without system calls.
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

/// A way to carry messages between two processes or threads. The parent creates it, and its partner joins it.
pub trait Transport: Sync {
    /// Its unique name in tables and on the command line: one word.
    fn name(&self) -> &'static str;

    /// How it waits.
    fn mode(&self) -> Mode;

    /// A clause for the legend of a table.
    fn about(&self) -> &'static str;

    /// Whether [`make`](Transport::make) passes descriptors. If so, `make` runs before the partner starts, which inherits them.
    /// Otherwise it runs after that, when the partner can clean up.
    fn passes_descriptors(&self) -> bool {
        false
    }

    /// The bytes that a session sends each way before anything is timed. By default, as many as the ring holds, so that each of
    /// its pages is used.
    fn warm_up_bytes(&self, capacity: usize) -> usize {
        capacity
    }

    /// Creates it in the parent. Data for the partner goes into `invitation`. A transport within one process
    /// [hands over the partner's end](Invitation::hand_over) instead.
    ///
    /// # Errors
    /// Those of the system; `Unsupported` from `hand_over` if the partner is a process.
    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint>;

    /// Joins it in the partner. Not called if `make` has handed over the end.
    ///
    /// # Errors
    /// Those of the system; `InvalidData` if the invitation does not match what `make` wrote.
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
    fn transport_names_are_unique() {
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
