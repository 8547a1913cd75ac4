//! memfds: files without a name, in memory.

use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;

/// Creates an empty memfd that can be sealed.
pub(crate) fn create(flags: libc::c_uint) -> io::Result<File> {
    let flags = flags | libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let create = |flags| {
        // SAFETY: the name is a string with a terminator.
        match unsafe { libc::memfd_create(c"shmpipe".as_ptr(), flags) } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: the descriptor is new, and nothing else owns it.
            descriptor => Ok(unsafe { File::from_raw_fd(descriptor) }),
        }
    };
    match create(flags | MFD_NOEXEC_SEAL) {
        // Linux before 6.3 does not know the flag.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => create(flags),
        created => created,
    }
}

/// Permanently not executable.
const MFD_NOEXEC_SEAL: libc::c_uint = 8;
