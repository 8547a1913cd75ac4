//! The system calls on files that the standard library does not have, or not so.

use crate::protocol::layout::HEADER;
use crate::segment::Access;
use crate::segment::pages;
use std::ffi::CString;
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A C string of a path.
fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The path by which this process opens one of its descriptors once more.
fn in_proc(file: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Whether `/proc` is there, and knows this descriptor.
pub(super) fn is_in_proc(file: &impl AsRawFd) -> bool {
    std::fs::symlink_metadata(in_proc(file)).is_ok()
}

/// What a descriptor leads to is like, also if it may not be opened.
pub(super) fn metadata(file: &impl AsRawFd) -> io::Result<Metadata> {
    std::fs::metadata(in_proc(file))
}

/// Opened by `O_PATH`: not by the standard library, which takes that flag for a part of the access mode where musl does,
/// and drops it.
fn unopened(path: &Path, flags: libc::c_int) -> io::Result<File> {
    let path = c_path(path)?;
    loop {
        // SAFETY: a string with a terminator that lives until the call returns.
        let file = unsafe { libc::open(path.as_ptr(), libc::O_PATH | libc::O_CLOEXEC | flags) };
        match done(file) {
            // SAFETY: nobody else has the descriptor.
            Ok(_) => return Ok(unsafe { File::from_raw_fd(file) }),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What is at a path, be it a link, a device or whatever else: nothing is done to it yet. Good for asking what it is and for
/// [`reopen`].
pub(crate) fn spot(path: &Path) -> io::Result<File> {
    unopened(path, libc::O_NOFOLLOW)
}

/// The same file with an open description of its own, and so with locks of its own. It does not wait for whoever has a lease of
/// the file.
pub(super) fn reopen(file: &impl AsRawFd, access: Access) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(access == Access::ReadWrite).custom_flags(libc::O_NONBLOCK);
    options.open(in_proc(file)).map_err(|error| {
        let without = "/proc is not there, by which a file is opened once more";
        if is_in_proc(file) { error } else { io::Error::new(io::ErrorKind::NotFound, without) }
    })
}

/// What is at a path, behind links, for asking what it is.
pub(super) fn place(path: &Path) -> io::Result<File> {
    unopened(path, 0)
}

/// Whether some byte before `size` has no space set aside for it, or is not known to.
pub(super) fn has_hole(file: &File, size: u64) -> bool {
    // SAFETY: the call takes no pointers.
    let hole = unsafe { libc::lseek(file.as_raw_fd(), 0, libc::SEEK_HOLE) };
    u64::try_from(hole).map_or(true, |hole| hole < size)
}

/// Sets the permissions of what was found at a path, whatever is there by now.
pub(crate) fn set_mode(spot: &File, mode: u32) -> io::Result<()> {
    std::fs::set_permissions(in_proc(spot), Permissions::from_mode(mode))
}

/// An empty file without a name, for [`link`].
pub(super) fn without_name(directory: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(directory)
}

/// Gives a file without a name one that nothing has yet.
pub(super) fn link(file: &impl AsRawFd, path: &Path) -> io::Result<()> {
    let (from, to) = (c_path(&in_proc(file))?, c_path(path)?);
    // SAFETY: both paths are strings with a terminator that live until the call returns.
    done(unsafe {
        libc::linkat(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), libc::AT_SYMLINK_FOLLOW)
    })
}

/// Swaps what is at two paths, in one step.
pub(crate) fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    let (a, b) = (c_path(a)?, c_path(b)?);
    let (here, flags) = (libc::AT_FDCWD, libc::RENAME_EXCHANGE);
    // SAFETY: both paths are strings with a terminator that live until the call returns.
    done(unsafe {
        libc::syscall(libc::SYS_renameat2, here, a.as_ptr(), here, b.as_ptr(), flags) as libc::c_int
    })
}

/// Whether a path leads to this file.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    Ok(whether_at(file, path)? == Some(true))
}

/// Whether what is at `path` is this file, if there is anything.
pub(super) fn whether_at(file: &File, path: &Path) -> io::Result<Option<bool>> {
    let ours = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(found) => Ok(Some((found.dev(), found.ino()) == (ours.dev(), ours.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes a file at least `size` bytes long and has the file system set all of them aside: written through a mapping,
/// a byte for which there is no space would be the end of the process.
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

/// The magic number of the file system that a file is on, the bytes that are free there, and the size of the pages that
/// a mapping of the file is made of, or [`HEADER`] where any length will do.
#[allow(clippy::unnecessary_cast, reason = "f_bsize is an i64 in some C libraries")]
pub(super) fn filesystem(file: &impl AsRawFd) -> io::Result<FileSystem> {
    let mut found = core::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the call writes one statfs to the pointer.
    done(unsafe { libc::fstatfs(file.as_raw_fd(), found.as_mut_ptr()) })?;
    // SAFETY: zeroed, and then written by the kernel; all fields are integers.
    let found = unsafe { found.assume_init() };
    let magic = found.f_type as u32;
    Ok(FileSystem {
        magic,
        space: (found.f_blocks != 0).then(|| found.f_bavail.saturating_mul(found.f_bsize as u64)),
        page: if magic == HUGETLBFS { found.f_bsize as u64 } else { HEADER },
    })
}

/// What [`filesystem`] tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileSystem {
    pub(super) magic: u32,
    /// Bytes that are free, if their number is limited.
    space: Option<u64>,
    pub(super) page: u64,
}

impl FileSystem {
    /// Bytes that can be had, if that can be told: of a tmpfs what there is of memory, too.
    pub(super) fn free(&self) -> Option<u64> {
        match self.magic {
            TMPFS => [self.space, pages::available()].into_iter().flatten().min(),
            HUGETLBFS => None,
            _ => self.space,
        }
    }
}

/// The magic number of tmpfs, where `/dev/shm` and memfds lie.
pub(super) const TMPFS: u32 = 0x0102_1994;

/// The magic number of hugetlbfs, whose files come in huge pages.
pub(super) const HUGETLBFS: u32 = 0x9584_58f6;

/// A new memfd that can be sealed.
pub(super) fn memfd(flags: libc::c_uint) -> io::Result<File> {
    let flags = flags | libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let make = |flags| {
        // SAFETY: the name is a string with a terminator.
        match unsafe { libc::memfd_create(c"shmpipe".as_ptr(), flags) } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: the kernel has just opened the descriptor for us.
            descriptor => Ok(File::from(unsafe { OwnedFd::from_raw_fd(descriptor) })),
        }
    };
    match make(flags | MFD_NOEXEC_SEAL) {
        // A kernel before 6.3.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => make(flags),
        made => made,
    }
}

/// Not executable, for good.
const MFD_NOEXEC_SEAL: libc::c_uint = 8;

/// What keeps a memfd from being resized by anybody who has it, for good.
const SEALS: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

pub(super) fn seal(file: &File) -> io::Result<()> {
    // SAFETY: the call takes no pointers.
    done(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SEALS) })
}

/// Which of the seals that a memfd has to have this one lacks; all of them if it is no memfd.
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
