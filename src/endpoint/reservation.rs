//! A message that the caller writes into the ring itself.

use crate::endpoint::producer::Producer;
use crate::endpoint::trust::{Trusted, Untrusted};
use crate::position::Position;
use crate::protocol::front::Slot;
use crate::protocol::ring::SharedBytes;
use std::fmt;
use std::ops::{Deref, DerefMut};

/// Space for one message, to write in, from [`Producer::reserve`].
///
/// Dropping it without [`commit`](Reservation::commit) sends nothing.
///
/// ```
/// # let pipe = shmpipe::Options::new().create("memfd")?;
/// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
/// let mut space = producer.reserve(11)?;
/// space.write(0, b"hello ");
/// space.write(6, b"world");
/// space.commit();
/// assert_eq!(consumer.recv()?.to_vec(), b"hello world");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "nothing is sent before commit"]
pub struct Reservation<'a, P = Untrusted> {
    producer: &'a mut Producer<P>,
    slot: Slot,
    payload: SharedBytes,
    /// The writer's runway before the reservation.
    runway: u64,
    /// No byte from here on was written.
    written: usize,
    tag: u32,
}

// SAFETY: a reservation borrows its producer, which may move to another thread, for itself alone. Its pointer is into the ring, which
// the producer keeps mapped for the whole process.
unsafe impl<P: Send> Send for Reservation<'_, P> {}

impl<P> fmt::Debug for Reservation<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("len", &self.len())
            .field("tag", &self.tag)
            .finish_non_exhaustive()
    }
}

impl<'a, P> Reservation<'a, P> {
    #[inline(always)]
    pub(super) fn new(producer: &'a mut Producer<P>, slot: Slot, payload: SharedBytes, runway: u64) -> Self {
        Reservation { producer, slot, payload, runway, written: 0, tag: 0 }
    }

    /// Returns the bytes reserved.
    #[must_use]
    pub fn len(&self) -> usize {
        self.payload.length()
    }

    /// Returns whether it reserves no bytes: for an empty message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes bytes into the message at `offset`.
    ///
    /// Bytes that are never written hold what the ring held before.
    ///
    /// # Panics
    /// If `offset + bytes.len()` exceeds [`len`](Self::len).
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

    /// Returns where the message lies in the ring, for a system call or for code in another language.
    ///
    /// Valid until the commit, for [`len`](Self::len) bytes. To write there from this process is the same promise as
    /// [`trust_peer`](crate::Producer::trust_peer): another process may access the bytes meanwhile. The kernel may write them without
    /// it, as in `read`.
    ///
    /// ```
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
    /// use std::{fs::File, os::fd::AsRawFd};
    ///
    /// let file = File::open("/dev/zero")?;
    /// let mut space = producer.reserve(1024)?;
    /// // SAFETY: the space has this many bytes.
    /// let read = unsafe { libc::read(file.as_raw_fd(), space.as_mut_ptr().cast(), space.len()) };
    /// space.commit_len(read as usize);
    /// assert_eq!(consumer.recv()?.to_vec(), [0; 1024]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.written = self.len();
        self.payload.as_ptr()
    }

    /// Sets the message's tag; 0 without it.
    ///
    /// ```
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
    /// let mut space = producer.reserve(0)?;
    /// space.tag(7);
    /// space.commit();
    /// assert_eq!(consumer.recv()?.tag(), 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn tag(&mut self, tag: u32) {
        self.tag = tag;
    }

    /// Sends the message and returns its position.
    ///
    /// Never blocks.
    // Always in line: a reservation in memory would be read back by wider loads than its stores, which stalls longer than all the rest.
    #[inline(always)]
    pub fn commit(self) -> Position {
        self.producer.inner.writer.commit_reserved(self.runway, self.slot, self.payload, self.tag);
        Position(self.slot.start)
    }

    /// Sends the first `length` bytes as the message, and gives the rest of the space back.
    ///
    /// Never blocks. Returns the message's position.
    ///
    /// ```
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
    /// let mut space = producer.reserve(1024)?;
    /// space.write(0, b"hello");
    /// space.commit_len(5);
    /// assert_eq!(consumer.recv()?.len(), 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
        // SAFETY: the payload lies within the mapped ring, and by the promise of `trust_peer` no other process writes there
        // while the reservation exists.
        unsafe { std::slice::from_raw_parts(self.payload.as_ptr(), self.payload.length()) }
    }
}

impl DerefMut for Reservation<'_, Trusted> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        let length = self.len();
        // SAFETY: as in `deref`; the peer does not read there before the commit, and we are borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), length) }
    }
}
