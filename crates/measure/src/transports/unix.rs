//! A pair of Unix stream sockets.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use super::bytestream::ByteStream;
use super::{Invitation, Invited, Mode, Transport, sendbuf};
use crate::endpoint::Endpoint;

/// A `socketpair(2)` of Unix stream sockets, blocking, with send buffers of up to 1 MiB.
pub const UNIX: &dyn Transport = &Unix { name: "unix", mode: Mode::Sleeps };
/// The same, non-blocking and polled.
pub const UNIX_SPIN: &dyn Transport = &Unix { name: "unix-spin", mode: Mode::Polls };

struct Unix {
    name: &'static str,
    mode: Mode,
}

fn endpoint(socket: UnixStream) -> io::Result<Endpoint> {
    Ok(Endpoint::new(ByteStream { reader: socket.try_clone()?, writer: socket }))
}

impl Transport for Unix {
    fn name(&self) -> &'static str {
        self.name
    }

    fn mode(&self) -> Mode {
        self.mode
    }

    fn about(&self) -> &'static str {
        match self.mode {
            Mode::Polls => {
                "Unix stream socketpair, O_NONBLOCK, read and written again and again; send buffers of up to 1 MiB"
            }
            _ => {
                "Unix stream socketpair, blocking, send buffers of up to 1 MiB; one write and one exact read per message"
            }
        }
    }

    fn passes_descriptors(&self) -> bool {
        true
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let (ours, theirs) = UnixStream::pair()?;
        for socket in [&ours, &theirs] {
            socket.set_nonblocking(self.mode == Mode::Polls)?;
            sendbuf::widen(socket.as_fd())?;
        }
        invitation.pass(theirs.into());
        endpoint(ours)
    }

    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        endpoint(invited.descriptor()?.into())
    }
}
