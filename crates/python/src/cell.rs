//! An end that one thread of one process uses at a time, and that may be closed.

use crate::fork::Process;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// What has become of an end.
pub enum State<E> {
    Open(E),
    /// A message is borrowed, which has the end.
    Borrowed {
        /// With this code, the end is aborted when it is given back.
        abort: Option<u32>,
    },
    Closed,
}

pub struct Cell<E> {
    state: Mutex<State<E>>,
    process: Process,
}

impl<E> Cell<E> {
    pub fn new(end: E) -> Self {
        Cell { state: Mutex::new(State::Open(end)), process: Process::current() }
    }

    /// The state. No thread waits for it while it has the interpreter: what another call waits for may take for ever.
    fn lock(&self) -> PyResult<MutexGuard<'_, State<E>>> {
        self.process.check()?;
        match self.state.try_lock() {
            Ok(state) => Ok(state),
            Err(TryLockError::Poisoned(state)) => Ok(state.into_inner()),
            Err(TryLockError::WouldBlock) => Err(PyRuntimeError::new_err(
                "another call of this end is in progress; use it in one thread at a time",
            )),
        }
    }

    /// Runs `act` with the end.
    #[inline]
    pub fn with<R>(&self, act: impl FnOnce(&mut E) -> PyResult<R>) -> PyResult<R> {
        match &mut *self.lock()? {
            State::Open(end) => act(end),
            state => Err(state.why_not_open()),
        }
    }

    /// Takes the end, and leaves another state.
    pub fn take(&self, left: State<E>) -> PyResult<E> {
        let mut state = self.lock()?;
        match std::mem::replace(&mut *state, left) {
            State::Open(end) => Ok(end),
            other => {
                *state = other;
                Err(state.why_not_open())
            }
        }
    }

    /// Takes the end and closes. `None` if it is closed already, or belongs to another process.
    pub fn close(&self) -> PyResult<Option<E>> {
        if !self.process.is_current() || matches!(*self.lock()?, State::Closed) {
            return Ok(None);
        }
        self.take(State::Closed).map(Some)
    }

    /// As [`close`](Self::close), to abort with this code. A borrowed end is aborted when it is given back.
    pub fn close_to_abort(&self, code: u32) -> PyResult<Option<E>> {
        if self.process.is_current() {
            if let State::Borrowed { abort } = &mut *self.lock()? {
                *abort = Some(code);
                return Ok(None);
            }
        }
        self.close()
    }

    /// Gives a borrowed end back, or returns it with the code to abort it with. No other call has the lock for longer than a moment
    /// while it is borrowed.
    pub fn give_back(&self, end: E) -> Option<(E, u32)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State::Borrowed { abort: Some(code) } = *state else {
            *state = State::Open(end);
            return None;
        };
        *state = State::Closed;
        Some((end, code))
    }

    pub fn is_closed(&self) -> bool {
        matches!(self.lock().as_deref(), Ok(State::Closed))
    }
}

impl<E> State<E> {
    fn why_not_open(&self) -> PyErr {
        match self {
            State::Borrowed { .. } => PyRuntimeError::new_err("a message is borrowed; release it first"),
            _ => PyValueError::new_err("this end is closed"),
        }
    }
}
