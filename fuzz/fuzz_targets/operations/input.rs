//! The fuzzer's input: calls, and lengths of messages.

use arbitrary::Arbitrary;
use shmpipe_fuzz::model;
use shmpipe_fuzz::start::Start;

/// One run.
#[derive(Debug, Arbitrary)]
pub struct Input {
    capacity: u8,
    pub start: Start,
    pub steps: Vec<Step>,
}

impl Input {
    /// The capacity is 4096 times two to this power, up to 1 MiB. Half of the runs use the smallest ring.
    pub fn size(&self) -> usize {
        usize::from(self.capacity % 16).saturating_sub(7)
    }
}

/// The length of a message. All kinds but the first test for off-by-one errors.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Length {
    Any(u16),
    Tiny(u8),
    /// Near the longest message.
    Longest(i8),
    /// Near the space before the end of the ring.
    ToEnd(i8),
    /// Near the free space.
    Free(i8),
}

impl Length {
    /// The length in a ring with `used` bytes before `tail`.
    pub fn of(self, capacity: u64, tail: u64, used: u64) -> usize {
        let around = |bytes: u64, more: i8| bytes.saturating_add_signed(more.into()) as usize;
        let length = match self {
            Length::Any(length) => length.into(),
            Length::Tiny(length) => usize::from(length % 64),
            Length::Longest(more) => around(model::longest(capacity), more),
            Length::ToEnd(more) => around(capacity - tail % capacity, more),
            Length::Free(more) => around(capacity - used, more),
        };
        // Longer messages are refused in the same way.
        length.min(capacity as usize)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub enum Side {
    Producer,
    Consumer,
}

/// The form of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub enum When {
    /// It does not wait.
    Now,
    /// With a deadline in the past: it checks the peer once.
    Late,
    /// Without a deadline, but cancelled.
    Cancelled,
}

#[derive(Debug, Arbitrary)]
pub enum Step {
    Claim {
        side: Side,
        /// Uses the second handle, which has its own mapping.
        other: bool,
    },
    Close(Side),
    Drop(Side),
    /// A death, perhaps in the middle of the last commit.
    Crash {
        side: Side,
        early: bool,
    },
    /// Opens the second handle again.
    Reopen,
    Send {
        length: Length,
        tag: Option<u16>,
        when: When,
    },
    Gather {
        length: Length,
        parts: u8,
    },
    Reserve {
        length: Length,
        /// Commits this many bytes less. None drops the reservation.
        less: Option<u16>,
        when: When,
    },
    Batch {
        lengths: Vec<Length>,
        commit: bool,
    },
    Free,
    Recv {
        keep: bool,
        when: When,
    },
    Drain {
        limit: u8,
        keep: bool,
    },
    WaitForPeer(Side),
    Peer(Side),
}
