//! The receiving end.

use crate::endpoint::activity::Activity;
use crate::endpoint::cancel::CancelHandle;
use crate::endpoint::claim::Claim;
use crate::endpoint::deadline::{At, Deadline, Never, Now};
use crate::endpoint::drain::Drain;
use crate::endpoint::message::{Message, Record};
use crate::endpoint::pace::Pace;
use crate::endpoint::short::Short;
use crate::endpoint::stream_backoff::StreamBackoff;
use crate::endpoint::trust::{Trusted, Untrusted};
use crate::endpoint::wait::{Awaited, SPINS_PER_CLOCK_READ, wait_for};
use crate::endpoint::watched::Watched;
use crate::error::{
    CheckError, CloseError, Damage, Lost, RecvError, RecvTimeoutError, SetupError, TryRecvError, WaitError,
};
use crate::options::Wait;
use crate::pipe::Pipe;
use crate::position::Position;
use crate::protocol::corruption::Corruption;
use crate::protocol::half::Half;
use crate::protocol::layout::{Counters, count_wait};
use crate::protocol::liveness::{End, Peer, PeerDied, Role};
use crate::protocol::reader::{Located, Reader, RecvEnd};
use crate::protocol::record::EMPTY;
use crate::protocol::ring::Ring;
use crate::protocol::sleep::{Interest, Until};
use crate::protocol::sync::spin_loop;
use crate::segment::identity::Way;
use crate::sys::process::Process;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::thread;
use std::time::{Duration, Instant};

/// The receiving end of a pipe.
///
/// A pipe has one at a time; [`Pipe::consumer`] claims the role. Dropping the consumer closes the pipe for this side.
///
/// A consumer can move to another thread; one thread uses it at a time. To receive one message, there are four forms:
///
/// | now or not at all | blocks | for a [`Duration`] at most | until an [`Instant`] |
/// |---|---|---|---|
/// | [`try_recv`](Self::try_recv) | [`recv`](Self::recv) | [`recv_timeout`](Self::recv_timeout) | [`recv_deadline`](Self::recv_deadline) |
///
/// Each returns a [`Message`] that borrows the consumer and releases its space when dropped. To own what was received, convert it
/// at once: `consumer.recv().map(|message| message.to_vec())`. [`iter`](Self::iter) does so for message after message, and
/// [`ByteReader`](crate::ByteReader) reads them as a stream of bytes. [`drain`](Self::drain) receives several messages and releases
/// them together.
///
/// ```no_run
/// # fn process(_: &[u8]) {}
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use shmpipe::{Pipe, RecvError};
///
/// // Receives from one producer after the other, however they end.
/// let mut consumer = Pipe::open_or_create("ticks")?.consumer()?;
/// loop {
///     match consumer.recv().map(|message| message.to_vec()) {
///         Ok(message) => process(&message),
///         Err(RecvError::Closed | RecvError::PeerAborted { .. } | RecvError::PeerDied) => consumer.wait_for_peer(None)?,
///         Err(error) => return Err(error.into()),
///     }
/// }
/// # }
/// ```
///
/// # When the producer goes away
/// | the producer | `recv` from an empty pipe |
/// |---|---|
/// | never attached, or its end was reported to an earlier consumer | blocks |
/// | is alive and does not send | blocks |
/// | closed | [`Closed`](RecvError::Closed), every time, until a new producer attaches |
/// | aborted, or was dropped by a panic | [`PeerAborted`](RecvError::PeerAborted) once, at once; the next call waits for a successor |
/// | died | [`PeerDied`](RecvError::PeerDied) once, within 200 ms; the next call waits for a successor |
///
/// Every message sent before the end is received first. A `try_` call reports the same, except a death, which
/// [`check`](Self::check) reports.
///
/// # Progress
/// A receive that need not wait is wait-free: a bounded number of steps, whatever the producer does. It makes a system call only to
/// wake a sleeping producer.
///
/// `pthread_cancel` of a thread in a blocked call aborts the process, as of any thread that runs Rust code: use a [`CancelHandle`].
pub struct Consumer<P = Untrusted> {
    pub(crate) inner: Inner,
    /// The promise; and a `Cell`, which keeps two threads from using a reference at the same time.
    promise: PhantomData<(P, Cell<()>)>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) reader: Reader,
    /// The process that has the ring mapped. With `keeps_unread` its quick answer is never yes.
    process: Process,
    /// Whether messages that a panic drops stay unread.
    keeps_unread: bool,
    backoff: StreamBackoff,
    pace: Pace,
    cancel: CancelHandle,
    claim: Claim,
}

impl Inner {
    /// Whether a guard may release its messages. In a forked child the ring is not mapped: something else may be.
    #[inline(always)]
    pub(super) fn may_release(&self) -> bool {
        self.process.is_surely_current() || self.is_ours()
    }

    /// The same for a guard that is dropped, perhaps by a panic.
    #[inline(always)]
    pub(super) fn may_release_dropped(&self) -> bool {
        self.process.is_surely_current() || self.is_ours_and_takes_dropped()
    }

    #[cold]
    #[inline(never)]
    fn is_ours(&self) -> bool {
        self.process.is_current()
    }

    #[cold]
    #[inline(never)]
    fn is_ours_and_takes_dropped(&self) -> bool {
        self.process.is_current() && !(self.keeps_unread && thread::panicking())
    }

    /// The next record, in the usual case.
    #[inline(always)]
    pub(crate) fn peek_fast(&self) -> Option<Located> {
        self.reader.peek_fast(self.reader.head(), self.reader.limit())
    }

    /// The next record, if it is there or arrives at once. In line, so that the processor can run ahead of the arrival into the
    /// caller's code.
    #[inline(always)]
    fn next_soon(&mut self, waits: bool) -> Option<Located> {
        let mut located = self.peek_fast();
        if located.is_none() && waits && self.begins_to_wait() {
            // In a stream, or after a request, the next message arrives soon.
            for _ in 0..SPINS_PER_CLOCK_READ {
                match self.reader.peek_or_word(self.reader.head(), self.reader.limit()) {
                    Ok(found) => {
                        located = Some(found);
                        break;
                    }
                    Err(EMPTY) => spin_loop(),
                    // A record over the limit, for the slow path.
                    Err(_) => break,
                }
            }
        }
        located
    }

    /// Begins a wait if the ring is empty: leaves the lines to a streaming producer for a while. Anything else needs a closer look,
    /// not a wait. Returns whether to poll.
    #[cold]
    #[inline(never)]
    fn begins_to_wait(&mut self) -> bool {
        let Inner { reader, backoff, pace, claim, .. } = self;
        if reader.is_finished() || !reader.is_empty() {
            return false;
        }
        count_wait(reader.counters());
        let polls = pace.begin(true) && !matches!(claim.pipe().wait(), Wait::Sleep(_));
        backoff.end_run(reader.counters().messages(), reader.head(), polls);
        polls
    }

    /// Finds the next record in the unusual cases: a wrap, an end, a wait.
    #[inline(always)]
    fn find<D: Deadline>(&mut self, deadline: D) -> Result<Located, D::RecvError> {
        deadline.for_message(self, Self::look, Self::wait)
    }

    // Not generic, like `wait`: compiled with this crate, whose small functions it calls, and not with the caller's.
    #[cold]
    #[inline(never)]
    fn look(&mut self) -> Result<Located, TryRecvError> {
        let Inner { reader, backoff, .. } = self;
        if let Some(located) = reader.peek_slow(reader.head())? {
            return Ok(located);
        }
        // The run ends here, but a call that does not wait does not pause.
        backoff.end_run(reader.counters().messages(), reader.head(), false);
        reader.peek_end()?.ok_or(TryRecvError::Empty)
    }

    #[cold]
    #[inline(never)]
    fn wait(&mut self, deadline: Option<Instant>) -> Result<Located, RecvTimeoutError> {
        let Inner { reader, cancel, claim, pace, .. } = self;
        wait_for(Next { reader, claim }, claim.pipe().wait(), deadline, cancel, pace)
    }

    fn next(&mut self) -> Next<'_> {
        Next { reader: &mut self.reader, claim: &self.claim }
    }
}

/// The next record.
struct Next<'a> {
    reader: &'a mut Reader,
    claim: &'a Claim,
}

impl Next<'_> {
    fn poll<E: From<Corruption> + From<RecvEnd>>(&mut self) -> Result<Option<Located>, E> {
        match self.reader.peek()? {
            Some(located) => Ok(Some(located)),
            None => Ok(self.reader.peek_end()?),
        }
    }

    fn check<E: From<Lost> + From<PeerDied> + From<RecvEnd>>(&mut self) -> Result<Option<Located>, E> {
        self.claim.check(self.reader.is_succeeded())?;
        let is_gone = || self.claim.peer_is_gone().map_err(E::from);
        Ok(self.reader.check_for_death(is_gone)??)
    }

    /// Asks the kernel only if there is no record.
    fn poll_and_check(&mut self) -> Result<Option<Located>, CheckError> {
        match self.poll::<CheckError>()? {
            Some(located) => Ok(Some(located)),
            None => self.check::<CheckError>(),
        }
    }
}

impl Awaited for Next<'_> {
    type Output = Located;
    type Error = RecvTimeoutError;

    fn poll(&mut self) -> Result<Option<Located>, RecvTimeoutError> {
        Next::poll(self)
    }

    fn sleep(&mut self, slice: Duration, cancel: &CancelHandle) {
        if let Some(seen) = self.reader.prepare_sleep() {
            cancel.sleep(self.reader.event_count(), seen, slice);
        }
    }

    fn nap(&mut self, nap: Duration, cancel: &CancelHandle) {
        cancel.nap(self.reader.event_count(), nap);
    }

    fn check(&mut self) -> Result<Option<Located>, RecvTimeoutError> {
        Next::check(self)
    }
}

impl Watched for Inner {
    fn claim(&self) -> &Claim {
        &self.claim
    }

    fn half(&self) -> &dyn Half {
        &self.reader
    }

    fn role(&self) -> Role {
        Role::Consumer
    }

    fn ring(&self) -> &Ring {
        self.reader.ring()
    }

    fn counters(&self) -> &Counters {
        self.reader.counters()
    }

    fn has(&self, interest: Interest) -> bool {
        interest == Interest::Message && !self.reader.is_empty()
    }

    fn poll(&mut self, interest: Interest) -> Result<bool, CheckError> {
        let found = self.next().poll::<CheckError>()?;
        Ok(found.is_some() && interest == Interest::Message)
    }

    fn check(&mut self, interest: Interest) -> Result<bool, CheckError> {
        let found = self.next().poll_and_check()?;
        Ok(found.is_some() && interest == Interest::Message)
    }

    fn until(&self, interest: Interest) -> Until {
        match interest {
            Interest::Message => Until::Record(self.reader.head()),
            Interest::Space(_) | Interest::End => Until::Change,
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.claim.end_dropped(&mut self.reader);
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
        let mut reader = Self::take_over(pipe, Way::Forth)?;
        let epoch = reader.next_epoch().map_err(SetupError::of_takeover(Role::Consumer))?;
        reader.open(epoch);
        Ok(Consumer::new(claim, reader))
    }

    /// Takes over the consumer's half of a ring, whose role is claimed. It is not open yet.
    pub(super) fn take_over(pipe: &Pipe, way: Way) -> Result<Reader, SetupError> {
        Reader::recover(pipe.ring(way), pipe.wake_mode(), pipe.sampling())
            .map_err(|corruption| SetupError::Damaged(Damage::Ring(corruption)))
    }

    /// The end of a half that is open.
    pub(super) fn new(claim: Claim, reader: Reader) -> Self {
        let pipe = claim.pipe();
        let backoff =
            StreamBackoff::new(reader.ring().capacity(), reader.counters().messages(), reader.head());
        let (process, keeps_unread) = (pipe.segment().mapping.process(), pipe.keeps_unread_on_panic());
        let process = if keeps_unread { process.never_surely_current() } else { process };
        let (pace, cancel) = (Pace::of_waits(), CancelHandle::new());
        let inner = Inner { reader, process, keeps_unread, backoff, pace, cancel, claim };
        Consumer { inner, promise: PhantomData }
    }

    /// Promises that the producer obeys the protocol, for the right to read messages in place.
    ///
    /// A [`Message`] then dereferences to `&[u8]`.
    ///
    /// ```
    /// let pipe = shmpipe::Options::new().create("memfd")?;
    /// pipe.producer()?.send(b"hello")?;
    /// // SAFETY: no other process has this memfd.
    /// let mut consumer = unsafe { pipe.consumer()?.trust_peer() };
    /// assert_eq!(&consumer.recv()?[..], b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Safety
    /// As long as the result exists,
    /// * every process that has the segment attached for writing keeps to the layout and to the protocol of this version
    ///   (LAYOUT.md); in particular, none writes to a record after its commit and before its release.
    #[must_use = "the promise is worth nothing unless the result is used"]
    pub unsafe fn trust_peer(self) -> Consumer<Trusted> {
        Consumer { inner: self.inner, promise: PhantomData }
    }
}

impl<P> Consumer<P> {
    /// Receives the next message if there is one now.
    ///
    /// Never blocks. Does not notice that the producer died, nor that the pipe was removed; [`check`](Self::check) does.
    ///
    /// ```
    /// use shmpipe::TryRecvError;
    ///
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
    /// assert!(matches!(consumer.try_recv(), Err(TryRecvError::Empty)));
    /// producer.send(b"hello")?;
    /// assert_eq!(consumer.try_recv()?.to_vec(), b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// * [`TryRecvError::Empty`] if there is no message now.
    /// * [`TryRecvError::Closed`] if the producer closed, and [`TryRecvError::PeerAborted`] if it aborted, after every message was
    ///   received.
    /// * [`TryRecvError::Corrupt`] if the producer broke the protocol.
    #[inline]
    pub fn try_recv(&mut self) -> Result<Message<'_, P>, TryRecvError> {
        self.recv_one(Now)
    }

    /// Receives the next message; blocks while the pipe is empty.
    ///
    /// The producer cannot reuse the message's space before the result is dropped.
    ///
    /// ```
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
    /// producer.send(b"hello")?;
    /// let message = consumer.recv()?;
    /// assert_eq!((message.len(), message.to_vec().as_slice()), (5, b"hello".as_slice()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// * [`RecvError::Closed`] if the producer closed, [`RecvError::PeerAborted`] if it aborted, and [`RecvError::PeerDied`] if it
    ///   died, after every message was received.
    /// * [`RecvError::Cancelled`] or [`Lost`](RecvError::Lost) only if the pipe is empty.
    /// * [`RecvError::Corrupt`] if the producer broke the protocol.
    #[inline]
    pub fn recv(&mut self) -> Result<Message<'_, P>, RecvError> {
        self.recv_one(Never)
    }

    /// Receives the next message; blocks for `timeout` at most while the pipe is empty.
    ///
    /// Reads the clock at the call.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use shmpipe::RecvTimeoutError;
    ///
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let mut consumer = pipe.consumer()?;
    /// match consumer.recv_timeout(Duration::from_millis(5)) {
    ///     Ok(message) => println!("{} bytes", message.len()),
    ///     Err(RecvTimeoutError::TimedOut) => println!("nothing yet"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`RecvTimeoutError::TimedOut`] if there was no message in time; otherwise as [`recv`](Self::recv).
    #[inline]
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Message<'_, P>, RecvTimeoutError> {
        self.recv_one(At::timeout(timeout))
    }

    /// Receives the next message; blocks until `deadline` at most while the pipe is empty.
    ///
    /// # Errors
    /// [`RecvTimeoutError::TimedOut`] if there was no message in time; otherwise as [`recv`](Self::recv).
    #[inline]
    pub fn recv_deadline(&mut self, deadline: Instant) -> Result<Message<'_, P>, RecvTimeoutError> {
        self.recv_one(At::deadline(deadline))
    }

    /// The short path of [`recv`](Self::recv) and the release, for a caller that is a function of its own, as in another language: it
    /// calls nothing but `take`, and never panics. Releases the message if `take` returns `true`. The caller has checked that this is
    /// not a forked child.
    #[doc(hidden)]
    #[inline(always)]
    pub fn recv_short(&mut self, take: impl FnOnce(&Record<'_, P>) -> bool) -> Short {
        let Some(located) = self.inner.peek_fast() else { return Short::Nothing };
        if !take(&Record::new(located)) {
            return Short::Nothing;
        }
        match self.inner.reader.release_only(located.end, located.limit, 1, located.length() as u64) {
            false => Short::Done,
            true => Short::FollowUp,
        }
    }

    /// The rest of [`recv_short`](Self::recv_short).
    #[doc(hidden)]
    pub fn follow_up(&mut self) {
        self.inner.reader.answer();
    }

    #[inline(always)]
    fn recv_one<D: Deadline>(&mut self, deadline: D) -> Result<Message<'_, P>, D::RecvError> {
        match self.inner.next_soon(D::WAITS) {
            Some(located) => Ok(Message::new(self, located)),
            None => {
                let located = self.inner.find(deadline)?;
                Ok(Message::new(self, located))
            }
        }
    }

    /// Blocks until there is a message, and leaves it in the pipe.
    ///
    /// ```
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
    /// producer.send(b"hello")?;
    /// consumer.wait_for_message(None)?;
    /// // Still there, for a receive or for a drain of all messages that have arrived by now.
    /// assert_eq!(consumer.try_recv()?.to_vec(), b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`RecvTimeoutError::TimedOut`] if there was no message at `deadline`; otherwise as [`recv`](Self::recv).
    pub fn wait_for_message(&mut self, deadline: Option<Instant>) -> Result<(), RecvTimeoutError> {
        match self.inner.next_soon(true) {
            Some(_) => Ok(()),
            None => self.inner.find(At::optional(deadline)).map(drop),
        }
    }

    /// Receives the messages that are there now, up to `limit`, and releases them together.
    ///
    /// The producer is notified once for all of them. Never blocks, and does not report that the producer closed, aborted or died:
    /// an empty drain says only that there is nothing now, and [`check`](Self::check) says why.
    ///
    /// ```
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
    /// producer.send(b"one")?;
    /// producer.send(b"two")?;
    /// let mut drain = consumer.drain(64);
    /// while let Some(record) = drain.next()? {
    ///     println!("{} bytes", record.len());
    /// }
    /// assert_eq!(drain.taken(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn drain(&mut self, limit: usize) -> Drain<'_, P> {
        Drain::new(self, limit)
    }

    /// Returns the bytes of the longest message.
    #[must_use]
    pub fn max_len(&self) -> usize {
        self.inner.reader.ring().max_length() as usize
    }

    /// Returns the bytes of ring data.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.inner.reader.ring().capacity()
    }

    /// Returns the position up to which everything is released.
    ///
    /// The next record is there, or, if it does not fit before the end of the ring, at the next start of the ring, less than half
    /// the ring later.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.inner.reader.head())
    }

    /// Returns what the consumers of this pipe have counted: messages released, waits, wake-ups.
    ///
    /// A few loads; no system call. [`Activity`] has an example.
    #[must_use]
    pub fn activity(&self) -> Activity {
        Activity::of(self.inner.reader.counters())
    }

    /// Returns a handle that cancels blocked calls, from another thread or from a signal handler.
    ///
    /// [`CancelHandle`] has an example.
    #[must_use]
    pub fn cancel_handle(&self) -> CancelHandle {
        self.inner.cancel.clone()
    }

    /// Returns what this side knows about the producer now.
    ///
    /// Costs at most one system call.
    ///
    /// ```
    /// use shmpipe::Peer;
    ///
    /// let pipe = shmpipe::Options::new().create("memfd")?;
    /// let consumer = pipe.consumer()?;
    /// pipe.producer()?.close()?;
    /// assert_eq!(consumer.peer(), Peer::Closed);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.inner.claim.peer(&self.inner.reader, self.inner.reader.peer_state())
    }

    /// Blocks until there is something to receive or may be soon, or `deadline` passes.
    ///
    /// That is until a producer attaches, or one has come and gone whose end was not reported yet.
    ///
    /// ```
    /// # use std::time::{Duration, Instant};
    /// let pipe = shmpipe::Options::new().create("memfd")?;
    /// let mut consumer = pipe.consumer()?;
    /// pipe.producer()?.send(b"hello")?; // comes, sends and goes
    /// consumer.wait_for_peer(None)?;
    /// assert_eq!(consumer.recv()?.to_vec(), b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`WaitError::TimedOut`] at the deadline, [`WaitError::Cancelled`], and [`WaitError::Lost`] if the pipe or the role is
    /// lost.
    pub fn wait_for_peer(&mut self, deadline: Option<Instant>) -> Result<(), WaitError> {
        let Inner { reader, cancel, claim, .. } = &self.inner;
        claim.wait_for_peer(reader, deadline, cancel)
    }

    /// Checks, if there is no message, that this side still has the pipe and its role, and that the producer has not ended.
    ///
    /// For a program that only uses calls that do not block: a `try_` call asks the kernel nothing, so it does not notice that the
    /// producer was killed, nor that the pipe was removed. A blocked call checks the same every 100 ms. Never blocks. Costs two to
    /// four system calls, and none while there is a message, which is received first: call it now and then, such as every 100 ms
    /// or after a few thousand [`Empty`](TryRecvError::Empty).
    ///
    /// ```
    /// use shmpipe::{CheckError, Lost, Options, TryRecvError, unlink_force};
    ///
    /// let pipe = Options::new().create("sysv:private")?;
    /// let mut consumer = pipe.consumer()?;
    /// unlink_force(pipe.address())?;
    /// // No producer can open the pipe any more, which this does not say.
    /// assert!(matches!(consumer.try_recv(), Err(TryRecvError::Empty)));
    /// assert_eq!(consumer.check(), Err(CheckError::Lost(Lost::Removed)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// None while there is a message. Then
    /// * [`CheckError::Closed`] or [`PeerAborted`](CheckError::PeerAborted) if the producer closed or aborted, as from
    ///   [`try_recv`](Self::try_recv).
    /// * [`CheckError::PeerDied`] if the producer died. Returned once, by this or by a call that blocks.
    /// * [`CheckError::Lost`] if the pipe or the role is lost.
    /// * [`CheckError::Corrupt`] if the producer broke the protocol.
    pub fn check(&mut self) -> Result<(), CheckError> {
        self.inner.next().poll_and_check().map(drop)
    }

    /// Returns the pipe that the role was claimed through.
    #[must_use]
    pub fn pipe(&self) -> &Pipe {
        self.inner.claim.pipe()
    }

    /// Closes the pipe for this side.
    ///
    /// From now on the producer gets [`Closed`](crate::SendError::Closed). Messages that were not received stay in the pipe, for
    /// the next consumer. Dropping does the same and cannot report an error.
    ///
    /// ```
    /// use shmpipe::SendError;
    ///
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
    /// consumer.close()?;
    /// assert_eq!(producer.send(b"too late"), Err(SendError::Closed));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`CloseError::Lost`] if the pipe or the role was lost before, [`CloseError::Os`] if the system call that gives the role
    /// back failed. The consumer is closed nevertheless.
    pub fn close(mut self) -> Result<(), CloseError> {
        self.inner.claim.end(&mut self.inner.reader, End::Closed)
    }

    /// Closes the pipe for this side, as [`close`](Self::close) does, and stays: for a consumer that cannot be moved, in a global or
    /// a struct.
    ///
    /// From now on every call of this consumer behaves as if the pipe were empty and the producer closed. Another consumer may
    /// claim the role at once. Finishing again does nothing.
    ///
    /// ```
    /// use shmpipe::{RecvError, SendError};
    ///
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
    /// consumer.finish()?;
    /// assert_eq!(producer.send(b"too late"), Err(SendError::Closed));
    /// assert!(matches!(consumer.recv(), Err(RecvError::Closed)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As from [`close`](Self::close). The consumer is closed nevertheless.
    pub fn finish(&mut self) -> Result<(), CloseError> {
        let Inner { reader, claim, .. } = &mut self.inner;
        let ended = claim.end(reader, End::Closed);
        reader.finish();
        ended
    }

    /// Ends this side with an error: it will not do what it had to do with the messages.
    ///
    /// The producer gets [`PeerAborted`](crate::SendError::PeerAborted) once, with `code`, whose meaning the application defines.
    /// Messages that were not received stay in the pipe, for the next consumer. A consumer that a panic drops aborts with
    /// [`PANICKED`](crate::PANICKED).
    ///
    /// ```
    /// use shmpipe::SendError;
    ///
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
    /// const DISK_FULL: u32 = 5;
    /// consumer.abort(DISK_FULL)?;
    /// assert_eq!(producer.send(b"too late"), Err(SendError::PeerAborted { code: DISK_FULL }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As from [`close`](Self::close). The consumer is gone nevertheless.
    pub fn abort(mut self, code: u32) -> Result<(), CloseError> {
        self.inner.claim.end(&mut self.inner.reader, End::Aborted { code })
    }
}
