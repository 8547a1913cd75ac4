//! A kernel pipe each way.

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use super::bytestream::ByteStream;
use super::{Invitation, Invited, Mode, Transport};
use crate::endpoint::Endpoint;
use crate::errors::failed;

/// A `pipe(2)` each way, blocking, with the kernel's default size.
pub const PIPE: &dyn Transport = &Pipe { name: "pipe", mode: Mode::Sleeps };
/// The same, non-blocking and polled.
pub const PIPE_SPIN: &dyn Transport = &Pipe { name: "pipe-spin", mode: Mode::Polls };

struct Pipe {
    name: &'static str,
    mode: Mode,
}

impl Pipe {
    /// The reading and the writing end of a new pipe.
    fn pipe(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        let nonblocking = if self.mode == Mode::Polls { libc::O_NONBLOCK } else { 0 };
        let mut ends = [0; 2];
        // SAFETY: `ends` holds two descriptors.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | nonblocking) } == -1 {
            return Err(failed(format_args!("pipe2")));
        }
        // SAFETY: the kernel has just opened both, so they have no other owner.
        Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
    }
}

impl Transport for Pipe {
    fn name(&self) -> &'static str {
        self.name
    }

    fn mode(&self) -> Mode {
        self.mode
    }

    fn about(&self) -> &'static str {
        match self.mode {
            Mode::Polls => {
                "pipe(2) each way, O_NONBLOCK, read and written again and again; default buffer (64 KiB)"
            }
            _ => {
                "pipe(2) each way, blocking, default buffer (64 KiB); one write and one exact read per message"
            }
        }
    }

    fn passes_descriptors(&self) -> bool {
        true
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let (their_reader, writer) = self.pipe()?;
        let (reader, their_writer) = self.pipe()?;
        invitation.pass(their_reader);
        invitation.pass(their_writer);
        Ok(Endpoint::new(ByteStream { reader: File::from(reader), writer: File::from(writer) }))
    }

    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        let (reader, writer) = (invited.descriptor()?, invited.descriptor()?);
        Ok(Endpoint::new(ByteStream { reader: File::from(reader), writer: File::from(writer) }))
    }
}
