//! Worker threads that share the pieces of a run.

use crate::run::Run;
use crate::verdict::{Failure, Outcome};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// A part of the goal, done by one worker.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// The part of the goal before it.
    pub first: u64,
    pub count: u64,
}

/// The pieces of one worker.
pub struct Pieces<'a>(&'a (dyn Fn() -> Option<Piece> + Sync));

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        (self.0)()
    }
}

/// The number of processors available to us.
pub fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Divides the rest of the goal among workers, in pieces of at most `size`, until it is done, the run is over, or a worker fails.
/// Returns the first failure.
pub fn run<F>(run: &Run, workers: usize, size: u64, worker: F) -> Outcome
where
    F: Fn(Pieces<'_>) -> Outcome + Sync,
{
    let goal = run.to_do();
    // Relaxed: only has to give out each piece once.
    let next = AtomicU64::new(goal.start);
    let has_failed = AtomicBool::new(false);
    let piece = || {
        if run.is_over() || has_failed.load(Ordering::Relaxed) {
            return None;
        }
        let first = next.fetch_add(size, Ordering::Relaxed);
        (first < goal.end).then(|| Piece { first, count: size.min(goal.end - first) })
    };
    let work = || {
        let outcome = catch_unwind(AssertUnwindSafe(|| worker(Pieces(&piece))));
        let outcome = outcome.unwrap_or_else(|payload| Err(Failure::of_panic(payload.as_ref())));
        // Later failures may be consequences of the first.
        outcome
            .or_else(|failure| if has_failed.swap(true, Ordering::Relaxed) { Ok(()) } else { Err(failure) })
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers.max(1)).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("its panics are caught"))
            .fold(Ok(()), Outcome::and)
    })
}
