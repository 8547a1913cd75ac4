//! The semaphore set of a segment: a lock, how far creation has come, and how many handles are open.
//!
//! The lock uses `SEM_UNDO`, so the kernel unlocks it when its holder dies, whatever the cause and whatever its pid namespace. On
//! Linux a new set is zero, and zero means unlocked. The set says nothing about the roles: see `claim.rs`.

use super::structs::{SemidDs, mode_of};
use crate::address::Key;
use crate::permissions::Permissions;
use crate::segment::RoleLockError;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// The semaphores of a set, by number.
#[derive(Clone, Copy, Debug)]
#[repr(u16)]
enum Semaphore {
    /// The lock: 1 while a process creates, opens or removes the pipe.
    Init = 0,
    /// 1 while a process creates its presence; the kernel records which process.
    Presence = 1,
    // 2 is not used.
    /// [`Stage`] of the segment.
    Stage = 3,
    /// The identifier of the segment, 15 bits in each of three semaphores.
    Segment0 = 4,
    Segment1 = 5,
    Segment2 = 6,
    /// How many handles are open.
    Attachments = 7,
}

/// The number of semaphores in a set.
pub(crate) const COUNT: u64 = 8;

/// The most operations of one call.
pub(crate) const OPERATIONS: u64 = 2;

const SEGMENT: [Semaphore; 3] = [Semaphore::Segment0, Semaphore::Segment1, Semaphore::Segment2];

/// Bits of the segment's identifier per semaphore, whose largest value is 32767.
const BITS: u32 = 15;

/// How long to wait while another process creates, opens or removes the pipe.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// How far the creation of the segment has come. The values are unusual on purpose, so that an unrelated set of eight semaphores
/// is not mistaken for a pipe's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Initial,
    Creating,
    Created,
    Foreign(i32),
}

impl Stage {
    const CREATING: i32 = 0x5a4d;
    const CREATED: i32 = 0x5a52;

    fn of(value: i32) -> Self {
        match value {
            0 => Stage::Initial,
            Self::CREATING => Stage::Creating,
            Self::CREATED => Stage::Created,
            other => Stage::Foreign(other),
        }
    }

    fn value(self) -> i32 {
        match self {
            Stage::Initial => 0,
            Stage::Creating => Self::CREATING,
            Stage::Created => Self::CREATED,
            Stage::Foreign(value) => value,
        }
    }
}

/// The error of the last call on a set.
fn last_error(call: &'static str) -> RoleLockError {
    let source = io::Error::last_os_error();
    match source.raw_os_error() {
        // EINVAL: no set has this identifier any more. All other arguments here are constant and valid.
        Some(libc::EIDRM | libc::EINVAL) => RoleLockError::Gone,
        Some(libc::EAGAIN) => RoleLockError::Taken,
        _ => RoleLockError::Os { call, source },
    }
}

/// A semaphore set, by its identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Semaphores {
    id: i32,
}

/// The result of `IPC_STAT` for a set.
#[derive(Clone, Copy, Debug)]
pub(super) struct SetStatus {
    pub(super) count: u64,
    pub(super) permissions: Permissions,
    pub(super) creator: u32,
}

fn operation(semaphore: Semaphore, change: i16, undo: bool) -> libc::sembuf {
    let flags = libc::IPC_NOWAIT | if undo { libc::SEM_UNDO } else { 0 };
    libc::sembuf { sem_num: semaphore as u16, sem_op: change, sem_flg: flags as i16 }
}

/// The operations that acquire a semaphore: require 0 and add 1, atomically.
fn acquire(semaphore: Semaphore) -> [libc::sembuf; 2] {
    [operation(semaphore, 0, false), operation(semaphore, 1, true)]
}

impl Semaphores {
    pub(super) fn from_id(id: i32) -> Self {
        Semaphores { id }
    }

    pub(crate) fn id(self) -> i32 {
        self.id
    }

    /// The set under a key, if there is one. Its [`stage`](Self::stage) tells whether it is a pipe's.
    pub(super) fn find(key: Key) -> Result<Option<Self>, RoleLockError> {
        // SAFETY: the call takes no pointers.
        match unsafe { libc::semget(key.get(), 0, 0) } {
            -1 if io::Error::last_os_error().raw_os_error() == Some(libc::ENOENT) => Ok(None),
            -1 => Err(last_error("semget")),
            id => Ok(Some(Semaphores { id })),
        }
    }

    /// Creates a set under a key, or without one. `None` if there is one under that key already.
    pub(super) fn create(key: Option<Key>, mode: u32) -> Result<Option<Self>, RoleLockError> {
        let flags = libc::IPC_CREAT | libc::IPC_EXCL | mode as i32;
        // SAFETY: the call takes no pointers.
        match unsafe { libc::semget(key.map_or(libc::IPC_PRIVATE, Key::get), COUNT as i32, flags) } {
            -1 => match io::Error::last_os_error() {
                source if source.raw_os_error() == Some(libc::EEXIST) => Ok(None),
                source => Err(RoleLockError::Os { call: "semget", source }),
            },
            id => Ok(Some(Semaphores { id })),
        }
    }

    pub(super) fn status(self) -> Result<SetStatus, RoleLockError> {
        let status = self.read()?;
        let perm = status.sem_perm;
        let permissions = Permissions { uid: perm.uid, gid: perm.gid, mode: mode_of(&perm) & 0o777 };
        Ok(SetStatus { count: status.sem_nsems, permissions, creator: perm.cuid })
    }

    fn read(self) -> Result<SemidDs, RoleLockError> {
        let mut status = core::mem::MaybeUninit::<SemidDs>::zeroed();
        // SAFETY: IPC_STAT writes one semid_ds to the pointer.
        if unsafe { libc::semctl(self.id, 0, libc::IPC_STAT, status.as_mut_ptr()) } == -1 {
            return Err(last_error("semctl(IPC_STAT)"));
        }
        // SAFETY: zeroed, and then written by the kernel; all fields are integers.
        Ok(unsafe { status.assume_init() })
    }

    /// Changes the owner or group of the set.
    pub(super) fn chown(self, uid: Option<u32>, gid: Option<u32>) -> Result<(), RoleLockError> {
        let mut status = self.read()?;
        status.sem_perm.uid = uid.unwrap_or(status.sem_perm.uid);
        status.sem_perm.gid = gid.unwrap_or(status.sem_perm.gid);
        // SAFETY: IPC_SET reads one semid_ds from the pointer.
        match unsafe { libc::semctl(self.id, 0, libc::IPC_SET, &raw const status) } {
            -1 => Err(last_error("semctl(IPC_SET)")),
            _ => Ok(()),
        }
    }

    pub(super) fn remove(self) -> Result<(), RoleLockError> {
        // SAFETY: IPC_RMID takes no pointer.
        match unsafe { libc::semctl(self.id, 0, libc::IPC_RMID) } {
            -1 => Err(last_error("semctl(IPC_RMID)")),
            _ => Ok(()),
        }
    }

    fn operate(self, operations: &mut [libc::sembuf]) -> Result<(), RoleLockError> {
        // SAFETY: the pointer and the length are those of one slice. All operations carry IPC_NOWAIT, so the call returns at
        // once.
        match unsafe { libc::semop(self.id, operations.as_mut_ptr(), operations.len()) } {
            -1 => Err(last_error("semop")),
            _ => Ok(()),
        }
    }

    fn get(self, semaphore: Semaphore) -> Result<i32, RoleLockError> {
        self.query(semaphore, libc::GETVAL, "semctl(GETVAL)")
    }

    fn query(self, semaphore: Semaphore, command: i32, call: &'static str) -> Result<i32, RoleLockError> {
        // SAFETY: GETVAL and GETPID take no pointer.
        match unsafe { libc::semctl(self.id, semaphore as i32, command) } {
            -1 => Err(last_error(call)),
            value => Ok(value),
        }
    }

    /// Sets a value. This also clears the undo entries of every process for this semaphore.
    fn set(self, semaphore: Semaphore, value: i32) -> Result<(), RoleLockError> {
        // SAFETY: SETVAL takes an int, no pointer.
        match unsafe { libc::semctl(self.id, semaphore as i32, libc::SETVAL, value) } {
            -1 => Err(last_error("semctl(SETVAL)")),
            _ => Ok(()),
        }
    }

    /// Locks the set: while the guard exists, no other process creates, opens or removes the pipe. The kernel unlocks it if we
    /// die. `Taken` if another process holds the lock for longer than `timeout`.
    pub(super) fn lock_within(self, timeout: Duration) -> Result<InitLock, RoleLockError> {
        let start = Instant::now();
        let mut pause = Duration::from_micros(20);
        loop {
            match self.operate(&mut acquire(Semaphore::Init)) {
                Ok(()) => return Ok(InitLock { set: self }),
                Err(RoleLockError::Taken) if start.elapsed() < timeout => thread::sleep(pause),
                Err(error) => return Err(error),
            }
            pause = (pause * 2).min(Duration::from_millis(5));
        }
    }

    /// [`lock_within`](Self::lock_within) the default timeout.
    pub(super) fn lock(self) -> Result<InitLock, RoleLockError> {
        self.lock_within(LOCK_TIMEOUT)
    }

    /// A hint at the holder of the lock.
    pub(super) fn lock_pid(self) -> Option<u32> {
        self.pid(Semaphore::Init)
    }

    pub(super) fn stage(self) -> Result<Stage, RoleLockError> {
        self.get(Semaphore::Stage).map(Stage::of)
    }

    /// Sets the stage. The kernel records our process id with it. The caller holds the lock.
    pub(super) fn set_stage(self, stage: Stage) -> Result<(), RoleLockError> {
        self.set(Semaphore::Stage, stage.value())
    }

    /// The process that set the stage.
    pub(super) fn stage_pid(self) -> Option<u32> {
        self.pid(Semaphore::Stage)
    }

    /// The identifier of the segment that this set belongs to.
    pub(super) fn segment(self) -> Result<i32, RoleLockError> {
        SEGMENT.iter().rev().try_fold(0, |id, &semaphore| Ok(id << BITS | self.get(semaphore)?))
    }

    /// Whether this set belongs to the segment with that identifier.
    pub(super) fn guards(self, id: i32) -> Result<bool, RoleLockError> {
        Ok(self.stage()? == Stage::Created && self.segment()? == id)
    }

    /// Stores the identifier of the segment that this set belongs to. The caller holds the lock.
    pub(super) fn set_segment(self, id: i32) -> Result<(), RoleLockError> {
        let mask = (1 << BITS) - 1;
        SEGMENT.iter().zip(0..).try_for_each(|(&semaphore, i)| self.set(semaphore, id >> (i * BITS) & mask))
    }

    fn pid(self, semaphore: Semaphore) -> Option<u32> {
        self.query(semaphore, libc::GETPID, "semctl(GETPID)")
            .ok()
            .filter(|&pid| pid > 0)
            .map(|pid| pid as u32)
    }

    /// Counts one more open handle, until [`remove_attachment`](Self::remove_attachment) or our death.
    fn add_attachment(self) -> Result<(), RoleLockError> {
        self.operate(&mut [operation(Semaphore::Attachments, 1, true)])
    }

    pub(super) fn remove_attachment(self) -> Result<(), RoleLockError> {
        self.operate(&mut [operation(Semaphore::Attachments, -1, true)])
    }

    /// Whether a process creates, opens or removes the pipe at this moment.
    pub(super) fn is_locked(self) -> Result<bool, RoleLockError> {
        self.get(Semaphore::Init).map(|value| value != 0)
    }

    /// How many handles are open.
    pub(super) fn attachments(self) -> Result<i32, RoleLockError> {
        self.get(Semaphore::Attachments)
    }

    /// Forgets all handles. The caller holds the lock and knows that there are none: their processes have called `exec`, which
    /// unmaps the segment and keeps the count.
    pub(super) fn clear_attachments(self) -> Result<(), RoleLockError> {
        self.set(Semaphore::Attachments, 0)
    }
}

/// The count of an open handle that is being created. Dropping it removes the count.
#[derive(Debug)]
pub(super) struct Attachment {
    set: Semaphores,
}

impl Attachment {
    pub(super) fn register(set: Semaphores) -> Result<Self, RoleLockError> {
        set.add_attachment()?;
        Ok(Attachment { set })
    }

    /// Keeps the count: the handle exists and removes the count when it is dropped.
    pub(super) fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // Fails only if the set was removed.
        let _ = self.set.remove_attachment();
    }
}

/// The lock of a set: while it exists, no other process creates, opens or removes the pipe.
#[derive(Debug)]
pub(super) struct InitLock {
    set: Semaphores,
}

impl InitLock {
    pub(super) fn set(&self) -> Semaphores {
        self.set
    }

    /// The value of the semaphore: 1, for our lock.
    pub(super) fn count(&self) -> Result<i32, RoleLockError> {
        self.set.get(Semaphore::Init)
    }

    /// Adds 1, until the calling process ends.
    pub(super) fn increment(&self) -> Result<(), RoleLockError> {
        self.set.operate(&mut [operation(Semaphore::Init, 1, true)])
    }

    /// Subtracts 1 that a process which has ended left behind.
    pub(super) fn decrement(&self) -> Result<(), RoleLockError> {
        self.set.operate(&mut [operation(Semaphore::Init, -1, false)])
    }

    /// Says whether we are about to create our presence.
    pub(super) fn announce_presence(&self, creating: bool) -> Result<(), RoleLockError> {
        self.set.set(Semaphore::Presence, creating.into())
    }

    /// The process that died while it created its presence, 0 if it is not visible from here. `None` if there is none.
    pub(super) fn died_creating_presence(&self) -> Result<Option<u32>, RoleLockError> {
        let announced = self.set.get(Semaphore::Presence)? != 0;
        Ok(announced.then(|| self.set.pid(Semaphore::Presence).unwrap_or(0)))
    }
}

impl Drop for InitLock {
    fn drop(&mut self) {
        // Fails only if the set was removed, and the lock with it.
        let _ = self.set.operate(&mut [operation(Semaphore::Init, -1, true)]);
    }
}
