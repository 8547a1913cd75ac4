//! A thread that sleeps on many words, and says which have changed.

use crate::protocol::sync::{Futex, MOST_WORDS, Mutex, SeenWord};
use crate::sys::process::Process;
use crate::sys::thread;
use crate::waiting::words::wait_for_words;
use std::io;
use std::mem;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The most words that one thread watches for others: one is its own.
pub(super) const MOST: usize = MOST_WORDS - 1;

/// Something with a word to watch.
pub(super) trait Subject {
    /// What to send when the word changes.
    type Notice;

    /// The word, which stays mapped while the subject exists.
    fn word(&self) -> &Futex;

    fn notice(&self) -> Self::Notice;

    /// Called by the watching thread, which then holds neither a lock nor a subject.
    fn send(notice: Self::Notice);

    /// How often to call [`tick`](Self::tick).
    const TICK: Option<Duration> = None;

    /// Looks for what changes no word. Returns whether to send a notice.
    fn tick(&self) -> bool {
        false
    }
}

/// The thread. It ends when this is dropped.
pub(super) struct Watch<S: Subject> {
    shared: Arc<Shared<S>>,
    thread: Option<JoinHandle<()>>,
    process: Process,
}

struct Shared<S> {
    list: Mutex<List<S>>,
    /// Changes with the list.
    relisted: Futex,
}

struct List<S> {
    entries: Vec<Option<Entry<S>>>,
    ended: bool,
}

struct Entry<S> {
    subject: S,
    seen: u32,
}

impl<S: Subject> Watch<S> {
    pub(super) fn start() -> io::Result<Self>
    where
        S: Send + 'static,
    {
        let shared = Arc::new(Shared::new(Futex::new()));
        let theirs = shared.clone();
        let thread = Some(thread::spawn("shmpipe-watch", move || theirs.run())?);
        Ok(Watch { shared, thread, process: Process::current() })
    }

    pub(super) fn insert(&self, index: usize, subject: S) {
        self.shared.insert(index, subject);
    }

    /// Stops watching, and drops the subject: no thread accesses its word any more.
    pub(super) fn remove(&self, index: usize) {
        self.shared.replace(index, None);
    }
}

impl<S: Subject> Drop for Watch<S> {
    fn drop(&mut self) {
        let thread = self.thread.take();
        if !self.process.is_current() {
            // A forked child does not have the thread, which may have held the lock.
            mem::forget(thread);
            return;
        }
        self.shared.end();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl<S: Subject> Shared<S> {
    fn new(relisted: Futex) -> Self {
        let entries = (0..MOST).map(|_| None).collect();
        Shared { list: Mutex::new(List { entries, ended: false }), relisted }
    }

    fn insert(&self, index: usize, subject: S) {
        let seen = subject.word().count();
        self.replace(index, Some(Entry { subject, seen }));
    }

    fn replace(&self, index: usize, entry: Option<Entry<S>>) {
        let replaced = mem::replace(&mut self.list.lock().expect(NO_PANIC).entries[index], entry);
        self.relist();
        drop(replaced);
    }

    fn end(&self) {
        self.list.lock().expect(NO_PANIC).ended = true;
        self.relist();
    }

    fn relist(&self) {
        self.relisted.advance_shared();
        self.relisted.wake();
    }

    fn run(&self) {
        let mut words = Vec::with_capacity(MOST_WORDS);
        let mut notices = vec![];
        let mut next_tick = S::TICK.map(|tick| Instant::now() + tick);
        loop {
            words.clear();
            // Before the list is read: if it changes after that, the sleep ends at once.
            words.push(SeenWord::new(&self.relisted, self.relisted.count()));
            let mut list = self.list.lock().expect(NO_PANIC);
            if list.ended {
                return;
            }
            let now = next_tick.map(|_| Instant::now());
            let is_tick = next_tick.is_some_and(|next| now >= Some(next));
            if is_tick {
                next_tick = now.zip(S::TICK).map(|(now, tick)| now + tick);
            }
            for entry in list.entries.iter_mut().flatten() {
                let count = entry.subject.word().count();
                if mem::replace(&mut entry.seen, count) != count || is_tick && entry.subject.tick() {
                    notices.push(entry.subject.notice());
                }
                words.push(SeenWord::new(entry.subject.word(), count));
            }
            drop(list);
            notices.drain(..).for_each(S::send);
            // Nothing to look at but the list: no ticks.
            let next_tick = next_tick.filter(|_| words.len() > 1);
            wait_for_words(
                &words,
                next_tick.map_or(FOREVER, |next| next.saturating_duration_since(Instant::now())),
            );
        }
    }
}

/// Longer than any process runs.
const FOREVER: Duration = Duration::from_secs(1 << 32);

const NO_PANIC: &str = "no thread panics while it holds the list";

#[cfg(all(test, shmpipe_loom))]
mod models;
