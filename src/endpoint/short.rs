//! What the short paths of calls return to callers in other languages.

/// How far a short path has come.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Short {
    /// It has done nothing, which says nothing.
    Nothing,
    /// It has sent or received.
    Done,
    /// The same, and the caller has to call `follow_up`. It does so last, and so keeps nothing in registers over a call.
    FollowUp,
}
