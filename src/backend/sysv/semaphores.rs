//! The semaphore set beside a segment: who holds which role, who is attached, how far the making has come.
//!
//! Every claim is made with `SEM_UNDO`, so that the kernel takes it back when its holder dies, whatever it died of
//! and whatever pid namespace it lived in; no process id is compared and no heartbeat is needed. A new set is zero
//! on Linux, and zero is the value of everything that is free.

use super::structs::{SemidDs, mode_of};
use crate::address::Key;
use crate::permissions::Permissions;
use crate::protocol::peer::Role;
use crate::segment::GuardError;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// The semaphores of a set, by number.
#[derive(Clone, Copy, Debug)]
#[repr(u16)]
enum Semaphore {
    /// 1 while somebody makes, opens or removes the pipe.
    Init = 0,
    /// 1 while there is a producer.
    Producer = 1,
    /// 1 while there is a consumer.
    Consumer = 2,
    /// [`Stage`] of the segment.
    Stage = 3,
    /// The identifier of the segment, 15 bits in each of three.
    Segment0 = 4,
    Segment1 = 5,
    Segment2 = 6,
    /// How many handles are open.
    Guests = 7,
}

/// How many semaphores a set has.
pub(crate) const COUNT: u64 = 8;

/// The most operations of one call: removing a pipe claims both roles at once.
pub(crate) const OPERATIONS: u64 = 4;

const SEGMENT: [Semaphore; 3] = [Semaphore::Segment0, Semaphore::Segment1, Semaphore::Segment2];

/// Bits of the segment's identifier in one semaphore, whose largest value is 32767.
const BITS: u32 = 15;

/// How long somebody else may take to make, open or remove a pipe before we give up.
const PATIENCE: Duration = Duration::from_secs(5);

/// How far the making of the segment beside a set has come. The values are unusual on purpose: a foreign set with
/// eight semaphores is not taken for ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Nothing,
    Making,
    Made,
    Foreign(i32),
}

impl Stage {
    const MAKING: i32 = 0x5a4d;
    const MADE: i32 = 0x5a52;

    fn of(value: i32) -> Self {
        match value {
            0 => Stage::Nothing,
            Self::MAKING => Stage::Making,
            Self::MADE => Stage::Made,
            other => Stage::Foreign(other),
        }
    }

    fn value(self) -> i32 {
        match self {
            Stage::Nothing => 0,
            Stage::Making => Self::MAKING,
            Stage::Made => Self::MADE,
            Stage::Foreign(value) => value,
        }
    }
}

/// Why the call just made on a set failed.
fn last(call: &'static str) -> GuardError {
    let source = io::Error::last_os_error();
    match source.raw_os_error() {
        // EINVAL: the identifier belongs to no set any more. The arguments of every call here are fixed and good.
        Some(libc::EIDRM | libc::EINVAL) => GuardError::Gone,
        Some(libc::EAGAIN) => GuardError::Taken,
        _ => GuardError::Os { call, source },
    }
}

/// A semaphore set, by its identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Semaphores {
    id: i32,
}

/// What `IPC_STAT` tells of a set.
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

/// "It is free, and now it is mine", in one step.
fn take(semaphore: Semaphore) -> [libc::sembuf; 2] {
    [operation(semaphore, 0, false), operation(semaphore, 1, true)]
}

fn semaphore_of(role: Role) -> Semaphore {
    match role {
        Role::Producer => Semaphore::Producer,
        Role::Consumer => Semaphore::Consumer,
    }
}

impl Semaphores {
    pub(super) fn from_id(id: i32) -> Self {
        Semaphores { id }
    }

    pub(crate) fn id(self) -> i32 {
        self.id
    }

    /// The set under a key, if there is one; whether it is ours is for [`stage`](Self::stage) to say.
    pub(super) fn find(key: Key) -> Result<Option<Self>, GuardError> {
        // SAFETY: the call takes no pointers.
        match unsafe { libc::semget(key.get(), 0, 0) } {
            -1 if io::Error::last_os_error().raw_os_error() == Some(libc::ENOENT) => Ok(None),
            -1 => Err(last("semget")),
            id => Ok(Some(Semaphores { id })),
        }
    }

    /// Makes a set under a key, or without one. `None` if there is one under that key already.
    pub(super) fn make(key: Option<Key>, mode: u32) -> Result<Option<Self>, GuardError> {
        let flags = libc::IPC_CREAT | libc::IPC_EXCL | mode as i32;
        // SAFETY: the call takes no pointers.
        match unsafe { libc::semget(key.map_or(libc::IPC_PRIVATE, Key::get), COUNT as i32, flags) } {
            -1 => match io::Error::last_os_error() {
                source if source.raw_os_error() == Some(libc::EEXIST) => Ok(None),
                source => Err(GuardError::Os { call: "semget", source }),
            },
            id => Ok(Some(Semaphores { id })),
        }
    }

    pub(super) fn status(self) -> Result<SetStatus, GuardError> {
        let status = self.read()?;
        let perm = status.sem_perm;
        let permissions = Permissions { uid: perm.uid, gid: perm.gid, mode: mode_of(&perm) & 0o777 };
        Ok(SetStatus { count: status.sem_nsems, permissions, creator: perm.cuid })
    }

    fn read(self) -> Result<SemidDs, GuardError> {
        let mut status = core::mem::MaybeUninit::<SemidDs>::zeroed();
        // SAFETY: IPC_STAT writes one semid_ds to the pointer.
        if unsafe { libc::semctl(self.id, 0, libc::IPC_STAT, status.as_mut_ptr()) } == -1 {
            return Err(last("semctl(IPC_STAT)"));
        }
        // SAFETY: zeroed, and then written by the kernel; all fields are integers.
        Ok(unsafe { status.assume_init() })
    }

    /// Gives the set to another user or group.
    pub(super) fn give(self, uid: Option<u32>, gid: Option<u32>) -> Result<(), GuardError> {
        let mut status = self.read()?;
        status.sem_perm.uid = uid.unwrap_or(status.sem_perm.uid);
        status.sem_perm.gid = gid.unwrap_or(status.sem_perm.gid);
        // SAFETY: IPC_SET reads one semid_ds from the pointer.
        match unsafe { libc::semctl(self.id, 0, libc::IPC_SET, &raw const status) } {
            -1 => Err(last("semctl(IPC_SET)")),
            _ => Ok(()),
        }
    }

    pub(super) fn remove(self) -> Result<(), GuardError> {
        // SAFETY: IPC_RMID takes no pointer.
        match unsafe { libc::semctl(self.id, 0, libc::IPC_RMID) } {
            -1 => Err(last("semctl(IPC_RMID)")),
            _ => Ok(()),
        }
    }

    fn operate(self, operations: &mut [libc::sembuf]) -> Result<(), GuardError> {
        // SAFETY: the pointer and the length are those of one slice. All operations carry IPC_NOWAIT, so that the
        // call returns at once.
        match unsafe { libc::semop(self.id, operations.as_mut_ptr(), operations.len()) } {
            -1 => Err(last("semop")),
            _ => Ok(()),
        }
    }

    fn get(self, semaphore: Semaphore) -> Result<i32, GuardError> {
        self.ask(semaphore, libc::GETVAL, "semctl(GETVAL)")
    }

    fn ask(self, semaphore: Semaphore, command: i32, call: &'static str) -> Result<i32, GuardError> {
        // SAFETY: GETVAL and GETPID take no pointer.
        match unsafe { libc::semctl(self.id, semaphore as i32, command) } {
            -1 => Err(last(call)),
            value => Ok(value),
        }
    }

    /// Also forgets what any process would undo to this semaphore.
    fn set(self, semaphore: Semaphore, value: i32) -> Result<(), GuardError> {
        // SAFETY: SETVAL takes an int, no pointer.
        match unsafe { libc::semctl(self.id, semaphore as i32, libc::SETVAL, value) } {
            -1 => Err(last("semctl(SETVAL)")),
            _ => Ok(()),
        }
    }

    /// Waits until nobody else makes, opens or removes the pipe, and keeps everybody else from it until the guard is
    /// dropped. The kernel ends it if we die. `Taken` if somebody does so for longer than `patience`.
    pub(super) fn lock(self, patience: Duration) -> Result<InitLock, GuardError> {
        let start = Instant::now();
        let mut pause = Duration::from_micros(20);
        loop {
            match self.operate(&mut take(Semaphore::Init)) {
                Ok(()) => return Ok(InitLock { set: self }),
                Err(GuardError::Taken) if start.elapsed() < patience => thread::sleep(pause),
                Err(error) => return Err(error),
            }
            pause = (pause * 2).min(Duration::from_millis(5));
        }
    }

    /// [`lock`](Self::lock) with the patience of a call that somebody waits for.
    pub(super) fn lock_patiently(self) -> Result<InitLock, GuardError> {
        self.lock(PATIENCE)
    }

    /// A hint at who holds the lock.
    pub(super) fn locker(self) -> Option<u32> {
        self.pid(Semaphore::Init)
    }

    pub(super) fn stage(self) -> Result<Stage, GuardError> {
        self.get(Semaphore::Stage).map(Stage::of)
    }

    /// Notes the stage, and who has brought it there. The caller holds the lock.
    pub(super) fn set_stage(self, stage: Stage) -> Result<(), GuardError> {
        self.set(Semaphore::Stage, stage.value())
    }

    /// Who has brought the segment to its stage.
    pub(super) fn stager(self) -> Option<u32> {
        self.pid(Semaphore::Stage)
    }

    /// The segment that this set guards.
    pub(super) fn segment(self) -> Result<i32, GuardError> {
        SEGMENT.iter().rev().try_fold(0, |id, &semaphore| Ok(id << BITS | self.get(semaphore)?))
    }

    /// Whether this set guards the segment with that identifier.
    pub(super) fn guards(self, id: i32) -> Result<bool, GuardError> {
        Ok(self.stage()? == Stage::Made && self.segment()? == id)
    }

    /// Notes the segment that this set guards. The caller holds the lock.
    pub(super) fn set_segment(self, id: i32) -> Result<(), GuardError> {
        let mask = (1 << BITS) - 1;
        SEGMENT.iter().zip(0..).try_for_each(|(&semaphore, i)| self.set(semaphore, id >> (i * BITS) & mask))
    }

    /// Claims a role, until [`release`](Self::release) or our death. `Taken` if somebody holds it.
    pub(crate) fn claim(self, role: Role) -> Result<(), GuardError> {
        self.operate(&mut take(semaphore_of(role)))
    }

    /// Claims both roles at once.
    pub(super) fn claim_both(self) -> Result<(), GuardError> {
        let [a, b] = take(Semaphore::Producer);
        let [c, d] = take(Semaphore::Consumer);
        let mut operations: [_; OPERATIONS as usize] = [a, b, c, d];
        self.operate(&mut operations)
    }

    /// Gives our claim back.
    pub(crate) fn release(self, role: Role) -> Result<(), GuardError> {
        self.operate(&mut [operation(semaphore_of(role), -1, true)])
    }

    /// Frees a role whose holder cannot use it any more. The only way that is safe: it also clears what the holder's
    /// death would undo, which a decrement would leave to hit the next holder.
    pub(super) fn free_stale(self, role: Role) -> Result<(), GuardError> {
        self.set(semaphore_of(role), 0)
    }

    pub(crate) fn is_free(self, role: Role) -> Result<bool, GuardError> {
        self.get(semaphore_of(role)).map(|value| value == 0)
    }

    /// A hint at who holds a role: the process that last claimed or released it, if it is visible from here.
    pub(crate) fn holder(self, role: Role) -> Option<u32> {
        self.pid(semaphore_of(role))
    }

    fn pid(self, semaphore: Semaphore) -> Option<u32> {
        self.ask(semaphore, libc::GETPID, "semctl(GETPID)").ok().filter(|&pid| pid > 0).map(|pid| pid as u32)
    }

    /// Counts one more open handle, until [`leave`](Self::leave) or our death.
    fn enter(self) -> Result<(), GuardError> {
        self.operate(&mut [operation(Semaphore::Guests, 1, true)])
    }

    pub(super) fn leave(self) -> Result<(), GuardError> {
        self.operate(&mut [operation(Semaphore::Guests, -1, true)])
    }

    /// Whether a process creates, opens or removes the pipe at this moment.
    pub(super) fn is_locked(self) -> Result<bool, GuardError> {
        self.get(Semaphore::Init).map(|value| value != 0)
    }

    /// How many handles are open.
    pub(super) fn guests(self) -> Result<i32, GuardError> {
        self.get(Semaphore::Guests)
    }
}

/// An open handle that is being made: counted before it attaches, so that whoever claims a role meanwhile knows of it.
#[derive(Debug)]
pub(super) struct Guest {
    set: Semaphores,
}

impl Guest {
    pub(super) fn enter(set: Semaphores) -> Result<Self, GuardError> {
        set.enter()?;
        Ok(Guest { set })
    }

    /// The handle exists, and leaves when it goes.
    pub(super) fn stay(self) {
        std::mem::forget(self);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It fails only if the set was removed.
        let _ = self.set.leave();
    }
}

/// Nobody else makes, opens or removes the pipe as long as this exists.
#[derive(Debug)]
pub(super) struct InitLock {
    set: Semaphores,
}

impl InitLock {
    /// What the kernel has counted: 1, for us.
    pub(super) fn count(&self) -> Result<i32, GuardError> {
        self.set.get(Semaphore::Init)
    }

    /// Counts one more, until the process ends that does so.
    pub(super) fn count_once_more(&self) -> Result<(), GuardError> {
        self.set.operate(&mut [operation(Semaphore::Init, 1, true)])
    }

    /// Takes back what a process has counted that has ended.
    pub(super) fn give_back_one(&self) -> Result<(), GuardError> {
        self.set.operate(&mut [operation(Semaphore::Init, -1, false)])
    }
}

impl Drop for InitLock {
    fn drop(&mut self) {
        // It fails only if the set was removed, and the lock with it.
        let _ = self.set.operate(&mut [operation(Semaphore::Init, -1, true)]);
    }
}
