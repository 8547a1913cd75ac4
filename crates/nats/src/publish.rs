//! A publisher: from a pipe to the end of a stream.
//!
//! One frame at a time is on its way. It is appended only behind the message that this publisher has read or appended last, and its
//! messages are released from the pipe only then. So whatever is killed or lost, the end of the stream tells what to do next: see
//! "Why nothing is lost or repeated" in docs/bridge.md.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use shmpipe::{Consumer, Peer, Position, RecvTimeoutError, Snapshot, WaitError};

use crate::exit::{Code, Early, Failure};
use crate::frame::{Begin, Filling, Header, How, PipeId, Place};
use crate::report::Report;
use crate::server::random;
use crate::stats::Stats;
use crate::stop::Stop;

/// What a publisher appends to: a log that takes a frame only behind a given one.
pub trait Log {
    /// The end of the log. Waits for the server for as long as it takes.
    fn tail(&mut self) -> Result<Tail, Early>;

    /// The frame with this sequence, if it is still there.
    fn frame(&mut self, sequence: u64) -> Result<Option<Header>, Early>;

    /// Appends a frame if the log ends at the sequence `after`.
    fn append(&mut self, frame: &Bytes, after: u64) -> Result<Appended, Early>;
}

/// The end of a log: the sequence of its last message, and the frame that this is, if it is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    pub sequence: u64,
    pub frame: Option<Header>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is there, with this sequence.
    At(u64),
    /// It is not there: the log ends elsewhere.
    WrongSequence,
    /// There was no answer: it may be there, now or later.
    Unknown,
}

/// Whose stream may be continued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// That of any pipe.
    Any,
    /// That of the pipe with this identifier.
    Pipe(u64),
}

/// How to publish.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes of a frame, at most.
    pub frame: usize,
    /// The least time from frame to frame, unless they are full.
    pub linger: Duration,
    /// Whether to wait for the next producer when one has ended.
    pub follow: bool,
    /// Where the pipe may go on although the stream lacks messages before that.
    pub skip_to: Option<u64>,
    /// Which other pipe's stream this one may continue.
    pub after: Option<After>,
    /// How long a stream may be shorter than expected: a new leader may not know its end yet.
    pub settle: Duration,
}

/// The longest sleep before a look whether a stop is asked for.
const LONGEST_NAP: Duration = Duration::from_millis(20);

pub struct Publisher<L> {
    log: L,
    consumer: Consumer,
    settings: Settings,
    stop: Stop,
    stats: Stats,
    report: Report,
    /// The end of the stream: its sequence, and the frame there. `None` before the first one.
    last: (u64, Option<Header>),
    epoch: u64,
    session: u64,
    /// Everything before is in the stream.
    at: Place,
    /// The producer's claim whose end is in the stream.
    ended: u64,
    /// A message that is longer than a frame.
    long: Option<Vec<u8>>,
    sent: Instant,
    was_full: bool,
    /// The position of the producer when a stop was asked for.
    until: Option<u64>,
}

/// What a stream that another pipe has continued holds of this pipe.
enum Earlier {
    /// Its frames end with this one.
    Ours(Header),
    None,
    /// None, as far as it is still there: frames that were made before this time were removed.
    RemovedSince(u64),
}

/// What there is to publish.
enum Next {
    Messages,
    End(How, u64),
    /// The producer has ended, and the stream has its end.
    Over(How),
    Stop,
}

impl<L: Log> Publisher<L> {
    /// A publisher of the messages of `consumer`.
    pub fn new(
        log: L,
        consumer: Consumer,
        settings: Settings,
        stop: Stop,
        stats: Stats,
        report: Report,
    ) -> Self {
        stop.cancels(consumer.cancel_handle());
        Publisher {
            log,
            settings,
            stop,
            stats,
            report,
            last: (0, None),
            epoch: 0,
            session: random(),
            at: Place::at(consumer.position().get()),
            ended: 0,
            long: None,
            sent: Instant::now(),
            was_full: false,
            until: None,
            consumer,
        }
    }

    fn pipe(&self) -> PipeId {
        PipeId(self.consumer.pipe().id().get())
    }

    fn header(&self, end: Place) -> Header {
        let Publisher { epoch, session, at, ended, .. } = *self;
        Header { pipe: self.pipe(), epoch, session, start: at, end, ended, time: now() }
    }

    /// Goes on where the stream ends, and appends the frame that says so. From then on, no frame of an earlier publisher can follow.
    fn take_over(&mut self) -> Result<(), Early> {
        let (pipe, released) = (self.pipe(), self.consumer.position().get());
        loop {
            let is_short = |tail: &Tail| match tail.frame {
                Some(last) => last.pipe == pipe && last.end.position < released,
                None => tail.sequence == 0 && released > 0,
            };
            let tail = self.settled_tail(is_short)?;
            if let Some(header) = tail.frame
                && header.session == self.session
            {
                // An append without an answer.
                return self.took_over(tail.sequence, header);
            }
            let begin = self.resume(&tail)?;
            let header = self.header(self.at);
            match self.log.append(&begin.seal(&header), tail.sequence)? {
                Appended::At(sequence) if sequence == tail.sequence + 1 => {
                    return self.took_over(sequence, header);
                }
                Appended::At(sequence) => return Err(unchecked(sequence, tail.sequence).into()),
                // Another publisher's, alive or not: look again.
                Appended::WrongSequence | Appended::Unknown => {}
            }
        }
    }

    /// The end of the stream, which is shorter than it should be only if it stays so.
    fn settled_tail(&mut self, is_short: impl Fn(&Tail) -> bool) -> Result<Tail, Early> {
        let since = Instant::now();
        loop {
            let tail = self.log.tail()?;
            if !is_short(&tail) || since.elapsed() >= self.settings.settle {
                return Ok(tail);
            }
            if self.stop.is_asked() {
                return Err(Early::Stopped);
            }
            thread::sleep(LONGEST_NAP);
        }
    }

    fn took_over(&mut self, sequence: u64, header: Header) -> Result<(), Early> {
        self.last = (sequence, Some(header));
        (self.at, self.epoch, self.ended) = (header.end, header.epoch, header.ended);
        self.stats.done(sequence, self.at.position, 0);
        Ok(())
    }

    /// Finds the place in the pipe where the stream ends, and releases what is before it.
    fn resume(&mut self, tail: &Tail) -> Result<Begin, Early> {
        let pipe = self.consumer.pipe().clone();
        let released = self.consumer.position().get();
        let Snapshot { schema, created, .. } = shmpipe::inspect(pipe.address())?;
        let mut begin =
            Begin { capacity: pipe.capacity(), schema, after: Default::default(), skipped: false };
        let is_allowed = self.settings.skip_to == Some(released);
        (self.at, self.epoch, self.ended) = (Place::at(released), 1, 0);
        let allow = format!("--skip-to {released} goes on here, without what is missing");
        let Some(last) = tail.frame else {
            if tail.sequence > 0 {
                // The next frame follows it all the same: a subscriber that is elsewhere finds out by the begin.
                self.report.note(format_args!(
                    "the stream is empty: its messages up to {} were removed; goes on at position {released} of the pipe",
                    tail.sequence
                ));
            } else if released > 0 && !is_allowed {
                let text = format!(
                    "the pipe's messages before position {released} are released, and the stream has none of them: it is new, or \
                     the server has lost it; {allow}"
                );
                return Err(Failure::new(Code::Missing, text).into());
            }
            begin.after = (self.pipe(), self.at);
            return Ok(begin);
        };
        begin.after = (last.pipe, last.end);
        self.epoch = last.epoch + 1;
        if last.pipe != self.pipe() {
            let is_allowed = match self.settings.after {
                Some(After::Any) => true,
                Some(After::Pipe(pipe)) => pipe == last.pipe.0,
                None => false,
            };
            if !is_allowed {
                let text = format!(
                    "the stream holds the pipe {} up to position {}, and this is the pipe {}: another one, or one that was recreated; \
                     --after {} continues that stream with this pipe",
                    last.pipe,
                    last.end,
                    self.pipe(),
                    last.pipe
                );
                return Err(Failure::new(Code::Unfit, text).into());
            }
        }
        let ours = match last.pipe == self.pipe() {
            true => Some(last),
            false => match self.latest_before(tail.sequence, &last)? {
                // The rest of a message does not follow the other pipe's: its receivers have dropped the beginning.
                Earlier::Ours(header) => Some(Header { end: Place::at(header.end.position), ..header }),
                Earlier::None => None,
                Earlier::RemovedSince(time) => {
                    let created = created.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
                    if created <= time && !is_allowed {
                        let text = format!(
                            "the pipe is older than what the stream still holds, and the stream may have held some of its messages \
                             behind position {released}; {allow}"
                        );
                        return Err(Failure::new(Code::Missing, text).into());
                    }
                    begin.skipped = created <= time;
                    None
                }
            },
        };
        self.ended = ours.map_or(0, |ours| ours.ended);
        let end = ours.map_or(Place::at(0), |ours| ours.end);
        if end.position < released {
            if !is_allowed {
                let text = format!(
                    "messages are missing: the pipe's messages before position {released} are released, and the stream has them up to \
                     position {end}: the server has lost frames that it had acknowledged, or another consumer or another stream has \
                     received messages; {allow}"
                );
                return Err(Failure::new(Code::Missing, text).into());
            }
            begin.skipped = true;
            return Ok(begin);
        }
        if let Some(Header { end, .. }) = ours {
            self.release_until(end)?;
            self.at = end;
        }
        Ok(begin)
    }

    /// Looks for this pipe's latest frame in a stream that another pipe has continued. Takes few requests for each time that a
    /// publisher has taken the stream over.
    fn latest_before(&mut self, sequence: u64, last: &Header) -> Result<Earlier, Early> {
        let (mut sequence, mut header) = (sequence, *last);
        loop {
            // The frames of an epoch follow each other, and epochs grow. Here are the last frame that is before them or removed, and
            // their first one as far as known.
            let (mut before, mut first) = (0, sequence);
            let mut found = None;
            while first - before > 1 {
                let middle = before + (first - before) / 2;
                match self.log.frame(middle)? {
                    Some(frame) if frame.epoch >= header.epoch => (first, header) = (middle, frame),
                    frame => (before, found) = (middle, frame),
                }
            }
            match found {
                Some(frame) if frame.pipe == self.pipe() => return Ok(Earlier::Ours(frame)),
                Some(frame) => (sequence, header) = (before, frame),
                None if before == 0 => return Ok(Earlier::None),
                None => return Ok(Earlier::RemovedSince(header.time)),
            }
        }
    }

    /// Releases the messages that the stream has already.
    fn release_until(&mut self, end: Place) -> Result<(), Early> {
        let pipe = self.consumer.pipe().clone();
        let mut at = self.consumer.position();
        let mut messages = 0;
        let mut drain = self.consumer.drain(usize::MAX);
        let is_ours = loop {
            let is_behind = at.get() < end.position;
            if !is_behind && end.offset == 0 {
                break Ok(at.get() == end.position);
            }
            match drain.next() {
                Ok(Some(record)) if is_behind => at = pipe.position_after(at, record.len()),
                // The stream has a part of this one, and not all of it.
                Ok(Some(record)) => break Ok(at.get() == end.position && record.len() as u64 > end.offset),
                Ok(None) => break Ok(false),
                Err(corruption) => break Err(corruption),
            }
            messages += 1;
        };
        drain.requeue();
        if !is_ours? {
            let text = format!(
                "the stream ends at position {end}, where this pipe has no such message: it is not the stream of this pipe"
            );
            return Err(Failure::new(Code::Unfit, text).into());
        }
        self.release(messages, end)?;
        if messages > 0 {
            self.report.note(format_args!("resumed behind {messages} messages that the stream had already"));
        }
        Ok(())
    }

    /// Takes the stream over, and publishes until the producer has ended, or a stop is asked for.
    pub fn run(&mut self) -> Result<(), Early> {
        self.take_over()?;
        loop {
            match self.next()? {
                Next::Messages => self.publish_messages()?,
                Next::End(how, claim) => {
                    let header = self.header(self.at);
                    let header = Header { ended: claim, ..header };
                    self.publish(how.seal(claim, &header), header)?;
                    self.ended = claim;
                    self.report.note(format_args!("the producer {how}"));
                }
                Next::Over(_) if self.settings.follow => {
                    // This reports the end, so that the wait below is for the next producer.
                    let _ = self.consumer.check();
                    match self.consumer.wait_for_peer(None) {
                        Ok(()) | Err(WaitError::Cancelled | WaitError::TimedOut) => {}
                        Err(WaitError::Lost(lost)) => return Err(lost.into()),
                        Err(error) => return Err(Failure::new(Code::Failure, error).into()),
                    }
                }
                Next::Over(How::Closed) => return Ok(()),
                Next::Over(how) => {
                    return Err(Failure::new(Code::PeerGone, format_args!("the producer {how}")).into());
                }
                Next::Stop => return Err(Early::Stopped),
            }
        }
    }

    /// Closes the pipe for this side.
    pub fn close(self) -> Result<(), Failure> {
        Ok(self.consumer.close()?)
    }

    /// Ends this side of the pipe with an error, which the producer receives.
    pub fn abort(self, failure: &Failure) -> Result<(), Failure> {
        Ok(self.consumer.abort(failure.code as u32)?)
    }

    fn next(&mut self) -> Result<Next, Early> {
        loop {
            if self.stop.is_asked() {
                let until = match self.until {
                    Some(until) => until,
                    None => *self
                        .until
                        .insert(shmpipe::inspect(self.consumer.pipe().address())?.producer.position),
                };
                if self.at.offset == 0 && (self.at.position >= until || self.is_empty()?) {
                    return Ok(Next::Stop);
                }
            }
            if !self.is_empty()? {
                return Ok(Next::Messages);
            }
            // An earlier consumer may have received the end, and may not have published it.
            if how(self.consumer.peer()).is_some()
                && let (Some(how), claim) = self.producer()?
                && self.is_empty()?
            {
                return Ok(if claim > self.ended { Next::End(how, claim) } else { Next::Over(how) });
            }
            match self.consumer.wait_for_message(None) {
                Ok(()) | Err(RecvTimeoutError::TimedOut | RecvTimeoutError::Cancelled) => {}
                Err(error) => {
                    let how = match error {
                        RecvTimeoutError::Closed => How::Closed,
                        RecvTimeoutError::PeerAborted { code } => How::Aborted { code },
                        RecvTimeoutError::PeerDied => How::Died,
                        error => return Err(error.into()),
                    };
                    // A successor may have come meanwhile, whose own end has a claim of its own. What has ended is looked at above.
                    if let (None, successor) = self.producer()?
                        && successor > self.ended + 1
                    {
                        return Ok(Next::End(how, successor - 1));
                    }
                }
            }
        }
    }

    fn is_empty(&mut self) -> Result<bool, Failure> {
        let mut drain = self.consumer.drain(1);
        let is_empty = drain.next().map(|record| record.is_none());
        drain.requeue();
        Ok(is_empty?)
    }

    /// How the latest producer has ended, if it has, and the number of its claim.
    fn producer(&self) -> Result<(Option<How>, u64), Failure> {
        let address = self.consumer.pipe().address();
        latest(|| shmpipe::inspect(address).map(|Snapshot { producer, .. }| (producer.peer, producer.epoch)))
    }

    /// Publishes what there is, as a frame.
    fn publish_messages(&mut self) -> Result<(), Early> {
        // A lone message goes at once. In a stream, frames are a linger apart, unless they fill.
        let due = self.sent + self.settings.linger;
        while !self.was_full && !self.stop.is_asked() {
            match due.saturating_duration_since(Instant::now()) {
                Duration::ZERO => break,
                left => thread::sleep(left.min(LONGEST_NAP)),
            }
        }
        let (filling, end, whole) = self.gather()?;
        self.was_full = filling.is_full();
        let (messages, bytes) = (u64::from(filling.parts()), filling.payload());
        let header = self.header(end);
        self.sent = Instant::now();
        self.publish(filling.seal(&header), header)?;
        self.release(whole, end)?;
        self.stats.frame(messages, bytes);
        Ok(())
    }

    /// Fills a frame. The messages stay in the pipe. Also returns where it ends, and how many messages end in it.
    fn gather(&mut self) -> Result<(Filling, Place, usize), Early> {
        let pipe = self.consumer.pipe().clone();
        let mut filling = Filling::new(self.settings.frame);
        let (mut end, mut whole) = (self.at, 0);
        let mut drain = self.consumer.drain(usize::MAX);
        let gathered = loop {
            let record = match drain.next() {
                Ok(Some(record)) => record,
                Ok(None) => break Ok(()),
                Err(corruption) => break Err(corruption),
            };
            let Some(room) = filling.room() else {
                filling.set_full();
                break Ok(());
            };
            let (length, offset) = (record.len(), end.offset as usize);
            let rest = length.saturating_sub(offset);
            if rest > room && !filling.is_empty() {
                filling.set_full();
                break Ok(());
            }
            if rest > room || offset > 0 {
                // Longer than a frame: copied out once, and published in parts.
                let long = self.long.get_or_insert_with(|| record.to_vec());
                let part = &long[offset..offset + rest.min(room)];
                filling.push(record.tag(), part.len(), |to| to.extend_from_slice(part));
            } else {
                filling.push(record.tag(), length, |to| record.append_to(to));
            }
            if rest > room {
                end.offset += room as u64;
                filling.set_full();
                break Ok(());
            }
            end = Place::at(pipe.position_after(position(end), length).get());
            self.long = None;
            whole += 1;
        };
        drain.requeue();
        gathered?;
        Ok((filling, end, whole))
    }

    /// Appends a frame, however long that takes.
    fn publish(&mut self, frame: Bytes, header: Header) -> Result<(), Early> {
        let (after, _) = self.last;
        let sequence = loop {
            match self.log.append(&frame, after)? {
                Appended::At(sequence) if sequence == after + 1 => break sequence,
                Appended::At(sequence) => return Err(unchecked(sequence, after).into()),
                // The same bytes again can do no harm: they fit in one place only.
                Appended::WrongSequence | Appended::Unknown => {
                    if let Some(sequence) = self.find(&header)? {
                        break sequence;
                    }
                }
            }
        };
        self.last = (sequence, Some(header));
        self.at = header.end;
        self.stats.done(sequence, header.end.position, now().saturating_sub(header.time));
        Ok(())
    }

    /// Whether a frame whose append had no answer, or came too late, is the end of the stream after all.
    fn find(&mut self, frame: &Header) -> Result<Option<u64>, Early> {
        let (sequence, last) = self.last;
        let tail = self.settled_tail(|tail| tail.sequence < sequence)?;
        // It may have been removed since, by its age for example.
        if tail.sequence == sequence && (tail.frame == last || tail.frame.is_none()) {
            return Ok(None);
        }
        if tail.sequence == sequence + 1 && tail.frame.as_ref() == Some(frame) {
            return Ok(Some(tail.sequence));
        }
        let acknowledged = self.at;
        Err(match tail.frame {
            Some(other) if tail.sequence >= sequence && other.session != self.session => Failure::new(
                Code::Taken,
                format_args!(
                    "fenced: another publisher has taken the stream over, for the pipe {} (epoch {}, ours is {}); everything up to \
                     position {acknowledged} is in the stream, and the rest is still in the pipe, though the stream may have the next frame too",
                    other.pipe, other.epoch, self.epoch
                ),
            ),
            other => Failure::new(
                Code::Missing,
                format_args!(
                    "messages are missing: the server has acknowledged message {sequence} of the stream, which ends at position \
                     {acknowledged} of the pipe, and now the stream ends at message {}{}",
                    tail.sequence,
                    other.map(|other| format!(", position {}", other.end)).unwrap_or_default()
                ),
            ),
        }
        .into())
    }

    /// Releases the messages of a frame that is in the stream.
    fn release(&mut self, whole: usize, end: Place) -> Result<(), Early> {
        let mut drain = self.consumer.drain(whole);
        while let Some(_record) = drain.next()? {}
        drain.release();
        let released = self.consumer.position().get();
        if released != end.position {
            let text = format!("released up to position {released} of the pipe, and not {}", end.position);
            return Err(Failure::new(Code::Unfit, text).into());
        }
        Ok(())
    }
}

/// The error for a frame that was to follow the message `after` and did not.
fn unchecked(sequence: u64, after: u64) -> Failure {
    let text = format!(
        "the server has appended a frame as message {sequence} of the stream that was to be number {}: it does not check the \
         expected last sequence",
        after + 1
    );
    Failure::new(Code::Unfit, text)
}

fn position(place: Place) -> Position {
    Position::from(place.position)
}

fn how(peer: Peer) -> Option<How> {
    match peer {
        Peer::Closed => Some(How::Closed),
        Peer::Aborted { code } => Some(How::Aborted { code }),
        Peer::Died => Some(How::Died),
        Peer::NeverCame | Peer::Open | Peer::Unknown => None,
    }
}

/// How the latest producer has ended, if it has, and the number of its claim, from what `look` sees at one moment.
fn latest<E>(mut look: impl FnMut() -> Result<(Peer, u64), E>) -> Result<(Option<How>, u64), Failure>
where
    Failure: From<E>,
{
    loop {
        let (peer, claim) = look()?;
        // A producer that closed between a look at its state and one at its role seems to have died.
        if peer != Peer::Died || look()? == (peer, claim) {
            return Ok((how(peer), claim));
        }
    }
}

/// Nanoseconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64)
}

#[cfg(test)]
mod tests;
