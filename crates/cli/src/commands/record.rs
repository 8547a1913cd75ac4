//! `shmpipe record`: writes the messages of a pipe to MCAP files.
//!
//! A message is released only after the chunk with it was written to the file, so that a recorder that is killed loses nothing: the
//! next one receives again what was not released. A chunk ends when it is large or old enough, or takes a quarter of the ring.

mod file;

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use shmpipe::{CancelHandle, Consumer, Peer, Pipe, Producer, RecvTimeoutError, SendTimeoutError, Tagged};

use crate::args;
use crate::commands::recording::{Origin, Origins};
use crate::commands::role;
use crate::exit::{self, Code, Early, End, Failure, Outcome};
use crate::output::report::{self, Report, SCHEMA};
use crate::output::units;
use crate::system::signals;
use file::{Held, Recording};

/// How often to look for more messages while some are held: the recorder cannot sleep until the next one.
const LOOK_INTERVAL: Duration = Duration::from_micros(100);

/// How often to check for a signal while there is no space in the pipe of `--tee`.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// How long a message waits for others, by default.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// The same with `--tee`, which passes it on only then.
const TEE_FLUSH_INTERVAL: Duration = Duration::from_millis(10);

/// What was recorded.
#[derive(Serialize)]
struct Summary {
    schema: u32,
    messages: u64,
    payload_bytes: u64,
    files: u64,
    chunks: u64,
    first_position_bytes: Option<u64>,
    last_position_bytes: Option<u64>,
}

pub fn run(arguments: &args::Record, report: Report) -> Outcome {
    signals::install()?;
    let args::PipeArgs { address, .. } = &arguments.pipe;
    let consumer = role::claim(address, &arguments.pipe.options(), report, Pipe::consumer)?;
    signals::cancel_on_signal(consumer.cancel_handle());
    let snapshot = shmpipe::inspect(consumer.pipe().address())?;
    let tee = match &arguments.tee {
        Some(tee) => Some(role::claim(tee, &arguments.pipe.options(), report, Pipe::producer)?),
        None => None,
    };
    let recording = Recording::create(arguments, address, &snapshot)?;
    let interval = if tee.is_some() { TEE_FLUSH_INTERVAL } else { FLUSH_INTERVAL };
    let mut recorder = Recorder {
        cancel: consumer.cancel_handle(),
        quarter: consumer.capacity() / 4,
        origins: Origins {
            segment_id: snapshot.segment_id.get(),
            capacity: snapshot.capacity,
            entries: Vec::new(),
        },
        consumer,
        tee,
        recording,
        held: Vec::new(),
        bytes: Vec::new(),
        flush_size: arguments.flush_size.unwrap_or(1 << 20),
        flush_interval: arguments.flush_interval.unwrap_or(interval),
        left: arguments.count,
        timeout: arguments.timeout,
        follow: arguments.follow,
        output_failed: false,
        report,
        summary: Summary {
            schema: SCHEMA,
            messages: 0,
            payload_bytes: 0,
            files: 0,
            chunks: 0,
            first_position_bytes: None,
            last_position_bytes: None,
        },
    };
    let recorded = recorder.record();
    recorder.end(recorded)
}

struct Recorder {
    consumer: Consumer,
    cancel: CancelHandle,
    tee: Option<Producer>,
    recording: Recording,
    /// The messages taken from the pipe and not released, their bytes, and where they come from.
    held: Vec<Held>,
    bytes: Vec<u8>,
    origins: Origins,
    /// Bytes of the ring that may be held: the rest is the producer's while a chunk is written.
    quarter: u64,
    flush_size: u64,
    flush_interval: Duration,
    /// Messages left to record, with `--count`.
    left: Option<u64>,
    timeout: Option<Duration>,
    follow: bool,
    /// The file did not take what was received.
    output_failed: bool,
    report: Report,
    summary: Summary,
}

impl Recorder {
    fn record(&mut self) -> Result<(), Early> {
        while self.left != Some(0) {
            if self.cancel.is_cancelled() {
                return Err(signals::why_cancelled());
            }
            if !self.record_chunk()? && !self.wait()? {
                break;
            }
        }
        Ok(())
    }

    /// Takes messages until a chunk is due, writes it, passes it on and releases it. Returns whether there were any.
    fn record_chunk(&mut self) -> Result<bool, Early> {
        let Recorder { held, bytes, origins, .. } = self;
        held.clear();
        bytes.clear();
        origins.entries.clear();
        let limit = self.left.map_or(usize::MAX, |left| left.try_into().unwrap_or(usize::MAX));
        let mut drain = self.consumer.drain(limit);
        let mut corrupt = None;
        let mut since: Option<(Instant, u64)> = None;
        loop {
            match drain.next() {
                Ok(Some(message)) => {
                    let position = message.position().get();
                    message.append_to(bytes);
                    held.push(Held { end: bytes.len(), received_ns: now_ns() });
                    origins.entries.push(Origin { position, tag: message.tag() });
                    let (_, first) = *since.get_or_insert_with(|| (Instant::now(), position));
                    let span = position.wrapping_sub(first) + message.len() as u64;
                    if bytes.len() as u64 >= self.flush_size || span >= self.quarter || held.len() == limit {
                        break;
                    }
                }
                Ok(None) => {
                    let Some((moment, _)) = since else { return Ok(false) };
                    // Without a producer nothing more comes, but for what it sent just before: that is in the next chunk.
                    let is_over = self.cancel.is_cancelled() || drain.peer() != Peer::Open;
                    if is_over || moment.elapsed() >= self.flush_interval {
                        break;
                    }
                    thread::sleep(LOOK_INTERVAL);
                }
                // The messages before it are good.
                Err(error) => {
                    corrupt = Some(error);
                    break;
                }
            }
        }
        if let Some(corruption) = corrupt.filter(|_| held.is_empty()) {
            return Err(corruption.into());
        }
        if let Err(failure) = self.recording.write(origins, held, bytes) {
            drain.requeue();
            self.output_failed = true;
            return Err(failure.into());
        }
        if let Some(tee) = &mut self.tee {
            if let Err(early) = pass_on(tee, origins, held, bytes, self.report) {
                drain.requeue();
                return Err(early);
            }
        }
        drain.release();
        let messages = held.len() as u64;
        self.summary.messages += messages;
        self.summary.payload_bytes += bytes.len() as u64;
        self.summary.chunks += 1;
        let positions = || origins.entries.iter().map(|origin| origin.position);
        self.summary.first_position_bytes = self.summary.first_position_bytes.or(positions().next());
        self.summary.last_position_bytes = positions().next_back();
        if let Some(left) = &mut self.left {
            *left -= messages;
        }
        self.recording.rotate_if_due().inspect_err(|_| self.output_failed = true)?;
        match corrupt {
            Some(corruption) => Err(corruption.into()),
            None => Ok(true),
        }
    }

    /// Waits for a message. Returns whether to continue.
    fn wait(&mut self) -> Result<bool, Early> {
        let deadline = self.timeout.map(|timeout| Instant::now() + timeout);
        loop {
            match self.consumer.wait_for_message(deadline) {
                Ok(()) => return Ok(true),
                Err(RecvTimeoutError::Closed) if !self.follow => return Ok(false),
                Err(RecvTimeoutError::Closed) => {
                    self.consumer.wait_for_peer(deadline).map_err(RecvTimeoutError::from).or_else(ended)?;
                }
                Err(RecvTimeoutError::PeerDied) if self.follow => {
                    self.report.note("the producer died; waiting for the next one");
                }
                Err(RecvTimeoutError::PeerAborted { code }) if self.follow => {
                    self.report.note(format_args!(
                        "the producer aborted with code {code}; waiting for the next one"
                    ));
                }
                Err(error) => ended(error)?,
            }
        }
    }

    /// Finishes the file in any case. A recorder that could not write aborts; anything else closes: unread messages stay.
    fn end(mut self, recorded: Result<(), Early>) -> Outcome {
        let outcome = recorded.map_or_else(Early::outcome, |()| Ok(End::Done));
        self.summary.files = self.recording.files;
        let finished = self.recording.finish();
        let outcome = match (outcome, finished) {
            (Ok(_), Err(failure)) => {
                self.output_failed = true;
                Err(failure)
            }
            (outcome, _) => outcome,
        };
        let code = exit::number(&outcome).into();
        let ended = match self.output_failed {
            true => self.consumer.abort(code),
            false => self.consumer.close(),
        };
        let tee = match (self.tee, &outcome) {
            (Some(tee), Ok(End::Done)) => tee.close(),
            (Some(tee), _) => tee.abort(code),
            (None, _) => Ok(()),
        };
        // What went wrong first matters more.
        let outcome = outcome?;
        ended?;
        tee?;
        let Summary { messages, payload_bytes, files, .. } = self.summary;
        report::print(&match self.report {
            Report::Json => report::json(&self.summary) + "\n",
            Report::Text => format!(
                "recorded {messages} messages, {} of payload, in {files} file{}\n",
                units::show_size(payload_bytes),
                if files == 1 { "" } else { "s" }
            ),
        })?;
        Ok(outcome)
    }
}

fn ended(error: RecvTimeoutError) -> Result<(), Early> {
    Err(match error {
        RecvTimeoutError::Cancelled => signals::why_cancelled(),
        RecvTimeoutError::PeerDied => {
            Failure::new(Code::PeerGone, "the producer died, and every message was recorded").into()
        }
        RecvTimeoutError::PeerAborted { code } => {
            let text = format!("the producer aborted with code {code}, and every message was recorded");
            Failure::new(Code::PeerGone, text).into()
        }
        error => error.into(),
    })
}

/// Sends the messages of a chunk, with their tags.
fn pass_on(
    tee: &mut Producer,
    origins: &Origins,
    held: &[Held],
    bytes: &[u8],
    report: Report,
) -> Result<(), Early> {
    let mut start = 0;
    for (origin, message) in origins.entries.iter().zip(held) {
        send(tee, origin.tag, &bytes[start..message.end], report)?;
        start = message.end;
    }
    Ok(())
}

/// Sends a message; waits for the next consumer when one dies.
pub fn send(producer: &mut Producer, tag: u32, message: &[u8], report: Report) -> Result<(), Early> {
    loop {
        match producer.send_timeout(Tagged(tag, message), CHECK_INTERVAL) {
            Ok(_) => return Ok(()),
            Err(SendTimeoutError::PeerDied) => report.note("the consumer died; waiting for the next one"),
            // A signal cancels one endpoint alone.
            Err(SendTimeoutError::TimedOut) if signals::received().is_none() => {}
            Err(SendTimeoutError::TimedOut | SendTimeoutError::Cancelled) => {
                return Err(signals::why_cancelled());
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The time since 1970, in nanoseconds.
fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}
