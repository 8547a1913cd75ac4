//! The roles of a pipe in a file: locks on its bytes.

use super::descriptor::{is_at, whether_at};
use super::lock::{Byte, Held, Mode, is_kept, lock, unlock};
use crate::address::Address;
use crate::error::{Loss, SetupError};
use crate::options::Options;
use crate::os::fork::NoFork;
use crate::protocol::peer::Role;
use crate::segment::{Guard, GuardError, Segment};
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
pub(super) struct LockGuard {
    /// Without locks: a child may inherit it, and others may be given it.
    file: File,
    /// Where the file was found, if it has a name.
    path: Option<PathBuf>,
    /// Bytes of the file, and of a page of it.
    size: u64,
    page: u64,
    /// What a watcher does not have.
    guest: Mutex<Option<Held>>,
    roles: [Mutex<Option<Held>>; 2],
}

fn content(held: &Mutex<Option<Held>>) -> MutexGuard<'_, Option<Held>> {
    // Nothing that is done under the lock can be left half done.
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(call: &'static str) -> impl Fn(io::Error) -> GuardError {
    move |source| GuardError::Os { call, source }
}

impl LockGuard {
    /// For the file of a pipe, of `size` bytes in pages of `page`.
    pub(super) fn new(file: File, path: Option<PathBuf>, size: u64, page: u64, guest: Option<Held>) -> Self {
        LockGuard { file, path, size, page, guest: Mutex::new(guest), roles: Default::default() }
    }

    fn role(&self, role: Role) -> MutexGuard<'_, Option<Held>> {
        content(&self.roles[role as usize])
    }

    /// Fails if a named file has lost its name, or what makes it the pipe's.
    fn check(&self) -> Result<(), GuardError> {
        if self.path.is_none() {
            return Ok(());
        }
        let now = self.file.metadata().map_err(failed("fstat"))?;
        if now.nlink() == 0 || now.len() < self.size { Err(GuardError::Gone) } else { Ok(()) }
    }

    /// Removes the file if nobody has it open and `is_over`.
    fn remove_if(&self, is_over: &dyn Fn() -> bool) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        // Of two that leave at the same moment one gets it, or somebody who comes keeps both from it. It keeps those who
        // come waiting, and they find the file gone.
        let deadline = Instant::now() + Duration::from_millis(100);
        loop {
            // Held by a descriptor, of which children may have a copy: they are given back before forks are let in again.
            let _no_fork = NoFork::now();
            let _locks = Given(&self.file);
            if !lock(&self.file, Byte::Guests, Mode::Exclusive)? {
                return Ok(());
            }
            if lock(&self.file, Byte::Remover, Mode::Exclusive)? {
                if is_over() && is_at(&self.file, path)? {
                    std::fs::remove_file(path)?;
                }
                return Ok(());
            }
            // Somebody else wants to remove it, and may find that he may not.
            if Instant::now() >= deadline {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Gives back the locks of a leaver.
struct Given<'a>(&'a File);

impl Drop for Given<'_> {
    fn drop(&mut self) {
        let _ = unlock(self.0, Byte::Guests);
        let _ = unlock(self.0, Byte::Remover);
    }
}

impl Guard for LockGuard {
    fn claim(&self, role: Role) -> Result<(), GuardError> {
        let mut ours = self.role(role);
        let held = Held::take(&self.file, self.page, role.into(), Mode::Exclusive)
            .map_err(failed("locking a byte of the file"))?
            .ok_or(GuardError::Taken)?;
        // Whoever removes a pipe holds both roles: after a claim it is settled whether it was removed.
        self.check()?;
        *ours = Some(held);
        Ok(())
    }

    fn release(&self, role: Role) -> Result<(), GuardError> {
        *self.role(role) = None;
        self.check()
    }

    fn is_free(&self, role: Role) -> Result<bool, GuardError> {
        self.check()?;
        // Who may read the file alone can keep others from claiming a role, but cannot make a dead one live.
        let held = is_kept(&self.file, role.into(), Mode::Shared).map_err(failed("fcntl(F_OFD_GETLK)"))?;
        Ok(!held)
    }

    fn loss(&self) -> Loss {
        match self.path.as_ref().map(|path| whether_at(&self.file, path)) {
            Some(Ok(Some(false))) => Loss::Replaced,
            _ => Loss::Removed,
        }
    }

    fn holder(&self, _: Role) -> Option<u32> {
        None
    }

    fn leave(&self, is_over: Option<&dyn Fn() -> bool>) {
        *content(&self.guest) = None;
        if let Some(is_over) = is_over {
            let _ = self.remove_if(is_over);
        }
    }

    fn again(&self, address: &Address, options: &Options) -> Result<Segment, SetupError> {
        super::open::again(&self.file, self.path.clone(), address, options)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }
}
