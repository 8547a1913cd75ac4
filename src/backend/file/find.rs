//! Finds the files that hold pipes: those in /dev/shm, and those that processes have mapped, memfds among them.

use super::candidate::is_open;
use crate::address::{Address, AddressForm, POSIX};
use crate::segment::identity::READY;
use crate::sys::maps::SharedMappings;
use std::fs::{self, File, Metadata};
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file that holds a pipe.
#[derive(Debug)]
pub(crate) struct PipeFile {
    pub(crate) location: Location,
    /// Open for reading.
    pub(crate) file: File,
    pub(crate) metadata: Metadata,
    /// The processes that have it mapped, as far as we may see, each with one of its descriptors.
    pub(crate) openers: Vec<(u32, u32)>,
}

/// How a file can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// By an address.
    Named(Address),
    /// It was removed: this path now leads to another file, or to none. Of a file whose creator has it open this is the
    /// directory alone.
    Removed(PathBuf),
    Memfd,
}

impl PipeFile {
    /// Whether any process of this machine has the pipe open, visible to us or not.
    pub(crate) fn is_open(&self) -> bool {
        is_open(&self.file).unwrap_or(!self.openers.is_empty())
    }
}

/// Finds each file once.
pub(crate) fn find(mappings: &SharedMappings) -> Vec<PipeFile> {
    let mut found: Vec<PipeFile> = Vec::new();
    for entry in fs::read_dir(POSIX).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_file = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file());
        if let (true, Some(address)) = (is_file, address(&path)) {
            add(&mut found, &path, libc::O_NOFOLLOW, None, |_| Location::Named(address));
        }
    }
    for (pid, mapped) in mappings.files() {
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
                add(&mut found, &link, 0, opener, |metadata| location(&path, metadata, pid));
            }
        }
    }
    found
}

/// Adds a file, or another process that has it open, if it holds a pipe. Opening does not block.
fn add(
    found: &mut Vec<PipeFile>,
    path: &Path,
    flags: i32,
    opener: Option<(u32, u32)>,
    location: impl FnOnce(&Metadata) -> Location,
) {
    let open = File::options().read(true).custom_flags(flags | libc::O_NONBLOCK).open(path);
    let Ok(file) = open else { return };
    let Ok(metadata) = file.metadata() else { return };
    let mut start = [0; 8];
    if !metadata.is_file() || file.read_exact_at(&mut start, 0).is_err() || u64::from_le_bytes(start) != READY
    {
        return;
    }
    match found.iter_mut().find(|known| identity(&known.metadata) == identity(&metadata)) {
        Some(known) => known.openers.extend(opener),
        None => found.push(PipeFile {
            location: location(&metadata),
            file,
            openers: opener.into_iter().collect(),
            metadata,
        }),
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// How to reach a file that a process has open under that path.
fn location(path: &Path, metadata: &Metadata, pid: u32) -> Location {
    let text = path.to_string_lossy();
    if text.starts_with("/memfd:") {
        return Location::Memfd;
    }
    let relative = path.strip_prefix("/").unwrap_or(path);
    // In another mount namespace the path may lead to another file here; below the root of the process it leads to this one.
    let there = PathBuf::from(format!("/proc/{pid}/root")).join(relative);
    match [path, &there].into_iter().find_map(|path| named(path, metadata)).and_then(|path| address(&path)) {
        Some(address) => Location::Named(address),
        None => {
            let was = Path::new(text.strip_suffix(" (deleted)").unwrap_or(&text));
            let is_numbered = was.file_name().is_some_and(|name| name.to_string_lossy().starts_with('#'));
            Location::Removed(was.parent().filter(|_| is_numbered).unwrap_or(was).into())
        }
    }
}

/// The path of a file: the given one, or another in the same directory. The creator of a file knows it by the number that it
/// had before it got its name.
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

/// The address of a file. `None` if no address can hold its path.
fn address(path: &Path) -> Option<Address> {
    match path.strip_prefix(POSIX) {
        Ok(name) if name.components().count() == 1 => {
            name.to_str().map(|name| Address(AddressForm::Posix(name.to_owned())))
        }
        // As text: a printed address must parse again.
        _ => path.to_str().map(|path| Address(AddressForm::File(path.into()))),
    }
}
