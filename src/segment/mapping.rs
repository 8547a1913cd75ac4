//! A mapped segment.

use crate::protocol::layout::{HEADER, Header};
use crate::segment::pages::ReservedRange;
use crate::sys::fork::NoFork;
use crate::sys::process::Process;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{NonNull, null, null_mut};

/// A mapped segment; unmapped when dropped.
///
/// A forked child does not inherit the mapping: it could still write after its parent's claim has ended.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    size: u64,
    access: Access,
    process: Process,
    mapped_by: MappedBy,
}

#[derive(Clone, Copy, Debug)]
enum MappedBy {
    Shmat,
    Mmap,
}

// SAFETY: it owns an address range, which belongs to the process and not to a thread.
unsafe impl Send for Mapping {}
// SAFETY: it hands out its address and nothing else.
unsafe impl Sync for Mapping {}

/// How a mapping may be accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Not at all: the mapping only keeps the open file description alive.
    None,
    Read,
    ReadWrite,
}

impl Mapping {
    /// Maps the System V segment `id`, which has `size` bytes, at a multiple of `align` if that is given.
    pub(crate) fn of_segment(id: i32, size: u64, access: Access, align: Option<u64>) -> io::Result<Self> {
        let no_fork = NoFork::now();
        let flags = if access == Access::ReadWrite { 0 } else { libc::SHM_RDONLY };
        let range = align.map(|align| ReservedRange::reserve(size, align)).transpose()?;
        // SAFETY: with a null address the kernel maps over nothing that exists; a reserved range is ours alone.
        let base = unsafe {
            match &range {
                None => libc::shmat(id, null(), flags),
                Some(range) => libc::shmat(id, range.base().as_ptr().cast(), flags | libc::SHM_REMAP),
            }
        };
        if base as isize == -1 {
            return Err(io::Error::last_os_error());
        }
        if let Some(range) = range {
            range.mapped_over();
        }
        Self::of(base, size, access, MappedBy::Shmat, no_fork)
    }

    /// Maps the first `size` bytes of a file, at a multiple of `align` if that is given. The mapping keeps the open file
    /// description, and so its locks, alive.
    pub(crate) fn of_file(
        file: BorrowedFd<'_>,
        size: u64,
        access: Access,
        align: Option<u64>,
    ) -> io::Result<Self> {
        let no_fork = NoFork::now();
        let length = usize::try_from(size).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
        let protection = match access {
            Access::None => libc::PROT_NONE,
            Access::Read => libc::PROT_READ,
            Access::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        };
        let range = align.map(|align| ReservedRange::reserve(size, align)).transpose()?;
        let (at, flags) = match &range {
            None => (null_mut(), libc::MAP_SHARED),
            Some(range) => (range.base().as_ptr().cast(), libc::MAP_SHARED | libc::MAP_FIXED),
        };
        // SAFETY: with a null address the kernel maps over nothing that exists; a reserved range is ours alone.
        let base = unsafe { libc::mmap(at, length, protection, flags, file.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        if let Some(range) = range {
            range.mapped_over();
        }
        Self::of(base, size, access, MappedBy::Mmap, no_fork)
    }

    /// A private copy of bytes, for a file that another process may truncate while we read it.
    pub(crate) fn of_copy(bytes: &[u8]) -> io::Result<Self> {
        let no_fork = NoFork::now();
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: with a null address the kernel maps over nothing that exists.
        let base = unsafe { libc::mmap(null_mut(), bytes.len(), protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the new mapping has this many bytes, and nothing else refers to it yet.
        unsafe { base.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Self::of(base, bytes.len() as u64, Access::Read, MappedBy::Mmap, no_fork)
    }

    fn of(
        base: *mut libc::c_void,
        size: u64,
        access: Access,
        mapped_by: MappedBy,
        _: NoFork,
    ) -> io::Result<Self> {
        let base =
            NonNull::new(base.cast::<u8>()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        let mapping = Mapping { base, size, access, process: Process::current(), mapped_by };
        // SAFETY: the range is the new mapping.
        if unsafe { libc::madvise(base.as_ptr().cast(), size as usize, libc::MADV_DONTFORK) } == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(mapping)
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The header at the start of the segment. Panics if the mapping is too small or not readable.
    pub(crate) fn header(&self) -> &Header {
        self.header_at(0)
    }

    /// The header at an offset, a multiple of the header's size. Panics if the mapping does not reach its end or is not readable.
    pub(crate) fn header_at(&self, offset: u64) -> &Header {
        assert!(offset % HEADER == 0 && self.size.checked_sub(HEADER).is_some_and(|last| offset <= last));
        assert!(self.access != Access::None);
        // SAFETY: the mapping is readable, reaches the end of the header (the assertion above) and is aligned to pages, as is the
        // offset; a header consists of atomics. The reference borrows the mapping. Code that maps a segment read-only does not store
        // to its headers.
        unsafe { self.base.add(offset as usize).cast::<Header>().as_ref() }
    }

    /// The process that created the mapping. In its forked children the range is not mapped.
    pub(crate) fn process(&self) -> Process {
        self.process
    }

    /// Whether this process created the mapping.
    pub(crate) fn is_ours(&self) -> bool {
        self.process.is_current()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if !self.is_ours() {
            return;
        }
        let base = self.base.as_ptr().cast();
        match self.mapped_by {
            // SAFETY: shmat returned `base` in this process, and nothing uses the range any more: every user borrows or owns
            // this `Mapping`.
            MappedBy::Shmat => unsafe { libc::shmdt(base) },
            // SAFETY: as above, for mmap, with the length that it got.
            MappedBy::Mmap => unsafe { libc::munmap(base, self.size as usize) },
        };
    }
}
