//! What becomes a message, and how it is written: delimiters, tags, positions, JSON, rates, and going on after a kill.

use std::fs::{self, File};
use std::io::Write;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use shmpipe::{Duplex, DuplexSide, Options, Peer, Role};

use crate::process::{
    DEADLINE, Directory, Name, Running, ask, assert_same, eventually, numbered, run, shmpipe, start,
    wait_for_holder,
};

#[test]
fn messages_end_where_the_delimiter_says() {
    let name = Name::new("delimiter");
    run(&["send", &name, "-0"], b"a\nb\0\0c").code(0).quiet();
    ask(&["recv", &name, "-0"]).code(0).quiet().wrote(b"a\nb\0\0c\0");
    run(&["send", &name, "--delimiter", r"\r\n"], b"one\r\n\r\ntwo\n\r\n").code(0).quiet();
    ask(&["recv", &name, "--delimiter", ", "]).code(0).quiet().wrote(b"one, , two\n, ");
    run(&["send", &name, "--delimiter", r"\xff"], b"\xfe\xff\xfd").code(0).quiet();
    ask(&["recv", &name, "--delimiter", r"\x00\x01"]).code(0).quiet().wrote(b"\xfe\0\x01\xfd\0\x01");
}

#[test]
fn the_whole_input_is_one_message() {
    let name = Name::new("whole");
    let input = numbered(0, 1000);
    run(&["send", &name, "--whole"], &input).code(0).quiet();
    run(&["send", &name, "--whole"], b"").code(0).quiet();
    ask(&["recv", &name, "--length-prefixed"]).code(0).wrote(&[&8000_u32.to_le_bytes(), &input[..]].concat());
    let too_long = run(&["send", &name, "--whole"], &vec![b'x'; 600 << 10]).code(1);
    assert!(too_long.err.contains("message 1 of the input has at least"), "{}", too_long.err);
    ask(&["recv", &name]).code(6).wrote(b"");
}

#[test]
fn json_has_position_tag_and_bytes() {
    let name = Name::new("json");
    run(&["send", &name, "--tag", "7", "--delimiter", ","], "é\u{1b}\n,\u{0}".as_bytes()).code(0).quiet();
    run(&["send", &name, "--tag", "0xffffffff", "--whole"], b"\xff\xfe").code(0).quiet();
    let out = ask(&["recv", &name, "--json"]).code(0).quiet().out;
    let objects: Vec<Value> = out
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let found: Vec<_> = objects
        .iter()
        .map(|object| ["position", "tag", "length_bytes", "text", "base64"].map(|key| object[key].clone()))
        .collect();
    let null = || Value::Null;
    assert_eq!(
        found,
        [
            [0.into(), 7.into(), 4.into(), "é\u{1b}\n".into(), null()],
            [16.into(), 7.into(), 1.into(), "\u{0}".into(), null()],
            [32.into(), u32::MAX.into(), 2.into(), null(), "//4=".into()],
        ]
    );
    assert!(objects.iter().all(|object| object["schema"] == 1));
    ask(&["recv", &name, "--json", "--raw"]).code(2).said(&["--raw"]);
    ask(&["send", &name, "--tag", "4294967296"]).code(2);
}

#[test]
fn positions_are_shown_before_messages() {
    let name = Name::new("positions");
    run(&["send", &name], b"one\n\nthe third\n").code(0);
    ask(&["recv", &name, "--show-position"]).code(0).quiet().wrote(b"0\tone\n16\t\n24\tthe third\n");
}

#[test]
fn objects_that_cannot_be_written_are_written_by_the_next() {
    let name = Name::new("json-full");
    run(&["send", &name], &numbered(0, 100)).code(0);
    let full = File::options().write(true).open("/dev/full").unwrap();
    Running::start(shmpipe(&["recv", &name, "--json"]).stdout(full).stderr(Stdio::piped())).finish().code(1);
    let out = ask(&["recv", &name, "--json"]).code(0).quiet().out;
    let object = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    let lines: Vec<u8> = String::from_utf8(out)
        .unwrap()
        .lines()
        .flat_map(|line| (object(line)["text"].as_str().unwrap().to_owned() + "\n").into_bytes())
        .collect();
    assert_same(&lines, &numbered(0, 100));
}

#[test]
fn a_rate_is_not_exceeded() {
    let name = Name::new("rate");
    let started = Instant::now();
    run(&["send", &name, "--rate", "100/s"], &numbered(0, 40)).code(0).quiet();
    // The first at once, and a tenth of a second's worth may follow a pause.
    assert!(started.elapsed() >= Duration::from_millis(10 * (40 - 1 - 10)), "{:?}", started.elapsed());
    ask(&["recv", &name]).code(0).wrote(&numbered(0, 40));
    // A signal ends the wait for a turn.
    let mut send = start(&["send", &name, "--rate", "1/h"]);
    send.input().write_all(b"1\n2\n").unwrap();
    let recv = start(&["recv", &name]);
    recv.wait_for_output(|output| output == b"1\n");
    send.signal(libc::SIGTERM);
    send.finish().code(143);
    recv.finish().code(6);
}

/// Lines of many lengths, that a ring of 4 KiB wraps often.
fn lines(count: usize) -> Vec<u8> {
    (0..count).flat_map(|n| format!("{n:05}{}\n", "x".repeat(n * 37 % 600)).into_bytes()).collect()
}

#[test]
fn send_goes_on_where_a_killed_one_stopped() {
    let name = Name::new("resume");
    let input = lines(3000);
    let directory = Directory::new("resume");
    let file = directory.file("input");
    fs::write(&file, &input).unwrap();
    ask(&["create", &name, "--capacity", "4KiB"]).code(0);
    let recv = start(&["recv", &name, "--follow"]);
    wait_for_holder(&name, Role::Consumer, recv.id());
    let send = || {
        let mut command = shmpipe(&["send", &name, "--resume", "--rate", "20k/s"]);
        Running::start(command.stdin(File::open(&file).unwrap()).stdout(Stdio::null()).stderr(Stdio::piped()))
    };
    let mut kills = 0;
    for part in 1..10 {
        let send = send();
        // At any moment of any message.
        let wanted = input.len() * part / 10;
        recv.wait_for_output(|output| output.len() >= wanted);
        send.signal(libc::SIGKILL);
        kills += usize::from(send.finish().status.code().is_none());
    }
    send().finish().code(0).said(&["resumed after", "messages that were sent before"]);
    let output = recv.wait_for_output(|output| output.len() >= input.len());
    assert_same(&output, &input);
    assert!(kills > 0);
    // All of it was sent.
    send().finish().code(0).said(&["resumed after 3000 messages"]);
    recv.signal(libc::SIGTERM);
    recv.finish().code(143).wrote(&input);
}

#[test]
fn send_does_not_resume_another_input() {
    let name = Name::new("resume-other");
    run(&["send", &name, "--resume"], b"one\ntwo\n").code(0).quiet();
    for input in [&b"a longer line than both together, and longer still\n"[..], b"one\n", b""] {
        run(&["send", &name, "--resume"], input).code(1).said(&["cannot resume", "position 32"]);
    }
    // An abort of one that could not does not hide what was sent.
    ask(&["recv", &name]).code(6).wrote(b"one\ntwo\n");
    run(&["send", &name, "--resume"], b"one\ntwo\nthree\n").code(0);
    ask(&["recv", &name]).code(0).wrote(b"three\n");
}

#[test]
fn send_does_not_resume_in_a_pipe_that_may_have_been_removed() {
    let name = Name::new("resume-leftover");
    ask(&["create", &name, "--remove-leftover"]).code(0);
    let recv = start(&["recv", &name]);
    wait_for_holder(&name, Role::Consumer, recv.id());
    run(&["send", &name, "--resume"], b"one\n")
        .code(7)
        .quiet_on_stdout()
        .said(&["cannot resume", "--remove-leftover"]);
    // The receiver does not take it for the end.
    recv.finish().code(6).wrote(b"");
    ask(&["send", &name, "--resume", "--remove-leftover"]).code(2);
    run(&["send", &name], b"one\n").code(0);
    ask(&["recv", &name]).code(0).wrote(b"one\n");
}

#[test]
fn duplex_gives_up_after_its_timeout() {
    let name = Name::new("duplex-timeout");
    let duplex = start(&["duplex", &name, "--timeout", "100ms"]);
    duplex.finish().code(5);
    // No space, although messages come.
    let name = Name::new("duplex-timeout-full");
    let other = Options::new().duplex(true).capacity(4096).create(&*name).unwrap();
    let mut other = other.duplex_as(DuplexSide::B).unwrap();
    let mut full =
        start(&["duplex", &name, "--timeout", "300ms", "--chunk", "1000"]).feed(vec![b'x'; 1 << 16]);
    let status = eventually(|| {
        let _ = other.try_send(b"x");
        full.child.try_wait().unwrap()
    });
    assert_eq!(status.code(), Some(5));
}

#[test]
fn duplex_follows_one_other_side_after_another() {
    let name = Name::new("duplex-follow");
    let mut a = start(&["duplex", &name, "--side", "a", "--follow"]);
    wait_for_holder(&name, Role::Producer, a.id());
    // One that closes, one that is killed, one that aborts, and the next.
    run(&["duplex", &name, "--side", "b", "--timeout", "1s"], b"1\n").code(5);
    a.wait_for_output(|output| output == b"1\n");
    // Longer than it takes to notice.
    thread::sleep(Duration::from_millis(700));
    let mut b = start(&["duplex", &name, "--side", "b"]);
    b.input().write_all(b"2\n").unwrap();
    a.wait_for_output(|output| output == b"1\n2\n");
    a.input().write_all(b"to the second\n").unwrap();
    b.wait_for_output(|output| output == b"to the second\n");
    b.signal(libc::SIGKILL);
    b.finish().killed();
    a.wait_for_words("the other side died; waiting for the next one", 1);
    let mut b = start(&["duplex", &name, "--side", "b"]);
    b.input().write_all(b"3\n").unwrap();
    a.wait_for_output(|output| output == b"1\n2\n3\n");
    a.input().write_all(b"to the third\n").unwrap();
    b.wait_for_output(|output| output.ends_with(b"to the third\n"));
    a.signal(libc::SIGTERM);
    a.finish().code(143);
    b.finish().code(6);
    eventually(|| (!shmpipe::inspect(&*name).unwrap().is_open).then_some(()));
}

#[test]
fn duplex_goes_on_sending_however_the_other_side_ends() {
    let pipe = |name: &str| Options::new().duplex(true).capacity(4096).create(name).unwrap();
    let duplex = |name: &str| {
        let a = start(&["duplex", name, "--side", "a", "--follow"]);
        wait_for_holder(name, Role::Producer, a.id());
        a
    };
    let received = |b: &mut Duplex, count: usize| -> Vec<u8> {
        let line = |_| [&b.recv_timeout(DEADLINE).unwrap().to_vec()[..], b"\n"].concat();
        (0..count).flat_map(line).collect()
    };
    // More than the ring holds, and less than the kernel keeps of the input.
    let many = lines(40);
    let wait_until_full = |name: &str| {
        eventually(|| shmpipe::inspect(name).ok()?.producer.may_be_asleep.then_some(()));
    };
    let endings: [fn(Duplex); 2] = [|b| b.close().unwrap(), |b| b.abort(7).unwrap()];
    for end in endings {
        let name = Name::new("duplex-ends");
        let pipe = pipe(&name);
        let b = || pipe.duplex_as(DuplexSide::B).unwrap();
        let first = b();
        let mut a = duplex(&name);
        // While there is no input, for longer than it takes to notice.
        end(first);
        thread::sleep(Duration::from_millis(700));
        let mut second = b();
        a.input().write_all(b"one\n").unwrap();
        assert_eq!(received(&mut second, 1), b"one\n");
        // Just before the next message.
        end(second);
        a.input().write_all(b"two\n").unwrap();
        thread::sleep(Duration::from_millis(50));
        let mut third = b();
        assert_eq!(received(&mut third, 1), b"two\n");
        // While there is no space.
        a.input().write_all(&many).unwrap();
        wait_until_full(&name);
        end(third);
        thread::sleep(Duration::from_millis(50));
        assert_same(&received(&mut b(), 40), &many);
        a.signal(libc::SIGTERM);
        a.finish().code(143);
    }
    let name = Name::new("duplex-dies");
    let pipe = pipe(&name);
    // It has nothing to send, so that the direction to it alone can notice its death.
    let first = start(&["duplex", &name, "--side", "b"]).feed(Vec::new());
    wait_for_holder(&name, Role::Consumer, first.id());
    let mut a = duplex(&name);
    eventually(|| (shmpipe::inspect(&*name).ok()?.back?.producer.peer == Peer::Closed).then_some(()));
    first.stop();
    a.input().write_all(&many).unwrap();
    wait_until_full(&name);
    drop(first);
    a.wait_for_words("the other side died; waiting for the next one", 1);
    let mut second = pipe.duplex_as(DuplexSide::B).unwrap();
    assert_same(&received(&mut second, 40), &many);
    second.close().unwrap();
    a.signal(libc::SIGTERM);
    a.finish().code(143);
}
