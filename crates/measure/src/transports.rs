//! The ways from one process to the other that are compared.

mod bytestream;
mod classic;
mod pipe;
mod shmpipe;
mod unix;

use std::fmt::{self, Display};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::str::{FromStr, SplitWhitespace};

use crate::control::{Control, Leftover};
use crate::endpoint::Endpoint;
use crate::errors::failed;

pub use self::classic::CLASSIC;
pub use self::pipe::PIPE;
pub use self::shmpipe::{SHMPIPE, SHMPIPE_SPIN, SHMPIPE_TRUSTED};
pub use self::unix::UNIX;

/// Every transport of this crate.
pub const ALL: &[&dyn Transport] = &[CLASSIC, SHMPIPE, SHMPIPE_SPIN, SHMPIPE_TRUSTED, PIPE, UNIX];

/// What a transport does while there is nothing to receive or no room to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Looks again and again: no system call, and a whole CPU.
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

/// A way to carry messages between two processes, made by the parent and joined by its partner.
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

    /// Makes it, in the parent. What the partner needs to know goes into `invitation`.
    ///
    /// # Errors
    /// Those of the system.
    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint>;

    /// Joins what [`make`](Transport::make) made, in the partner.
    ///
    /// # Errors
    /// Those of the system; `InvalidData` if the invitation reads differently from what `make` wrote.
    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint>;
}

/// What the parent tells the partner about one transport.
pub struct Invitation<'a> {
    capacity: usize,
    control: &'a Control,
    text: String,
    inherited: Vec<OwnedFd>,
}

impl<'a> Invitation<'a> {
    pub(crate) fn new(capacity: usize, control: &'a Control) -> Invitation<'a> {
        Invitation { capacity, control, text: String::new(), inherited: Vec::new() }
    }

    /// Bytes of ring data that each direction of a transport in memory should have: a power of two.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Adds a word, which must have no white space in it.
    pub fn tell(&mut self, word: impl Display) {
        self.text.push_str(&format!(" {word}"));
    }

    /// Adds a descriptor, which the partner inherits and this process closes. For a transport that
    /// [says so](Transport::passes_descriptors).
    pub fn pass(&mut self, descriptor: OwnedFd) {
        self.tell(descriptor.as_raw_fd());
        self.inherited.push(descriptor);
    }

    /// Has a System V object removed when the session ends, however it ends. To be called as soon as it is made.
    ///
    /// # Errors
    /// When there are more of them than a session can list.
    pub fn leaves(&mut self, leftover: Leftover) -> io::Result<()> {
        self.control.list(leftover)
    }

    pub(crate) fn into_parts(self) -> (String, Vec<OwnedFd>) {
        (self.text, self.inherited)
    }
}

/// The partner's side of an [`Invitation`]: the same words in the same order.
pub struct Invited<'a>(SplitWhitespace<'a>);

impl<'a> Invited<'a> {
    pub(crate) fn new(text: &'a str) -> Invited<'a> {
        Invited(text.split_whitespace())
    }

    /// The next word.
    ///
    /// # Errors
    /// `InvalidData` if there is none, or if it is not what is asked for.
    pub fn word<T: FromStr>(&mut self) -> io::Result<T> {
        let word = self.0.next().ok_or_else(|| unreadable("one word too few"))?;
        word.parse().map_err(|_| unreadable(word))
    }

    /// The next word as a descriptor, which is the caller's from now on.
    ///
    /// # Errors
    /// `InvalidData` if the word is not a number, the system's error if no such descriptor is open.
    pub fn descriptor(&mut self) -> io::Result<OwnedFd> {
        let raw: RawFd = self.word()?;
        // SAFETY: fcntl with F_SETFD takes numbers only; it fails for a number that is no open descriptor.
        if unsafe { libc::fcntl(raw, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
            return Err(failed(format_args!("descriptor {raw} was not inherited")));
        }
        // SAFETY: it is open, as was just seen. The parent passed it for this word alone, and each word is read once, so
        // nobody else in this process owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(raw) })
    }
}

fn unreadable(word: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the parent's invitation is not readable: {word}"))
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
    fn an_invitation_is_read_word_by_word() {
        let mut invited = Invited::new(" 17 x");
        assert_eq!(invited.word::<i32>().unwrap(), 17);
        assert!(invited.word::<i32>().is_err());
        assert!(invited.word::<String>().is_err());
    }

    #[test]
    fn a_closed_descriptor_is_refused() {
        assert!(Invited::new("1000000").descriptor().is_err());
    }
}
