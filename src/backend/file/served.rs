//! A memfd that another process hands out at a Unix socket, and who that process is.

use super::socket::{Greeting, option, send, take};
use super::{denied, permissions};
use crate::error::{SetupError, failed};
use crate::segment::Asked;
use crate::segment::identity::READY;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

pub(crate) use super::socket::knock;

/// Bytes that come with the descriptor, so that a stranger's socket is not taken for one of ours.
const GREETING: Greeting = READY.to_le_bytes();

/// Sends a descriptor to the connected process.
pub(crate) fn greet(stream: &UnixStream, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    send(stream, GREETING, descriptor)
}

/// Receives a descriptor from the server at a path.
pub(crate) fn receive(asked: &Asked<'_>, path: &Path) -> Result<(OwnedFd, PeerProcess), SetupError> {
    let stream = knock(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => asked.not_found(),
        io::ErrorKind::PermissionDenied => {
            denied(asked, fs::metadata(path).ok().map(|found| permissions(&found)))
        }
        io::ErrorKind::WouldBlock => SetupError::Busy { address: asked.address.clone(), pid: None },
        _ => failed("connect")(source),
    })?;
    let peer = PeerProcess::of(&stream).map_err(failed("getsockopt(SO_PEERCRED)"))?;
    peer.check(asked)?;
    let (greeting, mut descriptors) = take(&stream).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => SetupError::Busy { address: asked.address.clone(), pid: Some(peer.pid) },
        // It closes without a word to whom it does not trust.
        io::ErrorKind::UnexpectedEof => denied(asked, None),
        _ => failed("recvmsg")(source),
    })?;
    if greeting != GREETING {
        return Err(asked.foreign("the greeting", u64::from_le_bytes(greeting), READY));
    }
    match (descriptors.pop(), descriptors.len()) {
        (Some(descriptor), 0) => Ok((descriptor, peer)),
        (last, others) => {
            let found = others as u64 + u64::from(last.is_some());
            Err(asked.foreign("the number of descriptors", found, 1))
        }
    }
}

/// The process at the other end of a hand-over, as the kernel has seen it.
#[derive(Debug)]
pub struct PeerProcess {
    pid: u32,
    uid: u32,
    gid: u32,
    pidfd: Option<OwnedFd>,
}

/// A descriptor of the process at the other end, since Linux 6.5.
const SO_PEERPIDFD: libc::c_int = 77;

impl PeerProcess {
    pub(crate) fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials: libc::ucred = option(stream, libc::SO_PEERCRED)?;
        let pidfd = option::<libc::c_int>(stream, SO_PEERPIDFD).ok();
        Ok(PeerProcess {
            pid: credentials.pid as u32,
            uid: credentials.uid,
            gid: credentials.gid,
            // SAFETY: the kernel has just opened the descriptor for us.
            pidfd: pidfd.map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) }),
        })
    }

    pub(crate) fn check(&self, asked: &Asked<'_>) -> Result<(), SetupError> {
        if asked.is_trusted(self.uid) {
            return Ok(());
        }
        Err(SetupError::Stranger { address: asked.address.clone(), uid: self.uid, pid: self.pid })
    }

    /// Its process id, as seen from here; 0 if it is not visible.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its user.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Its group.
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// A descriptor that becomes readable when the process ends (a pidfd), for an event loop. It cannot be fooled by a
    /// process that gets the same id, nor by children. `None` on kernels before 6.5.
    ///
    /// The roles do not need it: a wait notices within a tenth of a second that the peer has died.
    #[must_use]
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }
}
