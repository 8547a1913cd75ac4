//! Waits that signals end.

use crate::errors;
use crate::fork::Process;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::cell::OnceCell;
use std::thread;
use std::time::{Duration, Instant};

/// How often a call that waits looks for signals, such as that of Ctrl-C.
const SLICE: Duration = Duration::from_millis(100);

/// How long to sleep between two looks, from seconds.
pub fn nap_of(seconds: f64) -> PyResult<Duration> {
    let nap = Duration::try_from_secs_f64(seconds).ok().filter(|nap| !nap.is_zero());
    nap.ok_or_else(|| PyValueError::new_err(format!("a sleep of {seconds} seconds")))
}

/// Sleeps, detached from the interpreter.
pub fn sleep(py: Python<'_>, mut left: Duration) -> PyResult<()> {
    while !left.is_zero() {
        let nap = left.min(SLICE);
        py.detach(|| thread::sleep(nap));
        py.check_signals()?;
        left -= nap;
    }
    Ok(())
}

/// When a call gives up.
pub struct Deadline {
    timeout: Option<Duration>,
    /// Known once the call waits: one that need not wait does not read the clock. `None` is never.
    at: OnceCell<Option<Instant>>,
}

impl Deadline {
    /// So many seconds from the first wait on; without any, never.
    pub fn from_timeout(seconds: Option<f64>) -> PyResult<Self> {
        if seconds.is_some_and(f64::is_nan) {
            return Err(PyValueError::new_err("a timeout that is not a number"));
        }
        // Beyond what the clock can tell is never.
        let timeout = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok());
        Ok(Deadline { timeout, at: OnceCell::new() })
    }

    fn at(&self) -> Option<Instant> {
        *self.at.get_or_init(|| Instant::now().checked_add(self.timeout?))
    }

    pub fn is_over(&self) -> bool {
        self.at().is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Waits by `step`, which gives up at the time that it gets, and then returns whether it has. Detached from the interpreter.
    pub fn wait<E: Send>(
        &self,
        py: Python<'_>,
        is_timeout: impl Fn(&E) -> bool,
        mut step: impl FnMut(Instant) -> Result<(), E> + Send,
    ) -> PyResult<Result<(), E>> {
        let (process, at) = (Process::current(), self.at());
        loop {
            let slice = Instant::now() + SLICE;
            let (until, is_last) = match at {
                Some(deadline) if deadline <= slice => (deadline, true),
                _ => (slice, false),
            };
            match py.detach(|| step(until)) {
                Err(error) if is_timeout(&error) => {
                    py.check_signals()?;
                    process.check()?;
                    if is_last {
                        return Err(errors::timed_out());
                    }
                }
                done => return Ok(done),
            }
        }
    }
}
