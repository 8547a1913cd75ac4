//! The sending end.

use crate::endpoint::activity::Activity;
use crate::endpoint::batch::Batch;
use crate::endpoint::cancel::CancelHandle;
use crate::endpoint::claim::Claim;
use crate::endpoint::deadline::{At, Deadline, Never, Now};
use crate::endpoint::distance::Distance;
use crate::endpoint::pace::Pace;
use crate::endpoint::payload::{Bytes, Outgoing, Payload, total_length};
use crate::endpoint::reservation::Reservation;
use crate::endpoint::short::Short;
use crate::endpoint::stream_backoff::StreamBackoff;
use crate::endpoint::trust::{Trusted, Untrusted};
use crate::endpoint::wait::{Awaited, SLICE, wait_for};
use crate::endpoint::watched::Watched;
use crate::error::{
    CheckError, CloseError, Damage, FlushError, Lost, Rejected, SendError, SendTimeoutError, SetupError,
    TrySendError, WaitError,
};
use crate::pipe::Pipe;
use crate::position::Position;
use crate::protocol::copy;
use crate::protocol::corruption::Corruption;
use crate::protocol::front::Slot;
use crate::protocol::half::Half;
use crate::protocol::layout::{Counters, MIN_CAPACITY, count_dropped, count_wait};
use crate::protocol::liveness::{End, Peer, Role};
use crate::protocol::processor::Processor;
use crate::protocol::record;
use crate::protocol::ring::Ring;
use crate::protocol::sleep::{Interest, Until};
use crate::protocol::writer::{ReserveError, Room, Writer};
use crate::segment::identity::Way;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

/// The sending end of a pipe.
///
/// A pipe has one at a time; [`Pipe::producer`] claims the role. Dropping the producer closes the pipe for this side.
///
/// ```
/// let mut producer = shmpipe::Pipe::open_or_create("memfd")?.producer()?;
/// producer.send(b"EURUSD 1.0842")?;
/// producer.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
/// | the consumer | `send` |
/// |---|---|
/// | never attached, or died and that was reported, or closed before this producer attached | blocks while the pipe is full |
/// | is alive and does not receive | blocks while the pipe is full |
/// | closed while this producer was attached | [`Closed`](SendError::Closed) at once, even if there is space, and at every later call until a new consumer attaches |
/// | aborted, or was dropped by a panic | [`PeerAborted`](SendError::PeerAborted) once, at once, even if there is space; then as if it had died |
/// | died | in a full pipe [`PeerDied`](SendError::PeerDied) once, within 200 ms; the next call waits for a successor |
///
/// # Progress
/// A send that need not wait is wait-free: a bounded number of steps, whatever the consumer does. It makes one pass over the payload,
/// and a system call only to wake a sleeping consumer. A message of 4 KiB or more may also read the clock.
///
/// `pthread_cancel` of a thread in a blocked call aborts the process, as of any thread that runs Rust code: use a [`CancelHandle`].
pub struct Producer<P = Untrusted> {
    pub(crate) inner: Inner,
    /// The promise; and a `Cell`, which keeps two threads from using a reference at the same time.
    promise: PhantomData<(P, Cell<()>)>,
}

/// Bytes of the longest message that is sent in line with the caller's code, where a call would cost as much as the copy. Every
/// ring takes it.
pub(super) const SHORT: usize = record::max_length(MIN_CAPACITY) as usize;

#[derive(Debug)]
pub(crate) struct Inner {
    pub(super) writer: Writer,
    max: usize,
    backoff: StreamBackoff,
    pace: Pace,
    /// Where the current run of `pace` began.
    run: u64,
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

    pub(crate) fn check_length(&self, length: usize) -> Result<(), Rejected> {
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
            Err(ReserveError::Ended(end)) => Err(Rejected::Ended(end).into()),
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
        let Inner { writer, cancel, claim, backoff, pace, run, .. } = self;
        let tail = writer.tail();
        count_wait(writer.counters());
        let is_new_run = tail.wrapping_sub(*run) >= writer.share();
        if is_new_run {
            *run = tail;
        }
        let polls = pace.begin(is_new_run);
        backoff.end_run(writer.counters().messages(), tail, polls);
        let space = Space { writer, claim, at, length, room: Room::Share };
        wait_for(space, claim.pipe().wait(), deadline, cancel, pace)
    }

    /// Fails if the consumer has ended, or if the pipe or the role is lost.
    fn check_all(&mut self) -> Result<(), CheckError> {
        end_of(self.writer.peek_end())?;
        check_for_loss_or_death(&mut self.writer, &self.claim)
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

impl Watched for Inner {
    fn claim(&self) -> &Claim {
        &self.claim
    }

    fn half(&self) -> &dyn Half {
        &self.writer
    }

    fn role(&self) -> Role {
        Role::Producer
    }

    fn ring(&self) -> &Ring {
        self.writer.ring()
    }

    fn counters(&self) -> &Counters {
        self.writer.counters()
    }

    fn has(&self, interest: Interest) -> bool {
        matches!(interest, Interest::Space(length) if self.writer.has_room_for(length))
    }

    fn poll(&mut self, interest: Interest) -> Result<bool, CheckError> {
        let Interest::Space(length) = interest else {
            return end_of(self.writer.peek_end()).map(|()| false);
        };
        match self.writer.slot(self.writer.tail(), length) {
            Ok(_) => Ok(true),
            Err(error) => end_of(Err(error)).map(|()| false),
        }
    }

    fn check(&mut self, interest: Interest) -> Result<bool, CheckError> {
        self.check_all()?;
        self.poll(interest)
    }

    fn until(&self, interest: Interest) -> Until {
        match interest {
            Interest::Space(length) => self.writer.until_room(self.writer.tail(), length, Room::Record),
            Interest::Message | Interest::End => Until::Change,
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.claim.end_dropped(&mut self.writer);
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
        let mut writer = Self::take_over(pipe, Way::Forth)?;
        let epoch = writer.next_epoch().map_err(SetupError::of_takeover(Role::Producer))?;
        writer.open(epoch);
        Ok(Producer::new(claim, writer))
    }

    /// Takes over the producer's half of a ring, whose role is claimed. It is not open yet.
    pub(super) fn take_over(pipe: &Pipe, way: Way) -> Result<Writer, SetupError> {
        let longest_acquired = Processor::this().longest_acquired();
        Writer::recover(pipe.ring(way), pipe.wake_mode(), longest_acquired, pipe.sampling())
            .map_err(|corruption| SetupError::Damaged(Damage::Ring(corruption)))
    }

    /// The end of a half that is open.
    pub(super) fn new(claim: Claim, writer: Writer) -> Self {
        let backoff =
            StreamBackoff::new(writer.ring().capacity(), writer.counters().messages(), writer.tail());
        let distance = Distance::new(Processor::this().has_use_for_streaming_stores());
        let (max, cancel) = (claim.pipe().max_len(), CancelHandle::new());
        let (pace, run) = (Pace::of_shares(writer.share()), writer.tail());
        let inner = Inner { writer, max, backoff, pace, run, distance, cancel, claim };
        Producer { inner, promise: PhantomData }
    }

    /// Promises that the consumer obeys the protocol, for the right to write messages in place.
    ///
    /// A [`Reservation`] then dereferences to `&mut [u8]`.
    ///
    /// ```
    /// let pipe = shmpipe::Options::new().create("memfd")?;
    /// // SAFETY: no other process has this memfd.
    /// let mut producer = unsafe { pipe.producer()?.trust_peer() };
    /// let mut space = producer.reserve(5)?;
    /// space.copy_from_slice(b"hello");
    /// space.commit();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Safety
    /// As long as the result exists,
    /// * every process that has the segment attached for writing keeps to the layout and to the protocol of this version
    ///   (LAYOUT.md); in particular, none writes to the ring but the producer.
    #[must_use = "the promise is worth nothing unless the result is used"]
    pub unsafe fn trust_peer(self) -> Producer<Trusted> {
        Producer { inner: self.inner, promise: PhantomData }
    }
}

impl<P> Producer<P> {
    /// Sends a message if there is space now.
    ///
    /// Never blocks. Does not notice that the consumer died, nor that the pipe was removed; [`check`](Self::check) does.
    ///
    /// ```
    /// use shmpipe::TrySendError;
    ///
    /// let pipe = shmpipe::Options::new().capacity(4096).create("memfd")?;
    /// let mut producer = pipe.producer()?;
    /// while producer.try_send(&[0u8; 1000]).is_ok() {}
    /// assert_eq!(producer.try_send(&[0u8; 1000]), Err(TrySendError::Full));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// * [`TrySendError::Full`] if there is no space now.
    /// * [`TrySendError::TooLarge`] if the message is longer than [`max_len`](Self::max_len).
    /// * [`TrySendError::Closed`] if the consumer closed while this producer was attached, [`TrySendError::PeerAborted`] if it
    ///   aborted.
    /// * [`TrySendError::Corrupt`] if the consumer broke the protocol.
    #[inline(always)]
    pub fn try_send(&mut self, message: impl Payload) -> Result<Position, TrySendError> {
        self.send_one(message.outgoing(), Now)
    }

    /// Sends a message; blocks while the pipe is full.
    ///
    /// ```
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
    /// let position = producer.send("a string")?;
    /// producer.send(b"bytes")?;
    /// assert_eq!(consumer.recv()?.to_vec(), b"a string");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// [`Payload`] lists what can be sent.
    ///
    /// # Errors
    /// * [`SendError::TooLarge`] if the message is longer than [`max_len`](Self::max_len).
    /// * [`SendError::Closed`] if the consumer closed while this producer was attached, [`SendError::PeerAborted`] if it aborted.
    /// * [`SendError::PeerDied`], [`Cancelled`](SendError::Cancelled) or [`Lost`](SendError::Lost) only if the pipe is full.
    /// * [`SendError::Corrupt`] if the consumer broke the protocol.
    #[inline(always)]
    pub fn send(&mut self, message: impl Payload) -> Result<Position, SendError> {
        self.send_one(message.outgoing(), Never)
    }

    /// Sends a message; blocks for `timeout` at most while the pipe is full.
    ///
    /// Reads the clock at the call.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use shmpipe::SendTimeoutError;
    ///
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let mut producer = pipe.producer()?;
    /// match producer.send_timeout(b"a tick", Duration::from_millis(5)) {
    ///     Ok(_) => {}
    ///     Err(SendTimeoutError::TimedOut) => eprintln!("the consumer is slow: dropped a tick"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SendTimeoutError::TimedOut`] if there was no space in time; otherwise as [`send`](Self::send).
    #[inline]
    pub fn send_timeout(
        &mut self,
        message: impl Payload,
        timeout: Duration,
    ) -> Result<Position, SendTimeoutError> {
        self.send_one(message.outgoing(), At::timeout(timeout))
    }

    /// Sends a message; blocks until `deadline` at most while the pipe is full.
    ///
    /// One deadline can bound several calls:
    ///
    /// ```
    /// # use std::time::{Duration, Instant};
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let mut producer = pipe.producer()?;
    /// let deadline = Instant::now() + Duration::from_millis(5);
    /// for tick in ["EURUSD 1.0842", "EURUSD 1.0843"] {
    ///     producer.send_deadline(tick, deadline)?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SendTimeoutError::TimedOut`] if there was no space in time; otherwise as [`send`](Self::send).
    #[inline]
    pub fn send_deadline(
        &mut self,
        message: impl Payload,
        deadline: Instant,
    ) -> Result<Position, SendTimeoutError> {
        self.send_one(message.outgoing(), At::deadline(deadline))
    }

    /// The short path of [`send`](Self::send), for a caller that is a function of its own, as in another language: it calls nothing
    /// for a message of up to 64 bytes, and never panics. The caller has checked that this is not a forked child.
    #[doc(hidden)]
    #[inline(always)]
    pub fn send_short(&mut self, message: &[u8]) -> Short {
        if message.len() > SHORT {
            return Short::Nothing;
        }
        match self.send_fast_only(0, message) {
            None => Short::Nothing,
            Some((_, false)) => Short::Done,
            Some((_, true)) => Short::FollowUp,
        }
    }

    /// The rest of [`send_short`](Self::send_short) of a message of `length` bytes.
    #[doc(hidden)]
    #[inline(always)]
    pub fn follow_up(&mut self, length: usize) {
        self.inner.writer.follow_up(record::size(length as u64));
    }

    #[inline(always)]
    pub(crate) fn send_one<D: Deadline>(
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
        let (position, follows_up) = self.send_fast_only(tag, message)?;
        if follows_up {
            self.follow_up(message.len());
        }
        Some(position)
    }

    /// As [`send_fast`](Self::send_fast), for a caller that calls [`follow_up`](Self::follow_up) itself, if this returns `true`.
    #[inline(always)]
    fn send_fast_only(&mut self, tag: u32, message: &[u8]) -> Option<(Position, bool)> {
        let writer = &mut self.inner.writer;
        let slot = writer.slot_fast(writer.front(), message.len())?;
        slot.fill(message);
        Some((Position(slot.start), writer.commit_fast(slot, message.len(), tag)))
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
    /// Never blocks, and like [`try_send`](Self::try_send) leaves questions to the kernel to [`check`](Self::check).
    /// [`reserve`](Self::reserve) has an example.
    ///
    /// # Errors
    /// [`TrySendError`], as from [`try_send`](Self::try_send).
    #[inline]
    pub fn try_reserve(&mut self, length: usize) -> Result<Reservation<'_, P>, TrySendError> {
        self.reserve_one(length, Now)
    }

    /// Reserves space for a message of up to `length` bytes; blocks while the pipe is full.
    ///
    /// The caller writes into the ring itself, which saves a copy. The consumer sees nothing of the message before
    /// [`Reservation::commit`].
    ///
    /// ```
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
    /// let mut space = producer.reserve(1024)?;
    /// space.write(0, b"a message whose length ");
    /// space.write(23, b"was not known before");
    /// space.commit_len(43);
    /// assert_eq!(consumer.recv()?.to_vec(), b"a message whose length was not known before");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SendError`], as from [`send`](Self::send).
    #[inline]
    pub fn reserve(&mut self, length: usize) -> Result<Reservation<'_, P>, SendError> {
        self.reserve_one(length, Never)
    }

    /// Reserves space for a message of up to `length` bytes; blocks for `timeout` at most while the pipe is full.
    ///
    /// Reads the clock at the call.
    ///
    /// # Errors
    /// [`SendTimeoutError::TimedOut`] if there was no space in time; otherwise as [`send`](Self::send).
    #[inline]
    pub fn reserve_timeout(
        &mut self,
        length: usize,
        timeout: Duration,
    ) -> Result<Reservation<'_, P>, SendTimeoutError> {
        self.reserve_one(length, At::timeout(timeout))
    }

    /// Reserves space for a message of up to `length` bytes; blocks until `deadline` at most while the pipe is full.
    ///
    /// # Errors
    /// [`SendTimeoutError::TimedOut`] if there was no space in time; otherwise as [`send`](Self::send).
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
    /// The consumer is notified once for all of them. Never blocks.
    ///
    /// ```
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let mut producer = pipe.producer()?;
    /// let mut batch = producer.batch();
    /// batch.push(b"both")?;
    /// batch.push(b"or neither")?;
    /// batch.commit();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn batch(&mut self) -> Batch<'_, P> {
        Batch::new(self)
    }

    /// Returns the bytes of the longest message.
    #[must_use]
    pub fn max_len(&self) -> usize {
        self.inner.max
    }

    /// Returns the bytes of ring data.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.inner.writer.ring().capacity()
    }

    /// Returns the bytes of the ring that records can take now.
    ///
    /// A message takes 8 bytes of header and its length rounded up to 8. It fits if that is no more than what is free. But a record
    /// that does not fit before the end of the ring wastes the bytes there, fewer than its own. In an empty ring all is free but 8
    /// bytes, which are never used.
    ///
    /// ```
    /// let pipe = shmpipe::Options::new().capacity(4096).create("memfd")?;
    /// let mut producer = pipe.producer()?;
    /// assert_eq!(producer.free()?, 4096 - 8);
    /// producer.send(b"13 bytes long")?;
    /// assert_eq!(producer.free()?, 4096 - 8 - (8 + 16));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Corruption`] if the consumer's read position is impossible.
    pub fn free(&mut self) -> Result<u64, Corruption> {
        self.inner.writer.free()
    }

    /// Returns whether the consumer has released everything that was sent.
    ///
    /// One load. [`flush`](Self::flush) waits for it.
    ///
    /// ```
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
    /// producer.send(b"a line")?;
    /// assert!(!producer.is_drained()?);
    /// consumer.recv()?.release();
    /// assert!(producer.is_drained()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Corruption`] if the consumer's read position is impossible.
    pub fn is_drained(&mut self) -> Result<bool, Corruption> {
        self.inner.writer.is_drained()
    }

    /// Blocks until the consumer has released everything that was sent, or `deadline` passes.
    ///
    /// A message is in the pipe as soon as it is sent, and stays there when this process ends: what this waits for is that the
    /// consumer has put it to use. Costs no message, and the consumer one wake-up.
    ///
    /// ```
    /// # use std::time::{Duration, Instant};
    /// use shmpipe::FlushError;
    ///
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let mut producer = pipe.producer()?;
    /// producer.send(b"the last line")?;
    /// match producer.flush(Some(Instant::now() + Duration::from_millis(5))) {
    ///     Ok(()) => {}
    ///     Err(FlushError::TimedOut) => eprintln!("the consumer has not received everything yet"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// None if everything is released. Otherwise
    /// * [`FlushError::TimedOut`] at the deadline, and [`FlushError::Cancelled`].
    /// * [`FlushError::Closed`] if the consumer closed, [`FlushError::PeerAborted`] if it aborted, and [`FlushError::PeerDied`] once if
    ///   it died; the next call waits for its successor.
    /// * [`FlushError::Lost`] if the pipe or the role is lost.
    /// * [`FlushError::Corrupt`] if the consumer broke the protocol.
    pub fn flush(&mut self, deadline: Option<Instant>) -> Result<(), FlushError> {
        let Inner { writer, cancel, claim, .. } = &mut self.inner;
        let strategy = claim.pipe().wait();
        wait_for(Drained { writer, claim }, strategy, deadline, cancel, &mut Pace::of_waits())
    }

    /// Counts messages that this producer has not sent and will not send, for those who watch the pipe.
    ///
    /// The count lies in the segment: [`inspect`](crate::inspect) and `shmpipe stat` show it as [`Snapshot::dropped`], of all producers
    /// since the pipe was created. No system call, no fence. Does nothing on a pipe whose creator does not know the count
    /// (LAYOUT.md, `hints`).
    ///
    /// [`Snapshot::dropped`]: crate::Snapshot::dropped
    ///
    /// ```
    /// use shmpipe::TrySendError;
    ///
    /// let pipe = shmpipe::Options::new().capacity(4096).create("memfd")?;
    /// let mut producer = pipe.producer()?;
    /// for _ in 0..1000 {
    ///     match producer.try_send(&[0; 56]) {
    ///         Err(TrySendError::Full) => producer.count_dropped(1),
    ///         sent => drop(sent?),
    ///     }
    /// }
    /// assert_eq!(shmpipe::inspect(pipe.address())?.dropped, 1000 - 4096 / 64 + 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn count_dropped(&mut self, messages: u64) {
        let Inner { writer, claim, .. } = &self.inner;
        if claim.is_ours() && claim.pipe().counts_dropped() {
            count_dropped(writer.counters(), messages);
        }
    }

    /// Returns the position of the next record, if it fits before the end of the ring.
    ///
    /// Otherwise it goes to the next start of the ring, less than half the ring later.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.inner.writer.tail())
    }

    /// Returns what the producers of this pipe have counted: messages sent, waits, wake-ups.
    ///
    /// A few loads; no system call. [`Activity`] has an example.
    #[must_use]
    pub fn activity(&self) -> Activity {
        Activity::of(self.inner.writer.counters())
    }

    /// Returns a handle that cancels blocked calls, from another thread or from a signal handler.
    ///
    /// [`CancelHandle`] has an example.
    #[must_use]
    pub fn cancel_handle(&self) -> CancelHandle {
        self.inner.cancel.clone()
    }

    /// Returns what this side knows about the consumer now.
    ///
    /// Costs at most one system call.
    ///
    /// ```
    /// use shmpipe::Peer;
    ///
    /// let pipe = shmpipe::Options::new().create("memfd")?;
    /// let producer = pipe.producer()?;
    /// assert_eq!(producer.peer(), Peer::NeverCame);
    /// let consumer = pipe.consumer()?;
    /// assert_eq!(producer.peer(), Peer::Open);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.inner.claim.peer(&self.inner.writer, self.inner.writer.peer_state())
    }

    /// Blocks until a consumer attaches or `deadline` passes.
    ///
    /// A consumer that attached and was gone again before this call saw it does not end the wait.
    ///
    /// ```
    /// # use std::time::{Duration, Instant};
    /// use shmpipe::WaitError;
    ///
    /// let pipe = shmpipe::Options::new().create("memfd")?;
    /// let mut producer = pipe.producer()?;
    /// let deadline = Instant::now() + Duration::from_millis(5);
    /// assert_eq!(producer.wait_for_peer(Some(deadline)), Err(WaitError::TimedOut));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`WaitError::TimedOut`] at the deadline, [`WaitError::Cancelled`], and [`WaitError::Lost`] if the pipe or the role is
    /// lost.
    pub fn wait_for_peer(&mut self, deadline: Option<Instant>) -> Result<(), WaitError> {
        let Inner { writer, cancel, claim, .. } = &self.inner;
        claim.wait_for_peer(writer, deadline, cancel)
    }

    /// Checks that this side still has the pipe and its role, and that the consumer has not ended.
    ///
    /// For a program that only uses calls that do not block: a `try_` call asks the kernel nothing, so it does not notice that the
    /// consumer was killed, nor that the pipe was removed. A blocked call checks the same every 100 ms. Never blocks. Costs two to
    /// four system calls: call it now and then, such as every 100 ms or after a few thousand [`Full`](TrySendError::Full).
    ///
    /// ```
    /// use shmpipe::{CheckError, Lost, Options, unlink_force};
    ///
    /// let pipe = Options::new().create("sysv:private")?;
    /// let mut producer = pipe.producer()?;
    /// unlink_force(pipe.address())?;
    /// // There is space, so this goes to a pipe that no consumer can open any more.
    /// producer.try_send(b"a tick")?;
    /// assert_eq!(producer.check(), Err(CheckError::Lost(Lost::Removed)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// * [`CheckError::Closed`] or [`PeerAborted`](CheckError::PeerAborted) if the consumer closed or aborted, as from
    ///   [`try_send`](Self::try_send).
    /// * [`CheckError::PeerDied`] if the consumer died, whether the pipe is full or not. Returned once, by this or by a call that
    ///   blocks.
    /// * [`CheckError::Lost`] if the pipe or the role is lost.
    /// * [`CheckError::Corrupt`] if the consumer broke the protocol.
    pub fn check(&mut self) -> Result<(), CheckError> {
        self.inner.check_all()
    }

    /// Returns the pipe that the role was claimed through.
    #[must_use]
    pub fn pipe(&self) -> &Pipe {
        self.inner.claim.pipe()
    }

    /// Closes the pipe for this side.
    ///
    /// The consumer receives the rest, then [`Closed`](crate::RecvError::Closed). Dropping does the same and cannot report an
    /// error. Does not wait for the consumer.
    ///
    /// ```
    /// use shmpipe::RecvError;
    ///
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
    /// producer.send(b"the last one")?;
    /// producer.close()?;
    /// assert_eq!(consumer.recv()?.to_vec(), b"the last one");
    /// assert!(matches!(consumer.recv(), Err(RecvError::Closed)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`CloseError::Lost`] if the pipe or the role was lost before, [`CloseError::Os`] if the system call that gives the role
    /// back failed. The producer is closed nevertheless.
    pub fn close(mut self) -> Result<(), CloseError> {
        self.inner.claim.end(&mut self.inner.writer, End::Closed)
    }

    /// Closes the pipe for this side, as [`close`](Self::close) does, and stays: for a producer that cannot be moved, in a global or
    /// a struct.
    ///
    /// From now on every call that sends, reserves or waits fails with [`Closed`](SendError::Closed). Another producer may claim the
    /// role at once. [`is_drained`](Self::is_drained) still answers. Finishing again does nothing.
    ///
    /// ```
    /// use shmpipe::{Producer, SendError};
    /// use std::sync::Mutex;
    ///
    /// static LOG: Mutex<Option<Producer>> = Mutex::new(None);
    ///
    /// let pipe = shmpipe::Options::new().create("memfd")?;
    /// *LOG.lock().unwrap() = Some(pipe.producer()?);
    /// // In any thread, at the end of the program:
    /// if let Some(log) = LOG.lock().unwrap().as_mut() {
    ///     log.send(b"the last line")?;
    ///     log.finish()?;
    ///     assert_eq!(log.send(b"too late"), Err(SendError::Closed));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As from [`close`](Self::close). The producer is closed nevertheless.
    pub fn finish(&mut self) -> Result<(), CloseError> {
        let Inner { writer, claim, .. } = &mut self.inner;
        let ended = claim.end(writer, End::Closed);
        writer.finish();
        ended
    }

    /// Ends this side with an error: what it sent is not all that it had to send.
    ///
    /// The consumer receives the rest, then [`PeerAborted`](crate::RecvError::PeerAborted) with `code`, whose meaning the
    /// application defines. Does not wait for the consumer. A producer that a panic drops aborts with
    /// [`PANICKED`](crate::PANICKED).
    ///
    /// ```
    /// use shmpipe::RecvError;
    ///
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
    /// const FEED_LOST: u32 = 3;
    /// producer.send(b"the last one before the feed broke")?;
    /// producer.abort(FEED_LOST)?;
    /// assert!(consumer.recv().is_ok());
    /// assert!(matches!(consumer.recv(), Err(RecvError::PeerAborted { code: FEED_LOST })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As from [`close`](Self::close). The producer is gone nevertheless.
    pub fn abort(mut self, code: u32) -> Result<(), CloseError> {
        self.inner.claim.end(&mut self.inner.writer, End::Aborted { code })
    }
}

/// The longest sleep for a share of the ring, while the record may have had its space for long. A consumer that keeps what it has not
/// yet received until this producer has done something else delays it by no more than this.
const LONGEST_FOR_SHARE: Duration = Duration::from_millis(20);

/// Space for a record of `length` bytes behind `at`.
struct Space<'a> {
    writer: &'a mut Writer,
    claim: &'a Claim,
    at: u64,
    length: usize,
    /// What the next sleep asks for.
    room: Room,
}

impl Awaited for Space<'_> {
    type Output = Slot;
    type Error = SendTimeoutError;

    fn poll(&mut self) -> Result<Option<Slot>, SendTimeoutError> {
        unless_full(self.writer.slot(self.at, self.length))
    }

    fn sleep(&mut self, left: Duration, cancel: &CancelHandle) {
        // For a share at first, then for as long as it takes.
        let (room, longest) = match std::mem::replace(&mut self.room, Room::Record) {
            Room::Record => (Room::Record, SLICE),
            Room::Share => (Room::Share, LONGEST_FOR_SHARE),
        };
        if let Some(seen) = self.writer.prepare_sleep(self.at, self.length, room) {
            cancel.sleep(self.writer.event_count(), seen, left.min(longest));
        }
    }

    fn nap(&mut self, nap: Duration, cancel: &CancelHandle) {
        cancel.nap(self.writer.event_count(), nap);
    }

    fn check(&mut self) -> Result<Option<Slot>, SendTimeoutError> {
        self.claim.check(self.writer.is_succeeded())?;
        let is_gone = || self.claim.peer_is_gone().map_err(Lost::into);
        unless_full(self.writer.check_for_death::<SendTimeoutError>(self.at, self.length, is_gone)?)
    }
}

/// The release of everything that was sent.
struct Drained<'a> {
    writer: &'a mut Writer,
    claim: &'a Claim,
}

impl Drained<'_> {
    fn is_there(&mut self) -> Result<bool, CheckError> {
        if self.writer.is_drained()? {
            return Ok(true);
        }
        match end_of(self.writer.peek_end()) {
            // It may have released the rest before it closed. An abort is reported whatever it released, since that happens once.
            Err(CheckError::Closed) if self.writer.is_drained()? => Ok(true),
            ended => ended.map(|()| false),
        }
    }
}

impl Awaited for Drained<'_> {
    type Output = ();
    type Error = FlushError;

    fn poll(&mut self) -> Result<Option<()>, FlushError> {
        Ok(self.is_there()?.then_some(()))
    }

    fn sleep(&mut self, left: Duration, cancel: &CancelHandle) {
        if let Some(seen) = self.writer.prepare_sleep_until_drained() {
            cancel.sleep(self.writer.event_count(), seen, left);
        }
    }

    fn nap(&mut self, nap: Duration, cancel: &CancelHandle) {
        cancel.nap(self.writer.event_count(), nap);
    }

    fn check(&mut self) -> Result<Option<()>, FlushError> {
        check_for_loss_or_death(self.writer, self.claim)?;
        Ok(None)
    }
}

/// The end of the consumer, if that is what a look at the ring found.
fn end_of(looked: Result<(), ReserveError>) -> Result<(), CheckError> {
    match looked {
        Ok(()) | Err(ReserveError::Full) => Ok(()),
        Err(ReserveError::Ended(end)) => Err(end.into()),
        Err(ReserveError::Corrupt(corruption)) => Err(corruption.into()),
    }
}

/// Asks the kernel whether our role still stands and whether the consumer lives.
fn check_for_loss_or_death(writer: &mut Writer, claim: &Claim) -> Result<(), CheckError> {
    claim.check(writer.is_succeeded())?;
    writer.check_for_any_death(|| claim.peer_is_gone().map_err(Lost::into))
}

fn unless_full(slot: Result<Slot, ReserveError>) -> Result<Option<Slot>, SendTimeoutError> {
    match slot {
        Ok(slot) => Ok(Some(slot)),
        Err(ReserveError::Full) => Ok(None),
        Err(ReserveError::Ended(end)) => Err(Rejected::Ended(end).into()),
        Err(ReserveError::Corrupt(corruption)) => Err(SendTimeoutError::Corrupt(corruption)),
    }
}
