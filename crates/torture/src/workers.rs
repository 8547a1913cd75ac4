//! The pieces of a run, done by several threads at the same time.

use crate::run::Run;
use crate::verdict::{Failure, Outcome};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// A part of the goal: what each worker does at a time.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// How much of the goal lies before it.
    pub first: u64,
    pub count: u64,
}

/// What a worker does, one after the other.
pub struct Pieces<'a>(&'a (dyn Fn() -> Option<Piece> + Sync));

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        (self.0)()
    }
}

/// How many processors we may use.
pub fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Shares what is left of the goal between so many workers, in pieces of `size` at most, until it is done, the run is over, or one
/// of them has failed; the first failure is returned.
pub fn run<F>(run: &Run, workers: usize, size: u64, worker: F) -> Outcome
where
    F: Fn(Pieces<'_>) -> Outcome + Sync,
{
    let goal = run.to_do();
    // Relaxed: only that no piece is handed out twice.
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
        // The first one counts: those after it may be its consequences.
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
