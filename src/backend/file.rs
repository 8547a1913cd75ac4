//! The file backend: POSIX shared memory objects, files on local file systems, memfds.
//!
//! A role is a lock on one byte of the file (`F_OFD_SETLK`). Only a mapping refers to the open file description that holds the
//! lock, so the kernel releases the lock when the mapping ends: at `munmap`, at `exec`, or when the process ends for any reason.
//! `fork` does not copy the mapping. See `lock.rs`.
//!
//! A named file is complete when its name appears: it is created without a name and then linked. So there are no incomplete files
//! to repair, and creating and opening need no lock. A process that opens a file takes a shared lock on its attachment byte, then
//! checks that the name still leads to the file. A process that removes a file holds both roles.

mod candidate;
mod create;
pub(crate) mod descriptor;
mod filesystem;
mod find;
mod lock;
mod open;
mod role_lock;
pub(crate) mod served;
mod socket;
mod unlink;
mod view;

pub(crate) use candidate::denied;
pub(crate) use create::permissions;
pub(crate) use find::{PipeFile, find, view_at};
pub(crate) use open::{attach, attach_received};
pub(crate) use unlink::unlink;
pub(crate) use view::view;

use crate::address::{AddressForm, POSIX};
use std::path::PathBuf;

/// Where to get the file from.
enum Source<'a> {
    /// This absolute path.
    Named(PathBuf),
    /// A new memfd.
    NewMemfd,
    /// A memfd that is open as this descriptor.
    Descriptor(i32),
    /// The process that listens at this Unix socket passes a memfd.
    Served(&'a std::path::Path),
}

impl<'a> Source<'a> {
    fn of(form: &'a AddressForm) -> std::io::Result<Self> {
        Ok(match form {
            AddressForm::Posix(name) => Source::Named(PathBuf::from(POSIX).join(name)),
            // Absolute, so that a later change of the working directory does not matter.
            AddressForm::File(path) => Source::Named(std::path::absolute(path)?),
            AddressForm::Memfd => Source::NewMemfd,
            AddressForm::Descriptor(number) => Source::Descriptor(*number),
            AddressForm::Served(path) => Source::Served(path),
            form => unreachable!("{form:?} is a System V segment"),
        })
    }
}
