//! Runs both ends in two threads on one mapping, and writes and reads messages in place. This is for ThreadSanitizer, which follows
//! neither two processes nor two mappings of the same memory. `verification/tsan.sh` builds and runs it. Without the sanitizer it
//! only checks the messages.
//!
//! The two threads share nothing but the pipe. Anything else would order them and hide data races. So each counts for itself, and
//! returns its counts at the end. Each drops its end and claims it again while the other thread continues.

use crate::run::{Harness, Run};
use crate::verdict::Outcome;
use clap::Args;
use shmpipe::os::unix::PipeExt;
use shmpipe::{Consumer, Options, Pipe, Producer, RecvTimeoutError, SendTimeoutError, Trusted, WakeMode};
use shmpipe_testing::LONG;
use shmpipe_testing::rng::Rng;
use shmpipe_testing::within;
use std::fmt::Debug;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

/// Sends between two threads, in place, for ThreadSanitizer
#[derive(Debug, Args)]
pub struct Threads {
    /// Number of messages
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    messages: u64,
}

/// Messages through one pipe.
const LAP: u64 = 100_000;

/// The most messages until an end is dropped and claimed again.
const STINT: u64 = 1000;

/// One pause in this many messages lets the peer go to sleep.
const PAUSE: u64 = 1500;

impl Harness for Threads {
    fn run(&self, run: &Run) -> Outcome {
        run.goal(self.messages, "messages");
        while run.done() < self.messages && !run.is_over() {
            let done = run.done();
            let count = (self.messages - done).min(LAP);
            lap(&mut run.rng(done), run, count)?;
            run.advance(count);
        }
        Ok(())
    }
}

fn lap(rng: &mut Rng, run: &Run, count: u64) -> Outcome {
    let wake_mode = if rng.below(2) == 0 { WakeMode::Membarrier } else { WakeMode::Fence };
    let pipe = Options::new().capacity(4096 << rng.below(5)).wake_mode(wake_mode).create("memfd")?;
    let (mut sending, mut receiving) = (Rng(rng.word()), Rng(rng.word()));
    let [producers, consumers] = thread::scope(|scope| {
        let ends = [
            scope.spawn(|| in_stints(&mut sending, count, |rng, from, to| send(&pipe, rng, from, to))),
            scope.spawn(|| in_stints(&mut receiving, count, |rng, from, to| receive(&pipe, rng, from, to))),
        ];
        ends.map(|end| end.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    run.count("producers", producers);
    run.count("consumers", consumers);
    let memfd = pipe.fd().expect("a memfd has a descriptor").as_raw_fd();
    let seen = shmpipe::inspect(format!("fd:{memfd}").as_str())?;
    assert_eq!([seen.producer.messages, seen.consumer.messages], [count; 2]);
    run.count("wake-ups of a consumer", seen.producer.wakeups);
    run.count("wake-ups of a producer", seen.consumer.wakeups);
    Ok(())
}

/// Divides the messages 0 to `count` among successive ends. Returns the number of ends.
fn in_stints(rng: &mut Rng, count: u64, mut stint: impl FnMut(&mut Rng, u64, u64)) -> u64 {
    let (mut from, mut stints) = (0, 0);
    while from < count {
        let to = (from + 1 + rng.below(STINT)).min(count);
        stint(rng, from, to);
        (from, stints) = (to, stints + 1);
    }
    stints
}

/// Sends messages `from` to `to` as a new producer.
fn send(pipe: &Pipe, rng: &mut Rng, from: u64, to: u64) {
    let producer = pipe.producer().unwrap();
    // SAFETY: only this thread and the receiving one write to the memory, both through this library.
    let mut producer = unsafe { producer.trust_peer() };
    let deadline = within(LONG);
    let mut next = from;
    while next < to {
        pause(rng);
        next += send_some(&mut producer, rng, next, to, deadline);
    }
}

/// Sends one or more messages from number `next`. Returns how many.
fn send_some(producer: &mut Producer<Trusted>, rng: &mut Rng, next: u64, to: u64, deadline: Instant) -> u64 {
    let max = producer.max_len();
    match rng.below(8) {
        0 => insist(|| producer.send_deadline(&bytes(next, max), deadline).map(|_| 1)),
        1 => insist(|| send_batch(producer, next, to.min(next + 12))),
        2 => {
            let length = length(next, max);
            let longer = length + rng.below((max - length) as u64 + 1) as usize;
            insist(|| {
                let mut message = producer.reserve_deadline(longer, deadline)?;
                message[length..].fill(0xff);
                write(next, &mut message[..length]);
                message.commit_len(length);
                Ok(1)
            })
        }
        _ => insist(|| {
            let mut message = producer.reserve_deadline(length(next, max), deadline)?;
            write(next, &mut message);
            message.commit();
            Ok(1)
        }),
    }
}

/// Sends a batch of the messages for which there is space now, perhaps none.
fn send_batch(producer: &mut Producer<Trusted>, first: u64, end: u64) -> Result<u64, SendTimeoutError> {
    let max = producer.max_len();
    let mut free = producer.free()?;
    let mut batch = producer.batch();
    for number in first..end {
        let message = bytes(number, max);
        // Header and padding, twice in case of a wrap.
        let need = 2 * (message.len() as u64 + 16);
        if need > free {
            break;
        }
        free -= need;
        batch.push(&message)?;
    }
    let count = batch.len() as u64;
    batch.commit();
    Ok(count)
}

/// Retries if the consumer has closed, since a successor comes.
fn insist(mut send: impl FnMut() -> Result<u64, SendTimeoutError>) -> u64 {
    loop {
        match send() {
            Ok(sent) => return sent,
            Err(SendTimeoutError::Closed) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Receives messages `from` to `to` as a new consumer.
fn receive(pipe: &Pipe, rng: &mut Rng, from: u64, to: u64) {
    let consumer = pipe.consumer().unwrap();
    // SAFETY: as in `send`.
    let mut consumer = unsafe { consumer.trust_peer() };
    let deadline = within(LONG);
    let mut next = from;
    while next < to {
        pause(rng);
        next += receive_some(&mut consumer, rng, next, to, deadline);
    }
}

/// Receives messages from number `next`. Returns how many.
fn receive_some(
    consumer: &mut Consumer<Trusted>,
    rng: &mut Rng,
    next: u64,
    to: u64,
    deadline: Instant,
) -> u64 {
    let max = consumer.max_len();
    if rng.below(8) == 0 {
        let mut drain = consumer.drain((to - next).min(rng.below(20)) as usize);
        let mut taken = 0;
        while let Some(record) = drain.next().unwrap() {
            check(next + taken, max, &record);
            taken += 1;
        }
        return taken;
    }
    match consumer.recv_deadline(deadline) {
        Ok(message) if rng.below(8) == 0 => check(next, max, &message.to_vec()),
        Ok(message) => check(next, max, &message),
        // A successor comes.
        Err(RecvTimeoutError::Closed) => return 0,
        Err(error) => panic!("{error}"),
    }
    1
}

fn pause(rng: &mut Rng) {
    if rng.below(PAUSE) == 0 {
        thread::sleep(Duration::from_micros(rng.log_uniform(1000)));
    }
}

/// The length of message `number`. Every order of magnitude is equally likely, so most are short.
fn length(number: u64, max: usize) -> usize {
    Rng(!number).log_uniform(max.min(1024) as u64) as usize
}

/// The eight bytes that message `number` repeats. No recent message has the same.
fn filling(number: u64) -> [u8; 8] {
    Rng(number).word().to_ne_bytes()
}

fn bytes(number: u64, max: usize) -> Vec<u8> {
    let mut bytes = vec![0; length(number, max)];
    write(number, &mut bytes);
    bytes
}

/// Writes message `number`, which has the length of `to`, by ordinary stores, as a user does.
fn write(number: u64, to: &mut [u8]) {
    let filling = filling(number);
    let mut words = to.chunks_exact_mut(8);
    for word in &mut words {
        word.copy_from_slice(&filling);
    }
    words.into_remainder().iter_mut().zip(filling).for_each(|(byte, value)| *byte = value);
}

/// Reads message `number` and checks it.
fn check(number: u64, max: usize, found: &[u8]) {
    assert_eq!(found.len(), length(number, max), "the length of message {number}");
    let filling = filling(number);
    let words = found.chunks_exact(8);
    let rest = words.remainder();
    let whole = words.map(|word| word.try_into().unwrap_or_default()).all(|word: [u8; 8]| word == filling);
    assert!(whole && rest == &filling[..rest.len()], "message {number} is torn");
}
