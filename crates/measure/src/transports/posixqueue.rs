//! A POSIX message queue each way.

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process;
use std::ptr;

use super::{Invitation, Invited, Mode, Transport};
use crate::channel::Channel;
use crate::endpoint::Endpoint;
use crate::errors::failed;
use crate::watchdog;

/// A POSIX message queue each way, blocking, with the system's default limits.
///
/// On Linux a queue is a descriptor, which the partner inherits. The name is removed before the partner starts, so nothing is
/// left over, however the session ends.
pub const POSIX_QUEUE: &dyn Transport = &PosixQueue;

struct PosixQueue;

/// A new queue whose name is removed.
fn queue() -> io::Result<OwnedFd> {
    for number in 0.. {
        let name = CString::new(format!("/shmpipe-measure.{}.{number}", process::id()))?;
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR;
        let default: *const libc::mq_attr = ptr::null();
        // SAFETY: the name has a terminator, the mode is a number, and null attributes mean the system's defaults.
        let queue = unsafe { libc::mq_open(name.as_ptr(), flags, 0o600 as libc::mode_t, default) };
        if queue != -1 {
            // SAFETY: a name that this process has just created.
            unsafe { libc::mq_unlink(name.as_ptr()) };
            // SAFETY: on Linux a queue is a descriptor. It was just opened, so it has no other owner.
            return Ok(unsafe { OwnedFd::from_raw_fd(queue) });
        }
        let error = failed(format_args!("mq_open (limits: /proc/sys/fs/mqueue/*, RLIMIT_MSGQUEUE)"));
        if error.kind() != io::ErrorKind::AlreadyExists {
            return Err(error);
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

impl Transport for PosixQueue {
    fn name(&self) -> &'static str {
        "posix-queue"
    }

    fn mode(&self) -> Mode {
        Mode::Sleeps
    }

    fn about(&self) -> &'static str {
        "POSIX message queue each way, blocking, the system's default attributes (10 messages of 8 KiB unless \
         changed); one mq_send and one mq_receive per message, into a buffer of the longest message, and a copy from there"
    }

    fn passes_descriptors(&self) -> bool {
        true
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let (out, back) = (queue()?, queue()?);
        invitation.pass(out.try_clone()?);
        invitation.pass(back.try_clone()?);
        Ok(Endpoint::new(Queues::new(out, back)?))
    }

    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        let (back, out) = (invited.descriptor()?, invited.descriptor()?);
        Ok(Endpoint::new(Queues::new(out, back)?))
    }
}

/// The ends of the two queues.
struct Queues {
    out: OwnedFd,
    back: OwnedFd,
    /// With the length of the longest message, which `mq_receive` requires.
    longest: Vec<u8>,
}

/// The longest message that a queue takes.
fn longest(queue: &OwnedFd) -> io::Result<usize> {
    // SAFETY: mq_attr is plain numbers, for which all zero is a value.
    let mut found: libc::mq_attr = unsafe { mem::zeroed() };
    // SAFETY: `found` is a live mq_attr; the system writes it.
    if unsafe { libc::mq_getattr(queue.as_raw_fd(), &mut found) } == -1 {
        return Err(failed(format_args!("mq_getattr")));
    }
    Ok(found.mq_msgsize as usize)
}

impl Queues {
    fn new(out: OwnedFd, back: OwnedFd) -> io::Result<Queues> {
        let max_len = usize::min(longest(&out)?, longest(&back)?);
        Ok(Queues { out, back, longest: vec![0; max_len] })
    }
}

impl Channel for Queues {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        loop {
            // SAFETY: the message is readable for its length. The last argument is its priority.
            let sent =
                unsafe { libc::mq_send(self.out.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
            if sent == 0 {
                return Ok(());
            }
            watchdog::interrupted(io::Error::last_os_error())?;
        }
    }

    #[inline(always)]
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let longest = &mut self.longest;
        loop {
            // SAFETY: the buffer is writable for its length. The null pointer requests no priority.
            let found = unsafe {
                libc::mq_receive(
                    self.back.as_raw_fd(),
                    longest.as_mut_ptr().cast(),
                    longest.len(),
                    ptr::null_mut(),
                )
            };
            match usize::try_from(found) {
                Ok(found) if found <= buffer.len() => {
                    buffer[..found].copy_from_slice(&longest[..found]);
                    return Ok(found);
                }
                Ok(found) => return Err(super::too_long(found, buffer.len())),
                Err(_) => watchdog::interrupted(io::Error::last_os_error())?,
            }
        }
    }

    fn max_len(&self) -> usize {
        self.longest.len()
    }
}
