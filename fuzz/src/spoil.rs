//! Changes that another process could make.

use crate::model::Image;
use arbitrary::Arbitrary;
use shmpipe_testing::layout::{self, ready};

/// A change of the segment.
#[derive(Debug, Arbitrary)]
pub enum Patch<'a> {
    /// Bytes at the start of the segment.
    Header(&'a [u8]),
    /// Bytes anywhere.
    Bytes(u16, &'a [u8]),
    Word(Place, Value),
    Half(Place, bool, u32),
    /// The same record word at every index.
    Carpet {
        length: u8,
    },
    /// Both positions.
    Positions {
        head: u64,
        used: u16,
    },
    /// A zero at the tail.
    ClearAtTail,
}

/// A word of the segment.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Place {
    Identity(u8),
    Tail,
    Head,
    Producer(u8),
    Consumer(u8),
    Counters(u8),
    AtHead(i8),
    AtTail(i8),
    Ring(u16),
}

/// The value of a word.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Value {
    Any(u64),
    Small(u8),
    Power(u8),
    Record { length: u16, tag: u8 },
    Wrap,
    Ready,
    Making,
    ReadySwapped,
    Near(Place, i16),
    State { epoch: u8, phase: u8 },
}

impl Place {
    /// Its current offset.
    pub fn offset(self, image: &Image) -> usize {
        // Mostly the word itself, sometimes a neighbour.
        let around = |position: u64, words: i8| {
            let position = position.wrapping_add_signed(i64::from(words / 32) * 8);
            layout::RING + position as usize % image.ring().len() / 8 * 8
        };
        match self {
            Place::Identity(n) => n as usize % 64 * 8,
            Place::Tail => layout::TAIL,
            Place::Head => layout::HEAD,
            Place::Producer(n) => layout::PRODUCER + n as usize % 5 * 8,
            Place::Consumer(n) => layout::CONSUMER + n as usize % 5 * 8,
            Place::Counters(n) => {
                [layout::PRODUCED, layout::CONSUMED][n as usize / 4 % 2] + n as usize % 4 * 8
            }
            Place::AtHead(n) => around(image.word(layout::HEAD), n),
            Place::AtTail(n) => around(image.word(layout::TAIL), n),
            Place::Ring(n) => layout::RING + n as usize * 8 % image.ring().len(),
        }
    }
}

impl Value {
    /// Its current value.
    pub fn word(self, image: &Image) -> u64 {
        match self {
            Value::Any(value) => value,
            Value::Small(value) => value.into(),
            Value::Power(n) => 1 << (n % 64),
            Value::Record { length, tag } => record(u32::from(length) % 8500, tag.into()),
            Value::Wrap => layout::WRAP,
            Value::Ready => ready::COMPLETE,
            Value::Making => ready::INCOMPLETE,
            Value::ReadySwapped => ready::COMPLETE.swap_bytes(),
            Value::Near(place, delta) => image.word(place.offset(image)).wrapping_add_signed(delta.into()),
            Value::State { epoch, phase } => u64::from(epoch) << 2 | u64::from(phase % 4),
        }
    }
}

fn record(length: u32, tag: u32) -> u64 {
    u64::from(tag) << 32 | u64::from(length.wrapping_add(1))
}

impl Patch<'_> {
    /// Applies the change to an image of the segment.
    pub fn apply(&self, image: &mut Image) {
        match *self {
            Patch::Header(bytes) => image.write(0, &bytes[..bytes.len().min(layout::RING)]),
            Patch::Bytes(offset, bytes) => image.write(offset as usize % image.0.len(), bytes),
            Patch::Word(place, value) => {
                let word = value.word(image);
                image.write(place.offset(image), &word.to_ne_bytes());
            }
            Patch::Half(place, second, half) => {
                image.write(place.offset(image) + usize::from(second) * 4, &half.to_ne_bytes());
            }
            Patch::Carpet { length } => {
                for offset in (layout::RING..image.0.len()).step_by(8) {
                    image.write(offset, &record(length.into(), 0).to_ne_bytes());
                }
            }
            Patch::Positions { head, used } => {
                let used = u64::from(used) % (image.ring().len() as u64 + 16);
                image.write(layout::HEAD, &head.to_ne_bytes());
                image.write(layout::TAIL, &head.wrapping_add(used).to_ne_bytes());
            }
            Patch::ClearAtTail => image.write(Place::AtTail(0).offset(image), &[0; 8]),
        }
    }
}
