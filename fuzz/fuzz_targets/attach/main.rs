//! Arbitrary bytes as a segment: the same bytes in a System V segment, in a file and in a memfd.
//!
//! All runs use one real pipe of each kind. Each run writes a good segment to it and corrupts it in some places. Then it makes the
//! library open, inspect, list and remove the pipe, and claim its roles. Bytes and semaphores may change again between two steps.
//! The target `hostile` tests the ends on a hostile segment. Checked at every step:
//!
//! * nothing panics, reads or writes outside the segment, or loops without end (the compiler's assertions, the address sanitizer, and
//!   the fuzzer's timeout);
//! * results and messages match a second implementation of LAYOUT.md (`model.rs`), to the byte;
//! * each call writes only to the words that LAYOUT.md gives to its side, and a producer only to the free part of the ring;
//! * nothing is left over: semaphores, segments, sets, locks of files and descriptors are as before, and so is another pipe, which
//!   a header may name.

#![no_main]

mod bench;
mod input;

use bench::{Bench, Others, Set, Values};
use input::{Input, Setting, Step};
use libfuzzer_sys::fuzz_target;
use shmpipe::error::{Damage, Shortage};
use shmpipe::{Consumer, Location, Options, Pipe, Producer, SetupError};
use shmpipe_fuzz::model::{self, Found, Image};
use shmpipe_testing::layout::{self, READY, counters, identity, ready, semaphore, stage};
use shmpipe_testing::raw;
use std::cell::RefCell;
use std::ops::Range;
use std::sync::OnceLock;

/// The most steps of a run. More are slow and find nothing new.
const STEPS: usize = 25;

/// Whether we are alone in our IPC namespace.
static ALONE: OnceLock<bool> = OnceLock::new();

thread_local! {
    static BENCHES: RefCell<Option<([Bench; 3], Others)>> = const { RefCell::new(None) };
}

fuzz_target!(init: { ALONE.get_or_init(bench::confine); }, |input: Input| {
    BENCHES.with_borrow_mut(|benches| {
        let make = [|| Bench::sysv(0), Bench::file, Bench::memfd];
        let (benches, others) = benches.get_or_insert_with(|| (make.map(|make| make()), Others::make()));
        for (bench, make) in benches.iter_mut().zip(make) {
            if !run(bench, others, &input) {
                *bench = make();
            }
        }
    });
});

/// Runs one input. Returns whether the pipe still exists.
fn run(bench: &mut Bench, others: &Others, input: &Input) -> bool {
    let before = ALONE.get().is_some_and(|alone| *alone).then(bench::census);
    let descriptors = descriptors();
    let mut run = Run::new(bench, others, input);
    for step in input.steps.iter().take(STEPS) {
        run.step(step);
        if !run.bench.is_there() {
            break;
        }
    }
    run.end().into_iter().for_each(raw::remove_set);
    others.check();
    assert_eq!(self::descriptors(), descriptors, "descriptors");
    if !bench.is_there() {
        bench.remove();
        return false;
    }
    bench.check_resting();
    if let Some(before) = before {
        assert!(bench.set().is_none() || bench.attached() == 1, "attachments");
        assert_eq!(bench::census(), before, "segments and sets");
    }
    true
}

/// The number of open descriptors.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("proc").count()
}

/// A consumer and its position.
struct Receiving {
    consumer: Consumer,
    head: u64,
}

struct Run<'a> {
    bench: &'a mut Bench,
    others: &'a Others,
    /// The segment before a step and after it.
    before: Image,
    after: Image,
    pipe: Option<Pipe>,
    producer: Option<Producer>,
    consumer: Option<Receiving>,
    /// The sets that the library created for a segment whose own set was lost.
    adopted: Vec<i32>,
    /// A step has set semaphores.
    meddled: bool,
    /// Both are slow, so a run does them once.
    inspected: bool,
    listed: bool,
}

/// The bytes that the two sides, and an adoption of the segment, may write.
const PRODUCERS: Range<usize> = layout::TAIL..layout::HEAD;
const CONSUMERS: Range<usize> = layout::HEAD..layout::END;
const ADOPTERS: Range<usize> = identity::SEM_ID..identity::SEM_ID + 4;

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
            inspected: false,
            listed: false,
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Patch(patch) => {
                patch.apply(&mut self.before);
                self.bench.write(&self.before);
            }
            Step::Semaphore { number, value } => {
                let Some(Set { id: set, .. }) = self.bench.set() else { return };
                self.meddled = true;
                let value = match value {
                    Setting::Zero => 0,
                    Setting::One => 1,
                    Setting::Creating => stage::CREATING,
                    Setting::Any(value) => value % 32768,
                };
                raw::set_semaphore(set, (1 + number % 7).into(), value.into());
                // Without a holder in the header, a claim of a taken role retries for a tenth of a second.
                for holder in [layout::PRODUCED, layout::CONSUMED].map(|line| line + counters::HOLDER) {
                    self.before.write(holder, &[1; 8]);
                }
                self.bench.write(&self.before);
            }
            Step::OtherSet { foreign } => {
                let id = if *foreign { self.others.foreign } else { self.others.set };
                self.before.write(identity::SEM_ID, &id.to_ne_bytes());
                self.bench.write(&self.before);
            }
            Step::Open { alone, schema } => self.open(*alone, *schema),
            Step::Producer => self.claim_producer(),
            Step::Consumer => self.claim_consumer(),
            Step::Send(length) => self.send((*length).into()),
            Step::Drain { keep } => self.drain(*keep),
            Step::CloseProducer => {
                if let Some(producer) = self.producer.take() {
                    let _ = producer.close();
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

    /// Closes everything. Returns the adopted sets.
    fn end(mut self) -> Vec<i32> {
        for step in [Step::CloseProducer, Step::CloseConsumer, Step::ClosePipe] {
            self.step(&step);
        }
        if self.meddled {
            self.bench.reset();
        }
        self.bench.scratch = [self.before, self.after];
        self.adopted
    }

    /// Reads what the last call wrote to the segment, which must be within `allowed`.
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

    /// The values of the set in the header, if it guards the segment.
    fn guards(&self) -> Option<Values> {
        let (id, set) = (self.bench.id()?, self.bench.set()?);
        let named = self.before.half(identity::SEM_ID) as i32;
        let values = (named == set.id || self.adopted.contains(&named)).then(|| bench::values(named));
        values.and_then(Result::ok).filter(|values| bench::guards(values, id))
    }

    /// Whether the pipe has no set that guards it, although it needs one.
    fn is_unguarded(&self) -> bool {
        self.bench.set().is_some() && self.guards().is_none()
    }

    /// Opens the pipe, unless it is open.
    fn open(&mut self, alone: bool, schema: bool) {
        if self.pipe.is_some() {
            return;
        }
        let (guards, is_unguarded) = (self.guards(), self.is_unguarded());
        if alone {
            self.bench.detach();
        }
        let is_held = self.producer.is_some() || self.consumer.is_some();
        let opened = Options::new().schema(schema.into()).open(self.bench.address().as_str());
        if alone {
            assert!(self.bench.attach(), "opening removed the segment");
        }
        let is_good = self.before.is_pipe()
            && !self.before.is_duplex()
            && self.before.word(identity::SCHEMA) == u64::from(schema)
            && (is_held || !self.bench.is_stale(&self.before))
            && guards.is_none_or(|values| values[usize::from(semaphore::ATTACHMENTS)] < bench::LARGEST);
        assert_eq!(opened.is_ok(), is_good, "{opened:?}");
        match &opened {
            Ok(pipe) => {
                assert_eq!(pipe.capacity(), self.before.word(identity::CAPACITY));
                assert_eq!(pipe.id().get(), self.before.word(identity::SEGMENT_ID));
                assert_eq!(pipe.max_len() as u64, model::longest(pipe.capacity()));
            }
            Err(error) => says(error),
        }
        if is_unguarded {
            self.wrote(&[ADOPTERS]);
            if opened.is_ok() {
                self.adopted.push(self.before.half(identity::SEM_ID) as i32);
            }
        } else {
            self.wrote(&[]);
        }
        self.pipe = opened.ok();
    }

    fn ring(&self, capacity: u64) -> &[u8] {
        &self.before.ring()[..capacity as usize]
    }

    fn claim_producer(&mut self) {
        if self.producer.is_some() {
            return;
        }
        let (head, tail) = (self.before.word(layout::HEAD), self.before.word(layout::TAIL));
        let Some(claimed) = self.pipe.as_ref().map(Pipe::producer) else { return };
        let capacity = self.pipe.as_ref().expect("it is open").capacity();
        let expected = model::last_commit(self.ring(capacity), head, tail);
        match claimed {
            Ok(producer) => {
                assert_eq!(Some(producer.position().get()), expected);
                self.producer = Some(producer);
            }
            Err(SetupError::Damaged(Damage::Ring(corruption))) => {
                assert!(corruption.word() == "state" || expected.is_none(), "{corruption}");
            }
            Err(SetupError::Limit(Shortage::Claims { .. })) => {
                assert!(self.before.is_out_of_epochs(layout::PRODUCER));
            }
            Err(error) => self.refused(&error),
        }
        self.wrote(&[PRODUCERS]);
    }

    fn claim_consumer(&mut self) {
        if self.consumer.is_some() {
            return;
        }
        let (head, tail) = (self.before.word(layout::HEAD), self.before.word(layout::TAIL));
        let Some(claimed) = self.pipe.as_ref().map(Pipe::consumer) else { return };
        let capacity = self.pipe.as_ref().expect("it is open").capacity();
        let is_good = head % 8 == 0 && tail % 8 == 0 && model::are_near(head, tail, capacity);
        match claimed {
            Ok(consumer) => {
                // A consumer does not depend on the tail.
                assert!(head % 8 == 0);
                assert_eq!(consumer.position().get(), head);
                self.consumer = Some(Receiving { consumer, head });
            }
            Err(SetupError::Damaged(Damage::Ring(corruption))) => {
                assert!(corruption.word() == "state" || !is_good, "{corruption}");
            }
            Err(SetupError::Limit(Shortage::Claims { .. })) => {
                assert!(self.before.is_out_of_epochs(layout::CONSUMER));
            }
            Err(error) => self.refused(&error),
        }
        self.wrote(&[CONSUMERS]);
    }

    /// A claim fails only if a step has set semaphores.
    fn refused(&self, error: &SetupError) {
        says(error);
        assert!(self.meddled, "{error}");
    }

    fn send(&mut self, length: usize) {
        let Some(producer) = &mut self.producer else { return };
        let tail = producer.position().get();
        let (sent, capacity) = (producer.try_send(&vec![0xee; length]), producer.capacity());
        let ring = layout::RING..layout::RING + capacity as usize;
        self.wrote(&[PRODUCERS, ring]);
        if let Ok(position) = sent {
            let (start, ring) = (position.get(), self.ring(capacity));
            let end = start.wrapping_add(model::size(length as u64));
            let found = model::look(ring, tail, end.wrapping_add(8));
            assert_eq!(found, Found::Record { start, end, length, tag: 0 });
            let padded = model::payload(ring, start, length.next_multiple_of(8));
            assert!(padded[..length].iter().all(|&byte| byte == 0xee), "the payload differs");
            assert!(padded[length..].iter().all(|&byte| byte == 0), "old bytes in the padding");
        }
    }

    fn drain(&mut self, keep: bool) {
        let Some(mut receiving) = self.consumer.take() else { return };
        let capacity = receiving.consumer.capacity();
        let ring = self.ring(capacity);
        let lap = receiving.head.wrapping_add(capacity);
        let mut end = receiving.head;
        let mut drain = receiving.consumer.drain(usize::MAX);
        loop {
            let expected = model::look(ring, end, lap);
            match drain.next() {
                Ok(Some(record)) => {
                    let Found::Record { start, end: next, length, tag } = expected else {
                        panic!("{expected:?}")
                    };
                    assert_eq!((record.position().get(), record.len(), record.tag()), (start, length, tag));
                    assert_eq!(record.to_vec(), model::payload(ring, start, length));
                    end = next;
                }
                Ok(None) => break assert_eq!(expected, Found::Nothing),
                Err(error) => break assert_eq!(expected, Found::Corrupt, "{error}"),
            }
        }
        if keep {
            drain.requeue();
        } else {
            drain.release();
            receiving.head = end;
        }
        // After corruption, a consumer only returns that error.
        self.consumer = (model::look(ring, end, lap) == Found::Nothing).then_some(receiving);
        self.wrote(&[CONSUMERS]);
    }

    /// Whether the segment seems incomplete. A call then gives its creator a second to complete it. A file is never incomplete.
    fn is_incomplete(&self) -> bool {
        self.bench.set().is_some() && [0, ready::INCOMPLETE].contains(&self.before.word(READY))
    }

    fn inspect(&mut self) {
        if self.is_incomplete() || std::mem::replace(&mut self.inspected, true) {
            return;
        }
        let seen = shmpipe::inspect(self.bench.address().as_str());
        assert_eq!(seen.is_ok(), self.before.is_pipe(), "{seen:?}");
        match seen {
            Ok(seen) => {
                assert!(seen.used <= seen.capacity && seen.capacity == self.before.word(identity::CAPACITY));
                assert_eq!(seen.segment_id.get(), self.before.word(identity::SEGMENT_ID));
                assert_eq!(seen.back.is_some(), self.before.is_duplex());
                assert!(seen.back.is_none_or(|back| back.used <= seen.capacity));
            }
            Err(error) => says(&error),
        }
        self.wrote(&[]);
    }

    /// Every listed address leads to the listed segment. Checks only our pipes, since others come and go.
    fn list(&mut self) {
        if self.is_incomplete() || std::mem::replace(&mut self.listed, true) {
            return;
        }
        let listing = shmpipe::list();
        assert!(listing.sysv_error.is_none(), "{:?}", listing.sysv_error);
        for listed in listing.pipes {
            // A memfd has no address.
            let Location::Address(address) = listed.location else { continue };
            let number = bench::number(listed.object);
            if listed.snapshot.is_ok() && [self.bench.number, self.others.pipe.number].contains(&number) {
                let found = shmpipe::inspect(&address).ok().map(|found| bench::number(found.object));
                assert_eq!(found, Some(number), "{address}");
            }
        }
        self.wrote(&[]);
    }

    fn unlink(&mut self, force: bool) {
        let is_guarded = self.before.is_pipe() && self.guards().is_some();
        if self.bench.set().is_some() && !is_guarded && !force {
            // It would wait a second for us to detach.
            return;
        }
        let address = self.bench.address();
        let unlinked = if force { shmpipe::unlink_force(&address) } else { shmpipe::unlink(&address) };
        assert_eq!(unlinked.is_ok(), !self.bench.is_there(), "{unlinked:?}");
        if let Err(error) = unlinked {
            says(&error);
        }
        self.wrote(&[]);
    }
}

/// Every error has a message.
fn says(error: &SetupError) {
    assert!(error.to_string().len() > 10);
}
