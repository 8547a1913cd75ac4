//! Waiting for many pipes at once.
//!
//! A call that waits for one pipe announces its sleep, looks again, and sleeps on the event count of its peer. Here the same steps are
//! taken for many pipes by one thread: it announces all sleeps, runs one barrier, looks again at each pipe, and sleeps on all event
//! counts with `futex_waitv`. A peer does not know the difference.
//!
//! The kernel lets a thread sleep on 128 words. So beyond the first [`watch::MOST`] pipes, a thread for each so many ([`watch::Watch`])
//! sleeps on their words, and rings a [`bell::Bell`] when one changes. The bell is one of the words that the waiting thread sleeps on.

#[cfg(feature = "async")]
pub(crate) mod asynchronous;
pub(crate) mod bell;
pub(crate) mod descriptor;
mod driver;
pub(crate) mod member;
pub(crate) mod ready;
mod rounds;
pub(crate) mod set;
mod watch;
mod words;
