//! An open handle of a segment, of whatever kind of shared memory it is.
//!
//! Nothing above this file knows which kind is in use. A kind is a way to find, make and remove a segment, and a
//! [`Guard`] that says who holds which role of it.

mod asked;
mod guard;
mod mapping;

pub(crate) use asked::{Asked, Trouble, join, persist, wishes};
pub(crate) use guard::{Guard, GuardError};
pub(crate) use mapping::{Access, Mapping};

use crate::address::{Address, Place};
use crate::error::{Loss, Permissions, SetupError};
use crate::identity::Identity;
use crate::inspect::Object;
use crate::layout::{Counters, HEADER, Header, Quiet};
use crate::options::{Existing, Options};
use crate::peer::{Phase, Role, State};
use crate::ring::Ring;
use crate::sync::Ordering;
use crate::{file, pages, process, sysv};
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
    /// Opens, or makes, the pipe at `address`.
    pub(crate) fn attach(
        address: &Address,
        options: &Options,
        existing: Existing,
    ) -> Result<Self, SetupError> {
        let segment = match kind(address) {
            Kind::SysV => sysv::attach(address, options, existing)?,
            Kind::File => file::attach(address, options, existing)?,
        };
        segment.prefaulted(options)
    }

    /// Faults it in as was asked for. Done last, since it may take long: nobody waits for us.
    pub(crate) fn prefaulted(self, options: &Options) -> Result<Self, SetupError> {
        pages::prefault(&self.mapping, options, self.eager).inspect_err(|_| {
            if self.created {
                let _ = unlink(&self.address, true);
            }
        })?;
        Ok(self)
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
        let again = self.guard.again(&self.address, options)?.prefaulted(options)?;
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

/// Removes the pipe at `address`; with `force` also while a role is held.
pub(crate) fn unlink(address: &Address, force: bool) -> Result<(), SetupError> {
    match kind(address) {
        Kind::SysV => sysv::unlink(address, force),
        Kind::File => file::unlink(address, force),
    }
}

/// A segment mapped for reading alone, for watchers.
pub(crate) struct View {
    pub(crate) mapping: Mapping,
    pub(crate) identity: Identity,
    pub(crate) object: Object,
    pub(crate) size: u64,
    pub(crate) attached: Option<u64>,
    pub(crate) permissions: Permissions,
    pub(crate) creator: u32,
    /// Whether the segment as such is locked in memory.
    pub(crate) locked: bool,
    /// Whether it is from before the machine was started.
    pub(crate) stale: bool,
    /// What guards its roles, unless that is gone.
    pub(crate) guard: Option<Box<dyn Guard>>,
}

impl View {
    /// Maps the pipe at `address` for reading alone, without a claim and without a lock. One that is being made is given
    /// `patience`.
    pub(crate) fn of(address: &Address, patience: Duration) -> Result<Self, SetupError> {
        match kind(address) {
            Kind::SysV => sysv::view(address, patience),
            Kind::File => file::view(address),
        }
    }

    /// Whether all of it is mapped, and not a copy of its header.
    pub(crate) fn is_whole(&self) -> bool {
        self.mapping.size() >= HEADER + self.identity.capacity
    }

    /// Its ring, for looking.
    pub(crate) fn ring(&self) -> Option<Ring> {
        if !self.is_whole() {
            return None;
        }
        let base = self.mapping.base();
        // SAFETY: the header is at the start of the mapping and the ring HEADER bytes on, mappings are aligned to pages, and
        // this one outlives the ring where it is used. Nobody stores to what is mapped for reading alone.
        let ring = unsafe {
            let words = base.add(HEADER as usize).cast();
            Ring::new(base.cast(), words, self.identity.capacity)
        };
        Some(ring)
    }

    pub(crate) fn holder(&self, role: Role) -> Option<u32> {
        self.guard.as_ref().and_then(|guard| holder(&**guard, self.mapping.header(), role))
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

enum Kind {
    /// A System V segment, guarded by a semaphore set.
    SysV,
    /// A file, with or without a name, guarded by locks on its bytes.
    File,
}

fn kind(address: &Address) -> Kind {
    match address.0 {
        Place::Name(_) | Place::Key(_) | Place::Ftok { .. } | Place::Id(_) | Place::Private => Kind::SysV,
        Place::Posix(_) | Place::File(_) | Place::Memfd | Place::Descriptor(_) | Place::Served(_) => {
            Kind::File
        }
    }
}
