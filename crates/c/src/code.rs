//! The codes of failures, and their sentences.

use crate::border::Misuse;
use shmpipe::{
    AddError, AddressError, CheckError, CloseError, Corruption, FlushError, Lost, RecvError,
    RecvTimeoutError, SendError, SendTimeoutError, SetupError, TryRecvError, TrySendError, WaitError,
    WaitSetError, WrongSize,
};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt::Display;

/// What a function returns: 0, or one of these. The numbers are stable.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum shmpipe_code {
    /// Success.
    SHMPIPE_OK = 0,
    /// There is no space now: the consumer has to release messages first.
    SHMPIPE_ERR_FULL = -1,
    /// There is no message now.
    SHMPIPE_ERR_EMPTY = -2,
    /// The timeout passed.
    SHMPIPE_ERR_TIMED_OUT = -3,
    /// shmpipe_cancel() ended the wait. Every call that has to wait returns it from then on.
    SHMPIPE_ERR_CANCELLED = -4,
    /// The other side closed; for a consumer, after every message was received. Returned until a successor attaches.
    SHMPIPE_ERR_CLOSED = -5,
    /// The other side ended with an error, whose number shmpipe_abort_code() returns. Returned once.
    SHMPIPE_ERR_PEER_ABORTED = -6,
    /// The other side died. Returned once; the next call waits for its successor.
    SHMPIPE_ERR_PEER_DIED = -7,
    /// The pipe was removed, or the role taken by force. Close the handle and reopen the pipe.
    SHMPIPE_ERR_LOST = -8,
    /// The segment holds a value that no correct peer writes. Every later call returns the same.
    SHMPIPE_ERR_CORRUPT = -9,
    /// The message, or the batch, is longer than this pipe can ever take.
    SHMPIPE_ERR_TOO_LARGE = -10,
    /// The buffer is shorter than the message, which stays in the pipe.
    SHMPIPE_ERR_TOO_SMALL = -11,
    /// An argument is NULL or impossible.
    SHMPIPE_ERR_ARGUMENT = -20,
    /// The handle cannot do this now: something is open in it, or nothing is.
    SHMPIPE_ERR_STATE = -21,
    /// The handle belongs to the parent of this forked process. Use shmpipe_reopen().
    SHMPIPE_ERR_FORKED = -22,
    /// The library has a bug, and panicked. The handle can only be closed.
    SHMPIPE_ERR_PANICKED = -23,
    /// The address does not parse.
    SHMPIPE_ERR_ADDRESS = -40,
    /// There is no pipe at this address.
    SHMPIPE_ERR_NOT_FOUND = -41,
    /// There is a pipe at this address already.
    SHMPIPE_ERR_EXISTS = -42,
    /// This kind of pipe cannot do what the call asks for.
    SHMPIPE_ERR_UNSUPPORTED = -43,
    /// The system denies access.
    SHMPIPE_ERR_PERMISSION = -44,
    /// A user who is not trusted could change the pipe.
    SHMPIPE_ERR_UNTRUSTED = -45,
    /// The file, or its file system, cannot hold a pipe.
    SHMPIPE_ERR_FILE = -46,
    /// What is at this address is no pipe.
    SHMPIPE_ERR_FOREIGN = -47,
    /// The pipe is another one than expected: its version, schema, name or number of directions.
    SHMPIPE_ERR_INCOMPATIBLE = -48,
    /// The pipe's contents cannot be used.
    SHMPIPE_ERR_DAMAGED = -49,
    /// Something is not available in the amount requested.
    SHMPIPE_ERR_LIMIT = -50,
    /// The role, or the side of a duplex pipe, has a holder.
    SHMPIPE_ERR_TAKEN = -51,
    /// Another process has been creating or removing this pipe for longer than that should take.
    SHMPIPE_ERR_BUSY = -52,
    /// The kernel lacks something that pipes depend on.
    SHMPIPE_ERR_KERNEL = -53,
    /// A system call failed for another reason.
    SHMPIPE_ERR_OS = -54,
    /// An error that this version of the C interface does not know.
    SHMPIPE_ERR_OTHER = -99,
}

use shmpipe_code::*;

/// Returns the sentence for a code: what was found, what was expected, and what to do about it.
///
/// If this thread's latest failure had that code, it is the sentence of that failure, with details such as numbers or the process that
/// holds a role. The string is valid until the next failure in this thread. Never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn shmpipe_strerror(code: c_int) -> *const c_char {
    LATEST
        .try_with(|latest| match &*latest.borrow() {
            Some(latest) if latest.code as c_int == code => latest.sentence.as_ptr(),
            _ => general(code).as_ptr(),
        })
        .unwrap_or(general(code).as_ptr())
}

/// Returns the number with which the other side aborted, of the latest SHMPIPE_ERR_PEER_ABORTED in this thread.
///
/// UINT32_MAX if the other side is a Rust program that panicked; 0 if there was none.
#[unsafe(no_mangle)]
pub extern "C" fn shmpipe_abort_code() -> u32 {
    LATEST.try_with(|latest| latest.borrow().as_ref().map_or(0, |latest| latest.abort_code)).unwrap_or(0)
}

/// The latest failure of a thread.
struct Latest {
    code: shmpipe_code,
    sentence: CString,
    /// Of the latest abort, which may be an earlier failure.
    abort_code: u32,
}

thread_local! {
    static LATEST: RefCell<Option<Latest>> = const { RefCell::new(None) };
}

/// A failure that is known to the thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failed(pub(crate) c_int);

/// What a function did.
pub(crate) type Done = Result<(), Failed>;

impl<E: Failure> From<E> for Failed {
    #[cold]
    #[inline(never)]
    fn from(error: E) -> Self {
        match error.code() {
            // A loop that polls gets them in every turn, and there is nothing more to say.
            code @ (SHMPIPE_ERR_FULL | SHMPIPE_ERR_EMPTY) => Failed(code as c_int),
            code => {
                remember(code, error.abort_code(), &error);
                Failed(code as c_int)
            }
        }
    }
}

#[cold]
#[inline(never)]
pub(crate) fn remember(code: shmpipe_code, abort_code: Option<u32>, sentence: &dyn Display) {
    // No sentence contains a zero byte, unless an address does.
    let sentence = sentence.to_string().replace('\0', "\\0");
    let sentence = CString::new(sentence).unwrap_or_default();
    // The thread may be at its end, where nothing is kept.
    let _ = LATEST.try_with(|latest| {
        let mut latest = latest.borrow_mut();
        let abort_code = abort_code.or(latest.as_ref().map(|latest| latest.abort_code)).unwrap_or(0);
        *latest = Some(Latest { code, sentence, abort_code });
    });
}

/// The sentence of a code without details.
fn general(code: c_int) -> &'static CStr {
    const SENTENCES: &[(shmpipe_code, &CStr)] = &[
        (SHMPIPE_OK, c"no error"),
        (SHMPIPE_ERR_FULL, c"the pipe is full; retry after the consumer receives"),
        (SHMPIPE_ERR_EMPTY, c"the pipe is empty; retry after the producer sends"),
        (SHMPIPE_ERR_TIMED_OUT, c"the timeout passed"),
        (SHMPIPE_ERR_CANCELLED, c"the wait was cancelled"),
        (SHMPIPE_ERR_CLOSED, c"the other side closed the pipe"),
        (SHMPIPE_ERR_PEER_ABORTED, c"the other side aborted"),
        (SHMPIPE_ERR_PEER_DIED, c"the other side died; call again to wait for its successor"),
        (SHMPIPE_ERR_LOST, c"the pipe or the role is lost; reopen it"),
        (SHMPIPE_ERR_CORRUPT, c"the segment holds a value that no correct peer writes; recreate the pipe"),
        (SHMPIPE_ERR_TOO_LARGE, c"the message is longer than this pipe can take; create a larger one"),
        (SHMPIPE_ERR_TOO_SMALL, c"the buffer is shorter than the message; receive it into a larger one"),
        (SHMPIPE_ERR_ARGUMENT, c"an argument is NULL or impossible"),
        (SHMPIPE_ERR_STATE, c"the handle cannot do this now"),
        (SHMPIPE_ERR_FORKED, c"the handle was opened before a fork; reopen the pipe in the child"),
        (SHMPIPE_ERR_PANICKED, c"the library panicked, which is a bug in it; close the handle"),
        (SHMPIPE_ERR_ADDRESS, c"the address does not parse"),
        (SHMPIPE_ERR_NOT_FOUND, c"there is no pipe at this address"),
        (SHMPIPE_ERR_EXISTS, c"there is a pipe at this address already"),
        (SHMPIPE_ERR_UNSUPPORTED, c"this kind of pipe cannot do that"),
        (SHMPIPE_ERR_PERMISSION, c"the system denies access to the pipe"),
        (SHMPIPE_ERR_UNTRUSTED, c"a user who is not trusted could change the pipe"),
        (SHMPIPE_ERR_FILE, c"the file, or its file system, cannot hold a pipe"),
        (SHMPIPE_ERR_FOREIGN, c"what is at this address is no pipe"),
        (SHMPIPE_ERR_INCOMPATIBLE, c"the pipe is another one than expected"),
        (SHMPIPE_ERR_DAMAGED, c"the pipe's contents cannot be used"),
        (SHMPIPE_ERR_LIMIT, c"something is not available in the amount requested"),
        (SHMPIPE_ERR_TAKEN, c"another process, or another handle in this one, holds the role"),
        (SHMPIPE_ERR_BUSY, c"another process has been creating or removing this pipe for too long"),
        (SHMPIPE_ERR_KERNEL, c"the kernel lacks something that pipes depend on"),
        (SHMPIPE_ERR_OS, c"a system call failed"),
        (SHMPIPE_ERR_OTHER, c"an error that this version does not know"),
    ];
    let found = SENTENCES.iter().find(|(known, _)| *known as c_int == code);
    found.map_or(c"not a code of this library", |(_, sentence)| sentence)
}

/// An error of the library that has a code.
pub(crate) trait Failure: Display {
    fn code(&self) -> shmpipe_code;

    fn abort_code(&self) -> Option<u32> {
        None
    }
}

/// The codes by the names of the causes, which all errors have in common.
mod cause {
    pub(super) use super::shmpipe_code::{
        SHMPIPE_ERR_ADDRESS as Address, SHMPIPE_ERR_ARGUMENT as Interest, SHMPIPE_ERR_BUSY as Busy,
        SHMPIPE_ERR_CANCELLED as Cancelled, SHMPIPE_ERR_CLOSED as Closed, SHMPIPE_ERR_CORRUPT as Corrupt,
        SHMPIPE_ERR_DAMAGED as Damaged, SHMPIPE_ERR_EMPTY as Empty, SHMPIPE_ERR_EXISTS as Exists,
        SHMPIPE_ERR_FILE as File, SHMPIPE_ERR_FOREIGN as Foreign, SHMPIPE_ERR_FULL as Full,
        SHMPIPE_ERR_INCOMPATIBLE as Incompatible, SHMPIPE_ERR_KERNEL as Kernel, SHMPIPE_ERR_LIMIT as Limit,
        SHMPIPE_ERR_LOST as Lost, SHMPIPE_ERR_NOT_FOUND as NotFound, SHMPIPE_ERR_OS as Os,
        SHMPIPE_ERR_OS as Thread, SHMPIPE_ERR_PEER_ABORTED as PeerAborted, SHMPIPE_ERR_PEER_DIED as PeerDied,
        SHMPIPE_ERR_PERMISSION as PermissionDenied, SHMPIPE_ERR_TAKEN as RoleTaken,
        SHMPIPE_ERR_TAKEN as SideTaken, SHMPIPE_ERR_TIMED_OUT as TimedOut, SHMPIPE_ERR_TOO_LARGE as TooLarge,
        SHMPIPE_ERR_UNSUPPORTED as Unsupported, SHMPIPE_ERR_UNTRUSTED as Untrusted,
    };
}

/// Implements [`Failure`] for errors whose variants are the causes.
macro_rules! failures {
    ($($error:ident $(with $aborted:ident)? { $($cause:ident)* })*) => {$(
        impl Failure for $error {
            #[inline]
            fn code(&self) -> shmpipe_code {
                match self {
                    $($error::$cause { .. } => cause::$cause,)*
                    _ => SHMPIPE_ERR_OTHER,
                }
            }

            $(fn abort_code(&self) -> Option<u32> {
                match self {
                    $error::$aborted { code } => Some(*code),
                    _ => None,
                }
            })?
        }
    )*};
}

failures! {
    TrySendError with PeerAborted { Full TooLarge Closed PeerAborted Corrupt }
    SendError with PeerAborted { TooLarge Closed PeerAborted PeerDied Cancelled Lost Corrupt }
    SendTimeoutError with PeerAborted { TimedOut TooLarge Closed PeerAborted PeerDied Cancelled Lost Corrupt }
    TryRecvError with PeerAborted { Empty Closed PeerAborted Corrupt }
    RecvError with PeerAborted { Closed PeerAborted PeerDied Cancelled Lost Corrupt }
    RecvTimeoutError with PeerAborted { TimedOut Closed PeerAborted PeerDied Cancelled Lost Corrupt }
    CheckError with PeerAborted { Closed PeerAborted PeerDied Lost Corrupt }
    FlushError with PeerAborted { TimedOut Cancelled Closed PeerAborted PeerDied Lost Corrupt }
    WaitError { TimedOut Cancelled Lost }
    AddError { Interest TooLarge Thread }
    CloseError { Lost Os }
    SetupError {
        Address NotFound Exists Unsupported PermissionDenied Untrusted File Foreign Incompatible Damaged Limit
        RoleTaken SideTaken Busy Kernel Lost Os
    }
}

impl Failure for WaitSetError {
    fn code(&self) -> shmpipe_code {
        match self {
            WaitSetError::TimedOut => SHMPIPE_ERR_TIMED_OUT,
            WaitSetError::Cancelled => SHMPIPE_ERR_CANCELLED,
            // Of members, not of messages.
            WaitSetError::Empty => SHMPIPE_ERR_STATE,
            _ => SHMPIPE_ERR_OTHER,
        }
    }
}

impl Failure for Misuse {
    fn code(&self) -> shmpipe_code {
        match self {
            Misuse::Null { .. } | Misuse::Argument { .. } => SHMPIPE_ERR_ARGUMENT,
            Misuse::State { .. } => SHMPIPE_ERR_STATE,
            Misuse::Forked => SHMPIPE_ERR_FORKED,
            Misuse::Panicked => SHMPIPE_ERR_PANICKED,
        }
    }
}

/// The same code for every value of a type.
macro_rules! one_code {
    ($($error:ident => $code:ident,)*) => {$(
        impl Failure for $error {
            fn code(&self) -> shmpipe_code {
                $code
            }
        }
    )*};
}

one_code! {
    AddressError => SHMPIPE_ERR_ADDRESS,
    Corruption => SHMPIPE_ERR_CORRUPT,
    Lost => SHMPIPE_ERR_LOST,
    WrongSize => SHMPIPE_ERR_TOO_SMALL,
}

/// What a look at a peer that has ended returns as a code, with its abort code.
pub(crate) fn of_end(end: CheckError) -> (shmpipe_code, u32) {
    (end.code(), end.abort_code().unwrap_or(0))
}
