//! The operations of a transport.

use std::io;

/// One process's end of a duplex message transport.
///
/// The loops that call it are compiled for each implementation, so a call has no overhead.
pub trait Channel {
    /// Sends one message. Waits for space.
    ///
    /// # Errors
    /// Those of the transport, as [`io::Error`].
    fn send(&mut self, message: &[u8]) -> io::Result<()>;

    /// Waits for the next message, copies it to the start of `buffer` and returns its length.
    ///
    /// `buffer` has exactly the length of the expected message. A transport without message boundaries fills it. One with
    /// boundaries returns the length of the message that it received.
    ///
    /// # Errors
    /// Those of the transport; `InvalidData` for a message longer than `buffer`.
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Sends many messages, as a batch if the transport benefits.
    ///
    /// # Errors
    /// As [`send`](Channel::send).
    #[inline(always)]
    fn send_all(&mut self, messages: &mut impl Outgoing) -> io::Result<()> {
        while let Some(message) = messages.next() {
            self.send(message)?;
        }
        Ok(())
    }

    /// Receives all expected messages.
    ///
    /// # Errors
    /// As [`recv`](Channel::recv), and those of [`Incoming::arrived`].
    #[inline(always)]
    fn recv_all(&mut self, messages: &mut impl Incoming) -> io::Result<()> {
        while messages.left() > 0 {
            let len = self.recv(messages.room())?;
            messages.arrived(len)?;
        }
        Ok(())
    }

    /// The length of the longest message.
    fn max_len(&self) -> usize {
        usize::MAX
    }
}

/// A sequence of messages to send.
pub trait Outgoing {
    /// The next message. None after the last.
    fn next(&mut self) -> Option<&[u8]>;
}

/// A sequence of expected messages.
pub trait Incoming {
    /// The number of messages still to come.
    fn left(&self) -> u64;

    /// The buffer for the next message, with exactly its length.
    fn room(&mut self) -> &mut [u8];

    /// Accepts the next message, of `len` bytes, in its buffer.
    ///
    /// # Errors
    /// `InvalidData` if it is not the expected one.
    fn arrived(&mut self, len: usize) -> io::Result<()>;
}
