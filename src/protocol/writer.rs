//! The producer's half of the ring: space, commits, batches, and what it knows of the consumer.

use crate::protocol::bell::{self, Rung, WakeMode};
use crate::protocol::copy;
use crate::protocol::corruption::Corruption;
use crate::protocol::front::{Front, Here, Slot, Uncommitted, extend};
use crate::protocol::half::Half;
use crate::protocol::layout::{Counters, Quiet, count};
use crate::protocol::peer::{self, HasClosed, Phase, State, Watch};
use crate::protocol::record::{self, NOTHING, WORD, WRAP};
use crate::protocol::recovery::last_commit;
use crate::protocol::ring::{Payload, Ring, is_reached};
use crate::protocol::sync::{AtomicU64, Futex, Ordering};
use std::time::Duration;

/// Why the producer cannot have a slot now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Full,
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
}

impl Half for Writer {
    fn peer_state(&self) -> State {
        State::of(self.peer())
    }

    fn is_news(&self, _: State) -> bool {
        false
    }

    fn is_succeeded(&self) -> bool {
        // Relaxed: it is compared only.
        self.own().state.load(Ordering::Relaxed) != self.state.0
    }

    fn bell(&self) -> &Futex {
        &self.peer().bell
    }

    fn sleep_for_peer(&self, seen: State, timeout: Duration) {
        // No head comes this far without us. Relaxed: as in `sleep`.
        self.own().wanted.store(self.front.at.wrapping_add(self.ring.capacity()), Ordering::Relaxed);
        bell::sleep(self.own(), self.peer(), self.wake_mode, timeout, || self.peer_state() == seen);
    }

    fn close(&mut self) {
        peer::close(self.own(), self.state);
        self.wake_peer();
    }
}
