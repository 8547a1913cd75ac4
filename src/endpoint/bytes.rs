//! A pipe as a stream of bytes: in the place of a Unix pipe, a socket or a file.

use crate::endpoint::consumer::Consumer;
use crate::endpoint::producer::Producer;
use crate::endpoint::trust::Untrusted;
use crate::error::RecvError;
use std::borrow::BorrowMut;
use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::marker::PhantomData;

/// Writes a stream of bytes to a pipe: [`Write`] for a [`Producer`], owned or borrowed.
///
/// Each call of `write` sends one message and blocks while the pipe is full. It takes up to [`max_len`](Producer::max_len) bytes, and
/// `write_all` sends more than that as several messages. A call without bytes sends nothing. What is written is in the pipe at once, so
/// `flush` has nothing to do; [`Producer::flush`] waits for the consumer.
///
/// Small writes make small messages: `write!` sends one for each piece of its format. Put a [`BufWriter`](io::BufWriter) or a
/// [`LineWriter`](io::LineWriter) in front, and size it for what should be one message.
///
/// ```
/// use shmpipe::{ByteReader, ByteWriter};
/// use std::io::{BufRead, LineWriter, Write};
///
/// let pipe = shmpipe::Options::new().create("memfd")?;
/// let mut output = LineWriter::new(ByteWriter::new(pipe.producer()?));
/// writeln!(output, "{} {}", "EURUSD", 1.0842)?;
/// drop(output);
///
/// let lines: Result<Vec<_>, _> = ByteReader::new(pipe.consumer()?).lines().collect();
/// assert_eq!(lines?, ["EURUSD 1.0842"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// `write` returns a [`SendError`](crate::SendError) as [`io::Error`]: see the [conversion](crate::SendError#impl-From<SendError>-for-Error).
pub struct ByteWriter<T, P = Untrusted> {
    producer: T,
    trust: PhantomData<P>,
}

impl<P, T: BorrowMut<Producer<P>>> ByteWriter<T, P> {
    /// Returns a writer that sends through `producer`: a [`Producer`] or a `&mut Producer`.
    pub fn new(producer: T) -> Self {
        ByteWriter { producer, trust: PhantomData }
    }

    /// Returns the producer. What it sends comes between two writes.
    pub fn get_mut(&mut self) -> &mut Producer<P> {
        self.producer.borrow_mut()
    }

    /// Returns what [`new`](Self::new) was given.
    pub fn into_inner(self) -> T {
        self.producer
    }
}

impl<P, T: BorrowMut<Producer<P>>> Write for ByteWriter<T, P> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let producer = self.producer.borrow_mut();
        let length = bytes.len().min(producer.max_len());
        if length > 0 {
            producer.send(&bytes[..length])?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<T, P> fmt::Debug for ByteWriter<T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteWriter").finish_non_exhaustive()
    }
}

/// Reads a stream of bytes from a pipe: [`Read`] and [`BufRead`] for a [`Consumer`], owned or borrowed.
///
/// The stream is the payload of the messages, one after the other: their boundaries and tags are lost, and empty ones vanish. A read
/// blocks while the pipe is empty, and returns at most the rest of one message. The stream ends where the producer closes. Reading
/// goes on when a new one has attached.
///
/// A message is released as soon as it is copied to the reader's buffer, which grows to the longest message. If this process then dies,
/// its successor does not receive the rest of that message.
///
/// ```
/// use shmpipe::ByteReader;
/// use std::io::Read;
///
/// let pipe = shmpipe::Options::new().create("memfd")?;
/// let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
/// producer.send(b"two ")?;
/// producer.send(b"messages")?;
/// producer.close()?;
/// let mut text = String::new();
/// ByteReader::new(&mut consumer).read_to_string(&mut text)?;
/// assert_eq!(text, "two messages");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// A read returns any [`RecvError`] but [`Closed`](RecvError::Closed) as [`io::Error`]: see the
/// [conversion](RecvError#impl-From<RecvError>-for-Error). So a stream that was cut does not look like one that has ended.
pub struct ByteReader<T, P = Untrusted> {
    consumer: T,
    /// The message received last, and how much of it was read.
    message: Vec<u8>,
    read: usize,
    trust: PhantomData<P>,
}

impl<P, T: BorrowMut<Consumer<P>>> ByteReader<T, P> {
    /// Returns a reader that receives through `consumer`: a [`Consumer`] or a `&mut Consumer`.
    pub fn new(consumer: T) -> Self {
        ByteReader { consumer, message: Vec::new(), read: 0, trust: PhantomData }
    }

    /// Returns the bytes that were received and not read yet.
    #[must_use]
    pub fn buffer(&self) -> &[u8] {
        &self.message[self.read..]
    }

    /// Returns the consumer. What it receives is missing from the stream.
    pub fn get_mut(&mut self) -> &mut Consumer<P> {
        self.consumer.borrow_mut()
    }

    /// Returns what [`new`](Self::new) was given. The [`buffer`](Self::buffer) is lost.
    pub fn into_inner(self) -> T {
        self.consumer
    }
}

impl<P, T: BorrowMut<Consumer<P>>> BufRead for ByteReader<T, P> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.read == self.message.len() {
            self.message.clear();
            self.read = 0;
            match self.consumer.borrow_mut().recv() {
                Ok(message) => message.append_to(&mut self.message),
                Err(RecvError::Closed) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(&self.message[self.read..])
    }

    fn consume(&mut self, amount: usize) {
        self.read = self.message.len().min(self.read + amount);
    }
}

impl<P, T: BorrowMut<Consumer<P>>> Read for ByteReader<T, P> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if to.is_empty() {
            return Ok(0);
        }
        let length = self.fill_buf()?.read(to)?;
        self.consume(length);
        Ok(length)
    }
}

impl<T, P> fmt::Debug for ByteReader<T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteReader")
            .field("unread", &(self.message.len() - self.read))
            .finish_non_exhaustive()
    }
}
