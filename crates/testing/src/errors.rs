//! One error for tests that send, or receive, in every way there is.

use shmpipe::{
    Corruption, Lost, RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError,
};

/// What can keep a message from being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnySendError {
    Full,
    TimedOut,
    TooLarge { length: usize, max: usize },
    Closed,
    PeerAborted { code: u32 },
    PeerDied,
    Cancelled,
    Lost(Lost),
    Corrupt(Corruption),
}

impl From<TrySendError> for AnySendError {
    fn from(error: TrySendError) -> Self {
        match error {
            TrySendError::Full => AnySendError::Full,
            TrySendError::TooLarge { length, max } => AnySendError::TooLarge { length, max },
            TrySendError::Closed => AnySendError::Closed,
            TrySendError::PeerAborted { code } => AnySendError::PeerAborted { code },
            TrySendError::Corrupt(corruption) => AnySendError::Corrupt(corruption),
            error => unreachable!("{error}"),
        }
    }
}

impl From<SendTimeoutError> for AnySendError {
    fn from(error: SendTimeoutError) -> Self {
        match error {
            SendTimeoutError::TimedOut => AnySendError::TimedOut,
            SendTimeoutError::TooLarge { length, max } => AnySendError::TooLarge { length, max },
            SendTimeoutError::Closed => AnySendError::Closed,
            SendTimeoutError::PeerAborted { code } => AnySendError::PeerAborted { code },
            SendTimeoutError::PeerDied => AnySendError::PeerDied,
            SendTimeoutError::Cancelled => AnySendError::Cancelled,
            SendTimeoutError::Lost(lost) => AnySendError::Lost(lost),
            SendTimeoutError::Corrupt(corruption) => AnySendError::Corrupt(corruption),
            error => unreachable!("{error}"),
        }
    }
}

impl From<SendError> for AnySendError {
    fn from(error: SendError) -> Self {
        SendTimeoutError::from(error).into()
    }
}

impl From<Corruption> for AnySendError {
    fn from(corruption: Corruption) -> Self {
        AnySendError::Corrupt(corruption)
    }
}

/// What can keep a message from being received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnyRecvError {
    Empty,
    TimedOut,
    Closed,
    PeerAborted { code: u32 },
    PeerDied,
    Cancelled,
    Lost(Lost),
    Corrupt(Corruption),
}

impl From<TryRecvError> for AnyRecvError {
    fn from(error: TryRecvError) -> Self {
        match error {
            TryRecvError::Empty => AnyRecvError::Empty,
            TryRecvError::Closed => AnyRecvError::Closed,
            TryRecvError::PeerAborted { code } => AnyRecvError::PeerAborted { code },
            TryRecvError::Corrupt(corruption) => AnyRecvError::Corrupt(corruption),
            error => unreachable!("{error}"),
        }
    }
}

impl From<RecvTimeoutError> for AnyRecvError {
    fn from(error: RecvTimeoutError) -> Self {
        match error {
            RecvTimeoutError::TimedOut => AnyRecvError::TimedOut,
            RecvTimeoutError::Closed => AnyRecvError::Closed,
            RecvTimeoutError::PeerAborted { code } => AnyRecvError::PeerAborted { code },
            RecvTimeoutError::PeerDied => AnyRecvError::PeerDied,
            RecvTimeoutError::Cancelled => AnyRecvError::Cancelled,
            RecvTimeoutError::Lost(lost) => AnyRecvError::Lost(lost),
            RecvTimeoutError::Corrupt(corruption) => AnyRecvError::Corrupt(corruption),
            error => unreachable!("{error}"),
        }
    }
}

impl From<RecvError> for AnyRecvError {
    fn from(error: RecvError) -> Self {
        RecvTimeoutError::from(error).into()
    }
}

impl From<Corruption> for AnyRecvError {
    fn from(corruption: Corruption) -> Self {
        AnyRecvError::Corrupt(corruption)
    }
}
