//! Models of the protocol. Loom runs each in every order in which two threads can take their steps, with every value that the memory
//! model lets a load return. Each checks one property.
//!
//! ```text
//! RUSTFLAGS="--cfg shmpipe_loom --cfg shmpipe_portable" cargo test --release --lib models
//! RUSTFLAGS="--cfg shmpipe_loom --cfg shmpipe_portable" LOOM_MAX_PREEMPTIONS=3 cargo test --release --lib models -- --show-output
//! ```
//!
//! The first command bounds each model by two to four preemptions (switches away from a thread that could continue), so that all of
//! them together take a minute or two. The second uses the same bound for all models, and prints how many orders it explored.
//!
//! The modelled futex has no timeout, so a lost wake-up is a deadlock. The models also touch payloads in place, so loom reports an
//! access that is not ordered after the other side's. A victim runs the real code and is cut off after each of its steps in turn
//! (`sync/mortal.rs`). Models in which no thread sleeps use the wake mode `Never`, so that no fence hides a missing ordering.
//!
//! Each model was seen to fail when something is weakened or left out:
//!
//! | weakened or left out | failing models, among others |
//! |---|---|
//! | commit Relaxed; `peek_fast` or `peek_slow` Relaxed | `messages_arrive_whole_...`, every batch |
//! | `head` stored or loaded Relaxed, by `refresh_head` or `recover` | `a_full_ring_is_overwritten_...`, `a_successor_overwrites_...` |
//! | no space required for the next header word | `a_full_ring_is_overwritten_...`, `the_smallest_ring_...` |
//! | next header word not cleared, or cleared after the commit | `stale_bytes_of_the_last_lap_...` |
//! | a shorter commit clears the word after the reservation instead of its own next word, or clears neither, or leaves the padding | `a_shorter_commit_...` |
//! | first word of a batch stored first; WRAP stored before its record | `a_batch_...` |
//! | either fence; the last poll before the sleep, or its place after the announcement; event count not advanced, or not woken; event count read after the last poll | every model that sleeps |
//! | waiter epoch not new; publisher notifies for the first epoch only, or loads the epoch before it publishes | `messages_wake_...`, `released_space_wakes_...` |
//! | `wake_threshold` not stored, stored after the epoch, or too far; epoch marked as answered before its threshold is reached | `a_producer_that_waited_for_a_peer_...`, `released_space_wakes_...` |
//! | a share of the ring asked for beyond what can become free | `a_batch_asks_for_no_more_...` |
//! | `clear_waiter` left out, or storing 0 | `a_predecessors_waiter_epoch_...`, `..._wakes_after_its_predecessor_died_asleep` |
//! | `recover` does not wake the peer | `an_attaching_..._wakes_...`, `a_successor_wakes_...` |
//! | `end` does not wake the peer, or wakes before it ends, or without fence; sleeper does not check the state | `a_closing_..._wakes_...`, `an_aborting_..._wakes_...` |
//! | `end` Relaxed, `State::of` Relaxed, no second poll before `Closed` or `PeerAborted` | `the_last_message_is_received_...` |
//! | an abort stored as a close; its code stored after the state; an abort reported at every check | `the_last_message_is_received_before_the_abort` |
//! | `abort_code` stored or loaded Relaxed; state not loaded again after it | `the_code_of_an_abort_...` |
//! | no second poll before `PeerDied`; state not checked again | `a_dead_..._before_its_death_is_reported`, `an_orderly_end_...` |
//! | tail stored before the commit; recovery without walking, or over one record only | `..._wherever_its_producer_is_killed` |
//! | `open` Relaxed | `a_dead_producers_message_is_seen_...` |
//! | tail not stored by `recover` | `producers_killed_one_after_the_other_...` |
//! | death reported at every check; ring not polled first | `the_death_of_a_..._is_reported_at_most_once...` |
//! | runway kept after an abandoned batch | `an_abandoned_batch_leaves_no_message` |
//! | runway kept after an abandoned reservation; `zeroed_up_to` kept where nothing is known | `an_abandoned_reservation_...` |
//! | runway up to the line that is not cleared | `stale_bytes_after_the_runway_...` |
//! | runway across the end of the ring | `a_shorter_commit_after_a_wrap_...` |
//! | runway before a wrap used after the wrap | `a_shorter_commit_after_a_wrap_...` |
//! | a side of a duplex pipe opens its writer first | `a_side_that_sees_its_peer_attach_...` |
//! | consumer starts at the tail | `messages_that_a_killed_consumer_did_not_release_...` |
//! | a write to the ring not announced, or announced without its fence; `reach` stored or loaded Relaxed; a copy not checked afterwards, or before the fence | `a_tap_shows_...` |
//!
//! Loom does not cover:
//!
//! * Load buffering: a load that takes its value from a store that comes later.
//! * A thread that has yielded and then reads an older value again, which it read before.
//! * A race between a load and a store to a word that the storing thread has loaded in between. Loom does not go back to that load, so
//!   a model needs another word at which to switch.
//! * `membarrier`. The models use the fences instead.
//! * The orderings of the event count, of the waiter epoch, of `wake_threshold` and of `tail`. In the models, the fences and the claim
//!   order these too.

mod duplex;
mod ends;
pub(crate) mod pipe;
mod publishing;
mod recovery;
mod sets;
mod sleeping;
mod succession;
mod tapping;
