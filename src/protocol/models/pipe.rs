//! A minimal pipe in private memory, with its two ends. They have the loops of `endpoint/producer.rs` and `endpoint/consumer.rs` around
//! the same `Writer` and `Reader`, without clock, kernel and cancel handle.

use crate::protocol::duplex;
use crate::protocol::front::{Slot, Uncommitted};
use crate::protocol::half::Half;
use crate::protocol::latency::Sampling;
use crate::protocol::layout::{Counters, Header, Latencies, Padded, SideState, Stamp, Stamps};
use crate::protocol::liveness::{PeerDied, State};
use crate::protocol::reader::{Located, Reader, RecvEnd};
use crate::protocol::record::{self, WORD};
use crate::protocol::ring::Ring;
use crate::protocol::sleep::Sleep;
use crate::protocol::sync::{AtomicU32, AtomicU64, Bucket, Futex, Ordering, spin_loop, wait_any};
use crate::protocol::wakeup::{WakeMode, before_sleeping};
use crate::protocol::writer::{ReserveError, Room, Writer};
use loom::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Explores every order in which the two threads of `model` can take their steps, with at most `preemptions` switches away from a
/// thread that could continue. LOOM_MAX_PREEMPTIONS overrides the bound.
pub(crate) fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
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

/// Explores a model whose victim is killed after no step, one, two, ..., until the victim reaches its end first in every order. The
/// model takes the number of steps, and returns whether its victim was killed.
pub(crate) fn explore_deaths(preemptions: usize, model: impl Fn(u32) -> bool + Send + Sync + 'static) {
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

/// Sleeps have no timeout in a model.
const FOREVER: Duration = Duration::MAX;

/// Sleeps until there is room for a record of `length` bytes.
pub(crate) fn sleep_for_space(writer: &Writer, at: u64, length: usize) {
    sleep_for(Room::Record, writer, at, length);
}

/// Sleeps until there is room for a share of the ring.
pub(crate) fn sleep_for_share(writer: &Writer, at: u64, length: usize) {
    sleep_for(Room::Share, writer, at, length);
}

fn sleep_for(room: Room, writer: &Writer, at: u64, length: usize) {
    if let Some(seen) = writer.prepare_sleep(at, length, room) {
        writer.event_count().wait(seen, FOREVER);
    }
}

pub(crate) fn sleep_for_record(reader: &Reader) {
    if let Some(seen) = reader.prepare_sleep() {
        reader.event_count().wait(seen, FOREVER);
    }
}

/// Sleeps until the peer's state is no longer `state`.
pub(crate) fn sleep_for_peer(half: &impl Half, state: State) {
    if let Some(seen) = half.prepare_sleep_for_peer(state) {
        half.event_count().wait(seen, FOREVER);
    }
}

struct Segment {
    wake_mode: WakeMode,
    header: Header,
    words: Vec<AtomicU64>,
    /// One cell per word of the ring, touched whenever the payload word is: the accesses that a trusted peer makes through references.
    /// Loom reports each access that is not ordered after the other side's. For the words themselves it does not, because they are
    /// atomic.
    in_place: Vec<UnsafeCell<()>>,
}

/// Sleeps until one of several pipes has a record, or its producer's state changes.
pub(crate) fn sleep_for_any(readers: &[&Reader]) {
    let sleeps: Vec<Sleep> = readers.iter().map(|reader| reader.announce_for_record()).collect();
    before_sleeping(WakeMode::Fence);
    if sleeps.iter().all(Sleep::is_pending) {
        wait_any(&sleeps.iter().map(Sleep::word).collect::<Vec<_>>(), FOREVER);
    }
}

/// The header of a new segment.
fn header(bucket: Option<&Arc<Bucket>>) -> Header {
    let zero = || AtomicU64::new(0);
    let side = || {
        Padded(SideState {
            state: zero(),
            event_count: bucket.map_or_else(Futex::new, Futex::in_bucket),
            waiter_epoch: AtomicU32::new(0),
            wake_threshold: zero(),
            reported: zero(),
            abort_code: zero(),
            claim: zero(),
        })
    };
    let counters = || {
        Padded(Counters {
            messages: zero(),
            bytes: zero(),
            waits: zero(),
            wakeups: zero(),
            holder: zero(),
            dropped: zero(),
            reach: zero(),
        })
    };
    let stamp = || Stamp { position: zero(), time: zero() };
    Header {
        ready: zero(),
        identity: std::array::from_fn(|_| zero()),
        tail: Padded(zero()),
        producer: side(),
        produced: counters(),
        head: Padded(zero()),
        consumer: side(),
        consumed: counters(),
        stamps: Padded(Stamps { crossings: [stamp()], wake_up: stamp() }),
        latencies: Padded(Latencies { counts: [zero()], max: zero(), sum: zero() }),
    }
}

/// A pipe whose roles are not claimed yet.
#[derive(Clone)]
pub(crate) struct Pipe(Arc<Segment>);

impl Pipe {
    /// Models in which no thread sleeps use [`WakeMode::Never`]: without the fences, only the orderings of the words themselves
    /// synchronize the two sides.
    pub(crate) fn new(wake_mode: WakeMode, capacity: u64) -> Self {
        Self::in_bucket(wake_mode, capacity, None)
    }

    /// A pipe whose sleepers share a bucket with those of others, so that a thread can sleep on several pipes.
    #[allow(clippy::arc_with_non_send_sync, reason = "loom's threads take turns on one")]
    pub(crate) fn in_bucket(wake_mode: WakeMode, capacity: u64, bucket: Option<&Arc<Bucket>>) -> Self {
        let words = capacity / WORD;
        Pipe(Arc::new(Segment {
            wake_mode,
            header: header(bucket),
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            in_place: (0..words).map(|_| UnsafeCell::new(())).collect(),
        }))
    }

    pub(crate) fn ring(&self) -> Ring {
        let capacity = self.0.words.len() as u64 * WORD;
        let words = NonNull::from(&self.0.words[..]).cast();
        // SAFETY: header and words stay in place while the segment exists, and each end holds an `Arc` of it. The only other
        // reference to the words is a shared one, for a single load (`Consumer::word`).
        unsafe { Ring::new(NonNull::from(&self.0.header), words, capacity) }
    }

    /// The caller ensures that there is one producer at a time, and that everything its predecessor did happens before. Outside the
    /// models, the kernel ensures this.
    pub(crate) fn producer(&self) -> Producer {
        let mut writer = self.recovered_writer();
        writer.open(writer.next_epoch().expect("a correct pipe"));
        Producer { pipe: self.clone(), writer }
    }

    /// Nothing is sampled.
    fn sampling(&self) -> Sampling {
        Sampling::new(self.ring().capacity(), false)
    }

    fn recovered_writer(&self) -> Writer {
        Writer::recover(self.ring(), self.0.wake_mode, 2048, self.sampling()).expect("a correct pipe")
    }

    fn recovered_reader(&self) -> Reader {
        Reader::recover(self.ring(), self.0.wake_mode, self.sampling()).expect("a correct pipe")
    }

    /// As [`producer`](Self::producer).
    pub(crate) fn consumer(&self) -> Consumer {
        let mut reader = self.recovered_reader();
        reader.open(reader.next_epoch().expect("a correct pipe"));
        Consumer { pipe: self.clone(), reader, sleeps: 0 }
    }

    /// Both ends of a pipe through which `messages` have passed. The ring still holds their bytes.
    pub(crate) fn used(wake_mode: WakeMode, capacity: u64, messages: &[&[u8]]) -> (Producer, Consumer) {
        let pipe = Pipe::new(wake_mode, capacity);
        let (mut producer, mut consumer) = (pipe.producer(), pipe.consumer());
        for message in messages {
            producer.try_send(message).expect("space");
            assert_eq!(consumer.try_recv().as_deref(), Ok(*message));
        }
        (producer, consumer)
    }

    pub(crate) fn header(&self) -> &Header {
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

/// A side of a duplex pipe, which sends into `out`. The caller ensures the same as for [`Pipe::producer`].
pub(crate) fn side(out: &Pipe, to_us: &Pipe) -> (Producer, Consumer) {
    let (mut writer, mut reader) = (out.recovered_writer(), to_us.recovered_reader());
    duplex::open(&mut reader, &mut writer).expect("a correct pipe");
    (Producer { pipe: out.clone(), writer }, Consumer { pipe: to_us.clone(), reader, sleeps: 0 })
}

pub(crate) struct Producer {
    pub(crate) pipe: Pipe,
    pub(crate) writer: Writer,
}

impl Producer {
    pub(crate) fn try_send(&mut self, message: &[u8]) -> Result<u64, ReserveError> {
        if let Some(here) = self.writer.slot_fast(self.writer.front(), message.len()) {
            self.pipe.write_in_place(here.start, message.len());
            here.fill(message);
            if self.writer.commit_fast(here, message.len(), 0) {
                self.writer.follow_up(here.size);
            }
            return Ok(here.start);
        }
        let slot = self.writer.slot(self.writer.tail(), message.len())?;
        self.fill(slot, message);
        self.writer.commit(slot, message.len(), 0);
        Ok(slot.start)
    }

    /// Polls while the ring is full.
    pub(crate) fn send(&mut self, message: &[u8]) {
        loop {
            match self.try_send(message) {
                Ok(_) => return,
                Err(ReserveError::Full) => spin_loop(),
                Err(refusal) => panic!("{refusal:?}"),
            }
        }
    }

    /// Sleeps while the ring is full.
    pub(crate) fn send_or_sleep(&mut self, message: &[u8]) -> Result<u64, ReserveError> {
        self.send_or(message, sleep_for_space)
    }

    /// Sleeps until there is room for a share of the ring while it is full.
    pub(crate) fn send_or_sleep_for_share(&mut self, message: &[u8]) -> Result<u64, ReserveError> {
        self.send_or(message, sleep_for_share)
    }

    fn send_or(&mut self, message: &[u8], sleep: impl Fn(&Writer, u64, usize)) -> Result<u64, ReserveError> {
        loop {
            match self.try_send(message) {
                Err(ReserveError::Full) => sleep(&self.writer, self.writer.tail(), message.len()),
                done => return done,
            }
        }
    }

    /// After the ring was found full: fails if the consumer died. Finds space that the consumer released before.
    pub(crate) fn check_for_death(
        &mut self,
        length: usize,
        role_is_free: impl FnOnce() -> bool,
    ) -> Result<Result<Slot, ReserveError>, PeerDied> {
        self.writer.check_for_death(self.writer.tail(), length, || Ok(role_is_free()))
    }

    /// Reserves `reserved` bytes, fills them with `filler`, writes a shorter message over their start and commits it.
    pub(crate) fn send_shorter(&mut self, reserved: usize, filler: u8, message: &[u8]) {
        let (slot, runway) = self.reserve(reserved);
        self.fill(slot, &vec![filler; reserved]);
        // SAFETY: the ring is mapped; the message is not longer than the payload.
        unsafe { self.writer.payload(slot, reserved).write(0, message, false) };
        self.writer.commit_shortened(runway, slot, reserved, message.len(), 0);
    }

    /// Reserves `reserved` bytes, writes only a shorter message there, and commits it.
    pub(crate) fn send_part(&mut self, reserved: usize, message: &[u8]) {
        let (slot, runway) = self.reserve(reserved);
        self.pipe.write_in_place(slot.start, message.len());
        // SAFETY: the ring is mapped; the message is not longer than the payload.
        unsafe { self.writer.payload(slot, reserved).write(0, message, false) };
        self.writer.commit_shortened(runway, slot, message.len(), message.len(), 0);
    }

    /// Reserves `reserved` bytes, fills them with `filler`, and commits nothing.
    pub(crate) fn give_up_reservation(&mut self, reserved: usize, filler: u8) {
        let (slot, _) = self.reserve(reserved);
        self.pipe.write_in_place(slot.start, reserved);
        // SAFETY: the ring is mapped; the payload has `reserved` bytes.
        unsafe { self.writer.payload(slot, reserved).write(0, &vec![filler; reserved], false) };
    }

    fn reserve(&mut self, length: usize) -> (Slot, u64) {
        let slot = match self.writer.slot_fast(self.writer.front(), length) {
            Some(here) => here.slot(),
            None => self.writer.slot(self.writer.tail(), length).expect("space"),
        };
        (slot, self.writer.take_runway())
    }

    /// Sends a batch. Polls while there is no space for its next message.
    pub(crate) fn send_batch(&mut self, messages: &[&[u8]]) {
        let batch = self.batch(messages, |_, _, _| spin_loop());
        self.writer.commit_batch(&batch);
    }

    /// Sends a batch. Sleeps while there is no space for its next message.
    pub(crate) fn send_batch_or_sleep(&mut self, messages: &[&[u8]]) {
        let batch = self.batch(messages, sleep_for_space);
        self.writer.commit_batch(&batch);
    }

    /// Sends a batch. Sleeps until there is room for a share of the ring while there is no space for its next message.
    pub(crate) fn send_batch_or_sleep_for_share(&mut self, messages: &[&[u8]]) {
        let batch = self.batch(messages, sleep_for_share);
        self.writer.commit_batch(&batch);
    }

    /// Writes a batch and does not commit it.
    pub(crate) fn give_up_batch(&mut self, messages: &[&[u8]]) {
        self.batch(messages, |_, _, _| panic!("no space"));
    }

    fn batch(&mut self, messages: &[&[u8]], wait: impl Fn(&Writer, u64, usize)) -> Uncommitted {
        let mut batch = self.writer.begin();
        for message in messages {
            if let Some(here) = self.writer.slot_fast(&batch.front, message.len()) {
                self.pipe.write_in_place(here.start, message.len());
                self.writer.append_fast(&mut batch, here, message, 0);
                continue;
            }
            let at = batch.front.at;
            let slot = loop {
                match self.writer.slot(at, message.len()) {
                    Err(ReserveError::Full) => wait(&self.writer, at, message.len()),
                    found => break found.expect("a peer that has not closed"),
                }
            };
            self.pipe.write_in_place(slot.start, message.len());
            self.writer.fill(slot, message, false);
            self.writer.append(&mut batch, slot, message.len(), 0);
        }
        batch
    }

    fn fill(&self, slot: Slot, message: &[u8]) {
        self.pipe.write_in_place(slot.start, message.len());
        self.writer.fill(slot, message, false);
    }
}

pub(crate) struct Consumer {
    pub(crate) pipe: Pipe,
    pub(crate) reader: Reader,
    pub(crate) sleeps: u64,
}

/// Why there is no message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Nothing {
    Yet,
    Ever(RecvEnd),
    PeerDied,
}

impl Consumer {
    /// Looks for a record at `at` and takes its message, without releasing it.
    pub(crate) fn peek(&mut self, at: u64) -> Result<(Located, Vec<u8>), Nothing> {
        let found = self.look(at)?;
        Ok((found, self.read(found)))
    }

    fn look(&mut self, at: u64) -> Result<Located, Nothing> {
        let looked = if at == self.reader.head() { self.reader.peek() } else { self.reader.peek_next(at, 0) };
        let looked = looked.map_err(|corruption| Nothing::Ever(RecvEnd::Corrupt(corruption)))?;
        looked.ok_or(Nothing::Yet)
    }

    fn read(&self, found: Located) -> Vec<u8> {
        let payload = found.payload();
        let mut message = vec![0; payload.length()];
        // SAFETY: the ring is mapped, and `message` has the payload's length.
        unsafe { payload.read(message.as_mut_ptr()) };
        self.pipe.read_in_place(found.start, message.len());
        message
    }

    fn take(&mut self, found: Located) -> Vec<u8> {
        let message = self.read(found);
        self.reader.release(found.end, found.limit, 1, message.len() as u64);
        message
    }

    pub(crate) fn try_recv(&mut self) -> Result<Vec<u8>, Nothing> {
        let found = self.look(self.reader.head())?;
        Ok(self.take(found))
    }

    /// Takes the messages that are there, up to `limit`, and releases them together.
    pub(crate) fn drain(&mut self, limit: usize) -> Vec<Vec<u8>> {
        let (mut end, mut messages, mut bytes) = (self.reader.head(), vec![], 0);
        let mut end_limit = self.reader.limit();
        while messages.len() < limit {
            let looked = self.reader.peek_next(end, end_limit);
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
    pub(crate) fn drain_or_sleep(&mut self, limit: usize) -> Vec<Vec<u8>> {
        loop {
            let taken = self.drain(limit);
            if !taken.is_empty() {
                return taken;
            }
            assert_eq!(self.reader.peek_end(), Ok(None));
            sleep_for_record(&self.reader);
        }
    }

    /// Polls while the ring is empty.
    pub(crate) fn recv(&mut self) -> Vec<u8> {
        loop {
            match self.try_recv() {
                Ok(message) => return message,
                Err(Nothing::Yet) => spin_loop(),
                Err(nothing) => panic!("{nothing:?}"),
            }
        }
    }

    /// Takes the next message. Fails if the producer has closed.
    pub(crate) fn try_recv_or_end(&mut self) -> Result<Vec<u8>, Nothing> {
        match self.try_recv() {
            Err(Nothing::Yet) => {
                let found = self.reader.peek_end().map_err(Nothing::Ever)?.ok_or(Nothing::Yet)?;
                Ok(self.take(found))
            }
            other => other,
        }
    }

    /// After the ring was found empty: fails if the producer died. Takes a message that it committed before.
    pub(crate) fn check_for_death(
        &mut self,
        role_is_free: impl FnOnce() -> bool,
    ) -> Result<Vec<u8>, Nothing> {
        let looked = self.reader.check_for_death::<PeerDied>(|| Ok(role_is_free()));
        let looked = looked.map_err(|PeerDied| Nothing::PeerDied)?;
        let found = looked.map_err(Nothing::Ever)?.ok_or(Nothing::Yet)?;
        Ok(self.take(found))
    }

    /// Polls while the ring is empty and the producer has not closed.
    pub(crate) fn recv_or_end(&mut self) -> Result<Vec<u8>, Nothing> {
        loop {
            match self.try_recv_or_end() {
                Err(Nothing::Yet) => spin_loop(),
                done => return done,
            }
        }
    }

    /// Sleeps while the ring is empty and the producer has not closed.
    pub(crate) fn recv_or_sleep(&mut self) -> Result<Vec<u8>, Nothing> {
        loop {
            match self.try_recv_or_end() {
                Err(Nothing::Yet) => {
                    self.sleeps += 1;
                    sleep_for_record(&self.reader);
                }
                done => return done,
            }
        }
    }

    /// The word of the ring at `position`.
    pub(crate) fn word(&self, position: u64) -> u64 {
        // Relaxed: the models call this only for words that their reader has already acquired.
        self.pipe.0.words[(position / WORD) as usize % self.pipe.0.words.len()].load(Ordering::Relaxed)
    }
}

/// A role as the kernel provides it: held until its holder releases it or dies.
#[derive(Clone)]
pub(crate) struct Role(Arc<loom::sync::atomic::AtomicBool>);

impl Role {
    /// A role that is held.
    pub(crate) fn held() -> Self {
        Role(Arc::new(loom::sync::atomic::AtomicBool::new(true)))
    }

    // The kernel orders a process that finds a role free, or claims it, after the previous holder.

    pub(crate) fn give_back(&self) {
        // ORDERING: Release, pairs with the Acquire loads in `claim` and `is_free`.
        self.0.store(false, Ordering::Release);
    }

    pub(crate) fn claim(&self) {
        // ORDERING: Acquire, pairs with the Release store in `give_back`.
        assert!(!self.0.swap(true, Ordering::Acquire), "two holders");
    }

    pub(crate) fn is_free(&self) -> bool {
        // ORDERING: Acquire, pairs with the Release store in `give_back`.
        !self.0.load(Ordering::Acquire)
    }
}
