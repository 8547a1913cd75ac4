//! `shmpipe recv`: writes messages to standard output.
//!
//! A message is released only after it is written, and everything written is released before the next wait. However this
//! process ends, the next one therefore continues after what was written, and repeats at most the last batch. What it writes ends
//! with a whole message wherever the output allows that: see `sink`.

pub mod sink;

use shmpipe::{CancelHandle, Consumer, Corruption, Peer, Pipe, RecvTimeoutError};
use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use crate::args;
use crate::commands::framing::Join;
use crate::commands::role;
use crate::commands::server::Server;
use crate::exit::{self, Code, Early, End, Failure, Outcome};
use crate::output::progress::{Data, Progress};
use crate::output::report::Report;
use crate::system::signals;
use sink::{Sink, Unwritten};

/// Messages are written together until they reach this size. With one more message that is usually still less than a kernel pipe
/// holds.
const BATCH: usize = 60 << 10;

/// How often to check, while there is no message, that the output has a reader, if that can leave.
const READER_CHECK_INTERVAL: Duration = Duration::from_millis(50);

pub fn run(arguments: &args::Recv, report: Report) -> Outcome {
    let join = join(arguments, report)?;
    signals::install()?;
    let output = Sink::standard_output()?;
    let args::PipeArgs { address, .. } = &arguments.pipe;
    let consumer = role::claim(address, &arguments.pipe.options(), report, Pipe::consumer)?;
    signals::cancel_on_signal(consumer.cancel_handle());
    let data = match (io::stdout().is_terminal(), join.is_text()) {
        (false, _) => Data::Elsewhere,
        (true, true) => Data::LinesToTerminal,
        (true, false) => Data::Terminal,
    };
    let progress = Progress::new(consumer.pipe().address(), data);
    let started = Instant::now();
    let mut receiver = Receiver {
        left: arguments.count,
        timeout: arguments.timeout,
        follow: arguments.follow,
        ..Receiver::new(consumer, output, join, progress, report)
    };
    let received = receiver.receive_all();
    receiver.progress.finish(started);
    receiver.end(received)
}

fn join(arguments: &args::Recv, report: Report) -> Result<Join, Failure> {
    let args::Recv { raw, length_prefixed, null, delimiter, .. } = arguments;
    let is_framed = *raw || *length_prefixed || *null || delimiter.is_some();
    if report.is_json() && is_framed {
        let text = "--json writes each message as an object: leave out --raw, --length-prefixed, --null and --delimiter";
        return Err(Failure::new(Code::Usage, text));
    }
    Ok(match () {
        () if report.is_json() => Join::Json,
        () if *raw => Join::Raw,
        () if *length_prefixed => Join::Prefixed,
        () => Join::With {
            delimiter: args::delimiter(*null, delimiter.as_ref()),
            positions: arguments.show_position,
        },
    })
}

/// Writes messages to standard output.
pub struct Receiver {
    consumer: Consumer,
    cancel: CancelHandle,
    output: Sink,
    join: Join,
    /// The bytes of a batch of messages, as they are written.
    batch: Vec<u8>,
    /// Where each message ends in the batch.
    ends: Vec<usize>,
    /// Where one write ends and the next starts in the batch, if the output takes a limited number of bytes whole.
    parts: Vec<usize>,
    /// Messages left to write, with `--count`.
    left: Option<u64>,
    timeout: Option<Duration>,
    follow: bool,
    /// The producer had closed before, and the next one is awaited.
    closed: bool,
    /// Where the pipe comes from, if that is a socket.
    server: Option<Server>,
    /// The output did not take what was received.
    output_failed: bool,
    /// The command, and what it calls its peer.
    words: [&'static str; 2],
    progress: Progress,
    report: Report,
}

impl Receiver {
    /// One that receives until its producer ends.
    pub fn new(consumer: Consumer, output: Sink, join: Join, progress: Progress, report: Report) -> Self {
        Receiver {
            cancel: consumer.cancel_handle(),
            server: Server::of(consumer.pipe()),
            consumer,
            output,
            join,
            batch: Vec::with_capacity(BATCH),
            ends: Vec::new(),
            parts: Vec::new(),
            left: None,
            timeout: None,
            follow: false,
            closed: false,
            output_failed: false,
            words: ["recv", "producer"],
            progress,
            report,
        }
    }

    /// The same for a duplex pipe, whose other side had `closed` before.
    pub fn of_duplex(
        consumer: Consumer,
        output: Sink,
        join: Join,
        arguments: &args::Duplex,
        closed: bool,
        report: Report,
    ) -> Self {
        let progress = Progress::new(consumer.pipe().address(), Data::Terminal);
        let (timeout, follow, words) = (arguments.timeout, arguments.follow, ["duplex", "other side"]);
        Receiver { words, closed, timeout, follow, ..Receiver::new(consumer, output, join, progress, report) }
    }

    fn end(self, received: Result<(), Early>) -> Outcome {
        match received {
            Ok(()) => self.close().map(|()| End::Done),
            Err(early) => {
                let outcome = early.outcome();
                self.end_early(&outcome);
                outcome
            }
        }
    }

    /// After the last message.
    pub fn close(self) -> Result<(), Failure> {
        Ok(self.consumer.close()?)
    }

    /// Aborts, with the exit code, if the output failed. Anything else closes: unread messages stay in the pipe.
    pub fn end_early(self, outcome: &Outcome) {
        if self.output_failed {
            // The failure is reported, which matters more than whether the producer hears of it.
            let _ = self.consumer.abort(exit::number(outcome).into());
            return;
        }
        let closed = self.consumer.close();
        if let (Ok(End::Signal(signal)), Ok(())) = (outcome, closed) {
            let (signal, [command, _]) = (signals::name(*signal), self.words);
            self.report.note(format_args!(
                "closed: {signal} ended {command}; messages not yet written stay in the pipe"
            ));
        }
    }

    /// Writes messages until there are no more.
    pub fn receive_all(&mut self) -> Result<(), Early> {
        while self.left != Some(0) {
            if self.cancel.is_cancelled() {
                return Err(signals::why_cancelled());
            }
            if !self.write_batch()? && !self.wait()? {
                break;
            }
        }
        Ok(())
    }

    /// Writes the messages that are there, at most one batch, and releases them. Returns whether there were any.
    fn write_batch(&mut self) -> Result<bool, Early> {
        self.batch.clear();
        self.ends.clear();
        self.parts.clear();
        let atomic = self.output.atomic();
        let limit = self.left.map_or(usize::MAX, |left| left.try_into().unwrap_or(usize::MAX));
        let mut drain = self.consumer.drain(limit);
        let (mut bytes, mut corrupt) = (0, None);
        while self.batch.len() < BATCH {
            match drain.next() {
                Ok(Some(message)) => {
                    bytes += message.len() as u64;
                    let before = self.batch.len();
                    self.join.append(&message, &mut self.batch);
                    self.ends.push(self.batch.len());
                    let start = self.parts.last().copied().unwrap_or(0);
                    if before > start && atomic.is_some_and(|most| self.batch.len() - start > most) {
                        self.parts.push(before);
                    }
                }
                Ok(None) => break,
                // The messages before it are good.
                Err(error) => {
                    corrupt = Some(error);
                    break;
                }
            }
        }
        let messages = drain.taken() as u64;
        if messages > 0 {
            self.progress.make_room();
            if let Err(Unwritten { written, early }) = self.output.write_parts(&self.batch, &self.parts) {
                drain.requeue();
                self.output_failed = matches!(early, Early::Failed(_));
                // A reader that left may not have read any of this batch, so none of it counts as written.
                if !matches!(early, Early::ReaderLeft) {
                    self.release_written(written, &early)?;
                }
                return Err(early);
            }
        }
        drain.release();
        self.progress.count_all(messages, bytes);
        if let Some(left) = &mut self.left {
            *left -= messages;
        }
        match corrupt {
            Some(error) if messages == 0 => Err(error.into()),
            _ => Ok(messages > 0),
        }
    }

    /// Releases the messages of a batch that lie wholly within the first `written` bytes of the output. If those end within a
    /// message, it is taken back from the output, or finished after a signal, if either is possible.
    fn release_written(&mut self, written: usize, early: &Early) -> Result<(), Corruption> {
        let mut whole = self.ends.partition_point(|&end| end <= written);
        let start = whole.checked_sub(1).map_or(0, |last| self.ends[last]);
        if let Some(&end) = self.ends.get(whole).filter(|_| start < written) {
            let finishes = !self.output.take_back(written - start) && matches!(early, Early::Signal(_));
            if finishes && self.output.finish(&self.batch[written..end]) {
                whole += 1;
            }
        }
        let mut drain = self.consumer.drain(whole);
        while drain.next()?.is_some() {}
        drain.release();
        Ok(())
    }

    /// Waits for a message. All messages read are released by then. Returns whether to continue.
    fn wait(&mut self) -> Result<bool, Early> {
        let give_up = self.timeout.map(|timeout| Instant::now() + timeout);
        // The producer closed, and we wait for the next one.
        let mut closed = std::mem::take(&mut self.closed);
        loop {
            self.progress.update_if_due();
            if self.output.has_lost_its_reader() {
                return Err(Early::ReaderLeft);
            }
            let can_lose_its_reader = self.output.can_lose_its_reader();
            let next_check = can_lose_its_reader.then(|| Instant::now() + READER_CHECK_INTERVAL);
            let next_look = self.server.as_ref().map(Server::next_look);
            let deadline =
                [give_up, self.progress.next_update(), next_check, next_look].into_iter().flatten().min();
            let waited = if closed {
                self.consumer.wait_for_peer(deadline).map_err(RecvTimeoutError::from)
            } else {
                self.consumer.wait_for_message(deadline)
            };
            match waited {
                Ok(()) if closed => closed = false,
                Ok(()) => return Ok(true),
                Err(RecvTimeoutError::Closed) if !self.follow => return Ok(false),
                Err(RecvTimeoutError::Closed) => closed = true,
                Err(RecvTimeoutError::PeerDied) if self.follow => {
                    self.progress.clear();
                    self.report.note(format_args!("the {} died; waiting for the next one", self.words[1]));
                }
                Err(RecvTimeoutError::PeerAborted { code }) => {
                    if !self.follow {
                        return Err(self.gone(format_args!("aborted with code {code}")));
                    }
                    self.progress.clear();
                    let peer = self.words[1];
                    self.report
                        .note(format_args!("the {peer} aborted with code {code}; waiting for the next one"));
                }
                Err(RecvTimeoutError::PeerDied) => return Err(self.gone("died")),
                Err(RecvTimeoutError::TimedOut) if give_up.is_none_or(|moment| Instant::now() < moment) => {
                    self.check_server()?;
                }
                Err(RecvTimeoutError::Cancelled) => return Err(signals::why_cancelled()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Fails if the next producer will come to another pipe.
    fn check_server(&mut self) -> Result<(), Failure> {
        let Some(server) = &mut self.server else { return Ok(()) };
        if self.consumer.peer() == Peer::Open || !server.hands_out_another() {
            return Ok(());
        }
        let [command, peer] = self.words;
        let text = format!(
            "this pipe has no {peer}, and another server hands out another pipe at {}; run {command} again to use that",
            self.consumer.pipe().address()
        );
        Err(Failure::new(Code::NotFound, text))
    }

    /// The producer has ended otherwise than by a close.
    fn gone(&self, how: impl Display) -> Early {
        let [command, peer] = self.words;
        let text = format!(
            "the {peer} {how} and every message was received; run {command} again, or use --follow, to wait for its successor"
        );
        Failure::new(Code::PeerGone, text).into()
    }
}
