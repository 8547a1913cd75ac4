//! A System V segment that is marked for removal right after its creation.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::errors::failed;

/// The smallest size of a page. Touching one byte in each maps all pages.
const PAGE: usize = 4096;

/// Shared memory of the two processes, readable and writable by both.
///
/// The creator marks it for removal as soon as it has attached it. Linux still lets the partner attach it by identifier. The
/// kernel frees the memory when the last process detaches, however that ends.
#[derive(Debug)]
pub(crate) struct Segment {
    base: NonNull<u8>,
    len: usize,
    id: i32,
}

impl Segment {
    /// Creates a segment of `len` zero bytes.
    pub(crate) fn create(len: usize) -> io::Result<Segment> {
        // SAFETY: shmget only uses numbers.
        let id = unsafe { libc::shmget(libc::IPC_PRIVATE, len, libc::IPC_CREAT | 0o600) };
        if id == -1 {
            return Err(failed(format_args!("shmget of {len} bytes (limits: /proc/sys/kernel/shm*)")));
        }
        let segment = Segment::attach(id, len);
        // SAFETY: IPC_RMID ignores the buffer, and the identifier is ours.
        unsafe { libc::shmctl(id, libc::IPC_RMID, ptr::null_mut()) };
        let segment = segment?;
        segment.touch();
        Ok(segment)
    }

    /// Attaches the segment that the other process created with `create(len)`.
    pub(crate) fn join(id: i32, len: usize) -> io::Result<Segment> {
        // SAFETY: shmid_ds is plain numbers, for which all zero is a value.
        let mut found: libc::shmid_ds = unsafe { std::mem::zeroed() };
        // SAFETY: `found` is a live shmid_ds; the kernel writes it.
        if unsafe { libc::shmctl(id, libc::IPC_STAT, &mut found) } == -1 {
            return Err(failed(format_args!("shmctl(IPC_STAT) of segment {id}")));
        }
        if found.shm_segsz < len {
            let size = found.shm_segsz;
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("segment {id} has {size} bytes, expected {len}"),
            ));
        }
        let segment = Segment::attach(id, len)?;
        segment.touch();
        Ok(segment)
    }

    fn attach(id: i32, len: usize) -> io::Result<Segment> {
        // SAFETY: with a null address the kernel chooses a free range.
        let base = unsafe { libc::shmat(id, ptr::null(), 0) };
        if base as isize == -1 {
            return Err(failed(format_args!("shmat of segment {id}")));
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("shmat gave a null address"))?;
        Ok(Segment { base, len, id })
    }

    /// Maps every page now, not during a slice.
    fn touch(&self) {
        for offset in (0..self.len).step_by(PAGE) {
            // SAFETY: the offset is inside the mapping, and any byte is aligned. The access is atomic, since the other process
            // may write the byte now.
            let byte = unsafe { AtomicU8::from_ptr(self.base.as_ptr().add(offset)) };
            byte.load(Relaxed); // its value does not matter
        }
    }

    /// The number of bytes, at least.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The identifier for the partner.
    pub(crate) fn id(&self) -> i32 {
        self.id
    }

    /// The first byte, page-aligned and valid as long as the segment lives.
    pub(crate) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: the address came from shmat and is only detached here. Owners of pointers into it keep the Segment.
        unsafe { libc::shmdt(self.base.as_ptr().cast()) };
    }
}
