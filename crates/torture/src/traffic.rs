//! Numbered messages between two processes that may be killed at any instant. Each writes to a journal what it is about to do and
//! what it has done. From that its successor knows which messages must be in the pipe, and which may repeat.

mod receiving;
mod report;
mod sending;
mod talking;
pub mod words;

pub use receiving::consume;
pub use report::describe;
pub use sending::produce;
pub use talking::{talk_as_a, talk_as_b};

use crate::fork_server::{self, Child};
use crate::verdict::{Failure, Outcome};
use shmpipe::{Options, Pipe, SetupError, Wait, unlink};
use shmpipe_testing::backend::{Backend, Place};
use shmpipe_testing::journal::Journal;
use shmpipe_testing::process::Line;
use shmpipe_testing::rng::Rng;
use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};
use words::{HOLDER, RELEASED, RETRIES, SENT, STOP, TAKEN};

/// The code of an end that aborts.
const ABORTED: u32 = 77;

/// The children of the fork server for a one-way pipe.
pub const NAMES: [&str; 2] = ["producer", "consumer"];

/// Its children for a duplex pipe.
pub const SIDES: [&str; 2] = ["side A", "side B"];

/// The part of the fork server.
pub fn serve_forks(line: Line) {
    let children: [(&str, Child); 4] =
        [(NAMES[0], produce), (NAMES[1], consume), (SIDES[0], talk_as_a), (SIDES[1], talk_as_b)];
    fork_server::play(line, &children);
}

/// The number of messages, all of which must be taken and released when both ends have ended.
pub fn all_taken(journal: &Journal) -> Result<u64, Failure> {
    let [taken, _] = journal.entry(TAKEN);
    let (sent, released) = (journal.get(SENT), journal.get(RELEASED));
    if [taken, released] != [sent; 2] {
        return Err(Failure::Failed(format!("{sent} sent, {taken} taken, {released} released")));
    }
    Ok(taken)
}

/// Removes the pipe, whose roles are free, and checks that nothing is left.
pub fn remove(place: &Place) -> Outcome {
    // The thread that passes on a memfd holds it, so it cannot be removed.
    if place.backend() != Backend::Memfd {
        unlink(place)?;
        if !place.is_unused() {
            return Err(Failure::Failed(format!("something is left at {place}")));
        }
    }
    Ok(())
}

/// The arguments of a process that sends or receives.
#[derive(Clone, Debug)]
pub struct Orders {
    pub address: String,
    pub seed: u64,
    /// Its number among the holders of its role.
    pub ordinal: u64,
    pub wait: Wait,
    /// It starts while its predecessor lives, and must wait until that is dead.
    pub rival: bool,
    /// It trusts its peer, and works in place.
    pub trusting: bool,
    /// It pauses now and then, long enough that its peer goes to sleep.
    pub dawdling: bool,
    /// It closes now and then, opens the pipe again and continues as its own successor, with the next ordinal.
    pub staying: bool,
    /// The journal of each direction.
    pub journals: Vec<String>,
}

/// How long a killed process may block others: as long as a process on a busy machine can wait for a processor.
const GONE: Duration = Duration::from_secs(20);

const WAITS: [(&str, Wait); 3] = [("spin", Wait::Spin), ("yield", Wait::Yield), ("block", Wait::Block)];

impl Orders {
    pub fn to_words(&self) -> Vec<String> {
        let (wait, _) = WAITS.into_iter().find(|(_, wait)| *wait == self.wait).expect("one of three");
        let words = [
            self.address.clone(),
            self.seed.to_string(),
            self.ordinal.to_string(),
            wait.to_owned(),
            self.rival.to_string(),
            self.trusting.to_string(),
            self.dawdling.to_string(),
            self.staying.to_string(),
        ];
        words.into_iter().chain(self.journals.iter().cloned()).collect()
    }

    fn from_words(words: &[String]) -> Self {
        fn parsed<T: FromStr>(word: &str) -> T {
            word.parse().unwrap_or_else(|_| panic!("{word:?} is no order"))
        }
        let [address, seed, ordinal, wait, rival, trusting, dawdling, staying, journals @ ..] = words else {
            panic!("{words:?} are no orders")
        };
        let (_, wait) = WAITS.into_iter().find(|(name, _)| name == wait).expect("one of three");
        Orders {
            address: address.clone(),
            seed: parsed(seed),
            ordinal: parsed(ordinal),
            wait,
            rival: parsed(rival),
            trusting: parsed(trusting),
            dawdling: parsed(dawdling),
            staying: parsed(staying),
            journals: journals.to_vec(),
        }
    }

    fn open(&self, journal: &Journal) -> Pipe {
        let options = Options::new().wait(self.wait).duplex(self.journals.len() == 2);
        self.insist(journal, || options.open(self.address.as_str()))
    }

    /// Opens the pipe or claims a role. Retries while a predecessor holds the role, or a killed process blocks the way.
    fn insist<T>(&self, journal: &Journal, act: impl Fn() -> Result<T, SetupError>) -> T {
        let since = Instant::now();
        loop {
            match act() {
                Ok(done) => return done,
                Err(SetupError::RoleTaken { .. } | SetupError::SideTaken { .. }) if self.rival => nap(50),
                // A process is in the middle of a claim for longer than the library waits: it was killed or stopped, or waits for a
                // processor. Or it is dead but its memory is not freed yet, as a reader of its /proc files still holds it.
                Err(
                    SetupError::Busy { .. } | SetupError::RoleTaken { .. } | SetupError::SideTaken { .. },
                ) if since.elapsed() < GONE => {
                    journal.word(RETRIES).fetch_add(1, Ordering::Relaxed);
                    nap(1000);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Plays a holder of a role, and its own successors if it is staying.
fn play(words: &[String], hold: impl Fn(&Orders, &Journal)) {
    let mut orders = Orders::from_words(words);
    let journal = Journal::open(&orders.journals[0]);
    loop {
        hold(&orders, &journal);
        if !orders.staying || journal.get(STOP) != 0 {
            break;
        }
        let mut rng = Rng(orders.seed);
        orders.seed = rng.word();
        orders.ordinal += 1;
        orders.trusting = rng.below(2) == 0;
    }
}

/// When a staying process closes and starts again.
struct Term(Option<Instant>);

impl Term {
    fn new(orders: &Orders, rng: &mut Rng) -> Self {
        let length = Duration::from_millis(20 + rng.below(100));
        Term(orders.staying.then(|| Instant::now() + length))
    }

    fn is_over(&self) -> bool {
        self.0.is_some_and(|end| Instant::now() >= end)
    }
}

/// Detects two holders of a role.
///
/// With every action, a holder swaps its ordinal into a word and must find its own there. If two processes do this at the same time,
/// one finds the other's.
struct Tenure<'a> {
    journal: &'a Journal,
    word: usize,
    ordinal: u64,
}

impl<'a> Tenure<'a> {
    /// Starts right after the claim.
    fn new(journal: &'a Journal, role: usize, ordinal: u64) -> Self {
        let word = HOLDER[role];
        journal.set(word, ordinal);
        Tenure { journal, word, ordinal }
    }

    /// Checks it while the role is held.
    fn renew(&self) {
        // Relaxed: swaps of one word are atomic and totally ordered.
        let found = self.journal.word(self.word).swap(self.ordinal, Ordering::Relaxed);
        assert_eq!(found, self.ordinal, "two hold the role: we are {}, {found} was here", self.ordinal);
    }
}

/// The length of message `number`, and the generator of its content.
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

/// Spins for a moment, now and then, so that a kill can hit there.
fn hold(rng: &mut Rng) {
    if rng.below(16) == 0 {
        (0..rng.below(2000)).for_each(|_| std::hint::spin_loop());
    }
}

/// Pauses now and then, so that the peer goes to sleep.
fn dawdle(rng: &mut Rng) {
    if rng.below(8) == 0 {
        nap(rng.log_uniform(500));
    }
}

fn nap(micros: u64) {
    thread::sleep(Duration::from_micros(micros));
}
