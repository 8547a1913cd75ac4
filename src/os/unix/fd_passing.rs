//! Passing a pipe in a memfd from process to process, through a Unix socket.
//!
//! * [`serve`] creates a [`Server`] at a path. Its [`accept`](Server::accept) sends the pipe to each process that connects.
//! * [`connect`] receives the pipe, and the identity of the server as a [`PeerProcess`].
//!
//! A memfd has no name: only a process that receives a descriptor of it can open it, and it disappears with the last process that
//! has it. One process creates the pipe and [serves](serve) it. Others [connect], or open the address `memfd:PATH`, which does
//! the same. A process that connects can be the producer, the consumer or an inspector. It claims a role as on any other pipe;
//! the server does not need one.
//!
//! ```
//! use shmpipe::Options;
//! use shmpipe::os::unix::fd_passing;
//!
//! # let path = std::env::temp_dir().join(format!("shmpipe-doc-{}.sock", std::process::id()));
//! let pipe = Options::new().create("memfd")?;
//! let server = fd_passing::serve(&path, &pipe)?;
//! std::thread::spawn(move || while server.accept().is_ok() {});
//!
//! // In another process:
//! let (pipe, server) = fd_passing::connect(&path, &Options::new())?;
//! println!("process {} serves a pipe of {} bytes", server.pid(), pipe.capacity());
//! # std::fs::remove_file(&path)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Both sides check the user of the other by the kernel's credentials (`SO_PEERCRED`): a server sends a pipe only to root, its
//! own user and users named as trusted, and a client accepts one only from those. The memfd must be sealed against resizing, so
//! that no process can truncate it while it is mapped.

use crate::address::{Address, AddressForm};
use crate::backend::file::attach_received;
use crate::backend::file::descriptor::{exchange, open_path, set_mode};
pub use crate::backend::file::served::PeerProcess;
use crate::backend::file::served::{connect_within, receive_memfd, send_memfd};
use crate::error::{Lost, SetupError, Unsupported, failed};
use crate::options::Options;
use crate::os::unix::PipeExt;
use crate::pipe::Pipe;
use crate::segment::Request;
use crate::sys::process::Process;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::thread;
use std::time::{Duration, Instant};

/// How long to wait while another server creates its socket.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Device and inode number of a file.
type Inode = (u64, u64);

/// Serves a pipe at a Unix socket; see [`serve`].
///
/// Dropping it removes the socket.
///
/// It is [`AsFd`], for an event loop: the descriptor is readable when a connection is pending.
///
/// ```
/// use shmpipe::{Options, os::unix::fd_passing};
///
/// # let path = std::env::temp_dir().join(format!("shmpipe-doc-server-{}.sock", std::process::id()));
/// let pipe = Options::new().create("memfd")?;
/// let server = fd_passing::serve(&path, &pipe)?;
/// assert!(server.path().exists());
/// drop(server);
/// assert!(!path.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    inode: Inode,
    process: Process,
    pipe: Pipe,
    trusted: Vec<u32>,
}

/// Creates a Unix socket at `path` that serves `pipe`.
///
/// Replaces the socket of a dead server.
///
/// The caller must [`accept`](Server::accept) connections, in a separate thread or when the socket becomes readable.
///
/// ```
/// use shmpipe::{Options, os::unix::fd_passing};
///
/// # let path = std::env::temp_dir().join(format!("shmpipe-doc-serve-{}.sock", std::process::id()));
/// let pipe = Options::new().create("memfd")?;
/// let server = fd_passing::serve(&path, &pipe)?;
/// std::thread::spawn(move || while server.accept().is_ok() {});
/// // The pipe can be used here at the same time.
/// let mut producer = pipe.producer()?;
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// * [`Unsupported::FdPassing`] for a pipe that is opened by its address.
/// * [`SetupError::Exists`] if another server, or another object, is at the path.
/// * [`SetupError::Busy`] if other processes have been replacing a dead server in that directory for five seconds.
/// * [`SetupError::Lost`] if the socket was removed at once, [`SetupError::Os`] if a system call that creates it fails.
pub fn serve(path: impl AsRef<Path>, pipe: &Pipe) -> Result<Server, SetupError> {
    let path = std::path::absolute(path).map_err(failed("finding the working directory"))?;
    if !matches!(pipe.address().0, AddressForm::Descriptor(_) | AddressForm::Served(_)) {
        return Err(SetupError::Unsupported(Unsupported::FdPassing { address: pipe.address().clone() }));
    }
    let listener = bind(&path)?;
    let inode = inode_at(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => {
            SetupError::Lost { lost: Lost::Removed, address: Address(AddressForm::Served(path.clone())) }
        }
        _ => {
            let _ = fs::remove_file(&path);
            failed("stat")(source)
        }
    })?;
    Ok(Server { listener, inode, path, process: Process::current(), pipe: pipe.clone(), trusted: vec![] })
}

/// Listens at a path, unless another server does.
fn bind(path: &Path) -> Result<UnixListener, SetupError> {
    let exists = || SetupError::Exists { address: Address(AddressForm::Served(path.to_owned())) };
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        bound => return bound.map_err(failed("bind")),
    }
    let _lock = lock_directory(path)?;
    let dead = dead_socket_at(path).ok_or_else(exists)?;
    // Our socket replaces it atomically. A server that was killed here has left a temporary one; under the lock no other server
    // uses that.
    let temporary = path.with_file_name(".shmpipe.next");
    if dead_socket_at(&temporary).is_some() {
        let _ = fs::remove_file(&temporary);
    }
    let listener = UnixListener::bind(&temporary).map_err(failed("bind"))?;
    let replaced = exchange(path, &temporary).map_err(failed("renameat2")).and_then(|()| {
        if inode_at(&temporary).is_ok_and(|found| found == dead) {
            return Ok(listener);
        }
        // Another process has removed the dead one meanwhile and serves there.
        exchange(path, &temporary).map_err(failed("renameat2"))?;
        Err(exists())
    });
    let _ = fs::remove_file(&temporary);
    replaced
}

/// Locks a directory: until the file is dropped or we die, no other server replaces a dead one there.
fn lock_directory(path: &Path) -> Result<File, SetupError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let directory = File::open(directory).map_err(failed("open"))?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
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
                return Err(SetupError::Busy {
                    address: Address(AddressForm::Served(path.to_owned())),
                    pid: None,
                });
            }
            _ => return Err(failed("flock")(source)),
        }
    }
}

/// The inode of a socket at a path, if no process listens there any more.
fn dead_socket_at(path: &Path) -> Option<Inode> {
    let found = fs::symlink_metadata(path).ok().filter(|found| found.file_type().is_socket())?;
    let refused = connect_within(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    refused.then(|| (found.dev(), found.ino()))
}

/// Device and inode number of the object at a path, without following a link.
fn inode_at(path: &Path) -> io::Result<Inode> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

impl Server {
    /// Also serves processes of this user.
    ///
    /// By default, only root and our own user are served. Every user may then connect; [`accept`](Self::accept) rejects those who
    /// are not trusted.
    ///
    /// ```
    /// use shmpipe::{Options, os::unix::fd_passing};
    ///
    /// # let path = std::env::temp_dir().join(format!("shmpipe-doc-trust-{}.sock", std::process::id()));
    /// let pipe = Options::new().create("memfd")?;
    /// # let user_of_the_service = 1000;
    /// let server = fd_passing::serve(&path, &pipe)?.trust_uid(user_of_the_service)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SetupError::Lost`] if the socket was removed from its path, [`SetupError::Os`] if its permissions cannot be changed.
    pub fn trust_uid(mut self, uid: u32) -> Result<Self, SetupError> {
        // Every user may connect from now on; `accept` checks them. Another user who may write to the directory could have put a
        // different object there, so check the inode and change the permissions through the same descriptor.
        let socket = open_path(&self.path).map_err(failed("open"))?;
        let found = socket.metadata().map_err(failed("fstat"))?;
        if (found.dev(), found.ino()) != self.inode {
            return Err(SetupError::Lost {
                lost: Lost::Removed,
                address: Address(AddressForm::Served(self.path.clone())),
            });
        }
        set_mode(&socket, 0o666).map_err(failed("chmod"))?;
        self.trusted.push(uid);
        Ok(self)
    }

    /// Waits for a process to connect and sends it the pipe.
    ///
    /// Blocks without a limit.
    ///
    /// ```
    /// use shmpipe::{Options, os::unix::fd_passing};
    ///
    /// # let path = std::env::temp_dir().join(format!("shmpipe-doc-accept-{}.sock", std::process::id()));
    /// # let pipe = Options::new().create("memfd")?;
    /// let server = fd_passing::serve(&path, &pipe)?;
    /// # std::thread::spawn(move || fd_passing::connect(path, &Options::new()));
    /// match server.accept() {
    ///     Ok(peer) => println!("process {} has the pipe", peer.pid()),
    ///     // A client that is not trusted, or has disconnected. The next one may succeed.
    ///     Err(error) => eprintln!("{error}"),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// * [`Distrust::Peer`](crate::error::Distrust::Peer) if its user is not trusted; it receives nothing.
    /// * [`SetupError::Os`] if it has disconnected, or, of kind [`Interrupted`](io::ErrorKind::Interrupted), if a signal arrived.
    ///
    /// The server can accept more connections after each of these.
    pub fn accept(&self) -> Result<PeerProcess, SetupError> {
        let accept = || {
            // The standard library's `accept` continues to wait after a signal.
            // SAFETY: both pointers are null: the address of the peer is not requested.
            match unsafe {
                libc::accept4(self.listener.as_raw_fd(), null_mut(), null_mut(), libc::SOCK_CLOEXEC)
            } {
                -1 => Err(io::Error::last_os_error()),
                // SAFETY: the descriptor is new, and nothing else owns it.
                descriptor => Ok(UnixStream::from(unsafe { OwnedFd::from_raw_fd(descriptor) })),
            }
        };
        let stream = accept().map_err(failed("accept4"))?;
        let address = Address(AddressForm::Served(self.path.clone()));
        let peer = PeerProcess::of(&stream).map_err(failed("getsockopt(SO_PEERCRED)"))?;
        peer.check(&Request::new(&address, &self.trusted))?;
        let descriptor = self.pipe.fd().expect("checked for in `serve`");
        send_memfd(&stream, descriptor).map_err(failed("sendmsg"))?;
        Ok(peer)
    }

    /// Returns the path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Server {
    /// The listening socket, which is readable when a connection is pending.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // In a forked child, the socket is the parent's.
        if self.process.is_current() && inode_at(&self.path).is_ok_and(|found| found == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens the pipe that a process serves at a Unix socket.
///
/// Returns it and the process. Waits some seconds for the server to answer.
///
/// ```
/// use shmpipe::{Options, os::unix::fd_passing};
///
/// # let path = std::env::temp_dir().join(format!("shmpipe-doc-connect-{}.sock", std::process::id()));
/// # let served = Options::new().create("memfd")?;
/// # let server = fd_passing::serve(&path, &served)?;
/// # let serving = std::thread::spawn(move || server.accept());
/// let (pipe, server) = fd_passing::connect(&path, &Options::new())?;
/// println!("process {} serves a pipe of {} bytes", server.pid(), pipe.capacity());
/// # serving.join().expect("it does not panic")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// * [`SetupError::NotFound`] if no process serves there.
/// * [`Distrust::Peer`](crate::error::Distrust::Peer) if the user of the server is not trusted,
///   [`Distrust::Unsealed`](crate::error::Distrust::Unsealed) if the descriptor received could be resized.
/// * [`SetupError::Foreign`] if the server is another program's, [`SetupError::Busy`] if it does not answer.
/// * [`SetupError::PermissionDenied`] if we may not connect, or the server does not trust us.
/// * The other errors of [`Options::open`].
pub fn connect(path: impl AsRef<Path>, options: &Options) -> Result<(Pipe, PeerProcess), SetupError> {
    let address = Address(AddressForm::Served(path.as_ref().to_owned()));
    let request = Request::new(&address, &options.trusted);
    let (descriptor, peer) = receive_memfd(&request, path.as_ref())?;
    let segment = attach_received(&request, options, &descriptor)?;
    segment.prefault(options)?;
    Ok((Pipe::of(segment, options), peer))
}
