//! What the tests share: places that leave nothing behind, processes that play a part, shared memory by hand.

#![allow(missing_docs, reason = "names that say what they are, for tests alone")]

pub mod backend;
pub mod end;
pub mod guarded;
pub mod journal;
pub mod layout;
pub mod name;
pub mod process;
pub mod raw;
pub mod reaper;
pub mod rng;
pub mod seccomp;
pub mod traced;

use std::time::{Duration, Instant};

/// Longer than anything here should take on a busy machine: what has not happened by then never will.
pub const LONG: Duration = Duration::from_secs(60);

/// A deadline for what must not happen: more than twice the 100 ms at which a waiting call looks around.
pub const A_WHILE: Duration = Duration::from_millis(250);

/// A deadline of `duration` from now.
pub fn within(duration: Duration) -> Instant {
    Instant::now() + duration
}

/// Waits until `condition` holds.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = within(LONG);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {LONG:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until so many have a segment attached, and no more: somebody who lists all pipes looks at each for a moment.
pub fn attached_by(segment: i32, count: u64) {
    until(&format!("{count} attached"), || raw::attached(segment) == count);
}

/// Whether this process may do what only root may; says on stderr that a test is left out if not.
pub fn is_root(test: &str) -> bool {
    // SAFETY: the call has no arguments and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        eprintln!("{test}: left out, since it needs root");
    }
    root
}

/// Runs `test` for each of `cases` at the same time, since it mostly waits.
pub fn at_once<T: Send>(cases: impl IntoIterator<Item = T>, test: impl Fn(T) + Sync) {
    std::thread::scope(|scope| {
        let test = &test;
        for case in cases {
            scope.spawn(move || test(case));
        }
    });
}
