//! Where `recv` writes: an output that is left with whole messages wherever that is possible.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Seek, SeekFrom, Write};
use std::os::unix::fs::FileTypeExt;
use std::time::{Duration, Instant};

use crate::exit::{Early, Failure};
use crate::system::signals;
use crate::system::stdio::{self, For};

/// How long, after a signal, the output may take to accept the rest of a message.
const GRACE: Duration = Duration::from_secs(1);

/// Standard output.
pub struct Sink {
    file: File,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Takes up to `PIPE_BUF` bytes whole or not at all.
    Pipe,
    /// Can be shortened.
    RegularFile,
    /// A socket or a terminal.
    Connection,
    /// Such as /dev/null.
    Other,
}

/// Why the output took only part of some bytes.
pub struct Unwritten {
    pub written: usize,
    pub early: Early,
}

impl Sink {
    pub fn standard_output() -> Result<Self, Failure> {
        let file = stdio::standard_output()?;
        let kind = match file.metadata().map(|metadata| metadata.file_type()) {
            Ok(kind) if kind.is_fifo() => Kind::Pipe,
            Ok(kind) if kind.is_file() => Kind::RegularFile,
            Ok(kind) if kind.is_socket() || file.is_terminal() => Kind::Connection,
            _ => Kind::Other,
        };
        Ok(Sink { file, kind })
    }

    /// How many bytes a write may have that nothing cuts, not even a kill: the output takes all of it or nothing. `None` if it
    /// promises that for no number, or if a cut can be taken back.
    pub fn atomic(&self) -> Option<usize> {
        (self.kind == Kind::Pipe).then_some(libc::PIPE_BUF)
    }

    /// Whether its reader can leave.
    pub fn can_lose_its_reader(&self) -> bool {
        matches!(self.kind, Kind::Pipe | Kind::Connection)
    }

    /// Whether its reader has left. Costs a system call if it can.
    pub fn has_lost_its_reader(&self) -> bool {
        self.can_lose_its_reader() && stdio::is_broken(&self.file)
    }

    /// Writes all bytes, in parts that end at these offsets, or returns how many were written before something else happened.
    pub fn write_parts(&mut self, bytes: &[u8], ends: &[usize]) -> Result<(), Unwritten> {
        let mut written = 0;
        for end in ends.iter().copied().chain([bytes.len()]) {
            if let (Some(signal), 1..) = (signals::received(), written) {
                return Err(Unwritten { written, early: Early::Signal(signal) });
            }
            let part = self.write_all(&bytes[written..end]);
            part.map_err(|part| Unwritten { written: written + part.written, ..part })?;
            written = end;
        }
        Ok(())
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Unwritten> {
        let mut written = 0;
        while written < bytes.len() {
            let early = match self.file.write(&bytes[written..]) {
                Ok(0) => {
                    Early::Failed(Failure::io("writing to standard output", &ErrorKind::WriteZero.into()))
                }
                Ok(more) => {
                    written += more;
                    match signals::received() {
                        Some(signal) if written < bytes.len() => Early::Signal(signal),
                        _ => continue,
                    }
                }
                Err(error) => match (error.kind(), signals::received()) {
                    (ErrorKind::Interrupted | ErrorKind::WouldBlock, Some(signal)) => Early::Signal(signal),
                    (ErrorKind::Interrupted, None) => continue,
                    (ErrorKind::WouldBlock, None) => {
                        // Another process made the output non-blocking. The next write shows the result of the wait.
                        let _ = stdio::wait(&self.file, For::Space, None);
                        continue;
                    }
                    (ErrorKind::BrokenPipe, _) => Early::ReaderLeft,
                    _ => Early::Failed(Failure::io("writing to standard output", &error)),
                },
            };
            return Err(Unwritten { written, early });
        }
        Ok(())
    }

    /// Removes the last `length` bytes written, unless the output is no file, or more was written to the file since. Returns
    /// whether they are gone.
    pub fn take_back(&mut self, length: usize) -> bool {
        let mut shorten = || -> io::Result<bool> {
            let end = self.file.stream_position()?;
            let Some(start) = end.checked_sub(length as u64) else { return Ok(false) };
            if self.file.metadata()?.len() != end {
                return Ok(false);
            }
            self.file.set_len(start)?;
            // For the next program that writes by the same descriptor.
            self.file.seek(SeekFrom::Start(start)).map(|_| true)
        };
        self.kind == Kind::RegularFile && shorten().unwrap_or(false)
    }

    /// Writes the rest of a message after a signal, if the output accepts it within [`GRACE`]. Returns whether it did.
    pub fn finish(&mut self, mut rest: &[u8]) -> bool {
        let deadline = Instant::now() + GRACE;
        while !rest.is_empty() {
            let wrote =
                stdio::wait(&self.file, For::Space, Some(deadline)).and_then(|()| self.file.write(rest));
            match wrote {
                Ok(more) if more > 0 => rest = &rest[more..],
                // The alarms that follow a signal end a blocked write.
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                _ => return false,
            }
            if Instant::now() >= deadline {
                return rest.is_empty();
            }
        }
        true
    }
}
