//! Processes: who they are, and what memory they share.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::thread;
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

/// Longer than it takes to look at a pipe.
const A_MOMENT: Duration = Duration::from_millis(100);

/// The memory that the processes which we may look into share with others.
#[derive(Debug, Default)]
pub struct Shared {
    mappings: Vec<Mapping>,
}

/// Something that a process has mapped to share it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping {
    pid: u32,
    what: Mapped,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mapped {
    /// The segment with that `shmid` in our IPC namespace, made under that key.
    Segment { key: i32, shm_id: i32 },
    /// A file, a memfd or a file in /dev/shm. `path` is what the process knew it by; it may be gone.
    File { inode: u64, path: PathBuf },
}

impl Shared {
    /// Looks at all processes but this one.
    pub fn now() -> Self {
        let mut shared = Shared::default();
        let own = std::process::id();
        let namespace = fs::read_link("/proc/self/ns/ipc").ok();
        for process in all_processes().into_iter().flatten().flatten() {
            let pid = process.pid().unsigned_abs();
            if pid == own {
                continue;
            }
            // Read as bytes: a path need not be UTF-8.
            if let Ok(text) = fs::read(format!("/proc/{pid}/maps")) {
                let alike = || fs::read_link(format!("/proc/{pid}/ns/ipc")).ok() == namespace;
                shared.add(pid, &text, alike);
            }
        }
        shared
    }

    /// Looks twice, and tells what was there both times: not who only looked at a pipe for a moment.
    pub fn lasting() -> Self {
        let mut shared = Shared::now();
        thread::sleep(A_MOMENT);
        let later = Shared::now();
        shared.mappings.retain(|mapping| later.mappings.contains(mapping));
        shared
    }

    fn add(&mut self, pid: u32, maps: &[u8], same_namespace: impl Fn() -> bool) {
        for line in maps.split(|&byte| byte == b'\n') {
            let Some(what) = mapped(line) else { continue };
            let mapping = Mapping { pid, what };
            let known =
                self.mappings.iter().rev().take_while(|known| known.pid == pid).any(|k| *k == mapping);
            if !known && (matches!(mapping.what, Mapped::File { .. }) || same_namespace()) {
                self.mappings.push(mapping);
            }
        }
    }

    /// The processes that have a segment mapped.
    pub fn segment(&self, shm_id: i32) -> Vec<u32> {
        self.of(|what| matches!(what, Mapped::Segment { shm_id: id, .. } if *id == shm_id))
    }

    /// The files that processes have mapped: (inode, path) of each.
    pub fn files(&self) -> Vec<(u32, Vec<(u64, &Path)>)> {
        let mut files: Vec<(u32, Vec<(u64, &Path)>)> = Vec::new();
        for Mapping { pid, what } in &self.mappings {
            let Mapped::File { inode, path } = what else { continue };
            match files.last_mut() {
                Some((last, its)) if last == pid => its.push((*inode, path)),
                _ => files.push((*pid, vec![(*inode, path)])),
            }
        }
        files
    }

    /// The processes that have something mapped.
    pub fn of(&self, wanted: impl Fn(&Mapped) -> bool) -> Vec<u32> {
        let mut pids: Vec<u32> =
            self.mappings.iter().filter(|mapping| wanted(&mapping.what)).map(|mapping| mapping.pid).collect();
        pids.dedup();
        pids
    }
}

/// What a line of `/proc/PID/maps` shares with other processes, if it does.
fn mapped(line: &[u8]) -> Option<Mapped> {
    let mut rest = line;
    let mut word = || {
        let start = rest.iter().position(|&byte| byte != b' ').unwrap_or(rest.len());
        let (_, from) = rest.split_at(start);
        let (word, after) = from.split_at(from.iter().position(|&byte| byte == b' ').unwrap_or(from.len()));
        rest = after;
        std::str::from_utf8(word).ok()
    };
    let [_, permissions, _, device, inode] = [word()?, word()?, word()?, word()?, word()?];
    let inode: u64 = inode.parse().ok().filter(|&inode| inode != 0)?;
    if !permissions.ends_with('s') {
        return None;
    }
    let path = rest.trim_ascii_start();
    // The kernel's own file system has the segments; a file of that name has a device with a number.
    if let Some(key) = path.strip_prefix(b"/SYSV").filter(|_| device.starts_with("00:")) {
        let key = std::str::from_utf8(key.get(..8)?).ok()?;
        let key = u32::from_str_radix(key, 16).ok()? as i32;
        return Some(Mapped::Segment { key, shm_id: inode.try_into().ok()? });
    }
    Some(Mapped::File { inode, path: unescape(path) })
}

/// A path as it is: the kernel writes a newline in it as `\012`.
fn unescape(path: &[u8]) -> PathBuf {
    let text = OsString::from_vec(path.to_vec());
    if !path.contains(&b'\\') {
        return text.into();
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&first, after)) = rest.split_first() {
        let newline = rest.strip_prefix(b"\\012");
        bytes.push(if newline.is_some() { b'\n' } else { first });
        rest = newline.unwrap_or(after);
    }
    OsStr::from_bytes(&bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_mappings_are_told_from_private_ones() {
        let maps = b"7f12-7f13 rw-s 00000000 00:01 32770                      /SYSV000004d2 (deleted)\n\
            7f13-7f14 rw-s 00000000 00:01 32770                      /SYSV000004d2 (deleted)\n\
            7f14-7f15 r--s 00000000 00:01 5                          /SYSVffffffff (deleted)\n\
            7f15-7f16 rw-s 00000000 00:1a 17                         /dev/shm/a b\n\
            7f16-7f17 rw-s 00000000 00:01 2053                       /memfd:ticks (deleted)\n\
            7f17-7f18 rw-s 00000000 fe:00 9                          /SYSV-of-mine\n\
            7f18-7f19 rw-s 00000000 fe:00 8                          /a\\012b\n\
            7f19-7f1a rw-s 00000000 fe:00 7                          /\xff\n\
            7f1a-7f1b r--p 00000000 fe:00 247030                     /usr/bin/cat\n\
            7f1b-7f1c rw-p 00000000 00:00 0                          [stack]\n\
            7f1c-7f1d rw-p 00000000 00:00 0 \n";
        let file = |inode, path: &[u8]| Mapped::File { inode, path: OsStr::from_bytes(path).into() };
        let mut shared = Shared::default();
        shared.add(7, maps, || true);
        let found: Vec<_> = shared.mappings.iter().map(|mapping| mapping.what.clone()).collect();
        let expected = [
            Mapped::Segment { key: 1234, shm_id: 32770 },
            Mapped::Segment { key: -1, shm_id: 5 },
            file(17, b"/dev/shm/a b"),
            file(2053, b"/memfd:ticks (deleted)"),
            file(9, b"/SYSV-of-mine"),
            file(8, b"/a\nb"),
            file(7, b"/\xff"),
        ];
        assert_eq!(found, expected);
        assert_eq!(shared.segment(5), [7]);
        // Identifiers of another IPC namespace mean other segments.
        let mut elsewhere = Shared::default();
        elsewhere.add(7, maps, || false);
        assert_eq!(elsewhere.mappings.len(), expected.len() - 2);
    }

    #[test]
    fn this_process_is_known_and_no_process_is_none() {
        let us = Who::is(std::process::id()).unwrap();
        // SAFETY: takes nothing.
        assert_eq!((us.uid, us.stopped), (unsafe { libc::geteuid() }, false));
        assert!(us.age.unwrap() < Duration::from_secs(3600) && !us.command.is_empty());
        assert!(Who::is(0).is_none() && Who::is(u32::MAX).is_none());
    }
}
