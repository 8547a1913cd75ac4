//! `shmpipe recv`: messages to standard output.
//!
//! A message is released after it was written out, never before, and everything that was written is released before
//! the next wait. So whatever ends this program, the next one continues behind what was written, and repeats the last
//! batch at most.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::time::{Duration, Instant};

use shmpipe::{Consumer, Pipe, RecvError};

use crate::args;
use crate::commands::framing::Join;
use crate::commands::role;
use crate::exit::{Early, End, Failure, Outcome};
use crate::output::progress::{Data, Progress};
use crate::output::report::Report;
use crate::system::signals;
use crate::system::stdio::{self, For};

/// Messages are written out together until they have so many bytes: with one more, mostly still less than a pipe of
/// the kernel holds.
const BATCH: usize = 60 << 10;

pub fn run(arguments: &args::Recv, report: Report) -> Outcome {
    signals::install()?;
    let consumer = role::take_role(&arguments.pipe, report, Pipe::consumer)?;
    signals::stop_on_signal(consumer.stopper());
    let join = match (arguments.raw, arguments.length_prefixed) {
        (true, _) => Join::Raw,
        (_, true) => Join::Prefixed,
        _ => Join::Lines,
    };
    let data = match (io::stdout().is_terminal(), join) {
        (false, _) => Data::Elsewhere,
        (true, Join::Lines) => Data::LinesToTerminal,
        (true, Join::Raw | Join::Prefixed) => Data::Terminal,
    };
    let progress = Progress::new(consumer.pipe().address(), data);
    let started = Instant::now();
    let mut receiver = Receiver {
        consumer,
        output: stdio::standard_output()?,
        join,
        batch: Vec::with_capacity(BATCH),
        left: arguments.count,
        timeout: arguments.timeout,
        follow: arguments.follow,
        progress,
        report,
    };
    let received = receiver.receive_all();
    receiver.progress.finish(started);
    match received {
        Ok(()) => receiver.consumer.close()?,
        // Dropped, the consumer closes too.
        Err(early) => return early.outcome(),
    }
    Ok(End::Done)
}

struct Receiver {
    consumer: Consumer,
    output: File,
    join: Join,
    batch: Vec<u8>,
    /// Messages still wanted, if they are counted.
    left: Option<u64>,
    timeout: Option<Duration>,
    follow: bool,
    progress: Progress,
    report: Report,
}

/// Why the output took only part of a batch.
struct Unwritten {
    written: usize,
    early: Early,
}

impl Receiver {
    fn receive_all(&mut self) -> Result<(), Early> {
        while self.left != Some(0) {
            if let Some(signal) = signals::received() {
                return Err(Early::Signal(signal));
            }
            if !self.pass_on()? && !self.wait()? {
                break;
            }
        }
        Ok(())
    }

    /// Writes out what is there now, one batch at most, and releases it. Tells whether there was anything.
    fn pass_on(&mut self) -> Result<bool, Early> {
        self.batch.clear();
        let limit = self.left.map_or(usize::MAX, |left| left.try_into().unwrap_or(usize::MAX));
        let mut drain = self.consumer.drain(limit);
        let (mut bytes, mut corrupt) = (0, None);
        while self.batch.len() < BATCH {
            match drain.next() {
                Ok(Some(message)) => {
                    bytes += message.len() as u64;
                    self.join.append(&message, &mut self.batch);
                }
                Ok(None) => break,
                // What was taken before is good.
                Err(error) => {
                    corrupt = Some(error);
                    break;
                }
            }
        }
        let messages = drain.taken() as u64;
        if messages > 0 {
            self.progress.make_room();
            if let Err(Unwritten { written, early }) = write_out(&mut self.output, &self.batch) {
                drain.keep();
                // A reader that left took with it what it had not read yet, so that nothing of this batch counts.
                if !matches!(early, Early::ReaderLeft) {
                    self.release_written(written)?;
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

    /// Releases those messages of a batch that are wholly within the first `written` bytes of the output.
    fn release_written(&mut self, mut written: usize) -> Result<(), RecvError> {
        let mut drain = self.consumer.drain(usize::MAX);
        let mut whole = 0;
        while let Some(message) = drain.next()? {
            let Some(rest) = written.checked_sub(self.join.span(message.len())) else { break };
            (written, whole) = (rest, whole + 1);
        }
        drain.keep();
        let mut drain = self.consumer.drain(whole);
        while drain.next()?.is_some() {}
        drain.release();
        Ok(())
    }

    /// Waits until there may be something, with nothing taken and not released. Tells whether to go on.
    fn wait(&mut self) -> Result<bool, Early> {
        let give_up = self.timeout.map(|timeout| Instant::now() + timeout);
        // Set while the producer has closed and we wait for the next one.
        let mut closed = false;
        loop {
            self.progress.draw_if_due();
            let deadline = [give_up, self.progress.next()].into_iter().flatten().min();
            let waited = match deadline {
                _ if closed => self.consumer.wait_for_peer(deadline).map(|()| false),
                Some(deadline) => self.consumer.recv_deadline(deadline).map(|message| {
                    message.keep();
                    true
                }),
                None => self.consumer.recv().map(|message| {
                    message.keep();
                    true
                }),
            };
            match waited {
                Ok(true) => return Ok(true),
                Ok(false) => closed = false,
                Err(RecvError::Closed) if !self.follow => return Ok(false),
                Err(RecvError::Closed) => closed = true,
                Err(RecvError::Abandoned) if self.follow => {
                    self.progress.clear();
                    self.report.note("the producer has died; waiting for the next one");
                }
                Err(RecvError::TimedOut) if give_up.is_none_or(|moment| Instant::now() < moment) => {}
                Err(RecvError::Stopped) => {
                    return Err(signals::received().map_or(RecvError::Stopped.into(), Early::Signal));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Writes all of it, or tells how much was written before something else happened.
fn write_out(output: &mut File, bytes: &[u8]) -> Result<(), Unwritten> {
    let mut written = 0;
    while written < bytes.len() {
        let early = match output.write(&bytes[written..]) {
            Ok(0) => Early::Failed(Failure::io("writing to standard output", &ErrorKind::WriteZero.into())),
            Ok(more) => {
                written += more;
                match signals::received() {
                    Some(signal) if written < bytes.len() => Early::Signal(signal),
                    _ => continue,
                }
            }
            Err(error) => match (error.kind(), signals::received()) {
                (ErrorKind::Interrupted | ErrorKind::WouldBlock, Some(signal)) => Early::Signal(signal),
                (ErrorKind::Interrupted, None) => continue,
                (ErrorKind::WouldBlock, None) => {
                    // Somebody has made it so; whatever the wait says, the next write knows better.
                    let _ = stdio::wait(output, For::Space, None);
                    continue;
                }
                (ErrorKind::BrokenPipe, _) => Early::ReaderLeft,
                _ => Early::Failed(Failure::io("writing to standard output", &error)),
            },
        };
        return Err(Unwritten { written, early });
    }
    Ok(())
}
