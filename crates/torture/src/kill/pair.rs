//! A producer and a consumer, or the two sides of a duplex pipe, to kill, stop and replace.

use crate::fork_server::{ForkServer, Forked};
use crate::traffic::words::{ATTEMPT, BEGUN, LEAVE, STOP, TAKEN};
use crate::traffic::{NAMES, Orders, SIDES, describe};
use shmpipe::Wait;
use shmpipe_testing::backend::Place;
use shmpipe_testing::journal::Journal;
use shmpipe_testing::rng::Rng;
use std::thread;
use std::time::{Duration, Instant};

/// A timeout that only a hang exceeds, even on a busy machine.
const STUCK: Duration = Duration::from_secs(30);

/// Microseconds, more than a process takes to begin.
const FIRST_STEPS: u64 = 1500;

pub struct Pair<'a> {
    place: &'a Place,
    /// The journal of each direction. What is the producer of the first is the consumer of the second.
    journals: &'a [Journal],
    names: [&'static str; 2],
    fork_server: &'a mut ForkServer,
    rng: Rng,
    waits: &'a [Wait],
    /// The number of producers and consumers started.
    started: [u64; 2],
    processes: [Option<Forked>; 2],
    rivals: u64,
}

impl<'a> Pair<'a> {
    pub fn new(
        place: &'a Place,
        journals: &'a [Journal],
        fork_server: &'a mut ForkServer,
        rng: Rng,
        waits: &'a [Wait],
    ) -> Self {
        let mut pair = Pair {
            place,
            journals,
            names: if journals.len() == 2 { SIDES } else { NAMES },
            fork_server,
            rng,
            waits,
            started: [0; 2],
            processes: [None, None],
            rivals: 0,
        };
        pair.start(0);
        pair.start(1);
        pair
    }

    /// The number of processes that could not claim a role while another one held it.
    pub fn rivals(&self) -> u64 {
        self.rivals
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.rng.below(one_in) == 0
    }

    fn spawn(&mut self, which: usize, rival: bool) -> Forked {
        self.started[which] += 1;
        let orders = Orders {
            address: self.place.as_str().to_owned(),
            seed: self.rng.word(),
            ordinal: self.started[which],
            wait: self.waits[self.rng.below(self.waits.len() as u64) as usize],
            rival,
            trusting: self.chance(2),
            dawdling: self.chance(3),
            staying: false,
            journals: self.journals.iter().map(Journal::path).collect(),
        };
        self.fork_server.spawn(self.names[which], &orders.to_words())
    }

    fn start(&mut self, which: usize) {
        self.processes[which] = Some(self.spawn(which, false));
    }

    fn process(&mut self, which: usize) -> &mut Forked {
        self.processes[which].as_mut().expect("both are there between two rounds")
    }

    fn kill(&mut self, which: usize) {
        self.must_live(which);
        self.processes[which].take().expect("it lives").kill();
    }

    fn must_live(&mut self, which: usize) {
        if let Some(status) = self.processes[which].as_mut().and_then(Forked::has_ended) {
            let why = self.fork_server.why(status);
            self.describe();
            panic!("the {} ended by itself: {why}", self.names[which]);
        }
    }

    fn wait_until(&mut self, what: &str, reached: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + STUCK;
        while !reached(self) {
            (0..2).for_each(|which| self.must_live(which));
            if Instant::now() >= deadline {
                self.describe();
                panic!("stuck for {STUCK:?}: {what}");
            }
            thread::sleep(Duration::from_micros(50));
        }
    }

    fn pause(&mut self, micros: u64) {
        thread::sleep(Duration::from_micros(self.rng.log_uniform(micros)));
    }

    /// The journals, each with the number of the role that a process has there.
    fn roles(&self, which: usize) -> impl Iterator<Item = (&'a Journal, usize)> {
        self.journals.iter().enumerate().map(move |(way, journal)| (journal, which ^ way))
    }

    fn has_begun(&self, which: usize) -> bool {
        self.roles(which).all(|(journal, role)| journal.get(BEGUN[role]) == self.started[which])
    }

    /// Whether the successor that was started last has begun with anything.
    fn has_begun_anything(&self, which: usize) -> bool {
        self.roles(which).any(|(journal, role)| journal.get(BEGUN[role]) == self.started[which])
    }

    fn must_begin(&mut self, which: usize) {
        let what = format!("the {} has not begun", self.names[which]);
        self.wait_until(&what, |pair| pair.has_begun(which));
    }

    /// Kills or replaces one or both.
    pub fn round(&mut self) {
        if self.chance(8) {
            // Hits them before they hold their roles.
            self.pause(FIRST_STEPS);
        } else {
            (0..2).for_each(|which| self.must_begin(which));
            self.pause(1000);
        }
        let which = self.rng.below(2) as usize;
        let stopped = self.chance(12).then(|| self.rng.below(2) as usize);
        if let Some(stopped) = stopped {
            self.process(stopped).signal(libc::SIGSTOP);
            self.pause(2000);
        }
        match self.rng.below(24) {
            0..=8 => self.replace(which),
            9 if stopped.is_none() => self.take_turns(which),
            9..=10 => self.outlive(which),
            _ => self.replace_both(which),
        }
        if let Some(process) = stopped.and_then(|stopped| self.processes[stopped].as_ref()) {
            process.signal(libc::SIGCONT);
        }
    }

    fn replace(&mut self, which: usize) {
        self.kill(which);
        self.start(which);
    }

    fn replace_both(&mut self, first: usize) {
        self.kill(first);
        self.pause(200);
        self.kill(1 - first);
        let next = self.rng.below(2) as usize;
        self.start(next);
        self.start(1 - next);
    }

    /// Starts a successor before its predecessor is dead. It must wait for the role.
    fn outlive(&mut self, which: usize) {
        if !self.has_begun(which) {
            // It has no role yet: it is starting, or the stopped peer is in its way.
            return self.replace(which);
        }
        let rival = self.spawn(which, true);
        self.pause(FIRST_STEPS);
        self.must_live(which);
        if self.has_begun_anything(which) {
            self.describe();
            panic!("two hold the role: a second {} has begun while the first lives", self.names[which]);
        }
        self.kill(which);
        self.processes[which] = Some(rival);
        self.rivals += 1;
    }

    /// Makes one close and end, and starts a successor.
    fn take_turns(&mut self, which: usize) {
        (0..2).for_each(|which| self.must_begin(which));
        for (journal, role) in self.roles(which) {
            journal.set(LEAVE[role], self.started[which]);
        }
        self.must_end(which, "has not closed");
        self.start(which);
    }

    fn must_end(&mut self, which: usize, what: &str) {
        let Some(status) = self.process(which).ends_within(STUCK) else {
            self.must_live(1 - which);
            self.describe();
            panic!("stuck for {STUCK:?}: the {} {what}", self.names[which]);
        };
        if !status.success() {
            self.must_live(which);
        }
    }

    /// Waits until both make progress.
    pub fn must_progress(&mut self) {
        (0..2).for_each(|which| self.must_begin(which));
        for journal in self.journals {
            let [before, ..] = journal.entry::<3>(ATTEMPT);
            self.wait_until("no message is sent", |_| journal.entry::<3>(ATTEMPT)[0] > before);
            self.wait_until("no message is taken", |_| journal.entry::<2>(TAKEN)[0] > before);
        }
    }

    /// Makes both end normally, a consumer after the last message.
    pub fn end(&mut self) {
        self.journals.iter().for_each(|journal| journal.set(STOP, 1));
        self.must_end(0, "has not ended");
        self.must_end(1, "has not ended");
    }

    fn describe(&self) {
        for (way, journal) in self.journals.iter().enumerate() {
            let process = |role: usize| {
                let which = role ^ way;
                (self.names[which], self.started[which], self.processes[which].as_ref().map(Forked::pid))
            };
            describe(self.place, journal, [0, 1].map(process));
        }
    }
}
