//! A named pipe each way.

use std::env;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;

use super::bytestream::ByteStream;
use super::{Invitation, Invited, Mode, Transport};
use crate::endpoint::Endpoint;
use crate::errors::{about, failed};

/// A FIFO each way, blocking, with the kernel's default size.
///
/// Both ends are open and the name is removed before the partner starts, so nothing is left over, however the session ends.
pub const FIFO: &dyn Transport = &Fifo;

struct Fifo;

/// A FIFO in the file system, until both ends are open.
struct Name(PathBuf);

impl Name {
    fn make() -> io::Result<Name> {
        for number in 0.. {
            let path = env::temp_dir().join(format!("shmpipe-measure.{}.{number}", process::id()));
            let c_path = CString::new(path.clone().into_os_string().into_vec())?;
            // SAFETY: a string with a terminator.
            if unsafe { libc::mkfifo(c_path.as_ptr(), 0o600) } == 0 {
                return Ok(Name(path));
            }
            let error = failed(format_args!("mkfifo {}", path.display()));
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(error);
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// The reading and the writing end, both blocking.
    fn open(&self) -> io::Result<(File, File)> {
        let path: &Path = &self.0;
        // a blocking open would wait for the other end
        let reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let writer = OpenOptions::new().write(true).open(path)?;
        // SAFETY: the descriptor is open, and the flags are a number. Of the settable flags only O_NONBLOCK was set.
        if unsafe { libc::fcntl(reader.as_raw_fd(), libc::F_SETFL, 0) } == -1 {
            return Err(failed(format_args!("fcntl(F_SETFL)")));
        }
        Ok((reader, writer))
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // it may be removed already, and a destructor cannot handle another failure
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The reading and the writing end of a new FIFO whose name is removed.
fn fifo() -> io::Result<(File, File)> {
    let name = Name::make()?;
    name.open().map_err(|error| about(format_args!("{}", name.0.display()), error))
}

impl Transport for Fifo {
    fn name(&self) -> &'static str {
        "fifo"
    }

    fn mode(&self) -> Mode {
        Mode::Sleeps
    }

    fn about(&self) -> &'static str {
        "mkfifo(3) each way, blocking, default buffer (64 KiB); one write and one exact read per message"
    }

    fn passes_descriptors(&self) -> bool {
        true
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let (their_reader, writer) = fifo()?;
        let (reader, their_writer) = fifo()?;
        invitation.pass(their_reader.into());
        invitation.pass(their_writer.into());
        Ok(Endpoint::new(ByteStream { reader, writer }))
    }

    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        let (reader, writer) = (invited.descriptor()?, invited.descriptor()?);
        Ok(Endpoint::new(ByteStream { reader: File::from(reader), writer: File::from(writer) }))
    }
}
