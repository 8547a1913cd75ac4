//! Waits that signals end.

use crate::errors;
use crate::fork::Process;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::time::{Duration, Instant};

/// How often a call that waits looks for signals, such as that of Ctrl-C.
const SLICE: Duration = Duration::from_millis(100);

/// When a call gives up.
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// So many seconds from now; without any, never.
    pub fn from_timeout(seconds: Option<f64>) -> PyResult<Self> {
        let Some(seconds) = seconds else { return Ok(Deadline(None)) };
        if seconds.is_nan() {
            return Err(PyValueError::new_err("a timeout that is not a number"));
        }
        // Beyond what the clock can tell is never.
        let timeout = Duration::try_from_secs_f64(seconds.max(0.0)).ok();
        Ok(Deadline(timeout.and_then(|timeout| Instant::now().checked_add(timeout))))
    }

    pub fn is_over(&self) -> bool {
        self.0.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Waits by `step`, which gives up at the time that it gets, and then returns whether it has. Detached from the interpreter.
    pub fn wait<E: Send>(
        &self,
        py: Python<'_>,
        is_timeout: impl Fn(&E) -> bool,
        mut step: impl FnMut(Instant) -> Result<(), E> + Send,
    ) -> PyResult<Result<(), E>> {
        let process = Process::current();
        loop {
            let slice = Instant::now() + SLICE;
            let (until, is_last) = match self.0 {
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
