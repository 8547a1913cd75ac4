//! Records in a ring of bytes in shared memory. The transport decides when each side may write or read.
//!
//! The classic ring, the baseline of all comparisons, has the same code in its own loop. With these calls its round trip took
//! up to 15 % longer on two hardware threads of one core.

use std::io;
use std::rc::Rc;

use crate::segment::Segment;

const HEADER: usize = 8;
/// A length that marks the rest of the ring as unused. The next record is at the start.
const WRAP: u64 = u64::MAX;

/// The bytes of one direction, for both ends. A position counts bytes since the start and never wraps.
///
/// ```text
/// record = length (8 bytes), payload, padding to 8
/// ```
pub(super) struct Records {
    bytes: *mut u8,
    capacity: usize,
    /// Keeps the memory behind the pointer.
    _segment: Rc<Segment>,
}

/// The size of a record.
#[inline(always)]
pub(super) fn record_len(payload: usize) -> usize {
    HEADER + payload.next_multiple_of(8)
}

impl Records {
    /// The ring at byte `offset` of the segment. `capacity` is a power of two, at least 64.
    pub(super) fn at(segment: &Rc<Segment>, offset: usize, capacity: usize) -> Records {
        assert!(capacity.is_power_of_two() && offset + capacity <= segment.len(), "records in their segment");
        // SAFETY: the segment is at least this long.
        let bytes = unsafe { segment.base().add(offset) };
        Records { bytes, capacity, _segment: Rc::clone(segment) }
    }

    #[inline(always)]
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    #[inline(always)]
    fn index(&self, position: usize) -> usize {
        position & (self.capacity - 1)
    }

    /// The unused bytes from `position` to the end, if a record of `need` bytes does not fit there.
    #[inline(always)]
    pub(super) fn unused(&self, position: usize, need: usize) -> usize {
        let to_end = self.capacity - self.index(position);
        if to_end < need { to_end } else { 0 }
    }

    /// Writes a record at `position`, or at the start of the ring after `unused` bytes.
    ///
    /// # Safety
    /// * `position` is the end of the last record, and `unused` the result of [`unused`](Records::unused) for it.
    /// * The consumer does not read that space until the caller publishes it.
    #[inline(always)]
    pub(super) unsafe fn write(&self, position: usize, unused: usize, message: &[u8]) {
        let index = self.index(position);
        let start = if unused == 0 { index } else { 0 };
        // SAFETY: records start at multiples of 8, and indices are below the capacity, a multiple of 8. So the header words
        // are inside and aligned. The record does not extend past the end: it fits before it, or it starts at 0 and is no
        // longer than the free space, which is no longer than the ring. The caller excludes the consumer.
        unsafe {
            if unused != 0 {
                self.bytes.add(index).cast::<u64>().write(WRAP);
            }
            let record = self.bytes.add(start);
            record.cast::<u64>().write(message.len() as u64);
            record.add(HEADER).copy_from_nonoverlapping(message.as_ptr(), message.len());
        }
    }

    /// Copies the payload of the record at `position` to the start of `buffer`. Returns its length and the bytes that the record
    /// used, including unused bytes before it.
    ///
    /// # Errors
    /// `InvalidData` for a record longer than the buffer.
    ///
    /// # Safety
    /// * The producer wrote the record, and that is visible here.
    /// * The producer does not write it again until the caller releases it.
    #[inline(always)]
    pub(super) unsafe fn read(&self, position: usize, buffer: &mut [u8]) -> io::Result<(usize, usize)> {
        let index = self.index(position);
        // SAFETY: a multiple of 8 below the capacity, where the producer wrote a length.
        let len = unsafe { self.bytes.add(index).cast::<u64>().read() };
        if len == WRAP {
            // SAFETY: the producer publishes the record at the start together with the unused rest, and overwrites neither
            // until the caller releases them.
            return unsafe { self.read_first(self.capacity - index, buffer) };
        }
        let len = len as usize;
        if len > buffer.len() || record_len(len) > self.capacity - index {
            return Err(super::too_long(len, buffer.len()));
        }
        // SAFETY: the record is inside the ring and the payload fits the buffer, as just checked. The caller excludes the
        // producer.
        unsafe { self.bytes.add(index + HEADER).copy_to_nonoverlapping(buffer.as_mut_ptr(), len) };
        Ok((len, record_len(len)))
    }

    /// The record at the start of the ring, after `unused` bytes at its end.
    ///
    /// # Safety
    /// As [`read`](Records::read), of position 0.
    #[cold]
    unsafe fn read_first(&self, unused: usize, buffer: &mut [u8]) -> io::Result<(usize, usize)> {
        // SAFETY: the caller's.
        let (len, taken) = unsafe { self.read(0, buffer)? };
        Ok((len, unused + taken))
    }
}
