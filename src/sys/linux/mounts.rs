//! Which file system is on a device, as the mount tables of processes show it.

use super::maps::Missing;
use std::collections::HashMap;
use std::fs;

/// The devices of file systems of some kinds.
///
/// Learns them without touching a file on them: a file system on the network, or one that a user runs (FUSE), may never answer.
#[derive(Debug)]
pub(crate) struct Devices {
    kinds: &'static [&'static str],
    /// Whether the file system on a device is of such a kind.
    known: HashMap<u64, bool>,
    /// The process whose mount table was read last.
    read: Option<u32>,
}

impl Devices {
    /// The devices of these kinds of file systems, and `others`.
    pub(crate) fn of(kinds: &'static [&'static str], others: &[u64]) -> Self {
        Devices { kinds, known: others.iter().map(|&device| (device, true)).collect(), read: None }
    }

    /// Whether a device on which a process has files is one of them. A device that is in no mount table, such as that of a file
    /// system that was unmounted lazily, is not.
    pub(crate) fn contain(&mut self, device: u64, pid: u32, missing: &mut Missing) -> bool {
        if !self.known.contains_key(&device) && self.read.replace(pid) != Some(pid) {
            let table = missing.ok(fs::read(format!("/proc/{pid}/mountinfo"))).unwrap_or_default();
            let mounts = table.split(|&byte| byte == b'\n').filter_map(parse);
            self.known.extend(mounts.map(|(device, kind)| (device, self.kinds.contains(&kind))));
        }
        self.known.get(&device) == Some(&true)
    }
}

/// The device of a line of `/proc/PID/mountinfo`, and the kind of the file system there.
fn parse(line: &[u8]) -> Option<(u64, &str)> {
    // The kernel writes a blank in a path as `\040`.
    let separator = line.windows(3).position(|bytes| bytes == b" - ")?;
    let (mount, file_system) = line.split_at(separator);
    let device = std::str::from_utf8(mount.split(|&byte| byte == b' ').nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let kind = file_system.split(|&byte| byte == b' ').nth(2)?;
    Some((libc::makedev(major.parse().ok()?, minor.parse().ok()?), std::str::from_utf8(kind).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_table_says_what_is_on_a_device() {
        let line = b"36 35 98:10 / /mnt\\040\xff rw,noatime master:1 shared:2 - ext4 /dev/root rw";
        assert_eq!(parse(line), Some((libc::makedev(98, 10), "ext4")));
        assert_eq!(parse(b""), None);
        let mut missing = Missing::default();
        let mut devices = Devices::of(&["proc"], &[7]);
        let device = |path| std::os::unix::fs::MetadataExt::dev(&fs::metadata(path).unwrap());
        let here = std::process::id();
        assert!(devices.contain(device("/proc"), here, &mut missing));
        assert!(!devices.contain(device("/dev"), here, &mut missing));
        assert!(devices.contain(7, here, &mut missing));
        assert!(!devices.contain(u64::MAX, here, &mut missing));
        assert!(missing.0.is_none());
    }
}
