//! Ending in order when a signal asks for it.
//!
//! A signal may arrive at any moment, also just before a call that then blocks. So its handler stops the endpoint,
//! whose calls then return `Stopped`, and sets an alarm that goes off every second from then on: all handlers are
//! installed without `SA_RESTART`, so that each alarm ends a read or a write that blocks, with `EINTR`.

use std::io;
use std::mem;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use shmpipe::Stopper;

use crate::exit::Failure;

/// What ends a program that does not care, by terminal or by `kill`.
const ENDING: [i32; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Seconds between alarms.
const AGAIN: u32 = 1;

/// The first signal that came; 0 before. Relaxed throughout: nothing is read through it.
static CAME: AtomicI32 = AtomicI32::new(0);

static STOPPER: OnceLock<Stopper> = OnceLock::new();

extern "C" fn on_signal(signal: i32) {
    // SAFETY: the address of this thread's errno, which the code that was interrupted must find unchanged.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; it is valid for as long as the thread lives.
    let before = unsafe { *errno };
    if signal != libc::SIGALRM {
        let _ = CAME.compare_exchange(0, signal, Ordering::Relaxed, Ordering::Relaxed);
        if let Some(stopper) = STOPPER.get() {
            stopper.stop();
        }
    }
    // SAFETY: takes a number, and may be called in a signal handler.
    unsafe { libc::alarm(AGAIN) };
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// From now on the signals that ask for an end are noted. One that was ignored when we were started stays ignored
/// (`nohup`, a shell's background jobs).
pub fn install() -> Result<(), Failure> {
    let failed = |()| Failure::io("sigaction", &io::Error::last_os_error());
    for signal in ENDING {
        if !is_ignored(signal).map_err(failed)? {
            handle(signal).map_err(failed)?;
        }
    }
    handle(libc::SIGALRM).map_err(failed)
}

fn is_ignored(signal: i32) -> Result<bool, ()> {
    // SAFETY: sigaction is plain data, for which all zero is a value.
    let mut found: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: `found` is live; nothing is changed.
    match unsafe { libc::sigaction(signal, ptr::null(), &mut found) } {
        -1 => Err(()),
        _ => Ok(found.sa_sigaction == libc::SIG_IGN),
    }
}

fn handle(signal: i32) -> Result<(), ()> {
    // SAFETY: sigaction is plain data, for which all zero is a value: no flags, no further signals held back.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = on_signal as extern "C" fn(i32) as usize;
    // SAFETY: `action` is live. The handler does nothing but atomic accesses, a futex call and alarm, all of which
    // may be done in a signal handler, and leaves errno as it was.
    match unsafe { libc::sigaction(signal, &action, ptr::null_mut()) } {
        -1 => Err(()),
        _ => Ok(()),
    }
}

/// From now on a signal also stops the waiting calls of an endpoint.
pub fn stops(stopper: Stopper) {
    let stopper = STOPPER.get_or_init(|| stopper);
    // It may have come before there was anything to stop.
    if came().is_some() {
        stopper.stop();
    }
}

/// The signal that asked for an end, if one did.
pub fn came() -> Option<i32> {
    match CAME.load(Ordering::Relaxed) {
        0 => None,
        signal => Some(signal),
    }
}
