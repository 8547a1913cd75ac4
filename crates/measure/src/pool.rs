//! Huge pages for a while.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;

use crate::errors::unfit;
use crate::guard::SignalsHeld;

const FILE: &str = "/proc/sys/vm/nr_hugepages";

/// Huge pages added to the system's pool, taken out again when this is dropped.
///
/// Any number of processes may do so at the same time. One that is killed by SIGKILL leaves its pages in the pool; what a
/// terminal sends waits until this is dropped.
pub struct HugePages {
    pages: u64,
    _held: SignalsHeld,
}

impl HugePages {
    /// Adds `pages` pages of the default size; needs root.
    ///
    /// # Errors
    /// Those of writing to `/proc/sys/vm/nr_hugepages`; `InvalidInput` if the system has no memory for so many.
    pub fn add(pages: u64) -> io::Result<HugePages> {
        let held = SignalsHeld::new()?;
        let before = change(|now| now + pages)?;
        let huge_pages = HugePages { pages: number()?.saturating_sub(before), _held: held };
        match huge_pages.pages {
            got if got >= pages => Ok(huge_pages),
            got => Err(unfit(format!("the system has memory for {got} of {pages} huge pages"))),
        }
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        // It was allowed before.
        let _ = change(|now| now.saturating_sub(self.pages));
    }
}

fn number() -> io::Result<u64> {
    fs::read_to_string(FILE)?.trim().parse().map_err(|_| unfit(format!("what {FILE} holds")))
}

/// Changes the number while nobody else does, and gives what it was.
fn change(change: impl FnOnce(u64) -> u64) -> io::Result<u64> {
    let file = File::options().write(true).open(FILE)?;
    // SAFETY: the descriptor is open; the lock goes with it.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) } == -1 {
        return Err(io::Error::last_os_error());
    }
    let before = number()?;
    fs::write(FILE, change(before).to_string())?;
    Ok(before)
}
