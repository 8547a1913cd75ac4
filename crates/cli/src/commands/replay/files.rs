//! The files of a recording, read as one.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::reader::{Chunk, Reader, Recorded};
use crate::exit::{Code, Early, Failure};
use crate::output::report::Report;
use crate::output::show_path;
use crate::system::signals;

/// What a recording turned out to be.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Found {
    pub chunks: u64,
    /// Messages of a file that the file before it has too.
    pub repeated_messages: u64,
    /// Stretches of the stream that the recording does not have.
    pub gaps: u64,
    pub unfinished_files: u64,
}

/// Reads files in order, each message once.
pub struct Files<'a> {
    paths: &'a [PathBuf],
    /// Where to note what is missing; `None` where it is known.
    report: Option<Report>,
    /// The segment of the latest message with a position, and the position after it.
    known: Option<(u64, u64)>,
    /// The latest file, if it was never finished and nothing has come after it.
    cut: Option<&'a Path>,
    /// The first file that was never finished and after which the next one does not go on.
    incomplete: Option<&'a Path>,
    pub found: Found,
}

/// Where a message stands in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nothing is known of the messages before it: it is the first, or has no position.
    Unknown,
    /// Right after the message before it.
    Next,
    /// It was there before: a recorder that was killed after it wrote a chunk and before it released it has a successor that wrote it
    /// again.
    Repeated,
    /// After others that the recording does not have.
    Behind { missing_from: u64 },
}

impl<'a> Files<'a> {
    pub fn new(paths: &'a [PathBuf], report: Option<Report>) -> Self {
        Files { paths, report, known: None, cut: None, incomplete: None, found: Found::default() }
    }

    /// Calls `each` with every message until it breaks. A signal ends it.
    pub fn read(
        &mut self,
        mut each: impl FnMut(Recorded) -> Result<ControlFlow<()>, Early>,
    ) -> Result<(), Early> {
        for path in self.paths {
            let mut reader = Reader::open(path)?;
            while let Some(chunk) = reader.next_chunk()? {
                self.found.chunks += 1;
                let Chunk { messages, segment_id, capacity } = chunk;
                for message in messages {
                    if let Some(signal) = signals::received() {
                        return Err(Early::Signal(signal));
                    }
                    let place = self.place(&message, segment_id, capacity);
                    self.take_note(place, &message);
                    if place != Place::Repeated && each(message)?.is_break() {
                        return Ok(());
                    }
                }
            }
            if reader.unfinished {
                self.found.unfinished_files += 1;
                self.cut.get_or_insert(path);
            }
        }
        Ok(())
    }

    /// After all files: whether the end of one is missing. That is noted if it is allowed.
    pub fn incomplete(&self, allow_unfinished: bool) -> Option<Failure> {
        let path = self.incomplete.or(self.cut)?;
        let text = format!("{} was never finished: messages may be missing at its end", show_path(path));
        if allow_unfinished {
            self.note(text);
            return None;
        }
        Some(Failure::new(Code::Incomplete, text + "; --allow-unfinished accepts that"))
    }

    fn place(&mut self, message: &Recorded, segment_id: u64, capacity: u64) -> Place {
        let Some(origin) = message.origin else { return Place::Unknown };
        let end = origin.position.wrapping_add(8 + (message.data.len() as u64).next_multiple_of(8));
        let place = match self.known {
            Some((known, next)) if known == segment_id => {
                let ahead = origin.position.wrapping_sub(next) as i64;
                // A record that does not fit before the end of the ring starts at its next start.
                let wraps = capacity.is_power_of_two()
                    && origin.position % capacity == 0
                    && (ahead as u64) < capacity / 2;
                match ahead {
                    0 => Place::Next,
                    ..0 => Place::Repeated,
                    _ if wraps => Place::Next,
                    _ => Place::Behind { missing_from: next },
                }
            }
            _ => Place::Unknown,
        };
        if place != Place::Repeated {
            self.known = Some((segment_id, end));
        }
        place
    }

    fn take_note(&mut self, place: Place, message: &Recorded) {
        let is_first = self.found.chunks == 1;
        match (self.cut.take(), place) {
            // A recorder that was killed before it wrote anything released nothing.
            (Some(_), Place::Unknown) if is_first => {}
            (Some(path), Place::Next | Place::Repeated) => self.note(format_args!(
                "{} was never finished; the next file goes on where it ends",
                show_path(path)
            )),
            (Some(path), Place::Unknown | Place::Behind { .. }) => {
                self.incomplete.get_or_insert(path);
            }
            (None, _) => {}
        }
        match (place, message.origin) {
            (Place::Repeated, _) => self.found.repeated_messages += 1,
            (Place::Behind { missing_from }, Some(origin)) => {
                self.found.gaps += 1;
                self.note(format_args!(
                    "the recording has no messages between the positions {missing_from} and {}",
                    origin.position
                ));
            }
            _ => {}
        }
    }

    fn note(&self, note: impl std::fmt::Display) {
        if let Some(report) = self.report {
            report.note(note);
        }
    }
}
