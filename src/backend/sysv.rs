//! The System V backend: a segment (`shmget`) and a semaphore set (`semget`) under the same key.
//!
//! A word of the segment claims a role, and the kernel tells whether the process that wrote it still has its memory: see
//! `claim_word.rs` and `presence.rs`. The set is the lock of creating, opening and removing.
//!
//! Creating, opening and removing a pipe each hold the set's `Init` semaphore throughout, so that any number of processes that
//! start together get the same complete segment. The order of creation is: `Stage::Creating`, segment, identity, `ready`,
//! `Stage::Created`. If the creator dies on the way, the next process recognises the segment as incomplete. The order of removal
//! is: segment, set. A process that waited for the lock finds the set gone and retries.

mod claim_word;
mod limits;
mod open;
mod presence;
mod rmid_forced;
mod role_lock;
mod semaphores;
mod structs;
mod sysv_request;
mod sysv_segment;
mod undo;
mod unlink;
mod view;

pub(crate) use open::attach;
pub(crate) use semaphores::{COUNT, OPERATIONS};
pub(crate) use unlink::unlink;
pub(crate) use view::{SetState, SetTarget, set_state, target_of_set, view};

use std::thread;
use std::time::{Duration, Instant};
use sysv_segment::SysvSegment;

/// How many attachments a segment has besides `own`, after a moment in which processes that only inspect it detach. The caller
/// holds the lock. Unknown counts as 1.
fn other_attachments(segment: SysvSegment, own: u64) -> u64 {
    let deadline = Instant::now() + INSPECTION_TIME;
    loop {
        match segment.status().map_or(1, |status| status.attached.saturating_sub(own)) {
            0 => return 0,
            others if Instant::now() >= deadline => return others,
            _ => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// How long another process may take to inspect a segment, or to create one.
pub(crate) const INSPECTION_TIME: Duration = Duration::from_secs(1);
