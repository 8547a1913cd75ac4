//! Finds the files that hold pipes: those in /dev/shm, and those that processes have mapped, memfds among them.
//!
//! A path or a descriptor of another process may lead to anything, and to something else a moment later. So each is opened with
//! `O_PATH`, which has no side effects, and only a regular file on a supported file system is then opened for reading. A file that
//! a process has mapped on another file system is not even looked up: that may be one that never answers.

use super::candidate::{Candidate, is_open};
use super::descriptor::{open_path, open_path_target, reopen, statfs};
use super::filesystem::{SUPPORTED_KINDS, is_supported};
use super::view;
use crate::address::{Address, AddressForm, Location, POSIX};
use crate::error::SetupError;
use crate::segment::identity::READY;
use crate::segment::{Access, Request, View};
use crate::sys::maps::{Missing, SharedMappings, path_in_maps};
use crate::sys::mounts::Devices;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, DirEntry, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A file that holds a pipe, as it was found at a path in `/dev/shm` or at a descriptor of a process that has it mapped.
#[derive(Debug)]
pub(crate) struct PipeFile {
    /// Open for reading.
    file: File,
    pub(crate) metadata: Metadata,
    /// Its path; that of a descriptor as the process knows it.
    path: PathBuf,
    /// The process, and its descriptor.
    pub(crate) opener: Option<(u32, u32)>,
}

/// Calls `each` with every pipe, once for its path in `/dev/shm` and once for each process that has it mapped. Only that one file
/// is open meanwhile; a thread that forks then gives the child a copy of it. Returns why files may be missing.
///
/// A process of another user can still make it wait in one way: it has mapped a file on a supported file system, has one open
/// under the same path on a FUSE file system of its own, and may give us access to that (`user_allow_other`).
pub(crate) fn find(mappings: &SharedMappings, mut each: impl FnMut(PipeFile)) -> Option<io::Error> {
    let mut missing = Missing::default();
    for entry in entries(Path::new(POSIX), &mut missing) {
        let path = entry.path();
        let file = missing.ok(open_path(&path)).and_then(|file| open_if_pipe(&file, &mut missing));
        if let Some((file, metadata)) = file {
            each(PipeFile { file, metadata, path, opener: None });
        }
    }
    let mut devices = Devices::of(&SUPPORTED_KINDS, &mappings.memory_devices);
    for (pid, files) in &mappings.files {
        let mut paths = HashSet::new();
        let mut unseen = HashSet::new();
        for mapped in files {
            if devices.contain(mapped.device, *pid, &mut missing) {
                paths.insert(&mapped.path);
                unseen.insert((mapped.device, mapped.inode));
            }
        }
        if paths.is_empty() {
            continue;
        }
        // In our own process, files that are opened below would be among the descriptors that are read later.
        let descriptors: Vec<DirEntry> =
            entries(Path::new(&format!("/proc/{pid}/fd")), &mut missing).collect();
        for descriptor in descriptors {
            let number = descriptor.file_name().to_str().and_then(|number| number.parse().ok());
            let link = descriptor.path();
            let (Some(number), Ok(path)) = (number, fs::read_link(&link)) else { continue };
            if !paths.contains(&path_in_maps(&path)) {
                continue;
            }
            let file = missing.ok(open_path_target(&link)).and_then(|file| open_if_pipe(&file, &mut missing));
            if let Some((file, metadata)) = file.filter(|(_, found)| unseen.remove(&identity(found))) {
                each(PipeFile { file, metadata, path, opener: Some((*pid, number)) });
            }
        }
    }
    missing.0
}

/// Maps the pipe at the path of a descriptor read-only, as [`PipeFile::view`] does. `None` if no pipe is there. `address` is for
/// errors.
pub(crate) fn view_at(link: &Path, address: &Address) -> io::Result<Option<Result<View, SetupError>>> {
    let path = fs::read_link(link)?;
    let mut missing = Missing::default();
    let found = open_if_pipe(&open_path_target(link)?, &mut missing);
    if let Some(error) = missing.0 {
        return Err(error);
    }
    let found = found.map(|(file, metadata)| PipeFile { file, metadata, path, opener: None });
    Ok(found.map(|found| found.view(address)))
}

fn entries(directory: &Path, missing: &mut Missing) -> impl Iterator<Item = DirEntry> + use<> {
    missing.ok(fs::read_dir(directory)).into_iter().flatten().flatten()
}

/// Opens an `O_PATH` file for reading, if it holds a pipe.
fn open_if_pipe(found: &File, missing: &mut Missing) -> Option<(File, Metadata)> {
    let metadata = found.metadata().ok().filter(Metadata::is_file)?;
    statfs(found).ok().filter(|&filesystem| is_supported(filesystem))?;
    let file = missing.ok(reopen(found, Access::Read))?;
    let mut start = [0; 8];
    file.read_exact_at(&mut start, 0).ok()?;
    (u64::from_le_bytes(start) == READY).then_some((file, metadata))
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl PipeFile {
    /// Whether any process of this machine has the pipe open, visible to us or not.
    pub(crate) fn is_open(&self) -> bool {
        is_open(&self.file).unwrap_or(self.opener.is_some())
    }

    /// How to reach it.
    pub(crate) fn location(&self) -> Location {
        let path = &*self.path;
        let Some((pid, fd)) = self.opener else { return at(path) };
        let text = path.as_os_str().as_bytes();
        if self.metadata.nlink() == 0 && text.starts_with(b"/memfd:") {
            return Location::Descriptor { pid, fd };
        }
        if self.metadata.nlink() == 0 {
            let was = Path::new(OsStr::from_bytes(text.strip_suffix(b" (deleted)").unwrap_or(text)));
            // Of a file whose creator has it open, only the directory is known.
            let is_numbered = was.file_name().is_some_and(|name| name.to_string_lossy().starts_with('#'));
            let path = was.parent().filter(|_| is_numbered).unwrap_or(was).into();
            return Location::Removed { path, pid, fd };
        }
        // In another mount namespace the path may lead to another file here; below the root of the process it leads to this one.
        let relative = path.strip_prefix("/").unwrap_or(path);
        let there = PathBuf::from(format!("/proc/{pid}/root")).join(relative);
        match [path, &there].into_iter().find_map(|path| self.named(path)) {
            Some(path) => at(&path),
            None => Location::Path(format!("/proc/{pid}/fd/{fd}").into()),
        }
    }

    /// The path of the file: the given one, or another in the same directory. The creator of a file knows it by the number that
    /// it had before it got its name.
    fn named(&self, path: &Path) -> Option<PathBuf> {
        let leads_to_it = |path: &Path| {
            fs::symlink_metadata(path).is_ok_and(|it| identity(&it) == identity(&self.metadata))
        };
        if leads_to_it(path) {
            return Some(path.to_owned());
        }
        let mut entries = fs::read_dir(path.parent()?).ok()?.flatten();
        entries
            .find(|entry| entry.ino() == self.metadata.ino() && leads_to_it(&entry.path()))
            .map(|entry| entry.path())
    }

    /// Maps the pipe read-only, without a lock. `address` is for errors.
    pub(crate) fn view(&self, address: &Address) -> Result<View, SetupError> {
        let request = Request::new(address, &[]);
        let candidate = match self.metadata.nlink() {
            0 => Candidate::received(&request, &self.file, Access::Read)?,
            _ => Candidate::opened(&request, &self.file, Access::Read)?,
        };
        view::of_candidate(&request, candidate)
    }
}

/// A file at a path.
fn at(path: &Path) -> Location {
    let name = path.strip_prefix(POSIX).ok().filter(|name| name.components().count() == 1);
    Location::Address(Address(match name {
        Some(name) => AddressForm::Posix(name.into()),
        None => AddressForm::File(path.into()),
    }))
}
