//! The System V backend: a segment made with shmget, and the semaphore set beside it under the same key.
//!
//! Making, opening and removing a pipe each hold the set's INIT lock throughout, so that any number of starters end
//! with one good segment. The order of making is: stage MAKING, segment, identity, `ready`, stage MADE; a creator
//! that dies on the way leaves behind what the next one recognises as half-made. The order of removing is: segment,
//! set; whoever waited for the lock finds the set gone and starts again.

mod guard;
mod limits;
mod memory;
mod open;
mod semaphores;
mod structs;
mod target;
mod undo;
mod unlink;
mod view;

pub(crate) use open::attach;
pub(crate) use semaphores::{COUNT, OPERATIONS};
pub(crate) use unlink::unlink;
pub(crate) use view::{Guarded, SetState, guarded_by, set_state, view};

use memory::Memory;
use std::thread;
use std::time::{Duration, Instant};

/// How many besides `us` are attached to a segment, given a moment for those to go who only took a look. The caller
/// holds the lock. If it cannot be told, somebody is.
fn settled(memory: Memory, us: u64) -> u64 {
    let deadline = Instant::now() + LOOKING;
    loop {
        match memory.status().map_or(1, |status| status.attached.saturating_sub(us)) {
            0 => return 0,
            others if Instant::now() >= deadline => return others,
            _ => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// How long it may take somebody to look at a segment, or to make one.
pub(crate) const LOOKING: Duration = Duration::from_secs(1);
