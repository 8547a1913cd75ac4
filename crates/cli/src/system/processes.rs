//! Processes, as /proc shows them.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use procfs::process::{Process, all_processes};

/// Whether the processes of other users are visible. If /proc hides them, process 1 is missing.
pub fn are_visible() -> bool {
    Path::new("/proc/1/stat").exists()
}

/// Whether a program of that name runs, among visible processes.
pub fn is_running(name: &str) -> bool {
    let Ok(processes) = all_processes() else { return false };
    processes.flatten().filter_map(|process| process.stat().ok()).any(|stat| stat.comm == name)
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    pub pid: u32,
    /// The name of its program, as far as the kernel keeps it.
    pub command: String,
    pub uid: u32,
    /// The time since it started.
    pub age: Option<Duration>,
    /// A signal (SIGSTOP, Ctrl-Z) or a debugger stopped it.
    pub stopped: bool,
    /// It runs, or could.
    pub running: bool,
}

impl ProcessInfo {
    /// `None` if there is no such process, or it is not visible.
    pub fn of(pid: u32) -> Option<ProcessInfo> {
        let process = Process::new(pid.try_into().ok()?).ok()?;
        let stat = process.stat().ok()?;
        Some(ProcessInfo {
            pid,
            command: printable(&stat.comm),
            uid: process.status().ok()?.euid,
            age: age(stat.starttime),
            stopped: matches!(stat.state, 'T' | 't'),
            running: stat.state == 'R',
        })
    }
}

/// Whether a thread of a process sleeps on a futex. `None` if the kernel does not say where its threads sleep.
pub fn sleeps_on_futex(pid: u32) -> Option<bool> {
    let mut known = false;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let Ok(place) = fs::read_to_string(thread.path().join("wchan")) else { continue };
        if place.contains("futex") {
            return Some(true);
        }
        // `0` means: it runs, or this is not shown.
        known |= place != "0";
    }
    known.then_some(false)
}

/// A name that is safe to print: a program may give itself any.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The age of a process, by its start in ticks after the boot.
fn age(start: u64) -> Option<Duration> {
    let booted = UNIX_EPOCH + Duration::from_secs(procfs::boot_time_secs().ok()?);
    let started = booted + Duration::from_secs(start / procfs::ticks_per_second());
    SystemTime::now().duration_since(started).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_and_others_are_not() {
        let us = ProcessInfo::of(std::process::id()).unwrap();
        assert_eq!((us.uid, us.stopped), (crate::system::users::current(), false));
        assert!(us.age.unwrap() < Duration::from_secs(3600) && !us.command.is_empty());
        assert!(ProcessInfo::of(0).is_none() && ProcessInfo::of(u32::MAX).is_none());
    }
}
