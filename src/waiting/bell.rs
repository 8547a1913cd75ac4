//! How threads that watch words tell the thread that waits which ones have changed.

use crate::protocol::sync::{Futex, Mutex, SeenWord};

/// A list of what has changed, and a word to sleep on, which every addition changes.
pub(crate) struct Bell {
    rung: Mutex<Vec<usize>>,
    word: Futex,
}

impl Bell {
    pub(crate) fn new() -> Self {
        Bell { rung: Mutex::new(vec![]), word: Futex::new() }
    }

    /// Adds to the list, and wakes the thread that sleeps on the word.
    pub(crate) fn ring(&self, index: usize) {
        self.rung.lock().expect(NO_PANIC).push(index);
        self.word.advance_shared();
        self.word.wake();
    }

    /// The word, to sleep on while nothing is added. To be called before [`take`](Self::take).
    pub(crate) fn seen(&self) -> SeenWord {
        SeenWord::new(&self.word, self.word.count())
    }

    pub(crate) fn word(&self) -> &Futex {
        &self.word
    }

    /// Moves the list to the end of `to`.
    pub(crate) fn take(&self, to: &mut Vec<usize>) {
        to.append(&mut self.rung.lock().expect(NO_PANIC));
    }
}

const NO_PANIC: &str = "no thread panics while it holds the list";
