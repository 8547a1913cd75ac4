//! How long a call may wait, and the errors that this lets it return.

use crate::error::{
    RecvError, RecvTimeoutError, Rejected, SendError, SendTimeoutError, TryRecvError, TrySendError,
};
use std::time::{Duration, Instant};

/// How long a call may wait.
pub trait Deadline: Copy {
    type SendError: From<Rejected>;
    type RecvError;

    /// Whether the call waits at all.
    const WAITS: bool;

    /// Runs `wait` for space if the call waits.
    fn for_space<T>(
        self,
        wait: impl FnOnce(Option<Instant>) -> Result<T, SendTimeoutError>,
    ) -> Result<T, Self::SendError>;

    /// Runs `wait` for a message if the call waits, and `look` if it does not.
    fn for_message<E, T>(
        self,
        end: &mut E,
        look: impl FnOnce(&mut E) -> Result<T, TryRecvError>,
        wait: impl FnOnce(&mut E, Option<Instant>) -> Result<T, RecvTimeoutError>,
    ) -> Result<T, Self::RecvError>;
}

/// Does not wait: a `try_` call.
#[derive(Clone, Copy)]
pub struct Now;

/// Waits as long as it takes.
#[derive(Clone, Copy)]
pub struct Never;

/// Waits until this moment; as long as it takes if the clock does not reach that far.
#[derive(Clone, Copy)]
pub struct At(Option<Instant>);

impl At {
    #[inline]
    pub fn deadline(deadline: Instant) -> Self {
        At(Some(deadline))
    }

    pub fn timeout(timeout: Duration) -> Self {
        At(Instant::now().checked_add(timeout))
    }

    pub fn optional(deadline: Option<Instant>) -> Self {
        At(deadline)
    }
}

const NO_DEADLINE: &str = "a wait without a deadline does not time out";

impl Deadline for Now {
    type SendError = TrySendError;
    type RecvError = TryRecvError;
    const WAITS: bool = false;

    fn for_space<T>(
        self,
        _: impl FnOnce(Option<Instant>) -> Result<T, SendTimeoutError>,
    ) -> Result<T, TrySendError> {
        Err(TrySendError::Full)
    }

    #[inline(always)]
    fn for_message<E, T>(
        self,
        end: &mut E,
        look: impl FnOnce(&mut E) -> Result<T, TryRecvError>,
        _: impl FnOnce(&mut E, Option<Instant>) -> Result<T, RecvTimeoutError>,
    ) -> Result<T, TryRecvError> {
        look(end)
    }
}

impl Deadline for Never {
    type SendError = SendError;
    type RecvError = RecvError;
    const WAITS: bool = true;

    #[cold]
    fn for_space<T>(
        self,
        wait: impl FnOnce(Option<Instant>) -> Result<T, SendTimeoutError>,
    ) -> Result<T, SendError> {
        wait(None).map_err(|error| error.without_timeout().expect(NO_DEADLINE))
    }

    #[cold]
    fn for_message<E, T>(
        self,
        end: &mut E,
        _: impl FnOnce(&mut E) -> Result<T, TryRecvError>,
        wait: impl FnOnce(&mut E, Option<Instant>) -> Result<T, RecvTimeoutError>,
    ) -> Result<T, RecvError> {
        wait(end, None).map_err(|error| error.without_timeout().expect(NO_DEADLINE))
    }
}

impl Deadline for At {
    type SendError = SendTimeoutError;
    type RecvError = RecvTimeoutError;
    const WAITS: bool = true;

    #[cold]
    fn for_space<T>(
        self,
        wait: impl FnOnce(Option<Instant>) -> Result<T, SendTimeoutError>,
    ) -> Result<T, SendTimeoutError> {
        wait(self.0)
    }

    #[cold]
    fn for_message<E, T>(
        self,
        end: &mut E,
        _: impl FnOnce(&mut E) -> Result<T, TryRecvError>,
        wait: impl FnOnce(&mut E, Option<Instant>) -> Result<T, RecvTimeoutError>,
    ) -> Result<T, RecvTimeoutError> {
        wait(end, self.0)
    }
}
