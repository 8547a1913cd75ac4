//! The method of tutorials: a flag in shared memory beside the message, which both sides poll.

use std::io;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::thread;
use std::time::Duration;

use super::slot::Slot;
use super::{Invitation, Invited, Mode, Transport};
use crate::channel::Channel;
use crate::endpoint::Endpoint;
use crate::errors::unfit;
use crate::partner;
use crate::patience::Patience;

/// A flag each way, polled.
pub const FLAG_SPIN: &dyn Transport = &Flag { name: "flag-spin", nap: None };
/// A flag each way, polled every millisecond.
pub const FLAG_SLEEP: &dyn Transport = &Flag { name: "flag-sleep", nap: Some(NAP) };

/// Tutorials sleep for seconds between two polls, with which a measurement would not end.
const NAP: Duration = Duration::from_millis(1);

struct Flag {
    name: &'static str,
    nap: Option<Duration>,
}

impl Transport for Flag {
    fn name(&self) -> &'static str {
        self.name
    }

    fn mode(&self) -> Mode {
        if self.nap.is_some() { Mode::Sleeps } else { Mode::Polls }
    }

    fn about(&self) -> &'static str {
        match self.nap {
            Some(_) => {
                "the tutorial's flag, room for one message, a sleep of 1 ms between two looks (the tutorial's is 1 s)"
            }
            None => "the tutorial's flag, room for one message, looked at without pause",
        }
    }

    /// A slot is mapped when it is created, and a message per millisecond would take too long.
    fn warm_up_bytes(&self, capacity: usize) -> usize {
        if self.nap.is_some() { 1 } else { capacity }
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let capacity = invitation.capacity();
        if !capacity.is_power_of_two() || capacity < 64 {
            return Err(unfit(format!("room of {capacity} bytes: not a power of two from 64 on")));
        }
        let (out, back, id) = Slot::make(capacity)?;
        invitation.tell(capacity);
        invitation.tell(id);
        Ok(Endpoint::new(Flags { out, back, nap: self.nap }))
    }

    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        let capacity = invited.word()?;
        let (out, back) = Slot::join(invited.word()?, capacity)?;
        Ok(Endpoint::new(Flags { out, back, nap: self.nap }))
    }
}

const EMPTY: u32 = 0;
const WRITTEN: u32 = 1;

struct Flags {
    out: Slot,
    back: Slot,
    nap: Option<Duration>,
}

/// Waits for a value of the flag.
#[inline(always)]
fn look(slot: &Slot, wanted: u32, nap: Option<Duration>) -> io::Result<()> {
    let mut patience = Patience::new();
    // ORDERING: Acquire, with the Release stores in `send` and `recv` of the other process: its message is visible, or it has
    // read the bytes to overwrite.
    while slot.written().load(Acquire) != wanted {
        match nap {
            None => patience.pause()?,
            Some(nap) => {
                thread::sleep(nap);
                partner::still_lives()?;
            }
        }
    }
    Ok(())
}

impl Channel for Flags {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        look(&self.out, EMPTY, self.nap)?;
        // SAFETY: the slot is empty, and this is its sender's end.
        unsafe { self.out.put(message) };
        // ORDERING: Release, with the Acquire load in `look`.
        self.out.written().store(WRITTEN, Release);
        Ok(())
    }

    #[inline(always)]
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        look(&self.back, WRITTEN, self.nap)?;
        // SAFETY: the slot holds a message, and this is its receiver's end.
        let len = unsafe { self.back.take(buffer)? };
        // ORDERING: Release, with the Acquire load in `look`.
        self.back.written().store(EMPTY, Release);
        Ok(len)
    }

    fn max_len(&self) -> usize {
        self.out.max_len()
    }
}
