//! How a command ends: its exit code, and the one line that says why.

use shmpipe::error::{Distrust, FileProblem, Shortage, Unsupported};
use shmpipe::{
    CheckError, CloseError, Corruption, Lost, RecvTimeoutError, SendTimeoutError, SetupError, TrySendError,
};
use std::fmt;
use std::io;
use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit};

/// The exit codes as `--help` prints them.
pub const CODES: &str = "\
Exit codes:
  0    success (recv: the producer closed and every message was written; or
       N messages were written; or the reader of the output left; duplex: both
       sides closed and every message was written)
  1    failure
  2    wrong usage
  3    the pipe does not exist, or was removed
  4    the pipe already exists, or another process holds the role
  5    timed out
  6    the peer died, or aborted (its code is printed); or the consumer closed
       before the input of send or duplex ended
  7    the pipe is foreign (not of shmpipe), corrupt or incompatible
  8    permission denied
  9    replay: the recording is incomplete (without --verify, what it has was
       sent)
  10   doctor: there are findings
  129 SIGHUP, 130 SIGINT (Ctrl-C), 143 SIGTERM: this signal ended it, in order

A send or duplex that ends before its input aborts, with its exit code; so
does a recv or duplex that cannot write its output. Everything else closes.";

/// The exit code of a doctor with findings.
const FINDINGS: u8 = 10;

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
    Incomplete = 9,
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
            Code::Unfit => "unfit_segment",
            Code::Denied => "no_permission",
            Code::Incomplete => "incomplete_recording",
        }
    }
}

/// An end that is not a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "it decides the exit code"]
pub enum End {
    Done,
    /// The doctor found problems.
    Findings,
    /// A signal ended it.
    Signal(i32),
}

/// How a command ended.
pub type Outcome = Result<End, Failure>;

/// Why a command failed.
#[derive(Debug)]
pub struct Failure {
    pub code: Code,
    /// One clause, printed after the program's name.
    pub message: String,
}

impl Failure {
    pub fn new(code: Code, message: impl fmt::Display) -> Self {
        Failure { code, message: message.to_string() }
    }

    /// A system error in an operation.
    pub fn io(operation: &str, error: &io::Error) -> Self {
        if error.raw_os_error() == Some(libc::EMFILE) {
            let value = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
            let raise_in = "the shell (ulimit -n) or in the unit (LimitNOFILE)";
            let requested = value.saturating_add(1);
            let shortage = Shortage::System { name: "RLIMIT_NOFILE", value, requested, raise_in };
            return Failure::new(Code::Failure, format_args!("{operation}: {shortage}"));
        }
        let code = match error.kind() {
            io::ErrorKind::PermissionDenied => Code::Denied,
            _ => Code::Failure,
        };
        Failure::new(code, format_args!("{operation}: {error}"))
    }

    /// Puts the subject in front of the message.
    pub fn about(self, subject: impl fmt::Display) -> Self {
        Failure { message: format!("{subject}: {}", self.message), ..self }
    }
}

/// The exit code for a failed setup.
pub fn code_of(error: &SetupError) -> Code {
    match error {
        SetupError::Address(_)
        | SetupError::Unsupported(
            Unsupported::Create { .. }
            | Unsupported::Open { .. }
            | Unsupported::Remove { .. }
            | Unsupported::FdPassing { .. },
        )
        | SetupError::Limit(Shortage::Capacity { .. }) => Code::Usage,
        SetupError::NotFound { .. } => Code::NotFound,
        SetupError::Lost { lost, .. } => code_of_lost(*lost),
        SetupError::Exists { .. } | SetupError::RoleTaken { .. } | SetupError::SideTaken { .. } => {
            Code::Taken
        }
        SetupError::Untrusted(Distrust::Unsealed { .. }) => Code::Unfit,
        SetupError::PermissionDenied { .. } | SetupError::Untrusted(_) => Code::Denied,
        SetupError::Foreign { .. }
        | SetupError::Incompatible(_)
        | SetupError::Damaged(_)
        | SetupError::File(FileProblem::NotRegular { .. } | FileProblem::FileSystem { .. })
        | SetupError::Kernel(_)
        | SetupError::Unsupported(Unsupported::Block | Unsupported::Tap { .. }) => Code::Unfit,
        SetupError::Busy { .. } => Code::TimedOut,
        SetupError::Os { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Code::Denied,
        SetupError::Limit(_) | SetupError::File(_) | SetupError::Os { .. } | _ => Code::Failure,
    }
}

fn code_of_lost(lost: Lost) -> Code {
    match lost {
        Lost::Removed | Lost::Replaced => Code::NotFound,
        Lost::Role | _ => Code::Unfit,
    }
}

impl From<SetupError> for Failure {
    fn from(error: SetupError) -> Self {
        Failure::new(code_of(&error), error)
    }
}

impl From<TrySendError> for Failure {
    fn from(error: TrySendError) -> Self {
        let code = match error {
            TrySendError::Full => Code::TimedOut,
            TrySendError::Closed | TrySendError::PeerAborted { .. } => Code::PeerGone,
            TrySendError::Corrupt(_) => Code::Unfit,
            TrySendError::TooLarge { .. } | _ => Code::Failure,
        };
        Failure::new(code, error)
    }
}

impl From<SendTimeoutError> for Failure {
    fn from(error: SendTimeoutError) -> Self {
        let code = match error {
            SendTimeoutError::TimedOut => Code::TimedOut,
            SendTimeoutError::Closed | SendTimeoutError::PeerAborted { .. } | SendTimeoutError::PeerDied => {
                Code::PeerGone
            }
            SendTimeoutError::Lost(lost) => code_of_lost(lost),
            SendTimeoutError::Corrupt(_) => Code::Unfit,
            SendTimeoutError::TooLarge { .. } | SendTimeoutError::Cancelled | _ => Code::Failure,
        };
        Failure::new(code, error)
    }
}

impl From<RecvTimeoutError> for Failure {
    fn from(error: RecvTimeoutError) -> Self {
        let code = match error {
            RecvTimeoutError::TimedOut => Code::TimedOut,
            RecvTimeoutError::Closed | RecvTimeoutError::PeerAborted { .. } | RecvTimeoutError::PeerDied => {
                Code::PeerGone
            }
            RecvTimeoutError::Lost(lost) => code_of_lost(lost),
            RecvTimeoutError::Corrupt(_) => Code::Unfit,
            RecvTimeoutError::Cancelled | _ => Code::Failure,
        };
        Failure::new(code, error)
    }
}

impl From<CheckError> for Failure {
    fn from(error: CheckError) -> Self {
        let code = match error {
            CheckError::Closed | CheckError::PeerAborted { .. } | CheckError::PeerDied => Code::PeerGone,
            CheckError::Lost(lost) => code_of_lost(lost),
            CheckError::Corrupt(_) => Code::Unfit,
            _ => Code::Failure,
        };
        Failure::new(code, error)
    }
}

impl From<CloseError> for Failure {
    fn from(error: CloseError) -> Self {
        let code = match error {
            CloseError::Lost(lost) => code_of_lost(lost),
            CloseError::Os { .. } | _ => Code::Failure,
        };
        Failure::new(code, error)
    }
}

impl From<Corruption> for Failure {
    fn from(corruption: Corruption) -> Self {
        Failure::new(Code::Unfit, corruption)
    }
}

/// Why a transfer ended before its input or its pipe did.
#[derive(Debug)]
pub enum Early {
    Failed(Failure),
    /// A signal ended it.
    Signal(i32),
    /// The reader of the output left.
    ReaderLeft,
    /// The other direction of a duplex pipe ended before.
    Stopped,
}

impl<E: Into<Failure>> From<E> for Early {
    fn from(error: E) -> Self {
        Early::Failed(error.into())
    }
}

impl Early {
    pub fn outcome(self) -> Outcome {
        match self {
            Early::Failed(failure) => Err(failure),
            Early::Signal(signal) => Ok(End::Signal(signal)),
            Early::ReaderLeft | Early::Stopped => Ok(End::Done),
        }
    }
}

/// The exit code of an outcome.
pub fn code(outcome: &Outcome) -> ExitCode {
    number(outcome).into()
}

/// The same as a number.
pub fn number(outcome: &Outcome) -> u8 {
    match outcome {
        Ok(End::Done) => 0,
        Ok(End::Findings) => FINDINGS,
        Ok(End::Signal(signal)) => 128 + *signal as u8,
        Err(failure) => failure.code as u8,
    }
}
