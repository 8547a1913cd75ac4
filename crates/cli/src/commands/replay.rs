//! `shmpipe replay`: sends the messages of a recording again, at the pace at which they were recorded.

mod reader;

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::poll::poll;
use serde::Serialize;
use shmpipe::{Pipe, Producer};

use crate::args;
use crate::commands::record::send;
use crate::commands::role;
use crate::exit::{self, Early, End, Outcome};
use crate::output::report::{self, Report, SCHEMA};
use crate::output::{show_path, units};
use crate::system::signals;
use reader::{Chunk, Reader, Recorded};

/// How long before its time a message is awaited without sleeping: a sleep ends late.
const SPIN: Duration = Duration::from_micros(200);

/// What was replayed.
#[derive(Serialize)]
struct Summary {
    schema: u32,
    messages: u64,
    payload_bytes: u64,
    /// Messages of a file that the file before it has too.
    repeated_messages: u64,
    /// Stretches of the stream that the recording does not have.
    gaps: u64,
    unfinished_files: u64,
    /// How late messages were sent, against the recorded spacing. Null if they were not spaced.
    late_p50_ns: Option<u64>,
    late_p99_ns: Option<u64>,
    late_max_ns: Option<u64>,
}

pub fn run(arguments: &args::Replay, report: Report) -> Outcome {
    signals::install()?;
    // A file that cannot be read is reported before anyone receives anything.
    for path in &arguments.files {
        Reader::open(path)?;
    }
    let args::PipeArgs { address, .. } = &arguments.pipe;
    let producer = role::claim(address, &arguments.pipe.options(), report, Pipe::producer)?;
    signals::cancel_on_signal(producer.cancel_handle());
    let summary = Summary {
        schema: SCHEMA,
        messages: 0,
        payload_bytes: 0,
        repeated_messages: 0,
        gaps: 0,
        unfinished_files: 0,
        late_p50_ns: None,
        late_p99_ns: None,
        late_max_ns: None,
    };
    let late = Histogram::new(3).expect("three figures");
    let mut replay = Replay { arguments, producer, report, start: None, known: None, late, summary };
    let replayed = replay.replay();
    replay.end(replayed)
}

struct Replay<'a> {
    arguments: &'a args::Replay,
    producer: Producer,
    report: Report,
    /// When the first message was sent, and its time in the recording.
    start: Option<(Instant, u64)>,
    /// The segment of the latest message with a position, and the position after it.
    known: Option<(u64, u64)>,
    late: Histogram<u64>,
    summary: Summary,
}

impl Replay<'_> {
    fn replay(&mut self) -> Result<(), Early> {
        loop {
            let mut first = None;
            'files: for path in &self.arguments.files {
                let mut reader = Reader::open(path)?;
                while let Some(chunk) = reader.next_chunk()? {
                    let Chunk { messages, segment_id, capacity } = chunk;
                    for message in messages {
                        if self.is_repeated(&message, segment_id, capacity) {
                            continue;
                        }
                        let first = *first.get_or_insert(message.log_time_ns);
                        let since = Duration::from_nanos(message.log_time_ns.saturating_sub(first));
                        if since < self.arguments.from.unwrap_or_default() {
                            continue;
                        }
                        if self.arguments.to.is_some_and(|to| since > to) {
                            break 'files;
                        }
                        self.wait_for(message.log_time_ns)?;
                        let tag = message.origin.map_or(0, |origin| origin.tag);
                        send(&mut self.producer, tag, &message.data, self.report)?;
                        self.summary.messages += 1;
                        self.summary.payload_bytes += message.data.len() as u64;
                    }
                }
                if reader.unfinished {
                    self.summary.unfinished_files += 1;
                    self.report.note(format_args!(
                        "{} was never finished; every whole chunk of it is replayed",
                        show_path(path)
                    ));
                }
            }
            if !self.arguments.repeats || self.summary.messages == 0 {
                return Ok(());
            }
            (self.start, self.known) = (None, None);
        }
    }

    /// Whether a message was in the recording before: a recorder that was killed after it wrote a chunk and before it released it
    /// has a successor that wrote it again. Counts what is missing.
    fn is_repeated(&mut self, message: &Recorded, segment_id: u64, capacity: u64) -> bool {
        let Some(origin) = message.origin else { return false };
        let end = origin.position.wrapping_add(8 + (message.data.len() as u64).next_multiple_of(8));
        if let Some((known, next)) = self.known.filter(|(known, _)| *known == segment_id) {
            debug_assert_eq!(known, segment_id);
            let ahead = origin.position.wrapping_sub(next) as i64;
            if ahead < 0 {
                self.summary.repeated_messages += 1;
                return true;
            }
            // A record that does not fit before the end of the ring starts at its next start.
            let wraps = capacity.is_power_of_two()
                && origin.position % capacity == 0
                && (ahead as u64) < capacity / 2;
            if ahead > 0 && !wraps {
                self.summary.gaps += 1;
                self.report.note(format_args!(
                    "the recording has no messages between the positions {next} and {}",
                    origin.position
                ));
            }
        }
        self.known = Some((segment_id, end));
        false
    }

    /// Waits until it is time for a message, counted from the first one: errors do not add up.
    fn wait_for(&mut self, log_time_ns: u64) -> Result<(), Early> {
        let Some(signal) = signals::received() else {
            let Some(speed) = self.arguments.speed.factor() else { return Ok(()) };
            let (start, first) = *self.start.get_or_insert_with(|| (Instant::now(), log_time_ns));
            let after = Duration::from_nanos((log_time_ns.saturating_sub(first) as f64 / speed) as u64);
            let due = start + after;
            loop {
                let now = Instant::now();
                let left = due.saturating_duration_since(now);
                if left.is_zero() {
                    self.late.saturating_record((now - due).as_nanos() as u64);
                    return Ok(());
                }
                if left > SPIN {
                    // A signal ends the wait. Short of the moment, since it takes whole milliseconds.
                    match (left - SPIN).as_millis() {
                        0 => std::thread::sleep(left - SPIN),
                        milliseconds => drop(poll(&mut [], milliseconds.min(1000) as u16)),
                    }
                    if signals::received().is_some() {
                        return Err(signals::why_cancelled());
                    }
                } else {
                    std::hint::spin_loop();
                }
            }
        };
        Err(Early::Signal(signal))
    }

    /// Closes at the end of the recording; before it, aborts with the exit code.
    fn end(mut self, replayed: Result<(), Early>) -> Outcome {
        let outcome = replayed.map_or_else(Early::outcome, |()| Ok(End::Done));
        match &outcome {
            Ok(End::Done) => self.producer.close()?,
            _ => {
                let aborted = self.producer.abort(exit::number(&outcome).into());
                if outcome.is_ok() {
                    aborted?;
                }
            }
        }
        let outcome = outcome?;
        if !self.late.is_empty() {
            let at = |quantile| Some(self.late.value_at_quantile(quantile));
            (self.summary.late_p50_ns, self.summary.late_p99_ns) = (at(0.5), at(0.99));
            self.summary.late_max_ns = Some(self.late.max());
        }
        report::print(&match self.report {
            Report::Json => report::json(&self.summary) + "\n",
            Report::Text => text(&self.summary),
        })?;
        Ok(outcome)
    }
}

fn text(summary: &Summary) -> String {
    let Summary { messages, payload_bytes, .. } = summary;
    let mut text = format!("replayed {messages} messages, {} of payload", units::show_size(*payload_bytes));
    if let (Some(p50), Some(p99), Some(most)) =
        (summary.late_p50_ns, summary.late_p99_ns, summary.late_max_ns)
    {
        let show = |ns: u64| units::show_time(ns as f64);
        text += &format!("; late by {} (median), {} (p99), {} (most)", show(p50), show(p99), show(most));
    }
    text + "\n"
}
