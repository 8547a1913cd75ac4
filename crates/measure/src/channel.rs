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

    /// The longest message that it takes.
    fn max_len(&self) -> usize {
        usize::MAX
    }
}
