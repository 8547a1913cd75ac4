//! The role locks of a segment, as each backend implements them.

use super::Segment;
use crate::address::Address;
use crate::error::{Lost, SetupError};
use crate::options::Options;
use crate::protocol::layout::Header;
use crate::protocol::liveness::Role;
use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;

/// The locks of a segment's roles. The kernel releases them when a holder dies, whatever the cause and whatever its pid
/// namespace. This needs no process ids and no heartbeats.
///
/// One `RoleLock` belongs to one open handle. Claims and queries cost system calls, so only setup and waits make them.
pub(crate) trait RoleLock: Debug + Send + Sync {
    /// Claims a role until [`release`](Self::release) or our death. `Taken` if another handle holds it, `Gone` if the pipe was
    /// removed.
    fn claim(&self, header: &Header, role: Role) -> Result<(), RoleLockError>;

    /// Releases our claim; leaves the claim of a process that has taken it over. `Taken` if there is none of ours.
    fn release(&self, header: &Header, role: Role) -> Result<(), RoleLockError>;

    /// Whether our claim of a role stands. `Gone` if the pipe was removed.
    fn holds(&self, header: &Header, role: Role) -> Result<bool, RoleLockError>;

    /// Whether a role is free. `Gone` if the pipe was removed.
    fn is_free(&self, header: &Header, role: Role) -> Result<bool, RoleLockError>;

    /// After `Gone`, `Elsewhere` or `Taken`: what happened to the pipe.
    fn loss(&self) -> Lost;

    /// A hint at the holder of a role, if the kernel has one.
    fn holder(&self, header: &Header, role: Role) -> Option<u32>;

    /// Called once, when the handle is dropped. The last handle removes the pipe if `is_over` is given and returns true. Errors
    /// are ignored: they mean that the pipe was removed already.
    fn detach(&self, is_over: Option<&dyn Fn() -> bool>);

    /// Opens the same segment once more.
    fn reopen(&self, address: &Address, options: &Options) -> Result<Segment, SetupError>;

    /// A descriptor of the segment that carries no locks, to pass to other processes.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Why a role lock refused or failed.
#[derive(Debug)]
pub(crate) enum RoleLockError {
    /// The pipe or its locks were removed.
    Gone,
    /// The thread has left the IPC namespace of the pipe, which may be as it was.
    Elsewhere,
    /// Another handle holds the lock.
    Taken,
    Os {
        call: &'static str,
        source: io::Error,
    },
}
