//! The only place where payload bytes of the ring are touched.
//!
//! The other process may write these bytes at any moment, whatever the protocol says. So they are never behind a
//! reference, and never copied by an ordinary load, which the compiler may repeat, split or invent. On x86-64 and
//! AArch64 each access stands in an `asm!` block: the compiler knows neither how many bytes it moves nor what they are,
//! so a racing peer can change the *data* that arrives and nothing else. Elsewhere, and under loom, the accesses are relaxed
//! atomics (`words.rs`); with `--cfg shmpipe_portable` everywhere, for sanitizers, which do not see into an `asm!` block.
//!
//! | bytes | copied by | because |
//! |---|---|---|
//! | 1 to 64 | two blocks, in line, which overlap unless the length is just right | a call would cost more than the copy |
//! | more | `memcpy` of the C library | it knows more processors than we do |
//! | [`LONG`] and more, out of the ring | AVX, on AMD's Zen 3 to Zen 5 | `memcpy` uses `rep movsb`, which is slow there at some alignments |
//! | [`LONG`] and more, into the ring | non-temporal stores, if [`Distance`](crate::endpoint::distance::Distance) says so | they do not wait for the other core |

#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(shmpipe_loom), not(shmpipe_portable)))]
#[path = "copy/direct.rs"]
mod bytes;
#[cfg(not(all(
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(shmpipe_loom),
    not(shmpipe_portable)
)))]
#[path = "copy/words.rs"]
mod bytes;

#[cfg(all(target_arch = "x86_64", not(shmpipe_loom), not(shmpipe_portable)))]
mod streaming;
#[cfg(not(all(target_arch = "x86_64", not(shmpipe_loom), not(shmpipe_portable))))]
mod streaming {
    //! There are no other stores here.
    pub(crate) use super::to_shared as to_shared_streaming;
}

pub(crate) use bytes::{from_shared, to_shared};
pub(crate) use streaming::to_shared_streaming;

/// Bytes from where on a message may be written by [`to_shared_streaming`].
pub(crate) const LONG: usize = 4096;

#[cfg(all(test, not(shmpipe_loom)))]
mod tests;
