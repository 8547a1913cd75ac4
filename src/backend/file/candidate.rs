//! A file that may hold a pipe: opened, but not checked completely yet.

use super::create;
use super::descriptor::{self, FileSystem, HUGETLBFS, TMPFS, open_path, reopen, statfs};
use super::lock::{Byte, LockMode, is_locked_by_other};
use crate::error::{Distrust, FileProblem, SetupError, failed};
use crate::permissions::Permissions;
use crate::protocol::layout::HEADER;
use crate::segment::identity::{Identity, READY, Ready};
use crate::segment::{Access, AttemptError, Mapping, Request};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The number of a descriptor that the caller owns.
pub(super) struct Number(pub(super) i32);

impl AsRawFd for Number {
    fn as_raw_fd(&self) -> i32 {
        self.0
    }
}

/// A file that may hold a pipe, with its own open description.
pub(super) struct Candidate {
    pub(super) file: File,
    pub(super) metadata: Metadata,
    pub(super) filesystem: FileSystem,
    /// Its absolute path, if it has a name.
    pub(super) path: Option<PathBuf>,
}

impl Candidate {
    pub(super) fn of(file: &impl AsRawFd, path: Option<PathBuf>, access: Access) -> io::Result<Self> {
        let file = reopen(file, access)?;
        Ok(Candidate { metadata: file.metadata()?, filesystem: statfs(&file)?, file, path })
    }

    /// Opens the file at a path, which may have at most `names` hard links. Checks its type and calls `vet` before opening it:
    /// opening a device has side effects, and the owner of a file can make `open` wait.
    pub(super) fn at(
        request: &Request<'_>,
        path: &Path,
        access: Access,
        names: u64,
        vet: impl FnOnce(&Metadata, FileSystem) -> Result<(), SetupError>,
    ) -> Result<Self, AttemptError> {
        let file = open_path(path).map_err(|source| match source.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => request.not_found(),
            Some(libc::EACCES) => denied(request, None),
            _ => failed("open")(source),
        })?;
        let metadata = file.metadata().map_err(failed("fstat"))?;
        if metadata.nlink() == 0 {
            return Err(AttemptError::Retry);
        }
        check_regular(request, &metadata, names)?;
        vet(&metadata, statfs(&file).map_err(failed("fstatfs"))?)?;
        Self::of(&file, Some(path.to_owned()), access).map_err(|source| match source.raw_os_error() {
            Some(libc::EROFS) => AttemptError::Failed(SetupError::File(FileProblem::ReadOnly {
                address: request.address.clone(),
            })),
            Some(libc::EACCES | libc::EPERM) => {
                AttemptError::Failed(denied(request, Some(create::permissions(&metadata))))
            }
            _ => AttemptError::Failed(failed("open")(source)),
        })
    }

    /// Reopens a file with a name, by whatever path it was found.
    pub(super) fn opened(request: &Request<'_>, file: &File, access: Access) -> Result<Self, SetupError> {
        let candidate = Self::of(file, None, access).map_err(failed("open"))?;
        check_regular(request, &candidate.metadata, 1)?;
        Ok(candidate)
    }

    /// Reopens the memfd behind a descriptor.
    pub(super) fn received(
        request: &Request<'_>,
        descriptor: &impl AsRawFd,
        access: Access,
    ) -> Result<Self, SetupError> {
        let missing = descriptor::missing_seals(descriptor).map_err(|source| {
            if source.raw_os_error() == Some(libc::EBADF) {
                request.not_found()
            } else {
                failed("fcntl(F_GET_SEALS)")(source)
            }
        })?;
        if missing != 0 {
            return Err(SetupError::Untrusted(Distrust::Unsealed {
                address: request.address.clone(),
                missing,
            }));
        }
        Self::of(descriptor, None, access).map_err(|source| match descriptor::metadata(descriptor) {
            Ok(metadata) if source.kind() == io::ErrorKind::PermissionDenied => {
                denied(request, Some(create::permissions(&metadata)))
            }
            _ => failed("open")(source),
        })
    }

    /// A copy of the file's header: a mapping would be unsafe, since a process that may write to the file may truncate it. Never
    /// writes to the file, which may not be a pipe.
    pub(super) fn peek(&self, request: &Request<'_>) -> Result<Mapping, SetupError> {
        let mut bytes = [0; HEADER as usize];
        self.file.read_exact_at(&mut bytes, 0).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => {
                request.foreign("the size of the file in bytes", self.metadata.len(), HEADER)
            }
            _ => failed("pread")(source),
        })?;
        let copy = Mapping::of_copy(&bytes).map_err(failed("mmap"))?;
        match request.readiness(&copy)? {
            Ready::Yes => Ok(copy),
            _ => Err(request.foreign(
                "the first word",
                u64::from_ne_bytes(*bytes.first_chunk().expect("8 bytes")),
                READY,
            )),
        }
    }

    /// Whether the file's contents date from before the last boot. Judges by the boot id; a container may have its own. A pipe
    /// with a held role is not stale, whatever its boot id. Attachments do not count: they may have been opened only now, as we
    /// are doing.
    pub(super) fn is_stale(&self, identity: &Identity) -> Result<bool, SetupError> {
        let lasts = !matches!(self.filesystem.magic, TMPFS | HUGETLBFS);
        if !lasts || !identity.has_other_boot_id() {
            return Ok(false);
        }
        for role in [Byte::Producer, Byte::Consumer] {
            if is_locked_by_other(&self.file, role, LockMode::Shared).map_err(failed("fcntl(F_OFD_GETLK)"))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a process has the pipe open, visible to us or not; watchers do not count.
    pub(super) fn is_open(&self) -> io::Result<bool> {
        is_open(&self.file)
    }

    /// How many bytes of the file to map for this pipe.
    pub(super) fn size(&self, identity: &Identity) -> u64 {
        identity.size().next_multiple_of(self.filesystem.page)
    }
}

/// Whether a process has the pipe in a file open.
pub(super) fn is_open(file: &File) -> io::Result<bool> {
    is_locked_by_other(file, Byte::Attachments, LockMode::Exclusive)
}

pub(crate) fn denied(request: &Request<'_>, permissions: Option<Permissions>) -> SetupError {
    SetupError::PermissionDenied { address: request.address.clone(), key: None, permissions }
}

fn check_regular(request: &Request<'_>, metadata: &Metadata, names: u64) -> Result<(), SetupError> {
    match why_not_regular(metadata, names) {
        Some(found) => {
            Err(SetupError::File(FileProblem::NotRegular { address: request.address.clone(), found }))
        }
        None => Ok(()),
    }
}

/// What the file is, if it is not a regular file with at most `names` hard links.
fn why_not_regular(metadata: &Metadata, names: u64) -> Option<&'static str> {
    let kind = metadata.file_type();
    Some(match () {
        () if kind.is_symlink() => "a symbolic link",
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () if kind.is_char_device() || kind.is_block_device() => "a device",
        // A user without write permission could link it to a name where other processes expect another pipe.
        () if metadata.nlink() > names => "a file with several names",
        () => return None,
    })
}
