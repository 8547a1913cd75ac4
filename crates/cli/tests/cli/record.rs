//! `record` and `replay`: recordings in MCAP files.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use shmpipe::{Consumer, Options, Pipe, RecvTimeoutError, Role, Tagged};

use crate::process::{
    DEADLINE, Directory, Finished, Name, Running, ask, consecutive, eventually, noise, numbered, numbers,
    object, run, script, shmpipe, start, wait_for_holder,
};

/// Receives everything until the producer closes.
fn received(consumer: &mut Consumer) -> Vec<(u32, Vec<u8>)> {
    let mut all = Vec::new();
    loop {
        match consumer.recv_timeout(DEADLINE).map(|message| (message.tag(), message.to_vec())) {
            Ok(message) => all.push(message),
            Err(RecvTimeoutError::Closed) => return all,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Replays files at once; returns the lines, and what `replay` says of them.
fn replayed(files: &[&str], more: &[&str]) -> (Vec<u8>, Value) {
    let name = Name::new("replayed");
    let recv = start(&["recv", &name]);
    eventually(|| shmpipe::inspect(&*name).ok());
    let speed: &[&str] = if more.contains(&"--speed") { &[] } else { &["--speed", "max"] };
    let words = [&["replay", "--json"], speed, more, files, &[&*name]].concat();
    let summary = serde_json::from_slice(&ask(&words).code(0).out).unwrap();
    (recv.finish().code(0).out, summary)
}

/// What `replay --verify` says of files, and how it ends.
fn verified(files: &[&str], more: &[&str]) -> (Value, Finished) {
    let finished = ask(&[&["replay", "--verify", "--json"], more, files].concat());
    (serde_json::from_slice(&finished.out).unwrap_or_default(), finished)
}

/// A recording of these lines that was never finished: its recorder was killed.
fn cut_off(lines: &[u8], file: &str) {
    let name = Name::new("cut-off");
    let mut send = start(&["send", &name, "--capacity", "1MiB"]);
    let recorder = start(&["record", &name, file, "--flush-interval", "1ms"]);
    send.input().write_all(lines).unwrap();
    let count = lines.iter().filter(|&&byte| byte == b'\n').count() as u64;
    eventually(|| (shmpipe::inspect(&*name).ok()?.consumer.messages == count).then_some(()));
    recorder.signal(libc::SIGKILL);
    recorder.finish().killed();
}

/// Records these lines; returns what `record` says.
fn record(lines: &[u8], file: &str, more: &[&str]) -> Value {
    let name = Name::new("recorded");
    run(&["send", &name, "--capacity", "1MiB"], lines).code(0);
    object(&[&["record", &name, file, "--json"], more].concat())
}

#[test]
fn what_is_recorded_is_replayed_with_its_tags() {
    let (name, directory) = (Name::new("record"), Directory::new("record"));
    let pipe = Options::new().capacity(16 << 10).create(&*name).unwrap();
    let file = directory.file("a.mcap");
    let recorder = start(&["record", &name, &file]);
    let messages: Vec<(u32, Vec<u8>)> =
        (0..500).map(|n| (n * 7_654_321, noise(n as usize * 13 % 4000, u64::from(n) + 1))).collect();
    let mut producer = pipe.producer().unwrap();
    for (tag, message) in &messages {
        producer.send(Tagged(*tag, &message[..])).unwrap();
    }
    producer.close().unwrap();
    recorder.finish().code(0).quiet();
    let other = Name::new("record-other");
    let mut consumer = Pipe::open_or_create(&*other).unwrap().consumer().unwrap();
    let replay = start(&["replay", &file, &other, "--speed", "max"]);
    consumer.wait_for_peer(Some(Instant::now() + DEADLINE)).unwrap();
    assert!(received(&mut consumer) == messages);
    replay.finish().code(0).quiet();
}

#[test]
fn a_killed_recorder_loses_nothing_and_repeats_nothing() {
    const LINES: u64 = 60_000;
    let (name, directory) = (Name::new("record-kill"), Directory::new("record-kill"));
    ask(&["create", &name, "--capacity", "64KiB"]).code(0);
    let sender = start(&["send", &name]).feed(numbered(0, LINES));
    let file = directory.file("run.mcap");
    let words = ["record", &name, &file, "--rotate-size", "200KiB", "--flush-interval", "3ms", "--follow"];
    let mut kills = 0;
    while shmpipe::inspect(&*name).unwrap().consumer.messages < LINES / 2 {
        let recorder = start(&words);
        thread::sleep(Duration::from_millis(10 + kills * 7 % 30));
        recorder.signal(libc::SIGKILL);
        recorder.finish().killed();
        kills += 1;
    }
    let last = start(&words);
    eventually(|| (shmpipe::inspect(&*name).unwrap().consumer.messages == LINES).then_some(()));
    last.signal(libc::SIGTERM);
    last.finish().code(143).quiet();
    sender.finish().code(0);
    let files = directory.files();
    let (lines, summary) = replayed(&files.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    let numbers = numbers(&lines);
    assert_eq!((numbers[0], consecutive(&numbers)), (0, LINES), "{kills} kills");
    assert_eq!(summary["gaps"], 0);
    assert!(summary["unfinished_files"].as_u64().unwrap() >= 1, "{summary}");
}

#[test]
fn messages_are_released_after_their_chunk_is_written() {
    let (name, directory) = (Name::new("record-hold"), Directory::new("record-hold"));
    let mut send = start(&["send", &name]);
    send.input().write_all(b"one\ntwo\n").unwrap();
    eventually(|| (shmpipe::inspect(&*name).ok()?.producer.messages == 2).then_some(()));
    let held = directory.file("held.mcap");
    let recorder = start(&["record", &name, &held, "--flush-interval", "1h"]);
    eventually(|| fs::metadata(&held).ok());
    thread::sleep(Duration::from_millis(200));
    assert_eq!(shmpipe::inspect(&*name).unwrap().consumer.messages, 0);
    recorder.signal(libc::SIGKILL);
    recorder.finish().killed();
    // A signal ends the chunk.
    let second = directory.file("second.mcap");
    let recorder = start(&["record", &name, &second, "--flush-interval", "1h"]);
    eventually(|| fs::metadata(&second).ok());
    thread::sleep(Duration::from_millis(100));
    recorder.signal(libc::SIGINT);
    recorder.finish().code(130).quiet();
    assert_eq!(shmpipe::inspect(&*name).unwrap().consumer.messages, 2);
    assert_eq!(replayed(&[&held], &["--allow-unfinished"]).0, b"");
    assert_eq!(replayed(&[&second], &[]).0, b"one\ntwo\n");
}

#[test]
fn the_end_of_the_producer_ends_a_chunk() {
    let directory = Directory::new("record-end");
    type Ending = (fn(Running), i32);
    let endings: [Ending; 2] =
        [(|send| drop(send.finish().code(0)), 0), (|send| send.signal(libc::SIGKILL), 6)];
    for (number, (end, code)) in endings.into_iter().enumerate() {
        let (name, file) = (Name::new("record-end"), directory.file(&format!("{number}.mcap")));
        let mut send = start(&["send", &name]);
        let recorder = start(&["record", &name, &file, "--flush-interval", "1h"]);
        wait_for_holder(&name, Role::Consumer, recorder.id());
        send.input().write_all(b"one\n").unwrap();
        eventually(|| (shmpipe::inspect(&*name).ok()?.producer.messages == 1).then_some(()));
        end(send);
        recorder.finish().code(code);
        assert_eq!(replayed(&[&file], &[]).0, b"one\n");
    }
}

#[test]
fn a_full_disk_aborts_and_keeps_the_messages() {
    let (name, directory) = (Name::new("record-full"), Directory::new("record-full"));
    run(&["send", &name], &numbered(0, 5000)).code(0);
    let file = directory.file("full.mcap");
    let text =
        format!("ulimit -f 200; trap '' XFSZ; exec shmpipe record {} {file} --flush-size 2KiB", &*name);
    script(&text).finish().code(1).said(&[&file, "large"]);
    let whole = replayed(&[&file], &["--allow-unfinished"]).0;
    let released = shmpipe::inspect(&*name).unwrap().consumer.messages;
    assert_eq!(shmpipe::inspect(&*name).unwrap().consumer.peer.abort_code(), Some(1));
    assert!(released > 0 && released < 5000 && numbers(&whole).len() as u64 >= released);
    let rest = run(&["recv", &name], b"").code(0).out;
    assert_eq!(numbers(&rest)[0], released);
}

#[test]
fn files_rotate_and_go_on_after_the_last_number() {
    let directory = Directory::new("record-rotate");
    let file = directory.file("run.mcap");
    let more = ["--rotate-size", "20KiB", "--flush-size", "4KiB"];
    let said = record(&numbered(0, 3000), &file, &more);
    let files = directory.files();
    assert!(files.len() >= 4 && said["files"] == files.len(), "{said}");
    assert!(files[0].ends_with("run-000001.mcap") && files[1].ends_with("run-000002.mcap"));
    let (lines, summary) = replayed(&files.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    assert_eq!(consecutive(&numbers(&lines)), 3000);
    assert_eq!(
        (&summary["unfinished_files"], &summary["repeated_messages"]),
        (&Value::from(0), &Value::from(0))
    );
    // Without a file between there is a gap, which is noted.
    let gap = [files[0].as_str(), &files[2]];
    assert_eq!(replayed(&gap, &[]).1["gaps"], 1);
    // A file that comes twice is replayed once.
    let twice = [files[0].as_str(), &files[0], &files[1]];
    let (lines, summary) = replayed(&twice, &[]);
    consecutive(&numbers(&lines));
    assert!(summary["repeated_messages"].as_u64().unwrap() > 0);
    record(&numbered(0, 1), &file, &more);
    assert_eq!(directory.files().len(), files.len() + 1);
    let said = record(&numbered(0, 3), &directory.file("time.mcap"), &["--rotate-time", "1h"]);
    assert_eq!(
        (&said["files"], directory.files().last().unwrap().ends_with("time-000001.mcap")),
        (&Value::from(1), true)
    );
}

#[test]
fn a_file_that_is_moved_is_written_on() {
    for fsync in ["chunk", "file", "never"] {
        let (name, directory) = (Name::new("record-moved"), Directory::new("record-moved"));
        let (file, moved) = (directory.file("a.mcap"), directory.file("b.mcap"));
        let mut send = start(&["send", &name]);
        let recorder = start(&["record", &name, &file, "--fsync", fsync]);
        eventually(|| fs::rename(&file, &moved).ok());
        send.input().write_all(b"one\n").unwrap();
        send.finish().code(0).quiet();
        recorder.finish().code(0).quiet();
        assert_eq!(replayed(&[&moved], &[]).0, b"one\n");
    }
}

#[test]
fn a_tee_passes_on_what_is_in_the_file() {
    let (name, other) = (Name::new("record-tee"), Name::new("record-tee-2"));
    let directory = Directory::new("record-tee");
    let file = directory.file("a.mcap");
    let pipe = Pipe::open_or_create(&*name).unwrap();
    let mut producer = pipe.producer().unwrap();
    let mut consumer = Pipe::open_or_create(&*other).unwrap().consumer().unwrap();
    let recorder = start(&["record", &name, &file, "--tee", &other]);
    producer.send(Tagged(7, b"one")).unwrap();
    // Before the producer closes.
    assert_eq!(
        consumer.recv_timeout(DEADLINE).map(|message| (message.tag(), message.to_vec())).unwrap(),
        (7, b"one".to_vec())
    );
    producer.send(Tagged(8, b"two")).unwrap();
    producer.close().unwrap();
    assert_eq!(received(&mut consumer), [(8, b"two".to_vec())]);
    recorder.finish().code(0).quiet();
    assert_eq!(replayed(&[&file], &[]).0, b"one\ntwo\n");
}

#[test]
fn a_replay_keeps_the_spacing_and_selects_by_time() {
    let (name, directory) = (Name::new("record-time"), Directory::new("record-time"));
    let file = directory.file("a.mcap");
    let recorder = start(&["record", &name, &file]);
    wait_for_holder(&name, Role::Consumer, recorder.id());
    let mut send = start(&["send", &name]);
    for line in ["one\n", "two\n", "three\n"] {
        send.input().write_all(line.as_bytes()).unwrap();
        thread::sleep(Duration::from_millis(300));
    }
    send.finish().code(0);
    recorder.finish().code(0);
    for (speed, least) in [("2x", 250), ("0.5x", 1100)] {
        let began = Instant::now();
        let summary = replayed(&[&file], &["--speed", speed]).1;
        assert!(began.elapsed() >= Duration::from_millis(least), "{speed}: {:?}", began.elapsed());
        assert!(summary["late_p99_ns"].is_u64() && summary["late_max_ns"].is_u64(), "{summary}");
    }
    assert_eq!(replayed(&[&file], &["--from", "100ms"]).0, b"two\nthree\n");
    assert_eq!(replayed(&[&file], &["--to", "100ms"]).0, b"one\n");
    assert_eq!(replayed(&[&file], &["--from", "1h"]).1["messages"], 0);
}

#[test]
fn messages_that_wait_for_space_are_late() {
    let directory = Directory::new("record-late");
    let file = directory.file("a.mcap");
    record(&numbered(0, 1000), &file, &[]);
    let name = Name::new("record-late");
    let replay = start(&["replay", &file, &name, "--capacity", "4KiB", "--json"]);
    eventually(|| shmpipe::inspect(&*name).ok()?.producer.may_be_asleep.then_some(()));
    thread::sleep(Duration::from_millis(200));
    ask(&["recv", &name]).code(0);
    let summary: Value = serde_json::from_slice(&replay.finish().code(0).out).unwrap();
    assert!(summary["late_p99_ns"].as_u64() >= Some(200_000_000), "{summary}");
}

#[test]
fn a_loop_goes_on_until_its_receiver_leaves() {
    let directory = Directory::new("record-loop");
    let file = directory.file("a.mcap");
    record(b"one\ntwo\n", &file, &[]);
    let (name, other) = (Name::new("record-loop"), Name::new("record-loop-2"));
    let replay = start(&["replay", &file, &name, "--loop", "--speed", "max"]);
    let lines = run(&["recv", &name, "--count", "5"], b"").code(0).out;
    assert_eq!(lines, b"one\ntwo\none\ntwo\none\n");
    replay.finish().code(6);
    let replay = start(&["replay", &file, &other, "--loop"]);
    wait_for_holder(&other, Role::Producer, replay.id());
    replay.signal(libc::SIGTERM);
    replay.finish().code(143);
}

#[test]
fn a_loop_counts_what_is_missing_once() {
    let directory = Directory::new("record-loop-counts");
    let file = directory.file("run.mcap");
    record(&numbered(0, 3000), &file, &["--rotate-size", "10KiB", "--flush-size", "4KiB"]);
    let files = directory.files();
    let name = Name::new("record-loop-counts");
    let replay =
        start(&["replay", &files[0], &files[2], &files[2], &name, "--loop", "--speed", "max", "--json"]);
    let recv = start(&["recv", &name]);
    let first = |output: &[u8]| output.windows(8).filter(|line| line == b"0000000\n").count();
    recv.wait_for_output(|output| first(output) >= 3);
    replay.signal(libc::SIGTERM);
    let finished = replay.finish().code(143).said(&["no messages between"]);
    let summary: Value = serde_json::from_slice(&finished.out).unwrap();
    let (_, once) = verified(&[&files[0], &files[2], &files[2]], &[]);
    let once: Value = serde_json::from_slice(&once.code(9).out).unwrap();
    for count in ["gaps", "repeated_messages", "chunks"] {
        assert_eq!(summary[count], once[count], "{summary}");
    }
    assert!(summary["messages"].as_u64() > once["messages"].as_u64(), "{summary}");
}

#[test]
fn a_recording_that_was_cut_off_is_sent_and_then_aborted() {
    let directory = Directory::new("record-cut-off");
    let file = directory.file("a.mcap");
    cut_off(b"one\ntwo\n", &file);
    let name = Name::new("record-cut-off");
    let recv = start(&["recv", &name]);
    wait_for_holder(&name, Role::Consumer, recv.id());
    let replay = ask(&["replay", &file, &name, "--speed", "max"]).code(9);
    replay
        .said(&[&file, "never finished", "--allow-unfinished"])
        .wrote(b"replayed 2 messages, 6 B of payload\n");
    recv.finish().code(6).said(&["aborted with code 9"]).wrote(b"one\ntwo\n");
    assert_eq!(replayed(&[&file], &["--allow-unfinished"]).0, b"one\ntwo\n");
    let (summary, finished) = verified(&[&file], &[]);
    assert_eq!((&summary["messages"], &summary["unfinished_files"]), (&2.into(), &1.into()));
    finished.code(9).said(&[&file, "incomplete_recording"]);
    verified(&[&file], &["--allow-unfinished"]).1.code(0).said(&["note", &file]);
    // What comes after it is of another pipe.
    let other = directory.file("b.mcap");
    record(b"three\n", &other, &[]);
    verified(&[&file, &other], &[]).1.code(9).said(&[&file]);
    verified(&[&other, &file], &[]).1.code(9).said(&[&file]);
}

#[test]
fn a_recording_is_verified_whole() {
    let directory = Directory::new("record-verify");
    let file = directory.file("run.mcap");
    record(&numbered(0, 3000), &file, &["--rotate-size", "20KiB", "--flush-size", "1KiB"]);
    let files = directory.files();
    let all: Vec<&str> = files.iter().map(String::as_str).collect();
    let (summary, finished) = verified(&all, &[]);
    finished.code(0).quiet();
    for (key, value) in [
        ("files", files.len() as u64),
        ("messages", 3000),
        ("payload_bytes", 21_000),
        ("first_position_bytes", 0),
        ("last_position_bytes", 2999 * 16),
        ("gaps", 0),
    ] {
        assert_eq!(summary[key], value, "{key} of {summary}");
    }
    let (summary, finished) = verified(&[all[0], all[2]], &[]);
    assert_eq!(summary["gaps"], 1);
    assert!(finished.code(9).err.contains("messages are missing, at one place"));
    // A file that was cut off is all there if the next one goes on there.
    let whole = fs::read(all[0]).unwrap();
    let cut = directory.file("cut.mcap");
    fs::write(&cut, &whole[..whole.len() * 2 / 3]).unwrap();
    let (summary, finished) = verified(&[&cut, all[0], all[1]], &[]);
    finished.code(0).said(&[&cut, "the next file goes on where it ends"]);
    assert!(summary["unfinished_files"] == 1 && summary["repeated_messages"].as_u64() > Some(0), "{summary}");
    verified(&[&cut, all[1]], &[]).1.code(9);
    // A damaged message, a damaged index, and bytes after the end.
    let damaged = directory.file("damaged.mcap");
    for at in [whole.len() / 2, whole.len() - 60, whole.len() - 20] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&damaged, bytes).unwrap();
        verified(&[&damaged], &[]).1.code(7).quiet_on_stdout().said(&[&damaged]);
    }
    fs::write(&damaged, [&whole[..], b"x"].concat()).unwrap();
    verified(&[&damaged], &[]).1.code(7).quiet_on_stdout().said(&[&damaged]);
    // The messages are all there without an index.
    fs::write(&damaged, &whole[..whole.len() - 20]).unwrap();
    verified(&[&damaged], &[]).1.code(0);
    for more in [["--speed", "2x"], ["--from", "1s"], ["--to", "1s"]] {
        verified(&all, &more).1.code(2);
    }
    verified(&all, &["--loop"]).1.code(2);
    ask(&["replay", "--verify"]).code(2);
}

#[test]
fn a_file_name_need_not_be_utf8() {
    let (name, directory) = (Name::new("record-odd"), Directory::new("record-odd"));
    run(&["send", &name], b"one\n").code(0);
    let start = |words: [&OsStr; 4]| {
        let mut tool = shmpipe(&[]);
        tool.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::start(&mut tool)
    };
    let [file, written, missing] = [&b"\xff.mc\xfe"[..], b"\xff-000001.mc\xfe", b"\xfe"]
        .map(|file| directory.path().join(OsStr::from_bytes(file)));
    start(["record".as_ref(), (*name).as_ref(), file.as_ref(), "--rotate-size=1GB".as_ref()])
        .finish()
        .code(0);
    assert!(written.exists(), "{:?}", directory.files());
    start(["replay".as_ref(), missing.as_ref(), (*name).as_ref(), "--speed=max".as_ref()])
        .finish()
        .code(3)
        .said(&[r"\xfe"]);
}

#[test]
fn wrong_files_and_options_are_refused() {
    let (name, directory) = (Name::new("record-wrong"), Directory::new("record-wrong"));
    let file = directory.file("a.mcap");
    fs::write(&file, "something else").unwrap();
    run(&["send", &name], b"kept\n").code(0);
    ask(&["record", &name, &file]).code(4).said(&[&file, "already exists"]);
    ask(&["record", &name, &directory.file("no/such.mcap")]).code(1).said(&["creating"]);
    assert_eq!(fs::read(&file).unwrap(), b"something else");
    assert_eq!(shmpipe::inspect(&*name).unwrap().unread(), 1);
    ask(&["replay", &file, &name]).code(7).said(&[&file, "not an MCAP file"]);
    ask(&["replay", &directory.file("missing"), &name]).code(3).said(&["missing"]);
    for words in [["--speed", "0x"], ["--from", "x"], ["--wait", "x"]] {
        ask(&[&["replay", &file, &name], &words[..]].concat()).code(2).quiet_on_stdout();
    }
    ask(&["record", &name]).code(2);
    ask(&["replay", &file]).code(2);
}
