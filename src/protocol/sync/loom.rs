//! The machine as loom models it.

#[cfg(not(shmpipe_portable))]
compile_error!(
    "loom does not see accesses in asm blocks: build with --cfg shmpipe_loom --cfg shmpipe_portable"
);

#[path = "mortal.rs"]
mod mortal;

pub(crate) use core::sync::atomic::compiler_fence;
pub(crate) use loom::sync::atomic::Ordering;
pub(crate) use loom::thread::yield_now as spin_loop;
pub(crate) use mortal::{AtomicU32, AtomicU64, fence, killed_after};

use loom::sync::Condvar;
use mortal::step;
use std::sync::Arc;
use std::sync::atomic::AtomicU32 as UnorderedU32;
use std::time::Duration;

pub(crate) use loom::sync::Mutex;

pub(crate) const IS_MODEL: bool = true;

/// No model uses the wake mode that needs the kernel's barrier.
pub(crate) fn fence_everywhere() {
    unreachable!("a barrier of the kernel in a model");
}

/// No model measures time.
pub(crate) fn nanoseconds() -> u64 {
    0
}

/// No model cancels a sleep.
pub(crate) fn wake_at(_: *mut u32) {
    unreachable!("a sleep cancelled in a model");
}

/// Where threads sleep: the lock and the queue of one or more futexes.
pub(crate) struct Bucket {
    lock: Mutex<()>,
    sleepers: Condvar,
}

impl Bucket {
    #[allow(clippy::arc_with_non_send_sync, reason = "loom's threads take turns on one")]
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Bucket { lock: Mutex::new(()), sleepers: Condvar::new() })
    }
}

/// A futex: compare and enqueue are one step under a mutex, as under the kernel's bucket lock. Sleeps have no timeout, so a lost
/// wake-up is a deadlock, which loom reports.
pub(crate) struct Futex {
    count: AtomicU32,
    bucket: Arc<Bucket>,
    /// How often it was woken. Used under the bucket's lock.
    wakes: UnorderedU32,
}

impl Futex {
    pub(crate) fn new() -> Self {
        Self::in_bucket(&Bucket::new())
    }

    /// A futex that shares its bucket with others, so that a thread can sleep on all of them.
    pub(crate) fn in_bucket(bucket: &Arc<Bucket>) -> Self {
        Futex { count: AtomicU32::new(0), bucket: bucket.clone(), wakes: UnorderedU32::new(0) }
    }

    pub(crate) fn count(&self) -> u32 {
        // ORDERING: as in `sys/linux/futex.rs`.
        self.count.load(Ordering::Acquire)
    }

    pub(crate) fn advance(&self) {
        let next = self.count.load(Ordering::Relaxed).wrapping_add(1);
        // ORDERING: as in `sys/linux/futex.rs`.
        self.count.store(next, Ordering::Release);
    }

    pub(crate) fn advance_shared(&self) {
        // ORDERING: as in `sys/linux/futex.rs`.
        self.count.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn wait(&self, seen: u32, _timeout: Duration) {
        wait_any(&[SeenWord::new(self, seen)], Duration::MAX);
    }

    pub(crate) fn wake(&self) {
        if !step() {
            return;
        }
        let bucket = self.bucket.lock.lock().expect("no model panics while it holds the bucket");
        self.wakes.fetch_add(1, Ordering::Relaxed);
        self.bucket.sleepers.notify_all();
        drop(bucket);
    }

    pub(crate) fn address(&self) -> *mut u32 {
        unreachable!("a sleep that can be cancelled, in a model")
    }
}

pub(crate) const MOST_WORDS: usize = 128;

/// A futex to sleep on while its count is the one that was seen. The model keeps it in place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeenWord {
    word: *const Futex,
    count: u32,
}

impl SeenWord {
    pub(crate) fn new(word: &Futex, count: u32) -> Self {
        SeenWord { word, count }
    }

    pub(crate) fn wait(&self, timeout: Duration) {
        wait_any(&[*self], timeout);
    }

    fn futex(&self) -> &Futex {
        // SAFETY: a model keeps its futexes until its threads have ended.
        unsafe { &*self.word }
    }
}

pub(crate) fn can_wait_for_any() -> std::io::Result<()> {
    Ok(())
}

/// Sleeps on several futexes of one bucket, until one of them is woken.
pub(crate) fn wait_any(words: &[SeenWord], _timeout: Duration) {
    if !step() {
        return;
    }
    let bucket = &words[0].futex().bucket;
    assert!(words.iter().all(|word| Arc::ptr_eq(&word.futex().bucket, bucket)), "the model shares a bucket");
    let wakes = || words.iter().map(|word| word.futex().wakes.load(Ordering::Relaxed)).collect::<Vec<_>>();
    let is_as_seen = |word: &SeenWord| word.futex().count.load(Ordering::Relaxed) == word.count;
    let mut lock = bucket.lock.lock().expect("no model panics while it holds the bucket");
    let before = wakes();
    while wakes() == before && words.iter().all(is_as_seen) {
        lock = bucket.sleepers.wait(lock).expect("no model panics while it holds the bucket");
    }
}
