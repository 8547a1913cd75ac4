//! System V objects in an IPC namespace of our own.

use crate::run::Run;
use crate::verdict::{Failure, Outcome};
use std::fs;

/// Moves this thread, and all that it starts from here on, to a new IPC namespace where allowed. Leftovers there are ours, and no
/// other process lists our pipes.
pub fn isolate(run: &Run) {
    // SAFETY: no pointers.
    if unsafe { libc::unshare(libc::CLONE_NEWIPC) } != 0 {
        run.note("cannot create an IPC namespace: leftover System V objects are not detected");
    }
}

/// Whether our IPC namespace is not that of the machine.
fn are_isolated() -> bool {
    let namespace = |process| fs::read_link(format!("/proc/{process}/ns/ipc")).ok();
    namespace("thread-self").is_some_and(|ours| namespace("1").is_none_or(|theirs| ours != theirs))
}

/// The number of segments and semaphore sets in our IPC namespace. 0 in the namespace of the machine.
pub fn count() -> u64 {
    let rows = |path| fs::read_to_string(path).map_or(0, |text| text.lines().skip(1).count() as u64);
    if are_isolated() { rows("/proc/sysvipc/shm") + rows("/proc/sysvipc/sem") } else { 0 }
}

/// Fails if a run has left objects.
pub fn must_be_none() -> Outcome {
    match count() {
        0 => Ok(()),
        left => Err(Failure::Failed(format!("{left} System V objects are left over"))),
    }
}
