//! A System V segment that is already gone from the system's lists when anybody could stumble over it.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use crate::errors::failed;

/// A page is at least this long; touching one byte in each maps them all.
const PAGE: usize = 4096;

/// Shared memory of the two processes, readable and writable by both.
///
/// The creator marks it for removal as soon as it is attached. Linux lets the partner attach it all the same, by id, while
/// somebody still does; the memory goes when the last one detaches, however that one ends.
#[derive(Debug)]
pub(crate) struct Segment {
    base: NonNull<u8>,
    len: usize,
    id: i32,
}

impl Segment {
    /// Makes a segment of `len` bytes, all zero.
    pub(crate) fn create(len: usize) -> io::Result<Segment> {
        // SAFETY: shmget takes numbers only.
        let id = unsafe { libc::shmget(libc::IPC_PRIVATE, len, libc::IPC_CREAT | 0o600) };
        if id == -1 {
            return Err(failed(format_args!("shmget of {len} bytes (limits: /proc/sys/kernel/shm*)")));
        }
        let segment = Segment::attach(id, len);
        // SAFETY: IPC_RMID ignores the buffer; the id is ours.
        unsafe { libc::shmctl(id, libc::IPC_RMID, ptr::null_mut()) };
        let segment = segment?;
        segment.touch();
        Ok(segment)
    }

    /// Attaches the segment that the other process made with `create(len)`.
    pub(crate) fn join(id: i32, len: usize) -> io::Result<Segment> {
        // SAFETY: shmid_ds is plain numbers, for which all zero is a value.
        let mut found: libc::shmid_ds = unsafe { std::mem::zeroed() };
        // SAFETY: `found` is a live shmid_ds for the kernel to fill.
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
        // SAFETY: a null address lets the kernel choose one; nothing of ours is mapped over.
        let base = unsafe { libc::shmat(id, ptr::null(), 0) };
        if base as isize == -1 {
            return Err(failed(format_args!("shmat of segment {id}")));
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("shmat gave a null address"))?;
        Ok(Segment { base, len, id })
    }

    /// Maps every page now, so that no slice pays for it.
    fn touch(&self) {
        for offset in (0..self.len).step_by(PAGE) {
            // SAFETY: the offset is inside the mapping, and a byte is aligned anywhere. The other process may write it now:
            // hence the atomic.
            let byte = unsafe { AtomicU8::from_ptr(self.base.as_ptr().add(offset)) };
            byte.load(Relaxed); // its value does not matter
        }
    }

    /// How many bytes there are at least.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The number by which the partner attaches it.
    pub(crate) fn id(&self) -> i32 {
        self.id
    }

    /// The first byte; page-aligned, valid for as long as the segment lives.
    pub(crate) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: the address came from shmat and is detached here only; who keeps pointers into it keeps the Segment.
        unsafe { libc::shmdt(self.base.as_ptr().cast()) };
    }
}
