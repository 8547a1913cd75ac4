//! A shmpipe each way.
//!
//! This file is also a crate of its own. `--against REV` (see [`bench::against`](crate::bench::against)) compiles it for every
//! revision to compare, against the library of that revision, under the name `shmpipe`. Each revision brings its own copy of
//! this file, which fits the API of its library. A revision from before this convention gets the copy of the comparing tree.
//! Hence three rules for this file:
//!
//! - It only uses `shmpipe`, `shmpipe_measure` and `std`, by these names, never `crate::` or `super::`.
//! - A line of it starts with `use shmpipe_measure::`. The tool recognizes the convention by this line.
//! - It exports [`TRANSPORTS`].
//!
//! All revisions use the measuring crate of the comparing tree. If you rename an import of this file in that crate, `--against`
//! no longer compiles older revisions.

use std::error::Error;
use std::io;
use std::time::Duration;

use shmpipe::{Consumer, Object, Options, Producer, Trusted, Wait};
use shmpipe_measure::{
    Channel, Endpoint, Incoming, Invitation, Invited, Leftover, Mode, Outgoing, Transport,
};

/// A shmpipe each way with defaults: the safe API and the default wait strategy, which blocks.
pub const SHMPIPE: &dyn Transport = &Shmpipe { name: "shmpipe", wait: Wait::Block, api: Api::Copying };
/// The safe API. Both sides poll without pause.
pub const SHMPIPE_SPIN: &dyn Transport =
    &Shmpipe { name: "shmpipe-spin", wait: Wait::Spin, api: Api::Copying };
/// The safe API. Each side looks again after 50 us, and neither wakes the other.
pub const SHMPIPE_NAP: &dyn Transport =
    &Shmpipe { name: "shmpipe-nap", wait: Wait::Sleep(Duration::from_micros(50)), api: Api::Copying };
/// The safe API, with a reservation for each message: two calls instead of one `send`.
pub const SHMPIPE_RESERVE: &dyn Transport =
    &Shmpipe { name: "shmpipe-reserve", wait: Wait::Block, api: Api::Reserving };
/// The safe API, with batches. Streams are sent in batches of 32, each of which becomes visible at once. The receiver drains
/// all messages that are there, and releases them together. Single messages go as in [`SHMPIPE`].
pub const SHMPIPE_BATCH: &dyn Transport =
    &Shmpipe { name: "shmpipe-batch", wait: Wait::Block, api: Api::Batching };
/// The zero-copy API for a trusted peer, with our own copies into and out of the ring. It blocks.
pub const SHMPIPE_TRUSTED: &dyn Transport =
    &Shmpipe { name: "shmpipe-trusted", wait: Wait::Block, api: Api::InPlace };

/// All of them.
pub const TRANSPORTS: &[&dyn Transport] =
    &[SHMPIPE, SHMPIPE_SPIN, SHMPIPE_NAP, SHMPIPE_TRUSTED, SHMPIPE_RESERVE, SHMPIPE_BATCH];

struct Shmpipe {
    name: &'static str,
    wait: Wait,
    api: Api,
}

/// The calls to send and receive.
#[derive(Clone, Copy)]
enum Api {
    Copying,
    Reserving,
    Batching,
    InPlace,
}

impl Shmpipe {
    fn options(&self) -> Options {
        // The creator has it open for as long as the partner does.
        Options::new().wait(self.wait).allow_rmid_forced(true)
    }

    /// Creates a private pipe, which is in the invitation and is removed with the session.
    fn make_one(&self, invitation: &mut Invitation<'_>) -> io::Result<::shmpipe::Pipe> {
        let options = self.options().capacity(invitation.capacity() as u64);
        let pipe = options.create("sysv:private").map_err(refused)?;
        if let Err(error) = announce(&pipe, invitation) {
            // it is not listed for removal; report the first error, even if the removal fails
            let _ = ::shmpipe::unlink_force(pipe.address());
            return Err(error);
        }
        Ok(pipe)
    }

    fn endpoint(&self, producer: Producer, consumer: Consumer) -> Endpoint {
        match self.api {
            Api::Copying => Endpoint::new(Copying { producer, consumer }),
            Api::Reserving => Endpoint::new(Reserving(Copying { producer, consumer })),
            Api::Batching => Endpoint::new(Batching(Copying { producer, consumer })),
            Api::InPlace => {
                // SAFETY: the peer is the other process of this session, the same program. It only uses the ring through shmpipe,
                // so it follows the protocol.
                let (producer, consumer) = unsafe { (producer.trust_peer(), consumer.trust_peer()) };
                Endpoint::new(InPlace { producer, consumer })
            }
        }
    }
}

impl Transport for Shmpipe {
    fn name(&self) -> &'static str {
        self.name
    }

    fn mode(&self) -> Mode {
        match self.wait {
            Wait::Spin | Wait::Yield => Mode::Polls,
            Wait::Sleep(_) => Mode::Sleeps,
            _ => Mode::PollsThenSleeps,
        }
    }

    fn about(&self) -> &'static str {
        match (self.api, self.wait) {
            (Api::InPlace, _) => "trusted peer: messages written and read in place, copied once each way",
            (Api::Reserving, _) => "the safe API, messages written into reservations",
            (Api::Batching, _) => {
                "the safe API, batches of 32 when streaming, taken as many at a time as are there"
            }
            (Api::Copying, Wait::Spin) => "the safe API, Wait::Spin",
            (Api::Copying, Wait::Sleep(_)) => "the safe API, Wait::Sleep of 50 us",
            (Api::Copying, _) => "the safe API, default options",
        }
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let out = self.make_one(invitation)?;
        let back = self.make_one(invitation)?;
        Ok(self.endpoint(out.producer().map_err(refused)?, back.consumer().map_err(refused)?))
    }

    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        let (back, out): (String, String) = (invited.word()?, invited.word()?);
        let back = self.options().open(back).map_err(refused)?;
        let out = self.options().open(out).map_err(refused)?;
        Ok(self.endpoint(out.producer().map_err(refused)?, back.consumer().map_err(refused)?))
    }
}

#[cold]
pub(crate) fn refused(error: impl Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

/// Adds a pipe to the invitation, and registers it for removal with the session.
pub(crate) fn announce(pipe: &::shmpipe::Pipe, invitation: &mut Invitation<'_>) -> io::Result<()> {
    let snapshot = ::shmpipe::inspect(pipe.address()).map_err(refused)?;
    if let Object::SysV { shm_id, sem_id: Some(sem_id), .. } = snapshot.object {
        invitation.leaves(Leftover::Segment(shm_id))?;
        invitation.leaves(Leftover::Semaphores(sem_id))?;
    }
    invitation.tell(pipe.address());
    Ok(())
}

/// The safe API: bytes are copied in by `send` and out by `copy_to`.
pub(crate) struct Copying {
    pub(crate) producer: Producer,
    pub(crate) consumer: Consumer,
}

impl Channel for Copying {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.producer.send(message).map_err(refused)?;
        Ok(())
    }

    #[inline(always)]
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let message = self.consumer.recv().map_err(refused)?;
        message.copy_to(buffer).map_err(refused)
    }

    fn max_len(&self) -> usize {
        self.producer.max_len().min(self.consumer.max_len())
    }
}

/// The safe API with a reservation for each message.
struct Reserving(Copying);

impl Channel for Reserving {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let mut reservation = self.0.producer.reserve(message.len()).map_err(refused)?;
        reservation.write(0, message);
        reservation.commit();
        Ok(())
    }

    #[inline(always)]
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buffer)
    }

    fn max_len(&self) -> usize {
        self.0.max_len()
    }
}

/// Messages per batch.
const BATCH: u64 = 32;

/// The safe API with batches of many messages.
struct Batching(Copying);

impl Channel for Batching {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.0.send(message)
    }

    #[inline(always)]
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buffer)
    }

    #[inline(always)]
    fn send_all(&mut self, messages: &mut impl Outgoing) -> io::Result<()> {
        loop {
            let mut batch = self.0.producer.batch();
            for _ in 0..BATCH {
                let Some(message) = messages.next() else {
                    batch.commit();
                    return Ok(());
                };
                batch.push(message).map_err(refused)?;
            }
            batch.commit();
        }
    }

    #[inline(always)]
    fn recv_all(&mut self, messages: &mut impl Incoming) -> io::Result<()> {
        while messages.left() > 0 {
            let mut drain = self.0.consumer.drain(messages.left().min(BATCH) as usize);
            while let Some(message) = drain.next().map_err(refused)? {
                let len = message.copy_to(messages.room()).map_err(refused)?;
                messages.arrived(len)?;
            }
            if drain.taken() == 0 {
                drop(drain);
                let len = self.0.recv(messages.room())?;
                messages.arrived(len)?;
            }
        }
        Ok(())
    }

    /// A batch of them takes at most half the ring.
    fn max_len(&self) -> usize {
        (self.0.producer.capacity() / (2 * BATCH)) as usize - 16
    }
}

/// The zero-copy API: the caller's own copy into the reservation, and out of the message.
struct InPlace {
    producer: Producer<Trusted>,
    consumer: Consumer<Trusted>,
}

impl Channel for InPlace {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let mut reservation = self.producer.reserve(message.len()).map_err(refused)?;
        reservation.copy_from_slice(message);
        reservation.commit();
        Ok(())
    }

    #[inline(always)]
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let message = self.consumer.recv().map_err(refused)?;
        let len = message.len();
        match buffer.get_mut(..len) {
            Some(room) => room.copy_from_slice(&message),
            None => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {len} bytes")));
            }
        }
        Ok(len)
    }

    fn max_len(&self) -> usize {
        self.producer.max_len().min(self.consumer.max_len())
    }
}
