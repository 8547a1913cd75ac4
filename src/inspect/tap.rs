//! Looking at the messages that pass through a pipe.

use super::role_is_free;
use crate::address::Address;
use crate::backend::{self, sysv};
use crate::error::{Distrust, SetupError, Unsupported};
use crate::position::{Position, SegmentId};
use crate::protocol::corruption::Corruption;
use crate::protocol::liveness::{Peer, Role, State};
use crate::protocol::tap::{self, Seen};
use crate::segment::View;
use crate::segment::identity::Way;
use std::fmt;
use std::sync::Arc;

/// Looks at the messages that pass through a pipe, without taking part.
///
/// A tap maps the segment read-only, takes no role and never makes a side wait. So the producer may overwrite a message before the tap
/// has copied it. Each copy is checked afterwards: what [`next`](Self::next) returns is what was sent, and what it missed it counts.
/// However quickly messages are received, it may be about half of the ring behind, if no message and no batch takes more than an eighth
/// of it, and three quarters if they are short and the ring has 16 KiB or more. A message that was not released yet is never overwritten.
/// One whose producer was killed within its commit is shown when a successor has come.
///
/// ```
/// use shmpipe::{Passed, Tap};
///
/// let pipe = shmpipe::Options::new().create("memfd")?;
/// let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
/// let mut tap = Tap::open(pipe.address())?;
/// producer.send(b"EURUSD 1.0842")?;
/// consumer.recv()?.release();
/// if let Some(Passed::Message { bytes, .. }) = tap.next()? {
///     assert_eq!(bytes, b"EURUSD 1.0842");
/// }
/// assert!(tap.next()?.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Tap {
    view: Arc<View>,
    way: Way,
    walk: tap::Tap,
    bytes: Vec<u8>,
}

/// What a [`Tap`] saw.
///
/// ```
/// use shmpipe::{Passed, Tap};
///
/// let pipe = shmpipe::Options::new().capacity(4096).create("memfd")?;
/// let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
/// let mut tap = Tap::open(pipe.address())?;
/// for _ in 0..10 {
///     producer.send(&[0; 1000])?;
///     consumer.recv()?.release();
/// }
/// let Some(Passed::Missed { bytes, .. }) = tap.next()? else { panic!("the ring has 4096 bytes") };
/// assert!(bytes >= 10 * 1008);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Passed<'a> {
    /// A message.
    #[non_exhaustive]
    Message {
        /// Its position.
        position: Position,
        /// Its tag.
        tag: u32,
        /// Its bytes.
        bytes: &'a [u8],
    },
    /// The producer overwrote messages before the tap had copied them.
    #[non_exhaustive]
    Missed {
        /// Bytes of the stream that they took.
        bytes: u64,
    },
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").field("position", &self.position()).finish_non_exhaustive()
    }
}

impl Tap {
    /// Opens a tap that sees the messages sent from now on; in a duplex pipe, those from side A to side B.
    ///
    /// Needs read permission. Costs some system calls. Waits up to a second for a System V pipe that is being created.
    ///
    /// # Errors
    /// As [`inspect`](crate::inspect), and
    /// * [`Unsupported::Tap`] if the pipe was created by an earlier version, whose producers do not announce what they overwrite.
    /// * [`Distrust::Owner`] if it is a file of another user, who could truncate it meanwhile.
    pub fn open<A>(address: A) -> Result<Self, SetupError>
    where
        A: TryInto<Address>,
        SetupError: From<A::Error>,
    {
        let address = address.try_into()?;
        let view = backend::view(&address, sysv::INSPECTION_TIME)?;
        if !view.is_whole() {
            let (uid, creator) = (view.permissions.uid, view.creator);
            return Err(SetupError::Untrusted(Distrust::Owner { address, uid, creator }));
        }
        if !view.identity.announces_writes() {
            return Err(SetupError::Unsupported(Unsupported::Tap { address }));
        }
        Ok(Tap::new(Arc::new(view), Way::Forth))
    }

    fn new(view: Arc<View>, way: Way) -> Self {
        let ring = view.ring(way).expect("all of the segment is mapped");
        Tap { walk: tap::Tap::at_tail(ring), view, way, bytes: Vec::new() }
    }

    /// Returns whether this tap was opened by another process, of which this one is a forked child.
    ///
    /// Then nothing is mapped here: it sees no message and knows no producer.
    #[must_use]
    pub fn is_inherited(&self) -> bool {
        !self.view.mapping.is_ours()
    }

    /// Opens a tap on the other direction of a duplex pipe. `None` if the pipe has one direction, or in a forked child.
    #[must_use]
    pub fn back(&self) -> Option<Self> {
        let way = match self.way {
            Way::Forth => Way::Back,
            Way::Back => Way::Forth,
        };
        (self.view.identity.is_duplex() && !self.is_inherited()).then(|| Tap::new(self.view.clone(), way))
    }

    /// Goes back to the oldest message that was not released yet, so that those come first.
    #[must_use]
    pub fn with_unread(mut self) -> Self {
        if !self.is_inherited() {
            let ring = self.view.ring(self.way).expect("all of the segment is mapped");
            self.walk = tap::Tap::at_unread(ring);
        }
        self
    }

    /// Returns the next message, or what was missed before it, or `None` if no other message was sent yet.
    ///
    /// Never blocks. Copies the message. To wait for one, look again after a pause, such as a millisecond: a tap that looks without a
    /// pause takes cache lines away from the two sides.
    ///
    /// # Errors
    /// A word that no correct producer writes. The tap stays where it was.
    // It lends its buffer, which no iterator can.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Passed<'_>>, Corruption> {
        if self.is_inherited() {
            return Ok(None);
        }
        Ok(match self.walk.next(&mut self.bytes)? {
            Seen::Nothing => None,
            Seen::Record { start, tag } => {
                Some(Passed::Message { position: Position(start), tag, bytes: &self.bytes })
            }
            Seen::Missed { bytes } => Some(Passed::Missed { bytes }),
        })
    }

    /// Returns the random number of the segment.
    #[must_use]
    pub fn id(&self) -> SegmentId {
        SegmentId(self.view.identity.segment_id)
    }

    /// Returns the position up to which the tap has seen the stream.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.walk.position())
    }

    /// Returns what is known of the producer of this direction. Costs system calls.
    #[must_use]
    pub fn producer(&self) -> Peer {
        if self.is_inherited() {
            return Peer::Unknown;
        }
        let side = self.view.header(self.way).expect("all of the segment is mapped").side(Role::Producer);
        Peer::of(side, State::of(side), role_is_free(&self.view, self.way, Role::Producer))
    }
}
