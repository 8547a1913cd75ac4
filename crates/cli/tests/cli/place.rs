//! Addresses of every kind, cleaned up when the test ends.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::process::{Name, Running, shmpipe, start};

/// A kind of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Name,
    Posix,
    File,
    Memfd,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Name, Kind::Posix, Kind::File, Kind::Memfd];

    /// Those with a name, which are found even when no process has them open.
    pub const NAMED: [Kind; 3] = [Kind::Name, Kind::Posix, Kind::File];

    /// The kind in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Name => "sysv",
            Kind::Posix => "posix",
            Kind::File => "file",
            Kind::Memfd => "memfd",
        }
    }
}

/// An address without a pipe; that of a memfd has a server with one.
pub struct Place {
    address: String,
    /// Removed, and stopped, on drop.
    _name: Option<Name>,
    server: Option<Running>,
    /// Removed on drop.
    path: Option<PathBuf>,
}

impl Place {
    pub fn new(kind: Kind, topic: &str) -> Place {
        Place::with(kind, topic, &[])
    }

    /// [`new`](Self::new); a memfd is created with these options.
    pub fn with(kind: Kind, topic: &str, options: &[&str]) -> Place {
        let name = Name::new(topic);
        let scratch = || std::env::temp_dir().join(&*name);
        let (address, path) = match kind {
            Kind::Name => (name.to_string(), None),
            Kind::Posix => (format!("posix:/{}", &*name), Some(PathBuf::from("/dev/shm").join(&*name))),
            Kind::File => (format!("file:{}", scratch().display()), Some(scratch())),
            Kind::Memfd => (format!("memfd:{}", scratch().display()), Some(scratch())),
        };
        let server = (kind == Kind::Memfd).then(|| {
            let path = path.as_ref().unwrap().to_str().unwrap();
            let server = start(&[&["serve", path], options].concat());
            let said = server.wait_for_output(|said| said.ends_with(b"\n"));
            assert_eq!(String::from_utf8(said).unwrap(), format!("{address}\n"));
            server
        });
        let _name = (kind == Kind::Name).then_some(name);
        Place { address, _name, server, path }
    }

    /// Creates a pipe there; a memfd already has one.
    pub fn created(kind: Kind, topic: &str, options: &[&str]) -> Place {
        let place = Place::with(kind, topic, options);
        if kind != Kind::Memfd {
            let create = Running::start(
                shmpipe(&[&["create", &place], options].concat())
                    .stdout(std::process::Stdio::piped())
                    .stderr(std::process::Stdio::piped()),
            );
            create.finish().code(0).quiet().wrote(format!("{}\n", place.address).as_bytes());
        }
        place
    }

    /// The file, or the socket.
    pub fn path(&self) -> &str {
        self.path.as_ref().unwrap().to_str().unwrap()
    }

    /// Changes the boot id in the header (LAYOUT.md), as if the pipe were from before the last boot. Returns whether that counts:
    /// a file in memory cannot survive a boot.
    pub fn make_stale(&self) -> bool {
        let file = fs::File::options().write(true).open(self.path()).unwrap();
        file.write_all_at(&[0x5a; 16], 72).unwrap();
        let on_disk = !fs::read_to_string("/proc/mounts").unwrap().lines().any(|mount| {
            let mut words = mount.split(' ').skip(1);
            let (at, kind) = (words.next().unwrap(), words.next().unwrap());
            kind == "tmpfs" && at != "/" && std::path::Path::new(self.path()).starts_with(at)
        });
        if !on_disk {
            eprintln!("skipped: {} is in memory", self.path());
        }
        on_disk
    }

    pub fn server(&self) -> &Running {
        self.server.as_ref().unwrap()
    }

    pub fn take_server(&mut self) -> Running {
        self.server.take().unwrap()
    }
}

impl std::ops::Deref for Place {
    type Target = str;

    fn deref(&self) -> &str {
        &self.address
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.server = None;
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}
