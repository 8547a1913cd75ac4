//! Which memory the processes of this machine share, as `/proc/PID/maps` shows it.

use super::memfd;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The shared mappings of all processes whose `/proc/PID/maps` we may read.
#[derive(Debug, Default)]
pub(crate) struct SharedMappings {
    /// Under which key each segment of our IPC namespace was created, and the processes that have it mapped, by its `shmid`.
    segments: HashMap<i32, (i32, Vec<u32>)>,
    /// The files that each process has mapped.
    pub(crate) files: Vec<(u32, HashSet<MappedFile>)>,
    /// The devices that segments and memfds are on.
    pub(crate) memory_devices: Vec<u64>,
    /// Why processes may be missing.
    pub(crate) missing: Missing,
}

/// A file or a memfd that a process has mapped.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MappedFile {
    /// Its path, written as [`path_in_maps`] does.
    pub(crate) path: Vec<u8>,
    /// The device of its file system.
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// The memory behind a shared mapping.
#[derive(Debug, PartialEq, Eq)]
enum Mapped {
    /// The segment with that `shmid`, in the IPC namespace of the process, and the key under which it was created.
    Segment {
        key: i32,
        id: i32,
    },
    File(MappedFile),
}

/// The first lack of a resource, such as descriptors. Other errors do not count: what we may not see, or what ended meanwhile, is
/// not missing.
#[derive(Debug, Default)]
pub(crate) struct Missing(pub(crate) Option<io::Error>);

impl Missing {
    pub(crate) fn ok<T>(&mut self, result: io::Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)) {
                    self.0.get_or_insert(error);
                }
                None
            }
        }
    }
}

impl SharedMappings {
    /// Reads the mappings of all processes.
    pub(crate) fn now() -> Self {
        let mut shared = SharedMappings::default();
        shared.memory_devices = memory_devices(&mut shared.missing);
        let namespace = fs::read_link("/proc/self/ns/ipc").ok();
        for entry in shared.missing.ok(fs::read_dir("/proc")).into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // Read as bytes: a path need not be UTF-8.
            if let Some(text) = shared.missing.ok(fs::read(format!("/proc/{pid}/maps"))) {
                let is_in_our_namespace = || fs::read_link(format!("/proc/{pid}/ns/ipc")).ok() == namespace;
                shared.add(pid, &text, is_in_our_namespace);
            }
        }
        shared
    }

    fn add(&mut self, pid: u32, maps: &[u8], is_in_our_namespace: impl Fn() -> bool) {
        let mut files = HashSet::new();
        // Identifiers of another IPC namespace mean other segments.
        let mut is_ours = None;
        let lines = maps.split(|&byte| byte == b'\n');
        for mapped in lines.filter_map(|line| parse(line, &self.memory_devices)) {
            match mapped {
                Mapped::Segment { key, id } if *is_ours.get_or_insert_with(&is_in_our_namespace) => {
                    let (_, pids) = self.segments.entry(id).or_insert((key, Vec::new()));
                    if pids.last() != Some(&pid) {
                        pids.push(pid);
                    }
                }
                Mapped::Segment { .. } => {}
                Mapped::File(file) => {
                    files.insert(file);
                }
            }
        }
        if !files.is_empty() {
            self.files.push((pid, files));
        }
    }

    /// The processes that have a segment mapped, and the key it was created under if there are any.
    pub(crate) fn of_segment(&self, shm_id: i32) -> (Vec<u32>, Option<i32>) {
        self.segments.get(&shm_id).map_or_else(Default::default, |(key, pids)| (pids.clone(), Some(*key)))
    }
}

/// The devices that segments and memfds are on. The kernel keeps both in file systems of its own, one for normal and one for huge
/// pages.
fn memory_devices(missing: &mut Missing) -> Vec<u64> {
    let memfds = [0, libc::MFD_HUGETLB].map(memfd::create);
    memfds.into_iter().filter_map(|file| Some(missing.ok(file)?.metadata().ok()?.dev())).collect()
}

/// The memory behind a line of `/proc/PID/maps`, if the mapping is a shared one. Segments are on one of `devices`.
fn parse(line: &[u8], devices: &[u64]) -> Option<Mapped> {
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
    let (major, minor) = device.split_once(':')?;
    let [major, minor] = [major, minor].map(|number| u32::from_str_radix(number, 16).ok());
    let device = libc::makedev(major?, minor?);
    let path = rest.trim_ascii_start();
    match key_in(path).filter(|_| devices.contains(&device)) {
        Some(key) => Some(Mapped::Segment { key, id: inode.try_into().ok()? }),
        None => Some(Mapped::File(MappedFile { path: path.to_owned(), device, inode })),
    }
}

/// The key in the name that the kernel gives to a segment. A file may have that name too, but on another device.
fn key_in(path: &[u8]) -> Option<i32> {
    let digits = path.strip_prefix(b"/SYSV")?.strip_suffix(b" (deleted)")?;
    let key = std::str::from_utf8(digits).ok().filter(|digits| digits.len() == 8)?;
    Some(u32::from_str_radix(key, 16).ok()? as i32)
}

/// A path as `/proc/PID/maps` shows it: the kernel writes a newline as `\012`.
pub(crate) fn path_in_maps(path: &Path) -> Vec<u8> {
    let lines: Vec<&[u8]> = path.as_os_str().as_bytes().split(|&byte| byte == b'\n').collect();
    lines.join(&b"\\012"[..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// The devices 00:01 and 00:0f.
    const DEVICES: [u64; 2] = [0x01, 0x0f];

    fn file(device: (u32, u32), inode: u64, path: &[u8]) -> MappedFile {
        MappedFile { path: path.to_owned(), device: libc::makedev(device.0, device.1), inode }
    }

    fn on_devices() -> SharedMappings {
        SharedMappings { memory_devices: DEVICES.to_vec(), ..SharedMappings::default() }
    }

    #[test]
    fn shared_mappings_are_kept_and_private_ones_skipped() {
        let maps = b"7f12-7f13 rw-s 00000000 00:01 32770                      /SYSV000004d2 (deleted)\n\
            7f13-7f14 rw-s 00000000 00:01 32770                      /SYSV000004d2 (deleted)\n\
            7f14-7f15 r--s 00000000 00:0f 5                          /SYSVffffffff (deleted)\n\
            7f15-7f16 rw-s 00000000 00:1a 17                         /dev/shm/a b\n\
            7f16-7f17 rw-s 00000000 00:01 2053                       /memfd:ticks (deleted)\n\
            7f18-7f19 rw-s 00000000 fe:00 8                          /a\\012b\n\
            7f19-7f1a rw-s 00000000 fe:00 7                          /\xff\n\
            7f1a-7f1b r--p 00000000 fe:00 247030                     /usr/bin/cat\n\
            7f1b-7f1c rw-p 00000000 00:00 0                          [stack]\n\
            7f1c-7f1d rw-p 00000000 00:00 0 \n";
        let mut shared = on_devices();
        shared.add(7, maps, || true);
        shared.add(8, maps, || true);
        let expected = HashSet::from([
            file((0, 0x1a), 17, b"/dev/shm/a b"),
            file((0, 1), 2053, b"/memfd:ticks (deleted)"),
            file((0xfe, 0), 8, b"/a\\012b"),
            file((0xfe, 0), 7, b"/\xff"),
        ]);
        assert_eq!(shared.files, [(7, expected.clone()), (8, expected)]);
        assert_eq!(path_in_maps(Path::new("/a\nb")), b"/a\\012b");
        assert_eq!(shared.of_segment(5), (vec![7, 8], Some(-1)));
        assert_eq!(shared.of_segment(32770), (vec![7, 8], Some(1234)));
        let mut elsewhere = on_devices();
        elsewhere.add(7, maps, || false);
        assert_eq!((elsewhere.files.len(), elsewhere.of_segment(5)), (1, (vec![], None)));
    }

    #[test]
    fn a_file_with_the_name_of_a_segment_is_a_file() {
        // On a tmpfs, removed or not, and beside the segments, with other names.
        for (line, device) in [
            ("00:1a 5 /SYSV000004d2 (deleted)", (0, 0x1a)),
            ("fe:00 5 /SYSV000004d2 (deleted)", (0xfe, 0)),
            ("00:01 5 /SYSV000004d2", (0, 1)),
            ("00:01 5 /SYSV4d2 (deleted)", (0, 1)),
            ("00:01 5 /SYSV000004d20 (deleted)", (0, 1)),
            ("00:01 5 /SYSV000004d2/x (deleted)", (0, 1)),
            ("00:01 5 /SYSV-of-mine (deleted)", (0, 1)),
        ] {
            let (_, path) = line.split_once(" 5 ").unwrap();
            let found = parse(format!("7f12-7f13 rw-s 00000000 {line}").as_bytes(), &DEVICES);
            assert_eq!(found, Some(Mapped::File(file(device, 5, path.as_bytes()))), "{line}");
        }
    }

    #[test]
    fn the_time_for_a_process_grows_with_its_mappings_and_not_with_their_square() {
        let lines = (1..=100_000).map(|n| format!("7f12-7f13 rw-s 00000000 00:01 {n} /memfd:q (deleted)\n"));
        let maps = lines.collect::<String>();
        let start = Instant::now();
        let mut shared = on_devices();
        shared.add(7, maps.as_bytes(), || true);
        assert_eq!(shared.files[0].1.len(), 100_000);
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }
}
