//! Words around the system's error numbers.

use std::fmt;
use std::io;

/// The last system error, with what was tried in front of it.
pub(crate) fn failed(what: fmt::Arguments<'_>) -> io::Error {
    about(what, io::Error::last_os_error())
}

/// `error` with what was tried in front of it; its kind stays.
pub(crate) fn about(what: fmt::Arguments<'_>, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// A request that cannot be carried out as it was made.
pub(crate) fn unfit(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what.into())
}
