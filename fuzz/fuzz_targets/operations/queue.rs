//! A model of a pipe without memory: a queue of messages, two ends, and arithmetic on positions.

use crate::input::Side;
use shmpipe::Peer;
use shmpipe_fuzz::model;
use shmpipe_testing::errors::AnySendError;
use std::collections::VecDeque;

/// A committed message that is not released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub position: u64,
    pub tag: u32,
    pub bytes: Vec<u8>,
}

impl Message {
    pub fn end(&self) -> u64 {
        self.position.wrapping_add(model::size(self.bytes.len() as u64))
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    Never,
    Open,
    Closed,
    Aborted,
}

/// A side, by "Ends and deaths" in LAYOUT.md.
#[derive(Clone, Copy, Debug, Default)]
pub struct End {
    pub epoch: u64,
    pub phase: Phase,
    /// The code of its latest abort.
    pub code: u32,
    /// The role is claimed.
    pub is_held: bool,
    /// The last epoch of the peer whose end needs no report. In private memory, so a death loses it.
    pub seen: u64,
    /// The same in the header, for successors.
    pub reported: u64,
    /// Its waits are cancelled.
    pub is_cancelled: bool,
}

impl End {
    pub fn word(&self) -> u64 {
        self.epoch << 2 | self.phase as u64
    }
}

/// Why there is no message, or no space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Not,
    Closed,
    Aborted(u32),
    Died,
}

#[derive(Debug)]
pub struct Queue {
    pub capacity: u64,
    pub messages: VecDeque<Message>,
    pub head: u64,
    pub tail: u64,
    pub producer: End,
    pub consumer: End,
    /// The counters of the two sides: messages and bytes.
    pub produced: [u64; 2],
    pub consumed: [u64; 2],
}

impl Queue {
    pub fn new(capacity: u64, position: u64) -> Self {
        Queue {
            capacity,
            messages: VecDeque::new(),
            head: position,
            tail: position,
            producer: End::default(),
            consumer: End::default(),
            produced: [0; 2],
            consumed: [0; 2],
        }
    }

    /// A side and its peer.
    pub fn ends(&mut self, side: Side) -> (&mut End, &mut End) {
        match side {
            Side::Producer => (&mut self.producer, &mut self.consumer),
            Side::Consumer => (&mut self.consumer, &mut self.producer),
        }
    }

    pub fn claim(&mut self, side: Side) {
        let (own, peer) = self.ends(side);
        own.seen = own.reported.min(peer.epoch);
        if side == Side::Producer && peer.phase == Phase::Closed {
            own.seen = peer.epoch;
        }
        (own.epoch, own.phase, own.is_held, own.is_cancelled) = (own.epoch + 1, Phase::Open, true, false);
    }

    /// What a call that cannot succeed reports about the peer. With `asks`, it asks the kernel whether the peer lives.
    pub fn why(&mut self, side: Side, asks: bool) -> Why {
        let (own, peer) = self.ends(side);
        let is_unreported = peer.epoch > own.seen;
        if peer.phase == Phase::Closed && is_unreported {
            own.reported = peer.epoch;
            Why::Closed
        } else if peer.phase == Phase::Aborted && is_unreported {
            (own.seen, own.reported) = (peer.epoch, peer.epoch);
            Why::Aborted(peer.code)
        } else if asks && peer.phase == Phase::Open && !peer.is_held && is_unreported {
            (own.seen, own.reported) = (peer.epoch, peer.epoch);
            Why::Died
        } else {
            Why::Not
        }
    }

    /// How the consumer has ended, which a producer reports before anything else.
    pub fn consumer_end(&mut self) -> Option<AnySendError> {
        match self.why(Side::Producer, false) {
            Why::Closed => Some(AnySendError::Closed),
            Why::Aborted(code) => Some(AnySendError::PeerAborted { code }),
            Why::Not | Why::Died => None,
        }
    }

    /// The state of the peer.
    pub fn peer(&mut self, side: Side) -> Peer {
        let (_, peer) = self.ends(side);
        match (peer.phase, peer.is_held) {
            (Phase::Never, _) => Peer::NeverCame,
            (Phase::Closed, _) => Peer::Closed,
            (Phase::Aborted, _) => Peer::Aborted { code: peer.code },
            (Phase::Open, true) => Peer::Open,
            (Phase::Open, false) => Peer::Died,
        }
    }

    /// Whether a wait for the peer returns at once.
    pub fn has_peer(&mut self, side: Side) -> bool {
        let (own, peer) = self.ends(side);
        let is_unreported = peer.phase != Phase::Never && peer.epoch > own.seen.max(own.reported);
        (side == Side::Consumer && is_unreported) || (peer.phase == Phase::Open && peer.is_held)
    }

    /// Start and end of a record of `length` bytes at `at`.
    pub fn slot(&self, at: u64, length: usize) -> (u64, u64) {
        let (size, to_end) = (model::size(length as u64), self.capacity - at % self.capacity);
        let start = if size > to_end { at.wrapping_add(to_end) } else { at };
        (start, start.wrapping_add(size))
    }

    /// Whether everything up to `end`, and the word there, is free.
    pub fn has_room(&self, end: u64) -> bool {
        end.wrapping_add(8).wrapping_sub(self.head) <= self.capacity
    }

    pub fn used(&self) -> u64 {
        self.tail.wrapping_sub(self.head)
    }

    /// Commits all of these at once.
    pub fn commit(&mut self, messages: Vec<Message>) {
        for message in messages {
            self.tail = message.end();
            self.produced[0] += 1;
            self.produced[1] += message.bytes.len() as u64;
            self.messages.push_back(message);
        }
    }

    /// Releases the first `count`.
    pub fn release(&mut self, count: usize) {
        for message in self.messages.drain(..count) {
            self.head = message.end();
            self.consumed[0] += 1;
            self.consumed[1] += message.bytes.len() as u64;
        }
    }
}
