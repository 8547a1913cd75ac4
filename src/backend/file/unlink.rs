//! Removing the file of a pipe.

use super::Source;
use super::descriptor::is_at;
use super::found::{Found, denied};
use super::lock::{Byte, Mode, is_kept, lock};
use super::open::PATIENCE;
use crate::address::Address;
use crate::error::{SetupError, failed};
use crate::os::fork::NoFork;
use crate::protocol::layout::Header;
use crate::protocol::peer::Role;
use crate::segment::{Access, Asked, Trouble, noted, persist};
use std::fs::{self, File};
use std::io;
use std::thread;
use std::time::{Duration, Instant};

const LOCKING: &str = "locking a byte of the file";

/// Removes the pipe at `address`; with `force` also while a role is held.
pub(crate) fn unlink(address: &Address, force: bool) -> Result<(), SetupError> {
    let asked = Asked::new(address, &[]);
    match Source::of(&address.0).map_err(failed("finding the working directory"))? {
        Source::Named(path) => {
            let names = if force { u64::MAX } else { 1 };
            let found = || Found::at(&asked, &path, Access::ReadWrite, names, |_, _| Ok(()));
            persist(address, || remove(&asked, found()?, force))
        }
        // It has no name, and goes with the last who has it.
        Source::NewMemfd | Source::Descriptor(_) | Source::Served(_) => Err(asked.cannot_make()),
    }
}

/// Removes a file that was found, if it is a pipe's. What is damaged, or of another version, goes if one insists.
pub(super) fn remove(asked: &Asked<'_>, found: Found, force: bool) -> Result<(), Trouble> {
    let seen = match found.peek(asked) {
        Err(SetupError::ByteOrder) if force => None,
        seen => Some(seen?),
    };
    let whose = seen.filter(|_| !force);
    if let Some(seen) = &whose {
        asked.identify(seen, found.metadata.len())?;
    }
    // The locks of a remover are held by a descriptor, which is closed before forks are let in again.
    let (_no_fork, found) = removing(asked, found, force)?;
    let path = found.path.as_ref().expect("only what has a name is removed");
    if let Some(seen) = &whose {
        vacate(seen.header(), &found.file)?;
    }
    if !is_at(&found.file, path).map_err(failed("stat"))? {
        return Err(Trouble::Again);
    }
    fs::remove_file(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Trouble::Again,
        io::ErrorKind::PermissionDenied => Trouble::Failed(denied(asked, None)),
        _ => Trouble::Failed(failed("unlink")(source)),
    })
}

/// Keeps other removers out until the file is closed.
fn removing(asked: &Asked<'_>, found: Found, force: bool) -> Result<(NoFork, Found), SetupError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let no_fork = NoFork::now();
        if lock(&found.file, Byte::Remover, Mode::Exclusive).map_err(failed(LOCKING))? {
            return Ok((no_fork, found));
        }
        // Who may only read the file can keep it from being removed in order, and not from being removed.
        if force && !is_kept(&found.file, Byte::Remover, Mode::Shared).map_err(failed(LOCKING))? {
            return Ok((no_fork, found));
        }
        drop(no_fork);
        if Instant::now() >= deadline {
            return Err(SetupError::Busy { address: asked.address.clone(), pid: None });
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Takes both roles, so that nobody claims one meanwhile: who claims later finds the file gone.
fn vacate(header: &Header, file: &File) -> Result<(), SetupError> {
    let taken = |role| Err(SetupError::RoleTaken { role, pid: noted(header, role) });
    // Asked before any is taken: who comes for the one that is free is not to be refused for our sake.
    for role in [Role::Producer, Role::Consumer] {
        if is_kept(file, role.into(), Mode::Shared).map_err(failed(LOCKING))? {
            return taken(role);
        }
    }
    for role in [Role::Producer, Role::Consumer] {
        if !lock(file, role.into(), Mode::Exclusive).map_err(failed(LOCKING))? {
            return taken(role);
        }
    }
    Ok(())
}
