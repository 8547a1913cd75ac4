//! Messages that become visible together.

use crate::endpoint::deadline::{At, Deadline, Never, Now};
use crate::endpoint::payload::{Bytes, Outgoing, Payload, total_length};
use crate::endpoint::producer::{Producer, SHORT};
use crate::endpoint::trust::Untrusted;
use crate::error::{Rejected, SendError, SendTimeoutError, TrySendError};
use crate::position::Position;
use crate::protocol::front::{Slot, Uncommitted};
use std::fmt;
use std::time::{Duration, Instant};

/// Messages that become visible all at once, begun by [`Producer::batch`].
///
/// Dropping it without [`commit`](Batch::commit) sends none. A push fails like a send, with
/// [`TooLarge`](SendError::TooLarge) also if the whole batch would not fit into an empty ring. The messages added before stay in
/// the batch.
///
/// ```
/// # let pipe = shmpipe::Options::new().create("memfd")?;
/// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
/// let mut batch = producer.batch();
/// batch.push(b"both")?;
/// batch.push(b"or neither")?;
/// batch.commit();
/// assert_eq!(consumer.recv()?.to_vec(), b"both");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "nothing is sent before commit"]
pub struct Batch<'a, P = Untrusted> {
    producer: &'a mut Producer<P>,
    records: Uncommitted,
}

impl<P> fmt::Debug for Batch<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("len", &self.len()).finish_non_exhaustive()
    }
}

// A push is always in line: a call, and a result in memory, cost as much as a short message.
impl<'a, P> Batch<'a, P> {
    pub(super) fn new(producer: &'a mut Producer<P>) -> Self {
        let records = producer.inner.writer.begin();
        Batch { producer, records }
    }

    /// Adds a message if there is space now.
    ///
    /// Never blocks, and like [`Producer::try_send`] leaves questions to the kernel to [`Producer::check`]. A batch can take what
    /// fits:
    ///
    /// ```
    /// # let pipe = shmpipe::Options::new().capacity(4096).create("memfd")?;
    /// # let mut producer = pipe.producer()?;
    /// let mut batch = producer.batch();
    /// while batch.try_push(&[0u8; 1000]).is_ok() {}
    /// assert_eq!(batch.len(), 4);
    /// batch.commit();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`TrySendError::Full`] if there is no space now; [`TooLarge`](TrySendError::TooLarge), [`Closed`](TrySendError::Closed),
    /// [`PeerAborted`](TrySendError::PeerAborted) or [`Corrupt`](TrySendError::Corrupt) as from [`Producer::try_send`].
    #[inline(always)]
    pub fn try_push(&mut self, message: impl Payload) -> Result<Position, TrySendError> {
        self.push_one(message.outgoing(), Now)
    }

    /// Adds a message; blocks while the pipe is full.
    ///
    /// The batch itself takes space too. A push waits until the consumer has released messages sent before the batch.
    ///
    /// # Errors
    /// [`SendError::TooLarge`] if the message is longer than [`Producer::max_len`], or the batch would not fit into an empty
    /// ring; otherwise as [`Producer::send`].
    #[inline(always)]
    pub fn push(&mut self, message: impl Payload) -> Result<Position, SendError> {
        self.push_one(message.outgoing(), Never)
    }

    /// Adds a message; blocks for `timeout` at most while the pipe is full.
    ///
    /// Reads the clock at the call.
    ///
    /// # Errors
    /// [`SendTimeoutError::TimedOut`] if there was no space in time; otherwise as [`push`](Self::push).
    #[inline(always)]
    pub fn push_timeout(
        &mut self,
        message: impl Payload,
        timeout: Duration,
    ) -> Result<Position, SendTimeoutError> {
        self.push_one(message.outgoing(), At::timeout(timeout))
    }

    /// Adds a message; blocks until `deadline` at most while the pipe is full.
    ///
    /// # Errors
    /// [`SendTimeoutError::TimedOut`] if there was no space in time; otherwise as [`push`](Self::push).
    #[inline(always)]
    pub fn push_deadline(
        &mut self,
        message: impl Payload,
        deadline: Instant,
    ) -> Result<Position, SendTimeoutError> {
        self.push_one(message.outgoing(), At::deadline(deadline))
    }

    #[inline(always)]
    fn push_one<D: Deadline>(
        &mut self,
        Outgoing { tag, bytes }: Outgoing<'_>,
        deadline: D,
    ) -> Result<Position, D::SendError> {
        match bytes {
            Bytes::Whole(message) => {
                if message.len() <= SHORT {
                    let writer = &self.producer.inner.writer;
                    if let Some(slot) = writer.slot_fast(&self.records.front, message.len()) {
                        writer.append_fast(&mut self.records, slot, message, tag);
                        return Ok(Position(slot.start));
                    }
                }
                self.push_out_of_line(tag, message, deadline)
            }
            Bytes::Parts(parts) => self.push_parts(tag, parts, deadline),
        }
    }

    #[inline(never)]
    fn push_out_of_line<D: Deadline>(
        &mut self,
        tag: u32,
        message: &[u8],
        deadline: D,
    ) -> Result<Position, D::SendError> {
        let slot = self.slot(message.len(), deadline)?;
        let inner = &mut self.producer.inner;
        let streaming = inner.is_streaming(message.len());
        inner.writer.fill(slot, message, streaming);
        inner.writer.append(&mut self.records, slot, message.len(), tag);
        Ok(Position(slot.start))
    }

    #[inline(never)]
    fn push_parts<D: Deadline>(
        &mut self,
        tag: u32,
        parts: &[&[u8]],
        deadline: D,
    ) -> Result<Position, D::SendError> {
        let length = total_length(parts);
        let slot = self.slot(length, deadline)?;
        let inner = &mut self.producer.inner;
        inner.fill_parts(slot, parts, length);
        inner.writer.append(&mut self.records, slot, length, tag);
        Ok(Position(slot.start))
    }

    /// A slot for a message of `length` bytes behind the last one.
    fn slot<D: Deadline>(&mut self, length: usize, deadline: D) -> Result<Slot, D::SendError> {
        let inner = &mut self.producer.inner;
        inner.check_length(length)?;
        let at = self.records.front.at;
        let needed = inner.writer.span(at, length);
        let capacity = inner.writer.ring().capacity();
        if needed > capacity {
            return Err(Rejected::TooLarge { length: needed as usize, max: capacity as usize }.into());
        }
        inner.slot_at(at, length, deadline).inspect_err(|_| {
            // After corruption there is no space for shorter messages either.
            self.records.front.take();
        })
    }

    /// Returns the number of messages in the batch.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.messages as usize
    }

    /// Returns whether the batch holds no message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.messages == 0
    }

    /// Sends all messages at once.
    ///
    /// The consumer sees all or none, even if this process is killed meanwhile. Never blocks.
    // Always in line: see `Reservation::commit`.
    #[inline(always)]
    pub fn commit(self) {
        if !self.is_empty() {
            self.producer.inner.writer.commit_batch(&self.records);
        }
    }
}
