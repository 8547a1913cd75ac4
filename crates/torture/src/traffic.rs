//! Numbered messages between two processes that may be killed at any instant: each notes in a journal what it is about to do and
//! what it has done, so that its successor knows what must be in the pipe, and what may come a second time.

mod receiving;
mod report;
mod sending;
pub mod words;

pub use receiving::consume;
pub use report::describe;
pub use sending::produce;

use shmpipe::{Options, Pipe, SetupError, Wait};
use shmpipe_testing::journal::Journal;
use shmpipe_testing::rng::Rng;
use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};
use words::{DOUBTS, HOLDER, STOP};

/// What a process that sends or receives is told.
#[derive(Clone, Debug)]
pub struct Orders {
    pub address: String,
    pub journal: String,
    pub seed: u64,
    /// Which of all that play its part it is.
    pub ordinal: u64,
    pub wait: Wait,
    /// It comes while its predecessor lives, and has to wait until that is dead.
    pub rival: bool,
    /// It promises to believe the other side, and works in place.
    pub trusting: bool,
    /// Now and then it leaves the other side alone for long enough that it goes to sleep.
    pub dawdling: bool,
    /// It closes now and then, opens the pipe anew and goes on, as its own successor, with the next ordinal.
    pub staying: bool,
}

/// How long somebody who was killed may still be in the way: on a busy machine, as long as another process can be without a
/// processor.
const GONE: Duration = Duration::from_secs(20);

const WAITS: [(&str, Wait); 3] = [("spin", Wait::Spin), ("yield", Wait::Yield), ("block", Wait::Block)];

impl Orders {
    pub fn to_words(&self) -> [String; 9] {
        let (wait, _) = WAITS.into_iter().find(|(_, wait)| *wait == self.wait).expect("one of three");
        [
            self.address.clone(),
            self.journal.clone(),
            self.seed.to_string(),
            self.ordinal.to_string(),
            wait.to_owned(),
            self.rival.to_string(),
            self.trusting.to_string(),
            self.dawdling.to_string(),
            self.staying.to_string(),
        ]
    }

    fn from_words(words: &[String]) -> Self {
        fn parsed<T: FromStr>(word: &str) -> T {
            word.parse().unwrap_or_else(|_| panic!("{word:?} is no order"))
        }
        let [address, journal, seed, ordinal, wait, rival, trusting, dawdling, staying] = words else {
            panic!("{words:?} are no orders")
        };
        let (_, wait) = WAITS.into_iter().find(|(name, _)| name == wait).expect("one of three");
        Orders {
            address: address.clone(),
            journal: journal.clone(),
            seed: parsed(seed),
            ordinal: parsed(ordinal),
            wait,
            rival: parsed(rival),
            trusting: parsed(trusting),
            dawdling: parsed(dawdling),
            staying: parsed(staying),
        }
    }

    fn open(&self, journal: &Journal) -> Pipe {
        let options = Options::new().wait(self.wait);
        self.insist(journal, || options.open(self.address.as_str()))
    }

    /// Opens the pipe, or claims a role, which is free unless a predecessor is there that we have to outlive: again as long as it
    /// cannot be done yet.
    fn insist<T>(&self, journal: &Journal, act: impl Fn() -> Result<T, SetupError>) -> T {
        let since = Instant::now();
        loop {
            match act() {
                Ok(done) => return done,
                Err(SetupError::RoleTaken { .. }) if self.rival => nap(50),
                // Somebody is on his way through for longer than he is given: killed, or stopped, or without a processor. Or he is
                // gone, but not his memory, since somebody else had a look at it (/proc) when he was killed.
                Err(
                    SetupError::Busy { .. } | SetupError::ClaimsLost { .. } | SetupError::RoleTaken { .. },
                ) if since.elapsed() < GONE => {
                    journal.word(DOUBTS).fetch_add(1, Ordering::Relaxed);
                    nap(1000);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Plays one holder of a role after the other; whether there is another one, it is told by the one before.
fn play(words: &[String], hold: impl Fn(&Orders, &Journal)) {
    let mut orders = Orders::from_words(words);
    let journal = Journal::open(&orders.journal);
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

/// When one who stays is to close, and to begin anew.
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

/// Who holds a role, as its holders have it.
///
/// Each holder leaves its ordinal behind with everything that it does, and finds it there again the next time. If another one
/// does the same meanwhile, either finds the other's.
struct Tenure<'a> {
    journal: &'a Journal,
    word: usize,
    ordinal: u64,
}

impl<'a> Tenure<'a> {
    /// Begins when a role has been claimed.
    fn new(journal: &'a Journal, role: usize, ordinal: u64) -> Self {
        let word = HOLDER[role];
        journal.set(word, ordinal);
        Tenure { journal, word, ordinal }
    }

    /// While the role is held.
    fn renew(&self) {
        // Relaxed: only that each swap is one, and that they have an order.
        let found = self.journal.word(self.word).swap(self.ordinal, Ordering::Relaxed);
        assert_eq!(found, self.ordinal, "two hold the role: ours is {}, {found} was here", self.ordinal);
    }
}

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

/// Does nothing for a moment, now and then, for somebody to be killed in.
fn hold(rng: &mut Rng) {
    if rng.below(16) == 0 {
        (0..rng.below(2000)).for_each(|_| std::hint::spin_loop());
    }
}

/// Leaves the other side alone, now and then.
fn dawdle(rng: &mut Rng) {
    if rng.below(8) == 0 {
        nap(rng.log_uniform(500));
    }
}

fn nap(micros: u64) {
    thread::sleep(Duration::from_micros(micros));
}
