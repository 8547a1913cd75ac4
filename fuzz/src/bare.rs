//! A pipe in a memfd, laid bare: its bytes can be anything, and the mapping that the library uses ends in nothing.
//!
//! Nothing of it is left when the process ends, whatever ends it.

use crate::model::Image;
use shmpipe::{Options, Pipe, WakeMode};
use shmpipe_testing::guarded::guarded;
use shmpipe_testing::layout;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{NonNull, null_mut};

/// One pipe, kept for all runs.
pub struct Bare {
    pub pipe: Pipe,
    /// The bytes of a pipe that was just made.
    pub fresh: Image,
    /// Where the library has mapped it.
    view: Range<usize>,
    /// Where we have.
    own: NonNull<u8>,
}

impl Bare {
    /// Makes one, with a page without access on each side of the library's mapping.
    pub fn make(capacity: u64) -> Self {
        let size = layout::RING + capacity as usize;
        let (pipe, view) = guarded(size, || {
            Options::new().capacity(capacity).wake_mode(WakeMode::Fence).create("memfd").expect("a memfd")
        });
        let own = map(pipe.fd().expect("a memfd"), size);
        let bare = Bare { pipe, fresh: Image(vec![0; size]), view, own };
        let mut fresh = bare.fresh.clone();
        bare.read(&mut fresh);
        Bare { fresh, ..bare }
    }

    /// Where the library has mapped it.
    pub fn view(&self) -> Range<usize> {
        self.view.clone()
    }

    /// Where we have mapped it, for who changes it while the library does not look.
    pub fn own(&self) -> NonNull<u8> {
        self.own
    }

    pub fn size(&self) -> usize {
        self.view.len()
    }

    /// All of its bytes.
    pub fn read(&self, image: &mut Image) {
        assert_eq!(image.0.len(), self.size());
        // SAFETY: the mapping is as long, and no other thread writes to it.
        unsafe { image.0.as_mut_ptr().copy_from_nonoverlapping(self.own.as_ptr(), image.0.len()) };
    }

    pub fn write(&self, image: &Image) {
        self.write_at(0, &image.0);
    }

    pub fn write_at(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.size());
        // SAFETY: as in `read`.
        unsafe { self.own.as_ptr().add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    pub fn read_at(&self, offset: usize, to: &mut [u8]) {
        assert!(offset + to.len() <= self.size());
        // SAFETY: as in `read`.
        unsafe { to.as_mut_ptr().copy_from_nonoverlapping(self.own.as_ptr().add(offset), to.len()) };
    }

    pub fn word(&self, offset: usize) -> u64 {
        let mut bytes = [0; 8];
        self.read_at(offset, &mut bytes);
        u64::from_ne_bytes(bytes)
    }

    pub fn set(&self, offset: usize, word: u64) {
        self.write_at(offset, &word.to_ne_bytes());
    }
}

/// Maps a file, shared and for good.
fn map(file: BorrowedFd<'_>, size: usize) -> NonNull<u8> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the kernel chooses the place.
    let base = unsafe { libc::mmap(null_mut(), size, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    assert_ne!(base, libc::MAP_FAILED);
    NonNull::new(base.cast()).expect("not at 0")
}
