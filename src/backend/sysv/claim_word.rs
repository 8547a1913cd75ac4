//! The roles of a System V pipe: a word of the header names the process that holds the role, and the kernel knows whether that
//! process still has its memory.
//!
//! ```text
//! 63        45 44           32 31                     0
//! +-----------+---------------+------------------------+
//! | number    | size          | id                     |   0 = the role is free
//! +-----------+---------------+------------------------+
//! ```
//!
//! The id and the size are those of the holder's [presence](super::presence); the number tells the claims of one process apart.
//! A role is free if the word is 0, or if that presence no longer exists. Once it does not, it never exists again, and no process
//! stores the same word again. So a claim is one compare-and-swap, from a word that was found free to our own: if it succeeds, the
//! role was free at that moment.

use super::presence::{Presence, PresenceId};
use crate::protocol::sync::{AtomicU64, Ordering, fence};
use std::io;

/// A word that claims a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClaimWord(u64);

const SIZE_SHIFT: u32 = 32;
const SIZE_BITS: u32 = 13;
const NUMBER_SHIFT: u32 = SIZE_SHIFT + SIZE_BITS;

impl ClaimWord {
    /// A new claim of this process.
    pub(super) fn new(presence: &Presence) -> Self {
        let PresenceId { id, size } = presence.id();
        let number = u64::from(presence.next_claim()) << NUMBER_SHIFT;
        ClaimWord(number | u64::from(size) << SIZE_SHIFT | u64::from(id as u32))
    }

    /// The claim that a role's word holds; `None` if no process claims it.
    pub(super) fn of(word: &AtomicU64) -> Option<Self> {
        // ORDERING: Acquire, pairs with the Release exchange in `release`: what the last holder did happened before.
        Some(word.load(Ordering::Acquire)).filter(|&word| word != 0).map(ClaimWord)
    }

    /// The presence of the process that made the claim. Any process may have written anything into the word.
    pub(super) fn presence(self) -> PresenceId {
        PresenceId { id: self.0 as u32 as i32, size: (self.0 >> SIZE_SHIFT) as u32 & ((1 << SIZE_BITS) - 1) }
    }

    /// Whether the process that made the claim still has its memory.
    pub(super) fn stands(self) -> io::Result<bool> {
        let stands = self.presence().exists()?;
        // The kernel removes a presence after the last instruction of its process. The fence keeps what we read from now on after
        // the kernel's answer.
        // ORDERING: SeqCst, pairs with the barriers of the kernel's exit path.
        fence(Ordering::SeqCst);
        Ok(stands)
    }

    /// Claims a role. `false` if another claim stands, according to `stands`.
    pub(super) fn take<E>(
        self,
        word: &AtomicU64,
        mut stands: impl FnMut(ClaimWord) -> Result<bool, E>,
    ) -> Result<bool, E> {
        loop {
            let found = ClaimWord::of(word);
            let free = match found {
                None => 0,
                Some(claim) if stands(claim)? => return Ok(false),
                Some(void) => void.0,
            };
            // ORDERING: Acquire, pairs with the Release exchange in `release`; after a death, the kernel orders us. Relaxed on
            // failure: the next round loads the word again.
            if word.compare_exchange(free, self.0, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return Ok(true);
            }
            // Another process changed the word, so it claimed the role or gave it up.
        }
    }

    /// Gives the role up. `false` if the word holds another claim by now.
    pub(super) fn release(self, word: &AtomicU64) -> bool {
        // ORDERING: Release, pairs with the Acquire in `take` and `of`: the next holder sees everything that we did.
        word.compare_exchange(self.0, 0, Ordering::Release, Ordering::Relaxed).is_ok()
    }
}

#[cfg(all(test, not(shmpipe_loom)))]
mod model;

#[cfg(all(test, shmpipe_loom))]
mod models {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;
    use std::convert::Infallible;

    /// The word, and what only the holder of the role uses.
    struct Shared {
        word: AtomicU64,
        ring: UnsafeCell<u32>,
    }

    // SAFETY: loom checks every use of the cell.
    unsafe impl Send for Shared {}
    // SAFETY: as above.
    unsafe impl Sync for Shared {}

    #[test]
    fn holders_exclude_and_follow_each_other() {
        loom::model(|| {
            let first = ClaimWord(1);
            let shared = Arc::new(Shared { word: AtomicU64::new(first.0), ring: UnsafeCell::new(0) });
            let claimants: Vec<_> = [ClaimWord(2), ClaimWord(3)]
                .map(|claim| {
                    let shared = shared.clone();
                    thread::spawn(move || {
                        let Shared { word, ring } = &*shared;
                        let taken = claim.take(word, |_| Ok::<_, Infallible>(true)).unwrap();
                        if taken {
                            // SAFETY: we hold the role.
                            ring.with_mut(|ring| unsafe { *ring += 1 });
                            assert!(claim.release(word));
                        }
                    })
                })
                .into();
            // SAFETY: we hold the role.
            shared.ring.with_mut(|ring| unsafe { *ring += 1 });
            assert!(first.release(&shared.word));
            claimants.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }
}
