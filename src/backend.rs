//! The kinds of shared memory. This file chooses one by the address, to attach, remove and view a pipe; above it, only `inspect`
//! and `os` name a kind.

pub(crate) mod file;
pub(crate) mod sysv;

use crate::address::{Address, AddressForm};
use crate::error::SetupError;
use crate::options::{Existing, Options};
use crate::segment::{Segment, View};
use std::time::Duration;

/// Opens or creates the pipe at `address`.
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

/// Maps the pipe at `address` read-only, without a claim and without a lock. Waits up to `timeout` for a pipe that is being
/// created.
pub(crate) fn view(address: &Address, timeout: Duration) -> Result<View, SetupError> {
    match kind(address) {
        Kind::SysV => sysv::view(address, timeout),
        Kind::File => file::view(address),
    }
}

enum Kind {
    /// A System V segment, whose roles are claimed in a semaphore set.
    SysV,
    /// A file, with or without a name, whose roles are locks on its bytes.
    File,
}

fn kind(address: &Address) -> Kind {
    match address.0 {
        AddressForm::Name(_)
        | AddressForm::Key(_)
        | AddressForm::Ftok { .. }
        | AddressForm::Id(_)
        | AddressForm::Private => Kind::SysV,
        AddressForm::Posix(_)
        | AddressForm::File(_)
        | AddressForm::Memfd
        | AddressForm::Descriptor(_)
        | AddressForm::Served(_) => Kind::File,
    }
}
