//! The format of a record: its header word and its size. Pure arithmetic, no memory access.
//!
//! ```text
//!  word(P), P = position of the record            P + 8                       P + size(length)
//!  +-----------------+-----------------+----------------------+---------+-----------------
//!  | length + 1, u32 | tag, u32        | payload, length bytes| padding | next header word
//!  +-----------------+-----------------+----------------------+---------+-----------------
//!    low half          high half                                to 8
//! ```
//!
//! A header word of zero means that no record has been published there yet. The low half of a published record's word is its
//! length plus one, so no record's word is zero. [`WRAP`] means that the record would have crossed the end of the ring and is at
//! index 0 instead.

/// Bytes of a header word. Records start and end at multiples of it.
pub(crate) const WORD: u64 = 8;

/// No record is here yet.
pub(crate) const EMPTY: u64 = 0;

/// The record that belongs here is at the start of the ring.
pub(crate) const WRAP: u64 = u32::MAX as u64;

/// The longest payload of any ring: a multiple of 8 that a header word can express and that differs from [`WRAP`].
const LONGEST: u64 = u32::MAX as u64 - 23;

/// The header word of a published record.
#[inline(always)]
pub(crate) const fn header(length: usize, tag: u32) -> u64 {
    (tag as u64) << 32 | (length as u32).wrapping_add(1) as u64
}

/// The length in a header word. For [`EMPTY`] and [`WRAP`] it exceeds the maximum of any ring.
#[inline(always)]
pub(crate) const fn length(header: u64) -> u64 {
    (header as u32).wrapping_sub(1) as u64
}

/// The tag in a header word.
#[inline(always)]
pub(crate) const fn tag(header: u64) -> u32 {
    (header >> 32) as u32
}

/// Bytes in the ring of a record with a payload of `length` bytes: header word, payload, padding.
#[inline(always)]
pub(crate) const fn size(length: u64) -> u64 {
    WORD + ((length + (WORD - 1)) & !(WORD - 1))
}

/// The longest payload for a ring of `capacity` bytes.
///
/// A record takes at most half the ring, so it fits into an empty ring even with a wrap: the wrap skips fewer bytes than the
/// record has, and both together with the header word after the record are at most `capacity`.
pub(crate) const fn max_length(capacity: u64) -> u64 {
    let half = capacity / 2 - WORD;
    if half < LONGEST { half } else { LONGEST }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trips_length_and_tag() {
        for length in [0, 1, 7, 8, 9, 4096, LONGEST as usize] {
            for tag in [0, 1, 0xFFFF_FFFF] {
                let word = header(length, tag);
                assert_ne!(word, EMPTY);
                assert_ne!(word, WRAP);
                assert_eq!(super::length(word), length as u64);
                assert_eq!(super::tag(word), tag);
            }
        }
    }

    #[test]
    fn empty_and_wrap_are_longer_than_any_record() {
        assert!(length(EMPTY) > LONGEST);
        assert!(length(WRAP) > LONGEST);
        assert!(size(length(EMPTY)) > size(max_length(1 << 40)));
        assert!(size(length(WRAP)) > size(max_length(1 << 40)));
    }

    #[test]
    fn longest_payload_fills_its_record() {
        assert_eq!(size(LONGEST), WORD + LONGEST);
        assert!(size(LONGEST + 1) > size(LONGEST));
    }

    #[test]
    fn size_is_header_and_padded_payload() {
        assert_eq!([size(0), size(1), size(8), size(9)], [8, 16, 16, 24]);
    }

    #[test]
    fn longest_record_fits_an_empty_ring_at_every_index() {
        for capacity in [64u64, 128, 4096] {
            let need = size(max_length(capacity));
            for index in (0..capacity).step_by(WORD as usize) {
                let to_end = capacity - index;
                let skipped = if need > to_end { to_end } else { 0 };
                assert!(skipped + need + WORD <= capacity, "capacity {capacity}, index {index}");
            }
        }
    }
}
