//! Both ends for futures: the same calls, which await where the others block.

use crate::endpoint::consumer::Consumer;
use crate::endpoint::deadline::Now;
use crate::endpoint::message::Message;
use crate::endpoint::payload::Payload;
use crate::endpoint::producer::Producer;
use crate::endpoint::reservation::Reservation;
use crate::endpoint::watched::Watched;
use crate::error::{CheckError, Lost, RecvError, SendError, SetupError};
use crate::pipe::Pipe;
use crate::position::Position;
use crate::protocol::liveness::Peer;
use crate::protocol::sleep::Interest;
use crate::waiting::driver::Registered;
use futures_core::Stream;
use futures_sink::Sink;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// An endpoint that futures wait for.
struct Awaiting<E> {
    // In this order: the driver forgets the endpoint before its pipe is closed.
    registered: Registered,
    endpoint: E,
}

/// Waits until `poll` is ready. Dropped before, it leaves nothing behind.
struct Until<'a, F> {
    registered: &'a mut Registered,
    endpoint: &'a mut dyn Watched,
    poll: F,
}

impl<T, F> Future for Until<'_, F>
where
    F: FnMut(&mut Registered, &mut dyn Watched, &mut Context<'_>) -> Poll<T> + Unpin,
{
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Until { registered, endpoint, poll } = self.get_mut();
        poll(registered, *endpoint, context)
    }
}

impl<F> Drop for Until<'_, F> {
    fn drop(&mut self) {
        self.registered.forget_waker(self.endpoint);
    }
}

impl Registered {
    async fn ready(&mut self, endpoint: &mut dyn Watched, interest: Interest) -> Result<(), CheckError> {
        let poll = |registered: &mut Registered, endpoint: &mut dyn Watched, context: &mut Context<'_>| {
            registered.poll_ready(endpoint, interest, context.waker())
        };
        Until { registered: self, endpoint, poll }.await
    }

    /// Waits until the peer is as asked, or the pipe or the role is lost.
    async fn peer_is(
        &mut self,
        endpoint: &mut dyn Watched,
        is_so: impl Fn(&dyn Watched) -> bool + Unpin,
    ) -> Result<(), Lost> {
        let poll = |registered: &mut Registered, endpoint: &mut dyn Watched, context: &mut Context<'_>| {
            registered.poll_until(endpoint, Interest::End, context.waker(), |endpoint, is_suspect| {
                if is_suspect {
                    endpoint.check_role()?;
                }
                Ok(is_so(endpoint))
            })
        };
        Until { registered: self, endpoint, poll }.await
    }
}

/// Only this side takes what a poll has found.
const FOUND: &str = "what a poll has found";

fn has_ended(endpoint: &dyn Watched) -> bool {
    let peer = endpoint.peer(endpoint.peer_state());
    matches!(peer, Peer::Closed | Peer::Aborted { .. } | Peer::Died)
}

/// A consumer whose calls are awaited.
///
/// Made by [`Consumer::into_async`]. It works in every runtime, and needs none: a thread of this process waits for all such endpoints,
/// and wakes their tasks. Use it like the [`Consumer`]; what follows is what differs.
///
/// It is also a [`Stream`] of owned messages, which ends when the producer closes.
///
/// ```
/// # fn block_on<F: Future>(future: F) -> F::Output {
/// #     let mut future = std::pin::pin!(future);
/// #     struct Unpark(std::thread::Thread);
/// #     impl std::task::Wake for Unpark {
/// #         fn wake(self: std::sync::Arc<Self>) { self.0.unpark() }
/// #     }
/// #     let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
/// #     loop {
/// #         match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
/// #             std::task::Poll::Ready(output) => return output,
/// #             std::task::Poll::Pending => std::thread::park(),
/// #         }
/// #     }
/// # }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # block_on(async {
/// let pipe = shmpipe::Options::new().create("memfd")?;
/// let mut producer = pipe.producer()?.into_async()?;
/// let mut consumer = pipe.consumer()?.into_async()?; // usually in another process
/// producer.send(b"hello").await?;
/// assert_eq!(consumer.recv().await?.to_vec(), b"hello");
/// # Ok(()) })
/// # }
/// ```
///
/// # Cancel safety
/// A future may be dropped at any time: a receive has then taken nothing, and a send has sent nothing. No sleeper remains, and no task
/// is woken. A [`CancelHandle`](crate::CancelHandle) does not affect awaited calls.
///
/// # Cost
/// A call that finds what it needs makes no system call. One that does not looks for up to 10 microseconds more if such looks have
/// succeeded of late, then runs a memory barrier. The message that comes later wakes the thread that waits for all endpoints, which
/// wakes the task. That thread asks the kernel about
/// each awaited peer every 100 ms, so a death and the loss of the pipe or role are noticed within 200 ms.
pub struct AsyncConsumer<P = crate::endpoint::trust::Untrusted>(Awaiting<Consumer<P>>);

/// A producer whose calls are awaited.
///
/// Made by [`Producer::into_async`]. [`AsyncConsumer`] has an example, and says what both have in common.
///
/// It is also a [`Sink`] of what is [`AsRef<[u8]>`](AsRef), of which it buffers one item.
pub struct AsyncProducer<P = crate::endpoint::trust::Untrusted> {
    awaiting: Awaiting<Producer<P>>,
    /// An item of the sink that did not fit yet.
    buffered: Option<Vec<u8>>,
}

impl<P> fmt::Debug for AsyncConsumer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncConsumer").field(&self.0.endpoint).finish()
    }
}

impl<P> fmt::Debug for AsyncProducer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncProducer").field(&self.awaiting.endpoint).finish()
    }
}

impl<P> Consumer<P> {
    /// Makes the calls of this consumer awaited ones.
    ///
    /// # Errors
    /// * [`Unsupported::Block`](crate::error::Unsupported::Block) if the pipe has [`WakeMode::Never`](crate::WakeMode::Never).
    /// * [`SetupError::Os`] if a thread cannot be started.
    pub fn into_async(self) -> Result<AsyncConsumer<P>, SetupError> {
        Ok(AsyncConsumer(Awaiting { registered: Registered::new(&self.inner)?, endpoint: self }))
    }
}

impl<P> Producer<P> {
    /// Makes the calls of this producer awaited ones.
    ///
    /// # Errors
    /// * [`Unsupported::Block`](crate::error::Unsupported::Block) if the pipe has [`WakeMode::Never`](crate::WakeMode::Never).
    /// * [`SetupError::Os`] if a thread cannot be started.
    pub fn into_async(self) -> Result<AsyncProducer<P>, SetupError> {
        let awaiting = Awaiting { registered: Registered::new(&self.inner)?, endpoint: self };
        Ok(AsyncProducer { awaiting, buffered: None })
    }
}

impl<P> AsyncConsumer<P> {
    /// Receives the next message; waits while the pipe is empty.
    ///
    /// Cancel safe: see [`AsyncConsumer`].
    ///
    /// # Errors
    /// [`RecvError`], as from [`Consumer::recv`], but never [`Cancelled`](RecvError::Cancelled).
    pub async fn recv(&mut self) -> Result<Message<'_, P>, RecvError> {
        let Awaiting { registered, endpoint } = &mut self.0;
        let located = match endpoint.inner.peek_fast() {
            Some(located) => located,
            None => {
                registered.ready(&mut endpoint.inner, Interest::Message).await?;
                endpoint.inner.reader.peek()?.expect(FOUND)
            }
        };
        Ok(Message::new(endpoint, located))
    }

    /// Waits until a producer attaches, or one has come and gone whose end was not reported yet.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Lost`] if the pipe or the role is lost.
    pub async fn wait_for_peer(&mut self) -> Result<(), Lost> {
        let Awaiting { registered, endpoint } = &mut self.0;
        registered.peer_is(&mut endpoint.inner, |endpoint| endpoint.has_peer(endpoint.peer_state())).await
    }

    /// Waits until the producer has closed, aborted or died, and returns which.
    ///
    /// It does so whether messages are left or not, and whether that was reported or not. Cancel safe.
    ///
    /// # Errors
    /// [`Lost`] if the pipe or the role is lost.
    pub async fn closed(&mut self) -> Result<Peer, Lost> {
        let Awaiting { registered, endpoint } = &mut self.0;
        registered.peer_is(&mut endpoint.inner, has_ended).await?;
        Ok(endpoint.peer())
    }

    /// Returns the consumer, for calls that do not wait.
    pub fn get_mut(&mut self) -> &mut Consumer<P> {
        &mut self.0.endpoint
    }

    /// Returns the consumer to where its calls block.
    #[must_use]
    pub fn into_blocking(self) -> Consumer<P> {
        self.0.endpoint
    }

    /// Returns the pipe that the role was claimed through.
    #[must_use]
    pub fn pipe(&self) -> &Pipe {
        self.0.endpoint.pipe()
    }
}

impl<P> AsyncProducer<P> {
    /// Sends a message; waits while the pipe is full.
    ///
    /// Cancel safe: dropped before it is ready, it has sent nothing.
    ///
    /// # Errors
    /// [`SendError`], as from [`Producer::send`], but never [`Cancelled`](SendError::Cancelled).
    pub async fn send(&mut self, message: impl Payload) -> Result<Position, SendError> {
        let Awaiting { registered, endpoint } = &mut self.awaiting;
        let message = message.outgoing();
        loop {
            match endpoint.send_one(message, Now) {
                Ok(position) => return Ok(position),
                Err(error) => match error.without_full() {
                    Some(error) => return Err(error),
                    None => registered.ready(&mut endpoint.inner, Interest::Space(message.length())).await?,
                },
            }
        }
    }

    /// Reserves space for a message of up to `length` bytes; waits while the pipe is full.
    ///
    /// Cancel safe. Dropping the reservation sends nothing either.
    ///
    /// # Errors
    /// [`SendError`], as from [`send`](Self::send).
    pub async fn reserve(&mut self, length: usize) -> Result<Reservation<'_, P>, SendError> {
        let Awaiting { registered, endpoint } = &mut self.awaiting;
        endpoint.inner.check_length(length)?;
        registered.ready(&mut endpoint.inner, Interest::Space(length)).await?;
        endpoint.try_reserve(length).map_err(|error| error.without_full().expect(FOUND))
    }

    /// Waits until a consumer attaches.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// [`Lost`] if the pipe or the role is lost.
    pub async fn wait_for_peer(&mut self) -> Result<(), Lost> {
        let Awaiting { registered, endpoint } = &mut self.awaiting;
        registered.peer_is(&mut endpoint.inner, |endpoint| endpoint.has_peer(endpoint.peer_state())).await
    }

    /// Waits until the consumer has closed, aborted or died, and returns which.
    ///
    /// It does so whether that was reported or not. Cancel safe.
    ///
    /// # Errors
    /// [`Lost`] if the pipe or the role is lost.
    pub async fn closed(&mut self) -> Result<Peer, Lost> {
        let Awaiting { registered, endpoint } = &mut self.awaiting;
        registered.peer_is(&mut endpoint.inner, has_ended).await?;
        Ok(endpoint.peer())
    }

    /// Returns the producer, for calls that do not wait.
    pub fn get_mut(&mut self) -> &mut Producer<P> {
        &mut self.awaiting.endpoint
    }

    /// Returns the producer to where its calls block. An item that the sink buffers is dropped: flush it before.
    #[must_use]
    pub fn into_blocking(self) -> Producer<P> {
        self.awaiting.endpoint
    }

    /// Returns the pipe that the role was claimed through.
    #[must_use]
    pub fn pipe(&self) -> &Pipe {
        self.awaiting.endpoint.pipe()
    }
}

impl<P> Unpin for AsyncConsumer<P> {}
impl<P> Unpin for AsyncProducer<P> {}

/// Owned messages. Ends when the producer closes; an abort or a death is an item, after which a successor may follow.
impl<P> Stream for AsyncConsumer<P> {
    type Item = Result<Vec<u8>, RecvError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Awaiting { registered, endpoint } = &mut self.get_mut().0;
        let located = match endpoint.inner.peek_fast() {
            Some(located) => located,
            None => match registered.poll_ready(&mut endpoint.inner, Interest::Message, context.waker()) {
                Poll::Ready(Ok(())) => endpoint.inner.reader.peek().map_err(RecvError::from)?.expect(FOUND),
                Poll::Ready(Err(CheckError::Closed)) => return Poll::Ready(None),
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Pending => return Poll::Pending,
            },
        };
        Poll::Ready(Some(Ok(Message::new(endpoint, located).to_vec())))
    }
}

impl<P> AsyncProducer<P> {
    /// Sends the buffered item.
    fn poll_buffered(&mut self, context: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let Awaiting { registered, endpoint } = &mut self.awaiting;
        while let Some(item) = &self.buffered {
            match endpoint.try_send(item) {
                Ok(_) => self.buffered = None,
                Err(error) => match error.without_full() {
                    Some(error) => {
                        self.buffered = None;
                        return Poll::Ready(Err(error));
                    }
                    None => {
                        let interest = Interest::Space(item.len());
                        match registered.poll_ready(&mut endpoint.inner, interest, context.waker()) {
                            Poll::Ready(ready) => ready?,
                            Poll::Pending => return Poll::Pending,
                        }
                    }
                },
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Buffers one item while the pipe is full. Closing the sink flushes it, and leaves the producer open: drop it, or
/// [`close`](Producer::close) it.
impl<P, B: AsRef<[u8]>> Sink<B> for AsyncProducer<P> {
    type Error = SendError;

    fn poll_ready(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.get_mut().poll_buffered(context)
    }

    fn start_send(self: Pin<&mut Self>, item: B) -> Result<(), SendError> {
        let this = self.get_mut();
        let item = item.as_ref();
        match this.awaiting.endpoint.try_send(item) {
            Ok(_) => Ok(()),
            Err(error) => match error.without_full() {
                Some(error) => Err(error),
                None => {
                    this.buffered = Some(item.to_vec());
                    Ok(())
                }
            },
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.get_mut().poll_buffered(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.get_mut().poll_buffered(context)
    }
}
