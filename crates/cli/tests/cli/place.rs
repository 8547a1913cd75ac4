//! Places for pipes of every kind, gone when the test ends.

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

    /// Those that are found by a name, also when nobody has them open.
    pub const NAMED: [Kind; 3] = [Kind::Name, Kind::Posix, Kind::File];

    /// What `--json` calls it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Name => "sysv",
            Kind::Posix => "posix",
            Kind::File => "file",
            Kind::Memfd => "memfd",
        }
    }
}

/// An address at which there is nothing yet, except that of a memfd, which is served.
pub struct Place {
    address: String,
    /// The name, and the server, which end here.
    _name: Option<Name>,
    server: Option<Running>,
    /// What is to be removed.
    path: Option<PathBuf>,
}

impl Place {
    pub fn new(kind: Kind, topic: &str) -> Place {
        Place::with(kind, topic, &[])
    }

    /// The same; a memfd is made with these options.
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

    /// Makes a pipe there, unless it is a memfd, which is there.
    pub fn made(kind: Kind, topic: &str, options: &[&str]) -> Place {
        let place = Place::with(kind, topic, options);
        if kind != Kind::Memfd {
            let made = Running::start(
                shmpipe(&[&["create", &place], options].concat())
                    .stdout(std::process::Stdio::piped())
                    .stderr(std::process::Stdio::piped()),
            );
            made.finish().code(0).quiet().wrote(format!("{}\n", place.address).as_bytes());
        }
        place
    }

    /// The file, or the socket.
    pub fn path(&self) -> &str {
        self.path.as_ref().unwrap().to_str().unwrap()
    }

    /// Puts the making of the pipe before the last start of the machine: the boot id stands where LAYOUT.md has it. Tells
    /// whether that can be: what is in memory alone does not outlive the machine.
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
