//! Messages of known size on a byte stream: writes all bytes, and reads exactly as many.

use std::io::{self, ErrorKind, Read, Write};

use crate::channel::Channel;
use crate::patience::Patience;
use crate::watchdog;

/// A reading and a writing end. Calls on blocking ends sleep in the kernel, and on others poll.
pub(super) struct ByteStream<R, W> {
    pub(super) reader: R,
    pub(super) writer: W,
}

impl<R: Read, W: Write> Channel for ByteStream<R, W> {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let mut rest = message;
        let mut patience = Patience::new();
        while !rest.is_empty() {
            match self.writer.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(error) => look_again(error, &mut patience)?,
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut there = 0;
        let mut patience = Patience::new();
        while there < buffer.len() {
            match self.reader.read(&mut buffer[there..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => there += read,
                Err(error) => look_again(error, &mut patience)?,
            }
        }
        Ok(there)
    }
}

/// Waits before the next call, or returns an error to report.
#[inline(always)]
fn look_again(error: io::Error, patience: &mut Patience) -> io::Result<()> {
    match error.kind() {
        ErrorKind::WouldBlock => patience.pause(),
        _ => watchdog::interrupted(error),
    }
}
