//! An open segment.
//!
//! Nothing here depends on the kind of shared memory. A backend finds, creates and removes segments of its kind, and supplies
//! the [`RoleLock`] that tells which roles are held.

pub(crate) mod identity;
mod mapping;
pub(crate) mod pages;
mod request;
mod role_lock;
mod view;

pub(crate) use mapping::{Access, Mapping};
pub(crate) use request::{AttemptError, Request, parameters, prepare_wake_mode, retry};
pub(crate) use role_lock::{RoleLock, RoleLockError};
pub use view::Object;
pub(crate) use view::View;

use crate::address::Address;
use crate::error::{CloseError, Lost, SetupError, Unsupported, os};
use crate::options::Options;
use crate::permissions::Permissions;
use crate::protocol::layout::{Counters, HEADER, Header};
use crate::protocol::liveness::{DuplexSide, Phase, Role, State};
use crate::protocol::recovery;
use crate::protocol::ring::Ring;
use crate::protocol::sync::Ordering;
use crate::sys::process;
use identity::{Identity, Way};
use std::io;
use std::os::fd::BorrowedFd;
use std::thread;
use std::time::{Duration, Instant};

/// Whether a role that was found locked at `since` may become free in a moment, judging by the holder recorded in the header.
///
/// No holder is recorded: the holder has just claimed the role and not recorded itself yet, or it released the role and a program
/// that it is spawning has a copy of the lock until its `exec`. The recorded holder is dead: a process that reads its memory, as
/// `ps` does, delays the release of that memory, and with it of the mapping that carries the lock.
pub(crate) fn may_become_free(header: &Header, role: Role, since: Instant) -> bool {
    // Relaxed: a hint.
    let recorded = counters(header, role).holder.load(Ordering::Relaxed);
    let grace = match recorded {
        0 => UNRECORDED_GRACE,
        _ => DEAD_HOLDER_GRACE,
    };
    since.elapsed() < grace && (recorded == 0 || process::is_gone(recorded))
}

/// Repeats an attempt on a role, which returns `false` while the role is taken, for as long as the role may become free in a
/// moment.
pub(crate) fn with_patience<E>(
    header: &Header,
    role: Role,
    mut attempt: impl FnMut() -> Result<bool, E>,
) -> Result<bool, E> {
    let start = Instant::now();
    loop {
        if attempt()? {
            return Ok(true);
        }
        if !may_become_free(header, role, start) {
            return Ok(false);
        }
        thread::sleep(ROLE_RETRY_PAUSE);
    }
}

/// The pause before a role that may become free is tried again.
pub(crate) const ROLE_RETRY_PAUSE: Duration = Duration::from_millis(1);

/// How long a role may be locked without a recorded holder.
const UNRECORDED_GRACE: Duration = Duration::from_millis(100);

/// How long a role may stay locked after its recorded holder died.
const DEAD_HOLDER_GRACE: Duration = Duration::from_secs(1);

/// An open segment: its mapping, its identity and the locks of its roles.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) mapping: Mapping,
    pub(crate) identity: Identity,
    pub(crate) address: Address,
    pub(crate) created: bool,
    pub(crate) permissions: Permissions,
    /// Whether to fault in every page at once if the options leave it open.
    pub(crate) eager: bool,
    pub(crate) roles: Box<dyn RoleLock>,
    /// Whether its drop removes a pipe that is left over.
    pub(crate) removes_leftover: bool,
}

impl Segment {
    /// Faults in the pages as the options say. Called last, when no other process waits for us, since it may take long.
    pub(crate) fn prefault(&self, options: &Options) -> Result<(), SetupError> {
        pages::prefault(&self.mapping, options, self.eager)
    }

    /// Claims a role.
    pub(crate) fn claim(&self, role: Role) -> Result<(), SetupError> {
        if !self.mapping.is_ours() {
            return Err(SetupError::Unsupported(Unsupported::AfterFork { address: self.address.clone() }));
        }
        let header = self.mapping.header();
        if !claim(&*self.roles, header, role).map_err(|error| self.error(error))? {
            return Err(role_taken(&self.identity, role, holder(&*self.roles, header, role)));
        }
        // Relaxed, here and in `release`: a hint for a process that finds the role taken.
        counters(header, role).holder.store(process::hint(), Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn release(&self, role: Role) -> Result<(), CloseError> {
        // Relaxed: a hint.
        let header = self.mapping.header();
        counters(header, role).holder.store(0, Ordering::Relaxed);
        self.roles.release(header, role).map_err(|error| match error {
            // `Taken`: our claim was gone already.
            RoleLockError::Gone | RoleLockError::Elsewhere | RoleLockError::Taken => {
                CloseError::Lost(self.roles.loss())
            }
            RoleLockError::Os { call, source } => CloseError::Os { call, source },
        })
    }

    /// Abandons a claim that another process seems to have taken over.
    pub(crate) fn forget(&self, role: Role) -> CloseError {
        // Fails if it has; otherwise there is no such process.
        let _ = self.roles.release(self.mapping.header(), role);
        CloseError::Lost(Lost::Role)
    }

    fn error(&self, error: RoleLockError) -> SetupError {
        let address = self.address.clone();
        match error {
            RoleLockError::Gone | RoleLockError::Elsewhere => {
                SetupError::Lost { lost: self.roles.loss(), address }
            }
            RoleLockError::Taken => SetupError::Busy { address, pid: None },
            // Permissions or credentials have changed since the segment was opened.
            RoleLockError::Os { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                SetupError::PermissionDenied { address, key: None, permissions: Some(self.permissions) }
            }
            RoleLockError::Os { call, source } => os(call, source),
        }
    }

    /// The descriptor of the segment, if its kind has one.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.roles.descriptor()
    }

    /// Opens the same segment once more, with its own mapping and claims.
    pub(crate) fn reopen(&self, options: &Options) -> Result<Self, SetupError> {
        let reopened = self.roles.reopen(&self.address, options)?;
        reopened.prefault(options)?;
        if reopened.identity.segment_id == self.identity.segment_id {
            Ok(reopened)
        } else {
            Err(self.error(RoleLockError::Gone))
        }
    }

    /// Whether the pipe is to be removed once it is left over, and is, apart from handles that others may have: it was used, no process
    /// holds a role, and every message was received.
    pub(crate) fn is_left_over(&self) -> bool {
        let header = self.mapping.header();
        let roles = [Role::Producer, Role::Consumer];
        let ways: &[Way] = if self.identity.is_duplex() { &[Way::Forth, Way::Back] } else { &[Way::Forth] };
        let is_drained = |&way: &Way| {
            // SAFETY: the mapping lives as long as `self`, longer than this use of the ring.
            recovery::unread(&unsafe { ring(&self.mapping, &self.identity, way) }) == Ok(0)
        };
        self.identity.remove_leftover()
            && roles.iter().any(|&role| State::of(header.side(role)).phase() != Some(Phase::Never))
            && roles.iter().all(|&role| self.roles.is_free(header, role).unwrap_or(false))
            && ways.iter().all(is_drained)
            && !ways.iter().any(|&way| self.has_end_to_tell(way))
    }

    /// Whether a later participant must hear of an end in this direction: of one that the other side did not hear of before it died or
    /// since it has never come. No consumer's close is news to a later producer.
    fn has_end_to_tell(&self, way: Way) -> bool {
        let header = self.mapping.header_at(self.identity.start(way));
        let has_ended = |state: State| matches!(state.phase(), Some(Phase::Closed | Phase::Aborted));
        [Role::Producer, Role::Consumer].into_iter().any(|role| {
            let (state, other) = (State::of(header.side(role)), header.side(role.peer()));
            let is_news = match role {
                Role::Producer => has_ended(state),
                Role::Consumer => state.phase() == Some(Phase::Aborted),
            };
            // Relaxed: no role is held, so nothing changes.
            is_news && !has_ended(State::of(other)) && other.reported.load(Ordering::Relaxed) < state.epoch()
        })
    }

    /// Detaches, and removes the pipe if it is left over and no other process has it open.
    pub(crate) fn remove_leftover(mut self) {
        self.removes_leftover = true;
    }

    /// Whether a side has closed or aborted, in both directions if there are two, and released its role.
    fn has_ended(&self, role: Role) -> bool {
        let has_ended = |way, role| {
            let side = self.mapping.header_at(self.identity.start(way)).side(role);
            matches!(State::of(side).phase(), Some(Phase::Closed | Phase::Aborted))
        };
        has_ended(Way::Forth, role)
            && (!self.identity.is_duplex() || has_ended(Way::Back, role.peer()))
            && self.roles.is_free(self.mapping.header(), role).unwrap_or(false)
    }
}

impl Drop for Segment {
    /// Detaches, then unmaps. With `remove_on_close`, the last handle also removes the pipe, and one that looks for leftovers removes
    /// such a pipe.
    ///
    /// In this order, a handle is counted only while it is mapped: a process that finds the segment mapped by none may forget all
    /// counts.
    fn drop(&mut self) {
        if !self.mapping.is_ours() {
            return;
        }
        let (on_close, leftover) = (self.identity.remove_on_close(), self.removes_leftover);
        let has_ended = || self.has_ended(Role::Producer) && self.has_ended(Role::Consumer);
        let is_over = || on_close && has_ended() || leftover && self.is_left_over();
        self.roles.detach(if on_close || leftover { Some(&is_over) } else { None });
    }
}

/// The ring of a direction that the pipe has, of which all is mapped.
///
/// # Safety
/// The mapping stays for as long as any copy of the ring is in use. What is mapped read-only is only read.
pub(crate) unsafe fn ring(mapping: &Mapping, identity: &Identity, way: Way) -> Ring {
    let start = identity.start(way);
    assert!(start + HEADER + identity.capacity <= mapping.size());
    // SAFETY: the header and the ring behind it lie within the mapping (the assertion above). The mapping is aligned to pages, and
    // `Identity::check` has checked that the capacity, and so the start, is a multiple of one. The caller keeps the mapping. No
    // other reference to the ring is created.
    unsafe {
        let header = mapping.base().add(start as usize);
        Ring::new(header.cast(), header.add(HEADER as usize).cast(), identity.capacity)
    }
}

/// The error for a role that another process holds.
pub(crate) fn role_taken(identity: &Identity, role: Role, pid: Option<u32>) -> SetupError {
    match identity.is_duplex() {
        true => SetupError::SideTaken { side: DuplexSide::of(role), pid },
        false => SetupError::RoleTaken { role, pid },
    }
}

/// Claims a role; `false` if another process holds it.
pub(crate) fn claim(roles: &dyn RoleLock, header: &Header, role: Role) -> Result<bool, RoleLockError> {
    with_patience(header, role, || match roles.claim(header, role) {
        Ok(()) => Ok(true),
        Err(RoleLockError::Taken) => Ok(false),
        Err(error) => Err(error),
    })
}

/// A hint at the holder of a role: the process that the role lock reports, or else the one recorded in the header.
pub(crate) fn holder(roles: &dyn RoleLock, header: &Header, role: Role) -> Option<u32> {
    roles.holder(header, role).or_else(|| recorded_holder(header, role))
}

/// The process that last claimed a role, as it recorded itself.
pub(crate) fn recorded_holder(header: &Header, role: Role) -> Option<u32> {
    // Relaxed: a hint.
    process::pid_of(counters(header, role).holder.load(Ordering::Relaxed))
}

pub(crate) fn counters(header: &Header, role: Role) -> &Counters {
    match role {
        Role::Producer => &header.produced.0,
        Role::Consumer => &header.consumed.0,
    }
}
