//! How one side detects that the other attaches, closes, aborts or dies.
//!
//! A side's state word holds its epoch and its phase. The epoch advances with every claim of the role, which distinguishes a
//! successor from its predecessor. The phase is never (epoch 0), open, closed or aborted. A death leaves the phase open. Only the
//! kernel knows whether a process still holds the role: see [`PeerMonitor::died`].

use crate::protocol::corruption::Corruption;
use crate::protocol::layout::{Header, SideState};
use crate::protocol::sync::Ordering;
use std::fmt;

/// One of the two ends of a pipe.
///
/// ```
/// use shmpipe::Role;
///
/// assert_eq!(Role::Producer.peer(), Role::Consumer);
/// assert_eq!(Role::Producer.to_string(), "producer");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Sends messages.
    Producer,
    /// Receives messages.
    Consumer,
}

impl Role {
    /// Returns the other end.
    #[must_use]
    pub const fn peer(self) -> Role {
        match self {
            Role::Producer => Role::Consumer,
            Role::Consumer => Role::Producer,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Producer => "producer",
            Role::Consumer => "consumer",
        })
    }
}

/// One of the two sides of a [`Duplex`](crate::Duplex) pipe, which are equals.
///
/// A program that may be restarted asks for its side by [`Pipe::duplex_as`](crate::Pipe::duplex_as), such as A for the server
/// and B for its client, so that it receives what was sent to its predecessor.
///
/// ```
/// use shmpipe::DuplexSide;
///
/// assert_eq!(DuplexSide::A.peer(), DuplexSide::B);
/// assert_eq!(DuplexSide::A.to_string(), "side A");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DuplexSide {
    /// The side that [`Pipe::duplex`](crate::Pipe::duplex) takes if it is free.
    A,
    /// The other side.
    B,
}

impl DuplexSide {
    /// Returns the other side.
    #[must_use]
    pub const fn peer(self) -> DuplexSide {
        match self {
            DuplexSide::A => DuplexSide::B,
            DuplexSide::B => DuplexSide::A,
        }
    }

    /// The role that is claimed for this side: its role in the first direction, which leads from A to B.
    pub(crate) const fn role(self) -> Role {
        match self {
            DuplexSide::A => Role::Producer,
            DuplexSide::B => Role::Consumer,
        }
    }

    /// The side for which this role is claimed.
    pub(crate) const fn of(role: Role) -> Self {
        match role {
            Role::Producer => DuplexSide::A,
            Role::Consumer => DuplexSide::B,
        }
    }
}

impl fmt::Display for DuplexSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DuplexSide::A => "side A",
            DuplexSide::B => "side B",
        })
    }
}

impl Header {
    /// The words of the side with this role.
    #[inline(always)]
    pub(crate) fn side(&self, role: Role) -> &SideState {
        match role {
            Role::Producer => &self.producer.0,
            Role::Consumer => &self.consumer.0,
        }
    }
}

/// The state of the other end of a pipe, as far as known.
///
/// ```
/// use shmpipe::Peer;
///
/// let pipe = shmpipe::Options::new().create("memfd")?;
/// let producer = pipe.producer()?;
/// if producer.peer() == Peer::NeverCame {
///     eprintln!("waiting for the first consumer");
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// No process has claimed this role since the pipe was created.
    NeverCame,
    /// It is attached, or was a moment ago.
    Open,
    /// It closed.
    Closed,
    /// It aborted, and no successor has attached.
    Aborted {
        /// The code that it gave.
        code: u32,
    },
    /// It died without closing, and no successor has attached.
    Died,
    /// Unknown, because the pipe was removed.
    Unknown,
}

impl Peer {
    /// Returns the code of a peer that aborted.
    ///
    /// ```
    /// let pipe = shmpipe::Options::new().create("memfd")?;
    /// let consumer = pipe.consumer()?;
    /// pipe.producer()?.abort(7)?;
    /// assert_eq!(consumer.peer().abort_code(), Some(7));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn abort_code(self) -> Option<u32> {
        match self {
            Peer::Aborted { code } => Some(code),
            _ => None,
        }
    }

    /// Combines the state of a side, as loaded from its words, with the kernel's answer about its role, `None` if the kernel gave
    /// no answer.
    pub(crate) fn of(side: &SideState, state: State, role_is_free: Option<bool>) -> Self {
        match (state.phase(), role_is_free) {
            (Some(Phase::Never), Some(_)) => Peer::NeverCame,
            (Some(Phase::Closed), Some(_)) => Peer::Closed,
            // Without the code of this state, a successor has come.
            (Some(Phase::Aborted), Some(_)) => {
                abort_code(side, state).map_or(Peer::Open, |code| Peer::Aborted { code })
            }
            (Some(Phase::Open), Some(true)) => Peer::Died,
            (Some(Phase::Open), Some(false)) => Peer::Open,
            (None, _) | (_, None) => Peer::Unknown,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Never,
    Open,
    Closed,
    Aborted,
}

/// The code with which a [`Producer`](crate::Producer) or [`Consumer`](crate::Consumer) aborts that a panic drops.
///
/// ```
/// use shmpipe::{PANICKED, RecvError};
///
/// let pipe = shmpipe::Options::new().create("memfd")?;
/// let mut consumer = pipe.consumer()?;
/// let producer = pipe.producer()?;
/// let panicked = std::thread::spawn(move || {
///     let _producer = producer;
///     panic!("out of ticks");
/// });
/// assert!(panicked.join().is_err());
/// assert!(matches!(consumer.recv(), Err(RecvError::PeerAborted { code: PANICKED })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub const PANICKED: u32 = u32::MAX;

/// How a side ended of its own accord.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Closed,
    Aborted { code: u32 },
}

/// A state word: epoch in the upper 62 bits, phase in the lower two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State(pub(crate) u64);

impl State {
    /// A value that no state word has in a correct segment, so the hot path always compares unequal to it.
    pub(crate) const IMPOSSIBLE: State = State(3);

    pub(crate) const LAST_EPOCH: u64 = u64::MAX >> 2;

    pub(crate) const fn new(epoch: u64, phase: Phase) -> Self {
        State(epoch << 2 | phase as u64)
    }

    pub(crate) const fn epoch(self) -> u64 {
        self.0 >> 2
    }

    pub(crate) const fn phase(self) -> Option<Phase> {
        match self.0 & 3 {
            0 if self.epoch() == 0 => Some(Phase::Never),
            1 if self.epoch() != 0 => Some(Phase::Open),
            2 if self.epoch() != 0 => Some(Phase::Closed),
            3 if self.epoch() != 0 => Some(Phase::Aborted),
            _ => None,
        }
    }

    pub(crate) fn of(side: &SideState) -> Self {
        // ORDERING: Acquire, pairs with the Release stores in `open` and `end` here: a side that sees the end of its peer also
        // sees the last record that the peer committed, or its last release, and the code of its abort.
        State(side.state.load(Ordering::Acquire))
    }
}

/// Why a role that this side holds cannot be taken over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TakeoverError {
    Corrupt(Corruption),
    /// The role was claimed as often as an epoch can count.
    OutOfEpochs,
}

impl From<Corruption> for TakeoverError {
    fn from(corruption: Corruption) -> Self {
        TakeoverError::Corrupt(corruption)
    }
}

/// The epoch of a claim that follows the one in our own state word.
pub(crate) fn next_epoch(own: &SideState) -> Result<u64, TakeoverError> {
    // Relaxed: only this side writes the word, and the claim orders us after our predecessor.
    let before = State(own.state.load(Ordering::Relaxed));
    if before.phase().is_none() {
        return Err(Corruption { word: "state", position: 0, found: before.0 }.into());
    }
    if before.epoch() == State::LAST_EPOCH {
        return Err(TakeoverError::OutOfEpochs);
    }
    Ok(before.epoch() + 1)
}

/// Stores the phase open, with a new epoch, in our own state word. Returns the state.
pub(crate) fn open(own: &SideState, epoch: u64) -> State {
    let state = State::new(epoch, Phase::Open);
    // ORDERING: Release, pairs with the Acquire load in `State::of`: a peer that sees the new state sees what our recovery repaired.
    own.state.store(state.0, Ordering::Release);
    state
}

/// Stores how we end in our own words.
pub(crate) fn end(own: &SideState, state: State, end: End) {
    let phase = match end {
        End::Closed => Phase::Closed,
        End::Aborted { code } => {
            // ORDERING: Release, pairs with the Acquire load in `abort_code`: a peer that sees our code sees that our predecessor's
            // state is over.
            own.abort_code.store(code.into(), Ordering::Release);
            Phase::Aborted
        }
    };
    // ORDERING: Release, pairs with the Acquire load in `State::of`: a peer that sees the end sees our last commit, or our last
    // release, and our code.
    own.state.store(State::new(state.epoch(), phase).0, Ordering::Release);
}

/// The code of a side that aborted in this state. `None` if a successor has come: the code may be its own.
fn abort_code(side: &SideState, state: State) -> Option<u32> {
    // ORDERING: Acquire, pairs with the Release store in `end`: a code of a successor makes the load below see the successor.
    let code = side.abort_code.load(Ordering::Acquire);
    // Relaxed: the value is only compared.
    (side.state.load(Ordering::Relaxed) == state.0).then_some(code as u32)
}

/// The peer died and left nothing to receive or to reuse: reported once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerDied;

/// What one side knows about the state of the other.
#[derive(Debug)]
pub(crate) struct PeerMonitor {
    /// The peer's state that needs no action. The hot path compares with it.
    pub(crate) seen: State,
    /// The latest epoch whose end was reported. A peer that ended in this epoch or an earlier one counts as "never attached".
    reported: u64,
}

/// The peer ended in this state, which was not reported yet. Code that reports it to the caller records that with
/// [`PeerMonitor::report`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerEnded {
    pub(crate) state: State,
    pub(crate) end: End,
}

impl PeerMonitor {
    /// For a side that has just claimed its role. An end that a predecessor reported is not reported again. `closed_before` says
    /// that the close of a peer that closed before our claim counts as reported too: true for a producer, false for a consumer.
    pub(crate) fn new(own: &SideState, peer: &SideState, closed_before: bool) -> Self {
        let state = State::of(peer);
        // Relaxed: only this side writes the word, and the claim orders us after our predecessor.
        let mut reported = own.reported.load(Ordering::Relaxed).min(state.epoch());
        // What another process may have forged must not hide ends to come: see `is_failure_reported`. Relaxed: as above.
        own.reported.store(reported, Ordering::Relaxed);
        if closed_before && state.phase() == Some(Phase::Closed) {
            reported = state.epoch();
        }
        PeerMonitor { seen: State::IMPOSSIBLE, reported }
    }

    /// Checks the peer's state after the hot path found it changed.
    pub(crate) fn check(
        &mut self,
        own: &SideState,
        peer: &SideState,
    ) -> Result<Result<(), PeerEnded>, Corruption> {
        let state = State::of(peer);
        let went_back = self.seen != State::IMPOSSIBLE && state.epoch() < self.seen.epoch();
        match state.phase() {
            None => Err(Corruption { word: "state", position: 0, found: state.0 }),
            Some(_) if went_back => Err(Corruption { word: "state", position: 0, found: state.0 }),
            Some(Phase::Closed) if state.epoch() > self.reported => {
                Ok(Err(PeerEnded { state, end: End::Closed }))
            }
            Some(Phase::Aborted) if !self.is_failure_reported(own, state) => {
                Ok(match abort_code(peer, state) {
                    Some(code) => Err(PeerEnded { state, end: End::Aborted { code } }),
                    // The state has changed, which the next call looks at: so each call does bounded work.
                    None => Ok(()),
                })
            }
            Some(_) => {
                self.seen = state;
                Ok(Ok(()))
            }
        }
    }

    /// Whether there is or was a peer in this state whose end was not reported to the caller.
    pub(crate) fn is_unreported(&self, own: &SideState, state: State) -> bool {
        state.phase() != Some(Phase::Never) && !self.is_failure_reported(own, state)
    }

    /// Whether the abort or the death of a peer with this epoch counts as reported. In a duplex pipe it may have been reported in
    /// the other direction, which the word says: see [`report_both_ways`].
    fn is_failure_reported(&self, own: &SideState, state: State) -> bool {
        // Relaxed: only this side writes the word.
        state.epoch() <= self.reported.max(own.reported.load(Ordering::Relaxed))
    }

    /// Whether a peer in this state may die, or has died, and that is not reported yet.
    pub(crate) fn may_die(&self, own: &SideState, state: State) -> bool {
        state.phase() == Some(Phase::Open) && !self.is_failure_reported(own, state)
    }

    /// Whether the peer died and has no successor: its state is open, with the same epoch, before and after its role is seen free.
    /// `role_is_free` asks the kernel. `None` for an end that was already reported.
    pub(crate) fn died<E>(
        &self,
        own: &SideState,
        peer: &SideState,
        role_is_free: impl FnOnce() -> Result<bool, E>,
    ) -> Result<Option<State>, E> {
        let state = State::of(peer);
        if !self.may_die(own, state) || !role_is_free()? {
            return Ok(None);
        }
        Ok((State::of(peer) == state).then_some(state))
    }

    /// Records that the end of a peer is reported to the caller, so that our successors do not report it again. We ourselves report
    /// a close at every call.
    pub(crate) fn report(&mut self, own: &SideState, ended: PeerEnded) -> End {
        match ended.end {
            // Relaxed: only our successors read it, and the claim orders them after us.
            End::Closed => own.reported.store(ended.state.epoch(), Ordering::Relaxed),
            End::Aborted { .. } => self.report_once(own, ended.state),
        }
        ended.end
    }

    /// Records that the death or the abort of a peer is reported to the caller, so that neither we nor our successors report it
    /// again.
    pub(crate) fn report_once(&mut self, own: &SideState, state: State) {
        self.reported = state.epoch();
        // Relaxed: as in `report`.
        own.reported.store(state.epoch(), Ordering::Relaxed);
    }
}

/// Records, in the words of one direction of a duplex pipe, that the abort or the death of a peer with this epoch was reported in
/// the other direction. A claim gives a side the same epoch in both.
pub(crate) fn report_both_ways(own: &SideState, peer: &SideState, failed: State) {
    // A direction that the peer closed before has an end of its own, for our successors too.
    if State::of(peer).phase() == Some(Phase::Closed) {
        return;
    }
    // Relaxed: as in `PeerMonitor::report`.
    let reported = own.reported.load(Ordering::Relaxed).max(failed.epoch());
    own.reported.store(reported, Ordering::Relaxed);
}
