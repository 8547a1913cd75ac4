//! A subscriber: from a stream to a pipe.
//!
//! The frames of a stream are a chain: each starts where the one before it ends. A frame that does not is an error that names the
//! positions. Which frame begins where in the pipe is noted before its first message is committed. After a kill, the pipe says where it
//! ends, and the lengths of the messages from the note on tell which of them it has: see "Why nothing is lost or repeated" in
//! docs/bridge.md.

use std::thread;
use std::time::Duration;

use bytes::Bytes;
use shmpipe::{CheckError, Peer, Pipe, Position, Producer, SendTimeoutError, Tagged, WaitError};

use crate::exit::{Code, Early, Failure};
use crate::failpoint;
use crate::frame::{Begin, Body, Frame, Header, How, Part, Parts, PipeId, Place};
use crate::note::{Note, Notes};
use crate::publish::now;
use crate::report::Report;
use crate::stats::Stats;
use crate::stop::Stop;

/// The code with which a pipe aborts when the producer of the source has died: as a shell says it of a process that was killed.
pub const DIED: u32 = 137;

/// The code with which a pipe aborts when the subscriber is stopped: the stream is not over.
pub const STOPPED: u32 = 143;

/// Messages that become visible together, at most.
const BATCH: usize = 128;

/// The longest wait before a look whether the pipe is still there.
const LOOK: Duration = Duration::from_millis(500);

/// After a consumer has taken everything, how long it gets to hear of the end before a successor takes the producer's place.
const TO_HEAR: Duration = Duration::from_millis(50);

/// What a subscriber reads from: the messages of a log in order, from one on.
pub trait Source {
    /// The next message; `None` if there is none in this time.
    fn next(&mut self, wait: Duration) -> Result<Option<Delivered>, Early>;
}

/// A message of a log.
#[derive(Clone, Debug)]
pub struct Delivered {
    pub sequence: u64,
    /// Messages behind it, as the server says.
    pub pending: u64,
    pub bytes: Bytes,
}

/// How to subscribe.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether to go on when a producer has ended, and when the consumer has.
    pub follow: bool,
    /// Where the source may go on although the stream lacks messages before that.
    pub skip_to: Option<u64>,
}

pub struct Subscriber<S> {
    source: S,
    pipe: Pipe,
    producer: Option<Producer>,
    notes: Notes,
    settings: Settings,
    stop: Stop,
    stats: Stats,
    report: Report,
    /// What the next note says.
    note: Note,
    /// Where the next message begins in the pipe. `None` until the pipe is claimed for the first time without a note.
    at: Option<u64>,
    /// Where the pipe ends: messages before are there already.
    end: u64,
    /// Where the stream continues; `None` before the first frame.
    expected: Option<(PipeId, Place)>,
    /// The claim of the source's producer whose end came last.
    ended: u64,
    /// The next message of the stream; `None` while one is received, and once it is noted.
    next: Option<u64>,
    /// The beginning of a message that is longer than a frame.
    long: Option<(u32, Vec<u8>)>,
    /// Whether this process has claimed the pipe before.
    has_claimed: bool,
}

impl<S: Source> Subscriber<S> {
    /// A subscriber that continues as the note says. Its position is `None` if the pipe's own is to be taken.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        source: S,
        pipe: Pipe,
        notes: Notes,
        note: Note,
        at: Option<u64>,
        settings: Settings,
        stop: Stop,
        stats: Stats,
        report: Report,
    ) -> Self {
        Subscriber {
            source,
            pipe,
            producer: None,
            notes,
            settings,
            stop,
            stats,
            report,
            at,
            end: 0,
            expected: note.source,
            ended: note.ended,
            next: None,
            long: None,
            has_claimed: false,
            note,
        }
    }

    /// Receives until the producer of the source has closed, or a stop is asked for.
    pub fn run(&mut self) -> Result<(), Early> {
        loop {
            let Some(found) = self.source.next(LOOK)? else {
                self.check_pipe()?;
                self.note_progress()?;
                continue;
            };
            let (sequence, pending) = (found.sequence, found.pending);
            let length = found.bytes.len();
            let frame = Frame::parse(found.bytes).map_err(|error| {
                Failure::new(
                    Code::Unfit,
                    format_args!("message {sequence} of the stream ({length} bytes): {error}"),
                )
            })?;
            self.check(sequence, &frame)?;
            self.next = None;
            let header = frame.header;
            let is_same_pipe = self.expected.is_some_and(|(pipe, _)| pipe == header.pipe);
            let mut ended = None;
            if self.long.is_none() {
                if std::mem::replace(&mut self.note.sequence, sequence) != sequence {
                    self.note.ending = 0;
                }
                self.note.source = Some((header.pipe, header.start));
                self.note.ended = self.ended;
            }
            match frame.body {
                Body::Begin(_) => {}
                // A publisher repeats an end that the server has lost.
                Body::End { claim, .. } if is_same_pipe && claim <= self.ended => {}
                Body::Messages(parts) => self.receive(&header, &parts)?,
                Body::End { how, .. } => {
                    self.finish(how)?;
                    ended = Some(how);
                }
            }
            self.expected = Some((header.pipe, header.end));
            self.ended = if is_same_pipe { self.ended.max(header.ended) } else { header.ended };
            self.next = Some(sequence + 1);
            if ended.is_some() {
                // A successor of this process is not to look at it again.
                self.note_progress()?;
            }
            self.stats.done(sequence, header.end.position, now().saturating_sub(header.time));
            self.stats.pending(pending);
            match ended {
                Some(How::Closed) if !self.settings.follow => return Ok(()),
                Some(how) if !self.settings.follow => {
                    return Err(Failure::new(Code::PeerGone, format_args!("the producer {how}")).into());
                }
                Some(how) => self.report.note(format_args!("the producer {how}")),
                None => {}
            }
        }
    }

    /// Checks, while nothing comes, that the pipe is there and the consumer too.
    fn check_pipe(&mut self) -> Result<(), Early> {
        let Some(producer) = &mut self.producer else { return Ok(()) };
        match producer.check() {
            Err(CheckError::Lost(lost)) => Err(lost.into()),
            Err(CheckError::Corrupt(corruption)) => Err(corruption.into()),
            Err(error) if !self.settings.follow => Err(Failure::new(Code::PeerGone, error).into()),
            _ => Ok(()),
        }
    }

    /// Ends the pipe's producer: with an abort, since the stream is not over.
    pub fn abort(mut self, code: u32) -> Result<(), Failure> {
        let noted = self.note_progress();
        if let Some(producer) = self.producer {
            producer.abort(code)?;
        }
        noted
    }

    /// Checks that a frame continues the chain.
    fn check(&mut self, sequence: u64, frame: &Frame) -> Result<(), Early> {
        let header = &frame.header;
        let start = (header.pipe, header.start);
        let is_allowed = self.settings.skip_to == Some(header.start.position);
        let (after, skipped) = match frame.body {
            Body::Begin(Begin { after, skipped, .. }) => (after, skipped),
            _ => (start, false),
        };
        let allow = format!("--skip-to {} goes on there, without what is missing", header.start.position);
        let Some(expected) = self.expected else {
            if sequence > self.note.sequence && !is_allowed {
                let text = format!(
                    "messages {} to {} of the stream were removed before this pipe had them: it continues at position {} of the pipe {}; \
                     {allow}",
                    self.note.sequence,
                    sequence - 1,
                    header.start,
                    header.pipe
                );
                return Err(Failure::new(Code::Missing, text).into());
            }
            if header.start.position > 0 {
                let earlier = "the stream has nothing earlier, or was not asked for it";
                self.report.note(format_args!(
                    "begins at position {} of the pipe {}: {earlier}",
                    header.start, header.pipe
                ));
            }
            return Ok(());
        };
        // A pipe that has all up to the start lacks nothing, even if the stream does.
        let continues = start == expected || after == expected && !skipped;
        // An end has no length, so the chain does not show that it is missing.
        let is_end = matches!(frame.body, Body::End { .. });
        let lacks_end = continues && after.0 == start.0 && !is_end && header.ended > self.ended;
        if continues && !lacks_end {
            if after.0 != start.0 {
                // The rest of its last message will not come.
                self.long = None;
                self.report.note(format_args!(
                    "the pipe {} follows {}, which ended at position {}",
                    start.0, expected.0, expected.1
                ));
            }
            return Ok(());
        }
        let missing = if lacks_end {
            format!(
                "an end is missing: message {sequence} of the stream says that the producer of the pipe {} with claim {} ended before \
                 position {}, and no message of the stream said how",
                header.pipe, header.ended, header.start
            )
        } else {
            format!(
                "messages are missing: this pipe has the pipe {} up to position {}, and message {sequence} of the stream continues at \
                 position {} of the pipe {}",
                expected.0, expected.1, header.start, header.pipe
            )
        };
        if !is_allowed {
            return Err(Failure::new(Code::Missing, format_args!("{missing}; {allow}")).into());
        }
        self.report.note(format_args!("goes on at position {}: {missing}", header.start));
        if lacks_end {
            return Ok(());
        }
        self.long = None;
        Ok(())
    }

    /// Claims the pipe, unless it is ours.
    fn claim(&mut self) -> Result<(), Early> {
        if self.producer.is_some() {
            return Ok(());
        }
        self.let_the_end_be_heard()?;
        let producer = self.pipe.producer()?;
        self.stop.cancels(producer.cancel_handle());
        self.end = producer.position().get();
        let at = *self.at.get_or_insert(self.end);
        self.producer = Some(producer);
        // A predecessor in another process may have sent more than it noted.
        if at > self.end || at < self.end && std::mem::replace(&mut self.has_claimed, true) {
            return Err(self.mismatch().into());
        }
        self.has_claimed = true;
        Ok(())
    }

    /// A producer that comes takes the place of the end of the one before it. So a consumer that is there gets the time to receive
    /// what is left, and to hear of the end.
    fn let_the_end_be_heard(&self) -> Result<(), Early> {
        loop {
            let snapshot = shmpipe::inspect(self.pipe.address())?;
            if !has_ended(snapshot.producer.peer) || snapshot.consumer.peer != Peer::Open {
                return Ok(());
            }
            if snapshot.used == 0 {
                thread::sleep(TO_HEAR);
                return Ok(());
            }
            if self.stop.is_asked() {
                return Err(Early::Stopped);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Notes which message of the stream comes next, and where it begins in the pipe.
    fn write_note(&mut self) -> Result<(), Failure> {
        let position = self.at.expect("the pipe is claimed");
        self.note.position = position;
        self.notes.write(self.note)
    }

    /// Notes that the pipe has all that was received, which the stream may then lose. A message that is not whole is received again.
    fn note_progress(&mut self) -> Result<(), Failure> {
        if let (Some(sequence), Some(_), None) = (self.next.take(), self.at, &self.long) {
            self.note = Note { sequence, source: self.expected, ended: self.ended, ending: 0, ..self.note };
            self.write_note()?;
        }
        Ok(())
    }

    fn receive(&mut self, header: &Header, parts: &Parts) -> Result<(), Early> {
        self.claim()?;
        if self.long.is_none() {
            self.note.ending = 0;
            self.write_note()?;
        }
        let mut whole = Vec::with_capacity(parts.len());
        let last = parts.len() - 1;
        let mut joined = None;
        for (number, part) in parts.iter().enumerate() {
            let continues = number == 0 && header.start.offset > 0;
            let is_continued = number == last && header.end.offset > 0;
            match (&mut self.long, continues) {
                (None, false) if is_continued => self.long = Some((part.tag, part.bytes.to_vec())),
                (_, false) => whole.push(part),
                (Some((_, long)), true) => {
                    long.extend_from_slice(part.bytes);
                    if !is_continued {
                        joined = self.long.take();
                    }
                }
                // Its beginning is before what was asked for.
                (None, true) => {}
            }
        }
        // Not to be collected to its end: it may have none.
        if let Some((_, long)) = &self.long
            && long.len() > self.pipe.max_len()
        {
            return Err(too_large(long.len(), self.pipe.max_len()).into());
        }
        let bytes = parts.iter().map(|part| part.bytes.len() as u64).sum();
        self.stats.frame(parts.len() as u64, bytes);
        if let Some((tag, bytes)) = &joined {
            whole.insert(0, Part { tag: *tag, bytes });
        }
        self.send(&whole)?;
        if self.long.is_none() && self.at < Some(self.end) {
            return Err(self.mismatch().into());
        }
        Ok(())
    }

    /// Sends what the pipe does not have yet.
    fn send(&mut self, mut messages: &[Part<'_>]) -> Result<(), Early> {
        let mut at = self.at.expect("the pipe is claimed");
        while let Some((part, rest)) = messages.split_first()
            && at < self.end
        {
            at = self.pipe.position_after(Position::from(at), part.bytes.len()).get();
            self.at = Some(at);
            messages = rest;
            if at > self.end {
                return Err(self.mismatch().into());
            }
        }
        while !messages.is_empty() {
            let producer = self.producer.as_mut().expect("the pipe is claimed");
            let mut batch = producer.batch();
            let mut full = false;
            let mut pushed = 0;
            for part in messages.iter().take(BATCH) {
                match batch.try_push(Tagged(part.tag, part.bytes)) {
                    Ok(_) => pushed += 1,
                    // What else is wrong, a send on its own says.
                    Err(_) => {
                        full = true;
                        break;
                    }
                }
            }
            batch.commit();
            failpoint::reach();
            let (sent, rest) = messages.split_at(pushed);
            self.count(sent);
            messages = rest;
            if full && let Some((part, rest)) = messages.split_first() {
                self.send_one(part)?;
                self.count(&messages[..1]);
                messages = rest;
            }
        }
        Ok(())
    }

    fn count(&mut self, sent: &[Part<'_>]) {
        let mut at = Position::from(self.at.expect("the pipe is claimed"));
        for part in sent {
            at = self.pipe.position_after(at, part.bytes.len());
        }
        self.at = Some(at.get());
        self.end = at.get();
    }

    /// Sends a message for which there is no space yet.
    fn send_one(&mut self, part: &Part<'_>) -> Result<(), Early> {
        loop {
            let producer = self.producer.as_mut().expect("the pipe is claimed");
            match producer.send_timeout(Tagged(part.tag, part.bytes), LOOK) {
                Ok(_) => {
                    failpoint::reach();
                    return Ok(());
                }
                Err(SendTimeoutError::TimedOut) if !self.stop.is_asked() => {}
                Err(SendTimeoutError::TimedOut | SendTimeoutError::Cancelled) => return Err(Early::Stopped),
                Err(SendTimeoutError::TooLarge { length, max }) => return Err(too_large(length, max).into()),
                Err(SendTimeoutError::Closed) if self.settings.follow => {
                    self.report.note("the consumer closed; waiting for the next one");
                    match producer.wait_for_peer(None) {
                        Ok(()) => {}
                        Err(WaitError::Cancelled) => return Err(Early::Stopped),
                        Err(WaitError::Lost(lost)) => return Err(lost.into()),
                        Err(error) => return Err(Failure::new(Code::Failure, error).into()),
                    }
                }
                // Said once; the messages stay for the next consumer.
                Err(SendTimeoutError::PeerAborted { .. } | SendTimeoutError::PeerDied)
                    if self.settings.follow => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Ends the pipe as the producer of the source has ended.
    fn finish(&mut self, how: How) -> Result<(), Early> {
        if self.note.ending != 0 {
            // A predecessor was about to end it. Its claim tells whether it did.
            let ending = std::mem::take(&mut self.note.ending);
            let producer = shmpipe::inspect(self.pipe.address())?.producer;
            if producer.epoch == ending && has_ended(producer.peer) {
                return Ok(());
            }
        }
        self.claim()?;
        if self.at != Some(self.end) {
            return Err(self.mismatch().into());
        }
        self.note.ending = shmpipe::inspect(self.pipe.address())?.producer.epoch;
        let noted = self.write_note();
        self.note.ending = 0;
        // A producer that is dropped has closed. So it stays in its place until its end is noted.
        noted?;
        let producer = self.producer.take().expect("the pipe is claimed");
        match how {
            How::Closed => producer.close()?,
            How::Aborted { code } => producer.abort(code)?,
            How::Died => producer.abort(DIED)?,
        }
        failpoint::reach();
        Ok(())
    }

    fn mismatch(&self) -> Failure {
        let text = format!(
            "the pipe ends at position {}, where no message of the stream ends: another producer has sent something, or its note is \
             of another pipe",
            self.end
        );
        Failure::new(Code::Unfit, text)
    }
}

fn has_ended(peer: Peer) -> bool {
    matches!(peer, Peer::Closed | Peer::Aborted { .. })
}

fn too_large(length: usize, max: usize) -> Failure {
    let capacity = (2 * (length as u64 + 8)).next_power_of_two();
    let text = format!(
        "a message of the stream has {length} bytes or more, and this pipe takes {max} at most; it needs a capacity of {capacity}"
    );
    Failure::new(Code::Unfit, text)
}

#[cfg(test)]
pub mod tests;
