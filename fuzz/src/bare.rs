//! A pipe in a memfd with raw access to its bytes. Guard pages surround the library's mapping.
//!
//! The kernel frees it with the process, however that ends.

use crate::model::Image;
use shmpipe::os::unix::PipeExt;
use shmpipe::{Options, Pipe, WakeMode};
use shmpipe_testing::guarded::guarded;
use shmpipe_testing::layout;
use shmpipe_testing::raw::Attached;
use std::fs::File;
use std::ops::Range;

/// A pipe for all runs.
pub struct Bare {
    pub pipe: Pipe,
    /// The bytes of a new pipe.
    pub fresh: Image,
    /// The library's mapping.
    view: Range<usize>,
    own: Attached,
}

impl Bare {
    /// Creates a pipe, with a guard page on each side of the library's mapping.
    pub fn make(capacity: u64) -> Self {
        let size = layout::RING + capacity as usize;
        let (pipe, view) = guarded(size, || {
            Options::new().capacity(capacity).wake_mode(WakeMode::Fence).create("memfd").expect("a memfd")
        });
        let memfd = pipe.fd().expect("a memfd").try_clone_to_owned().expect("a second descriptor");
        let own = Attached::map(&File::from(memfd));
        let fresh = Image(own.bytes());
        Bare { pipe, fresh, view, own }
    }

    /// The library's mapping.
    pub fn view(&self) -> Range<usize> {
        self.view.clone()
    }

    /// Our own mapping, for changes while the library cannot access its own.
    pub fn own(&self) -> &Attached {
        &self.own
    }

    /// Reads all bytes.
    pub fn read(&self, image: &mut Image) {
        assert_eq!(image.0.len(), self.own.size());
        self.own.copy_to(0, &mut image.0);
    }

    pub fn write(&self, image: &Image) {
        self.own.copy_from(0, &image.0);
    }

    pub fn write_at(&self, offset: usize, bytes: &[u8]) {
        self.own.copy_from(offset, bytes);
    }

    pub fn read_at(&self, offset: usize, to: &mut [u8]) {
        self.own.copy_to(offset, to);
    }

    pub fn word(&self, offset: usize) -> u64 {
        self.own.get(offset)
    }

    pub fn set(&self, offset: usize, word: u64) {
        self.own.set(offset, word);
    }
}
