//! Watching a pipe that lies in a file.

use super::Source;
use super::filesystem::check;
use super::found::{Found, Number};
use super::guard::LockGuard;
use super::make::permissions;
use crate::address::Address;
use crate::error::{SetupError, failed};
use crate::segment::{Access, Asked, Mapping, Object, View, persist};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

/// Maps the pipe at `address` for reading alone, without a lock.
pub(crate) fn view(address: &Address) -> Result<View, SetupError> {
    let asked = Asked::new(address, &[]);
    let found = match Source::of(&address.0).map_err(failed("finding the working directory"))? {
        Source::NewMemfd => return Err(asked.cannot_make()),
        Source::Descriptor(number) => Found::received(&asked, &Number(number), Access::Read)?,
        Source::Served(path) => {
            Found::received(&asked, &super::served::receive(&asked, path)?.0, Access::Read)?
        }
        Source::Named(path) => persist(address, || {
            Found::at(&asked, &path, Access::Read, 1, |_, filesystem| check(&asked, filesystem))
        })?,
    };
    let seen = found.peek(&asked)?;
    let size = found.metadata.len();
    let identity = asked.identify(&seen, size)?;
    let stale = found.is_stale(&identity)?;
    let mapped = found.size(&identity);
    // A stranger's file could be cut while we look at it.
    let mapping = if found.path.is_none() || asked.is_trusted(found.metadata.uid()) {
        Mapping::of_file(found.file.as_fd(), mapped, Access::Read, None).map_err(failed("mmap"))?
    } else {
        seen
    };
    let is_open = found.is_open().unwrap_or(false);
    let Found { file, metadata, filesystem, path } = found;
    Ok(View {
        mapping,
        identity,
        object: Object::File { device: metadata.dev(), inode: metadata.ino() },
        size,
        attached: None,
        is_open,
        permissions: permissions(&metadata),
        creator: metadata.uid(),
        locked: false,
        stale,
        guard: Some(Box::new(LockGuard::new(file, path, mapped, filesystem.page, None))),
    })
}
