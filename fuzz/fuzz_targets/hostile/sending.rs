//! The valid results of a producer, by LAYOUT.md.

use crate::has_aborted;
use shmpipe::{Corruption, Lost, Producer};
use shmpipe_fuzz::model::{self, Image};
use shmpipe_testing::errors::AnySendError;
use shmpipe_testing::layout;
use std::ops::Range;

/// A producer and its expected state.
pub struct Sending {
    pub producer: Producer,
    pub tail: u64,
    /// Its possible copies of the head. After a change in the middle of a call there may be two.
    heads: Vec<u64>,
    pub capacity: u64,
    pub poison: Option<Corruption>,
    /// Its possible states since the claim.
    states: Vec<u64>,
    /// A change since the claim may have hit the lines that the producer cleared ahead.
    pub overwritten: bool,
}

/// The result of a search for space.
#[derive(Debug, PartialEq, Eq)]
pub enum Room {
    /// Space for a record at this position.
    At(u64),
    Full,
    Corrupt,
}

impl Sending {
    pub fn new(producer: Producer, heads: Vec<u64>, states: Vec<u64>) -> Self {
        let (tail, capacity) = (producer.position().get(), producer.capacity());
        Sending { producer, tail, heads, capacity, poison: None, states, overwritten: false }
    }

    /// Whether its state is the one since the claim.
    pub fn is_ours(&self, images: &[&Image]) -> bool {
        images.iter().all(|image| self.states.iter().all(|state| *state == image.word(layout::PRODUCER)))
    }

    pub fn cancel(&self) {
        self.producer.cancel_handle().cancel();
    }

    /// Searches for space at `at`, with the copy `head` of the head, and `seen` in the header. Returns the new copy too.
    fn look(&self, head: u64, at: u64, length: usize, seen: u64) -> (Room, u64) {
        let (size, to_end) = (model::size(length as u64), self.capacity - at % self.capacity);
        let start = if size > to_end { at.wrapping_add(to_end) } else { at };
        let need = start.wrapping_add(size).wrapping_add(8);
        let fits = |head: u64| need.wrapping_sub(head) <= self.capacity;
        if fits(head) {
            return (Room::At(start), head);
        }
        if seen % 8 != 0 || seen.wrapping_sub(head) > self.tail.wrapping_sub(head) {
            return (Room::Corrupt, head);
        }
        (if fits(seen) { Room::At(start) } else { Room::Full }, seen)
    }

    /// Checks that a search for space may have this result, and keeps the copies of the head that give it.
    pub fn finds(&mut self, room: &Room, at: u64, length: usize, images: &[&Image]) {
        let seen = || images.iter().map(|image| image.word(layout::HEAD));
        let looks = self.heads.iter().flat_map(|&head| seen().map(move |seen| (head, seen)));
        let looks: Vec<_> = looks.map(|(head, seen)| self.look(head, at, length, seen)).collect();
        let mut heads: Vec<_> =
            looks.iter().filter(|(found, _)| found == room).map(|(_, head)| *head).collect();
        assert!(!heads.is_empty(), "{room:?}, not one of {looks:x?}");
        heads.sort_unstable();
        heads.dedup();
        self.heads = heads;
    }

    /// Checks an error for corruption.
    pub fn is_corrupt(&mut self, corruption: Corruption, at: u64, length: usize, images: &[&Image]) {
        let holds = |offset| images.iter().any(|image| image.word(offset) == corruption.found());
        if let Some(poison) = self.poison {
            assert_eq!(poison, corruption);
        } else if corruption.word() == "head" {
            assert_eq!(corruption.position(), self.tail);
            assert!(holds(layout::HEAD), "{corruption}");
            self.finds(&Room::Corrupt, at, length, images);
        } else {
            assert_eq!((corruption.word(), corruption.position()), ("state", 0));
            assert!(holds(layout::CONSUMER), "{corruption}");
        }
        self.poison = Some(corruption);
    }

    /// Checks the result of sending `length` bytes at `at`.
    pub fn check(&mut self, sent: &Result<u64, AnySendError>, at: u64, length: usize, images: &[&Image]) {
        let longest = model::longest(self.capacity) as usize;
        if *sent == Err(AnySendError::TooLarge { length, max: longest }) {
            assert!(length > longest);
            return;
        }
        assert!(length <= longest);
        if let Err(AnySendError::Corrupt(corruption)) = sent {
            return self.is_corrupt(*corruption, at, length, images);
        }
        assert_eq!(self.poison, None, "{sent:?} after corruption");
        match sent {
            Ok(start) => self.finds(&Room::At(*start), at, length, images),
            Err(AnySendError::Closed) => {
                assert!(images.iter().any(|image| image.word(layout::CONSUMER) % 4 == 2), "closed");
            }
            Err(AnySendError::PeerAborted { code }) => {
                assert!(has_aborted(layout::CONSUMER, *code, images), "aborted");
            }
            Err(error) => {
                if *error == AnySendError::Lost(Lost::Role) {
                    assert!(!self.is_ours(images), "the role is still ours");
                }
                self.finds(&Room::Full, at, length, images);
            }
        }
    }

    /// The possible values of its free space, in bytes.
    pub fn free(&self) -> impl Iterator<Item = u64> {
        self.heads.iter().map(|head| self.capacity - self.tail.wrapping_sub(*head).min(self.capacity))
    }

    /// The two pieces of the segment that it may take for free: from the tail to one lap after the head.
    pub fn ranges(&self) -> [Range<usize>; 2] {
        let free = self.free().max().expect("a copy of the head");
        let end = self.tail % self.capacity + free;
        let offset = |index: u64| layout::RING + index as usize;
        [
            offset(self.tail % self.capacity)..offset(end.min(self.capacity)),
            offset(0)..offset(end.saturating_sub(self.capacity)),
        ]
    }
}
