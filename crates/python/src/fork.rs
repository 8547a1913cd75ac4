//! What a fork leaves behind: a child does not have the memory of pipes that its parent has open.

use crate::errors;
use pyo3::prelude::*;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many forks lie between the process that loaded the module and this one.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// A process.
#[derive(Clone, Copy, PartialEq)]
pub struct Process(u64);

impl Process {
    #[inline]
    pub fn current() -> Self {
        // Relaxed: a child starts with one thread, the one that has counted.
        Process(FORKS.load(Ordering::Relaxed))
    }

    #[inline]
    pub fn is_current(self) -> bool {
        self == Self::current()
    }

    /// Fails in any other process. To be called after any code of the program has run, which may have forked.
    #[inline]
    pub fn check(self) -> PyResult<()> {
        if self.is_current() { Ok(()) } else { Err(errors::forked()) }
    }
}

extern "C" fn count() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// Has every fork of this process counted, by whatever library.
pub fn register() -> PyResult<()> {
    // SAFETY: the function may run in a forked child: it adds to a number. The module is never unloaded.
    match unsafe { libc::pthread_atfork(None, None, Some(count)) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error).into()),
    }
}
