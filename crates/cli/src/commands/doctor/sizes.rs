//! Sizes that several checks compare with.

use nix::unistd::{SysconfVar, sysconf};

/// Bytes of a pipe of the default capacity, header included.
pub const PIPE: u64 = (1 << 20) + 4096;

/// Bytes of a page.
pub fn page_size() -> u64 {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| size.try_into().ok()).unwrap_or(4096)
}
