//! A call that sleeps in the kernel comes back when the partner has ended, although nothing will ever wake it.
//!
//! A pipe tells its reader that the writer is gone. A message queue, a datagram socket or a futex does not: who sleeps there
//! would sleep for ever. So a thread waits for the partner's end, and then interrupts the one that measures until the session
//! is dropped. It sleeps meanwhile, in `waitid`; that there is a second thread costs a call 1 %, see `forget_the_files`.

use std::io::{self, ErrorKind};
use std::mem;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::errors::failed;
use crate::partner;

/// What a blocking call interrupted by a signal has to do: an error if the other side has ended, else go on. Any other error
/// is passed on.
pub(crate) fn interrupted(error: io::Error) -> io::Result<()> {
    match error.kind() {
        ErrorKind::Interrupted => partner::still_lives(),
        _ => Err(error),
    }
}

/// Ignored where nobody has asked for it, so that one which comes late does no harm.
const SIGNAL: i32 = libc::SIGURG;

/// A signal may come just before the call that it should interrupt, so it comes again.
pub(crate) const AGAIN: Duration = Duration::from_millis(20);

/// A thread of this process, so that its calls can be interrupted. The signal is handled as long as there is a [`Watchdog`].
#[derive(Clone, Copy)]
pub(crate) struct Sleeper(libc::pid_t);

impl Sleeper {
    /// The calling thread.
    pub(crate) fn this() -> Sleeper {
        // SAFETY: takes nothing.
        Sleeper(unsafe { libc::gettid() })
    }

    /// Interrupts the call that it is in, if any. A thread that is gone is no matter.
    pub(crate) fn interrupt(self) {
        // SAFETY: takes numbers only; it reaches threads of this process only, and the handler does nothing.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), self.0, SIGNAL) };
    }
}

/// Watches a child process for the thread that made this.
pub(crate) struct Watchdog {
    called_off: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    before: libc::sigaction,
}

impl Watchdog {
    /// Watches the child until dropped. Drop it when the child has ended, or it waits for that.
    pub(crate) fn over(child: u32) -> io::Result<Watchdog> {
        // SAFETY: sigaction is plain data, for which all zero is a value: no flags, so that a call is not restarted.
        let (mut action, mut before): (libc::sigaction, libc::sigaction) = unsafe { mem::zeroed() };
        action.sa_sigaction = do_nothing as extern "C" fn(i32) as usize;
        // SAFETY: both are live; the handler does nothing, which is async-signal-safe.
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
            // Relaxed: nothing is read through it; the thread that sets it waits for this one
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

/// Gives the calling thread a table of files of its own, an empty one. While two threads share one, the kernel counts
/// references in every call on a file: a write to a pipe and the read from it took 772 ns together instead of 661, and
/// 668 with tables apart. Linux before 5.9 cannot do it; there they stay together.
fn forget_the_files() {
    // SAFETY: takes numbers only. The table of the other threads stays as it is, and this one uses no file.
    unsafe { libc::syscall(libc::SYS_close_range, 0_u32, u32::MAX, libc::CLOSE_RANGE_UNSHARE) };
}

/// Sleeps until the child has ended, and leaves it to be waited for by its owner; false if that has happened already.
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
        // SAFETY: the disposition as the kernel gave it; no old one is asked for.
        unsafe { libc::sigaction(SIGNAL, &self.before, ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::{Mutex, PoisonError};
    use std::time::Instant;

    use super::*;

    /// A process has one disposition of the signal: one watchdog at a time.
    static ALONE: Mutex<()> = Mutex::new(());

    #[test]
    fn the_end_of_a_child_interrupts_a_sleep() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut child = Command::new("sleep").arg("0.05").spawn().unwrap();
        let watchdog = Watchdog::over(child.id()).unwrap();
        let long = libc::timespec { tv_sec: 20, tv_nsec: 0 };
        let start = Instant::now();
        // SAFETY: a live time; what is left of it is not asked for.
        assert_eq!(unsafe { libc::nanosleep(&long, ptr::null_mut()) }, -1);
        assert_eq!(io::Error::last_os_error().kind(), ErrorKind::Interrupted);
        assert!(start.elapsed() < Duration::from_secs(10));
        child.wait().unwrap();
        drop(watchdog);
    }

    #[test]
    fn a_child_that_was_waited_for_is_not_watched() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        drop(Watchdog::over(child.id()).unwrap());
    }
}
