//! The protocol: who may move which word of the ring, when, and what the other side may then believe.
//!
//! All operations on positions and record headers are in this file. `head` is the read position and `tail` the write
//! position, both counted in bytes since the pipe was made and never wrapped; an *index* is a position masked into
//! the ring. word(P) is the 8 bytes of the ring at position P.
//!
//! # Publishing
//! A record is published by one Release store of its own header word, which the consumer polls: for a small message
//! one cache line moves instead of two. For that, word(tail) is zero at all times, so a record's successor word is
//! cleared before the record is committed.
//!
//! 1. There is space for the record and for the header word after it (by a private copy of `head`, refreshed when it
//!    falls short).
//! 2. Clear the header word after the record, as committed: a reservation may have been longer. Where it starts a
//!    cache line it has been cleared before (6), and the record's own lines are the only ones that a commit writes to.
//! 3. Write the payload.
//! 4. Store word(record): the commit.
//! 5. Store `tail`, a hint for recovery.
//! 6. Clear the first word of the lines ahead, a few lines at a time: see [`clear_ahead`].
//!
//! What has to be known for 1 and 2 is one number, the [`Front::runway`]; what a reader has to know is one, its limit.
//!
//! A record that would cross the end of the ring stands at index 0, and the commit stores [`record::WRAP`] at the old
//! tail. A batch is committed by its first record's word: all or nothing.
//!
//! # Sources
//! Publishing by the length word in the record is what Martin Thompson's Agrona and Aeron do; clearing the next word
//! ahead of the commit is theirs as well. Recovery by walking, without a third party, and the batch committed by its
//! first word are this crate's.

use crate::bell::{self, Rung, WakeMode};
use crate::copy;
use crate::error::Corruption;
use crate::layout::{Counters, Header, Quiet};
use crate::peer::{self, HasClosed, Phase, State, Watch};
use crate::record::{self, NOTHING, WORD, WRAP};
#[cfg(not(shmpipe_loom))]
use crate::sync::Futex;
use crate::sync::{AtomicU64, Ordering};
use core::ptr::NonNull;
use std::time::Duration;

/// Bytes of a cache line, or a divisor of it. Under loom two words, so that small rings have several.
const LINE: u64 = if cfg!(shmpipe_loom) { 16 } else { 64 };

/// How far behind the tail the lines are to be ours at least, and how many bytes of them we take at a time. Each
/// distance was the best of several: taken later, a line is not ours in time; taken earlier, the hardware prefetcher of
/// the consumer's core takes it away again; taken one by one, no two transfers overlap.
const NEAR: u64 = if cfg!(shmpipe_loom) { 16 } else { 128 };
const AT_ONCE: u64 = if cfg!(shmpipe_loom) { 16 } else { 448 };

/// The shared words of a pipe, and the private copy of its geometry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ring {
    header: NonNull<Header>,
    words: NonNull<AtomicU64>,
    /// The capacity less one.
    mask: u64,
}

// SAFETY: all that is reached through the pointers is atomic, or payload bytes that `copy` alone touches.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Ring {
    /// # Safety
    /// * `header` points to a header, `words` to `capacity / 8` words; both stay mapped and in place for as long as
    ///   any copy of the ring is used. The memory may change at any time.
    /// * Nothing in this process holds a reference to the words, other than through a copy of this ring.
    pub(crate) unsafe fn new(header: NonNull<Header>, words: NonNull<AtomicU64>, capacity: u64) -> Self {
        assert!(capacity.is_power_of_two() && capacity >= 4 * WORD);
        Ring { header, words, mask: capacity - 1 }
    }

    #[inline(always)]
    pub(crate) fn capacity(&self) -> u64 {
        self.mask + 1
    }

    pub(crate) fn max_length(&self) -> u64 {
        record::max_length(self.capacity())
    }

    #[inline(always)]
    pub(crate) fn header(&self) -> &Header {
        // SAFETY: it points to a header that outlives us (`new`), and everything in a header is atomic, so that it
        // does not matter who writes it meanwhile.
        unsafe { self.header.as_ref() }
    }

    #[inline(always)]
    fn index(&self, position: u64) -> u64 {
        position & self.mask
    }

    #[inline(always)]
    fn word_at(&self, position: u64) -> *const AtomicU64 {
        debug_assert!(position % WORD == 0);
        let index = self.index(position) as usize;
        // SAFETY: every position that comes here is a multiple of 8 (the ends check what they take over, and go on in
        // whole records), and its index is below the capacity: one of the `capacity / 8` words (`new`).
        #[cfg(not(shmpipe_loom))]
        unsafe {
            self.words.as_ptr().byte_add(index)
        }
        // SAFETY: as above. Loom's words are larger than 8 bytes.
        #[cfg(shmpipe_loom)]
        unsafe {
            self.words.as_ptr().add(index / WORD as usize)
        }
    }

    #[inline(always)]
    fn word(&self, position: u64) -> &AtomicU64 {
        // SAFETY: one of the words, see `word_at`; atomic, so that it does not matter who writes it meanwhile.
        unsafe { &*self.word_at(position) }
    }

    #[inline(always)]
    fn until_end(&self, position: u64) -> u64 {
        self.capacity() - self.index(position)
    }

    /// The payload of the record at `position`.
    #[inline(always)]
    pub(crate) fn payload(&self, position: u64, length: usize) -> Payload {
        debug_assert!(WORD + length as u64 <= self.until_end(position));
        // SAFETY: the words after the record's first are within the ring, or one past its end if the length is 0,
        // since a record does not cross the end.
        Payload { words: unsafe { self.word_at(position).add(1) }, length }
    }
}

/// A record's payload in the ring: bytes that the other process may write, whatever the protocol says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Payload {
    words: *const AtomicU64,
    length: usize,
}

impl Payload {
    #[inline(always)]
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.words.cast_mut().cast()
    }

    /// Copies the bytes out.
    ///
    /// # Safety
    /// * The ring is still mapped.
    /// * `to` is writable for `length()` bytes.
    #[inline(always)]
    pub(crate) unsafe fn read(&self, to: *mut u8) {
        // SAFETY: the payload lies within the ring (`Ring::payload`); the rest is the caller's promise.
        unsafe { copy::from_shared(self.words, 0, to, self.length) }
    }

    /// Copies the first `length` bytes out: for a length that the compiler knows.
    ///
    /// # Safety
    /// As [`read`](Self::read), and `length` is at most `length()`.
    #[inline(always)]
    pub(crate) unsafe fn read_start(&self, to: *mut u8, length: usize) {
        // SAFETY: as in `read`.
        unsafe { copy::from_shared(self.words, 0, to, length) }
    }

    /// Copies bytes in, from `offset` on: past the caches if `streaming`.
    ///
    /// # Safety
    /// * The ring is still mapped.
    /// * `offset + bytes.len()` is at most `length()`.
    /// * If `streaming`, there are at least [`copy::LONG`] bytes.
    #[inline(always)]
    pub(crate) unsafe fn write(&self, offset: usize, bytes: &[u8], streaming: bool) {
        let (from, length) = (bytes.as_ptr(), bytes.len());
        // SAFETY: the payload lies within the ring (`Ring::payload`); the rest is the caller's promise.
        unsafe {
            if streaming {
                copy::to_shared_streaming(from, self.words, offset, length);
            } else {
                copy::to_shared(from, self.words, offset, length);
            }
        }
    }

    /// Clears the bytes between the end of the payload and the end of the record, so that nothing older is shown.
    ///
    /// # Safety
    /// The ring is still mapped.
    #[inline(always)]
    unsafe fn clear_padding(&self) {
        let padding = record::size(self.length as u64) as usize - WORD as usize - self.length;
        if padding > 0 {
            // SAFETY: the padding belongs to the record, which lies within the ring.
            unsafe { copy::to_shared([0; WORD as usize].as_ptr(), self.words, self.length, padding) }
        }
    }
}

/// Where a record goes: from `start`, behind what is skipped at the end of the ring, to `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) start: u64,
    end: u64,
}

/// Where the next record goes, and what is known of the bytes from there on.
///
/// Its words are stored and loaded one by one, never copied together: a load that is wider than the stores before it waits until
/// those are in the cache, and so for every line that was taken ahead of them.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) at: u64,
    /// Bytes from `at` on that records may take without a further look: they are free, the ring does not end among
    /// them, and every word that starts a line there, up to and including the one behind them, is zero. If 0, nothing is
    /// known, and `cleared` says nothing either.
    runway: u64,
    /// A position: every word behind `at` and before it that starts a line is zero.
    cleared: u64,
}

impl Front {
    fn unknown(at: u64) -> Self {
        Front { at, runway: 0, cleared: at }
    }

    /// Takes what is known away, before anything but a whole record, committed at once, is written from `at` on. It comes back
    /// when that is committed, if it ever is.
    #[inline(always)]
    pub(crate) fn take(&mut self) -> u64 {
        std::mem::replace(&mut self.runway, 0)
    }
}

/// Where a record of `size` bytes goes that lies on a runway.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Here {
    /// A copy: the compiler cannot know that stores to the ring leave the writer's alone.
    ring: Ring,
    /// The record's first word.
    first: *const AtomicU64,
    pub(crate) start: u64,
    size: u64,
}

impl Here {
    #[inline(always)]
    fn end(&self) -> u64 {
        self.start.wrapping_add(self.size)
    }

    /// The word so many bytes from the record's start: one of its own, or the one behind it if that does not start a line.
    #[inline(always)]
    fn word(&self, bytes: u64) -> &AtomicU64 {
        debug_assert!(bytes % WORD == 0 && bytes < self.ring.until_end(self.start));
        // SAFETY: the ring does not end within the runway, and where it ends a line starts. Loom's words are larger than 8 bytes.
        unsafe { &*self.first.add((bytes / WORD) as usize) }
    }

    /// Writes the record, padding and all, but not its header word; and clears the one behind it.
    #[inline(always)]
    pub(crate) fn fill(&self, message: &[u8]) {
        self.clear_next();
        self.clear_padding();
        // SAFETY: the ring is mapped as long as the writer is there (`Ring::new`); the payload has the message's length.
        unsafe { self.payload(message.len()).write(0, message, false) }
    }

    pub(crate) fn slot(&self) -> Slot {
        Slot { start: self.start, end: self.end() }
    }

    #[inline(always)]
    pub(crate) fn payload(&self, length: usize) -> Payload {
        debug_assert!(record::size(length as u64) <= self.size);
        // SAFETY: a record is a word long at least, and lies within the ring.
        Payload { words: unsafe { self.first.add(1) }, length }
    }

    /// Clears the padding of a record that is going to fill its place.
    #[inline(always)]
    pub(crate) fn clear_padding(&self) {
        // It is in the record's last word, the header word of an empty one. Relaxed: the commit orders it.
        self.word(self.size - WORD).store(0, Ordering::Relaxed);
    }

    /// Clears the header word behind the record.
    #[inline(always)]
    fn clear_next(&self) {
        // One that starts a line is zero: that is what a runway is.
        if self.end() % LINE != 0 {
            // Relaxed: the commit orders it, so that who sees the record sees nothing behind it.
            self.word(self.size).store(NOTHING, Ordering::Relaxed);
        }
    }
}

/// The records of a batch, behind the tail.
#[derive(Debug)]
pub(crate) struct Uncommitted {
    /// Where the next record goes.
    pub(crate) front: Front,
    /// The word that commits the batch: that of its first record.
    first: u64,
    pub(crate) messages: u64,
    bytes: u64,
}

impl Uncommitted {
    /// Adds a record that was written up to `end`, all but what is to stand in the word at the front.
    #[inline(always)]
    fn add(&mut self, at_front: &AtomicU64, word: u64, end: u64, length: usize) {
        if self.messages == 0 {
            self.first = word;
        } else {
            // Relaxed: the commit of the batch orders it.
            at_front.store(word, Ordering::Relaxed);
        }
        self.front.at = end;
        self.messages += 1;
        self.bytes += length as u64;
    }
}

/// Why the producer cannot have a slot now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Full,
    Closed,
    Abandoned,
    Corrupt(Corruption),
}

/// Why the consumer will find no record, until a new producer comes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoMore {
    Closed,
    Abandoned,
    Corrupt(Corruption),
}

/// The producer's half of the ring.
#[derive(Debug)]
pub(crate) struct Writer {
    ring: Ring,
    /// At the tail. Nothing is known there while a reservation or a batch, which may be given up, is being written.
    front: Front,
    /// The latest `head` seen, checked.
    head: u64,
    /// Bytes of the longest record of which all lines are taken ahead.
    longest_taken: u64,
    rung: Rung,
    wake_mode: WakeMode,
    watch: Watch,
    state: State,
    poison: Option<Corruption>,
}

impl Writer {
    /// Takes over the ring where the last producer left it. The caller holds the producer's role. Of messages of up to `longest_taken`
    /// bytes, all lines are taken ahead for another one like it.
    pub(crate) fn recover(ring: Ring, wake_mode: WakeMode, longest_taken: u64) -> Result<Self, Corruption> {
        let header = ring.header();
        let own = &header.producer.0;
        // ORDERING: Acquire, pairs with the Release store in `Reader::release`: what the consumer has released is
        // not read by it any more.
        let head = header.head.0.load(Ordering::Acquire);
        let tail = last_commit(&ring, head)?;
        // ORDERING: Release as in `publish`; what we walked over had been published before.
        header.tail.0.store(tail, Ordering::Release);
        bell::nobody_sleeps(own);
        let watch = Watch::new(own, &header.consumer.0, true);
        let mut writer = Writer {
            ring,
            front: Front::unknown(tail),
            head,
            longest_taken: record::size(longest_taken),
            rung: Rung::new(wake_mode),
            wake_mode,
            watch,
            state: State::new(0, Phase::Never),
            poison: None,
        };
        writer.state = peer::open(own)?;
        writer.wake_peer();
        Ok(writer)
    }

    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }

    #[inline(always)]
    fn own(&self) -> &Quiet {
        &self.ring.header().producer.0
    }

    #[inline(always)]
    fn peer(&self) -> &Quiet {
        &self.ring.header().consumer.0
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.ring.header().produced.0
    }

    pub(crate) fn tail(&self) -> u64 {
        self.front.at
    }

    /// The front, for [`slot_here`](Self::slot_here).
    #[inline(always)]
    pub(crate) fn front(&self) -> &Front {
        &self.front
    }

    /// Space for a record of `length` bytes, at most `max_length`, if it is where it mostly is: on the runway of `front`,
    /// the writer's own or a batch's.
    #[inline(always)]
    pub(crate) fn slot_here(&self, front: &Front, length: usize) -> Option<Here> {
        debug_assert!(length as u64 <= self.ring.max_length());
        let size = record::size(length as u64);
        // Relaxed: it is compared only; `look_at_peer` loads again.
        let is_settled = self.peer().state.load(Ordering::Relaxed) == self.watch.settled.0;
        (is_settled && size <= front.runway).then(|| self.here(front.at, size))
    }

    #[inline(always)]
    fn here(&self, start: u64, size: u64) -> Here {
        Here { ring: self.ring, first: self.ring.word_at(start), start, size }
    }

    /// Finds space for a record of `length` bytes, at most `max_length`, behind `at`: the tail, or the end of a batch.
    #[inline(always)]
    pub(crate) fn slot(&mut self, at: u64, length: usize) -> Result<Slot, Refusal> {
        debug_assert!(length as u64 <= self.ring.max_length());
        // Relaxed: it is compared only; `look_at_peer` loads again.
        if self.peer().state.load(Ordering::Relaxed) != self.watch.settled.0 {
            self.look_at_peer()?;
        }
        let need = record::size(length as u64);
        let until_end = self.ring.until_end(at);
        let start = if need > until_end { at.wrapping_add(until_end) } else { at };
        let slot = Slot { start, end: start.wrapping_add(need) };
        if !self.has_room(slot.end) {
            self.refresh_head()?;
            if !self.has_room(slot.end) {
                return Err(Refusal::Full);
            }
        }
        Ok(slot)
    }

    /// Whether everything before `end`, and the header word there, may be written.
    #[inline(always)]
    fn has_room(&self, end: u64) -> bool {
        end.wrapping_add(WORD).wrapping_sub(self.head) <= self.ring.capacity()
    }

    /// Bytes from the tail to behind the header word after a record of `length` at `at`: what must be free for it.
    pub(crate) fn span(&self, at: u64, length: usize) -> u64 {
        let need = record::size(length as u64);
        let to_end = self.ring.until_end(at);
        let skipped = if need > to_end { to_end } else { 0 };
        at.wrapping_sub(self.front.at) + skipped + need + WORD
    }

    #[cold]
    #[inline(never)]
    fn refresh_head(&mut self) -> Result<(), Refusal> {
        if let Some(corruption) = self.poison {
            return Err(Refusal::Corrupt(corruption));
        }
        // ORDERING: Acquire, pairs with the Release store in `Reader::release`: the consumer has read what it
        // released before we overwrite it.
        let head = self.ring.header().head.0.load(Ordering::Acquire);
        // It moves forward, up to what was published, in whole records.
        if head.wrapping_sub(self.head) > self.front.at.wrapping_sub(self.head) || head % WORD != 0 {
            return Err(self.poison(Corruption { word: "head", position: self.front.at, found: head }));
        }
        self.head = head;
        Ok(())
    }

    /// The read position as last seen, and a load of it, to be timed.
    #[cfg(not(shmpipe_loom))]
    pub(crate) fn last_and_next_head(&self) -> (u64, impl FnOnce() -> u64) {
        let head = &self.ring.header().head.0;
        // Relaxed: nothing is believed of it.
        (self.head, || head.load(Ordering::Relaxed))
    }

    /// Bytes that are free now.
    pub(crate) fn free(&mut self) -> Result<u64, Refusal> {
        self.refresh_head()?;
        Ok(self.ring.capacity() - self.front.at.wrapping_sub(self.head))
    }

    #[cold]
    #[inline(never)]
    fn look_at_peer(&mut self) -> Result<(), Refusal> {
        if let Some(corruption) = self.poison {
            return Err(Refusal::Corrupt(corruption));
        }
        let header = self.ring.header();
        match self.watch.look(&header.consumer.0) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(HasClosed(state))) => {
                Watch::report(&header.producer.0, state);
                Err(Refusal::Closed)
            }
            Err(corruption) => Err(self.poison(corruption)),
        }
    }

    /// From here on every call fails with `corruption`.
    fn poison(&mut self, corruption: Corruption) -> Refusal {
        // With a head that far back there is never room, so that every call ends in `refresh_head`.
        self.head = self.front.at.wrapping_sub(self.ring.capacity());
        self.front.runway = 0;
        Refusal::Corrupt(*self.poison.get_or_insert(corruption))
    }

    /// The payload of a record that is being written.
    #[inline(always)]
    pub(crate) fn payload(&self, slot: Slot, length: usize) -> Payload {
        self.ring.payload(slot.start, length)
    }

    /// [`Here::fill`], for any slot: past the caches if `streaming`.
    #[inline(always)]
    pub(crate) fn fill(&self, slot: Slot, message: &[u8], streaming: bool) {
        debug_assert!(!streaming || message.len() >= copy::LONG);
        self.clear_next(slot);
        self.clear_padding(slot);
        // SAFETY: the ring is mapped as long as we are (`Ring::new`); the payload has the message's length.
        unsafe { self.payload(slot, message.len()).write(0, message, streaming) }
    }

    /// Clears the header word behind a record.
    #[inline(always)]
    fn clear_next(&self, slot: Slot) {
        // Relaxed: the commit orders it, so that who sees the record sees nothing behind it.
        self.ring.word(slot.end).store(NOTHING, Ordering::Relaxed);
    }

    /// Commits a record in a [`slot_here`](Self::slot_here): from here on it is in the pipe.
    #[inline(always)]
    pub(crate) fn commit_here(&mut self, here: Here, length: usize, tag: u32) {
        self.commit_on(self.front.runway, here, length, tag);
    }

    /// Commits a record on this runway, which begins at the tail.
    #[inline(always)]
    fn commit_on(&mut self, runway: u64, here: Here, length: usize, tag: u32) {
        debug_assert!(here.start == self.front.at && here.size == record::size(length as u64));
        let Here { ring, first, size, .. } = here;
        let runway = runway - size;
        self.front.runway = runway;
        // SAFETY: it points to one of the ring's words, which are atomic.
        self.publish(ring, unsafe { &*first }, record::header(length, tag), here.end(), 1, length as u64);
        // The next one is probably as long as this one.
        if runway < size || !self.rung.is_last(&ring.header().consumer.0) {
            self.follow_up(size);
        }
    }

    /// Before a reservation is written: takes what is known of the front away.
    #[inline(always)]
    pub(crate) fn take_runway(&mut self) -> u64 {
        self.front.take()
    }

    /// Clears the padding of a record that is going to fill its slot.
    #[inline(always)]
    pub(crate) fn clear_padding(&self, slot: Slot) {
        // As in `Here::clear_padding`.
        self.ring.word(slot.end.wrapping_sub(WORD)).store(0, Ordering::Relaxed);
    }

    /// Commits a reservation that its message fills, with the runway that was taken for it.
    #[inline(always)]
    pub(crate) fn commit_reserved(&mut self, runway: u64, slot: Slot, payload: Payload, tag: u32) {
        let length = payload.length;
        let size = record::size(length as u64);
        if size <= runway {
            // Then it is not behind a wrap, or there would not be as much runway.
            // SAFETY: a payload stands one word behind its record's first.
            let first = unsafe { payload.words.sub(1) };
            let here = Here { ring: self.ring, first, start: slot.start, size };
            here.clear_next();
            self.commit_on(runway, here, length, tag);
        } else {
            self.front.runway = runway;
            self.clear_next(slot);
            self.commit_out_of_line(slot, length, tag);
        }
    }

    /// Commits the first `length` bytes of a reservation, of which `written` at most were written; `runway` is what was taken for
    /// it.
    #[inline(never)]
    pub(crate) fn commit_shortened(
        &mut self,
        runway: u64,
        slot: Slot,
        written: usize,
        length: usize,
        tag: u32,
    ) {
        let size = record::size(length as u64);
        debug_assert!(size <= slot.end.wrapping_sub(slot.start));
        let slot = Slot { start: slot.start, end: slot.start.wrapping_add(size) };
        let payload = self.payload(slot, length);
        // SAFETY: the ring is mapped as long as we are (`Ring::new`).
        unsafe { payload.clear_padding() };
        // What was written beyond the end is not zero any more, and the runway does not lead behind a wrap.
        let is_known = written <= length && slot.start == self.front.at;
        self.commit_reserved(if is_known { runway } else { 0 }, slot, payload, tag);
    }

    #[inline(never)]
    fn commit_out_of_line(&mut self, slot: Slot, length: usize, tag: u32) {
        self.commit(slot, length, tag);
    }

    /// Commits one record: from here on it is in the pipe.
    #[inline(always)]
    pub(crate) fn commit(&mut self, slot: Slot, length: usize, tag: u32) {
        let first = self.link(self.front.at, slot, record::header(length, tag));
        let size = slot.end.wrapping_sub(self.front.at);
        self.commit_linked(first, slot.end, 1, length as u64);
        self.follow_up(size);
    }

    /// Writes what is to stand at `at`, except for the word there, which it returns: the record's own, or WRAP
    /// with the record's word at the start of the ring.
    #[inline(always)]
    fn link(&self, at: u64, slot: Slot, word: u64) -> u64 {
        if slot.start == at {
            return word;
        }
        // Relaxed: the commit orders it.
        self.ring.word(slot.start).store(word, Ordering::Relaxed);
        WRAP
    }

    /// Adds a record to a batch. Nothing of it is visible before [`commit_batch`](Self::commit_batch).
    #[inline(always)]
    pub(crate) fn append(
        &self,
        batch: &mut Uncommitted,
        slot: Slot,
        message: &[u8],
        tag: u32,
        streaming: bool,
    ) {
        self.fill(slot, message, streaming);
        let word = self.link(batch.front.at, slot, record::header(message.len(), tag));
        if batch.front.take() == 0 {
            batch.front.cleared = slot.end;
        }
        let size = slot.end.wrapping_sub(batch.front.at);
        batch.add(self.ring.word(batch.front.at), word, slot.end, message.len());
        extend(&self.ring, self.head, self.longest_taken, &mut batch.front, size);
    }

    /// [`append`](Self::append), for a [`slot_here`](Self::slot_here) of the batch's front.
    #[inline(always)]
    pub(crate) fn append_here(&self, batch: &mut Uncommitted, here: Here, message: &[u8], tag: u32) {
        here.fill(message);
        let runway = batch.front.runway - here.size;
        batch.front.runway = runway;
        // SAFETY: it points to one of the ring's words, which are atomic.
        batch.add(unsafe { &*here.first }, record::header(message.len(), tag), here.end(), message.len());
        if runway < here.size {
            extend(&self.ring, self.head, self.longest_taken, &mut batch.front, here.size);
        }
    }

    /// Commits a batch that is not empty.
    #[inline(always)]
    pub(crate) fn commit_batch(&mut self, batch: &Uncommitted) {
        self.commit_linked(batch.first, batch.front.at, batch.messages, batch.bytes);
        if batch.front.runway > 0 {
            self.front.cleared = batch.front.cleared;
        }
        self.follow_up(WORD);
    }

    /// Commits records, of which the first one's word is `first` and the last one ends at `end`. There is no runway then.
    #[inline(always)]
    fn commit_linked(&mut self, first: u64, end: u64, messages: u64, bytes: u64) {
        if self.front.take() == 0 {
            self.front.cleared = end;
        }
        // A copy: the compiler cannot know that the stores leave the original alone.
        let ring = self.ring;
        self.publish(ring, ring.word(self.front.at), first, end, messages, bytes);
    }

    /// Makes everything from the tail to `end` visible at once by storing `first` in the word at the tail.
    #[inline(always)]
    fn publish(&mut self, ring: Ring, word: &AtomicU64, first: u64, end: u64, messages: u64, bytes: u64) {
        let header = ring.header();
        // ORDERING: Release, the commit. Pairs with the Acquire load in `Reader::look`: who sees the word sees the
        // payload, the later records of a batch and the cleared word behind them.
        word.store(first, Ordering::Release);
        self.front.at = end;
        // ORDERING: Release, pairs with the Acquire load in `last_commit`, and, more to the point, not to be moved
        // above the commit: killed between the two, a producer must not leave a tail ahead of a hole.
        header.tail.0.store(end, Ordering::Release);
        count(&header.produced.0.messages, messages);
        count(&header.produced.0.bytes, bytes);
    }

    /// After a commit of `size` bytes: rings if the consumer goes to sleep, and extends the runway for another one like it.
    #[cold]
    #[inline(never)]
    fn follow_up(&mut self, size: u64) {
        if !self.rung.is_last(self.peer()) {
            self.answer();
        }
        if self.front.runway < size {
            extend(&self.ring, self.head, self.longest_taken, &mut self.front, size);
        }
    }

    /// Begins a batch.
    pub(crate) fn begin(&mut self) -> Uncommitted {
        let Front { at, cleared, .. } = self.front;
        let runway = self.front.take();
        let front = if runway > 0 { Front { at, runway, cleared } } else { Front::unknown(at) };
        Uncommitted { front, first: 0, messages: 0, bytes: 0 }
    }

    /// Rings for a consumer that is going to sleep, once per ticket.
    #[cold]
    #[inline(never)]
    fn answer(&mut self) {
        let Some(ticket) = self.rung.look(self.peer()) else { return };
        self.rung.done(ticket);
        if ticket.is_asleep() {
            bell::ring(self.own());
            count(&self.counters().wakeups, 1);
        }
    }

    /// Wakes the consumer, if it sleeps, because of something other than a message.
    fn wake_peer(&mut self) {
        bell::wake_up(self.own(), self.peer(), self.wake_mode);
    }

    /// Sleeps until the consumer has released enough for a record of `length` behind `at`, or something else happened.
    pub(crate) fn sleep(&self, at: u64, length: usize, timeout: Duration) {
        let wanted = self.front.at.wrapping_add(self.span(at, length)).wrapping_sub(self.ring.capacity());
        // Relaxed: the ticket's Release store in `bell::sleep` publishes it.
        self.own().wanted.store(wanted, Ordering::Relaxed);
        let nothing_yet = || {
            // ORDERING: Acquire as in `refresh_head`, which checks the value; here it only decides about sleep.
            let head = self.ring.header().head.0.load(Ordering::Acquire);
            !is_reached(head, wanted) && self.peer_state() == self.watch.settled
        };
        bell::sleep(self.own(), self.peer(), self.wake_mode, timeout, nothing_yet);
    }

    /// Sleeps until the consumer's state is no longer `seen`.
    pub(crate) fn sleep_for_peer(&self, seen: State, timeout: Duration) {
        // No head comes this far without us. Relaxed: as in `sleep`.
        self.own().wanted.store(self.front.at.wrapping_add(self.ring.capacity()), Ordering::Relaxed);
        bell::sleep(self.own(), self.peer(), self.wake_mode, timeout, || self.peer_state() == seen);
    }

    /// What we sleep on.
    #[cfg(not(shmpipe_loom))]
    pub(crate) fn bell(&self) -> &Futex {
        &self.peer().bell
    }

    /// After the ring was found full: whether the consumer has died, as far as the kernel knows whether its role is
    /// free. What it released before it died counts.
    pub(crate) fn look_for_death<E>(
        &mut self,
        at: u64,
        length: usize,
        role_is_free: impl FnOnce() -> Result<bool, E>,
    ) -> Result<Result<Slot, Refusal>, E> {
        let Some(state) = self.watch.died(self.peer(), role_is_free)? else { return Ok(Err(Refusal::Full)) };
        let slot = self.slot(at, length);
        Ok(if slot == Err(Refusal::Full) {
            self.watch.report_death(&self.ring.header().producer.0, state);
            Err(Refusal::Abandoned)
        } else {
            slot
        })
    }

    /// Whether somebody has claimed our role behind us: nobody but a producer writes its state.
    pub(crate) fn is_succeeded(&self) -> bool {
        // Relaxed: it is compared only.
        self.own().state.load(Ordering::Relaxed) != self.state.0
    }

    /// The consumer's state.
    pub(crate) fn peer_state(&self) -> State {
        State::of(self.peer())
    }

    /// Announces an orderly end. The role is still ours.
    pub(crate) fn close(&mut self) {
        peer::close(self.own(), self.state);
        self.wake_peer();
    }
}

/// Gives a front as much runway as there is, for another record of `size` bytes if possible, and clears enough lines for it.
/// The read position is `head` or further. The lines of records of more than `longest` bytes are not taken.
#[inline(never)]
fn extend(ring: &Ring, head: u64, longest: u64, front: &mut Front, size: u64) {
    if size > longest {
        // The next one is looked at closely in any case.
        *front = Front::unknown(front.at);
        return;
    }
    // The runway ends short of what is cleared, so that more is cleared in time.
    let margin = NEAR.saturating_sub(size).max(WORD);
    let ahead = front.cleared.wrapping_sub(front.at) as i64;
    if ahead < (size + margin) as i64 {
        front.cleared = clear_ahead(ring, head, front, size);
    }
    let cleared = front.cleared.wrapping_sub(front.at).saturating_sub(margin);
    // None, with the head of a poisoned end.
    let free = (ring.capacity() - WORD).saturating_sub(front.at.wrapping_sub(head));
    front.runway = cleared.min(free).min(ring.until_end(front.at));
}

/// Clears the first word of some lines behind the front, as far as there is space: of all those for another record of `size`
/// bytes, and more. Returns how far.
///
/// What this is for is not the zero but the line. The consumer has read it, a lap ago, or its core's prefetcher has:
/// both caches share it, and the first store to it waits until the other one has let go of it, with all later
/// stores behind it, since stores become visible in order. Here this happens after a commit, for several lines at
/// once, while the consumer is busy with what it got, instead of in the middle of the next message. Prefetching for
/// writing does not do it: some processors (AMD's among them) leave a line shared that is in the cache already.
fn clear_ahead(ring: &Ring, head: u64, front: &Front, size: u64) -> u64 {
    let Front { at, cleared, .. } = *front;
    let distance = AT_ONCE + size.max(NEAR);
    // None, with the head of a poisoned end.
    let free = ring.capacity().saturating_sub(at.wrapping_sub(head));
    let first = at.wrapping_add(LINE - 1) & !(LINE - 1);
    let end = at.wrapping_add(distance.min(free)) & !(LINE - 1);
    let mut line = if is_reached(cleared, first) { cleared } else { first };
    while !is_reached(line, end) {
        // Relaxed: a free word, like those of the next payload; the commits order it.
        ring.word(line).store(NOTHING, Ordering::Relaxed);
        line = line.wrapping_add(LINE);
    }
    line
}

/// A record that the consumer found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its position.
    pub(crate) start: u64,
    /// The position behind it.
    pub(crate) end: u64,
    /// The [`Reader::limit`] behind it.
    pub(crate) limit: u64,
    /// Its header word: read once, checked, never read again.
    word: u64,
    /// Its payload, as long as the header word says.
    payload: *const AtomicU64,
}

impl Found {
    /// The payload.
    #[inline(always)]
    pub(crate) fn payload(&self) -> Payload {
        Payload { words: self.payload, length: self.length() }
    }

    #[inline(always)]
    pub(crate) fn length(&self) -> usize {
        record::length(self.word) as usize
    }

    #[inline(always)]
    pub(crate) fn tag(&self) -> u32 {
        record::tag(self.word)
    }
}

/// The consumer's half of the ring.
#[derive(Debug)]
pub(crate) struct Reader {
    ring: Ring,
    head: u64,
    /// A record at the head of so many bytes at most is correct: it fits before the ring's end and is not too long.
    limit: u64,
    rung: Rung,
    wake_mode: WakeMode,
    watch: Watch,
    state: State,
    poison: Option<Corruption>,
}

impl Reader {
    /// Takes over the ring where the last consumer left it. The caller holds the consumer's role.
    pub(crate) fn recover(ring: Ring, wake_mode: WakeMode) -> Result<Self, Corruption> {
        let header = ring.header();
        let own = &header.consumer.0;
        // Relaxed: written by consumers alone; the claim has ordered us after the last one.
        let head = header.head.0.load(Ordering::Relaxed);
        if head % WORD != 0 {
            return Err(Corruption { word: "head", position: head, found: head });
        }
        // ORDERING: Acquire, pairs with the Release store in `Writer::publish`.
        let tail = header.tail.0.load(Ordering::Acquire);
        if !is_near(head, tail, ring.capacity()) {
            return Err(Corruption { word: "tail", position: head, found: tail });
        }
        bell::nobody_sleeps(own);
        let watch = Watch::new(own, &header.producer.0, false);
        let mut reader = Reader {
            ring,
            head,
            limit: limit(&ring, head),
            rung: Rung::new(wake_mode),
            wake_mode,
            watch,
            state: State::new(0, Phase::Never),
            poison: None,
        };
        reader.state = peer::open(own)?;
        reader.wake_peer();
        Ok(reader)
    }

    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }

    #[inline(always)]
    fn own(&self) -> &Quiet {
        &self.ring.header().consumer.0
    }

    #[inline(always)]
    fn peer(&self) -> &Quiet {
        &self.ring.header().producer.0
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.ring.header().consumed.0
    }

    /// The read position.
    #[inline(always)]
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    /// The limit at the head.
    #[inline(always)]
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Looks for a record at `at`: the head, or the end of the records already taken, each with its limit. Finds the one
    /// that is simply there; whatever else is the case, [`look`](Self::look) finds out.
    #[inline(always)]
    pub(crate) fn glance(&self, at: u64, limit: u64) -> Option<Found> {
        // ORDERING: Acquire, pairs with the commit, the Release store in `Writer::publish`: what the record holds is
        // there when its word is.
        let first = self.ring.word_at(at);
        // SAFETY: it points to one of the ring's words, which are atomic.
        let word = unsafe { &*first }.load(Ordering::Acquire);
        let size = record::size(record::length(word));
        // Nothing, a wrap and nonsense are all too long.
        (size <= limit).then(|| Found {
            start: at,
            end: at.wrapping_add(size),
            limit: limit - size,
            word,
            // SAFETY: a record that fits is a word long at least.
            payload: unsafe { first.add(1) },
        })
    }

    /// Looks for a record at the head, as [`glance`](Self::glance) does, also behind a wrap, and tells nothing from nonsense.
    #[inline]
    pub(crate) fn look(&mut self) -> Result<Option<Found>, Corruption> {
        match self.glance(self.head, self.limit) {
            Some(found) => Ok(Some(found)),
            None => self.look_closer(self.head),
        }
    }

    #[inline(never)]
    pub(crate) fn look_closer(&mut self, at: u64) -> Result<Option<Found>, Corruption> {
        if let Some(corruption) = self.poison {
            return Err(corruption);
        }
        // ORDERING: Acquire, as in `glance`. The word may be another than the one seen there.
        let word = self.ring.word(at).load(Ordering::Acquire);
        if word == NOTHING {
            return Ok(None);
        }
        match record_at(&self.ring, at, word) {
            Ok(found) => Ok(Some(found)),
            Err(corruption) => Err(self.poison(corruption)),
        }
    }

    /// Whether there is nothing at the head: one load.
    #[inline(always)]
    pub(crate) fn is_dry(&self) -> bool {
        // Relaxed: what is there is loaded again before it is believed.
        self.ring.word(self.head).load(Ordering::Relaxed) == NOTHING
    }

    /// Looks for the next record of several that are released together.
    #[inline]
    pub(crate) fn look_further(&mut self, at: u64, limit: u64) -> Result<Option<Found>, Corruption> {
        match self.glance(at, limit) {
            Some(found) => Ok(Some(found)),
            None => self.look_further_closely(at),
        }
    }

    #[inline(never)]
    fn look_further_closely(&mut self, at: u64) -> Result<Option<Found>, Corruption> {
        let Some(found) = self.look_closer(at)? else { return Ok(None) };
        // More than the ring holds would be the same records once more: from here on, and by the limit, further on.
        let taken = found.end.wrapping_add(WORD).wrapping_sub(self.head);
        match self.ring.capacity().checked_sub(taken) {
            Some(left) => Ok(Some(Found { limit: found.limit.min(left), ..found })),
            None => {
                let corruption =
                    Corruption { word: "record header", position: found.start, found: found.word };
                Err(self.poison(corruption))
            }
        }
    }

    /// From here on every call fails with `corruption`.
    #[cold]
    fn poison(&mut self, corruption: Corruption) -> Corruption {
        self.limit = 0;
        *self.poison.get_or_insert(corruption)
    }

    /// Gives the space of `messages` records, up to `end` with this limit, back to the producer.
    #[inline(always)]
    pub(crate) fn release(&mut self, end: u64, limit: u64, messages: u64, bytes: u64) {
        let header = self.ring.header();
        self.head = end;
        self.limit = limit;
        // ORDERING: Release, pairs with the Acquire loads in `Writer::refresh_head` and `Writer::recover`: we have
        // read what we release before the producer overwrites it.
        header.head.0.store(end, Ordering::Release);
        count(&header.consumed.0.messages, messages);
        count(&header.consumed.0.bytes, bytes);
        if !self.rung.is_last(&header.producer.0) {
            self.answer();
        }
    }

    /// Rings for a producer that is going to sleep, once per ticket and only when there is what it waits for.
    #[cold]
    #[inline(never)]
    fn answer(&mut self) {
        let Some(ticket) = self.rung.look(self.peer()) else { return };
        if ticket.is_asleep() {
            if !is_reached(self.head, bell::wanted(self.peer())) {
                return;
            }
            bell::ring(self.own());
            count(&self.counters().wakeups, 1);
        }
        self.rung.done(ticket);
    }

    /// Wakes the producer, if it sleeps, because of something other than space.
    fn wake_peer(&mut self) {
        bell::wake_up(self.own(), self.peer(), self.wake_mode);
    }

    /// Sleeps until the producer has sent something, or something else happened.
    pub(crate) fn sleep(&self, timeout: Duration) {
        let nothing_yet = || {
            // ORDERING: Acquire as in `look`, which loads it again; here it only decides about sleep.
            self.ring.word(self.head).load(Ordering::Acquire) == NOTHING
                && self.peer_state() == self.watch.settled
        };
        bell::sleep(self.own(), self.peer(), self.wake_mode, timeout, nothing_yet);
    }

    /// Sleeps until the producer's state is no longer `seen`.
    pub(crate) fn sleep_for_peer(&self, seen: State, timeout: Duration) {
        bell::sleep(self.own(), self.peer(), self.wake_mode, timeout, || self.peer_state() == seen);
    }

    /// What we sleep on.
    #[cfg(not(shmpipe_loom))]
    pub(crate) fn bell(&self) -> &Futex {
        &self.peer().bell
    }

    /// After the ring was found empty: whether the producer has closed. What it committed before is found first.
    #[inline]
    pub(crate) fn look_for_end(&mut self) -> Result<Option<Found>, NoMore> {
        if self.peer_state() == self.watch.settled { Ok(None) } else { self.look_at_peer() }
    }

    #[cold]
    #[inline(never)]
    fn look_at_peer(&mut self) -> Result<Option<Found>, NoMore> {
        if let Some(corruption) = self.poison {
            return Err(NoMore::Corrupt(corruption));
        }
        match self.watch.look(&self.ring.header().producer.0) {
            Ok(Ok(())) => Ok(None),
            Ok(Err(HasClosed(state))) => match self.look().map_err(NoMore::Corrupt)? {
                Some(found) => Ok(Some(found)),
                None => {
                    Watch::report(self.own(), state);
                    Err(NoMore::Closed)
                }
            },
            Err(corruption) => Err(NoMore::Corrupt(self.poison(corruption))),
        }
    }

    /// After the ring was found empty: whether the producer has died, as far as the kernel knows whether its role is
    /// free. What it committed before is found first.
    pub(crate) fn look_for_death<E>(
        &mut self,
        role_is_free: impl FnOnce() -> Result<bool, E>,
    ) -> Result<Result<Option<Found>, NoMore>, E> {
        let Some(state) = self.watch.died(self.peer(), role_is_free)? else { return Ok(Ok(None)) };
        Ok(match self.look() {
            Ok(Some(found)) => Ok(Some(found)),
            Ok(None) => {
                self.watch.report_death(&self.ring.header().consumer.0, state);
                Err(NoMore::Abandoned)
            }
            Err(corruption) => Err(NoMore::Corrupt(corruption)),
        })
    }

    /// Whether there is something to receive from the producer in this state, be it its end: see [`Watch::is_news`].
    pub(crate) fn is_news(&self, state: State) -> bool {
        self.watch.is_news(self.own(), state)
    }

    /// Whether somebody has claimed our role behind us: nobody but a consumer writes its state.
    pub(crate) fn is_succeeded(&self) -> bool {
        // Relaxed: it is compared only.
        self.own().state.load(Ordering::Relaxed) != self.state.0
    }

    /// The producer's state.
    pub(crate) fn peer_state(&self) -> State {
        State::of(self.peer())
    }

    /// Announces an orderly end. The role is still ours.
    pub(crate) fn close(&mut self) {
        peer::close(self.own(), self.state);
        self.wake_peer();
    }
}

/// The record whose word, not zero, was found at `at`, possibly behind a wrap.
fn record_at(ring: &Ring, at: u64, word: u64) -> Result<Found, Corruption> {
    let to_end = ring.until_end(at);
    let corrupt = |position, found| Corruption { word: "record header", position, found };
    let (start, word, room) = if word == WRAP {
        // Less than half the ring is skipped, or the record would have fitted.
        if to_end >= ring.capacity() / 2 {
            return Err(corrupt(at, word));
        }
        let start = at.wrapping_add(to_end);
        // Relaxed: the wrap was published after the record behind it, and was loaded with Acquire.
        (start, ring.word(start).load(Ordering::Relaxed), ring.capacity())
    } else {
        (at, word, to_end)
    };
    let length = record::length(word);
    let size = record::size(length);
    if length > ring.max_length() || size > room {
        return Err(corrupt(start, word));
    }
    let end = start.wrapping_add(size);
    Ok(Found {
        start,
        end,
        limit: limit(ring, end),
        word,
        payload: ring.payload(start, length as usize).words,
    })
}

/// The [`Reader::limit`] at a position.
fn limit(ring: &Ring, at: u64) -> u64 {
    record::size(ring.max_length()).min(ring.until_end(at))
}

/// Walks over the committed records to the first word that is zero: the tail, of which the word in the header may
/// lag behind by one commit or one batch, even behind the head.
fn last_commit(ring: &Ring, head: u64) -> Result<u64, Corruption> {
    // ORDERING: Acquire, pairs with the Release store in `Writer::publish`.
    let tail = ring.header().tail.0.load(Ordering::Acquire);
    if head % WORD != 0 {
        return Err(Corruption { word: "head", position: tail, found: head });
    }
    if tail % WORD != 0 || !is_near(head, tail, ring.capacity()) {
        return Err(Corruption { word: "tail", position: head, found: tail });
    }
    let mut at = if is_reached(tail, head) { tail } else { head };
    // The header word at the tail belongs to the producer too.
    let is_within = |tail: u64| tail.wrapping_add(WORD).wrapping_sub(head) <= ring.capacity();
    if !is_within(at) {
        return Err(Corruption { word: "tail", position: head, found: tail });
    }
    loop {
        // ORDERING: Acquire, pairs with the commit in `Writer::publish`.
        let word = ring.word(at).load(Ordering::Acquire);
        if word == NOTHING {
            return Ok(at);
        }
        let found = record_at(ring, at, word)?;
        if !is_within(found.end) {
            return Err(Corruption { word: "record header", position: at, found: word });
        }
        at = found.end;
    }
}

/// Bytes between the read position and what was committed last, while there is no producer: whoever killed it may have done
/// so before it could store its `tail`.
#[cfg(not(shmpipe_loom))]
pub(crate) fn unread(ring: &Ring) -> Result<u64, Corruption> {
    // ORDERING: Acquire, pairs with the Release store in `Reader::release`.
    let head = ring.header().head.0.load(Ordering::Acquire);
    last_commit(ring, head).map(|tail| tail.wrapping_sub(head))
}

/// Whether `position` is at or behind `wanted`, in a stream whose positions may wrap around.
fn is_reached(position: u64, wanted: u64) -> bool {
    position.wrapping_sub(wanted) as i64 >= 0
}

/// Whether two positions are no further apart than the ring is long.
fn is_near(a: u64, b: u64, capacity: u64) -> bool {
    a.wrapping_sub(b).wrapping_add(capacity) <= 2 * capacity
}

/// Adds to a counter that only this side writes.
#[inline(always)]
fn count(counter: &AtomicU64, more: u64) {
    // Relaxed: one writer, and nothing is read through it.
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

/// Adds one wait to a side's counters.
pub(crate) fn count_wait(counters: &Counters) {
    count(&counters.waits, 1);
}
