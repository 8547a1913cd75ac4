//! System calls on files that the standard library lacks, or makes differently.

use crate::protocol::layout::HEADER;
use crate::segment::Access;
use crate::segment::pages;
use std::ffi::CString;
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A path as a C string.
fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn check_result(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The path by which this process can reopen one of its descriptors.
fn proc_path(file: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Whether `/proc` is mounted and shows this descriptor.
pub(super) fn has_proc_path(file: &impl AsRawFd) -> bool {
    std::fs::symlink_metadata(proc_path(file)).is_ok()
}

/// The metadata of the file behind a descriptor, even if we may not open that file.
pub(super) fn metadata(file: &impl AsRawFd) -> io::Result<Metadata> {
    std::fs::metadata(proc_path(file))
}

/// Opens a path with `O_PATH`. The standard library cannot: musl defines that flag as part of the access mode, which the library
/// masks out.
fn open_o_path(path: &Path, flags: libc::c_int) -> io::Result<File> {
    let path = c_path(path)?;
    loop {
        // SAFETY: a string with a terminator that lives until the call returns.
        let file = unsafe { libc::open(path.as_ptr(), libc::O_PATH | libc::O_CLOEXEC | flags) };
        match check_result(file) {
            // SAFETY: the descriptor is new, and nothing else owns it.
            Ok(_) => return Ok(unsafe { File::from_raw_fd(file) }),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Opens the object at a path with `O_PATH`, whatever it is, without following a link. That has no side effects on the object.
/// The result is good for `fstat`, `fstatfs` and [`reopen`].
pub(crate) fn open_path(path: &Path) -> io::Result<File> {
    open_o_path(path, libc::O_NOFOLLOW)
}

/// Opens the same file again, with a new open description and so with separate locks. Does not wait for a holder of a lease on
/// the file.
pub(super) fn reopen(file: &impl AsRawFd, access: Access) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(access == Access::ReadWrite).custom_flags(libc::O_NONBLOCK);
    options.open(proc_path(file)).map_err(|error| {
        let missing = "cannot reopen a file without /proc; mount it";
        if has_proc_path(file) { error } else { io::Error::new(io::ErrorKind::NotFound, missing) }
    })
}

/// Opens the object that a path leads to with `O_PATH`, following links.
pub(super) fn open_path_target(path: &Path) -> io::Result<File> {
    open_o_path(path, 0)
}

/// Whether some byte before `size` has no space allocated, or may have none.
pub(super) fn has_hole(file: &File, size: u64) -> bool {
    // SAFETY: the call takes no pointers.
    let hole = unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_HOLE) };
    u64::try_from(hole).map_or(true, |hole| hole < size)
}

/// Sets the permissions of the file behind a descriptor, which may be an `O_PATH` one.
pub(crate) fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    std::fs::set_permissions(proc_path(file), Permissions::from_mode(mode))
}

/// Creates an empty file without a name, for [`link`].
pub(super) fn create_unnamed(directory: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(directory)
}

/// Gives an unnamed file a name. Fails if the name exists.
pub(super) fn link(file: &impl AsRawFd, path: &Path) -> io::Result<()> {
    let (from, to) = (c_path(&proc_path(file))?, c_path(path)?);
    // SAFETY: both paths are C strings that live until the call returns.
    check_result(unsafe {
        libc::linkat(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), libc::AT_SYMLINK_FOLLOW)
    })
}

/// Exchanges the objects at two paths atomically.
pub(crate) fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    let (a, b) = (c_path(a)?, c_path(b)?);
    let (here, flags) = (libc::AT_FDCWD, libc::RENAME_EXCHANGE);
    // SAFETY: both paths are strings with a terminator that live until the call returns.
    check_result(unsafe {
        libc::syscall(libc::SYS_renameat2, here, a.as_ptr(), here, b.as_ptr(), flags) as libc::c_int
    })
}

/// Whether a path leads to this file.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    Ok(compare_at(file, path)? == Some(true))
}

/// Whether the object at `path` is this file; `None` if there is no object.
pub(super) fn compare_at(file: &File, path: &Path) -> io::Result<Option<bool>> {
    let ours = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(found) => Ok(Some((found.dev(), found.ino()) == (ours.dev(), ours.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Extends a file to at least `size` bytes and makes the file system allocate all of them. A store through a mapping to a byte
/// without space would raise SIGBUS.
pub(super) fn allocate(file: &File, size: u64) -> io::Result<()> {
    let size = libc::off_t::try_from(size).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    loop {
        // SAFETY: the call takes no pointers.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, size) } {
            0 => return Ok(()),
            libc::EINTR => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// The file system that a file is on.
#[allow(clippy::unnecessary_cast, reason = "f_bsize is an i64 in some C libraries")]
pub(super) fn statfs(file: &impl AsRawFd) -> io::Result<FileSystem> {
    let mut found = core::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the call writes one statfs to the pointer.
    check_result(unsafe { libc::fstatfs(file.as_raw_fd(), found.as_mut_ptr()) })?;
    // SAFETY: zeroed, and then written by the kernel; all fields are integers.
    let found = unsafe { found.assume_init() };
    let magic = found.f_type as u32;
    Ok(FileSystem {
        magic,
        space: (found.f_blocks != 0).then(|| found.f_bavail.saturating_mul(found.f_bsize as u64)),
        page: if magic == HUGETLBFS { found.f_bsize as u64 } else { HEADER },
    })
}

/// The result of [`statfs`].
#[derive(Clone, Copy, Debug)]
pub(super) struct FileSystem {
    /// Its magic number.
    pub(super) magic: u32,
    /// Free bytes, if the file system has a limit.
    space: Option<u64>,
    /// The page size of a mapping on hugetlbfs, which consists of whole pages; [`HEADER`] elsewhere, where any length works.
    pub(super) page: u64,
}

impl FileSystem {
    /// Bytes that can be allocated, if known. On tmpfs, available memory is a limit too.
    pub(super) fn free(&self) -> Option<u64> {
        match self.magic {
            TMPFS => [self.space, pages::available()].into_iter().flatten().min(),
            HUGETLBFS => None,
            _ => self.space,
        }
    }
}

/// The magic number of tmpfs, which holds `/dev/shm` and memfds.
pub(super) const TMPFS: u32 = 0x0102_1994;

/// The magic number of hugetlbfs, whose files consist of huge pages.
pub(super) const HUGETLBFS: u32 = 0x9584_58f6;

/// The seals that prevent every process from resizing a memfd, permanently.
const SEALS: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

pub(super) fn seal(file: &File) -> io::Result<()> {
    // SAFETY: the call takes no pointers.
    check_result(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SEALS) })
}

/// Which of the required seals a memfd lacks; all of them if the file is not a memfd.
pub(super) fn missing_seals(file: &impl AsRawFd) -> io::Result<u32> {
    // SAFETY: the call takes no pointers.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) } {
        -1 => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EINVAL) => Ok(SEALS as u32),
            error => Err(error),
        },
        seals => Ok((SEALS & !seals) as u32),
    }
}
