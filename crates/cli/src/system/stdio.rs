//! Standard input and output without the buffers of `std`, and waits on them that a signal or a deadline ends.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll, ppoll};
use nix::sys::time::TimeSpec;

use crate::exit::{Code, Failure};

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    Input,
    Space,
}

/// The standard streams, by number, that were closed when this process started. `std` opens /dev/null in their place before `main`:
/// what is written there would count as written. Relaxed throughout: one thread writes it, before there are others.
static CLOSED: [AtomicBool; 2] = [const { AtomicBool::new(false) }; 2];

extern "C" fn look_for_closed_streams() {
    for (number, closed) in CLOSED.iter().enumerate() {
        // SAFETY: F_GETFD takes numbers, and fails if the descriptor is closed.
        let is_closed = unsafe { libc::fcntl(number as i32, libc::F_GETFD) } == -1;
        closed.store(is_closed, Ordering::Relaxed);
    }
}

/// Called by the C library when it starts the process, before `std` looks.
#[used]
// SAFETY: this section holds addresses of functions that the C library calls in turn, with arguments that this one ignores. It needs
// nothing that is initialised later.
#[unsafe(link_section = ".init_array")]
static LOOK_FOR_CLOSED_STREAMS: extern "C" fn() = look_for_closed_streams;

/// Standard input, past the buffer of `std`.
pub fn standard_input() -> Result<File, Failure> {
    duplicate(&io::stdin(), "standard input")
}

/// Standard output, past the buffer of `std`, which takes a failed write for a success if the stream is not open for writing.
pub fn standard_output() -> Result<File, Failure> {
    duplicate(&io::stdout(), "standard output")
}

fn duplicate(stream: &(impl AsFd + AsRawFd), name: &str) -> Result<File, Failure> {
    if CLOSED[stream.as_raw_fd() as usize].load(Ordering::Relaxed) {
        return Err(Failure::new(Code::Failure, format_args!("{name} is closed")));
    }
    match stream.as_fd().try_clone_to_owned() {
        Ok(descriptor) => Ok(File::from(descriptor)),
        Err(error) => Err(Failure::io("dup", &error)),
    }
}

/// Whether nothing that is written can ever be read: the pipe has no reader, the other end of the socket or the terminal is gone.
pub fn is_broken(file: &File) -> bool {
    let mut polled = [PollFd::new(file.as_fd(), PollFlags::empty())];
    matches!(poll(&mut polled, PollTimeout::ZERO), Ok(1..))
}

/// Pauses until a signal arrives or the deadline passes.
pub fn pause(deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    // A signal ends it.
    let _ = ppoll(&mut [], Some(TimeSpec::from_duration(left)), None);
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
