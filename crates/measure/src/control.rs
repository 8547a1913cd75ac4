//! The shared words that control the two processes. During a slice only the ball changes.

use std::io;
use std::ptr;
use std::sync::atomic::{
    AtomicU8, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use crate::patience::Patience;
use crate::scratch::{Directory, Scratch};
use crate::segment::Segment;

/// A value alone on a pair of cache lines, since the prefetcher fetches pairs.
#[repr(C, align(128))]
pub(crate) struct Line<T>(pub(crate) T);

/// An object that is not removed automatically: System V objects, files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// A shared memory segment, by its id.
    Segment(i32),
    /// A semaphore set, by its id.
    Semaphores(i32),
    /// A message queue, by its id.
    Queue(i32),
    /// A file.
    File(Scratch),
}

impl Leftover {
    fn to_word(self) -> u64 {
        let (kind, id) = match self {
            Leftover::Segment(id) => (1, id as u32),
            Leftover::Semaphores(id) => (2, id as u32),
            Leftover::Queue(id) => (3, id as u32),
            Leftover::File(Scratch { directory: Directory::Shm, number }) => (4, number),
            Leftover::File(Scratch { directory: Directory::Disk, number }) => (5, number),
        };
        kind << 32 | u64::from(id)
    }

    fn of_word(word: u64) -> Option<Leftover> {
        let id = word as u32 as i32;
        match word >> 32 {
            1 => Some(Leftover::Segment(id)),
            2 => Some(Leftover::Semaphores(id)),
            3 => Some(Leftover::Queue(id)),
            4 => Some(Leftover::File(Scratch { directory: Directory::Shm, number: word as u32 })),
            5 => Some(Leftover::File(Scratch { directory: Directory::Disk, number: word as u32 })),
            _ => None,
        }
    }

    /// Removes the object if it still exists. Async-signal-safe.
    pub(crate) fn remove(self) {
        // SAFETY: IPC_RMID only uses numbers and ignores the buffer.
        unsafe {
            match self {
                Leftover::Segment(id) => libc::shmctl(id, libc::IPC_RMID, ptr::null_mut()),
                Leftover::Semaphores(id) => libc::semctl(id, 0, libc::IPC_RMID),
                Leftover::Queue(id) => libc::msgctl(id, libc::IPC_RMID, ptr::null_mut()),
                Leftover::File(file) => file.remove(),
            }
        };
    }
}

/// What the partner does between two floors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Exit normally. The only order without floors.
    Quit,
    /// Answer every message.
    Answer,
    /// Send the messages one after another.
    StreamOut,
    /// Receive the messages one after another.
    StreamIn,
    /// Answer with the ball, to time each round trip of the floor.
    AnswerFloor,
    /// Send generated messages.
    SendChecked,
    /// Receive and compare generated messages.
    ReceiveChecked,
    /// Send stamped messages at given times.
    PaceOut,
    /// Throw the ball at given times.
    PaceFloor,
    /// Do the partner's part of a limit. `transport` selects the limit, `seed` the memory.
    Limit,
}

const VERBS: [Verb; 10] = [
    Verb::Quit,
    Verb::Answer,
    Verb::StreamOut,
    Verb::StreamIn,
    Verb::AnswerFloor,
    Verb::SendChecked,
    Verb::ReceiveChecked,
    Verb::PaceOut,
    Verb::PaceFloor,
    Verb::Limit,
];

/// One order to the partner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) verb: Verb,
    /// The index of the transport in the invitation.
    pub(crate) transport: usize,
    /// Bytes of a message, or the most for generated messages of varying length.
    pub(crate) size: usize,
    /// Whether generated messages vary in length.
    pub(crate) mixed: bool,
    /// Messages or round trips.
    pub(crate) count: u64,
    /// The seed of the generator.
    pub(crate) seed: u64,
    /// Round trips of each floor.
    pub(crate) floor: u64,
    /// Nanoseconds between messages that are sent at given times.
    pub(crate) interval: u64,
    /// Whether to evict the memory of the transport from the near caches first.
    pub(crate) cold: bool,
}

impl Order {
    pub(crate) const QUIT: Order = Order {
        verb: Verb::Quit,
        transport: 0,
        size: 0,
        mixed: false,
        count: 0,
        seed: 0,
        floor: 0,
        interval: 0,
        cold: false,
    };

    fn to_words(self) -> [u64; WORDS] {
        let verb = VERBS.iter().position(|verb| *verb == self.verb).expect("every verb is listed");
        [
            verb as u64,
            self.transport as u64,
            self.size as u64,
            u64::from(self.mixed),
            self.count,
            self.seed,
            self.floor,
            self.interval,
            u64::from(self.cold),
        ]
    }

    fn of_words(words: [u64; WORDS]) -> Option<Order> {
        let [verb, transport, size, mixed, count, seed, floor, interval, cold] = words;
        Some(Order {
            verb: *VERBS.get(usize::try_from(verb).ok()?)?,
            transport: usize::try_from(transport).ok()?,
            size: usize::try_from(size).ok()?,
            mixed: mixed != 0,
            count,
            seed,
            floor,
            interval,
            cold: cold != 0,
        })
    }
}

/// Words of an order.
const WORDS: usize = 9;

struct Mailbox {
    number: AtomicU64,
    words: [AtomicU64; WORDS],
}

/// The most leftovers of a session's transports.
const LEFTOVERS: usize = 128;
/// The most bytes of a session's invitations.
const LETTER: usize = 8192;

/// The shared words.
///
/// ```text
/// 0     ball          both write it in turn: even from the partner, odd from the parent
/// 128   number, order parent writes, partner reads
/// 256   leftovers     parent writes while it creates the transports; the survivor removes them
/// 1280  letter        parent writes after it has created them, partner reads before it joins them
/// 9472  start         partner writes before it throws the ball at given times, parent reads after it has caught it
/// ```
#[repr(C)]
pub(crate) struct Words {
    pub(crate) ball: Line<AtomicU64>,
    mailbox: Line<Mailbox>,
    leftovers: Line<[AtomicU64; LEFTOVERS]>,
    letter: Line<[AtomicU8; LETTER]>,
    pub(crate) start: Line<AtomicU64>,
}

impl Words {
    /// Removes all listed objects. Async-signal-safe.
    pub(crate) fn remove_leftovers(&self) {
        for slot in &self.leftovers.0 {
            // Relaxed: the word is a whole entry, and the kernel reports the death of the parent only after all of the parent's
            // stores are visible
            if let Some(leftover) = Leftover::of_word(slot.swap(0, Relaxed)) {
                leftover.remove();
            }
        }
    }
}

/// The shared words in their segment.
pub(crate) struct Control(Segment);

impl Control {
    pub(crate) fn create() -> io::Result<Control> {
        Segment::create(size_of::<Words>()).map(Control)
    }

    pub(crate) fn join(id: i32) -> io::Result<Control> {
        Segment::join(id, size_of::<Words>()).map(Control)
    }

    pub(crate) fn id(&self) -> i32 {
        self.0.id()
    }

    pub(crate) fn words(&self) -> &Words {
        // SAFETY: the segment is at least this long, page-aligned and lives as long as the reference. All of its words are
        // atomics, for which every bit pattern is valid, so the other process may write them.
        unsafe { &*self.0.base().cast::<Words>() }
    }

    /// Lists an object for removal by the process that survives.
    pub(crate) fn list(&self, leftover: Leftover) -> io::Result<()> {
        // Relaxed, here and below: only the parent writes while both processes live
        let free = self.words().leftovers.0.iter().find(|slot| slot.load(Relaxed) == 0);
        let free = free.ok_or_else(|| io::Error::other(format!("more than {LEFTOVERS} objects")))?;
        free.store(leftover.to_word(), Relaxed);
        Ok(())
    }

    /// Writes the letter. The partner may read it after the next throw of the ball.
    pub(crate) fn write_letter(&self, text: &str) -> io::Result<()> {
        let room = &self.words().letter.0;
        if text.len() >= room.len() || text.contains('\0') {
            return Err(io::Error::other(format!(
                "an invitation of {} bytes, room is for {LETTER}",
                text.len()
            )));
        }
        // the terminating zero is already there: the letter is written only once
        for (shared, &byte) in room.iter().zip(text.as_bytes()) {
            shared.store(byte, Relaxed); // the ball publishes them
        }
        Ok(())
    }

    /// Reads the letter.
    pub(crate) fn read_letter(&self) -> io::Result<String> {
        // Relaxed: the ball has published the letter
        let bytes = self.words().letter.0.iter().map(|shared| shared.load(Relaxed));
        String::from_utf8(bytes.take_while(|&byte| byte != 0).collect())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Gives order number `number`. The partner must have finished the one before.
    pub(crate) fn give(&self, number: u64, order: Order) {
        let Mailbox { number: last, words } = &self.words().mailbox.0;
        for (shared, word) in words.iter().zip(order.to_words()) {
            shared.store(word, Relaxed); // the number's store publishes them
        }
        // ORDERING: Release, with the Acquire load in `take`: a process that sees the number sees the order's words.
        last.store(number, Release);
    }

    /// Waits for order number `number`.
    pub(crate) fn take(&self, number: u64) -> io::Result<Order> {
        let Mailbox { number: last, words } = &self.words().mailbox.0;
        let mut patience = Patience::endless();
        // ORDERING: Acquire, with the Release store in `give`.
        while last.load(Acquire) != number {
            patience.pause()?;
        }
        // Relaxed: the parent writes them again only after this order is finished
        Order::of_words(std::array::from_fn(|i| words[i].load(Relaxed)))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an order that no parent gives"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_round_trips_through_the_words() {
        for verb in VERBS {
            let order = Order {
                verb,
                transport: 3,
                size: 64,
                mixed: true,
                count: 400,
                seed: u64::MAX,
                floor: 7,
                interval: 10_000,
                cold: true,
            };
            assert_eq!(Order::of_words(order.to_words()), Some(order));
        }
        let mut words = Order::QUIT.to_words();
        words[0] = 99;
        assert_eq!(Order::of_words(words), None);
    }

    #[test]
    fn leftover_round_trips_through_a_word() {
        for leftover in [
            Leftover::Segment(0),
            Leftover::Segment(i32::MAX),
            Leftover::Semaphores(32769),
            Leftover::Queue(7),
            Leftover::File(Scratch { directory: Directory::Shm, number: u32::MAX }),
            Leftover::File(Scratch::new(Directory::Disk)),
        ] {
            assert_eq!(Leftover::of_word(leftover.to_word()), Some(leftover));
        }
        assert_eq!(Leftover::of_word(0), None);
    }

    #[test]
    fn changing_words_have_their_own_lines() {
        assert_eq!(std::mem::offset_of!(Words, ball), 0);
        assert_eq!(std::mem::offset_of!(Words, mailbox), 128);
        assert_eq!(std::mem::offset_of!(Words, leftovers), 256);
        assert_eq!(std::mem::offset_of!(Words, letter), 1280);
        assert_eq!(std::mem::offset_of!(Words, start), 9472);
    }

    #[test]
    fn letter_is_read_as_written() {
        let control = Control::create().unwrap();
        assert_eq!(control.read_letter().unwrap(), "");
        assert!(control.write_letter(&"x".repeat(LETTER)).is_err());
        control.write_letter("classic 1\npipe 5 6").unwrap();
        assert_eq!(control.read_letter().unwrap(), "classic 1\npipe 5 6");
    }
}
