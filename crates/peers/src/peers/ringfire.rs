//! ringfire: a ring of slots in a file, each with a sequence number that the reader checks before and after its copy.
//!
//! Lossless mode (the writer waits for the slowest registered reader), room for one reader only, so that the writer looks
//! at one cursor. The reader starts at the oldest message.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::slice;

use ringfire::{CleanupMode, FlowControl, FutexWait, RingConsumer, RingProducer, RingProducerBuilder};
use shmpipe_measure::{Endpoint, Invitation, Invited, Mode, Patience, Transport};

use crate::errors::refused;
use crate::late::Late;
use crate::scratch;
use crate::slots::{self, Ends, Slots, with_slot_size};

/// Polling, and with its futex strategy.
pub fn at(size: usize) -> [&'static dyn Transport; 2] {
    let with = |futex| Box::leak(Box::new(Ringfire { size, futex })) as &'static dyn Transport;
    [with(false), with(true)]
}

struct Ringfire {
    size: usize,
    futex: bool,
}

impl Transport for Ringfire {
    fn name(&self) -> &'static str {
        if self.futex { "ringfire-futex" } else { "ringfire" }
    }

    fn mode(&self) -> Mode {
        if self.futex { Mode::PollsThenSleeps } else { Mode::Polls }
    }

    fn about(&self) -> &'static str {
        match self.futex {
            false => {
                "ringfire 0.5, lossless, slots of the message's size, one registered reader; try_push, recv_batch of one"
            }
            true => "the same; push, recv_blocking with FutexWait::default()",
        }
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let (there, back) = (scratch::path("ringfire")?, scratch::path("ringfire")?);
        let count = slots::count(invitation.capacity(), self.size);
        invitation.tell(self.size);
        invitation.tell(count);
        invitation.tell(there.display());
        invitation.tell(back.display());
        with_slot_size!(self.size, N => {
            let consumer = Late::new(move || consumer::<N>(back));
            endpoint::<N>(self.futex, producer(there, count)?, consumer)
        })
        .ok_or_else(|| refused("no slot of that size"))
    }

    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        let (size, count): (usize, usize) = (invited.word()?, invited.word()?);
        let (there, back): (PathBuf, PathBuf) = (invited.word()?, invited.word()?);
        with_slot_size!(size, N => {
            let consumer = Late::ready(consumer(there)?);
            endpoint::<N>(self.futex, producer(back, count)?, consumer)
        })
        .ok_or_else(|| refused("no slot of that size"))
    }
}

type Value<const N: usize> = [u8; N];

fn producer<const N: usize>(path: PathBuf, count: usize) -> io::Result<RingProducer<Value<N>>> {
    let builder = RingProducerBuilder::new(count as u64)
        .flow_control(FlowControl::LosslessBackpressure)
        .max_readers(1)
        .cleanup_mode(CleanupMode::UnlinkOnDrop);
    builder.build(path).map_err(refused)
}

/// Attaches, and takes the file's name away: no other process is to come.
fn consumer<const N: usize>(path: PathBuf) -> io::Result<RingConsumer<Value<N>>> {
    let consumer = RingConsumer::attach(&path).map_err(refused)?;
    fs::remove_file(path)?;
    Ok(consumer)
}

fn endpoint<const N: usize>(
    futex: bool,
    producer: RingProducer<Value<N>>,
    consumer: Late<RingConsumer<Value<N>>>,
) -> Endpoint {
    if futex {
        Endpoint::new(Slots(Sleeping { producer, consumer, wait: FutexWait::default() }))
    } else {
        Endpoint::new(Slots(Polling { producer, consumer }))
    }
}

struct Polling<const N: usize> {
    producer: RingProducer<Value<N>>,
    consumer: Late<RingConsumer<Value<N>>>,
}

impl<const N: usize> Ends<N> for Polling<N> {
    #[inline(always)]
    fn put(&mut self, message: &[u8; N]) -> io::Result<()> {
        let mut patience = Patience::new();
        while self.producer.try_push(message).is_err() {
            patience.pause()?;
        }
        Ok(())
    }

    #[inline(always)]
    fn take(&mut self, buffer: &mut [u8; N]) -> io::Result<()> {
        let consumer = self.consumer.get()?;
        let mut patience = Patience::new();
        while consumer.recv_batch(slice::from_mut(buffer)) == 0 {
            patience.pause()?;
        }
        Ok(())
    }
}

struct Sleeping<const N: usize> {
    producer: RingProducer<Value<N>>,
    consumer: Late<RingConsumer<Value<N>>>,
    wait: FutexWait,
}

impl<const N: usize> Ends<N> for Sleeping<N> {
    #[inline(always)]
    fn put(&mut self, message: &[u8; N]) -> io::Result<()> {
        self.producer.push(message);
        Ok(())
    }

    #[inline(always)]
    fn take(&mut self, buffer: &mut [u8; N]) -> io::Result<()> {
        *buffer = self.consumer.get()?.recv_blocking(&mut self.wait);
        Ok(())
    }
}
