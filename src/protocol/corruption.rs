//! An invalid word found in the segment.

use std::fmt;

/// A word in the segment that no correct peer writes.
///
/// The endpoint that finds one is poisoned: every later call returns the same error.
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
    /// Returns the name of the word: `record header`, `head`, `tail` or `state`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        self.word
    }

    /// Returns the position in the stream at which the endpoint found it.
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
        write!(
            f,
            "the {} at position {} holds {:#x}, which no correct peer writes; recreate the pipe",
            self.word, self.position, self.found
        )
    }
}

impl std::error::Error for Corruption {}
