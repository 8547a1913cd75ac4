//! The parent's description of a transport for its partner.

use std::fmt::Display;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::str::{FromStr, SplitWhitespace};

use crate::channel::Channel;
use crate::control::{Control, Leftover};
use crate::endpoint::{Endpoint, Handed};
use crate::errors::failed;
use crate::settings::{Between, Settings};

/// The parent's description of one transport.
pub struct Invitation<'a> {
    settings: &'a Settings,
    control: &'a Control,
    text: String,
    passed: Vec<OwnedFd>,
    handed: Option<Handed>,
}

/// An invitation on its way to the partner.
pub(crate) struct Letter {
    pub(crate) text: String,
    pub(crate) passed: Vec<OwnedFd>,
    pub(crate) handed: Option<Handed>,
}

impl<'a> Invitation<'a> {
    pub(crate) fn new(settings: &'a Settings, control: &'a Control) -> Invitation<'a> {
        Invitation { settings, control, text: String::new(), passed: Vec::new(), handed: None }
    }

    /// Bytes of ring data for each direction of a transport in memory, a power of two.
    pub fn capacity(&self) -> usize {
        self.settings.capacity
    }

    /// Adds a word without white space.
    pub fn tell(&mut self, word: impl Display) {
        self.text.push_str(&format!(" {word}"));
    }

    /// Adds a descriptor, whose ownership passes to the partner. Only for a transport that
    /// [declares this](crate::Transport::passes_descriptors).
    pub fn pass(&mut self, descriptor: OwnedFd) {
        self.tell(descriptor.as_raw_fd());
        self.passed.push(descriptor);
    }

    /// Gives the partner its end directly, if the partner is a thread of this process. Only that thread uses it.
    ///
    /// # Errors
    /// `Unsupported` if the partner is another process: see [`Settings::between`].
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

    /// Registers a System V object or a file for removal at the end of the session, however it ends. Call it right after the
    /// creation of an object, and before that of a file.
    ///
    /// # Errors
    /// An error if the session has no more entries.
    pub fn leaves(&mut self, leftover: Leftover) -> io::Result<()> {
        self.control.list(leftover)
    }

    pub(crate) fn into_letter(self) -> Letter {
        Letter { text: self.text, passed: self.passed, handed: self.handed }
    }
}

/// The partner's view of an [`Invitation`]: the same words in the same order.
pub struct Invited<'a> {
    words: SplitWhitespace<'a>,
    passed: Passed,
}

/// How the descriptors arrived.
enum Passed {
    /// By exec: they are open under the numbers in the invitation.
    Inherited,
    /// From another thread: these.
    Owned(Vec<OwnedFd>),
}

impl<'a> Invited<'a> {
    /// To another process, which inherits the descriptors.
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
    /// `InvalidData` if there is none, or if it has another type.
    pub fn word<T: FromStr>(&mut self) -> io::Result<T> {
        let word = self.words.next().ok_or_else(|| unreadable("one word too few"))?;
        word.parse().map_err(|_| unreadable(word))
    }

    /// The next word as a descriptor, which the caller then owns.
    ///
    /// # Errors
    /// `InvalidData` if the word is not the number of a passed descriptor, the system's error if the descriptor is not open.
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
    // SAFETY: fcntl with F_SETFD only uses numbers. It fails for a number that is no open descriptor.
    if unsafe { libc::fcntl(raw, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(failed(format_args!("descriptor {raw} was not inherited")));
    }
    // SAFETY: it is open, as just checked. The parent passed it for this word alone, and each word is read once, so
    // nothing else in this process owns it.
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
    fn invitation_is_read_word_by_word() {
        let mut invited = Invited::process(" 17 x");
        assert_eq!(invited.word::<i32>().unwrap(), 17);
        assert!(invited.word::<i32>().is_err());
        assert!(invited.word::<String>().is_err());
    }

    #[test]
    fn closed_descriptor_is_refused() {
        assert!(Invited::process("1000000").descriptor().is_err());
    }

    #[test]
    fn thread_takes_each_descriptor_once() {
        let passed: OwnedFd = File::open("/dev/null").unwrap().into();
        let raw = passed.as_raw_fd();
        let text = format!("{raw} {raw}");
        let mut invited = Invited::thread(&text, vec![passed]);
        assert_eq!(invited.descriptor().unwrap().as_raw_fd(), raw);
        assert_eq!(invited.descriptor().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
