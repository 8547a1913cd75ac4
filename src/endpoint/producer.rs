//! The sending end.

use crate::endpoint::claim::Claim;
use crate::endpoint::distance::Distance;
use crate::endpoint::stop::Stopper;
use crate::endpoint::trust::{Trusted, Untrusted};
use crate::endpoint::wait::{Awaited, Patience, Rest, wait_for};
use crate::error::{SendError, SetupError};
use crate::pipe::Pipe;
use crate::position::Position;
use crate::protocol::copy;
use crate::protocol::front::{Slot, Uncommitted};
use crate::protocol::half::Half;
use crate::protocol::layout::MIN_CAPACITY;
use crate::protocol::layout::count_wait;
use crate::protocol::peer::{Peer, Role};
use crate::protocol::processor::Processor;
use crate::protocol::record;
use crate::protocol::ring::Payload;
use crate::protocol::writer::{Refusal, Writer};
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

/// The sending end of a pipe. There is one at a time; dropping it closes the pipe for this side.
///
/// It can be sent to another thread, and is used by one at a time. Its methods come in four forms: `try_x` returns
/// at once and makes no system call unless it has to wake a sleeping consumer; `x` waits for space; `x_timeout` waits
/// for so long, `x_deadline` until then.
///
/// # Ends of the consumer
/// | the consumer | `send` into a full pipe |
/// |---|---|
/// | has never come, or its end was told already | waits |
/// | is alive and does not receive | waits |
/// | has closed while we were attached | `Closed` at once, also when there is space |
/// | has died | `Abandoned` once, within 200 ms; then waits for a successor |
///
/// # Progress
/// Sending without waiting is wait-free: a bounded number of steps whatever the consumer does. It takes one pass over
/// the payload.
pub struct Producer<P = Untrusted> {
    inner: Inner,
    /// The promise; and a `Cell`, which keeps two threads from using a reference at the same time.
    promise: PhantomData<(P, Cell<()>)>,
}

/// Bytes of the longest message that is sent in line with the caller's code: such a one costs little more than a call. Every
/// ring takes it.
const SHORT: usize = record::max_length(MIN_CAPACITY) as usize;

#[derive(Debug)]
struct Inner {
    writer: Writer,
    max: usize,
    rest: Rest,
    distance: Distance,
    stopper: Stopper,
    claim: Claim,
}

impl Inner {
    /// Whether a message of so many bytes is better written past the caches.
    #[inline(always)]
    fn is_streaming(&mut self, length: usize) -> bool {
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
        let longest_taken = processor.longest_taken();
        let writer =
            Writer::recover(pipe.ring(), pipe.wake_mode(), longest_taken).map_err(SetupError::Corrupt)?;
        let rest = Rest::new(writer.ring().capacity(), writer.counters().messages(), writer.tail());
        let distance = Distance::new(processor.has_use_for_streaming_stores());
        let inner = Inner { writer, max: pipe.max_len(), rest, distance, stopper: Stopper::new(), claim };
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
    /// Sends a message if there is space for it now.
    ///
    /// # Errors
    /// `Full`, `TooLarge`, `Closed`, `Corrupt`.
    #[inline]
    pub fn try_send(&mut self, message: &[u8]) -> Result<Position, SendError> {
        self.send_one(0, message, Patience::None)
    }

    /// Sends a message, and waits for space if there is none.
    ///
    /// # Errors
    /// `TooLarge`, `Closed`, `Abandoned`, `Stopped`, `Removed`, `Replaced`, `ClaimsLost`, `Corrupt`.
    #[inline]
    pub fn send(&mut self, message: &[u8]) -> Result<Position, SendError> {
        self.send_one(0, message, Patience::Forever)
    }

    /// Sends a message, and waits for space until `deadline` if there is none.
    ///
    /// # Errors
    /// As [`send`](Self::send), and `TimedOut`.
    #[inline]
    pub fn send_deadline(&mut self, message: &[u8], deadline: Instant) -> Result<Position, SendError> {
        self.send_one(0, message, Patience::Until(deadline))
    }

    /// Sends a message, and waits for space if there is none, for `timeout` at most. Reads the clock.
    ///
    /// # Errors
    /// As [`send`](Self::send), and `TimedOut`.
    #[inline]
    pub fn send_timeout(&mut self, message: &[u8], timeout: Duration) -> Result<Position, SendError> {
        self.send_one(0, message, Patience::within(timeout))
    }

    /// Sends a message with a tag, a number that travels in the record's header and means what the caller likes.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[inline]
    pub fn send_tagged(&mut self, tag: u32, message: &[u8]) -> Result<Position, SendError> {
        self.send_one(tag, message, Patience::Forever)
    }

    /// Sends one message that lies in several pieces, without putting them together first.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_gathered(&mut self, tag: u32, parts: &[&[u8]]) -> Result<Position, SendError> {
        let length = parts.iter().fold(0usize, |sum, part| sum.saturating_add(part.len()));
        let mut reservation = self.reserve(length)?;
        let mut at = 0;
        for part in parts {
            reservation.write(at, part);
            at += part.len();
        }
        reservation.tag(tag);
        Ok(reservation.commit())
    }

    /// Sends the bytes of a value.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[inline]
    pub fn send_value<T: bytemuck::NoUninit>(&mut self, value: &T) -> Result<Position, SendError> {
        self.send(bytemuck::bytes_of(value))
    }

    #[inline(always)]
    fn send_one(&mut self, tag: u32, message: &[u8], patience: Patience) -> Result<Position, SendError> {
        if message.len() <= SHORT {
            if let Some(position) = self.send_here(tag, message) {
                return Ok(position);
            }
        }
        self.send_out_of_line(tag, message, patience)
    }

    /// Sends a message for which there is space where there mostly is. At most `max_len` bytes.
    #[inline(always)]
    fn send_here(&mut self, tag: u32, message: &[u8]) -> Option<Position> {
        let writer = &mut self.inner.writer;
        let here = writer.slot_here(writer.front(), message.len())?;
        here.fill(message);
        writer.commit_here(here, message.len(), tag);
        Some(Position(here.start))
    }

    /// Sends a message in any case.
    #[inline(never)]
    fn send_out_of_line(
        &mut self,
        tag: u32,
        message: &[u8],
        patience: Patience,
    ) -> Result<Position, SendError> {
        let streaming = self.inner.is_streaming(message.len());
        if message.len() <= self.inner.max && !streaming {
            if let Some(position) = self.send_here(tag, message) {
                return Ok(position);
            }
        }
        let slot = self.slot(message.len(), patience)?;
        let writer = &mut self.inner.writer;
        writer.fill(slot, message, streaming);
        writer.commit(slot, message.len(), tag);
        Ok(Position(slot.start))
    }

    /// Reserves space for a message of up to `length` bytes, if there is space now.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send).
    #[inline]
    pub fn try_reserve(&mut self, length: usize) -> Result<Reservation<'_, P>, SendError> {
        self.reserve_one(length, Patience::None)
    }

    /// Reserves space for a message of up to `length` bytes, and waits for it if there is none. The consumer sees
    /// nothing of it before [`Reservation::commit`].
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[inline]
    pub fn reserve(&mut self, length: usize) -> Result<Reservation<'_, P>, SendError> {
        self.reserve_one(length, Patience::Forever)
    }

    /// Reserves space for a message of up to `length` bytes, and waits for it until `deadline` if there is none.
    ///
    /// # Errors
    /// As [`send_deadline`](Self::send_deadline).
    #[inline]
    pub fn reserve_deadline(
        &mut self,
        length: usize,
        deadline: Instant,
    ) -> Result<Reservation<'_, P>, SendError> {
        self.reserve_one(length, Patience::Until(deadline))
    }

    /// Reserves space for a message of up to `length` bytes, and waits for it if there is none, for `timeout` at most. Reads the clock.
    ///
    /// # Errors
    /// As [`send_timeout`](Self::send_timeout).
    #[inline]
    pub fn reserve_timeout(
        &mut self,
        length: usize,
        timeout: Duration,
    ) -> Result<Reservation<'_, P>, SendError> {
        self.reserve_one(length, Patience::within(timeout))
    }

    #[inline(always)]
    fn reserve_one(&mut self, length: usize, patience: Patience) -> Result<Reservation<'_, P>, SendError> {
        let writer = &self.inner.writer;
        let here = if length <= SHORT { writer.slot_here(writer.front(), length) } else { None };
        // The padding is cleared now, for what is written later writes to no byte of it.
        let (slot, payload) = match here {
            Some(here) => {
                here.clear_padding();
                (here.slot(), here.payload(length))
            }
            None => {
                let slot = self.slot(length, patience)?;
                self.inner.writer.clear_padding(slot);
                (slot, self.inner.writer.payload(slot, length))
            }
        };
        let runway = self.inner.writer.take_runway();
        Ok(Reservation { producer: self, slot, payload, runway, written: 0, tag: 0 })
    }

    /// Begins a batch: messages that become visible all at once.
    pub fn batch(&mut self) -> Batch<'_, P> {
        let records = self.inner.writer.begin();
        Batch { producer: self, records }
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

    /// Bytes of the ring that hold nothing now. A message takes its length rounded up to 8, 8 bytes of header, as much
    /// again at the end of the ring if it does not fit there, and 8 bytes always stay free.
    ///
    /// # Errors
    /// `Corrupt`.
    pub fn free(&mut self) -> Result<u64, SendError> {
        self.inner.writer.free().map_err(refused)
    }

    /// Where the next record will stand, or a little behind that.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.inner.writer.tail())
    }

    /// Ends waiting calls from another thread or from a signal handler.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.inner.stopper.clone()
    }

    /// What is known about the consumer now. Makes one system call at most.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.inner.claim.peer(self.inner.writer.peer_state())
    }

    /// Waits until there is a consumer, for as long as `deadline` allows.
    ///
    /// # Errors
    /// `TimedOut`, `Stopped`, `Removed`, `Replaced`, `ClaimsLost`.
    pub fn wait_for_peer(&mut self, deadline: Option<Instant>) -> Result<(), SendError> {
        let Inner { writer, stopper, claim, .. } = &self.inner;
        claim.wait_for_peer(writer, deadline, stopper)
    }

    /// The pipe.
    #[must_use]
    pub fn pipe(&self) -> &Pipe {
        self.inner.claim.pipe()
    }

    /// Closes: the consumer gets what is left, then `Closed`. Dropping does the same and cannot say if it failed.
    ///
    /// # Errors
    /// [`SetupError::Removed`], [`SetupError::Replaced`] if the pipe was removed meanwhile.
    pub fn close(mut self) -> Result<(), SetupError> {
        self.inner.claim.end(&mut self.inner.writer)
    }

    /// A slot for a message of `length` bytes behind the tail.
    #[inline(never)]
    fn slot(&mut self, length: usize, patience: Patience) -> Result<Slot, SendError> {
        if length > self.inner.max {
            return Err(SendError::TooLarge { length, max: self.inner.max });
        }
        self.slot_at(self.inner.writer.tail(), length, patience)
    }

    /// A slot for a message of `length` bytes behind `at`.
    #[inline(always)]
    fn slot_at(&mut self, at: u64, length: usize, patience: Patience) -> Result<Slot, SendError> {
        match self.inner.writer.slot(at, length) {
            Ok(slot) => Ok(slot),
            Err(refusal) => self.wait_for_space(refusal, at, length, patience),
        }
    }

    #[cold]
    #[inline(never)]
    fn wait_for_space(
        &mut self,
        refusal: Refusal,
        at: u64,
        length: usize,
        patience: Patience,
    ) -> Result<Slot, SendError> {
        if refusal != Refusal::Full || matches!(patience, Patience::None) {
            return Err(refused(refusal));
        }
        let Inner { writer, stopper, claim, rest, .. } = &mut self.inner;
        let spins = rest.after(writer.counters().messages(), writer.tail());
        (0..spins).for_each(|_| crate::protocol::sync::spin_loop());
        count_wait(writer.counters());
        let strategy = claim.pipe().wait();
        wait_for(Space { writer, stopper, claim, at, length }, strategy, patience, stopper)
    }
}

/// Space for a record of `length` bytes behind `at`.
struct Space<'a> {
    writer: &'a mut Writer,
    stopper: &'a Stopper,
    claim: &'a Claim,
    at: u64,
    length: usize,
}

impl Awaited for Space<'_> {
    type Found = Slot;
    type Error = SendError;

    fn look(&mut self) -> Result<Option<Slot>, SendError> {
        if_there(self.writer.slot(self.at, self.length))
    }

    fn sleep(&mut self, slice: Duration) {
        self.stopper.sleep(self.writer.bell(), || self.writer.sleep(self.at, self.length, slice));
    }

    fn check(&mut self) -> Result<Option<Slot>, SendError> {
        self.claim.check(self.writer.is_succeeded())?;
        if_there(self.writer.look_for_death(self.at, self.length, || self.claim.peer_is_gone())?)
    }
}

fn if_there(slot: Result<Slot, Refusal>) -> Result<Option<Slot>, SendError> {
    match slot {
        Ok(slot) => Ok(Some(slot)),
        Err(Refusal::Full) => Ok(None),
        Err(refusal) => Err(refused(refusal)),
    }
}

fn refused(refusal: Refusal) -> SendError {
    match refusal {
        Refusal::Full => SendError::Full,
        Refusal::Closed => SendError::Closed,
        Refusal::Abandoned => SendError::Abandoned,
        Refusal::Corrupt(corruption) => SendError::Corrupt(corruption),
    }
}

/// Space for a message that is being written. Dropped without [`commit`](Reservation::commit), nothing is sent.
#[must_use = "nothing is sent before commit"]
pub struct Reservation<'a, P = Untrusted> {
    producer: &'a mut Producer<P>,
    slot: Slot,
    payload: Payload,
    /// What was known of the bytes behind the tail before the reservation.
    runway: u64,
    /// Bytes from the start that may have been written.
    written: usize,
    tag: u32,
}

impl<P> fmt::Debug for Reservation<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("len", &self.len())
            .field("tag", &self.tag)
            .finish_non_exhaustive()
    }
}

impl<P> Reservation<'_, P> {
    /// Bytes reserved.
    #[must_use]
    pub fn len(&self) -> usize {
        self.payload.length()
    }

    /// Whether the message is an empty one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes bytes into the message, from `offset` on. What is never written holds whatever the ring held.
    ///
    /// # Panics
    /// If they reach beyond [`len`](Self::len).
    #[inline(always)]
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset.checked_add(bytes.len());
        assert!(
            end.is_some_and(|end| end <= self.len()),
            "written beyond the reservation of {} bytes",
            self.len()
        );
        self.written = self.written.max(offset + bytes.len());
        // SAFETY: the producer keeps the ring mapped, and offset + length was checked against the payload's.
        unsafe { self.payload.write(offset, bytes, self.producer.inner.is_streaming(bytes.len())) }
    }

    /// Sets the message's tag; 0 without it.
    pub fn tag(&mut self, tag: u32) {
        self.tag = tag;
    }

    /// Sends the message.
    // Always in line: a reservation in memory is loaded by wider loads than it was stored, which takes longer than the rest.
    #[inline(always)]
    pub fn commit(self) -> Position {
        self.producer.inner.writer.commit_reserved(self.runway, self.slot, self.payload, self.tag);
        Position(self.slot.start)
    }

    /// Sends the first `length` bytes of the message and gives the rest of the space back.
    ///
    /// # Panics
    /// If `length` is more than [`len`](Self::len).
    #[inline]
    pub fn commit_len(self, length: usize) -> Position {
        assert!(length <= self.len(), "committed {length} of {} bytes", self.len());
        if length == self.len() {
            return self.commit();
        }
        let Reservation { producer, slot, runway, written, tag, .. } = self;
        producer.inner.writer.commit_shortened(runway, slot, written, length, tag);
        Position(slot.start)
    }
}

impl Deref for Reservation<'_, Trusted> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the payload lies within the mapped ring, and by the promise of `trust_peer` nobody writes there but
        // us, for as long as the reservation lasts.
        unsafe { std::slice::from_raw_parts(self.payload.as_ptr(), self.payload.length()) }
    }
}

impl DerefMut for Reservation<'_, Trusted> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.written = self.len();
        // SAFETY: as in `deref`; nor does anybody read there before the commit, and we are borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.payload.as_ptr(), self.payload.length()) }
    }
}

/// Messages that become visible all at once. Dropped without [`commit`](Batch::commit), none is sent.
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

impl<P> Batch<'_, P> {
    /// Adds a message, and waits for space if there is none.
    ///
    /// # Errors
    /// As [`Producer::send`]; `TooLarge` also if the whole batch would not fit into an empty ring. The messages added
    /// before stay in the batch.
    // Always in line: a call, and a result in memory, cost as much as a short message.
    #[inline(always)]
    pub fn push(&mut self, message: &[u8]) -> Result<Position, SendError> {
        self.push_tagged(0, message)
    }

    /// Adds a message with a tag.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    #[inline(always)]
    pub fn push_tagged(&mut self, tag: u32, message: &[u8]) -> Result<Position, SendError> {
        let length = message.len();
        if length <= SHORT {
            let writer = &self.producer.inner.writer;
            if let Some(here) = writer.slot_here(&self.records.front, length) {
                writer.append_here(&mut self.records, here, message, tag);
                return Ok(Position(here.start));
            }
        }
        self.push_out_of_line(tag, message)
    }

    /// Adds a message in any case.
    #[inline(never)]
    fn push_out_of_line(&mut self, tag: u32, message: &[u8]) -> Result<Position, SendError> {
        let length = message.len();
        let max = self.producer.inner.max;
        if length > max {
            return Err(SendError::TooLarge { length, max });
        }
        let at = self.records.front.at;
        let needed = self.producer.inner.writer.span(at, length);
        let capacity = self.producer.capacity();
        if needed > capacity {
            return Err(SendError::TooLarge { length: needed as usize, max: capacity as usize });
        }
        let slot = match self.producer.slot_at(at, length, Patience::Forever) {
            Ok(slot) => slot,
            Err(error) => {
                // After corruption there is no space for shorter messages either.
                self.records.front.take();
                return Err(error);
            }
        };
        let streaming = self.producer.inner.is_streaming(length);
        self.producer.inner.writer.append(&mut self.records, slot, message, tag, streaming);
        Ok(Position(slot.start))
    }

    /// Messages in the batch.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.messages as usize
    }

    /// Whether there is no message in the batch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.messages == 0
    }

    /// Sends all of them at once: the consumer sees all or none, also if this process is killed meanwhile.
    // Always in line: see `Reservation::commit`.
    #[inline(always)]
    pub fn commit(self) {
        if !self.is_empty() {
            self.producer.inner.writer.commit_batch(&self.records);
        }
    }
}
