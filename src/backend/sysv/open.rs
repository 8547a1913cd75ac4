//! Opening and making.

use super::guard::SetGuard;
use super::memory::{Memory, Status};
use super::semaphores::{COUNT, Guest, InitLock, Semaphores, Stage};
use super::target::Target;
use super::{limits, settled, undo};
use crate::address::{Address, Key, Place};
use crate::error::SetupError;
use crate::options::{Existing, Options};
use crate::protocol::layout::HEADER;
use crate::protocol::sync::Ordering;
use crate::segment::identity::{Identity, MAKING, READY, Ready};
use crate::segment::pages;
use crate::segment::{Access, GuardError, Mapping, Segment, Trouble, join, persist, wishes};
use std::mem::ManuallyDrop;

/// Opens, or makes, the pipe at `address`.
pub(crate) fn attach(
    address: &Address,
    options: &Options,
    existing: Existing,
) -> Result<Segment, SetupError> {
    let target = Target::new(address, &options.trusted)?;
    match (&address.0, existing) {
        (Place::Private, Existing::Required) | (Place::Id(_), Existing::Refused) => {
            return Err(target.asked.cannot_make());
        }
        _ => {}
    }
    persist(address, || match (&address.0, target.key) {
        (Place::Private, _) => make_private(&target, options),
        (Place::Id(id), _) => open_by_id(&target, options, Memory::from_id(*id)),
        (_, Some(key)) => match open_by_key(&target, options, existing, key) {
            // Found, and then removed by somebody: no reason not to make it.
            Err(Trouble::Failed(SetupError::NotFound { .. })) if existing != Existing::Required => {
                Err(Trouble::Again)
            }
            opened => opened,
        },
        (_, None) => unreachable!("every other place has a key"),
    })
}

fn make_private(target: &Target<'_>, options: &Options) -> Result<Segment, Trouble> {
    let mode = options.mode.unwrap_or(0o600);
    let set = Semaphores::make(None, mode)
        .map_err(|error| target.set_error(None, error))?
        .expect("IPC_PRIVATE never finds one that exists");
    locked(target, options, set, true, |_| make(target, options, None, set))
}

/// Does what nobody else may do at the same time. A set that we have just made goes again if nothing comes of it; those who wait
/// for its lock start again.
fn locked<T>(
    target: &Target<'_>,
    options: &Options,
    set: Semaphores,
    fresh: bool,
    work: impl FnOnce(&InitLock) -> Result<T, Trouble>,
) -> Result<T, Trouble> {
    let failed = |error| target.set_error(Some(set), error);
    let (lock, done) = match set.lock_patiently() {
        // Somebody else has it, or has removed it.
        Err(error @ (GuardError::Taken | GuardError::Gone)) => return Err(failed(error)),
        Err(error) => (None, Err(failed(error))),
        Ok(lock) => {
            let done = check_undo(target, options, &lock).and_then(|()| work(&lock));
            (Some(lock), done)
        }
    };
    if done.is_err() && fresh && set.stage().is_ok_and(|stage| stage == Stage::Nothing) {
        let _ = set.remove();
    }
    drop(lock);
    done
}

/// Refuses to rest roles on a kernel that does not give them back, unless somebody vouches for them.
fn check_undo(target: &Target<'_>, options: &Options, lock: &InitLock) -> Result<(), Trouble> {
    if undo::is_kept(lock) || options.assume_exclusive {
        return Ok(());
    }
    Err(SetupError::NoUndo { address: target.address().clone() }.into())
}

fn open_by_id(target: &Target<'_>, options: &Options, memory: Memory) -> Result<Segment, Trouble> {
    let status = target.status(memory)?;
    target.asked.check_trust(status.uid, status.creator)?;
    let (ready, mapping) = target.peek(memory, &status)?;
    target.asked.check_mode(options, "segment", status.permissions())?;
    let (set, fresh) = match (Key::new(status.key), ready) {
        (Some(key), ready) => {
            set_under(target, key, status.permissions().mode, (ready != Ready::Yes).then_some(memory))?
        }
        (None, Ready::Yes) => {
            set_of_private(target, &status, &target.asked.identify(&mapping, status.size)?, memory)?
        }
        (None, _) => return Err(target.half_made(&status).into()),
    };
    drop(mapping);
    locked(target, options, set, fresh, |lock| {
        open_locked(target, options, Existing::Required, memory, set, lock)
    })
}

/// The set of a segment without a key, a new one if it has lost its own; and whether we made it.
fn set_of_private(
    target: &Target<'_>,
    status: &Status,
    identity: &Identity,
    memory: Memory,
) -> Result<(Semaphores, bool), Trouble> {
    if let Some(named) = target.named_set(identity, status, memory) {
        return Ok((named, false));
    }
    let made =
        Semaphores::make(None, status.permissions().mode).map_err(|error| target.set_error(None, error))?;
    Ok((made.expect("IPC_PRIVATE never finds one that exists"), true))
}

/// The set under a key; and whether we made it, which we do if there is none and `unready`, a segment under the same
/// key that is not complete, does not speak against it.
fn set_under(
    target: &Target<'_>,
    key: Key,
    mode: u32,
    unready: Option<Memory>,
) -> Result<(Semaphores, bool), Trouble> {
    let failed = |error| target.set_error(None, error);
    if let Some(set) = Semaphores::find(key).map_err(failed)? {
        let status = set.status().map_err(failed)?;
        target.asked.check_trust(status.permissions.uid, status.creator)?;
        if status.count != COUNT {
            return Err(target
                .asked
                .foreign("the number of semaphores in the set", status.count, COUNT)
                .into());
        }
        if let Stage::Foreign(found) = set.stage().map_err(failed)? {
            return Err(target.asked.foreign("the fourth semaphore of the set", found as u64, 0).into());
        }
        return Ok((set, false));
    }
    if unready.is_some() && Memory::find(key).ok().flatten() == unready {
        // None of ours: we make the set first and remove it last.
        return Err(target.asked.foreign("the first word", 0, READY).into());
    }
    match Semaphores::make(Some(key), mode).map_err(failed)? {
        Some(set) => Ok((set, true)),
        None => Err(Trouble::Again),
    }
}

fn open_by_key(
    target: &Target<'_>,
    options: &Options,
    existing: Existing,
    key: Key,
) -> Result<Segment, Trouble> {
    let find = || Memory::find(key).map_err(|source| Trouble::Failed(target.memory_error("shmget", source)));
    // What is foreign is told before a set is made beside it.
    let (mode, unready) = match find()? {
        Some(memory) => {
            let status = target.status(memory)?;
            target.asked.check_trust(status.uid, status.creator)?;
            let ready = if is_made(key) { Ready::Yes } else { target.peek(memory, &status)?.0 };
            target.asked.check_mode(options, "segment", status.permissions())?;
            (status.permissions().mode, (ready != Ready::Yes).then_some(memory))
        }
        None if existing == Existing::Required => return Err(target.asked.not_found().into()),
        None => (options.mode.unwrap_or(0o600), None),
    };
    let (set, fresh) = set_under(target, key, mode, unready)?;
    locked(target, options, set, fresh, |lock| match find()? {
        Some(memory) => open_locked(target, options, existing, memory, set, lock),
        None if existing == Existing::Required => Err(target.asked.not_found().into()),
        None => make(target, options, Some(key), set),
    })
}

/// Whether there is a set under a key that says of itself that it guards a segment. Then that is looked at when we are its
/// guest, so that nobody has to wait until we have looked.
fn is_made(key: Key) -> bool {
    let set = Semaphores::find(key).ok().flatten();
    set.is_some_and(|set| set.stage().is_ok_and(|stage| stage == Stage::Made))
}

/// Opens a segment while nobody else makes, opens or removes it.
fn open_locked(
    target: &Target<'_>,
    options: &Options,
    existing: Existing,
    memory: Memory,
    set: Semaphores,
    _lock: &InitLock,
) -> Result<Segment, Trouble> {
    let status = target.status(memory)?;
    let key = status.key;
    let set_failed = |error| target.set_error(Some(set), error);
    target.asked.check_trust(status.uid, status.creator)?;
    let guest = Guest::enter(set).map_err(set_failed)?;
    let (ready, seen) = target.peek(memory, &status)?;
    if ready != Ready::Yes {
        drop((seen, guest));
        // If it is one of ours, its creator died, since we hold the lock.
        let ours = target.is_half_made(&ready, &status, Some(set));
        return match Key::new(key) {
            Some(_) if !ours => Err(target.asked.foreign("the first word", 0, READY).into()),
            Some(key) if existing != Existing::Required && settled(memory, 0) == 0 => {
                memory.remove().map_err(|source| target.memory_error("shmctl(IPC_RMID)", source))?;
                make(target, options, Some(key), set)
            }
            _ => Err(target.half_made(&status).into()),
        };
    }
    let identity = target.asked.identify(&seen, status.size)?;
    drop(seen);
    target.asked.check_mode(options, "segment", status.permissions())?;
    target.asked.check_mode(options, "semaphore set", set.status().map_err(set_failed)?.permissions)?;
    target.asked.check_wanted(&identity, options, existing)?;
    // The set guards this segment, and the segment names this set. Anything else means that the set, or both, were
    // removed and made again; then only a segment that nobody is attached to has no holders of lost claims.
    let guards = set.guards(memory.id()).map_err(set_failed)? && identity.sem_id == set.id();
    let align = pages::alignment(options);
    let mapping = Mapping::of_segment(memory.id(), status.size, Access::ReadWrite, align)
        .map_err(|source| target.memory_error("shmat", source))?;
    if !target.status(memory)?.is_of_same(&status) {
        // Another segment by now, which has got the identifier.
        return Err(Trouble::Again);
    }
    if !guards {
        // Counted with ourselves attached: of two who adopt at the same time, under a set each, one sees the other.
        let attached = settled(memory, 1);
        if attached > 0 {
            return Err(target.claims_lost(attached).into());
        }
        if Identity::read(mapping.header()) != identity {
            // Adopted meanwhile by somebody who has gone again.
            return Err(Trouble::Again);
        }
    }
    let identity =
        if guards { identity } else { adopt(&mapping, identity, set, memory).map_err(set_failed)? };
    pages::furnish(&mapping, options, true, status.is_locked())?;
    finish(target, options, (guest, mapping), identity, set, memory, false)
}

/// Puts a segment that has lost its set under a new one.
fn adopt(
    mapping: &Mapping,
    identity: Identity,
    set: Semaphores,
    memory: Memory,
) -> Result<Identity, GuardError> {
    let identity = Identity { sem_id: set.id(), ..identity };
    set.set_segment(memory.id())?;
    identity.write(mapping.header());
    set.set_stage(Stage::Made)?;
    Ok(identity)
}

/// Makes the segment while nobody else makes, opens or removes it.
fn make(
    target: &Target<'_>,
    options: &Options,
    key: Option<Key>,
    set: Semaphores,
) -> Result<Segment, Trouble> {
    let set_failed = |error| target.set_error(Some(set), error);
    let wishes = wishes(options)?;
    let size = HEADER + wishes.capacity;
    // What comes from the pool comes, and is mapped and unmapped, in whole huge pages.
    let huge = pages::huge_page_size().filter(|_| options.huge_pages);
    let size = huge.map_or(size, |page| size.next_multiple_of(page));
    let mode = options.mode.unwrap_or(0o600);

    set.set_stage(Stage::Making).map_err(set_failed)?;
    let made = Memory::make(key, size, mode, options.huge_pages);
    let memory = match made {
        Ok(memory) => memory,
        Err(source) => {
            let _ = set.set_stage(Stage::Nothing);
            return Err(match source.raw_os_error() {
                // Somebody who does not know our lock was faster.
                Some(libc::EEXIST) => Trouble::Again,
                Some(libc::ENOMEM | libc::EPERM) if options.huge_pages => {
                    Trouble::Failed(pages::no_huge_pages("shmget(SHM_HUGETLB)", source, size))
                }
                _ => Trouble::Failed(limits::of_segments(source, size)),
            });
        }
    };
    let complete = || -> Result<Segment, Trouble> {
        let failed = |call| move |source| Trouble::Failed(SetupError::Os { call, source });
        let guest = Guest::enter(set).map_err(set_failed)?;
        let mapping =
            Mapping::of_segment(memory.id(), size, Access::ReadWrite, None).map_err(failed("shmat"))?;
        if options.lock_memory {
            pages::lock_segment(memory.id(), size)?;
        }
        let header = mapping.header();
        // Relaxed: for those who find us dead, whom the kernel orders after us.
        header.ready.store(MAKING, Ordering::Relaxed);
        let identity = Identity::new(&wishes, target.asked.name(), set.id())?;
        identity.write(header);
        if options.uid.is_some() || options.gid.is_some() {
            set.give(options.uid, options.gid).map_err(set_failed)?;
            memory.give(options.uid, options.gid).map_err(failed("shmctl(IPC_SET)"))?;
        }
        set.set_segment(memory.id()).map_err(set_failed)?;
        // ORDERING: Release, pairs with the Acquire load in `Ready::of`: who sees READY sees the identity.
        header.ready.store(READY, Ordering::Release);
        set.set_stage(Stage::Made).map_err(set_failed)?;
        finish(target, options, (guest, mapping), identity, set, memory, true)
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
    (guest, mapping): (Guest, Mapping),
    identity: Identity,
    set: Semaphores,
    memory: Memory,
    created: bool,
) -> Result<Segment, Trouble> {
    join(&identity, options)?;
    let status = target.status(memory)?;
    let address = match target.address().0 {
        Place::Private => Address(Place::Id(memory.id())),
        _ => target.address().clone(),
    };
    let permissions = status.permissions();
    let takes_over = options.assume_exclusive && undo::is_known_to_be_lost();
    let guard = Box::new(SetGuard::new(set, memory, Key::new(status.key), takes_over));
    guest.stay();
    Ok(Segment {
        mapping: ManuallyDrop::new(mapping),
        identity,
        address,
        created,
        permissions,
        eager: created,
        guard,
    })
}
