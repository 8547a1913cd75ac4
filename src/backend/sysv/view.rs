//! Watching: a segment attached for reading alone, and which segments there are.

use super::guard::SetGuard;
use super::memory::Memory;
use super::semaphores::{COUNT, Semaphores, Stage};
use super::target::Target;
use crate::address::{Address, Key, Place};
use crate::error::SetupError;
use crate::os::sysvipc::Row;
use crate::segment::identity::{READY, Ready};
use crate::segment::{Guard, GuardError, Object, View};
use std::thread;
use std::time::{Duration, Instant};

/// Attaches the pipe at `address` for reading alone, without a claim and without the lock. One that is being made is
/// given `patience`.
pub(crate) fn view(address: &Address, patience: Duration) -> Result<View, SetupError> {
    let target = Target::new(address, &[])?;
    let memory = match (&address.0, target.key) {
        (Place::Id(id), _) => Memory::from_id(*id),
        (_, Some(key)) => Memory::find(key)
            .map_err(|source| target.memory_error("shmget", source))?
            .ok_or_else(|| target.asked.not_found())?,
        (_, None) => return Err(target.asked.cannot_make()),
    };
    let deadline = Instant::now() + patience;
    let mut before = None;
    let (status, mapping) = loop {
        let status = target.status(memory)?;
        let (ready, mapping) = target.peek(memory, &status)?;
        if ready == Ready::Yes {
            break (status, mapping);
        }
        // Its creator is at work, or is dead. Detached meanwhile, or we would keep others from repairing it.
        drop(mapping);
        let set = Key::new(status.key).and_then(|key| Semaphores::find(key).ok().flatten());
        // Seen twice, since it may have been completed between the look at the word and that at the set.
        if before.replace(target.is_half_made(&ready, &status, set)) == Some(false) {
            return Err(target.asked.foreign("the first word", 0, READY));
        }
        if Instant::now() >= deadline {
            return Err(target.half_made(&status));
        }
        thread::sleep(Duration::from_millis(5));
    };
    let identity = target.asked.identify(&mapping, status.size)?;
    let set = target.named_set(&identity, &status, memory);
    Ok(View {
        identity,
        object: Object::SysV { key: status.key, shm_id: memory.id(), sem_id: set.map(Semaphores::id) },
        size: status.size,
        attached: Some(status.attached),
        is_open: status.attached > 0 && set.is_none_or(|set| set.guests().map_or(true, |guests| guests > 0)),
        permissions: status.permissions(),
        creator: status.creator,
        locked: status.is_locked(),
        stale: false,
        guard: set
            .map(|set| Box::new(SetGuard::new(set, memory, Key::new(status.key), false)) as Box<dyn Guard>),
        mapping,
    })
}

/// What a set says of the segment that it guards.
pub(crate) enum Guarded {
    Segment(i32),
    /// The set is none of ours, or gone.
    Nothing,
    /// We may not ask.
    Denied,
}

/// Which segment the set of a row of `/proc/sysvipc/sem` guards.
pub(crate) fn guarded_by(row: &Row) -> Guarded {
    if row.size != COUNT {
        return Guarded::Nothing;
    }
    let set = Semaphores::from_id(row.id);
    match set.stage().and_then(|stage| Ok((stage, set.segment()?))) {
        Ok((Stage::Made, id)) => Guarded::Segment(id),
        Ok(_) | Err(GuardError::Gone) => Guarded::Nothing,
        Err(_) => Guarded::Denied,
    }
}

/// The state of a pipe's set.
pub(crate) struct SetState {
    /// The identifier of the segment that it guards.
    pub(crate) segment: i32,
    /// Whether the segment is complete.
    pub(crate) is_complete: bool,
    /// Whether a process creates, opens or removes the pipe at this moment.
    pub(crate) is_locked: bool,
}

/// The state of the set of a row of `/proc/sysvipc/sem`. `None` if it is no pipe's, is gone, or may not be read.
pub(crate) fn set_state(row: &Row) -> Option<SetState> {
    if row.size != COUNT {
        return None;
    }
    let set = Semaphores::from_id(row.id);
    let is_complete = match set.stage().ok()? {
        Stage::Making => false,
        Stage::Made => true,
        Stage::Nothing | Stage::Foreign(_) => return None,
    };
    Some(SetState { segment: set.segment().ok()?, is_complete, is_locked: set.is_locked().ok()? })
}
