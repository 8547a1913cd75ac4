//! Endpoints with a descriptor, for event loops that wait for descriptors.

use crate::endpoint::consumer::Consumer;
use crate::endpoint::deadline::Now;
use crate::endpoint::drain::Drain;
use crate::endpoint::message::Message;
use crate::endpoint::payload::Payload;
use crate::endpoint::producer::Producer;
use crate::endpoint::watched::Watched;
use crate::error::{CheckError, RecvError, SendError, SetupError, failed};
use crate::position::Position;
use crate::protocol::sleep::Interest;
use crate::sys::event_fd::EventFd;
use crate::waiting::driver::Registered;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::task::{Poll, Wake, Waker};

/// An endpoint with a descriptor that becomes readable when the endpoint may be ready, for `epoll` and every loop like it.
///
/// Made by [`Consumer::with_descriptor`] and [`Producer::with_descriptor`]. Whenever the descriptor is readable, call
/// [`try_recv`](WithDescriptor::try_recv) or [`try_send`](WithDescriptor::try_send) until it says that there is nothing to do now. That
/// makes the descriptor unreadable until there is something to do again: never read it yourself. It is readable at first, and works
/// with level-triggered and edge-triggered loops.
///
/// ```
/// # fn handle(_: Vec<u8>) {}
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::os::fd::AsRawFd;
///
/// let pipe = shmpipe::Options::new().create("memfd")?;
/// let mut consumer = pipe.consumer()?.with_descriptor()?;
/// pipe.producer()?.send(b"hello")?; // usually in another process
///
/// let mut readable = libc::pollfd { fd: consumer.as_raw_fd(), events: libc::POLLIN, revents: 0 };
/// // SAFETY: the pointer is to one pollfd.
/// assert_eq!(unsafe { libc::poll(&raw mut readable, 1, -1) }, 1);
/// let mut received = 0;
/// loop {
///     match consumer.try_recv() {
///         Ok(Some(message)) => handle(message.to_vec()),
///         Ok(None) => break, // back to the loop
///         Err(shmpipe::RecvError::Closed) => break, // nothing more
///         Err(error) => return Err(error.into()),
///     }
///     # received += 1;
/// }
/// # assert_eq!(received, 1);
/// # Ok(()) }
/// ```
///
/// # Cost
/// While there are messages, or space, nothing beyond the endpoint's own. Saying that there is nothing to do costs a memory barrier
/// and a `read` of the descriptor. A thread of this process waits for all such endpoints, and for futures: it is what the
/// peer wakes, and it writes to the descriptor. It asks the kernel about each peer every 100 ms.
pub struct WithDescriptor<E> {
    // In this order: the driver forgets the endpoint before its pipe is closed.
    registered: Registered,
    endpoint: E,
    signal: Arc<Signal>,
    waker: Waker,
}

/// A descriptor that a wake makes readable.
struct Signal(EventFd);

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.0.write();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.write();
    }
}

impl<E> fmt::Debug for WithDescriptor<E>
where
    E: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithDescriptor")
            .field("endpoint", &self.endpoint)
            .field("descriptor", &self.as_raw_fd())
            .finish_non_exhaustive()
    }
}

impl<E> AsFd for WithDescriptor<E> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signal.0.as_fd()
    }
}

impl<E> AsRawFd for WithDescriptor<E> {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl<E> WithDescriptor<E> {
    fn new(endpoint: E, watched: impl Fn(&E) -> &dyn Watched) -> Result<Self, (E, SetupError)> {
        let made = EventFd::new().map_err(failed("eventfd"));
        let made = made.and_then(|descriptor| Ok((descriptor, Registered::new(watched(&endpoint))?)));
        let (descriptor, registered) = match made {
            Ok(made) => made,
            Err(error) => return Err((endpoint, error)),
        };
        // The first look is the caller's.
        descriptor.write();
        let signal = Arc::new(Signal(descriptor));
        let waker = Waker::from(signal.clone());
        Ok(WithDescriptor { registered, endpoint, signal, waker })
    }

    /// Returns the endpoint. Its own calls leave the descriptor as it is.
    pub fn get_ref(&self) -> &E {
        &self.endpoint
    }

    /// Closes the descriptor and returns the endpoint.
    ///
    /// ```
    /// let consumer = shmpipe::Pipe::open_or_create("memfd")?.consumer()?.with_descriptor()?;
    /// const DISK_FULL: u32 = 5;
    /// consumer.into_inner().abort(DISK_FULL)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_inner(self) -> E {
        // The rest is dropped before the endpoint can be.
        self.endpoint
    }
}

/// Whether an endpoint is ready. If not, its descriptor is unreadable until it may be.
fn is_ready(
    registered: &mut Registered,
    endpoint: &mut dyn Watched,
    signal: &Signal,
    waker: &Waker,
    interest: Interest,
) -> Result<bool, CheckError> {
    // Before the look: what comes after it makes the descriptor readable again.
    signal.0.clear();
    match registered.poll_ready(endpoint, interest, waker) {
        Poll::Ready(Ok(())) => {
            // The caller comes back for the rest.
            waker.wake_by_ref();
            Ok(true)
        }
        Poll::Ready(Err(end)) => {
            waker.wake_by_ref();
            Err(end)
        }
        Poll::Pending => Ok(false),
    }
}

impl<P> WithDescriptor<Consumer<P>> {
    /// Receives the next message. `None` if there is none now: the descriptor is then unreadable until there is one, or the producer
    /// ends.
    ///
    /// # Errors
    /// [`RecvError`], as from [`Consumer::recv`], but never [`Cancelled`](RecvError::Cancelled).
    pub fn try_recv(&mut self) -> Result<Option<Message<'_, P>>, RecvError> {
        let WithDescriptor { registered, endpoint, signal, waker } = self;
        let located = match endpoint.inner.peek_fast() {
            Some(located) => Some(located),
            None if is_ready(registered, &mut endpoint.inner, signal, waker, Interest::Message)? => {
                endpoint.inner.reader.peek()?
            }
            None => None,
        };
        Ok(located.map(|located| Message::new(endpoint, located)))
    }

    /// Receives the messages that are there now, up to `limit`, and releases them together: see [`Consumer::drain`].
    ///
    /// Leaves the descriptor as it is: only [`try_recv`](Self::try_recv) makes it unreadable.
    ///
    /// ```
    /// let pipe = shmpipe::Options::new().create("memfd")?;
    /// let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?.with_descriptor()?);
    /// producer.send(b"one")?;
    /// producer.send(b"two")?;
    /// // Whenever the descriptor is readable:
    /// while consumer.try_recv()?.map(|message| message.requeue()).is_some() {
    ///     let mut drain = consumer.drain(64);
    ///     while let Some(record) = drain.next()? {
    ///         println!("{} bytes", record.len());
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn drain(&mut self, limit: usize) -> Drain<'_, P> {
        self.endpoint.drain(limit)
    }
}

impl<P> WithDescriptor<Producer<P>> {
    /// Sends a message. `None` if there is no space for it now: the descriptor is then unreadable until there is, or the consumer ends.
    ///
    /// # Errors
    /// [`SendError`], as from [`Producer::send`], but never [`Cancelled`](SendError::Cancelled).
    pub fn try_send(&mut self, message: impl Payload) -> Result<Option<Position>, SendError> {
        let WithDescriptor { registered, endpoint, signal, waker } = self;
        let message = message.outgoing();
        let interest = Interest::Space(message.length());
        loop {
            match endpoint.send_one(message, Now) {
                Ok(position) => return Ok(Some(position)),
                Err(error) => match error.without_full() {
                    Some(error) => return Err(error),
                    None if is_ready(registered, &mut endpoint.inner, signal, waker, interest)? => {}
                    None => return Ok(None),
                },
            }
        }
    }
}

impl<P> Consumer<P> {
    /// Gives this consumer a descriptor, for an event loop.
    ///
    /// [`WithDescriptor`] has an example.
    ///
    /// # Errors
    /// * [`Unsupported::Block`](crate::error::Unsupported::Block) if the pipe has [`WakeMode::Never`](crate::WakeMode::Never).
    /// * [`Shortage::System`](crate::error::Shortage::System) if this process may have no more descriptors, [`SetupError::Os`] if a thread cannot be started.
    pub fn with_descriptor(self) -> Result<WithDescriptor<Self>, SetupError> {
        self.try_with_descriptor().map_err(|(_, error)| error)
    }

    /// As [`with_descriptor`](Self::with_descriptor), but a failure gives the consumer back: for bindings to other languages.
    #[doc(hidden)]
    #[allow(clippy::result_large_err, reason = "a failure gives back what it took, as large as it is")]
    pub fn try_with_descriptor(self) -> Result<WithDescriptor<Self>, (Self, SetupError)> {
        WithDescriptor::new(self, |consumer| &consumer.inner)
    }
}

impl<P> Producer<P> {
    /// Gives this producer a descriptor, for an event loop.
    ///
    /// [`WithDescriptor`] has an example with a consumer.
    ///
    /// # Errors
    /// * [`Unsupported::Block`](crate::error::Unsupported::Block) if the pipe has [`WakeMode::Never`](crate::WakeMode::Never).
    /// * [`Shortage::System`](crate::error::Shortage::System) if this process may have no more descriptors, [`SetupError::Os`] if a thread cannot be started.
    pub fn with_descriptor(self) -> Result<WithDescriptor<Self>, SetupError> {
        self.try_with_descriptor().map_err(|(_, error)| error)
    }

    /// As [`with_descriptor`](Self::with_descriptor), but a failure gives the producer back: for bindings to other languages.
    #[doc(hidden)]
    #[allow(clippy::result_large_err, reason = "a failure gives back what it took, as large as it is")]
    pub fn try_with_descriptor(self) -> Result<WithDescriptor<Self>, (Self, SetupError)> {
        WithDescriptor::new(self, |producer| &producer.inner)
    }
}
