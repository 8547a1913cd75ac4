//! `tap`: what passes, seen without taking part.

use std::io::Write;

use serde_json::Value;

use crate::process::{Name, Running, ask, eventually, object, run, script, start};

/// Starts a tap on a pipe that exists, and waits until it looks.
fn tap(name: &str, options: &[&str]) -> Running {
    let before = attached(name);
    let tap = start(&[&["tap", name], options].concat());
    // It sees only what is sent once it has mapped the segment.
    eventually(|| (attached(name) > before).then_some(()));
    tap
}

fn attached(name: &str) -> Option<u64> {
    shmpipe::inspect(name).ok()?.attached
}

fn lines(out: &[u8]) -> Vec<String> {
    std::str::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn messages_are_shown_as_they_pass_and_arrive_all_the_same() {
    let name = Name::new("tap");
    let mut send = start(&["send", &name, "--tag", "7"]);
    let recv = start(&["recv", &name]);
    eventually(|| (attached(&name) == Some(2)).then_some(()));
    let tap = tap(&name, &[]);
    send.input().write_all(b"one\ntwo words\n\n").unwrap();
    tap.wait_for_output(|said| said.iter().filter(|&&byte| byte == b'\n').count() == 3);
    send.input().write_all(b"last\n").unwrap();
    send.finish().code(0);
    let shown = tap.finish().code(0).quiet();
    assert_eq!(lines(&shown.out), ["0\t7\t3\tone", "16\t7\t9\ttwo words", "40\t7\t0\t", "48\t7\t4\tlast"]);
    assert_eq!(recv.finish().code(0).out, b"one\ntwo words\n\nlast\n");
}

#[test]
fn the_forms_of_a_message() {
    let name = Name::new("tap-forms");
    run(&["send", &name, "--delimiter", ";"], b"a\tb\x1b[2J;\xffx;0123456789abcdefgh").code(0);
    let shown = |options: &[&str]| {
        let shown = ask(&[&["tap", &name, "--unread"], options].concat()).code(0).quiet();
        String::from_utf8(shown.out).unwrap()
    };
    assert_eq!(shown(&[]), "0\t0\t7\ta\\tb\\u{1b}[2J\n16\t0\t2\t\\xffx\n32\t0\t18\t0123456789abcdefgh\n");
    assert_eq!(shown(&["--limit", "2"]), "0\t0\t7\ta\\t...\n16\t0\t2\t\\xffx\n32\t0\t18\t01...\n");
    assert_eq!(shown(&["--count", "1"]), "0\t0\t7\ta\\tb\\u{1b}[2J\n");
    assert_eq!(
        shown(&["--hex", "--limit=17"]),
        "0\t0\t7\n  \
         000000  61 09 62 1b 5b 32 4a                              |a.b.[2J|\n\
         16\t0\t2\n  \
         000000  ff 78                                             |.x|\n\
         32\t0\t18\n  \
         000000  30 31 32 33 34 35 36 37  38 39 61 62 63 64 65 66  |0123456789abcdef|\n  \
         000010  67                                                |g|\n  ...\n"
    );
    let objects: Vec<Value> =
        shown(&["--json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.len(), 3);
    for (key, value) in [
        ("schema", Value::from(1)),
        ("position", 16.into()),
        ("tag", 0.into()),
        ("length_bytes", 2.into()),
        ("text", Value::Null),
        ("base64", "/3g=".into()),
        ("direction", Value::Null),
    ] {
        assert_eq!(objects[1][key], value, "{key}");
    }
    ask(&["tap", &name, "--json", "--limit", "2"]).code(2).quiet_on_stdout();
    // Nothing was released.
    assert_eq!(shmpipe::inspect(&*name).unwrap().unread(), 3);
}

#[test]
fn what_was_missed_is_said_in_its_place_and_at_the_end() {
    let name = Name::new("tap-missed");
    ask(&["create", &name, "--capacity", "4096"]).code(0);
    let tap = tap(&name, &[]);
    tap.signal(libc::SIGSTOP);
    let text: String = (0..5000).map(|n| format!("message {n}\n")).collect();
    let recv = start(&["recv", &name]);
    run(&["send", &name], text.as_bytes()).code(0);
    assert_eq!(recv.finish().code(0).out, text.as_bytes());
    tap.signal(libc::SIGCONT);
    let shown = tap.finish().code(0);
    let lines = lines(&shown.out);
    // 5000 records of 24 bytes, a few of 16.
    let missed: u64 =
        lines[0].strip_prefix("missed ").unwrap().strip_suffix(" bytes").unwrap().parse().unwrap();
    assert!((100_000..=121_000).contains(&missed), "{lines:?}");
    assert!(
        shown.err.contains("0 messages shown") && shown.err.contains(&missed.to_string()),
        "{}",
        shown.err
    );
}

#[test]
fn rates_are_a_line_per_interval() {
    let name = Name::new("tap-rate");
    ask(&["create", &name]).code(0);
    let tap = tap(&name, &["--rate=20ms", "--json"]);
    run(&["send", &name], b"12345678\nfour\n").code(0);
    let shown = tap.finish().code(0).quiet();
    let objects: Vec<Value> =
        lines(&shown.out).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sums = ["messages_per_second", "bytes_per_second", "missed_bytes"]
        .map(|key| objects.iter().map(|object| object[key].as_f64().unwrap()).sum::<f64>());
    // Two messages of 6 bytes on average.
    assert!(sums[0] > 0.0 && (sums[1] / sums[0] - 6.0).abs() < 1e-6, "{sums:?}");
    assert_eq!(sums[2], 0.0);
    ask(&["tap", &name, "--rate", "--hex"]).code(2).quiet_on_stdout();
    // The part of an interval in which it ends, too.
    let shown = ask(&["tap", &name, "--rate=1m", "--json", "--unread", "--count", "2"]).code(0).quiet();
    assert_eq!(lines(&shown.out).len(), 1);
}

#[test]
fn a_tap_ends_with_the_producer_unless_it_follows() {
    let name = Name::new("tap-end");
    let mut send = start(&["send", &name]);
    eventually(|| (attached(&name) == Some(1)).then_some(()));
    let (ends, follows) = (tap(&name, &[]), tap(&name, &["--follow", "-n2"]));
    send.input().write_all(b"first\n").unwrap();
    ends.wait_for_output(|said| said.ends_with(b"\n"));
    send.signal(libc::SIGKILL);
    ends.finish().code(6).said(&["the producer died", "--follow"]);
    run(&["send", &name], b"second\n").code(0);
    let shown = follows.finish().code(0).quiet();
    assert_eq!(lines(&shown.out), ["0\t0\t5\tfirst", "16\t0\t6\tsecond"]);
    // It has closed before.
    assert_eq!(lines(&ask(&["tap", &name, "--unread"]).code(0).out), lines(&shown.out));
}

#[test]
fn a_tap_ends_with_its_pipe_its_reader_and_a_signal() {
    let name = Name::new("tap-gone");
    ask(&["tap", &name]).code(3).said(&[&name]);
    ask(&["create", &name]).code(0);
    let [removed, signalled] = [tap(&name, &[]), tap(&name, &[])];
    signalled.signal(libc::SIGINT);
    signalled.finish().code(130).quiet();
    shmpipe::unlink_force(&*name).unwrap();
    removed.finish().code(3).said(&["no pipe"]);
    // Its reader does not read.
    run(&["send", &name], &[b'x'; 1 << 18]).code(0);
    let text = format!(
        "shmpipe tap {} --unread --hex & wait_for=$!; sleep 0.2; kill $wait_for; wait $wait_for; echo $? >&2",
        &*name
    );
    let stuck = script(&format!("{{ {text}; }} | {{ sleep 3; cat > /dev/null; }}")).finish();
    assert!(stuck.err.trim_end().ends_with("143"), "{}", stuck.err);
    shmpipe::unlink_force(&*name).unwrap();
    ask(&["create", &name]).code(0);
    let text = format!("shmpipe tap {} | true", &*name);
    script(&text).finish().code(0).quiet();
}

#[test]
fn a_tap_goes_on_with_the_pipe_in_the_place() {
    let name = Name::new("tap-again");
    ask(&["create", &name]).code(0);
    let tap = tap(&name, &["--count", "1"]);
    tap.signal(libc::SIGSTOP);
    shmpipe::unlink_force(&*name).unwrap();
    run(&["send", &name], b"in the new one\n").code(0);
    tap.signal(libc::SIGCONT);
    let shown = tap.finish().code(0).said(&["another one is in its place"]);
    assert_eq!(lines(&shown.out), ["0\t0\t14\tin the new one"]);
}

#[test]
fn both_directions_of_a_duplex_pipe_are_shown() {
    let name = Name::new("tap-duplex");
    let pipe = shmpipe::Options::new().duplex(true).create(&*name).unwrap();
    pipe.duplex_as(shmpipe::DuplexSide::A).unwrap().send(b"to B").unwrap();
    let shown = ask(&["tap", &name, "--unread", "--count", "1"]).code(0).quiet();
    assert_eq!(lines(&shown.out), ["A to B\t0\t0\t4\tto B"]);
    assert_eq!(object(&["tap", &name, "--unread", "--count", "1", "--json"])["direction"], "A to B");
    // One direction was closed, the other aborted.
    pipe.duplex_as(shmpipe::DuplexSide::B).unwrap().abort(5).unwrap();
    ask(&["tap", &name, "--unread"]).code(6).said(&["aborted with code 5"]);
}
