//! Honest calls of both ends while any word of the segment changes: between the calls, and in the middle of them, between any two
//! accesses by the library.
//!
//! All runs use one pipe in a memfd. Checked at every step:
//!
//! * nothing panics or loops without end, or accesses memory outside the segment (guard pages surround the mapping) or outside the
//!   caller's buffers (which end at a guard page, and have a canary before them);
//! * each result matches a second implementation of LAYOUT.md (`model.rs`) for the bytes before or after the change: the library
//!   loads a word once, and copies no more than it has checked;
//! * an error for corruption has the right place and value, and every later call returns the same;
//! * each end writes only to the words that LAYOUT.md gives to it, and a producer only to the part of the ring that it may take for
//!   free. Committed records contain no old bytes.

#![no_main]

mod input;
mod receiving;
mod sending;

use input::{During, Input, Side, Spot, Step, When};
use libfuzzer_sys::fuzz_target;
use receiving::{Received, Receiving};
use sending::{Room, Sending};
use shmpipe::error::{Damage, Shortage};
use shmpipe::{CloseError, Corruption, Lost, SetupError};
use shmpipe_fuzz::bare::Bare;
use shmpipe_fuzz::model::{self, Found, Image};
use shmpipe_fuzz::trap;
use shmpipe_testing::errors::{AnyRecvError, AnySendError};
use shmpipe_testing::guarded::Brink;
use shmpipe_testing::layout;
use std::cell::RefCell;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Twice the largest record, enough for wraps.
const CAPACITY: u64 = 4096;

/// The most steps of a run. More are slow and find nothing new.
const STEPS: usize = 40;

/// Lengths are below this. Some are too large for a record.
const LENGTHS: usize = 2200;

/// The bytes of the header that the two sides may write.
const PRODUCERS: Range<usize> = layout::TAIL..layout::HEAD;
const CONSUMERS: Range<usize> = layout::HEAD..layout::END;

thread_local! {
    static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) };
}

fuzz_target!(|input: Input| {
    BENCH.with_borrow_mut(|bench| {
        let mut run = Run::new(bench.get_or_insert_with(Bench::make), &input);
        input.steps.iter().take(STEPS).for_each(|step| run.step(step));
        run.close(Side::Producer);
        run.close(Side::Consumer);
    });
});

/// Reused by all runs.
struct Bench {
    bare: Bare,
    brink: Brink,
    /// The segment before a call, after it, and before it with the change in its middle.
    before: Image,
    after: Image,
    changed: Image,
}

impl Bench {
    fn make() -> Self {
        let bare = Bare::make(CAPACITY);
        let image = || bare.fresh.clone();
        Bench { before: image(), after: image(), changed: image(), brink: Brink::new(LENGTHS), bare }
    }
}

struct Run<'a> {
    bench: &'a mut Bench,
    producer: Option<Sending>,
    consumer: Option<Receiving>,
    /// The offset of the change in the middle of the last call.
    spot: Option<usize>,
    /// A run has at most one long wait.
    waited: bool,
}

/// The images that a call may have seen.
fn images(bench: &Bench, spot: Option<usize>) -> Vec<&Image> {
    let changed = spot.map(|_| &bench.changed);
    [&bench.before].into_iter().chain(changed).collect()
}

/// Whether a side may seem to have aborted with this code.
fn has_aborted(side: usize, code: u32, images: &[&Image]) -> bool {
    let has_code = |image: &&Image| image.word(side + layout::side::ABORT_CODE) as u32 == code;
    images.iter().any(|image| image.word(side) % 4 == 3) && images.iter().any(has_code)
}

impl<'a> Run<'a> {
    fn new(bench: &'a mut Bench, input: &Input) -> Self {
        let Bench { bare, before, .. } = bench;
        input.start.prepare(bare, before);
        let mut run = Run { bench, producer: None, consumer: None, spot: None, waited: false };
        run.claim(Side::Producer, None);
        run.claim(Side::Consumer, None);
        run
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Change(spot) => self.change(spot),
            Step::Claim(side, during) => self.claim(side, during),
            Step::Close(side) => self.close(side),
            Step::Send { length, fill, when } => self.send(length as usize % LENGTHS, fill, when),
            Step::Reserve { length, commit, when } => {
                self.reserve(length as usize % LENGTHS, commit as usize, when);
            }
            Step::Batch(ref lengths) => self.batch(lengths),
            Step::Free(during) => self.free(during),
            Step::Recv { keep, when } => self.receive(keep, when),
            Step::Value(during) => self.receive_value(during),
            Step::Drain { limit, keep, during } => self.drain(limit, keep, during),
            Step::Peers => self.peers(),
            Step::WaitForPeers(when) => self.wait_for_peers(when),
        }
    }

    fn images(&self) -> Vec<&Image> {
        images(self.bench, self.spot)
    }

    /// Changes a word between two calls.
    fn change(&mut self, spot: Spot) {
        let (offset, word) = spot.of(&self.bench.before);
        self.bench.before.write(offset, &word.to_ne_bytes());
        self.bench.bare.set(offset, word);
        self.was_overwritten();
    }

    fn was_overwritten(&mut self) {
        if let Some(sending) = &mut self.producer {
            sending.overwritten = true;
        }
    }

    /// Makes a call, perhaps with a change in its middle.
    fn call<T>(&mut self, during: Option<During>, call: impl FnOnce(&mut Brink) -> T) -> T {
        let Bench { bare, brink, before, changed, .. } = &mut *self.bench;
        self.spot = None;
        let Some(during) = during else { return call(brink) };
        let change = during.change(before);
        let (result, seen) = trap::during(bare, change, || call(brink));
        if seen.changed {
            changed.0.copy_from_slice(&before.0);
            changed.write(change.offset, &change.word.to_ne_bytes());
            self.spot = Some(change.offset);
            self.was_overwritten();
        }
        result
    }

    /// Reads what the last call wrote to the segment, which must be within `allowed`.
    fn wrote(&mut self, allowed: &[Range<usize>]) {
        let Bench { bare, before, after, changed, .. } = &mut *self.bench;
        bare.read(after);
        let words = before.0.chunks_exact(8).zip(after.0.chunks_exact(8)).enumerate();
        for (offset, (_, now)) in
            words.filter(|(_, (before, now))| before != now).map(|(n, words)| (n * 8, words))
        {
            let is_allowed = allowed.iter().any(|range| range.contains(&offset));
            let is_change = self.spot == Some(offset) && now == &changed.0[offset..offset + 8];
            assert!(is_allowed || is_change, "wrote to byte {offset}, allowed {allowed:?}");
        }
        std::mem::swap(before, after);
    }

    fn claim(&mut self, side: Side, during: Option<During>) {
        match side {
            Side::Producer if self.producer.is_none() => self.claim_producer(during),
            Side::Consumer if self.consumer.is_none() => self.claim_consumer(during),
            _ => {}
        }
    }

    /// The possible states of a side after a claim.
    fn states(&self, side: usize) -> Vec<u64> {
        self.images().iter().map(|image| ((image.word(side) >> 2) + 1) << 2 | 1).collect()
    }

    fn claim_producer(&mut self, during: Option<During>) {
        let pipe = self.bench.bare.pipe.clone();
        let claimed = self.call(during, |_| pipe.producer());
        let expected = |image: &Image| {
            model::last_commit(image.ring(), image.word(layout::HEAD), image.word(layout::TAIL))
        };
        match claimed {
            Ok(producer) => {
                let tail = producer.position().get();
                let images = self.images();
                let heads = images.iter().filter(|image| expected(image) == Some(tail));
                let heads: Vec<_> = heads.map(|image| image.word(layout::HEAD)).collect();
                assert!(!heads.is_empty(), "{tail:#x}");
                let mut sending = Sending::new(producer, heads, self.states(layout::PRODUCER));
                sending.overwritten = self.spot.is_some();
                self.producer = Some(sending);
            }
            Err(SetupError::Damaged(Damage::Ring(corruption))) => {
                let images = self.images();
                let is_corrupt = images.iter().any(|image| expected(image).is_none());
                assert!(corruption.word() == "state" || is_corrupt, "{corruption}");
                names(&corruption, layout::PRODUCER, &images);
            }
            Err(SetupError::Limit(Shortage::Claims { .. })) => {
                assert!(self.images().iter().any(|image| image.is_out_of_epochs(layout::PRODUCER)));
            }
            Err(error) => panic!("{error}"),
        }
        self.wrote(&[PRODUCERS]);
    }

    fn claim_consumer(&mut self, during: Option<During>) {
        let pipe = self.bench.bare.pipe.clone();
        let claimed = self.call(during, |_| pipe.consumer());
        let head = |image: &Image| image.word(layout::HEAD);
        // A consumer does not depend on the tail, but checks it.
        let is_good = |image: &&&Image| {
            head(image) % 8 == 0 && model::are_near(head(image), image.word(layout::TAIL), CAPACITY)
        };
        let images = self.images();
        match claimed {
            Ok(consumer) => {
                let position = consumer.position().get();
                assert_eq!(position % 8, 0);
                assert!(images.iter().any(|image| head(image) == position), "{position:#x}");
                self.consumer = Some(Receiving::new(consumer, self.states(layout::CONSUMER)));
            }
            Err(SetupError::Damaged(Damage::Ring(corruption))) => {
                let is_corrupt =
                    !images.iter().all(|image| is_good(&image) && image.word(layout::TAIL) % 8 == 0);
                assert!(corruption.word() == "state" || is_corrupt, "{corruption}");
                names(&corruption, layout::CONSUMER, &images);
            }
            Err(SetupError::Limit(Shortage::Claims { .. })) => {
                assert!(self.images().iter().any(|image| image.is_out_of_epochs(layout::CONSUMER)));
            }
            Err(error) => panic!("{error}"),
        }
        self.wrote(&[CONSUMERS]);
    }

    fn close(&mut self, side: Side) {
        self.spot = None;
        match side {
            Side::Producer => {
                if let Some(sending) = self.producer.take() {
                    let is_ours = sending.is_ours(&self.images());
                    closed(sending.producer.close(), is_ours);
                    self.wrote(&[PRODUCERS]);
                }
            }
            Side::Consumer => {
                if let Some(receiving) = self.consumer.take() {
                    let is_ours = receiving.is_ours(&self.images());
                    closed(receiving.consumer.close(), is_ours);
                    self.wrote(&[CONSUMERS]);
                }
            }
        }
    }

    /// The deadline of a call. None if it does not wait, or is cancelled.
    fn deadline(&mut self, when: When) -> Option<Instant> {
        match when {
            When::Now | When::During(_) | When::Cancelled => None,
            When::Soon(0..4) if !self.waited => {
                self.waited = true;
                Some(Instant::now() + Duration::from_micros(150))
            }
            When::Late | When::Soon(_) => Some(Instant::now()),
        }
    }

    /// Checks the result of a send that requested `length` bytes and committed `committed` bytes of `fill`.
    fn sent(
        &mut self,
        mut sending: Sending,
        sent: Result<u64, AnySendError>,
        length: usize,
        committed: usize,
        fill: u8,
    ) {
        let (tail, overwritten) = (sending.tail, sending.overwritten || self.spot.is_some());
        if sent == Err(AnySendError::PeerDied) {
            assert!(self.consumer.is_none());
        }
        sending.check(&sent, tail, length, &self.images());
        let [first, second] = sending.ranges();
        if let Ok(start) = sent {
            sending.tail = start.wrapping_add(model::size(committed as u64));
        }
        sending.overwritten = overwritten;
        let end = sending.tail;
        self.producer = Some(sending);
        self.wrote(&[PRODUCERS, first, second]);
        let (Ok(start), false) = (sent, self.spot.is_some_and(|spot| spot >= layout::RING)) else { return };
        let ring = self.bench.before.ring();
        let found = model::look(ring, tail, end.wrapping_add(8));
        assert_eq!(found, Found::Record { start, end, length: committed, tag: 0 });
        if !overwritten {
            assert_eq!(model::look(ring, end, end), Found::Nothing);
        }
        let padded = model::payload(ring, start, committed.next_multiple_of(8));
        assert!(padded[..committed].iter().all(|&byte| byte == fill), "the payload differs");
        assert!(padded[committed..].iter().all(|&byte| byte == 0), "old bytes in the padding");
    }

    fn send(&mut self, length: usize, fill: u8, when: When) {
        let deadline = self.deadline(when);
        let Some(mut sending) = self.producer.take() else { return };
        let sent = self.call(when.during(), |brink| {
            let message = brink.lend(length, fill);
            match (deadline, when) {
                (Some(deadline), _) => {
                    sending.producer.send_deadline(message, deadline).map_err(AnySendError::from)
                }
                (None, When::Cancelled) => {
                    sending.cancel();
                    sending.producer.send(message).map_err(AnySendError::from)
                }
                _ => sending.producer.try_send(message).map_err(AnySendError::from),
            }
        });
        self.sent(sending, sent.map(|position| position.get()), length, length, fill);
    }

    fn reserve(&mut self, length: usize, commit: usize, when: When) {
        let deadline = self.deadline(when);
        let Some(mut sending) = self.producer.take() else { return };
        let sent = self.call(when.during(), |brink| {
            let content = brink.lend(length, 0xff);
            let reserved = match (deadline, when) {
                (Some(deadline), _) => {
                    sending.producer.reserve_deadline(length, deadline).map_err(AnySendError::from)
                }
                (None, When::Cancelled) => {
                    sending.cancel();
                    sending.producer.reserve(length).map_err(AnySendError::from)
                }
                _ => sending.producer.try_reserve(length).map_err(AnySendError::from),
            };
            match reserved {
                Ok(mut reservation) => {
                    reservation.write(0, content);
                    (commit <= length).then(|| Ok(reservation.commit_len(commit).get()))
                }
                Err(error) => Some(Err(error)),
            }
        });
        match sent {
            Some(sent) => self.sent(sending, sent, length, commit, 0xff),
            None => {
                let tail = sending.tail;
                let start = if model::size(length as u64) > CAPACITY - tail % CAPACITY {
                    tail.wrapping_add(CAPACITY - tail % CAPACITY)
                } else {
                    tail
                };
                sending.finds(&Room::At(start), tail, length, &self.images());
                // Without a commit, it has only written to the free part of the ring.
                let [first, second] = sending.ranges();
                self.producer = Some(sending);
                if self.spot.is_some() {
                    self.was_overwritten();
                }
                self.wrote(&[PRODUCERS, first, second]);
            }
        }
    }

    fn batch(&mut self, lengths: &[u16]) {
        let Some(mut sending) = self.producer.take() else { return };
        self.spot = None;
        // A push has no deadline.
        sending.cancel();
        let mut pushed = vec![];
        let mut batch = sending.producer.batch();
        for &length in lengths.iter().take(8) {
            let length = length as usize % LENGTHS;
            let push = batch.push(self.bench.brink.lend(length, 0xee)).map_err(AnySendError::from);
            pushed.push((push, length));
            if push.is_err() {
                break;
            }
        }
        batch.commit();
        let (tail, overwritten) = (sending.tail, sending.overwritten);
        let mut end = tail;
        let (mut messages, mut whole) = (0, false);
        for (push, length) in pushed {
            whole = matches!(push, Err(AnySendError::TooLarge { max, .. }) if max as u64 == CAPACITY);
            if !whole {
                sending.check(&push.map(|position| position.get()), end, length, &self.images());
            }
            if let Ok(position) = push {
                end = position.get().wrapping_add(model::size(length as u64));
                messages += 1;
            }
        }
        assert!(!whole || messages > 0, "a single message made the batch too large");
        let [first, second] = sending.ranges();
        sending.tail = end;
        self.producer = Some(sending);
        self.wrote(&[PRODUCERS, first, second]);
        if messages > 0 && !overwritten {
            let found = model::last_commit(self.bench.before.ring(), tail, tail);
            assert_eq!(found, Some(end), "{messages} messages");
        }
    }

    fn free(&mut self, during: Option<During>) {
        let Some(mut sending) = self.producer.take() else { return };
        let free = self.call(during, |_| sending.producer.free());
        let tail = sending.tail;
        // As for a request that never fits.
        let length = 2 * CAPACITY as usize;
        match free {
            Ok(free) => {
                assert_eq!(sending.poison, None);
                sending.finds(&Room::Full, tail, length, &self.images());
                // 8 bytes always stay free.
                assert!(sending.free().any(|expected| expected.saturating_sub(8) == free), "{free}");
            }
            Err(corruption) => sending.is_corrupt(corruption, tail, length, &self.images()),
        }
        self.producer = Some(sending);
        self.wrote(&[]);
    }

    fn receive(&mut self, keep: bool, when: When) {
        let deadline = self.deadline(when);
        let Some(mut receiving) = self.consumer.take() else { return };
        let received = self.call(when.during(), |brink| {
            let message = match (deadline, when) {
                (Some(deadline), _) => receiving.consumer.recv_deadline(deadline).map_err(AnyRecvError::from),
                (None, When::Cancelled) => {
                    receiving.consumer.cancel_handle().cancel();
                    receiving.consumer.recv().map_err(AnyRecvError::from)
                }
                _ => receiving.consumer.try_recv().map_err(AnyRecvError::from),
            }?;
            let received = take(&message, brink);
            if keep {
                message.requeue();
            } else {
                message.release();
            }
            Ok(received)
        });
        let head = receiving.head;
        match received {
            Ok(received) => {
                let end = receiving.takes(&received, head, &self.images());
                if !keep {
                    receiving.head = end;
                }
            }
            Err(error) => {
                assert!(error != AnyRecvError::PeerDied || self.producer.is_none());
                receiving.misses(&error, head, &self.images());
            }
        }
        self.consumer = Some(receiving);
        self.wrote(&[CONSUMERS]);
    }

    fn receive_value(&mut self, during: Option<During>) {
        let Some(mut receiving) = self.consumer.take() else { return };
        let received = self.call(during, |brink| {
            let message = receiving.consumer.try_recv()?;
            let value = message.value::<[u64; 3]>();
            assert_eq!(value.is_ok(), message.len() == 24);
            // A slice that is one byte too short is refused, even if the header word changes meanwhile.
            if let Some(short) = message.len().checked_sub(1) {
                assert!(message.copy_to(brink.lend(short, 0)).is_err());
            }
            message.requeue();
            Ok(())
        });
        if let Err(error) = received {
            let head = receiving.head;
            receiving.misses(&error, head, &self.images());
        }
        self.consumer = Some(receiving);
        self.wrote(&[CONSUMERS]);
    }

    fn drain(&mut self, limit: u8, keep: bool, during: Option<During>) {
        let Some(mut receiving) = self.consumer.take() else { return };
        let (all, end) = self.call(during, |brink| {
            let mut all = vec![];
            let mut drain = receiving.consumer.drain(limit.into());
            let end = loop {
                // The ring cannot hold more.
                assert!(all.len() as u64 <= CAPACITY / 8, "a drain without end");
                match drain.next() {
                    Ok(Some(record)) => all.push(take(&record, brink)),
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            if keep {
                drain.requeue();
            } else {
                drain.release();
            }
            (all, end)
        });
        let mut at = receiving.head;
        for received in &all {
            at = receiving.takes(received, at, &self.images());
        }
        match end {
            Ok(()) if all.len() == limit.into() => {}
            end => {
                let error = end.err().map_or(AnyRecvError::Empty, AnyRecvError::from);
                receiving.misses(&error, at, &self.images());
            }
        }
        if !keep {
            receiving.head = at;
        }
        self.consumer = Some(receiving);
        self.wrote(&[CONSUMERS]);
    }

    fn peers(&mut self) {
        self.spot = None;
        let producer = self.producer.as_ref().map(|sending| sending.producer.peer());
        let consumer = self.consumer.as_ref().map(|receiving| receiving.consumer.peer());
        std::hint::black_box((producer, consumer));
        self.wrote(&[]);
    }

    fn wait_for_peers(&mut self, when: When) {
        self.spot = None;
        let deadline = self.deadline(when).or_else(|| Some(Instant::now()));
        if let Some(sending) = &mut self.producer {
            let _ = sending.producer.wait_for_peer(deadline);
        }
        if let Some(receiving) = &mut self.consumer {
            let _ = receiving.consumer.wait_for_peer(deadline);
        }
        self.wrote(&[PRODUCERS, CONSUMERS]);
    }
}

/// Checks a close, which may only fail if another process seems to have the role.
fn closed(closed: Result<(), CloseError>, is_ours: bool) {
    match closed {
        Ok(()) => {}
        Err(CloseError::Lost(Lost::Role)) => assert!(!is_ours, "the role is still ours"),
        Err(error) => panic!("{error}"),
    }
}

/// Copies a record into a buffer right before a guard page.
fn take(record: &shmpipe::Record<'_>, brink: &mut Brink) -> Received {
    let length = record.len();
    let copied = record.copy_to(brink.lend(length, 0x5a)).expect("equal lengths");
    assert_eq!(copied, length);
    Received {
        start: record.position().get(),
        length,
        tag: record.tag(),
        bytes: brink.returned(length).to_vec(),
    }
}

/// Checks place and value of corruption found by a claim.
fn names(corruption: &Corruption, side: usize, images: &[&Image]) {
    let holds = |image: &&Image| match corruption.word() {
        "head" => image.word(layout::HEAD),
        "tail" => image.word(layout::TAIL),
        "state" => image.word(side),
        "record header" => model::word_at(image.ring(), corruption.position()),
        word => panic!("{word}"),
    };
    assert!(images.iter().any(|image| holds(image) == corruption.found()), "{corruption}");
}
