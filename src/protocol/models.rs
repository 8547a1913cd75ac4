//! Models of the protocol: loom runs them in every order in which two threads can take their steps, with every value
//! that the memory model lets a load return. One property each.
//!
//! ```text
//! RUSTFLAGS="--cfg shmpipe_loom" cargo test --release --lib models
//! RUSTFLAGS="--cfg shmpipe_loom" LOOM_MAX_PREEMPTIONS=3 cargo test --release --lib models -- --show-output
//! ```
//!
//! The first explores each model as far as a minute or two allow for all of them: with two to four switches away from a thread
//! that could go on. The second explores all with the same number of switches, and prints how many orders that were.
//!
//! The modelled futex has no timeout, so that a lost wake-up is a deadlock. Payloads are touched in place as well as
//! copied, so that an access which is not ordered after the other side's is reported. A victim runs the real code
//! and is cut off after each of its steps in turn (`sync/mortal.rs`). Where nobody sleeps, no fence helps: the wake
//! mode is `Never`.
//!
//! Each model was seen to fail with something taken away:
//!
//! | weakened or left out | fails, among others |
//! |---|---|
//! | commit Relaxed; `peek_fast` or `look_closer` Relaxed | `messages_arrive_whole_...`, every batch |
//! | `head` stored or loaded Relaxed, by `refresh_head` or `recover` | `a_full_ring_is_written_again_...`, `a_successor_writes_...` |
//! | room for the next header word not asked for | `a_full_ring_is_written_again_...`, `one_record_at_a_time_...` |
//! | next header word not cleared, or cleared after the commit | `what_the_last_lap_left_behind_...` |
//! | shorter commit clears the word behind the reservation, keeps it, leaves the padding | `a_shorter_commit_...` |
//! | first word of a batch stored first; WRAP stored before its record | `a_batch_...` |
//! | either fence; look before the sleep or after the ticket; bell's advance or wake; bell's count read after the look | every model that sleeps |
//! | ticket not new; publisher rings for its first ticket only, or looks for one before it publishes | `messages_wake_...`, `released_space_wakes_...` |
//! | `wanted` not stored, or after the ticket, or too far; its ticket taken for answered | `a_producer_that_slept_for_something_else_...`, `released_space_wakes_...` |
//! | `nobody_sleeps` left out, or back to 0 | `nobody_is_woken_for_...`, `..._sleeps_well_after_...` |
//! | `recover` wakes nobody | `a_newcomer_wakes_...`, `a_successor_wakes_...` |
//! | `close` wakes nobody, or before it closes, or without fence; sleeper does not look at the state | `a_closing_..._wakes_...` |
//! | `close` Relaxed, `State::of` Relaxed, no second look before `Closed` | `the_last_message_is_received_...` |
//! | no second look before `Abandoned`; state not looked at again | `what_the_dead_...`, `an_orderly_end_...` |
//! | tail stored before the commit; recovery without walking, or of one record | `..._wherever_its_producer_is_killed` |
//! | `open` Relaxed | `what_the_dead_producer_committed_is_seen_...` |
//! | tail not stored by `recover` | `producers_killed_one_after_the_other_...` |
//! | death told at every look; not looked at the ring first | `the_death_of_a_..._is_told_once_at_most...` |
//! | a batch keeps its claim to cleared lines when it is given up | `a_batch_that_is_given_up_leaves_nothing` |
//! | a reservation keeps its runway when it is given up; `cleared` kept where nothing is known | `a_reservation_that_is_given_up_...` |
//! | runway up to the line that is not cleared | `what_lies_behind_the_runway_...` |
//! | runway over the end of the ring | `a_shorter_commit_behind_a_wrap_...` |
//! | runway before a wrap taken for one behind it | `a_shorter_commit_behind_a_wrap_...` |
//! | consumer starts at the tail | `what_a_killed_consumer_did_not_release_...` |
//!
//! What loom cannot tell: a load that takes its value from a store behind it; what a thread that yields has seen
//! before; a race between a load and a store to a word that the storing thread has loaded itself meanwhile (it does not
//! go back for that one, so that a model needs another word to switch at); `membarrier`, for which the fences stand;
//! and the orders of the bell's count, of the ticket, of `wanted` and of `tail`, which the fences and the claim
//! make good for here.

mod ends;
mod pipe;
mod publishing;
mod recovery;
mod sleeping;
mod succession;
