//! The files of a recording.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mcap::records::MessageHeader;
use mcap::write::NoSeek;
use mcap::{McapError, WriteOptions, Writer};
use shmpipe::{Address, Snapshot};

use crate::args;
use crate::commands::recording::{OPCODE, Origins};
use crate::exit::{Code, Failure};
use crate::output::show_path;

/// Bytes that are written to the file at once.
const BUFFER: usize = 256 << 10;

/// The highest number in the name of a file.
const LAST_NUMBER: u32 = 999_999;

/// A message that is taken from the pipe and not yet released.
pub struct Held {
    /// Where its bytes end in those of all.
    pub end: usize,
    pub received_ns: u64,
}

/// Writes one file after the other.
pub struct Recording {
    path: PathBuf,
    rotate_size: Option<u64>,
    rotate_time: Option<Duration>,
    fsync: args::Fsync,
    topic: String,
    encoding: String,
    metadata: BTreeMap<String, String>,
    file: OpenFile,
    pub files: u64,
}

struct OpenFile {
    path: PathBuf,
    /// The writer has another descriptor of it.
    file: File,
    writer: Writer<NoSeek<BufWriter<File>>>,
    channel: u16,
    opened: Instant,
    /// 0 before the first chunk.
    bytes: u64,
}

fn failed(path: &Path) -> impl Fn(McapError) -> Failure {
    move |error| match error {
        McapError::Io(error) => Failure::io(&format!("writing {}", show_path(path)), &error),
        error => Failure::new(Code::Failure, format_args!("writing {}: {error}", show_path(path))),
    }
}

impl Recording {
    pub fn create(arguments: &args::Record, address: &Address, pipe: &Snapshot) -> Result<Self, Failure> {
        let metadata = [
            ("segment_id", pipe.segment_id.to_string()),
            ("address", address.to_string()),
            ("capacity_bytes", pipe.capacity.to_string()),
            ("schema", pipe.schema.to_string()),
        ];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value)).into();
        let topic = pipe.name.clone().unwrap_or_else(|| address.to_string());
        let encoding = arguments.encoding.clone();
        let rotates = arguments.rotate_size.is_some() || arguments.rotate_time.is_some();
        let file = open(&arguments.file, rotates, arguments.fsync, &topic, &encoding, &metadata)?;
        Ok(Recording {
            path: arguments.file.clone(),
            rotate_size: arguments.rotate_size,
            rotate_time: arguments.rotate_time,
            fsync: arguments.fsync,
            topic,
            encoding,
            metadata,
            file,
            files: 1,
        })
    }

    /// Writes messages as one chunk. They may be released when this returns.
    pub fn write(&mut self, origins: &Origins, held: &[Held], bytes: &[u8]) -> Result<(), Failure> {
        let file = &mut self.file;
        let wrong = failed(&file.path);
        // Outside of the chunk, ahead of it: a cut between the two leaves the chunk out whole.
        file.writer.write_private_record(OPCODE, &origins.encode(), Default::default()).map_err(&wrong)?;
        let mut start = 0;
        for (origin, message) in origins.entries.iter().zip(held) {
            let header = MessageHeader {
                channel_id: file.channel,
                // The low half.
                sequence: origin.position as u32,
                log_time: message.received_ns,
                publish_time: message.received_ns,
            };
            file.writer.write_to_known_channel(&header, &bytes[start..message.end]).map_err(&wrong)?;
            start = message.end;
        }
        file.writer.flush().map_err(&wrong)?;
        let mut settle = || {
            if self.fsync == args::Fsync::Chunk {
                file.file.sync_data()?;
            }
            file.bytes = file.file.metadata()?.len();
            Ok(())
        };
        settle().map_err(|error| wrong(McapError::Io(error)))
    }

    /// Starts the next file if this one is long or old enough. Everything written is flushed.
    pub fn rotate_if_due(&mut self) -> Result<(), Failure> {
        let due = self.rotate_size.is_some_and(|most| self.file.bytes >= most)
            || self.rotate_time.is_some_and(|most| self.file.opened.elapsed() >= most);
        if due && self.file.bytes > 0 {
            // The next one first: if that fails, this one stays.
            let next = open(&self.path, true, self.fsync, &self.topic, &self.encoding, &self.metadata)?;
            std::mem::replace(&mut self.file, next).finish(self.fsync)?;
            self.files += 1;
        }
        Ok(())
    }

    /// Finishes the last file: writes its summary.
    pub fn finish(self) -> Result<(), Failure> {
        self.file.finish(self.fsync)
    }
}

impl OpenFile {
    fn finish(mut self, fsync: args::Fsync) -> Result<(), Failure> {
        let wrong = failed(&self.path);
        self.writer.finish().map_err(&wrong)?;
        let mut buffer = self.writer.into_inner().into_inner();
        let flushed = buffer.flush().and_then(|()| match fsync {
            args::Fsync::Never => Ok(()),
            args::Fsync::Chunk | args::Fsync::File => self.file.sync_data(),
        });
        flushed.map_err(|error| wrong(McapError::Io(error)))
    }
}

/// Waits until the name of a new file is on the disk.
fn sync_name(path: &Path) -> Result<(), Failure> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| Failure::io(&format!("syncing the directory {}", show_path(directory)), &error))
}

/// Creates a file: `run.mcap`, or with numbers the first free of `run-000001.mcap`, `run-000002.mcap`, ...
fn open(
    path: &Path,
    numbered: bool,
    fsync: args::Fsync,
    topic: &str,
    encoding: &str,
    metadata: &BTreeMap<String, String>,
) -> Result<OpenFile, Failure> {
    let create = |path: &Path| OpenOptions::new().write(true).create_new(true).open(path);
    let mut number = 1;
    let (path, file) = loop {
        let path = if numbered { with_number(path, number) } else { path.to_owned() };
        match create(&path) {
            Ok(file) => break (path, file),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if !numbered || number == LAST_NUMBER {
                    let text = format!(
                        "{} already exists, and a recording begins a new file: give another name, or --rotate-size for numbered files",
                        show_path(&path)
                    );
                    return Err(Failure::new(Code::Taken, text));
                }
                number += 1;
            }
            Err(error) => return Err(Failure::io(&format!("creating {}", show_path(&path)), &error)),
        }
    };
    if fsync != args::Fsync::Never {
        sync_name(&path)?;
    }
    let options = WriteOptions::new().compression(None).chunk_size(None).disable_seeking(true);
    // Who has written the file, in the words of its format.
    let options = WriteOptions::library(options, concat!("shmpipe ", env!("CARGO_PKG_VERSION")));
    let start = || {
        let written = BufWriter::with_capacity(BUFFER, file.try_clone()?);
        let mut writer = options.create(NoSeek::new(written))?;
        let channel = writer.add_channel(0, topic, encoding, metadata)?;
        writer.flush()?;
        Ok((writer, channel))
    };
    let (writer, channel) = start().map_err(failed(&path))?;
    Ok(OpenFile { path, file, writer, channel, opened: Instant::now(), bytes: 0 })
}

fn with_number(path: &Path, number: u32) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{number:06}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}
