//! What a session holds and gives back when it ends, however it ends.

use std::io;
use std::rc::Rc;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};

use crate::affinity::Affinity;
use crate::control::Control;

/// Removes what the transports have left, when both processes have let go of it.
pub(super) struct Leftovers(pub(super) Rc<Control>);

impl Drop for Leftovers {
    fn drop(&mut self) {
        self.0.words().remove_leftovers();
    }
}

/// Gives the thread its CPUs back.
pub(super) struct Pinned(pub(super) Affinity);

impl Drop for Pinned {
    fn drop(&mut self) {
        // a CPU that has gone away meanwhile is nothing that a destructor could mend
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
        // ORDERING: Acquire, with the Release store in `drop`: the session before has let go of everything.
        if CLAIMED.swap(true, Acquire) {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "this process has a session already, or the partner thread of one that failed",
            ));
        }
        Ok(OnlyOne { kept: false })
    }

    /// From now on nobody has it: something of this session stays.
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
