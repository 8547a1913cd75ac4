//! The only place where payload bytes of the ring are touched.
//!
//! The other process may write these bytes at any moment, whatever the protocol says, so they are never behind a
//! reference and never copied by an ordinary load that the compiler may repeat, split or invent. On x86-64 each
//! access is one instruction in an `asm!` block: the compiler knows neither how many bytes it moves nor what they
//! are, so a racing peer can change the *data* that arrives and nothing else. Elsewhere, and under loom, the
//! accesses are relaxed atomics; with `--cfg shmpipe_portable` on x86-64 too, for sanitizers, which do not see what is in
//! an `asm!` block.

#[cfg(all(target_arch = "x86_64", not(shmpipe_loom), not(shmpipe_portable)))]
pub(crate) use x86_64::{from_shared, to_shared};

#[cfg(not(all(target_arch = "x86_64", not(shmpipe_loom), not(shmpipe_portable))))]
pub(crate) use words::{from_shared, to_shared};

#[cfg(all(target_arch = "x86_64", not(shmpipe_loom), not(shmpipe_portable)))]
mod x86_64 {
    use crate::sync::AtomicU64;
    use core::arch::asm;

    /// From here on a call is nothing beside the copy.
    const LONG: usize = 2048;

    /// Copies `length` bytes out of the ring, from `offset` bytes after `words`.
    ///
    /// # Safety
    /// * `length` bytes from there are readable; they may change meanwhile.
    /// * `to` is writable for `length` bytes and is not shared memory.
    #[inline(always)]
    pub(crate) unsafe fn from_shared(words: *const AtomicU64, offset: usize, to: *mut u8, length: usize) {
        // SAFETY: the caller's promises.
        unsafe {
            let from = words.cast::<u8>().add(offset);
            copy::<true>(from, to, length, long::read)
        }
    }

    /// Copies `length` bytes into the ring, to `offset` bytes after `words`; never a byte further.
    ///
    /// # Safety
    /// * `from` is readable for `length` bytes and is not shared memory.
    /// * `length` bytes from there on are writable.
    #[inline(always)]
    pub(crate) unsafe fn to_shared(from: *const u8, words: *const AtomicU64, offset: usize, length: usize) {
        // SAFETY: the caller's promises.
        unsafe {
            let to = words.cast_mut().cast::<u8>().add(offset);
            copy::<false>(from, to, length, long::write)
        }
    }

    /// Copies `length` bytes: the block that ends at the end, and blocks from the start on up to there; or by `long`.
    /// Upwards if `UP`, for the reader, whose processor fetches the next lines by itself; else downwards, so that the
    /// first line is written last.
    ///
    /// # Safety
    /// `from` is readable and `to` writable for `length` bytes, and they do not overlap.
    #[inline(always)]
    unsafe fn copy<const UP: bool>(
        from: *const u8,
        to: *mut u8,
        length: usize,
        long: unsafe extern "C" fn(*const u8, *mut u8, usize),
    ) {
        // SAFETY: each block of n bytes starts at the first byte or later, and ends at the last or earlier: the first
        // one because length >= n, those after it because they start before length - n.
        unsafe {
            if length < 16 {
                if length >= 8 {
                    if length > 8 {
                        copy_8(from.add(length - 8), to.add(length - 8));
                    }
                    copy_8(from, to);
                } else if length >= 4 {
                    copy_4(from.add(length - 4), to.add(length - 4));
                    copy_4(from, to);
                } else {
                    for at in 0..length {
                        copy_1(from.add(at), to.add(at));
                    }
                }
            } else if length <= 64 {
                if length >= 32 {
                    copy_32(from.add(length - 32), to.add(length - 32));
                    copy_32(from, to);
                } else {
                    copy_16(from.add(length - 16), to.add(length - 16));
                    copy_16(from, to);
                }
            } else if length >= LONG {
                long(from, to, length);
            } else if UP {
                let last = length - 64;
                let mut at = 0;
                while at < last {
                    copy_64(from.add(at), to.add(at));
                    at += 64;
                }
                copy_64(from.add(last), to.add(last));
            } else {
                copy_64(from.add(length - 64), to.add(length - 64));
                let mut at = (length - 1) & !63;
                while at > 0 {
                    at -= 64;
                    copy_64(from.add(at), to.add(at));
                }
            }
        }
    }

    macro_rules! block {
        ($name:ident, $bytes:literal, $class:ident, $($register:ident)+, $($code:literal)+) => {
            /// # Safety
            #[doc = concat!("`from` is readable and `to` writable for ", $bytes, " bytes, wherever they lie.")]
            #[inline(always)]
            unsafe fn $name(from: *const u8, to: *mut u8) {
                // SAFETY: loads and stores of just these bytes; no stack, no flags, no other effect.
                unsafe {
                    asm!($($code,)+ $($register = out($class) _,)+ from = in(reg) from, to = in(reg) to,
                         options(nostack, preserves_flags));
                }
            }
        };
    }

    block!(copy_64, "64", xmm_reg, a b c d,
        "movups {a}, [{from}]" "movups {b}, [{from} + 16]" "movups {c}, [{from} + 32]" "movups {d}, [{from} + 48]"
        "movups [{to} + 48], {d}" "movups [{to} + 32], {c}" "movups [{to} + 16], {b}" "movups [{to}], {a}");
    block!(copy_32, "32", xmm_reg, a b,
        "movups {a}, [{from}]" "movups {b}, [{from} + 16]" "movups [{to} + 16], {b}" "movups [{to}], {a}");
    block!(copy_16, "16", xmm_reg, a, "movups {a}, [{from}]" "movups [{to}], {a}");
    block!(copy_8, "8", reg, a, "mov {a}, [{from}]" "mov [{to}], {a}");
    block!(copy_4, "4", reg, a, "mov {a:e}, [{from}]" "mov [{to}], {a:e}");
    block!(copy_1, "1", reg_byte, a, "mov {a}, [{from}]" "mov [{to}], {a}");

    /// What is copied out of line. The C ABI says that nothing unwinds, which spares the callers their landing pads.
    mod long {
        use super::{copy, copy_64};
        use core::arch::asm;
        use core::arch::x86_64::__cpuid;
        use std::sync::OnceLock;

        /// Bytes from where on a message is written around the caches, where that is faster.
        const AROUND: usize = 8192;

        /// Copies out of the ring, or into it.
        ///
        /// Not by `rep movsb`: on AMD's processors it takes fifteen times as long when the destination's offset in its
        /// page is up to 15 bytes above the source's, and a payload stands 8 bytes above a line.
        ///
        /// # Safety
        /// `from` is readable and `to` writable for `length` bytes, 256 at least, and they do not overlap.
        #[inline(never)]
        pub(super) unsafe extern "C" fn read(from: *const u8, to: *mut u8, length: usize) {
            // SAFETY: whole blocks of 128 bytes from where `to` is aligned, at most 63 bytes after the start, one at least;
            // the last 128 bytes, over those before; and the first 64, last: all within `length`.
            unsafe {
                if has_avx() {
                    let before = to.align_offset(64);
                    copy_128s(from.add(before), to.add(before), (length - before) / 128 * 128);
                    copy_64(from.add(length - 128), to.add(length - 128));
                } else {
                    (1..length / 64).for_each(|block| copy_64(from.add(64 * block), to.add(64 * block)));
                }
                copy_64(from.add(length - 64), to.add(length - 64));
                copy_64(from, to);
            }
        }

        #[inline(never)]
        fn has_avx() -> bool {
            std::is_x86_feature_detected!("avx")
        }

        /// Copies by AVX.
        ///
        /// # Safety
        /// As [`read`], and the processor has AVX; `length` is a multiple of 128, and more than 0.
        #[inline(always)]
        unsafe fn copy_128s(from: *const u8, to: *mut u8, length: usize) {
            // SAFETY: accesses just the `length` bytes of the caller's promise. What vzeroupper clears is among
            // what the ABI lets a call clear.
            unsafe {
                asm!(
                    "2:",
                    "vmovups ymm0, [rsi]",
                    "vmovups ymm1, [rsi + 32]",
                    "vmovups ymm2, [rsi + 64]",
                    "vmovups ymm3, [rsi + 96]",
                    "vmovups [rdi], ymm0",
                    "vmovups [rdi + 32], ymm1",
                    "vmovups [rdi + 64], ymm2",
                    "vmovups [rdi + 96], ymm3",
                    "add rsi, 128",
                    "add rdi, 128",
                    "sub rdx, 128",
                    "jnz 2b",
                    "vzeroupper",
                    inout("rsi") from => _, inout("rdi") to => _, inout("rdx") length => _,
                    clobber_abi("C"), options(nostack));
            }
        }

        /// Copies into the ring.
        ///
        /// # Safety
        /// As [`read`].
        #[inline(never)]
        pub(super) unsafe extern "C" fn write(from: *const u8, to: *mut u8, length: usize) {
            // SAFETY: the caller's promises.
            unsafe {
                if length >= AROUND && around_is_faster() {
                    write_around(from, to, length);
                } else {
                    read(from, to, length);
                }
            }
        }

        /// Copies into the ring by non-temporal stores.
        ///
        /// To write to a line that the consumer's cache holds is to take it away from there first, one after the
        /// other; whole lines written around the caches do not wait for that.
        ///
        /// # Safety
        /// As [`read`]; `length` is 64 or more.
        #[inline(never)]
        unsafe fn write_around(from: *const u8, to: *mut u8, length: usize) {
            let before = to.align_offset(64);
            let lines = (length - before) / 64;
            // SAFETY: `before` is less than 64, the lines end at the last byte or earlier, and the rest is
            // less than 64; all within the `length` bytes of the caller's promise.
            unsafe {
                for at in (0..lines).map(|line| before + 64 * line) {
                    asm!(
                        "movups {a}, [{from}]", "movups {b}, [{from} + 16]",
                        "movups {c}, [{from} + 32]", "movups {d}, [{from} + 48]",
                        "movntps [{to}], {a}", "movntps [{to} + 16], {b}",
                        "movntps [{to} + 32], {c}", "movntps [{to} + 48], {d}",
                        a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, d = out(xmm_reg) _,
                        from = in(reg) from.add(at), to = in(reg) to.add(at), options(nostack, preserves_flags));
                }
                let rest = before + 64 * lines;
                copy::<false>(from.add(rest), to.add(rest), length - rest, read);
                // ORDERING: non-temporal stores are ordered by this alone; the commit that follows is an ordinary
                // store, which publishes only what became visible before it.
                asm!("sfence", options(nostack, preserves_flags));
                // The line that the consumer polls, right before the commit.
                copy::<false>(from, to, before, read);
            }
        }

        /// Whether non-temporal stores pay, which depends on how a processor takes a line away from another core: on
        /// AMD's, a store at a time. Measured: DESIGN.md, What was tried.
        #[inline(never)]
        fn around_is_faster() -> bool {
            static FASTER: OnceLock<bool> = OnceLock::new();
            *FASTER.get_or_init(|| {
                #[allow(unused_unsafe, reason = "unsafe in older versions of Rust")]
                // SAFETY: every x86-64 processor has the instruction, and leaf 0 of it.
                let vendor = unsafe { __cpuid(0) };
                let name = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
                [[*b"Auth", *b"enti", *b"cAMD"], [*b"Hygo", *b"nGen", *b"uine"]].contains(&name)
            })
        }

        #[cfg(test)]
        #[test]
        fn every_length_is_written_around_the_caches_exactly() {
            let source: Vec<u8> = (0..1000).map(|i| (i * 7 + 1) as u8).collect();
            for length in 64..400 {
                for offset in 0..64 {
                    let mut to = [0xEE; 512];
                    // SAFETY: offset + length is less than 512, and 64 + 400 less than 1000.
                    unsafe {
                        write_around(source[64 - offset..].as_ptr(), to[offset..].as_mut_ptr(), length)
                    };
                    assert_eq!(to[offset..offset + length], source[64 - offset..][..length]);
                    assert!(to[..offset].iter().chain(&to[offset + length..]).all(|&byte| byte == 0xEE));
                }
            }
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", not(shmpipe_loom), not(shmpipe_portable))))]
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
