//! `shmpipe demo`: shows what this machine can do, between two processes that share only a segment.

use std::io;
use std::time::{Duration, Instant};

use serde::Serialize;
use shmpipe_measure::latency::{self, Latency};
use shmpipe_measure::transports::{PIPE, SHMPIPE, UNIX};
use shmpipe_measure::{
    Checked, Collected, Experiment, Machine, Placement, Plan, Session, Settings, Transport, Until, collect,
};

use crate::args;
use crate::exit::{End, Failure, Outcome};
use crate::output::columns;
use crate::output::report::{self, Report, SCHEMA};
use crate::output::units;

/// The compared transports.
const TRANSPORTS: &[&dyn Transport] = &[SHMPIPE, PIPE, UNIX];

/// Our transport.
const OURS: &str = "shmpipe";

/// The longest verified message.
const LONGEST: usize = 4096;

/// The sizes for throughput.
const STREAMED: [usize; 3] = [64, 1024, 65536];

/// The size for round trips.
const RETURNED: usize = 64;

/// The least time to measure, even if the verified messages took all of it.
const SHORTEST: Duration = Duration::from_millis(500);

const PERCENTILES: [f64; 5] = [50.0, 90.0, 99.0, 99.9, 99.99];

const ENDING: &str = "
shmpipe with its defaults: it polls briefly, then sleeps until woken. pipe and unix sleep at once, in the kernel.
The segments are removed.
";

pub fn run(arguments: &args::Demo, report: Report) -> Outcome {
    let started = Instant::now();
    let failed = |error: io::Error| Failure::io("the demo failed", &error);
    let mut session = Session::start(&Settings::default(), TRANSPORTS).map_err(failed)?;
    if !report.is_json() {
        let (ours, other) = (std::process::id(), session.partner_id());
        let machine = Machine::of(&session);
        report::print(&format!(
            "Two processes, {ours} and {other}, the second started by exec.\n{machine}\n\n"
        ))?;
    }

    let ours = session.transport(OURS).map_err(failed)?;
    let checked = session.checked_stream(ours, arguments.messages, LONGEST, 1).map_err(failed)?;
    report::print(&match report {
        Report::Text => checked_text(&checked),
        Report::Json => report::json(&CheckedStream::from(&checked)) + "\n",
    })?;

    let left = arguments.time.saturating_sub(started.elapsed()).max(SHORTEST);
    let plan = Plan::new(Until::Elapsed(left.mul_f64(0.3)));
    let plan = plan.with(&session, Experiment::Streaming, &STREAMED);
    let streamed = throughputs(&collect(&mut session, &plan).map_err(failed)?);
    let sizes = |name: &str| streamed.iter().filter(|throughput| throughput.transport == name).count();
    note_missing("throughput", |name| sizes(name) >= STREAMED.len(), report);
    report::print(&match report {
        Report::Text => throughput_text(&streamed),
        Report::Json => lines(&streamed),
    })?;

    let returned = latency::collect(&mut session, &[RETURNED], left.mul_f64(0.7)).map_err(failed)?;
    let returned = latencies(&returned);
    note_missing("latency", |name| returned.iter().any(|trips| trips.transport == name), report);
    report::print(&match report {
        Report::Text => latency_text(&returned),
        Report::Json => lines(&returned),
    })?;

    drop(session);
    if !report.is_json() {
        report::print(ENDING)?;
    }
    Ok(End::Done)
}

/// Notes the transports without figures: disturbed slices do not count, which on a busy machine may be all of them.
fn note_missing(what: &str, is_complete: impl Fn(&str) -> bool, report: Report) {
    let missing: Vec<_> =
        TRANSPORTS.iter().map(|transport| transport.name()).filter(|name| !is_complete(name)).collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        report.note(format_args!(
            "the machine is too busy to measure the {what} of {missing}; try again, or with a longer --time"
        ));
    }
}

fn lines(objects: &[impl Serialize]) -> String {
    objects.iter().map(|object| report::json(object) + "\n").collect()
}

#[derive(Serialize)]
struct CheckedStream {
    schema: u32,
    kind: &'static str,
    transport: String,
    messages: u64,
    payload_bytes: u64,
    longest_bytes: usize,
    elapsed_seconds: f64,
    messages_per_second: f64,
    gigabytes_per_second: f64,
}

impl From<&Checked> for CheckedStream {
    fn from(checked: &Checked) -> Self {
        CheckedStream {
            schema: SCHEMA,
            kind: "checked",
            transport: checked.transport.clone(),
            messages: checked.messages,
            payload_bytes: checked.bytes,
            longest_bytes: checked.max_len,
            elapsed_seconds: checked.elapsed.as_secs_f64(),
            messages_per_second: checked.messages_per_second(),
            gigabytes_per_second: checked.gigabytes_per_second(),
        }
    }
}

fn checked_text(checked: &Checked) -> String {
    format!(
        "{} messages of 0 to {} bytes through {}: none lost, every byte as sent\n  \
         {} messages/s, {:.2} GB/s, in {:.2} s; every byte was generated and compared\n",
        checked.messages,
        checked.max_len,
        checked.transport,
        units::show_rate(checked.messages_per_second()),
        checked.gigabytes_per_second(),
        checked.elapsed.as_secs_f64(),
    )
}

/// The throughput of one transport at one size, in one placement of the two processes.
#[derive(Serialize)]
struct Throughput {
    schema: u32,
    kind: &'static str,
    placement: String,
    transport: &'static str,
    message_bytes: usize,
    slices: usize,
    nanoseconds_per_message: f64,
    messages_per_second: f64,
    gigabytes_per_second: f64,
}

fn throughputs(collected: &Collected) -> Vec<Throughput> {
    let mut throughputs = Vec::new();
    for &placement in &collected.placements {
        for series in &collected.series {
            let cell = series.cell(placement);
            let Some(cost) = cell.cost_ns.map(|spread| spread.median) else { continue };
            throughputs.push(Throughput {
                schema: SCHEMA,
                kind: "throughput",
                placement: placement.to_string(),
                transport: series.transport,
                message_bytes: series.config.size,
                slices: cell.n,
                nanoseconds_per_message: cost,
                messages_per_second: 1e9 / cost,
                gigabytes_per_second: series.config.size as f64 / cost,
            });
        }
    }
    throughputs
}

/// The placements with measurements, in order.
fn placements<'a>(of_each: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut placements: Vec<String> = Vec::new();
    for placement in of_each {
        if !placements.contains(placement) {
            placements.push(placement.clone());
        }
    }
    placements
}

/// A placement as the end of a title.
fn explain(placement: &str) -> &'static str {
    let is = |candidate: Placement| candidate.to_string() == placement;
    if is(Placement::Near) {
        "while the two ran near each other"
    } else if is(Placement::Far) {
        "while the two ran far apart"
    } else {
        "with both on one CPU"
    }
}

fn throughput_text(throughputs: &[Throughput]) -> String {
    let mut text = String::new();
    for placement in placements(throughputs.iter().map(|throughput| &throughput.placement)) {
        text += &format!("\nThroughput {}, in alternating slices\n", explain(&placement));
        let mut rows = vec![["  bytes", "", "messages/s", "GB/s", "slices", ""].map(str::to_owned).to_vec()];
        let here = || throughputs.iter().filter(|throughput| throughput.placement == placement);
        for throughput in here() {
            let Throughput { transport, message_bytes, slices, .. } = *throughput;
            let ours = here().find(|other| other.transport == OURS && other.message_bytes == message_bytes);
            let times = ours.map(|ours| ours.messages_per_second / throughput.messages_per_second);
            rows.push(vec![
                format!("  {message_bytes}"),
                transport.to_owned(),
                units::show_rate(throughput.messages_per_second),
                format!("{:.2}", throughput.gigabytes_per_second),
                slices.to_string(),
                times
                    .filter(|_| transport != OURS)
                    .map_or(String::new(), |times| format!("{OURS} x {times:.1}")),
            ]);
        }
        rows[1..].sort_by_key(|row| (row[0].trim().parse::<usize>().ok(), row[1] != OURS));
        text += &columns::align(&rows);
    }
    text
}

/// The round trips of one transport, in one placement of the two processes.
#[derive(Serialize)]
struct RoundTrips {
    schema: u32,
    kind: &'static str,
    placement: String,
    transport: &'static str,
    message_bytes: usize,
    round_trips: u64,
    p50_nanoseconds: u64,
    p90_nanoseconds: u64,
    p99_nanoseconds: u64,
    p99_9_nanoseconds: u64,
    p99_99_nanoseconds: u64,
    max_nanoseconds: u64,
}

fn latencies(latencies: &[Latency]) -> Vec<RoundTrips> {
    let counted = latencies.iter().filter(|latency| !latency.histogram.is_empty());
    let mut trips: Vec<RoundTrips> = counted
        .map(|Latency { transport, size, placement, histogram, .. }| {
            let [p50, p90, p99, p99_9, p99_99] =
                PERCENTILES.map(|percentile| histogram.value_at_quantile(percentile / 100.0));
            RoundTrips {
                schema: SCHEMA,
                kind: "round_trip",
                placement: placement.to_string(),
                transport,
                message_bytes: *size,
                round_trips: histogram.len(),
                p50_nanoseconds: p50,
                p90_nanoseconds: p90,
                p99_nanoseconds: p99,
                p99_9_nanoseconds: p99_9,
                p99_99_nanoseconds: p99_99,
                max_nanoseconds: histogram.max(),
            }
        })
        .collect();
    trips.sort_by_key(|trips| trips.placement != Placement::Near.to_string());
    trips
}

/// A percentile, with a mark if too few round trips took longer for a reliable figure.
fn show_percentile(nanoseconds: u64, percentile: f64, round_trips: u64) -> String {
    let beyond = round_trips as f64 * (100.0 - percentile) / 100.0;
    let mark = if beyond < latency::BEYOND { "~" } else { "" };
    format!("{nanoseconds}{mark}")
}

fn latency_text(latencies: &[RoundTrips]) -> String {
    let mut text = String::new();
    for placement in placements(latencies.iter().map(|trips| &trips.placement)) {
        text += &format!(
            "\nRound trips of {RETURNED} bytes {}, in nanoseconds, in alternating slices\n",
            explain(&placement)
        );
        let mut rows =
            vec![["  ", "p50", "p90", "p99", "p99.9", "p99.99", "max", "trips"].map(str::to_owned).to_vec()];
        for trips in latencies.iter().filter(|trips| trips.placement == placement) {
            let values = [
                trips.p50_nanoseconds,
                trips.p90_nanoseconds,
                trips.p99_nanoseconds,
                trips.p99_9_nanoseconds,
                trips.p99_99_nanoseconds,
            ];
            let shown = values
                .iter()
                .zip(PERCENTILES)
                .map(|(&value, percentile)| show_percentile(value, percentile, trips.round_trips));
            let name = match trips.transport {
                latency::FLOOR => "  (one cache line there and back)".to_owned(),
                name => format!("  {name}"),
            };
            let rest = [trips.max_nanoseconds.to_string(), trips.round_trips.to_string()];
            rows.push([name].into_iter().chain(shown).chain(rest).collect());
        }
        text += &columns::align(&rows);
    }
    if text.contains('~') {
        text += "  ~ fewer than ten round trips took longer\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throughput(transport: &'static str, message_bytes: usize, cost: f64) -> Throughput {
        Throughput {
            schema: SCHEMA,
            kind: "throughput",
            placement: "near".to_owned(),
            transport,
            message_bytes,
            slices: 7,
            nanoseconds_per_message: cost,
            messages_per_second: 1e9 / cost,
            gigabytes_per_second: message_bytes as f64 / cost,
        }
    }

    #[test]
    fn others_are_compared_with_ours_of_the_same_size() {
        let text = throughput_text(&[
            throughput("pipe", 64, 500.0),
            throughput(OURS, 64, 10.0),
            throughput(OURS, 1024, 100.0),
            throughput("pipe", 1024, 600.0),
        ]);
        let rows: Vec<Vec<&str>> =
            text.lines().skip(3).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            rows,
            [
                vec!["64", "shmpipe", "100.00M", "6.40", "7"],
                vec!["64", "pipe", "2.00M", "0.13", "7", "shmpipe", "x", "50.0"],
                vec!["1024", "shmpipe", "10.00M", "10.24", "7"],
                vec!["1024", "pipe", "1.67M", "1.71", "7", "shmpipe", "x", "6.0"],
            ]
        );
    }

    #[test]
    fn unreliable_percentiles_are_marked() {
        assert_eq!(show_percentile(500, 99.99, 100_000), "500");
        assert_eq!(show_percentile(500, 99.99, 99_000), "500~");
    }
}
