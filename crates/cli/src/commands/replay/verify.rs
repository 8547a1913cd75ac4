//! `replay --verify`: reads recordings whole, and sends nothing.

use std::ops::ControlFlow;
use std::path::PathBuf;

use serde::Serialize;

use super::files::{Files, Found};
use super::reader::{self, Recorded};
use crate::exit::{Code, End, Failure, Outcome};
use crate::output::report::{self, Report, SCHEMA};
use crate::output::units;

/// What was read.
#[derive(Default, Serialize)]
struct Summary {
    schema: u32,
    files: u64,
    messages: u64,
    payload_bytes: u64,
    first_position_bytes: Option<u64>,
    last_position_bytes: Option<u64>,
    #[serde(flatten)]
    found: Found,
}

/// Fails if a file is damaged, or if the files have not all of a stream.
pub fn run(paths: &[PathBuf], allow_unfinished: bool, report: Report) -> Outcome {
    let mut summary = Summary { schema: SCHEMA, files: paths.len() as u64, ..Summary::default() };
    let mut files = Files::new(paths, Some(report));
    let read = files.read(|Recorded { data, origin, .. }| {
        summary.messages += 1;
        summary.payload_bytes += data.len() as u64;
        let position = origin.map(|origin| origin.position);
        summary.first_position_bytes = summary.first_position_bytes.or(position);
        summary.last_position_bytes = position.or(summary.last_position_bytes);
        Ok(ControlFlow::Continue(()))
    });
    if let Err(early) = read {
        return early.outcome();
    }
    for path in paths {
        reader::check_sections(path)?;
    }
    summary.found = files.found;
    report::print(&match report {
        Report::Json => report::json(&summary) + "\n",
        Report::Text => text(&summary),
    })?;
    if let Some(failure) = files.incomplete(allow_unfinished) {
        return Err(failure);
    }
    match summary.found.gaps {
        0 => Ok(End::Done),
        1 => Err(Failure::new(Code::Incomplete, "messages are missing, at one place")),
        gaps => Err(Failure::new(Code::Incomplete, format_args!("messages are missing, at {gaps} places"))),
    }
}

fn text(summary: &Summary) -> String {
    let Summary { files, messages, payload_bytes, found, .. } = summary;
    let mut text = format!(
        "{messages} messages, {} of payload, in {} chunks of {files} file{}",
        units::show_size(*payload_bytes),
        found.chunks,
        if *files == 1 { "" } else { "s" }
    );
    if let (Some(first), Some(last)) = (summary.first_position_bytes, summary.last_position_bytes) {
        text += &format!(", from position {first} to {last}");
    }
    text + "\n"
}
