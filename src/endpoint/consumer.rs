//! The receiving end.

use crate::endpoint::claim::Claim;
use crate::endpoint::stop::Stopper;
use crate::endpoint::trust::{Trusted, Untrusted};
use crate::endpoint::wait::{Awaited, LOOKS, Patience, Rest, wait_for};
use crate::error::{RecvError, SetupError};
use crate::pipe::Pipe;
use crate::position::Position;
use crate::protocol::half::Half;
use crate::protocol::layout::count_wait;
use crate::protocol::peer::{Peer, Role};
use crate::protocol::reader::{Found, NoMore, Reader};
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::time::{Duration, Instant};

/// The receiving end of a pipe. There is one at a time; dropping it closes the pipe for this side.
///
/// It can be sent to another thread, and is used by one at a time. `try_recv` returns at once and makes no system call
/// unless it has to wake a sleeping producer; `recv` waits for a message; `recv_timeout` waits for so long, `recv_deadline` until then.
///
/// # Ends of the producer
/// | the producer | `recv` from an empty pipe |
/// |---|---|
/// | has never come, or its end was told to a consumer before us | waits |
/// | is alive and does not send | waits |
/// | has closed | `Closed`, as often as asked, until a new producer comes |
/// | has died | `Abandoned` once, within 200 ms; then waits for a successor |
///
/// What was sent before the end is always received first.
///
/// # Progress
/// Receiving without waiting is wait-free: a bounded number of steps whatever the producer does.
pub struct Consumer<P = Untrusted> {
    inner: Inner,
    /// The promise; and a `Cell`, which keeps two threads from using a reference at the same time.
    promise: PhantomData<(P, Cell<()>)>,
}

#[derive(Debug)]
struct Inner {
    reader: Reader,
    rest: Rest,
    stopper: Stopper,
    claim: Claim,
}

impl Inner {
    /// The next record, if it is simply there.
    #[inline(always)]
    fn peek_fast(&self) -> Option<Found> {
        self.reader.peek_fast(self.reader.head(), self.reader.limit())
    }

    /// Begins a wait, if there is nothing: leaves a streaming producer alone for a while. Otherwise what is there wants a closer
    /// look, not a wait.
    #[cold]
    #[inline(never)]
    fn begins_to_wait(&mut self) -> bool {
        let Inner { reader, rest, .. } = self;
        if !reader.is_dry() {
            return false;
        }
        count_wait(reader.counters());
        let spins = rest.after(reader.counters().messages(), reader.head());
        (0..spins).for_each(|_| crate::protocol::sync::spin_loop());
        true
    }

    /// Finds the next record when it is not simply there, nor soon.
    #[cold]
    #[inline(never)]
    fn find(&mut self, patience: Patience) -> Result<Found, RecvError> {
        let Inner { reader, rest, stopper, claim } = self;
        if matches!(patience, Patience::None) {
            if let Some(found) = reader.look_closer(reader.head()).map_err(RecvError::Corrupt)? {
                return Ok(found);
            }
            rest.after(reader.counters().messages(), reader.head());
            return reader.look_for_end().map_err(no_more)?.ok_or(RecvError::Empty);
        }
        let strategy = claim.pipe().wait();
        wait_for(Next { reader, stopper, claim }, strategy, patience, stopper)
    }
}

/// The next record.
struct Next<'a> {
    reader: &'a mut Reader,
    stopper: &'a Stopper,
    claim: &'a Claim,
}

impl Awaited for Next<'_> {
    type Found = Found;
    type Error = RecvError;

    fn look(&mut self) -> Result<Option<Found>, RecvError> {
        match self.reader.look().map_err(RecvError::Corrupt)? {
            Some(found) => Ok(Some(found)),
            None => self.reader.look_for_end().map_err(no_more),
        }
    }

    fn sleep(&mut self, slice: Duration) {
        self.stopper.sleep(self.reader.bell(), || self.reader.sleep(slice));
    }

    fn check(&mut self) -> Result<Option<Found>, RecvError> {
        self.claim.check(self.reader.is_succeeded())?;
        self.reader.look_for_death(|| self.claim.peer_is_gone())?.map_err(no_more)
    }
}

fn no_more(why: NoMore) -> RecvError {
    match why {
        NoMore::Closed => RecvError::Closed,
        NoMore::Abandoned => RecvError::Abandoned,
        NoMore::Corrupt(corruption) => RecvError::Corrupt(corruption),
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // It fails only if the pipe was removed, and the claim with it.
        let _ = self.claim.end(&mut self.reader);
    }
}

impl<P> fmt::Debug for Consumer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("address", self.pipe().address())
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}

impl Consumer {
    pub(crate) fn claim(pipe: &Pipe) -> Result<Self, SetupError> {
        let claim = Claim::take(pipe, Role::Consumer)?;
        let reader = Reader::recover(pipe.ring(), pipe.wake_mode()).map_err(SetupError::Corrupt)?;
        let rest = Rest::new(reader.ring().capacity(), reader.counters().messages(), reader.head());
        let inner = Inner { reader, rest, stopper: Stopper::new(), claim };
        Ok(Consumer { inner, promise: PhantomData })
    }

    /// Promises that the producer obeys the protocol, for the right to read messages in place.
    ///
    /// # Safety
    /// As long as the result exists,
    /// * every process that has the segment attached for writing keeps to the layout and to the protocol of this
    ///   version (LAYOUT.md); in particular, none writes to a record after its commit and before its release.
    #[must_use = "the promise is worth nothing unless the result is used"]
    pub unsafe fn trust_peer(self) -> Consumer<Trusted> {
        Consumer { inner: self.inner, promise: PhantomData }
    }
}

impl<P> Consumer<P> {
    /// Receives the next message if there is one now.
    ///
    /// # Errors
    /// `Empty`, `Closed`, `Corrupt`.
    #[inline]
    pub fn try_recv(&mut self) -> Result<Message<'_, P>, RecvError> {
        self.recv_one(Patience::None)
    }

    /// Receives the next message, and waits for it if there is none.
    ///
    /// The producer cannot use the message's space again before the result is dropped.
    ///
    /// # Errors
    /// `Closed`, `Abandoned`, `Stopped`, `Removed`, `Replaced`, `ClaimsLost`, `Corrupt`.
    #[inline]
    pub fn recv(&mut self) -> Result<Message<'_, P>, RecvError> {
        self.recv_one(Patience::Forever)
    }

    /// Receives the next message, and waits for it until `deadline` if there is none.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and `TimedOut`.
    #[inline]
    pub fn recv_deadline(&mut self, deadline: Instant) -> Result<Message<'_, P>, RecvError> {
        self.recv_one(Patience::Until(deadline))
    }

    /// Receives the next message, and waits for it if there is none, for `timeout` at most. Reads the clock.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and `TimedOut`.
    #[inline]
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Message<'_, P>, RecvError> {
        self.recv_one(Patience::within(timeout))
    }

    /// Receives the next message into `to`, in place of what that held, and releases it. Waits for one. Returns its length.
    ///
    /// Nothing is borrowed from the consumer afterwards, and on an error `to` stays as it is. Allocates only if the capacity of `to` falls short.
    ///
    /// ```no_run
    /// # fn use_it(_: &[u8]) {}
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut consumer = shmpipe::Pipe::open_or_create("ticks")?.consumer()?;
    /// let mut message = Vec::new();
    /// loop {
    ///     match consumer.recv_into(&mut message) {
    ///         Ok(_) => use_it(&message),
    ///         Err(shmpipe::RecvError::Closed | shmpipe::RecvError::Abandoned) => consumer.wait_for_peer(None)?,
    ///         Err(error) => return Err(error.into()),
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    pub fn recv_into(&mut self, to: &mut Vec<u8>) -> Result<usize, RecvError> {
        let message = self.recv()?;
        to.clear();
        message.append_to(to);
        Ok(to.len())
    }

    /// Receives the next message as a value, and releases it. Waits for one.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and `WrongSize` if the message does not have exactly the size of the value: then it stays in the
    /// pipe, and comes again.
    #[inline]
    pub fn recv_value<T: bytemuck::AnyBitPattern>(&mut self) -> Result<T, RecvError> {
        let message = self.recv()?;
        let value = message.value();
        if value.is_err() {
            message.keep();
        }
        value
    }

    #[inline(always)]
    fn recv_one(&mut self, patience: Patience) -> Result<Message<'_, P>, RecvError> {
        let mut found = self.inner.peek_fast();
        if found.is_none() && !matches!(patience, Patience::None) && self.inner.begins_to_wait() {
            // The next message of a stream, or the answer to the one just sent, is there soon. In line, so that the processor
            // can go on ahead of the arrival into what the caller does with it.
            for _ in 0..LOOKS {
                found = self.inner.peek_fast();
                if found.is_some() {
                    break;
                }
                crate::protocol::sync::spin_loop();
            }
        }
        match found {
            Some(found) => Ok(Message { record: Record::new(found), consumer: self }),
            None => {
                let found = self.inner.find(patience)?;
                Ok(Message { record: Record::new(found), consumer: self })
            }
        }
    }

    /// Takes the messages that are there now, up to `limit`, and releases them together. Never waits.
    pub fn drain(&mut self, limit: usize) -> Drain<'_, P> {
        let (end, end_limit) = (self.inner.reader.head(), self.inner.reader.limit());
        Drain { consumer: self, limit, end, end_limit, messages: 0, bytes: 0 }
    }

    /// Bytes of the longest message.
    #[must_use]
    pub fn max_len(&self) -> usize {
        self.inner.reader.ring().max_length() as usize
    }

    /// Bytes of ring data.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.inner.reader.ring().capacity()
    }

    /// Where the next record stands, or a little before it: everything before this was released.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.inner.reader.head())
    }

    /// Ends waiting calls from another thread or from a signal handler.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.inner.stopper.clone()
    }

    /// What is known about the producer now. Makes one system call at most.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.inner.claim.peer(self.inner.reader.peer_state())
    }

    /// Waits until there is a producer, or was one that has gone again and of whose end we have not been told: until
    /// there is something to receive or may be soon. For as long as `deadline` allows.
    ///
    /// # Errors
    /// `TimedOut`, `Stopped`, `Removed`, `Replaced`, `ClaimsLost`.
    pub fn wait_for_peer(&mut self, deadline: Option<Instant>) -> Result<(), RecvError> {
        let Inner { reader, stopper, claim, .. } = &self.inner;
        claim.wait_for_peer(reader, deadline, stopper)
    }

    /// The pipe.
    #[must_use]
    pub fn pipe(&self) -> &Pipe {
        self.inner.claim.pipe()
    }

    /// Closes: from now on the producer gets `Closed`. Dropping does the same and cannot say if it failed.
    ///
    /// # Errors
    /// [`SetupError::Removed`], [`SetupError::Replaced`] if the pipe was removed meanwhile.
    pub fn close(mut self) -> Result<(), SetupError> {
        self.inner.claim.end(&mut self.inner.reader)
    }
}

/// A record in the ring, taken and not yet released.
///
/// The producer may be hostile and change the bytes at any time, so that they can only be copied out; with a
/// [`Trusted`] producer, the record is a `&[u8]`. Neither `Copy` nor `Clone`: a copy could outlive the release.
pub struct Record<'a, P = Untrusted> {
    found: Found,
    promise: PhantomData<(&'a Cell<()>, P)>,
}

impl<P> fmt::Debug for Record<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("position", &self.position())
            .field("tag", &self.tag())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl<P> Record<'_, P> {
    #[inline(always)]
    fn new(found: Found) -> Self {
        Record { found, promise: PhantomData }
    }

    /// Bytes of the message.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.found.length()
    }

    /// Whether the message is an empty one, which is not the same as no message.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tag that the producer gave it.
    #[inline]
    #[must_use]
    pub fn tag(&self) -> u32 {
        self.found.tag()
    }

    /// Where the record stands: the same as what `send` returned, and the same again if it comes a second time.
    #[inline]
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.found.start)
    }

    /// Copies the message to the start of `to` and returns its length.
    ///
    /// # Errors
    /// `WrongSize` if `to` is shorter; then nothing is copied.
    #[inline]
    pub fn copy_to(&self, to: &mut [u8]) -> Result<usize, RecvError> {
        let length = self.len();
        if length > to.len() {
            return Err(RecvError::WrongSize { found: length, expected: to.len() });
        }
        // SAFETY: the consumer, which 'a borrows, keeps the ring mapped; `to` has the payload's length at least.
        unsafe { self.found.payload().read(to.as_mut_ptr()) };
        Ok(length)
    }

    /// Appends the message to `to`. Allocates only if its capacity falls short.
    #[inline]
    pub fn append_to(&self, to: &mut Vec<u8>) {
        let length = self.len();
        to.reserve(length);
        // SAFETY: as in `copy_to`, with the spare capacity just reserved; it is written before it counts.
        unsafe {
            self.found.payload().read(to.as_mut_ptr().add(to.len()));
            to.set_len(to.len() + length);
        }
    }

    /// The message in a vector of its own.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.append_to(&mut bytes);
        bytes
    }

    /// The message as a value.
    ///
    /// # Errors
    /// `WrongSize` if it does not have exactly the size of the value.
    #[inline]
    pub fn value<T: bytemuck::AnyBitPattern>(&self) -> Result<T, RecvError> {
        if self.len() != size_of::<T>() {
            return Err(RecvError::WrongSize { found: self.len(), expected: size_of::<T>() });
        }
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: as in `copy_to`, with a value of the payload's length; every bit pattern makes a T.
        unsafe {
            self.found.payload().read_start(value.as_mut_ptr().cast(), size_of::<T>());
            Ok(value.assume_init())
        }
    }
}

impl Deref for Record<'_, Trusted> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the payload lies within the ring, which the consumer that 'a borrows keeps mapped; by the promise
        // of `trust_peer` nobody writes there before the release, which ends 'a.
        unsafe { std::slice::from_raw_parts(self.found.payload().as_ptr(), self.found.payload().length()) }
    }
}

/// A message received. Dropping it releases its space to the producer.
#[must_use = "dropping the message releases it"]
pub struct Message<'a, P = Untrusted> {
    record: Record<'a, P>,
    consumer: &'a mut Consumer<P>,
}

impl<P> fmt::Debug for Message<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.record.fmt(f)
    }
}

impl<'a, P> Message<'a, P> {
    /// Gives the space back to the producer. Dropping does the same.
    pub fn release(self) {}

    /// Does not give the space back: the message comes again.
    pub fn keep(self) {
        // A consumer without its guard holds nothing that must be dropped.
        std::mem::forget(self);
    }
}

impl<'a, P> Deref for Message<'a, P> {
    type Target = Record<'a, P>;

    #[inline]
    fn deref(&self) -> &Record<'a, P> {
        &self.record
    }
}

impl<P> Drop for Message<'_, P> {
    // Also where a panic unwinds: a call there would want the message in memory.
    #[inline(always)]
    fn drop(&mut self) {
        let found = self.record.found;
        self.consumer.inner.reader.release(found.end, found.limit, 1, found.length() as u64);
    }
}

/// Messages taken together. Dropping it releases them all, with one store.
#[must_use = "a drain takes nothing by itself: call next"]
pub struct Drain<'a, P = Untrusted> {
    consumer: &'a mut Consumer<P>,
    limit: usize,
    /// The position behind what was taken, and the reader's limit there.
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

impl<P> Drain<'_, P> {
    /// Takes the next message; `None` if there is none now, or `limit` are taken. It stays where it is until the
    /// drain is dropped.
    ///
    /// # Errors
    /// `Corrupt`.
    #[inline]
    #[allow(
        clippy::should_implement_trait,
        reason = "a record borrows from the drain, which no Iterator can express"
    )]
    pub fn next(&mut self) -> Result<Option<Record<'_, P>>, RecvError> {
        if self.messages >= self.limit as u64 {
            return Ok(None);
        }
        let reader = &mut self.consumer.inner.reader;
        let found = match reader.look_further(self.end, self.end_limit) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(None),
            Err(corruption) => {
                // The reader accepts nothing more, and the release must not change that.
                self.end_limit = 0;
                return Err(RecvError::Corrupt(corruption));
            }
        };
        (self.end, self.end_limit) = (found.end, found.limit);
        self.messages += 1;
        self.bytes += found.length() as u64;
        Ok(Some(Record::new(found)))
    }

    /// Messages taken so far.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.messages as usize
    }

    /// Gives the space of all that were taken back to the producer. Dropping does the same.
    pub fn release(self) {}

    /// Does not give the space back: the messages come again.
    pub fn keep(self) {
        // A consumer without its guard holds nothing that must be dropped.
        std::mem::forget(self);
    }
}

impl<P> Drop for Drain<'_, P> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.messages > 0 {
            self.consumer.inner.reader.release(self.end, self.end_limit, self.messages, self.bytes);
        }
    }
}
