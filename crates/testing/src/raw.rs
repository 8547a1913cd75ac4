//! Raw access to shared memory and semaphores, without the library.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};
use std::sync::atomic::AtomicU64;

/// Adds to a semaphore, with undo at the end of this process.
pub fn change(set: i32, semaphore: u16, by: i16) -> io::Result<()> {
    let flags = (libc::IPC_NOWAIT | libc::SEM_UNDO) as i16;
    let mut operation = libc::sembuf { sem_num: semaphore, sem_op: by, sem_flg: flags };
    // SAFETY: one operation, which is live.
    match unsafe { libc::semop(set, &raw mut operation, 1) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// A writable mapping of a segment or a file, unmapped when dropped.
#[derive(Debug)]
pub struct Attached {
    base: *mut u8,
    size: usize,
    /// Maps a file, not a System V segment.
    is_mapped: bool,
}

// SAFETY: an address range belongs to the process, not to a thread.
unsafe impl Send for Attached {}
// SAFETY: other processes may write shared memory at any time anyway. All accesses are volatile or atomic, except those whose caller
// guarantees that no one else accesses the bytes.
unsafe impl Sync for Attached {}

impl Attached {
    /// Attaches a segment.
    pub fn new(id: i32) -> Self {
        let size = status(id).expect("a segment to attach").shm_segsz;
        // SAFETY: the kernel chooses the address.
        let base = unsafe { libc::shmat(id, std::ptr::null(), 0) };
        assert_ne!(base as isize, -1, "shmat: {}", io::Error::last_os_error());
        Attached { base: base.cast(), size, is_mapped: false }
    }

    /// Maps a whole file.
    pub fn map(file: &File) -> Self {
        let size = file.metadata().unwrap().len() as usize;
        let (protection, none) = (libc::PROT_READ | libc::PROT_WRITE, std::ptr::null_mut());
        // SAFETY: the kernel chooses the address.
        let base = unsafe { libc::mmap(none, size, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        assert_ne!(base, libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
        Attached { base: base.cast(), size, is_mapped: true }
    }

    pub fn size(&self) -> usize {
        self.size
    }

    pub fn as_ptr(&self) -> *mut u8 {
        self.base
    }

    /// The word at `offset` bytes.
    pub fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset % 8 == 0 && offset + 8 <= self.size);
        // SAFETY: within the mapping, which lives as long as the reference, and aligned. Its users access it atomically.
        unsafe { AtomicU64::from_ptr(self.base.add(offset).cast()) }
    }

    /// The value of the word at `offset` bytes.
    pub fn get(&self, offset: usize) -> u64 {
        assert!(offset % 8 == 0 && offset + 8 <= self.size);
        // SAFETY: within the mapping and aligned; volatile, since other processes write it.
        unsafe { self.base.add(offset).cast::<u64>().read_volatile() }
    }

    pub fn set(&self, offset: usize, value: u64) {
        assert!(offset % 8 == 0 && offset + 8 <= self.size);
        // SAFETY: as in `get`.
        unsafe { self.base.add(offset).cast::<u64>().write_volatile(value) }
    }

    /// Sets half a word.
    pub fn set_u32(&self, offset: usize, value: u32) {
        assert!(offset % 4 == 0 && offset + 4 <= self.size);
        // SAFETY: as in `get`.
        unsafe { self.base.add(offset).cast::<u32>().write_volatile(value) }
    }

    /// Frees the memory of these bytes. They then read as zero.
    pub fn punch(&self, offset: usize, length: usize) {
        assert!(offset + length <= self.size);
        // SAFETY: within the mapping.
        let done = unsafe { libc::madvise(self.base.add(offset).cast(), length, libc::MADV_REMOVE) };
        assert_eq!(done, 0, "madvise(MADV_REMOVE): {}", io::Error::last_os_error());
    }

    pub fn bytes(&self) -> Vec<u8> {
        // SAFETY: within the mapping.
        (0..self.size).map(|i| unsafe { self.base.add(i).read_volatile() }).collect()
    }

    /// Copies the bytes at `offset`. The caller guarantees that no one writes them meanwhile.
    pub fn copy_to(&self, offset: usize, to: &mut [u8]) {
        assert!(offset + to.len() <= self.size);
        // SAFETY: within the mapping, and the caller knows that all its users are stopped.
        unsafe { self.base.add(offset).copy_to_nonoverlapping(to.as_mut_ptr(), to.len()) }
    }

    /// Writes the bytes at `offset`. The caller guarantees that no one reads or writes them meanwhile.
    pub fn copy_from(&self, offset: usize, from: &[u8]) {
        assert!(offset + from.len() <= self.size);
        // SAFETY: within the mapping, and the caller knows that it has no other user.
        unsafe { self.base.add(offset).copy_from_nonoverlapping(from.as_ptr(), from.len()) }
    }

    /// Whether the bytes at `offset` differ from these. The caller guarantees that no one writes them meanwhile.
    pub fn differs(&self, offset: usize, from: &[u8]) -> bool {
        assert!(offset + from.len() <= self.size);
        // SAFETY: as in `copy_to`.
        unsafe { libc::memcmp(self.base.add(offset).cast(), from.as_ptr().cast(), from.len()) != 0 }
    }

    pub fn fill(&self, pattern: impl Fn(usize) -> u8) {
        for i in 0..self.size {
            // SAFETY: within the mapping.
            unsafe { self.base.add(i).write_volatile(pattern(i)) }
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // SAFETY: the mapping has no other users: references into it have ended.
        unsafe {
            match self.is_mapped {
                true => libc::munmap(self.base.cast(), self.size),
                false => libc::shmdt(self.base.cast()),
            }
        };
    }
}

pub fn find_segment(key: i32) -> Option<i32> {
    // SAFETY: no pointers.
    Some(unsafe { libc::shmget(key, 0, 0) }).filter(|&id| id != -1)
}

pub fn find_set(key: i32) -> Option<i32> {
    // SAFETY: no pointers.
    Some(unsafe { libc::semget(key, 0, 0) }).filter(|&id| id != -1)
}

/// Creates a segment of zeros.
pub fn make_segment(key: i32, size: usize, mode: i32) -> i32 {
    // SAFETY: no pointers.
    let id = unsafe { libc::shmget(key, size, libc::IPC_CREAT | libc::IPC_EXCL | mode) };
    assert_ne!(id, -1, "shmget: {}", io::Error::last_os_error());
    id
}

/// Creates a set with all semaphores zero.
pub fn make_set(key: i32, count: i32) -> i32 {
    // SAFETY: no pointers.
    let id = unsafe { libc::semget(key, count, libc::IPC_CREAT | libc::IPC_EXCL | 0o600) };
    assert_ne!(id, -1, "semget: {}", io::Error::last_os_error());
    id
}

/// A semid_ds, which the libc crate lacks for some C libraries: its first field, and more than enough space for the rest.
#[repr(C)]
struct StatusOfSet {
    sem_perm: libc::ipc_perm,
    rest: [u64; 16],
}

pub fn set_mode_of_set(id: i32, mode: u16) {
    // SAFETY: all fields are integers.
    let mut status: StatusOfSet = unsafe { std::mem::zeroed() };
    // SAFETY: IPC_STAT writes one semid_ds, and IPC_SET reads one.
    let done = unsafe {
        libc::semctl(id, 0, libc::IPC_STAT, &raw mut status);
        status.sem_perm.mode = mode as _;
        libc::semctl(id, 0, libc::IPC_SET, &raw mut status)
    };
    assert_ne!(done, -1, "semctl(IPC_SET): {}", io::Error::last_os_error());
}

pub fn remove_segment(id: i32) {
    // SAFETY: IPC_RMID takes no pointer.
    unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
}

pub fn remove_set(id: i32) {
    // SAFETY: IPC_RMID takes no pointer.
    unsafe { libc::semctl(id, 0, libc::IPC_RMID) };
}

/// The kernel's status of a segment, if it exists.
pub fn status(id: i32) -> Option<libc::shmid_ds> {
    // SAFETY: all fields are integers.
    let mut status: libc::shmid_ds = unsafe { std::mem::zeroed() };
    // SAFETY: IPC_STAT writes one shmid_ds.
    let done = unsafe { libc::shmctl(id, libc::IPC_STAT, &raw mut status) };
    (done != -1).then_some(status)
}

/// Whether a word that claims a role of a System V pipe names a process that still has its memory.
pub fn claim_stands(word: u64) -> bool {
    let (id, size) = (word as u32 as i32, (word >> 32) as usize & 0x1fff);
    status(id).is_some_and(|status| status.shm_segsz == size && u32::from(status.shm_perm.mode) & 0o1000 != 0)
}

/// The number of attachments of a segment.
pub fn attached(id: i32) -> u64 {
    status(id).expect("a segment").shm_nattch
}

/// Seals that permanently forbid a resize of a memfd.
pub const SEALS: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// Creates a memfd of zeros with these seals.
pub fn make_memfd(size: usize, seals: i32) -> File {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name has a terminator; the file owns the descriptor from here on.
    let file = unsafe { File::from_raw_fd(libc::memfd_create(c"test".as_ptr(), flags)) };
    file.set_len(size as u64).unwrap();
    // SAFETY: no pointers.
    let sealed = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) };
    assert_ne!(sealed, -1, "fcntl(F_ADD_SEALS): {}", io::Error::last_os_error());
    file
}

/// Whether another open file description has locked this byte of a file.
pub fn is_locked(file: BorrowedFd<'_>, byte: i64) -> bool {
    let (l_type, l_whence) = (libc::F_WRLCK as i16, libc::SEEK_SET as i16);
    let mut lock = libc::flock { l_type, l_whence, l_start: byte, l_len: 1, l_pid: 0 };
    // SAFETY: the pointer is to a lock.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    assert_ne!(done, -1, "fcntl(F_OFD_GETLK): {}", io::Error::last_os_error());
    lock.l_type != libc::F_UNLCK as i16
}

/// The value of one semaphore.
pub fn semaphore(set: i32, number: u16) -> i32 {
    // SAFETY: GETVAL takes no pointer.
    unsafe { libc::semctl(set, number.into(), libc::GETVAL) }
}

pub fn set_semaphore(set: i32, number: u16, value: i32) {
    // SAFETY: SETVAL takes a number.
    let done = unsafe { libc::semctl(set, number.into(), libc::SETVAL, value) };
    assert_ne!(done, -1, "semctl(SETVAL): {}", io::Error::last_os_error());
}

/// Adds one to a semaphore until this process ends.
pub fn hold_semaphore(set: i32, number: u16) {
    change(set, number, 1).expect("semop");
}

/// The identifiers of a System V pipe.
pub struct Ids {
    pub key: i32,
    pub shm_id: i32,
    pub sem_id: i32,
}

pub fn ids(seen: &shmpipe::Snapshot) -> Ids {
    match seen.object {
        shmpipe::Object::SysV { key, shm_id, sem_id: Some(sem_id) } => Ids { key, shm_id, sem_id },
        other => panic!("{other:?}"),
    }
}
