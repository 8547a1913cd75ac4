//! Handing a pipe in a memfd from process to process, at a Unix socket.
//!
//! A memfd has no name: nobody finds it who was not given it, and it goes with the last process that has it. One process
//! makes it and [serves](serve) it; others [connect], or open the address `memfd:PATH`, which does the same. Who is
//! served can be the producer, the consumer or a watcher; roles are claimed as on any other pipe, and the server need
//! not have one.
//!
//! ```
//! use shmpipe::{Options, handoff};
//!
//! # let path = std::env::temp_dir().join(format!("shmpipe-doc-{}.sock", std::process::id()));
//! let pipe = Options::new().create("memfd")?;
//! let server = handoff::serve(&path, &pipe)?;
//! std::thread::spawn(move || while server.accept().is_ok() {});
//!
//! // In another process:
//! let (pipe, server) = handoff::connect(&path, &Options::new())?;
//! println!("process {} has given us {} bytes", server.pid(), pipe.capacity());
//! # std::fs::remove_file(&path)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Both sides see to whom they talk by what the kernel says (`SO_PEERCRED`): only root, our own user and those named as
//! trusted are given a pipe, or believed. What is received has to be sealed against resizing, so that nobody can pull
//! the memory away from under us.

mod socket;

use crate::address::{Address, Place};
use crate::error::{SetupError, failed};
use crate::file;
use crate::file::descriptor::{exchange, set_mode, spot};
use crate::identity::READY;
use crate::options::Options;
use crate::pipe::Pipe;
use crate::process::Process;
use crate::segment::Asked;
use socket::{Greeting, knock, option, send, take};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes that come with the descriptor, so that a stranger's socket is not taken for one of ours.
const GREETING: Greeting = READY.to_le_bytes();

/// Device and number of a file.
type Inode = (u64, u64);

/// Hands out a pipe at a Unix socket; see [`serve`]. The socket is removed when this is dropped.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    inode: Inode,
    process: Process,
    pipe: Pipe,
    trusted: Vec<u32>,
}

/// Makes a Unix socket at `path`, where other processes are given `pipe`. One that a dead server has left there is replaced.
///
/// It is for the caller to [`accept`](Server::accept), in a thread of its own or when the socket is readable.
///
/// # Errors
/// [`SetupError::CannotHandOver`] for a pipe that is found by its address, [`SetupError::Exists`] if somebody serves
/// there already or there is something else, and whatever else stands in the way of making the socket.
pub fn serve(path: impl AsRef<Path>, pipe: &Pipe) -> Result<Server, SetupError> {
    let path = std::path::absolute(path).map_err(failed("finding the working directory"))?;
    if !matches!(pipe.address().0, Place::Descriptor(_) | Place::Served(_)) {
        return Err(SetupError::CannotHandOver { address: pipe.address().clone() });
    }
    let listener = bind(&path)?;
    let inode = inode_at(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => SetupError::Removed { address: Address(Place::Served(path.clone())) },
        _ => {
            let _ = fs::remove_file(&path);
            failed("stat")(source)
        }
    })?;
    Ok(Server { listener, inode, path, process: Process::current(), pipe: pipe.clone(), trusted: vec![] })
}

/// Listens at a path where nobody does.
fn bind(path: &Path) -> Result<UnixListener, SetupError> {
    let exists = || SetupError::Exists { address: Address(Place::Served(path.to_owned())) };
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        bound => return bound.map_err(failed("bind")),
    }
    let _lock = lock_directory(path)?;
    let dead = is_dead(path).ok_or_else(exists)?;
    // Ours takes its place in one step. Who was killed here has left one beside; nobody else is here.
    let beside = path.with_file_name(".shmpipe.next");
    if is_dead(&beside).is_some() {
        let _ = fs::remove_file(&beside);
    }
    let listener = UnixListener::bind(&beside).map_err(failed("bind"))?;
    let replaced = exchange(path, &beside).map_err(failed("renameat2")).and_then(|()| {
        if inode_at(&beside).is_ok_and(|found| found == dead) {
            return Ok(listener);
        }
        // Somebody has removed the dead one meanwhile, and serves there.
        exchange(path, &beside).map_err(failed("renameat2"))?;
        Err(exists())
    });
    let _ = fs::remove_file(&beside);
    replaced
}

/// Keeps other servers from replacing a dead one in the same directory, until it is dropped or we die.
fn lock_directory(path: &Path) -> Result<File, SetupError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let directory = File::open(directory).map_err(failed("open"))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        // SAFETY: the call takes no pointers.
        if unsafe { libc::flock(directory.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(directory);
        }
        let source = io::Error::last_os_error();
        match source.kind() {
            io::ErrorKind::Interrupted => {}
            io::ErrorKind::WouldBlock if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(1));
            }
            io::ErrorKind::WouldBlock => {
                return Err(SetupError::Busy { address: Address(Place::Served(path.to_owned())), pid: None });
            }
            _ => return Err(failed("flock")(source)),
        }
    }
}

/// The inode of a socket at a path where nobody listens any more.
fn is_dead(path: &Path) -> Option<Inode> {
    let found = fs::symlink_metadata(path).ok().filter(|found| found.file_type().is_socket())?;
    let refused = knock(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    refused.then(|| (found.dev(), found.ino()))
}

/// Device and number of what is at a path, be it a link.
fn inode_at(path: &Path) -> io::Result<Inode> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

impl Server {
    /// Also serves processes of this user. Without it, only root and our own user are served.
    ///
    /// # Errors
    /// [`SetupError::Removed`] if the socket is no longer where it was made, [`SetupError::Os`] if it cannot be opened to
    /// other users.
    pub fn trust_uid(mut self, uid: u32) -> Result<Self, SetupError> {
        // Who may connect is no longer for the file system to say, but for `accept`. What is there by now may be another
        // thing, if others may write to the directory.
        let spot = spot(&self.path).map_err(failed("open"))?;
        let found = spot.metadata().map_err(failed("fstat"))?;
        if (found.dev(), found.ino()) != self.inode {
            return Err(SetupError::Removed { address: Address(Place::Served(self.path.clone())) });
        }
        set_mode(&spot, 0o666).map_err(failed("chmod"))?;
        self.trusted.push(uid);
        Ok(self)
    }

    /// Waits for a process to connect and gives it the pipe.
    ///
    /// # Errors
    /// [`SetupError::Stranger`] if it was a process of a user who is not trusted, which was given nothing;
    /// [`SetupError::Os`] if it was gone, and, of kind [`Interrupted`](io::ErrorKind::Interrupted), if a signal came. The
    /// server goes on after each.
    pub fn accept(&self) -> Result<PeerProcess, SetupError> {
        let accept = || {
            // The standard library would wait on after a signal.
            // SAFETY: the address of the peer is not asked for.
            match unsafe {
                libc::accept4(self.listener.as_raw_fd(), null_mut(), null_mut(), libc::SOCK_CLOEXEC)
            } {
                -1 => Err(io::Error::last_os_error()),
                // SAFETY: the kernel has just opened the descriptor for us.
                descriptor => Ok(UnixStream::from(unsafe { OwnedFd::from_raw_fd(descriptor) })),
            }
        };
        let stream = accept().map_err(failed("accept4"))?;
        let address = Address(Place::Served(self.path.clone()));
        let peer = PeerProcess::of(&stream).map_err(failed("getsockopt(SO_PEERCRED)"))?;
        peer.check(&Asked::new(&address, &self.trusted))?;
        let descriptor = self.pipe.fd().expect("checked for in `serve`");
        send(&stream, GREETING, descriptor).map_err(failed("sendmsg"))?;
        Ok(peer)
    }

    /// Where it serves.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Server {
    /// The listening socket, which is readable when somebody wants to be accepted.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A forked child that drops it leaves its parent's where it is.
        if self.process == Process::current() && inode_at(&self.path).is_ok_and(|found| found == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens the pipe that is handed out at a Unix socket, and tells who has done so.
///
/// # Errors
/// [`SetupError::NotFound`] if nobody serves there, [`SetupError::Stranger`] if it is a user who is not trusted,
/// [`SetupError::Unsealed`] if what was given could be resized, and whatever else [`Options::open`] may return.
pub fn connect(path: impl AsRef<Path>, options: &Options) -> Result<(Pipe, PeerProcess), SetupError> {
    let address = Address(Place::Served(path.as_ref().to_owned()));
    let asked = Asked::new(&address, &options.trusted);
    let (descriptor, peer) = receive(&asked, path.as_ref())?;
    let segment = file::attach_received(&asked, options, &descriptor)?.prefaulted(options)?;
    Ok((Pipe::of(segment, options), peer))
}

/// A descriptor from whoever serves at a path.
pub(crate) fn receive(asked: &Asked<'_>, path: &Path) -> Result<(OwnedFd, PeerProcess), SetupError> {
    let stream = knock(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => asked.not_found(),
        io::ErrorKind::PermissionDenied => {
            file::denied(asked, fs::metadata(path).ok().map(|found| file::permissions(&found)))
        }
        io::ErrorKind::WouldBlock => SetupError::Busy { address: asked.address.clone(), pid: None },
        _ => failed("connect")(source),
    })?;
    let peer = PeerProcess::of(&stream).map_err(failed("getsockopt(SO_PEERCRED)"))?;
    peer.check(asked)?;
    let (greeting, mut descriptors) = take(&stream).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => SetupError::Busy { address: asked.address.clone(), pid: Some(peer.pid) },
        // It closes without a word to whom it does not trust.
        io::ErrorKind::UnexpectedEof => file::denied(asked, None),
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
    fn of(stream: &UnixStream) -> io::Result<Self> {
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

    fn check(&self, asked: &Asked<'_>) -> Result<(), SetupError> {
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
