//! Queues of values of one size: as they carry the messages of the harness.
//!
//! Such a queue has slots of exactly the size that is measured, which is its best case.

use std::io;

use shmpipe_measure::Channel;

use crate::errors::wrong_len;

/// The sizes for which there are slot types.
pub const SIZES: [usize; 12] = [8, 16, 32, 56, 64, 128, 256, 512, 1024, 4096, 8192, 65536];

/// Evaluates an expression with the constant `$n` set to one of [`SIZES`]; any other size gives `None`.
macro_rules! with_slot_size {
    ($size:expr, $n:ident => $body:expr) => {
        $crate::slots::with_slot_size!(@ $size, $n, $body;
            8 16 32 56 64 128 256 512 1024 4096 8192 65536)
    };
    (@ $size:expr, $n:ident, $body:expr; $($known:literal)*) => {
        match $size {
            $($known => {
                const $n: usize = $known;
                Some($body)
            })*
            _ => None,
        }
    };
}
pub(crate) use with_slot_size;

/// Whether there is a slot type of that size.
pub fn has_slot(size: usize) -> bool {
    SIZES.contains(&size)
}

/// How many slots of `size` bytes have the bytes of a ring of that capacity: a power of two, and no fewer than two.
pub fn count(capacity: usize, size: usize) -> usize {
    let count = (capacity / size).max(2);
    if count.is_power_of_two() { count } else { count.next_power_of_two() / 2 }
}

/// The two ends that one process has of a queue each way, whose values are `N` bytes.
pub trait Ends<const N: usize> {
    /// Sends one value, waiting for room.
    fn put(&mut self, message: &[u8; N]) -> io::Result<()>;

    /// Waits for the next value.
    fn take(&mut self, buffer: &mut [u8; N]) -> io::Result<()>;
}

/// Messages of `N` bytes, one in each slot. The checks before a session also send shorter ones: padded, and cut to what
/// the receiver expects, off the path that is measured.
pub struct Slots<const N: usize, E>(pub E);

impl<const N: usize, E: Ends<N>> Channel for Slots<N, E> {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match message.try_into() {
            Ok(message) => self.0.put(message),
            Err(_) => self.put_padded(message),
        }
    }

    #[inline(always)]
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match (&mut *buffer).try_into() {
            Ok(buffer) => self.0.take(buffer)?,
            Err(_) => self.take_cut(buffer)?,
        }
        Ok(buffer.len())
    }

    fn max_len(&self) -> usize {
        N
    }
}

impl<const N: usize, E: Ends<N>> Slots<N, E> {
    #[cold]
    fn put_padded(&mut self, message: &[u8]) -> io::Result<()> {
        let mut padded = [0; N];
        padded.get_mut(..message.len()).ok_or_else(|| wrong_len(message.len(), N))?.copy_from_slice(message);
        self.0.put(&padded)
    }

    #[cold]
    fn take_cut(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let mut padded = [0; N];
        self.0.take(&mut padded)?;
        let len = buffer.len();
        buffer.copy_from_slice(padded.get(..len).ok_or_else(|| wrong_len(N, len))?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    struct Loopback(VecDeque<[u8; 16]>);

    impl Ends<16> for Loopback {
        fn put(&mut self, message: &[u8; 16]) -> io::Result<()> {
            self.0.push_back(*message);
            Ok(())
        }

        fn take(&mut self, buffer: &mut [u8; 16]) -> io::Result<()> {
            *buffer = self.0.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
            Ok(())
        }
    }

    #[test]
    fn shorter_messages_go_through_and_longer_ones_are_refused() {
        let mut slots = Slots::<16, _>(Loopback(VecDeque::new()));
        for len in [16, 15, 1, 0] {
            let message = vec![7; len];
            let mut buffer = vec![0; len];
            slots.send(&message).unwrap();
            assert_eq!(slots.recv(&mut buffer).unwrap(), len);
            assert_eq!(buffer, message);
        }
        assert!(slots.send(&[7; 17]).is_err());
        slots.send(&[7; 16]).unwrap();
        assert!(slots.recv(&mut [0; 17]).is_err());
    }

    #[test]
    fn every_listed_size_has_a_slot_type() {
        for size in SIZES {
            assert_eq!(with_slot_size!(size, N => N), Some(size));
        }
        assert_eq!(with_slot_size!(9usize, N => N), None);
    }

    #[test]
    fn slots_fill_no_more_than_the_capacity() {
        assert_eq!(count(1 << 20, 8), 1 << 17);
        assert_eq!(count(1 << 20, 56), 1 << 14);
        assert_eq!(count(1 << 20, 65536), 16);
        assert_eq!(count(64, 65536), 2);
    }
}
