//! Binary input.

use shmpipe::Role;

use crate::process::{Name, ask, noise, run, start, wait_for_holder};

/// More than the ring holds, and not a round number.
const LENGTH: usize = (8 << 20) + 4321;

#[test]
fn a_file_arrives_byte_identical_whichever_side_starts_first() {
    let file = noise(LENGTH, 1);
    let ways: [&[&str]; 3] = [&["--chunk", "64KiB"], &["--chunk", "12345"], &["--raw"]];
    for (number, way) in ways.iter().enumerate() {
        let name = Name::new("file");
        let send = || start(&[&["send", &name], *way].concat()).feed(file.clone());
        let recv = || start(&["recv", &name, "--raw"]);
        let (sent, received) = if number % 2 == 0 {
            let recv = recv();
            wait_for_holder(&name, Role::Consumer, recv.id());
            (send().finish(), recv.finish())
        } else {
            let send = send();
            wait_for_holder(&name, Role::Producer, send.id());
            let received = recv().finish();
            (send.finish(), received)
        };
        sent.code(0).quiet();
        received.code(0).quiet().wrote(&file);
    }
}

#[test]
fn a_small_ring_carries_a_large_file() {
    let name = Name::new("small-ring");
    let file = noise(300_000, 2);
    let send = start(&["send", &name, "--raw", "--capacity", "4KiB"]).feed(file.clone());
    wait_for_holder(&name, Role::Producer, send.id());
    ask(&["recv", &name, "--raw"]).code(0).quiet().wrote(&file);
    send.finish().code(0).quiet();
}

#[test]
fn each_chunk_is_a_message() {
    let name = Name::new("chunks");
    run(&["send", &name, "--chunk", "4"], b"abcdefghi").code(0);
    ask(&["recv", &name, "--length-prefixed"]).code(0).wrote(b"\x04\0\0\0abcd\x04\0\0\0efgh\x01\0\0\0i");
}

#[test]
fn prefixes_keep_the_boundaries_of_binary_messages() {
    let name = Name::new("prefixed");
    let mut input = Vec::new();
    for (number, length) in [0usize, 1, 0, 7, 4096, 65_537, 3, 500_000, 524_280, 2].into_iter().enumerate() {
        input.extend_from_slice(&(length as u32).to_le_bytes());
        input.extend_from_slice(&noise(length, number as u64 + 9));
    }
    let send = start(&["send", &name, "--length-prefixed"]).feed(input.clone());
    ask(&["recv", &name, "--length-prefixed"]).code(0).quiet().wrote(&input);
    send.finish().code(0).quiet();
}

#[test]
fn input_that_ends_within_a_prefixed_message_is_an_error() {
    let name = Name::new("truncated");
    run(&["send", &name, "--length-prefixed"], b"\x02\0\0\0ok\x09\0\0\0short")
        .code(1)
        .said(&["message 2", "after 5 of its 9 bytes"]);
    run(&["send", &name, "--length-prefixed"], b"\x02\0")
        .code(1)
        .said(&["message 1", "after 2 of its 4 bytes"]);
    ask(&["recv", &name]).code(6).wrote(b"ok\n");
}

#[test]
fn a_message_that_can_never_fit_is_an_error_with_both_lengths() {
    let name = Name::new("never-fits");
    run(&["send", &name, "--length-prefixed"], b"\xff\xff\0\x10rest").code(1).said(&[
        "message 1",
        "268500991 bytes",
        "524280",
    ]);
    run(&["send", &name, "--chunk", "1MiB"], b"").code(1).said(&["1048576", "524280"]);
    ask(&["recv", &name]).code(6).wrote(b"");
}
