//! The valid results of a consumer, by LAYOUT.md.

use crate::has_aborted;
use shmpipe::{Consumer, Corruption, Lost};
use shmpipe_fuzz::model::{self, Found, Image};
use shmpipe_testing::errors::AnyRecvError;
use shmpipe_testing::layout;

/// A consumer and its expected state.
pub struct Receiving {
    pub consumer: Consumer,
    pub head: u64,
    pub poison: Option<Corruption>,
    /// Its possible states since the claim.
    states: Vec<u64>,
}

/// A received record.
#[derive(Debug)]
pub struct Received {
    pub start: u64,
    pub length: usize,
    pub tag: u32,
    pub bytes: Vec<u8>,
}

impl Receiving {
    pub fn new(consumer: Consumer, states: Vec<u64>) -> Self {
        let head = consumer.position().get();
        Receiving { consumer, head, poison: None, states }
    }

    /// Whether its state is the one since the claim.
    pub fn is_ours(&self, images: &[&Image]) -> bool {
        images.iter().all(|image| self.states.iter().all(|state| *state == image.word(layout::CONSUMER)))
    }

    /// The possible results of a peek at `at`.
    fn candidates(&self, at: u64, images: &[&Image]) -> Vec<Found> {
        let lap = self.head.wrapping_add(self.consumer.capacity());
        images.iter().map(|image| model::look(image.ring(), at, lap)).collect()
    }

    /// Checks a record received at `at`. Returns its end.
    pub fn takes(&self, received: &Received, at: u64, images: &[&Image]) -> u64 {
        assert_eq!(self.poison, None, "{received:?} after corruption");
        let candidates = self.candidates(at, images);
        let Received { start, length, tag, bytes } = received;
        let end = start.wrapping_add(model::size(*length as u64));
        let record = Found::Record { start: *start, end, length: *length, tag: *tag };
        assert!(candidates.contains(&record), "{record:?}, not one of {candidates:?}");
        assert_eq!(bytes.len(), *length);
        // Each byte is from one image or the other.
        let payloads: Vec<_> =
            images.iter().map(|image| model::payload(image.ring(), *start, *length)).collect();
        for (i, byte) in bytes.iter().enumerate() {
            assert!(payloads.iter().any(|payload| payload[i] == *byte), "byte {i} of {length}");
        }
        end
    }

    /// Checks the error for a peek at `at`.
    pub fn misses(&mut self, error: &AnyRecvError, at: u64, images: &[&Image]) {
        let candidates = self.candidates(at, images);
        let AnyRecvError::Corrupt(corruption) = error else {
            assert_eq!(self.poison, None, "{error:?} after corruption");
            assert!(candidates.contains(&Found::Nothing), "{error:?}, {candidates:?}");
            if *error == AnyRecvError::Lost(Lost::Role) {
                assert!(!self.is_ours(images), "the role is still ours");
            }
            if *error == AnyRecvError::Closed {
                assert!(images.iter().any(|image| image.word(layout::PRODUCER) % 4 == 2), "closed");
            }
            if let AnyRecvError::PeerAborted { code } = *error {
                assert!(has_aborted(layout::PRODUCER, code, images), "aborted");
            }
            return;
        };
        if let Some(poison) = self.poison {
            assert_eq!(poison, *corruption);
        } else if corruption.word() == "state" {
            assert_eq!(corruption.position(), 0);
            assert!(candidates.contains(&Found::Nothing), "{corruption}, {candidates:?}");
            assert!(
                images.iter().any(|image| image.word(layout::PRODUCER) == corruption.found()),
                "{corruption}"
            );
        } else {
            assert!(candidates.contains(&Found::Corrupt), "{corruption}, {candidates:?}");
            assert_eq!(corruption.word(), "record header");
            assert_eq!(corruption.position() % 8, 0);
            let there =
                |image: &&Image| model::word_at(image.ring(), corruption.position()) == corruption.found();
            assert!(images.iter().any(there), "{corruption}");
        }
        self.poison = Some(*corruption);
    }
}
