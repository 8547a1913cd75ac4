//! How one side sees the other come, close and die.
//!
//! A side's state word holds its epoch and its phase. The epoch advances with every claim of the role, so that a
//! successor is told from its predecessor; the phase says never (epoch 0), open or closed. Death leaves the phase
//! open: it is told from life by the role's claim, which only the kernel can say (see [`died`]).

use crate::protocol::corruption::Corruption;
use crate::protocol::layout::Quiet;
use crate::protocol::sync::Ordering;
use std::fmt;

/// The two ends of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Sends messages.
    Producer,
    /// Receives messages.
    Consumer,
}

impl Role {
    /// The other end.
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

/// What is known about the other end of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Nobody has claimed that role since the pipe was made.
    NeverCame,
    /// It is there, or was a moment ago.
    Open,
    /// It has closed.
    Closed,
    /// It has died without closing, and no successor has come.
    Died,
    /// It cannot be told: the pipe was removed.
    Unknown,
}

impl Peer {
    /// What a side's state word and its claim say together; nothing is known of the claim if the kernel cannot be asked.
    pub(crate) fn of(state: State, role_is_free: Option<bool>) -> Self {
        match (state.phase(), role_is_free) {
            (Some(Phase::Never), Some(_)) => Peer::NeverCame,
            (Some(Phase::Closed), Some(_)) => Peer::Closed,
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
}

/// A state word: epoch in the upper 62 bits, phase in the lower two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State(pub(crate) u64);

impl State {
    /// A value that no state word ever has in a correct segment; the hot path compares unequal to it.
    pub(crate) const IMPOSSIBLE: State = State(3);

    const LAST_EPOCH: u64 = u64::MAX >> 2;

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
            _ => None,
        }
    }

    pub(crate) fn of(side: &Quiet) -> Self {
        // ORDERING: Acquire, pairs with the Release stores in `open` and `close` here. Who sees a side closed also
        // sees the last record it committed, or the last one it released.
        State(side.state.load(Ordering::Acquire))
    }
}

/// Enters the phase open of a new epoch on one's own line. Returns the state.
pub(crate) fn open(own: &Quiet) -> Result<State, Corruption> {
    // Relaxed: only this side writes the word; the claim has ordered us after the predecessor.
    let before = State(own.state.load(Ordering::Relaxed));
    if before.phase().is_none() || before.epoch() == State::LAST_EPOCH {
        return Err(Corruption { word: "state", position: 0, found: before.0 });
    }
    let state = State::new(before.epoch() + 1, Phase::Open);
    // ORDERING: Release, pairs with the Acquire load in `State::of`: what a new side has put right is seen with it.
    own.state.store(state.0, Ordering::Release);
    Ok(state)
}

/// Enters the phase closed on one's own line.
pub(crate) fn close(own: &Quiet, state: State) {
    // ORDERING: Release, pairs with the Acquire load in `State::of`: the last record committed, or released, is
    // seen with the end.
    own.state.store(State::new(state.epoch(), Phase::Closed).0, Ordering::Release);
}

/// What one side has taken note of about the other.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The peer's state word that asks for no action: the hot path compares with it and goes on.
    pub(crate) settled: State,
    /// The end of an epoch up to this one counts as "has never come".
    told: u64,
}

/// The peer has closed in this state, and that concerns us. Whoever tells the caller so notes it with [`Watch::report`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HasClosed(pub(crate) State);

impl Watch {
    /// For a newcomer: an end that its predecessor has reported is no news. `closed_before` says whether a peer
    /// that closed before we came is none either: so for a producer, while a consumer still hears of it.
    pub(crate) fn new(own: &Quiet, peer: &Quiet, closed_before: bool) -> Self {
        let state = State::of(peer);
        // Relaxed: only this side writes the word; the claim has ordered us after the predecessor.
        let mut told = own.reported.load(Ordering::Relaxed).min(state.epoch());
        if closed_before && state.phase() == Some(Phase::Closed) {
            told = state.epoch();
        }
        Watch { settled: State::IMPOSSIBLE, told }
    }

    /// Looks at the peer's state after the hot path found it changed.
    pub(crate) fn look(&mut self, peer: &Quiet) -> Result<Result<(), HasClosed>, Corruption> {
        let state = State::of(peer);
        let back = self.settled != State::IMPOSSIBLE && state.epoch() < self.settled.epoch();
        match state.phase() {
            None => Err(Corruption { word: "state", position: 0, found: state.0 }),
            Some(_) if back => Err(Corruption { word: "state", position: 0, found: state.0 }),
            Some(Phase::Closed) if state.epoch() > self.told => Ok(Err(HasClosed(state))),
            Some(_) => {
                self.settled = state;
                Ok(Ok(()))
            }
        }
    }

    /// Whether there is, or was, a peer in this state of whose end the caller has not been told.
    pub(crate) fn is_news(&self, own: &Quiet, state: State) -> bool {
        // Relaxed: only this side writes the word.
        state.phase() != Some(Phase::Never)
            && state.epoch() > self.told.max(own.reported.load(Ordering::Relaxed))
    }

    /// Whether the peer has died and nobody has taken its place: the same epoch is open before and after its role is
    /// seen free. `role_is_free` asks the kernel. An end that was told before is not told again.
    pub(crate) fn died<E>(
        &self,
        peer: &Quiet,
        role_is_free: impl FnOnce() -> Result<bool, E>,
    ) -> Result<Option<State>, E> {
        let state = State::of(peer);
        if state.phase() != Some(Phase::Open) || state.epoch() <= self.told || !role_is_free()? {
            return Ok(None);
        }
        Ok((State::of(peer) == state).then_some(state))
    }

    /// Notes that the death of a peer has been told to the caller: once is enough, here and for our successors.
    pub(crate) fn report_death(&mut self, own: &Quiet, state: State) {
        self.told = state.epoch();
        Self::report(own, state);
    }

    /// Notes for our successors that the end of a peer has been told to the caller.
    pub(crate) fn report(own: &Quiet, state: State) {
        // Relaxed: read by our successors alone, whom the claim orders after us.
        own.reported.store(state.epoch(), Ordering::Relaxed);
    }
}
