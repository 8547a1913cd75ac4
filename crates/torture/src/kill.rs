//! Both ends of a pipe are killed at random instants, again and again, and a successor goes on each time: nothing that was
//! committed is lost, nothing is torn, nothing comes twice but what was taken and not released, and nobody is stuck.

use crate::run::{Harness, Run};
use crate::verdict::Outcome;
use clap::Args;
use shmpipe::{Consumer, Options, Pipe, Producer, Record, RecvError, SendError, Wait, WakeMode};
use shmpipe_testing::LONG;
use shmpipe_testing::backend::{Backend, Place};
use shmpipe_testing::ledger::Ledger;
use shmpipe_testing::process::{Line, Part, Process};
use shmpipe_testing::rng::Rng;
use std::thread;
use std::time::{Duration, Instant};

/// Kills both ends of pipes, at random instants
#[derive(Debug, Args)]
pub struct Kill {
    /// How often one or both are killed
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    rounds: u64,
}

impl Harness for Kill {
    const PARTS: &'static [(&'static str, Part)] =
        &[("kill: producer", produce), ("kill: consumer", consume)];

    fn run(&self, run: &Run) -> Outcome {
        run.goal(self.rounds, "rounds");
        while run.done() < self.rounds && !run.is_over() {
            let done = run.done();
            lap(&mut run.rng(done), run, (self.rounds - done).min(LAP));
        }
        Ok(())
    }
}

/// Rounds with one pipe.
const LAP: u64 = 200;

// The words of the ledger.

/// Set by the test when the producer is to end after what it is doing.
const STOP: usize = 0;
/// Which producer, and consumer, has begun last: the first, the second, and so on.
const PRODUCERS: usize = 1;
const CONSUMERS: usize = 2;
/// How many messages had been sent when the last producer ended in good order.
const SENT: usize = 3;
/// How many messages came a second time.
const DUPLICATES: usize = 4;
/// Every message before this number was released.
const RELEASED: usize = 5;
/// An entry: what the producer is about to send (the first number, how many messages) and where the ring ends before.
const ATTEMPT: usize = 8;
/// An entry: the number of the next message that the consumer expects, and the position of the last one it took, plus 1.
const TAKEN: usize = 16;

/// What message number `number` is: its length, and the generator of its content.
fn message(number: u64, max: usize) -> (usize, Rng) {
    let mut content = Rng(number.wrapping_mul(0xa076_1d64_78bd_642f));
    (content.log_uniform(max as u64) as usize, content)
}

fn bytes(number: u64, max: usize) -> Vec<u8> {
    let (length, mut content) = message(number, max);
    let mut bytes = vec![0; length];
    content.fill(&mut bytes);
    bytes
}

fn open(line: &Line) -> (Pipe, Ledger, Rng, u64) {
    let [address, ledger, wait, seed, ordinal] = line.words.as_slice() else { panic!() };
    let rng = Rng(seed.parse().unwrap());
    let wait = match wait.as_str() {
        "spin" => Wait::Spin,
        "yield" => Wait::Yield,
        _ => Wait::Block,
    };
    let pipe = Options::new().wait(wait).open(address.as_str()).unwrap();
    (pipe, Ledger::open(ledger), rng, ordinal.parse().unwrap())
}

/// Does it again as long as the consumer dies meanwhile.
fn insist<T>(mut send: impl FnMut() -> Result<T, SendError>) -> T {
    loop {
        match send() {
            Ok(sent) => return sent,
            Err(SendError::Abandoned) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Does nothing for a moment, now and then, for somebody to be killed in.
fn hold(rng: &mut Rng) {
    if rng.below(16) == 0 {
        (0..rng.below(20_000)).for_each(|_| std::hint::spin_loop());
    }
}

fn produce(line: Line) {
    let (pipe, ledger, mut rng, ordinal) = open(&line);
    let mut producer = pipe.producer().unwrap();
    // What our predecessor was about to send is in the pipe as a whole, or not at all: where the ring ends now tells.
    let [first, count, before] = ledger.entry(ATTEMPT);
    let now = producer.position().get();
    assert!(now >= before, "the ring ends at {now}, and ended at {before} before");
    let mut next = if now > before { first + count } else { first };
    ledger.set(PRODUCERS, ordinal);
    while ledger.get(STOP) == 0 {
        let position = producer.position().get();
        let way = rng.below(8);
        let count = if way == 0 { fitting(next, 1 + rng.below(12), &pipe) } else { 1 };
        ledger.enter(ATTEMPT, [next, count, position]);
        send(&mut producer, next, count, way, &mut rng);
        next += count;
    }
    ledger.set(SENT, next);
    producer.close().unwrap();
}

/// How many messages from `first` on, of `count`, make a batch that fits into the ring wherever that stands.
fn fitting(first: u64, count: u64, pipe: &Pipe) -> u64 {
    let mut size = pipe.capacity() / 2 + 8;
    let fits = |number: &u64| {
        size += 8 + message(*number, pipe.max_len()).0.next_multiple_of(8) as u64;
        size <= pipe.capacity()
    };
    ((first..first + count).take_while(fits).count() as u64).max(1)
}

fn send(producer: &mut Producer, next: u64, count: u64, way: u64, rng: &mut Rng) {
    let max = producer.max_len();
    let tag = next as u32;
    let content = bytes(next, max);
    let length = content.len();
    match way {
        0 => {
            let mut batch = producer.batch();
            for number in next..next + count {
                let content = bytes(number, max);
                insist(|| batch.push_tagged(number as u32, &content));
            }
            hold(rng);
            batch.commit();
        }
        1 | 2 => {
            let reserved = length + rng.below((max - length) as u64 + 1) as usize;
            let mut space = loop {
                match producer.reserve(reserved) {
                    Ok(space) => break space,
                    Err(SendError::Abandoned) => {}
                    Err(error) => panic!("{error}"),
                }
            };
            space.write(0, &vec![0xFF; reserved]);
            space.tag(tag);
            hold(rng);
            space.write(0, &content);
            if way == 1 {
                space.commit_len(length);
            } else {
                drop(space);
                insist(|| producer.send_tagged(tag, &content));
            }
        }
        3 => {
            let (first, second) = content.split_at(length / 2);
            insist(|| producer.send_gathered(tag, &[first, second]));
        }
        _ => {
            insist(|| producer.send_tagged(tag, &content));
        }
    };
}

/// What a consumer knows: its own words of the ledger, in private memory.
struct Taker {
    ledger: Ledger,
    max: usize,
    next: u64,
    /// The position of the last record taken, plus 1.
    last: u64,
    /// Every record so far came a second time.
    repeating: bool,
}

impl Taker {
    /// Checks a record, and notes it if it is new.
    fn take<P>(&mut self, record: &Record<'_, P>) {
        let position = record.position().get();
        let is_new = position >= self.last;
        let number = self.number(record.tag());
        assert_eq!(
            number >= self.next,
            is_new,
            "{number} at {position}, expected {} behind {}",
            self.next,
            self.last
        );
        if is_new {
            assert_eq!(number, self.next, "lost: {} at {position}", self.next);
            self.repeating = false;
        } else {
            assert!(self.repeating, "{number} at {position} comes again after new ones");
            let released = self.ledger.get(RELEASED);
            assert!(number >= released, "{number} at {position} comes again and was released: {released}");
            self.ledger.set(DUPLICATES, self.ledger.get(DUPLICATES) + 1);
        }
        assert!(record.to_vec() == bytes(number, self.max), "torn: {number} at {position}");
        if is_new {
            self.next = number + 1;
            self.last = position + 1;
            self.ledger.enter(TAKEN, [self.next, self.last]);
        }
    }

    /// The number of the record with this tag: the one closest to the next, since a ring holds fewer than 2^31.
    fn number(&self, tag: u32) -> u64 {
        self.next.wrapping_add_signed(i64::from((tag as i32).wrapping_sub(self.next as i32)))
    }

    /// The record with this tag, and all before it, were released.
    fn released(&self, tag: u32) {
        self.ledger.set(RELEASED, self.number(tag) + 1);
    }
}

fn consume(line: Line) {
    let (pipe, ledger, mut rng, ordinal) = open(&line);
    let mut consumer = pipe.consumer().unwrap();
    let [next, last] = ledger.entry(TAKEN);
    ledger.set(CONSUMERS, ordinal);
    let mut taker = Taker { ledger, max: pipe.max_len(), next, last, repeating: true };
    while take_some(&mut consumer, &mut taker, &mut rng) {}
}

/// Takes a message or several; says whether there may be more.
fn take_some(consumer: &mut Consumer, taker: &mut Taker, rng: &mut Rng) -> bool {
    if rng.below(8) == 0 {
        let mut drain = consumer.drain(rng.below(20) as usize);
        let mut last = None;
        while let Some(record) = drain.next().unwrap() {
            taker.take(&record);
            last = Some(record.tag());
        }
        hold(rng);
        drain.release();
        last.into_iter().for_each(|tag| taker.released(tag));
        return true;
    }
    match consumer.recv() {
        Ok(message) => {
            taker.take(&message);
            let tag = message.tag();
            hold(rng);
            drop(message);
            taker.released(tag);
            true
        }
        Err(RecvError::Abandoned) => true,
        Err(RecvError::Closed) => false,
        Err(error) => panic!("{error}"),
    }
}

/// The two processes, and how they are started.
struct Pair<'a> {
    place: &'a Place,
    ledger: &'a Ledger,
    rng: Rng,
    /// By which strategies they may wait.
    waits: &'a [&'a str],
    /// How many of each were started.
    started: [u64; 2],
    processes: [Option<Process>; 2],
}

const PARTS: [&str; 2] = ["kill: producer", "kill: consumer"];

impl Pair<'_> {
    fn start(&mut self, which: usize) {
        self.started[which] += 1;
        let words = [self.rng.word(), self.started[which]].map(|word| word.to_string());
        let wait = self.waits[self.rng.below(self.waits.len() as u64) as usize];
        let words = [self.place.as_str(), &self.ledger.path(), wait, &words[0], &words[1]];
        self.processes[which] = Some(Process::start(PARTS[which], &words));
    }

    fn kill(&mut self, which: usize) {
        self.must_live(which);
        self.processes[which].take().unwrap().kill();
    }

    fn must_live(&mut self, which: usize) {
        if let Some(status) = self.processes[which].as_mut().and_then(Process::has_ended) {
            panic!("the {} has ended by itself: {status}", PARTS[which]);
        }
    }

    fn wait_until(&mut self, what: &str, reached: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + LONG;
        while !reached(self) {
            (0..2).for_each(|which| self.must_live(which));
            assert!(Instant::now() < deadline, "stuck: {what}, not within {LONG:?}");
            thread::sleep(Duration::from_micros(100));
        }
    }

    fn pause(&mut self, longest: Duration) {
        thread::sleep(Duration::from_micros(self.rng.log_uniform(longest.as_micros() as u64)));
    }

    /// One or both are killed and have a successor.
    fn round(&mut self) {
        if self.rng.below(8) == 0 {
            // On the way to its role.
            self.pause(Duration::from_millis(8));
        } else {
            self.wait_until("both have begun", |pair| {
                [pair.ledger.get(PRODUCERS), pair.ledger.get(CONSUMERS)] == pair.started
            });
            self.pause(Duration::from_millis(2));
            thread::sleep(Duration::from_micros(self.rng.below(1000)));
        }
        let first = self.rng.below(2) as usize;
        let both = self.rng.below(3) == 0;
        self.kill(first);
        if both {
            self.pause(Duration::from_micros(200));
            self.kill(1 - first);
            if self.rng.below(2) == 0 {
                self.start(1 - first);
                return self.start(first);
            }
        }
        self.start(first);
        if both {
            self.start(1 - first);
        }
    }
}

/// As many rounds with one pipe.
fn lap(rng: &mut Rng, run: &Run, rounds: u64) {
    const BACKENDS: [Backend; 8] = {
        use Backend::{File, Memfd, Posix, SysV};
        [SysV, SysV, SysV, SysV, SysV, Posix, File, Memfd]
    };
    // Who waits by spinning keeps a processor from all others, of which there are many here.
    let all = ["block", "block", "block", "block", "spin", "yield"].as_slice();
    // The last number: how many of ten laps. To register for membarrier takes a process of several threads ten
    // milliseconds, more than all else that it does here.
    let rings = [
        (4096, WakeMode::Membarrier, all, 1),
        (4096, WakeMode::Fence, all, 4),
        (16_384, WakeMode::Never, &all[4..], 1),
        (65_536, WakeMode::Fence, all, 4),
    ];
    let mut chosen = rng.below(10);
    let (capacity, mode, waits, _) = rings
        .into_iter()
        .find(|(.., share)| {
            let is_it = chosen < *share;
            chosen = chosen.saturating_sub(*share);
            is_it
        })
        .expect("ten in all");
    let backend = BACKENDS[rng.below(8) as usize];
    let (place, ledger) = (backend.place(), Ledger::new());
    place.create(&Options::new().capacity(capacity).wake_mode(mode)).unwrap();
    let mut pair = Pair {
        place: &place,
        ledger: &ledger,
        rng: Rng(rng.word()),
        waits,
        started: [0; 2],
        processes: [None, None],
    };
    pair.start(0);
    pair.start(1);
    let mut done = 0;
    while done < rounds && !run.is_over() {
        pair.round();
        done += 1;
        if done % 50 == 0 {
            let [taken, _] = ledger.entry(TAKEN);
            pair.wait_until("messages come", |_| ledger.entry::<2>(TAKEN)[0] > taken);
        }
    }
    ledger.set(STOP, 1);
    for process in pair.processes {
        let status = process.unwrap().wait();
        assert!(status.success(), "{status}");
    }
    let [taken, _] = ledger.entry(TAKEN);
    assert_eq!(taken, ledger.get(SENT), "taken, and sent");
    assert_eq!(ledger.get(RELEASED), ledger.get(SENT), "released, and sent");
    let seen = shmpipe::inspect(&place).unwrap();
    assert_eq!(seen.used, 0);
    run.count("messages", taken);
    run.count("came a second time", ledger.get(DUPLICATES));
    run.advance(done);
}
