//! Messages of known size on a stream of bytes: write all of it, read exactly as much.

use std::io::{self, Read, Write};

use crate::channel::Channel;

/// A reading and a writing end, both blocking.
pub(super) struct ByteStream<R, W> {
    pub(super) reader: R,
    pub(super) writer: W,
}

impl<R: Read, W: Write> Channel for ByteStream<R, W> {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.writer.write_all(message)
    }

    #[inline(always)]
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read_exact(buffer)?;
        Ok(buffer.len())
    }
}
