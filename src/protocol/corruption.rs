//! What an endpoint found in the segment and did not believe.

use std::fmt;

/// A word in the segment that no correct peer writes.
///
/// The endpoint that found it is poisoned: every later call returns the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corruption {
    pub(super) word: &'static str,
    pub(super) position: u64,
    pub(super) found: u64,
}

impl Corruption {
    /// Which word it is: `record header`, `head`, `tail` or `state`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        self.word
    }

    /// The position in the stream at which it was found.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What the word held.
    #[must_use]
    pub fn found(&self) -> u64 {
        self.found
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the {} at position {} holds {:#x}, which no correct peer writes; recreate the pipe",
            self.word, self.position, self.found
        )
    }
}
