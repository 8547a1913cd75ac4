//! How a command ends: its exit code, and the one line that says why.

use std::fmt;
use std::process::ExitCode;

use shmpipe::{CloseError, Corruption, Lost, RecvTimeoutError, SendError, SendTimeoutError, SetupError};

/// The exit codes as `--help` prints them: those of shmpipe, and one more.
pub const CODES: &str = "\
Exit codes:
  0    success: the producer closed and everything is over; or a signal ended it, in order
  1    failure
  2    wrong usage
  3    the pipe or the stream does not exist, or was removed
  4    another process holds the role, or another publisher has taken the stream over
  5    timed out
  6    the producer died, or aborted (its code is printed); or the consumer did, or closed
  7    the pipe or the stream is foreign, corrupt, or unfit: its settings may lose messages
  8    permission denied
  9    messages are missing: the line names the positions";

/// Why a command failed, as a number that scripts can rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Failure = 1,
    Usage = 2,
    NotFound = 3,
    Taken = 4,
    TimedOut = 5,
    PeerGone = 6,
    Unfit = 7,
    Denied = 8,
    Missing = 9,
}

impl Code {
    /// The name of the code under `--json`.
    pub fn name(self) -> &'static str {
        match self {
            Code::Failure => "failure",
            Code::Usage => "usage",
            Code::NotFound => "not_found",
            Code::Taken => "exists_or_taken",
            Code::TimedOut => "timed_out",
            Code::PeerGone => "peer_gone",
            Code::Unfit => "unfit",
            Code::Denied => "no_permission",
            Code::Missing => "messages_missing",
        }
    }
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    /// One clause, printed after the program's name.
    pub message: String,
}

impl Failure {
    pub fn new(code: Code, message: impl fmt::Display) -> Self {
        Failure { code, message: message.to_string() }
    }

    /// Puts the subject in front of the message.
    pub fn about(self, subject: impl fmt::Display) -> Self {
        Failure { message: format!("{subject}: {}", self.message), ..self }
    }
}

impl From<SetupError> for Failure {
    fn from(error: SetupError) -> Self {
        let code = match &error {
            SetupError::Address(_) | SetupError::Unsupported(_) => Code::Usage,
            SetupError::NotFound { .. } => Code::NotFound,
            SetupError::Lost { lost, .. } => code_of_lost(*lost),
            SetupError::Exists { .. } | SetupError::RoleTaken { .. } | SetupError::SideTaken { .. } => {
                Code::Taken
            }
            SetupError::PermissionDenied { .. } | SetupError::Untrusted(_) => Code::Denied,
            SetupError::Foreign { .. }
            | SetupError::Incompatible(_)
            | SetupError::Damaged(_)
            | SetupError::Kernel(_) => Code::Unfit,
            SetupError::Busy { .. } => Code::TimedOut,
            _ => Code::Failure,
        };
        Failure::new(code, error)
    }
}

fn code_of_lost(lost: Lost) -> Code {
    match lost {
        Lost::Removed | Lost::Replaced => Code::NotFound,
        _ => Code::Unfit,
    }
}

impl From<Lost> for Failure {
    fn from(lost: Lost) -> Self {
        Failure::new(code_of_lost(lost), lost)
    }
}

impl From<RecvTimeoutError> for Failure {
    fn from(error: RecvTimeoutError) -> Self {
        let code = match error {
            RecvTimeoutError::Lost(lost) => code_of_lost(lost),
            RecvTimeoutError::Corrupt(_) => Code::Unfit,
            _ => Code::PeerGone,
        };
        Failure::new(code, error)
    }
}

impl From<SendTimeoutError> for Failure {
    fn from(error: SendTimeoutError) -> Self {
        let code = match error {
            SendTimeoutError::Lost(lost) => code_of_lost(lost),
            SendTimeoutError::Corrupt(_) => Code::Unfit,
            SendTimeoutError::TooLarge { .. } => Code::Failure,
            _ => Code::PeerGone,
        };
        Failure::new(code, error)
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        SendTimeoutError::from(error).into()
    }
}

impl From<Corruption> for Failure {
    fn from(corruption: Corruption) -> Self {
        Failure::new(Code::Unfit, corruption)
    }
}

impl From<CloseError> for Failure {
    fn from(error: CloseError) -> Self {
        match error {
            CloseError::Lost(lost) => lost.into(),
            error => Failure::new(Code::Failure, error),
        }
    }
}

/// Why something ended before it was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Early {
    Failed(Failure),
    /// It was asked to stop.
    Stopped,
}

impl<E: Into<Failure>> From<E> for Early {
    fn from(error: E) -> Self {
        Early::Failed(error.into())
    }
}

/// How a command ended. A stop is a success.
pub type Outcome = Result<(), Failure>;

/// The exit code of an outcome.
pub fn code(outcome: &Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => ExitCode::from(failure.code as u8),
    }
}
