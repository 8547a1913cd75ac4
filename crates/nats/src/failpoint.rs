//! Fail points: where a unit test kills the process or makes a write fail. Elsewhere they do nothing.

use std::io;

/// Where a process may be killed.
pub fn reach() {
    #[cfg(test)]
    armed::reach();
}

/// Where a write may fail.
pub fn write() -> io::Result<()> {
    #[cfg(test)]
    armed::write()?;
    Ok(())
}

#[cfg(test)]
pub use armed::{alone, fail_write, kill_at};

#[cfg(test)]
mod armed {
    use std::cell::Cell;
    use std::io;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// Keeps the tests apart that open notes: a child that one of them forks has the locks of the others too.
    pub fn alone() -> MutexGuard<'static, ()> {
        static ONE: Mutex<()> = Mutex::new(());
        ONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    thread_local! {
        /// Points that are passed before one acts, in this thread.
        static KILL: Cell<Option<u32>> = const { Cell::new(None) };
        static FAIL: Cell<Option<u32>> = const { Cell::new(None) };
    }

    /// Kills this process at a point that it reaches, after this many others.
    pub fn kill_at(number: u32) {
        KILL.set(Some(number));
    }

    /// Makes a write fail, after this many others.
    pub fn fail_write(number: u32) {
        FAIL.set(Some(number));
    }

    /// Counts down, and returns whether it is time.
    fn is_due(counter: &Cell<Option<u32>>) -> bool {
        let left = counter.get();
        counter.set(left.and_then(|left| left.checked_sub(1)));
        left == Some(0)
    }

    pub fn reach() {
        if KILL.with(is_due) {
            // SAFETY: no pointers.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        }
    }

    pub fn write() -> io::Result<()> {
        if FAIL.with(is_due) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}
