//! `duplex`: both ways through one address.

use std::io::Write;
use std::process::Stdio;

use serde_json::Value;
use shmpipe::{Duplex, DuplexSide, Options, Peer, RecvTimeoutError};

use crate::interrupts::small_pipe;
use crate::place::{Kind, Place};
use crate::process::{
    DEADLINE, Name, Running, ask, assert_same, eventually, listed, noise, numbered, object, run,
    script_apart, shmpipe, start,
};

fn side(name: &str, side: &str) -> Running {
    start(&["duplex", name, "--side", side, "--capacity", "4KiB"])
}

/// Both sides, attached.
fn pair(name: &str) -> (Running, Running) {
    let (a, b) = (side(name, "a"), side(name, "b"));
    eventually(|| {
        let seen = shmpipe::inspect(name).ok()?;
        (seen.producer.peer == Peer::Open && seen.consumer.peer == Peer::Open).then_some(())
    });
    (a, b)
}

#[test]
fn lines_pass_both_ways_through_every_kind_of_pipe() {
    for kind in Kind::ALL {
        let place = Place::with(kind, "duplex", &["--duplex"]);
        let (first, second) = (numbered(0, 20_000), numbered(5_000_000, 30_000));
        // Much more than both rings hold, both ways at once.
        let a = start(&["duplex", &place, "--capacity", "4KiB"]).feed(first.clone());
        let b = start(&["duplex", &place, "--capacity", "4KiB"]).feed(second.clone());
        assert_same(&a.finish().code(0).quiet_unless_it_existed(kind).out, &second);
        assert_same(&b.finish().code(0).quiet_unless_it_existed(kind).out, &first);
    }
}

impl crate::process::Finished {
    /// A served memfd has its own capacity, which `duplex` notes.
    fn quiet_unless_it_existed(self, kind: Kind) -> Self {
        if kind == Kind::Memfd { self } else { self.quiet() }
    }
}

#[test]
fn one_side_may_be_over_before_the_other_starts() {
    let name = Name::new("duplex-early");
    let mut a = side(&name, "a");
    a.input().write_all(b"to B\nand more\n").unwrap();
    eventually(|| (shmpipe::inspect(&*name).ok()?.producer.messages == 2).then_some(()));
    let b = side(&name, "b").feed(b"to A".to_vec());
    b.wait_for_output(|output| output == b"to B\nand more\n");
    a.wait_for_output(|output| output == b"to A\n");
    a.finish().code(0).quiet();
    b.finish().code(0).quiet();
}

#[test]
fn the_end_of_an_earlier_process_is_not_that_of_the_next() {
    type Ending = (fn(Duplex), &'static str);
    let ends: [Ending; 2] =
        [(|b| b.close().unwrap(), "closed"), (|b| b.abort(7).unwrap(), "aborted with code 7")];
    for (end, how) in ends {
        let name = Name::new("duplex-earlier");
        let pipe = Options::new().duplex(true).create(&*name).unwrap();
        end(pipe.duplex_as(DuplexSide::B).unwrap());
        let a = start(&["duplex", &name, "--side", "a"]);
        a.wait_for_words(&format!("the last process at the other side {how}; waiting for the next one"), 1);
        let mut b = pipe.duplex_as(DuplexSide::B).unwrap();
        b.send("from the next").unwrap();
        a.wait_for_output(|output| output == b"from the next\n");
        b.close().unwrap();
        a.feed(Vec::new()).finish().wrote(b"from the next\n");
        // With messages, it is the end of a stream.
        let mut b = pipe.duplex_as(DuplexSide::B).unwrap();
        b.send("all there is").unwrap();
        end(b);
        let code = if how == "closed" { 0 } else { 6 };
        ask(&["duplex", &name, "--side", "a"]).code(code).wrote(b"all there is\n");
    }
}

#[test]
fn the_end_of_the_input_closes_one_direction() {
    let name = Name::new("duplex-half");
    let (a, mut b) = pair(&name);
    let a = a.feed(b"a request\n".to_vec());
    b.wait_for_output(|output| output == b"a request\n");
    eventually(|| (shmpipe::inspect(&*name).ok()?.producer.peer == Peer::Closed).then_some(()));
    b.input().write_all(b"a reply\n").unwrap();
    a.wait_for_output(|output| output == b"a reply\n");
    b.input().write_all(b"another\n").unwrap();
    b.finish().code(0).quiet().wrote(b"a request\n");
    a.finish().code(0).quiet().wrote(b"a reply\nanother\n");
}

#[test]
fn bytes_pass_both_ways_with_every_framing() {
    let (first, second) = (noise(300_000, 1), noise(200_000, 2));
    for framing in [&["--raw"][..], &["--chunk", "1000"]] {
        let name = Name::new("duplex-binary");
        let words = |side| [&["duplex", &*name, "--side", side], framing].concat();
        let a = start(&words("a")).feed(first.clone());
        let b = start(&words("b")).feed(second.clone());
        assert_same(&a.finish().code(0).out, &second);
        assert_same(&b.finish().code(0).out, &first);
    }
    let name = Name::new("duplex-prefixed");
    let prefixed = b"\x03\0\0\0\n\n\n\0\0\0\0\x01\0\0\0x";
    let words = |side| ["duplex", &*name, "--side", side, "--length-prefixed"];
    let a = start(&words("a")).feed(prefixed.to_vec());
    run(&words("b"), b"").code(0).wrote(prefixed);
    a.finish().code(0).wrote(b"");
}

#[test]
fn a_death_of_the_other_side_ends_both_directions_at_once() {
    let name = Name::new("duplex-death");
    let (mut a, mut b) = pair(&name);
    b.input().write_all(b"before\n").unwrap();
    a.wait_for_output(|output| output == b"before\n");
    a.input().write_all(b"last\n").unwrap();
    b.wait_for_output(|output| output == b"last\n");
    // Otherwise the next one receives it again.
    eventually(|| (shmpipe::inspect(&*name).ok()?.consumer.messages == 1).then_some(()));
    b.signal(libc::SIGKILL);
    b.finish().killed();
    // Its input is still open.
    let status = eventually(|| a.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(6));
    a.finish().said(&["the other side died", "run duplex again"]).wrote(b"before\n");
    // A successor of the dead side gets a new partner, which sees nothing of the old one.
    let (a, b) = pair(&name);
    let b = b.feed(b"again\n".to_vec());
    a.feed(b"too\n".to_vec()).finish().code(0).wrote(b"again\n");
    b.finish().code(0).wrote(b"too\n");
}

#[test]
fn a_death_after_the_end_of_the_other_input_ends_duplex_too() {
    let name = Name::new("duplex-half-death");
    let (mut a, b) = pair(&name);
    let b = b.feed(b"all\n".to_vec());
    a.wait_for_output(|output| output == b"all\n");
    eventually(|| {
        let back = shmpipe::inspect(&*name).ok()?.back?;
        (back.producer.peer == Peer::Closed && back.consumer.peer == Peer::Closed).then_some(())
    });
    b.signal(libc::SIGKILL);
    b.finish().killed();
    let status = eventually(|| a.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(6));
    a.finish().said(&["the peer died"]);
}

#[test]
fn a_signal_ends_duplex_in_order_and_the_other_side_with_it() {
    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143), (libc::SIGHUP, 129)] {
        let name = Name::new("duplex-signal");
        let (mut a, b) = pair(&name);
        a.input().write_all(b"before\nhalf a li").unwrap();
        b.wait_for_output(|output| output == b"before\n");
        a.signal(signal);
        let status = eventually(|| a.child.try_wait().unwrap());
        assert_eq!(status.code(), Some(code));
        let finished = a.finish();
        let aborted = format!("aborted with code {code}: SIG");
        assert!(finished.err.contains(&aborted) && finished.err.contains("ended duplex"), "{}", finished.err);
        b.finish().code(6).said(&["the other side", &format!("aborted with code {code}")]).wrote(b"before\n");
        // The next pair starts afresh.
        let (a, b) = pair(&name);
        let b = b.feed(b"x\n".to_vec());
        a.feed(b"y\n".to_vec()).finish().code(0).wrote(b"x\n");
        b.finish().code(0).wrote(b"y\n");
    }
}

#[test]
fn a_signal_ends_duplex_in_order_when_its_input_is_over_or_its_output_blocked() {
    let name = Name::new("duplex-signal-late");
    let a = side(&name, "a").feed(b"only\n".to_vec());
    eventually(|| (shmpipe::inspect(&*name).ok()?.producer.peer == Peer::Closed).then_some(()));
    a.signal(libc::SIGINT);
    a.finish().code(130).said(&["closed: SIGINT ended duplex"]);
    let name = Name::new("duplex-signal-blocked");
    // No one reads the output, so the receiving thread blocks in a write.
    let mut blocked = shmpipe(&["duplex", &name, "--side", "a"]);
    let mut blocked =
        blocked.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let b = side(&name, "b").feed(numbered(0, 100_000));
    eventually(|| {
        let back = shmpipe::inspect(&*name).ok()?.back?;
        (back.producer.waits > 0).then_some(())
    });
    // SAFETY: takes numbers; the child is not yet waited for.
    assert_eq!(unsafe { libc::kill(blocked.id() as i32, libc::SIGINT) }, 0);
    let status = eventually(|| blocked.try_wait().unwrap());
    assert_eq!(status.code(), Some(130));
    b.finish().code(6);
}

#[test]
fn a_reader_that_leaves_ends_duplex_and_its_other_direction() {
    let name = Name::new("duplex-reader");
    let b = side(&name, "b").feed(b"to no reader\n".to_vec());
    eventually(|| shmpipe::inspect(&*name).ok().filter(|snapshot| snapshot.unread() == 1));
    let (reader, output) = small_pipe();
    drop(reader);
    let mut command = shmpipe(&["duplex", &name, "--side", "a"]);
    let mut a = command.stdin(Stdio::piped()).stdout(output).stderr(Stdio::piped()).spawn().unwrap();
    let status = eventually(|| a.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    b.finish().code(6);
    // What was not written is there for the next.
    let next = Options::new().duplex(true).open(&*name).unwrap();
    let mut next = next.duplex_as(DuplexSide::A).unwrap();
    assert_eq!(next.recv_timeout(DEADLINE).unwrap().to_vec(), b"to no reader");
}

#[test]
fn a_program_talks_to_the_command_line() {
    let name = Name::new("duplex-program");
    let pipe = Options::new().duplex(true).create(&*name).unwrap();
    let mut program = pipe.duplex_as(DuplexSide::A).unwrap();
    let b = side(&name, "b").feed(b"2 3\n4 5\n".to_vec());
    for sum in ["5", "9"] {
        let request = String::from_utf8(program.recv_timeout(DEADLINE).unwrap().to_vec()).unwrap();
        let numbers = request.split(' ').map(|number| number.parse::<u32>().unwrap());
        assert_eq!(numbers.sum::<u32>().to_string(), sum);
        program.send(sum).unwrap();
    }
    assert_eq!(program.recv_timeout(DEADLINE).unwrap_err(), RecvTimeoutError::Closed);
    program.close().unwrap();
    let finished = b.finish().code(0).wrote(b"5\n9\n");
    assert!(finished.err.contains("already existed"), "{}", finished.err);
    // One that closes before the input ends refuses it.
    let program = pipe.duplex_as(DuplexSide::A).unwrap();
    let mut b = start(&["duplex", &name, "--side", "b"]);
    eventually(|| (shmpipe::inspect(&*name).ok()?.consumer.peer == Peer::Open).then_some(()));
    program.close().unwrap();
    let status = eventually(|| b.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(6));
    b.finish().said(&["the consumer closed"]);
}

#[test]
fn the_sides_and_the_kinds_of_pipe_are_kept_apart() {
    let name = Name::new("duplex-kinds");
    let (a, b) = pair(&name);
    ask(&["duplex", &name]).code(4).said(&["already holds side B", &b.id().to_string()]);
    ask(&["duplex", &name, "--side", "a"]).code(4).said(&["already holds side A", &a.id().to_string()]);
    for command in ["send", "recv"] {
        ask(&[command, &name]).code(7).said(&["has two directions, expected one"]);
    }
    ask(&["rm", &name]).code(4).said(&["already holds side A", "--force removes it anyway"]);
    ask(&["rm", "--force", &name])
        .code(0)
        .said(&[&format!("process {} held side A", a.id()), &format!("process {} held side B", b.id())]);
    drop((a, b));
    let name = Name::new("one-way");
    ask(&["create", &name]).code(0);
    ask(&["duplex", &name]).code(7).said(&["has one direction, expected two"]);
    ask(&["keep", &name, "--duplex"]).code(7);
}

#[test]
fn both_directions_are_shown() {
    let name = Name::new("duplex-shown");
    assert_eq!(object(&["create", &name, "--duplex", "--capacity", "4KiB", "--json"])["duplex"], true);
    let mut a = start(&["duplex", &name, "--side", "a"]);
    a.input().write_all(b"12345\n").unwrap();
    eventually(|| (shmpipe::inspect(&*name).ok()?.producer.messages == 1).then_some(()));
    let b = Options::new().duplex(true).open(&*name).unwrap();
    let mut b = b.duplex_as(DuplexSide::B).unwrap();
    b.send(b"123456789").unwrap();
    eventually(|| (shmpipe::inspect(&*name).ok()?.back?.consumer.messages == 1).then_some(()));

    let seen = object(&["stat", &name, "--json"]);
    assert_eq!((&seen["duplex"], &seen["unread_messages"]), (&true.into(), &1.into()));
    assert_eq!((&seen["producer"], &seen["producer_pid"]), (&"alive".into(), &a.id().into()));
    assert_eq!((&seen["back_producer_messages"], &seen["back_consumer_messages"]), (&1.into(), &1.into()));
    assert_eq!((&seen["back_unread_messages"], &seen["back_consumer_pid"]), (&0.into(), &a.id().into()));
    let text = String::from_utf8(ask(&["stat", &name]).code(0).out).unwrap();
    for row in [
        "kind                   sysv, duplex",
        "fill, A to B           16 bytes",
        "fill, B to A           0 bytes",
        "A, sending             alive",
        "A, receiving           alive",
        "B, sending             alive",
        "B, receiving           alive",
    ] {
        assert!(text.contains(row), "{row}: {text}");
    }
    let rows = String::from_utf8(ask(&["ls"]).code(0).out).unwrap();
    let row = rows.lines().find(|row| row.starts_with(&*name)).expect("it is listed");
    assert!(row.contains("<1%/0%") && row.contains(&format!("A: alive ({})", a.id())), "{row}");
    assert!(listed().iter().any(|pipe| pipe["name"] == *name && pipe["duplex"] == true));

    // A one-way pipe has neither.
    let name = Name::new("one-way-shown");
    let seen = object(&["create", &name, "--json"]);
    assert_eq!((&seen["duplex"], seen.get("back_used_bytes")), (&false.into(), Some(&Value::Null)));
    drop(a);
}

#[test]
fn unread_messages_in_either_direction_keep_a_pipe_that_was_left() {
    let script = "
        printf 'x\\n' | timeout -s INT 1 shmpipe duplex left --side b || true
        shmpipe rm --stale left
        shmpipe doctor left || true
        shmpipe duplex left --side a < /dev/null || true
        shmpipe rm --stale left";
    let Some(running) = script_apart(script) else { return };
    let finished = running.finish().code(0);
    let out = String::from_utf8(finished.out).unwrap();
    assert!(out.contains("left: kept, 1 message is unread"), "{out} {}", finished.err);
    assert!(out.contains("side A") && out.contains("side B"), "{out}");
    assert!(out.ends_with("x\nleft: removed\n"), "{out} {}", finished.err);
}
