//! The same calls on a pipe and on a model, which must agree.
//!
//! The calls send, reserve, commit shorter, batch, receive, requeue and drain. Ends close, die and come back. All runs use the same
//! rings, from 4096 bytes to 1 MiB, through two handles with separate mappings. Positions start near 0, 2^32, 2^63 and 2^64, and the
//! free part of the ring is full of old bytes. Checked at every step:
//!
//! * each call has the result of the model (`queue.rs`), a `VecDeque` with LAYOUT.md's arithmetic of space and its rules of ends and
//!   deaths: the same message with the same bytes, tag and position, or the same error;
//! * after a death, exactly the committed messages are there, and those taken and not released repeat;
//! * at the end, positions, states and counters in the header match the model, and all messages can be received.
//!
//! To simulate a death, an end is dropped, and the words that the drop wrote are restored. The kernel has then freed the role, as
//! after a kill. An early death is between the commit and the stores that follow it.

#![no_main]

mod input;
mod queue;

use input::{Input, Length, Side, Step, When};
use libfuzzer_sys::fuzz_target;
use queue::{Message, Phase, Queue, Why};
use shmpipe::{Consumer, Pipe, Producer, SetupError, Tagged, Vectored, WaitError};
use shmpipe_fuzz::bare::Bare;
use shmpipe_fuzz::model::{self, Image};
use shmpipe_testing::errors::{AnyRecvError, AnySendError};
use shmpipe_testing::layout::{self, counters, side};
use std::cell::RefCell;
use std::time::Instant;

/// The number of capacities, from 4096 bytes, each twice the one before.
const SIZES: usize = 9;

/// The most steps of a run.
const STEPS: usize = 60;

thread_local! {
    static BENCHES: RefCell<[Option<Bench>; SIZES]> = const { RefCell::new([const { None }; SIZES]) };
}

fuzz_target!(|input: Input| {
    BENCHES.with_borrow_mut(|benches| {
        let size = input.size();
        let bench = benches[size].get_or_insert_with(|| Bench::make(4096 << size));
        let mut run = Run::new(bench, &input);
        for step in input.steps.iter().take(STEPS) {
            run.step(step);
            run.agrees();
        }
        run.end();
    });
});

/// Reused by all runs.
struct Bench {
    bare: Bare,
    other: Pipe,
    scratch: Image,
    /// The source of message contents.
    noise: Vec<u8>,
}

impl Bench {
    fn make(capacity: u64) -> Self {
        let bare = Bare::make(capacity);
        let other = bare.pipe.reopen().expect("it is there");
        Bench { scratch: bare.fresh.clone(), noise: noise(65536 + capacity as usize), other, bare }
    }
}

/// Bytes without repetition.
fn noise(length: usize) -> Vec<u8> {
    let mut word = 1u64;
    let next = |_| {
        word = word.rotate_left(5).wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
        (word >> 32) as u8
    };
    (0..length).map(next).collect()
}

struct Run<'a> {
    bench: &'a mut Bench,
    queue: Queue,
    producer: Option<Producer>,
    consumer: Option<Consumer>,
    /// The tail and the producer's counters before its last commit.
    before: Option<(u64, [u64; 2])>,
    /// The number of contents so far.
    made: usize,
    closes: u32,
}

/// Offset and size of a side's line, and of its counters.
fn words(side: Side) -> [(usize, usize); 2] {
    match side {
        Side::Producer => [(layout::PRODUCER, side::SIZE), (layout::PRODUCED, counters::SIZE)],
        Side::Consumer => [(layout::CONSUMER, side::SIZE), (layout::CONSUMED, counters::SIZE)],
    }
}

impl<'a> Run<'a> {
    fn new(bench: &'a mut Bench, input: &Input) -> Self {
        input.start.prepare(&bench.bare, &mut bench.scratch);
        let queue = Queue::new(bench.bare.pipe.capacity(), input.start.position());
        let mut run = Run { bench, queue, producer: None, consumer: None, before: None, made: 0, closes: 0 };
        run.claim(Side::Producer, false);
        run.claim(Side::Consumer, true);
        run
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Claim { side, other } => self.claim(side, other),
            Step::Close(side) => self.close(side, true),
            Step::Drop(side) => self.close(side, false),
            Step::Crash { side, early } => self.crash(side, early),
            Step::Reopen => self.bench.other = self.bench.bare.pipe.reopen().expect("it is there"),
            Step::Send { length, tag, when } => self.send(length, tag, when),
            Step::Gather { length, parts } => self.gather(length, parts),
            Step::Reserve { length, less, when } => self.reserve(length, less, when),
            Step::Batch { ref lengths, commit } => self.batch(lengths, commit),
            Step::Free => {
                if let Some(producer) = &mut self.producer {
                    // 8 bytes always stay free.
                    assert_eq!(producer.free(), Ok(self.queue.capacity - self.queue.used() - 8));
                }
            }
            Step::Recv { keep, when } => self.receive(keep, when),
            Step::Drain { limit, keep } => self.drain(limit.into(), keep),
            Step::WaitForPeer(side) => self.wait_for_peer(side),
            Step::Peer(side) => self.peer(side),
        }
    }

    /// Checks the positions of both ends.
    fn agrees(&self) {
        let queue = &self.queue;
        if let Some(producer) = &self.producer {
            assert_eq!(producer.position().get(), queue.tail);
        }
        if let Some(consumer) = &self.consumer {
            assert_eq!(consumer.position().get(), queue.head);
        }
    }

    /// Takes all messages, and checks the header.
    fn end(mut self) {
        self.close(Side::Producer, true);
        self.claim(Side::Consumer, false);
        while !self.queue.messages.is_empty() {
            self.receive(false, When::Now);
        }
        self.close(Side::Consumer, true);
        let (bare, queue) = (&self.bench.bare, &self.queue);
        assert_eq!((bare.word(layout::HEAD), queue.head), (queue.tail, queue.tail));
        for (offset, end) in [(layout::PRODUCER, &queue.producer), (layout::CONSUMER, &queue.consumer)] {
            assert_eq!((bare.word(offset), bare.word(offset + side::REPORTED)), (end.word(), end.reported));
        }
        for (offset, counts) in [(layout::PRODUCED, queue.produced), (layout::CONSUMED, queue.consumed)] {
            assert_eq!([counters::MESSAGES, counters::BYTES].map(|word| bare.word(offset + word)), counts);
        }
    }

    /// The content of the next message: noise, from another place each time.
    fn content(&mut self, length: usize) -> Vec<u8> {
        self.made += 1;
        let start = self.made * 7 % 65521;
        self.bench.noise[start..start + length].to_vec()
    }

    fn length(&self, length: Length) -> usize {
        length.of(self.queue.capacity, self.queue.tail, self.queue.used())
    }

    fn claim(&mut self, side: Side, other: bool) {
        let pipe = if other { &self.bench.other } else { &self.bench.bare.pipe };
        let claimed = match side {
            Side::Producer => pipe.producer().map(|producer| (Some(producer), None)),
            Side::Consumer => pipe.consumer().map(|consumer| (None, Some(consumer))),
        };
        let is_held = self.queue.ends(side).0.is_held;
        match claimed {
            Ok((producer, consumer)) => {
                assert!(!is_held, "a second {side:?}");
                if let Some(producer) = producer {
                    self.producer = Some(producer);
                    self.before = None;
                }
                if let Some(consumer) = consumer {
                    self.consumer = Some(consumer);
                }
                self.queue.claim(side);
                self.agrees();
            }
            Err(SetupError::RoleTaken { .. }) => assert!(is_held, "there is no {side:?}"),
            Err(error) => panic!("{error}"),
        }
    }

    /// Every fourth explicit close is an abort.
    fn close(&mut self, side: Side, explicit: bool) {
        self.closes += u32::from(explicit);
        let aborts = explicit && self.closes % 4 == 0;
        match side {
            Side::Producer => match self.producer.take() {
                Some(producer) if aborts => producer.abort(self.closes).expect("it is there"),
                Some(producer) if explicit => producer.close().expect("it is there"),
                Some(producer) => drop(producer),
                None => return,
            },
            Side::Consumer => match self.consumer.take() {
                Some(consumer) if aborts => consumer.abort(self.closes).expect("it is there"),
                Some(consumer) if explicit => consumer.close().expect("it is there"),
                Some(consumer) => drop(consumer),
                None => return,
            },
        }
        let (own, _) = self.queue.ends(side);
        (own.phase, own.is_held) = (if aborts { Phase::Aborted } else { Phase::Closed }, false);
        if aborts {
            own.code = self.closes;
        }
    }

    fn crash(&mut self, side: Side, early: bool) {
        let bare = &self.bench.bare;
        let before = words(side).map(|(offset, size)| {
            let mut bytes = vec![0; size];
            bare.read_at(offset, &mut bytes);
            (offset, bytes)
        });
        let phase = self.queue.ends(side).0.phase;
        match side {
            Side::Producer if self.producer.is_some() => self.producer = None,
            Side::Consumer if self.consumer.is_some() => self.consumer = None,
            _ => return,
        }
        before.iter().for_each(|(offset, bytes)| bare.write_at(*offset, bytes));
        if let (Side::Producer, true, Some((tail, counts))) = (side, early, self.before.take()) {
            bare.set(layout::TAIL, tail);
            bare.set(layout::PRODUCED + counters::MESSAGES, counts[0]);
            bare.set(layout::PRODUCED + counters::BYTES, counts[1]);
            self.queue.produced = counts;
        }
        let (own, _) = self.queue.ends(side);
        (own.phase, own.is_held) = (phase, false);
    }

    /// The expected result of sending `length` bytes: start and end, or an error.
    fn expected(&mut self, length: usize, when: When) -> Result<(u64, u64), AnySendError> {
        let queue = &mut self.queue;
        let max = model::longest(queue.capacity) as usize;
        if length > max {
            return Err(AnySendError::TooLarge { length, max });
        }
        if let Some(end) = queue.consumer_end() {
            return Err(end);
        }
        let (start, end) = queue.slot(queue.tail, length);
        if queue.has_room(end) {
            return Ok((start, end));
        }
        Err(match when {
            When::Now => AnySendError::Full,
            When::Cancelled => AnySendError::Cancelled,
            When::Late if queue.producer.is_cancelled => AnySendError::Cancelled,
            When::Late if queue.why(Side::Producer, true) == Why::Died => AnySendError::PeerDied,
            When::Late => AnySendError::TimedOut,
        })
    }

    fn committed(&mut self, messages: Vec<Message>) {
        self.before = Some((self.queue.tail, self.queue.produced));
        self.queue.commit(messages);
    }

    fn cancel_producer(&mut self) {
        if let Some(producer) = &self.producer {
            producer.cancel_handle().cancel();
            self.queue.producer.is_cancelled = true;
        }
    }

    fn send(&mut self, length: Length, tag: Option<u16>, when: When) {
        let length = self.length(length);
        if self.producer.is_none() {
            return;
        }
        // Only a call that waits has a tag.
        let when = if tag.is_some() { When::Cancelled } else { when };
        if when == When::Cancelled {
            self.cancel_producer();
        }
        let (expected, bytes) = (self.expected(length, when), self.content(length));
        let tag = tag.map_or(0, |tag| u32::from(tag) << 16 | 0xffff);
        let producer = self.producer.as_mut().expect("there is one");
        let sent = match (when, tag) {
            (When::Now, _) => producer.try_send(&bytes).map_err(AnySendError::from),
            (When::Late, _) => producer.send_deadline(&bytes, Instant::now()).map_err(AnySendError::from),
            (When::Cancelled, 0) => producer.send(&bytes).map_err(AnySendError::from),
            (When::Cancelled, tag) => producer.send(Tagged(tag, &bytes)).map_err(AnySendError::from),
        };
        assert_eq!(sent.map(|position| position.get()), expected.map(|(start, _)| start));
        if let Ok((position, _)) = expected {
            self.committed(vec![Message { position, tag, bytes }]);
        }
    }

    fn gather(&mut self, length: Length, parts: u8) {
        let length = self.length(length);
        if self.producer.is_none() {
            return;
        }
        self.cancel_producer();
        let (expected, bytes) = (self.expected(length, When::Cancelled), self.content(length));
        let pieces: Vec<&[u8]> = bytes.chunks(length / (usize::from(parts) + 1) + 1).collect();
        let producer = self.producer.as_mut().expect("there is one");
        let sent = producer.send(Tagged(7, Vectored(&pieces))).map_err(AnySendError::from);
        assert_eq!(sent.map(|position| position.get()), expected.map(|(start, _)| start));
        if let Ok((position, _)) = expected {
            self.committed(vec![Message { position, tag: 7, bytes }]);
        }
    }

    fn reserve(&mut self, length: Length, less: Option<u16>, when: When) {
        let length = self.length(length);
        if self.producer.is_none() {
            return;
        }
        if when == When::Cancelled {
            self.cancel_producer();
        }
        let (expected, mut bytes) = (self.expected(length, when), self.content(length));
        let producer = self.producer.as_mut().expect("there is one");
        let reserved = match when {
            When::Now => producer.try_reserve(length).map_err(AnySendError::from),
            When::Late => producer.reserve_deadline(length, Instant::now()).map_err(AnySendError::from),
            When::Cancelled => producer.reserve(length).map_err(AnySendError::from),
        };
        let mut reservation = match reserved {
            Ok(reservation) => reservation,
            Err(error) => return assert_eq!(Err(error), expected),
        };
        let (start, _) = expected.expect("no space for this");
        // Writes two pieces, the second one first, over bytes that must not show.
        let middle = length / 2;
        reservation.write(0, &vec![0xff; length]);
        reservation.write(middle, &bytes[middle..]);
        reservation.write(0, &bytes[..middle]);
        reservation.tag(3);
        let Some(less) = less else { return };
        bytes.truncate(length - usize::from(less).min(length));
        assert_eq!(reservation.commit_len(bytes.len()).get(), start);
        self.committed(vec![Message { position: start, tag: 3, bytes }]);
    }

    fn batch(&mut self, lengths: &[Length], commit: bool) {
        if self.producer.is_none() {
            return;
        }
        // A push has no deadline.
        self.cancel_producer();
        let lengths: Vec<_> = lengths.iter().take(12).map(|&length| self.length(length)).collect();
        let contents: Vec<_> = lengths.iter().map(|&length| self.content(length)).collect();
        let queue = &mut self.queue;
        let capacity = queue.capacity;
        let max = model::longest(capacity) as usize;
        let mut at = queue.tail;
        let mut messages = vec![];
        let mut batch = self.producer.as_mut().expect("there is one").batch();
        for (tag, bytes) in (1..).zip(contents) {
            let length = bytes.len();
            let (position, end) = queue.slot(at, length);
            let span = end.wrapping_add(8).wrapping_sub(queue.tail);
            let expected = if length > max {
                Err(AnySendError::TooLarge { length, max })
            } else if span > capacity {
                Err(AnySendError::TooLarge { length: span as usize, max: capacity as usize })
            } else if let Some(end) = queue.consumer_end() {
                Err(end)
            } else if !queue.has_room(end) {
                Err(AnySendError::Cancelled)
            } else {
                Ok(position)
            };
            let pushed = batch.push(Tagged(tag, &bytes)).map_err(AnySendError::from);
            assert_eq!(pushed.map(|position| position.get()), expected);
            if expected.is_ok() {
                messages.push(Message { position, tag, bytes });
                at = end;
            }
        }
        assert_eq!(batch.len(), messages.len());
        if commit {
            batch.commit();
            if !messages.is_empty() {
                self.committed(messages);
            }
        }
    }

    fn receive(&mut self, keep: bool, when: When) {
        let Some(consumer) = &mut self.consumer else { return };
        if when == When::Cancelled {
            consumer.cancel_handle().cancel();
            self.queue.consumer.is_cancelled = true;
        }
        let received = match when {
            When::Now => consumer.try_recv().map_err(AnyRecvError::from),
            When::Late => consumer.recv_deadline(Instant::now()).map_err(AnyRecvError::from),
            When::Cancelled => consumer.recv().map_err(AnyRecvError::from),
        };
        let queue = &mut self.queue;
        let Some(expected) = queue.messages.front() else {
            let asks = when == When::Late && !queue.consumer.is_cancelled;
            let why = match (queue.why(Side::Consumer, asks), when) {
                (Why::Closed, _) => AnyRecvError::Closed,
                (Why::Aborted(code), _) => AnyRecvError::PeerAborted { code },
                (Why::Died, _) => AnyRecvError::PeerDied,
                (Why::Not, When::Now) => AnyRecvError::Empty,
                (Why::Not, When::Late) if asks => AnyRecvError::TimedOut,
                (Why::Not, _) => AnyRecvError::Cancelled,
            };
            return assert_eq!(received.expect_err("no message was sent"), why);
        };
        let message = received.expect("a message was sent");
        let (position, tag, bytes) = (message.position().get(), message.tag(), message.to_vec());
        assert!(
            *expected == Message { position, tag, bytes },
            "{position:x}, expected {:x}",
            expected.position
        );
        if keep {
            message.requeue();
        } else {
            message.release();
            queue.release(1);
        }
    }

    fn drain(&mut self, limit: usize, keep: bool) {
        let Some(consumer) = &mut self.consumer else { return };
        let mut drain = consumer.drain(limit);
        let count = self.queue.messages.len().min(limit);
        let mut bytes = vec![];
        for expected in self.queue.messages.iter().take(count) {
            let record = drain.next().expect("nothing is corrupt").expect("a message was sent");
            bytes.clear();
            record.append_to(&mut bytes);
            assert_eq!((record.position().get(), record.tag()), (expected.position, expected.tag));
            assert!(bytes == expected.bytes, "the payload differs at {:x}", expected.position);
        }
        assert!(drain.next().expect("nothing is corrupt").is_none());
        assert_eq!(drain.taken(), count);
        if keep {
            drain.requeue();
        } else {
            drain.release();
            self.queue.release(count);
        }
    }

    fn wait_for_peer(&mut self, side: Side) {
        let now = Some(Instant::now());
        let came = match side {
            Side::Producer => match &mut self.producer {
                Some(producer) => producer.wait_for_peer(now).map_err(assert_late),
                None => return,
            },
            Side::Consumer => match &mut self.consumer {
                Some(consumer) => consumer.wait_for_peer(now).map_err(assert_late),
                None => return,
            },
        };
        assert_eq!(came.is_ok(), self.queue.has_peer(side));
    }

    fn peer(&mut self, side: Side) {
        let peer = match side {
            Side::Producer => self.producer.as_ref().map(Producer::peer),
            Side::Consumer => self.consumer.as_ref().map(Consumer::peer),
        };
        if let Some(peer) = peer {
            assert_eq!(peer, self.queue.peer(side));
        }
    }
}

/// A wait ends only by its deadline or a cancel.
fn assert_late(error: WaitError) {
    assert!(matches!(error, WaitError::TimedOut | WaitError::Cancelled), "{error:?}");
}
