//! Numbers that identify a segment and a record in its stream.

use std::fmt;

/// The random number of a segment.
///
/// It distinguishes the segment from every other, also from earlier ones at its address.
///
/// ```
/// use shmpipe::Pipe;
///
/// let pipe = Pipe::open_or_create("memfd")?;
/// assert_eq!(Pipe::open(pipe.address())?.id(), pipe.id());
/// assert_ne!(Pipe::open_or_create("memfd")?.id(), pipe.id());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub(crate) u64);

impl SegmentId {
    /// Returns the number, to store it.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The position of a record in the stream: the number of bytes before it since the pipe was created. The default is the start.
///
/// Together with the [`SegmentId`] it identifies a record permanently, so a sink that stores both with its data can process each
/// record exactly once.
///
/// ```
/// # let pipe = shmpipe::Pipe::open_or_create("memfd")?;
/// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
/// let sent = producer.send(b"a tick")?;
/// assert_eq!(consumer.recv()?.position(), sent);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub(crate) u64);

impl Position {
    /// Returns the number of bytes, to store it.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

/// A position that was stored as a number.
///
/// ```
/// # use shmpipe::Position;
/// let stored = Position::default().get();
/// assert_eq!(Position::from(stored), Position::default());
/// ```
impl From<u64> for Position {
    fn from(bytes: u64) -> Self {
        Position(bytes)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
