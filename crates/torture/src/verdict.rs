//! The end of a harness: one line on standard output, and an exit code.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// The exit codes as `--help` prints them.
pub const CODES: &str = "\
Exit codes: 0 passed, 1 failed, 2 wrong usage, 3 cannot run here, 130 interrupted before the end (continue with --resume)";

/// Why a harness did not pass.
#[derive(Debug)]
pub enum Failure {
    /// A check failed.
    Failed(String),
    /// This machine lacks something: ptrace, root, `membarrier`. No check failed.
    CannotRunHere(String),
}

/// The result of a harness. Its counts are in the [`Run`](crate::run::Run).
pub type Outcome = Result<(), Failure>;

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(next) = cause {
            text.push_str(&format!(": {next}"));
            cause = next.source();
        }
        Failure::Failed(text)
    }
}

impl Failure {
    pub fn untraceable() -> Self {
        Failure::CannotRunHere("tracing is forbidden here".to_owned())
    }

    pub fn of_panic(payload: &(dyn Any + Send)) -> Self {
        Failure::Failed(words_of_panic(payload))
    }
}

/// The message of a panic, in one line.
pub fn words_of_panic(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    one_line(&text.unwrap_or_else(|| "a panic without a message".to_owned()))
}

/// A verdict is one line, even if the message of an assertion is not.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The end of a run.
#[derive(Debug)]
pub enum Verdict {
    Passed,
    /// By a signal. No check failed before.
    Interrupted,
    Not(Failure),
}

impl Verdict {
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Verdict::Passed => 0,
            Verdict::Not(Failure::Failed(_)) => 1,
            Verdict::Not(Failure::CannotRunHere(_)) => 3,
            Verdict::Interrupted => 130,
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Passed => f.write_str("PASSED"),
            Verdict::Interrupted => f.write_str("INTERRUPTED"),
            Verdict::Not(Failure::Failed(why)) => write!(f, "FAILED: {}", one_line(why)),
            Verdict::Not(Failure::CannotRunHere(why)) => write!(f, "CANNOT RUN HERE: {}", one_line(why)),
        }
    }
}
