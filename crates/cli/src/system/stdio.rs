//! Standard input and output without the buffers of `std`, and waits on them that a signal or a deadline ends.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::exit::Failure;

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    Input,
    Space,
}

/// Standard input, past the buffer of `std`.
pub fn standard_input() -> Result<File, Failure> {
    duplicate(&io::stdin())
}

/// Standard output, past the buffer of `std`.
pub fn standard_output() -> Result<File, Failure> {
    duplicate(&io::stdout())
}

fn duplicate(stream: &impl AsFd) -> Result<File, Failure> {
    match stream.as_fd().try_clone_to_owned() {
        Ok(descriptor) => Ok(File::from(descriptor)),
        Err(error) => Err(Failure::io("dup", &error)),
    }
}

/// Waits until a read or a write would not block, a signal arrives (`Interrupted`) or the deadline passes (`TimedOut`).
pub fn wait(file: &File, what: For, deadline: Option<Instant>) -> io::Result<()> {
    let events = match what {
        For::Input => PollFlags::POLLIN,
        For::Space => PollFlags::POLLOUT,
    };
    let timeout = deadline.map_or(PollTimeout::NONE, |deadline| {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up, so that the deadline has passed when the wait ends.
        (left + Duration::from_micros(999)).try_into().unwrap_or(PollTimeout::MAX)
    });
    match poll(&mut [PollFd::new(file.as_fd(), events)], timeout)? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}
