//! A slot for one message in shared memory, with a word that shows whether it is full.

use std::io;
use std::rc::Rc;
use std::sync::atomic::AtomicU32;

use crate::segment::Segment;

/// The words before the message, on the same cache line as its first bytes.
#[repr(C)]
struct Head {
    written: AtomicU32,
    len: u32,
}

/// The slot of one direction, for both ends.
///
/// ```text
/// 0 written | 4 length | 8 message ... capacity
/// ```
pub(super) struct Slot {
    head: *mut Head,
    capacity: usize,
    /// Keeps the memory behind the pointer.
    _segment: Rc<Segment>,
}

impl Slot {
    /// The parent's slots, out and back, in a new segment, with its identifier.
    pub(super) fn make(capacity: usize) -> io::Result<(Slot, Slot, i32)> {
        let segment = Rc::new(Segment::create(2 * capacity)?);
        Ok((Slot::number(0, &segment, capacity), Slot::number(1, &segment, capacity), segment.id()))
    }

    /// The partner's slots, out and back, in the segment that the parent has created.
    pub(super) fn join(id: i32, capacity: usize) -> io::Result<(Slot, Slot)> {
        let segment = Rc::new(Segment::join(id, 2 * capacity)?);
        Ok((Slot::number(1, &segment, capacity), Slot::number(0, &segment, capacity)))
    }

    fn number(number: usize, segment: &Rc<Segment>, capacity: usize) -> Slot {
        assert!(capacity.is_power_of_two() && capacity >= 64 && 2 * capacity <= segment.len());
        // SAFETY: the segment holds two successive slots of this length.
        let base = unsafe { segment.base().add(number * capacity) };
        Slot { head: base.cast(), capacity, _segment: Rc::clone(segment) }
    }

    /// 0 while the sender may write the message, another number while the receiver may read it.
    #[inline(always)]
    pub(super) fn written(&self) -> &AtomicU32 {
        // SAFETY: mapped as long as the slot lives, and aligned to the capacity, a power of two that is at least 64.
        unsafe { &(*self.head).written }
    }

    /// The longest message.
    pub(super) fn max_len(&self) -> usize {
        self.capacity - size_of::<Head>()
    }

    /// Writes the message. The caller then publishes it.
    ///
    /// # Panics
    /// If it is longer than [`max_len`](Slot::max_len), which sessions prevent.
    ///
    /// # Safety
    /// The caller is the sender's end, and found `written` to be 0.
    #[inline(always)]
    pub(super) unsafe fn put(&self, message: &[u8]) {
        assert!(message.len() <= self.max_len());
        // SAFETY: the receiver only accesses `written` until that changes, and the message fits after the head, as just
        // checked.
        unsafe {
            (&raw mut (*self.head).len).write(message.len() as u32);
            self.head.add(1).cast::<u8>().copy_from_nonoverlapping(message.as_ptr(), message.len());
        }
    }

    /// Reads the message and returns its length. The caller then releases the slot.
    ///
    /// # Safety
    /// The caller is the receiver's end, and found `written` not to be 0.
    #[inline(always)]
    pub(super) unsafe fn take(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the sender only accesses `written` until that changes.
        let len = unsafe { (&raw const (*self.head).len).read() } as usize;
        if len > buffer.len() || len > self.max_len() {
            return Err(super::too_long(len, buffer.len()));
        }
        // SAFETY: the message is after the head and fits the buffer, as just checked.
        unsafe { self.head.add(1).cast::<u8>().copy_to_nonoverlapping(buffer.as_mut_ptr(), len) };
        Ok(len)
    }
}
