//! The kinds of shared memory. This file alone chooses one, by the address.

pub(crate) mod file;
pub(crate) mod sysv;

use crate::address::{Address, Place};
use crate::error::SetupError;
use crate::options::{Existing, Options};
use crate::segment::{Segment, View};
use std::time::Duration;

/// Opens, or makes, the pipe at `address`.
pub(crate) fn attach(
    address: &Address,
    options: &Options,
    existing: Existing,
) -> Result<Segment, SetupError> {
    let segment = match kind(address) {
        Kind::SysV => sysv::attach(address, options, existing)?,
        Kind::File => file::attach(address, options, existing)?,
    };
    segment.prefault(options).inspect_err(|_| {
        if segment.created {
            let _ = unlink(&segment.address, true);
        }
    })?;
    Ok(segment)
}

/// Removes the pipe at `address`; with `force` also while a role is held.
pub(crate) fn unlink(address: &Address, force: bool) -> Result<(), SetupError> {
    match kind(address) {
        Kind::SysV => sysv::unlink(address, force),
        Kind::File => file::unlink(address, force),
    }
}

/// Maps the pipe at `address` for reading alone, without a claim and without a lock. One that is being made is given
/// `patience`.
pub(crate) fn view(address: &Address, patience: Duration) -> Result<View, SetupError> {
    match kind(address) {
        Kind::SysV => sysv::view(address, patience),
        Kind::File => file::view(address),
    }
}

enum Kind {
    /// A System V segment, guarded by a semaphore set.
    SysV,
    /// A file, with or without a name, guarded by locks on its bytes.
    File,
}

fn kind(address: &Address) -> Kind {
    match address.0 {
        Place::Name(_) | Place::Key(_) | Place::Ftok { .. } | Place::Id(_) | Place::Private => Kind::SysV,
        Place::Posix(_) | Place::File(_) | Place::Memfd | Place::Descriptor(_) | Place::Served(_) => {
            Kind::File
        }
    }
}
