//! Generated messages. Both processes generate the same ones, so the receiver can check every byte.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::channel::{Incoming, Outgoing};
use crate::splitmix::SplitMix64;

/// The lengths of generated messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lengths {
    /// All equal.
    Fixed(usize),
    /// From 0 to this many bytes, log-uniform: every power of two is equally likely.
    UpTo(usize),
}

/// A generated message.
///
/// ```text
/// 0  sequence number, little endian      (a shorter message has its low bytes)
/// 8  base, base + stride, base + 2 * stride, ... as little-endian words; the last is cut to the length
/// ```
/// Base and stride are random for each message, so no word is right at another place or in another message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) sequence: u64,
    pub(crate) len: usize,
    base: u64,
    stride: u64,
}

/// The messages of one seed, in order.
pub(crate) struct Messages {
    words: SplitMix64,
    lengths: Lengths,
    sequence: u64,
}

impl Messages {
    pub(crate) fn new(seed: u64, lengths: Lengths) -> Messages {
        Messages { words: SplitMix64::new(seed), lengths, sequence: 0 }
    }

    pub(crate) fn draw(&mut self) -> Expected {
        let len = match self.lengths {
            Lengths::Fixed(len) => len,
            Lengths::UpTo(max) => self.log_uniform(max),
        };
        let sequence = self.sequence;
        self.sequence += 1;
        Expected { sequence, len, base: self.words.next_word(), stride: self.words.next_word() | 1 }
    }

    fn log_uniform(&mut self, max: usize) -> usize {
        let max = max as u64;
        let octave = self.words.below(u64::from((max + 1).ilog2()) + 1);
        let shortest = (1 << octave) - 1;
        let longest = (2 * shortest).min(max);
        (shortest + self.words.below(longest - shortest + 1)) as usize
    }
}

impl Expected {
    /// Writes the message to the first `len` bytes of `buffer`, and returns them.
    pub(crate) fn fill<'a>(&self, buffer: &'a mut [u8]) -> &'a [u8] {
        let message = &mut buffer[..self.len];
        let (sequence, rest) = message.split_at_mut(self.len.min(8));
        sequence.copy_from_slice(&self.sequence.to_le_bytes()[..sequence.len()]);
        let mut word = self.base;
        let mut chunks = rest.chunks_exact_mut(8);
        for chunk in &mut chunks {
            chunk.copy_from_slice(&word.to_le_bytes());
            word = word.wrapping_add(self.stride);
        }
        let last = chunks.into_remainder();
        last.copy_from_slice(&word.to_le_bytes()[..last.len()]);
        message
    }

    /// Compares every byte of a received message.
    pub(crate) fn check(&self, found: &[u8]) -> io::Result<()> {
        if found.len() == self.len && self.is(found) { Ok(()) } else { Err(self.mismatch(found)) }
    }

    fn is(&self, found: &[u8]) -> bool {
        let (sequence, rest) = found.split_at(self.len.min(8));
        let mut word = self.base;
        let mut different = 0;
        let chunks = rest.chunks_exact(8);
        let last = chunks.remainder();
        for chunk in chunks {
            different |= word ^ u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
            word = word.wrapping_add(self.stride);
        }
        different == 0
            && sequence == &self.sequence.to_le_bytes()[..sequence.len()]
            && last == &word.to_le_bytes()[..last.len()]
    }

    #[cold]
    fn mismatch(&self, found: &[u8]) -> io::Error {
        let Expected { sequence, len, .. } = self;
        let text = if found.len() == *len {
            let mut expected = vec![0; *len];
            self.fill(&mut expected);
            let at = expected.iter().zip(found).position(|(a, b)| a != b).unwrap_or_default();
            let (expected, found) = (expected[at], found[at]);
            format!("message {sequence} of {len} bytes: byte {at} is {found:#04x}, expected {expected:#04x}")
        } else {
            return self.wrong_len(found.len());
        };
        io::Error::new(io::ErrorKind::InvalidData, text)
    }

    #[cold]
    fn wrong_len(&self, found: usize) -> io::Error {
        let Expected { sequence, len, .. } = self;
        let text = format!("message {sequence} has {found} bytes, expected {len}");
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}

/// The messages of a checked stream, to send or to compare.
pub(crate) struct Generated<'a> {
    messages: Messages,
    buffer: &'a mut [u8],
    left: u64,
    bytes: u64,
    /// The next message.
    expected: Option<Expected>,
}

impl<'a> Generated<'a> {
    /// `count` messages. `buffer` must hold the longest.
    pub(crate) fn new(messages: Messages, buffer: &'a mut [u8], count: u64) -> Generated<'a> {
        Generated { messages, buffer, left: count, bytes: 0, expected: None }
    }

    /// Bytes of the messages so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds the awaited message to an error. An error about a received message already names it.
    pub(crate) fn explain(&self, error: io::Error) -> io::Error {
        match &self.expected {
            Some(Expected { sequence, .. }) => {
                io::Error::new(error.kind(), format!("message {sequence}: {error}"))
            }
            None => error,
        }
    }
}

impl Outgoing for Generated<'_> {
    fn next(&mut self) -> Option<&[u8]> {
        self.left = self.left.checked_sub(1)?;
        let message = self.messages.draw();
        self.bytes += message.len as u64;
        Some(message.fill(self.buffer))
    }
}

impl Incoming for Generated<'_> {
    fn left(&self) -> u64 {
        self.left
    }

    fn room(&mut self) -> &mut [u8] {
        let messages = &mut self.messages;
        let expected = self.expected.get_or_insert_with(|| messages.draw());
        &mut self.buffer[..expected.len]
    }

    fn arrived(&mut self, len: usize) -> io::Result<()> {
        let expected = self.expected.take().unwrap_or_else(|| self.messages.draw());
        match self.buffer.get(..len) {
            Some(found) => expected.check(found)?,
            None => return Err(expected.wrong_len(len)),
        }
        self.left -= 1;
        self.bytes += expected.len as u64;
        Ok(())
    }
}

/// The totals of a checked stream, in which every sequence number, length and byte was compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// The transport's name.
    pub transport: String,
    /// Messages received, all correct.
    pub messages: u64,
    /// Bytes of payload.
    pub bytes: u64,
    /// The limit for the length of a message.
    pub max_len: usize,
    /// The generator's seed, which determines the messages.
    pub seed: u64,
    /// From the order to the last comparison, including generation and comparison.
    pub elapsed: Duration,
}

impl Checked {
    /// Messages per second.
    pub fn messages_per_second(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64()
    }

    /// Payload in 10^9 bytes per second.
    pub fn gigabytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64() / 1e9
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} messages of 0 to {} bytes, {} bytes in {:.3} s, each byte compared: {:.2} M messages/s, {:.2} GB/s",
            self.transport,
            self.messages,
            self.max_len,
            self.bytes,
            self.elapsed.as_secs_f64(),
            self.messages_per_second() / 1e6,
            self.gigabytes_per_second(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_generate_the_same_messages() {
        let mut sender = Messages::new(42, Lengths::UpTo(300));
        let mut receiver = Messages::new(42, Lengths::UpTo(300));
        let mut buffer = [0; 300];
        for _ in 0..1000 {
            receiver.draw().check(sender.draw().fill(&mut buffer)).unwrap();
        }
    }

    #[test]
    fn every_changed_byte_is_an_error() {
        let message = Messages::new(1, Lengths::Fixed(77)).draw();
        let mut buffer = [0; 77];
        message.fill(&mut buffer);
        for at in 0..77 {
            buffer[at] ^= 1;
            let error = message.check(&buffer).unwrap_err().to_string();
            assert!(error.contains(&format!("byte {at} ")), "{error}");
            buffer[at] ^= 1;
        }
        message.check(&buffer).unwrap();
    }

    #[test]
    fn lost_repeated_or_truncated_message_is_an_error() {
        let mut messages = Messages::new(1, Lengths::Fixed(3));
        let (first, second) = (messages.draw(), messages.draw());
        let mut buffer = [0; 3];
        assert!(first.check(second.fill(&mut buffer)).is_err());
        assert!(second.check(first.fill(&mut buffer)).is_err());
        assert!(
            first
                .check(&first.fill(&mut buffer)[..2])
                .unwrap_err()
                .to_string()
                .contains("2 bytes, expected 3")
        );
    }

    #[test]
    fn shifted_word_is_an_error() {
        let message = Messages::new(9, Lengths::Fixed(64)).draw();
        let mut buffer = [0; 64];
        message.fill(&mut buffer);
        buffer.copy_within(16..64, 8);
        assert!(message.check(&buffer).is_err());
    }

    #[test]
    fn lengths_are_log_uniform_over_the_whole_range() {
        let mut messages = Messages::new(5, Lengths::UpTo(1022));
        let mut octaves = [0u32; 10];
        for _ in 0..10_000 {
            let len = messages.draw().len;
            assert!(len <= 1022);
            octaves[(len + 1).ilog2() as usize] += 1;
        }
        // ten octaves, from the empty message alone up to 511..=1022
        assert!(octaves[..9].iter().all(|&n| (800..1200).contains(&n)), "{octaves:?}");
        let mut messages = Messages::new(5, Lengths::UpTo(0));
        assert!((0..10).all(|_| messages.draw().len == 0));
        let mut messages = Messages::new(5, Lengths::UpTo(1));
        let lens: Vec<_> = (0..100).map(|_| messages.draw().len).collect();
        assert!(lens.contains(&0) && lens.contains(&1));
    }
}
