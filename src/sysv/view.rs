//! Watching: a segment attached for reading alone, and which segments there are.

use super::header;
use super::memory::{Mapping, Memory};
use super::proc::Row;
use super::semaphores::{COUNT, Semaphores, SetError, Stage};
use super::target::Target;
use crate::address::{Address, Key, Place};
use crate::error::{Permissions, SetupError};
use crate::identity::{Identity, READY, Ready};
use crate::layout::Header;
use std::thread;
use std::time::{Duration, Instant};

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

/// Attaches the pipe at `address` for reading alone, without a claim and without the lock. One that is being made is
/// given `patience`.
pub(crate) fn view(address: &Address, patience: Duration) -> Result<View, SetupError> {
    let target = Target::new(address, &[])?;
    let memory = match (&address.0, target.key) {
        (Place::Id(id), _) => Memory::from_id(*id),
        (_, Some(key)) => Memory::find(key)
            .map_err(|source| target.memory_error("shmget", source))?
            .ok_or_else(|| target.not_found())?,
        (_, None) => return Err(SetupError::CannotMake { address: address.clone() }),
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
            return Err(target.foreign("the first word", 0, READY));
        }
        if Instant::now() >= deadline {
            return Err(target.half_made(&status));
        }
        thread::sleep(Duration::from_millis(5));
    };
    let identity = target.identify(&mapping)?;
    Ok(View {
        identity,
        set: target.named_set(&identity, &status, memory),
        key: status.key,
        shm_id: memory.id(),
        size: status.size,
        attached: status.attached,
        permissions: Permissions { uid: status.uid, gid: status.gid, mode: status.permissions() },
        creator: status.creator,
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
        Ok(_) | Err(SetError::Gone) => Guarded::Nothing,
        Err(_) => Guarded::Denied,
    }
}
