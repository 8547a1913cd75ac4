//! Standard input and output as they are: no buffer in between, and waits that a signal or a moment ends.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use crate::exit::Failure;

/// What a descriptor is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    Input,
    Space,
}

/// A descriptor of our own for standard input.
pub fn standard_input() -> Result<File, Failure> {
    duplicate(&io::stdin())
}

/// A descriptor of our own for standard output, past the buffer of `std`.
pub fn standard_output() -> Result<File, Failure> {
    duplicate(&io::stdout())
}

fn duplicate(stream: &impl AsFd) -> Result<File, Failure> {
    match stream.as_fd().try_clone_to_owned() {
        Ok(descriptor) => Ok(File::from(descriptor)),
        Err(error) => Err(Failure::io("dup", &error)),
    }
}

/// Waits until a read or a write would not block, a signal comes (`Interrupted`) or the moment does (`TimedOut`).
pub fn wait(file: &File, what: For, until: Option<Instant>) -> io::Result<()> {
    let events = match what {
        For::Input => libc::POLLIN,
        For::Space => libc::POLLOUT,
    };
    let timeout = until.map_or(-1, |until| {
        let left = until.saturating_duration_since(Instant::now());
        // Up, so that the moment has come when the wait is over.
        (left + Duration::from_micros(999)).as_millis().try_into().unwrap_or(i32::MAX)
    });
    let mut descriptor = libc::pollfd { fd: file.as_raw_fd(), events, revents: 0 };
    // SAFETY: one pollfd, which is live.
    match unsafe { libc::poll(&mut descriptor, 1, timeout) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}
