//! Ends commands in order when a signal arrives.
//!
//! A signal may arrive at any moment, also just before a call that then blocks. The handler therefore cancels the endpoint,
//! whose blocked calls then return `Cancelled`, and sets an alarm that goes off every second from then on. All handlers are
//! installed without `SA_RESTART`, so that an alarm ends any blocked read or write with `EINTR`. (The signal-hook crate always
//! sets `SA_RESTART`.)

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use shmpipe::CancelHandle;

use crate::exit::{Early, Failure};

/// The signals that end a process by default, sent by a terminal or by `kill`.
const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Seconds between alarms.
const ALARM_INTERVAL: u32 = 1;

/// The first signal received; 0 before. Relaxed throughout: no other data is read through it.
static RECEIVED: AtomicI32 = AtomicI32::new(0);

static CANCEL_HANDLE: OnceLock<CancelHandle> = OnceLock::new();

/// A second thread, whose blocked reads and writes a signal ends, too; 0 if there is none. Relaxed, as above.
static SECOND_THREAD: AtomicI32 = AtomicI32::new(0);

extern "C" fn on_signal(signal: i32) {
    // The interrupted code must find errno unchanged.
    let errno = Errno::last_raw();
    if signal != Signal::SIGALRM as i32 {
        let _ = RECEIVED.compare_exchange(0, signal, Ordering::Relaxed, Ordering::Relaxed);
        if let Some(handle) = CANCEL_HANDLE.get() {
            handle.cancel();
        }
    }
    let second = SECOND_THREAD.load(Ordering::Relaxed);
    // SAFETY: all of these take numbers, and are async-signal-safe. A thread that has ended is not found; its number may by now be
    // that of another thread of ours, which the signal does no harm.
    unsafe {
        if second != 0 && second != libc::gettid() {
            libc::syscall(libc::SYS_tgkill, libc::getpid(), second, libc::SIGALRM);
        }
        libc::alarm(ALARM_INTERVAL);
    }
    Errno::set_raw(errno);
}

/// Handles the signals that end a process. One that was ignored when this process started stays ignored (`nohup`, background
/// jobs of a shell).
pub fn install() -> Result<(), Failure> {
    let failed = |error: Errno| Failure::io("sigaction", &error.into());
    for signal in ENDING {
        let before = handle(signal).map_err(failed)?;
        if matches!(before.handler(), SigHandler::SigIgn) {
            // SAFETY: ignoring a signal runs no code.
            unsafe { sigaction(signal, &before) }.map_err(failed)?;
        }
    }
    handle(Signal::SIGALRM).map(drop).map_err(failed)
}

/// Installs the handler; returns what was installed before.
fn handle(signal: Signal) -> nix::Result<SigAction> {
    let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler makes nothing but atomic accesses and calls of futex, gettid, getpid, tgkill and alarm, all of which are
    // async-signal-safe, and leaves errno as it was.
    unsafe { sigaction(signal, &action) }
}

/// From now on a signal also cancels the blocked calls of an endpoint.
pub fn cancel_on_signal(handle: CancelHandle) {
    let handle = CANCEL_HANDLE.get_or_init(|| handle);
    // It may have arrived before there was anything to cancel.
    if received().is_some() {
        handle.cancel();
    }
}

/// From now on a signal also ends the blocked reads and writes of the calling thread, besides those of the first one.
pub fn interrupt_this_thread_too() {
    // SAFETY: takes nothing.
    SECOND_THREAD.store(unsafe { libc::gettid() }, Ordering::Relaxed);
}

/// Ends blocked reads and writes, as a signal does.
pub fn interrupt() {
    // SAFETY: takes numbers. The handler is installed.
    unsafe { libc::kill(libc::getpid(), libc::SIGALRM) };
}

/// The name of a signal.
pub fn name(signal: i32) -> &'static str {
    Signal::try_from(signal).map_or("a signal", Signal::as_str)
}

/// Why an endpoint was cancelled: by a signal, or else by the other direction of a duplex pipe.
pub fn why_cancelled() -> Early {
    received().map_or(Early::Stopped, Early::Signal)
}

/// The first signal received, if there was one.
pub fn received() -> Option<i32> {
    match RECEIVED.load(Ordering::Relaxed) {
        0 => None,
        signal => Some(signal),
    }
}
