//! Processes, as /proc shows them.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use procfs::process::{Process, all_processes};

/// Whether other processes can be seen here at all: where /proc hides those of other users, not even the first one.
pub fn are_visible() -> bool {
    Path::new("/proc/1/stat").exists()
}

/// Whether a program of that name runs, as far as can be seen.
pub fn is_running(name: &str) -> bool {
    let Ok(processes) = all_processes() else { return false };
    processes.flatten().filter_map(|process| process.stat().ok()).any(|stat| stat.comm == name)
}

/// What is known of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    pub pid: u32,
    /// Its program, as far as the kernel keeps the name.
    pub command: String,
    pub uid: u32,
    /// For how long it has run.
    pub age: Option<Duration>,
    /// A signal has stopped it (SIGSTOP, Ctrl-Z), or a debugger.
    pub stopped: bool,
}

impl Who {
    /// `None` if there is no such process, or none that we may see.
    pub fn is(pid: u32) -> Option<Who> {
        let process = Process::new(pid.try_into().ok()?).ok()?;
        let stat = process.stat().ok()?;
        Some(Who {
            pid,
            command: printable(&stat.comm),
            uid: process.status().ok()?.euid,
            age: age(stat.starttime),
            stopped: matches!(stat.state, 'T' | 't'),
        })
    }
}

/// A program may give itself any name.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// For how long a process has run that was started so many ticks after the machine.
fn age(start: u64) -> Option<Duration> {
    let booted = UNIX_EPOCH + Duration::from_secs(procfs::boot_time_secs().ok()?);
    let started = booted + Duration::from_secs(start / procfs::ticks_per_second());
    SystemTime::now().duration_since(started).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_known_and_no_process_is_none() {
        let us = Who::is(std::process::id()).unwrap();
        assert_eq!((us.uid, us.stopped), (crate::system::users::current(), false));
        assert!(us.age.unwrap() < Duration::from_secs(3600) && !us.command.is_empty());
        assert!(Who::is(0).is_none() && Who::is(u32::MAX).is_none());
    }
}
