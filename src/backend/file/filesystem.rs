//! Which file systems a pipe may lie on.

use super::descriptor::{FileSystem, HUGETLBFS, TMPFS};
use crate::error::SetupError;
use crate::segment::Asked;

/// Those on which all processes that map a file share its pages, locks on open file descriptions exclude one another, and space
/// that was set aside stays. It is a list of what is known to do, since what does not may look the same until data is lost.
const KNOWN: [(u32, &str); 4] =
    [(TMPFS, "tmpfs"), (HUGETLBFS, "hugetlbfs"), (0xef53, "ext4"), (0x5846_5342, "xfs")];

/// Those that people are going to try, for the error.
const REFUSED: [(u32, &str); 15] = [
    // Copy on write: a page that was written back needs a new block, and on a full disk the next store to it is a SIGBUS.
    (0x9123_683e, "btrfs"),
    (0xf2f5_2010, "f2fs"),
    (0xca45_1a4e, "bcachefs"),
    (0x2fc1_2fc1, "ZFS"),
    // It cannot set space aside.
    (0x8584_58f6, "ramfs"),
    // It maps the file of a layer below, and so a mapping does not keep the lock.
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

pub(super) fn check(asked: &Asked<'_>, found: FileSystem) -> Result<(), SetupError> {
    if KNOWN.iter().any(|&(magic, _)| magic == found.magic) {
        return Ok(());
    }
    let name = REFUSED.iter().find(|&&(magic, _)| magic == found.magic).map(|&(_, name)| name);
    Err(SetupError::FileSystem { address: asked.address.clone(), magic: found.magic, name })
}
