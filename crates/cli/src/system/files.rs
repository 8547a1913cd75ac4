//! Files that hold pipes: those in /dev/shm, and those that a process has open, memfds among them.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use shmpipe::Address;

use crate::system::processes::Shared;

/// The first bytes of a pipe.
const READY: &[u8; 8] = b"shmpipe\0";

/// Where `posix:` pipes are.
pub const POSIX: &str = "/dev/shm";

/// A byte of a pipe's file that is locked as long as somebody has it open; LAYOUT.md has the numbers.
const GUESTS: i64 = 1;

/// A file that holds a pipe.
#[derive(Debug)]
pub struct PipeFile {
    pub kind: Kind,
    /// Open for reading.
    pub file: File,
    pub metadata: Metadata,
    /// Processes that have it mapped, as far as we may see, each with a descriptor of it.
    pub openers: Vec<(u32, u32)>,
}

/// What a file is, and how it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It has a name by which we find it.
    Named(Address),
    /// What stands at that path is another file, or nothing: it was removed. Of who has made it only the directory is known.
    Removed(PathBuf),
    Memfd,
}

impl PipeFile {
    /// Whether any process of this machine has the pipe open, whether we can see it or not.
    pub fn is_open(&self) -> bool {
        // If the kernel does not say, then what we have seen ourselves.
        is_guarded(&self.file).unwrap_or(!self.openers.is_empty())
    }
}

/// All of them, each once.
pub fn find(shared: &Shared) -> Vec<PipeFile> {
    let mut found: Vec<PipeFile> = Vec::new();
    for entry in fs::read_dir(POSIX).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_file = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file());
        if let (true, Some(address)) = (is_file, address(&path)) {
            add(&mut found, &path, libc::O_NOFOLLOW, None, |_| Kind::Named(address));
        }
    }
    for (pid, mapped) in shared.files() {
        let mut known = Vec::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let link = entry.path();
            // A mapping and a descriptor have different inode numbers on some file systems; the path is the same.
            let (Ok(path), Ok(metadata)) = (fs::read_link(&link), fs::metadata(&link)) else { continue };
            let is_mapped = mapped.iter().any(|(inode, its)| *inode == metadata.ino() || **its == *path);
            if metadata.is_file() && is_mapped && !known.contains(&identity(&metadata)) {
                known.push(identity(&metadata));
                let descriptor = entry.file_name().to_str().and_then(|number| number.parse().ok());
                let opener = descriptor.map(|descriptor| (pid, descriptor));
                add(&mut found, &link, 0, opener, |metadata| kind(&path, metadata, pid));
            }
        }
    }
    found
}

/// Adds a file, or somebody who has it open, if it holds a pipe. Opening waits for nothing.
fn add(
    found: &mut Vec<PipeFile>,
    path: &Path,
    flags: i32,
    opener: Option<(u32, u32)>,
    kind: impl FnOnce(&Metadata) -> Kind,
) {
    let open = File::options().read(true).custom_flags(flags | libc::O_NONBLOCK).open(path);
    let Ok(file) = open else { return };
    let Ok(metadata) = file.metadata() else { return };
    let mut start = [0; READY.len()];
    if !metadata.is_file() || file.read_exact_at(&mut start, 0).is_err() || start != *READY {
        return;
    }
    match found.iter_mut().find(|known| identity(&known.metadata) == identity(&metadata)) {
        Some(known) => known.openers.extend(opener),
        None => found.push(PipeFile {
            kind: kind(&metadata),
            file,
            openers: opener.into_iter().collect(),
            metadata,
        }),
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// What a file is that a process calls by that path.
fn kind(path: &Path, metadata: &Metadata, pid: u32) -> Kind {
    let text = path.to_string_lossy();
    if text.starts_with("/memfd:") {
        return Kind::Memfd;
    }
    let relative = path.strip_prefix("/").unwrap_or(path);
    // In another mount namespace the path may be another file's here; from its root on it is found.
    let there = PathBuf::from(format!("/proc/{pid}/root")).join(relative);
    match [path, &there].into_iter().find_map(|path| named(path, metadata)).and_then(|path| address(&path)) {
        Some(address) => Kind::Named(address),
        None => {
            let was = Path::new(text.strip_suffix(" (deleted)").unwrap_or(&text));
            let numbered = was.file_name().is_some_and(|name| name.to_string_lossy().starts_with('#'));
            Kind::Removed(was.parent().filter(|_| numbered).unwrap_or(was).into())
        }
    }
}

/// The path of that file, if it is the given one, or another one in the same directory: whoever made the file knows it by
/// the number that it had before it got its name.
fn named(path: &Path, metadata: &Metadata) -> Option<PathBuf> {
    let leads_to_it =
        |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| identity(&found) == identity(metadata));
    if metadata.nlink() == 0 {
        return None;
    }
    if leads_to_it(path) {
        return Some(path.to_owned());
    }
    let mut entries = fs::read_dir(path.parent()?).ok()?.flatten();
    entries
        .find(|entry| entry.ino() == metadata.ino() && leads_to_it(&entry.path()))
        .map(|entry| entry.path())
}

/// The address of a file; nothing if its path cannot stand in one.
fn address(path: &Path) -> Option<Address> {
    match path.strip_prefix(POSIX) {
        Ok(name) if name.components().count() == 1 => format!("posix:/{}", name.to_str()?).parse().ok(),
        _ => format!("file:{}", path.to_str()?).parse().ok(),
    }
}

/// Whether anybody has the pipe open whose file is at that path; as far as can be told.
pub fn is_open(path: &Path) -> bool {
    let open = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    open.and_then(|file| is_guarded(&file)).unwrap_or(false)
}

/// Whether anybody has a pipe's file open. The kernel also knows of processes that we may not see.
fn is_guarded(file: &File) -> io::Result<bool> {
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: GUESTS,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open, and `lock` is live.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &mut lock) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(lock.l_type != libc::F_UNLCK as i16),
    }
}
