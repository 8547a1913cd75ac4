//! The plan of acts in ring after ring. Every message size and every index of the ring occurs once before any occurs again.

use super::act::{Act, RECEIVING, SENDING, VALUE, Way, content};
use super::judge::Judge;
use super::ring::{Done, Receiving, Sending, Setting};
use crate::verdict::Failure;
use shmpipe::WakeMode;
use shmpipe_testing::rng::Rng;
use std::path::Path;

/// Capacity of the ring in which messages start at every index.
const SMALL: usize = 4096;

/// Capacity for messages long enough for vector loops and non-temporal stores (`src/protocol/copy.rs`).
const LARGE: usize = 1 << 15;

/// Every length below this occurs.
const SIZES: u64 = 321;

/// Acts in one ring.
const ACTS: u64 = 16;

/// The traced end of a ring.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// The producer of a small ring, with dealt sizes and indices.
    Sending {
        turn: u64,
    },
    Receiving,
    SendingLarge,
    ReceivingLarge,
}

const KINDS: [Kind; 8] = [
    Kind::Sending { turn: 0 },
    Kind::Receiving,
    Kind::SendingLarge,
    Kind::Sending { turn: 1 },
    Kind::ReceivingLarge,
    Kind::Sending { turn: 2 },
    Kind::Sending { turn: 3 },
    Kind::Sending { turn: 4 },
];

const TURNS: u64 = 5;

/// The ways to send a dealt size.
const COMMITTED: [Way; 7] =
    [Way::TrySend, Way::Send, Way::SendTagged, Way::SendGathered, Way::Reserve, Way::Shorter, Way::Batch];

/// The first positions: zero, and just before they exceed 32 and 63 bits, and overflow.
const POSITIONS: [u64; 4] = [0, (1 << 32) - 8192, (1 << 63) - 8192, 0_u64.wrapping_sub(8192)];

/// The plan of a seed.
#[derive(Debug)]
pub struct Plan {
    seed: u64,
    small: Judge,
    large: Judge,
}

/// Why it stopped early.
#[derive(Debug)]
pub enum Stopped {
    Torn(String),
    Other(Failure),
}

impl From<String> for Stopped {
    fn from(why: String) -> Self {
        Stopped::Torn(why)
    }
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Stopped::Other(failure)
    }
}

impl Plan {
    pub fn new(seed: u64) -> Self {
        Plan { seed, small: Judge::new(SMALL), large: Judge::new(LARGE) }
    }

    /// The generator of a part of the plan.
    fn rng(&self, part: u64) -> Rng {
        Rng::of_part(self.seed, part)
    }

    /// Number `at` of an endless sequence of shuffles of the numbers below `count`.
    fn dealt(&self, at: u64, count: u64) -> u64 {
        let mut rng = self.rng(count << 40 | (at / count));
        let mut cards: Vec<u64> = (0..count).collect();
        for i in (1..count).rev() {
            cards.swap(i as usize, rng.below(i + 1) as usize);
        }
        cards[(at % count) as usize]
    }

    /// The number of rings that cover every size and every index once.
    pub fn rings_for_all() -> u64 {
        (SMALL as u64 / 8).max(SIZES).div_ceil(ACTS).div_ceil(TURNS) * KINDS.len() as u64
    }

    /// Works through ring number `ring`, until `is_over`.
    pub fn work(&self, ring: u64, program: &Path, is_over: impl Fn(Done) -> bool) -> Result<Done, Stopped> {
        let mut rng = self.rng(ring);
        let wake_mode = [WakeMode::Membarrier, WakeMode::Fence, WakeMode::Never][rng.below(3) as usize];
        let position = POSITIONS[rng.below(4) as usize];
        let kind = KINDS[(ring % KINDS.len() as u64) as usize];
        let (judge, capacity) = match kind {
            Kind::Sending { .. } | Kind::Receiving => (&self.small, SMALL),
            Kind::SendingLarge | Kind::ReceivingLarge => (&self.large, LARGE),
        };
        let setting = Setting { program, capacity, wake_mode, position };
        match kind {
            Kind::Sending { turn } => {
                let turn = ring / KINDS.len() as u64 * TURNS + turn;
                self.send(Sending::new(setting, judge)?, turn, &mut rng, is_over)
            }
            Kind::SendingLarge => self.send(Sending::new(setting, judge)?, ring, &mut rng, is_over),
            Kind::Receiving | Kind::ReceivingLarge => {
                self.receive(Receiving::new(setting, judge)?, &mut rng, is_over)
            }
        }
    }

    /// The length of a message, now and then any that fits.
    fn length(&self, rng: &mut Rng, capacity: usize) -> usize {
        let longest = capacity as u64 / 2 - 8;
        match rng.below(16) {
            0 => longest as usize,
            1 | 2 => rng.below(longest + 1) as usize,
            _ if capacity == LARGE => (2040 + rng.below(7000)) as usize,
            _ => rng.below(SIZES) as usize,
        }
    }

    fn send(
        &self,
        mut sending: Sending<'_>,
        turn: u64,
        rng: &mut Rng,
        is_over: impl Fn(Done) -> bool,
    ) -> Result<Done, Stopped> {
        sending.step(&Act::of(Way::Claim))?;
        let capacity = sending.ring.capacity;
        for card in turn * ACTS..(turn + 1) * ACTS {
            if is_over(sending.ring.done) {
                return Ok(sending.ring.done);
            }
            let number = card as u32 * 32 + 32;
            if capacity == SMALL {
                sending.move_to(8 * self.dealt(card, capacity as u64 / 8) as usize)?;
                let length = self.dealt(card, SIZES) as usize;
                sending.step(&self.sent(&COMMITTED, rng, number, length, capacity))?;
            } else {
                sending.move_to(8 * rng.below(capacity as u64 / 8) as usize)?;
            }
            // After the messages in the ring, if there is space.
            let length = self.length(rng, capacity);
            sending.step(&self.sent(&SENDING, rng, number + 16, length, capacity))?;
            if rng.below(24) == 0 {
                let way = [Way::Close, Way::Drop][rng.below(2) as usize];
                sending.step(&Act::of(way))?;
                sending.step(&Act::of(Way::Claim))?;
            }
        }
        sending.take()?;
        Ok(sending.ring.done)
    }

    /// An act that sends a message of that length, or several.
    fn sent(&self, ways: &[Way], rng: &mut Rng, number: u32, length: usize, capacity: usize) -> Act {
        let way = ways[rng.below(ways.len() as u64) as usize];
        let mut act = Act::new(way, number, [length]);
        match way {
            Way::SendValue => act.lengths = vec![VALUE],
            Way::Shorter => {
                let longest = capacity / 2 - 8;
                let more = rng.log_uniform((longest - length) as u64) as usize;
                act.lengths = vec![length + more, length];
            }
            Way::Batch | Way::BatchDropped => {
                for _ in 0..rng.below(5) {
                    act.lengths.push(self.length(rng, capacity));
                    if act.room() > capacity {
                        act.lengths.pop();
                    }
                }
            }
            _ => {}
        }
        act
    }

    fn receive(
        &self,
        mut receiving: Receiving<'_>,
        rng: &mut Rng,
        is_over: impl Fn(Done) -> bool,
    ) -> Result<Done, Stopped> {
        receiving.step(&Act::of(Way::Claim))?;
        let capacity = receiving.ring.capacity;
        for i in 0..ACTS {
            if is_over(receiving.ring.done) {
                break;
            }
            let wanted = 1 + rng.below(5) as usize;
            for tag in 0..16 {
                if receiving.there() < wanted {
                    let number = i as u32 * 16 + tag + 1;
                    receiving.send((number, content(number, self.length(rng, capacity))));
                }
            }
            let way = RECEIVING[rng.below(RECEIVING.len() as u64) as usize];
            receiving.step(&Act::new(way, 0, [1 + rng.below(6) as usize]))?;
            if rng.below(24) == 0 {
                let way = [Way::Close, Way::Drop][rng.below(2) as usize];
                receiving.step(&Act::of(way))?;
                receiving.step(&Act::of(Way::Claim))?;
            }
        }
        Ok(receiving.ring.done)
    }
}
