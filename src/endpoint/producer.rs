//! The sending end.

use crate::endpoint::batch::Batch;
use crate::endpoint::cancel::CancelHandle;
use crate::endpoint::claim::Claim;
use crate::endpoint::deadline::{At, Deadline, Never, Now};
use crate::endpoint::distance::Distance;
use crate::endpoint::payload::{Bytes, Outgoing, Payload, total_length};
use crate::endpoint::reservation::Reservation;
use crate::endpoint::stream_backoff::StreamBackoff;
use crate::endpoint::trust::{Trusted, Untrusted};
use crate::endpoint::wait::{Awaited, wait_for};
use crate::error::{
    CloseError, Lost, Rejected, SendError, SendTimeoutError, SetupError, TrySendError, WaitError,
};
use crate::pipe::Pipe;
use crate::position::Position;
use crate::protocol::copy;
use crate::protocol::corruption::Corruption;
use crate::protocol::front::Slot;
use crate::protocol::half::Half;
use crate::protocol::layout::{MIN_CAPACITY, count_wait};
use crate::protocol::liveness::{Peer, Role};
use crate::protocol::processor::Processor;
use crate::protocol::record;
use crate::protocol::sync::Futex;
use crate::protocol::writer::{ReserveError, Writer};
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

/// The sending end of a pipe. A pipe has one at a time. Dropping it closes the pipe for this side.
///
/// A producer can move to another thread; one thread uses it at a time. There are three ways to send, each in four forms:
///
/// | | now or not at all | blocks | for a [`Duration`] at most | until an [`Instant`] |
/// |---|---|---|---|---|
/// | copies a [`Payload`] | [`try_send`](Self::try_send) | [`send`](Self::send) | [`send_timeout`](Self::send_timeout) | [`send_deadline`](Self::send_deadline) |
/// | reserves space to write in | [`try_reserve`](Self::try_reserve) | [`reserve`](Self::reserve) | [`reserve_timeout`](Self::reserve_timeout) | [`reserve_deadline`](Self::reserve_deadline) |
/// | adds to a [`batch`](Self::batch) | [`try_push`](Batch::try_push) | [`push`](Batch::push) | [`push_timeout`](Batch::push_timeout) | [`push_deadline`](Batch::push_deadline) |
///
/// # When the consumer goes away
/// | the consumer | `send` into a full pipe |
/// |---|---|
/// | never attached, or its end was reported already | blocks |
/// | is alive and does not receive | blocks |
/// | closed while this producer was attached | [`Closed`](SendError::Closed) at once, even if there is space |
/// | died | [`PeerDied`](SendError::PeerDied) once, within 200 ms; the next call waits for a successor |
///
/// # Progress
/// A send that need not wait is wait-free: a bounded number of steps, whatever the consumer does. It makes one pass over the payload,
/// and a system call only to wake a sleeping consumer.
pub struct Producer<P = Untrusted> {
    pub(super) inner: Inner,
    /// The promise; and a `Cell`, which keeps two threads from using a reference at the same time.
    promise: PhantomData<(P, Cell<()>)>,
}

/// Bytes of the longest message that is sent in line with the caller's code, where a call would cost as much as the copy. Every
/// ring takes it.
pub(super) const SHORT: usize = record::max_length(MIN_CAPACITY) as usize;

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) writer: Writer,
    max: usize,
    backoff: StreamBackoff,
    distance: Distance,
    cancel: CancelHandle,
    claim: Claim,
}

impl Inner {
    /// Whether a message of this length is better written with non-temporal stores.
    #[inline(always)]
    pub(super) fn is_streaming(&mut self, length: usize) -> bool {
        length >= copy::LONG && self.is_far(length)
    }

    fn is_far(&mut self, length: usize) -> bool {
        let Inner { writer, distance, .. } = self;
        if distance.is_due(length) {
            let (last, load) = writer.last_and_next_head();
            distance.read(last, load);
        }
        distance.is_far()
    }

    /// A slot for a message of `length` bytes behind the tail.
    #[inline(never)]
    pub(super) fn slot<D: Deadline>(&mut self, length: usize, deadline: D) -> Result<Slot, D::SendError> {
        self.check_length(length)?;
        self.slot_at(self.writer.tail(), length, deadline)
    }

    pub(super) fn check_length(&self, length: usize) -> Result<(), Rejected> {
        let max = self.max;
        if length > max { Err(Rejected::TooLarge { length, max }) } else { Ok(()) }
    }

    /// A slot for a message of `length` bytes behind `at`.
    #[inline(always)]
    pub(super) fn slot_at<D: Deadline>(
        &mut self,
        at: u64,
        length: usize,
        deadline: D,
    ) -> Result<Slot, D::SendError> {
        match self.writer.slot(at, length) {
            Ok(slot) => Ok(slot),
            Err(ReserveError::Full) => deadline.for_space(|until| self.wait_for_space(at, length, until)),
            Err(ReserveError::Closed) => Err(Rejected::Closed.into()),
            Err(ReserveError::Corrupt(corruption)) => Err(Rejected::Corrupt(corruption).into()),
        }
    }

    #[cold]
    #[inline(never)]
    fn wait_for_space(
        &mut self,
        at: u64,
        length: usize,
        deadline: Option<Instant>,
    ) -> Result<Slot, SendTimeoutError> {
        let Inner { writer, cancel, claim, backoff, .. } = self;
        backoff.pause(writer.counters().messages(), writer.tail());
        count_wait(writer.counters());
        let strategy = claim.pipe().wait();
        wait_for(Space { writer, claim, at, length }, strategy, deadline, cancel)
    }

    /// Writes a message in parts into its slot, all but the word that commits it.
    pub(super) fn fill_parts(&mut self, slot: Slot, parts: &[&[u8]], length: usize) {
        self.writer.clear_next(slot);
        self.writer.clear_padding(slot);
        let payload = self.writer.payload(slot, length);
        let mut offset = 0;
        for part in parts {
            // SAFETY: the claim keeps the ring mapped, and the parts are `length` bytes together.
            unsafe { payload.write(offset, part, self.is_streaming(part.len())) };
            offset += part.len();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // It fails only if the pipe was removed, and the claim with it.
        let _ = self.claim.end(&mut self.writer);
    }
}

impl<P> fmt::Debug for Producer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("address", self.pipe().address())
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}

impl Producer {
    pub(crate) fn claim(pipe: &Pipe) -> Result<Self, SetupError> {
        let claim = Claim::take(pipe, Role::Producer)?;
        let processor = Processor::this();
        let longest_acquired = processor.longest_acquired();
        let writer = Writer::recover(pipe.ring(), pipe.wake_mode(), longest_acquired)?;
        let backoff =
            StreamBackoff::new(writer.ring().capacity(), writer.counters().messages(), writer.tail());
        let distance = Distance::new(processor.has_use_for_streaming_stores());
        let cancel = CancelHandle::new();
        let inner = Inner { writer, max: pipe.max_len(), backoff, distance, cancel, claim };
        Ok(Producer { inner, promise: PhantomData })
    }

    /// Promises that the consumer obeys the protocol, for the right to write messages in place.
    ///
    /// # Safety
    /// As long as the result exists,
    /// * every process that has the segment attached for writing keeps to the layout and to the protocol of this
    ///   version (LAYOUT.md); in particular, none writes to the ring but the producer.
    #[must_use = "the promise is worth nothing unless the result is used"]
    pub unsafe fn trust_peer(self) -> Producer<Trusted> {
        Producer { inner: self.inner, promise: PhantomData }
    }
}

impl<P> Producer<P> {
    /// Sends a message if there is space now.
    ///
    /// # Errors
    /// [`TrySendError`].
    #[inline(always)]
    pub fn try_send(&mut self, message: impl Payload) -> Result<Position, TrySendError> {
        self.send_one(message.outgoing(), Now)
    }

    /// Sends a message. Blocks while the pipe is full.
    ///
    /// # Errors
    /// [`SendError`].
    #[inline(always)]
    pub fn send(&mut self, message: impl Payload) -> Result<Position, SendError> {
        self.send_one(message.outgoing(), Never)
    }

    /// Sends a message. Blocks for `timeout` at most while the pipe is full. Reads the clock at the call.
    ///
    /// # Errors
    /// [`SendTimeoutError`].
    #[inline]
    pub fn send_timeout(
        &mut self,
        message: impl Payload,
        timeout: Duration,
    ) -> Result<Position, SendTimeoutError> {
        self.send_one(message.outgoing(), At::timeout(timeout))
    }

    /// Sends a message. Blocks until `deadline` at most while the pipe is full.
    ///
    /// # Errors
    /// [`SendTimeoutError`].
    #[inline]
    pub fn send_deadline(
        &mut self,
        message: impl Payload,
        deadline: Instant,
    ) -> Result<Position, SendTimeoutError> {
        self.send_one(message.outgoing(), At::deadline(deadline))
    }

    #[inline(always)]
    fn send_one<D: Deadline>(
        &mut self,
        Outgoing { tag, bytes }: Outgoing<'_>,
        deadline: D,
    ) -> Result<Position, D::SendError> {
        match bytes {
            Bytes::Whole(message) => {
                if message.len() <= SHORT {
                    if let Some(position) = self.send_fast(tag, message) {
                        return Ok(position);
                    }
                }
                self.send_out_of_line(tag, message, deadline)
            }
            Bytes::Parts(parts) => self.send_parts(tag, parts, deadline),
        }
    }

    /// Sends a message of at most `max_len` bytes, if there is space for it in the usual place.
    #[inline(always)]
    fn send_fast(&mut self, tag: u32, message: &[u8]) -> Option<Position> {
        let writer = &mut self.inner.writer;
        let slot = writer.slot_fast(writer.front(), message.len())?;
        slot.fill(message);
        writer.commit_fast(slot, message.len(), tag);
        Some(Position(slot.start))
    }

    #[inline(never)]
    fn send_out_of_line<D: Deadline>(
        &mut self,
        tag: u32,
        message: &[u8],
        deadline: D,
    ) -> Result<Position, D::SendError> {
        let length = message.len();
        let streaming = self.inner.is_streaming(length);
        if length <= self.inner.max && !streaming {
            if let Some(position) = self.send_fast(tag, message) {
                return Ok(position);
            }
        }
        let slot = self.inner.slot(length, deadline)?;
        let writer = &mut self.inner.writer;
        writer.fill(slot, message, streaming);
        writer.commit(slot, length, tag);
        Ok(Position(slot.start))
    }

    #[inline(never)]
    fn send_parts<D: Deadline>(
        &mut self,
        tag: u32,
        parts: &[&[u8]],
        deadline: D,
    ) -> Result<Position, D::SendError> {
        let length = total_length(parts);
        let slot = self.inner.slot(length, deadline)?;
        self.inner.fill_parts(slot, parts, length);
        self.inner.writer.commit(slot, length, tag);
        Ok(Position(slot.start))
    }

    /// Reserves space for a message of up to `length` bytes, if there is space now.
    ///
    /// # Errors
    /// [`TrySendError`].
    #[inline]
    pub fn try_reserve(&mut self, length: usize) -> Result<Reservation<'_, P>, TrySendError> {
        self.reserve_one(length, Now)
    }

    /// Reserves space for a message of up to `length` bytes. Blocks while the pipe is full. The consumer sees nothing of the message
    /// before [`Reservation::commit`].
    ///
    /// ```
    /// let pipe = shmpipe::Options::new().create("memfd")?;
    /// let mut producer = pipe.producer()?;
    /// let mut space = producer.reserve(1024)?;
    /// space.write(0, b"a message whose length is not known before");
    /// space.commit_len(42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SendError`].
    #[inline]
    pub fn reserve(&mut self, length: usize) -> Result<Reservation<'_, P>, SendError> {
        self.reserve_one(length, Never)
    }

    /// Reserves space for a message of up to `length` bytes. Blocks for `timeout` at most while the pipe is full. Reads the clock
    /// at the call.
    ///
    /// # Errors
    /// [`SendTimeoutError`].
    #[inline]
    pub fn reserve_timeout(
        &mut self,
        length: usize,
        timeout: Duration,
    ) -> Result<Reservation<'_, P>, SendTimeoutError> {
        self.reserve_one(length, At::timeout(timeout))
    }

    /// Reserves space for a message of up to `length` bytes. Blocks until `deadline` at most while the pipe is full.
    ///
    /// # Errors
    /// [`SendTimeoutError`].
    #[inline]
    pub fn reserve_deadline(
        &mut self,
        length: usize,
        deadline: Instant,
    ) -> Result<Reservation<'_, P>, SendTimeoutError> {
        self.reserve_one(length, At::deadline(deadline))
    }

    #[inline(always)]
    fn reserve_one<D: Deadline>(
        &mut self,
        length: usize,
        deadline: D,
    ) -> Result<Reservation<'_, P>, D::SendError> {
        let writer = &self.inner.writer;
        let here = if length <= SHORT { writer.slot_fast(writer.front(), length) } else { None };
        // The padding is cleared now: what the caller writes later touches no byte of it.
        let (slot, payload) = match here {
            Some(here) => {
                here.clear_padding();
                (here.slot(), here.payload(length))
            }
            None => {
                let slot = self.inner.slot(length, deadline)?;
                self.inner.writer.clear_padding(slot);
                (slot, self.inner.writer.payload(slot, length))
            }
        };
        let runway = self.inner.writer.take_runway();
        Ok(Reservation::new(self, slot, payload, runway))
    }

    /// Begins a batch: messages that become visible all at once.
    ///
    /// ```
    /// let pipe = shmpipe::Options::new().create("memfd")?;
    /// let mut producer = pipe.producer()?;
    /// let mut batch = producer.batch();
    /// batch.push(b"both")?;
    /// batch.push(b"or neither")?;
    /// batch.commit();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn batch(&mut self) -> Batch<'_, P> {
        Batch::new(self)
    }

    /// Bytes of the longest message.
    #[must_use]
    pub fn max_len(&self) -> usize {
        self.inner.max
    }

    /// Bytes of ring data.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.inner.writer.ring().capacity()
    }

    /// Bytes of the ring that hold no record now. A message takes 8 bytes of header and its length rounded up to 8; as much again
    /// at the end of the ring if it does not fit there; and 8 bytes always stay free.
    ///
    /// # Errors
    /// [`Corruption`] if the consumer's read position is impossible.
    pub fn free(&mut self) -> Result<u64, Corruption> {
        self.inner.writer.free()
    }

    /// The position of the next record, or a few bytes before it.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.inner.writer.tail())
    }

    /// A handle that cancels blocked calls, from another thread or from a signal handler.
    #[must_use]
    pub fn cancel_handle(&self) -> CancelHandle {
        self.inner.cancel.clone()
    }

    /// What is known about the consumer now. At most one system call.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.inner.claim.peer(self.inner.writer.peer_state())
    }

    /// Blocks until a consumer attaches or `deadline` passes.
    ///
    /// # Errors
    /// [`WaitError`].
    pub fn wait_for_peer(&mut self, deadline: Option<Instant>) -> Result<(), WaitError> {
        let Inner { writer, cancel, claim, .. } = &self.inner;
        claim.wait_for_peer(writer, deadline, cancel)
    }

    /// The pipe.
    #[must_use]
    pub fn pipe(&self) -> &Pipe {
        self.inner.claim.pipe()
    }

    /// Closes the pipe for this side: the consumer receives what is left, then [`Closed`](crate::RecvError::Closed). Dropping does
    /// the same and cannot report an error.
    ///
    /// # Errors
    /// [`CloseError`].
    pub fn close(mut self) -> Result<(), CloseError> {
        self.inner.claim.end(&mut self.inner.writer)
    }
}

/// Space for a record of `length` bytes behind `at`.
struct Space<'a> {
    writer: &'a mut Writer,
    claim: &'a Claim,
    at: u64,
    length: usize,
}

impl Awaited for Space<'_> {
    type Output = Slot;
    type Error = SendTimeoutError;

    fn poll(&mut self) -> Result<Option<Slot>, SendTimeoutError> {
        unless_full(self.writer.slot(self.at, self.length))
    }

    fn prepare_sleep(&mut self) -> Option<u32> {
        self.writer.prepare_sleep(self.at, self.length)
    }

    fn event_count(&self) -> &Futex {
        self.writer.event_count()
    }

    fn check(&mut self) -> Result<Option<Slot>, SendTimeoutError> {
        self.claim.check(self.writer.is_succeeded())?;
        let is_gone = || self.claim.peer_is_gone().map_err(Lost::into);
        unless_full(self.writer.check_for_death::<SendTimeoutError>(self.at, self.length, is_gone)?)
    }
}

fn unless_full(slot: Result<Slot, ReserveError>) -> Result<Option<Slot>, SendTimeoutError> {
    match slot {
        Ok(slot) => Ok(Some(slot)),
        Err(ReserveError::Full) => Ok(None),
        Err(ReserveError::Closed) => Err(SendTimeoutError::Closed),
        Err(ReserveError::Corrupt(corruption)) => Err(SendTimeoutError::Corrupt(corruption)),
    }
}
