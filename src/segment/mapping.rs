//! A mapped segment.

use crate::os::fork::NoFork;
use crate::os::process::Process;
use crate::protocol::layout::{HEADER, Header};
use crate::segment::pages::Place;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{NonNull, null, null_mut};

/// An address range that shows a segment; unmapped when dropped.
///
/// A forked child does not inherit it: it would keep writing after its parent's claim is gone.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    size: u64,
    access: Access,
    process: Process,
    made_by: MadeBy,
}

#[derive(Clone, Copy, Debug)]
enum MadeBy {
    Shmat,
    Mmap,
}

// SAFETY: it owns an address range, which belongs to the process and not to a thread.
unsafe impl Send for Mapping {}
// SAFETY: it hands out its address and nothing else.
unsafe impl Sync for Mapping {}

/// What a mapping is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// For keeping what is mapped open.
    None,
    Read,
    ReadWrite,
}

impl Mapping {
    /// Maps the System V segment `id`, which has `size` bytes, at a multiple of `align` if that is given.
    pub(crate) fn of_segment(id: i32, size: u64, access: Access, align: Option<u64>) -> io::Result<Self> {
        let no_fork = NoFork::now();
        let flags = if access == Access::ReadWrite { 0 } else { libc::SHM_RDONLY };
        let place = align.map(|align| Place::reserve(size, align)).transpose()?;
        // SAFETY: with a null address the kernel chooses where to map, over nothing that exists; a place was set aside
        // for us alone.
        let base = unsafe {
            match &place {
                None => libc::shmat(id, null(), flags),
                Some(place) => libc::shmat(id, place.base().as_ptr().cast(), flags | libc::SHM_REMAP),
            }
        };
        if base as isize == -1 {
            return Err(io::Error::last_os_error());
        }
        if let Some(place) = place {
            place.taken();
        }
        Self::of(base, size, access, MadeBy::Shmat, no_fork)
    }

    /// Maps the first `size` bytes of a file, at a multiple of `align` if that is given. As long as the mapping lives, so do the locks of the open file description.
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
        let place = align.map(|align| Place::reserve(size, align)).transpose()?;
        let (at, flags) = match &place {
            None => (null_mut(), libc::MAP_SHARED),
            Some(place) => (place.base().as_ptr().cast(), libc::MAP_SHARED | libc::MAP_FIXED),
        };
        // SAFETY: with a null address the kernel chooses where to map, over nothing that exists; a place was set aside for
        // us alone.
        let base = unsafe { libc::mmap(at, length, protection, flags, file.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        if let Some(place) = place {
            place.taken();
        }
        Self::of(base, size, access, MadeBy::Mmap, no_fork)
    }

    /// A private copy of bytes, to look at what may be cut off under us.
    pub(crate) fn of_copy(bytes: &[u8]) -> io::Result<Self> {
        let no_fork = NoFork::now();
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: with a null address the kernel chooses where to map, over nothing that exists.
        let base = unsafe { libc::mmap(null_mut(), bytes.len(), protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping just made has as many bytes, and nobody knows of it yet.
        unsafe { base.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Self::of(base, bytes.len() as u64, Access::Read, MadeBy::Mmap, no_fork)
    }

    fn of(
        base: *mut libc::c_void,
        size: u64,
        access: Access,
        made_by: MadeBy,
        _: NoFork,
    ) -> io::Result<Self> {
        let base =
            NonNull::new(base.cast::<u8>()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        let mapping = Mapping { base, size, access, process: Process::current(), made_by };
        // SAFETY: the range is the mapping just made.
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

    /// The header of a segment that has one, by its size.
    pub(crate) fn header(&self) -> &Header {
        assert!(self.size >= HEADER && self.access != Access::None);
        // SAFETY: the mapping can be read, is large enough and aligned to pages, and all of a header is atomic. It lives
        // as long as the mapping. Nobody stores to what is mapped for reading alone.
        unsafe { self.base.cast::<Header>().as_ref() }
    }

    /// Whether this process made the mapping; in a forked child it is not there.
    pub(crate) fn is_ours(&self) -> bool {
        Process::current() == self.process
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if !self.is_ours() {
            return;
        }
        let base = self.base.as_ptr().cast();
        match self.made_by {
            // SAFETY: `base` is what shmat returned in this process, and nobody uses the range any more: whoever does
            // holds the mapping.
            MadeBy::Shmat => unsafe { libc::shmdt(base) },
            // SAFETY: as above, of mmap and with the length that it was given.
            MadeBy::Mmap => unsafe { libc::munmap(base, self.size as usize) },
        };
    }
}
