//! Names of pipes that no other test uses and that leave nothing behind.

use super::raw;
use super::reaper::{self, Thing};
use shmpipe::{Address, Pipe, inspect};
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

/// A name of our own. Whatever is under its key when it is dropped is removed, pipe or not.
#[derive(Debug)]
pub struct Name(String);

impl Default for Name {
    fn default() -> Self {
        Self::new()
    }
}

impl Name {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = Name(format!("{}{count}", reaper::prefix(std::process::id())));
        reaper::remember(Thing::Key, name.key());
        name
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key that a pipe of this name has.
    pub fn key(&self) -> i32 {
        key_of(&self.0)
    }

    /// The identifier of the segment under the name's key.
    pub fn segment(&self) -> Option<i32> {
        raw::find_segment(self.key())
    }

    /// The identifier of the semaphore set under the name's key.
    pub fn set(&self) -> Option<i32> {
        raw::find_set(self.key())
    }

    /// Whether nothing at all is under the name's key.
    pub fn is_unused(&self) -> bool {
        self.segment().is_none() && self.set().is_none()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&Name> for Address {
    fn from(name: &Name) -> Self {
        name.0.parse().unwrap()
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        reaper::remove_key(self.key());
        reaper::forget(Thing::Key, self.key());
    }
}

/// FNV-1a with 32 bits, and 1 for 0: the key of a name, worked out here a second time.
pub fn key_of(name: &str) -> i32 {
    let mut hash = 2_166_136_261_u32;
    for &byte in name.as_bytes() {
        hash ^= u32::from(byte);
        hash = hash.wrapping_mul(16_777_619);
    }
    if hash == 0 { 1 } else { hash as i32 }
}

/// Objects that no key leads to, removed when this is dropped.
#[derive(Debug)]
pub struct Objects {
    segment: i32,
    set: i32,
}

impl Objects {
    /// Those of a pipe.
    pub fn of(pipe: &Pipe) -> Self {
        let snapshot = inspect(pipe.address()).unwrap();
        reaper::remember(Thing::Segment, raw::ids(&snapshot).shm_id);
        reaper::remember(Thing::Set, raw::ids(&snapshot).sem_id);
        Objects { segment: raw::ids(&snapshot).shm_id, set: raw::ids(&snapshot).sem_id }
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        raw::remove_segment(self.segment);
        raw::remove_set(self.set);
        reaper::forget(Thing::Segment, self.segment);
        reaper::forget(Thing::Set, self.set);
    }
}
