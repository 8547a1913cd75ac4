//! Both directions of a duplex pipe, in one endpoint.

use crate::endpoint::cancel::CancelHandle;
use crate::endpoint::claim::Claim;
use crate::endpoint::consumer::Consumer;
use crate::endpoint::message::Message;
use crate::endpoint::payload::Payload;
use crate::endpoint::producer::Producer;
use crate::endpoint::trust::{Trusted, Untrusted};
use crate::error::{
    CheckError, CloseError, RecvError, RecvTimeoutError, SendError, SendTimeoutError, SetupError,
    TryRecvError, TrySendError, WaitError,
};
use crate::pipe::Pipe;
use crate::position::Position;
use crate::protocol::duplex;
use crate::protocol::liveness::{DuplexSide, Peer};
use crate::segment::identity::Way;
use std::fmt;
use std::time::{Duration, Instant};

/// One side of a duplex pipe: sends to the other side and receives from it.
///
/// A pipe that was created with [`Options::duplex`](crate::Options::duplex) has two sides, A and B, which are equals.
/// [`Pipe::duplex`] claims the first that is free, and [`Pipe::duplex_as`] the one that is asked for. Dropping the endpoint closes
/// the pipe for this side, in both directions.
///
/// ```
/// let pipe = shmpipe::Options::new().duplex(true).create("memfd")?;
/// let mut server = pipe.duplex()?;
/// let mut client = pipe.duplex()?; // usually in another process
/// client.send(b"6 times 7?")?;
/// assert_eq!(server.recv()?.to_vec(), b"6 times 7?");
/// server.send(b"42")?;
/// assert_eq!(client.recv()?.to_vec(), b"42");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Each direction is a ring of its own, with a [`Producer`] at one side and a [`Consumer`] at the other. The calls here are theirs:
/// they take as long, and are as safe against a hostile peer. [`producer`](Self::producer) and [`consumer`](Self::consumer) lend
/// the two for what is missing here, such as [`reserve`](Producer::reserve) and [`drain`](Consumer::drain), and
/// [`split`](Self::split) hands them out for two threads. Both sides may block in [`send`](Self::send) at the same time: two sides
/// that send without receiving wait for each other forever once both rings are full, as with two sockets.
///
/// # When the other side goes away
/// Each direction reports a close by itself, as the tables of [`Producer`] and [`Consumer`] say. After [`split`](Self::split) at the
/// other side, one direction can be closed and the other in use.
///
/// An abort or a death of the other side is reported once by this endpoint, by whichever call finds it first, and not once more for
/// the other direction. From then on both directions wait for a successor. What the other side had sent before is received all the
/// same.
pub struct Duplex<P = Untrusted> {
    // Dropped in this order: when the other side has received everything and gets `Closed`, it also gets it for what it sends.
    consumer: Consumer<P>,
    producer: Producer<P>,
    side: DuplexSide,
}

impl Pipe {
    /// Claims the first free side of a duplex pipe: A, or else B.
    ///
    /// For two equal peers, of which each does not care which side it has. A process that may be restarted asks for the side that
    /// its predecessor had, by [`duplex_as`](Self::duplex_as): otherwise a second client may take the side of a server that has
    /// died.
    ///
    /// ```
    /// use shmpipe::{DuplexSide, Options, SetupError};
    ///
    /// let pipe = Options::new().duplex(true).create("memfd")?;
    /// let (first, second) = (pipe.duplex()?, pipe.duplex()?);
    /// assert_eq!((first.side(), second.side()), (DuplexSide::A, DuplexSide::B));
    /// assert!(matches!(pipe.duplex(), Err(SetupError::SideTaken { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As from [`duplex_as`](Self::duplex_as); [`SetupError::SideTaken`], with side B, if both are taken.
    pub fn duplex(&self) -> Result<Duplex, SetupError> {
        match self.duplex_as(DuplexSide::A) {
            Err(SetupError::SideTaken { .. }) => self.duplex_as(DuplexSide::B),
            claimed => claimed,
        }
    }

    /// Claims a side of a duplex pipe and continues, in both directions, where its last holder stopped.
    ///
    /// What [`producer`](Self::producer) and [`consumer`](Self::consumer) say of messages applies: what the last holder committed is
    /// in the pipe, and what it received and did not release is received again.
    ///
    /// Does not wait for a live holder to leave. Waits up to a second for the kernel to release the side of a dead one.
    ///
    /// ```
    /// use shmpipe::{DuplexSide, Options};
    ///
    /// let pipe = Options::new().duplex(true).create("memfd")?;
    /// pipe.duplex_as(DuplexSide::B)?.send(b"kept until received")?;
    /// let mut server = pipe.duplex_as(DuplexSide::A)?;
    /// assert_eq!(server.recv()?.to_vec(), b"kept until received");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// * [`SetupError::SideTaken`] while a process holds that side, this one or another.
    /// * [`Unsupported::OneWay`](crate::error::Unsupported::OneWay) if the pipe has one direction.
    /// * The others of [`producer`](Self::producer): [`Damage::Ring`](crate::error::Damage::Ring) if a peer broke the protocol in
    ///   either ring, [`Lost`](SetupError::Lost), [`Unsupported`](SetupError::Unsupported),
    ///   [`PermissionDenied`](SetupError::PermissionDenied) or [`Os`](SetupError::Os).
    pub fn duplex_as(&self, side: DuplexSide) -> Result<Duplex, SetupError> {
        Duplex::claim(self, side)
    }
}

impl Duplex {
    fn claim(pipe: &Pipe, side: DuplexSide) -> Result<Self, SetupError> {
        super::check_directions(pipe, true)?;
        let claim = Claim::take(pipe, side.role())?;
        let (out, back) = match side {
            DuplexSide::A => (Way::Forth, Way::Back),
            DuplexSide::B => (Way::Back, Way::Forth),
        };
        let (mut writer, mut reader) = (Producer::take_over(pipe, out)?, Consumer::take_over(pipe, back)?);
        duplex::open(&mut reader, &mut writer).map_err(SetupError::of_takeover(side.role()))?;
        let (consumer, producer) = (Consumer::new(claim.share(), reader), Producer::new(claim, writer));
        Ok(Duplex { consumer, producer, side })
    }

    /// Promises that the other side obeys the protocol, for the right to read and write messages in place.
    ///
    /// As [`Producer::trust_peer`] and [`Consumer::trust_peer`], for both directions.
    ///
    /// ```
    /// let pipe = shmpipe::Options::new().duplex(true).create("memfd")?;
    /// pipe.duplex()?.send(b"hello")?;
    /// // SAFETY: no other process has this memfd.
    /// let mut duplex = unsafe { pipe.duplex_as(shmpipe::DuplexSide::B)?.trust_peer() };
    /// assert_eq!(&duplex.recv()?[..], b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Safety
    /// As long as the result exists,
    /// * every process that has the segment attached for writing keeps to the layout and to the protocol of this version
    ///   (LAYOUT.md); in particular, none writes to the ring of a direction but its producer, and the producer does not write to a
    ///   record after its commit and before its release.
    #[must_use = "the promise is worth nothing unless the result is used"]
    pub unsafe fn trust_peer(self) -> Duplex<Trusted> {
        let Duplex { consumer, producer, side } = self;
        // SAFETY: the caller's promise covers both directions.
        let (consumer, producer) = unsafe { (consumer.trust_peer(), producer.trust_peer()) };
        Duplex { consumer, producer, side }
    }
}

impl<P> Duplex<P> {
    /// Returns which side this is.
    #[must_use]
    pub fn side(&self) -> DuplexSide {
        self.side
    }

    /// Sends a message if there is space now. See [`Producer::try_send`].
    ///
    /// # Errors
    /// Those of [`Producer::try_send`], where the consumer is the other side.
    #[inline(always)]
    pub fn try_send(&mut self, message: impl Payload) -> Result<Position, TrySendError> {
        self.producer.try_send(message)
    }

    /// Sends a message; blocks while the ring to the other side is full. See [`Producer::send`].
    ///
    /// # Errors
    /// Those of [`Producer::send`], where the consumer is the other side.
    #[inline(always)]
    pub fn send(&mut self, message: impl Payload) -> Result<Position, SendError> {
        self.producer.send(message)
    }

    /// Sends a message; blocks for `timeout` at most while the ring to the other side is full. See [`Producer::send_timeout`].
    ///
    /// # Errors
    /// Those of [`Producer::send_timeout`], where the consumer is the other side.
    #[inline]
    pub fn send_timeout(
        &mut self,
        message: impl Payload,
        timeout: Duration,
    ) -> Result<Position, SendTimeoutError> {
        self.producer.send_timeout(message, timeout)
    }

    /// Sends a message; blocks until `deadline` at most while the ring to the other side is full. See
    /// [`Producer::send_deadline`].
    ///
    /// # Errors
    /// Those of [`Producer::send_deadline`], where the consumer is the other side.
    #[inline]
    pub fn send_deadline(
        &mut self,
        message: impl Payload,
        deadline: Instant,
    ) -> Result<Position, SendTimeoutError> {
        self.producer.send_deadline(message, deadline)
    }

    /// Receives the next message if there is one now. See [`Consumer::try_recv`].
    ///
    /// # Errors
    /// Those of [`Consumer::try_recv`], where the producer is the other side.
    #[inline]
    pub fn try_recv(&mut self) -> Result<Message<'_, P>, TryRecvError> {
        self.consumer.try_recv()
    }

    /// Receives the next message; blocks while there is none. See [`Consumer::recv`].
    ///
    /// The message borrows the endpoint. To answer it, convert it first: `duplex.recv().map(|message| message.to_vec())`.
    ///
    /// # Errors
    /// Those of [`Consumer::recv`], where the producer is the other side.
    #[inline]
    pub fn recv(&mut self) -> Result<Message<'_, P>, RecvError> {
        self.consumer.recv()
    }

    /// Receives the next message; blocks for `timeout` at most while there is none. See [`Consumer::recv_timeout`].
    ///
    /// # Errors
    /// Those of [`Consumer::recv_timeout`], where the producer is the other side.
    #[inline]
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Message<'_, P>, RecvTimeoutError> {
        self.consumer.recv_timeout(timeout)
    }

    /// Receives the next message; blocks until `deadline` at most while there is none. See [`Consumer::recv_deadline`].
    ///
    /// # Errors
    /// Those of [`Consumer::recv_deadline`], where the producer is the other side.
    #[inline]
    pub fn recv_deadline(&mut self, deadline: Instant) -> Result<Message<'_, P>, RecvTimeoutError> {
        self.consumer.recv_deadline(deadline)
    }

    /// Lends the sending half, for the calls that are not repeated here.
    ///
    /// ```
    /// let pipe = shmpipe::Options::new().duplex(true).create("memfd")?;
    /// let mut duplex = pipe.duplex()?;
    /// let mut batch = duplex.producer().batch();
    /// batch.push(b"both")?;
    /// batch.push(b"or neither")?;
    /// batch.commit();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn producer(&mut self) -> &mut Producer<P> {
        &mut self.producer
    }

    /// Lends the receiving half, for the calls that are not repeated here, such as [`drain`](Consumer::drain).
    pub fn consumer(&mut self) -> &mut Consumer<P> {
        &mut self.consumer
    }

    /// Hands out both halves, which two threads can use at the same time.
    ///
    /// A half that is closed, aborted or dropped ends its direction, and leaves the other one as it is: so a half-close is a split
    /// and a close of the producer. The side is free when both halves are gone.
    ///
    /// Each half reports an abort or a death of the other side once, by itself, since the threads do not know of each other. A
    /// failure that this endpoint has reported before is not reported again. A [`CancelHandle`] that this endpoint gave out before
    /// still cancels both; each half's own cancels that half.
    ///
    /// ```
    /// use shmpipe::RecvError;
    ///
    /// let pipe = shmpipe::Options::new().duplex(true).create("memfd")?;
    /// let (mut server, client) = (pipe.duplex()?, pipe.duplex()?);
    /// let (mut requests, mut replies) = client.split();
    /// requests.send(b"the last request")?;
    /// requests.close()?;
    /// assert_eq!(server.recv()?.to_vec(), b"the last request");
    /// assert!(matches!(server.recv(), Err(RecvError::Closed)));
    /// server.send(b"the last reply")?;
    /// assert_eq!(replies.recv()?.to_vec(), b"the last reply");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "a half that is dropped closes its direction"]
    pub fn split(self) -> (Producer<P>, Consumer<P>) {
        let Duplex { mut consumer, mut producer, .. } = self;
        duplex::part(&mut consumer.inner.reader, &mut producer.inner.writer);
        (producer, consumer)
    }

    /// Returns the bytes of the longest message, in either direction.
    #[must_use]
    pub fn max_len(&self) -> usize {
        self.producer.max_len()
    }

    /// Returns a handle that cancels blocked calls in both directions, from another thread or from a signal handler.
    ///
    /// ```
    /// use shmpipe::RecvError;
    ///
    /// let pipe = shmpipe::Options::new().duplex(true).create("memfd")?;
    /// let mut duplex = pipe.duplex()?;
    /// let cancel = duplex.cancel_handle();
    /// std::thread::spawn(move || cancel.cancel());
    /// assert!(matches!(duplex.recv(), Err(RecvError::Cancelled)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn cancel_handle(&self) -> CancelHandle {
        self.consumer.cancel_handle().and(&self.producer.cancel_handle())
    }

    /// Returns what this side knows about the other one now.
    ///
    /// The other side is open while either direction is, and has closed when it has closed both. Costs at most two system calls.
    ///
    /// ```
    /// use shmpipe::Peer;
    ///
    /// let pipe = shmpipe::Options::new().duplex(true).create("memfd")?;
    /// let duplex = pipe.duplex()?;
    /// assert_eq!(duplex.peer(), Peer::NeverCame);
    /// let other = pipe.duplex()?;
    /// assert_eq!(duplex.peer(), Peer::Open);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn peer(&self) -> Peer {
        // By what it tells of the two directions together.
        let weight = |peer: &Peer| match peer {
            Peer::NeverCame => 0,
            Peer::Closed => 1,
            Peer::Aborted { .. } => 2,
            Peer::Died => 3,
            Peer::Open => 4,
            Peer::Unknown => 5,
        };
        let (receiving, sending) = (self.consumer.peer(), self.producer.peer());
        if weight(&sending) > weight(&receiving) { sending } else { receiving }
    }

    /// Blocks until the other side attaches, or there may be something to receive, or `deadline` passes.
    ///
    /// As [`Consumer::wait_for_peer`]: also returns if another side has come and gone whose end was not reported yet. When it
    /// returns because the other side is there, [`send`](Self::send) finds it there, too.
    ///
    /// ```no_run
    /// # fn answer(_: &[u8]) -> Vec<u8> { vec![] }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use shmpipe::{DuplexSide, Options, RecvError};
    ///
    /// // Serves one client after the other, however they end.
    /// let mut server = Options::new().duplex(true).open_or_create("calculator")?.duplex_as(DuplexSide::A)?;
    /// loop {
    ///     match server.recv().map(|request| request.to_vec()) {
    ///         // An error here means that this client does not want the reply.
    ///         Ok(request) => drop(server.try_send(&answer(&request))),
    ///         Err(RecvError::Closed | RecvError::PeerAborted { .. } | RecvError::PeerDied) => server.wait_for_peer(None)?,
    ///         Err(error) => return Err(error.into()),
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`WaitError::TimedOut`] at the deadline, [`WaitError::Cancelled`], and [`WaitError::Lost`] if the pipe or the side is lost.
    pub fn wait_for_peer(&mut self, deadline: Option<Instant>) -> Result<(), WaitError> {
        self.consumer.wait_for_peer(deadline)
    }

    /// Checks that this side still has the pipe and its role, and that the other side has not ended in either direction.
    ///
    /// For a program that only uses calls that do not block: see [`Consumer::check`] and [`Producer::check`], which this calls. Never
    /// blocks. Costs up to eight system calls.
    ///
    /// ```
    /// use shmpipe::CheckError;
    ///
    /// let pipe = shmpipe::Options::new().duplex(true).create("memfd")?;
    /// let mut duplex = pipe.duplex()?;
    /// assert_eq!(duplex.check(), Ok(()));
    /// pipe.duplex()?.close()?;
    /// assert_eq!(duplex.check(), Err(CheckError::Closed));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// * [`CheckError::PeerAborted`] or [`PeerDied`](CheckError::PeerDied) if the other side aborted or died: once, by this or by
    ///   another call. There may still be messages to receive.
    /// * [`CheckError::Closed`] if it closed a direction: the one to us, and everything was received; or the one to it.
    /// * [`CheckError::Lost`] if the pipe or the side is lost.
    /// * [`CheckError::Corrupt`] if the other side broke the protocol.
    pub fn check(&mut self) -> Result<(), CheckError> {
        match self.consumer.check() {
            // The other direction may tell more.
            closed @ Err(CheckError::Closed) => self.producer.check().and(closed),
            checked => checked.and_then(|()| self.producer.check()),
        }
    }

    /// Returns the pipe that the side was claimed through.
    #[must_use]
    pub fn pipe(&self) -> &Pipe {
        self.producer.pipe()
    }

    /// Closes the pipe for this side, in both directions.
    ///
    /// The other side receives the rest, then [`Closed`](RecvError::Closed), and cannot send any more. Messages that were not
    /// received here stay in the pipe, for the next holder of this side. Dropping does the same and cannot report an error.
    ///
    /// ```
    /// use shmpipe::{RecvError, SendError};
    ///
    /// # let pipe = shmpipe::Options::new().duplex(true).create("memfd")?;
    /// # let (mut server, mut client) = (pipe.duplex()?, pipe.duplex()?);
    /// client.send(b"the last request")?;
    /// client.close()?;
    /// assert_eq!(server.recv()?.to_vec(), b"the last request");
    /// assert!(matches!(server.recv(), Err(RecvError::Closed)));
    /// assert_eq!(server.send(b"too late"), Err(SendError::Closed));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`CloseError::Lost`] if the pipe or the side was lost before, [`CloseError::Os`] if the system call that gives the side back
    /// failed. It is closed nevertheless.
    pub fn close(self) -> Result<(), CloseError> {
        let Duplex { consumer, producer, .. } = self;
        consumer.close().and(producer.close())
    }

    /// Ends this side with an error, in both directions: it has not sent, or not handled, all that it had to.
    ///
    /// The other side gets [`PeerAborted`](RecvError::PeerAborted) once, with `code`, whose meaning the application defines. An
    /// endpoint that a panic drops aborts with [`PANICKED`](crate::PANICKED).
    ///
    /// ```
    /// use shmpipe::RecvError;
    ///
    /// # let pipe = shmpipe::Options::new().duplex(true).create("memfd")?;
    /// # let (server, mut client) = (pipe.duplex()?, pipe.duplex()?);
    /// const DATABASE_LOST: u32 = 3;
    /// server.abort(DATABASE_LOST)?;
    /// assert!(matches!(client.recv(), Err(RecvError::PeerAborted { code: DATABASE_LOST })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As from [`close`](Self::close). The side is gone nevertheless.
    pub fn abort(self, code: u32) -> Result<(), CloseError> {
        let Duplex { consumer, producer, .. } = self;
        consumer.abort(code).and(producer.abort(code))
    }
}

impl<P> fmt::Debug for Duplex<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Duplex")
            .field("address", self.pipe().address())
            .field("side", &self.side)
            .finish_non_exhaustive()
    }
}
