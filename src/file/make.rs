//! Making a pipe in a file: complete before anybody can find it.

use super::descriptor::{self, FileSystem, HUGETLBFS, TMPFS, filesystem, spot};
use super::filesystem::check;
use super::guard::LockGuard;
use super::lock::{Byte, Held, Mode};
use crate::address::{Address, Place};
use crate::error::{Permissions, SetupError};
use crate::identity::{Identity, NO_SET, READY};
use crate::layout::HEADER;
use crate::options::{Existing, Options};
use crate::pages;
use crate::segment::{Access, Asked, Mapping, Segment, Trouble, join, wishes};
use crate::sync::Ordering;
use std::fs::{self, File, Permissions as FileMode};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

fn failed(call: &'static str) -> impl Fn(io::Error) -> SetupError {
    move |source| SetupError::Os { call, source }
}

/// A file on its way to a name.
struct Unlinked {
    file: File,
    /// The name that it has meanwhile, on a file system that has no files without one.
    meanwhile: Option<PathBuf>,
}

impl Unlinked {
    /// An empty file in a directory.
    fn new(directory: &Path) -> io::Result<Self> {
        match descriptor::without_name(directory) {
            Ok(file) => return Ok(Unlinked { file, meanwhile: None }),
            // EISDIR: a kernel, or a file system, that does not know such files.
            Err(error) if !matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
                return Err(error);
            }
            Err(_) => {}
        }
        let name = format!(".shmpipe.{:016x}", crate::identity::random()?);
        let meanwhile = directory.join(name);
        Ok(Unlinked { file: descriptor::under_new_name(&meanwhile)?, meanwhile: Some(meanwhile) })
    }

    /// Gives it its name. EEXIST if something has that.
    fn link(mut self, path: &Path) -> io::Result<()> {
        match &self.meanwhile {
            None => descriptor::link(&self.file, path),
            Some(meanwhile) => {
                descriptor::rename(meanwhile, path)?;
                self.meanwhile = None;
                Ok(())
            }
        }
    }
}

impl Drop for Unlinked {
    fn drop(&mut self) {
        if let Some(meanwhile) = &self.meanwhile {
            let _ = fs::remove_file(meanwhile);
        }
    }
}

/// Makes a file at `path`.
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
    let looked = spot(directory).map_err(refused)?;
    check(asked, filesystem(&looked).map_err(failed("fstatfs"))?)?;
    let unlinked = Unlinked::new(directory).map_err(refused)?;
    let found = filesystem(&unlinked.file).map_err(failed("fstatfs"))?;
    let file = unlinked.file.try_clone().map_err(failed("dup"))?;
    let segment = complete(asked, options, file, Some(path), found)?;
    match unlinked.link(path) {
        Ok(()) => Ok(segment),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) && existing != Existing::Refused => {
            Err(Trouble::Again)
        }
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
            Err(SetupError::Exists { address: asked.address.clone() }.into())
        }
        Err(error) => Err(failed("giving the file its name")(error).into()),
    }
}

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
    let segment = complete(asked, options, file, None, found)?;
    Ok(segment)
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
        check_free(asked, size, found)?;
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
        .expect("nobody else knows of it");
    join(&identity, options)?;
    let metadata = file.metadata().map_err(failed("fstat"))?;
    let address = match path {
        Some(_) => asked.address.clone(),
        None => Address(Place::Descriptor(file.as_raw_fd())),
    };
    let permissions = permissions(&metadata);
    let guard = LockGuard::new(file, path.map(Path::to_owned), size, found.page, Some(guest));
    Ok(Segment {
        mapping,
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
    check_free(asked, size, found)?;
    descriptor::allocate(file, size).map_err(|source| match source.raw_os_error() {
        Some(libc::ENOSPC) if found.magic == HUGETLBFS => pages::no_huge_pages("fallocate", source, size),
        Some(libc::ENOSPC) => no_space(asked, size, found),
        _ => SetupError::Os { call: "posix_fallocate", source },
    })
}

/// Refuses what is more than there is, which is not tried, since others would have nothing left meanwhile.
fn check_free(asked: &Asked<'_>, size: u64, found: FileSystem) -> Result<(), SetupError> {
    if size > found.free && found.magic != HUGETLBFS { Err(no_space(asked, size, found)) } else { Ok(()) }
}

fn no_space(asked: &Asked<'_>, needed: u64, found: FileSystem) -> SetupError {
    SetupError::NoSpace { address: asked.address.clone(), needed, free: found.free }
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
