//! Messages of known size on a stream of bytes: write all of it, read exactly as much.

use std::io::{self, ErrorKind, Read, Write};

use crate::channel::Channel;
use crate::patience::Patience;
use crate::watchdog;

/// A reading and a writing end. Where they block, a call sleeps in the kernel; where they do not, it asks again and again.
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

/// What comes before the next call, unless the error is one to report.
#[inline(always)]
fn look_again(error: io::Error, patience: &mut Patience) -> io::Result<()> {
    match error.kind() {
        ErrorKind::WouldBlock => patience.pause(),
        _ => watchdog::interrupted(error),
    }
}
