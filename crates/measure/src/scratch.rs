//! Files with numbers for names, which a process can remove that has nothing but the number, in a signal handler too.

use std::process;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Where a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directory {
    /// Where POSIX shared memory is.
    Shm,
    /// Where files outlive a reboot: on a disk, if the system has one.
    Disk,
}

impl Directory {
    /// Its path with a slash at the end.
    pub fn path(self) -> &'static str {
        match self {
            Directory::Shm => "/dev/shm/",
            Directory::Disk => "/var/tmp/",
        }
    }
}

/// What names start with; a number of eight hexadecimal digits follows.
const PREFIX: &str = "shmpipe-measure.";
/// Room for the longest path and a zero.
const LONGEST: usize = 48;

/// A file by its directory and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scratch {
    /// Where it is.
    pub directory: Directory,
    pub(crate) number: u32,
}

impl Scratch {
    /// A name that no other process uses, nor this one for the 1024 that follow.
    pub fn new(directory: Directory) -> Scratch {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let last = LAST.fetch_add(1, Relaxed); // only the number matters
        Scratch { directory, number: process::id() << 10 | last & 0x3ff }
    }

    /// Its name in the directory.
    pub fn name(&self) -> String {
        format!("{PREFIX}{:08x}", self.number)
    }

    /// Its path.
    pub fn path(&self) -> String {
        format!("{}{}", self.directory.path(), self.name())
    }

    /// Removes the file, and gives what `unlink` does; one that is not there is no matter. Async-signal-safe.
    pub(crate) fn remove(self) -> i32 {
        let mut path = [0_u8; LONGEST];
        let digits =
            (0..8).rev().map(|place| b"0123456789abcdef"[(self.number >> (4 * place) & 0xf) as usize]);
        let text = self.directory.path().bytes().chain(PREFIX.bytes()).chain(digits);
        path[..LONGEST - 1].iter_mut().zip(text).for_each(|(to, byte)| *to = byte);
        // SAFETY: a string that ends with a zero: no path fills all of it.
        unsafe { libc::unlink(path.as_ptr().cast()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    #[test]
    fn what_is_removed_is_what_has_that_path() {
        for directory in [Directory::Shm, Directory::Disk] {
            let (one, other) = (Scratch::new(directory), Scratch::new(directory));
            assert!(one.path().len() < LONGEST);
            fs::write(one.path(), "").unwrap();
            fs::write(other.path(), "").unwrap();
            assert_eq!((one.remove(), one.remove()), (0, -1));
            assert!(!Path::new(&one.path()).exists() && Path::new(&other.path()).exists());
            assert_eq!(other.remove(), 0);
            assert!(!Path::new(&other.path()).exists());
        }
    }
}
