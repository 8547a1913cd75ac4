//! What the parent tells its partner about a transport, so that the partner finds its end.

use std::fmt::Display;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::str::{FromStr, SplitWhitespace};

use crate::channel::Channel;
use crate::control::{Control, Leftover};
use crate::endpoint::{Endpoint, Handed};
use crate::errors::failed;
use crate::settings::{Between, Settings};

/// What the parent tells the partner about one transport.
pub struct Invitation<'a> {
    settings: &'a Settings,
    control: &'a Control,
    text: String,
    passed: Vec<OwnedFd>,
    handed: Option<Handed>,
}

/// An invitation as it is carried to the partner.
pub(crate) struct Letter {
    pub(crate) text: String,
    pub(crate) passed: Vec<OwnedFd>,
    pub(crate) handed: Option<Handed>,
}

impl<'a> Invitation<'a> {
    pub(crate) fn new(settings: &'a Settings, control: &'a Control) -> Invitation<'a> {
        Invitation { settings, control, text: String::new(), passed: Vec::new(), handed: None }
    }

    /// Bytes of ring data that each direction of a transport in memory should have: a power of two.
    pub fn capacity(&self) -> usize {
        self.settings.capacity
    }

    /// Adds a word, which must have no white space in it.
    pub fn tell(&mut self, word: impl Display) {
        self.text.push_str(&format!(" {word}"));
    }

    /// Adds a descriptor, which the partner gets and this end gives away. For a transport that
    /// [says so](crate::Transport::passes_descriptors).
    pub fn pass(&mut self, descriptor: OwnedFd) {
        self.tell(descriptor.as_raw_fd());
        self.passed.push(descriptor);
    }

    /// Gives the partner its end as it is, where the partner is a thread of this process. It is used on that thread only.
    ///
    /// # Errors
    /// `Unsupported` where the partner is another process: see [`Settings::between`].
    pub fn hand_over<C: Channel + Send + 'static>(&mut self, channel: C) -> io::Result<()> {
        match self.settings.between {
            Between::Threads => {
                self.handed = Some(Endpoint::handed(channel));
                Ok(())
            }
            Between::Processes => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "it works between threads of one process only",
            )),
        }
    }

    /// Has a System V object or a file removed when the session ends, however it ends. To be called as soon as it is made;
    /// for a file before that.
    ///
    /// # Errors
    /// When there are more of them than a session can list.
    pub fn leaves(&mut self, leftover: Leftover) -> io::Result<()> {
        self.control.list(leftover)
    }

    pub(crate) fn into_letter(self) -> Letter {
        Letter { text: self.text, passed: self.passed, handed: self.handed }
    }
}

/// The partner's side of an [`Invitation`]: the same words in the same order.
pub struct Invited<'a> {
    words: SplitWhitespace<'a>,
    passed: Passed,
}

/// How descriptors have come here.
enum Passed {
    /// By exec: they are open under the numbers that the invitation names.
    Inherited,
    /// From another thread: these.
    Owned(Vec<OwnedFd>),
}

impl<'a> Invited<'a> {
    /// To another process, which has inherited the descriptors.
    pub(crate) fn process(text: &'a str) -> Invited<'a> {
        Invited { words: text.split_whitespace(), passed: Passed::Inherited }
    }

    /// To another thread of the same process.
    pub(crate) fn thread(text: &'a str, passed: Vec<OwnedFd>) -> Invited<'a> {
        Invited { words: text.split_whitespace(), passed: Passed::Owned(passed) }
    }

    /// The next word.
    ///
    /// # Errors
    /// `InvalidData` if there is none, or if it is not what is asked for.
    pub fn word<T: FromStr>(&mut self) -> io::Result<T> {
        let word = self.words.next().ok_or_else(|| unreadable("one word too few"))?;
        word.parse().map_err(|_| unreadable(word))
    }

    /// The next word as a descriptor, which is the caller's from now on.
    ///
    /// # Errors
    /// `InvalidData` if the word is not a number that was passed, the system's error if no such descriptor is open.
    pub fn descriptor(&mut self) -> io::Result<OwnedFd> {
        let raw: RawFd = self.word()?;
        match &mut self.passed {
            Passed::Inherited => inherited(raw),
            Passed::Owned(descriptors) => {
                let found = descriptors.iter().position(|descriptor| descriptor.as_raw_fd() == raw);
                found.map(|at| descriptors.swap_remove(at)).ok_or_else(|| unreadable(&raw.to_string()))
            }
        }
    }
}

fn inherited(raw: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_SETFD takes numbers only; it fails for a number that is no open descriptor.
    if unsafe { libc::fcntl(raw, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(failed(format_args!("descriptor {raw} was not inherited")));
    }
    // SAFETY: it is open, as was just seen. The parent passed it for this word alone, and each word is read once, so
    // nobody else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn unreadable(word: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the parent's invitation is not readable: {word}"))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn an_invitation_is_read_word_by_word() {
        let mut invited = Invited::process(" 17 x");
        assert_eq!(invited.word::<i32>().unwrap(), 17);
        assert!(invited.word::<i32>().is_err());
        assert!(invited.word::<String>().is_err());
    }

    #[test]
    fn a_closed_descriptor_is_refused() {
        assert!(Invited::process("1000000").descriptor().is_err());
    }

    #[test]
    fn a_thread_takes_each_descriptor_once() {
        let passed: OwnedFd = File::open("/dev/null").unwrap().into();
        let raw = passed.as_raw_fd();
        let text = format!("{raw} {raw}");
        let mut invited = Invited::thread(&text, vec![passed]);
        assert_eq!(invited.descriptor().unwrap().as_raw_fd(), raw);
        assert_eq!(invited.descriptor().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
