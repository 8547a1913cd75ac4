//! Pairs of Unix sockets with message boundaries.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::{Invitation, Invited, Mode, Transport, sendbuf};
use crate::channel::Channel;
use crate::endpoint::Endpoint;
use crate::errors::failed;
use crate::watchdog;

/// A `socketpair(2)` of Unix sequenced-packet sockets, blocking, with the longest allowed send buffers.
pub const SEQPACKET: &dyn Transport = &Packets {
    name: "seqpacket",
    kind: libc::SOCK_SEQPACKET,
    about: "Unix seqpacket socketpair, blocking, send buffers of up to 1 MiB; one send and one recv per message",
};
/// A `socketpair(2)` of Unix datagram sockets, blocking, with the longest allowed send buffers.
pub const DATAGRAM: &dyn Transport = &Packets {
    name: "dgram",
    kind: libc::SOCK_DGRAM,
    about: "Unix datagram socketpair, blocking, send buffers of up to 1 MiB; one send and one recv per message",
};

struct Packets {
    name: &'static str,
    kind: libc::c_int,
    about: &'static str,
}

impl Transport for Packets {
    fn name(&self) -> &'static str {
        self.name
    }

    fn mode(&self) -> Mode {
        Mode::Sleeps
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn passes_descriptors(&self) -> bool {
        true
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let mut ends = [0; 2];
        // SAFETY: `ends` holds two descriptors.
        let made =
            unsafe { libc::socketpair(libc::AF_UNIX, self.kind | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr()) };
        if made == -1 {
            return Err(failed(format_args!("socketpair")));
        }
        // SAFETY: the kernel has just opened both, so they have no other owner.
        let (ours, theirs) = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
        invitation.pass(theirs);
        Ok(Endpoint::new(Socket::new(ours)?))
    }

    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        Ok(Endpoint::new(Socket::new(invited.descriptor()?)?))
    }
}

/// Bytes of a send buffer that the kernel subtracts when it checks whether a message fits.
const KEPT_BACK: usize = 32;

struct Socket {
    socket: OwnedFd,
    max_len: usize,
}

impl Socket {
    fn new(socket: OwnedFd) -> io::Result<Socket> {
        let room = sendbuf::widen(socket.as_fd())?;
        Ok(Socket { socket, max_len: room.saturating_sub(KEPT_BACK) })
    }
}

impl Channel for Socket {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let flags = libc::MSG_NOSIGNAL;
        loop {
            // SAFETY: the message is readable for its length. A packet is sent as a whole or not at all.
            let sent =
                unsafe { libc::send(self.socket.as_raw_fd(), message.as_ptr().cast(), message.len(), flags) };
            if sent != -1 {
                return Ok(());
            }
            watchdog::interrupted(io::Error::last_os_error())?;
        }
    }

    /// A normal end of the peer looks like an empty message. The harness notices it when it checks the partner.
    #[inline(always)]
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // SAFETY: the buffer is writable for its length. MSG_TRUNC returns the length of the whole packet.
            let found = unsafe {
                libc::recv(self.socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_TRUNC)
            };
            match usize::try_from(found) {
                Ok(found) if found <= buffer.len() => return Ok(found),
                Ok(found) => return Err(super::too_long(found, buffer.len())),
                Err(_) => watchdog::interrupted(io::Error::last_os_error())?,
            }
        }
    }

    fn max_len(&self) -> usize {
        self.max_len
    }
}
