//! The consumer's half of the ring: records found and checked, releases, and what it knows of the producer.

use crate::protocol::bell::{self, Rung, WakeMode};
use crate::protocol::corruption::Corruption;
use crate::protocol::half::Half;
use crate::protocol::layout::{Counters, Quiet, count};
use crate::protocol::peer::{self, HasClosed, Phase, State, Watch};
use crate::protocol::record::{self, NOTHING, WORD, WRAP};
use crate::protocol::ring::{Payload, Ring, is_near, is_reached};
use crate::protocol::sync::{AtomicU64, Futex, Ordering};
use std::time::Duration;

/// Why the consumer will find no record, until a new producer comes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoMore {
    Closed,
    Abandoned,
    Corrupt(Corruption),
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
    pub(super) word: u64,
    /// Its payload, as long as the header word says.
    pub(super) payload: *const AtomicU64,
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
    pub(crate) fn peek_fast(&self, at: u64, limit: u64) -> Option<Found> {
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

    /// Looks for a record at the head, as [`peek_fast`](Self::peek_fast) does, also behind a wrap, and tells nothing from nonsense.
    #[inline]
    pub(crate) fn look(&mut self) -> Result<Option<Found>, Corruption> {
        match self.peek_fast(self.head, self.limit) {
            Some(found) => Ok(Some(found)),
            None => self.look_closer(self.head),
        }
    }

    #[inline(never)]
    pub(crate) fn look_closer(&mut self, at: u64) -> Result<Option<Found>, Corruption> {
        if let Some(corruption) = self.poison {
            return Err(corruption);
        }
        // ORDERING: Acquire, as in `peek_fast`. The word may be another than the one seen there.
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
        match self.peek_fast(at, limit) {
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
}

impl Half for Reader {
    fn peer_state(&self) -> State {
        State::of(self.peer())
    }

    fn is_news(&self, state: State) -> bool {
        self.watch.is_news(self.own(), state)
    }

    fn is_succeeded(&self) -> bool {
        // Relaxed: it is compared only.
        self.own().state.load(Ordering::Relaxed) != self.state.0
    }

    fn bell(&self) -> &Futex {
        &self.peer().bell
    }

    fn sleep_for_peer(&self, seen: State, timeout: Duration) {
        bell::sleep(self.own(), self.peer(), self.wake_mode, timeout, || self.peer_state() == seen);
    }

    fn close(&mut self) {
        peer::close(self.own(), self.state);
        self.wake_peer();
    }
}

/// The record whose word, not zero, was found at `at`, possibly behind a wrap.
pub(super) fn record_at(ring: &Ring, at: u64, word: u64) -> Result<Found, Corruption> {
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
