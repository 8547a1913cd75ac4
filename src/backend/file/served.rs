//! Passing a memfd through a Unix socket, and identifying the process at the other end.

use super::socket::{Magic, receive, send, socket_option};
use super::{denied, permissions};
use crate::error::{Distrust, SetupError, failed};
use crate::segment::Request;
use crate::segment::identity::READY;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

pub(crate) use super::socket::connect_within;

/// Bytes that accompany the descriptor, to recognise the socket of an unrelated program.
const MAGIC: Magic = READY.to_le_bytes();

/// Sends a descriptor to the connected process.
pub(crate) fn send_memfd(stream: &UnixStream, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    send(stream, MAGIC, descriptor)
}

/// Receives a descriptor from the server at a path.
pub(crate) fn receive_memfd(
    request: &Request<'_>,
    path: &Path,
) -> Result<(OwnedFd, PeerProcess), SetupError> {
    let stream = connect_within(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => request.not_found(),
        io::ErrorKind::PermissionDenied => {
            denied(request, fs::metadata(path).ok().map(|found| permissions(&found)))
        }
        io::ErrorKind::WouldBlock => SetupError::Busy { address: request.address.clone(), pid: None },
        _ => failed("connect")(source),
    })?;
    let peer = PeerProcess::of(&stream).map_err(failed("getsockopt(SO_PEERCRED)"))?;
    peer.check(request)?;
    let (magic, mut descriptors) = receive(&stream).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => {
            SetupError::Busy { address: request.address.clone(), pid: Some(peer.pid) }
        }
        // A server closes the connection of a peer that it does not trust.
        io::ErrorKind::UnexpectedEof => denied(request, None),
        _ => failed("recvmsg")(source),
    })?;
    if magic != MAGIC {
        return Err(request.foreign("the magic number", u64::from_le_bytes(magic), READY));
    }
    match (descriptors.pop(), descriptors.len()) {
        (Some(descriptor), 0) => Ok((descriptor, peer)),
        (last, others) => {
            let found = others as u64 + u64::from(last.is_some());
            Err(request.foreign("the number of descriptors", found, 1))
        }
    }
}

/// The process at the other end of the socket, as the kernel identified it when it connected or listened.
///
/// ```
/// use shmpipe::{Options, os::unix::fd_passing};
///
/// # let path = std::env::temp_dir().join(format!("shmpipe-doc-peer-{}.sock", std::process::id()));
/// # let served = Options::new().create("memfd")?;
/// # let server = fd_passing::serve(&path, &served)?;
/// # let serving = std::thread::spawn(move || server.accept());
/// let (_pipe, server) = fd_passing::connect(&path, &Options::new())?;
/// println!("process {} of user {} serves it", server.pid(), server.uid());
/// # serving.join().expect("it does not panic")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PeerProcess {
    pid: u32,
    uid: u32,
    gid: u32,
    pidfd: Option<OwnedFd>,
}

/// Socket option, since Linux 6.5: a descriptor of the process at the other end.
const SO_PEERPIDFD: libc::c_int = 77;

impl PeerProcess {
    pub(crate) fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials: libc::ucred = socket_option(stream, libc::SO_PEERCRED)?;
        let pidfd = socket_option::<libc::c_int>(stream, SO_PEERPIDFD).ok();
        Ok(PeerProcess {
            pid: credentials.pid as u32,
            uid: credentials.uid,
            gid: credentials.gid,
            // SAFETY: the descriptor is new, and nothing else owns it.
            pidfd: pidfd.map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) }),
        })
    }

    pub(crate) fn check(&self, request: &Request<'_>) -> Result<(), SetupError> {
        if request.is_trusted(self.uid) {
            return Ok(());
        }
        Err(SetupError::Untrusted(Distrust::Peer {
            address: request.address.clone(),
            uid: self.uid,
            pid: self.pid,
        }))
    }

    /// Returns its process id, as seen from here; 0 if it is not visible from here.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns its user id.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Returns its group.
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// Returns a pidfd of the process, for an event loop.
    ///
    /// `None` on kernels before 6.5.
    ///
    /// It becomes readable when the process ends. Neither a later process with the same id nor a child of it affects the pidfd.
    /// Producers and consumers do not need it: a wait notices within a tenth of a second that the peer has died.
    #[must_use]
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }
}
