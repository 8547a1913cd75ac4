//! What every function does at the border: it checks what it got, and lets no panic out.

use crate::code::shmpipe_code::*;
use crate::code::{Done, Failed, remember};
use std::any::Any;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// A version of this interface: that of the header that a program was compiled with, to compare with shmpipe_abi_version().
pub const SHMPIPE_ABI_VERSION: u32 = 1;

/// A timeout that never passes.
pub const SHMPIPE_FOREVER: i64 = -1;

/// Returns the version of this interface that the library has.
///
/// A program that may run with another library than it was compiled with compares it with SHMPIPE_ABI_VERSION first.
#[unsafe(no_mangle)]
pub extern "C" fn shmpipe_abi_version() -> u32 {
    SHMPIPE_ABI_VERSION
}

/// Returns the version of the segment's layout, which both ends must have in common.
#[unsafe(no_mangle)]
pub extern "C" fn shmpipe_layout_version() -> u32 {
    shmpipe::LAYOUT_VERSION
}

/// Returns the version of the library, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn shmpipe_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("a version without zero bytes"),
        };
    VERSION.as_ptr()
}

/// A call that cannot be right.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Misuse {
    /// A pointer is NULL that must not be.
    Null { argument: &'static str },
    /// An argument is impossible.
    Argument { why: &'static str },
    /// The handle cannot do this now.
    State { why: &'static str },
    /// The handle is the parent's.
    Forked,
    /// A call has panicked.
    Panicked,
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misuse::Null { argument } => write!(f, "the argument {argument} is NULL"),
            Misuse::Argument { why } | Misuse::State { why } => f.write_str(why),
            Misuse::Forked => f.write_str(
                "the handle was opened before a fork, by the parent; reopen the pipe in the child",
            ),
            Misuse::Panicked => {
                f.write_str("an earlier call panicked, which is a bug in the library; close the handle")
            }
        }
    }
}

/// A handle that refuses further calls after a panic.
pub(crate) trait Handle {
    /// Its name as an argument.
    const NAME: &'static str;

    fn poison(&self);
}

/// Runs what a function does with a handle.
#[inline(always)]
pub(crate) fn with<T: Handle>(handle: Option<&T>, work: impl FnOnce(&T) -> Done) -> c_int {
    let caught = catch_unwind(AssertUnwindSafe(|| {
        hook::fire();
        match handle {
            Some(handle) => work(handle),
            None => Err(Misuse::Null { argument: T::NAME }.into()),
        }
    }));
    match caught {
        Ok(Ok(())) => 0,
        Ok(Err(Failed(code))) => code,
        Err(panic) => {
            if let Some(handle) = handle {
                handle.poison();
            }
            panicked(panic)
        }
    }
}

/// Runs what a function does without a handle that a panic could break.
pub(crate) fn without_handle(work: impl FnOnce() -> Done) -> c_int {
    let caught = catch_unwind(AssertUnwindSafe(|| {
        hook::fire();
        work()
    }));
    match caught {
        Ok(Ok(())) => 0,
        Ok(Err(Failed(code))) => code,
        Err(panic) => panicked(panic),
    }
}

#[cold]
#[inline(never)]
fn panicked(panic: Box<dyn Any + Send>) -> c_int {
    let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text.as_str(),
        _ => "no text",
    };
    remember(
        SHMPIPE_ERR_PANICKED,
        None,
        &format_args!("the library panicked, which is a bug in it: {text}; close the handle"),
    );
    // Its destructor could panic too.
    std::mem::forget(panic);
    SHMPIPE_ERR_PANICKED as c_int
}

/// Bytes of the messages that take the short path, which calls nothing in its middle and so saves few registers. It does not panic, so
/// it catches nothing.
pub(crate) const SHORT: RangeInclusive<usize> = 8..=64;

/// The handle at a pointer.
///
/// # Safety
/// It is NULL or a handle, which outlives the call.
#[inline(always)]
pub(crate) unsafe fn at<'a, T>(handle: *const T) -> Option<&'a T> {
    // SAFETY: the caller's promise.
    unsafe { handle.as_ref() }
}

/// Checks that a pointer to a result is not NULL.
pub(crate) fn result<T>(to: *mut T, argument: &'static str) -> Result<*mut T, Misuse> {
    if to.is_null() { Err(Misuse::Null { argument }) } else { Ok(to) }
}

/// Bytes to send. NULL is none.
///
/// # Safety
/// The memory is readable while the result is used.
#[inline(always)]
pub(crate) unsafe fn bytes<'a>(data: *const c_void, length: usize) -> Result<&'a [u8], Misuse> {
    if data.is_null() || length > isize::MAX as usize {
        return no_bytes(length).map(|()| &[][..]);
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(data.cast(), length) })
}

/// A buffer to receive into. NULL is none.
///
/// # Safety
/// The memory is writable while the result is used, and nothing else uses it meanwhile.
#[inline(always)]
pub(crate) unsafe fn buffer<'a>(buffer: *mut c_void, capacity: usize) -> Result<&'a mut [u8], Misuse> {
    if buffer.is_null() || capacity > isize::MAX as usize {
        return no_bytes(capacity).map(|()| &mut [][..]);
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts_mut(buffer.cast(), capacity) })
}

#[cold]
#[inline(never)]
fn no_bytes(length: usize) -> Result<(), Misuse> {
    if length == 0 {
        return Ok(());
    }
    Err(Misuse::Argument { why: "the memory is NULL, or its length is beyond every object's" })
}

/// A string.
///
/// # Safety
/// It is NULL, or ends with a zero byte and is readable while the result is used.
pub(crate) unsafe fn text<'a>(text: *const c_char, argument: &'static str) -> Result<&'a str, Misuse> {
    if text.is_null() {
        return Err(Misuse::Null { argument });
    }
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Misuse::Argument { why: "the address is not UTF-8" })
}

/// How long a call may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timeout {
    Now,
    Forever,
    For(Duration),
}

impl Timeout {
    #[inline]
    pub(crate) fn of(nanoseconds: i64) -> Self {
        match u64::try_from(nanoseconds) {
            Err(_) => Timeout::Forever,
            Ok(0) => Timeout::Now,
            Ok(nanoseconds) => Timeout::For(Duration::from_nanos(nanoseconds)),
        }
    }

    /// The moment until which to wait; `None` for ever.
    pub(crate) fn deadline(self) -> Option<Instant> {
        match self {
            Timeout::Now => Some(Instant::now()),
            Timeout::Forever => None,
            Timeout::For(duration) => Instant::now().checked_add(duration),
        }
    }
}

/// A panic on request: the test that no panic leaves the library, in builds with debug assertions.
#[cfg(debug_assertions)]
pub(crate) mod hook {
    use std::cell::Cell;

    thread_local! {
        static ARMED: Cell<bool> = const { Cell::new(false) };
    }

    pub(crate) fn is_armed() -> bool {
        ARMED.get()
    }

    pub(super) fn fire() {
        if ARMED.get() {
            ARMED.set(false);
            panic!("as the test asked");
        }
    }

    /// Makes the next call in this thread panic. Not in the header, and not in release builds.
    ///
    /// cbindgen:ignore
    #[unsafe(no_mangle)]
    pub extern "C" fn shmpipe_test_panic() {
        ARMED.set(true);
    }
}

#[cfg(not(debug_assertions))]
pub(crate) mod hook {
    #[inline(always)]
    pub(crate) fn is_armed() -> bool {
        false
    }

    #[inline(always)]
    pub(super) fn fire() {}
}
