//! A set of endpoints that one thread waits for.

use crate::endpoint::cancel::CancelHandle;
use crate::endpoint::pace::Pace;
use crate::endpoint::wait::{Awaited, Stopped, wait_for};
use crate::error::{AddError, CheckError, NotAdded, WaitSetError};
use crate::options::Wait;
use crate::protocol::liveness::{Role, State};
use crate::protocol::sleep::{Interest, Sleep};
use crate::protocol::sync::{Futex, SeenWord};
use crate::protocol::wakeup::{self, WakeMode};
use crate::segment::Segment;
use crate::waiting::bell::Bell;
use crate::waiting::member::Member;
use crate::waiting::ready::{Readiness, Ready};
use crate::waiting::rounds::Rounds;
use crate::waiting::watch::{self, Subject, Watch};
use crate::waiting::words::{EndpointWord, TIMER, can_sleep_on_many, wait_for_words};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Waits for many pipes in one thread.
///
/// The members are producers and consumers of any kind of shared memory, or what the application keeps with them: see [`Member`]. The
/// set owns them, or borrows them as `WaitSet<&mut Consumer>`. A member is used where it is, as without a set: no call of a set
/// receives or sends.
///
/// ```
/// use shmpipe::{Interest, Options, Readiness, WaitSet};
///
/// let (ticks, orders) = (Options::new().create("memfd")?, Options::new().create("memfd")?);
/// let mut set = WaitSet::new();
/// for pipe in [&ticks, &orders] {
///     set.add(pipe.consumer()?, Interest::Message)?;
/// }
/// orders.producer()?.send(b"buy")?; // usually in another process
///
/// while !set.is_empty() {
///     let mut ready = set.wait(None)?;
///     while let Some(mut event) = ready.next() {
///         match event.readiness() {
///             Readiness::Ended(why) => {
///                 println!("{}: {why}", event.member().pipe().address());
///                 event.remove();
///             }
///             // At most so many at a time, so that no pipe keeps the others waiting.
///             _ => {
///                 let mut drain = event.member().drain(64);
///                 while let Some(record) = drain.next()? {
///                     println!("{} bytes", record.len());
///                 }
///             }
///         }
///     }
///     # drop(ticks.producer()?); // ends the other one
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What is ready
/// Messages and space are computed from the positions in the ring at each wait, so there is nothing to reset: a member whose messages
/// stay is ready again. To leave messages where they are for a while, wait for its [end](Interest::End) only
/// ([`set_interest`](Self::set_interest)). An end is reported once.
///
/// Every wait starts with another member, and looks at up to 256 members once it has found one that is ready. So none is left out for
/// long, however busy the others are.
///
/// # Cost
/// A peer pays what it pays for a single sleeper: one system call for each sleep of its own pipe. A wait that finds a member ready makes
/// none. A wait that sleeps runs one memory barrier and one `futex_waitv`, however many members it has, and announces its sleep again
/// only to the pipes in which something has happened. For every 127 members beyond the first 127 there is a thread that sleeps with it,
/// and such a member's message wakes that thread first. Every 100 ms it asks the kernel about each member's peer, with two to four
/// system calls. Large sets do so in parts of 256 members, so that no message waits longer than for one part.
///
/// Where the kernel lacks `futex_waitv` (before Linux 5.16) or a seccomp filter refuses it, and for members with [`WakeMode::Never`],
/// the set looks at its members every millisecond instead: see [`can_sleep_on_many`](crate::os::unix::can_sleep_on_many).
pub struct WaitSet<M> {
    slots: Vec<Slot<M>>,
    /// Free slots.
    free: BinaryHeap<Reverse<usize>>,
    /// The slots to poll: those that sleep for nothing.
    awake: Vec<usize>,
    /// Where to begin in `awake`.
    cursor: usize,
    /// How many members the latest poll looked at.
    looked_at: usize,
    ready: VecDeque<(usize, Readiness)>,
    strategy: Wait,
    cancel: CancelHandle,
    pace: Pace,
    /// When to ask the kernel about which peers.
    rounds: Rounds,
    bell: Arc<Bell>,
    /// For the slots beyond the first [`watch::MOST`], that many each.
    watches: Vec<Watch<Far>>,
    changed: Vec<usize>,
    words: Vec<SeenWord>,
}

/// A member of a [`WaitSet`]. No other member of the same set has or had the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    index: usize,
    generation: u64,
}

struct Slot<M> {
    /// How many members have used the slot before.
    generation: u64,
    used: Option<Used<M>>,
}

struct Used<M> {
    member: M,
    interest: Interest,
    /// The state of the peer before the latest poll.
    state: State,
    /// The error that was reported last, and the state of the peer then.
    told: Option<(State, CheckError)>,
    asleep: Option<Asleep>,
}

/// An announced sleep, and what keeps its words mapped.
struct Asleep {
    sleep: Sleep,
    _segment: Arc<Segment>,
}

/// The member in a slot that a thread watches for the one that waits at the bell.
struct Far {
    word: EndpointWord,
    bell: Arc<Bell>,
    index: usize,
}

impl Subject for Far {
    type Notice = (Arc<Bell>, usize);

    fn word(&self) -> &Futex {
        self.word.word()
    }

    fn notice(&self) -> Self::Notice {
        (self.bell.clone(), self.index)
    }

    fn send((bell, index): Self::Notice) {
        bell.ring(index);
    }
}

/// Members that a poll looks at beyond those up to the first that is ready.
const AT_ONCE: usize = 256;

impl<M: Member> Used<M> {
    fn poll(&mut self) -> Option<Readiness> {
        let endpoint = self.member.endpoint().0;
        self.state = endpoint.peer_state();
        let polled = endpoint.poll(self.interest);
        self.readiness(polled)
    }

    fn check(&mut self) -> Option<Readiness> {
        let endpoint = self.member.endpoint().0;
        self.state = endpoint.peer_state();
        let checked = endpoint.check(self.interest);
        self.readiness(checked)
    }

    fn readiness(&mut self, polled: Result<bool, CheckError>) -> Option<Readiness> {
        match polled {
            Ok(false) => None,
            Ok(true) if matches!(self.interest, Interest::Space(_)) => Some(Readiness::Space),
            Ok(true) => Some(Readiness::Message),
            Err(error) => {
                let told = self.told.replace((self.state, error));
                (told != self.told).then_some(Readiness::Ended(error))
            }
        }
    }

    /// Announces a sleep, unless no peer would end it.
    fn announce(&mut self) -> Option<WakeMode> {
        let interest = match self.told {
            // Every poll says the same until the peer's state changes.
            Some((state, CheckError::Closed | CheckError::Corrupt(_))) if state == self.state => {
                Interest::End
            }
            _ => self.interest,
        };
        let endpoint = self.member.endpoint().0;
        let mode = endpoint.pipe().wake_mode();
        if mode == WakeMode::Never || !can_sleep_on_many() {
            return None;
        }
        let sleep = endpoint.announce(interest, self.state);
        self.asleep = Some(Asleep { sleep, _segment: endpoint.pipe().segment().clone() });
        Some(mode)
    }
}

impl<M> WaitSet<M> {
    /// Makes an empty set, which waits by [`Wait::Block`].
    #[must_use]
    pub fn new() -> Self {
        Self::with_wait(Wait::Block)
    }

    /// Makes an empty set that waits as given, whatever its members do on their own.
    ///
    /// ```
    /// use shmpipe::{Consumer, Wait, WaitSet};
    ///
    /// let set = WaitSet::<Consumer>::with_wait(Wait::Spin);
    /// assert!(set.is_empty());
    /// ```
    #[must_use]
    pub fn with_wait(strategy: Wait) -> Self {
        WaitSet {
            slots: vec![],
            free: BinaryHeap::new(),
            awake: vec![],
            cursor: 0,
            looked_at: 0,
            ready: VecDeque::new(),
            strategy,
            cancel: CancelHandle::new(),
            pace: Pace::default(),
            rounds: Rounds::new(Instant::now()),
            bell: Arc::new(Bell::new()),
            watches: vec![],
            changed: vec![],
            words: vec![],
        }
    }

    /// Returns the number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Returns whether there are no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the keys of all members.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        let used = self.slots.iter().enumerate().filter(|(_, slot)| slot.used.is_some());
        used.map(|(index, slot)| Key { index, generation: slot.generation })
    }

    /// Returns a handle that cancels waits of the set, from another thread or from a signal handler.
    ///
    /// Members have handles of their own, which do not affect the set.
    #[must_use]
    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    pub(super) fn key_of(&self, index: usize) -> Key {
        Key { index, generation: self.slots[index].generation }
    }

    pub(super) fn next_ready(&mut self) -> Option<(usize, Readiness)> {
        self.ready.pop_front()
    }

    pub(super) fn ready_len(&self) -> usize {
        self.ready.len()
    }

    fn find(&self, key: Key) -> Option<usize> {
        let slot = self.slots.get(key.index)?;
        (slot.generation == key.generation && slot.used.is_some()).then_some(key.index)
    }

    /// The member in a slot that is known to be used.
    fn used(&mut self, index: usize) -> &mut Used<M> {
        self.slots[index].used.as_mut().expect("a slot in use")
    }

    /// Puts a slot on the list of those to poll.
    fn awaken(&mut self, index: usize) {
        if let Some(used) = &mut self.slots[index].used {
            if used.asleep.take().is_some() {
                self.awake.push(index);
            }
        }
    }

    pub(super) fn member_at(&mut self, index: usize) -> &mut M {
        // Whatever is done with it changes what to wait for.
        self.awaken(index);
        &mut self.used(index).member
    }

    /// The thread that watches a slot, and its place there, unless the waiting thread does.
    fn watch_of(&self, index: usize) -> Option<(&Watch<Far>, usize)> {
        let watch = self.watches.get((index / watch::MOST).checked_sub(1)?)?;
        Some((watch, index % watch::MOST))
    }
}

impl<M: Member> WaitSet<M> {
    /// Adds a member, to wait for its messages or for space, and for ends.
    ///
    /// # Errors
    /// [`NotAdded`] has the member and the [`AddError`]: the role cannot wait for that, the length is beyond
    /// [`max_len`](crate::Pipe::max_len), or a thread that the set needs could not be started.
    pub fn add(&mut self, mut member: M, interest: Interest) -> Result<Key, NotAdded<M>> {
        let index = self.free.peek().map_or(self.slots.len(), |Reverse(index)| *index);
        if let Err(reason) = Self::accept(&mut member, interest).and_then(|()| self.prepare_watch(index)) {
            return Err(NotAdded { member, reason });
        }
        match self.free.pop() {
            Some(_) => {}
            None => self.slots.push(Slot { generation: 0, used: None }),
        }
        if let Some((watch, place)) = self.watch_of(index) {
            let word = EndpointWord::of(member.endpoint().0);
            watch.insert(place, Far { word, bell: self.bell.clone(), index });
        }
        let used = Used { member, interest, state: State::IMPOSSIBLE, told: None, asleep: None };
        self.slots[index].used = Some(used);
        self.awake.push(index);
        Ok(self.key_of(index))
    }

    /// Changes what to wait for at a member. Returns `false` if it is not in the set any more.
    ///
    /// ```
    /// use shmpipe::{Interest, Options, WaitSet};
    ///
    /// let pipe = Options::new().create("memfd")?;
    /// let mut set = WaitSet::new();
    /// let key = set.add(pipe.producer()?, Interest::End)?;
    /// assert!(set.set_interest(key, Interest::Space(1000))?);
    /// assert_eq!(set.wait(None)?.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`AddError`], as from [`add`](Self::add). The member then waits for what it waited for before.
    pub fn set_interest(&mut self, key: Key, interest: Interest) -> Result<bool, AddError> {
        let Some(index) = self.find(key) else { return Ok(false) };
        let used = self.used(index);
        Self::accept(&mut used.member, interest)?;
        used.interest = interest;
        self.awaken(index);
        Ok(true)
    }

    fn accept(member: &mut M, interest: Interest) -> Result<(), AddError> {
        let endpoint = member.endpoint().0;
        let (role, max) = (endpoint.role(), endpoint.pipe().max_len());
        match (role, interest) {
            (Role::Producer, Interest::Message) | (Role::Consumer, Interest::Space(_)) => {
                Err(AddError::Interest { role, interest })
            }
            (_, Interest::Space(length)) if length > max => Err(AddError::TooLarge { length, max }),
            _ => Ok(()),
        }
    }

    /// Starts the thread that watches a slot, if it needs one.
    fn prepare_watch(&mut self, index: usize) -> Result<(), AddError> {
        if can_sleep_on_many() && index / watch::MOST > self.watches.len() {
            let started = Watch::start();
            self.watches.push(started.map_err(|source| AddError::Thread { members: self.len(), source })?);
        }
        Ok(())
    }

    /// Takes a member out of the set. `None` if it is not there any more.
    pub fn remove(&mut self, key: Key) -> Option<M> {
        self.find(key).map(|index| self.remove_at(index))
    }

    pub(super) fn remove_at(&mut self, index: usize) -> M {
        if let Some((watch, place)) = self.watch_of(index) {
            watch.remove(place);
        }
        self.awake.retain(|&awake| awake != index);
        self.ready.retain(|&(ready, _)| ready != index);
        self.free.push(Reverse(index));
        let slot = &mut self.slots[index];
        slot.generation += 1;
        let mut used = slot.used.take().expect("a slot in use");
        if used.asleep.is_some() {
            used.member.endpoint().0.withdraw();
        }
        used.member
    }

    /// Returns a member. `None` if it is not in the set any more.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut M> {
        let index = self.find(key)?;
        Some(self.member_at(index))
    }

    /// Blocks until a member is ready, or until `deadline` at most.
    ///
    /// # Errors
    /// [`WaitSetError::TimedOut`] at the deadline, [`WaitSetError::Cancelled`], [`WaitSetError::Empty`] if the set has no members.
    pub fn wait(&mut self, deadline: Option<Instant>) -> Result<Ready<'_, M>, WaitSetError> {
        if self.is_empty() {
            return Err(WaitSetError::Empty);
        }
        // What the caller left: ends are reported once, and the rest is found again.
        self.ready.retain(|(_, readiness)| matches!(readiness, Readiness::Ended(_)));
        if self.ready.is_empty() {
            self.check_if_due();
        }
        if self.ready.is_empty() && !self.poll() {
            let (strategy, cancel) = (self.strategy, self.cancel.clone());
            let mut pace = mem::take(&mut self.pace);
            pace.begin(true);
            let waited = wait_for(AnyMember(self), strategy, deadline, &cancel, &mut pace);
            self.pace = pace;
            waited?;
        }
        Ok(Ready::new(self))
    }

    /// Looks for members that are ready among those that are awake. Returns whether there are any.
    fn poll(&mut self) -> bool {
        self.awaken_changed();
        let listed = self.awake.len();
        self.looked_at = 0;
        while self.looked_at < listed && (self.ready.is_empty() || self.looked_at < AT_ONCE) {
            let index = self.awake[(self.cursor + self.looked_at) % listed];
            self.looked_at += 1;
            if let Some(readiness) = self.used(index).poll() {
                self.ready.push_back((index, readiness));
            }
        }
        self.cursor = (self.cursor + self.looked_at).checked_rem(listed).unwrap_or(0);
        !self.ready.is_empty()
    }

    /// Awakens the members whose peers have answered their sleep.
    fn awaken_changed(&mut self) {
        let mut changed = mem::take(&mut self.changed);
        let near = self.slots.iter().take(watch::MOST).enumerate();
        changed.extend(near.filter(|(_, slot)| slot.is_answered()).map(|(index, _)| index));
        if !self.watches.is_empty() {
            self.bell.take(&mut changed);
        }
        for index in changed.drain(..) {
            self.awaken(index);
        }
        self.changed = changed;
    }

    /// Asks the kernel about the peers of those members whose turn it is. Returns how long it is until the next turn: zero if it has
    /// asked.
    fn check_if_due(&mut self) -> Duration {
        let (now, slots) = (Instant::now(), self.slots.len());
        let left = self.rounds.left(now, slots);
        if left > Duration::ZERO {
            return left;
        }
        for index in self.rounds.take(now, slots) {
            let Some(used) = &mut self.slots[index].used else { continue };
            if let Some(readiness) = used.check() {
                self.ready.push_back((index, readiness));
                self.awaken(index);
            }
        }
        Duration::ZERO
    }

    /// Announces a sleep for every member that is awake, looks at each once more, and sleeps if there is still nothing.
    fn sleep(&mut self, slice: Duration, cancel: &CancelHandle) {
        let bell = self.bell.seen();
        self.awaken_changed();
        let mut awake = mem::take(&mut self.awake);
        let mut modes = vec![];
        let mut by_timer = false;
        for &index in &awake {
            match self.used(index).announce() {
                Some(mode) if modes.contains(&mode) => {}
                Some(mode) => modes.push(mode),
                None => by_timer = true,
            }
        }
        for mode in modes {
            wakeup::before_sleeping(mode);
        }
        let mut found = false;
        awake.retain(|&index| match &mut self.used(index).asleep {
            Some(Asleep { sleep, .. }) if sleep.is_pending() => false,
            asleep => {
                found |= asleep.take().is_some();
                true
            }
        });
        self.awake = awake;
        if !found {
            let slice = if by_timer { slice.min(TIMER) } else { slice };
            self.sleep_on_words(bell, slice, cancel);
        }
    }

    fn sleep_on_words(&mut self, bell: SeenWord, slice: Duration, cancel: &CancelHandle) {
        self.words.clear();
        self.words.push(bell);
        let near = self.slots.iter().take(watch::MOST);
        self.words.extend(near.filter_map(|slot| Some(slot.used.as_ref()?.asleep.as_ref()?.sleep.word())));
        cancel.sleep_on(self.bell.word(), || wait_for_words(&self.words, slice));
    }
}

impl<M> Slot<M> {
    /// Whether its member sleeps and its peer has answered that.
    fn is_answered(&self) -> bool {
        let asleep = self.used.as_ref().and_then(|used| used.asleep.as_ref());
        asleep.is_some_and(|asleep| asleep.sleep.is_answered())
    }
}

impl<M> Default for WaitSet<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M> fmt::Debug for WaitSet<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitSet").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// A member that is ready.
struct AnyMember<'a, M>(&'a mut WaitSet<M>);

impl<M: Member> Awaited for AnyMember<'_, M> {
    type Output = ();
    type Error = WaitSetError;

    fn poll(&mut self) -> Result<Option<()>, WaitSetError> {
        // A check during the latest sleep may have found one.
        let is_ready = !self.0.ready.is_empty() || self.0.poll();
        Ok(is_ready.then_some(()))
    }

    fn cost(&self) -> u32 {
        self.0.looked_at.try_into().unwrap_or(u32::MAX).max(1)
    }

    fn sleep(&mut self, slice: Duration, cancel: &CancelHandle) {
        match self.0.check_if_due() {
            Duration::ZERO => {}
            until_next => self.0.sleep(slice.min(until_next), cancel),
        }
    }

    fn nap(&mut self, nap: Duration, cancel: &CancelHandle) {
        cancel.nap(self.0.bell.word(), nap);
    }

    fn check(&mut self) -> Result<Option<()>, WaitSetError> {
        self.0.check_if_due();
        Ok((!self.0.ready.is_empty()).then_some(()))
    }
}

impl From<Stopped> for WaitSetError {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::TimedOut => WaitSetError::TimedOut,
            Stopped::Cancelled => WaitSetError::Cancelled,
        }
    }
}
