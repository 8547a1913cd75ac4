//! System V objects that are ours alone.

use crate::run::Run;
use crate::verdict::{Failure, Outcome};
use std::fs;

/// From here on this thread and all that it starts have an IPC namespace of their own, if they may: what is left there is ours, and
/// nobody else looks at our pipes meanwhile.
pub fn keep_apart(run: &Run) {
    // SAFETY: no pointers.
    if unsafe { libc::unshare(libc::CLONE_NEWIPC) } != 0 {
        run.note("no IPC namespace of our own is to be had: whether System V objects are left is not seen");
    }
}

/// Whether the IPC namespace is another one than that of the machine.
fn are_apart() -> bool {
    let namespace = |process| fs::read_link(format!("/proc/{process}/ns/ipc")).ok();
    namespace("thread-self").is_some_and(|ours| namespace("1").is_none_or(|theirs| ours != theirs))
}

/// Segments and semaphore sets in our IPC namespace; none where that is everybody's.
pub fn count() -> u64 {
    let rows = |path| fs::read_to_string(path).map_or(0, |text| text.lines().skip(1).count() as u64);
    if are_apart() { rows("/proc/sysvipc/shm") + rows("/proc/sysvipc/sem") } else { 0 }
}

/// At the end of a run.
pub fn must_be_none() -> Outcome {
    match count() {
        0 => Ok(()),
        left => Err(Failure::Failed(format!("{left} System V objects are left"))),
    }
}
