//! The library's errors as Python's exceptions, which `python/shmpipe/_errors.py` defines.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use shmpipe::{
    CheckError, CloseError, Corruption, FlushError, Lost, RecvError, RecvTimeoutError, SendError,
    SendTimeoutError, SetupError, TryRecvError, TrySendError, WaitError,
};
use std::fmt::Display;

/// An exception of this class. A class that cannot be had is an exception, too.
fn exception(class: &str, arguments: impl for<'py> pyo3::call::PyCallArgs<'py>) -> PyErr {
    Python::attach(|py| {
        let made = module(py).and_then(|module| module.getattr(class)?.call1(arguments));
        made.map_or_else(|error| error, PyErr::from_value)
    })
}

/// The module, as it was when first needed: a program catches these classes.
fn module(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || py.import("shmpipe._errors").map(Bound::unbind))?;
    Ok(module.bind(py))
}

fn plain(class: &str, error: impl Display) -> PyErr {
    exception(class, (error.to_string(),))
}

pub fn timed_out() -> PyErr {
    plain("Timeout", "nothing happened before the timeout")
}

pub fn forked() -> PyErr {
    plain("Lost", "this end or tap belongs to the process that forked this one; open the pipe again here")
}

/// Adds an attribute to an exception.
pub fn with(error: PyErr, name: &str, value: impl for<'py> IntoPyObject<'py>) -> PyErr {
    Python::attach(|py| match error.value(py).setattr(name, value) {
        Ok(()) => error,
        Err(other) => other,
    })
}

pub fn setup(error: SetupError) -> PyErr {
    let text = error.to_string();
    let (class, errno) = match &error {
        SetupError::NotFound { .. } => ("NotFound", Some(libc::ENOENT)),
        SetupError::Exists { .. } => ("Exists", Some(libc::EEXIST)),
        SetupError::PermissionDenied { .. } => ("PermissionDenied", Some(libc::EACCES)),
        SetupError::RoleTaken { .. } => ("RoleTaken", Some(libc::EBUSY)),
        SetupError::Os { source, .. } => ("SetupError", source.raw_os_error()),
        _ => ("SetupError", None),
    };
    let made = match errno {
        Some(errno) => exception(class, (errno, text)),
        None => exception(class, (text,)),
    };
    match error {
        SetupError::RoleTaken { pid, .. } => with(made, "pid", pid),
        _ => made,
    }
}

fn aborted(error: impl Display, code: u32) -> PyErr {
    with(plain("PeerAborted", error), "code", code)
}

fn too_large(error: impl Display, length: usize, max: usize) -> PyErr {
    with(with(plain("TooLarge", error), "length", length), "max", max)
}

pub fn lost(error: Lost) -> PyErr {
    plain("Lost", error)
}

pub fn corrupt(error: Corruption) -> PyErr {
    plain("Corrupt", error)
}

pub fn wrong_size(message: usize, expected: usize) -> PyErr {
    let error = plain("WrongSize", shmpipe::WrongSize { message, expected });
    with(with(error, "message", message), "expected", expected)
}

/// An error of a call, apart from the one that means "not now".
macro_rules! convert {
    ($(fn $name:ident($error:ident: $type:ty) { $($pattern:pat => $value:expr,)* })*) => {$(
        pub fn $name($error: $type) -> PyErr {
            match $error {
                $($pattern => $value,)*
                // The library's enums may grow.
                #[allow(unreachable_patterns)]
                other => plain("Error", other),
            }
        }
    )*};
}

convert! {
    fn try_recv(error: TryRecvError) {
        TryRecvError::Closed => plain("Closed", error),
        TryRecvError::PeerAborted { code } => aborted(error, code),
        TryRecvError::Corrupt(corruption) => corrupt(corruption),
    }
    fn recv_timeout(error: RecvTimeoutError) {
        RecvTimeoutError::TimedOut => timed_out(),
        RecvTimeoutError::Closed => plain("Closed", error),
        RecvTimeoutError::PeerAborted { code } => aborted(error, code),
        RecvTimeoutError::PeerDied => plain("PeerDied", error),
        RecvTimeoutError::Cancelled => plain("Cancelled", error),
        RecvTimeoutError::Lost(why) => lost(why),
        RecvTimeoutError::Corrupt(corruption) => corrupt(corruption),
    }
    fn recv(error: RecvError) {
        RecvError::Closed => plain("Closed", error),
        RecvError::PeerAborted { code } => aborted(error, code),
        RecvError::PeerDied => plain("PeerDied", error),
        RecvError::Cancelled => plain("Cancelled", error),
        RecvError::Lost(why) => lost(why),
        RecvError::Corrupt(corruption) => corrupt(corruption),
    }
    fn try_send(error: TrySendError) {
        TrySendError::TooLarge { length, max } => too_large(error, length, max),
        TrySendError::Closed => plain("Closed", error),
        TrySendError::PeerAborted { code } => aborted(error, code),
        TrySendError::Corrupt(corruption) => corrupt(corruption),
    }
    fn send_timeout(error: SendTimeoutError) {
        SendTimeoutError::TimedOut => timed_out(),
        SendTimeoutError::TooLarge { length, max } => too_large(error, length, max),
        SendTimeoutError::Closed => plain("Closed", error),
        SendTimeoutError::PeerAborted { code } => aborted(error, code),
        SendTimeoutError::PeerDied => plain("PeerDied", error),
        SendTimeoutError::Cancelled => plain("Cancelled", error),
        SendTimeoutError::Lost(why) => lost(why),
        SendTimeoutError::Corrupt(corruption) => corrupt(corruption),
    }
    fn send(error: SendError) {
        SendError::TooLarge { length, max } => too_large(error, length, max),
        SendError::Closed => plain("Closed", error),
        SendError::PeerAborted { code } => aborted(error, code),
        SendError::PeerDied => plain("PeerDied", error),
        SendError::Cancelled => plain("Cancelled", error),
        SendError::Lost(why) => lost(why),
        SendError::Corrupt(corruption) => corrupt(corruption),
    }
    fn wait(error: WaitError) {
        WaitError::TimedOut => timed_out(),
        WaitError::Cancelled => plain("Cancelled", error),
        WaitError::Lost(why) => lost(why),
    }
    fn flush(error: FlushError) {
        FlushError::TimedOut => timed_out(),
        FlushError::Closed => plain("Closed", error),
        FlushError::PeerAborted { code } => aborted(error, code),
        FlushError::PeerDied => plain("PeerDied", error),
        FlushError::Cancelled => plain("Cancelled", error),
        FlushError::Lost(why) => lost(why),
        FlushError::Corrupt(corruption) => corrupt(corruption),
    }
    fn check(error: CheckError) {
        CheckError::Closed => plain("Closed", error),
        CheckError::PeerAborted { code } => aborted(error, code),
        CheckError::PeerDied => plain("PeerDied", error),
        CheckError::Lost(why) => lost(why),
        CheckError::Corrupt(corruption) => corrupt(corruption),
    }
    fn close(error: CloseError) {
        CloseError::Lost(why) => lost(why),
        CloseError::Os { ref source, .. } => with(plain("Error", &error), "errno", source.raw_os_error()),
    }
}

/// Whether an exception says that the peer has closed.
pub fn is_closed(py: Python<'_>, error: &PyErr) -> bool {
    let class = module(py).and_then(|module| module.getattr("Closed"));
    class.is_ok_and(|class| error.is_instance(py, &class))
}
