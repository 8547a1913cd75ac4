//! `shmpipe send`: standard input to messages.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal};
use std::time::{Duration, Instant};

use shmpipe::{Peer, Pipe, Producer, SendError};

use crate::args;
use crate::commands::framing::{Cut, Cutter};
use crate::commands::role;
use crate::exit::{Code, Early, End, Failure, Outcome};
use crate::output::progress::{Data, Progress};
use crate::output::report::Report;
use crate::system::signals;
use crate::system::stdio::{self, For};

/// How often to look after the consumer while there is no input.
const LOOK: Duration = Duration::from_millis(500);

/// The longest message of `--raw`, where the pipe takes such.
const RAW: usize = 64 << 10;

pub fn run(arguments: &args::Send, report: Report) -> Outcome {
    signals::install()?;
    let producer = role::take_role(&arguments.pipe, report, Pipe::producer)?;
    signals::stop_on_signal(producer.stopper());
    let cut = cut(arguments, producer.max_len())?;
    let data = if io::stdin().is_terminal() { Data::Terminal } else { Data::Elsewhere };
    let progress = Progress::new(producer.pipe().address(), data);
    let started = Instant::now();
    let mut sender = Sender { producer, progress, report, timeout: arguments.timeout, death_is_told: false };
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
                "chunks of {chunk} bytes are longer than the {longest} bytes that a message of this pipe may have; \
                 make a pipe of larger capacity"
            );
            return Err(Failure::new(Code::Failure, text));
        }
        Some(chunk) => Cut::Chunks(chunk as usize),
        None if arguments.raw => Cut::Reads(RAW.min(longest)),
        None if arguments.length_prefixed => Cut::Prefixed,
        None => Cut::Lines,
    })
}

struct Sender {
    producer: Producer,
    progress: Progress,
    report: Report,
    timeout: Option<Duration>,
    /// The consumer that was last there has died, and that was said.
    death_is_told: bool,
}

impl Sender {
    fn send_all(&mut self, mut cutter: Cutter) -> Result<(), Early> {
        let mut input = stdio::standard_input()?;
        loop {
            // Before the end of the input is believed: what ended us may have ended whoever writes it, midway.
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

    /// Returns when there is input, as far as that can be told, or nothing to do but to read.
    fn wait_for_input(&mut self, input: &File) -> Result<(), Early> {
        loop {
            check_for_signal()?;
            self.progress.draw_if_due();
            let look = Instant::now() + LOOK;
            let until = self.progress.next().map_or(look, |next| next.min(look));
            match stdio::wait(input, For::Input, Some(until)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::TimedOut => self.look_after_consumer()?,
                // What cannot be polled can be read.
                Ok(()) | Err(_) => return Ok(()),
            }
        }
    }

    /// While nothing is sent, nothing else would tell that the consumer has gone.
    fn look_after_consumer(&mut self) -> Result<(), Early> {
        // Dropped without commit, a reservation sends nothing.
        if let Err(error) = self.producer.try_reserve(0) {
            if error != SendError::Full {
                return Err(error.into());
            }
        }
        match self.producer.peer() {
            Peer::Died => self.tell_death(),
            Peer::Open => self.death_is_told = false,
            Peer::Unknown => return Err(SendError::Removed.into()),
            Peer::NeverCame | Peer::Closed => {}
        }
        Ok(())
    }

    fn tell_death(&mut self) {
        if !std::mem::replace(&mut self.death_is_told, true) {
            self.progress.clear();
            self.report.note("the consumer has died; waiting for its successor");
        }
    }

    fn send(&mut self, message: &[u8]) -> Result<(), Early> {
        match self.producer.try_send(message) {
            Ok(_) => {}
            Err(SendError::Full) => self.send_when_there_is_space(message)?,
            Err(error) => return Err(error.into()),
        }
        self.progress.count(message.len());
        Ok(())
    }

    #[cold]
    fn send_when_there_is_space(&mut self, message: &[u8]) -> Result<(), Early> {
        let give_up = self.timeout.map(|timeout| Instant::now() + timeout);
        loop {
            let deadline = [give_up, self.progress.next()].into_iter().flatten().min();
            let sent = match deadline {
                Some(deadline) => self.producer.send_deadline(message, deadline),
                None => self.producer.send(message),
            };
            match sent {
                Ok(_) => {
                    // Somebody has made space.
                    self.death_is_told = false;
                    return Ok(());
                }
                Err(SendError::Abandoned) => self.tell_death(),
                Err(SendError::TimedOut) if give_up.is_none_or(|moment| Instant::now() < moment) => {
                    self.progress.draw_if_due();
                }
                Err(SendError::Stopped) => return Err(stopped()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn check_for_signal() -> Result<(), Early> {
    signals::received().map_or(Ok(()), |signal| Err(Early::Signal(signal)))
}

/// Nobody but a signal stops an endpoint here.
fn stopped() -> Early {
    signals::received().map_or(Early::Failed(SendError::Stopped.into()), Early::Signal)
}
