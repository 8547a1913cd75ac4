//! What `tap` prints: a line per message, its bytes in hexadecimal, or a line of rates per interval.

use std::time::{Duration, Instant};

use serde::Serialize;
use shmpipe::Passed;

use super::Direction;
use crate::args;
use crate::commands::framing::Message;
use crate::output::report::{self, Report, SCHEMA};
use crate::output::{printable, units};

/// Lines of rates between two headers.
const PAGE: usize = 20;

const HEADER: &str = "  MSG/S   BYTES/S   MISSED\n";

/// Bytes in a line of hexadecimal digits.
const ROW: usize = 16;

/// What passed in a direction, since the start.
#[derive(Clone, Copy, Default)]
pub struct Shown {
    pub messages: u64,
    pub bytes: u64,
    /// Bytes of the ring.
    pub missed_bytes: u64,
    /// The first three at the last tick.
    before: [u64; 3],
}

impl Shown {
    pub fn count(&mut self, passed: &Passed<'_>) {
        match passed {
            Passed::Message { bytes, .. } => {
                self.messages += 1;
                self.bytes += bytes.len() as u64;
            }
            // Numbers of another process, which may add up to anything.
            Passed::Missed { bytes, .. } => self.missed_bytes = self.missed_bytes.saturating_add(*bytes),
            _ => {}
        }
    }

    /// What passed since the last tick.
    fn take(&mut self) -> [u64; 3] {
        let now = [self.messages, self.bytes, self.missed_bytes];
        let before = std::mem::replace(&mut self.before, now);
        [0, 1, 2].map(|at| now[at] - before[at])
    }
}

/// The form of the output.
pub struct Show {
    form: Form,
    json: bool,
}

enum Form {
    Messages { hex: bool, limit: usize },
    Rates { interval: Duration, since: Instant, lines: usize },
}

#[derive(Serialize)]
struct Seen<'a> {
    #[serde(flatten)]
    message: Message<'a>,
    direction: Option<&'static str>,
}

#[derive(Serialize)]
struct Missed {
    schema: u32,
    missed_bytes: u64,
    direction: Option<&'static str>,
}

#[derive(Serialize)]
struct Rates {
    schema: u32,
    messages_per_second: f64,
    bytes_per_second: f64,
    missed_bytes: u64,
    direction: Option<&'static str>,
}

impl Show {
    pub fn new(arguments: &args::Tap, report: Report) -> Self {
        let form = match arguments.rate {
            Some(interval) => Form::Rates { interval, since: Instant::now(), lines: 0 },
            None => {
                let limit = arguments.limit.map_or(usize::MAX, |limit| limit as usize);
                Form::Messages { hex: arguments.hex, limit }
            }
        };
        Show { form, json: report.is_json() }
    }

    /// Appends what a tap of a duplex pipe, or the only one, has seen.
    pub fn append(&self, direction: Option<&'static str>, passed: &Passed<'_>, to: &mut Vec<u8>) {
        let Form::Messages { hex, limit } = self.form else { return };
        let text = match *passed {
            Passed::Message { position, tag, bytes, .. } if self.json => {
                report::json(&Seen { message: Message::new(position.get(), tag, bytes), direction }) + "\n"
            }
            Passed::Missed { bytes, .. } if self.json => {
                report::json(&Missed { schema: SCHEMA, missed_bytes: bytes, direction }) + "\n"
            }
            Passed::Message { position, tag, bytes, .. } => {
                let cut = cut(bytes, limit);
                let more = if cut.len() < bytes.len() { "..." } else { "" };
                let head = format!("{}{position}\t{tag}\t{}\t", prefix(direction), bytes.len());
                match hex {
                    true => format!("{}\n{}", head.trim_end(), dump(cut, more)),
                    false => format!("{head}{}{more}\n", text(cut)),
                }
            }
            Passed::Missed { bytes, .. } => format!("{}missed {bytes} bytes\n", prefix(direction)),
            _ => return,
        };
        to.extend_from_slice(text.as_bytes());
    }

    /// Appends a line of rates for each direction, if one is due, or of the part of an interval that has passed when it ends.
    pub fn tick(&mut self, now: Instant, ends: bool, directions: &mut [Direction], to: &mut Vec<u8>) {
        let Form::Rates { interval, since, lines } = &mut self.form else { return };
        let elapsed = now.saturating_duration_since(*since);
        if elapsed < *interval && !ends {
            return;
        }
        *since = now;
        if !self.json && *lines % PAGE < directions.len() {
            to.extend_from_slice(HEADER.as_bytes());
        }
        for Direction { shown, name, .. } in directions {
            let [messages, bytes, missed_bytes] = shown.take();
            let [messages_per_second, bytes_per_second] =
                [messages, bytes].map(|count| count as f64 / elapsed.as_secs_f64());
            let direction = *name;
            let line = match self.json {
                true => report::json(&Rates {
                    schema: SCHEMA,
                    messages_per_second,
                    bytes_per_second,
                    missed_bytes,
                    direction,
                }),
                false => format!(
                    "{:>7}  {:>8}  {:>7}  {}",
                    units::show_rate(messages_per_second),
                    units::show_count(bytes_per_second),
                    units::show_count(missed_bytes as f64),
                    direction.unwrap_or_default(),
                ),
            };
            to.extend_from_slice(line.trim_end().as_bytes());
            to.push(b'\n');
            *lines += 1;
        }
    }
}

fn prefix(direction: Option<&str>) -> String {
    direction.map_or_else(String::new, |direction| format!("{direction}\t"))
}

/// The first bytes of a message, `limit` at most, without a part of a character at the end.
fn cut(bytes: &[u8], limit: usize) -> &[u8] {
    let Some(first) = bytes.get(..limit) else { return bytes };
    match std::str::from_utf8(bytes) {
        Ok(text) => &first[..(0..=limit).rfind(|&at| text.is_char_boundary(at)).unwrap_or(0)],
        Err(_) => first,
    }
}

/// A message as text: what is not UTF-8, or would move the cursor, escaped.
fn text(bytes: &[u8]) -> String {
    let chunks = bytes.utf8_chunks();
    let texts = chunks.map(|chunk| {
        let invalid = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"));
        printable(chunk.valid()) + &invalid.collect::<String>()
    });
    texts.collect()
}

/// Bytes as `hexdump -C` shows them.
fn dump(bytes: &[u8], more: &str) -> String {
    let mut lines = String::new();
    for (row, bytes) in bytes.chunks(ROW).enumerate() {
        let digits: String = bytes.iter().map(|byte| format!(" {byte:02x}")).collect();
        let (left, right) = digits.split_at(digits.len().min(3 * ROW / 2));
        let printed =
            |&byte: &u8| if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' };
        let text: String = bytes.iter().map(printed).collect();
        lines += &format!("  {:06x} {left:<24} {right:<24}  |{text}|\n", row * ROW);
    }
    if !more.is_empty() {
        lines += &format!("  {more}\n");
    }
    lines
}
