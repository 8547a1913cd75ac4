//! rtrb: a ring between two threads, each side with a cached copy of the other's position.

use std::io;

use rtrb::{Consumer, Producer, RingBuffer};
use shmpipe_measure::{Endpoint, Invitation, Mode, Patience, Transport};

use crate::errors::refused;
use crate::slots::{self, Ends, Slots, with_slot_size};

/// A ring each way of values of that size, polled.
pub fn at(size: usize) -> &'static dyn Transport {
    Box::leak(Box::new(Rtrb { size }))
}

struct Rtrb {
    size: usize,
}

impl Transport for Rtrb {
    fn name(&self) -> &'static str {
        "rtrb"
    }

    fn mode(&self) -> Mode {
        Mode::Polls
    }

    fn about(&self) -> &'static str {
        "rtrb 0.4, values of the message's size, written and read in place by chunks of one"
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let count = slots::count(invitation.capacity(), self.size);
        let made = with_slot_size!(self.size, N => {
            let (producer, theirs) = RingBuffer::<[u8; N]>::new(count);
            let (their_producer, consumer) = RingBuffer::<[u8; N]>::new(count);
            invitation.hand_over(Slots(Ring { producer: their_producer, consumer: theirs }))?;
            Endpoint::new(Slots(Ring { producer, consumer }))
        });
        made.ok_or_else(|| refused("no slot of that size"))
    }
}

struct Ring<const N: usize> {
    producer: Producer<[u8; N]>,
    consumer: Consumer<[u8; N]>,
}

impl<const N: usize> Ends<N> for Ring<N> {
    #[inline(always)]
    fn put(&mut self, message: &[u8; N]) -> io::Result<()> {
        let mut patience = Patience::new();
        loop {
            if let Ok(mut chunk) = self.producer.write_chunk_uninit(1) {
                chunk.as_mut_slices().0[0].write(*message);
                // SAFETY: its one place was just written.
                unsafe { chunk.commit_all() };
                return Ok(());
            }
            patience.pause()?;
        }
    }

    #[inline(always)]
    fn take(&mut self, buffer: &mut [u8; N]) -> io::Result<()> {
        let mut patience = Patience::new();
        loop {
            if let Ok(chunk) = self.consumer.read_chunk(1) {
                buffer.copy_from_slice(&chunk.as_slices().0[0]);
                chunk.commit_all();
                return Ok(());
            }
            patience.pause()?;
        }
    }
}
