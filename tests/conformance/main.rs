//! One list of tests that run on every kind of shared memory.
//!
//! ```sh
//! cargo test --test conformance                # all of it
//! cargo test --test conformance posix::removal # one topic of one backend
//! ```
//!
//! A test that does not apply to a backend is listed with the reason and reported as ignored.

mod close_and_death;
mod corrupt;
mod duplex;
mod foreign;
mod fork;
mod killed_at_syscalls;
mod latency;
mod namespaces;
mod no_syscalls;
mod one_process;
mod removal;
mod setup;
mod slow;
mod stream;
mod tap;
mod users;
mod wait_set;

use shmpipe_testing::end;
use shmpipe_testing::process::part as play;

#[test]
fn part() {
    play(&[
        ("end", end::play),
        ("random", stream::send_at_random),
        ("steered", stream::send_steered),
        ("create and remove", setup::create_and_remove),
        ("fork barely", fork::fork_barely),
        ("asked", shmpipe_testing::traced::be_asked),
        ("hold with much memory", removal::hold_with_much_memory),
        ("life", killed_at_syscalls::live),
        ("no membarrier", setup::no_membarrier),
        ("sealed producer", no_syscalls::sealed_producer),
        ("sealed consumer", no_syscalls::sealed_consumer),
        ("stream", no_syscalls::stream),
        ("sink", no_syscalls::sink),
        ("wait without waitv", wait_set::wait_without_waitv),
    ]);
}

/// Turns the list into a module for each backend, with a module for each topic, with the tests.
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
            messages_arrive_in_order_and_whole
            every_length_arrives_as_sent
            positions_count_the_bytes_of_the_ring
            a_commit_sends_its_reservation
            a_shorter_commit_sends_its_length_and_frees_the_rest
            a_shorter_commit_works_at_every_ring_offset
            a_shorter_commit_starts_where_its_reservation_did
            a_dropped_reservation_sends_nothing
            bytes_that_were_never_sent_are_never_received
            unread_messages_stay_intact_however_full_the_pipe_is
            writing_beyond_a_reservation_panics_and_writes_nothing
            a_message_that_a_panic_drops_is_released_or_kept_as_chosen
            a_vectored_send_is_one_message
            every_tag_arrives_with_its_message
            a_value_is_received_only_from_a_message_of_its_size
            a_batch_becomes_visible_all_at_once
            a_dropped_batch_sends_nothing
            batches_wrap_at_every_ring_offset
            a_push_that_can_never_fit_is_refused_and_the_batch_keeps_its_messages
            a_batch_waits_for_space
            an_empty_message_is_received
            the_longest_message_fits_at_every_ring_offset
            a_message_that_is_too_large_is_refused_with_both_sizes
            a_drain_takes_up_to_its_limit_and_releases_all_at_once
            a_requeued_drain_is_received_again
            a_requeued_message_is_received_again_with_the_same_position
            a_message_is_copied_into_the_callers_vector_or_slice
            a_full_pipe_accepts_one_message_for_each_one_released
            a_message_holds_its_space_until_it_is_released
            deadlines_and_timeouts_end_waits_and_only_waits
            a_batch_push_waits_until_its_deadline
            waiting_for_a_message_leaves_it_in_the_pipe
            an_owned_message_is_released_and_borrows_nothing
            both_ends_wait_with_each_strategy_and_wake_mode
            sleepers_are_woken_in_both_directions
            a_sleeping_producer_is_woken_when_its_message_fits
            a_sleeper_uses_no_cpu_time
            a_cancel_handle_ends_every_wait_from_another_thread
            a_cancel_handle_ends_the_wait_for_a_peer
            a_cancel_handle_ends_a_wait_from_a_signal_handler
            signals_that_cancel_nothing_do_not_end_a_wait
            messages_of_a_trusted_peer_are_read_and_written_in_place
            a_role_has_one_holder_and_is_free_after_it
            endpoints_outlive_the_pipe_handle_they_were_claimed_from
            a_default_pipe_has_one_mebibyte_and_mode_0600
            capacity_is_rounded_up_to_a_power_of_two
            requests_that_an_existing_pipe_does_not_meet_are_reported
            another_schema_is_refused_with_both_values
            a_pipe_with_wake_mode_never_refuses_blocking_waits
            counters_record_what_each_side_did
            inspecting_changes_nothing
            inspecting_shows_which_side_may_be_asleep
            each_end_sees_the_state_of_its_peer
            endpoints_can_move_between_threads
        }
        [memfd: "creating a memfd always creates a new one"] {
            create_requires_a_new_pipe_and_open_an_existing_one
        }
    }
    stream {
        [] {
            a_stream_arrives_in_order_and_whole
            a_ring_wraps_at_every_possible_offset
        }
    }
    close_and_death {
        [] {
            recv_waits_for_the_first_producer
            recv_waits_for_an_idle_producer
            after_a_close_recv_delivers_the_rest_and_then_reports_closed_every_time
            a_producer_may_end_before_the_consumer_attaches
            after_a_death_recv_delivers_what_was_committed_and_then_reports_peer_died_once
            after_an_abort_recv_delivers_the_rest_and_then_reports_its_code_once
            a_death_or_an_abort_before_a_successor_is_not_reported
            an_end_reported_to_a_consumer_is_not_reported_to_its_successor
            send_waits_for_the_first_consumer
            send_waits_for_an_idle_consumer
            after_the_consumer_closes_send_reports_closed_even_with_space_left
            a_consumer_that_closed_before_the_producer_attached_is_not_reported
            after_the_consumer_dies_send_reports_peer_died_once_when_full
            after_the_consumer_aborts_send_reports_its_code_once_even_with_space
            an_end_reported_to_a_producer_is_not_reported_to_its_successor
            an_unreported_death_is_reported_once_to_the_next_producer
            an_unreported_abort_is_reported_once_to_the_next_producer
            check_reports_a_death_once_and_after_every_message
            only_an_endpoint_from_before_the_panic_aborts
            a_name_is_reusable_after_every_kind_of_end
            unreleased_messages_are_received_again_with_the_same_positions
            a_second_endpoint_is_refused_with_the_pid_of_the_holder
            a_sleeper_notices_the_end_of_its_peer
            a_sleeper_notices_a_peer_that_attaches
            every_blocked_call_notices_the_end_of_its_peer_with_each_strategy
            even_an_expired_deadline_reports_a_death
            a_zombie_holds_no_role
            a_role_outlives_the_thread_that_claimed_it
        }
        [memfd: "a memfd cannot be removed"] {
            check_reports_a_removed_pipe
        }
    }
    duplex {
        [] {
            messages_pass_both_ways_in_order_and_whole
            both_sides_wait_with_each_strategy_and_wake_mode
            the_first_free_side_is_taken_or_the_one_asked_for
            a_pipe_of_the_other_kind_is_refused
            both_directions_are_inspected
            a_death_or_an_abort_is_reported_once_for_both_directions
            an_unreported_failure_is_reported_once_to_the_next_holder
            after_a_split_each_half_reports_a_failure
            a_failure_reported_before_a_split_is_not_reported_by_its_halves
            a_close_is_reported_in_both_directions_until_a_successor_attaches
            a_half_that_ends_closes_its_direction_and_leaves_the_other
            a_death_after_a_half_close_is_reported_in_the_other_direction
            a_peer_that_was_waited_for_can_be_sent_to_at_once
            what_a_killed_side_left_is_received_in_both_directions
            a_side_killed_within_its_claim_is_reported_once
            a_claim_fails_if_either_direction_is_corrupt_and_changes_nothing
            inspecting_reports_no_nonsense_from_either_direction
            a_forged_report_hides_no_later_failure_from_the_next_holder
            corruption_poisons_one_direction
            a_cancel_handle_ends_the_waits_of_both_halves
            an_endpoint_that_a_panic_drops_aborts_both_directions
            a_forked_child_has_no_side_and_changes_none
            exec_gives_a_side_back
            a_sleeping_side_notices_a_peer_that_attaches
        }
        [memfd: "a memfd cannot be removed"] {
            unlink_refuses_while_a_side_is_held
            remove_on_close_removes_a_duplex_pipe_when_both_directions_are_closed
        }
    }
    setup {
        [] {
            one_of_many_simultaneous_claims_succeeds
            a_failed_create_leaves_nothing_behind
            a_new_pipe_has_the_requested_owner_and_group
            a_process_without_the_wake_mode_of_the_pipe_is_refused
        }
        [memfd: "a memfd cannot be found by name"] {
            processes_that_start_at_once_share_one_pipe
            threads_that_start_at_once_share_one_pipe
            concurrent_openers_and_removers_never_see_an_incomplete_pipe
            a_creator_or_remover_killed_at_any_time_leaves_a_usable_address
        }
    }
    killed_at_syscalls {
        [] {
            a_wait_sees_what_a_peer_did_before_it_died
        }
        [memfd: "a memfd ends with its creator"] {
            a_kill_around_any_syscall_leaves_a_usable_pipe
        }
    }
    removal {
        [memfd: "a memfd has no name and ends with its last user"] {
            unlink_refuses_while_a_role_is_held_and_names_the_holder
            unlink_waits_for_the_memory_of_a_dead_holder
            handles_of_an_unlinked_pipe_are_useless_and_harmless
            a_removed_or_replaced_pipe_works_until_a_call_waits
            a_forced_removal_ends_the_waits_of_other_processes
            the_removal_is_the_reason_for_both_sides_whoever_notices_first
            a_leftover_is_removed_by_the_next_who_opens_or_lists_it
            a_duplex_leftover_is_removed_when_both_directions_are_empty
            remove_on_close_removes_the_pipe_with_its_last_handle
            remove_on_close_waits_for_both_roles_and_all_handles
            remove_on_close_does_not_wait_for_a_handle_that_ended_with_exec
            remove_on_close_keeps_the_pipe_when_a_side_died
            remove_on_close_works_when_both_sides_close_at_once
            remove_on_close_ignores_a_process_that_inspects
        }
    }
    fork {
        [] {
            a_child_does_not_inherit_the_mapping
            handles_dropped_or_closed_in_a_child_do_not_affect_the_parent
            a_message_dropped_in_a_child_writes_nothing
            a_drain_dropped_in_a_child_writes_nothing
            a_tap_in_a_child_sees_nothing
            a_batch_dropped_in_a_child_writes_nothing
            a_reservation_dropped_in_a_child_writes_nothing
            an_end_dropped_in_a_child_writes_nothing
            a_child_can_open_the_pipe
            a_child_can_reopen_the_pipe
            a_role_of_a_child_ends_with_the_child
            a_pipe_can_be_reopened_many_times
            a_claim_ends_with_the_parent_while_its_child_lives
            a_role_cannot_be_claimed_through_a_handle_from_before_the_fork
            a_process_holds_no_role_after_exec
            a_child_of_a_bare_fork_has_neither_the_mapping_nor_the_role
            a_spawned_program_does_not_prolong_the_role_of_its_parent
            a_role_lasts_as_long_as_a_process_shares_the_memory_of_its_holder
        }
        [memfd: "a memfd has no name to remove"] {
            a_removed_pipe_is_not_reopened
        }
    }
    namespaces {
        [] {
            roles_and_deaths_are_seen_across_pid_namespaces
            two_processes_with_the_same_pid_are_distinguished
            an_address_in_another_namespace_finds_no_pipe
        }
        [memfd: "a memfd is not created at an address"] {
            an_address_in_another_namespace_may_name_another_pipe
        }
    }
    users {
        [] {
            a_permission_error_names_the_owner_and_the_mode
            a_user_with_read_permission_can_only_inspect
            a_pipe_of_root_is_usable_by_permitted_users
        }
        [memfd: "a memfd has no name to create or remove"] {
            a_user_without_permission_cannot_create_or_remove_a_pipe
            a_denied_removal_leaves_the_pipe_unchanged
        }
        [memfd: "trust depends on the sender and the creator of a memfd: see tests/memfd.rs"] {
            only_pipes_of_root_ourselves_and_named_users_are_trusted
        }
    }
    corrupt {
        [] {
            an_invalid_record_header_poisons_the_consumer
            a_record_past_the_end_of_the_ring_poisons_the_consumer
            an_invalid_record_after_a_wrap_poisons_the_consumer
            a_drain_and_a_claim_in_an_endless_ring_end
            an_invalid_producer_state_poisons_the_consumer
            a_role_claimed_as_often_as_an_epoch_counts_is_refused_with_that_number
            an_invalid_consumer_state_poisons_the_producer
            an_invalid_read_position_poisons_the_producer
            messages_sent_before_the_poison_are_received_also_from_a_batch
            a_batch_that_finds_corruption_accepts_nothing_more
            a_drain_that_finds_corruption_takes_nothing_more
            a_claim_fails_on_words_that_no_correct_peer_writes
            every_call_returns_whatever_a_hostile_process_writes
        }
    }
    foreign {
        [] {
            a_foreign_segment_is_refused_and_left_unchanged
            a_segment_smaller_than_a_header_is_foreign
            another_byte_order_is_refused
            another_layout_version_is_refused_with_both_versions
            unknown_features_are_refused_and_unknown_hints_are_accepted
            an_invalid_header_word_is_refused_by_name
            a_segment_smaller_than_its_header_says_is_refused_with_both_sizes
        }
        [sysv: "the size of a System V segment cannot change"] {
            a_truncated_pipe_is_refused_with_both_sizes
        }
    }
    wait_set {
        [] {
            a_set_finds_messages_space_and_nothing_else
            a_sleeping_set_is_woken_by_each_of_its_pipes
            a_sleeping_set_is_woken_by_space
            a_set_uses_every_wake_mode_and_strategy
            a_set_reports_every_end_once
            an_end_that_was_not_looked_at_comes_again
            messages_come_before_the_end_and_a_successor_is_heard
            a_flood_in_one_pipe_starves_no_other
            a_flood_hides_no_death
            members_join_and_leave_at_any_time
            an_interest_that_does_not_fit_is_refused_and_the_member_returned
            a_cancel_handle_ends_the_wait_of_a_set
            a_sleeping_set_uses_no_cpu_time
            sides_of_duplex_pipes_are_members
            a_set_waits_by_a_timer_where_the_kernel_refuses_the_call
        }
    }
    slow {
        [] {
            a_producer_ahead_of_its_consumer_sleeps_once_per_share
            a_napping_consumer_is_never_woken
            dropped_messages_are_counted_in_the_segment
            a_pipe_that_does_not_count_dropped_messages_stays_as_it_is
            a_finished_producer_sends_nothing_more
            a_finished_consumer_receives_nothing_more
            a_flush_waits_until_everything_is_released
            a_flush_ends_when_the_consumer_does
            bytes_written_are_read_whatever_the_messages
            ends_and_errors_of_a_stream_of_bytes_have_a_kind
            a_consumer_is_an_iterator_until_its_producer_closes
        }
    }
    tap {
        [] {
            a_tap_sees_every_message_whole_and_in_order
            a_tap_begins_with_what_is_sent_next_or_with_what_is_unread
            what_a_tap_missed_is_counted
            a_tap_beside_a_stream_shows_only_what_was_sent
            a_tap_changes_nothing
            both_directions_of_a_duplex_pipe_are_tapped
            a_pipe_whose_producers_announce_nothing_is_not_tapped
            a_producer_that_announces_too_little_is_corrupt
            a_tap_returns_whatever_a_hostile_process_writes
        }
    }
    latency {
        [] {
            every_crossing_is_sampled_once_however_it_is_sent_and_received
            a_latency_is_the_time_between_commit_and_receipt
            each_message_that_ends_a_sleep_is_sampled
            both_directions_measure
            nothing_is_measured_unless_asked_for
            forged_stamps_and_counts_do_no_harm
        }
    }
    no_syscalls {
        [] {
            try_calls_make_no_system_call
            a_stream_and_a_ping_pong_make_no_call_per_message_while_both_ends_are_awake
        }
    }
}
