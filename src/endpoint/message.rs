//! A message received: a record in the ring, and its release.

use crate::endpoint::consumer::Consumer;
use crate::endpoint::trust::{Trusted, Untrusted};
use crate::error::WrongSize;
use crate::position::Position;
use crate::protocol::reader::Located;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::Deref;

/// A record in the ring, received and not released yet.
///
/// A hostile producer may change the bytes at any time, so they can only be copied out. With a [`Trusted`] producer, the record
/// dereferences to `&[u8]`. It is neither `Copy` nor `Clone`: a copy could outlive the release.
///
/// A [`Message`] dereferences to it, and [`Drain::next`](crate::Drain::next) returns it.
///
/// ```
/// use shmpipe::Tagged;
///
/// # let pipe = shmpipe::Options::new().create("memfd")?;
/// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
/// producer.send(Tagged(7, b"hello"))?;
/// let message = consumer.recv()?;
/// assert_eq!((message.tag(), message.len()), (7, 5));
/// assert_eq!(message.to_vec(), b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Record<'a, P = Untrusted> {
    located: Located,
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
    pub(super) fn new(located: Located) -> Self {
        Record { located, promise: PhantomData }
    }

    /// Returns the bytes of the message.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.located.length()
    }

    /// Returns whether the message is empty, which is not the same as no message.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the tag that the producer set; 0 without one.
    #[inline]
    #[must_use]
    pub fn tag(&self) -> u32 {
        self.located.tag()
    }

    /// Returns the record's position.
    ///
    /// It is the same that [`send`](crate::Producer::send) returned, and the same again if the record is received twice.
    #[inline]
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.located.start)
    }

    /// Returns where the message lies in the ring, for a system call or for code in another language.
    ///
    /// Valid until the release. Nothing in this process may write there. To read there is the same promise as
    /// [`trust_peer`](crate::Consumer::trust_peer): another process may change the bytes meanwhile. The kernel may read them without
    /// it, as in `write`.
    ///
    /// ```
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
    /// producer.send(b"from the ring to the terminal\n")?;
    /// let message = consumer.recv()?;
    /// // SAFETY: the message stays in the ring until the call returns.
    /// let written = unsafe { libc::write(1, message.as_ptr().cast(), message.len()) };
    /// assert_eq!(written, 30);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.located.payload().as_ptr()
    }

    /// Copies the message to the start of `to` and returns its length.
    ///
    /// ```
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
    /// producer.send(b"hello")?;
    /// let mut buffer = [0; 64];
    /// let length = consumer.recv()?.copy_to(&mut buffer)?;
    /// assert_eq!(&buffer[..length], b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`WrongSize`] if `to` is shorter. Nothing is copied then.
    #[inline]
    pub fn copy_to(&self, to: &mut [u8]) -> Result<usize, WrongSize> {
        let length = self.len();
        if length > to.len() {
            return Err(WrongSize { message: length, expected: to.len() });
        }
        // SAFETY: the consumer, which 'a borrows, keeps the ring mapped; `to` has the payload's length at least.
        unsafe { self.located.payload().read(to.as_mut_ptr()) };
        Ok(length)
    }

    /// Appends the message to `to`.
    ///
    /// Allocates only if the capacity falls short.
    ///
    /// ```
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
    /// producer.send(b"hello")?;
    /// let mut buffer = Vec::with_capacity(64);
    /// consumer.recv()?.append_to(&mut buffer);
    /// assert_eq!(buffer, b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn append_to(&self, to: &mut Vec<u8>) {
        let length = self.len();
        to.reserve(length);
        // SAFETY: as in `copy_to`, with the spare capacity just reserved; it is written before it counts.
        unsafe {
            self.located.payload().read(to.as_mut_ptr().add(to.len()));
            to.set_len(to.len() + length);
        }
    }

    /// Copies the message to a new vector.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.append_to(&mut bytes);
        bytes
    }

    /// Copies the message to a value, sent as [`Value`](crate::Value).
    ///
    /// ```
    /// use shmpipe::Value;
    ///
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
    /// producer.send(Value(&[1.0842f64, 1.0843]))?;
    /// let [bid, ask] = consumer.recv()?.value::<[f64; 2]>()?;
    /// assert_eq!((bid, ask), (1.0842, 1.0843));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`WrongSize`] if the message does not have exactly the size of the value.
    #[inline]
    pub fn value<T: bytemuck::AnyBitPattern>(&self) -> Result<T, WrongSize> {
        if self.len() != size_of::<T>() {
            return Err(WrongSize { message: self.len(), expected: size_of::<T>() });
        }
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: as in `copy_to`, with a value of the payload's length; every bit pattern makes a T.
        unsafe {
            self.located.payload().read_start(value.as_mut_ptr().cast(), size_of::<T>());
            Ok(value.assume_init())
        }
    }
}

impl Deref for Record<'_, Trusted> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the payload lies within the ring, which the consumer that 'a borrows keeps mapped; by the promise
        // of `trust_peer` no process writes there before the release, which ends 'a.
        unsafe {
            std::slice::from_raw_parts(self.located.payload().as_ptr(), self.located.payload().length())
        }
    }
}

/// A message received.
///
/// Dropping it releases its space to the producer, also if a panic drops it, unless
/// [`Options::keep_unread_on_panic`](crate::Options::keep_unread_on_panic) is set.
///
/// It dereferences to a [`Record`], which has the bytes, the tag and the position.
///
/// ```
/// # let pipe = shmpipe::Options::new().create("memfd")?;
/// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
/// producer.send(b"hello")?;
/// let message = consumer.recv()?;
/// println!("{} bytes at {}", message.len(), message.position());
/// message.release();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping the message releases it"]
pub struct Message<'a, P = Untrusted> {
    record: Record<'a, P>,
    consumer: &'a mut Consumer<P>,
}

// SAFETY: a message borrows its consumer, which may move to another thread, for itself alone. Its pointer is into the ring, which the
// consumer keeps mapped for the whole process.
unsafe impl<P: Send> Send for Message<'_, P> {}

impl<P> fmt::Debug for Message<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.record.fmt(f)
    }
}

impl<'a, P> Message<'a, P> {
    #[inline(always)]
    pub(crate) fn new(consumer: &'a mut Consumer<P>, located: Located) -> Self {
        Message { record: Record::new(located), consumer }
    }

    /// Returns the space to the producer.
    ///
    /// Dropping does the same, except for a drop by a panic with
    /// [`Options::keep_unread_on_panic`](crate::Options::keep_unread_on_panic).
    #[inline(always)]
    pub fn release(self) {
        let mut message = ManuallyDrop::new(self);
        if message.consumer.inner.may_release() {
            message.release_now();
        }
    }

    #[inline(always)]
    fn release_now(&mut self) {
        let located = self.record.located;
        self.consumer.inner.reader.release(located.end, located.limit, 1, located.length() as u64);
    }

    /// Leaves the message in the pipe: the next call receives it again.
    ///
    /// ```
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
    /// producer.send(b"hello")?;
    /// consumer.recv()?.requeue();
    /// assert_eq!(consumer.recv()?.to_vec(), b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn requeue(self) {
        // The borrow of the consumer needs no drop.
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
    // Always in line, also where a panic unwinds: a call there would need the message in memory.
    #[inline(always)]
    fn drop(&mut self) {
        if self.consumer.inner.may_release_dropped() {
            self.release_now();
        }
    }
}
