//! What a subscriber notes beside its pipe: which message of the stream begins where in the pipe.
//!
//! A note is written before the message's first record is committed, so after a kill the pipe ends at that place or behind it, and the
//! lengths of the messages from there on tell which ones it has. A file has two notes, written by turns: a write that a kill cuts short
//! leaves the one before.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use shmpipe::Address;

use crate::exit::{Code, Failure};
use crate::failpoint;
use crate::frame::{PipeId, Place};

const MAGIC: &[u8; 8] = b"shmpnot2";
/// Bytes of a note: the magic, a checksum of what follows, a counter, and the words.
const SIZE: usize = 8 + 8 + 8 + 8 * WORDS;
const WORDS: usize = 10;

/// Where a pipe is in a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// The pipe that receives.
    pub segment: u64,
    /// When the stream was created, in nanoseconds since 1970, and a checksum of its name.
    pub created: u64,
    pub stream: u64,
    /// The next message of the stream.
    pub sequence: u64,
    /// Where in the pipe its first message begins.
    pub position: u64,
    /// Where the stream continues there: the pipe and the place that the message begins at. `None` before the first message.
    pub source: Option<(PipeId, Place)>,
    /// The claim of the source's producer whose end came last, as the frames before the message say; 0 for none.
    pub ended: u64,
    /// The claim of the receiving pipe's producer role that is about to end as the message says; 0 for none.
    pub ending: u64,
}

/// The file of the notes of a pipe, which one process uses at a time.
#[derive(Debug)]
pub struct Notes {
    file: File,
    counter: u64,
    last: Option<Note>,
}

impl Notes {
    /// Opens the notes of the pipe with this address, or begins them.
    pub fn open(folder: &Path, address: &Address) -> Result<Self, Failure> {
        let path = folder.join(file_name(address));
        let failed = |error: io::Error| {
            let code = match error.kind() {
                io::ErrorKind::PermissionDenied => Code::Denied,
                _ => Code::Failure,
            };
            Failure::new(code, format_args!("{}: {error}", path.display()))
        };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let text = format!("another subscriber fills this pipe: it holds {}", path.display());
                return Err(Failure::new(Code::Taken, text));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let (counter, last) = latest(&file).map_or((0, None), |(counter, note)| (counter, Some(note)));
        Ok(Notes { file, counter, last })
    }

    /// The note of a pipe, for a process that only looks.
    pub fn peek(folder: &Path, address: &Address) -> Option<Note> {
        let file = File::open(folder.join(file_name(address))).ok()?;
        latest(&file).map(|(_, note)| note)
    }

    pub fn last(&self) -> Option<Note> {
        self.last
    }

    pub fn write(&mut self, note: Note) -> Result<(), Failure> {
        self.counter += 1;
        let (pipe, place) = note.source.unwrap_or_default();
        let words: [u64; WORDS] = [
            note.segment,
            note.created,
            note.stream,
            note.sequence,
            note.position,
            u64::from(note.source.is_some()) | note.ending << 1,
            pipe.0,
            place.position,
            place.offset,
            note.ended,
        ];
        let mut bytes = [0; SIZE];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[16..24].copy_from_slice(&self.counter.to_le_bytes());
        for (word, to) in words.iter().zip(bytes[24..].chunks_exact_mut(8)) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        let checksum = u64::from(crc32fast::hash(&bytes[16..]));
        bytes[8..16].copy_from_slice(&checksum.to_le_bytes());
        let offset = (self.counter % 2) * SIZE as u64;
        failpoint::reach();
        let written = failpoint::write().and_then(|()| self.file.write_all_at(&bytes, offset));
        written.map_err(|error| {
            Failure::new(Code::Failure, format_args!("writing where the pipe is in the stream: {error}"))
        })?;
        failpoint::reach();
        self.last = Some(note);
        Ok(())
    }
}

/// The later of the two notes.
fn latest(file: &File) -> Option<(u64, Note)> {
    [0, 1].into_iter().filter_map(|slot| read(file, slot)).max_by_key(|(counter, _)| *counter)
}

/// A note, if it is whole.
fn read(file: &File, slot: u64) -> Option<(u64, Note)> {
    let mut bytes = [0; SIZE];
    file.read_exact_at(&mut bytes, slot * SIZE as u64).ok()?;
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    if &bytes[..8] != MAGIC || word(8) != u64::from(crc32fast::hash(&bytes[16..])) {
        return None;
    }
    let words: [u64; WORDS] = std::array::from_fn(|i| word(24 + 8 * i));
    let [segment, created, stream, sequence, position, flags, pipe, at, offset, ended] = words;
    let source = (flags & 1 == 1).then_some((PipeId(pipe), Place { position: at, offset }));
    let note = Note { segment, created, stream, sequence, position, source, ended, ending: flags >> 1 };
    Some((word(16), note))
}

/// The name of an address's file: what is not a letter, a digit or one of `-_.:` as `%xx`.
fn file_name(address: &Address) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let mut name = String::new();
    for &byte in address.to_os_string().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b':' => {
                name.push(char::from(byte))
            }
            _ => name += &format!("%{byte:02x}"),
        }
    }
    PathBuf::from(name + ".note")
}

/// Where the notes are: where the user says, or in the folder of the service or the user.
pub fn folder(chosen: Option<&Path>) -> PathBuf {
    if let Some(folder) = chosen {
        return folder.to_owned();
    }
    if let Some(folder) = std::env::var_os("STATE_DIRECTORY") {
        return folder.into();
    }
    if nix::unistd::geteuid().is_root() {
        return "/var/lib/shmpipe-nats".into();
    }
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state"));
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).or_else(home);
    state.unwrap_or_else(std::env::temp_dir).join("shmpipe-nats")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(sequence: u64) -> Note {
        let source = Some((PipeId(7), Place { position: 8, offset: 9 }));
        Note { segment: 1, created: 2, stream: 3, sequence, position: 5, source, ended: 10, ending: 6 }
    }

    fn address() -> Address {
        "posix:/a b".try_into().unwrap()
    }

    #[test]
    fn the_last_note_comes_back() {
        let _alone = failpoint::alone();
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Notes::open(folder.path(), &address()).unwrap().last(), None);
        for sequence in 1..6 {
            let mut notes = Notes::open(folder.path(), &address()).unwrap();
            assert_eq!(notes.last(), (sequence > 1).then(|| note(sequence - 1)));
            notes.write(note(sequence)).unwrap();
        }
    }

    #[test]
    fn a_torn_note_leaves_the_one_before() {
        let _alone = failpoint::alone();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file_name(&address()));
        let mut notes = Notes::open(folder.path(), &address()).unwrap();
        notes.write(note(1)).unwrap();
        let before = std::fs::read(&path).unwrap();
        notes.write(note(2)).unwrap();
        let after = std::fs::read(&path).unwrap();
        drop(notes);
        // The second note lies in front, and a kill may leave any part of it.
        for cut in 0..SIZE {
            let mut torn = before.clone();
            torn[..cut].copy_from_slice(&after[..cut]);
            std::fs::write(&path, &torn).unwrap();
            let last = Notes::open(folder.path(), &address()).unwrap().last();
            assert!(last == Some(note(1)) || torn[..SIZE] == after[..SIZE], "{cut}: {last:?}");
        }
    }

    #[test]
    fn a_second_user_of_the_notes_is_refused() {
        let _alone = failpoint::alone();
        let folder = tempfile::tempdir().unwrap();
        let first = Notes::open(folder.path(), &address()).unwrap();
        assert_eq!(Notes::open(folder.path(), &address()).unwrap_err().code, Code::Taken);
        drop(first);
        Notes::open(folder.path(), &address()).unwrap();
    }

    #[test]
    fn names_of_files_have_no_slash() {
        assert_eq!(file_name(&address()), PathBuf::from("posix:%2fa%20b.note"));
    }
}
