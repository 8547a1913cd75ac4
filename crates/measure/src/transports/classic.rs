//! The classic ring: published positions, and each side caches the other's.

use std::io;
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{
    AtomicUsize,
    Ordering::{Acquire, Release},
};

use super::{Invitation, Invited, Mode, Transport};
use crate::channel::Channel;
use crate::control::Line;
use crate::endpoint::Endpoint;
use crate::errors::unfit;
use crate::patience::Patience;
use crate::segment::Segment;

/// The classic single-producer ring of bytes with cached positions, one each way, polled.
pub const CLASSIC: &dyn Transport = &Classic;

struct Classic;

impl Transport for Classic {
    fn name(&self) -> &'static str {
        "classic"
    }

    fn mode(&self) -> Mode {
        Mode::Polls
    }

    fn about(&self) -> &'static str {
        "the usual ring: published positions, each cached by the other side"
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let capacity = invitation.capacity();
        if !capacity.is_power_of_two() || capacity < 64 {
            return Err(unfit(format!("a ring of {capacity} bytes: not a power of two from 64 on")));
        }
        let segment = Rc::new(Segment::create(2 * ring_len(capacity))?);
        invitation.tell(capacity);
        invitation.tell(segment.id());
        Ok(Endpoint::new(Ends { out: Out::new(&segment, 0, capacity), back: In::new(&segment, 1, capacity) }))
    }

    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        let capacity = invited.word()?;
        let segment = Rc::new(Segment::join(invited.word()?, 2 * ring_len(capacity))?);
        Ok(Endpoint::new(Ends { out: Out::new(&segment, 1, capacity), back: In::new(&segment, 0, capacity) }))
    }
}

/// The positions, before the bytes. They count bytes since the start and never wrap.
#[repr(C)]
struct Positions {
    tail: Line<AtomicUsize>,
    head: Line<AtomicUsize>,
}

/// The positions have their own page, so that the bytes start on a page.
const BYTES: usize = 4096;
const RECORD_HEADER: usize = 8;
/// A length that marks the rest of the ring as unused. The next record is at the start.
const WRAP: u64 = u64::MAX;

/// Positions and bytes of one direction.
///
/// ```text
/// 0 tail | 128 head | 4096 bytes ... 4096 + capacity
/// record = length (8 bytes), payload, padding to 8
/// ```
fn ring_len(capacity: usize) -> usize {
    BYTES + capacity
}

fn record_len(payload: usize) -> usize {
    RECORD_HEADER + payload.next_multiple_of(8)
}

/// One direction, for both ends.
struct Ring {
    positions: *const Positions,
    bytes: *mut u8,
    capacity: usize,
    /// Keeps the memory behind the pointers.
    _segment: Rc<Segment>,
}

impl Ring {
    /// The ring number `which` of a segment that holds two of that capacity.
    fn new(segment: &Rc<Segment>, which: usize, capacity: usize) -> Ring {
        // SAFETY: the segment holds two successive rings of this length, and starts on a page.
        let base = unsafe { segment.base().add(which * ring_len(capacity)) };
        // SAFETY: a ring is longer than the page before its bytes.
        let bytes = unsafe { base.add(BYTES) };
        Ring { positions: base.cast(), bytes, capacity, _segment: Rc::clone(segment) }
    }

    #[inline(always)]
    fn positions(&self) -> &Positions {
        // SAFETY: mapped as long as the ring lives, aligned to a page or to the capacity, and all of it is atomic.
        unsafe { &*self.positions }
    }

    #[inline(always)]
    fn index(&self, position: usize) -> usize {
        position & (self.capacity - 1)
    }
}

/// The producer's end.
struct Out {
    ring: Ring,
    tail: usize,
    /// `head` as last read. It only grows, so there is at least this much space.
    seen_head: usize,
}

/// The consumer's end.
struct In {
    ring: Ring,
    head: usize,
    /// `tail` as last read.
    seen_tail: usize,
}

impl Out {
    fn new(segment: &Rc<Segment>, which: usize, capacity: usize) -> Out {
        Out { ring: Ring::new(segment, which, capacity), tail: 0, seen_head: 0 }
    }

    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let need = record_len(message.len());
        let index = self.ring.index(self.tail);
        let to_end = self.ring.capacity - index;
        let unused = if to_end < need { to_end } else { 0 };
        let mut patience = Patience::new();
        while self.tail + unused + need - self.seen_head > self.ring.capacity {
            // ORDERING: Acquire, with the Release store in `recv`: the consumer has read the bytes to overwrite.
            self.seen_head = self.ring.positions().head.0.load(Acquire);
            patience.pause()?;
        }
        let start = if unused == 0 { index } else { 0 };
        // SAFETY: records start at multiples of 8, and indices are below the capacity, a multiple of 8. So the header words
        // are inside and aligned. The record does not extend past the end: to_end >= need, or it starts at 0 and the space
        // just found is at least need. The consumer does not read between head and head + capacity until tail covers it.
        unsafe {
            if unused != 0 {
                self.ring.bytes.add(index).cast::<u64>().write(WRAP);
            }
            let record = self.ring.bytes.add(start);
            record.cast::<u64>().write(message.len() as u64);
            ptr::copy_nonoverlapping(message.as_ptr(), record.add(RECORD_HEADER), message.len());
        }
        self.tail += unused + need;
        // ORDERING: Release, with the Acquire load in `recv`: a consumer that sees the position sees the record before it.
        self.ring.positions().tail.0.store(self.tail, Release);
        Ok(())
    }
}

impl In {
    fn new(segment: &Rc<Segment>, which: usize, capacity: usize) -> In {
        In { ring: Ring::new(segment, which, capacity), head: 0, seen_tail: 0 }
    }

    #[inline(always)]
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut patience = Patience::new();
        loop {
            while self.head == self.seen_tail {
                // ORDERING: Acquire, with the Release store in `send`.
                self.seen_tail = self.ring.positions().tail.0.load(Acquire);
                if self.head == self.seen_tail {
                    patience.pause()?;
                }
            }
            let index = self.ring.index(self.head);
            // SAFETY: a multiple of 8 below the capacity. The producer wrote it before the tail that was loaded, and writes
            // it again only after the head that is stored below.
            let len = unsafe { self.ring.bytes.add(index).cast::<u64>().read() };
            if len == WRAP {
                self.head += self.ring.capacity - index;
                continue;
            }
            let len = len as usize;
            if len > buffer.len() || record_len(len) > self.ring.capacity - index {
                return Err(too_long(len, buffer.len()));
            }
            // SAFETY: the record is inside the ring and the payload fits the buffer, as just checked. The producer does not
            // write it until the head that is stored below.
            unsafe {
                let payload = self.ring.bytes.add(index + RECORD_HEADER);
                ptr::copy_nonoverlapping(payload, buffer.as_mut_ptr(), len);
            }
            self.head += record_len(len);
            // ORDERING: Release, with the Acquire load in `send`: the copy is complete before the space is released.
            self.ring.positions().head.0.store(self.head, Release);
            return Ok(len);
        }
    }
}

#[cold]
fn too_long(len: usize, room: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a message of {len} bytes, expected {room}"))
}

/// The two ends of one process.
struct Ends {
    out: Out,
    back: In,
}

impl Channel for Ends {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.out.send(message)
    }

    #[inline(always)]
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.back.recv(buffer)
    }

    /// A record of this length fits wherever it starts, including the unused rest of the ring.
    fn max_len(&self) -> usize {
        self.out.ring.capacity / 2 - RECORD_HEADER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_all_lengths_wrap_intact() {
        let segment = Rc::new(Segment::create(2 * ring_len(256)).unwrap());
        let (mut out, mut back) = (Out::new(&segment, 0, 256), In::new(&segment, 0, 256));
        let mut buffer = [0; 120];
        for round in 0..2000_usize {
            let message = vec![round as u8; round % 121];
            out.send(&message).unwrap();
            assert_eq!(back.recv(&mut buffer).unwrap(), message.len());
            assert_eq!(buffer[..message.len()], message);
        }
    }

    #[test]
    fn message_longer_than_the_buffer_is_refused() {
        let segment = Rc::new(Segment::create(2 * ring_len(256)).unwrap());
        let (mut out, mut back) = (Out::new(&segment, 0, 256), In::new(&segment, 0, 256));
        out.send(&[1; 9]).unwrap();
        assert_eq!(back.recv(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
