//! Resources that a session releases when it ends, however it ends.

use std::io;
use std::rc::Rc;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};

use crate::affinity::Affinity;
use crate::control::Control;

/// Removes leftovers of the transports, once both processes have released them.
pub(super) struct Leftovers(pub(super) Rc<Control>);

impl Drop for Leftovers {
    fn drop(&mut self) {
        self.0.words().remove_leftovers();
    }
}

/// Restores the CPUs of the thread.
pub(super) struct Pinned(pub(super) Affinity);

impl Drop for Pinned {
    fn drop(&mut self) {
        // fails if a CPU has gone offline, which a destructor cannot handle
        let _ = self.0.restore();
    }
}

static CLAIMED: AtomicBool = AtomicBool::new(false);

/// The right to have a session.
pub(super) struct OnlyOne {
    kept: bool,
}

impl OnlyOne {
    pub(super) fn claim() -> io::Result<OnlyOne> {
        // ORDERING: Acquire, with the Release store in `drop`: the last session has released everything.
        if CLAIMED.swap(true, Acquire) {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "this process has a session already, or the partner thread of one that failed",
            ));
        }
        Ok(OnlyOne { kept: false })
    }

    /// Blocks further sessions: a part of this one stays.
    pub(super) fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for OnlyOne {
    fn drop(&mut self) {
        if !self.kept {
            // ORDERING: Release, with the Acquire swap in `claim`.
            CLAIMED.store(false, Release);
        }
    }
}
