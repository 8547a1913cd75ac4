//! Opening a pipe that lies in a file.

use super::descriptor::{self, FileSystem, HUGETLBFS, TMPFS, filesystem, is_at, reopen, spot};
use super::filesystem::check;
use super::guard::LockGuard;
use super::lock::{Byte, Held, Mode, is_kept};
use super::{Source, make, unlink};
use crate::address::{Address, Place};
use crate::error::{Permissions, SetupError};
use crate::handoff;
use crate::identity::{Identity, READY, Ready};
use crate::inspect::Object;
use crate::layout::HEADER;
use crate::options::{Existing, Options};
use crate::pages;
use crate::segment::{Access, Asked, Mapping, Segment, Trouble, View, join, persist};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How long somebody else may take to remove a pipe before we give up.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

fn failed(call: &'static str) -> impl Fn(io::Error) -> SetupError {
    move |source| SetupError::Os { call, source }
}

/// Opens, or makes, the pipe at `address`.
pub(crate) fn attach(
    address: &Address,
    options: &Options,
    existing: Existing,
) -> Result<Segment, SetupError> {
    let asked = Asked::new(address, &options.trusted);
    let source = Source::of(&address.0).map_err(failed("finding the working directory"))?;
    match (source, existing) {
        (Source::NewMemfd, Existing::Required)
        | (Source::Descriptor(_) | Source::Served(_), Existing::Refused) => Err(asked.cannot_make()),
        (Source::NewMemfd, _) => make::memfd(&asked, options),
        (Source::Descriptor(number), _) => attach_received(&asked, options, &Number(number)),
        (Source::Served(path), _) => {
            let (descriptor, _) = handoff::receive(&asked, path)?;
            attach_received(&asked, options, &descriptor)
        }
        (Source::Named(path), _) => {
            persist(address, || match Found::at(&asked, &path, Access::ReadWrite, 1, vet(&asked)) {
                Err(Trouble::Failed(SetupError::NotFound { .. })) if existing != Existing::Required => {
                    make::named(&asked, options, existing, &path)
                }
                found => open(&asked, options, existing, found?),
            })
        }
    }
}

/// Opens the pipe in a memfd that this process has, or has been given. The descriptor stays the caller's.
pub(crate) fn attach_received(
    asked: &Asked<'_>,
    options: &Options,
    descriptor: &impl AsRawFd,
) -> Result<Segment, SetupError> {
    let found = Found::received(asked, descriptor, Access::ReadWrite)?;
    persist(asked.address, || open(asked, options, Existing::Required, found.again()?))
}

/// Opens the file of an open pipe once more.
pub(super) fn again(
    file: &File,
    path: Option<PathBuf>,
    address: &Address,
    options: &Options,
) -> Result<Segment, SetupError> {
    let asked = Asked::new(address, &options.trusted);
    let found = Found::of(file, path, Access::ReadWrite).map_err(failed("open"))?;
    match open(&asked, options, Existing::Required, found) {
        Ok(segment) => Ok(segment),
        Err(Trouble::Failed(error)) => Err(error),
        // Its name leads elsewhere now.
        Err(Trouble::Again) => Err(SetupError::Removed { address: address.clone() }),
    }
}

/// The number of a descriptor that somebody else takes care of.
struct Number(i32);

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
    fn of(file: &impl AsRawFd, path: Option<PathBuf>, access: Access) -> io::Result<Self> {
        let file = reopen(file, access)?;
        Ok(Found { metadata: file.metadata()?, filesystem: filesystem(&file)?, file, path })
    }

    fn again(&self) -> Result<Self, SetupError> {
        Self::of(&self.file, self.path.clone(), Access::ReadWrite).map_err(failed("open"))
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
    fn received(asked: &Asked<'_>, descriptor: &impl AsRawFd, access: Access) -> Result<Self, SetupError> {
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
    fn is_stale(&self, identity: &Identity) -> Result<bool, SetupError> {
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

    /// Bytes to map of a file that holds this pipe.
    fn size(&self, identity: &Identity) -> u64 {
        (HEADER + identity.capacity).next_multiple_of(self.filesystem.page)
    }
}

pub(crate) fn denied(asked: &Asked<'_>, permissions: Option<Permissions>) -> SetupError {
    SetupError::PermissionDenied { address: asked.address.clone(), key: None, permissions }
}

/// Whether a file is to be trusted, by its owner and by its file system.
fn vet(asked: &Asked<'_>) -> impl Fn(&Metadata, FileSystem) -> Result<(), SetupError> {
    |metadata, filesystem| {
        asked.check_trust(metadata.uid(), metadata.uid())?;
        check(asked, filesystem)
    }
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

/// Opens a file that was found.
fn open(asked: &Asked<'_>, options: &Options, existing: Existing, found: Found) -> Result<Segment, Trouble> {
    vet(asked)(&found.metadata, found.filesystem)?;
    let identity = asked.identify(&found.peek(asked)?, found.metadata.len())?;
    if found.is_stale(&identity)? {
        if existing == Existing::Required || !options.remake_stale {
            return Err(SetupError::Stale { address: asked.address.clone() }.into());
        }
        unlink::remove(asked, found, false)?;
        return Err(Trouble::Again);
    }
    let guest = enter(asked, &found)?;
    if let Some(path) = &found.path {
        // From here on nobody removes it unless by force.
        if !is_at(&found.file, path).map_err(failed("stat"))? {
            return Err(Trouble::Again);
        }
    }
    asked.check_wanted(&identity, options, existing)?;
    let align = pages::alignment(options).filter(|_| found.filesystem.magic != HUGETLBFS);
    let size = found.size(&identity);
    let size = align.map_or(size, |align| size.next_multiple_of(align).min(found.metadata.len()));
    if descriptor::has_hole(&found.file, size) {
        // A copy, perhaps, with holes.
        make::set_aside(asked, &found.file, size, found.filesystem)?;
    }
    let mapping =
        Mapping::of_file(found.file.as_fd(), size, Access::ReadWrite, align).map_err(failed("mmap"))?;
    pages::furnish(&mapping, options, found.filesystem.magic == TMPFS, false)?;
    join(&identity, options)?;
    let permissions = make::permissions(&found.metadata);
    let address = match asked.address.0 {
        Place::Descriptor(_) => Address(Place::Descriptor(found.file.as_raw_fd())),
        _ => asked.address.clone(),
    };
    let guard = LockGuard::new(found.file, found.path, size, found.filesystem.page, Some(guest));
    Ok(Segment { mapping, identity, address, created: false, permissions, guard: Box::new(guard) })
}

/// Becomes a guest of a file: who removes a pipe because nobody is left keeps others out for a moment.
fn enter(asked: &Asked<'_>, found: &Found) -> Result<Held, Trouble> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let guest = Held::take(&found.file, found.filesystem.page, Byte::Guests, Mode::Shared);
        match guest.map_err(failed("fcntl(F_OFD_SETLK)"))? {
            Some(guest) => return Ok(guest),
            None if Instant::now() < deadline => thread::sleep(Duration::from_millis(1)),
            None => return Err(SetupError::Busy { address: asked.address.clone(), pid: None }.into()),
        }
    }
}

/// Maps the pipe at `address` for reading alone, without a lock.
pub(crate) fn view(address: &Address) -> Result<View, SetupError> {
    let asked = Asked::new(address, &[]);
    let found = match Source::of(&address.0).map_err(failed("finding the working directory"))? {
        Source::NewMemfd => return Err(asked.cannot_make()),
        Source::Descriptor(number) => Found::received(&asked, &Number(number), Access::Read)?,
        Source::Served(path) => Found::received(&asked, &handoff::receive(&asked, path)?.0, Access::Read)?,
        Source::Named(path) => persist(address, || {
            Found::at(&asked, &path, Access::Read, 1, |_, filesystem| check(&asked, filesystem))
        })?,
    };
    let seen = found.peek(&asked)?;
    let size = found.metadata.len();
    let identity = asked.identify(&seen, size)?;
    let stale = found.is_stale(&identity)?;
    let mapped = found.size(&identity);
    // A stranger's file could be cut while we look at it.
    let mapping = if found.path.is_none() || asked.is_trusted(found.metadata.uid()) {
        Mapping::of_file(found.file.as_fd(), mapped, Access::Read, None).map_err(failed("mmap"))?
    } else {
        seen
    };
    let Found { file, metadata, filesystem, path } = found;
    Ok(View {
        mapping,
        identity,
        object: Object::File { device: metadata.dev(), inode: metadata.ino() },
        size,
        attached: None,
        permissions: make::permissions(&metadata),
        creator: metadata.uid(),
        locked: false,
        stale,
        guard: Some(Box::new(LockGuard::new(file, path, mapped, filesystem.page, None))),
    })
}
