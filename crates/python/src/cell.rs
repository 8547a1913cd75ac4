//! An end that one thread of one process uses at a time, and that may be closed at any time.

use crate::errors;
use crate::fork::Process;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use shmpipe::{CancelHandle, CloseError};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// An end of a pipe.
pub trait End: Sized {
    fn cancel_handle(&self) -> CancelHandle;

    fn close(self) -> Result<(), CloseError>;

    fn abort(self, code: u32) -> Result<(), CloseError>;
}

/// What has become of an end.
pub enum State<E> {
    Open(E),
    /// A message is borrowed, which has the end.
    Borrowed,
    Closed,
}

pub struct Cell<E> {
    state: Mutex<State<E>>,
    /// How to end it once the call that has it returns, or the message that has it is released.
    asked: Asked,
    cancel: CancelHandle,
    process: Process,
}

/// How an end ends.
#[derive(Clone, Copy)]
enum Ending {
    Close,
    Abort(u32),
}

/// An [`Ending`], if there is one. The first one counts.
struct Asked(AtomicU64);

impl Asked {
    const NOTHING: u64 = u64::MAX;
    const CLOSE: u64 = u64::MAX - 1;

    fn get(&self) -> Option<Ending> {
        // Relaxed, here and below: who asks and who does it have the interpreter.
        match self.0.load(Ordering::Relaxed) {
            Self::NOTHING => None,
            Self::CLOSE => Some(Ending::Close),
            code => Some(Ending::Abort(code as u32)),
        }
    }

    fn set(&self, ending: Ending) {
        let asked = match ending {
            Ending::Close => Self::CLOSE,
            Ending::Abort(code) => code.into(),
        };
        let _ = self.0.compare_exchange(Self::NOTHING, asked, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl<E: End> Cell<E> {
    pub fn new(end: E) -> Self {
        let cancel = end.cancel_handle();
        let (state, asked) = (Mutex::new(State::Open(end)), Asked(AtomicU64::new(Asked::NOTHING)));
        Cell { state, asked, cancel, process: Process::current() }
    }

    /// The state, unless another call has it. No thread waits for it while it has the interpreter: what another call waits for may take
    /// for ever.
    fn try_lock(&self) -> Option<MutexGuard<'_, State<E>>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(state)) => Some(state.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn lock(&self) -> PyResult<MutexGuard<'_, State<E>>> {
        self.process.check()?;
        self.try_lock().ok_or_else(|| {
            PyRuntimeError::new_err("another call of this end is in progress; use it in one thread at a time")
        })
    }

    /// Runs `act` with the end.
    #[inline]
    pub fn with<R>(&self, act: impl FnOnce(&mut E) -> PyResult<R>) -> PyResult<R> {
        let mut state = self.lock()?;
        let done = match &mut *state {
            State::Open(end) => act(end),
            state => return Err(state.why_not_open()),
        };
        self.end_if_asked(&mut state);
        done
    }

    /// Takes the end, and leaves it borrowed.
    pub fn lend(&self) -> PyResult<E> {
        let mut state = self.lock()?;
        match std::mem::replace(&mut *state, State::Borrowed) {
            State::Open(end) => Ok(end),
            other => {
                *state = other;
                Err(state.why_not_open())
            }
        }
    }

    /// Gives a borrowed end back. No other call has the lock for longer than a moment while it is borrowed.
    pub fn give_back(&self, end: E) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State::Open(end);
        self.end_if_asked(&mut state);
    }

    fn end_if_asked(&self, state: &mut State<E>) {
        if let Some(ending) = self.asked.get() {
            // Who asked has gone on.
            let _ = end(state, ending);
        }
    }

    /// Ends the waits of the end, now and later.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Closes the end. Does nothing if it is closed, or belongs to another process. Another call that has it ends early, and closes it
    /// then.
    pub fn close(&self) -> PyResult<()> {
        self.end(Ending::Close)
    }

    /// As [`close`](Self::close), to abort with this code. A borrowed end is aborted when it is given back.
    pub fn abort(&self, code: u32) -> PyResult<()> {
        self.end(Ending::Abort(code))
    }

    fn end(&self, ending: Ending) -> PyResult<()> {
        if !self.process.is_current() {
            return Ok(());
        }
        let Some(mut state) = self.try_lock() else {
            self.asked.set(ending);
            self.cancel.cancel();
            return Ok(());
        };
        match (&*state, ending) {
            (State::Borrowed, Ending::Close) => Err(state.why_not_open()),
            (State::Borrowed, Ending::Abort(_)) => {
                self.asked.set(ending);
                Ok(())
            }
            _ => end(&mut state, ending).map_err(errors::close),
        }
    }

    /// Whether the end is closed, or will be by a call that has it.
    pub fn is_closed(&self) -> bool {
        match self.try_lock() {
            Some(state) => self.process.is_current() && matches!(*state, State::Closed),
            None => self.asked.get().is_some(),
        }
    }
}

/// Ends what is open.
fn end<E: End>(state: &mut State<E>, ending: Ending) -> Result<(), CloseError> {
    match (std::mem::replace(state, State::Closed), ending) {
        (State::Open(end), Ending::Close) => end.close(),
        (State::Open(end), Ending::Abort(code)) => end.abort(code),
        _ => Ok(()),
    }
}

impl<E> State<E> {
    fn why_not_open(&self) -> PyErr {
        match self {
            State::Borrowed => PyRuntimeError::new_err("a message is borrowed; release it first"),
            _ => PyValueError::new_err("this end is closed"),
        }
    }
}
