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

use crate::exit::Failure;

/// The signals that end a process by default, sent by a terminal or by `kill`.
const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Seconds between alarms.
const ALARM_INTERVAL: u32 = 1;

/// The first signal received; 0 before. Relaxed throughout: no other data is read through it.
static RECEIVED: AtomicI32 = AtomicI32::new(0);

static CANCEL_HANDLE: OnceLock<CancelHandle> = OnceLock::new();

extern "C" fn on_signal(signal: i32) {
    // The interrupted code must find errno unchanged.
    let errno = Errno::last_raw();
    if signal != Signal::SIGALRM as i32 {
        let _ = RECEIVED.compare_exchange(0, signal, Ordering::Relaxed, Ordering::Relaxed);
        if let Some(handle) = CANCEL_HANDLE.get() {
            handle.cancel();
        }
    }
    // SAFETY: takes a number, and is async-signal-safe.
    unsafe { libc::alarm(ALARM_INTERVAL) };
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
    // SAFETY: the handler makes nothing but atomic accesses, a futex call and a call of alarm, all of which are
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

/// The name of a signal.
pub fn name(signal: i32) -> &'static str {
    Signal::try_from(signal).map_or("a signal", Signal::as_str)
}

/// The first signal received, if there was one.
pub fn received() -> Option<i32> {
    match RECEIVED.load(Ordering::Relaxed) {
        0 => None,
        signal => Some(signal),
    }
}
