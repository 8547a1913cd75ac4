//! A consumer as an iterator of owned messages.

use crate::endpoint::consumer::Consumer;
use crate::endpoint::trust::Untrusted;
use crate::error::RecvError;
use std::borrow::BorrowMut;
use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;

/// Receives messages into vectors until the producer closes, from [`Consumer::iter`] or a loop over a consumer.
///
/// Blocks while the pipe is empty. Any end but a close is an item, [`PeerDied`](RecvError::PeerDied) or
/// [`PeerAborted`](RecvError::PeerAborted), and the item after it comes from the successor. [`Lost`](RecvError::Lost),
/// [`Cancelled`](RecvError::Cancelled) and [`Corrupt`](RecvError::Corrupt) come again each time: leave the loop at these.
///
/// A vector is allocated for each message. Where that matters, [`recv`](Consumer::recv) lends it instead.
///
/// ```
/// # let pipe = shmpipe::Options::new().create("memfd")?;
/// # let (mut producer, consumer) = (pipe.producer()?, pipe.consumer()?);
/// # producer.send(b"EURUSD 1.0842")?;
/// # producer.close()?;
/// for message in consumer {
///     println!("{}", String::from_utf8_lossy(&message?));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Messages<T, P = Untrusted> {
    consumer: T,
    has_ended: bool,
    trust: PhantomData<P>,
}

impl<P, T: BorrowMut<Consumer<P>>> Iterator for Messages<T, P> {
    type Item = Result<Vec<u8>, RecvError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        let received = self.consumer.borrow_mut().recv().map(|message| message.to_vec());
        self.has_ended = received == Err(RecvError::Closed);
        (!self.has_ended).then_some(received)
    }
}

impl<P, T: BorrowMut<Consumer<P>>> FusedIterator for Messages<T, P> {}

impl<T, P> fmt::Debug for Messages<T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").field("has_ended", &self.has_ended).finish_non_exhaustive()
    }
}

impl<P> Consumer<P> {
    /// Returns an iterator of owned messages, which ends when the producer closes.
    ///
    /// ```
    /// # let pipe = shmpipe::Options::new().create("memfd")?;
    /// # let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
    /// producer.send("one")?;
    /// producer.send("two")?;
    /// producer.close()?;
    /// let messages: Result<Vec<Vec<u8>>, _> = consumer.iter().collect();
    /// assert_eq!(messages?, [b"one", b"two"]);
    /// // A new producer continues, and so does the consumer.
    /// pipe.producer()?.send("three")?;
    /// assert_eq!(consumer.iter().count(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&mut self) -> Messages<&mut Self, P> {
        self.into_iter()
    }
}

impl<P> IntoIterator for Consumer<P> {
    type Item = Result<Vec<u8>, RecvError>;
    type IntoIter = Messages<Self, P>;

    fn into_iter(self) -> Self::IntoIter {
        Messages { consumer: self, has_ended: false, trust: PhantomData }
    }
}

impl<'a, P> IntoIterator for &'a mut Consumer<P> {
    type Item = Result<Vec<u8>, RecvError>;
    type IntoIter = Messages<&'a mut Consumer<P>, P>;

    fn into_iter(self) -> Self::IntoIter {
        Messages { consumer: self, has_ended: false, trust: PhantomData }
    }
}
