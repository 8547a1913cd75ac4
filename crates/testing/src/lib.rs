//! Shared by the tests: pipes that clean up after themselves, processes with a part, raw access to segments.

#![allow(missing_docs, reason = "used by tests only, and the names explain themselves")]

pub mod backend;
pub mod either;
pub mod end;
pub mod errors;
pub mod guarded;
pub mod journal;
pub mod layout;
pub mod name;
pub mod process;
pub mod raw;
pub mod reaper;
pub mod rng;
pub mod running;
pub mod seccomp;
pub mod traced;

use std::time::{Duration, Instant};

/// A timeout that nothing reaches, even on a busy machine, unless it hangs.
pub const LONG: Duration = Duration::from_secs(60);

/// A timeout for events that must not happen: more than twice the 100 ms after which a waiting call checks its peer.
pub const A_WHILE: Duration = Duration::from_millis(250);

/// A deadline `duration` from now.
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

/// Waits until a segment has exactly `count` attachments. A process that lists all pipes attaches each for a moment.
pub fn attached_by(segment: i32, count: u64) {
    until(&format!("{count} attached"), || raw::attached(segment) == count);
}

/// Whether this process is root. Reports a skipped test on stderr if not.
pub fn is_root(test: &str) -> bool {
    // SAFETY: the call has no arguments and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        eprintln!("{test}: skipped, it needs root");
    }
    root
}

/// Runs `test` for all `cases` in parallel. For tests that mostly wait.
pub fn at_once<T: Send>(cases: impl IntoIterator<Item = T>, test: impl Fn(T) + Sync) {
    std::thread::scope(|scope| {
        let test = &test;
        for case in cases {
            scope.spawn(move || test(case));
        }
    });
}
