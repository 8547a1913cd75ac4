//! The producer's half of the ring: finds space, commits records and batches, and monitors the consumer.

use crate::protocol::copy;
use crate::protocol::corruption::Corruption;
use crate::protocol::front::{Ahead, FastSlot, Front, Slot, Uncommitted, extend};
use crate::protocol::half::Half;
use crate::protocol::latency::Sampling;
use crate::protocol::layout::{Counters, SideState, count};
use crate::protocol::liveness::{self, End, PeerDied, PeerMonitor, Phase, Role, State};
use crate::protocol::record::{self, EMPTY, WORD, WRAP};
use crate::protocol::recovery::last_commit;
use crate::protocol::ring::{Ring, SharedBytes, is_reached};
use crate::protocol::sleep::{Sleep, Until};
use crate::protocol::sync::{self, AtomicU64, Ordering};
use crate::protocol::wakeup::{self, WaiterCache, WakeMode};

/// Why the producer gets no slot now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReserveError {
    Full,
    Ended(End),
    Corrupt(Corruption),
}

/// How much space ends a sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Enough for the record.
    Record,
    /// Enough for the record, and a share of the ring, or all of it that can become free. So a producer that is ahead of its consumer
    /// sleeps once per share and not once per record.
    Share,
}

/// The producer's half of the ring.
#[derive(Debug)]
pub(crate) struct Writer {
    ring: Ring,
    /// The front at the tail. It has no runway while a reservation or a batch is being written, which may be abandoned.
    front: Front,
    /// The latest `head` seen, checked.
    head: u64,
    ahead: Ahead,
    /// The latest announcement that comes before a long copy's stores.
    ordered: u64,
    waiter: WaiterCache,
    wake_mode: WakeMode,
    monitor: PeerMonitor,
    state: State,
    /// The ring of the other half of a duplex endpoint, while the two are used together.
    other: Option<Ring>,
    poison: Option<Corruption>,
    /// Whether this side has closed. The role may be another process's.
    is_finished: bool,
}

impl Writer {
    /// Takes over the ring where the last producer left it. The caller holds the producer's role, and [opens](Half::open) the result.
    /// After a message of at most `longest_acquired` bytes, the writer acquires all cache lines for another message of that length.
    pub(crate) fn recover(
        ring: Ring,
        wake_mode: WakeMode,
        longest_acquired: u64,
        sampling: Sampling,
    ) -> Result<Self, Corruption> {
        let header = ring.header();
        let own = &header.producer.0;
        // ORDERING: Acquire, pairs with the Release store in `Reader::release`: the consumer no longer reads what it has
        // released.
        let head = header.head.0.load(Ordering::Acquire);
        let tail = last_commit(&ring, head)?;
        // ORDERING: Release, as in `publish`: the records that we walked over were published before.
        header.tail.0.store(tail, Ordering::Release);
        wakeup::clear_waiter(own);
        let monitor = PeerMonitor::new(own, &header.consumer.0, true);
        Ok(Writer {
            ring,
            front: Front::unknown(tail),
            head,
            ahead: Ahead { longest: record::size(longest_acquired), sampling },
            ordered: 0,
            waiter: WaiterCache::new(wake_mode),
            wake_mode,
            monitor,
            state: State::new(0, Phase::Never),
            other: None,
            poison: None,
            is_finished: false,
        })
    }

    pub(crate) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Makes this the half of a duplex endpoint whose other half uses the ring `other`: only one of the two reports an abort or a
    /// death of the peer. `None` parts them again.
    pub(crate) fn join(&mut self, other: Option<Ring>) {
        self.other = other;
    }

    #[inline(always)]
    fn own(&self) -> &SideState {
        &self.ring.header().producer.0
    }

    #[inline(always)]
    fn peer(&self) -> &SideState {
        &self.ring.header().consumer.0
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.ring.header().produced.0
    }

    /// The write position.
    pub(crate) fn tail(&self) -> u64 {
        self.front.at
    }

    /// The front, for [`slot_fast`](Self::slot_fast).
    #[inline(always)]
    pub(crate) fn front(&self) -> &Front {
        &self.front
    }

    /// Space for a record of `length` bytes, at most `max_length`, in the usual case: on the runway of `front`, which is the writer's
    /// own or a batch's.
    #[inline(always)]
    pub(crate) fn slot_fast(&self, front: &Front, length: usize) -> Option<FastSlot> {
        debug_assert!(length as u64 <= self.ring.max_length());
        let size = record::size(length as u64);
        // Relaxed: the value is only compared; `check_peer` loads it again.
        let is_settled = self.peer().state.load(Ordering::Relaxed) == self.monitor.seen.0;
        (is_settled && size <= front.runway).then(|| self.fast_slot_at(front.at, size))
    }

    #[inline(always)]
    fn fast_slot_at(&self, start: u64, size: u64) -> FastSlot {
        FastSlot { ring: self.ring, first: self.ring.word_at(start), start, size }
    }

    /// Finds space for a record of `length` bytes, at most `max_length`, from `at` on: the tail, or the end of a batch.
    #[inline(always)]
    pub(crate) fn slot(&mut self, at: u64, length: usize) -> Result<Slot, ReserveError> {
        debug_assert!(length as u64 <= self.ring.max_length());
        self.peek_end()?;
        let need = record::size(length as u64);
        let until_end = self.ring.until_end(at);
        let start = if need > until_end { at.wrapping_add(until_end) } else { at };
        let slot = Slot { start, end: start.wrapping_add(need) };
        if !self.has_room(slot.end) {
            self.refresh_head().map_err(ReserveError::Corrupt)?;
            if !self.has_room(slot.end) {
                return Err(ReserveError::Full);
            }
        }
        self.ring.announce_write(slot.end.wrapping_add(WORD), self.head);
        if length >= copy::LONG {
            self.order_long_copy();
        }
        Ok(slot)
    }

    /// Keeps the stores of a long copy, which may be non-temporal, after the announcement of the place that it goes to, which a short
    /// message may have made. Once for each announcement.
    #[inline(always)]
    fn order_long_copy(&mut self) {
        let reach = self.ring.reach();
        if reach != self.ordered {
            self.ordered = reach;
            copy::order_long_copy();
        }
    }

    /// Whether the producer may write everything before `end`, and the header word there.
    #[inline(always)]
    fn has_room(&self, end: u64) -> bool {
        end.wrapping_add(WORD).wrapping_sub(self.head) <= self.ring.capacity()
    }

    /// Bytes that must be free for a record of `length` bytes from `at` on: from the tail to the end of the header word after the
    /// record.
    pub(crate) fn span(&self, at: u64, length: usize) -> u64 {
        let need = record::size(length as u64);
        let to_end = self.ring.until_end(at);
        let skipped = if need > to_end { to_end } else { 0 };
        at.wrapping_sub(self.front.at) + skipped + need + WORD
    }

    #[cold]
    #[inline(never)]
    fn refresh_head(&mut self) -> Result<(), Corruption> {
        if let Some(corruption) = self.poison {
            return Err(corruption);
        }
        // ORDERING: Acquire, pairs with the Release store in `Reader::release`: the consumer's reads of what it released happen
        // before we overwrite it.
        let head = self.ring.header().head.0.load(Ordering::Acquire);
        // It moves forward, at most to the tail, in whole words.
        if head.wrapping_sub(self.head) > self.front.at.wrapping_sub(self.head) || head % WORD != 0 {
            return Err(self.poison(Corruption { word: "head", position: self.front.at, found: head }));
        }
        self.head = head;
        Ok(())
    }

    /// The read position as last seen, and a function that loads it, for the caller to time.
    pub(crate) fn last_and_next_head(&self) -> (u64, impl FnOnce() -> u64) {
        let head = &self.ring.header().head.0;
        // Relaxed: no access depends on the value.
        (self.head, || head.load(Ordering::Relaxed))
    }

    /// Bytes that records can take now: all that are free but the header word after the last record.
    pub(crate) fn free(&mut self) -> Result<u64, Corruption> {
        self.refresh_head()?;
        // A hostile consumer may have left a head that is a whole lap behind.
        Ok((self.ring.capacity() - WORD).saturating_sub(self.front.at.wrapping_sub(self.head)))
    }

    /// Whether the consumer has released everything.
    pub(crate) fn is_drained(&mut self) -> Result<bool, Corruption> {
        if self.is_finished {
            // A successor may have sent more, so that the head may be anywhere after our tail.
            // Relaxed: nothing is read through it.
            let head = self.ring.header().head.0.load(Ordering::Relaxed);
            return Ok(is_reached(head, self.front.at));
        }
        self.refresh_head()?;
        Ok(self.head == self.front.at)
    }

    /// Makes every later call fail as after the end of the consumer. This side has closed, and the role may be another process's.
    pub(crate) fn finish(&mut self) {
        self.is_finished = true;
        self.front.take();
        self.monitor.seen = State::IMPOSSIBLE;
    }

    /// Fails if the consumer has closed or aborted.
    #[inline(always)]
    pub(crate) fn peek_end(&mut self) -> Result<(), ReserveError> {
        // Relaxed: the value is only compared; `check_peer` loads it again.
        if self.peer().state.load(Ordering::Relaxed) == self.monitor.seen.0 {
            Ok(())
        } else {
            self.check_peer()
        }
    }

    #[cold]
    #[inline(never)]
    fn check_peer(&mut self) -> Result<(), ReserveError> {
        if let Some(corruption) = self.poison {
            return Err(ReserveError::Corrupt(corruption));
        }
        if self.is_finished {
            return Err(ReserveError::Ended(End::Closed));
        }
        let header = self.ring.header();
        match self.monitor.check(&header.producer.0, &header.consumer.0) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(ended)) => {
                if matches!(ended.end, End::Aborted { .. }) {
                    self.report_both_ways(ended.state);
                }
                Err(ReserveError::Ended(self.monitor.report(&header.producer.0, ended)))
            }
            Err(corruption) => Err(ReserveError::Corrupt(self.poison(corruption))),
        }
    }

    /// Makes every later call fail with `corruption`.
    fn poison(&mut self, corruption: Corruption) -> Corruption {
        // With a head so far back there is never room, so every call reaches `refresh_head`.
        self.head = self.front.at.wrapping_sub(self.ring.capacity());
        self.front.runway = 0;
        *self.poison.get_or_insert(corruption)
    }

    /// The payload of a record in `slot`.
    #[inline(always)]
    pub(crate) fn payload(&self, slot: Slot, length: usize) -> SharedBytes {
        self.ring.payload(slot.start, length)
    }

    /// [`FastSlot::fill`] for any slot. `streaming` selects non-temporal stores.
    #[inline(always)]
    pub(crate) fn fill(&self, slot: Slot, message: &[u8], streaming: bool) {
        debug_assert!(!streaming || message.len() >= copy::LONG);
        self.clear_next(slot);
        self.clear_padding(slot);
        // SAFETY: the ring stays mapped while the writer exists (`Ring::new`); the payload has the message's length.
        unsafe { self.payload(slot, message.len()).write(0, message, streaming) }
    }

    /// Clears the header word after a record.
    #[inline(always)]
    pub(crate) fn clear_next(&self, slot: Slot) {
        // Relaxed: the commit orders it, so a consumer that sees the record sees no older word after it.
        self.ring.word(slot.end).store(EMPTY, Ordering::Relaxed);
    }

    /// Commits a record in a [`slot_fast`](Self::slot_fast). The record is then in the pipe. Returns whether the caller has to call
    /// [`follow_up`](Self::follow_up).
    #[inline(always)]
    pub(crate) fn commit_fast(&mut self, slot: FastSlot, length: usize, tag: u32) -> bool {
        self.commit_on(self.front.runway, slot, length, tag)
    }

    /// Commits a record on this runway, which begins at the tail. Returns as [`commit_fast`](Self::commit_fast).
    #[inline(always)]
    fn commit_on(&mut self, runway: u64, slot: FastSlot, length: usize, tag: u32) -> bool {
        debug_assert!(slot.start == self.front.at && slot.size == record::size(length as u64));
        let FastSlot { ring, first, size, .. } = slot;
        let runway = runway - size;
        self.front.runway = runway;
        // SAFETY: it points to one of the ring's words, which are atomic.
        self.publish(ring, unsafe { &*first }, record::header(length, tag), slot.end(), 1, length as u64);
        // The next record is probably as long as this one.
        runway < size || !self.waiter.is_last(&ring.header().consumer.0)
    }

    /// Takes the runway, before a reservation is written: the reservation may be abandoned.
    #[inline(always)]
    pub(crate) fn take_runway(&mut self) -> u64 {
        self.front.take()
    }

    /// Clears the padding of a record that will fill its slot.
    #[inline(always)]
    pub(crate) fn clear_padding(&self, slot: Slot) {
        // Relaxed: as in `FastSlot::clear_padding`.
        self.ring.word(slot.end.wrapping_sub(WORD)).store(0, Ordering::Relaxed);
    }

    /// Commits a reservation that its message fills. `runway` comes from [`take_runway`](Self::take_runway).
    #[inline(always)]
    pub(crate) fn commit_reserved(&mut self, runway: u64, slot: Slot, payload: SharedBytes, tag: u32) {
        let length = payload.length;
        let size = record::size(length as u64);
        if size <= runway {
            // The record is not after a wrap: one that wraps is longer than the runway.
            // SAFETY: a payload starts one word after its record.
            let first = unsafe { payload.words.sub(1) };
            let slot = FastSlot { ring: self.ring, first, start: slot.start, size };
            slot.clear_next();
            if self.commit_on(runway, slot, length, tag) {
                self.follow_up(size);
            }
        } else {
            self.front.runway = runway;
            self.clear_next(slot);
            self.commit_out_of_line(slot, length, tag);
        }
    }

    /// Commits the first `length` bytes of a reservation, of which at most the first `written` bytes were written. `runway` comes from
    /// [`take_runway`](Self::take_runway).
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
        // SAFETY: the ring stays mapped while the writer exists (`Ring::new`).
        unsafe { payload.clear_padding() };
        // Bytes written beyond the committed ones are no longer zero, and the runway does not continue after a wrap.
        let is_known = written <= length && slot.start == self.front.at;
        self.commit_reserved(if is_known { runway } else { 0 }, slot, payload, tag);
    }

    #[inline(never)]
    fn commit_out_of_line(&mut self, slot: Slot, length: usize, tag: u32) {
        self.commit(slot, length, tag);
    }

    /// Commits one record. It is then in the pipe.
    #[inline(always)]
    pub(crate) fn commit(&mut self, slot: Slot, length: usize, tag: u32) {
        let first = self.link(self.front.at, slot, record::header(length, tag));
        let size = slot.end.wrapping_sub(self.front.at);
        self.commit_linked(first, slot.end, 1, length as u64);
        self.follow_up(size);
    }

    /// Returns the word to store at `at`: `word`, the record's own. If the record is after a wrap, stores `word` at the start of the
    /// ring and returns WRAP.
    #[inline(always)]
    fn link(&self, at: u64, slot: Slot, word: u64) -> u64 {
        if slot.start == at {
            return word;
        }
        // Relaxed: the commit orders it.
        self.ring.word(slot.start).store(word, Ordering::Relaxed);
        WRAP
    }

    /// Adds a filled record to a batch. The consumer sees none of it before [`commit_batch`](Self::commit_batch).
    #[inline(always)]
    pub(crate) fn append(&self, batch: &mut Uncommitted, slot: Slot, length: usize, tag: u32) {
        let word = self.link(batch.front.at, slot, record::header(length, tag));
        if batch.front.take() == 0 {
            batch.front.zeroed_up_to = slot.end;
        }
        let size = slot.end.wrapping_sub(batch.front.at);
        batch.add(self.ring.word(batch.front.at), word, slot.end, length);
        extend(&self.ring, self.head, &self.ahead, &mut batch.front, size);
    }

    /// Fills and [appends](Self::append) a record in a [`slot_fast`](Self::slot_fast) of the batch's front.
    #[inline(always)]
    pub(crate) fn append_fast(&self, batch: &mut Uncommitted, slot: FastSlot, message: &[u8], tag: u32) {
        slot.fill(message);
        let runway = batch.front.runway - slot.size;
        batch.front.runway = runway;
        // SAFETY: it points to one of the ring's words, which are atomic.
        batch.add(unsafe { &*slot.first }, record::header(message.len(), tag), slot.end(), message.len());
        if runway < slot.size {
            extend(&self.ring, self.head, &self.ahead, &mut batch.front, slot.size);
        }
    }

    /// Commits a batch that is not empty.
    #[inline(always)]
    pub(crate) fn commit_batch(&mut self, batch: &Uncommitted) {
        let start = self.front.at;
        self.commit_linked(batch.first, batch.front.at, batch.messages, batch.bytes);
        if batch.front.runway > 0 {
            self.front.zeroed_up_to = batch.front.zeroed_up_to;
        }
        if !self.waiter.is_last(self.peer()) {
            self.answer(start);
        }
        self.follow_up(WORD);
    }

    /// Commits one or more records: `first` is the word of the first one, and the last one ends at `end`. Leaves no runway.
    #[inline(always)]
    fn commit_linked(&mut self, first: u64, end: u64, messages: u64, bytes: u64) {
        if self.front.take() == 0 {
            self.front.zeroed_up_to = end;
        }
        // A copy: the compiler cannot know that the stores do not change the original.
        let ring = self.ring;
        if let Some(last) = self.ahead.sampling.crossed(self.front.at, end) {
            self.ahead.sampling.stamp_crossings(&ring.header().stamps.0, self.front.at, last);
        }
        self.publish(ring, ring.word(self.front.at), first, end, messages, bytes);
    }

    /// Publishes everything from the tail to `end` at once by storing `first` in `word`, the one at the tail.
    #[inline(always)]
    fn publish(&mut self, ring: Ring, word: &AtomicU64, first: u64, end: u64, messages: u64, bytes: u64) {
        let header = ring.header();
        // ORDERING: Release, the commit. Pairs with the Acquire loads in `Reader::peek_fast` and `Reader::peek_slow`: a consumer
        // that sees the word sees the payload, the later records of a batch, and the cleared word after them.
        word.store(first, Ordering::Release);
        self.front.at = end;
        // ORDERING: Release, pairs with the Acquire load in `last_commit`. More importantly, it keeps this store after the
        // commit: a producer killed between the two must not leave a tail with a hole before it.
        header.tail.0.store(end, Ordering::Release);
        count(&header.produced.0.messages, messages);
        count(&header.produced.0.bytes, bytes);
    }

    /// After a commit of `size` bytes: notifies the consumer if it announced a sleep, and extends the runway for another commit of
    /// that size.
    #[cold]
    #[inline(never)]
    pub(crate) fn follow_up(&mut self, size: u64) {
        if !self.waiter.is_last(self.peer()) {
            self.answer(self.front.at.wrapping_sub(size));
        }
        if self.front.runway < size {
            extend(&self.ring, self.head, &self.ahead, &mut self.front, size);
        }
    }

    /// Begins a batch.
    pub(crate) fn begin(&mut self) -> Uncommitted {
        let Front { at, zeroed_up_to, .. } = self.front;
        let runway = self.front.take();
        let front = if runway > 0 { Front { at, runway, zeroed_up_to } } else { Front::unknown(at) };
        Uncommitted { front, first: 0, messages: 0, bytes: 0 }
    }

    /// After a commit from `start` on: notifies a consumer that announced a sleep, once per waiter epoch.
    #[cold]
    #[inline(never)]
    fn answer(&mut self, start: u64) {
        let Some(epoch) = self.waiter.peek(self.peer()) else { return };
        self.waiter.answered(epoch);
        if epoch.is_asleep() {
            if self.ahead.sampling.is_on() {
                self.ring.header().stamps.0.wake_up.store(start, sync::nanoseconds());
            }
            wakeup::notify(self.own());
            count(&self.counters().wakeups, 1);
        }
    }

    /// The share of the ring in bytes for which a producer sleeps: see [`Room::Share`].
    pub(crate) fn share(&self) -> u64 {
        self.ring.capacity() / 4
    }

    /// Prepares a sleep until the consumer has released enough for a record of `length` bytes from `at` on, or for `room`, or its state
    /// changes: see [`Sleep::of_one`].
    pub(crate) fn prepare_sleep(&self, at: u64, length: usize, room: Room) -> Option<u32> {
        self.announce(self.until_room(at, length, room), self.monitor.seen).of_one(self.wake_mode)
    }

    /// Whether there seems to be space for a record of `length` bytes at the tail. One load of the read position.
    pub(crate) fn has_room_for(&self, length: usize) -> bool {
        // Relaxed: it is loaded again, and checked, before anything is written.
        let head = self.ring.header().head.0.load(Ordering::Relaxed);
        self.span(self.front.at, length)
            <= self.ring.capacity().wrapping_sub(self.front.at.wrapping_sub(head))
    }

    /// What a record of `length` bytes from `at` on waits for, if it waits for `room`.
    pub(crate) fn until_room(&self, at: u64, length: usize, room: Room) -> Until {
        let span = self.span(at, length);
        let free = match room {
            Room::Record => span,
            // From the tail on, so a share beside what a batch has written. No more than is free once the consumer has released all
            // records before the tail, which it does whatever we do.
            Room::Share => {
                let uncommitted = at.wrapping_sub(self.front.at);
                span.max((uncommitted + self.share()).min(self.ring.capacity()))
            }
        };
        Until::Head(self.front.at.wrapping_add(free).wrapping_sub(self.ring.capacity()))
    }

    /// Prepares a sleep until the consumer has released everything, or its state changes: see [`Sleep::of_one`].
    pub(crate) fn prepare_sleep_until_drained(&self) -> Option<u32> {
        self.announce(Until::Head(self.front.at), self.monitor.seen).of_one(self.wake_mode)
    }

    /// After the ring was found full: fails if the consumer died. `role_is_free` asks the kernel. Finds space that the consumer released
    /// before.
    pub(crate) fn check_for_death<E: From<PeerDied>>(
        &mut self,
        at: u64,
        length: usize,
        role_is_free: impl FnOnce() -> Result<bool, E>,
    ) -> Result<Result<Slot, ReserveError>, E> {
        let Some(state) = self.monitor.died(self.own(), self.peer(), role_is_free)? else {
            return Ok(Err(ReserveError::Full));
        };
        match self.slot(at, length) {
            Err(ReserveError::Full) => Err(self.report_death(state).into()),
            slot => Ok(slot),
        }
    }

    /// Fails if the consumer died, whether there is space or not. `role_is_free` asks the kernel.
    pub(crate) fn check_for_any_death<E: From<PeerDied>>(
        &mut self,
        role_is_free: impl FnOnce() -> Result<bool, E>,
    ) -> Result<(), E> {
        match self.monitor.died(self.own(), self.peer(), role_is_free)? {
            Some(state) => Err(self.report_death(state).into()),
            None => Ok(()),
        }
    }

    fn report_death(&mut self, state: State) -> PeerDied {
        self.report_both_ways(state);
        self.monitor.report_once(&self.ring.header().producer.0, state);
        PeerDied
    }

    /// Keeps the other half of a duplex endpoint from reporting an abort or a death that we report.
    fn report_both_ways(&self, failed: State) {
        if let Some(other) = &self.other {
            let header = other.header();
            liveness::report_both_ways(&header.consumer.0, &header.producer.0, failed);
        }
    }
}

impl Half for Writer {
    fn own_side(&self) -> &SideState {
        self.own()
    }

    fn peer_side(&self) -> &SideState {
        self.peer()
    }

    fn wake_mode(&self) -> WakeMode {
        self.wake_mode
    }

    fn monitor(&self) -> &PeerMonitor {
        &self.monitor
    }

    fn state(&self) -> State {
        self.state
    }

    fn set_state(&mut self, state: State) {
        self.state = state;
    }

    fn is_unreported(&self, _: State) -> bool {
        false
    }

    fn announce(&self, until: Until, state: State) -> Sleep {
        let threshold = match until {
            Until::Head(at) => at,
            // The head cannot reach it, since it is beyond the tail.
            Until::Record(_) | Until::Change => self.front.at.wrapping_add(self.ring.capacity()),
        };
        // Relaxed: the epoch's Release store in `wakeup::announce` publishes it.
        self.own().wake_threshold.store(threshold, Ordering::Relaxed);
        Sleep::announce(&self.ring, Role::Producer, until, state)
    }
}
