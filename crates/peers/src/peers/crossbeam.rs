//! crossbeam-channel: the bounded channel, for any number of threads at both ends.

use std::io;

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};
use shmpipe_measure::{Endpoint, Invitation, Mode, Patience, Transport};

use crate::errors::refused;
use crate::slots::{self, Ends, Slots, with_slot_size};

/// Polling, and with its blocking operations.
pub fn at(size: usize) -> [&'static dyn Transport; 2] {
    let with = |blocks| Box::leak(Box::new(Crossbeam { size, blocks })) as &'static dyn Transport;
    [with(false), with(true)]
}

struct Crossbeam {
    size: usize,
    blocks: bool,
}

impl Transport for Crossbeam {
    fn name(&self) -> &'static str {
        if self.blocks { "crossbeam-block" } else { "crossbeam" }
    }

    fn mode(&self) -> Mode {
        if self.blocks { Mode::PollsThenSleeps } else { Mode::Polls }
    }

    fn about(&self) -> &'static str {
        match self.blocks {
            false => "crossbeam-channel 0.5, bounded, messages by value; try_send, try_recv",
            true => "the same; send, recv",
        }
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let count = slots::count(invitation.capacity(), self.size);
        let made = with_slot_size!(self.size, N => {
            let (sender, theirs) = bounded::<[u8; N]>(count);
            let (their_sender, receiver) = bounded::<[u8; N]>(count);
            if self.blocks {
                invitation.hand_over(Slots(Blocking { sender: their_sender, receiver: theirs }))?;
                Endpoint::new(Slots(Blocking { sender, receiver }))
            } else {
                invitation.hand_over(Slots(Polling { sender: their_sender, receiver: theirs }))?;
                Endpoint::new(Slots(Polling { sender, receiver }))
            }
        });
        made.ok_or_else(|| refused("no slot of that size"))
    }
}

struct Polling<const N: usize> {
    sender: Sender<[u8; N]>,
    receiver: Receiver<[u8; N]>,
}

impl<const N: usize> Ends<N> for Polling<N> {
    #[inline(always)]
    fn put(&mut self, message: &[u8; N]) -> io::Result<()> {
        let mut patience = Patience::new();
        loop {
            match self.sender.try_send(*message) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(_)) => patience.pause()?,
                Err(TrySendError::Disconnected(_)) => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
    }

    #[inline(always)]
    fn take(&mut self, buffer: &mut [u8; N]) -> io::Result<()> {
        let mut patience = Patience::new();
        loop {
            match self.receiver.try_recv() {
                Ok(message) => {
                    *buffer = message;
                    return Ok(());
                }
                Err(TryRecvError::Empty) => patience.pause()?,
                Err(TryRecvError::Disconnected) => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
    }
}

struct Blocking<const N: usize> {
    sender: Sender<[u8; N]>,
    receiver: Receiver<[u8; N]>,
}

impl<const N: usize> Ends<N> for Blocking<N> {
    #[inline(always)]
    fn put(&mut self, message: &[u8; N]) -> io::Result<()> {
        self.sender.send(*message).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    #[inline(always)]
    fn take(&mut self, buffer: &mut [u8; N]) -> io::Result<()> {
        *buffer = self.receiver.recv().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(())
    }
}
