//! Mappings between guard pages: an access outside ends in SIGSEGV.

use std::fs;
use std::ops::Range;
use std::ptr::null_mut;

const PAGE: usize = 4096;

/// Calls `open`, which maps `size` bytes shared and writable, and puts a guard page on each side of the mapping. Returns the range
/// of the mapping too.
pub fn guarded<T>(size: usize, mut open: impl FnMut() -> T) -> (T, Range<usize>) {
    // Keeps mappings that cannot be guarded where they are, so that the next one is placed elsewhere.
    let mut misplaced = vec![];
    while misplaced.len() < 100 {
        // The kernel maps from the top down, so it mostly puts the next mapping right below this guard.
        guard(0, 0);
        let before = shared(size);
        let opened = open();
        let place =
            shared(size).into_iter().find(|place| !before.contains(place)).expect("a mapping of this size");
        guard(place.start - PAGE, libc::MAP_FIXED_NOREPLACE);
        guard(place.end, libc::MAP_FIXED_NOREPLACE);
        if is_guard(place.start - PAGE) && is_guard(place.end) {
            return (opened, place);
        }
        misplaced.push(opened);
    }
    panic!("no place for a mapping between two guards");
}

fn mappings() -> Vec<(Range<usize>, String)> {
    let maps = fs::read_to_string("/proc/self/maps").expect("proc is mounted");
    let number = |digits: &str| usize::from_str_radix(digits, 16).expect("an address");
    let parse = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        Some((number(start)..number(end), rest.to_owned()))
    };
    maps.lines().filter_map(parse).collect()
}

/// The shared, writable mappings of this size.
fn shared(size: usize) -> Vec<Range<usize>> {
    let all = mappings().into_iter();
    all.filter(|(range, rest)| range.len() == size && rest.starts_with("rw-s"))
        .map(|(range, _)| range)
        .collect()
}

/// Maps a guard page at `address` unless something is mapped there, or where the kernel chooses.
fn guard(address: usize, flags: i32) {
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: the call fails where something is mapped, so it replaces no mapping.
    unsafe { libc::mmap(std::ptr::without_provenance_mut(address), PAGE, libc::PROT_NONE, flags, -1, 0) };
}

/// Whether the byte at `address` stays inaccessible as long as the pipe is open: it is in a guard page, or in the page whose mapping
/// holds the library's lock on a file.
fn is_guard(address: usize) -> bool {
    mappings().iter().any(|(range, rest)| range.contains(&address) && rest.starts_with("---"))
}

/// Private memory with a guard page at its end.
#[derive(Debug)]
pub struct Brink {
    base: std::ptr::NonNull<u8>,
    size: usize,
}

/// The bytes before the slice that is lent.
const CANARY: [u8; 64] = [0xc5; 64];

impl Brink {
    /// For slices of at most `most` bytes. Never unmapped.
    pub fn new(most: usize) -> Self {
        let size = most.next_multiple_of(PAGE) + PAGE;
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: the kernel chooses the address; the last page belongs to the new mapping.
        let base = unsafe {
            let base = libc::mmap(null_mut(), size + PAGE, protection, flags, -1, 0);
            assert_ne!(base, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(base.byte_add(size), PAGE, libc::PROT_NONE), 0);
            base
        };
        Brink { base: std::ptr::NonNull::new(base.cast()).expect("not at 0"), size }
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: within the mapping, which only this value uses, and the slice borrows it.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.size) }
    }

    /// The last `length` bytes before the guard page, set to `fill`.
    pub fn lend(&mut self, length: usize, fill: u8) -> &mut [u8] {
        let start = self.size - length;
        let bytes = self.bytes();
        bytes[start - CANARY.len()..start].copy_from_slice(&CANARY);
        bytes[start..].fill(fill);
        &mut bytes[start..]
    }

    /// The `length` bytes lent last. Panics if a byte before them has changed.
    pub fn returned(&mut self, length: usize) -> &[u8] {
        let start = self.size - length;
        let bytes = self.bytes();
        assert_eq!(bytes[start - CANARY.len()..start], CANARY, "written before the slice");
        &bytes[start..]
    }
}
