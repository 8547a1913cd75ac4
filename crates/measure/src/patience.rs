//! Waiting for the other side in a polling loop, without hanging when it is gone.

use std::hint;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::partner;

/// Looks that only pause the processor, whatever happens: some 20 to 50 us.
const SPINS: u32 = 1 << 10;
/// The same where each side has a processor to itself: some milliseconds. Who waits for a message that is sent now and then
/// goes on polling for so long; only a wait that makes no sense any more gives way.
const SPINS_ALONE: u32 = 1 << 16;
/// Looks between two checks whether the other side still lives.
const CHECK_EVERY: u32 = 1 << 8;
/// Looks between giving way for the first time and napping, in a wait that has no end.
const NAP_AFTER: u32 = 1 << 12;
const NAP: Duration = Duration::from_micros(200);
/// Nothing moved for so long: an error is better than a hang.
const STALLED: Duration = Duration::from_secs(30);

/// Whether each side has a processor to itself.
static ALONE: AtomicBool = AtomicBool::new(false);

/// From now on waits know whether each side has a processor to itself.
pub(crate) fn sides_are_alone(alone: bool) {
    ALONE.store(alone, Relaxed); // a hint
}

/// One wait of a polling loop: pauses, then yields the processor, then looks whether the partner still lives.
///
/// The first looks cost one pause, one increment and one branch, so a transport that polls may call it in its inner loop.
#[derive(Debug)]
pub struct Patience {
    looks: u32,
    endless: bool,
    since: Option<Instant>,
}

impl Patience {
    /// A wait that ends with an error when the partner is gone or nothing moves for 30 seconds.
    #[inline(always)]
    pub const fn new() -> Patience {
        Patience { looks: 0, endless: false, since: None }
    }

    /// A wait for an order, which may take for ever: naps in the end instead of giving up, unless the other side is gone.
    pub(crate) const fn endless() -> Patience {
        Patience { looks: 0, endless: true, since: None }
    }

    /// Lets a little time pass before the next look.
    ///
    /// # Errors
    /// `BrokenPipe` when the other side has ended, `TimedOut` when nothing moved for 30 seconds.
    #[inline(always)]
    pub fn pause(&mut self) -> io::Result<()> {
        hint::spin_loop();
        self.looks += 1;
        if self.looks <= SPINS { Ok(()) } else { self.pause_longer() }
    }

    #[cold]
    #[inline(never)]
    fn pause_longer(&mut self) -> io::Result<()> {
        let spins = if ALONE.load(Relaxed) { SPINS_ALONE } else { SPINS };
        if self.looks <= spins {
            return Ok(());
        }
        thread::yield_now();
        if self.endless {
            partner::still_lives()?;
            if self.looks >= spins + NAP_AFTER {
                self.looks = spins + NAP_AFTER;
                thread::sleep(NAP);
            }
            return Ok(());
        }
        if self.looks < spins + CHECK_EVERY {
            return Ok(());
        }
        self.looks = spins;
        partner::still_lives()?;
        if self.since.get_or_insert_with(Instant::now).elapsed() > STALLED {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("nothing moved between the two sides for {} s", STALLED.as_secs()),
            ));
        }
        Ok(())
    }
}

impl Default for Patience {
    fn default() -> Patience {
        Patience::new()
    }
}
