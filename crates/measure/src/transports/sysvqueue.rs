//! A System V message queue each way.

use std::fs;
use std::io;
use std::mem;

use super::{Invitation, Invited, Mode, Transport};
use crate::channel::Channel;
use crate::control::Leftover;
use crate::endpoint::Endpoint;
use crate::errors::{about, failed};
use crate::watchdog;

/// A System V message queue each way, blocking, within the system's limits.
pub const SYSV_QUEUE: &dyn Transport = &SysvQueue;

struct SysvQueue;

/// A new queue, removed with the session.
fn queue(invitation: &mut Invitation<'_>) -> io::Result<i32> {
    // SAFETY: msgget only uses numbers.
    let id = unsafe { libc::msgget(libc::IPC_PRIVATE, libc::IPC_CREAT | 0o600) };
    if id == -1 {
        return Err(failed(format_args!("msgget (limits: /proc/sys/kernel/msg*)")));
    }
    let queue = Leftover::Queue(id);
    if let Err(error) = invitation.leaves(queue) {
        queue.remove();
        return Err(error);
    }
    invitation.tell(id);
    Ok(id)
}

impl Transport for SysvQueue {
    fn name(&self) -> &'static str {
        "sysv-queue"
    }

    fn mode(&self) -> Mode {
        Mode::Sleeps
    }

    fn about(&self) -> &'static str {
        "System V message queue each way, blocking, the system's limits (16 KiB a queue unless raised); \
         one msgsnd and one msgrcv per message, and one copy more each, since the type stands in front"
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let (out, back) = (queue(invitation)?, queue(invitation)?);
        Ok(Endpoint::new(Queues::new(out, back)?))
    }

    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        let (back, out) = (invited.word()?, invited.word()?);
        Ok(Endpoint::new(Queues::new(out, back)?))
    }
}

/// The type of every message: any positive number would do.
const TYPE: i64 = 1;

/// The ends of the two queues.
struct Queues {
    out: i32,
    back: i32,
    /// A message in the format of `msgsnd` and `msgrcv`: its type, then its bytes.
    message: Vec<i64>,
    max_len: usize,
}

/// The longest message that a queue takes: the system's limit, or all that fits the queue.
fn longest(id: i32) -> io::Result<usize> {
    // SAFETY: msqid_ds is plain numbers, for which all zero is a value.
    let mut found: libc::msqid_ds = unsafe { mem::zeroed() };
    // SAFETY: `found` is a live msqid_ds; the kernel writes it.
    if unsafe { libc::msgctl(id, libc::IPC_STAT, &mut found) } == -1 {
        return Err(failed(format_args!("msgctl(IPC_STAT) of queue {id}")));
    }
    const LIMIT: &str = "/proc/sys/kernel/msgmax";
    let limit = fs::read_to_string(LIMIT).map_err(|error| about(format_args!("{LIMIT}"), error))?;
    let limit = limit.trim().parse().map_err(|_| io::Error::other(format!("{LIMIT} holds {limit:?}")))?;
    Ok(usize::min(limit, found.msg_qbytes as usize))
}

impl Queues {
    fn new(out: i32, back: i32) -> io::Result<Queues> {
        let max_len = usize::min(longest(out)?, longest(back)?);
        Ok(Queues { out, back, message: vec![TYPE; 1 + max_len.div_ceil(size_of::<i64>())], max_len })
    }

    /// The bytes after the type.
    fn bytes(&mut self) -> *mut u8 {
        // SAFETY: the vector has at least its first element.
        unsafe { self.message.as_mut_ptr().add(1).cast() }
    }
}

impl Channel for Queues {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        assert!(message.len() <= self.max_len, "the harness refuses messages that do not fit");
        self.message[0] = TYPE;
        // SAFETY: there are `max_len` bytes after the type, as just checked.
        unsafe { self.bytes().copy_from_nonoverlapping(message.as_ptr(), message.len()) };
        loop {
            // SAFETY: the type and that many bytes after it are readable.
            let sent = unsafe { libc::msgsnd(self.out, self.message.as_ptr().cast(), message.len(), 0) };
            if sent == 0 {
                return Ok(());
            }
            watchdog::interrupted(io::Error::last_os_error())?;
        }
    }

    #[inline(always)]
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // SAFETY: the type and `max_len` bytes after it are writable.
            let found =
                unsafe { libc::msgrcv(self.back, self.message.as_mut_ptr().cast(), self.max_len, 0, 0) };
            match usize::try_from(found) {
                Ok(found) if found <= buffer.len() => {
                    // SAFETY: the kernel has written that many bytes after the type, and the buffer is at least as long.
                    unsafe { self.bytes().copy_to_nonoverlapping(buffer.as_mut_ptr(), found) };
                    return Ok(found);
                }
                Ok(found) => return Err(super::too_long(found, buffer.len())),
                Err(_) => watchdog::interrupted(io::Error::last_os_error())?,
            }
        }
    }

    fn max_len(&self) -> usize {
        self.max_len
    }
}
