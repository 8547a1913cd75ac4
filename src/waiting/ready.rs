//! What a set found: the members that are ready, one by one.

use crate::error::CheckError;
use crate::waiting::member::Member;
use crate::waiting::set::{Key, WaitSet};
use std::fmt;

/// What a member of a [`WaitSet`] is ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Readiness {
    /// There is a message.
    Message,
    /// There is the space that was asked for.
    Space,
    /// The peer has ended, or the pipe or the role is lost; for a consumer, after every message was received.
    ///
    /// Each end is reported once. The member stays in the set: a successor of the peer may come.
    Ended(CheckError),
}

/// The members that a [`WaitSet`] found ready.
///
/// Dropping it leaves the rest to the next [`wait`](WaitSet::wait): no end is lost.
#[must_use]
pub struct Ready<'a, M> {
    set: &'a mut WaitSet<M>,
}

impl<M> fmt::Debug for Ready<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl<'a, M: Member> Ready<'a, M> {
    pub(super) fn new(set: &'a mut WaitSet<M>) -> Self {
        Ready { set }
    }

    /// Returns the next member that is ready.
    #[allow(clippy::should_implement_trait, reason = "each event borrows the set")]
    pub fn next(&mut self) -> Option<Event<'_, M>> {
        let (index, readiness) = self.set.next_ready()?;
        Some(Event { set: self.set, index, readiness })
    }
}

impl<M> Ready<'_, M> {
    /// Returns how many members are left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.set.ready_len()
    }

    /// Returns whether none is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A member that is ready.
pub struct Event<'a, M> {
    set: &'a mut WaitSet<M>,
    index: usize,
    readiness: Readiness,
}

impl<M> fmt::Debug for Event<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("readiness", &self.readiness).finish_non_exhaustive()
    }
}

impl<'a, M: Member> Event<'a, M> {
    /// Returns what the member is ready for.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness
    }

    /// Returns the key of the member.
    #[must_use]
    pub fn key(&self) -> Key {
        self.set.key_of(self.index)
    }

    /// Returns the member.
    pub fn member(&mut self) -> &mut M {
        self.set.member_at(self.index)
    }

    /// Takes the member out of the set.
    pub fn remove(self) -> M {
        self.set.remove_at(self.index)
    }
}
