//! Unique names of pipes that clean up after themselves.

use super::raw;
use super::reaper::{self, Thing};
use shmpipe::{Address, Pipe, inspect};
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

/// A unique name. Removes everything under its key when dropped, pipe or not.
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

    /// The System V key of a pipe with this name.
    pub fn key(&self) -> i32 {
        key_of(&self.0)
    }

    /// The identifier of the segment under this key.
    pub fn segment(&self) -> Option<i32> {
        raw::find_segment(self.key())
    }

    /// The identifier of the semaphore set under this key.
    pub fn set(&self) -> Option<i32> {
        raw::find_set(self.key())
    }

    /// Whether neither exists.
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

/// The key of a name, independent of the library: 32-bit FNV-1a, with 1 in place of 0.
pub fn key_of(name: &str) -> i32 {
    let mut hash = 2_166_136_261_u32;
    for &byte in name.as_bytes() {
        hash ^= u32::from(byte);
        hash = hash.wrapping_mul(16_777_619);
    }
    if hash == 0 { 1 } else { hash as i32 }
}

/// System V objects without a key. Removes them when dropped.
#[derive(Debug)]
pub struct Objects {
    segment: i32,
    set: i32,
}

impl Objects {
    /// The objects of a pipe.
    pub fn of(pipe: &Pipe) -> Self {
        let raw::Ids { shm_id, sem_id, .. } = raw::ids(&inspect(pipe.address()).unwrap());
        reaper::remember(Thing::Segment, shm_id);
        reaper::remember(Thing::Set, sem_id);
        Objects { segment: shm_id, set: sem_id }
    }

    pub fn segment(&self) -> i32 {
        self.segment
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
