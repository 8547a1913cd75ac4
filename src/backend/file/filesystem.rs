//! Which file systems can hold a pipe.

use super::descriptor::{FileSystem, HUGETLBFS, TMPFS};
use crate::error::{FileProblem, SetupError};
use crate::segment::Request;

/// File systems on which all processes that map a file share its pages, open-file-description locks exclude each other, and
/// allocated space stays allocated. The list holds those that are known to do so, because the others look the same until data is
/// lost.
const SUPPORTED: [(u32, &str); 4] =
    [(TMPFS, "tmpfs"), (HUGETLBFS, "hugetlbfs"), (0xef53, "ext4"), (0x5846_5342, "xfs")];

/// Names of others that users are likely to try, for the error.
const UNSUPPORTED: [(u32, &str); 15] = [
    // Copy on write, also in f2fs, bcachefs and ZFS: after a page is written back, the next store to it needs a new block, and
    // raises SIGBUS on a full disk.
    (0x9123_683e, "btrfs"),
    (0xf2f5_2010, "f2fs"),
    (0xca45_1a4e, "bcachefs"),
    (0x2fc1_2fc1, "ZFS"),
    // Cannot allocate space in advance.
    (0x8584_58f6, "ramfs"),
    // Maps the file of the layer below, so a mapping does not keep the lock.
    (0x794c_7630, "overlayfs"),
    (0x6969, "NFS"),
    (0x6573_5546, "FUSE or virtiofs"),
    (0x0102_1997, "9p"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x00c3_6400, "CephFS"),
    (0x0bd0_0bd0, "Lustre"),
    (0x9fa0, "procfs"),
    (0x6265_6572, "sysfs"),
];

/// The names under which mount tables have the supported ones.
pub(super) const SUPPORTED_KINDS: [&str; 6] = ["tmpfs", "devtmpfs", "hugetlbfs", "ext4", "ext3", "xfs"];

pub(super) fn is_supported(found: FileSystem) -> bool {
    SUPPORTED.iter().any(|&(magic, _)| magic == found.magic)
}

pub(super) fn check_filesystem(request: &Request<'_>, found: FileSystem) -> Result<(), SetupError> {
    if is_supported(found) {
        return Ok(());
    }
    let name = UNSUPPORTED.iter().find(|&&(magic, _)| magic == found.magic).map(|&(_, name)| name);
    Err(SetupError::File(FileProblem::FileSystem {
        address: request.address.clone(),
        magic: found.magic,
        name,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_lists_every_supported_file_system() {
        let document = include_str!("../../../LAYOUT.md");
        let (_, section) = document.split_once("### File systems\n").expect("the section");
        let (section, _) = section.split_once("\n### ").expect("its end");
        let rows: Vec<_> = section.lines().filter(|line| line.starts_with("| 0x")).collect();
        assert_eq!(rows.len(), SUPPORTED.len());
        for (magic, name) in SUPPORTED {
            assert!(
                rows.iter()
                    .any(|row| row.starts_with(&format!("| {magic:#010X} | {name}").replace("0X", "0x"))),
                "{name}"
            );
        }
    }
}
