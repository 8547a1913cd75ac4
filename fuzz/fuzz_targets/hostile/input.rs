//! What the fuzzer decides: which calls are made, and what is changed between them and in the middle of them.

use arbitrary::Arbitrary;
use shmpipe_fuzz::model::Image;
use shmpipe_fuzz::spoil::{Place, Value};
use shmpipe_fuzz::start::Start;
use shmpipe_fuzz::trap::Change;

/// One run.
#[derive(Debug, Arbitrary)]
pub struct Input {
    pub start: Start,
    pub steps: Vec<Step>,
}

/// A word, and what it is to be.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub struct Spot(Place, Value);

impl Spot {
    /// In a segment that holds these bytes.
    pub fn of(self, image: &Image) -> (usize, u64) {
        (self.0.offset(image) / 8 * 8, self.1.word(image))
    }
}

/// A change in the middle of a call.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub struct During {
    after: u8,
    spot: Spot,
}

impl During {
    /// In a segment that holds these bytes.
    pub fn change(self, image: &Image) -> Change {
        let (offset, word) = self.spot.of(image);
        // The header words come first, the payload after them; and each access takes microseconds.
        Change { after: u32::from(self.after) % 40, offset, word }
    }
}

#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Side {
    Producer,
    Consumer,
}

/// Which form of a call is made.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum When {
    /// The one that does not wait.
    Now,
    /// The same, and something changes meanwhile.
    During(During),
    /// With a deadline that is over.
    Late,
    /// Without a deadline, but stopped.
    Stopped,
    /// With a deadline so far away that the kernel is asked about the peer; rare, since it takes its time.
    Soon(u8),
}

impl When {
    pub fn during(self) -> Option<During> {
        match self {
            When::During(during) => Some(during),
            _ => None,
        }
    }
}

#[derive(Debug, Arbitrary)]
pub enum Step {
    Change(Spot),
    Claim(Side, Option<During>),
    Close(Side),
    Send { length: u16, fill: u8, when: When },
    Reserve { length: u16, commit: u16, when: When },
    Batch(Vec<u16>),
    Free(Option<During>),
    Recv { keep: bool, when: When },
    Value(Option<During>),
    Drain { limit: u8, keep: bool, during: Option<During> },
    Peers,
    WaitForPeers(When),
}
