//! The sleeper and the waker.

use super::Delay;
use super::clock::{self, Queue, now};
use shmpipe::{Consumer, Interest, Key, Options, Producer, Wait, WaitSet};
use shmpipe_testing::LONG;
use shmpipe_testing::either::Either;
use shmpipe_testing::journal::Journal;
use std::hint::spin_loop;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

// The words of the journal. Each side writes to cache lines of its own.

/// Set when a side has failed.
pub const STOP: usize = 0;
/// The sleeper's: the number of the current wait, [`OVER`] after the last; when it began; whether the one before slept.
const BEGUN: usize = 8;
const SINCE: usize = 9;
const SLEPT: usize = 10;
/// The waker's: the number of the wait whose wake-up is complete; when it was.
const WOKEN: usize = 16;
const WHEN: usize = 17;
/// Results: sleeps, waits, waits that ended on the way to sleep, the longest time from publication to return.
pub const SLEEPS: usize = 24;
pub const WAITS: usize = 25;
pub const RACES: usize = 26;
pub const LATEST: usize = 27;

const OVER: u64 = u64::MAX;

/// The limit in nanoseconds for a wait before it is checked, and for its sleep after a complete wake-up. A consumer looks again after
/// 100 ms, a set too, and a producer that sleeps for a share of the ring after 20.
const fn too_long(takes_a_slice: bool) -> u64 {
    if takes_a_slice { 50_000_000 } else { 16_000_000 }
}

pub const CAPACITY: u64 = 4096;

/// The ring holds fifteen such records. A sixteenth would leave no space for the next header word.
const MESSAGE: [u8; 248] = [7; 248];

/// With the bytes that are free in a full ring, these make the share of the ring for which a producer sleeps.
const SHARE: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Sleeper,
    Waker,
}

/// How the sleeper waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In a call that blocks.
    Alone,
    /// In a set with others.
    Set,
    /// In a set that is so large that another thread sleeps on its word.
    LargeSet,
    /// In `poll`, on its descriptor.
    Descriptor,
}

pub const WAYS: [Way; 4] = [Way::Alone, Way::Set, Way::LargeSet, Way::Descriptor];

impl Way {
    /// Members of the set beside the sleeper.
    fn others(self) -> usize {
        if self == Way::LargeSet { 127 } else { 2 }
    }

    /// A consumer, which waits whenever its pipe is empty.
    fn of_consumer(self, mut consumer: Consumer) -> Box<dyn FnMut(Step)> {
        match self {
            Way::Alone => waiting(move || drop(consumer.recv().expect("a message"))),
            Way::Set | Way::LargeSet => {
                let mut set = set_of_others(self.others());
                let key = set.add(Either::Consumer(consumer), Interest::Message).expect("a thread");
                waiting(move || match ready(&mut set, key) {
                    Either::Consumer(consumer) => drop(consumer.try_recv().expect("a message")),
                    Either::Producer(_) => unreachable!("a consumer was added"),
                })
            }
            Way::Descriptor => {
                let mut consumer = consumer.with_descriptor().expect("a descriptor");
                waiting(move || {
                    while consumer.try_recv().expect("no end").is_none() {
                        poll(&consumer);
                    }
                })
            }
        }
    }

    /// A producer, which fills its pipe before it waits.
    fn of_producer(self, mut producer: Producer) -> Box<dyn FnMut(Step)> {
        match self {
            Way::Alone => Box::new(move |step| match step {
                Step::Prepare => fill(&mut producer),
                Step::Wait => {
                    producer.send(&MESSAGE).expect("space");
                }
            }),
            Way::Set | Way::LargeSet => {
                let mut set = set_of_others(self.others());
                let key =
                    set.add(Either::Producer(producer), Interest::Space(MESSAGE.len())).expect("a thread");
                Box::new(move |step| {
                    let end = match step {
                        Step::Prepare => set.get_mut(key).expect("a member"),
                        Step::Wait => ready(&mut set, key),
                    };
                    match (end, step) {
                        (Either::Producer(producer), Step::Prepare) => fill(producer),
                        (Either::Producer(producer), Step::Wait) => {
                            producer.try_send(&MESSAGE).expect("space");
                        }
                        (Either::Consumer(_), _) => unreachable!("a producer was added"),
                    }
                })
            }
            Way::Descriptor => {
                let mut producer = producer.with_descriptor().expect("a descriptor");
                Box::new(move |step| match step {
                    Step::Prepare => while producer.try_send(&MESSAGE).expect("no end").is_some() {},
                    Step::Wait => {
                        while producer.try_send(&MESSAGE).expect("no end").is_none() {
                            poll(&producer);
                        }
                    }
                })
            }
        }
    }
}

/// What a sleeper is to do.
#[derive(Clone, Copy)]
enum Step {
    /// See to it that the next wait has something to wait for.
    Prepare,
    Wait,
}

/// A sleeper that need not prepare.
fn waiting(mut wait: impl FnMut() + 'static) -> Box<dyn FnMut(Step)> {
    Box::new(move |step| {
        if let Step::Wait = step {
            wait();
        }
    })
}

/// A set of consumers whose pipes stay empty.
fn set_of_others(count: usize) -> WaitSet<Either> {
    let mut set = WaitSet::new();
    for _ in 0..count {
        let pipe = Options::new().capacity(CAPACITY).create("memfd").expect("a pipe");
        set.add(Either::Consumer(pipe.consumer().expect("a free role")), Interest::Message)
            .expect("a member");
    }
    set
}

/// Waits until the member is ready, which is the only one.
fn ready(set: &mut WaitSet<Either>, key: Key) -> &mut Either {
    let mut ready = set.wait(None).expect("a member");
    let found = ready.next().map(|event| event.key());
    assert!(found == Some(key) && ready.is_empty(), "another member is ready");
    set.get_mut(key).expect("a member")
}

fn poll(descriptor: &impl AsRawFd) {
    let mut readable = libc::pollfd { fd: descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: the pointer is to one pollfd.
    assert_eq!(unsafe { libc::poll(&raw mut readable, 1, -1) }, 1, "poll");
}

/// The arguments of a side.
#[derive(Clone, Debug)]
pub struct Order {
    pub address: String,
    pub journal: String,
    pub side: Side,
    pub is_consumer: bool,
    /// The sleeper's.
    pub way: Way,
    pub sleeps: u64,
    pub seed: u64,
}

/// The main function of a side in a process of its own.
pub fn play(words: &[String]) {
    Order::from_words(words).play();
}

impl Order {
    pub fn to_words(&self) -> [String; 7] {
        let is_sleeper = self.side == Side::Sleeper;
        [
            self.address.clone(),
            self.journal.clone(),
            is_sleeper.to_string(),
            self.is_consumer.to_string(),
            (self.way as usize).to_string(),
            self.sleeps.to_string(),
            self.seed.to_string(),
        ]
    }

    fn from_words(words: &[String]) -> Self {
        let [address, journal, is_sleeper, is_consumer, way, sleeps, seed] = words else {
            panic!("{words:?} are no order")
        };
        Order {
            address: address.clone(),
            journal: journal.clone(),
            side: if is_sleeper == "true" { Side::Sleeper } else { Side::Waker },
            is_consumer: is_consumer == "true",
            way: WAYS[way.parse::<usize>().expect("a number")],
            sleeps: sleeps.parse().expect("a number"),
            seed: seed.parse().expect("a number"),
        }
    }

    /// Plays this side. Panics at a lost wake-up.
    pub fn play(&self) {
        let journal = Journal::open(&self.journal);
        let pipe = Options::new().wait(Wait::Block).open(self.address.as_str()).expect("a pipe");
        match (self.side, self.is_consumer) {
            (Side::Sleeper, true) => {
                let consumer = pipe.consumer().expect("a free role");
                self.sleep(&journal, self.way.of_consumer(consumer));
            }
            (Side::Sleeper, false) => {
                let producer = pipe.producer().expect("a free role");
                self.sleep(&journal, self.way.of_producer(producer));
            }
            (Side::Waker, false) => {
                let mut producer = pipe.producer().expect("a free role");
                self.wake(&journal, |at| {
                    spin_until(at);
                    producer.try_send(&MESSAGE).expect("an empty ring");
                });
            }
            (Side::Waker, true) => {
                let mut consumer = pipe.consumer().expect("a free role");
                self.wake(&journal, |at| {
                    let mut drain = consumer.drain(SHARE);
                    while drain.next().expect("correct records").is_some() {}
                    assert_eq!(drain.taken(), SHARE, "a full ring");
                    spin_until(at);
                    drop(drain);
                });
            }
        }
    }

    /// Waits until it has slept often enough.
    fn sleep(&self, journal: &Journal, mut sleeper: impl FnMut(Step)) {
        let too_long = too_long(self.is_consumer || self.way != Way::Alone);
        let queue = Queue::new();
        let in_queue = || queue.waited().expect("what the kernel knows of a thread");
        let (mut sleeps, mut waits, mut races, mut latest) = (0, 0, 0, 0);
        while sleeps < self.sleeps {
            waits += 1;
            sleeper(Step::Prepare);
            let (queued, slept) = (in_queue(), clock::sleeps());
            let since = now();
            journal.set(SINCE, since);
            journal.set(BEGUN, waits);
            sleeper(Step::Wait);
            let over = now();
            let has_slept = clock::sleeps() != slept;
            journal.set(SLEPT, has_slept.into());
            if over - since > too_long {
                // The waker may have been late itself.
                wait_for(journal, WOKEN, |number| number == waits);
                let ready = in_queue() - queued;
                let asleep = over.saturating_sub(journal.get(WHEN)).saturating_sub(ready);
                let [asleep, ready] = [asleep, ready].map(Duration::from_nanos);
                assert!(
                    asleep < Duration::from_nanos(too_long),
                    "a lost wake-up: wait {waits} slept for {asleep:?} after a complete wake-up, \
                     and waited {ready:?} for a processor"
                );
            }
            if journal.get(WOKEN) == waits {
                latest = latest.max(over.saturating_sub(journal.get(WHEN)));
            }
            sleeps += u64::from(has_slept);
            // A side that sleeps at once still takes a microsecond to do so. A longer wait without sleep was woken on the way to it, or
            // polled.
            races += u64::from(!has_slept && over - since > 1_000);
        }
        let results = [(SLEEPS, sleeps), (WAITS, waits), (RACES, races), (LATEST, latest)];
        results.into_iter().for_each(|(word, number)| journal.set(word, number));
        journal.set(BEGUN, OVER);
    }

    /// Wakes the other side each time that it waits. `publish` does it at the given time.
    fn wake(&self, journal: &Journal, mut publish: impl FnMut(u64)) {
        let mut delay = Delay::new(self.seed);
        let mut last = 0;
        loop {
            let begun = wait_for(journal, BEGUN, |number| number != last);
            if begun == OVER {
                return;
            }
            if last > 0 {
                delay.learn(journal.get(SLEPT) != 0);
            }
            last = begun;
            publish(journal.get(SINCE) + delay.next());
            journal.set(WHEN, now());
            journal.set(WOKEN, begun);
        }
    }
}

fn fill(producer: &mut Producer) {
    while producer.try_send(&MESSAGE).is_ok() {}
}

fn spin_until(at: u64) {
    while now() < at {
        spin_loop();
    }
}

/// Waits for the other side to set a word.
fn wait_for(journal: &Journal, word: usize, is_it: impl Fn(u64) -> bool) -> u64 {
    let deadline = Instant::now() + LONG;
    let mut looks = 0_u32;
    loop {
        let found = journal.get(word);
        if is_it(found) {
            return found;
        }
        assert!(journal.get(STOP) == 0, "the other side has failed");
        looks += 1;
        if looks % 1024 == 0 {
            assert!(Instant::now() < deadline, "stuck: the other side makes no progress");
            // The other side is overdue. Perhaps it needs this processor.
            thread::sleep(Duration::from_micros(50));
        }
        spin_loop();
    }
}
