//! Creating a pipe in a file. It is complete before another process can open it.

use super::descriptor::{self, FileSystem, HUGETLBFS, TMPFS, statfs};
use super::filesystem::check_filesystem;
use super::lock::{Byte, Held, LockMode};
use super::role_lock::FileRoleLock;
use crate::address::{Address, AddressForm};
use crate::error::{FileProblem, SetupError, Shortage, failed, failed_to_map, os};
use crate::options::{Existing, Options};
use crate::permissions::Permissions;
use crate::protocol::layout::HEADER;
use crate::protocol::sync::Ordering;
use crate::segment::identity::{Identity, NO_SET, READY};
use crate::segment::pages;
use crate::segment::{Access, AttemptError, Mapping, Request, Segment, parameters, prepare_wake_mode};
use crate::sys::limits::Resource;
use crate::sys::memfd;
use std::fs::{self, File, Permissions as FileMode};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Creates a file at `path`. It has no name until it is complete (`O_TMPFILE`), so nothing is left behind if we die before.
pub(super) fn named(
    request: &Request<'_>,
    options: &Options,
    existing: Existing,
    path: &Path,
) -> Result<Segment, AttemptError> {
    let directory = path.parent().unwrap_or(path);
    let refused = |source: io::Error| match source.raw_os_error() {
        Some(libc::EROFS) => SetupError::File(FileProblem::ReadOnly { address: request.address.clone() }),
        // Nothing that another directory would change.
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => os("open", source),
        _ => SetupError::File(FileProblem::Directory {
            address: request.address.clone(),
            directory: directory.to_owned(),
            source,
        }),
    };
    let target = descriptor::open_path_target(directory).map_err(refused)?;
    check_filesystem(request, statfs(&target).map_err(failed("fstatfs"))?)?;
    let deadline = Instant::now() + SPACE_TIMEOUT;
    let segment = loop {
        let file = descriptor::create_unnamed(directory).map_err(refused)?;
        let filesystem = statfs(&file).map_err(failed("fstatfs"))?;
        check_filesystem(request, filesystem)?;
        match initialize(request, options, file, Some(path), filesystem) {
            Err(SetupError::Limit(Shortage::Space { .. })) if Instant::now() < deadline => {}
            initialized => break initialized?,
        }
        // Other processes that are creating the same pipe may be using the space.
        if existing != Existing::Refused && fs::symlink_metadata(path).is_ok() {
            return Err(AttemptError::Retry);
        }
        thread::sleep(Duration::from_millis(5));
    };
    let file = segment.descriptor().expect("a file has one");
    match descriptor::link(&file, path) {
        Ok(()) => Ok(segment),
        Err(error) if error.raw_os_error() != Some(libc::EEXIST) => {
            Err(failed("giving the file its name")(error).into())
        }
        Err(_) if existing == Existing::Refused => {
            Err(SetupError::Exists { address: request.address.clone() }.into())
        }
        Err(_) => Err(AttemptError::Retry),
    }
}

/// How long to retry when space is short, since other processes that are creating the same pipe may be using it.
const SPACE_TIMEOUT: Duration = Duration::from_secs(1);

/// Creates a pipe in a new memfd.
pub(super) fn memfd(request: &Request<'_>, options: &Options) -> Result<Segment, SetupError> {
    let flags = if options.huge_pages { libc::MFD_HUGETLB } else { 0 };
    let file = memfd::create(flags).map_err(|source| match source.raw_os_error() {
        Some(libc::ENODEV | libc::EINVAL | libc::ENOSYS) if options.huge_pages => {
            pages::no_huge_pages("memfd_create(MFD_HUGETLB)", source, HEADER)
        }
        _ => failed("memfd_create")(source),
    })?;
    let filesystem = statfs(&file).map_err(failed("fstatfs"))?;
    initialize(request, options, file, None, filesystem)
}

/// Creates the pipe in an empty file that no other process has open.
fn initialize(
    request: &Request<'_>,
    options: &Options,
    file: File,
    path: Option<&Path>,
    filesystem: FileSystem,
) -> Result<Segment, SetupError> {
    let parameters = parameters(options)?;
    // Pages of the pool are huge already. For collapsed pages, round the size up to whole huge ones.
    let align = pages::alignment(options).filter(|_| filesystem.magic != HUGETLBFS);
    let size = parameters.size().next_multiple_of(align.unwrap_or(filesystem.page));
    check_size_limit(size)?;
    // Where nothing is allocated yet, the kernel allocates huge pages at once. Small pages it would have to copy.
    let huge_of_holes = options.huge_pages && filesystem.magic == TMPFS;
    if huge_of_holes {
        check_free(request, &file, size, filesystem)?;
        file.set_len(size).map_err(failed("ftruncate"))?;
    } else {
        allocate_space(request, &file, size, filesystem)?;
    }
    file.set_permissions(FileMode::from_mode(options.mode.unwrap_or(0o600))).map_err(failed("fchmod"))?;
    if options.uid.is_some() || options.gid.is_some() {
        fchown(&file, options.uid, options.gid).map_err(failed("fchown"))?;
    }
    if path.is_none() {
        descriptor::seal(&file).map_err(failed("fcntl(F_ADD_SEALS)"))?;
    }
    let mapping = Mapping::of_file(file.as_fd(), size, Access::ReadWrite, align)
        .map_err(failed_to_map("mmap", size + align.unwrap_or(0)))?;
    pages::apply_options(&mapping, options, filesystem.magic == TMPFS, false)?;
    if huge_of_holes {
        allocate_space(request, &file, size, filesystem)?;
    }
    let identity = Identity::new(&parameters, None, NO_SET)?;
    identity.write(mapping.header());
    // ORDERING: Release, pairs with the Acquire load in `Ready::of`: a process that sees READY sees the identity.
    mapping.header().ready.store(READY, Ordering::Release);
    let attachment = Held::take(&file, filesystem.page, Byte::Attachments, LockMode::Shared)
        .map_err(failed("fcntl(F_OFD_SETLK)"))?
        // No process knows of the file, but one that may read /proc/PID/fd of ours can find and lock it.
        .ok_or_else(|| SetupError::Busy { address: request.address.clone(), pid: None })?;
    prepare_wake_mode(&identity, options)?;
    let metadata = file.metadata().map_err(failed("fstat"))?;
    let address = match path {
        Some(_) => request.address.clone(),
        None => Address(AddressForm::Descriptor(file.as_raw_fd())),
    };
    let permissions = permissions(&metadata);
    let guard = FileRoleLock::new(file, path.map(Path::to_owned), size, filesystem.page, Some(attachment));
    Ok(Segment {
        mapping,
        identity,
        address,
        created: true,
        permissions,
        eager: true,
        roles: Box::new(guard),
        removes_leftover: false,
    })
}

/// Makes the file system allocate `size` bytes.
pub(super) fn allocate_space(
    request: &Request<'_>,
    file: &File,
    size: u64,
    filesystem: FileSystem,
) -> Result<(), SetupError> {
    let no_space = check_free(request, file, size, filesystem)?;
    descriptor::allocate(file, size).map_err(|source| match source.raw_os_error() {
        Some(libc::ENOSPC) if filesystem.magic == HUGETLBFS => {
            pages::no_huge_pages("fallocate", source, size)
        }
        Some(libc::ENOSPC) => no_space,
        _ => os("posix_fallocate", source),
    })
}

/// Fails if the file system has less than `size` bytes left. Checks before allocating, since a failing attempt would use up the
/// space that others need. Returns the error for the case that allocation fails nevertheless.
fn check_free(
    request: &Request<'_>,
    file: &File,
    size: u64,
    filesystem: FileSystem,
) -> Result<SetupError, SetupError> {
    let metadata = file.metadata().map_err(failed("fstat"))?;
    let (needed, free) = (size.saturating_sub(metadata.blocks() * 512), filesystem.free());
    let error = SetupError::Limit(Shortage::Space {
        address: request.address.clone(),
        needed,
        free: free.unwrap_or(0),
    });
    if free.is_some_and(|free| needed > free) { Err(error) } else { Ok(error) }
}

pub(crate) fn permissions(metadata: &fs::Metadata) -> Permissions {
    Permissions { uid: metadata.uid(), gid: metadata.gid(), mode: metadata.mode() & 0o777 }
}

/// Fails if the size exceeds RLIMIT_FSIZE, for which the kernel would send SIGXFSZ.
fn check_size_limit(size: u64) -> Result<(), SetupError> {
    let limit = Resource::FileSize.limit();
    if size > limit {
        return Err(SetupError::Limit(Shortage::System {
            name: "RLIMIT_FSIZE",
            value: limit,
            requested: size,
            raise_in: "the shell (ulimit -f) or in the unit (LimitFSIZE)",
        }));
    }
    Ok(())
}
