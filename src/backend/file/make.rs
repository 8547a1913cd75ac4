//! Making a pipe in a file: complete before anybody can find it.

use super::descriptor::{self, FileSystem, HUGETLBFS, TMPFS, filesystem};
use super::filesystem::check;
use super::guard::LockGuard;
use super::lock::{Byte, Held, Mode};
use crate::address::{Address, Place};
use crate::error::{SetupError, failed};
use crate::options::{Existing, Options};
use crate::permissions::Permissions;
use crate::protocol::layout::HEADER;
use crate::protocol::sync::Ordering;
use crate::segment::identity::{Identity, NO_SET, READY};
use crate::segment::pages;
use crate::segment::{Access, Asked, Mapping, Segment, Trouble, join, wishes};
use std::fs::{self, File, Permissions as FileMode};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Makes a file at `path`. It has no name until it is complete (`O_TMPFILE`), so that nothing is left if we die before.
pub(super) fn named(
    asked: &Asked<'_>,
    options: &Options,
    existing: Existing,
    path: &Path,
) -> Result<Segment, Trouble> {
    let directory = path.parent().unwrap_or(path);
    let refused = |source: io::Error| match source.raw_os_error() {
        Some(libc::EROFS) => SetupError::ReadOnly { address: asked.address.clone() },
        _ => {
            SetupError::Directory { address: asked.address.clone(), directory: directory.to_owned(), source }
        }
    };
    let place = descriptor::place(directory).map_err(refused)?;
    check(asked, filesystem(&place).map_err(failed("fstatfs"))?)?;
    let deadline = Instant::now() + CROWDED;
    let segment = loop {
        let file = descriptor::without_name(directory).map_err(refused)?;
        let found = filesystem(&file).map_err(failed("fstatfs"))?;
        check(asked, found)?;
        match complete(asked, options, file, Some(path), found) {
            Err(SetupError::NoSpace { .. }) if Instant::now() < deadline => {}
            completed => break completed?,
        }
        // It may be others who make the same one and have the space meanwhile.
        if existing != Existing::Refused && fs::symlink_metadata(path).is_ok() {
            return Err(Trouble::Again);
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
            Err(SetupError::Exists { address: asked.address.clone() }.into())
        }
        Err(_) => Err(Trouble::Again),
    }
}

/// How long others who make the same pipe may take the space that is there for one.
const CROWDED: Duration = Duration::from_secs(1);

/// Makes a memfd.
pub(super) fn memfd(asked: &Asked<'_>, options: &Options) -> Result<Segment, SetupError> {
    let flags = if options.huge_pages { libc::MFD_HUGETLB } else { 0 };
    let file = descriptor::memfd(flags).map_err(|source| match source.raw_os_error() {
        Some(libc::ENODEV | libc::EINVAL | libc::ENOSYS) if options.huge_pages => {
            pages::no_huge_pages("memfd_create(MFD_HUGETLB)", source, HEADER)
        }
        _ => failed("memfd_create")(source),
    })?;
    let found = filesystem(&file).map_err(failed("fstatfs"))?;
    complete(asked, options, file, None, found)
}

/// Makes a pipe of an empty file that nobody else knows of.
fn complete(
    asked: &Asked<'_>,
    options: &Options,
    file: File,
    path: Option<&Path>,
    found: FileSystem,
) -> Result<Segment, SetupError> {
    let wishes = wishes(options)?;
    // Small pages that are put together become whole huge ones too.
    let align = pages::alignment(options).filter(|_| found.magic != HUGETLBFS);
    let size = (HEADER + wishes.capacity).next_multiple_of(align.unwrap_or(found.page));
    check_limit(size)?;
    // Of nothing the kernel makes huge pages at once; what is set aside it has to copy.
    let huge_of_holes = options.huge_pages && found.magic == TMPFS;
    if huge_of_holes {
        check_free(asked, &file, size, found)?;
        file.set_len(size).map_err(failed("ftruncate"))?;
    } else {
        set_aside(asked, &file, size, found)?;
    }
    file.set_permissions(FileMode::from_mode(options.mode.unwrap_or(0o600))).map_err(failed("fchmod"))?;
    if options.uid.is_some() || options.gid.is_some() {
        fchown(&file, options.uid, options.gid).map_err(failed("fchown"))?;
    }
    if path.is_none() {
        descriptor::seal(&file).map_err(failed("fcntl(F_ADD_SEALS)"))?;
    }
    let mapping = Mapping::of_file(file.as_fd(), size, Access::ReadWrite, align).map_err(failed("mmap"))?;
    pages::furnish(&mapping, options, found.magic == TMPFS, false)?;
    if huge_of_holes {
        set_aside(asked, &file, size, found)?;
    }
    let identity = Identity::new(&wishes, None, NO_SET)?;
    identity.write(mapping.header());
    // ORDERING: Release, pairs with the Acquire load in `Ready::of`: who sees READY sees the identity.
    mapping.header().ready.store(READY, Ordering::Release);
    let guest = Held::take(&file, found.page, Byte::Guests, Mode::Shared)
        .map_err(failed("fcntl(F_OFD_SETLK)"))?
        // Nobody has been told of it; but who may look at this process's descriptors can find it.
        .ok_or_else(|| SetupError::Busy { address: asked.address.clone(), pid: None })?;
    join(&identity, options)?;
    let metadata = file.metadata().map_err(failed("fstat"))?;
    let address = match path {
        Some(_) => asked.address.clone(),
        None => Address(Place::Descriptor(file.as_raw_fd())),
    };
    let permissions = permissions(&metadata);
    let guard = LockGuard::new(file, path.map(Path::to_owned), size, found.page, Some(guest));
    Ok(Segment {
        mapping: ManuallyDrop::new(mapping),
        identity,
        address,
        created: true,
        permissions,
        eager: true,
        guard: Box::new(guard),
    })
}

/// Has the file system set `size` bytes aside.
pub(super) fn set_aside(
    asked: &Asked<'_>,
    file: &File,
    size: u64,
    found: FileSystem,
) -> Result<(), SetupError> {
    let no_space = check_free(asked, file, size, found)?;
    descriptor::allocate(file, size).map_err(|source| match source.raw_os_error() {
        Some(libc::ENOSPC) if found.magic == HUGETLBFS => pages::no_huge_pages("fallocate", source, size),
        Some(libc::ENOSPC) => no_space,
        _ => SetupError::Os { call: "posix_fallocate", source },
    })
}

/// Refuses what is more than there is, which is not tried, since others would have nothing left meanwhile. Gives the error to
/// say so later.
fn check_free(
    asked: &Asked<'_>,
    file: &File,
    size: u64,
    found: FileSystem,
) -> Result<SetupError, SetupError> {
    let metadata = file.metadata().map_err(failed("fstat"))?;
    let (needed, free) = (size.saturating_sub(metadata.blocks() * 512), found.free());
    let error = SetupError::NoSpace { address: asked.address.clone(), needed, free: free.unwrap_or(0) };
    if free.is_some_and(|free| needed > free) { Err(error) } else { Ok(error) }
}

pub(crate) fn permissions(metadata: &fs::Metadata) -> Permissions {
    Permissions { uid: metadata.uid(), gid: metadata.gid(), mode: metadata.mode() & 0o777 }
}

/// Refuses a size beyond what files of this process may have: the kernel would send SIGXFSZ.
fn check_limit(size: u64) -> Result<(), SetupError> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes one rlimit to the pointer.
    if unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) } == 0 && size > limit.rlim_cur {
        return Err(SetupError::Limit {
            name: "RLIMIT_FSIZE",
            value: limit.rlim_cur,
            asked: size,
            place: "the shell (ulimit -f) or in the unit (LimitFSIZE)",
        });
    }
    Ok(())
}
