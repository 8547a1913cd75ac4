//! Which memory the processes of this machine share, as `/proc/PID/maps` shows it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The shared mappings of all processes whose `/proc/PID/maps` we may read.
#[derive(Debug, Default)]
pub(crate) struct SharedMappings(Vec<Mapping>);

/// A shared mapping of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping {
    pid: u32,
    memory: Mapped,
}

/// The memory behind a shared mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mapped {
    /// The segment with that `shmid` in our IPC namespace, created under that key.
    Segment { key: i32, id: i32 },
    /// A file or a memfd. `path` is its path when the process opened it; it may be gone.
    File { inode: u64, path: PathBuf },
}

impl SharedMappings {
    /// Reads the mappings of all processes.
    pub(crate) fn now() -> Self {
        let mut shared = SharedMappings::default();
        let namespace = fs::read_link("/proc/self/ns/ipc").ok();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // Read as bytes: a path need not be UTF-8.
            if let Ok(text) = fs::read(format!("/proc/{pid}/maps")) {
                let is_in_our_namespace = || fs::read_link(format!("/proc/{pid}/ns/ipc")).ok() == namespace;
                shared.add(pid, &text, is_in_our_namespace);
            }
        }
        shared
    }

    fn add(&mut self, pid: u32, maps: &[u8], is_in_our_namespace: impl Fn() -> bool) {
        for line in maps.split(|&byte| byte == b'\n') {
            let Some(memory) = parse(line) else { continue };
            let mapping = Mapping { pid, memory };
            let is_known = self.0.iter().rev().take_while(|known| known.pid == pid).any(|k| *k == mapping);
            // Identifiers of another IPC namespace mean other segments.
            if !is_known && (matches!(mapping.memory, Mapped::File { .. }) || is_in_our_namespace()) {
                self.0.push(mapping);
            }
        }
    }

    /// The processes that have a segment mapped, and the key it was created under if there are any.
    pub(crate) fn of_segment(&self, shm_id: i32) -> (Vec<u32>, Option<i32>) {
        let mut pids = Vec::new();
        let mut created_under = None;
        for Mapping { pid, memory } in &self.0 {
            if let Mapped::Segment { key, id } = memory {
                if *id == shm_id {
                    pids.push(*pid);
                    created_under = Some(*key);
                }
            }
        }
        pids.dedup();
        (pids, created_under)
    }

    /// The files that each process has mapped, by inode and path.
    pub(crate) fn files(&self) -> Vec<(u32, Vec<(u64, &Path)>)> {
        let mut files: Vec<(u32, Vec<(u64, &Path)>)> = Vec::new();
        for Mapping { pid, memory } in &self.0 {
            let Mapped::File { inode, path } = memory else { continue };
            match files.last_mut() {
                Some((last, mapped)) if last == pid => mapped.push((*inode, path)),
                _ => files.push((*pid, vec![(*inode, path)])),
            }
        }
        files
    }
}

/// The memory behind a line of `/proc/PID/maps`, if the mapping is a shared one.
fn parse(line: &[u8]) -> Option<Mapped> {
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
    // Segments lie in a file system of the kernel's own; a file of such a name has a device with a major number.
    if let Some(key) = path.strip_prefix(b"/SYSV").filter(|_| device.starts_with("00:")) {
        let key = std::str::from_utf8(key.get(..8)?).ok()?;
        let key = u32::from_str_radix(key, 16).ok()? as i32;
        return Some(Mapped::Segment { key, id: inode.try_into().ok()? });
    }
    Some(Mapped::File { inode, path: unescape(path) })
}

/// A path as the process knows it: the kernel writes a newline in it as `\012`.
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
    fn shared_mappings_are_kept_and_private_ones_skipped() {
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
        let mut shared = SharedMappings::default();
        shared.add(7, maps, || true);
        let found: Vec<_> = shared.0.iter().map(|mapping| mapping.memory.clone()).collect();
        let expected = [
            Mapped::Segment { key: 1234, id: 32770 },
            Mapped::Segment { key: -1, id: 5 },
            file(17, b"/dev/shm/a b"),
            file(2053, b"/memfd:ticks (deleted)"),
            file(9, b"/SYSV-of-mine"),
            file(8, b"/a\nb"),
            file(7, b"/\xff"),
        ];
        assert_eq!(found, expected);
        assert_eq!(shared.of_segment(5), (vec![7], Some(-1)));
        let mut elsewhere = SharedMappings::default();
        elsewhere.add(7, maps, || false);
        assert_eq!(elsewhere.0.len(), expected.len() - 2, "segments of another IPC namespace");
    }
}
