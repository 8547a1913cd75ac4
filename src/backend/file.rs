//! The file backends: a POSIX shared memory object, a file of any local file system, a memfd.
//!
//! A role is a lock on one byte of the file (`F_OFD_SETLK`), held by an open file description that nothing but a mapping
//! refers to: the kernel drops it when the mapping goes, which it does at `munmap`, at `exec` and when the process
//! ends, whatever ends it, and `fork` does not copy it. See `lock.rs`.
//!
//! A named file appears at its name complete: it is made without one and linked. So there is nothing half-made to
//! repair, and no lock to make or open under. Whoever opens a file locks a byte of it, for reading, as a guest, and
//! then looks whether the name still leads to it; whoever removes one holds both roles.

pub(crate) mod descriptor;
mod filesystem;
mod find;
mod found;
mod guard;
mod lock;
mod make;
mod open;
pub(crate) mod served;
mod socket;
mod unlink;
mod view;

pub(crate) use find::{Location, PipeFile, find};
pub(crate) use found::denied;
pub(crate) use make::permissions;
pub(crate) use open::{attach, attach_received};
pub(crate) use unlink::unlink;
pub(crate) use view::view;

use crate::address::{POSIX, Place};
use std::path::PathBuf;

/// Where a file is to be found.
enum Source<'a> {
    /// Under this absolute path.
    Named(PathBuf),
    /// Nowhere yet.
    NewMemfd,
    /// Open, as this descriptor.
    Descriptor(i32),
    /// Whoever listens at this Unix socket has it.
    Served(&'a std::path::Path),
}

impl<'a> Source<'a> {
    fn of(place: &'a Place) -> std::io::Result<Self> {
        Ok(match place {
            Place::Posix(name) => Source::Named(PathBuf::from(POSIX).join(name)),
            // Absolute, so that a later change of the working directory does not matter.
            Place::File(path) => Source::Named(std::path::absolute(path)?),
            Place::Memfd => Source::NewMemfd,
            Place::Descriptor(number) => Source::Descriptor(*number),
            Place::Served(path) => Source::Served(path),
            place => unreachable!("{place:?} is a System V segment"),
        })
    }
}
