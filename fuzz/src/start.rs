//! The first position of a run, and the content of the free ring.

use crate::bare::Bare;
use crate::model::Image;
use arbitrary::Arbitrary;
use shmpipe_testing::layout;

/// An empty pipe whose roles were never claimed.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub struct Start {
    near: Near,
    /// The distance from there, in words.
    before: u16,
    litter: Litter,
}

/// A position near which arithmetic can overflow.
#[derive(Clone, Copy, Debug, Arbitrary)]
enum Near {
    Zero,
    Two32,
    Two63,
    /// The same as 0.
    Two64,
}

/// The content of the free ring.
#[derive(Clone, Copy, Debug, Arbitrary)]
enum Litter {
    Zeros,
    Ones,
    /// Words of records with this length.
    Records(u8),
}

impl Start {
    pub fn position(self) -> u64 {
        let near = match self.near {
            Near::Zero => return u64::from(self.before) * 8,
            Near::Two32 => 1 << 32,
            Near::Two63 => 1 << 63,
            Near::Two64 => 0u64,
        };
        near.wrapping_sub(u64::from(self.before) * 8)
    }

    fn litter(self, bytes: &mut [u8]) {
        match self.litter {
            Litter::Zeros => bytes.fill(0),
            Litter::Ones => bytes.fill(0xff),
            Litter::Records(length) => {
                let word = (u64::from(length) + 1).to_ne_bytes();
                bytes.chunks_exact_mut(8).for_each(|chunk| chunk.copy_from_slice(&word));
            }
        }
    }

    /// Writes this state to the pipe, and to `image`, which has its size. No role may be held.
    pub fn prepare(self, bare: &Bare, image: &mut Image) {
        let (header, ring) = image.0.split_at_mut(layout::RING);
        header.copy_from_slice(&bare.fresh.0[..layout::RING]);
        self.litter(ring);
        let position = self.position();
        for offset in [layout::HEAD, layout::TAIL] {
            image.write(offset, &position.to_ne_bytes());
        }
        let index = position as usize % image.ring().len();
        image.write(layout::RING + index, &[0; 8]);
        bare.write(image);
    }
}
