//! Reads a recording chunk by chunk, also one that was never finished.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use mcap::read::{ChunkReader, parse_record};
use mcap::records::{Record, op};
use mcap::sans_io::{LinearReadEvent, LinearReader, LinearReaderOptions};
use mcap::{MAGIC, McapError};

use crate::commands::recording::{OPCODE, Origin, Origins};
use crate::exit::{Code, Failure};
use crate::output::{printable, show_path};

/// The longest record that is believed: a chunk of the largest ring's quarter, and its frame.
const LONGEST: u64 = 1 << 39;

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// A message of a recording.
#[derive(Debug)]
pub struct Recorded {
    pub log_time_ns: u64,
    pub data: Vec<u8>,
    /// `None` in a file that another program wrote.
    pub origin: Option<Origin>,
}

/// The messages of a chunk, in order.
#[derive(Debug, Default)]
pub struct Chunk {
    pub messages: Vec<Recorded>,
    pub segment_id: u64,
    pub capacity: u64,
}

/// A file of a recording.
pub struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    /// Positions of the next chunk.
    origins: Option<Origins>,
    /// The file has ended, in order or not.
    ended: bool,
    /// It ended without the end that a finished file has.
    pub unfinished: bool,
}

impl Reader {
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let file = File::open(path).map_err(|error| failed(path, &error))?;
        let mut reader = Reader {
            path: path.to_owned(),
            file: BufReader::with_capacity(PIECE, file),
            origins: None,
            ended: false,
            unfinished: false,
        };
        let mut magic = [0; MAGIC.len()];
        let length = reader.fill(&mut magic)?;
        if magic[..length] != MAGIC[..length] {
            return Err(reader.corrupt("it is not an MCAP file"));
        }
        // A recorder may be killed before it writes anything.
        if length < MAGIC.len() {
            reader.end_early();
        }
        Ok(reader)
    }

    fn end_early(&mut self) {
        (self.ended, self.unfinished) = (true, true);
    }

    fn corrupt(&self, what: impl std::fmt::Display) -> Failure {
        corrupt(&self.path, what)
    }

    fn chunk_is_missing(&self) -> Failure {
        self.corrupt("a chunk is missing")
    }

    /// Reads as many bytes as there are.
    fn fill(&mut self, to: &mut [u8]) -> Result<usize, Failure> {
        let mut length = 0;
        while length < to.len() {
            match self.file.read(&mut to[length..]) {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(&self.path, &error)),
            }
        }
        Ok(length)
    }

    /// The next record, or `None` at the end.
    fn next_record(&mut self) -> Result<Option<(u8, Vec<u8>)>, Failure> {
        let mut frame = [0; 9];
        if self.ended {
            return Ok(None);
        }
        if self.fill(&mut frame)? < frame.len() {
            self.end_early();
            return Ok(None);
        }
        let length = u64::from_le_bytes(frame[1..].try_into().expect("eight bytes"));
        if length > LONGEST {
            return Err(self.corrupt(format_args!("a record of {length} bytes")));
        }
        // Grows with what is there, not with what a damaged length says.
        let mut body = Vec::new();
        let read = self.file.by_ref().take(length).read_to_end(&mut body);
        read.map_err(|error| failed(&self.path, &error))?;
        if (body.len() as u64) < length {
            self.end_early();
            return Ok(None);
        }
        Ok(Some((frame[0], body)))
    }

    /// The next chunk that holds messages, or `None` at the end. Of a file that another program wrote without chunks, a message.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, Failure> {
        while let Some((opcode, body)) = self.next_record()? {
            match opcode {
                OPCODE => {
                    let origins = Origins::decode(&body);
                    match origins.map_err(|_| self.corrupt("the positions of a chunk are damaged"))? {
                        Some(_) if self.origins.is_some() => return Err(self.chunk_is_missing()),
                        Some(origins) => self.origins = Some(origins),
                        None => {}
                    }
                }
                op::DATA_END if self.origins.is_some() => return Err(self.chunk_is_missing()),
                op::DATA_END => {
                    self.ended = true;
                    return Ok(None);
                }
                op::CHUNK => {
                    let Record::Chunk { header, data } = self.parse(opcode, &body)? else { continue };
                    let mut messages = Vec::new();
                    if !header.compression.is_empty() {
                        return Err(self.corrupt(format_args!(
                            "its chunks are compressed with {}; replay reads only files that are not compressed",
                            printable(&header.compression)
                        )));
                    }
                    for record in ChunkReader::new(header, &data).map_err(|error| self.corrupt(error))? {
                        if let Record::Message { header, data } =
                            record.map_err(|error| self.corrupt(error))?
                        {
                            messages.push((header.log_time, data.into_owned()));
                        }
                    }
                    // The first chunk has the channel alone.
                    if !messages.is_empty() {
                        return self.chunk(messages).map(Some);
                    }
                }
                op::MESSAGE => {
                    let Record::Message { header, data } = self.parse(opcode, &body)? else { continue };
                    return self.chunk(vec![(header.log_time, data.into_owned())]).map(Some);
                }
                _ => {}
            }
        }
        Ok(None)
    }

    fn parse<'a>(&self, opcode: u8, body: &'a [u8]) -> Result<Record<'a>, Failure> {
        parse_record(opcode, body).map_err(|error| self.corrupt(error))
    }

    fn chunk(&mut self, messages: Vec<(u64, Vec<u8>)>) -> Result<Chunk, Failure> {
        let origins = self.origins.take();
        if origins.as_ref().is_some_and(|origins| origins.entries.len() != messages.len()) {
            return Err(self.corrupt("the positions of a chunk are not those of its messages"));
        }
        let origin = |index: usize| origins.as_ref().map(|origins| origins.entries[index]);
        let messages = messages.into_iter().enumerate().map(|(index, (log_time_ns, data))| Recorded {
            log_time_ns,
            data,
            origin: origin(index),
        });
        let (segment_id, capacity) =
            origins.as_ref().map_or((0, 0), |origins| (origins.segment_id, origins.capacity));
        Ok(Chunk { messages: messages.collect(), segment_id, capacity })
    }
}

/// Checks what a [`Reader`] does not read: the checksums of the sections of a file, its index and its end. A file that was never
/// finished has none of these.
pub fn check_sections(path: &Path) -> Result<(), Failure> {
    let mut file = File::open(path).map_err(|error| failed(path, &error))?;
    let length = file.metadata().map_err(|error| failed(path, &error))?.len();
    let options = LinearReaderOptions::default()
        .with_emit_chunks(true)
        .with_validate_data_section_crc(true)
        .with_validate_summary_section_crc(true)
        .with_check_finishes_after_end_magic(true)
        .with_record_length_limit(length.try_into().unwrap_or(usize::MAX));
    let mut reader = LinearReader::new_with_options(options);
    while let Some(event) = reader.next_event() {
        match event {
            Ok(LinearReadEvent::ReadRequest(wanted)) => {
                let wanted = wanted.max(PIECE);
                let read = file.read(reader.insert(wanted)).map_err(|error| failed(path, &error))?;
                reader.notify_read(read);
            }
            Ok(LinearReadEvent::Record { .. }) => {}
            Err(McapError::UnexpectedEof) => break,
            Err(error) => return Err(corrupt(path, error)),
        }
    }
    Ok(())
}

fn corrupt(path: &Path, what: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Unfit, format_args!("{}: {what}", show_path(path)))
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::io(&format!("reading {}", show_path(path)), error);
    match error.kind() {
        io::ErrorKind::NotFound => Failure { code: Code::NotFound, ..failure },
        _ => failure,
    }
}

#[cfg(test)]
mod tests;
