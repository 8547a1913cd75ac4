//! Copies every length at every alignment. Guard pages, and a check of the bytes around the destination, catch a byte outside.

use super::*;
use crate::protocol::sync::AtomicU64;
use shmpipe_testing::rng::Rng;
use std::ops::RangeInclusive;
use std::ptr::{NonNull, null_mut};

/// The value of every destination byte before a copy. No source byte has it.
const UNTOUCHED: u8 = 0xEE;

/// Bytes of a buffer between its guard pages, unless a page is larger.
const ROOM: usize = 32 << 10;

/// Bytes on each side of a destination that the test compares after each copy.
const MARGIN: usize = 64;

/// Memory between two inaccessible pages.
struct Guarded {
    start: NonNull<u8>,
    size: usize,
    page: usize,
}

impl Guarded {
    fn new() -> Self {
        // SAFETY: no pointers.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap();
        let size = ROOM.next_multiple_of(page);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: the kernel chooses the address. The part that becomes accessible lies within the mapping, a page from both ends.
        let start = unsafe {
            let base = libc::mmap(null_mut(), size + 2 * page, libc::PROT_NONE, flags, -1, 0);
            assert_ne!(base, libc::MAP_FAILED);
            let start = base.byte_add(page);
            assert_eq!(libc::mprotect(start, size, libc::PROT_READ | libc::PROT_WRITE), 0);
            start
        };
        Guarded { start: NonNull::new(start.cast()).unwrap(), size, page }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: mapped until we are dropped; one thread, and no copy runs while the slice is used.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.size) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and we are borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.size) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` created; nothing uses it any longer.
        unsafe {
            let base = self.start.as_ptr().byte_sub(self.page);
            assert_eq!(libc::munmap(base.cast(), self.size + 2 * self.page), 0);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Arm {
    From,
    To,
    Streaming,
    /// How some processors read long messages. Tested on every processor that has AVX.
    Avx,
}

const ARMS: [Arm; 4] = [Arm::From, Arm::To, Arm::Streaming, Arm::Avx];

impl Arm {
    /// Whether this processor can copy `length` bytes this way.
    fn takes(self, length: usize) -> bool {
        match self {
            Arm::From | Arm::To => true,
            Arm::Streaming => length >= 64,
            Arm::Avx => length >= 256 && has_avx(),
        }
    }
}

#[cfg(all(target_arch = "x86_64", not(shmpipe_portable)))]
fn has_avx() -> bool {
    std::is_x86_feature_detected!("avx")
}

#[cfg(not(all(target_arch = "x86_64", not(shmpipe_portable))))]
fn has_avx() -> bool {
    false
}

#[cfg(all(target_arch = "x86_64", not(shmpipe_portable)))]
use bytes::copy_by_avx;

#[cfg(not(all(target_arch = "x86_64", not(shmpipe_portable))))]
unsafe fn copy_by_avx(_: *const u8, _: *mut u8, _: usize) {
    unreachable!("there is no AVX here");
}

/// The start of a copy in a buffer, for any length.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// It starts this many bytes after the front guard.
    Front(usize),
    /// It ends this many bytes before the back guard.
    Back(usize),
}

struct Buffers {
    source: Guarded,
    destination: Guarded,
    blank: Vec<u8>,
}

impl Buffers {
    fn new() -> Self {
        let (mut source, mut destination) = (Guarded::new(), Guarded::new());
        Rng(1).fill(source.bytes_mut());
        source.bytes_mut().iter_mut().filter(|byte| **byte == UNTOUCHED).for_each(|byte| *byte = 0x11);
        destination.bytes_mut().fill(UNTOUCHED);
        let blank = vec![UNTOUCHED; destination.size];
        Buffers { source, destination, blank }
    }

    /// Copies by one arm, compares the copy and the bytes around it, and blanks the copy again.
    fn copy(&mut self, arm: Arm, from: Place, to: Place, length: usize) {
        let at = |buffer: &Guarded, place| match place {
            Place::Front(offset) => offset,
            Place::Back(gap) => buffer.size - length - gap,
        };
        let (from, to) = (at(&self.source, from), at(&self.destination, to));
        assert!(from + length <= self.source.size && to + length <= self.destination.size);
        // `words` may be any word up to the one at the start, and `offset` counts from there.
        let split = |offset: usize| (offset / 2 / 8 * 8, offset - offset / 2 / 8 * 8);
        let (source, destination) = (self.source.start.as_ptr(), self.destination.start.as_ptr());
        // SAFETY: both ranges were just checked, and both buffers start at a page, so words are aligned. A wrong copy hits a
        // guard, or bytes that the checks compare.
        unsafe {
            match arm {
                Arm::From => {
                    let (words, offset) = split(from);
                    let words = source.add(words).cast::<AtomicU64>();
                    from_shared(words, offset, destination.add(to), length);
                }
                Arm::Avx => copy_by_avx(source.add(from), destination.add(to), length),
                Arm::To | Arm::Streaming => {
                    let (words, offset) = split(to);
                    let words = destination.add(words).cast::<AtomicU64>();
                    let copy = if arm == Arm::To { to_shared_plainly } else { streaming };
                    copy(source.add(from), words, offset, length);
                }
            }
        }
        let end = to + length;
        let around = [to.saturating_sub(MARGIN)..to, end..(end + MARGIN).min(self.destination.size)];
        let after = self.destination.bytes();
        let is_same = after[to..end] == self.source.bytes()[from..from + length];
        let is_all = around.into_iter().all(|range| after[range.clone()] == self.blank[range]);
        assert!(
            is_same && is_all,
            "{arm:?}, {length} bytes from {from} to {to}: {}",
            self.what(from, to, length)
        );
        self.destination.bytes_mut()[to..end].fill(UNTOUCHED);
    }

    /// Describes the first wrong byte after a copy.
    fn what(&self, from: usize, to: usize, length: usize) -> String {
        let after = self.destination.bytes();
        let expected = |at: usize| {
            let is_copied = (to..to + length).contains(&at);
            if is_copied { self.source.bytes()[from + at - to] } else { UNTOUCHED }
        };
        let wrong = (0..after.len()).find(|&at| after[at] != expected(at)).expect("a byte that differs");
        let place = wrong as isize - to as isize;
        format!("byte {place} of the copy is {:#04x} instead of {:#04x}", after[wrong], expected(wrong))
    }

    /// Whether no byte of the destination has changed, even far from any copy.
    fn is_blank(&self) -> bool {
        self.destination.bytes() == self.blank
    }
}

unsafe fn to_shared_plainly(from: *const u8, words: *const AtomicU64, offset: usize, length: usize) {
    // SAFETY: the caller's promises.
    unsafe { to_shared(from, words, offset, length) }
}

unsafe fn streaming(from: *const u8, words: *const AtomicU64, offset: usize, length: usize) {
    // SAFETY: the caller's promises.
    unsafe { to_shared_streaming(from, words, offset, length) }
}

#[test]
fn every_length_copies_exactly_and_touches_nothing_else() {
    let (mut buffers, mut rng) = (Buffers::new(), Rng(2));
    for length in 0..=20_000 {
        for arm in ARMS.into_iter().filter(|arm| arm.takes(length)) {
            buffers.copy(arm, Place::Front(0), Place::Front(0), length);
            buffers.copy(arm, Place::Back(0), Place::Back(0), length);
            let mut anywhere = || Place::Front(rng.below((ROOM - length) as u64 + 1) as usize);
            buffers.copy(arm, anywhere(), anywhere(), length);
        }
        assert!(length % 100 != 0 || buffers.is_blank(), "written far outside, up to length {length}");
    }
}

/// Copies between every pair of places that `place` gives for `offsets`, for the lengths at which some copy changes its method.
fn every_pair(offsets: RangeInclusive<usize>, place: fn(usize) -> Place) {
    let mut buffers = Buffers::new();
    for length in (1..=130).chain([2040, 4095, 4096, 4097, 8192]) {
        for arm in ARMS.into_iter().filter(|arm| arm.takes(length)) {
            for from in offsets.clone() {
                for to in offsets.clone() {
                    buffers.copy(arm, place(from), place(to), length);
                }
            }
            assert!(buffers.is_blank(), "{arm:?}: written far outside with length {length}");
        }
    }
}

#[test]
fn copies_are_exact_at_every_pair_of_offsets_after_a_guard() {
    every_pair(0..=64, Place::Front);
}

#[test]
fn copies_are_exact_at_every_pair_of_ends_before_a_guard() {
    every_pair(0..=64, Place::Back);
}

#[test]
fn copies_are_exact_at_every_pair_of_offsets_around_the_end_of_a_page() {
    every_pair(4032..=4160, Place::Front);
}
