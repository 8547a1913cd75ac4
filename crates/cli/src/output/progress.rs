//! The line on a terminal that says how it is going.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use shmpipe::Address;

use crate::output::units;

/// Between two looks at the line.
const INTERVAL: Duration = Duration::from_millis(500);

/// Messages between two readings of the clock.
const STRIDE: u64 = 256;

/// Counts messages and, on a terminal, shows them on one line of standard error.
pub struct Progress {
    /// Nothing is drawn without it.
    line: Option<Line>,
    messages: u64,
    bytes: u64,
}

struct Line {
    address: Address,
    /// Standard output is that terminal too: the line goes before anything is written there.
    shared: bool,
    visible: bool,
    next: Instant,
    /// When it was last drawn, and how many messages and bytes there were.
    last: (Instant, u64, u64),
}

/// Where the data of the command comes from or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// No terminal.
    Elsewhere,
    /// Whole lines to the terminal.
    LinesToTerminal,
    /// To or from the terminal, where a line of ours would be in the way.
    Terminal,
}

impl Progress {
    /// Draws if standard error is a terminal, unless it would be in the way there.
    pub fn new(address: &Address, data: Data) -> Self {
        let now = Instant::now();
        let line = Line {
            address: address.clone(),
            shared: data == Data::LinesToTerminal,
            visible: false,
            next: now + INTERVAL,
            last: (now, 0, 0),
        };
        let shown = io::stderr().is_terminal() && data != Data::Terminal;
        Progress { line: shown.then_some(line), messages: 0, bytes: 0 }
    }

    /// Counts one message.
    #[inline]
    pub fn count(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
        if self.line.is_some() && self.messages % STRIDE == 0 {
            self.draw_if_due();
        }
    }

    /// Counts several messages.
    pub fn count_all(&mut self, messages: u64, bytes: u64) {
        self.messages += messages;
        self.bytes += bytes;
        self.draw_if_due();
    }

    /// When a call that waits should return to have the line drawn anew.
    pub fn next(&self) -> Option<Instant> {
        self.line.as_ref().map(|line| line.next)
    }

    pub fn draw_if_due(&mut self) {
        let Some(line) = &mut self.line else { return };
        let now = Instant::now();
        if now < line.next {
            return;
        }
        let (then, messages, bytes) = line.last;
        let seconds = (now - then).as_secs_f64();
        let text = format!(
            "\r{}, {} messages, {} messages/s, {}/s, ring {} full\x1b[K",
            units::show_size(self.bytes),
            self.messages,
            units::show_rate((self.messages - messages) as f64 / seconds),
            units::show_size(((self.bytes - bytes) as f64 / seconds) as u64),
            line.fill(),
        );
        let _ = io::stderr().write_all(text.as_bytes());
        line.visible = true;
        line.next = now + INTERVAL;
        line.last = (now, self.messages, self.bytes);
    }

    /// Takes the line away before something else is written to standard error.
    pub fn clear(&mut self) {
        if let Some(line) = self.line.as_mut().filter(|line| line.visible) {
            line.visible = false;
            let _ = io::stderr().write_all(b"\r\x1b[K");
        }
    }

    /// Takes the line away before something is written to standard output, if that is the same terminal.
    #[inline]
    pub fn make_room(&mut self) {
        if self.line.as_ref().is_some_and(|line| line.shared) {
            self.clear();
        }
    }

    /// Leaves a last line behind: all there was, at its mean rate.
    pub fn finish(&mut self, started: Instant) {
        self.clear();
        if self.line.take().is_none() {
            return;
        }
        let elapsed = started.elapsed();
        let seconds = elapsed.as_secs_f64().max(1e-9);
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
    /// Looked at from outside, as anybody could; a dash if the pipe is gone.
    fn fill(&self) -> String {
        match shmpipe::inspect(&self.address) {
            Ok(snapshot) => units::show_fill(snapshot.used, snapshot.capacity),
            Err(_) => "-".to_owned(),
        }
    }
}
