//! What the fuzzer decides: which calls are made, and how long the messages are.

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
    /// Which power of two above 4096 the capacity is, up to 1 MiB: half of the runs have the smallest ring.
    pub fn size(&self) -> usize {
        usize::from(self.capacity % 16).saturating_sub(7)
    }
}

/// Of a message. All but the first kind are what could be off by one.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Length {
    Any(u16),
    Tiny(u8),
    /// More or less than the longest.
    Longest(i8),
    /// More or less than what is left before the end of the ring.
    ToEnd(i8),
    /// More or less than what is free.
    Free(i8),
}

impl Length {
    /// In a ring that is `used` bytes full from `tail` down.
    pub fn of(self, capacity: u64, tail: u64, used: u64) -> usize {
        let around = |bytes: u64, more: i8| bytes.saturating_add_signed(more.into()) as usize;
        let length = match self {
            Length::Any(length) => length.into(),
            Length::Tiny(length) => usize::from(length % 64),
            Length::Longest(more) => around(model::longest(capacity), more),
            Length::ToEnd(more) => around(capacity - tail % capacity, more),
            Length::Free(more) => around(capacity - used, more),
        };
        // A message that is too long is refused before anything else.
        length.min(capacity as usize)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub enum Side {
    Producer,
    Consumer,
}

/// Which form of a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub enum When {
    /// The one that does not wait.
    Now,
    /// With a deadline that is over: the kernel is asked about the peer once.
    Late,
    /// Without a deadline, by an end that was stopped.
    Stopped,
}

#[derive(Debug, Arbitrary)]
pub enum Step {
    Claim {
        side: Side,
        /// By the second handle, which has a mapping of its own.
        other: bool,
    },
    Close(Side),
    Drop(Side),
    /// Dies, perhaps in the middle of its last commit.
    Crash {
        side: Side,
        early: bool,
    },
    /// The second handle is opened anew.
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
        /// So many bytes less are committed; nothing, if that is none.
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
