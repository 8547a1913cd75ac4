//! Makes a call that sleeps in the kernel return when the partner has ended, although nothing else would wake it.
//!
//! A reader of a pipe gets an end of file when the writer is gone. A sleeper on a message queue, a datagram socket or a futex
//! would sleep without end. So a thread waits for the end of the partner, in `waitid`. Then it interrupts the measuring thread
//! until the session is dropped. The second thread makes calls 1 % slower, see `forget_the_files`.

use std::io::{self, ErrorKind};
use std::mem;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::errors::failed;
use crate::partner;

/// Handles the error of a blocking call. After an interruption by a signal, an error if the other side has ended, and success
/// otherwise. Returns any other error.
pub(crate) fn interrupted(error: io::Error) -> io::Result<()> {
    match error.kind() {
        ErrorKind::Interrupted => partner::still_lives(),
        _ => Err(error),
    }
}

/// Ignored by default, so that a late signal has no effect.
const SIGNAL: i32 = libc::SIGURG;

/// A signal may arrive just before the call that it should interrupt, so it is repeated.
pub(crate) const AGAIN: Duration = Duration::from_millis(20);

/// A thread of this process whose calls can be interrupted. The signal has a handler as long as there is a [`Watchdog`].
#[derive(Clone, Copy)]
pub(crate) struct Sleeper(libc::pid_t);

impl Sleeper {
    /// The calling thread.
    pub(crate) fn this() -> Sleeper {
        // SAFETY: no arguments.
        Sleeper(unsafe { libc::gettid() })
    }

    /// Interrupts its current call, if any. Does nothing if the thread is gone.
    pub(crate) fn interrupt(self) {
        // SAFETY: only uses numbers. It only reaches threads of this process, and the handler does nothing.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), self.0, SIGNAL) };
    }
}

/// Watches a child process for the thread that created this.
pub(crate) struct Watchdog {
    called_off: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    before: libc::sigaction,
}

impl Watchdog {
    /// Watches the child until dropped. The drop waits for the end of the child.
    pub(crate) fn over(child: u32) -> io::Result<Watchdog> {
        // SAFETY: sigaction is plain data, for which all zero is a value. Without flags, interrupted calls do not restart.
        let (mut action, mut before): (libc::sigaction, libc::sigaction) = unsafe { mem::zeroed() };
        action.sa_sigaction = do_nothing as extern "C" fn(i32) as usize;
        // SAFETY: both are live. The handler does nothing, so it is async-signal-safe.
        if unsafe { libc::sigaction(SIGNAL, &action, &mut before) } == -1 {
            return Err(failed(format_args!("sigaction({SIGNAL})")));
        }
        let measuring = Sleeper::this();
        let called_off = Arc::new(AtomicBool::new(false));
        let mut watchdog = Watchdog { called_off: Arc::clone(&called_off), thread: None, before };
        let watch = move || {
            forget_the_files();
            if !ends(child) {
                return;
            }
            // Relaxed: no data depends on it, and the thread that sets it waits for this one
            while !called_off.load(Relaxed) {
                measuring.interrupt();
                thread::park_timeout(AGAIN);
            }
        };
        watchdog.thread = Some(thread::Builder::new().name("watchdog".into()).spawn(watch)?);
        Ok(watchdog)
    }
}

extern "C" fn do_nothing(_: i32) {}

/// Gives the calling thread its own, empty file table. While two threads share a table, the kernel counts references in every
/// call on a file: a write to a pipe and the read from it took 772 ns instead of 661, and 668 with separate tables. Linux
/// before 5.9 cannot do this.
fn forget_the_files() {
    // SAFETY: only uses numbers. The table of the other threads is unchanged, and this thread uses no file.
    unsafe { libc::syscall(libc::SYS_close_range, 0_u32, u32::MAX, libc::CLOSE_RANGE_UNSHARE) };
}

/// Sleeps until the child has ended, without reaping it. False if its owner has already reaped it.
fn ends(child: u32) -> bool {
    // SAFETY: siginfo_t is plain data, for which all zero is a value.
    let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
    loop {
        // SAFETY: `info` is live.
        let waited = unsafe { libc::waitid(libc::P_PID, child, &mut info, libc::WEXITED | libc::WNOWAIT) };
        if waited == 0 {
            return true;
        }
        if io::Error::last_os_error().kind() != ErrorKind::Interrupted {
            return false;
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.called_off.store(true, Relaxed); // read by a thread that is waited for here
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join(); // it does not panic
        }
        // SAFETY: the disposition that the kernel returned; the null pointer requests no old one.
        unsafe { libc::sigaction(SIGNAL, &self.before, ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::{Mutex, PoisonError};
    use std::time::Instant;

    use super::*;

    /// A process has a single disposition of the signal, so these tests run one at a time.
    static ALONE: Mutex<()> = Mutex::new(());

    #[test]
    fn end_of_a_child_interrupts_a_sleep() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut child = Command::new("sleep").arg("0.05").spawn().unwrap();
        let watchdog = Watchdog::over(child.id()).unwrap();
        let long = libc::timespec { tv_sec: 20, tv_nsec: 0 };
        let start = Instant::now();
        // SAFETY: a live time; the null pointer requests no remaining time.
        assert_eq!(unsafe { libc::nanosleep(&long, ptr::null_mut()) }, -1);
        assert_eq!(io::Error::last_os_error().kind(), ErrorKind::Interrupted);
        assert!(start.elapsed() < Duration::from_secs(10));
        child.wait().unwrap();
        drop(watchdog);
    }

    #[test]
    fn reaped_child_is_not_watched() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        drop(Watchdog::over(child.id()).unwrap());
    }
}
