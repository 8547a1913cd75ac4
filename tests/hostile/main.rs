//! Attacks on a pipe, one test each, by a process that has the segment mapped or may change the kernel's objects.
//! `docs/attacks.md` lists them, with the defence against each.
//!
//! ```sh
//! cargo test --test hostile                       # all of it
//! cargo test --test hostile length_changed        # one attack, on every kind of shared memory
//! ```

mod attacker;
mod double_fetch;
mod files;
mod header;
mod inspecting;
mod leaks;
mod objects;
mod roles;
mod steps;
mod words;

use shmpipe_testing::end;
use shmpipe_testing::process::part as play;

#[test]
fn part() {
    play(&[
        ("end", end::play),
        ("stepped", steps::be_stepped),
        ("victim of a truncation", files::be_truncated),
        ("inspector", objects::look),
        ("dumped", roles::be_dumped),
        ("mover", roles::move_away),
    ]);
}

/// Runs each attack on every kind of shared memory, or on those listed.
macro_rules! attacks {
    ($($topic:ident :: $test:ident $(on $($backend:ident)+)?;)*) => {
        $(attacks!(@one $topic $test $($($backend)+)?);)*
    };
    (@one $topic:ident $test:ident) => {
        attacks!(@one $topic $test sysv posix file memfd);
    };
    (@one $topic:ident $test:ident $($backend:ident)+) => {
        mod $test {
            $(attacks!(@on $backend $topic $test);)+
        }
    };
    (@on sysv $topic:ident $test:ident) => { attacks!(@test sysv SysV $topic $test); };
    (@on posix $topic:ident $test:ident) => { attacks!(@test posix Posix $topic $test); };
    (@on file $topic:ident $test:ident) => { attacks!(@test file File $topic $test); };
    (@on memfd $topic:ident $test:ident) => { attacks!(@test memfd Memfd $topic $test); };
    (@test $name:ident $backend:ident $topic:ident $test:ident) => {
        #[test]
        fn $name() {
            crate::$topic::$test(shmpipe_testing::backend::Backend::$backend);
        }
    };
}

attacks! {
    // Words of the header, and of the ring.
    words::any_edge_value_in_any_word_of_the_header on sysv memfd;
    words::any_length_at_any_record;
    words::a_chain_of_wraps;
    words::a_stream_that_never_ends;
    words::wake_words_that_are_always_set_or_always_changing;
    words::a_peer_that_never_wakes;
    double_fetch::a_length_changed_between_check_and_use;
    double_fetch::a_position_changed_between_check_and_use;
    double_fetch::a_length_changed_between_any_two_instructions on sysv;
    double_fetch::a_position_changed_between_any_two_instructions on sysv;
    header::the_header_rewritten_while_in_use;
    steps::a_call_takes_a_bounded_number_of_steps_whatever_is_written_between_them on sysv memfd;
    steps::a_claim_takes_a_bounded_number_of_steps_in_a_ring_full_of_records on sysv memfd;
    // What the ring reveals.
    leaks::padding_shows_nothing_of_the_senders_memory;
    leaks::a_reservation_shows_only_what_was_written_to_it;
    // Kernel objects.
    files::a_file_truncated_under_the_pair_is_a_sigbus on posix file;
    files::a_file_truncated_and_extended_again_is_noticed on posix file;
    files::a_sealed_memfd_cannot_be_resized on memfd;
    files::holes_punched_under_the_pair;
    roles::a_held_role_freed_and_claimed_by_another_process on sysv;
    roles::a_holder_that_moves_to_another_ipc_namespace on sysv;
    roles::a_handle_that_moves_to_another_ipc_namespace on sysv;
    roles::a_holder_that_moved_away_closes on sysv;
    roles::a_holder_that_calls_exec;
    roles::a_holder_that_gives_up_its_rights;
    roles::a_holder_that_may_not_ask_about_its_peer;
    roles::a_handle_that_survives_exec_only_in_an_account on sysv;
    roles::claims_beside_many_watchers;
    roles::a_holder_that_is_stopped;
    roles::a_holder_that_dumps_core;
    inspecting::inspecting_what_a_hostile_process_writes on sysv posix memfd;
}
