//! The protocol: which side may write which word of the ring, when, and what the other side may conclude from it.
//!
//! `head` is the read position and `tail` the write position. Both count bytes since the pipe was created and never wrap. An
//! *index* is a position masked to the size of the ring. word(P) is the 8 bytes of the ring at position P.
//!
//! # Publishing
//! The producer publishes a record with one Release store of the record's own header word, which the consumer polls. For a
//! small message, one cache line moves instead of two. This requires that word(tail) is zero at all times, so the producer
//! clears the header word after a record before it commits the record.
//!
//! 1. Check for space for the record and for the header word after it. The check uses a private copy of `head`, which is
//!    refreshed when it shows too little space.
//! 2. Clear the header word after the record. The committed length counts: the reservation may have been longer. A header
//!    word that starts a cache line was cleared earlier (step 6), so a commit writes only to the record's own lines.
//! 3. Write the payload.
//! 4. Store word(record): the commit.
//! 5. Store `tail`, a hint for recovery.
//! 6. Clear the first word of the next lines, a few lines at a time: see `acquire_ahead` in `front.rs`.
//!
//! Steps 1 and 2 need one number, the `runway` of the front. The reader needs one number too, its limit.
//!
//! A record that would cross the end of the ring goes to index 0, and the commit stores [`record::WRAP`] at the old tail.
//! The word of its first record commits a batch: all of it or nothing.
//!
//! # Sources
//! Martin Thompson's Agrona and Aeron publish by the length word in the record, and clear the next word before the commit.
//! This crate adds recovery by walking the records, without a third party, and the commit of a batch by its first word.

pub(crate) mod copy;
pub(crate) mod corruption;
pub(crate) mod duplex;
pub(crate) mod front;
pub(crate) mod half;
pub(crate) mod latency;
pub(crate) mod layout;
pub(crate) mod liveness;
pub(crate) mod processor;
pub(crate) mod reader;
pub(crate) mod record;
pub(crate) mod recovery;
pub(crate) mod ring;
pub(crate) mod sleep;
pub(crate) mod sync;
pub(crate) mod tap;
pub(crate) mod wakeup;
pub(crate) mod writer;

#[cfg(all(test, shmpipe_loom))]
pub(crate) mod models;
