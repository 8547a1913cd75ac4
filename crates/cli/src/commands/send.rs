//! `shmpipe send`: sends standard input as messages.

use shmpipe::{CancelHandle, CheckError, Peer, Pipe, Producer, SendTimeoutError, TrySendError};
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
    let timeout = arguments.timeout;
    let mut sender = Sender { timeout, follows: true, ..Sender::new(producer, progress, report) };
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
        None => Cut::Lines,
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
    /// Waits for the next consumer when one dies.
    follows: bool,
}

impl Sender {
    /// One that waits for space as long as it takes, and ends when the consumer dies.
    pub fn new(producer: Producer, progress: Progress, report: Report) -> Self {
        let cancel = producer.cancel_handle();
        let next_check = Instant::now() + CHECK_INTERVAL;
        Sender { producer, cancel, progress, report, timeout: None, next_check, follows: false }
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
        loop {
            // Checked before the end of the input counts: the same signal may have ended its writer midway.
            self.check_for_end()?;
            while let Some(message) = cutter.next_message()? {
                self.send(message)?;
            }
            if cutter.is_over() {
                return Ok(());
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
            self.check_for_end()?;
            self.progress.update_if_due();
            if Instant::now() >= self.next_check {
                self.check_consumer()?;
                self.next_check = Instant::now() + CHECK_INTERVAL;
            }
            let until = self.progress.next_update().map_or(self.next_check, |next| next.min(self.next_check));
            match stdio::wait(input, For::Input, Some(until)) {
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::TimedOut) => {}
                // Input that cannot be polled can be read.
                Ok(()) | Err(_) => return Ok(()),
            }
        }
    }

    /// Notices that the consumer is gone while nothing is sent.
    fn check_consumer(&mut self) -> Result<(), Early> {
        let error = match self.producer.check() {
            Ok(()) => return Ok(()),
            Err(CheckError::PeerDied) if self.follows => {
                self.report_death();
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

    fn report_death(&mut self) {
        self.progress.clear();
        self.report.note("the consumer died; waiting for the next one");
    }

    fn send(&mut self, message: &[u8]) -> Result<(), Early> {
        match self.producer.try_send(message) {
            Ok(_) => {}
            Err(TrySendError::Full) => self.send_when_there_is_space(message)?,
            Err(error) => return Err(error.into()),
        }
        self.progress.count(message.len());
        Ok(())
    }

    #[cold]
    fn send_when_there_is_space(&mut self, message: &[u8]) -> Result<(), Early> {
        let give_up = self.timeout.map(|timeout| Instant::now() + timeout);
        loop {
            let deadline = [give_up, self.progress.next_update()].into_iter().flatten().min();
            let sent = match deadline {
                Some(deadline) => self.producer.send_deadline(message, deadline),
                None => self.producer.send(message).map_err(SendTimeoutError::from),
            };
            match sent {
                Ok(_) => return Ok(()),
                Err(SendTimeoutError::PeerDied) if self.follows => self.report_death(),
                Err(SendTimeoutError::TimedOut) if give_up.is_none_or(|moment| Instant::now() < moment) => {
                    self.progress.update_if_due();
                }
                Err(SendTimeoutError::Cancelled) => return Err(signals::why_cancelled()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
