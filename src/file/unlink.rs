//! Removing the file of a pipe.

use super::Source;
use super::descriptor::is_at;
use super::lock::{Byte, Mode, lock};
use super::open::Found;
use crate::address::Address;
use crate::error::SetupError;
use crate::fork::NoFork;
use crate::peer::Role;
use crate::segment::{Access, Asked, Trouble, noted, persist};
use std::fs;
use std::io;

fn failed(call: &'static str) -> impl Fn(io::Error) -> SetupError {
    move |source| SetupError::Os { call, source }
}

/// Removes the pipe at `address`; with `force` also while a role is held.
pub(crate) fn unlink(address: &Address, force: bool) -> Result<(), SetupError> {
    let asked = Asked::new(address, &[]);
    match Source::of(&address.0).map_err(failed("finding the working directory"))? {
        Source::Named(path) => {
            persist(address, || remove(&asked, &Found::at(&asked, &path, Access::ReadWrite)?, force))
        }
        // It has no name, and goes with the last who has it.
        Source::NewMemfd | Source::Descriptor(_) | Source::Served(_) => Err(asked.cannot_make()),
    }
}

/// Removes a file that was found, if it is a pipe's. What is damaged, or of another version, goes if one insists.
pub(super) fn remove(asked: &Asked<'_>, found: &Found, force: bool) -> Result<(), Trouble> {
    let path = found.path.as_ref().expect("only what has a name is removed");
    // The locks are held by a descriptor.
    let _no_fork = NoFork::now();
    let seen = match found.peek(asked) {
        Err(SetupError::ByteOrder) if force => None,
        seen => Some(seen?),
    };
    if let (Some(seen), false) = (&seen, force) {
        asked.identify(seen, found.metadata.len())?;
        // Both, so that nobody claims one meanwhile: who claims later finds the file gone.
        for role in [Role::Producer, Role::Consumer] {
            let free = lock(&found.file, Byte::from(role), Mode::Exclusive);
            if !free.map_err(failed("fcntl(F_OFD_SETLK)"))? {
                return Err(SetupError::RoleTaken { role, pid: noted(seen.header(), role) }.into());
            }
        }
    }
    if !is_at(&found.file, path).map_err(failed("stat"))? {
        return Err(Trouble::Again);
    }
    fs::remove_file(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Trouble::Again,
        io::ErrorKind::PermissionDenied => Trouble::Failed(SetupError::PermissionDenied {
            address: asked.address.clone(),
            key: None,
            permissions: None,
        }),
        _ => Trouble::Failed(failed("unlink")(source)),
    })
}
