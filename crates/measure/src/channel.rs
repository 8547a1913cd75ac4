//! What a transport has to do for one message.

use std::io;

/// One process's end of a duplex transport of messages.
///
/// The loops around it are compiled for each implementation, so a call costs what its body costs.
pub trait Channel {
    /// Sends one message, waiting for room.
    ///
    /// # Errors
    /// The transport's, in the words of [`io::Error`].
    fn send(&mut self, message: &[u8]) -> io::Result<()>;

    /// Waits for the next message, copies it to the start of `buffer` and gives its length.
    ///
    /// `buffer` is exactly as long as the message that the experiment expects. A transport without message boundaries
    /// reads so many bytes; one with boundaries tells the length that it found.
    ///
    /// # Errors
    /// The transport's; `InvalidData` for a message that is longer than `buffer`.
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Sends many messages, in one go if that is of use to the transport.
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

    /// Receives all that is expected.
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

    /// The longest message that it takes.
    fn max_len(&self) -> usize {
        usize::MAX
    }
}

/// Messages to be sent one after another.
pub trait Outgoing {
    /// The next one, as long as there is one.
    fn next(&mut self) -> Option<&[u8]>;
}

/// Messages that are expected one after another.
pub trait Incoming {
    /// How many are still to come.
    fn left(&self) -> u64;

    /// Where the next one goes: exactly as long as it is.
    fn room(&mut self) -> &mut [u8];

    /// The next one is in its place and has `len` bytes.
    ///
    /// # Errors
    /// `InvalidData` if it is not the one that was expected.
    fn arrived(&mut self, len: usize) -> io::Result<()>;
}
