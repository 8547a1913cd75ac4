//! shaq: a ring of values in a file that the caller brings, with positions on lines of their own.
//!
//! Written and read in place, so that each message is copied once each way.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::time::Duration;

use memfd::MemfdOptions;
use shaq::spsc::{Consumer, Producer, minimum_file_size};
use shmpipe_measure::{Endpoint, Invitation, Invited, Mode, Patience, Transport};

use crate::errors::refused_debug;
use crate::slots::{self, Ends, Slots, with_slot_size};

/// Polling, and with a consumer that sleeps.
pub fn at(size: usize) -> [&'static dyn Transport; 2] {
    let with = |futex| Box::leak(Box::new(Shaq { size, futex })) as &'static dyn Transport;
    [with(false), with(true)]
}

struct Shaq {
    size: usize,
    futex: bool,
}

impl Transport for Shaq {
    fn name(&self) -> &'static str {
        if self.futex { "shaq-futex" } else { "shaq" }
    }

    fn mode(&self) -> Mode {
        if self.futex { Mode::PollsThenSleeps } else { Mode::Polls }
    }

    fn about(&self) -> &'static str {
        match self.futex {
            false => {
                "shaq 4.1 spsc in a memfd, slots of the message's size; written and read in place by batches of one"
            }
            true => "the same; reserve_read_batch_timeout (a producer without room polls)",
        }
    }

    fn passes_descriptors(&self) -> bool {
        true
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let (there, back) = (memory()?, memory()?);
        let count = slots::count(invitation.capacity(), self.size);
        let endpoint = with_slot_size!(self.size, N => {
            let len = minimum_file_size::<Value<N>>(count);
            // SAFETY: both files are new, this process alone makes queues of them, and the partner joins each in the other
            // role and with the same type, for which every pattern of bits is a value.
            let (producer, consumer) = unsafe { (Producer::create(&there, len), Consumer::create(&back, len)) };
            endpoint::<N>(self.futex, producer.map_err(refused_debug)?, consumer.map_err(refused_debug)?)
        });
        invitation.tell(self.size);
        invitation.pass(there.into());
        invitation.pass(back.into());
        endpoint.ok_or_else(|| refused_debug("no slot of that size"))
    }

    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        let size: usize = invited.word()?;
        let (there, back) = (File::from(invited.descriptor()?), File::from(invited.descriptor()?));
        let endpoint = with_slot_size!(size, N => {
            // SAFETY: the parent made both queues, of the same type and in the other role; no other process joins them.
            let (producer, consumer) = unsafe { (Producer::join(&back), Consumer::join(&there)) };
            endpoint::<N>(self.futex, producer.map_err(refused_debug)?, consumer.map_err(refused_debug)?)
        });
        endpoint.ok_or_else(|| refused_debug("no slot of that size"))
    }
}

type Value<const N: usize> = [u8; N];

fn memory() -> io::Result<File> {
    Ok(MemfdOptions::new().create("shaq").map_err(refused_debug)?.into_file())
}

fn endpoint<const N: usize>(
    futex: bool,
    producer: Producer<Value<N>>,
    consumer: Consumer<Value<N>>,
) -> Endpoint {
    if futex {
        Endpoint::new(Slots(Sleeping { producer, consumer }))
    } else {
        Endpoint::new(Slots(Polling { producer, consumer }))
    }
}

#[inline(always)]
fn put<const N: usize>(producer: &mut Producer<Value<N>>, message: &[u8; N]) -> io::Result<()> {
    let mut patience = Patience::new();
    loop {
        let mut batch = producer.write_batch();
        // SAFETY: the slot is initialized right below, before the batch is dropped.
        if let Some(slot) = unsafe { batch.try_as_mut() } {
            slot.write(*message);
            return Ok(());
        }
        drop(batch);
        patience.pause()?;
    }
}

struct Polling<const N: usize> {
    producer: Producer<Value<N>>,
    consumer: Consumer<Value<N>>,
}

impl<const N: usize> Ends<N> for Polling<N> {
    #[inline(always)]
    fn put(&mut self, message: &[u8; N]) -> io::Result<()> {
        put(&mut self.producer, message)
    }

    #[inline(always)]
    fn take(&mut self, buffer: &mut [u8; N]) -> io::Result<()> {
        let mut patience = Patience::new();
        loop {
            if let Some(batch) = self.consumer.try_reserve_read_batch(NonZeroUsize::MIN) {
                if let Some(value) = batch.get(0) {
                    buffer.copy_from_slice(value);
                }
                return Ok(());
            }
            patience.pause()?;
        }
    }
}

struct Sleeping<const N: usize> {
    producer: Producer<Value<N>>,
    consumer: Consumer<Value<N>>,
}

/// Longer than any wait of the harness.
const PATIENCE: Duration = Duration::from_secs(60);

impl<const N: usize> Ends<N> for Sleeping<N> {
    #[inline(always)]
    fn put(&mut self, message: &[u8; N]) -> io::Result<()> {
        put(&mut self.producer, message)
    }

    #[inline(always)]
    fn take(&mut self, buffer: &mut [u8; N]) -> io::Result<()> {
        let batch = self.consumer.reserve_read_batch_timeout(NonZeroUsize::MIN, PATIENCE);
        let batch = batch.map_err(refused_debug)?;
        if let Some(value) = batch.get(0) {
            buffer.copy_from_slice(value);
        }
        Ok(())
    }
}
