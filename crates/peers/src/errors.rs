//! The peers' errors in the words of the harness.

use std::fmt::{self, Debug, Display};
use std::io;

/// Another crate's error as the system's kind.
#[cold]
pub fn refused(error: impl Display) -> io::Error {
    io::Error::other(error.to_string())
}

/// The same for errors that can only be debugged.
#[cold]
pub fn refused_debug(error: impl Debug) -> io::Error {
    io::Error::other(format!("{error:?}"))
}

/// A message that is not of the size that was expected.
#[cold]
pub fn wrong_len(found: usize, expected: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a message of {found} bytes, expected {expected}"))
}

/// `error` with what was tried in front of it; its kind stays.
pub fn about(what: fmt::Arguments<'_>, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// A request that cannot be carried out as it was made.
pub fn unfit(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what.into())
}
