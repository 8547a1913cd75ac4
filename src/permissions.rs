//! The owner, group and mode of a kernel object.

use std::fmt;

/// The owner, group and mode of a segment.
///
/// ```
/// let pipe = shmpipe::Options::new().create("memfd")?;
/// let permissions = shmpipe::inspect(pipe.address())?.permissions;
/// assert_eq!(permissions.mode, 0o600);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// The owner.
    pub uid: u32,
    /// The owner's group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "owner {}, group {}, mode {:04o}", self.uid, self.gid, self.mode)
    }
}
