//! Queues of values that are reached through C functions: what both of them do on this side.

use std::io;

use shmpipe_measure::{Channel, Patience};

/// A queue each way, of which this process or thread is the only producer and the only consumer.
///
/// # Safety
/// Both functions touch as many bytes as they are asked for in `Foreign::new`, and no more.
pub unsafe trait Queues {
    /// Sends the value at `message`, if there is room.
    ///
    /// # Safety
    /// As many bytes as a value has are readable there.
    unsafe fn push(&mut self, message: *const u8) -> bool;

    /// Receives a value to `buffer`, if there is one.
    ///
    /// # Safety
    /// As many bytes as a value has are writable there.
    unsafe fn pop(&mut self, buffer: *mut u8) -> bool;
}

/// Messages of the size of a value. The checks before a session also send shorter ones: padded, and cut to what the
/// receiver expects.
pub struct Foreign<Q> {
    queues: Q,
    size: usize,
    padded: Vec<u8>,
}

impl<Q: Queues> Foreign<Q> {
    /// Over queues of values of `size` bytes.
    pub fn new(queues: Q, size: usize) -> Foreign<Q> {
        Foreign { queues, size, padded: vec![0; size] }
    }
}

impl<Q: Queues> Channel for Foreign<Q> {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let value = if message.len() == self.size {
            message
        } else {
            self.padded[..message.len()].copy_from_slice(message);
            &self.padded
        };
        let mut patience = Patience::new();
        // SAFETY: either has the size of a value.
        while !unsafe { self.queues.push(value.as_ptr()) } {
            patience.pause()?;
        }
        Ok(())
    }

    #[inline(always)]
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let cut = buffer.len() != self.size;
        let value = if cut { &mut self.padded } else { &mut *buffer };
        let mut patience = Patience::new();
        // SAFETY: either has the size of a value.
        while !unsafe { self.queues.pop(value.as_mut_ptr()) } {
            patience.pause()?;
        }
        if cut {
            buffer.copy_from_slice(&self.padded[..buffer.len()]);
        }
        Ok(buffer.len())
    }

    fn max_len(&self) -> usize {
        self.size
    }
}
