//! Copies payload bytes into and out of the ring. Only this module touches them.
//!
//! The other process may write these bytes at any moment, whatever the protocol says. So no reference ever points to them, and no
//! ordinary load reads them: the compiler may repeat, split or invent such a load. On x86-64 and AArch64, each access is in an `asm!`
//! block. The compiler knows neither how many bytes the block moves nor what they are, so a racing peer can change the *data* that
//! arrives and nothing else. On other processors, the accesses are relaxed atomics (`words.rs`). With `--cfg shmpipe_portable` they
//! are on every processor, for loom and for sanitizers, which cannot see into an `asm!` block.
//!
//! | bytes | copied by | because |
//! |---|---|---|
//! | 1 to 64 | two blocks, inline, which overlap unless the length is twice the block | a call would cost more than the copy |
//! | more | `memcpy` of the C library | it is tuned for more processors than our code |
//! | [`LONG`] and more, out of the ring | AVX, on AMD's Zen 3 to Zen 5 | `memcpy` uses `rep movsb`, which is slow there at some alignments |
//! | [`LONG`] and more, into the ring | non-temporal stores, if [`Distance`](crate::endpoint::distance::Distance) finds the consumer far away | they do not wait for the other core |

#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(shmpipe_portable)))]
#[path = "copy/direct.rs"]
mod bytes;
#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(shmpipe_portable))))]
#[path = "copy/words.rs"]
mod bytes;

#[cfg(all(target_arch = "x86_64", not(shmpipe_portable)))]
mod streaming;
#[cfg(not(all(target_arch = "x86_64", not(shmpipe_portable))))]
mod streaming {
    //! Plain stores: this target has no non-temporal ones.
    pub(crate) use super::to_shared as to_shared_streaming;

    /// No store needs it here.
    #[inline(always)]
    pub(crate) fn order_long_copy() {}
}

pub(crate) use bytes::{from_shared, to_shared};
pub(crate) use streaming::{order_long_copy, to_shared_streaming};

/// Bytes of the shortest message that [`to_shared_streaming`] may write.
pub(crate) const LONG: usize = 4096;

// The cells of a model are no bytes.
#[cfg(all(test, not(shmpipe_loom)))]
mod tests;
