//! Tachyon: a ring in a memfd whose descriptor goes over a Unix socket; C++, through its Rust crate.

use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use shmpipe_measure::{Channel, Endpoint, Invitation, Invited, Mode, Patience, Transport};
use tachyon_ipc::{Bus, TachyonError};

use crate::errors::{refused, wrong_len};
use crate::late::Late;
use crate::scratch;

/// A bus each way: spinning only, and in its hybrid mode.
pub fn at(size: usize) -> [&'static dyn Transport; 2] {
    let with = |sleeps| Box::leak(Box::new(Tachyon { size, sleeps })) as &'static dyn Transport;
    [with(false), with(true)]
}

struct Tachyon {
    size: usize,
    sleeps: bool,
}

/// What the header of a message takes, and to what messages are aligned.
const HEADER: usize = 64;
/// A consumer gives room back after so many messages only, so a ring has to hold more of them than that.
const RELEASED_AT_ONCE: usize = 32;
/// Looks before a consumer sleeps in the hybrid mode, as in Tachyon's own examples.
const SPINS_PER_CLOCK_READ: u32 = 10_000;
/// How long the partner looks for the parent's socket.
const SETTING_UP: Duration = Duration::from_secs(5);

impl Transport for Tachyon {
    fn name(&self) -> &'static str {
        if self.sleeps { "tachyon-hybrid" } else { "tachyon" }
    }

    fn mode(&self) -> Mode {
        if self.sleeps { Mode::PollsThenSleeps } else { Mode::Polls }
    }

    fn about(&self) -> &'static str {
        match self.sleeps {
            false => {
                "tachyon-ipc 0.5 (C++), set_polling_mode(1); acquire_tx, write, commit (which flushes) and acquire_rx, commit \
                 for each message; a larger ring where 40 messages would not fit"
            }
            true => "the same without set_polling_mode; a consumer sleeps after 10000 looks",
        }
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let (there, back) = (scratch::path("tachyon")?, scratch::path("tachyon")?);
        let fitting = (self.size.next_multiple_of(HEADER) + HEADER) * (RELEASED_AT_ONCE + 8);
        let capacity = invitation.capacity().max(fitting.next_power_of_two());
        invitation.tell(self.size);
        invitation.tell(there.display());
        invitation.tell(back.display());
        let (out, back) = (self.listen(there, capacity), self.listen(back, capacity));
        Ok(Endpoint::new(Buses { out, back, size: self.size, looks: self.looks() }))
    }

    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        let size = invited.word()?;
        let (there, back): (PathBuf, PathBuf) = (invited.word()?, invited.word()?);
        let (back, out) = (self.connect(there)?, self.connect(back)?);
        Ok(Endpoint::new(Buses { out, back, size, looks: self.looks() }))
    }
}

impl Tachyon {
    fn looks(&self) -> u32 {
        if self.sleeps { SPINS_PER_CLOCK_READ } else { u32::MAX }
    }

    /// Listening waits for the other side to connect, so it has a thread of its own until then.
    fn listen(&self, path: PathBuf, capacity: usize) -> Late<Bus> {
        let sleeps = self.sleeps;
        let bus = thread::spawn(move || Bus::listen(&path.to_string_lossy(), capacity));
        Late::new(move || {
            let bus = bus.join().map_err(|_| refused("the listening thread panicked"))?;
            let bus = bus.map_err(refused)?;
            bus.set_polling_mode(i32::from(!sleeps));
            Ok(bus)
        })
    }

    fn connect(&self, path: PathBuf) -> io::Result<Late<Bus>> {
        let start = Instant::now();
        loop {
            match Bus::connect(&path.to_string_lossy()) {
                Ok(bus) => {
                    bus.set_polling_mode(i32::from(!self.sleeps));
                    return Ok(Late::ready(bus));
                }
                Err(_) if start.elapsed() < SETTING_UP => thread::sleep(Duration::from_millis(1)),
                Err(error) => return Err(refused(error)),
            }
        }
    }
}

struct Buses {
    out: Late<Bus>,
    back: Late<Bus>,
    size: usize,
    looks: u32,
}

impl Channel for Buses {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let bus = self.out.get()?;
        let mut patience = Patience::new();
        loop {
            match bus.acquire_tx(message.len()) {
                Ok(guard) => {
                    guard.write(message);
                    return guard.commit(message.len(), 0).map_err(refused);
                }
                Err(TachyonError::BufferFull) => patience.pause()?,
                Err(error) => return Err(refused(error)),
            }
        }
    }

    #[inline(always)]
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let guard = self.back.get()?.acquire_rx(self.looks).map_err(refused)?;
        let (len, expected) = (guard.data().len(), buffer.len());
        buffer.get_mut(..len).ok_or_else(|| wrong_len(len, expected))?.copy_from_slice(guard.data());
        guard.commit().map_err(refused)?;
        Ok(len)
    }

    fn max_len(&self) -> usize {
        self.size
    }
}
