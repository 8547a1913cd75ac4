//! Opening and creating.

use super::presence::{self, Presence};
use super::role_lock::SysvRoleLock;
use super::semaphores::{Attachment, COUNT, InitLock, Semaphores, Stage};
use super::sysv_request::SysvRequest;
use super::sysv_segment::{Status, SysvSegment};
use super::{limits, other_attachments, rmid_forced, undo};
use crate::address::{Address, AddressForm, Key};
use crate::error::{MissingFeature, SetupError, failed_to_map, os};
use crate::options::{Existing, Options};
use crate::protocol::sync::Ordering;
use crate::segment::identity::{CREATING, Identity, READY, Ready};
use crate::segment::pages;
use crate::segment::{
    Access, AttemptError, Mapping, RoleLockError, Segment, parameters, prepare_wake_mode, retry,
};

/// Opens or creates the pipe at `address`.
pub(crate) fn attach(
    address: &Address,
    options: &Options,
    existing: Existing,
) -> Result<Segment, SetupError> {
    let request = SysvRequest::new(address, &options.trusted)?;
    match (&address.0, existing) {
        (AddressForm::Private, Existing::Required) => return Err(request.common.cannot_open()),
        (AddressForm::Id(_), Existing::Refused) => return Err(request.common.cannot_create()),
        _ => {}
    }
    rmid_forced::check(address, options)?;
    retry(address, || match (&address.0, request.key) {
        (AddressForm::Private, _) => create_private(&request, options),
        (AddressForm::Id(id), _) => open_by_id(&request, options, SysvSegment::from_id(*id)),
        (_, Some(key)) => match open_by_key(&request, options, existing, key) {
            // Another process removed it after we found it: create it in the next attempt.
            Err(AttemptError::Failed(SetupError::NotFound { .. })) if existing != Existing::Required => {
                Err(AttemptError::Retry)
            }
            opened => opened,
        },
        (_, None) => unreachable!("every other place has a key"),
    })
}

fn create_private(request: &SysvRequest<'_>, options: &Options) -> Result<Segment, AttemptError> {
    let mode = options.mode.unwrap_or(0o600);
    let set = Semaphores::create(None, mode)
        .map_err(|error| request.set_error(None, error))?
        .expect("IPC_PRIVATE never finds one that exists");
    with_lock(request, options, set, true, |lock| create(request, options, None, set, lock))
}

/// Runs `work` under the set's lock. If that fails, removes a set that we have just created, unless a segment was created beside
/// it. Processes that wait for its lock then retry.
fn with_lock<T>(
    request: &SysvRequest<'_>,
    options: &Options,
    set: Semaphores,
    created: bool,
    work: impl FnOnce(&InitLock) -> Result<T, AttemptError>,
) -> Result<T, AttemptError> {
    let failed = |error| request.set_error(Some(set), error);
    let (lock, done) = match set.lock() {
        // Another process holds the lock or removed the set, so the set is not ours to remove.
        Err(error @ (RoleLockError::Taken | RoleLockError::Gone)) => return Err(failed(error)),
        Err(error) => (None, Err(failed(error))),
        Ok(lock) => {
            presence::clear_up(&lock);
            let done = check_undo(request, options, &lock).and_then(|()| work(&lock));
            if done.is_err() {
                presence::clear_up(&lock);
            }
            (Some(lock), done)
        }
    };
    if done.is_err() && created && set.stage().is_ok_and(|stage| stage == Stage::Initial) {
        let _ = set.remove();
    }
    drop(lock);
    done
}

/// Fails on a kernel that does not unlock what a killed process has locked, unless the options allow it.
fn check_undo(request: &SysvRequest<'_>, options: &Options, lock: &InitLock) -> Result<(), AttemptError> {
    if undo::is_supported(lock) || options.allow_missing_undo {
        return Ok(());
    }
    Err(SetupError::Kernel(MissingFeature::Undo { address: request.address().clone() }).into())
}

fn open_by_id(
    request: &SysvRequest<'_>,
    options: &Options,
    segment: SysvSegment,
) -> Result<Segment, AttemptError> {
    let status = request.status(segment)?;
    request.common.check_trust(status.uid, status.creator)?;
    let (ready, mapping) = request.peek(segment, &status)?;
    request.common.check_mode(options, "segment", status.permissions())?;
    let (set, created) = match (Key::new(status.key), ready) {
        (Some(key), ready) => find_or_create_set(
            request,
            key,
            status.permissions().mode,
            (ready != Ready::Yes).then_some(segment),
        )?,
        (None, Ready::Yes) => find_or_create_private_set(
            request,
            &status,
            &request.common.identify(&mapping, status.size)?,
            segment,
        )?,
        (None, _) => return Err(request.incomplete(&status).into()),
    };
    drop(mapping);
    with_lock(request, options, set, created, |lock| {
        open_locked(request, options, Existing::Required, segment, set, lock)
    })
}

/// The set of a segment without a key, or a new one if that set was removed; and whether we created it.
fn find_or_create_private_set(
    request: &SysvRequest<'_>,
    status: &Status,
    identity: &Identity,
    segment: SysvSegment,
) -> Result<(Semaphores, bool), AttemptError> {
    if let Some(named) = request.named_set(identity, status, segment) {
        return Ok((named, false));
    }
    let created = Semaphores::create(None, status.permissions().mode)
        .map_err(|error| request.set_error(None, error))?;
    Ok((created.expect("IPC_PRIVATE never finds one that exists"), true))
}

/// The set under a key, created if there is none; and whether we created it. Fails if there is an incomplete segment `unready`
/// under the same key but no set: that segment is not a pipe.
fn find_or_create_set(
    request: &SysvRequest<'_>,
    key: Key,
    mode: u32,
    unready: Option<SysvSegment>,
) -> Result<(Semaphores, bool), AttemptError> {
    let failed = |error| request.set_error(None, error);
    if let Some(set) = Semaphores::find(key).map_err(failed)? {
        let status = set.status().map_err(failed)?;
        request.common.check_trust(status.permissions.uid, status.creator)?;
        if status.count != COUNT {
            return Err(request
                .common
                .foreign("the number of semaphores in the set", status.count, COUNT)
                .into());
        }
        if let Stage::Foreign(found) = set.stage().map_err(failed)? {
            return Err(request.common.foreign("the fourth semaphore of the set", found as u64, 0).into());
        }
        return Ok((set, false));
    }
    if unready.is_some() && SysvSegment::find(key).ok().flatten() == unready {
        // Not a pipe, whose set is created before the segment and removed after it.
        return Err(request.common.foreign("the first word", 0, READY).into());
    }
    match Semaphores::create(Some(key), mode).map_err(failed)? {
        Some(set) => Ok((set, true)),
        None => Err(AttemptError::Retry),
    }
}

fn open_by_key(
    request: &SysvRequest<'_>,
    options: &Options,
    existing: Existing,
    key: Key,
) -> Result<Segment, AttemptError> {
    let find = || {
        SysvSegment::find(key).map_err(|source| AttemptError::Failed(request.segment_error("shmget", source)))
    };
    // Reject a foreign segment before creating a set beside it.
    let (mode, unready) = match find()? {
        Some(segment) => {
            let status = request.status(segment)?;
            request.common.check_trust(status.uid, status.creator)?;
            let ready = if is_created(key) { Ready::Yes } else { request.peek(segment, &status)?.0 };
            request.common.check_mode(options, "segment", status.permissions())?;
            (status.permissions().mode, (ready != Ready::Yes).then_some(segment))
        }
        None if existing == Existing::Required => return Err(request.common.not_found().into()),
        None => (options.mode.unwrap_or(0o600), None),
    };
    let (set, created) = find_or_create_set(request, key, mode, unready)?;
    with_lock(request, options, set, created, |lock| match find()? {
        Some(segment) => open_locked(request, options, existing, segment, set, lock),
        None if existing == Existing::Required => Err(request.common.not_found().into()),
        None => create(request, options, Some(key), set, lock),
    })
}

/// Whether there is a set under a key whose stage is `Created`. Then the segment is checked only once we are counted as an
/// attachment, so that no other process has to wait for our uncounted mapping to go.
fn is_created(key: Key) -> bool {
    let set = Semaphores::find(key).ok().flatten();
    set.is_some_and(|set| set.stage().is_ok_and(|stage| stage == Stage::Created))
}

/// Opens a segment, under the set's lock.
fn open_locked(
    request: &SysvRequest<'_>,
    options: &Options,
    existing: Existing,
    segment: SysvSegment,
    set: Semaphores,
    lock: &InitLock,
) -> Result<Segment, AttemptError> {
    let status = request.status(segment)?;
    let key = status.key;
    let set_failed = |error| request.set_error(Some(set), error);
    request.common.check_trust(status.uid, status.creator)?;
    if status.attached == 0 {
        set.clear_attachments().map_err(set_failed)?;
    }
    let attachment = Attachment::register(set).map_err(set_failed)?;
    let (ready, seen) = request.peek(segment, &status)?;
    if ready != Ready::Yes {
        drop((seen, attachment));
        // If it is a pipe, its creator died, since we hold the lock.
        let ours = request.is_incomplete(&ready, &status, Some(set));
        return match Key::new(key) {
            Some(_) if !ours => Err(request.common.foreign("the first word", 0, READY).into()),
            Some(key) if existing != Existing::Required && other_attachments(segment, 0) == 0 => {
                segment.remove().map_err(|source| request.segment_error("shmctl(IPC_RMID)", source))?;
                create(request, options, Some(key), set, lock)
            }
            _ => Err(request.incomplete(&status).into()),
        };
    }
    let identity = request.common.identify(&seen, status.size)?;
    drop(seen);
    request.common.check_mode(options, "segment", status.permissions())?;
    request.common.check_mode(options, "semaphore set", set.status().map_err(set_failed)?.permissions)?;
    request.common.check_existing(&identity, options, existing)?;
    // The set names this segment, and the segment names this set. Anything else means that the set was removed, and another
    // created: roles do not depend on it.
    let guards = set.guards(segment.id()).map_err(set_failed)? && identity.sem_id == set.id();
    let align = pages::alignment(options);
    let mapping = Mapping::of_segment(segment.id(), status.size, Access::ReadWrite, align)
        .map_err(|source| request.mapping_error(source, status.size + align.unwrap_or(0)))?;
    if !request.status(segment)?.is_of_same(&status) {
        // The segment was removed, and a new one has its identifier.
        return Err(AttemptError::Retry);
    }
    let identity = if guards { identity } else { adopt(request, &mapping, identity, set, segment)? };
    pages::apply_options(&mapping, options, true, status.is_locked())?;
    finish(request, options, (attachment, mapping), identity, segment, lock, false)
}

/// Assigns a new set to a segment whose own was removed. Two processes may do so at the same time, each with a set of its own: a
/// segment without a key names the one that is written first, and the other process tries again.
fn adopt(
    request: &SysvRequest<'_>,
    mapping: &Mapping,
    identity: Identity,
    set: Semaphores,
    segment: SysvSegment,
) -> Result<Identity, AttemptError> {
    let adopted = Identity { sem_id: set.id(), ..identity };
    let failed = |error| request.set_error(Some(set), error);
    set.set_segment(segment.id()).map_err(failed)?;
    if !identity.replace(mapping.header(), &adopted) {
        return Err(AttemptError::Retry);
    }
    set.set_stage(Stage::Created).map_err(failed)?;
    Ok(adopted)
}

/// Creates the segment, under the set's lock.
fn create(
    request: &SysvRequest<'_>,
    options: &Options,
    key: Option<Key>,
    set: Semaphores,
    lock: &InitLock,
) -> Result<Segment, AttemptError> {
    let set_failed = |error| request.set_error(Some(set), error);
    let parameters = parameters(options)?;
    let size = parameters.size();
    // Segments in the pool are created, mapped and unmapped in whole huge pages.
    let huge = pages::huge_page_size().filter(|_| options.huge_pages);
    let size = huge.map_or(size, |page| size.next_multiple_of(page));
    let mode = options.mode.unwrap_or(0o600);

    set.set_stage(Stage::Creating).map_err(set_failed)?;
    let created = SysvSegment::create(key, size, mode, options.huge_pages);
    let segment = match created {
        Ok(segment) => segment,
        Err(source) => {
            let _ = set.set_stage(Stage::Initial);
            return Err(match source.raw_os_error() {
                // A program that does not use our lock created one first.
                Some(libc::EEXIST) => AttemptError::Retry,
                Some(libc::ENOMEM | libc::EPERM) if options.huge_pages => {
                    AttemptError::Failed(pages::no_huge_pages("shmget(SHM_HUGETLB)", source, size))
                }
                _ => AttemptError::Failed(limits::of_segments(source, size)),
            });
        }
    };
    let initialize = || -> Result<Segment, AttemptError> {
        let failed = |call| move |source| AttemptError::Failed(os(call, source));
        let attachment = Attachment::register(set).map_err(set_failed)?;
        let mapping = Mapping::of_segment(segment.id(), size, Access::ReadWrite, None)
            .map_err(failed_to_map("shmat", size))?;
        if options.lock_memory {
            pages::lock_segment(segment.id(), size)?;
        }
        let header = mapping.header();
        // Relaxed: only a process that takes the lock after our death depends on it, and the kernel orders that after this store.
        header.ready.store(CREATING, Ordering::Relaxed);
        let identity = Identity::new(&parameters, request.common.name(), set.id())?;
        identity.write(header);
        if options.uid.is_some() || options.gid.is_some() {
            set.chown(options.uid, options.gid).map_err(set_failed)?;
            segment.chown(options.uid, options.gid).map_err(failed("shmctl(IPC_SET)"))?;
        }
        set.set_segment(segment.id()).map_err(set_failed)?;
        // ORDERING: Release, pairs with the Acquire load in `Ready::of`: a process that sees READY sees the identity.
        header.ready.store(READY, Ordering::Release);
        set.set_stage(Stage::Created).map_err(set_failed)?;
        finish(request, options, (attachment, mapping), identity, segment, lock, true)
    };
    let opened = initialize();
    if opened.is_err() {
        let _ = segment.remove();
        let _ = set.set_stage(Stage::Initial);
    }
    opened
}

/// The last steps of opening and creating.
fn finish(
    request: &SysvRequest<'_>,
    options: &Options,
    (attachment, mapping): (Attachment, Mapping),
    identity: Identity,
    segment: SysvSegment,
    lock: &InitLock,
    created: bool,
) -> Result<Segment, AttemptError> {
    prepare_wake_mode(&identity, options)?;
    let status = request.status(segment)?;
    let address = match request.address().0 {
        AddressForm::Private => Address(AddressForm::Id(segment.id())),
        _ => request.address().clone(),
    };
    let permissions = status.permissions();
    let presence = Presence::of_this_process(Some(lock))?;
    let roles = Box::new(SysvRoleLock::new(segment, Key::new(status.key), Some(lock.set()), presence));
    attachment.disarm();
    Ok(Segment {
        mapping,
        identity,
        address,
        created,
        permissions,
        eager: created,
        roles,
        removes_leftover: false,
    })
}
