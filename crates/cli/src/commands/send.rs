//! `shmpipe send`: sends standard input as messages.

use shmpipe::{
    CancelHandle, CheckError, Peer, Pipe, Position, Producer, SendTimeoutError, Tagged, TrySendError,
    WaitError,
};
use std::fmt::{self, Display};
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal};
use std::time::{Duration, Instant};

use crate::args;
use crate::commands::framing::{Cut, Cutter};
use crate::commands::role;
use crate::exit::{self, Code, Early, End, Failure, Outcome};
use crate::output::progress::{Data, Progress};
use crate::output::report::Report;
use crate::system::signals;
use crate::system::stdio::{self, For};

/// How often to check the consumer and the pipe while waiting for input.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// The longest message of `--raw`, if the pipe allows it.
const RAW_MAX: usize = 64 << 10;

pub fn run(arguments: &args::Send, report: Report) -> Outcome {
    signals::install()?;
    let input = stdio::standard_input()?;
    let args::PipeArgs { address, .. } = &arguments.pipe;
    let producer = role::claim(address, &arguments.pipe.options(), report, Pipe::producer)?;
    signals::cancel_on_signal(producer.cancel_handle());
    let data = if io::stdin().is_terminal() { Data::Terminal } else { Data::Elsewhere };
    let progress = Progress::new(producer.pipe().address(), data);
    let started = Instant::now();
    let mut sender = Sender {
        timeout: arguments.timeout,
        tag: arguments.tag,
        rate: arguments.rate.map(Rate::new),
        resumes: arguments.resume,
        follows: Follows::Deaths,
        ..Sender::new(producer, progress, report)
    };
    sender.note_earlier_abort();
    let sent = sender.send_input(input, &arguments.input);
    sender.progress.finish(started);
    sender.end(sent)
}

fn cut(input: &args::Input, longest: usize) -> Result<Cut, Failure> {
    Ok(match input.chunk {
        Some(chunk) if chunk > longest as u64 => {
            let text = format!(
                "chunks of {chunk} bytes exceed the {longest} bytes of the longest message of this pipe; create a pipe \
                 with a larger capacity"
            );
            return Err(Failure::new(Code::Failure, text));
        }
        Some(chunk) => Cut::Chunks(chunk as usize),
        None if input.raw => Cut::Reads(RAW_MAX.min(longest)),
        None if input.length_prefixed => Cut::Prefixed,
        None if input.whole => Cut::Nowhere,
        None => Cut::At(args::delimiter(input.null, input.delimiter.as_ref())),
    })
}

/// Sends standard input.
pub struct Sender {
    producer: Producer,
    cancel: CancelHandle,
    progress: Progress,
    report: Report,
    timeout: Option<Duration>,
    /// When to check the consumer and the pipe next: a pipe that was removed would take messages until it is full.
    next_check: Instant,
    /// After which ends of a consumer it waits for the next one.
    follows: Follows,
    /// What the consumer is called.
    consumer: &'static str,
    tag: u32,
    rate: Option<Rate>,
    /// Skips what an earlier sender has sent.
    resumes: bool,
}

/// After which ends of a consumer a sender waits for the next one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Follows {
    None,
    Deaths,
    All,
}

/// A limit on messages per second. After a pause it sends no more at once than what a tenth of a second allows.
struct Rate {
    interval: Duration,
    next: Instant,
}

impl Rate {
    const MOST_LATE: Duration = Duration::from_millis(100);

    fn new(per_second: f64) -> Self {
        Rate { interval: Duration::from_secs_f64(1.0 / per_second), next: Instant::now() }
    }

    /// Takes the turn that was due by now.
    fn take(&mut self, now: Instant) {
        self.next = self.next.max(now.checked_sub(Self::MOST_LATE).unwrap_or(now)) + self.interval;
    }
}

impl Sender {
    /// One that waits for space as long as it takes, and ends when the consumer dies.
    pub fn new(producer: Producer, progress: Progress, report: Report) -> Self {
        let cancel = producer.cancel_handle();
        let next_check = Instant::now() + CHECK_INTERVAL;
        Sender {
            producer,
            cancel,
            progress,
            report,
            timeout: None,
            next_check,
            follows: Follows::None,
            consumer: "consumer",
            tag: 0,
            rate: None,
            resumes: false,
        }
    }

    /// The same for a side of a duplex pipe.
    pub fn of_duplex(
        producer: Producer,
        arguments: &args::Duplex,
        progress: Progress,
        report: Report,
    ) -> Self {
        let follows = if arguments.follow { Follows::All } else { Follows::None };
        let (timeout, consumer) = (arguments.timeout, "other side");
        Sender { timeout, follows, consumer, ..Sender::new(producer, progress, report) }
    }

    /// Sends all of the input.
    pub fn send_input(&mut self, input: File, framing: &args::Input) -> Result<(), Early> {
        let longest = self.producer.max_len();
        let cut = cut(framing, longest)?;
        self.send_all(input, Cutter::new(cut, longest))
    }

    /// The abort of a consumer that came before does not concern what is sent now.
    fn note_earlier_abort(&mut self) {
        if let Peer::Aborted { code } = self.producer.peer() {
            if self.producer.check() == Err(CheckError::PeerAborted { code }) {
                self.report.note(format_args!(
                    "the last consumer aborted with code {code}; sending to the next one"
                ));
            }
        }
    }

    /// Closes at the end of the input. Before that it aborts, with the exit code: a receiver must not take the cut for the end.
    fn end(self, sent: Result<(), Early>) -> Outcome {
        let Err(early) = sent else {
            self.close()?;
            return Ok(End::Done);
        };
        let outcome = early.outcome();
        self.abort(&outcome);
        outcome
    }

    /// At the end of the input.
    pub fn close(self) -> Result<(), Failure> {
        Ok(self.producer.close()?)
    }

    /// Before the end of the input.
    pub fn abort(self, outcome: &Outcome) {
        let code = exit::number(outcome);
        let aborted = self.producer.abort(code.into());
        if let (Ok(End::Signal(signal)), Ok(())) = (outcome, aborted) {
            let signal = signals::name(*signal);
            self.report
                .note(format_args!("aborted with code {code}: {signal} came before the end of the input"));
        }
    }

    fn send_all(&mut self, mut input: File, mut cutter: Cutter) -> Result<(), Early> {
        let mut earlier = self.resumes.then(|| Earlier::of(&self.producer)).transpose()?;
        loop {
            // Checked before the end of the input counts: the same signal may have ended its writer midway.
            self.check_for_end()?;
            while let Some(message) = cutter.next_message()? {
                match &mut earlier {
                    Some(earlier) if !earlier.is_over() => earlier.skip(message.len())?,
                    _ => self.send(message)?,
                }
            }
            if let Some(over) = earlier.take_if(|earlier| earlier.is_over()) {
                if over.messages > 0 {
                    self.report.note(over);
                }
            }
            if cutter.is_over() {
                return earlier.map_or(Ok(()), |earlier| Err(earlier.mismatch().into()));
            }
            self.wait_for_input(&input)?;
            match cutter.read_from(&mut input) {
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(error) => return Err(Failure::io("reading from standard input", &error).into()),
                Ok(()) => {}
            }
        }
    }

    /// Returns when there is input, or when only a read can tell.
    fn wait_for_input(&mut self, input: &File) -> Result<(), Early> {
        loop {
            let until = self.tend()?;
            match stdio::wait(input, For::Input, Some(until)) {
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::TimedOut) => {}
                // Input that cannot be polled can be read.
                Ok(()) | Err(_) => return Ok(()),
            }
        }
    }

    /// Does what is due while nothing is sent. Returns when to do that next.
    fn tend(&mut self) -> Result<Instant, Early> {
        self.check_for_end()?;
        self.progress.update_if_due();
        if Instant::now() >= self.next_check {
            self.check_consumer()?;
            self.next_check = Instant::now() + CHECK_INTERVAL;
        }
        Ok(self.progress.next_update().map_or(self.next_check, |next| next.min(self.next_check)))
    }

    /// Notices that the consumer is gone while nothing is sent.
    fn check_consumer(&mut self) -> Result<(), Early> {
        let error = match self.producer.check() {
            Ok(()) => return Ok(()),
            Err(CheckError::PeerDied) if self.follows != Follows::None => {
                self.report_end("died");
                return Ok(());
            }
            // The next message waits for the next one.
            Err(CheckError::Closed) if self.follows == Follows::All => return Ok(()),
            Err(CheckError::PeerAborted { code }) if self.follows == Follows::All => {
                self.report_end(format_args!("aborted with code {code}"));
                return Ok(());
            }
            Err(CheckError::Closed) => SendTimeoutError::Closed,
            Err(CheckError::PeerAborted { code }) => SendTimeoutError::PeerAborted { code },
            Err(error) => return Err(error.into()),
        };
        Err(error.into())
    }

    fn check_for_end(&self) -> Result<(), Early> {
        if self.cancel.is_cancelled() { Err(signals::why_cancelled()) } else { Ok(()) }
    }

    fn report_end(&mut self, how: impl Display) {
        self.progress.clear();
        self.report.note(format_args!("the {} {how}; waiting for the next one", self.consumer));
    }

    fn send(&mut self, message: &[u8]) -> Result<(), Early> {
        self.wait_for_turn()?;
        match self.producer.try_send(Tagged(self.tag, message)) {
            Ok(_) => {}
            Err(TrySendError::Full) => self.send_when_possible(message)?,
            Err(TrySendError::Closed) if self.follows == Follows::All => self.send_when_possible(message)?,
            Err(TrySendError::PeerAborted { code }) if self.follows == Follows::All => {
                self.report_end(format_args!("aborted with code {code}"));
                self.send_when_possible(message)?;
            }
            Err(error) => return Err(error.into()),
        }
        self.progress.count(message.len());
        Ok(())
    }

    /// Waits until the rate allows the next message.
    fn wait_for_turn(&mut self) -> Result<(), Early> {
        while let Some(rate) = &mut self.rate {
            let now = Instant::now();
            if now >= rate.next {
                rate.take(now);
                break;
            }
            let due = rate.next;
            stdio::pause(due.min(self.tend()?));
        }
        Ok(())
    }

    #[cold]
    fn send_when_possible(&mut self, message: &[u8]) -> Result<(), Early> {
        let give_up = self.timeout.map(|timeout| Instant::now() + timeout);
        loop {
            let deadline = [give_up, self.progress.next_update()].into_iter().flatten().min();
            let sent = match deadline {
                Some(deadline) => self.producer.send_deadline(Tagged(self.tag, message), deadline),
                None => self.producer.send(Tagged(self.tag, message)).map_err(SendTimeoutError::from),
            };
            match sent {
                Ok(_) => return Ok(()),
                Err(SendTimeoutError::PeerDied) if self.follows != Follows::None => self.report_end("died"),
                Err(SendTimeoutError::PeerAborted { code }) if self.follows == Follows::All => {
                    self.report_end(format_args!("aborted with code {code}"));
                }
                Err(SendTimeoutError::Closed) if self.follows == Follows::All => {
                    match self.producer.wait_for_peer(deadline) {
                        Ok(()) | Err(WaitError::TimedOut)
                            if give_up.is_none_or(|moment| Instant::now() < moment) => {}
                        Ok(()) | Err(WaitError::TimedOut) => return Err(SendTimeoutError::TimedOut.into()),
                        Err(WaitError::Cancelled) => return Err(signals::why_cancelled()),
                        Err(WaitError::Lost(lost)) => return Err(SendTimeoutError::Lost(lost).into()),
                        Err(error) => return Err(Failure::new(Code::Failure, error).into()),
                    }
                }
                Err(SendTimeoutError::TimedOut) if give_up.is_none_or(|moment| Instant::now() < moment) => {
                    self.progress.update_if_due();
                }
                Err(SendTimeoutError::Cancelled) => return Err(signals::why_cancelled()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The messages that an earlier sender of the same input has sent. Their lengths tell where each one ends in the stream, and the
/// producer's position tells where the last one does: unlike the pipe's counters, that is exact after a kill too.
struct Earlier {
    pipe: Pipe,
    /// Where the next message of the input starts, if it was sent.
    at: Position,
    /// Where the stream ends.
    end: Position,
    messages: u64,
}

impl Earlier {
    fn of(producer: &Producer) -> Result<Self, Failure> {
        let (pipe, end) = (producer.pipe().clone(), producer.position());
        if shmpipe::inspect(pipe.address())?.remove_leftover {
            let text = "cannot resume in a pipe that was created with --remove-leftover: an earlier one may have been removed, with \
                        all that it knew of what was sent; send without --resume, or create the pipe without --remove-leftover";
            return Err(Failure::new(Code::Unfit, text));
        }
        Ok(Earlier { pipe, at: Position::default(), end, messages: 0 })
    }

    fn is_over(&self) -> bool {
        self.at == self.end
    }

    fn skip(&mut self, length: usize) -> Result<(), Failure> {
        self.at = self.pipe.position_after(self.at, length);
        self.messages += 1;
        if self.at > self.end { Err(self.mismatch()) } else { Ok(()) }
    }

    /// The input is not what was sent.
    fn mismatch(&self) -> Failure {
        let text = format!(
            "cannot resume: no message of this input ends at position {}, where the pipe does, so it has carried something else; \
             send without --resume",
            self.end
        );
        Failure::new(Code::Failure, text)
    }
}

impl Display for Earlier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.messages {
            1 => f.write_str("resumed after 1 message that was sent before"),
            messages => write!(f, "resumed after {messages} messages that were sent before"),
        }
    }
}
