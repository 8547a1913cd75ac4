//! Opening a pipe that lies in a file.

use super::descriptor::{self, FileSystem, HUGETLBFS, TMPFS, is_at};
use super::filesystem::check;
use super::found::{Found, Number};
use super::guard::LockGuard;
use super::lock::{Byte, Held, Mode};
use super::{Source, make, unlink};
use crate::address::{Address, Place};
use crate::error::{SetupError, failed};
use crate::options::{Existing, Options};
use crate::segment::pages;
use crate::segment::{Access, Asked, Mapping, Segment, Trouble, join, persist};
use std::fs::{File, Metadata};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// How long somebody else may take to remove a pipe before we give up.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

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
            let (descriptor, _) = super::served::receive(&asked, path)?;
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
    open_this(asked, options, Found::received(asked, descriptor, Access::ReadWrite)?)
}

/// Opens the file of an open pipe once more.
pub(super) fn again(
    file: &File,
    path: Option<PathBuf>,
    address: &Address,
    options: &Options,
) -> Result<Segment, SetupError> {
    let found = Found::of(file, path, Access::ReadWrite).map_err(failed("open"))?;
    open_this(&Asked::new(address, &options.trusted), options, found)
}

/// Opens a file, and no other that its name may lead to by now.
fn open_this(asked: &Asked<'_>, options: &Options, found: Found) -> Result<Segment, SetupError> {
    open(asked, options, Existing::Required, found).map_err(|trouble| match trouble {
        Trouble::Failed(error) => error,
        Trouble::Again => SetupError::Removed { address: asked.address.clone() },
    })
}

/// Whether a file is to be trusted, by its owner and by its file system.
fn vet(asked: &Asked<'_>) -> impl Fn(&Metadata, FileSystem) -> Result<(), SetupError> {
    |metadata, filesystem| {
        asked.check_trust(metadata.uid(), metadata.uid())?;
        check(asked, filesystem)
    }
}

/// Opens a file that was found.
fn open(asked: &Asked<'_>, options: &Options, existing: Existing, found: Found) -> Result<Segment, Trouble> {
    vet(asked)(&found.metadata, found.filesystem)?;
    let permissions = make::permissions(&found.metadata);
    let identity = asked.identify(&found.peek(asked)?, found.metadata.len())?;
    if found.path.is_some() {
        asked.check_mode(options, "file", permissions)?;
    }
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
    // A tmpfs tells by its blocks alone, and others look at extents, not at pages.
    let filled = found.filesystem.magic == TMPFS && found.metadata.blocks() * 512 >= found.metadata.len();
    if !filled && descriptor::has_hole(&found.file, size) {
        // A copy, perhaps.
        make::set_aside(asked, &found.file, size, found.filesystem)?;
    }
    let mapping =
        Mapping::of_file(found.file.as_fd(), size, Access::ReadWrite, align).map_err(failed("mmap"))?;
    pages::furnish(&mapping, options, found.filesystem.magic == TMPFS, false)?;
    join(&identity, options)?;
    let address = match asked.address.0 {
        Place::Descriptor(_) => Address(Place::Descriptor(found.file.as_raw_fd())),
        _ => asked.address.clone(),
    };
    // A disk's file system gives who has only read a page a table entry for reading, and the processor then moves lines of it
    // more slowly than those of a page that both may write.
    let eager = !matches!(found.filesystem.magic, TMPFS | HUGETLBFS);
    let guard = LockGuard::new(found.file, found.path, size, found.filesystem.page, Some(guest));
    Ok(Segment {
        mapping: ManuallyDrop::new(mapping),
        identity,
        address,
        created: false,
        permissions,
        eager,
        guard: Box::new(guard),
    })
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
