//! shmem-ipc: a ring in a memfd with one shared count of items, and an eventfd each way to sleep on.
//!
//! Items are messages, copied by the closures that get a pointer into the ring.

use std::fs::File;
use std::io;

use shmem_ipc::sharedring::{Receiver, Sender};
use shmpipe_measure::{Endpoint, Invitation, Invited, Mode, Patience, Transport};

use crate::errors::refused;
use crate::slots::{self, Ends, Slots, with_slot_size};

/// Polling the count, and sleeping on the eventfds.
pub fn at(size: usize) -> [&'static dyn Transport; 2] {
    let with = |sleeps| Box::leak(Box::new(ShmemIpc { size, sleeps })) as &'static dyn Transport;
    [with(false), with(true)]
}

struct ShmemIpc {
    size: usize,
    sleeps: bool,
}

impl Transport for ShmemIpc {
    fn name(&self) -> &'static str {
        if self.sleeps { "shmem-ipc-event" } else { "shmem-ipc" }
    }

    fn mode(&self) -> Mode {
        if self.sleeps { Mode::Sleeps } else { Mode::Polls }
    }

    fn about(&self) -> &'static str {
        match self.sleeps {
            false => "shmem-ipc 0.3, items of the message's size; its low-level ring, polled, no signals",
            true => {
                "the same; send_raw, receive_raw, block_until_readable and block_until_writable on eventfds"
            }
        }
    }

    fn passes_descriptors(&self) -> bool {
        true
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let count = slots::count(invitation.capacity(), self.size);
        invitation.tell(self.size);
        invitation.tell(count);
        let made = with_slot_size!(self.size, N => {
            let sender = Sender::<Value<N>>::new(count).map_err(refused)?;
            let receiver = Receiver::<Value<N>>::new(count).map_err(refused)?;
            pass(invitation, [sender.memfd().as_file(), sender.empty_signal(), sender.full_signal()])?;
            pass(invitation, [receiver.memfd().as_file(), receiver.empty_signal(), receiver.full_signal()])?;
            endpoint(self.sleeps, sender, receiver)
        });
        made.ok_or_else(|| refused("no slot of that size"))
    }

    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        let (size, count): (usize, usize) = (invited.word()?, invited.word()?);
        let mut file = || invited.descriptor().map(File::from);
        let joined = with_slot_size!(size, N => {
            let receiver = Receiver::<Value<N>>::open(count, file()?, file()?, file()?).map_err(refused)?;
            let sender = Sender::<Value<N>>::open(count, file()?, file()?, file()?).map_err(refused)?;
            endpoint(self.sleeps, sender, receiver)
        });
        joined.ok_or_else(|| refused("no slot of that size"))
    }
}

type Value<const N: usize> = [u8; N];

fn pass(invitation: &mut Invitation<'_>, files: [&File; 3]) -> io::Result<()> {
    for file in files {
        invitation.pass(file.try_clone()?.into());
    }
    Ok(())
}

fn endpoint<const N: usize>(
    sleeps: bool,
    sender: Sender<Value<N>>,
    receiver: Receiver<Value<N>>,
) -> Endpoint {
    if sleeps {
        Endpoint::new(Slots(Sleeping { sender, receiver }))
    } else {
        Endpoint::new(Slots(Polling { sender, receiver }))
    }
}

/// Writes one item to the first place of those that are free.
#[inline(always)]
fn write_one<const N: usize>(message: &[u8; N]) -> impl FnOnce(*mut Value<N>, usize) -> usize + '_ {
    |place, _| {
        // SAFETY: called for one free place at least, which no one reads before the count says so.
        unsafe { place.copy_from_nonoverlapping(message, 1) };
        1
    }
}

/// Reads one item from the first place of those that are filled.
#[inline(always)]
fn read_one<const N: usize>(buffer: &mut [u8; N]) -> impl FnOnce(*const Value<N>, usize) -> usize + '_ {
    |place, _| {
        // SAFETY: called for one filled place at least, which the sender leaves alone until the count says that it is free.
        unsafe { place.copy_to_nonoverlapping(buffer, 1) };
        1
    }
}

struct Polling<const N: usize> {
    sender: Sender<Value<N>>,
    receiver: Receiver<Value<N>>,
}

impl<const N: usize> Ends<N> for Polling<N> {
    #[inline(always)]
    fn put(&mut self, message: &[u8; N]) -> io::Result<()> {
        let ring = self.sender.sender_mut();
        let mut patience = Patience::new();
        while ring.write_count().map_err(refused)? == 0 {
            patience.pause()?;
        }
        ring.send(write_one(message)).map_err(refused)?;
        Ok(())
    }

    #[inline(always)]
    fn take(&mut self, buffer: &mut [u8; N]) -> io::Result<()> {
        let ring = self.receiver.receiver_mut();
        let mut patience = Patience::new();
        while ring.read_count().map_err(refused)? == 0 {
            patience.pause()?;
        }
        ring.recv(read_one(buffer)).map_err(refused)?;
        Ok(())
    }
}

struct Sleeping<const N: usize> {
    sender: Sender<Value<N>>,
    receiver: Receiver<Value<N>>,
}

impl<const N: usize> Ends<N> for Sleeping<N> {
    #[inline(always)]
    fn put(&mut self, message: &[u8; N]) -> io::Result<()> {
        self.sender.block_until_writable().map_err(refused)?;
        self.sender.send_raw(write_one(message)).map_err(refused)?;
        Ok(())
    }

    #[inline(always)]
    fn take(&mut self, buffer: &mut [u8; N]) -> io::Result<()> {
        self.receiver.block_until_readable().map_err(refused)?;
        self.receiver.receive_raw(read_one(buffer)).map_err(refused)?;
        Ok(())
    }
}
