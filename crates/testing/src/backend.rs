//! The kinds of shared memory, with unique places for pipes.

use super::end::NOBODY;
use super::name::Name;
use super::raw::{self, Attached};
use super::reaper;
use shmpipe::os::unix::PipeExt;
use shmpipe::os::unix::fd_passing;
use shmpipe::{Address, Options, Pipe, SetupError};
use std::fmt;
use std::fs::{self, File, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// A kind of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    SysV,
    Posix,
    File,
    /// Passed on by this test program at a socket.
    Memfd,
}

impl Backend {
    /// A new place.
    pub fn place(self) -> Place {
        let name = Name::new();
        match self {
            Backend::SysV => Place { address: name.to_string(), at: At::Key(name) },
            Backend::Posix => {
                reaper::directory();
                Place {
                    address: format!("posix:/{name}"),
                    at: At::Path(Path::new("/dev/shm").join(name.as_str())),
                }
            }
            Backend::File => {
                let path = own_directory(&name).join("pipe");
                Place { address: format!("file:{}", path.display()), at: At::Path(path) }
            }
            Backend::Memfd => {
                let path = own_directory(&name).join("socket");
                Place {
                    address: format!("memfd:{}", path.display()),
                    at: At::Socket { path, served: Mutex::new(None) },
                }
            }
        }
    }

    /// A place with an object of zeros, which is no pipe.
    pub fn foreign(self, size: usize, mode: u32) -> Place {
        if self == Backend::Memfd {
            let memfd = raw::make_memfd(size, raw::SEALS);
            memfd.set_permissions(Permissions::from_mode(mode)).unwrap();
            return Place { address: format!("fd:{}", memfd.as_raw_fd()), at: At::Descriptor(memfd) };
        }
        let place = self.place();
        match &place.at {
            At::Key(name) => drop(raw::make_segment(name.key(), size, mode as i32)),
            At::Path(path) => {
                let file = File::options().write(true).create_new(true).mode(mode).open(path).unwrap();
                file.set_len(size as u64).unwrap();
            }
            At::Descriptor(_) | At::Socket { .. } => unreachable!("not a memfd"),
        }
        place
    }
}

/// A new empty directory, in which leftovers show. As in /tmp, every user may create files, and remove only their own.
fn own_directory(name: &Name) -> PathBuf {
    let directory = reaper::directory().join(name.as_str());
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o1777)).unwrap();
    directory
}

/// The place of a test's pipe. Removes everything there when dropped, pipe or not.
#[derive(Debug)]
pub struct Place {
    address: String,
    at: At,
}

#[derive(Debug)]
enum At {
    /// The System V key of the name.
    Key(Name),
    Path(PathBuf),
    /// The socket at which a memfd is passed on, once it is created.
    Socket {
        path: PathBuf,
        served: Mutex<Option<Served>>,
    },
    /// A private memfd.
    Descriptor(File),
}

/// A thread that passes on a memfd until this is dropped.
#[derive(Debug)]
struct Served {
    memfd: File,
    path: PathBuf,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    fn new(pipe: &Pipe, path: &Path) -> Self {
        let mut server = fd_passing::serve(path, pipe).unwrap();
        let memfd = File::from(pipe.fd().unwrap().try_clone_to_owned().unwrap());
        // The users whom the mode admits.
        let owner = Some(memfd.metadata().unwrap().uid()).filter(|&uid| uid != 0);
        let others = (pipe.mode() & 0o006 != 0).then_some(NOBODY);
        for uid in owner.into_iter().chain(others) {
            server = server.trust_uid(uid).unwrap();
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let is_over = is_over.clone();
            move || {
                while !is_over.load(Ordering::Relaxed) {
                    // Fails when a client is killed meanwhile, or not trusted.
                    let _ = server.accept();
                }
            }
        });
        Served { memfd, path: path.to_owned(), is_over, thread: Some(thread) }
    }
}

/// Locks it, even after another thread has panicked.
fn held(served: &Mutex<Option<Served>>) -> MutexGuard<'_, Option<Served>> {
    served.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Served {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // Wakes the thread.
        if UnixStream::connect(&self.path).is_ok() {
            let _ = self.thread.take().map(JoinHandle::join);
        }
    }
}

impl Place {
    pub fn as_str(&self) -> &str {
        &self.address
    }

    pub fn backend(&self) -> Backend {
        match &self.at {
            At::Key(_) => Backend::SysV,
            At::Path(path) if path.starts_with("/dev/shm") => Backend::Posix,
            At::Path(_) => Backend::File,
            At::Socket { .. } | At::Descriptor(_) => Backend::Memfd,
        }
    }

    /// Creates the pipe. A memfd is created in this process and passed on from then on.
    pub fn create(&self, options: &Options) -> Result<Pipe, SetupError> {
        let At::Socket { path, served } = &self.at else { return options.create(self) };
        let mut served = held(served);
        assert!(served.is_none(), "a second memfd has another place");
        let pipe = options.create("memfd")?;
        *served = Some(Served::new(&pipe, path));
        Ok(pipe)
    }

    pub fn open_or_create(&self, options: &Options) -> Result<Pipe, SetupError> {
        match &self.at {
            At::Socket { .. } if self.exists() => options.open(self),
            At::Socket { .. } => self.create(options),
            _ => options.open_or_create(self),
        }
    }

    /// The path of the file or socket.
    pub fn path(&self) -> &Path {
        match &self.at {
            At::Path(path) | At::Socket { path, .. } => path,
            At::Key(_) | At::Descriptor(_) => panic!("{self} has no path"),
        }
    }

    /// The address under which another process creates a pipe.
    pub fn making(&self) -> &str {
        match &self.at {
            At::Socket { .. } => "memfd",
            _ => &self.address,
        }
    }

    /// Whether the segment exists.
    pub fn exists(&self) -> bool {
        match &self.at {
            At::Key(name) => name.segment().is_some(),
            At::Path(path) => path.exists(),
            At::Socket { served, .. } => held(served).is_some(),
            At::Descriptor(_) => true,
        }
    }

    /// Whether nothing exists there.
    pub fn is_unused(&self) -> bool {
        match &self.at {
            At::Key(name) => name.is_unused(),
            At::Path(path) if self.backend() == Backend::Posix => fs::symlink_metadata(path).is_err(),
            At::Path(path) | At::Socket { path, .. } => {
                fs::read_dir(path.parent().unwrap()).unwrap().next().is_none()
            }
            At::Descriptor(_) => false,
        }
    }

    /// Maps the segment, for access without the library.
    pub fn segment(&self) -> Attached {
        match &self.at {
            At::Key(name) => Attached::new(name.segment().expect("a segment")),
            At::Path(path) => Attached::map(&File::options().read(true).write(true).open(path).unwrap()),
            At::Socket { served, .. } => Attached::map(&held(served).as_ref().expect("a memfd").memfd),
            At::Descriptor(memfd) => Attached::map(memfd),
        }
    }

    /// The metadata of the object, to compare.
    pub fn status(&self) -> impl fmt::Debug + PartialEq + use<> {
        let of_file = |status: &fs::Metadata| {
            let (mode, uid, gid) = (status.mode(), status.uid(), status.gid());
            [mode.into(), uid.into(), gid.into(), status.ctime(), status.ino() as i64]
        };
        match &self.at {
            At::Key(name) => {
                let status = raw::status(name.segment().expect("a segment")).expect("still there");
                let permissions = status.shm_perm;
                let of_set = name.set().map_or(-1, i64::from);
                [
                    permissions.mode.into(),
                    permissions.uid.into(),
                    permissions.gid.into(),
                    status.shm_ctime,
                    of_set,
                ]
            }
            At::Path(path) => of_file(&fs::symlink_metadata(path).expect("still there")),
            At::Socket { served, .. } => {
                of_file(&held(served).as_ref().expect("a memfd").memfd.metadata().unwrap())
            }
            At::Descriptor(memfd) => of_file(&memfd.metadata().unwrap()),
        }
    }

    /// A command that runs another one in a namespace where nothing has this address.
    pub fn elsewhere(&self) -> Vec<String> {
        let directory = match &self.at {
            At::Key(_) => return ["unshare", "--ipc"].map(String::from).to_vec(),
            At::Path(path) | At::Socket { path, .. } => path.parent().unwrap().display(),
            At::Descriptor(_) => unreachable!("a private memfd has no name"),
        };
        let mount = format!("mount -t tmpfs none {directory} && exec \"$@\"");
        ["unshare", "--mount", "sh", "-c", &mount, "sh"].map(String::from).to_vec()
    }

    /// Waits until the segment has `count` attachments, where the kernel counts them.
    pub fn attached_by(&self, count: u64) {
        if let At::Key(name) = &self.at {
            super::attached_by(name.segment().expect("a segment"), count);
        }
    }

    /// The semaphore set of a System V pipe.
    pub fn set(&self) -> Option<i32> {
        match &self.at {
            At::Key(name) => name.set(),
            _ => None,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        match &self.at {
            At::Key(_) | At::Descriptor(_) => {}
            At::Path(path) if self.backend() == Backend::Posix => drop(fs::remove_file(path)),
            At::Path(path) => drop(fs::remove_dir_all(path.parent().unwrap())),
            At::Socket { path, served } => {
                drop(held(served).take());
                let _ = fs::remove_dir_all(path.parent().unwrap());
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

impl From<&Place> for Address {
    fn from(place: &Place) -> Self {
        place.address.parse().unwrap()
    }
}
