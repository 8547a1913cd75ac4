//! The progress line of `send` and `recv`.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use shmpipe::Address;

use crate::output::units;

/// The time between two updates of the line.
const INTERVAL: Duration = Duration::from_millis(500);

/// Messages between two readings of the clock.
const STRIDE: u64 = 256;

/// Counts messages and, on a terminal, shows them on one line of standard error.
pub struct Progress {
    /// `None` if there is nothing to draw on.
    line: Option<Line>,
    messages: u64,
    bytes: u64,
}

struct Line {
    /// What is drawn now; `None` after a clear.
    bar: Option<ProgressBar>,
    address: Address,
    /// Standard output is the same terminal: the line is cleared before data is written there.
    is_shared: bool,
    next_update: Instant,
    last_update: Update,
}

/// What the line showed at one moment.
#[derive(Clone, Copy)]
struct Update {
    at: Instant,
    messages: u64,
    bytes: u64,
}

/// Where the data of the command comes from or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// Not a terminal.
    Elsewhere,
    /// Whole lines to the terminal.
    LinesToTerminal,
    /// To or from the terminal, where a progress line would be in the way.
    Terminal,
}

impl Progress {
    /// Draws if standard error is a terminal, unless the line would be in the way there.
    pub fn new(address: &Address, data: Data) -> Self {
        let is_shown = io::stderr().is_terminal() && data != Data::Terminal;
        let line = is_shown.then(|| Line::new(address.clone(), data == Data::LinesToTerminal));
        Progress { line, messages: 0, bytes: 0 }
    }

    /// Counts one message.
    #[inline]
    pub fn count(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
        if self.line.is_some() && self.messages % STRIDE == 0 {
            self.update_if_due();
        }
    }

    /// Counts several messages.
    pub fn count_all(&mut self, messages: u64, bytes: u64) {
        self.messages += messages;
        self.bytes += bytes;
        self.update_if_due();
    }

    /// When a blocking call should return to update the line.
    pub fn next_update(&self) -> Option<Instant> {
        self.line.as_ref().map(|line| line.next_update)
    }

    pub fn update_if_due(&mut self) {
        if let Some(line) = &mut self.line {
            let now = Instant::now();
            if now >= line.next_update {
                line.update(Update { at: now, messages: self.messages, bytes: self.bytes });
            }
        }
    }

    /// Clears the line before something else is written to standard error.
    pub fn clear(&mut self) {
        if let Some(line) = &mut self.line {
            line.clear();
        }
    }

    /// Clears the line before data is written to standard output, if that is the same terminal.
    #[inline]
    pub fn make_room(&mut self) {
        if let Some(line) = self.line.as_mut().filter(|line| line.is_shared) {
            line.clear();
        }
    }

    /// Replaces the line by a last one with totals and mean rates.
    pub fn finish(&mut self, started: Instant) {
        self.clear();
        if self.line.take().is_none() {
            return;
        }
        let seconds = started.elapsed().as_secs_f64().max(1e-9);
        let text = format!(
            "{}, {} messages in {:.1} s, {} messages/s, {}/s\n",
            units::show_size(self.bytes),
            self.messages,
            seconds,
            units::show_rate(self.messages as f64 / seconds),
            units::show_size((self.bytes as f64 / seconds) as u64),
        );
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

impl Line {
    fn new(address: Address, is_shared: bool) -> Self {
        let now = Instant::now();
        Line {
            bar: None,
            address,
            is_shared,
            next_update: now + INTERVAL,
            last_update: Update { at: now, messages: 0, bytes: 0 },
        }
    }

    fn update(&mut self, now: Update) {
        let before = self.last_update;
        let seconds = (now.at - before.at).as_secs_f64();
        let text = format!(
            "{}, {} messages, {} messages/s, {}/s, ring {} full",
            units::show_size(now.bytes),
            now.messages,
            units::show_rate((now.messages - before.messages) as f64 / seconds),
            units::show_size(((now.bytes - before.bytes) as f64 / seconds) as u64),
            self.fill(),
        );
        self.bar.get_or_insert_with(bar).set_message(text);
        self.next_update = now.at + INTERVAL;
        self.last_update = now;
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// How full the ring is; a dash if the pipe is gone.
    fn fill(&self) -> String {
        match shmpipe::inspect(&self.address) {
            Ok(snapshot) => units::show_fill(snapshot.used, snapshot.capacity),
            Err(_) => "-".to_owned(),
        }
    }
}

/// A line of text without a bar.
fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.with_style(ProgressStyle::with_template("{msg}").expect("the template is well-formed"))
}
