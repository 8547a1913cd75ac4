//! Waits in polling loops, without a hang when the other side is gone.

use std::hint;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::partner;

/// Polls that only pause the processor: 20 to 50 us.
const SPINS: u32 = 1 << 10;
/// The same where each side has its own processor: some milliseconds. A wait for an occasional message polls this long, so
/// that only a hopeless wait yields.
const SPINS_ALONE: u32 = 1 << 16;
/// Polls between two checks whether the other side still lives.
const CHECK_EVERY: u32 = 1 << 8;
/// Polls between the first yield and the first nap, in a wait without a time limit.
const NAP_AFTER: u32 = 1 << 12;
const NAP: Duration = Duration::from_micros(200);
/// After this time without progress, an error is better than a hang.
const STALLED: Duration = Duration::from_secs(30);

/// Whether each side has its own processor.
static ALONE: AtomicBool = AtomicBool::new(false);

/// Sets whether each side has its own processor.
pub(crate) fn sides_are_alone(alone: bool) {
    ALONE.store(alone, Relaxed); // a hint
}

/// A wait in a polling loop: pauses, then yields the processor, then checks whether the partner still lives.
///
/// The first polls cost one pause, one increment and one branch, so a polling transport may call it in its inner loop.
#[derive(Debug)]
pub struct Patience {
    looks: u32,
    endless: bool,
    since: Option<Instant>,
}

impl Patience {
    /// A wait that fails when the partner is gone, or after 30 seconds without progress.
    #[inline(always)]
    pub const fn new() -> Patience {
        Patience { looks: 0, endless: false, since: None }
    }

    /// A wait for an order, without a time limit. It naps after a while, and fails only when the other side is gone.
    pub(crate) const fn endless() -> Patience {
        Patience { looks: 0, endless: true, since: None }
    }

    /// Lets a little time pass before the next poll.
    ///
    /// # Errors
    /// `BrokenPipe` if the other side has ended, `TimedOut` after 30 seconds without progress.
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
