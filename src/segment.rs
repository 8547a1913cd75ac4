//! An open handle of a segment, of whatever kind of shared memory it is.
//!
//! Nothing here knows which kind it is. A kind is a way to find, make and remove a segment, and a
//! [`Guard`] that says who holds which role of it.

mod asked;
mod guard;
pub(crate) mod identity;
mod mapping;
pub(crate) mod pages;
mod view;

pub(crate) use asked::{Asked, Trouble, join, persist, wishes};
pub(crate) use guard::{Guard, GuardError};
pub(crate) use mapping::{Access, Mapping};
pub use view::Object;
pub(crate) use view::View;

use crate::address::Address;
use crate::error::{Loss, SetupError};
use crate::options::Options;
use crate::os::process;
use crate::permissions::Permissions;
use crate::protocol::layout::{Counters, Header, Quiet};
use crate::protocol::peer::{Phase, Role, State};
use crate::protocol::sync::Ordering;
use identity::Identity;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::thread;
use std::time::{Duration, Instant};

/// Whether it may be that nobody holds a role that was found taken, since nobody says that he does: he has just come, or is gone,
/// and a program that he is starting has a copy of his lock until its exec; or he has died, and somebody who looks at his memory
/// (`ps` does) keeps it, and with it the mapping that carries his lock, for a moment more.
fn is_settling(noted: u64, since: Instant) -> bool {
    let patience = match noted {
        0 => SETTLING,
        _ => OUTLIVING,
    };
    since.elapsed() < patience && (noted == 0 || process::is_gone(noted))
}

const SETTLING: Duration = Duration::from_millis(100);
const OUTLIVING: Duration = Duration::from_secs(1);

/// An open handle: the mapped segment, what it is, and what guards its roles.
#[derive(Debug)]
pub(crate) struct Segment {
    /// Unmapped when it is dropped.
    pub(crate) mapping: ManuallyDrop<Mapping>,
    pub(crate) identity: Identity,
    pub(crate) address: Address,
    pub(crate) created: bool,
    pub(crate) permissions: Permissions,
    /// Whether every page is to be touched at once if the caller does not say.
    pub(crate) eager: bool,
    pub(crate) guard: Box<dyn Guard>,
}

impl Segment {
    /// Faults it in as was asked for. Done last, since it may take long: nobody waits for us.
    pub(crate) fn prefault(&self, options: &Options) -> Result<(), SetupError> {
        pages::prefault(&self.mapping, options, self.eager)
    }

    pub(crate) fn header(&self) -> NonNull<Header> {
        self.mapping.base().cast()
    }

    /// Claims a role.
    pub(crate) fn claim(&self, role: Role) -> Result<(), SetupError> {
        if !self.mapping.is_ours() {
            return Err(SetupError::Forked { address: self.address.clone() });
        }
        let noted = &counters(self.mapping.header(), role).holder;
        let start = Instant::now();
        loop {
            match self.guard.claim(role) {
                Ok(()) => {
                    // Relaxed, here and below: a hint for whoever finds the role taken.
                    noted.store(process::hint(), Ordering::Relaxed);
                    return Ok(());
                }
                Err(GuardError::Taken) if is_settling(noted.load(Ordering::Relaxed), start) => {
                    thread::sleep(Duration::from_millis(1));
                }
                Err(GuardError::Taken) => {
                    return Err(SetupError::RoleTaken { role, pid: self.holder(role) });
                }
                Err(error) => return Err(self.error(error)),
            }
        }
    }

    pub(crate) fn release(&self, role: Role) -> Result<(), SetupError> {
        // Relaxed: a hint.
        counters(self.mapping.header(), role).holder.store(0, Ordering::Relaxed);
        self.guard.release(role).map_err(|error| match error {
            // There was no claim of ours left to give back.
            GuardError::Taken => self.error(GuardError::Gone),
            error => self.error(error),
        })
    }

    /// Forgets a claim that somebody else seems to have taken over; the error that says so.
    pub(crate) fn forget(&self, role: Role) -> SetupError {
        self.guard.forget(role);
        SetupError::ClaimsLost { address: self.address.clone(), attached: 1 }
    }

    fn error(&self, error: GuardError) -> SetupError {
        let address = self.address.clone();
        match error {
            GuardError::Gone => match self.guard.loss() {
                Loss::Removed => SetupError::Removed { address },
                Loss::Replaced => SetupError::Replaced { address },
                Loss::Claims { attached } => SetupError::ClaimsLost { address, attached },
            },
            GuardError::Taken => SetupError::Busy { address, pid: None },
            GuardError::Unaccounted(attached) => SetupError::ClaimsLost { address, attached },
            // The rights of when it was opened were others.
            GuardError::Os { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                SetupError::PermissionDenied { address, key: None, permissions: Some(self.permissions) }
            }
            GuardError::Os { call, source } => SetupError::Os { call, source },
        }
    }

    fn holder(&self, role: Role) -> Option<u32> {
        holder(&*self.guard, self.mapping.header(), role)
    }

    /// The descriptor of a segment that has one.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.guard.descriptor()
    }

    /// The same segment once more, with a mapping and claims of its own.
    pub(crate) fn again(&self, options: &Options) -> Result<Self, SetupError> {
        let again = self.guard.again(&self.address, options)?;
        again.prefault(options)?;
        if again.identity.segment_id == self.identity.segment_id {
            Ok(again)
        } else {
            Err(self.error(GuardError::Gone))
        }
    }

    /// Whether a side has closed, and its role is free.
    fn has_closed(&self, role: Role) -> bool {
        let side = quiet(self.mapping.header(), role);
        State::of(side).phase() == Some(Phase::Closed) && self.guard.is_free(role).unwrap_or(false)
    }
}

impl Drop for Segment {
    /// Leaves; the last one to leave a pipe that is to go when both sides have closed removes it.
    fn drop(&mut self) {
        let is_ours = self.mapping.is_ours();
        let removes = is_ours && self.identity.remove_on_close();
        if removes {
            let is_over = || self.has_closed(Role::Producer) && self.has_closed(Role::Consumer);
            self.guard.leave(Some(&is_over));
        }
        // SAFETY: nobody has the segment any more, and this is done once.
        unsafe { ManuallyDrop::drop(&mut self.mapping) };
        // Afterwards, so that whoever claims a role knows of everybody who has it mapped.
        if is_ours && !removes {
            self.guard.leave(None);
        }
    }
}

/// A hint at who holds a role: what the guard can tell, or else what the holder has noted.
fn holder(guard: &dyn Guard, header: &Header, role: Role) -> Option<u32> {
    guard.holder(role).or_else(|| noted(header, role))
}

/// Who has claimed a role last, by what it has noted.
pub(crate) fn noted(header: &Header, role: Role) -> Option<u32> {
    // Relaxed: a hint.
    process::pid_of(counters(header, role).holder.load(Ordering::Relaxed))
}

pub(crate) fn quiet(header: &Header, role: Role) -> &Quiet {
    match role {
        Role::Producer => &header.producer.0,
        Role::Consumer => &header.consumer.0,
    }
}

pub(crate) fn counters(header: &Header, role: Role) -> &Counters {
    match role {
        Role::Producer => &header.produced.0,
        Role::Consumer => &header.consumed.0,
    }
}
