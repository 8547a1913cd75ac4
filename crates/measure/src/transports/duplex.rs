//! A duplex shmpipe: both directions in one segment. Otherwise as [`SHMPIPE`](super::SHMPIPE).

use std::io;

use shmpipe::{Duplex, DuplexSide, Options};

use super::shmpipe::{announce, refused};
use super::{Invitation, Invited, Mode, Transport};
use crate::channel::Channel;
use crate::endpoint::Endpoint;

/// A duplex shmpipe with defaults.
pub const SHMPIPE_DUPLEX: &dyn Transport = &TwoWay;

struct TwoWay;

fn options() -> Options {
    // The creator has it open for as long as the partner does.
    Options::new().duplex(true).allow_rmid_forced(true)
}

impl Transport for TwoWay {
    fn name(&self) -> &'static str {
        "shmpipe-duplex"
    }

    fn mode(&self) -> Mode {
        Mode::PollsThenSleeps
    }

    fn about(&self) -> &'static str {
        "a duplex pipe, both directions in one segment: the safe API, default options"
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let pipe =
            options().capacity(invitation.capacity() as u64).create("sysv:private").map_err(refused)?;
        if let Err(error) = announce(&pipe, invitation) {
            // It is not listed for removal. The first error matters, even if the removal fails.
            let _ = shmpipe::unlink_force(pipe.address());
            return Err(error);
        }
        Ok(Endpoint::new(Talking(pipe.duplex_as(DuplexSide::A).map_err(refused)?)))
    }

    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        let address: String = invited.word()?;
        let pipe = options().open(address).map_err(refused)?;
        Ok(Endpoint::new(Talking(pipe.duplex_as(DuplexSide::B).map_err(refused)?)))
    }
}

struct Talking(Duplex);

impl Channel for Talking {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.0.send(message).map_err(refused)?;
        Ok(())
    }

    #[inline(always)]
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let message = self.0.recv().map_err(refused)?;
        message.copy_to(buffer).map_err(refused)
    }

    fn max_len(&self) -> usize {
        self.0.max_len()
    }
}
