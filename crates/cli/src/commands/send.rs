//! `shmpipe send`: sends standard input as messages.

use shmpipe::{Lost, Peer, Pipe, Producer, SendTimeoutError, TrySendError};
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal};
use std::time::{Duration, Instant};

use crate::args;
use crate::commands::framing::{Cut, Cutter};
use crate::commands::role;
use crate::exit::{Code, Early, End, Failure, Outcome};
use crate::output::progress::{Data, Progress};
use crate::output::report::Report;
use crate::system::signals;
use crate::system::stdio::{self, For};

/// How often to check the consumer while there is no input.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// The longest message of `--raw`, if the pipe allows it.
const RAW_MAX: usize = 64 << 10;

pub fn run(arguments: &args::Send, report: Report) -> Outcome {
    signals::install()?;
    let producer = role::claim(&arguments.pipe, report, Pipe::producer)?;
    signals::cancel_on_signal(producer.cancel_handle());
    let cut = cut(arguments, producer.max_len())?;
    let data = if io::stdin().is_terminal() { Data::Terminal } else { Data::Elsewhere };
    let progress = Progress::new(producer.pipe().address(), data);
    let started = Instant::now();
    let mut sender = Sender { producer, progress, report, timeout: arguments.timeout, death_reported: false };
    let sent = sender.send_all(Cutter::new(cut, sender.producer.max_len()));
    sender.progress.finish(started);
    match sent {
        Ok(()) => sender.producer.close()?,
        // Dropped, the producer closes too.
        Err(early) => return early.outcome(),
    }
    Ok(End::Done)
}

fn cut(arguments: &args::Send, longest: usize) -> Result<Cut, Failure> {
    Ok(match arguments.chunk {
        Some(chunk) if chunk > longest as u64 => {
            let text = format!(
                "chunks of {chunk} bytes exceed the {longest} bytes of the longest message of this pipe; create a pipe \
                 with a larger capacity"
            );
            return Err(Failure::new(Code::Failure, text));
        }
        Some(chunk) => Cut::Chunks(chunk as usize),
        None if arguments.raw => Cut::Reads(RAW_MAX.min(longest)),
        None if arguments.length_prefixed => Cut::Prefixed,
        None => Cut::Lines,
    })
}

struct Sender {
    producer: Producer,
    progress: Progress,
    report: Report,
    timeout: Option<Duration>,
    /// The last consumer died, and that was reported.
    death_reported: bool,
}

impl Sender {
    fn send_all(&mut self, mut cutter: Cutter) -> Result<(), Early> {
        let mut input = stdio::standard_input()?;
        loop {
            // Checked before the end of the input counts: the same signal may have ended its writer midway.
            check_for_signal()?;
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
            check_for_signal()?;
            self.progress.update_if_due();
            let next_check = Instant::now() + CHECK_INTERVAL;
            let until = self.progress.next_update().map_or(next_check, |next| next.min(next_check));
            match stdio::wait(input, For::Input, Some(until)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::TimedOut => self.check_consumer()?,
                // Input that cannot be polled can be read.
                Ok(()) | Err(_) => return Ok(()),
            }
        }
    }

    /// Notices that the consumer is gone while nothing is sent.
    fn check_consumer(&mut self) -> Result<(), Early> {
        // A reservation that is dropped without commit sends nothing.
        if let Err(error) = self.producer.try_reserve(0) {
            if error != TrySendError::Full {
                return Err(error.into());
            }
        }
        match self.producer.peer() {
            Peer::Died => self.report_death(),
            Peer::Open => self.death_reported = false,
            Peer::Unknown => return Err(SendTimeoutError::Lost(Lost::Removed).into()),
            Peer::NeverCame | Peer::Closed => {}
        }
        Ok(())
    }

    fn report_death(&mut self) {
        if !std::mem::replace(&mut self.death_reported, true) {
            self.progress.clear();
            self.report.note("the consumer died; waiting for the next one");
        }
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
                Ok(_) => {
                    // A consumer made space.
                    self.death_reported = false;
                    return Ok(());
                }
                Err(SendTimeoutError::PeerDied) => self.report_death(),
                Err(SendTimeoutError::TimedOut) if give_up.is_none_or(|moment| Instant::now() < moment) => {
                    self.progress.update_if_due();
                }
                Err(SendTimeoutError::Cancelled) => return Err(stopped()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn check_for_signal() -> Result<(), Early> {
    signals::received().map_or(Ok(()), |signal| Err(Early::Signal(signal)))
}

/// Only a signal cancels an endpoint here.
fn stopped() -> Early {
    signals::received().map_or(Early::Failed(SendTimeoutError::Cancelled.into()), Early::Signal)
}
