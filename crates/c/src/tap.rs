//! Looking at the messages that pass, without taking part.

use crate::border::{Handle, Misuse, at, result, with, without_handle};
use crate::code::Failed;
use crate::code::shmpipe_code::SHMPIPE_ERR_EMPTY;
use crate::pipe::address_at;
use shmpipe::{Passed, Tap};
use std::cell::{Cell, RefCell};
use std::ffi::{c_char, c_int, c_void};
use std::ptr::null;

/// A tap on a direction of a pipe.
pub struct shmpipe_tap {
    tap: RefCell<Tap>,
    is_broken: Cell<bool>,
}

impl Handle for shmpipe_tap {
    const NAME: &'static str = "tap";

    fn poison(&self) {
        self.is_broken.set(true);
    }
}

/// A message that passed, or messages that the tap has missed. This struct does not grow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct shmpipe_passed {
    /// Its bytes, until the next call with the tap; NULL if messages were missed.
    pub data: *const c_void,
    /// Their number.
    pub length: usize,
    /// Its position.
    pub position: u64,
    /// Its tag.
    pub tag: u32,
    /// Bytes of the stream that the producer overwrote before the tap had copied them; 0 for a message.
    pub missed: u64,
}

impl shmpipe_tap {
    fn handle(tap: Tap) -> *mut Self {
        Box::into_raw(Box::new(shmpipe_tap { tap: RefCell::new(tap), is_broken: Cell::new(false) }))
    }

    fn usable(&self) -> Result<&RefCell<Tap>, Misuse> {
        match self.is_broken.get() {
            true => Err(Misuse::Panicked),
            false if self.tap.borrow().is_inherited() => Err(Misuse::Forked),
            false => Ok(&self.tap),
        }
    }
}

/// Opens a tap on the messages of a pipe, without taking part: those sent from now on, or first those that were not released yet. In a
/// pipe with two directions, those from side A to side B.
///
/// Needs read permission; maps the segment read-only and claims nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_tap_open(
    address: *const c_char,
    unread: bool,
    tap: *mut *mut shmpipe_tap,
) -> c_int {
    without_handle(|| {
        let tap = result(tap, "tap")?;
        // SAFETY: the caller's promise.
        let opened = Tap::open(unsafe { address_at(address) }?)?;
        let opened = if unread { opened.with_unread() } else { opened };
        // SAFETY: not NULL, so valid.
        unsafe { tap.write(shmpipe_tap::handle(opened)) };
        Ok(())
    })
}

/// Opens a tap on the other direction of the same pipe. SHMPIPE_ERR_STATE if it has one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_tap_back(
    tap: *const shmpipe_tap,
    unread: bool,
    back: *mut *mut shmpipe_tap,
) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(tap) }, |tap| {
        let to = result(back, "back")?;
        let back = tap.usable()?.borrow().back();
        let back = back.ok_or(Misuse::State { why: "the pipe has one direction" })?;
        let back = if unread { back.with_unread() } else { back };
        // SAFETY: not NULL, so valid.
        unsafe { to.write(shmpipe_tap::handle(back)) };
        Ok(())
    })
}

/// Returns the next message that passed, or what was missed before it. SHMPIPE_ERR_EMPTY if no other was sent yet.
///
/// Never blocks. Look again after a pause, such as a millisecond: a tap that looks without one takes cache lines from the two sides.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_tap_next(tap: *mut shmpipe_tap, passed: *mut shmpipe_passed) -> c_int {
    // SAFETY: the caller's promise.
    with(unsafe { at(tap) }, |tap| {
        let to = result(passed, "passed")?;
        let mut tap = tap.usable()?.borrow_mut();
        let found = match tap.next()? {
            Some(Passed::Message { position, tag, bytes, .. }) => shmpipe_passed {
                data: bytes.as_ptr().cast(),
                length: bytes.len(),
                position: position.get(),
                tag,
                missed: 0,
            },
            Some(Passed::Missed { bytes, .. }) => {
                shmpipe_passed { data: null(), length: 0, position: 0, tag: 0, missed: bytes }
            }
            _ => return Err(Failed(SHMPIPE_ERR_EMPTY as c_int)),
        };
        // SAFETY: not NULL, so valid.
        unsafe { to.write(found) };
        Ok(())
    })
}

/// Gives a tap back. NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmpipe_tap_free(tap: *mut shmpipe_tap) {
    without_handle(|| {
        if !tap.is_null() {
            // SAFETY: the caller's promise.
            drop(unsafe { Box::from_raw(tap) });
        }
        Ok(())
    });
}
