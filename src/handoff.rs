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

use crate::address::{Address, Place};
use crate::backend::file::attach_received;
use crate::backend::file::descriptor::{exchange, set_mode, spot};
pub use crate::backend::file::served::PeerProcess;
use crate::backend::file::served::{greet, knock, receive};
use crate::error::{SetupError, failed};
use crate::options::Options;
use crate::os::process::Process;
use crate::pipe::Pipe;
use crate::segment::Asked;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::thread;
use std::time::{Duration, Instant};

/// How long another server may take to make its socket.
const PATIENCE: Duration = Duration::from_secs(5);

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
        greet(&stream, descriptor).map_err(failed("sendmsg"))?;
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
    let segment = attach_received(&asked, options, &descriptor)?;
    segment.prefault(options)?;
    Ok((Pipe::of(segment, options), peer))
}
