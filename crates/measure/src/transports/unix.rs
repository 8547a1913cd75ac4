//! A pair of Unix stream sockets.

use std::io;
use std::os::unix::net::UnixStream;

use super::bytestream::ByteStream;
use super::{Invitation, Invited, Mode, Transport};
use crate::endpoint::Endpoint;

/// A `socketpair(2)` of Unix stream sockets, blocking, with the kernel's default buffers.
pub const UNIX: &dyn Transport = &Unix;

struct Unix;

fn endpoint(socket: UnixStream) -> io::Result<Endpoint> {
    Ok(Endpoint::new(ByteStream { reader: socket.try_clone()?, writer: socket }))
}

impl Transport for Unix {
    fn name(&self) -> &'static str {
        "unix"
    }

    fn mode(&self) -> Mode {
        Mode::Sleeps
    }

    fn about(&self) -> &'static str {
        "Unix stream socketpair, blocking, default buffers; one write and one exact read per message"
    }

    fn passes_descriptors(&self) -> bool {
        true
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let (ours, theirs) = UnixStream::pair()?;
        invitation.pass(theirs.into());
        endpoint(ours)
    }

    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        endpoint(invited.descriptor()?.into())
    }
}
