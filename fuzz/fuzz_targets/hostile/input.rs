//! The fuzzer's input: calls, and changes between them and in their middle.

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

/// A word and its new value.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub struct Spot(Place, Value);

impl Spot {
    /// Offset and value in this segment.
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
    /// The change in this segment.
    pub fn change(self, image: &Image) -> Change {
        let (offset, word) = self.spot.of(image);
        // A call accesses header words first, then the payload. Each access takes microseconds.
        Change { after: u32::from(self.after) % 40, offset, word }
    }
}

#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Side {
    Producer,
    Consumer,
}

/// The form of a call.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum When {
    /// It does not wait.
    Now,
    /// It does not wait, and a word changes meanwhile.
    During(During),
    /// With a deadline in the past.
    Late,
    /// Without a deadline, but cancelled.
    Cancelled,
    /// With a deadline late enough that it checks the peer. Rare, since it is slow.
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
