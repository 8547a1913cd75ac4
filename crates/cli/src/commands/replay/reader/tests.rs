//! Whole, cut and damaged recordings.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use mcap::WriteOptions;
use mcap::records::MessageHeader;
use mcap::write::NoSeek;

use super::Reader;
use crate::commands::recording::{OPCODE, Origin, Origins};
use crate::exit::{Code, Failure};

/// A file of its own, removed when the test ends.
struct Temporary(PathBuf);

impl Temporary {
    fn new(topic: &str) -> Self {
        Temporary(std::env::temp_dir().join(format!("shmpipe-reader-{}-{topic}", std::process::id())))
    }

    fn write(&self, bytes: &[u8]) -> &Path {
        std::fs::write(&self.0, bytes).unwrap();
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A recording of chunks of two messages, and where each chunk ends.
fn recording(chunks: u8, with_origins: bool) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = Vec::new();
    let options = WriteOptions::new().compression(None).chunk_size(None).disable_seeking(true);
    let mut writer = options.create(NoSeek::new(BufWriter::new(&mut bytes))).unwrap();
    let channel = writer.add_channel(0, "topic", "", &BTreeMap::new()).unwrap();
    for chunk in 0..chunks {
        let entries =
            [0, 1].map(|n| Origin { position: u64::from(chunk * 2 + n) * 16, tag: n.into() }).to_vec();
        if with_origins {
            let origins = Origins { segment_id: 7, capacity: 4096, entries };
            writer.write_private_record(OPCODE, &origins.encode(), Default::default()).unwrap();
        }
        for n in 0..2 {
            let header =
                MessageHeader { channel_id: channel, sequence: 0, log_time: chunk.into(), publish_time: 0 };
            writer.write_to_known_channel(&header, &[chunk, n]).unwrap();
        }
        writer.flush().unwrap();
    }
    writer.finish().unwrap();
    let mut inner = writer.into_inner().into_inner();
    inner.flush().unwrap();
    drop(inner);
    let ends = (0..chunks).map(|chunk| end_of(&bytes, chunk, with_origins)).collect();
    (bytes, ends)
}

/// Where the chunk with this number ends. The channel has one of its own if positions come before the first message.
fn end_of(bytes: &[u8], chunk: u8, with_origins: bool) -> usize {
    let mut at = 8;
    let mut seen = 0;
    loop {
        let length = u64::from_le_bytes(bytes[at + 1..at + 9].try_into().unwrap()) as usize;
        let is_chunk = bytes[at] == mcap::records::op::CHUNK;
        at += 9 + length;
        if is_chunk {
            seen += 1;
            if seen == usize::from(chunk) + 1 + usize::from(with_origins) {
                return at;
            }
        }
    }
}

type Found = Result<(Vec<Vec<u8>>, bool), String>;

fn read(path: &Path) -> Found {
    let mut reader = Reader::open(path).map_err(|failure| failure.message)?;
    let mut found = Vec::new();
    while let Some(chunk) = reader.next_chunk().map_err(|failure| failure.message)? {
        found.extend(chunk.messages.into_iter().map(|message| message.data));
    }
    Ok((found, reader.unfinished))
}

fn messages(chunks: u8) -> Vec<Vec<u8>> {
    (0..chunks).flat_map(|chunk| [vec![chunk, 0], vec![chunk, 1]]).collect()
}

#[test]
fn every_cut_leaves_the_whole_chunks_before_it() {
    let (bytes, ends) = recording(3, true);
    let file = Temporary::new("cut");
    for length in 0..bytes.len() {
        let whole = ends.iter().filter(|&&end| end <= length).count() as u8;
        let found = read(file.write(&bytes[..length])).unwrap_or_else(|error| panic!("{length}: {error}"));
        assert_eq!(found.0, messages(whole), "{length} of {} bytes", bytes.len());
        // The end of the data is what finishes it; the summary is for others.
        assert!(found.1 || whole == 3, "{length}");
    }
    assert_eq!(read(file.write(&bytes)), Ok((messages(3), false)));
}

#[test]
fn positions_and_tags_come_from_the_private_record() {
    let (bytes, _) = recording(2, true);
    let file = Temporary::new("origins");
    let mut reader = Reader::open(file.write(&bytes)).unwrap();
    let chunks = [reader.next_chunk(), reader.next_chunk()].map(|chunk| chunk.unwrap().unwrap());
    let [_, second] = chunks;
    let origins: Vec<Option<Origin>> = second.messages.iter().map(|message| message.origin).collect();
    assert_eq!(origins, [Some(Origin { position: 32, tag: 0 }), Some(Origin { position: 48, tag: 1 })]);
    assert_eq!((second.segment_id, second.capacity), (7, 4096));
}

#[test]
fn files_of_other_programs_are_read_without_positions() {
    let (bytes, _) = recording(2, false);
    let file = Temporary::new("foreign");
    assert_eq!(read(file.write(&bytes)), Ok((messages(2), false)));
}

#[test]
fn a_changed_byte_of_a_message_is_found() {
    let (bytes, ends) = recording(2, true);
    let file = Temporary::new("damage");
    // The last message of the first chunk is the end of the chunk's data.
    let mut damaged = bytes.clone();
    damaged[ends[0] - 1] ^= 0x40;
    assert!(read(file.write(&damaged)).unwrap_err().contains("shmpipe-reader"));
    // Whatever a byte is changed to, nothing panics, and no other message appears.
    for at in 8..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] = !damaged[at];
        if let Ok((found, _)) = read(file.write(&damaged)) {
            assert!(messages(2).starts_with(&found), "byte {at}: {found:?}");
        }
    }
}

#[test]
fn a_compressed_chunk_is_refused_in_words() {
    let mut bytes = mcap::MAGIC.to_vec();
    let compression = b"zstd";
    // Two times, the size and the checksum of the messages; the compression; the chunk's bytes, here of an empty frame of zstd.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x00, 0x01, 0x00, 0x00];
    let mut body = vec![0; 8 + 8 + 8 + 4];
    body.extend((compression.len() as u32).to_le_bytes());
    body.extend(compression);
    body.extend((frame.len() as u64).to_le_bytes());
    body.extend(frame);
    bytes.push(mcap::records::op::CHUNK);
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(body);
    let file = Temporary::new("compressed");
    let mut reader = Reader::open(file.write(&bytes)).unwrap();
    let Failure { code, message } = reader.next_chunk().unwrap_err();
    assert_eq!(code, Code::Unfit);
    let words = "its chunks are compressed with zstd; replay reads only files that are not compressed";
    assert_eq!(message, format!("{}: {words}", file.0.display()));
}
