//! A watcher's walk over the records while both sides run. It reads only, so the producer may overwrite what it reads: each copy is
//! checked afterwards, as with a sequence lock.

use crate::protocol::corruption::Corruption;
use crate::protocol::reader::record_at;
use crate::protocol::record::WORD;
use crate::protocol::ring::{Ring, is_reached};
use crate::protocol::sync::{Ordering, fence};

/// What a look at the records found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// No further record is committed.
    Nothing,
    /// A record, whose payload was copied.
    Record { start: u64, tag: u32 },
    /// The producer has overwritten records that were not seen. The walk goes on after this many bytes, with the oldest record that
    /// is not released.
    Missed { bytes: u64 },
}

/// A watcher's walk over the records.
#[derive(Debug)]
pub(crate) struct Tap {
    ring: Ring,
    at: u64,
}

impl Tap {
    /// Begins with the oldest record that is not released.
    pub(crate) fn at_unread(ring: Ring) -> Self {
        let at = oldest_unread(&ring);
        Tap { ring, at }
    }

    /// Begins with the next record to be committed.
    pub(crate) fn at_tail(ring: Ring) -> Self {
        // ORDERING: Acquire, as in `next`.
        let at = ring.header().tail.0.load(Ordering::Acquire);
        Tap { ring, at }
    }

    /// The position of the next record.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    /// Copies the next record's payload to `payload` and goes on to the one after it. Bounded work.
    pub(crate) fn next(&mut self, payload: &mut Vec<u8>) -> Result<Seen, Corruption> {
        // ORDERING: Acquire, pairs with the Release store in `Writer::publish`: the records before the tail are visible, and so is the
        // `reach` that was announced before they were written.
        let tail = self.ring.header().tail.0.load(Ordering::Acquire);
        if tail == self.at {
            return Ok(Seen::Nothing);
        }
        let distance = tail.wrapping_sub(self.at);
        if tail % WORD != 0 || self.at % WORD != 0 || distance > i64::MAX as u64 {
            return Err(Corruption { word: "tail", position: self.at, found: tail });
        }
        if distance > self.ring.capacity() {
            return self.skip(tail);
        }
        // Relaxed: the tail was loaded with Acquire.
        let word = self.ring.word(self.at).load(Ordering::Relaxed);
        // A word of a later lap may seem to have any length.
        if !self.is_intact(tail)? {
            return self.skip(tail);
        }
        let found =
            record_at(&self.ring, self.at, word).and_then(|found| match is_reached(tail, found.end) {
                true => Ok(found),
                false => Err(Corruption { word: "record header", position: self.at, found: word }),
            });
        if let Ok(found) = &found {
            payload.clear();
            payload.reserve(found.length());
            // SAFETY: the ring is mapped while the walk exists (`Ring::new`). There is space for the payload, all of which is written.
            unsafe {
                found.payload().read(payload.as_mut_ptr());
                payload.set_len(found.length());
            }
        }
        if !self.is_intact(tail)? {
            return self.skip(tail);
        }
        let found = found?;
        self.at = found.end;
        Ok(Seen::Record { start: found.start, tag: found.tag() })
    }

    /// Whether nothing that was read from here on had been overwritten by then. The records before `tail` were committed earlier.
    fn is_intact(&self, tail: u64) -> Result<bool, Corruption> {
        // ORDERING: Acquire fence, pairs with the Release fence in `Ring::announce_write`: if a byte that was read before was already of
        // a later lap, the load below finds the `reach` that was announced before it was written.
        fence(Ordering::Acquire);
        // ORDERING: Acquire, pairs with the Release store there: the `head` that `skip` loads is the one that permitted the write.
        let reach = self.ring.header().produced.0.reach.load(Ordering::Acquire);
        if !is_reached(reach, tail) {
            return Err(Corruption { word: "reach", position: tail, found: reach });
        }
        Ok(is_reached(self.at.wrapping_add(self.ring.capacity()), reach))
    }

    /// Goes on where no record was overwritten yet.
    fn skip(&mut self, tail: u64) -> Result<Seen, Corruption> {
        let next = oldest_unread(&self.ring);
        let bytes = next.wrapping_sub(self.at);
        if bytes == 0 || bytes > i64::MAX as u64 {
            return Err(Corruption { word: "head", position: tail, found: next });
        }
        self.at = next;
        Ok(Seen::Missed { bytes })
    }
}

/// The position of the oldest record that is not released, or of the first one that is not known to be committed.
fn oldest_unread(ring: &Ring) -> u64 {
    let header = ring.header();
    // ORDERING: Acquire, pairs with the Release stores in `Reader::release` and `Writer::publish`: what lies there was written before.
    let head = header.head.0.load(Ordering::Acquire);
    let tail = header.tail.0.load(Ordering::Acquire);
    // The tail may lag behind the head for a moment.
    if is_reached(tail, head) { head } else { tail }
}
