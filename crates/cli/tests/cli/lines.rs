//! One line is one message.

use std::io::Write;

use crate::process::{Name, ask, run, start};

#[test]
fn lines_arrive_unchanged() {
    let name = Name::new("lines");
    let long = "x".repeat(300_000);
    let input = [&b"first\n\n\nnot \xff\0 text\r\n"[..], long.as_bytes(), b"\nlast without newline"].concat();
    run(&["send", &name], &input).code(0).quiet();
    ask(&["recv", &name]).code(0).quiet().wrote(&[&input[..], b"\n"].concat());
}

#[test]
fn empty_lines_are_messages_and_empty_input_is_not() {
    let name = Name::new("empty");
    run(&["send", &name], b"\n\n").code(0);
    run(&["send", &name], b"").code(0);
    ask(&["recv", &name]).code(0).wrote(b"\n\n");
}

#[test]
fn a_line_is_sent_as_soon_as_it_is_read() {
    let name = Name::new("at-once");
    let mut send = start(&["send", &name]);
    let recv = start(&["recv", &name]);
    let mut expected = Vec::new();
    for line in ["one\n", "two\nthree\n", "\n"] {
        send.input().write_all(line.as_bytes()).unwrap();
        expected.extend_from_slice(line.as_bytes());
        assert_eq!(recv.wait_for_output(|output| output.len() >= expected.len()), expected);
    }
    send.input().write_all(b"half").unwrap();
    send.finish().code(0).quiet();
    recv.finish().code(0).quiet().wrote(b"one\ntwo\nthree\n\nhalf\n");
}

#[test]
fn a_line_too_long_is_an_error_with_both_lengths_and_no_part_is_sent() {
    let name = Name::new("too-long");
    let input = ["fits\n", &"x".repeat(2041), "\nnever\n"].concat();
    let send = run(&["send", &name, "--capacity", "4096"], input.as_bytes());
    send.code(1).said(&["line 2", "2041 bytes", "2040"]);
    ask(&["recv", &name]).code(6).wrote(b"fits\n");
    run(&["send", &name], &[b'y'; 2040]).code(0).quiet();
    ask(&["recv", &name]).code(0).wrote(&[&[b'y'; 2040][..], b"\n"].concat());
}

#[test]
fn count_ends_recv_and_leaves_the_rest() {
    let name = Name::new("count");
    run(&["send", &name], b"1\n2\n3\n4\n5\n").code(0);
    ask(&["recv", &name, "--count", "2"]).code(0).quiet().wrote(b"1\n2\n");
    ask(&["recv", &name, "--count", "0"]).code(0).wrote(b"");
    ask(&["recv", &name, "-n", "1"]).code(0).wrote(b"3\n");
    ask(&["recv", &name, "--count", "9"]).code(0).wrote(b"4\n5\n");
}

#[test]
fn follow_continues_with_the_next_producer() {
    let name = Name::new("follow");
    let recv = start(&["recv", &name, "--follow", "--count", "5"]);
    run(&["send", &name], b"1\n2\n").code(0);
    recv.wait_for_output(|output| output == b"1\n2\n");
    run(&["send", &name], b"3\n4\n").code(0);
    recv.wait_for_output(|output| output == b"1\n2\n3\n4\n");
    run(&["send", &name], b"5\n").code(0);
    recv.finish().code(0).quiet().wrote(b"1\n2\n3\n4\n5\n");
}

#[test]
fn follow_does_not_miss_a_short_lived_producer() {
    let name = Name::new("came-and-went");
    let recv = start(&["recv", &name, "--follow", "-n", "2"]);
    run(&["send", &name], b"1\n").code(0);
    recv.wait_for_output(|output| output == b"1\n");
    recv.signal(libc::SIGSTOP);
    run(&["send", &name], b"2\n").code(0);
    recv.signal(libc::SIGCONT);
    recv.finish().code(0).quiet().wrote(b"1\n2\n");
}

#[test]
fn options_that_an_existing_pipe_does_not_have_are_noted() {
    let name = Name::new("kept");
    ask(&["create", &name, "--capacity", "64KiB"]).code(0).quiet().wrote(format!("{}\n", &*name).as_bytes());
    run(&["send", &name, "--capacity", "1MiB"], b"x\n").code(0).said(&["1048576", "the segment has 65536"]);
    // A capacity that matches when rounded up is not worth a note.
    ask(&["recv", &name, "--capacity", "40000", "--mode", "600"]).code(0).quiet().wrote(b"x\n");
}
