//! Nothing is left behind, whichever process dies first.
//!
//! What the memory of this crate needs is removed from the system's lists while it is in use (see `segment`); what the
//! transports of others need is listed in the control segment and removed by
//! * the parent, when its session ends, an error or a panic included, or else
//! * the partner, when the parent has died: the kernel then sends it SIGTERM, and nothing else that a terminal sends to
//!   both ends it.
//!
//! One gap remains: a parent that is killed by SIGKILL between the making of such an object and its listing, or the making of
//! a FIFO or a POSIX queue and the removal of its name, some microseconds each.

use std::io;
use std::mem;
use std::os::unix::process::parent_id;
use std::ptr;
use std::sync::atomic::{
    AtomicPtr,
    Ordering::{Acquire, Release},
};

use crate::control::{Control, Words};
use crate::errors::failed;

/// Blocks or unblocks signals of the calling thread. Async-signal-safe.
pub(crate) fn hold(how: i32, signals: &[i32]) -> io::Result<()> {
    // SAFETY: sigset_t is an array of integers, for which all zero is a value.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: `set` is live, and the signals are the system's own constants.
    unsafe {
        libc::sigemptyset(&mut set);
        for &signal in signals {
            libc::sigaddset(&mut set, signal);
        }
    }
    // SAFETY: `set` is live; no old set is asked for.
    match unsafe { libc::pthread_sigmask(how, &set, ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// What ends a program that does not care, by terminal or by `kill`.
const ENDING: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// Keeps signals from ending this thread between the making of a System V object and the moment when it is removed, or when
/// the partner can remove it. They arrive when this is dropped.
pub struct SignalsHeld {
    before: libc::sigset_t,
}

impl SignalsHeld {
    /// Holds what a terminal or `kill` sends to end a program.
    ///
    /// # Errors
    /// Those of `pthread_sigmask`, which has none that can happen here.
    pub fn new() -> io::Result<SignalsHeld> {
        // SAFETY: sigset_t is an array of integers, for which all zero is a value.
        let mut before: libc::sigset_t = unsafe { mem::zeroed() };
        // SAFETY: no new set is given, and `before` is live: this only asks.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &mut before) } {
            0 => hold(libc::SIG_BLOCK, &ENDING)?,
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        Ok(SignalsHeld { before })
    }
}

impl Drop for SignalsHeld {
    fn drop(&mut self) {
        // SAFETY: `before` is the set that the kernel gave.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, ptr::null_mut()) };
    }
}

/// The control words, for the signal handler.
static WORDS: AtomicPtr<Words> = AtomicPtr::new(ptr::null_mut());

extern "C" fn clean_up_and_exit(signal: i32) {
    // ORDERING: Acquire, with the Release store in `stand_guard`: the mapping is there.
    let words = WORDS.load(Acquire);
    if !words.is_null() {
        // SAFETY: the control segment stays attached until the process ends; removal makes system calls only.
        unsafe { &*words }.remove_leftovers();
    }
    // SAFETY: ends the process without running anything of it.
    unsafe { libc::_exit(128 + signal) }
}

/// From here on this process outlives what ends its parent, and cleans up after it.
pub(crate) fn stand_guard(control: &Control, parent: u32) -> io::Result<()> {
    // ORDERING: Release, with the Acquire load in `clean_up_and_exit`.
    WORDS.store(ptr::from_ref(control.words()).cast_mut(), Release);
    for signal in ENDING {
        // SAFETY: sigaction is plain data, for which all zero is a value (no flags, no further signals held).
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = match signal {
            libc::SIGTERM => clean_up_and_exit as extern "C" fn(i32) as usize,
            _ => libc::SIG_IGN,
        };
        // SAFETY: the handler is async-signal-safe; `action` is live.
        if unsafe { libc::sigaction(signal, &action, ptr::null_mut()) } == -1 {
            return Err(failed(format_args!("sigaction({signal})")));
        }
    }
    hold(libc::SIG_UNBLOCK, &ENDING)?;
    if parent_id() != parent {
        // it died before this process could ask to be told
        clean_up_and_exit(libc::SIGTERM);
    }
    Ok(())
}
