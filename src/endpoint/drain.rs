//! Several messages received together.

use crate::endpoint::consumer::Consumer;
use crate::endpoint::message::Record;
use crate::endpoint::trust::Untrusted;
use crate::protocol::corruption::Corruption;
use crate::protocol::liveness::Peer;
use std::fmt;
use std::mem::ManuallyDrop;

/// Several messages received together, by [`Consumer::drain`].
///
/// Dropping it releases them all, with one store, also if a panic drops it, unless
/// [`Options::keep_unread_on_panic`](crate::Options::keep_unread_on_panic) is set.
///
/// ```
/// # let pipe = shmpipe::Options::new().create("memfd")?;
/// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
/// producer.send(b"one")?;
/// producer.send(b"two")?;
/// let mut drain = consumer.drain(64);
/// while let Some(record) = drain.next()? {
///     println!("{} bytes at {}", record.len(), record.position());
/// }
/// drain.release();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a drain takes nothing by itself: call next"]
pub struct Drain<'a, P = Untrusted> {
    consumer: &'a mut Consumer<P>,
    limit: usize,
    /// The position behind the messages taken, and the reader's limit there.
    end: u64,
    end_limit: u64,
    messages: u64,
    bytes: u64,
}

impl<P> fmt::Debug for Drain<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain")
            .field("taken", &self.messages)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl<'a, P> Drain<'a, P> {
    pub(super) fn new(consumer: &'a mut Consumer<P>, limit: usize) -> Self {
        let (end, end_limit) = (consumer.inner.reader.head(), consumer.inner.reader.limit());
        Drain { consumer, limit, end, end_limit, messages: 0, bytes: 0 }
    }

    /// Returns the next message, or `None` if there is none now or `limit` were taken.
    ///
    /// The message stays in the ring until the drain is dropped. Never blocks. A loop is `while let Some(record) =
    /// drain.next()?`.
    ///
    /// # Errors
    /// [`Corruption`] if the producer broke the protocol.
    #[inline]
    #[allow(
        clippy::should_implement_trait,
        reason = "a record borrows from the drain, which no Iterator can express"
    )]
    pub fn next(&mut self) -> Result<Option<Record<'_, P>>, Corruption> {
        if self.messages >= self.limit as u64 {
            return Ok(None);
        }
        let reader = &mut self.consumer.inner.reader;
        let located = match reader.peek_next(self.end, self.end_limit) {
            Ok(Some(located)) => located,
            Ok(None) => return Ok(None),
            Err(corruption) => {
                // The reader accepts nothing more, and the release must not change that.
                self.end_limit = 0;
                return Err(corruption);
            }
        };
        (self.end, self.end_limit) = (located.end, located.limit);
        self.messages += 1;
        self.bytes += located.length() as u64;
        Ok(Some(Record::new(located)))
    }

    /// Returns the number of messages taken so far.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.messages as usize
    }

    /// Returns what this side knows about the producer now, as [`Consumer::peer`] does.
    ///
    /// For a caller that holds messages while it waits for more: a producer that has gone sends no more. It may have sent some
    /// just before.
    ///
    /// ```
    /// # use shmpipe::Peer;
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
    /// producer.send(b"one")?;
    /// let mut drain = consumer.drain(64);
    /// while drain.next()?.is_some() {}
    /// assert_eq!(drain.peer(), Peer::Open);
    /// producer.close()?;
    /// assert_eq!(drain.peer(), Peer::Closed);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.consumer.peer()
    }

    /// Returns the space of all messages taken to the producer.
    ///
    /// Dropping does the same, except for a drop by a panic with
    /// [`Options::keep_unread_on_panic`](crate::Options::keep_unread_on_panic).
    #[inline(always)]
    pub fn release(self) {
        let mut drain = ManuallyDrop::new(self);
        if drain.messages > 0 && drain.consumer.inner.may_release() {
            drain.release_now();
        }
    }

    #[inline(always)]
    fn release_now(&mut self) {
        self.consumer.inner.reader.release(self.end, self.end_limit, self.messages, self.bytes);
    }

    /// Leaves the messages in the pipe: they are received again.
    ///
    /// ```
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
    /// producer.send(b"one")?;
    /// let mut drain = consumer.drain(64);
    /// drain.next()?;
    /// drain.requeue();
    /// assert_eq!(consumer.recv()?.to_vec(), b"one");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn requeue(self) {
        // The borrow of the consumer needs no drop.
        std::mem::forget(self);
    }
}

impl<P> Drop for Drain<'_, P> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.messages > 0 && self.consumer.inner.may_release_dropped() {
            self.release_now();
        }
    }
}
