//! The roles of a pipe in a file: locks on its bytes.

use super::descriptor::{compare_at, is_at};
use super::lock::{Byte, Held, LockMode, is_locked_by_other, lock, unlock};
use crate::address::Address;
use crate::error::{Lost, SetupError};
use crate::options::Options;
use crate::protocol::layout::Header;
use crate::protocol::liveness::Role;
use crate::segment::{RoleLock, RoleLockError, Segment};
use crate::sys::fork::NoFork;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The locks of one open handle.
#[derive(Debug)]
pub(super) struct FileRoleLock {
    /// Carries no locks, since a child may inherit it and other processes may receive it.
    file: File,
    /// The absolute path of the file, if it has a name.
    path: Option<PathBuf>,
    /// Bytes of the segment.
    size: u64,
    /// Bytes of a page of the file.
    page: u64,
    /// The shared lock of an open handle; `None` for a view, which takes no locks.
    attachment: Mutex<Option<Held>>,
    roles: [Mutex<Option<Held>>; 2],
}

fn lock_mutex(held: &Mutex<Option<Held>>) -> MutexGuard<'_, Option<Held>> {
    // Every change under the lock is a single assignment, so a panic cannot leave it half done.
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(call: &'static str) -> impl Fn(io::Error) -> RoleLockError {
    move |source| RoleLockError::Os { call, source }
}

impl FileRoleLock {
    /// The locks of a pipe's file, which has `size` bytes in pages of `page` bytes.
    pub(super) fn new(
        file: File,
        path: Option<PathBuf>,
        size: u64,
        page: u64,
        attachment: Option<Held>,
    ) -> Self {
        FileRoleLock { file, path, size, page, attachment: Mutex::new(attachment), roles: Default::default() }
    }

    fn role(&self, role: Role) -> MutexGuard<'_, Option<Held>> {
        lock_mutex(&self.roles[role as usize])
    }

    /// Fails with `Gone` if a named file was unlinked or truncated.
    fn check_file(&self) -> Result<(), RoleLockError> {
        if self.path.is_none() {
            return Ok(());
        }
        let now = self.file.metadata().map_err(failed("fstat"))?;
        if now.nlink() == 0 || now.len() < self.size { Err(RoleLockError::Gone) } else { Ok(()) }
    }

    /// Removes the file if no handle has it open and `is_over` returns true.
    fn remove_if(&self, is_over: &dyn Fn() -> bool) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        // Of two processes that detach at the same moment, one gets the exclusive lock, unless a third that opens the pipe keeps
        // it from both. While it is held, processes that open the pipe wait, and then find the file gone.
        let deadline = Instant::now() + Duration::from_millis(100);
        loop {
            // A descriptor holds these locks, and a forked child would copy it: release them before forks are allowed again.
            let _no_fork = NoFork::now();
            let _locks = UnlockOnDrop(&self.file);
            if !lock(&self.file, Byte::Attachments, LockMode::Exclusive)? {
                return Ok(());
            }
            if lock(&self.file, Byte::Remover, LockMode::Exclusive)? {
                if is_over() && is_at(&self.file, path)? {
                    std::fs::remove_file(path)?;
                }
                return Ok(());
            }
            // Another process is trying to remove it, and may fail.
            if Instant::now() >= deadline {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Releases the locks of `remove_if`.
struct UnlockOnDrop<'a>(&'a File);

impl Drop for UnlockOnDrop<'_> {
    fn drop(&mut self) {
        let _ = unlock(self.0, Byte::Attachments);
        let _ = unlock(self.0, Byte::Remover);
    }
}

impl RoleLock for FileRoleLock {
    fn claim(&self, _: &Header, role: Role) -> Result<(), RoleLockError> {
        let mut ours = self.role(role);
        let held = Held::take(&self.file, self.page, role.into(), LockMode::Exclusive)
            .map_err(failed("locking a byte of the file"))?
            .ok_or(RoleLockError::Taken)?;
        // A process that removes the pipe holds both roles. So a claim that passes this check is on a pipe that still exists.
        self.check_file()?;
        *ours = Some(held);
        Ok(())
    }

    fn release(&self, _: &Header, role: Role) -> Result<(), RoleLockError> {
        *self.role(role) = None;
        self.check_file()
    }

    fn holds(&self, header: &Header, role: Role) -> Result<bool, RoleLockError> {
        Ok(!self.is_free(header, role)?)
    }

    fn is_free(&self, _: &Header, role: Role) -> Result<bool, RoleLockError> {
        self.check_file()?;
        // Querying with a shared lock sees only exclusive locks, which need write permission: a process that may only read the
        // file can keep others from claiming a role, but cannot make a dead holder look alive.
        let held = is_locked_by_other(&self.file, role.into(), LockMode::Shared)
            .map_err(failed("fcntl(F_OFD_GETLK)"))?;
        Ok(!held)
    }

    fn loss(&self) -> Lost {
        match self.path.as_ref().map(|path| compare_at(&self.file, path)) {
            Some(Ok(Some(false))) => Lost::Replaced,
            _ => Lost::Removed,
        }
    }

    fn holder(&self, _: &Header, _: Role) -> Option<u32> {
        None
    }

    fn detach(&self, is_over: Option<&dyn Fn() -> bool>) {
        *lock_mutex(&self.attachment) = None;
        if let Some(is_over) = is_over {
            let _ = self.remove_if(is_over);
        }
    }

    fn reopen(&self, address: &Address, options: &Options) -> Result<Segment, SetupError> {
        super::open::reopen(&self.file, self.path.clone(), address, options)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}
