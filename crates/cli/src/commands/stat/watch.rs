//! `shmpipe stat --watch`: a line per interval.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use shmpipe::{Address, Location};

use crate::commands::watched::{self, FlowObject, Watched, look_until};
use crate::exit::{End, Failure, Outcome};
use crate::output::description;
use crate::output::report::{self, Report, SCHEMA};
use crate::output::units;
use crate::system::signals;

/// Lines between two headers.
const PAGE: usize = 20;

const HEADER: &str = "  MSG/S   BYTES/S   RECV/S  FILL  HIGH   UNREAD      P99  WAITS             EVENTS";

#[derive(Serialize)]
struct Line {
    schema: u32,
    unix_seconds: f64,
    #[serde(flatten)]
    flow: FlowObject,
}

pub fn run(address: &Address, interval: Duration, report: Report) -> Outcome {
    signals::install()?;
    let snapshot = shmpipe::inspect(address)?;
    let mut watched = Watched::new(Location::Address(address.clone()), Ok(snapshot));
    let mut next = Instant::now();
    watched.tick(next);
    let mut lines = 0;
    loop {
        next += interval;
        if let Some(signal) = look_until(next, || {
            if watched.look() {
                report.note("the pipe was removed, and another one is in its place");
            }
        }) {
            return Ok(End::Signal(signal));
        }
        if let Err(error) = watched.latest {
            return Err(Failure::from(error));
        }
        watched.tick(Instant::now());
        let flows = watched.flows.len();
        let text = match report {
            Report::Json => json(&watched),
            Report::Text => {
                let header = if lines % PAGE < flows { format!("{HEADER}\n") } else { String::new() };
                header + &text(&watched)
            }
        };
        lines += flows;
        if !report::print_to_reader(&text)? {
            return Ok(End::Done);
        }
    }
}

fn json(watched: &Watched) -> String {
    let unix_seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let lines = watched::objects(watched).into_iter();
    lines.map(|flow| report::json(&Line { schema: SCHEMA, unix_seconds, flow }) + "\n").collect()
}

fn text(watched: &Watched) -> String {
    let Ok(latest) = &watched.latest else { return String::new() };
    let ways = description::ways(latest);
    let mut text = String::new();
    for (flow, way) in watched.flows.iter().zip(&ways) {
        let fill = |used| units::show_fill(used, latest.capacity);
        let line = format!(
            "{:>7}  {:>8}  {:>7}  {:>4}  {:>4}  {:>7}  {:>7}  {:<16}  {}",
            units::show_rate(flow.sent_per_second),
            units::show_count(flow.bytes_per_second),
            units::show_rate(flow.released_per_second),
            fill(way.used),
            fill(flow.highest),
            units::show_count(way.unread as f64),
            watched::p99(flow),
            watched::who_waits(flow, way),
            watched::events(flow),
        );
        text += line.trim_end();
        if let Some(name) = way.name {
            text += &format!("  {name}");
        }
        text.push('\n');
    }
    text
}
