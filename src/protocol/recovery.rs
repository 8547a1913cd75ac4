//! The walk of a recovery, over the records that a dead producer left behind, to the last commit. `Writer::recover` and
//! `Reader::recover` take over the ring.

use crate::protocol::corruption::Corruption;
use crate::protocol::reader::record_at;
use crate::protocol::record::{EMPTY, WORD};
use crate::protocol::ring::{Ring, is_near, is_reached};
use crate::protocol::sync::Ordering;

/// Walks over the committed records to the first word that is zero, the true tail. The header's `tail` may lag behind it by one
/// commit or one batch, and may even be behind the head.
pub(super) fn last_commit(ring: &Ring, head: u64) -> Result<u64, Corruption> {
    // ORDERING: Acquire, pairs with the Release store in `Writer::publish`.
    let tail = ring.header().tail.0.load(Ordering::Acquire);
    if head % WORD != 0 {
        return Err(Corruption { word: "head", position: tail, found: head });
    }
    if tail % WORD != 0 || !is_near(head, tail, ring.capacity()) {
        return Err(Corruption { word: "tail", position: head, found: tail });
    }
    let mut at = if is_reached(tail, head) { tail } else { head };
    // The header word at the tail also belongs to the producer.
    let is_within = |tail: u64| tail.wrapping_add(WORD).wrapping_sub(head) <= ring.capacity();
    if !is_within(at) {
        return Err(Corruption { word: "tail", position: head, found: tail });
    }
    loop {
        // ORDERING: Acquire, pairs with the commit in `Writer::publish`.
        let word = ring.word(at).load(Ordering::Acquire);
        if word == EMPTY {
            return Ok(at);
        }
        let found = record_at(ring, at, word)?;
        if !is_within(found.end) {
            return Err(Corruption { word: "record header", position: at, found: word });
        }
        at = found.end;
    }
}

/// Bytes from the read position to the end of the last commit, while there is no producer. The header's `tail` is not enough: the
/// producer may have been killed before it stored it.
pub(crate) fn unread(ring: &Ring) -> Result<u64, Corruption> {
    // ORDERING: Acquire, pairs with the Release store in `Reader::release`.
    let head = ring.header().head.0.load(Ordering::Acquire);
    last_commit(ring, head).map(|tail| tail.wrapping_sub(head))
}
