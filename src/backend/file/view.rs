//! Inspecting a pipe in a file.

use super::Source;
use super::candidate::{Candidate, Number};
use super::create::permissions;
use super::descriptor::missing_seals;
use super::filesystem::check_filesystem;
use super::role_lock::FileRoleLock;
use super::served::receive_memfd;
use crate::address::Address;
use crate::error::{SetupError, failed, failed_to_map};
use crate::segment::{Access, Mapping, Object, Request, View, retry};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

/// Maps the pipe at `address` read-only, without a lock.
pub(crate) fn view(address: &Address) -> Result<View, SetupError> {
    let request = Request::new(address, &[]);
    let candidate = match Source::of(&address.0).map_err(failed("finding the working directory"))? {
        Source::NewMemfd => return Err(request.cannot_open()),
        Source::Descriptor(number) => Candidate::received(&request, &Number(number), Access::Read)?,
        Source::Served(path) => {
            Candidate::received(&request, &receive_memfd(&request, path)?.0, Access::Read)?
        }
        Source::Named(path) => retry(address, || {
            Candidate::at(&request, &path, Access::Read, 1, |_, filesystem| {
                check_filesystem(&request, filesystem)
            })
        })?,
    };
    of_candidate(&request, candidate)
}

/// Maps the pipe in a candidate file read-only, without a lock.
pub(super) fn of_candidate(request: &Request<'_>, candidate: Candidate) -> Result<View, SetupError> {
    let header = candidate.peek(request)?;
    let size = candidate.metadata.len();
    let identity = request.identify(&header, size)?;
    let stale = candidate.is_stale(&identity)?;
    let mapped = candidate.size(&identity);
    // An untrusted owner could truncate a file without seals while we read the mapping.
    let is_sealed = missing_seals(&candidate.file).is_ok_and(|missing| missing == 0);
    let mapping = if is_sealed || request.is_trusted(candidate.metadata.uid()) {
        Mapping::of_file(candidate.file.as_fd(), mapped, Access::Read, None)
            .map_err(failed_to_map("mmap", mapped))?
    } else {
        header
    };
    let is_open = candidate.is_open().unwrap_or(false);
    let Candidate { file, metadata, filesystem, path } = candidate;
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
        roles: Box::new(FileRoleLock::new(file, path, mapped, filesystem.page, None)),
    })
}
