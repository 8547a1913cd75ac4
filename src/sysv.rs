//! The System V backend: a segment made with shmget, and the semaphore set beside it under the same key.
//!
//! Making, opening and removing a pipe each hold the set's INIT lock throughout, so that any number of starters end
//! with one good segment. The order of making is: stage MAKING, segment, identity, `ready`, stage MADE; a creator
//! that dies on the way leaves behind what the next one recognises as half-made. The order of removing is: `ready`,
//! segment, set; whoever waited for the lock finds the set gone and starts again.

mod limits;
mod memory;
mod proc;
mod semaphores;

pub(crate) use memory::Mapping;
pub(crate) use proc::{Row, segments, sets};
pub(crate) use semaphores::{Semaphores, SetError};

use crate::address::{Address, Key, Name, Place, ftok};
use crate::bell::WakeMode;
use crate::error::{Permissions, SetupError};
use crate::identity::{Identity, MAKING, READY, Ready};
use crate::layout::{HEADER, Header};
use crate::membarrier;
use crate::options::{Existing, Options};
use crate::peer::{Phase, Role, State};
use crate::sync::Ordering;
use memory::{Memory, Status};
use semaphores::{COUNT, InitLock, SetStatus, Stage};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// How often a call starts again because somebody removed the pipe meanwhile.
const ATTEMPTS: u32 = 1000;

/// An open handle: the mapped segment, what it is, and the set that guards it.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) mapping: Mapping,
    pub(crate) identity: Identity,
    pub(crate) set: Semaphores,
    pub(crate) address: Address,
    pub(crate) created: bool,
    pub(crate) permissions: Permissions,
    memory: Memory,
    /// Whether this handle holds the producer's and the consumer's role.
    claimed: [AtomicBool; 2],
}

/// Why an attempt to open ended.
enum Trouble {
    /// Somebody removed the set meanwhile.
    Again,
    Failed(SetupError),
}

impl From<SetupError> for Trouble {
    fn from(error: SetupError) -> Self {
        Trouble::Failed(error)
    }
}

/// What a call is about: the address, and the key and the name that follow from it.
struct Target<'a> {
    address: &'a Address,
    name: Option<&'a Name>,
}

impl<'a> Target<'a> {
    fn new(address: &'a Address) -> Self {
        let name = match &address.0 {
            Place::Name(name) => Some(name),
            _ => None,
        };
        Target { address, name }
    }

    /// The key, or nothing for an address without one.
    fn key(&self) -> Result<Option<Key>, SetupError> {
        match &self.address.0 {
            Place::Name(name) => Ok(Some(name.key())),
            Place::Key(key) => Ok(Some(*key)),
            Place::Ftok { path, project } => ftok(path, *project)
                .map_err(|source| SetupError::Os { call: "ftok", source })?
                .map(Some)
                .ok_or(SetupError::Address(crate::AddressError::KeyZero)),
            Place::Id(_) | Place::Private => Ok(None),
        }
    }

    fn not_found(&self) -> SetupError {
        SetupError::NotFound { address: self.address.clone() }
    }

    fn foreign(&self, what: &'static str, found: u64, expected: u64) -> SetupError {
        SetupError::Foreign { address: self.address.clone(), what, found, expected }
    }

    fn denied(&self, key: i32) -> SetupError {
        let permissions = segments()
            .into_iter()
            .flatten()
            .find(|row| match self.address.0 {
                Place::Id(id) => row.id == id,
                _ => row.key == key && key != 0,
            })
            .map(|row| row.permissions);
        SetupError::PermissionDenied { address: self.address.clone(), key, permissions }
    }

    /// The error of a call on the segment.
    fn memory_error(&self, key: i32, call: &'static str, source: io::Error) -> SetupError {
        match source.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => self.denied(key),
            Some(libc::EINVAL | libc::EIDRM) => self.not_found(),
            _ => SetupError::Os { call, source },
        }
    }

    /// The error of a call on the set.
    fn set_error(&self, key: i32, set: Option<Semaphores>, error: SetError) -> Trouble {
        match error {
            SetError::Gone => Trouble::Again,
            SetError::Taken => Trouble::Failed(SetupError::Busy {
                address: self.address.clone(),
                pid: set.and_then(Semaphores::locker),
            }),
            SetError::Os { call, source } => match source.raw_os_error() {
                Some(libc::EACCES | libc::EPERM) => Trouble::Failed(self.denied(key)),
                Some(libc::ENOSPC) => Trouble::Failed(limits::of_sets(source)),
                _ => Trouble::Failed(SetupError::Os { call, source }),
            },
        }
    }

    /// The status of a segment that is not being removed.
    fn status(&self, key: i32, memory: Memory) -> Result<Status, SetupError> {
        let status = memory.status().map_err(|source| self.memory_error(key, "shmctl(IPC_STAT)", source))?;
        if status.is_removed() { Err(self.not_found()) } else { Ok(status) }
    }

    /// Refuses a segment that somebody not trusted has made, owns, or may have made to look like a pipe.
    fn check_trust(&self, status: &Status, trusted: &[u32]) -> Result<(), SetupError> {
        // SAFETY: the call has no arguments and cannot fail.
        let us = unsafe { libc::geteuid() };
        let is_trusted = |uid: u32| uid == 0 || uid == us || trusted.contains(&uid);
        if is_trusted(status.uid) && is_trusted(status.creator) {
            return Ok(());
        }
        Err(SetupError::Untrusted { address: self.address.clone(), uid: status.uid, creator: status.creator })
    }

    /// Attaches a segment for reading alone and says what `ready` tells. A foreign one is not written to.
    fn peek(&self, memory: Memory, status: &Status) -> Result<(Ready, Mapping), SetupError> {
        if status.size < HEADER {
            return Err(self.foreign("the size of the segment in bytes", status.size, HEADER));
        }
        let mapping = memory
            .attach(status.size, true)
            .map_err(|source| self.memory_error(status.key, "shmat", source))?;
        match Ready::of(header(&mapping)) {
            Ready::OtherByteOrder => Err(SetupError::ByteOrder),
            Ready::Foreign(found) => Err(self.foreign("the first word", found, READY)),
            ready => Ok((ready, mapping)),
        }
    }

    /// Checks what a complete segment says of itself.
    fn identify(&self, mapping: &Mapping) -> Result<Identity, SetupError> {
        let identity = Identity::read(header(mapping));
        identity.check(mapping.size())?;
        let found = identity.name().unwrap_or_default();
        match self.name {
            Some(asked) if asked.as_str() != found => {
                Err(SetupError::OtherName { asked: asked.as_str().to_owned(), found: found.to_owned() })
            }
            _ => Ok(identity),
        }
    }
}

/// The header of a mapped segment.
fn header(mapping: &Mapping) -> &Header {
    // SAFETY: every mapping here has HEADER bytes at least (`peek`, `make`), shmat aligns to pages, and all of a
    // header is atomic. It lives as long as the mapping.
    unsafe { mapping.base().cast::<Header>().as_ref() }
}

/// Opens, or makes, the pipe at `address`.
pub(crate) fn attach(
    address: &Address,
    options: &Options,
    existing: Existing,
) -> Result<Attachment, SetupError> {
    let target = Target::new(address);
    match (&address.0, existing) {
        (Place::Private, Existing::Required) | (Place::Id(_), Existing::Refused) => {
            return Err(SetupError::CannotMake { address: address.clone() });
        }
        _ => {}
    }
    let key = target.key()?;
    for _ in 0..ATTEMPTS {
        let attempt = match (&address.0, key) {
            (Place::Private, _) => make_private(&target, options),
            (Place::Id(id), _) => open_by_id(&target, options, Memory::from_id(*id)),
            (_, Some(key)) => open_by_key(&target, options, existing, key),
            (_, None) => unreachable!("every other place has a key"),
        };
        match attempt {
            Ok(attachment) => return Ok(attachment),
            Err(Trouble::Failed(error)) => return Err(error),
            Err(Trouble::Again) => {}
        }
    }
    Err(SetupError::Busy { address: address.clone(), pid: None })
}

fn make_private(target: &Target<'_>, options: &Options) -> Result<Attachment, Trouble> {
    let mode = options.mode.unwrap_or(0o600);
    let set = Semaphores::make(None, mode)
        .map_err(|error| target.set_error(0, None, error))?
        .expect("IPC_PRIVATE never finds one that exists");
    let lock = set.lock_patiently().map_err(|error| target.set_error(0, Some(set), error))?;
    let made = make(target, options, None, set);
    drop(lock);
    if made.is_err() {
        let _ = set.remove();
    }
    made
}

fn open_by_id(target: &Target<'_>, options: &Options, memory: Memory) -> Result<Attachment, Trouble> {
    let status = target.status(0, memory)?;
    target.check_trust(&status, &options.trusted)?;
    let (ready, mapping) = target.peek(memory, &status)?;
    let (set, fresh) = match (Key::new(status.key), ready) {
        (Some(key), ready) => set_under(target, key, status.permissions(), ready == Ready::Yes)?,
        (None, Ready::Yes) => set_of_private(target, &status, &target.identify(&mapping)?, memory)?,
        (None, _) => return Err(half_made(target, &status).into()),
    };
    drop(mapping);
    let lock = set.lock_patiently().map_err(|error| target.set_error(status.key, Some(set), error))?;
    unless_in_vain(set, fresh, open_locked(target, options, Existing::Required, memory, set, &lock))
}

/// Removes a set that we have made and that nothing came of; those who wait for its lock start again.
fn unless_in_vain<T>(set: Semaphores, fresh: bool, result: Result<T, Trouble>) -> Result<T, Trouble> {
    if result.is_err() && fresh && set.stage().is_ok_and(|stage| stage == Stage::Nothing) {
        let _ = set.remove();
    }
    result
}

/// The set that a segment names, if that set names the segment and has the same creator: what a header says is not
/// believed by itself.
fn named_set(identity: &Identity, status: &Status, memory: Memory) -> Option<Semaphores> {
    let named = Semaphores::from_id(identity.sem_id);
    let SetStatus { count, creator } = named.status().ok()?;
    let belongs = count == COUNT
        && creator == status.creator
        && named.stage().ok()? == Stage::Made
        && named.segment().ok()? == memory.id();
    belongs.then_some(named)
}

/// The set of a segment without a key, a new one if it has lost its own; and whether we made it.
fn set_of_private(
    target: &Target<'_>,
    status: &Status,
    identity: &Identity,
    memory: Memory,
) -> Result<(Semaphores, bool), Trouble> {
    if let Some(named) = named_set(identity, status, memory) {
        return Ok((named, false));
    }
    let made =
        Semaphores::make(None, status.permissions()).map_err(|error| target.set_error(0, None, error))?;
    Ok((made.expect("IPC_PRIVATE never finds one that exists"), true))
}

/// The set under a key; and whether we made it, which we do if there is none and we may.
fn set_under(
    target: &Target<'_>,
    key: Key,
    mode: u32,
    may_make: bool,
) -> Result<(Semaphores, bool), Trouble> {
    let failed = |error| target.set_error(key.get(), None, error);
    for _ in 0..ATTEMPTS {
        if let Some(set) = Semaphores::find(key).map_err(failed)? {
            let SetStatus { count, .. } = set.status().map_err(failed)?;
            if count != COUNT {
                return Err(target.foreign("the number of semaphores in the set", count, COUNT).into());
            }
            if let Stage::Foreign(found) = set.stage().map_err(failed)? {
                return Err(target.foreign("the fourth semaphore of the set", found as u64, 0).into());
            }
            return Ok((set, false));
        }
        if !may_make {
            // A segment that is not complete, and no set: none of ours, since we make the set first.
            return Err(target.foreign("the first word", 0, READY).into());
        }
        if let Some(set) = Semaphores::make(Some(key), mode).map_err(failed)? {
            return Ok((set, true));
        }
    }
    Err(Trouble::Again)
}

fn open_by_key(
    target: &Target<'_>,
    options: &Options,
    existing: Existing,
    key: Key,
) -> Result<Attachment, Trouble> {
    let find = || {
        Memory::find(key).map_err(|source| Trouble::Failed(target.memory_error(key.get(), "shmget", source)))
    };
    // What is foreign is told before a set is made beside it.
    let (mode, may_make) = match find()? {
        Some(memory) => {
            let status = target.status(key.get(), memory)?;
            target.check_trust(&status, &options.trusted)?;
            let (ready, _) = target.peek(memory, &status)?;
            (status.permissions(), ready == Ready::Yes)
        }
        None if existing == Existing::Required => return Err(target.not_found().into()),
        None => (options.mode.unwrap_or(0o600), true),
    };
    let (set, fresh) = set_under(target, key, mode, may_make)?;
    let lock = set.lock_patiently().map_err(|error| target.set_error(key.get(), Some(set), error))?;
    let opened = match find()? {
        Some(memory) => open_locked(target, options, existing, memory, set, &lock),
        None if existing == Existing::Required => Err(target.not_found().into()),
        None => make(target, options, Some(key), set),
    };
    unless_in_vain(set, fresh, opened)
}

/// Opens a segment while nobody else makes, opens or removes it.
fn open_locked(
    target: &Target<'_>,
    options: &Options,
    existing: Existing,
    memory: Memory,
    set: Semaphores,
    _lock: &InitLock,
) -> Result<Attachment, Trouble> {
    let status = target.status(0, memory)?;
    let key = status.key;
    let set_failed = |error| target.set_error(key, Some(set), error);
    target.check_trust(&status, &options.trusted)?;
    let (ready, seen) = target.peek(memory, &status)?;
    if ready != Ready::Yes {
        drop(seen);
        // All zero or half-made, and made by the process that said it was going to: its creator died, since we
        // hold the lock.
        let ours =
            set.stage().map_err(set_failed)? == Stage::Making && set.stager() == Some(status.creator_pid);
        return match Key::new(key) {
            Some(_) if !ours => Err(target.foreign("the first word", 0, READY).into()),
            Some(key) if existing != Existing::Required && settled(memory) == 0 => {
                memory
                    .remove()
                    .map_err(|source| target.memory_error(key.get(), "shmctl(IPC_RMID)", source))?;
                make(target, options, Some(key), set)
            }
            _ => Err(half_made(target, &status).into()),
        };
    }
    let identity = target.identify(&seen)?;
    drop(seen);
    if existing == Existing::Refused {
        return Err(SetupError::Exists { address: target.address.clone() }.into());
    }
    if identity.schema != options.schema {
        return Err(SetupError::Schema { found: identity.schema, expected: options.schema }.into());
    }
    // The set guards this segment, and the segment names this set. Anything else means that the set, or both, were
    // removed and made again; then only a segment that nobody is attached to has no holders of lost claims.
    let guards = set.stage().map_err(set_failed)? == Stage::Made
        && set.segment().map_err(set_failed)? == memory.id()
        && identity.sem_id == set.id();
    if !guards {
        let attached = settled(memory);
        if attached > 0 {
            return Err(claims_lost(target, attached).into());
        }
    }
    let mapping =
        memory.attach(status.size, false).map_err(|source| target.memory_error(key, "shmat", source))?;
    let identity =
        if guards { identity } else { adopt(&mapping, identity, set, memory).map_err(set_failed)? };
    finish(target, options, mapping, identity, set, memory, false)
}

/// Puts a segment that has lost its set under a new one.
fn adopt(
    mapping: &Mapping,
    identity: Identity,
    set: Semaphores,
    memory: Memory,
) -> Result<Identity, SetError> {
    let identity = Identity { sem_id: set.id(), ..identity };
    set.set_segment(memory.id())?;
    identity.write(header(mapping));
    set.set_stage(Stage::Made)?;
    Ok(identity)
}

/// Makes the segment while nobody else makes, opens or removes it.
fn make(
    target: &Target<'_>,
    options: &Options,
    key: Option<Key>,
    set: Semaphores,
) -> Result<Attachment, Trouble> {
    let number = key.map_or(libc::IPC_PRIVATE, Key::get);
    let set_failed = |error| target.set_error(number, Some(set), error);
    let default = if membarrier::is_available() { WakeMode::Membarrier } else { WakeMode::Fence };
    let wishes = options.wishes(default)?;
    let size = HEADER + wishes.capacity;
    let mode = options.mode.unwrap_or(0o600);

    set.set_stage(Stage::Making).map_err(set_failed)?;
    let made = Memory::make(key, size, mode);
    let memory = match made {
        Ok(memory) => memory,
        Err(source) => {
            let _ = set.set_stage(Stage::Nothing);
            return Err(match source.raw_os_error() {
                // Somebody who does not know our lock was faster.
                Some(libc::EEXIST) => Trouble::Again,
                _ => Trouble::Failed(limits::of_segments(source, size)),
            });
        }
    };
    let complete = || -> Result<Attachment, Trouble> {
        let failed = |call| move |source| Trouble::Failed(SetupError::Os { call, source });
        let mapping = memory.attach(size, false).map_err(failed("shmat"))?;
        let header = header(&mapping);
        // Relaxed: for those who find us dead, whom the kernel orders after us.
        header.ready.store(MAKING, Ordering::Relaxed);
        let identity = Identity::new(&wishes, target.name, set.id())?;
        identity.write(header);
        if options.uid.is_some() || options.gid.is_some() {
            set.give(options.uid, options.gid).map_err(set_failed)?;
            memory.give(options.uid, options.gid).map_err(failed("shmctl(IPC_SET)"))?;
        }
        set.set_segment(memory.id()).map_err(set_failed)?;
        // ORDERING: Release, pairs with the Acquire load in `Ready::of`: who sees READY sees the identity.
        header.ready.store(READY, Ordering::Release);
        set.set_stage(Stage::Made).map_err(set_failed)?;
        finish(target, options, mapping, identity, set, memory, true)
    };
    let attachment = complete();
    if attachment.is_err() {
        let _ = memory.remove();
        let _ = set.set_stage(Stage::Nothing);
    }
    attachment
}

/// The last steps of opening and of making alike.
fn finish(
    target: &Target<'_>,
    options: &Options,
    mapping: Mapping,
    identity: Identity,
    set: Semaphores,
    memory: Memory,
    created: bool,
) -> Result<Attachment, Trouble> {
    let mode = identity.wake_mode().expect("a known wake mode was checked for");
    if mode == WakeMode::Membarrier {
        membarrier::register().map_err(|source| SetupError::CannotWake { mode, source })?;
    }
    if mode == WakeMode::Never && options.wait == Some(crate::Wait::Block) {
        return Err(SetupError::NeverSleeps.into());
    }
    let status = target.status(0, memory)?;
    set.enter().map_err(|error| target.set_error(status.key, Some(set), error))?;
    let address = match target.address.0 {
        Place::Private => Address(Place::Id(memory.id())),
        _ => target.address.clone(),
    };
    let permissions = Permissions { uid: status.uid, gid: status.gid, mode: status.permissions() };
    Ok(Attachment {
        mapping,
        identity,
        set,
        address,
        created,
        permissions,
        memory,
        claimed: Default::default(),
    })
}

fn half_made(target: &Target<'_>, status: &Status) -> SetupError {
    SetupError::HalfMade { address: target.address.clone(), pid: status.creator_pid }
}

fn claims_lost(target: &Target<'_>, attached: u64) -> SetupError {
    SetupError::ClaimsLost { address: target.address.clone(), attached }
}

impl Attachment {
    pub(crate) fn header(&self) -> NonNull<Header> {
        self.mapping.base().cast()
    }

    /// Claims a role.
    pub(crate) fn claim(&self, role: Role) -> Result<(), SetupError> {
        let claimed = match self.set.claim(role) {
            Err(SetError::Taken) if self.is_stale(role) => {
                self.set.free_stale(role).and_then(|()| self.set.claim(role))
            }
            claimed => claimed,
        };
        claimed.map_err(|error| match error {
            SetError::Taken => SetupError::RoleTaken { role, pid: self.set.holder(role) },
            error => self.error(error),
        })?;
        self.claimed(role).store(true, Relaxed);
        Ok(())
    }

    /// Whether this handle holds a role. Relaxed throughout: a flag for ourselves, and nothing is read through it.
    fn claimed(&self, role: Role) -> &AtomicBool {
        &self.claimed[role as usize]
    }

    /// Whether a claim held by somebody else is void: every holder of a claim is attached for as long as it can use
    /// it, so that a claim while nobody but us is attached was kept across exec, which unmaps and does not undo.
    fn is_stale(&self, role: Role) -> bool {
        if self.claimed(role).load(Relaxed) {
            return false;
        }
        let Ok(_lock) = self.set.lock_patiently() else { return false };
        self.memory.status().is_ok_and(|status| status.attached == 1)
    }

    pub(crate) fn release(&self, role: Role) -> Result<(), SetupError> {
        self.claimed(role).store(false, Relaxed);
        self.set.release(role).map_err(|error| self.error(error))
    }

    /// The error of a call on the set of an open pipe.
    pub(crate) fn error(&self, error: SetError) -> SetupError {
        match error {
            SetError::Gone => SetupError::Removed { address: self.address.clone() },
            SetError::Taken => SetupError::Busy { address: self.address.clone(), pid: self.set.locker() },
            SetError::Os { call, source } => SetupError::Os { call, source },
        }
    }

    /// Whether a side has closed, and its role is free.
    fn has_closed(&self, role: Role) -> bool {
        let header = header(&self.mapping);
        let side = match role {
            Role::Producer => &header.producer.0,
            Role::Consumer => &header.consumer.0,
        };
        State::of(side).phase() == Some(Phase::Closed) && self.set.is_free(role).unwrap_or(false)
    }
}

impl Drop for Attachment {
    /// Leaves; the last one to leave a pipe that is to go when both sides have closed removes it. Everything here
    /// fails only if the pipe was removed already.
    fn drop(&mut self) {
        if !self.mapping.is_ours() {
            return;
        }
        if self.identity.remove_on_close() {
            // Two that leave at the same moment must not both think that the other one is still there.
            if let Ok(_lock) = self.set.lock(Duration::from_millis(100)) {
                let last = self.set.guests().is_ok_and(|guests| guests == 1);
                if last && self.has_closed(Role::Producer) && self.has_closed(Role::Consumer) {
                    remove(header(&self.mapping), self.memory, self.set);
                    return;
                }
                let _ = self.set.leave();
                return;
            }
        }
        let _ = self.set.leave();
    }
}

/// Removes a pipe, under its lock, in the order that leaves nothing half-removed that could be opened.
fn remove(header: &Header, memory: Memory, set: Semaphores) {
    // ORDERING: Release, pairs with the Acquire load in `Ready::of`, so that nothing we did before comes after it.
    header.ready.store(0, Ordering::Release);
    let _ = memory.remove();
    let _ = set.remove();
}

/// Removes the pipe at `address`; with `force` also while a role is held.
pub(crate) fn unlink(address: &Address, force: bool) -> Result<(), SetupError> {
    let target = Target::new(address);
    let key = target.key()?;
    for _ in 0..ATTEMPTS {
        let attempt = match (&address.0, key) {
            (Place::Private, _) => return Err(SetupError::CannotMake { address: address.clone() }),
            (Place::Id(id), _) => unlink_segment(&target, Memory::from_id(*id), force),
            (_, Some(key)) => unlink_key(&target, key, force),
            (_, None) => unreachable!("every other place has a key"),
        };
        match attempt {
            Ok(()) => return Ok(()),
            Err(Trouble::Failed(error)) => return Err(error),
            Err(Trouble::Again) => {}
        }
    }
    Err(SetupError::Busy { address: address.clone(), pid: None })
}

fn unlink_key(target: &Target<'_>, key: Key, force: bool) -> Result<(), Trouble> {
    let memory = Memory::find(key).map_err(|source| target.memory_error(key.get(), "shmget", source))?;
    if let Some(memory) = memory {
        return unlink_segment(target, memory, force);
    }
    // A set without a segment: whoever was removing the pipe died half-way.
    let failed = |error| target.set_error(key.get(), None, error);
    let Some(set) = Semaphores::find(key).map_err(failed)? else { return Err(target.not_found().into()) };
    let SetStatus { count, .. } = set.status().map_err(failed)?;
    if count != COUNT || !matches!(set.stage().map_err(failed)?, Stage::Making | Stage::Made) {
        return Err(target.not_found().into());
    }
    let _lock = set.lock_patiently().map_err(|error| target.set_error(key.get(), Some(set), error))?;
    match Memory::find(key) {
        Ok(None) => set.remove().map_err(failed),
        _ => Err(Trouble::Again),
    }
}

fn unlink_segment(target: &Target<'_>, memory: Memory, force: bool) -> Result<(), Trouble> {
    let status = target.status(0, memory)?;
    let failed = |error| target.set_error(status.key, None, error);
    let (ready, seen) = target.peek(memory, &status)?;
    let identity = match ready {
        Ready::Yes => match target.identify(&seen) {
            Ok(identity) => Some(identity),
            // Damaged, or of another version: whoever insists may remove it. That of another name is not ours at all.
            Err(error @ SetupError::OtherName { .. }) => return Err(error.into()),
            Err(_) if force => None,
            Err(error) => return Err(error.into()),
        },
        _ => None,
    };
    drop(seen);
    let set = match (Key::new(status.key), &identity) {
        (Some(key), _) => Semaphores::find(key).map_err(failed)?.filter(|&set| is_ours(set)),
        (None, Some(identity)) => named_set(identity, &status, memory),
        (None, None) => None,
    };
    let lock = match set {
        Some(set) => {
            Some(set.lock_patiently().map_err(|error| target.set_error(status.key, Some(set), error))?)
        }
        None => None,
    };
    // Half-made: ours if its maker has said that it was going to make it.
    let half_made = |set: Semaphores| {
        set.stage().is_ok_and(|stage| stage == Stage::Making) && set.stager() == Some(status.creator_pid)
    };
    if ready == (Ready::NotYet { marked: false }) && !set.is_some_and(half_made) {
        return Err(target.foreign("the first word", 0, READY).into());
    }
    let guarded = |set: &Semaphores| set.segment().is_ok_and(|id| id == memory.id());
    match set.filter(guarded) {
        _ if force => {}
        Some(set) => match set.claim_both() {
            Ok(()) => {}
            Err(SetError::Taken) => {
                let role = match set.is_free(Role::Producer) {
                    Ok(true) => Role::Consumer,
                    _ => Role::Producer,
                };
                return Err(SetupError::RoleTaken { role, pid: set.holder(role) }.into());
            }
            Err(error) => return Err(target.set_error(status.key, Some(set), error)),
        },
        // Nothing says that those who are attached hold no role.
        None => {
            let attached = settled(memory);
            if attached > 0 {
                return Err(claims_lost(target, attached).into());
            }
        }
    }
    let mapping = memory.attach(status.size, false).ok();
    let mark = |word| {
        if let Some(mapping) = &mapping {
            // ORDERING: Release, pairs with the Acquire load in `Ready::of`.
            header(mapping).ready.store(word, Ordering::Release);
        }
    };
    mark(0);
    if let Err(source) = memory.remove() {
        // Not ours to remove: it stays what it was.
        mark(if ready == Ready::Yes { READY } else { MAKING });
        if let (Some(set), false) = (set, force) {
            let _ = set.release(Role::Producer);
            let _ = set.release(Role::Consumer);
        }
        return Err(target.memory_error(status.key, "shmctl(IPC_RMID)", source).into());
    }
    if let Some(set) = set {
        let _ = set.remove();
    }
    drop(lock);
    Ok(())
}

/// Whether a set under a pipe's key is a pipe's set.
fn is_ours(set: Semaphores) -> bool {
    set.status().is_ok_and(|status| status.count == COUNT)
        && !set.stage().is_ok_and(|stage| matches!(stage, Stage::Foreign(_)))
}

/// How many are attached to a segment, given a moment for those to go who only took a look. The caller is not
/// attached, and holds the lock, so that nobody comes who could claim a role.
fn settled(memory: Memory) -> u64 {
    let attached = || memory.status().map_or(0, |status| status.attached);
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        match attached() {
            0 => return 0,
            some if Instant::now() >= deadline => return some,
            _ => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// A segment attached for reading alone, for watchers.
pub(crate) struct View {
    pub(crate) mapping: Mapping,
    pub(crate) identity: Identity,
    /// The set that guards it, unless that is gone.
    pub(crate) set: Option<Semaphores>,
    pub(crate) key: i32,
    pub(crate) shm_id: i32,
    pub(crate) size: u64,
    pub(crate) attached: u64,
    pub(crate) permissions: Permissions,
    pub(crate) creator: u32,
}

impl View {
    pub(crate) fn header(&self) -> &Header {
        header(&self.mapping)
    }
}

/// Attaches the pipe at `address` for reading alone, without a claim and without the lock.
pub(crate) fn view(address: &Address) -> Result<View, SetupError> {
    let target = Target::new(address);
    let memory = match (&address.0, target.key()?) {
        (Place::Id(id), _) => Memory::from_id(*id),
        (_, Some(key)) => Memory::find(key)
            .map_err(|source| target.memory_error(key.get(), "shmget", source))?
            .ok_or_else(|| target.not_found())?,
        (_, None) => return Err(SetupError::CannotMake { address: address.clone() }),
    };
    let status = target.status(target.key()?.map_or(0, Key::get), memory)?;
    let (ready, mapping) = target.peek(memory, &status)?;
    if ready != Ready::Yes {
        return Err(half_made(&target, &status));
    }
    let identity = target.identify(&mapping)?;
    Ok(View {
        identity,
        set: named_set(&identity, &status, memory),
        key: status.key,
        shm_id: memory.id(),
        size: status.size,
        attached: status.attached.saturating_sub(1),
        permissions: Permissions { uid: status.uid, gid: status.gid, mode: status.permissions() },
        creator: status.creator,
        mapping,
    })
}

/// The segment that a set guards; `None` if the set is none of ours, an error if it may not be asked.
pub(crate) fn guarded_by(set: Semaphores) -> Result<Option<i32>, SetError> {
    match set.stage()? {
        Stage::Made => set.segment().map(Some),
        Stage::Nothing | Stage::Making | Stage::Foreign(_) => Ok(None),
    }
}

/// Whether a row of `/proc/sysvipc/sem` has the shape of one of our sets.
pub(crate) fn looks_like_ours(row: &Row) -> bool {
    row.size == COUNT
}

/// The set of a row of `/proc/sysvipc/sem`.
pub(crate) fn set_of(row: &Row) -> Semaphores {
    Semaphores::from_id(row.id)
}
