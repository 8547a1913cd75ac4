//! `shmpipe replay`: sends the messages of a recording again, at the pace at which they were recorded.

mod files;
mod reader;
mod verify;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use shmpipe::{Pipe, Producer};

use crate::args;
use crate::commands::record::send;
use crate::commands::role;
use crate::exit::{self, Code, Early, End, Failure, Outcome};
use crate::output::report::{self, Report, SCHEMA};
use crate::output::units;
use crate::system::{signals, stdio};
use files::{Files, Found};
use reader::{Reader, Recorded};

/// How long before its time a message is awaited without sleeping: a sleep ends late.
const SPIN: Duration = Duration::from_micros(200);

/// What is later counts as so late.
const LATEST: Duration = Duration::from_secs(3600);

/// What was replayed.
#[derive(Default, Serialize)]
struct Summary {
    schema: u32,
    messages: u64,
    payload_bytes: u64,
    #[serde(flatten)]
    found: Found,
    /// How late messages were sent, against the recorded spacing. Null if they were not spaced.
    late_p50_ns: Option<u64>,
    late_p99_ns: Option<u64>,
    late_max_ns: Option<u64>,
}

pub fn run(arguments: &args::Replay, report: Report) -> Outcome {
    signals::install()?;
    let (files, address) = arguments.files_and_address()?;
    // A file that cannot be read is reported before anyone receives anything.
    for path in &files {
        Reader::open(path)?;
    }
    let Some(address) = address else { return verify::run(&files, arguments.allow_unfinished, report) };
    let producer = role::claim(&address, &arguments.opening.options(), report, Pipe::producer)?;
    signals::cancel_on_signal(producer.cancel_handle());
    let late = Histogram::new_with_max(LATEST.as_nanos() as u64, 3).expect("three figures");
    let summary = Summary { schema: SCHEMA, ..Summary::default() };
    let mut replay = Replay { arguments, producer, report, start: None, late, summary };
    let replayed = replay.replay(&files);
    replay.end(replayed)
}

struct Replay<'a> {
    arguments: &'a args::Replay,
    producer: Producer,
    report: Report,
    /// When the first message was sent, and its time in the recording.
    start: Option<(Instant, u64)>,
    late: Histogram<u64>,
    summary: Summary,
}

impl Replay<'_> {
    /// Sends all messages, in a loop if wanted. Returns what is missing at the end.
    fn replay(&mut self, paths: &[PathBuf]) -> Result<Option<Failure>, Early> {
        let mut files = Files::new(paths, Some(self.report));
        let replayed = self.pass(&mut files);
        self.summary.found = files.found;
        replayed?;
        // What the files are is known after the first pass.
        while self.arguments.repeats && self.summary.messages > 0 {
            self.pass(&mut Files::new(paths, None))?;
        }
        Ok(files.incomplete(self.arguments.allow_unfinished))
    }

    /// Sends all messages once.
    fn pass(&mut self, files: &mut Files<'_>) -> Result<(), Early> {
        self.start = None;
        let args::Replay { from, to, .. } = *self.arguments;
        let mut first = None;
        files.read(|Recorded { log_time_ns, data, origin }| {
            let first = *first.get_or_insert(log_time_ns);
            let since = Duration::from_nanos(log_time_ns.saturating_sub(first));
            if since < from.unwrap_or_default() {
                return Ok(ControlFlow::Continue(()));
            }
            if to.is_some_and(|to| since > to) {
                return Ok(ControlFlow::Break(()));
            }
            let due = self.wait_for(log_time_ns)?;
            let tag = origin.map_or(0, |origin| origin.tag);
            send(&mut self.producer, tag, &data, self.report)?;
            if let Some(due) = due {
                self.late.saturating_record(due.elapsed().as_nanos() as u64);
            }
            self.summary.messages += 1;
            self.summary.payload_bytes += data.len() as u64;
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Waits until it is time for a message, counted from the first one: errors do not add up. Returns that time, unless messages are
    /// not spaced.
    fn wait_for(&mut self, log_time_ns: u64) -> Result<Option<Instant>, Early> {
        let Some(speed) = self.arguments.speed.factor() else { return Ok(None) };
        let (start, first) = *self.start.get_or_insert_with(|| (Instant::now(), log_time_ns));
        let after = Duration::from_nanos((log_time_ns.saturating_sub(first) as f64 / speed) as u64);
        let due = start + after;
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Some(due));
            }
            if left > SPIN {
                stdio::pause(due - SPIN);
                if signals::received().is_some() {
                    return Err(signals::why_cancelled());
                }
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// Closes at the end of the recording. Before it, and at the end of one that is cut off, aborts with the exit code: a receiver must
    /// not take the cut for the end.
    fn end(mut self, replayed: Result<Option<Failure>, Early>) -> Outcome {
        let outcome = match replayed {
            Ok(incomplete) => incomplete.map_or(Ok(End::Done), Err),
            Err(early) => early.outcome(),
        };
        match &outcome {
            Ok(End::Done) => self.producer.close()?,
            _ => {
                let aborted = self.producer.abort(exit::number(&outcome).into());
                if outcome.is_ok() {
                    aborted?;
                }
            }
        }
        if outcome.as_ref().is_err_and(|failure| failure.code != Code::Incomplete) {
            return outcome;
        }
        if !self.late.is_empty() {
            let at = |quantile| Some(self.late.value_at_quantile(quantile));
            (self.summary.late_p50_ns, self.summary.late_p99_ns) = (at(0.5), at(0.99));
            self.summary.late_max_ns = Some(self.late.max());
        }
        report::print(&match self.report {
            Report::Json => report::json(&self.summary) + "\n",
            Report::Text => text(&self.summary),
        })?;
        outcome
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
