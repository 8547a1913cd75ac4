//! The flag with a futex: a waiter sleeps on the flag, and a change of the flag wakes it.

use std::io;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::slot::Slot;
use super::{Invitation, Invited, Mode, Transport};
use crate::channel::Channel;
use crate::endpoint::Endpoint;
use crate::errors::unfit;
use crate::futex;

/// A slot for one message each way, whose flag is a futex.
///
/// In a ping-pong it does the same as a bare futex: one wake-up and one sleep per message.
pub const FUTEX: &dyn Transport = &Futex;

struct Futex;

impl Transport for Futex {
    fn name(&self) -> &'static str {
        "futex"
    }

    fn mode(&self) -> Mode {
        Mode::Sleeps
    }

    fn about(&self) -> &'static str {
        "shared memory, room for one message, its flag a futex; one FUTEX_WAKE and one FUTEX_WAIT per message"
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let capacity = invitation.capacity();
        if !capacity.is_power_of_two() || capacity < 64 {
            return Err(unfit(format!("room of {capacity} bytes: not a power of two from 64 on")));
        }
        let (out, back, id) = Slot::make(capacity)?;
        invitation.tell(capacity);
        invitation.tell(id);
        Ok(Endpoint::new(Mailboxes { out, back }))
    }

    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        let capacity = invited.word()?;
        let (out, back) = Slot::join(invited.word()?, capacity)?;
        Ok(Endpoint::new(Mailboxes { out, back }))
    }
}

const EMPTY: u32 = 0;
const WRITTEN: u32 = 1;
/// The slot has a message, and the sender of the next one sleeps until it is received.
const WRITTEN_NEXT_WAITS: u32 = 2;

struct Mailboxes {
    out: Slot,
    back: Slot,
}

impl Channel for Mailboxes {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let written = self.out.written();
        // ORDERING: Acquire, here and where the exchange fails, with the Release swap in `recv`: the receiver has read the
        // bytes to overwrite.
        while written.load(Acquire) != EMPTY {
            // Relaxed: it only makes the receiver wake us, and no data depends on it
            match written.compare_exchange(WRITTEN, WRITTEN_NEXT_WAITS, Relaxed, Acquire) {
                Err(EMPTY) => break,
                _ => futex::wait(written, WRITTEN_NEXT_WAITS)?,
            }
        }
        // SAFETY: the slot is empty, and this is its sender's end.
        unsafe { self.out.put(message) };
        // ORDERING: Release, with the Acquire load in `recv`.
        written.store(WRITTEN, Release);
        futex::wake(written);
        Ok(())
    }

    #[inline(always)]
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let written = self.back.written();
        // ORDERING: Acquire, with the Release store in `send`. The sender's exchange after it continues its release
        // sequence.
        while written.load(Acquire) == EMPTY {
            futex::wait(written, EMPTY)?;
        }
        // SAFETY: the slot holds a message, and this is its receiver's end.
        let len = unsafe { self.back.take(buffer)? };
        // ORDERING: Release, with the Acquire load in `send`.
        if written.swap(EMPTY, Release) == WRITTEN_NEXT_WAITS {
            futex::wake(written);
        }
        Ok(len)
    }

    fn max_len(&self) -> usize {
        self.out.max_len()
    }
}
