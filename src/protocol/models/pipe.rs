//! A pipe in private memory and its two ends, as small as the models need them: the loops of `producer.rs` and
//! `consumer.rs` around the same `Writer` and `Reader`, without clock, kernel and stopper.

use crate::protocol::bell::WakeMode;
use crate::protocol::front::{Slot, Uncommitted};
use crate::protocol::layout::Header;
use crate::protocol::reader::{Found, NoMore, Reader};
use crate::protocol::record::{self, WORD};
use crate::protocol::ring::Ring;
use crate::protocol::sync::{AtomicU64, Ordering, spin_loop};
use crate::protocol::writer::{Refusal, Writer};
use loom::cell::UnsafeCell;
use std::convert::Infallible;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Explores every order in which the two threads of `model` can take their steps, as far as it takes no more than
/// `preemptions` switches away from a thread that could go on. LOOM_MAX_PREEMPTIONS overrides it.
pub(super) fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    let bound = *builder.preemption_bound.get_or_insert(preemptions);
    let orders = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = orders.clone();
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    // For `--show-output`.
    println!("{} orders, at most {bound} switches", orders.load(Ordering::Relaxed));
}

/// Explores a model with a victim that is killed after no step, one, two, ..., until it is done before that in every
/// order. The model is given the number of steps, and returns whether its victim was killed.
pub(super) fn explore_deaths(preemptions: usize, model: impl Fn(u32) -> bool + Send + Sync + 'static) {
    let model = Arc::new(model);
    for steps in 0.. {
        let killed = Arc::new(AtomicBool::new(false));
        let (this_model, was_killed) = (model.clone(), killed.clone());
        explore(preemptions, move || {
            if this_model(steps) {
                was_killed.store(true, Ordering::Relaxed);
            }
        });
        if !killed.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// Sleeps have no end of their own in a model.
pub(super) const FOREVER: Duration = Duration::MAX;

struct Segment {
    wake_mode: WakeMode,
    header: Header,
    words: Vec<AtomicU64>,
    /// One cell per word of the ring, touched wherever a payload word is: the accesses that a trusted peer makes
    /// through references. Loom reports each one that is not ordered after the other side's, which the words
    /// themselves, being atomic, do not tell.
    in_place: Vec<UnsafeCell<()>>,
}

/// A pipe that nobody has claimed yet.
#[derive(Clone)]
pub(super) struct Pipe(Arc<Segment>);

impl Pipe {
    /// Where nobody sleeps, the wake mode is [`WakeMode::Never`]: without the fences, nothing but the order of the
    /// words themselves holds the two sides together.
    #[allow(clippy::arc_with_non_send_sync, reason = "loom's threads take turns on one")]
    pub(super) fn new(wake_mode: WakeMode, capacity: u64) -> Self {
        let words = capacity / WORD;
        Pipe(Arc::new(Segment {
            wake_mode,
            header: Header::new(),
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            in_place: (0..words).map(|_| UnsafeCell::new(())).collect(),
        }))
    }

    fn ring(&self) -> Ring {
        let capacity = self.0.words.len() as u64 * WORD;
        let words = NonNull::from(&self.0.words[..]).cast();
        // SAFETY: header and words stay in place for as long as the segment lives, of which each end keeps a share.
        // The only other reference to the words is a shared one, made for a single load (`Consumer::word`).
        unsafe { Ring::new(NonNull::from(&self.0.header), words, capacity) }
    }

    /// The caller takes care that there is one producer at a time, and that what the last one did happened before:
    /// outside the models, the kernel does.
    pub(super) fn producer(&self) -> Producer {
        let writer = Writer::recover(self.ring(), self.0.wake_mode, 2048).expect("a correct pipe");
        Producer { pipe: self.clone(), writer }
    }

    /// As [`producer`](Self::producer).
    pub(super) fn consumer(&self) -> Consumer {
        let reader = Reader::recover(self.ring(), self.0.wake_mode).expect("a correct pipe");
        Consumer { pipe: self.clone(), reader, sleeps: 0 }
    }

    /// Both ends of a pipe through which `messages` have gone before: the ring holds what they left behind.
    pub(super) fn used(wake_mode: WakeMode, capacity: u64, messages: &[&[u8]]) -> (Producer, Consumer) {
        let pipe = Pipe::new(wake_mode, capacity);
        let (mut producer, mut consumer) = (pipe.producer(), pipe.consumer());
        for message in messages {
            producer.try_send(message).expect("space");
            assert_eq!(consumer.try_recv().as_deref(), Ok(*message));
        }
        (producer, consumer)
    }

    pub(super) fn header(&self) -> &Header {
        &self.0.header
    }

    fn touch(&self, start: u64, length: usize, access: impl Fn(&UnsafeCell<()>)) {
        for word in 1..record::size(length as u64) / WORD {
            access(&self.0.in_place[(start / WORD + word) as usize % self.0.in_place.len()]);
        }
    }

    fn write_in_place(&self, start: u64, length: usize) {
        self.touch(start, length, |cell| cell.with_mut(|_| ()));
    }

    fn read_in_place(&self, start: u64, length: usize) {
        self.touch(start, length, |cell| cell.with(|_| ()));
    }
}

pub(super) struct Producer {
    pub(super) pipe: Pipe,
    pub(super) writer: Writer,
}

impl Producer {
    pub(super) fn try_send(&mut self, message: &[u8]) -> Result<u64, Refusal> {
        if let Some(here) = self.writer.slot_here(self.writer.front(), message.len()) {
            self.pipe.write_in_place(here.start, message.len());
            here.fill(message);
            self.writer.commit_here(here, message.len(), 0);
            return Ok(here.start);
        }
        let slot = self.writer.slot(self.writer.tail(), message.len())?;
        self.fill(slot, message);
        self.writer.commit(slot, message.len(), 0);
        Ok(slot.start)
    }

    /// Polls while the ring is full.
    pub(super) fn send(&mut self, message: &[u8]) {
        loop {
            match self.try_send(message) {
                Ok(_) => return,
                Err(Refusal::Full) => spin_loop(),
                Err(refusal) => panic!("{refusal:?}"),
            }
        }
    }

    /// Sleeps while the ring is full.
    pub(super) fn send_or_sleep(&mut self, message: &[u8]) -> Result<u64, Refusal> {
        loop {
            match self.try_send(message) {
                Err(Refusal::Full) => self.writer.sleep(self.writer.tail(), message.len(), FOREVER),
                done => return done,
            }
        }
    }

    /// After the ring was found full: whether there is space after all, or the consumer has died.
    pub(super) fn look_for_death(
        &mut self,
        length: usize,
        role_is_free: impl FnOnce() -> bool,
    ) -> Result<(), Refusal> {
        let at = self.writer.tail();
        let Ok(looked) = self.writer.look_for_death(at, length, || Ok::<_, Infallible>(role_is_free()));
        looked.map(|_| ())
    }

    /// Reserves `reserved` bytes, fills them with `filler`, writes a shorter message over its start and commits that.
    pub(super) fn send_shorter(&mut self, reserved: usize, filler: u8, message: &[u8]) {
        let (slot, runway) = self.reserve(reserved);
        self.fill(slot, &vec![filler; reserved]);
        // SAFETY: the ring is there; the message is not longer than the payload.
        unsafe { self.writer.payload(slot, reserved).write(0, message, false) };
        self.writer.commit_shortened(runway, slot, reserved, message.len(), 0);
    }

    /// Reserves `reserved` bytes, writes a shorter message there and nothing else, and commits that.
    pub(super) fn send_part(&mut self, reserved: usize, message: &[u8]) {
        let (slot, runway) = self.reserve(reserved);
        self.pipe.write_in_place(slot.start, message.len());
        // SAFETY: the ring is there; the message is not longer than the payload.
        unsafe { self.writer.payload(slot, reserved).write(0, message, false) };
        self.writer.commit_shortened(runway, slot, message.len(), message.len(), 0);
    }

    /// Reserves `reserved` bytes, fills them with `filler`, and commits nothing.
    pub(super) fn give_up_reservation(&mut self, reserved: usize, filler: u8) {
        let (slot, _) = self.reserve(reserved);
        self.pipe.write_in_place(slot.start, reserved);
        // SAFETY: the ring is there; it is the payload's length.
        unsafe { self.writer.payload(slot, reserved).write(0, &vec![filler; reserved], false) };
    }

    fn reserve(&mut self, length: usize) -> (Slot, u64) {
        let slot = match self.writer.slot_here(self.writer.front(), length) {
            Some(here) => here.slot(),
            None => self.writer.slot(self.writer.tail(), length).expect("space"),
        };
        (slot, self.writer.take_runway())
    }

    /// Sends a batch, and polls while there is no space for the next message of it.
    pub(super) fn send_batch(&mut self, messages: &[&[u8]]) {
        let batch = self.batch(messages, |_, _, _| spin_loop());
        self.writer.commit_batch(&batch);
    }

    /// Sends a batch, and sleeps while there is no space for the next message of it.
    pub(super) fn send_batch_or_sleep(&mut self, messages: &[&[u8]]) {
        let batch = self.batch(messages, |writer, at, length| writer.sleep(at, length, FOREVER));
        self.writer.commit_batch(&batch);
    }

    /// Does all but commit a batch.
    pub(super) fn give_up_batch(&mut self, messages: &[&[u8]]) {
        self.batch(messages, |_, _, _| panic!("no space"));
    }

    fn batch(&mut self, messages: &[&[u8]], wait: impl Fn(&Writer, u64, usize)) -> Uncommitted {
        let mut batch = self.writer.begin();
        for message in messages {
            if let Some(here) = self.writer.slot_here(&batch.front, message.len()) {
                self.pipe.write_in_place(here.start, message.len());
                self.writer.append_here(&mut batch, here, message, 0);
                continue;
            }
            let at = batch.front.at;
            let slot = loop {
                match self.writer.slot(at, message.len()) {
                    Err(Refusal::Full) => wait(&self.writer, at, message.len()),
                    found => break found.expect("a peer that has not closed"),
                }
            };
            self.pipe.write_in_place(slot.start, message.len());
            self.writer.append(&mut batch, slot, message, 0, false);
        }
        batch
    }

    fn fill(&self, slot: Slot, message: &[u8]) {
        self.pipe.write_in_place(slot.start, message.len());
        self.writer.fill(slot, message, false);
    }
}

pub(super) struct Consumer {
    pub(super) pipe: Pipe,
    pub(super) reader: Reader,
    pub(super) sleeps: u64,
}

/// Why there is no message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Nothing {
    Yet,
    Ever(NoMore),
}

impl Consumer {
    /// Looks for a record at `at` and takes its message, without releasing it.
    pub(super) fn peek(&mut self, at: u64) -> Result<(Found, Vec<u8>), Nothing> {
        let found = self.look(at)?;
        Ok((found, self.read(found)))
    }

    fn look(&mut self, at: u64) -> Result<Found, Nothing> {
        let looked =
            if at == self.reader.head() { self.reader.look() } else { self.reader.look_further(at, 0) };
        let looked = looked.map_err(|corruption| Nothing::Ever(NoMore::Corrupt(corruption)))?;
        looked.ok_or(Nothing::Yet)
    }

    fn read(&self, found: Found) -> Vec<u8> {
        let payload = found.payload();
        let mut message = vec![0; payload.length()];
        // SAFETY: the ring is there, and `message` has the payload's length.
        unsafe { payload.read(message.as_mut_ptr()) };
        self.pipe.read_in_place(found.start, message.len());
        message
    }

    fn take(&mut self, found: Found) -> Vec<u8> {
        let message = self.read(found);
        self.reader.release(found.end, found.limit, 1, message.len() as u64);
        message
    }

    pub(super) fn try_recv(&mut self) -> Result<Vec<u8>, Nothing> {
        let found = self.look(self.reader.head())?;
        Ok(self.take(found))
    }

    /// Takes all messages that are there, up to `limit`, and releases them together.
    pub(super) fn drain(&mut self, limit: usize) -> Vec<Vec<u8>> {
        let (mut end, mut messages, mut bytes) = (self.reader.head(), vec![], 0);
        let mut end_limit = self.reader.limit();
        while messages.len() < limit {
            let looked = self.reader.look_further(end, end_limit);
            let Some(found) = looked.expect("a correct pipe") else { break };
            messages.push(self.read(found));
            bytes += found.length() as u64;
            (end, end_limit) = (found.end, found.limit);
        }
        if !messages.is_empty() {
            self.reader.release(end, end_limit, messages.len() as u64, bytes);
        }
        messages
    }

    /// As [`drain`](Self::drain), and sleeps while the ring is empty.
    pub(super) fn drain_or_sleep(&mut self, limit: usize) -> Vec<Vec<u8>> {
        loop {
            let taken = self.drain(limit);
            if !taken.is_empty() {
                return taken;
            }
            assert_eq!(self.reader.look_for_end(), Ok(None));
            self.reader.sleep(FOREVER);
        }
    }

    /// Polls while the ring is empty.
    pub(super) fn recv(&mut self) -> Vec<u8> {
        loop {
            match self.try_recv() {
                Ok(message) => return message,
                Err(Nothing::Yet) => spin_loop(),
                Err(nothing) => panic!("{nothing:?}"),
            }
        }
    }

    /// Takes the next message, or finds that the producer has closed.
    pub(super) fn try_recv_or_end(&mut self) -> Result<Vec<u8>, Nothing> {
        match self.try_recv() {
            Err(Nothing::Yet) => {
                let found = self.reader.look_for_end().map_err(Nothing::Ever)?.ok_or(Nothing::Yet)?;
                Ok(self.take(found))
            }
            other => other,
        }
    }

    /// After the ring was found empty: takes what is there after all, or finds that the producer has died.
    pub(super) fn look_for_death(&mut self, role_is_free: impl FnOnce() -> bool) -> Result<Vec<u8>, Nothing> {
        let Ok(looked) = self.reader.look_for_death(|| Ok::<_, Infallible>(role_is_free()));
        let found = looked.map_err(Nothing::Ever)?.ok_or(Nothing::Yet)?;
        Ok(self.take(found))
    }

    /// Polls while the ring is empty and the producer has not closed.
    pub(super) fn recv_or_end(&mut self) -> Result<Vec<u8>, Nothing> {
        loop {
            match self.try_recv_or_end() {
                Err(Nothing::Yet) => spin_loop(),
                done => return done,
            }
        }
    }

    /// Sleeps while the ring is empty and the producer has not closed.
    pub(super) fn recv_or_sleep(&mut self) -> Result<Vec<u8>, Nothing> {
        loop {
            match self.try_recv_or_end() {
                Err(Nothing::Yet) => {
                    self.sleeps += 1;
                    self.reader.sleep(FOREVER);
                }
                done => return done,
            }
        }
    }

    /// The word of the ring at `position`.
    pub(super) fn word(&self, position: u64) -> u64 {
        // Relaxed: what the model's reader has Acquired before is all that it asks for.
        self.pipe.0.words[(position / WORD) as usize % self.pipe.0.words.len()].load(Ordering::Relaxed)
    }
}

/// A role as the kernel keeps it: held until its holder gives it back, or is dead.
#[derive(Clone)]
pub(super) struct Role(Arc<loom::sync::atomic::AtomicBool>);

impl Role {
    /// One that somebody holds.
    pub(super) fn held() -> Self {
        Role(Arc::new(loom::sync::atomic::AtomicBool::new(true)))
    }

    // The kernel orders a process that finds a role free, or claims it, after the one that held it.

    pub(super) fn give_back(&self) {
        // ORDERING: Release, pairs with the Acquire loads in `claim` and `is_free`.
        self.0.store(false, Ordering::Release);
    }

    pub(super) fn claim(&self) {
        // ORDERING: Acquire, pairs with the Release store in `give_back`.
        assert!(!self.0.swap(true, Ordering::Acquire), "two holders");
    }

    pub(super) fn is_free(&self) -> bool {
        // ORDERING: Acquire, pairs with the Release store in `give_back`.
        !self.0.load(Ordering::Acquire)
    }
}
