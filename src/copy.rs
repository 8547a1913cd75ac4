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
//! | [`LONG`] and more, into the ring | non-temporal stores, if [`Distance`](crate::distance::Distance) says so | they do not wait for the other core |

#[cfg(all(target_arch = "x86_64", not(shmpipe_loom), not(shmpipe_portable)))]
#[path = "copy/x86_64.rs"]
mod machine;

#[cfg(all(target_arch = "aarch64", not(shmpipe_loom), not(shmpipe_portable)))]
#[path = "copy/aarch64.rs"]
mod machine;

#[cfg(any(not(any(target_arch = "x86_64", target_arch = "aarch64")), shmpipe_loom, shmpipe_portable))]
#[path = "copy/words.rs"]
mod machine;

pub(crate) use machine::{from_shared, has_streaming_stores, to_shared, to_shared_streaming};

/// Bytes from where on a message may be written by [`to_shared_streaming`].
pub(crate) const LONG: usize = 4096;

#[cfg(all(test, not(shmpipe_loom)))]
mod tests {
    use super::*;
    use crate::sync::{AtomicU64, Ordering};

    const WORDS: usize = 1100;

    fn shared(fill: u8) -> Vec<AtomicU64> {
        (0..WORDS).map(|_| AtomicU64::new(u64::from_ne_bytes([fill; 8]))).collect()
    }

    fn bytes(words: &[AtomicU64]) -> Vec<u8> {
        words.iter().flat_map(|w| w.load(Ordering::Relaxed).to_ne_bytes()).collect()
    }

    #[test]
    fn every_length_and_offset_copies_exactly() {
        let source: Vec<u8> = (0..WORDS * 8).map(|i| (i * 7 + 1) as u8).collect();
        for length in (0..300).chain(2000..2200).chain([4000, 8191, 8192, 8193, 8600]) {
            for offset in [0, 1, 3, 8, 13] {
                let ring = shared(0xEE);
                // SAFETY: offset + length is at most 8613 bytes of the 8800 there are.
                unsafe { to_shared(source.as_ptr(), ring.as_ptr(), offset, length) };
                let after = bytes(&ring);
                assert_eq!(
                    after[offset..offset + length],
                    source[..length],
                    "length {length}, offset {offset}"
                );
                assert!(after[..offset].iter().chain(&after[offset + length..]).all(|&b| b == 0xEE));
                let mut back = vec![0x11; length + 16];
                // SAFETY: as above, and `back` holds length bytes and 16 more.
                unsafe { from_shared(ring.as_ptr(), offset, back.as_mut_ptr(), length) };
                assert_eq!(back[..length], source[..length]);
                assert!(back[length..].iter().all(|&b| b == 0x11));
            }
        }
    }
}
