//! Cancelling blocked calls.

use crate::border::{Handle, at, with, without_handle};
use crate::code::shmpipe_code::SHMPIPE_ERR_ARGUMENT;
use shmpipe::CancelHandle;
use std::ffi::c_int;

/// Cancels blocked calls, from another thread or from a signal handler. It outlives what it was made for.
pub struct shmpipe_cancel_handle(CancelHandle);

const _: fn() = || {
    fn is_shared<T: Sync>() {}
    is_shared::<shmpipe_cancel_handle>();
};

impl Handle for shmpipe_cancel_handle {
    const NAME: &'static str = "cancel";

    fn poison(&self) {
        // It has no state of its own.
    }
}

impl shmpipe_cancel_handle {
    pub(crate) fn handle(cancel: CancelHandle) -> *mut Self {
        Box::into_raw(Box::new(shmpipe_cancel_handle(cancel)))
    }
}

/// Makes every call that has to wait return SHMPIPE_ERR_CANCELLED, now and later. A call that need not wait works as before.
///
/// Any thread may call it at any time, and so may a signal handler: it is async-signal-safe, wait-free, makes at most one system call,
/// and leaves errno as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_cancel(cancel: *const shmpipe_cancel_handle) -> c_int {
    if cancel.is_null() {
        // Nothing is remembered of it: a signal handler may be the caller.
        return SHMPIPE_ERR_ARGUMENT as c_int;
    }
    // SAFETY: the caller's promise.
    with(unsafe { at(cancel) }, |cancel| {
        cancel.0.cancel();
        Ok(())
    })
}

/// Gives a handle back. NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_cancel_free(cancel: *mut shmpipe_cancel_handle) {
    without_handle(|| {
        if !cancel.is_null() {
            // SAFETY: the caller gives it back, which `handle` made.
            drop(unsafe { Box::from_raw(cancel) });
        }
        Ok(())
    });
}
