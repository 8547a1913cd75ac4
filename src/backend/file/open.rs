//! Opening a pipe in a file.

use super::candidate::{Candidate, Number};
use super::descriptor::{self, FileSystem, HUGETLBFS, TMPFS, is_at};
use super::filesystem::check_filesystem;
use super::lock::{Byte, Held, LockMode};
use super::role_lock::FileRoleLock;
use super::served::receive_memfd;
use super::{Source, create, unlink};
use crate::address::{Address, AddressForm};
use crate::error::{Damage, Lost, SetupError, failed, failed_to_map};
use crate::options::{Existing, Options};
use crate::segment::pages;
use crate::segment::{Access, AttemptError, Mapping, Request, Segment, prepare_wake_mode, retry};
use std::fs::{File, Metadata};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// How long to wait while another process removes the pipe.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens or creates the pipe at `address`.
pub(crate) fn attach(
    address: &Address,
    options: &Options,
    existing: Existing,
) -> Result<Segment, SetupError> {
    let request = Request::new(address, &options.trusted);
    let source = Source::of(&address.0).map_err(failed("finding the working directory"))?;
    match (source, existing) {
        (Source::NewMemfd, Existing::Required) => Err(request.cannot_open()),
        (Source::Descriptor(_) | Source::Served(_), Existing::Refused) => Err(request.cannot_create()),
        (Source::NewMemfd, _) => create::memfd(&request, options),
        (Source::Descriptor(number), _) => attach_received(&request, options, &Number(number)),
        (Source::Served(path), _) => {
            let (descriptor, _) = receive_memfd(&request, path)?;
            attach_received(&request, options, &descriptor)
        }
        (Source::Named(path), _) => {
            retry(address, || match Candidate::at(&request, &path, Access::ReadWrite, 1, vet(&request)) {
                Err(AttemptError::Failed(SetupError::NotFound { .. })) if existing != Existing::Required => {
                    create::named(&request, options, existing, &path)
                }
                found => open(&request, options, existing, found?),
            })
        }
    }
}

/// Opens the pipe in a memfd that this process has open, by inheritance or from a socket. The caller keeps its descriptor.
pub(crate) fn attach_received(
    request: &Request<'_>,
    options: &Options,
    descriptor: &impl AsRawFd,
) -> Result<Segment, SetupError> {
    open_only(request, options, Candidate::received(request, descriptor, Access::ReadWrite)?)
}

/// Opens the file of an open pipe once more.
pub(super) fn reopen(
    file: &File,
    path: Option<PathBuf>,
    address: &Address,
    options: &Options,
) -> Result<Segment, SetupError> {
    let candidate = Candidate::of(file, path, Access::ReadWrite).map_err(failed("open"))?;
    open_only(&Request::new(address, &options.trusted), options, candidate)
}

/// Opens this file, never another one that its name may lead to by now.
fn open_only(request: &Request<'_>, options: &Options, candidate: Candidate) -> Result<Segment, SetupError> {
    open(request, options, Existing::Required, candidate).map_err(|error| match error {
        AttemptError::Failed(error) => error,
        AttemptError::Retry => SetupError::Lost { lost: Lost::Removed, address: request.address.clone() },
    })
}

/// Checks that a file has a trusted owner and is on a supported file system.
fn vet(request: &Request<'_>) -> impl Fn(&Metadata, FileSystem) -> Result<(), SetupError> {
    |metadata, filesystem| {
        request.check_trust(metadata.uid(), metadata.uid())?;
        check_filesystem(request, filesystem)
    }
}

/// Opens the pipe in a candidate file.
fn open(
    request: &Request<'_>,
    options: &Options,
    existing: Existing,
    candidate: Candidate,
) -> Result<Segment, AttemptError> {
    vet(request)(&candidate.metadata, candidate.filesystem)?;
    let permissions = create::permissions(&candidate.metadata);
    let identity = request.identify(&candidate.peek(request)?, candidate.metadata.len())?;
    if candidate.path.is_some() {
        request.check_mode(options, "file", permissions)?;
    }
    if candidate.is_stale(&identity)? {
        if existing == Existing::Required || !options.recreate_stale {
            return Err(SetupError::Damaged(Damage::Stale { address: request.address.clone() }).into());
        }
        unlink::remove(request, candidate, false)?;
        return Err(AttemptError::Retry);
    }
    let attachment = lock_attachment(request, &candidate)?;
    if let Some(path) = &candidate.path {
        // From here on only a forced removal can succeed.
        if !is_at(&candidate.file, path).map_err(failed("stat"))? {
            return Err(AttemptError::Retry);
        }
    }
    request.check_existing(&identity, options, existing)?;
    let length = candidate.metadata.len();
    let align = match candidate.filesystem.magic {
        HUGETLBFS => None,
        TMPFS => pages::alignment(options).or_else(|| pages::alignment_of(length)),
        _ => pages::alignment(options),
    };
    let size = candidate.size(&identity);
    let size = align.map_or(size, |align| size.next_multiple_of(align).min(length));
    // On tmpfs the number of blocks tells. SEEK_HOLE would walk its pages; on other file systems it walks extents.
    let filled =
        candidate.filesystem.magic == TMPFS && candidate.metadata.blocks() * 512 >= candidate.metadata.len();
    if !filled && descriptor::has_hole(&candidate.file, size) {
        // A sparse copy of a pipe, perhaps.
        create::allocate_space(request, &candidate.file, size, candidate.filesystem)?;
    }
    let mapping = Mapping::of_file(candidate.file.as_fd(), size, Access::ReadWrite, align)
        .map_err(failed_to_map("mmap", size + align.unwrap_or(0)))?;
    pages::apply_options(&mapping, options, candidate.filesystem.magic == TMPFS, false)?;
    prepare_wake_mode(&identity, options)?;
    let address = match request.address.0 {
        AddressForm::Descriptor(_) => Address(AddressForm::Descriptor(candidate.file.as_raw_fd())),
        _ => request.address.clone(),
    };
    // A file system on disk gives a process that has only read a page a read-only page table entry. The processor then moves
    // lines of that page more slowly than lines of a page that both processes may write.
    let eager = !matches!(candidate.filesystem.magic, TMPFS | HUGETLBFS);
    let Candidate { file, filesystem, path, .. } = candidate;
    let guard = FileRoleLock::new(file, path, size, filesystem.page, Some(attachment));
    Ok(Segment {
        mapping,
        identity,
        address,
        created: false,
        permissions,
        eager,
        roles: Box::new(guard),
        removes_leftover: false,
    })
}

/// Locks the attachment byte of a file. Waits while a process that removes the unused pipe holds it exclusively.
fn lock_attachment(request: &Request<'_>, candidate: &Candidate) -> Result<Held, AttemptError> {
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        let attachment =
            Held::take(&candidate.file, candidate.filesystem.page, Byte::Attachments, LockMode::Shared);
        match attachment.map_err(failed("fcntl(F_OFD_SETLK)"))? {
            Some(attachment) => return Ok(attachment),
            None if Instant::now() < deadline => thread::sleep(Duration::from_millis(1)),
            None => return Err(SetupError::Busy { address: request.address.clone(), pid: None }.into()),
        }
    }
}
