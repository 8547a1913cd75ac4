//! Temporary huge pages.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;

use crate::errors::unfit;
use crate::guard::SignalsHeld;

const FILE: &str = "/proc/sys/vm/nr_hugepages";

/// Huge pages added to the system's pool, and removed from it when this is dropped.
///
/// Any number of processes may do this at the same time, if each uses no more than it has added. SIGKILL leaves the pages in
/// the pool. Signals of a terminal wait until this is dropped.
pub struct HugePages {
    added: u64,
    _held: SignalsHeld,
}

impl HugePages {
    /// Adds `pages` pages of the default size. Needs root.
    ///
    /// # Errors
    /// Those of writing to `/proc/sys/vm/nr_hugepages`; `InvalidInput` if the system lacks memory for them.
    pub fn add(pages: u64) -> io::Result<HugePages> {
        let held = SignalsHeld::new()?;
        // Surplus pages, which were in use while the pool shrank, are counted into the number first.
        let (before, after) = change(|number| number + surplus() + pages)?;
        let huge_pages = HugePages { added: after.saturating_sub(before), _held: held };
        match free() {
            free if free >= pages => Ok(huge_pages),
            free => Err(unfit(format!("the system has memory for {free} of {pages} huge pages"))),
        }
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        // It was allowed before, so it is now.
        let _ = change(|number| number.saturating_sub(self.added));
    }
}

/// Changes the number under a lock, and returns the old and the new number.
fn change(change: impl FnOnce(u64) -> u64) -> io::Result<(u64, u64)> {
    let number = || fs::read_to_string(FILE)?.trim().parse().map_err(|_| unfit(format!("what {FILE} holds")));
    let file = File::options().write(true).open(FILE)?;
    // SAFETY: the descriptor is open. Closing it frees the lock.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) } == -1 {
        return Err(io::Error::last_os_error());
    }
    let before = number()?;
    fs::write(FILE, change(before).to_string())?;
    Ok((before, number()?))
}

fn surplus() -> u64 {
    figure("HugePages_Surp:")
}

fn free() -> u64 {
    figure("HugePages_Free:").saturating_sub(figure("HugePages_Rsvd:"))
}

fn figure(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let figure = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    figure.unwrap_or(0)
}
