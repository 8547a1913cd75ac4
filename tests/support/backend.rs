//! The kinds of shared memory, and for each of them places of our own for pipes.

use super::janitor;
use super::name::Name;
use super::raw::{self, Attached};
use shmpipe::{Address, Options, Pipe, SetupError};
use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A kind of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    SysV,
    Posix,
    File,
}

impl Backend {
    /// A place that no other test uses.
    pub fn place(self) -> Place {
        let name = Name::new();
        match self {
            Backend::SysV => Place { address: name.to_string(), at: At::Key(name) },
            Backend::Posix => {
                janitor::directory();
                Place {
                    address: format!("posix:/{name}"),
                    at: At::Path(Path::new("/dev/shm").join(name.as_str())),
                }
            }
            Backend::File => {
                // In a directory of its own, so that nothing can be left there unseen.
                let directory = janitor::directory().join(name.as_str());
                fs::create_dir(&directory).unwrap();
                open_to_everybody(&directory);
                let path = directory.join("pipe");
                Place { address: format!("file:{}", path.display()), at: At::Path(path) }
            }
        }
    }

    /// A place with an object of zeros that is no pipe.
    pub fn foreign(self, size: usize, mode: u32) -> Place {
        let place = self.place();
        match &place.at {
            At::Key(name) => drop(raw::make_segment(name.key(), size, mode as i32)),
            At::Path(path) => {
                let file = File::options().write(true).create_new(true).mode(mode).open(path).unwrap();
                file.set_len(size as u64).unwrap();
            }
        }
        place
    }
}

/// As /tmp is: everybody may make files there, and remove his own.
fn open_to_everybody(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o1777)).unwrap();
}

/// Where a test has its pipe. Whatever is there when it is dropped is removed, pipe or not.
#[derive(Debug)]
pub struct Place {
    address: String,
    at: At,
}

#[derive(Debug)]
enum At {
    /// A System V key, that of the name.
    Key(Name),
    Path(PathBuf),
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
        }
    }

    /// Makes the pipe.
    pub fn create(&self, options: &Options) -> Result<Pipe, SetupError> {
        options.create(self)
    }

    pub fn open_or_create(&self, options: &Options) -> Result<Pipe, SetupError> {
        options.open_or_create(self)
    }

    /// Whether there is a segment.
    pub fn exists(&self) -> bool {
        match &self.at {
            At::Key(name) => name.segment().is_some(),
            At::Path(path) => path.exists(),
        }
    }

    /// Whether nothing at all is there.
    pub fn is_unused(&self) -> bool {
        match &self.at {
            At::Key(name) => name.is_unused(),
            At::Path(path) if self.backend() == Backend::Posix => fs::symlink_metadata(path).is_err(),
            At::Path(path) => fs::read_dir(path.parent().unwrap()).unwrap().next().is_none(),
        }
    }

    /// The bytes of what is there, to be read and written past the library.
    pub fn segment(&self) -> Attached {
        match &self.at {
            At::Key(name) => Attached::new(name.segment().expect("a segment")),
            At::Path(path) => Attached::map(&File::options().read(true).write(true).open(path).unwrap()),
        }
    }

    /// What can be known from outside of what is there, other than its bytes.
    pub fn status(&self) -> impl fmt::Debug + PartialEq + use<> {
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
            At::Path(path) => {
                let status = fs::symlink_metadata(path).expect("still there");
                [
                    status.mode().into(),
                    status.uid().into(),
                    status.gid().into(),
                    status.ctime(),
                    status.ino() as i64,
                ]
            }
        }
    }

    /// A command under which another one runs in a namespace where the address leads to nothing as yet.
    pub fn elsewhere(&self) -> Vec<String> {
        let directory = match &self.at {
            At::Key(_) => return ["unshare", "--ipc"].map(String::from).to_vec(),
            At::Path(path) => path.parent().unwrap().display(),
        };
        let mount = format!("mount -t tmpfs none {directory} && exec \"$@\"");
        ["unshare", "--mount", "sh", "-c", &mount, "sh"].map(String::from).to_vec()
    }

    /// Waits until so many have the segment attached, where the kernel counts them.
    pub fn attached_by(&self, count: u64) {
        if let At::Key(name) = &self.at {
            super::attached_by(name.segment().expect("a segment"), count);
        }
    }

    /// The semaphore set, where roles are semaphores.
    pub fn set(&self) -> Option<i32> {
        match &self.at {
            At::Key(name) => name.set(),
            At::Path(_) => None,
        }
    }

    /// The System V key; 0 where there is none.
    pub fn key(&self) -> i32 {
        match &self.at {
            At::Key(name) => name.key(),
            At::Path(_) => 0,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        match &self.at {
            At::Key(_) => {}
            At::Path(path) if self.backend() == Backend::Posix => drop(fs::remove_file(path)),
            At::Path(path) => drop(fs::remove_dir_all(path.parent().unwrap())),
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
