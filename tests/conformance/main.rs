//! One list of tests for every kind of shared memory: the same names, the same bodies.
//!
//! ```sh
//! cargo test --test conformance                # all of it
//! cargo test --test conformance posix::ends    # one topic of one backend
//! ```
//!
//! What cannot be asked of a backend says so in the list, with the reason, and is reported as ignored.

mod calls;
mod corrupt;
mod ends;
mod foreign;
mod fork;
mod namespaces;
mod no_syscalls;
mod one_process;
mod removal;
mod setup;
mod stream;
mod users;

use shmpipe_testing::end;
use shmpipe_testing::process::part as play;

#[test]
fn part() {
    play(&[
        ("end", end::play),
        ("random", stream::send_at_random),
        ("steered", stream::send_steered),
        ("make and remove", setup::make_and_remove),
        ("asked", shmpipe_testing::traced::be_asked),
        ("life", calls::live),
        ("no membarrier", setup::no_membarrier),
        ("sealed producer", no_syscalls::sealed_producer),
        ("sealed consumer", no_syscalls::sealed_consumer),
        ("stream", no_syscalls::stream),
        ("sink", no_syscalls::sink),
    ]);
}

/// Makes of the list a module for each backend, in that one for each topic, and in that the tests.
macro_rules! conformance {
    ($($topic:ident { $($left_out:tt { $($test:ident)* })* })*) => {
        conformance!(@backend sysv SysV $($topic { $($left_out { $($test)* })* })*);
        conformance!(@backend posix Posix $($topic { $($left_out { $($test)* })* })*);
        conformance!(@backend file File $($topic { $($left_out { $($test)* })* })*);
        conformance!(@backend memfd Memfd $($topic { $($left_out { $($test)* })* })*);
    };
    (@backend $module:ident $backend:ident $($topic:ident { $($left_out:tt { $($test:ident)* })* })*) => {
        mod $module {
            $(mod $topic {
                $($(conformance!(@test $module $backend $topic $test $left_out);)*)*
            })*
        }
    };
    (@test sysv $backend:ident $topic:ident $test:ident [sysv: $why:literal $($rest:tt)*]) => {
        conformance!(@ignored $test $why);
    };
    (@test posix $backend:ident $topic:ident $test:ident [posix: $why:literal $($rest:tt)*]) => {
        conformance!(@ignored $test $why);
    };
    (@test file $backend:ident $topic:ident $test:ident [file: $why:literal $($rest:tt)*]) => {
        conformance!(@ignored $test $why);
    };
    (@test memfd $backend:ident $topic:ident $test:ident [memfd: $why:literal $($rest:tt)*]) => {
        conformance!(@ignored $test $why);
    };
    (@test $module:ident $backend:ident $topic:ident $test:ident [$other:ident: $why:literal $($rest:tt)*]) => {
        conformance!(@test $module $backend $topic $test [$($rest)*]);
    };
    (@test $module:ident $backend:ident $topic:ident $test:ident []) => {
        #[test]
        fn $test() {
            crate::$topic::$test(shmpipe_testing::backend::Backend::$backend);
        }
    };
    (@ignored $test:ident $why:literal) => {
        #[test]
        #[ignore = $why]
        fn $test() {}
    };
}

conformance! {
    one_process {
        [] {
            messages_come_in_order_and_whole
            every_length_comes_as_it_was_sent
            positions_count_the_bytes_of_the_ring
            a_reservation_is_sent_by_its_commit
            a_shorter_commit_sends_that_much_and_gives_the_rest_back
            a_shorter_commit_is_right_at_every_place_of_the_ring
            a_shorter_commit_stays_where_its_reservation_was
            a_reservation_dropped_publishes_nothing
            what_was_never_sent_is_never_received
            messages_in_the_pipe_stay_as_they_are_however_full_it_is
            writing_beyond_a_reservation_panics_and_writes_nothing
            gathered_pieces_are_one_message
            every_tag_travels_with_its_message
            values_are_sent_and_received_with_their_size_checked
            a_batch_becomes_visible_all_at_once
            a_batch_dropped_sends_nothing
            batches_wrap_at_every_place_of_the_ring
            a_batch_that_could_never_fit_is_refused_and_keeps_what_it_has
            a_batch_waits_for_space
            an_empty_message_is_not_no_message
            the_longest_message_fits_wherever_the_ring_stands
            a_larger_message_is_refused_with_both_numbers
            a_drain_takes_so_many_and_releases_them_together
            a_drain_kept_comes_again
            a_message_kept_comes_again_with_the_same_position
            a_message_goes_into_the_callers_vector_or_slice
            a_full_pipe_says_so_and_takes_again_what_was_released
            a_message_taken_holds_its_space_until_it_is_released
            deadlines_end_waits_and_only_waits
            timeouts_end_waits_and_only_waits
            an_owned_message_is_released_and_borrows_nothing
            both_ends_wait_by_each_strategy_and_in_each_wake_mode
            sleepers_are_woken_in_both_directions
            a_sleeping_producer_is_woken_when_there_is_room_for_its_message
            a_sleeper_burns_no_processor_time
            a_stopper_ends_every_wait_from_another_thread
            a_stopper_ends_the_wait_for_a_peer
            a_stopper_ends_a_wait_from_a_signal_handler
            signals_that_stop_nothing_do_not_end_a_wait
            a_trusted_peer_is_read_and_written_in_place
            a_role_is_taken_once_and_free_again_after_its_end
            endpoints_outlive_the_pipe_they_were_claimed_from
            a_pipe_has_what_was_asked_for_and_by_default_a_mebibyte_of_our_own
            capacity_is_rounded_up_to_a_power_of_two
            wishes_that_an_existing_pipe_does_not_fulfil_are_reported
            another_schema_is_refused_with_both_values
            nobody_sleeps_on_a_pipe_where_nobody_may
            counters_tell_what_each_side_did
            watchers_disturb_nothing
            each_end_knows_of_the_other
            a_message_released_in_another_thread_is_seen_here
        }
        [memfd: "whoever makes a memfd makes a new one"] {
            create_wants_a_new_pipe_and_open_an_existing_one
        }
    }
    stream {
        [] {
            a_stream_comes_in_order_and_whole
            a_ring_wraps_at_every_place_at_which_it_can
        }
    }
    ends {
        [] {
            recv_waits_for_a_producer_that_has_never_come
            recv_waits_for_a_producer_that_is_alive_and_quiet
            after_an_orderly_end_recv_delivers_what_is_left_and_then_says_closed_as_often_as_asked
            a_producer_may_come_and_go_before_the_consumer_comes
            after_a_death_recv_delivers_what_was_committed_and_then_returns_peer_died_once
            a_death_that_a_successor_has_mended_is_not_told
            an_end_told_to_a_consumer_counts_for_its_successor_as_never_come
            send_waits_for_a_consumer_that_has_never_come
            send_waits_for_a_consumer_that_is_alive_and_quiet
            after_the_consumers_orderly_end_send_says_closed_at_once_and_also_with_room
            a_consumer_that_closed_before_the_producer_came_counts_as_never_come
            after_the_consumers_death_send_returns_peer_died_once_when_full
            an_end_told_to_a_producer_counts_for_its_successor_as_never_come
            a_producer_that_comes_after_an_untold_death_is_told_once
            a_name_can_be_used_again_and_again_after_every_kind_of_end
            what_was_taken_and_not_released_comes_again_with_the_same_positions
            a_second_endpoint_is_refused_with_the_process_that_holds_the_role
            the_end_of_a_peer_reaches_a_sleeper
            the_coming_of_a_peer_reaches_a_sleeper
            every_waiting_call_notices_the_peers_end_by_each_strategy
            a_deadline_however_short_does_not_hide_a_death
            a_dead_process_that_nobody_has_waited_for_holds_no_role
            a_role_stays_with_the_process_when_the_thread_that_claimed_it_ends
        }
    }
    setup {
        [] {
            of_many_claims_at_once_one_succeeds
            a_failed_attempt_leaves_nothing_behind
            a_new_pipe_belongs_to_whom_it_is_given
            a_process_that_cannot_wake_as_the_pipe_demands_is_refused
        }
        [memfd: "nobody finds a memfd that was not handed to him"] {
            any_number_of_processes_that_start_at_once_share_one_good_pipe
            any_number_of_threads_that_start_at_once_share_one_good_pipe
            starters_and_removers_at_once_never_see_half_a_pipe
            a_creator_or_remover_killed_at_any_instant_leaves_nothing_that_the_next_one_cannot_mend
        }
    }
    calls {
        [] {
            what_was_sent_or_released_before_a_death_counts_whenever_it_comes
        }
        [memfd: "a memfd goes with its maker"] {
            whoever_is_killed_before_or_after_any_system_call_leaves_what_the_next_one_can_mend
        }
    }
    removal {
        [memfd: "a memfd has no name, and goes with the last who has it"] {
            unlink_refuses_while_a_role_is_held_and_names_the_holder
            unlink_of_an_open_pipe_without_roles_leaves_its_handles_useless_and_harmless
            a_pipe_removed_by_force_goes_on_until_somebody_waits
            a_removal_by_force_ends_the_waits_of_other_processes
            a_pipe_to_be_removed_on_close_is_removed_by_the_last_handle_of_both
            a_pipe_to_be_removed_on_close_waits_for_everybody
            a_pipe_to_be_removed_on_close_stays_when_a_side_died
            two_that_close_at_the_same_time_remove_the_pipe_all_the_same
            watchers_do_not_keep_a_pipe_from_being_removed_on_close
        }
    }
    fork {
        [] {
            the_mapping_is_not_inherited
            handles_dropped_or_closed_in_a_child_do_nothing_here
            a_child_takes_part_by_opening_the_pipe_anew
            a_child_takes_part_by_reopening_the_pipe
            a_role_of_a_child_ends_with_the_child
            a_pipe_is_reopened_as_often_as_one_likes
            a_claim_ends_with_the_parent_also_while_its_child_lives
            a_role_cannot_be_claimed_through_a_handle_from_before_the_fork
            a_process_that_has_become_another_program_holds_no_role
        }
        [memfd: "a memfd has no name to be removed"] {
            a_pipe_that_was_removed_is_not_reopened
        }
    }
    namespaces {
        [] {
            roles_and_deaths_are_seen_across_pid_namespaces
            two_processes_of_the_same_number_are_told_apart
            where_the_address_leads_elsewhere_there_is_no_pipe
        }
        [memfd: "nobody makes a memfd where others look for it"] {
            where_the_address_leads_elsewhere_it_may_lead_to_another_pipe
        }
    }
    users {
        [] {
            who_has_no_permission_is_told_the_owner_and_the_mode
            who_may_only_read_may_only_watch
            roots_pipe_is_everybodys_who_may
        }
        [memfd: "a memfd has no name to make it at, or to take away"] {
            who_has_no_permission_neither_makes_nor_removes_a_pipe
            who_may_write_and_not_remove_leaves_the_pipe_as_it_was
        }
        [memfd: "who hands over a memfd is looked at, and who has made it: see tests/memfd.rs"] {
            only_roots_and_our_own_pipes_are_trusted_and_those_of_whom_we_name
        }
    }
    corrupt {
        [] {
            a_header_word_that_is_none_poisons_the_consumer
            a_record_over_the_end_of_the_ring_poisons_the_consumer
            nonsense_behind_a_wrap_poisons_the_consumer
            a_drain_of_a_ring_without_an_end_ends
            a_producers_state_that_is_none_poisons_the_consumer
            a_consumers_state_that_is_none_poisons_the_producer
            a_read_position_that_is_none_poisons_the_producer
            what_was_sent_before_the_poison_is_received_also_from_a_batch
            a_batch_that_met_corruption_takes_nothing_more
            a_drain_that_met_corruption_takes_nothing_more
            a_role_is_not_had_on_words_that_no_correct_peer_writes
            a_ring_of_nothing_but_records_is_corrupt_to_a_producer
            whatever_a_hostile_process_writes_every_call_returns
        }
    }
    foreign {
        [] {
            a_foreign_segment_is_left_as_it_was_byte_for_byte
            a_segment_smaller_than_a_header_is_foreign
            another_byte_order_is_refused
            another_layout_version_is_refused_with_both_versions
            unknown_features_are_refused_with_their_bits_and_unknown_hints_are_not
            header_words_that_no_creator_writes_are_refused_with_the_word
            a_segment_smaller_than_its_header_says_is_refused_with_both_sizes
        }
    }
    no_syscalls {
        [] {
            try_calls_make_no_system_call
            neither_a_stream_nor_a_ping_pong_makes_a_call_per_message_while_nobody_sleeps
        }
    }
}
