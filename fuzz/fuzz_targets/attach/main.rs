//! Arbitrary bytes as a segment.
//!
//! A genuine pipe is made once and laid bare. Each run writes a good segment into it, spoils it in some places, and asks
//! the library for this and that; meanwhile the bytes and the semaphores may change again at any step, as they
//! would if another process were hostile. Checked at every step:
//!
//! * nothing panics, reads or writes outside the segment, or goes on for ever (the compiler's assertions, the
//!   address sanitizer, and the fuzzer's own limit on time);
//! * what is opened and what is received is what a second reading of LAYOUT.md (`model.rs`) says, to the byte;
//! * each call writes only to the words that LAYOUT.md gives to its side, and a producer only to the free part of the
//!   ring;
//! * in the end nothing is left: no semaphore raised, no segment or set more than before, and another pipe, which
//!   a header may name, is as it was.

#![no_main]

mod bench;
mod input;
mod model;

use bench::{Bench, Others, Values};
use input::{Input, Patience, Setting, Step};
use libfuzzer_sys::fuzz_target;
use model::{Found, Image};
use shmpipe::{Consumer, Message, Object, Options, Pipe, Producer, RecvError, SendError, SetupError};
use std::cell::RefCell;
use std::ops::Range;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Steps of a run that are looked at; more make it slow and find nothing new.
const STEPS: usize = 25;

/// Whether nobody else makes or removes System V objects where we are.
static ALONE: OnceLock<bool> = OnceLock::new();

thread_local! {
    static BENCHES: RefCell<Option<(Bench, Others)>> = const { RefCell::new(None) };
}

fuzz_target!(init: { ALONE.get_or_init(bench::confine); }, |input: Input| {
    BENCHES.with_borrow_mut(|benches| {
        let (bench, others) = benches.get_or_insert_with(|| (Bench::make(0), Others::make()));
        if !run(bench, others, &input) {
            *bench = Bench::make(0);
        }
    });
});

/// Runs one input; whether the segment and its set are still there afterwards.
fn run(bench: &mut Bench, others: &Others, input: &Input) -> bool {
    let before = ALONE.get().is_some_and(|alone| *alone).then(bench::census);
    let mut run = Run::new(bench, others, input);
    for step in input.steps.iter().take(STEPS) {
        run.step(step);
        if !run.bench.is_there() {
            break;
        }
    }
    run.end().into_iter().for_each(bench::remove_set);
    others.check();
    if !bench.is_there() {
        bench.remove();
        return false;
    }
    assert_eq!(bench::values(bench.set).ok(), Some(bench.resting), "the semaphores");
    if let Some(before) = before {
        assert_eq!(bench.attached(), 1, "attachments");
        assert_eq!(bench::census(), before, "segments and sets");
    }
    true
}

/// A producer, and what is known about it.
struct Sending {
    producer: Producer,
    tail: u64,
    /// The read position that it believes.
    head: u64,
    capacity: u64,
    corrupt: bool,
    /// Somebody else has written to the segment since the claim: what the producer cleared ahead may be anything.
    overwritten: bool,
}

/// What a producer finds that looks for space.
#[derive(Debug, PartialEq, Eq)]
enum Room {
    /// For a record at this position.
    At(u64),
    Full,
    Corrupt,
}

impl Sending {
    fn stop(&self) {
        self.producer.stopper().stop();
    }

    /// Looks for space behind `at` when the header tells of the read position `seen`.
    fn room(&mut self, at: u64, length: usize, seen: u64) -> Room {
        let (size, to_end) = (model::size(length as u64), self.capacity - at % self.capacity);
        let start = if size > to_end { at.wrapping_add(to_end) } else { at };
        let need = start.wrapping_add(size).wrapping_add(8);
        let fits = |head: u64| need.wrapping_sub(head) <= self.capacity;
        if fits(self.head) {
            return Room::At(start);
        }
        if seen % 8 != 0 || seen.wrapping_sub(self.head) > self.tail.wrapping_sub(self.head) {
            return Room::Corrupt;
        }
        let fits = fits(seen);
        self.head = seen;
        if fits { Room::At(start) } else { Room::Full }
    }

    /// Whether this outcome, with the position sent to, is what it should be.
    fn check(&mut self, sent: &Result<u64, SendError>, at: u64, length: usize, seen: u64) {
        let longest = model::longest(self.capacity) as usize;
        if *sent == Err(SendError::TooLarge { length, max: longest }) {
            assert!(length > longest);
            return;
        }
        assert!(length <= longest);
        let spoilt = match sent {
            Err(SendError::Closed) => return,
            Err(SendError::Corrupt(corruption)) => corruption.word() == "state",
            _ => false,
        };
        if !self.corrupt && !spoilt {
            let room = self.room(at, length, seen);
            match sent {
                Ok(start) => assert_eq!(room, Room::At(*start)),
                Err(SendError::Corrupt(corruption)) => assert_eq!(room, Room::Corrupt, "{corruption}"),
                Err(error) => assert_eq!(room, Room::Full, "{error}"),
            }
        }
        let corrupt = matches!(sent, Err(SendError::Corrupt(_)));
        assert!(corrupt || !self.corrupt, "{sent:?} after corruption");
        self.corrupt = corrupt;
    }

    /// The offsets in the segment of what is free: from the tail to the read position one lap on, in two pieces.
    fn free(&self) -> [Range<usize>; 2] {
        let free = self.capacity - self.tail.wrapping_sub(self.head).min(self.capacity);
        let end = self.tail % self.capacity + free;
        let offset = |index: u64| model::HEADER + index as usize;
        [
            offset(self.tail % self.capacity)..offset(end.min(self.capacity)),
            offset(0)..offset(end.saturating_sub(self.capacity)),
        ]
    }
}

/// A consumer, and what is known about it.
struct Receiving {
    consumer: Consumer,
    head: u64,
    capacity: u64,
    corrupt: bool,
}

impl Receiving {
    fn receive(&mut self, patience: Patience, deadline: Option<Instant>) -> Result<Message<'_>, RecvError> {
        match (deadline, patience) {
            (Some(deadline), _) => self.consumer.recv_deadline(deadline),
            (None, Patience::Try) => self.consumer.try_recv(),
            (None, _) => {
                self.consumer.stopper().stop();
                self.consumer.recv()
            }
        }
    }
}

struct Run<'a> {
    bench: &'a mut Bench,
    others: &'a Others,
    /// The segment before a step and after it.
    before: Image,
    after: Image,
    pipe: Option<Pipe>,
    producer: Option<Sending>,
    consumer: Option<Receiving>,
    /// The sets under which the library has put a segment that it believed to have lost its own.
    adopted: Vec<i32>,
    /// The semaphores were set from outside.
    meddled: bool,
    /// One long wait and one listing per run are enough: they are slow.
    waited: bool,
    listed: bool,
}

/// What the two sides may write to, and who adopts a segment.
const PRODUCERS: Range<usize> = model::TAIL..model::HEAD;
const CONSUMERS: Range<usize> = model::HEAD..model::END;
const ADOPTERS: Range<usize> = model::SEM_ID..model::SEM_ID + 4;

impl<'a> Run<'a> {
    fn new(bench: &'a mut Bench, others: &'a Others, input: &Input) -> Self {
        let [mut before, after] = std::mem::take(&mut bench.scratch);
        before.0.copy_from_slice(if input.used { &bench.used.0 } else { &bench.fresh.0 });
        input.patches.iter().for_each(|patch| patch.apply(&mut before));
        bench.write(&before);
        Run {
            before,
            after,
            bench,
            others,
            pipe: None,
            producer: None,
            consumer: None,
            adopted: vec![],
            meddled: false,
            waited: false,
            listed: false,
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Patch(patch) => {
                patch.apply(&mut self.before);
                self.bench.write(&self.before);
                if let Some(sending) = &mut self.producer {
                    sending.overwritten = true;
                }
            }
            Step::Semaphore { number, value } => {
                self.meddled = true;
                let value = match value {
                    Setting::Zero => 0,
                    Setting::One => 1,
                    Setting::Making => bench::MAKING,
                    Setting::Any(value) => value % 32768,
                };
                self.bench.set_value(1 + number % 7, value);
            }
            Step::OtherSet { foreign } => {
                let id = if *foreign { self.others.foreign } else { self.others.pipe.set };
                self.before.write(model::SEM_ID, &id.to_ne_bytes());
                self.bench.write(&self.before);
            }
            Step::Open { alone, schema } => self.open(*alone, *schema),
            Step::Producer => self.claim_producer(),
            Step::Consumer => self.claim_consumer(),
            Step::Send { length, fill, patience } => self.send(*length, *fill, *patience),
            Step::Reserve { length, commit, patience } => self.reserve(*length, *commit, *patience),
            Step::Batch(lengths) => self.batch(lengths),
            Step::Free => self.free(),
            Step::Recv { patience, keep } => self.receive(*patience, *keep),
            Step::Value => self.receive_value(),
            Step::Drain { limit, keep } => self.drain(*limit, *keep),
            Step::Peers => self.peers(),
            Step::WaitForPeers(patience) => self.wait_for_peers(*patience),
            Step::CloseProducer => {
                if let Some(sending) = self.producer.take() {
                    let _ = sending.producer.close();
                    self.wrote(&[PRODUCERS]);
                }
            }
            Step::CloseConsumer => {
                self.consumer = None;
                self.wrote(&[CONSUMERS]);
            }
            Step::ClosePipe => {
                self.pipe = None;
                self.wrote(&[]);
            }
            Step::Inspect => self.inspect(),
            Step::List => self.list(),
            Step::Unlink { force } => self.unlink(*force),
        }
    }

    /// Drops everything; the sets under which the library has put the segment.
    fn end(mut self) -> Vec<i32> {
        for step in [Step::CloseProducer, Step::CloseConsumer, Step::ClosePipe] {
            self.step(&step);
        }
        if self.meddled {
            self.bench.set_values(&self.bench.resting);
        }
        self.bench.scratch = [self.before, self.after];
        self.adopted
    }

    fn address(&self) -> String {
        format!("sysv:id:{}", self.bench.id)
    }

    /// Takes note of what the last call did to the segment, which must lie within `allowed`.
    fn wrote(&mut self, allowed: &[Range<usize>]) {
        self.bench.read(&mut self.after);
        if self.before.0 == self.after.0 {
            return;
        }
        for offset in (0..self.before.0.len()).step_by(8) {
            if self.before.0[offset..offset + 8] != self.after.0[offset..offset + 8] {
                let is_allowed = allowed.iter().any(|range| range.contains(&offset));
                assert!(is_allowed, "wrote to byte {offset}, allowed {allowed:?}");
            }
        }
        std::mem::swap(&mut self.before, &mut self.after);
    }

    /// The semaphores of the set that the header names, if that set guards the segment.
    fn guards(&self) -> Option<Values> {
        let named = self.before.half(model::SEM_ID) as i32;
        let values = (named == self.bench.set || self.adopted.contains(&named)).then(|| bench::values(named));
        values.and_then(Result::ok).filter(|values| bench::guards(values, self.bench.id))
    }

    /// Opens the pipe, unless it is open.
    fn open(&mut self, alone: bool, schema: bool) {
        if self.pipe.is_some() {
            return;
        }
        let guards = self.guards();
        // While somebody is attached, the library gives them a second to go before it believes that a set is lost.
        let alone = alone || guards.is_none();
        if alone {
            self.bench.detach();
        }
        if guards.is_none() && self.bench.attached() > 0 {
            self.bench.attach();
            return;
        }
        let opened = Options::new().schema(schema.into()).open(self.address().as_str());
        if alone {
            assert!(self.bench.attach(), "opening removed the segment");
        }
        let is_good = self.before.is_pipe()
            && self.before.word(model::SCHEMA) == u64::from(schema)
            && guards.is_none_or(|values| values[7] < bench::LARGEST);
        assert_eq!(opened.is_ok(), is_good, "{opened:?}");
        match &opened {
            Ok(pipe) => {
                assert_eq!(pipe.capacity(), self.before.word(model::CAPACITY));
                assert_eq!(pipe.id().get(), self.before.word(model::SEGMENT_ID));
                assert_eq!(pipe.max_len() as u64, model::longest(pipe.capacity()));
            }
            Err(error) => says(error),
        }
        if guards.is_some() {
            self.wrote(&[]);
        } else {
            self.wrote(&[ADOPTERS]);
            if opened.is_ok() {
                self.adopted.push(self.before.half(model::SEM_ID) as i32);
            }
        }
        self.pipe = opened.ok();
    }

    fn ring(&self, capacity: u64) -> &[u8] {
        &self.before.ring()[..capacity as usize]
    }

    fn claim_producer(&mut self) {
        let Some(pipe) = self.pipe.as_ref().filter(|_| self.producer.is_none()) else { return };
        let (head, tail) = (self.before.word(model::HEAD), self.before.word(model::TAIL));
        let expected = model::last_commit(self.ring(pipe.capacity()), head, tail);
        match pipe.producer() {
            Ok(producer) => {
                let (tail, capacity) = (producer.position().get(), producer.capacity());
                assert_eq!(Some(tail), expected);
                self.producer =
                    Some(Sending { producer, tail, head, capacity, corrupt: false, overwritten: false });
            }
            Err(SetupError::Corrupt(corruption)) => {
                assert!(corruption.word() == "state" || expected.is_none(), "{corruption}");
            }
            Err(error) => self.refused(&error),
        }
        self.wrote(&[PRODUCERS]);
    }

    fn claim_consumer(&mut self) {
        let Some(pipe) = self.pipe.as_ref().filter(|_| self.consumer.is_none()) else { return };
        let (head, tail) = (self.before.word(model::HEAD), self.before.word(model::TAIL));
        let is_good = head % 8 == 0 && tail % 8 == 0 && model::are_near(head, tail, pipe.capacity());
        match pipe.consumer() {
            Ok(consumer) => {
                // The write position is no business of a consumer's.
                assert!(head % 8 == 0);
                assert_eq!(consumer.position().get(), head);
                let capacity = consumer.capacity();
                self.consumer = Some(Receiving { consumer, head, capacity, corrupt: false });
            }
            Err(SetupError::Corrupt(corruption)) => {
                assert!(corruption.word() == "state" || !is_good, "{corruption}");
            }
            Err(error) => self.refused(&error),
        }
        self.wrote(&[CONSUMERS]);
    }

    /// A claim fails only if somebody has set semaphores from outside.
    fn refused(&self, error: &SetupError) {
        says(error);
        assert!(self.meddled, "{error}");
    }

    /// Checks what became of a message, given the position it was sent to, and what was written for it. A record
    /// that was reserved may have been committed with fewer bytes than the `length` that was asked for.
    fn sent(&mut self, sent: Result<u64, SendError>, length: usize, committed: usize, fill: u8) {
        let seen = self.before.word(model::HEAD);
        let sending = self.producer.as_mut().expect("there is a producer");
        let (tail, capacity, overwritten) = (sending.tail, sending.capacity, sending.overwritten);
        sending.check(&sent, tail, length, seen);
        let [first, second] = sending.free();
        let end = sent.map(|start| (start, start.wrapping_add(model::size(committed as u64))));
        if let Ok((_, end)) = end {
            sending.tail = end;
        }
        self.wrote(&[PRODUCERS, first, second]);
        if let Ok((start, end)) = end {
            let ring = self.ring(capacity);
            let found = model::look(ring, tail, end.wrapping_add(8));
            assert_eq!(found, Found::Record { start, end, length: committed, tag: 0 });
            if !overwritten {
                assert_eq!(model::look(ring, end, end), Found::Nothing);
            }
            assert!(model::payload(ring, start, committed).iter().all(|&byte| byte == fill));
            let padded = model::payload(ring, start, committed.next_multiple_of(8));
            assert!(padded[committed..].iter().all(|&byte| byte == 0), "older bytes in the padding");
        } else if let Err(SendError::Removed) = sent {
            assert!(self.meddled);
        }
    }

    fn send(&mut self, length: u16, fill: u8, patience: Patience) {
        let length = length as usize % 4200;
        let deadline = self.deadline(patience);
        let Some(sending) = &mut self.producer else { return };
        let message = vec![fill; length];
        let sent = match deadline {
            Some(deadline) => sending.producer.send_deadline(&message, deadline),
            None if matches!(patience, Patience::Try) => sending.producer.try_send(&message),
            None => {
                sending.stop();
                sending.producer.send(&message)
            }
        };
        self.sent(sent.map(|position| position.get()), length, length, fill);
    }

    fn reserve(&mut self, length: u16, commit: u16, patience: Patience) {
        let (length, commit) = (length as usize % 4200, commit as usize);
        let deadline = self.deadline(patience);
        let Some(sending) = &mut self.producer else { return };
        let reserved = match deadline {
            Some(deadline) => sending.producer.reserve_deadline(length, deadline),
            None if matches!(patience, Patience::Try) => sending.producer.try_reserve(length),
            None => {
                sending.stop();
                sending.producer.reserve(length)
            }
        };
        let committed = match reserved {
            Ok(mut reservation) => {
                reservation.write(0, &vec![0xff; length]);
                // Without a commit, all that may be seen of it is in the free part of the ring.
                (commit <= length).then(|| Ok(reservation.commit_len(commit).get()))
            }
            Err(error) => Some(Err(error)),
        };
        match committed {
            Some(sent) => self.sent(sent, length, commit, 0xff),
            None => {
                let seen = self.before.word(model::HEAD);
                let sending = self.producer.as_mut().expect("there is a producer");
                let room = sending.room(sending.tail, length, seen);
                assert!(matches!(room, Room::At(_)), "{room:?}");
                let [first, second] = sending.free();
                self.wrote(&[PRODUCERS, first, second]);
            }
        }
    }

    fn batch(&mut self, lengths: &[u16]) {
        let seen = self.before.word(model::HEAD);
        let Some(mut sending) = self.producer.take() else { return };
        // Nothing else ends the wait of a batch.
        sending.stop();
        let mut pushed = vec![];
        let mut batch = sending.producer.batch();
        for &length in lengths.iter().take(8) {
            let length = length as usize % 4200;
            let push = batch.push(&vec![0xee; length]);
            pushed.push((push, length));
            if push.is_err() {
                break;
            }
        }
        batch.commit();
        let (tail, capacity) = (sending.tail, sending.capacity);
        let mut end = tail;
        let (mut messages, mut whole) = (0, false);
        for (push, length) in pushed {
            whole = matches!(push, Err(SendError::TooLarge { max, .. }) if max as u64 == sending.capacity);
            if !whole {
                sending.check(&push.map(|position| position.get()), end, length, seen);
            }
            if let Ok(position) = push {
                end = position.get().wrapping_add(model::size(length as u64));
                messages += 1;
            }
        }
        let [first, second] = sending.free();
        sending.tail = end;
        let overwritten = sending.overwritten;
        self.producer = Some(sending);
        self.wrote(&[PRODUCERS, first, second]);
        assert!(!whole || messages > 0, "a message alone is no batch that is too large");
        if messages > 0 && !overwritten {
            assert_eq!(model::last_commit(self.ring(capacity), tail, tail), Some(end), "{messages} messages");
        }
    }

    fn free(&mut self) {
        let seen = self.before.word(model::HEAD);
        let Some(sending) = &mut self.producer else { return };
        let free = sending.producer.free();
        // As if more were asked for than there ever is.
        let room = if sending.corrupt { Room::Corrupt } else { sending.room(sending.tail, 8192, seen) };
        match free {
            Ok(free) => {
                assert_eq!(room, Room::Full);
                assert_eq!(free, sending.capacity - sending.tail.wrapping_sub(sending.head));
            }
            Err(SendError::Corrupt(corruption)) => {
                assert_eq!(room, Room::Corrupt, "{corruption}");
                sending.corrupt = true;
            }
            Err(error) => panic!("{error}"),
        }
        self.wrote(&[]);
    }

    fn receive(&mut self, patience: Patience, keep: bool) {
        let deadline = self.deadline(patience);
        let Some(mut receiving) = self.consumer.take() else { return };
        let ring = self.ring(receiving.capacity);
        let head = receiving.head;
        let expected = model::look(ring, head, head.wrapping_add(receiving.capacity));
        let was_corrupt = receiving.corrupt;
        let (mut released, mut corrupt) = (head, was_corrupt);
        match receiving.receive(patience, deadline) {
            Ok(message) => {
                assert!(!was_corrupt);
                let Found::Record { start, end, length, tag } = expected else { panic!("{expected:?}") };
                assert_eq!((message.position().get(), message.len(), message.tag()), (start, length, tag));
                assert_eq!(message.to_vec(), model::payload(ring, start, length));
                if keep {
                    message.keep();
                } else {
                    message.release();
                    released = end;
                }
            }
            Err(RecvError::Corrupt(corruption)) => {
                let spoilt = corruption.word() == "state" && expected == Found::Nothing;
                assert!(was_corrupt || spoilt || expected == Found::Corrupt, "{corruption}, {expected:?}");
                corrupt = true;
            }
            Err(error) => {
                assert!(self.meddled || error != RecvError::Removed);
                assert_eq!((expected, was_corrupt), (Found::Nothing, false), "{error}");
            }
        }
        (receiving.head, receiving.corrupt) = (released, corrupt);
        self.consumer = Some(receiving);
        self.wrote(&[CONSUMERS]);
    }

    fn receive_value(&mut self) {
        let Some(receiving) = &mut self.consumer else { return };
        match receiving.consumer.try_recv() {
            Ok(message) => {
                let mut slice = [0; 16];
                assert_eq!(message.value::<u64>().is_ok(), message.len() == 8);
                assert_eq!(message.copy_to(&mut slice).is_ok(), message.len() <= 16);
                message.keep();
            }
            Err(error) => receiving.corrupt |= matches!(error, RecvError::Corrupt(_)),
        }
        self.wrote(&[CONSUMERS]);
    }

    fn drain(&mut self, limit: u16, keep: bool) {
        let Some(mut receiving) = self.consumer.take() else { return };
        let ring = self.ring(receiving.capacity);
        let lap = receiving.head.wrapping_add(receiving.capacity);
        let (mut end, mut taken) = (receiving.head, 0);
        let mut drain = receiving.consumer.drain(limit.into());
        loop {
            let expected = model::look(ring, end, lap);
            match drain.next() {
                Ok(Some(record)) => {
                    assert!(!receiving.corrupt);
                    let Found::Record { start, end: next, length, tag } = expected else {
                        panic!("{expected:?}")
                    };
                    assert_eq!((record.position().get(), record.len(), record.tag()), (start, length, tag));
                    assert_eq!(record.to_vec(), model::payload(ring, start, length));
                    end = next;
                    taken += 1;
                }
                Ok(None) => {
                    let is_dry = expected == Found::Nothing && !receiving.corrupt;
                    assert!(taken == limit || is_dry, "{expected:?}");
                    break;
                }
                Err(RecvError::Corrupt(corruption)) => {
                    assert!(receiving.corrupt || expected == Found::Corrupt, "{corruption}, {expected:?}");
                    receiving.corrupt = true;
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        if keep {
            drain.keep();
        } else {
            drain.release();
            receiving.head = end;
        }
        self.consumer = Some(receiving);
        self.wrote(&[CONSUMERS]);
    }

    fn peers(&mut self) {
        let producer = self.producer.as_ref().map(|sending| sending.producer.peer());
        let consumer = self.consumer.as_ref().map(|receiving| receiving.consumer.peer());
        std::hint::black_box((producer, consumer));
        self.wrote(&[]);
    }

    fn wait_for_peers(&mut self, patience: Patience) {
        let deadline = self.deadline(patience).or_else(|| Some(Instant::now()));
        if let Some(sending) = &mut self.producer {
            let _ = sending.producer.wait_for_peer(deadline);
        }
        if let Some(receiving) = &mut self.consumer {
            let _ = receiving.consumer.wait_for_peer(deadline);
        }
        self.wrote(&[PRODUCERS, CONSUMERS]);
    }

    /// Until when a call may wait; nothing for a call that does not, or that is stopped.
    fn deadline(&mut self, patience: Patience) -> Option<Instant> {
        match patience {
            Patience::Try | Patience::Stopped => None,
            Patience::Soon(0..4) if !self.waited => {
                self.waited = true;
                Some(Instant::now() + Duration::from_micros(150))
            }
            Patience::Late | Patience::Soon(_) => Some(Instant::now()),
        }
    }

    /// Whether it seems to be half-made. A call that looks at it gives its creator a second to make the rest.
    fn is_half_made(&self) -> bool {
        [0, model::MAKING].contains(&self.before.word(0))
    }

    fn inspect(&mut self) {
        if self.is_half_made() {
            return;
        }
        let seen = shmpipe::inspect(self.address().as_str());
        assert_eq!(seen.is_ok(), self.before.is_pipe(), "{seen:?}");
        match seen {
            Ok(seen) => {
                assert!(seen.used <= seen.capacity && seen.capacity == self.before.word(model::CAPACITY));
                assert_eq!(seen.segment_id.get(), self.before.word(model::SEGMENT_ID));
            }
            Err(error) => says(&error),
        }
        self.wrote(&[]);
    }

    /// Every address in the listing leads to what is listed; pipes that are not ours come and go.
    fn list(&mut self) {
        if self.is_half_made() || std::mem::replace(&mut self.listed, true) {
            return;
        }
        for listed in shmpipe::list().expect("it can be read") {
            let ours = [self.bench.id, self.others.pipe.id].contains(&listed.shm_id);
            let Some(seen) = listed.snapshot.ok().filter(|_| ours) else { continue };
            let found = shmpipe::inspect(&seen.address).ok().and_then(|found| match found.object {
                Object::SysV { shm_id, .. } => Some(shm_id),
                _ => None,
            });
            assert_eq!(found, Some(listed.shm_id), "{}", seen.address);
        }
        self.wrote(&[]);
    }

    fn unlink(&mut self, force: bool) {
        let is_guarded = self.before.is_pipe() && self.guards().is_some();
        if !is_guarded && !force {
            // It would wait for a second for us to go.
            return;
        }
        let address = self.address();
        let unlinked = if force { shmpipe::unlink_force(&address) } else { shmpipe::unlink(&address) };
        assert_eq!(unlinked.is_ok(), !self.bench.is_there(), "{unlinked:?}");
        if let Err(error) = unlinked {
            says(&error);
        }
        self.wrote(&[]);
    }
}

/// Every error has something to say.
fn says(error: &SetupError) {
    assert!(error.to_string().len() > 10);
}
