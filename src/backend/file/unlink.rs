//! Removing the file of a pipe.

use super::Source;
use super::candidate::{Candidate, denied};
use super::descriptor::is_at;
use super::lock::{Byte, LockMode, is_locked_by_other, lock, unlock};
use super::open::LOCK_TIMEOUT;
use crate::address::Address;
use crate::error::{Mismatch, SetupError, failed};
use crate::protocol::liveness::Role;
use crate::segment::identity::Identity;
use crate::segment::{
    Access, AttemptError, ROLE_RETRY_PAUSE, Request, may_become_free, recorded_holder, retry, role_taken,
};
use crate::sys::fork::NoFork;
use std::fs::{self, File};
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// The call that failed, for errors.
const LOCKING: &str = "locking a byte of the file";

/// Removes the pipe at `address`; with `force` also while a role is held.
pub(crate) fn unlink(address: &Address, force: bool) -> Result<(), SetupError> {
    let request = Request::new(address, &[]);
    match Source::of(&address.0).map_err(failed("finding the working directory"))? {
        Source::Named(path) => {
            let names = if force { u64::MAX } else { 1 };
            let candidate = || Candidate::at(&request, &path, Access::ReadWrite, names, |_, _| Ok(()));
            retry(address, || remove(&request, candidate()?, force))
        }
        // A memfd has no name to remove. It disappears with the last process that has it.
        Source::NewMemfd | Source::Descriptor(_) | Source::Served(_) => Err(request.cannot_remove()),
    }
}

/// Removes a candidate file if it holds a pipe; with `force` also a damaged one, or one of another version.
pub(super) fn remove(request: &Request<'_>, candidate: Candidate, force: bool) -> Result<(), AttemptError> {
    let header = match candidate.peek(request) {
        Err(SetupError::Incompatible(Mismatch::ByteOrder)) if force => None,
        header => Some(header?),
    };
    if let Some(header) = header.filter(|_| !force) {
        request.identify(&header, candidate.metadata.len())?;
    }
    // A descriptor holds the locks below. It is closed before forks are allowed again.
    let (_no_fork, candidate) = lock_roles_for_removal(request, candidate, force)?;
    let path = candidate.path.as_ref().expect("only what has a name is removed");
    if !is_at(&candidate.file, path).map_err(failed("stat"))? {
        return Err(AttemptError::Retry);
    }
    fs::remove_file(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => AttemptError::Retry,
        io::ErrorKind::PermissionDenied => AttemptError::Failed(denied(request, None)),
        _ => AttemptError::Failed(failed("unlink")(source)),
    })
}

/// Locks the file against removal by others, and both roles unless `force` is set, until the file is closed. Waits for a role whose
/// holder is dead.
fn lock_roles_for_removal(
    request: &Request<'_>,
    mut candidate: Candidate,
    force: bool,
) -> Result<(NoFork, Candidate), SetupError> {
    let mut found_taken = None;
    loop {
        let (no_fork, locked) = lock_for_removal(request, candidate, force)?;
        let taken = if force { None } else { lock_both_roles(&locked.file).map_err(failed(LOCKING))? };
        let Some(role) = taken else { return Ok((no_fork, locked)) };
        // Read again each time: another process may have claimed the role meanwhile.
        let header = locked.peek(request)?;
        if !may_become_free(header.header(), role, *found_taken.get_or_insert_with(Instant::now)) {
            let header = header.header();
            return Err(role_taken(&Identity::read(header), role, recorded_holder(header, role)));
        }
        // Nothing stays locked, and forks are allowed, while we wait.
        for byte in [Byte::Producer, Byte::Consumer, Byte::Remover] {
            unlock(&locked.file, byte).map_err(failed(LOCKING))?;
        }
        drop(no_fork);
        candidate = locked;
        thread::sleep(ROLE_RETRY_PAUSE);
    }
}

/// Locks the file against removal by others until it is closed.
fn lock_for_removal(
    request: &Request<'_>,
    candidate: Candidate,
    force: bool,
) -> Result<(NoFork, Candidate), SetupError> {
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        let no_fork = NoFork::now();
        if lock(&candidate.file, Byte::Remover, LockMode::Exclusive).map_err(failed(LOCKING))? {
            return Ok((no_fork, candidate));
        }
        // A process that may only read the file can hold a shared lock, which blocks an ordinary removal but not a forced one.
        if force
            && !is_locked_by_other(&candidate.file, Byte::Remover, LockMode::Shared)
                .map_err(failed(LOCKING))?
        {
            return Ok((no_fork, candidate));
        }
        drop(no_fork);
        if Instant::now() >= deadline {
            return Err(SetupError::Busy { address: request.address.clone(), pid: None });
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Locks both roles, so that no process can claim one meanwhile. A later claim finds the file gone. Returns a role that is taken,
/// if one is.
fn lock_both_roles(file: &File) -> io::Result<Option<Role>> {
    // Query both before locking either: a process that claims the free role must not fail because of a removal that fails anyway.
    for role in [Role::Producer, Role::Consumer] {
        if is_locked_by_other(file, role.into(), LockMode::Shared)? {
            return Ok(Some(role));
        }
    }
    for role in [Role::Producer, Role::Consumer] {
        if !lock(file, role.into(), LockMode::Exclusive)? {
            return Ok(Some(role));
        }
    }
    Ok(None)
}
