//! Options.

use crate::border::{Handle, Misuse, at, result, with, without_handle};
use shmpipe::os::unix::OptionsExt;
use shmpipe::{Options, Wait, WakeMode};
use std::cell::RefCell;
use std::ffi::c_int;
use std::time::Duration;

/// Options for creating and opening a pipe. NULL in their place means the defaults.
pub struct shmpipe_options(RefCell<Options>);

/// How a call waits.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum shmpipe_wait {
    /// Polls for a moment, then sleeps until the other side wakes this one. The default.
    SHMPIPE_WAIT_BLOCK = 0,
    /// Polls without pause: the lowest latency, at the cost of a whole core.
    SHMPIPE_WAIT_SPIN = 1,
    /// Polls for 20 microseconds, then yields the core between polls.
    SHMPIPE_WAIT_YIELD = 2,
}

/// How sleepers are woken.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum shmpipe_wake_mode {
    /// By a barrier that the side that goes to sleep runs in the other one: a message costs no fence.
    SHMPIPE_WAKE_MEMBARRIER = 1,
    /// By a fence for each message.
    SHMPIPE_WAKE_FENCE = 2,
    /// Never: both sides poll.
    SHMPIPE_WAKE_NEVER = 3,
}

impl Handle for shmpipe_options {
    const NAME: &'static str = "options";

    fn poison(&self) {
        // A panic leaves them as they were.
    }
}

/// The options at a pointer, or the defaults.
///
/// # Safety
/// It is NULL or valid.
pub(crate) unsafe fn options_at(options: *const shmpipe_options) -> Options {
    // SAFETY: the caller's promise.
    unsafe { at(options) }.map_or_else(Options::new, |options| options.0.borrow().clone())
}

/// Replaces options by what `set` makes of them.
///
/// # Safety
/// The pointer is NULL or valid.
unsafe fn change(options: *mut shmpipe_options, set: impl FnOnce(Options) -> Options) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(options) }, |options| {
        let changed = set(options.0.borrow().clone());
        options.0.replace(changed);
        Ok(())
    })
}

/// Makes options with the defaults: 1 MiB, mode 0600, schema 0, waits that sleep, a segment that stays when both sides have closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_options_new(options: *mut *mut shmpipe_options) -> c_int {
    without_handle(|| {
        let to = result(options, "options")?;
        let new = Box::into_raw(Box::new(shmpipe_options(RefCell::new(Options::new()))));
        // SAFETY: not NULL, so valid.
        unsafe { to.write(new) };
        Ok(())
    })
}

/// Gives options back. NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_options_free(options: *mut shmpipe_options) {
    without_handle(|| {
        if !options.is_null() {
            // SAFETY: the caller gives it back, which `shmpipe_options_new` made.
            drop(unsafe { Box::from_raw(options) });
        }
        Ok(())
    });
}

/// Sets the bytes of ring data, rounded up to a power of two and to at least 4096. The longest message has half of that, less 8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_options_capacity(options: *mut shmpipe_options, bytes: u64) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { change(options, |options| options.capacity(bytes)) }
}

/// Sets whether the pipe has two directions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_options_duplex(options: *mut shmpipe_options, duplex: bool) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { change(options, |options| options.duplex(duplex)) }
}

/// Sets the permission bits of a new pipe, as for chmod().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_options_mode(options: *mut shmpipe_options, mode: u32) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { change(options, |options| options.mode(mode)) }
}

/// Sets the user who owns a new pipe. Needs privilege.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_options_uid(options: *mut shmpipe_options, uid: u32) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { change(options, |options| options.uid(uid)) }
}

/// Sets the group that owns a new pipe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_options_gid(options: *mut shmpipe_options, gid: u32) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { change(options, |options| options.gid(gid)) }
}

/// Also accepts pipes that this user created or owns. Can be called for several users.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_options_trust_uid(options: *mut shmpipe_options, uid: u32) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { change(options, |options| options.trust_uid(uid)) }
}

/// Sets a number that both ends must agree on, such as the version of the messages. 0 is the default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_options_schema(options: *mut shmpipe_options, schema: u64) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { change(options, |options| options.schema(schema)) }
}

/// Sets how sleepers of a new pipe are woken: one of shmpipe_wake_mode.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_options_wake_mode(options: *mut shmpipe_options, mode: c_int) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(options) }, |options| {
        let mode = match mode {
            1 => WakeMode::Membarrier,
            2 => WakeMode::Fence,
            3 => WakeMode::Never,
            _ => return Err(Misuse::Argument { why: "the wake mode is none of shmpipe_wake_mode" }.into()),
        };
        let changed = options.0.borrow().clone().wake_mode(mode);
        options.0.replace(changed);
        Ok(())
    })
}

/// Sets how this side waits: one of shmpipe_wait.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_options_wait(options: *mut shmpipe_options, wait: c_int) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(options) }, |options| {
        let wait = match wait {
            0 => Wait::Block,
            1 => Wait::Spin,
            2 => Wait::Yield,
            _ => return Err(Misuse::Argument { why: "the way to wait is none of shmpipe_wait" }.into()),
        };
        let changed = options.0.borrow().clone().wait(wait);
        options.0.replace(changed);
        Ok(())
    })
}

/// Sets that this side sleeps for that long between two polls, so that the other side never has to wake it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_options_wait_sleep(
    options: *mut shmpipe_options,
    nanoseconds: u64,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { change(options, |options| options.wait(Wait::Sleep(Duration::from_nanos(nanoseconds)))) }
}

/// Sets whether a new pipe is removed when both sides have closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_options_remove_on_close(
    options: *mut shmpipe_options,
    remove: bool,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { change(options, |options| options.remove_on_close(remove)) }
}

/// Sets whether the next process that looks for a new pipe removes it once it is left over: used, empty, open in no process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_options_remove_leftover(
    options: *mut shmpipe_options,
    remove: bool,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { change(options, |options| options.remove_leftover(remove)) }
}

/// Sets whether a new pipe measures how long some messages are under way: see shmpipe_latency.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_options_measure_latency(
    options: *mut shmpipe_options,
    measure: bool,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { change(options, |options| options.measure_latency(measure)) }
}

/// Sets whether a new pipe lies in huge pages.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_options_huge_pages(options: *mut shmpipe_options, huge: bool) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { change(options, |options| options.huge_pages(huge)) }
}

/// Sets whether the pipe's memory is locked, so that it is never swapped out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_options_lock_memory(options: *mut shmpipe_options, lock: bool) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { change(options, |options| options.lock_memory(lock)) }
}

/// Sets whether every page is faulted in when the pipe is created or opened.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_options_prefault(options: *mut shmpipe_options, prefault: bool) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { change(options, |options| options.prefault(prefault)) }
}

/// Recreates a pipe whose file dates from before the last boot, instead of failing. Messages in it are lost.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_options_recreate_stale(
    options: *mut shmpipe_options,
    recreate: bool,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { change(options, |options| options.recreate_stale(recreate)) }
}

/// Accepts a kernel that does not undo what a killed process held, as gVisor's, for System V pipes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_options_allow_missing_undo(
    options: *mut shmpipe_options,
    allow: bool,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { change(options, |options| options.allow_missing_undo(allow)) }
}

/// Accepts a kernel that removes a System V pipe with the last process that has it open (kernel.shm_rmid_forced).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_options_allow_rmid_forced(
    options: *mut shmpipe_options,
    allow: bool,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { change(options, |options| options.allow_rmid_forced(allow)) }
}
