//! The only place where payload bytes of the ring are touched.
//!
//! The other process may write these bytes at any moment, whatever the protocol says, so they are never behind a
//! reference and never copied by an ordinary load that the compiler may repeat, split or invent. On x86-64 each
//! access is one instruction in an `asm!` block: the compiler knows neither how many bytes it moves nor what they
//! are, so a racing peer can change the *data* that arrives and nothing else. Elsewhere, and under loom, the
//! accesses are relaxed atomics.

#[cfg(all(target_arch = "x86_64", not(shmpipe_loom)))]
pub(crate) use x86_64::{from_shared, to_shared};

#[cfg(not(all(target_arch = "x86_64", not(shmpipe_loom))))]
pub(crate) use words::{from_shared, to_shared};

#[cfg(all(target_arch = "x86_64", not(shmpipe_loom)))]
mod x86_64 {
    use crate::sync::AtomicU64;
    use core::arch::asm;
    use core::arch::x86_64::__m128i;

    /// From here on the microcoded string copy is at least as fast as a loop over 16 bytes, and far shorter.
    const LONG: usize = 2048;

    macro_rules! access {
        ($load:ident, $store:ident, $type:ty, $class:ident, $load_code:literal, $store_code:literal) => {
            /// Loads from shared memory, which need not be aligned.
            ///
            /// # Safety
            /// `from` is readable for the size of the result.
            #[inline(always)]
            unsafe fn $load(from: *const u8) -> $type {
                let value: $type;
                // SAFETY: one load from memory that the caller vouches for; no stack, no flags, no other effect.
                unsafe {
                    asm!($load_code, v = out($class) value, p = in(reg) from,
                         options(nostack, preserves_flags, readonly));
                }
                value
            }

            /// Stores to shared memory, which need not be aligned.
            ///
            /// # Safety
            /// `to` is writable for the size of `value`.
            #[inline(always)]
            unsafe fn $store(to: *mut u8, value: $type) {
                // SAFETY: one store to memory that the caller vouches for; no stack, no flags, no other effect.
                unsafe {
                    asm!($store_code, v = in($class) value, p = in(reg) to, options(nostack, preserves_flags));
                }
            }
        };
    }

    access!(load16, store16, __m128i, xmm_reg, "movups {v}, [{p}]", "movups [{p}], {v}");
    access!(load8, store8, u64, reg, "mov {v}, [{p}]", "mov [{p}], {v}");
    access!(load4, store4, u32, reg, "mov {v:e}, [{p}]", "mov [{p}], {v:e}");
    access!(load2, store2, u16, reg, "movzx {v:e}, word ptr [{p}]", "mov [{p}], {v:x}");
    access!(load1, store1, u8, reg_byte, "mov {v}, [{p}]", "mov [{p}], {v}");

    /// Copies `length` bytes out of the ring, from `offset` bytes after `words`.
    ///
    /// # Safety
    /// * `length` bytes from there are readable; they may change meanwhile.
    /// * `to` is writable for `length` bytes and is not shared memory.
    #[inline(always)]
    pub(crate) unsafe fn from_shared(words: *const AtomicU64, offset: usize, to: *mut u8, length: usize) {
        // SAFETY: every access lies within the `length` bytes at `from` and `to`, for which the caller vouches: a
        // step of n bytes at `at` is made only while at + n <= length, the last step ends at `length` and starts
        // no earlier than 0 since it is made only if length >= n.
        unsafe {
            let from = words.cast::<u8>().add(offset);
            if length >= LONG {
                return copy_long(from, to, length);
            }
            if length >= 16 {
                let mut at = 0;
                while at + 16 <= length {
                    to.add(at).cast::<__m128i>().write_unaligned(load16(from.add(at)));
                    at += 16;
                }
                if at < length {
                    to.add(length - 16).cast::<__m128i>().write_unaligned(load16(from.add(length - 16)));
                }
            } else if length >= 8 {
                to.cast::<u64>().write_unaligned(load8(from));
                if length > 8 {
                    to.add(length - 8).cast::<u64>().write_unaligned(load8(from.add(length - 8)));
                }
            } else if length >= 4 {
                to.cast::<u32>().write_unaligned(load4(from));
                to.add(length - 4).cast::<u32>().write_unaligned(load4(from.add(length - 4)));
            } else if length >= 2 {
                to.cast::<u16>().write_unaligned(load2(from));
                to.add(length - 1).write(load1(from.add(length - 1)));
            } else if length == 1 {
                to.write(load1(from));
            }
        }
    }

    /// Copies `length` bytes into the ring, to `offset` bytes after `words`; never a byte further.
    ///
    /// # Safety
    /// * `from` is readable for `length` bytes and is not shared memory.
    /// * `length` bytes from there on are writable.
    #[inline(always)]
    pub(crate) unsafe fn to_shared(from: *const u8, words: *const AtomicU64, offset: usize, length: usize) {
        // SAFETY: as in `from_shared`, with the two sides exchanged.
        unsafe {
            let to = words.cast_mut().cast::<u8>().add(offset);
            if length >= LONG {
                return copy_long(from, to, length);
            }
            if length >= 16 {
                let mut at = 0;
                while at + 16 <= length {
                    store16(to.add(at), from.add(at).cast::<__m128i>().read_unaligned());
                    at += 16;
                }
                if at < length {
                    store16(to.add(length - 16), from.add(length - 16).cast::<__m128i>().read_unaligned());
                }
            } else if length >= 8 {
                store8(to, from.cast::<u64>().read_unaligned());
                if length > 8 {
                    store8(to.add(length - 8), from.add(length - 8).cast::<u64>().read_unaligned());
                }
            } else if length >= 4 {
                store4(to, from.cast::<u32>().read_unaligned());
                store4(to.add(length - 4), from.add(length - 4).cast::<u32>().read_unaligned());
            } else if length >= 2 {
                store2(to, from.cast::<u16>().read_unaligned());
                store1(to.add(length - 1), from.add(length - 1).read());
            } else if length == 1 {
                store1(to, from.read());
            }
        }
    }

    /// # Safety
    /// `from` is readable and `to` writable for `length` bytes.
    #[inline(never)]
    unsafe fn copy_long(from: *const u8, to: *mut u8, length: usize) {
        // SAFETY: `rep movsb` reads and writes exactly `length` bytes at the two pointers, for which the caller
        // vouches; the direction flag is clear by the calling convention.
        unsafe {
            asm!("rep movsb", inout("rcx") length => _, inout("rsi") from => _, inout("rdi") to => _,
                 options(nostack, preserves_flags));
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", not(shmpipe_loom))))]
mod words {
    use crate::sync::{AtomicU64, Ordering};

    /// Copies `length` bytes out of the ring, from `offset` bytes after `words`.
    ///
    /// # Safety
    /// * `length` bytes from there are readable; they may change meanwhile.
    /// * `to` is writable for `length` bytes and is not shared memory.
    pub(crate) unsafe fn from_shared(words: *const AtomicU64, offset: usize, to: *mut u8, length: usize) {
        let mut at = 0;
        while at < length {
            let byte = offset + at;
            let within = byte % 8;
            let count = (8 - within).min(length - at);
            // SAFETY: word number byte / 8 holds bytes that the caller vouches for, and `count` bytes at `at` lie
            // within the `length` bytes at `to`. Relaxed: the record's header word orders the payload.
            unsafe {
                let word = (*words.add(byte / 8)).load(Ordering::Relaxed).to_ne_bytes();
                to.add(at).copy_from_nonoverlapping(word.as_ptr().add(within), count);
            }
            at += count;
        }
    }

    /// Copies `length` bytes into the ring, to `offset` bytes after `words`; never a byte further.
    ///
    /// # Safety
    /// * `from` is readable for `length` bytes and is not shared memory.
    /// * `length` bytes from there on are writable.
    pub(crate) unsafe fn to_shared(from: *const u8, words: *const AtomicU64, offset: usize, length: usize) {
        let mut at = 0;
        while at < length {
            let byte = offset + at;
            let within = byte % 8;
            let count = (8 - within).min(length - at);
            // SAFETY: as in `from_shared`, with the two sides exchanged. A word that is only partly written keeps
            // its other bytes, which belong to the same record and have no other writer.
            unsafe {
                let word = &*words.add(byte / 8);
                let mut bytes = if count == 8 { [0; 8] } else { word.load(Ordering::Relaxed).to_ne_bytes() };
                bytes.as_mut_ptr().add(within).copy_from_nonoverlapping(from.add(at), count);
                word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
            }
            at += count;
        }
    }
}

#[cfg(all(test, not(shmpipe_loom)))]
mod tests {
    use super::*;
    use crate::sync::{AtomicU64, Ordering};

    const WORDS: usize = 600;

    fn shared(fill: u8) -> Vec<AtomicU64> {
        (0..WORDS).map(|_| AtomicU64::new(u64::from_ne_bytes([fill; 8]))).collect()
    }

    fn bytes(words: &[AtomicU64]) -> Vec<u8> {
        words.iter().flat_map(|w| w.load(Ordering::Relaxed).to_ne_bytes()).collect()
    }

    #[test]
    fn every_length_and_offset_copies_exactly() {
        let source: Vec<u8> = (0..WORDS * 8).map(|i| (i * 7 + 1) as u8).collect();
        for length in (0..300).chain([2047, 2048, 2049, 4000]) {
            for offset in [0, 1, 3, 8, 13] {
                let ring = shared(0xEE);
                // SAFETY: offset + length is at most 4013 bytes of the 4800 there are.
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
