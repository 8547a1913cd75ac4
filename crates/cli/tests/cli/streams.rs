//! Standard streams that are closed, full or broken.

use std::fs::{self, File};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use shmpipe::Role;

use crate::process::{Directory, Name, Running, ask, bash, numbered, run, shmpipe, start, wait_for_holder};

#[test]
fn a_closed_output_is_a_failure_and_releases_nothing() {
    let name = Name::new("closed-output");
    run(&["send", &name], &numbered(0, 3)).code(0);
    for redirection in [">&-", "1</dev/null"] {
        bash(&format!("shmpipe recv '{}' {redirection}", &*name)).finish().code(1).said(&["standard output"]);
        bash(&format!("shmpipe stat '{}' {redirection}", &*name)).finish().code(1).said(&["standard output"]);
        bash(&format!("shmpipe ls {redirection}")).finish().code(1).said(&["standard output"]);
    }
    ask(&["recv", &name]).code(0).wrote(&numbered(0, 3));
}

#[test]
fn a_closed_input_is_a_failure_and_closes_nothing() {
    let name = Name::new("closed-input");
    bash(&format!("shmpipe send '{}' <&-", &*name)).finish().code(1).said(&["standard input is closed"]);
    // The pipe was not even created.
    ask(&["stat", &name]).code(3);
    for redirection in ["<&-", ">&-"] {
        bash(&format!("shmpipe duplex '{}' {redirection}", &*name)).finish().code(1).said(&["is closed"]);
    }
    ask(&["stat", &name]).code(3);
}

#[test]
fn help_that_cannot_be_written_is_a_failure() {
    for words in
        [&["--help"][..], &["--version"], &["send", "--help"], &["help", "recv"], &["completions", "bash"]]
    {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let help = Running::start(shmpipe(words).stdout(full).stderr(Stdio::piped()));
        help.finish().code(1).said(&["writing to standard output", "No space left"]);
        bash(&format!("shmpipe {} >&-", words.join(" ")))
            .finish()
            .code(1)
            .said(&["standard output is closed"]);
    }
}

#[test]
fn a_usage_error_in_json_says_what_is_missing() {
    for (words, missing) in [
        (&["--json", "stat"][..], "<ADDRESS>"),
        (&["send", "--json"], "<ADDRESS>"),
        (&["--json", "rm"], "<ADDRESS>"),
    ] {
        let error: Value = serde_json::from_str(&ask(words).code(2).err).unwrap();
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains(missing) && !message.contains('\n') && !message.contains("Usage"),
            "{message}"
        );
    }
}

/// Its output is a pipe whose reader has left.
fn without_reader(words: &[&str]) -> Running {
    let mut child =
        shmpipe(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    Running::of(child)
}

#[test]
fn recv_notices_without_a_message_that_its_reader_has_left() {
    let name = Name::new("reader-left");
    // Without a producer, with one that sends nothing, and after one has closed.
    without_reader(&["recv", &name]).finish().code(0).quiet();
    let send = start(&["send", &name]);
    wait_for_holder(&name, Role::Producer, send.id());
    without_reader(&["recv", &name, "--wait", "spin"]).finish().code(0).quiet();
    drop(send);
    ask(&["recv", &name]).code(6);
    run(&["send", &name], b"").code(0).quiet();
    without_reader(&["recv", &name, "--follow"]).finish().code(0).quiet();
}

/// How often a process has gone to sleep.
fn sleeps(process: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn recv_looks_for_its_reader_only_where_that_can_leave() {
    let names = ["reader-pipe", "reader-file", "reader-null"].map(Name::new);
    let directory = Directory::new("reader-file");
    let outputs: [Stdio; 3] = [
        Stdio::piped(),
        File::create(directory.file("output")).unwrap().into(),
        File::create("/dev/null").unwrap().into(),
    ];
    let recvs: Vec<Running> = names
        .iter()
        .zip(outputs)
        .map(|(name, output)| {
            let words = ["recv", name, "--follow"];
            Running::start(shmpipe(&words).stdin(Stdio::null()).stdout(output).stderr(Stdio::piped()))
        })
        .collect();
    recvs.iter().zip(&names).for_each(|(recv, name)| wait_for_holder(name, Role::Consumer, recv.id()));
    let before: Vec<u64> = recvs.iter().map(sleeps).collect();
    thread::sleep(Duration::from_secs(2));
    let counts: Vec<u64> = recvs.iter().zip(before).map(|(recv, before)| sleeps(recv) - before).collect();
    // Every 50 ms, and every 100 ms for the producer alone.
    assert!(counts[1..].iter().all(|count| count * 3 < counts[0] * 2), "{counts:?}");
}

#[test]
fn duplex_notices_without_a_message_that_its_reader_has_left() {
    let name = Name::new("duplex-reader-left");
    without_reader(&["duplex", &name]).finish().code(0).quiet();
}
