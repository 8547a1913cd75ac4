//! A stream between two processes: order and content, rings of 4 to 64 KiB, messages from empty to the longest, every way
//! to send and to receive, every offset at which a ring can wrap.
//!
//! `SHMPIPE_MESSAGES=10000000 cargo test --release --test conformance stream` sends ten million.

use shmpipe::{Consumer, Options, Producer, RecvError, SendError, Tagged, Vectored, Wait};
use shmpipe_testing::backend::Backend;
use shmpipe_testing::process::{Line, Process};
use shmpipe_testing::rng::Rng;
use std::collections::BTreeSet;

/// A message of a stream, as both sides derive it from its number.
struct Plan {
    length: usize,
    /// Bytes reserved for it, if it is committed shorter than reserved.
    reserved: usize,
    /// How it is sent.
    way: u64,
    content: Rng,
}

fn plan(seed: u64, number: u64, max: usize) -> Plan {
    let mut content = Rng(seed ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
    let way = content.below(8);
    let length = content.log_uniform(max as u64) as usize;
    let reserved = match way {
        SHORTER => length + content.below((max - length) as u64 + 1) as usize,
        _ => length,
    };
    Plan { length, reserved, way, content }
}

impl Plan {
    fn bytes(mut self, buffer: &mut Vec<u8>) {
        buffer.resize(self.length, 0);
        self.content.fill(buffer);
    }
}

const VECTORED: u64 = 0;
const RESERVED: u64 = 1;
const SHORTER: u64 = 2;
const DROPPED: u64 = 3;
const BATCH: u64 = 4;

pub fn strategy(word: &str) -> Wait {
    match word {
        "spin" => Wait::Spin,
        "yield" => Wait::Yield,
        _ => Wait::Block,
    }
}

/// Where a record starts whose space was reserved for `length` bytes.
fn place_of(end: u64, length: usize, capacity: u64) -> u64 {
    let size = 8 + length.next_multiple_of(8) as u64;
    let to_end = capacity - end % capacity;
    if size > to_end { end + to_end } else { end }
}

/// Sends `count` messages, each as planned.
pub fn send_at_random(line: Line) {
    let [address, wait, seed, count] = line.words.as_slice() else { panic!() };
    let (seed, count): (u64, u64) = (seed.parse().unwrap(), count.parse().unwrap());
    let pipe = Options::new().wait(strategy(wait)).open(address.as_str()).unwrap();
    let mut producer = pipe.producer().unwrap();
    let max = pipe.max_len();
    let mut bytes = vec![];
    let mut number = 0;
    while number < count {
        let plan = plan(seed, number, max);
        let (way, reserved, length) = (plan.way, plan.reserved, plan.length);
        plan.bytes(&mut bytes);
        let tag = number as u32;
        match way {
            VECTORED => {
                let (a, b) = bytes.split_at(length / 3);
                producer.send(Tagged(tag, Vectored(&[a, &[], b]))).unwrap();
            }
            RESERVED | SHORTER => {
                let mut space = producer.reserve(reserved).unwrap();
                if reserved > length {
                    space.write(0, &vec![0xFF; reserved]);
                }
                space.tag(tag);
                space.write(0, &bytes);
                space.commit_len(length);
            }
            BATCH => {
                number += send_batch(&mut producer, seed, number, count, &mut bytes);
                continue;
            }
            _ => {
                if way == DROPPED {
                    let mut space = producer.reserve(length).unwrap();
                    space.write(0, &vec![0xFF; length]);
                    space.tag(0xDEAD_BEEF);
                }
                producer.send(Tagged(tag, &bytes)).unwrap();
            }
        }
        number += 1;
    }
    producer.close().unwrap();
}

/// Sends up to eight messages from `first` on as a batch, fewer if more can never fit. Returns how many.
fn send_batch(producer: &mut Producer, seed: u64, first: u64, count: u64, bytes: &mut Vec<u8>) -> u64 {
    let max = producer.max_len();
    let mut batch = producer.batch();
    for number in first..count.min(first + 1 + first % 8) {
        plan(seed, number, max).bytes(bytes);
        match batch.push(Tagged(number as u32, &*bytes)) {
            Ok(_) => {}
            Err(SendError::TooLarge { length, max }) if number > first && length > max => break,
            Err(error) => panic!("{error}"),
        }
    }
    let sent = batch.len() as u64;
    batch.commit();
    sent
}

/// Receives the messages of a stream and checks every property of each.
struct Checker {
    seed: u64,
    max: usize,
    capacity: u64,
    number: u64,
    /// The end of the last record.
    end: u64,
    wraps: BTreeSet<u64>,
    expected: Vec<u8>,
    seen: Vec<u8>,
}

impl Checker {
    fn check<P>(&mut self, record: &shmpipe::Record<'_, P>) {
        let plan = plan(self.seed, self.number, self.max);
        let start = record.position().get();
        assert_eq!(
            (record.tag(), record.len()),
            (self.number as u32, plan.length),
            "message {}",
            self.number
        );
        // A batch reserves the exact length, whatever the plan says.
        let mut places =
            [plan.reserved, plan.length].map(|length| place_of(self.end, length, self.capacity)).into_iter();
        assert!(places.any(|place| place == start), "message {}: {start} after {}", self.number, self.end);
        plan.bytes(&mut self.expected);
        self.seen.clear();
        record.append_to(&mut self.seen);
        assert!(self.seen == self.expected, "message {}: content", self.number);
    }

    /// Continues with the next message.
    fn advance(&mut self, start: u64, length: usize) {
        if start != self.end {
            self.wraps.insert(self.end % self.capacity);
        }
        self.end = start + 8 + length.next_multiple_of(8) as u64;
        self.number += 1;
    }

    /// Receives until the stream ends.
    fn receive_all(&mut self, consumer: &mut Consumer, rng: &mut Rng) {
        loop {
            match rng.below(8) {
                0 => {
                    let mut drain = consumer.drain(rng.below(20) as usize);
                    let mut checked = vec![];
                    let before = self.number;
                    while let Some(record) = drain.next().unwrap() {
                        self.check(&record);
                        checked.push((record.position().get(), record.len()));
                        let (start, length) = *checked.last().unwrap();
                        self.advance(start, length);
                    }
                    if rng.below(4) == 0 {
                        drain.requeue();
                        // All of them are received again.
                        self.number = before;
                        for (position, length) in checked {
                            let message = consumer.try_recv().unwrap();
                            assert_eq!(message.position().get(), position);
                            assert_eq!((message.len(), message.tag()), (length, self.number as u32));
                            self.number += 1;
                        }
                    }
                }
                1 => match consumer.recv() {
                    Ok(message) => {
                        self.check(&message);
                        message.requeue();
                    }
                    Err(RecvError::Closed) => return,
                    Err(error) => panic!("{error}"),
                },
                _ => {
                    let message = match consumer.recv() {
                        Ok(message) => message,
                        Err(RecvError::Closed) => return,
                        Err(error) => panic!("{error}"),
                    };
                    self.check(&message);
                    let (start, length) = (message.position().get(), message.len());
                    drop(message);
                    self.advance(start, length);
                }
            }
        }
    }
}

/// Streams `count` messages from a producer that plays `part` and waits by `wait`. Returns where the ring wrapped.
fn stream(backend: Backend, part: &str, capacity: u64, wait: &str, seed: u64, count: u64) -> BTreeSet<u64> {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(capacity).wait(strategy(wait))).unwrap();
    let mut consumer = pipe.consumer().unwrap();
    let words = [place.as_str(), wait, &seed.to_string(), &count.to_string()];
    let producer = Process::start(part, &words);
    let mut checker = Checker {
        seed,
        max: pipe.max_len(),
        capacity,
        number: 0,
        end: 0,
        wraps: BTreeSet::new(),
        expected: vec![],
        seen: vec![],
    };
    checker.receive_all(&mut consumer, &mut Rng(seed));
    assert_eq!(checker.number, count);
    producer.end();
    let seen = shmpipe::inspect(&place).unwrap();
    assert_eq!((seen.producer.messages, seen.consumer.messages), (count, count));
    assert_eq!(seen.producer.bytes, seen.consumer.bytes);
    assert_eq!((seen.used, seen.producer.position), (0, checker.end));
    checker.wraps
}

pub fn a_stream_arrives_in_order_and_whole(backend: Backend) {
    let total: u64 = std::env::var("SHMPIPE_MESSAGES").map_or(60_000, |text| text.parse().unwrap());
    let mut rng = Rng::of_this_run("stream");
    let rings = [4096, 8192, 16_384, 32_768, 65_536];
    let strategies = ["block", "spin", "yield"];
    let each = total.div_ceil((rings.len() * strategies.len()) as u64);
    for capacity in rings {
        for wait in strategies {
            let wraps = stream(backend, "random", capacity, wait, rng.word(), each);
            assert!(wraps.len() as u64 > each.min(1000) / 100, "{} wraps in {capacity} bytes", wraps.len());
        }
    }
}

/// For each index at which a ring of 4096 bytes can wrap, and for its end: the lengths of the messages that make it wrap
/// there. The ring starts with a record of half its size. The next record ends at the index, and the last one, of half the
/// ring again, does not fit after it. A batch has a record of 8 bytes between them, unless that makes it too long.
fn steered(pass: u64) -> Vec<(u64, Vec<usize>)> {
    let steps = (2056..=4096).step_by(8).map(|index| {
        let gap = index as usize - 2048;
        let lengths =
            if pass == BATCHES && gap >= 24 { vec![gap - 24, 8, 2040] } else { vec![gap - 8, 2040] };
        (index, lengths)
    });
    steps.collect()
}

const BATCHES: u64 = 0;
const DIRTY: u64 = 1;
const PIECES: u64 = 2;
const PASSES: u64 = 4;

/// The content of such a message.
fn steered_bytes(pass: u64, index: u64, i: usize, length: usize) -> Vec<u8> {
    vec![(index / 8 + i as u64 + pass) as u8; length]
}

pub fn send_steered(line: Line) {
    let [address, ..] = line.words.as_slice() else { panic!() };
    let mut producer = Options::new().open(address.as_str()).unwrap().producer().unwrap();
    producer.send(&[0xFF; 2040]).unwrap();
    for pass in 0..PASSES {
        for (index, lengths) in steered(pass) {
            let mut messages: Vec<Vec<u8>> = lengths
                .iter()
                .enumerate()
                .map(|(i, &length)| steered_bytes(pass, index, i, length))
                .collect();
            let tag = index as u32;
            if pass == BATCHES {
                producer.send(Tagged(tag, &messages.remove(0))).unwrap();
                let mut batch = producer.batch();
                for message in &messages {
                    batch.push(Tagged(tag, message)).unwrap();
                }
                batch.commit();
                continue;
            }
            for message in messages {
                match pass {
                    // Writes the reservation twice.
                    DIRTY => {
                        let mut space = producer.reserve(message.len()).unwrap();
                        space.write(0, &vec![0xFF; message.len()]);
                        space.tag(tag);
                        space.write(0, &message);
                        space.commit();
                    }
                    PIECES => {
                        let (first, second) = message.split_at(message.len() / 5);
                        producer.send(Tagged(tag, Vectored(&[first, second]))).unwrap();
                    }
                    _ => {
                        let mut space = producer.reserve(message.len()).unwrap();
                        space.write(0, &vec![0xFF; message.len()]);
                        drop(space);
                        producer.send(Tagged(tag, &message)).unwrap();
                    }
                }
            }
        }
    }
    producer.close().unwrap();
}

pub fn a_ring_wraps_at_every_possible_offset(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(4096)).unwrap();
    let mut consumer = pipe.consumer().unwrap();
    let producer = Process::start("steered", &[place.as_str()]);
    assert_eq!(consumer.recv().unwrap().to_vec(), [0xFF; 2040]);
    let mut end = 2048;
    for pass in 0..PASSES {
        let mut wraps = BTreeSet::new();
        for (index, lengths) in steered(pass) {
            for (i, length) in lengths.into_iter().enumerate() {
                let message = consumer.recv().unwrap();
                assert_eq!(message.tag(), index as u32);
                assert_eq!(
                    message.to_vec(),
                    steered_bytes(pass, index, i, length),
                    "pass {pass}, index {index}"
                );
                let start = message.position().get();
                assert_eq!(start, place_of(end, length, 4096));
                if start != end {
                    assert_eq!(end % 4096, index);
                    wraps.insert(index);
                }
                end = start + 8 + length.next_multiple_of(8) as u64;
            }
        }
        // Only in the second half, since less than half the ring is skipped. At index 4096 the record fits without a wrap.
        assert_eq!(wraps, (2056..4096).step_by(8).collect());
    }
    assert_eq!(consumer.recv().unwrap_err(), RecvError::Closed);
    producer.end();
}
