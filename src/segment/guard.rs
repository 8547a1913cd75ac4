//! What a kind of shared memory has to say about the roles of a segment.

use super::Segment;
use crate::address::Address;
use crate::error::{Loss, SetupError};
use crate::options::Options;
use crate::protocol::peer::Role;
use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;

/// Who holds which role of a segment, by what the kernel takes back when a holder dies, whatever it dies of and whatever
/// pid namespace it lived in: no process id is compared, no heartbeat sent.
///
/// One guard belongs to one open handle. Asking and claiming cost system calls, which only a wait and a set-up make.
pub(crate) trait Guard: Debug + Send + Sync {
    /// Claims a role until [`release`](Self::release) or our death. `Taken` if somebody holds it, `Gone` if the pipe was
    /// removed, `Unaccounted` if somebody may use it without a claim.
    fn claim(&self, role: Role) -> Result<(), GuardError>;

    /// Gives our claim back.
    fn release(&self, role: Role) -> Result<(), GuardError>;

    /// Forgets a claim that somebody else seems to have taken over, and gives back nothing that is theirs. Where that cannot happen,
    /// it is given back.
    fn forget(&self, role: Role) {
        // It fails only if the pipe was removed, and the claim with it.
        let _ = self.release(role);
    }

    /// Whether nobody holds a role. `Gone` if the pipe was removed.
    fn is_free(&self, role: Role) -> Result<bool, GuardError>;

    /// After `Gone`: what has become of the pipe.
    fn loss(&self) -> Loss;

    /// A hint at who holds a role, if the kernel has one.
    fn holder(&self, role: Role) -> Option<u32>;

    /// Called once, when the handle goes. The last handle to go removes the pipe if `is_over` is given and says so. Whatever
    /// fails here fails because the pipe is gone already.
    fn leave(&self, is_over: Option<&dyn Fn() -> bool>);

    /// Opens the same segment once more.
    fn again(&self, address: &Address, options: &Options) -> Result<Segment, SetupError>;

    /// A descriptor of the segment that holds no locks, to be handed on.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Why a guard did not do as it was asked.
#[derive(Debug)]
pub(crate) enum GuardError {
    /// The pipe, or what guards it, was removed.
    Gone,
    /// Somebody has what was asked for.
    Taken,
    /// So many have the segment mapped whose claims, if they had any, are not known any more.
    Unaccounted(u64),
    Os {
        call: &'static str,
        source: io::Error,
    },
}
