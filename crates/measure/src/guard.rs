//! Cleanup, whichever process dies first.
//!
//! This crate's own memory is marked for removal while in use (see `segment`). Other objects of transports are listed in the
//! control segment. They are removed by
//! * the parent, when its session ends, also by an error or a panic, or else
//! * the partner, when the parent has died. The kernel then sends it SIGTERM. It ignores the signals that a terminal sends to
//!   both.
//!
//! One gap remains: a SIGKILL of the parent between the creation and the listing of such an object, or between the creation of a
//! FIFO or POSIX queue and the removal of its name. Each takes some microseconds.

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
    // SAFETY: `set` is live; the null pointer requests no old set.
    match unsafe { libc::pthread_sigmask(how, &set, ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Signals of a terminal or of `kill` that end a program without handlers.
const ENDING: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// Holds back signals between the creation of a System V object and the moment when it is marked for removal, or the partner
/// can remove it. They arrive when this is dropped.
pub struct SignalsHeld {
    before: libc::sigset_t,
}

impl SignalsHeld {
    /// Holds back the signals of a terminal or of `kill`.
    ///
    /// # Errors
    /// Those of `pthread_sigmask`, none of which can happen here.
    pub fn new() -> io::Result<SignalsHeld> {
        // SAFETY: sigset_t is an array of integers, for which all zero is a value.
        let mut before: libc::sigset_t = unsafe { mem::zeroed() };
        // SAFETY: without a new set this only reads, and `before` is live.
        match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &mut before) } {
            0 => hold(libc::SIG_BLOCK, &ENDING)?,
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        Ok(SignalsHeld { before })
    }
}

impl Drop for SignalsHeld {
    fn drop(&mut self) {
        // SAFETY: `before` is the set that the kernel returned.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, ptr::null_mut()) };
    }
}

/// The control segment, for the signal handler.
static WORDS: AtomicPtr<Words> = AtomicPtr::new(ptr::null_mut());

extern "C" fn clean_up_and_exit(signal: i32) {
    // ORDERING: Acquire, with the Release store in `stand_guard`: the mapping is visible.
    let words = WORDS.load(Acquire);
    if !words.is_null() {
        // SAFETY: the control segment stays attached until the process ends. The removal only makes system calls.
        unsafe { &*words }.remove_leftovers();
    }
    // SAFETY: ends the process at once, without exit handlers.
    unsafe { libc::_exit(128 + signal) }
}

/// Makes this process survive the signals that end its parent, and clean up after it.
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
        // the parent died before this process could request the signal
        clean_up_and_exit(libc::SIGTERM);
    }
    Ok(())
}
