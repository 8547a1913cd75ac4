//! `shmpipe tap`: shows the messages that pass through a pipe, without taking part.

mod show;

use std::time::{Duration, Instant};

use shmpipe::{Address, Passed, Peer, SegmentId, Tap};

use crate::args;
use crate::commands::recv::sink::Sink;
use crate::exit::{Code, Early, End, Failure, Outcome};
use crate::output::report::Report;
use crate::system::signals;
use crate::system::stdio;
use show::{Show, Shown};

/// The pause after a look that found nothing. Each look takes a cache line from the producer.
const PAUSE: Duration = Duration::from_millis(1);

/// How often to ask, while nothing passes, what became of the producer, of the pipe and of the reader of the output.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Output is written together until it reaches this size, or nothing passes.
const BATCH: usize = 60 << 10;

/// Messages shown between two looks at the clock, and at the signals.
const ROUND: usize = 64;

pub fn run(arguments: &args::Tap, report: Report) -> Outcome {
    if report.is_json() && (arguments.hex || arguments.limit.is_some()) {
        let text = "--json writes each message as an object: leave out --hex and --limit";
        return Err(Failure::new(Code::Usage, text));
    }
    signals::install()?;
    let output = Sink::standard_output()?;
    let address = &arguments.address;
    let taps = open(address, arguments.unread)?;
    let mut watcher = Watcher {
        id: taps[0].tap.id(),
        taps,
        address,
        output,
        show: Show::new(arguments, report),
        text: Vec::new(),
        left: arguments.count,
        follow: arguments.follow,
        report,
    };
    let ended = watcher.show_all();
    let ended = watcher.finish(ended);
    ended.map_or_else(Early::outcome, |()| Ok(End::Done))
}

/// A direction of the pipe.
struct Direction {
    tap: Tap,
    /// Its name, if there are two.
    name: Option<&'static str>,
    shown: Shown,
}

/// Taps on all directions of a pipe.
fn open(address: &Address, unread: bool) -> Result<Vec<Direction>, Failure> {
    let forth = Tap::open(address)?;
    let taps = match forth.back() {
        Some(back) => vec![(forth, Some("A to B")), (back, Some("B to A"))],
        None => vec![(forth, None)],
    };
    let direction = |(tap, name): (Tap, _)| {
        let tap = if unread { tap.with_unread() } else { tap };
        Direction { tap, name, shown: Shown::default() }
    };
    Ok(taps.into_iter().map(direction).collect())
}

struct Watcher<'a> {
    taps: Vec<Direction>,
    id: SegmentId,
    address: &'a Address,
    output: Sink,
    show: Show,
    /// What is to be written.
    text: Vec<u8>,
    /// Messages still to be shown, if they are counted.
    left: Option<u64>,
    follow: bool,
    report: Report,
}

impl Watcher<'_> {
    fn show_all(&mut self) -> Result<(), Early> {
        let mut next_check = Instant::now();
        loop {
            if let Some(signal) = signals::received() {
                return Err(Early::Signal(signal));
            }
            let found = self.round()?;
            let now = Instant::now();
            self.show.tick(now, false, &mut self.taps, &mut self.text);
            if self.left == Some(0) {
                return Ok(());
            }
            if self.text.len() >= BATCH || !found {
                self.write()?;
            }
            if found {
                continue;
            }
            if now >= next_check {
                next_check = now + CHECK_INTERVAL;
                if self.output.has_lost_its_reader() {
                    return Err(Early::ReaderLeft);
                }
                if self.is_over()? {
                    return Ok(());
                }
            }
            stdio::pause(now + PAUSE);
        }
    }

    /// Takes what passed in each direction. Returns whether there was anything.
    fn round(&mut self) -> Result<bool, Early> {
        let mut found = false;
        for Direction { tap, name, shown } in &mut self.taps {
            for _ in 0..ROUND {
                if self.left == Some(0) {
                    break;
                }
                let Some(passed) = tap.next()? else { break };
                found = true;
                shown.count(&passed);
                self.show.append(*name, &passed, &mut self.text);
                if let (Some(left), Passed::Message { .. }) = (&mut self.left, passed) {
                    *left -= 1;
                }
            }
        }
        Ok(found)
    }

    /// While nothing passes: whether nothing more will. An end that is not a close is a failure, unless the tap follows.
    fn is_over(&mut self) -> Result<bool, Early> {
        let peers: Vec<Peer> = self.taps.iter().map(|direction| direction.tap.producer()).collect();
        if peers.contains(&Peer::Open) {
            return Ok(false);
        }
        // What the producers sent before they ended comes first.
        if self.round()? {
            return Ok(false);
        }
        if !self.follow {
            let failed = peers.iter().find_map(|peer| match peer {
                Peer::Aborted { code } => Some(format!("aborted with code {code}")),
                Peer::Died => Some("died".to_owned()),
                _ => None,
            });
            if let Some(how) = failed {
                let text = format!("the producer {how}; use --follow to wait for its successor");
                return Err(Failure::new(Code::PeerGone, text).into());
            }
            if peers.contains(&Peer::Closed) {
                return Ok(true);
            }
        }
        self.look_for_another()
    }

    /// Without a producer the pipe may have been removed. Goes on with the one in its place, if there is one.
    fn look_for_another(&mut self) -> Result<bool, Early> {
        let found = shmpipe::inspect(self.address)?;
        if found.segment_id != self.id {
            self.report.note("the pipe was removed, and another one is in its place");
            let before = std::mem::replace(&mut self.taps, open(self.address, true)?);
            for (new, old) in self.taps.iter_mut().zip(before) {
                new.shown = old.shown;
            }
            self.id = self.taps[0].tap.id();
        }
        Ok(false)
    }

    fn write(&mut self) -> Result<(), Early> {
        let written = self.output.write_parts(&self.text, &[]);
        self.text.clear();
        written.map_err(|unwritten| unwritten.early)
    }

    /// Shows what is left, however it ended, and says what was not shown.
    fn finish(&mut self, ended: Result<(), Early>) -> Result<(), Early> {
        self.show.tick(Instant::now(), true, &mut self.taps, &mut self.text);
        let written = match ended {
            Err(Early::ReaderLeft) => Ok(()),
            _ => self.write(),
        };
        let [messages, missed] =
            self.taps.iter().fold([0, 0], |[messages, missed], Direction { shown, .. }| {
                [messages + shown.messages, shown.missed_bytes.saturating_add(missed)]
            });
        if missed > 0 {
            self.report.note(format_args!(
                "{messages} messages shown; {missed} bytes of the ring were overwritten before tap had looked at them"
            ));
        }
        ended.and(written)
    }
}
