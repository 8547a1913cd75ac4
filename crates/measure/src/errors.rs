//! Context for system errors.

use std::fmt;
use std::io;

/// The last system error, prefixed with the attempt.
pub(crate) fn failed(what: fmt::Arguments<'_>) -> io::Error {
    about(what, io::Error::last_os_error())
}

/// `error`, prefixed with the attempt and with the same kind.
pub(crate) fn about(what: fmt::Arguments<'_>, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// An invalid request.
pub(crate) fn unfit(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what.into())
}
