//! The consumer's half of the ring: finds and checks records, releases them, and monitors the producer.

use crate::protocol::corruption::Corruption;
use crate::protocol::half::Half;
use crate::protocol::latency::Sampling;
use crate::protocol::layout::{Counters, SideState, count};
use crate::protocol::liveness::{self, End, PeerDied, PeerMonitor, Phase, Role, State};
use crate::protocol::record::{self, EMPTY, WORD, WRAP};
use crate::protocol::ring::{Ring, SharedBytes, is_near, is_reached};
use crate::protocol::sleep::{Sleep, Until};
use crate::protocol::sync::{AtomicU64, Ordering};
use crate::protocol::wakeup::{self, WaiterCache, WakeMode};

/// Why the consumer finds no record until a new producer attaches.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RecvEnd {
    Ended(End),
    Corrupt(Corruption),
}

/// A record that the consumer found and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Located {
    /// Its position.
    pub(crate) start: u64,
    /// The position after it.
    pub(crate) end: u64,
    /// The [`Reader::limit`] at `end`.
    pub(crate) limit: u64,
    /// Its header word: read once, checked, never read again.
    pub(super) word: u64,
    /// Its payload, whose length the header word gives.
    pub(super) payload: *const AtomicU64,
}

impl Located {
    #[inline(always)]
    pub(crate) fn payload(&self) -> SharedBytes {
        SharedBytes { words: self.payload, length: self.length() }
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
    /// The largest size in bytes that a record at the head may have: it must not cross the end of the ring, nor be longer
    /// than any record may be, nor be sampled.
    limit: u64,
    /// Which messages are stamped.
    sampling: Sampling,
    /// The end of the last record whose stamp was looked for.
    sampled: u64,
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

impl Reader {
    /// Takes over the ring where the last consumer left it. The caller holds the consumer's role, and [opens](Half::open) the result.
    pub(crate) fn recover(ring: Ring, wake_mode: WakeMode, sampling: Sampling) -> Result<Self, Corruption> {
        let header = ring.header();
        let own = &header.consumer.0;
        // Relaxed: only consumers write it, and the claim orders us after the last one.
        let head = header.head.0.load(Ordering::Relaxed);
        if head % WORD != 0 {
            return Err(Corruption { word: "head", position: head, found: head });
        }
        // ORDERING: Acquire, pairs with the Release store in `Writer::publish`.
        let tail = header.tail.0.load(Ordering::Acquire);
        if !is_near(head, tail, ring.capacity()) {
            return Err(Corruption { word: "tail", position: head, found: tail });
        }
        wakeup::clear_waiter(own);
        let monitor = PeerMonitor::new(own, &header.producer.0, false);
        Ok(Reader {
            ring,
            head,
            limit: if sampling.is_on() { 0 } else { limit(&ring, sampling, head) },
            sampling,
            sampled: head,
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
        &self.ring.header().consumer.0
    }

    #[inline(always)]
    fn peer(&self) -> &SideState {
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

    /// Looks for a record at `at`, where the limit is `limit`: at the head, or at the end of the records already taken. Finds it in
    /// the usual case; [`peek`](Self::peek) and [`peek_next`](Self::peek_next) handle the others.
    #[inline(always)]
    pub(crate) fn peek_fast(&self, at: u64, limit: u64) -> Option<Located> {
        self.peek_or_word(at, limit).ok()
    }

    /// As [`peek_fast`](Self::peek_fast). Otherwise returns the word there: [`EMPTY`] if there is no record.
    #[inline(always)]
    pub(crate) fn peek_or_word(&self, at: u64, limit: u64) -> Result<Located, u64> {
        // ORDERING: Acquire, pairs with the commit, the Release store in `Writer::publish`: a consumer that sees the record's
        // word sees its contents.
        let first = self.ring.word_at(at);
        // SAFETY: it points to one of the ring's words, which are atomic.
        let word = unsafe { &*first }.load(Ordering::Acquire);
        let size = record::size(record::length(word));
        // No record, a wrap and a corrupt word all exceed the limit.
        if size > limit {
            return Err(word);
        }
        Ok(Located {
            start: at,
            end: at.wrapping_add(size),
            limit: limit - size,
            word,
            // SAFETY: a record within the limit is at least one word long and does not cross the end of the ring.
            payload: unsafe { first.add(1) },
        })
    }

    /// Looks for a record at the head, as [`peek_fast`](Self::peek_fast) does. Also finds one after a wrap, and distinguishes an
    /// empty ring from a corrupt word.
    #[inline]
    pub(crate) fn peek(&mut self) -> Result<Option<Located>, Corruption> {
        match self.peek_fast(self.head, self.limit) {
            Some(found) => Ok(Some(found)),
            None => self.peek_slow(self.head),
        }
    }

    /// As [`peek`](Self::peek), at any position and without the fast path.
    #[inline(never)]
    pub(crate) fn peek_slow(&mut self, at: u64) -> Result<Option<Located>, Corruption> {
        if let Some(corruption) = self.poison {
            return Err(corruption);
        }
        if self.is_finished {
            return Ok(None);
        }
        // ORDERING: Acquire, as in `peek_fast`. The word may have changed since.
        let word = self.ring.word(at).load(Ordering::Acquire);
        if word == EMPTY {
            if self.sampling.is_on() {
                // The record that ends the wait may be stamped.
                self.limit = 0;
            }
            return Ok(None);
        }
        self.decode(at, word)
    }

    /// The record at `at`, whose word was just loaded.
    #[inline(never)]
    fn decode(&mut self, at: u64, word: u64) -> Result<Option<Located>, Corruption> {
        match record_at(&self.ring, at, word) {
            Ok(found) => {
                if self.sampling.is_on() {
                    self.sample(at, found.end);
                }
                Ok(Some(Located { limit: limit(&self.ring, self.sampling, found.end), ..found }))
            }
            Err(corruption) => Err(self.poison(corruption)),
        }
    }

    /// Counts the latency of the record from `at` to `end`, which was just found, if it is stamped.
    #[cold]
    #[inline(never)]
    fn sample(&mut self, at: u64, end: u64) {
        // A record may be looked at several times before it is taken.
        if !is_reached(self.sampled, end) {
            self.sampled = end;
            let header = self.ring.header();
            if let Some(time) = self.sampling.time_of(&header.stamps.0, at, end) {
                header.latencies.0.count_from(time);
            }
        }
    }

    /// Whether no record is at the head. One load.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        // Relaxed: a record is loaded again before it is used.
        self.ring.word(self.head).load(Ordering::Relaxed) == EMPTY
    }

    /// Makes every later call find the ring empty and the producer closed. This side has closed, and the role may be another process's.
    pub(crate) fn finish(&mut self) {
        self.is_finished = true;
        self.limit = 0;
        self.monitor.seen = State::IMPOSSIBLE;
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Looks for the next of several records that are released together.
    #[inline]
    pub(crate) fn peek_next(&mut self, at: u64, limit: u64) -> Result<Option<Located>, Corruption> {
        match self.peek_fast(at, limit) {
            Some(found) => Ok(Some(found)),
            None => self.peek_next_slow(at),
        }
    }

    #[inline(never)]
    fn peek_next_slow(&mut self, at: u64) -> Result<Option<Located>, Corruption> {
        let Some(found) = self.peek_slow(at)? else { return Ok(None) };
        // More bytes than the ring holds would be the same records again. This check rejects them here, and the limit further on.
        let taken = found.end.wrapping_add(WORD).wrapping_sub(self.head);
        match self.ring.capacity().checked_sub(taken) {
            Some(left) => Ok(Some(Located { limit: found.limit.min(left), ..found })),
            None => {
                let corruption =
                    Corruption { word: "record header", position: found.start, found: found.word };
                Err(self.poison(corruption))
            }
        }
    }

    /// Makes every later call fail with `corruption`.
    #[cold]
    fn poison(&mut self, corruption: Corruption) -> Corruption {
        self.limit = 0;
        *self.poison.get_or_insert(corruption)
    }

    /// Releases the space of `messages` records to the producer: everything before `end`, where the limit is `limit`.
    #[inline(always)]
    pub(crate) fn release(&mut self, end: u64, limit: u64, messages: u64, bytes: u64) {
        if self.release_only(end, limit, messages, bytes) {
            self.answer();
        }
    }

    /// As [`release`](Self::release), for a caller that calls [`answer`](Self::answer) itself, if this returns `true`.
    #[inline(always)]
    pub(crate) fn release_only(&mut self, end: u64, limit: u64, messages: u64, bytes: u64) -> bool {
        let header = self.ring.header();
        self.head = end;
        self.limit = limit;
        // ORDERING: Release, pairs with the Acquire loads in `Writer::refresh_head` and `Writer::recover`: our reads of the
        // records happen before the producer overwrites them.
        header.head.0.store(end, Ordering::Release);
        count(&header.consumed.0.messages, messages);
        count(&header.consumed.0.bytes, bytes);
        !self.waiter.is_last(&header.producer.0)
    }

    /// Notifies a producer that announced a sleep, once per waiter epoch, and only when the head has reached its threshold.
    #[cold]
    #[inline(never)]
    pub(crate) fn answer(&mut self) {
        let Some(epoch) = self.waiter.peek(self.peer()) else { return };
        if epoch.is_asleep() {
            if !is_reached(self.head, wakeup::wake_threshold(self.peer())) {
                return;
            }
            wakeup::notify(self.own());
            count(&self.counters().wakeups, 1);
        }
        self.waiter.answered(epoch);
    }

    /// Prepares a sleep until there is a record, or the producer's state changes: see [`Sleep::of_one`].
    pub(crate) fn prepare_sleep(&self) -> Option<u32> {
        self.announce_for_record().of_one(self.wake_mode)
    }

    /// Announces a sleep until there is a record, or the producer's state changes.
    pub(crate) fn announce_for_record(&self) -> Sleep {
        self.announce(Until::Record(self.head), self.monitor.seen)
    }

    /// After the ring was found empty: fails if the producer has closed or aborted. Finds a record that it committed before.
    #[inline]
    pub(crate) fn peek_end(&mut self) -> Result<Option<Located>, RecvEnd> {
        if self.peer_state() == self.monitor.seen { Ok(None) } else { self.check_peer() }
    }

    #[cold]
    #[inline(never)]
    fn check_peer(&mut self) -> Result<Option<Located>, RecvEnd> {
        if let Some(corruption) = self.poison {
            return Err(RecvEnd::Corrupt(corruption));
        }
        if self.is_finished {
            return Err(RecvEnd::Ended(End::Closed));
        }
        let header = self.ring.header();
        match self.monitor.check(&header.consumer.0, &header.producer.0) {
            Ok(Ok(())) => Ok(None),
            Ok(Err(ended)) => {
                if let Some(found) = self.peek().map_err(RecvEnd::Corrupt)? {
                    return Ok(Some(found));
                }
                if matches!(ended.end, End::Aborted { .. }) {
                    self.report_both_ways(ended.state);
                }
                Err(RecvEnd::Ended(self.monitor.report(&self.ring.header().consumer.0, ended)))
            }
            Err(corruption) => Err(RecvEnd::Corrupt(self.poison(corruption))),
        }
    }

    /// After the ring was found empty: fails if the producer died. `role_is_free` asks the kernel. Finds a record that the producer
    /// committed before.
    pub(crate) fn check_for_death<E: From<PeerDied>>(
        &mut self,
        role_is_free: impl FnOnce() -> Result<bool, E>,
    ) -> Result<Result<Option<Located>, RecvEnd>, E> {
        let Some(state) = self.monitor.died(self.own(), self.peer(), role_is_free)? else {
            return Ok(Ok(None));
        };
        match self.peek() {
            Ok(None) => {
                self.report_both_ways(state);
                self.monitor.report_once(&self.ring.header().consumer.0, state);
                Err(PeerDied.into())
            }
            found => Ok(found.map_err(RecvEnd::Corrupt)),
        }
    }

    /// Keeps the other half of a duplex endpoint from reporting an abort or a death that we report.
    fn report_both_ways(&self, failed: State) {
        if let Some(other) = &self.other {
            let header = other.header();
            liveness::report_both_ways(&header.producer.0, &header.consumer.0, failed);
        }
    }
}

impl Half for Reader {
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

    fn is_unreported(&self, state: State) -> bool {
        self.monitor.is_unreported(self.own(), state)
    }

    fn announce(&self, until: Until, state: State) -> Sleep {
        Sleep::announce(&self.ring, Role::Consumer, until, state)
    }
}

/// Decodes `word`, the nonzero word found at `at`: the record there, or the one after a wrap. Leaves its limit at 0.
pub(super) fn record_at(ring: &Ring, at: u64, word: u64) -> Result<Located, Corruption> {
    let to_end = ring.until_end(at);
    let corrupt = |position, found| Corruption { word: "record header", position, found };
    let (start, word, room) = if word == WRAP {
        // A wrap skips less than half the ring; otherwise the record would have fit.
        if to_end >= ring.capacity() / 2 {
            return Err(corrupt(at, word));
        }
        let start = at.wrapping_add(to_end);
        // Relaxed: the wrap was published after the record that it leads to, and was loaded with Acquire.
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
    Ok(Located { start, end, limit: 0, word, payload: ring.payload(start, length as usize).words })
}

/// The [`Reader::limit`] at a position.
fn limit(ring: &Ring, sampling: Sampling, at: u64) -> u64 {
    record::size(ring.max_length()).min(sampling.until_crossing(at))
}
