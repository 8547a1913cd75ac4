//! A file that may hold a pipe: found, looked at, and not believed yet.

use super::descriptor::{self, FileSystem, HUGETLBFS, TMPFS, filesystem, reopen, spot};
use super::lock::{Byte, Mode, is_kept};
use super::make;
use crate::error::{SetupError, failed};
use crate::permissions::Permissions;
use crate::protocol::layout::HEADER;
use crate::segment::identity::{Identity, READY, Ready};
use crate::segment::{Access, Asked, Mapping, Trouble};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The number of a descriptor that somebody else takes care of.
pub(super) struct Number(pub(super) i32);

impl AsRawFd for Number {
    fn as_raw_fd(&self) -> i32 {
        self.0
    }
}

/// A file that may hold a pipe, with an open description of its own.
pub(super) struct Found {
    pub(super) file: File,
    pub(super) metadata: Metadata,
    pub(super) filesystem: FileSystem,
    /// Its absolute path, if it has a name.
    pub(super) path: Option<PathBuf>,
}

impl Found {
    pub(super) fn of(file: &impl AsRawFd, path: Option<PathBuf>, access: Access) -> io::Result<Self> {
        let file = reopen(file, access)?;
        Ok(Found { metadata: file.metadata()?, filesystem: filesystem(&file)?, file, path })
    }

    /// The file at a path, which has so many `names` at most. It is looked at, and vetted, before it is opened: opening a device does
    /// things, and whoever owns a file can make its opening wait.
    pub(super) fn at(
        asked: &Asked<'_>,
        path: &Path,
        access: Access,
        names: u64,
        vet: impl FnOnce(&Metadata, FileSystem) -> Result<(), SetupError>,
    ) -> Result<Self, Trouble> {
        let spot = spot(path).map_err(|source| match source.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => asked.not_found(),
            Some(libc::EACCES) => denied(asked, None),
            _ => failed("open")(source),
        })?;
        let metadata = spot.metadata().map_err(failed("fstat"))?;
        if metadata.nlink() == 0 {
            return Err(Trouble::Again);
        }
        if let Some(found) = objection(&metadata, names) {
            return Err(SetupError::NotAFile { address: asked.address.clone(), found }.into());
        }
        vet(&metadata, filesystem(&spot).map_err(failed("fstatfs"))?)?;
        Self::of(&spot, Some(path.to_owned()), access).map_err(|source| match source.raw_os_error() {
            Some(libc::EROFS) => Trouble::Failed(SetupError::ReadOnly { address: asked.address.clone() }),
            Some(libc::EACCES | libc::EPERM) => {
                Trouble::Failed(denied(asked, Some(make::permissions(&metadata))))
            }
            _ => Trouble::Failed(failed("open")(source)),
        })
    }

    /// The memfd behind a descriptor.
    pub(super) fn received(
        asked: &Asked<'_>,
        descriptor: &impl AsRawFd,
        access: Access,
    ) -> Result<Self, SetupError> {
        let missing = descriptor::missing_seals(descriptor).map_err(|source| {
            if source.raw_os_error() == Some(libc::EBADF) {
                asked.not_found()
            } else {
                failed("fcntl(F_GET_SEALS)")(source)
            }
        })?;
        if missing != 0 {
            return Err(SetupError::Unsealed { address: asked.address.clone(), missing });
        }
        Self::of(descriptor, None, access).map_err(|source| match descriptor::metadata(descriptor) {
            Ok(metadata) if source.kind() == io::ErrorKind::PermissionDenied => {
                denied(asked, Some(make::permissions(&metadata)))
            }
            _ => failed("open")(source),
        })
    }

    /// What a file says of itself: a copy of its header, since whoever may write to the file may cut it. A foreign one is not
    /// written to.
    pub(super) fn peek(&self, asked: &Asked<'_>) -> Result<Mapping, SetupError> {
        let mut bytes = [0; HEADER as usize];
        self.file.read_exact_at(&mut bytes, 0).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => {
                asked.foreign("the size of the file in bytes", self.metadata.len(), HEADER)
            }
            _ => failed("pread")(source),
        })?;
        let copy = Mapping::of_copy(&bytes).map_err(failed("mmap"))?;
        match asked.readiness(&copy)? {
            Ready::Yes => Ok(copy),
            _ => Err(asked.foreign(
                "the first word",
                u64::from_ne_bytes(*bytes.first_chunk().expect("8 bytes")),
                READY,
            )),
        }
    }

    /// Whether what is in the file is from before the machine was started, as far as can be told: by the boot id, of which a
    /// container may have one of its own. What somebody holds a role of now is not, whatever that says; mere guests and readers
    /// may have come with us.
    pub(super) fn is_stale(&self, identity: &Identity) -> Result<bool, SetupError> {
        let lasts = !matches!(self.filesystem.magic, TMPFS | HUGETLBFS);
        if !lasts || !identity.is_of_another_boot() {
            return Ok(false);
        }
        for role in [Byte::Producer, Byte::Consumer] {
            if is_kept(&self.file, role, Mode::Shared).map_err(failed("fcntl(F_OFD_GETLK)"))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a process has the pipe open, visible to us or not; watchers do not count.
    pub(super) fn is_open(&self) -> io::Result<bool> {
        is_open(&self.file)
    }

    /// Bytes to map of a file that holds this pipe.
    pub(super) fn size(&self, identity: &Identity) -> u64 {
        (HEADER + identity.capacity).next_multiple_of(self.filesystem.page)
    }
}

/// Whether a process has the pipe in a file open.
pub(super) fn is_open(file: &File) -> io::Result<bool> {
    is_kept(file, Byte::Guests, Mode::Exclusive)
}

pub(crate) fn denied(asked: &Asked<'_>, permissions: Option<Permissions>) -> SetupError {
    SetupError::PermissionDenied { address: asked.address.clone(), key: None, permissions }
}

/// Why a file is not opened, by what it is.
fn objection(metadata: &Metadata, names: u64) -> Option<&'static str> {
    let kind = metadata.file_type();
    Some(match () {
        () if kind.is_symlink() => "a symbolic link",
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () if kind.is_char_device() || kind.is_block_device() => "a device",
        // Somebody who may not write to it could give it another name, where others look for another pipe.
        () if metadata.nlink() > names => "a file with several names",
        () => return None,
    })
}
