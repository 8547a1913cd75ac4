//! An invalid word in the segment. `reader`, `writer`, `recovery` and `liveness` detect it.

use std::fmt;

/// A word in the segment that no correct peer writes.
///
/// The endpoint that finds one is poisoned: every later send or receive returns the same error.
///
/// ```
/// use shmpipe::TryRecvError;
///
/// # let pipe = shmpipe::Options::new().create("memfd")?;
/// # let mut consumer = pipe.consumer()?;
/// if let Err(TryRecvError::Corrupt(corruption)) = consumer.try_recv() {
///     eprintln!("the {} holds {:#x}", corruption.word(), corruption.found());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corruption {
    pub(super) word: &'static str,
    pub(super) position: u64,
    pub(super) found: u64,
}

impl Corruption {
    /// Returns the name of the word: `record header`, `head`, `tail`, `state`, or, to a [`Tap`](crate::Tap), `reach`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        self.word
    }

    /// Returns the position in the stream at which the endpoint found it; 0 for `state`, which belongs to no position.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Returns the value of the word.
    #[must_use]
    pub fn found(&self) -> u64 {
        self.found
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {}", self.word)?;
        if self.word != "state" {
            write!(f, " at position {}", self.position)?;
        }
        write!(f, " holds {:#x}, which no correct peer writes; recreate the pipe", self.found)
    }
}

impl std::error::Error for Corruption {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_has_no_position() {
        let text = |word, position| Corruption { word, position, found: 0x2a }.to_string();
        let end = "holds 0x2a, which no correct peer writes; recreate the pipe";
        assert_eq!(text("record header", 0), format!("the record header at position 0 {end}"));
        assert_eq!(text("head", 8), format!("the head at position 8 {end}"));
        assert_eq!(text("state", 0), format!("the state {end}"));
    }
}
