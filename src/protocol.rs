//! The protocol: who may move which word of the ring, when, and what the other side may then believe.
//!
//! `head` is the read position and `tail` the write position, both counted in bytes since the pipe was made and never wrapped; an
//! *index* is a position masked into the ring. word(P) is the 8 bytes of the ring at position P.
//!
//! # Publishing
//! A record is published by one Release store of its own header word, which the consumer polls: for a small message
//! one cache line moves instead of two. For that, word(tail) is zero at all times, so a record's successor word is
//! cleared before the record is committed.
//!
//! 1. There is space for the record and for the header word after it (by a private copy of `head`, refreshed when it
//!    falls short).
//! 2. Clear the header word after the record, as committed: a reservation may have been longer. Where it starts a
//!    cache line it has been cleared before (6), and the record's own lines are the only ones that a commit writes to.
//! 3. Write the payload.
//! 4. Store word(record): the commit.
//! 5. Store `tail`, a hint for recovery.
//! 6. Clear the first word of the lines ahead, a few lines at a time: see `clear_ahead` in `front.rs`.
//!
//! What has to be known for 1 and 2 is one number, the `runway` of the front; what a reader has to know is one, its limit.
//!
//! A record that would cross the end of the ring stands at index 0, and the commit stores [`record::WRAP`] at the old
//! tail. A batch is committed by its first record's word: all or nothing.
//!
//! # Sources
//! Publishing by the length word in the record is what Martin Thompson's Agrona and Aeron do; clearing the next word
//! ahead of the commit is theirs as well. Recovery by walking, without a third party, and the batch committed by its
//! first word are this crate's.

pub(crate) mod bell;
pub(crate) mod copy;
pub(crate) mod corruption;
pub(crate) mod front;
pub(crate) mod half;
pub(crate) mod layout;
pub(crate) mod peer;
pub(crate) mod processor;
pub(crate) mod reader;
pub(crate) mod record;
pub(crate) mod recovery;
pub(crate) mod ring;
pub(crate) mod sync;
pub(crate) mod writer;

#[cfg(all(test, shmpipe_loom))]
mod models;
