//! Every exit code, and its error message. Codes of dead peers are in `deaths`, of foreign segments in `foreign`, of signals in
//! `interrupts`.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use serde_json::Value;
use shmpipe::Role;

use crate::process::{
    Directory, Finished, Name, Running, ask, eventually, is_root, numbered, object, run, shmpipe, start,
    wait_for_holder,
};

/// A user who owns nothing.
const NOBODY: u32 = 65534;

#[test]
fn a_full_output_is_a_failure_and_releases_nothing() {
    let name = Name::new("full-disk");
    let input = numbered(0, 1000);
    run(&["send", &name], &input).code(0);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let recv = Running::start(shmpipe(&["recv", &name]).stdout(full).stderr(Stdio::piped()));
    recv.finish().code(1).said(&["writing to standard output", "No space left"]);
    let pipe = object(&["stat", &name, "--json"]);
    assert_eq!((pipe["consumer"].as_str(), pipe["consumer_abort_code"].as_u64()), (Some("aborted"), Some(1)));
    // The next producer hears of it, and continues.
    run(&["send", &name], b"last\n").code(0).said(&["the last consumer aborted with code 1"]);
    ask(&["recv", &name]).code(0).wrote(&[&input[..], b"last\n"].concat());
}

#[test]
fn an_aborted_peer_is_6_with_its_code() {
    let name = Name::new("aborted");
    let mut send = start(&["send", &name]);
    wait_for_holder(&name, Role::Producer, send.id());
    let consumer = shmpipe::Pipe::open(&*name).unwrap().consumer().unwrap();
    consumer.abort(77).unwrap();
    let _ = std::io::Write::write_all(send.input(), b"1\n");
    send.finish().code(6).said(&["the consumer aborted with code 77"]);
    // And send aborts, since its input did not end.
    ask(&["recv", &name]).code(6).said(&["the producer aborted with code 6", "run recv again"]);
    assert!(String::from_utf8(ask(&["stat", &name]).code(0).out).unwrap().contains("aborted with code 6"));
    let diagnosis = ask(&["doctor", &name, "--json"]);
    assert!(String::from_utf8_lossy(&diagnosis.out).contains("\"abort_code\":6"));

    let recv = start(&["recv", &name, "--follow", "--count", "2"]);
    for code in [78, 79] {
        let mut producer = shmpipe::Pipe::open(&*name).unwrap().producer().unwrap();
        producer.send(b"one").unwrap();
        producer.abort(code).unwrap();
        if code == 78 {
            recv.wait_for_words("the producer aborted with code 78; waiting for the next one", 1);
        }
    }
    recv.finish().code(0).wrote(b"one\none\n");
}

#[test]
fn a_send_that_fails_aborts() {
    let directory = File::open("/").unwrap();
    for (words, input, why) in [
        (&["--length-prefixed"][..], Some(&b"\x01\0\0\0a\x05\0\0\0b"[..]), "the input ends within message 2"),
        (&[], Some(&[&b"a\n"[..], &[b'x'; 3000]].concat()), "line 2 of the input"),
        (&[], None, "reading from standard input"),
        (&["--chunk", "1MiB"], Some(b""), "exceed"),
    ] {
        let name = Name::new("send-fails");
        let words = [&["send", &*name, "--capacity", "4KiB"], words].concat();
        let failed = match input {
            Some(input) => run(&words, input),
            None => {
                Running::start(shmpipe(&words).stdin(directory.try_clone().unwrap()).stderr(Stdio::piped()))
                    .finish()
            }
        };
        failed.code(1).said(&[why]);
        let sent: &[u8] = if input.is_some_and(|input| !input.is_empty()) { b"a\n" } else { b"" };
        ask(&["recv", &name]).code(6).said(&["the producer aborted with code 1"]).wrote(sent);
    }
}

#[test]
fn wrong_usage_is_2() {
    for words in [
        &["send"][..],
        &["frobnicate"],
        &["send", "a b"],
        &["send", "tcp:80"],
        &["send", "x", "--frobnicate"],
        &["send", "x", "--capacity", "1.5KiB"],
        &["send", "x", "--chunk", "0"],
        &["send", "x", "--mode", "888"],
        &["recv", "x", "--timeout", "soon"],
        &["recv", "x", "--raw", "--length-prefixed"],
        &["recv", "x", "--count", "-1"],
        &["rm"],
        &["create", "sysv:id:0"],
        &["create", "never-made", "--capacity", "99TiB"],
        &["stat", "sysv:private"],
    ] {
        let finished = ask(words).code(2).wrote(b"");
        assert!(!finished.err.is_empty(), "{words:?}");
    }
    let finished = ask(&["send", "x", "--frobnicate", "--json"]).code(2).wrote(b"");
    let error = error(&finished);
    assert_eq!((error["error"].as_str(), error["exit_code"].as_u64()), (Some("usage"), Some(2)));
}

#[test]
fn help_lists_the_exit_codes_and_succeeds() {
    for words in [&["-h"][..], &["send", "--help"], &["recv", "-h"], &["help", "rm"], &["demo", "--help"]] {
        let text = String::from_utf8(ask(words).code(0).quiet().out).unwrap();
        assert!(text.contains("exit codes: shmpipe --help") && !text.contains("Exit codes:"), "{text}");
    }
    for words in [&["--help"][..], &["help"]] {
        let finished = ask(words).code(0).quiet();
        let text = String::from_utf8(finished.out).unwrap();
        let codes = text.split("Exit codes:").nth(1).unwrap();
        for code in ["0 ", "1 ", "2 ", "3 ", "4 ", "5 ", "6 ", "7 ", "8 ", "10 ", "130"] {
            assert!(
                codes.contains(&format!("  {code}")) || codes.contains(&format!(" {code}")),
                "{words:?}: {code}"
            );
        }
    }
    assert!(ask(&["--version"]).code(0).out.starts_with(b"shmpipe "));
}

#[test]
fn a_missing_pipe_is_3() {
    let name = Name::new("nothing");
    for command in ["stat", "rm"] {
        ask(&[command, &name]).code(3).said(&["no pipe at", &name]);
        let finished = ask(&[command, &name, "--json"]).code(3).wrote(b"");
        let error = error(&finished);
        assert_eq!((error["error"].as_str(), error["exit_code"].as_u64()), (Some("not_found"), Some(3)));
        assert!(error["message"].as_str().unwrap().contains(&*name));
    }
    ask(&["rm", &name, "--force"]).code(3);
    ask(&["stat", "sysv:id:2147483647"]).code(3);
}

#[test]
fn a_pipe_removed_under_a_waiting_side_is_3() {
    let (empty, full) = (Name::new("removed-empty"), Name::new("removed-full"));
    let recv = start(&["recv", &empty]);
    let send = start(&["send", &full, "--capacity", "4KiB"]).feed(numbered(0, 10_000));
    wait_for_holder(&empty, Role::Consumer, recv.id());
    wait_for_holder(&full, Role::Producer, send.id());
    ask(&["rm", &empty, &full, "--force"]).code(0);
    recv.finish().code(3).said(&["removed while open"]);
    send.finish().code(3).said(&["removed while open"]);
}

#[test]
fn the_removal_is_the_reason_for_both_sides() {
    let name = Name::new("removed-under-both");
    let recv = start(&["recv", &name]);
    let mut send = start(&["send", &name]);
    wait_for_holder(&name, Role::Consumer, recv.id());
    wait_for_holder(&name, Role::Producer, send.id());
    ask(&["rm", &name, "--force"]).code(0);
    recv.finish().code(3).said(&["the pipe was removed while open"]);
    // Input that never pauses for long does not hide it.
    let sent = eventually(|| {
        let _ = send.input().write_all(b"x\n");
        std::thread::sleep(std::time::Duration::from_millis(20));
        send.child.try_wait().unwrap()
    });
    assert_eq!(sent.code(), Some(3));
    send.finish().said(&["the pipe was removed while open"]);
}

#[test]
fn a_taken_role_is_4_and_names_the_holder() {
    let name = Name::new("taken");
    let (send, recv) = (start(&["send", &name]), start(&["recv", &name]));
    wait_for_holder(&name, Role::Producer, send.id());
    wait_for_holder(&name, Role::Consumer, recv.id());
    ask(&["send", &name]).code(4).said(&[&send.id().to_string(), "producer"]);
    ask(&["recv", &name]).code(4).said(&[&recv.id().to_string(), "consumer"]);
    send.finish().code(0).quiet();
    recv.finish().code(0).quiet();
}

#[test]
fn no_message_until_the_timeout_is_5() {
    let name = Name::new("recv-timeout");
    ask(&["recv", &name, "--timeout", "100ms"]).code(5).said(&["stayed empty"]);
    // With an idle producer, after its messages.
    let mut send = start(&["send", &name]);
    std::io::Write::write_all(send.input(), b"something\n").unwrap();
    ask(&["recv", &name, "--timeout", "0.3s"]).code(5).wrote(b"something\n");
    // The producer ends when it notices that a consumer closed.
    let alone = Name::new("recv-timeout-alone");
    ask(&["recv", &alone, "--timeout", "0"]).code(5);
    ask(&["recv", &alone, "--timeout", "50ms", "--follow"]).code(5);
}

#[test]
fn no_producer_until_the_timeout_is_5_for_follow() {
    let name = Name::new("follow-timeout");
    run(&["send", &name], b"one\n").code(0);
    ask(&["recv", &name, "--follow", "--timeout", "350ms"])
        .code(5)
        .wrote(b"one\n")
        .said(&["until the deadline"]);
}

#[test]
fn no_space_until_the_timeout_is_5() {
    let name = Name::new("send-timeout");
    let input = numbered(0, 10_000);
    run(&["send", &name, "--capacity", "4KiB", "--timeout", "100ms"], &input).code(5).said(&["stayed full"]);
    let recv = ask(&["recv", &name]).code(6).said(&["the producer aborted with code 5"]);
    assert!(
        !recv.out.is_empty() && input.starts_with(&recv.out),
        "messages sent before are whole and in order"
    );
}

#[test]
fn a_closed_consumer_is_6_for_send() {
    let name = Name::new("consumer-closed");
    let mut send = start(&["send", &name]);
    std::io::Write::write_all(send.input(), b"1\n").unwrap();
    ask(&["recv", &name, "--count", "1"]).code(0).wrote(b"1\n");
    std::io::Write::write_all(send.input(), b"2\n").unwrap();
    send.finish().code(6).said(&["the consumer closed"]);
    // Its input did not end.
    ask(&["recv", &name]).code(6).said(&["the producer aborted with code 6"]);
    // While there is nothing to send.
    let idle = Name::new("consumer-closed-idle");
    let mut send = start(&["send", &idle]);
    std::io::Write::write_all(send.input(), b"1\n").unwrap();
    ask(&["recv", &idle, "--count", "1"]).code(0);
    send.wait_for_words("the consumer closed", 1);
    send.finish().code(6);
    // While it waits for space.
    let full = Name::new("consumer-closed-full");
    let send = start(&["send", &full, "--capacity", "4KiB"]).feed(numbered(0, 10_000));
    wait_for_holder(&full, Role::Producer, send.id());
    ask(&["recv", &full, "--count", "1"]).code(0).wrote(b"0000000\n");
    send.finish().code(6).said(&["the consumer closed"]);
}

#[test]
fn another_schema_is_7_with_both_values() {
    let name = Name::new("schema");
    ask(&["create", &name, "--schema", "0x5eed"]).code(0);
    ask(&["recv", &name, "--schema", "7"]).code(7).said(&["0x5eed", "0x7"]);
    ask(&["send", &name, "--schema", "24301"]).code(0).quiet();
}

#[test]
fn sleeping_on_a_pipe_that_wakes_no_sleepers_is_7() {
    let name = Name::new("never");
    ask(&["create", &name, "--wake", "never"]).code(0);
    ask(&["recv", &name, "--wait", "block"]).code(7).said(&["cannot block"]);
    run(&["send", &name], b"x\n").code(0);
    ask(&["recv", &name, "--wait", "spin"]).code(0).wrote(b"x\n");
}

/// A copy of the command line that every user may run.
pub struct Copy(Directory);

impl Copy {
    pub fn new(name: &str) -> Copy {
        let copy = Copy(Directory::new(name));
        // Written by another process: a child that another thread starts now would inherit our descriptor, and a file that is open
        // for writing cannot be executed.
        let mut install = Command::new("install");
        let install = install.args(["-m", "755", env!("CARGO_BIN_EXE_shmpipe")]).arg(copy.0.file("shmpipe"));
        assert!(install.status().unwrap().success());
        copy
    }

    pub fn as_nobody(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.0.file("shmpipe"));
        command.args(words).uid(NOBODY).gid(NOBODY).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run_as_nobody(&self, words: &[&str]) -> Finished {
        Running::start(&mut self.as_nobody(words)).finish()
    }
}

#[test]
fn a_pipe_of_another_user_is_8() {
    if !is_root() {
        eprintln!("skipped: needs root, to run as another user");
        return;
    }
    let name = Name::new("private");
    let copy = Copy::new(&name);
    ask(&["create", &name]).code(0);
    for command in ["send", "recv", "stat"] {
        copy.run_as_nobody(&[command, &name]).code(8).said(&["no permission", "owner 0", "mode 0600"]);
    }
    copy.run_as_nobody(&["rm", &name]).code(8);
    copy.run_as_nobody(&["rm", "--force", &name]).code(8);
    ask(&["stat", &name]).code(0);
    // It is listed anyway, without its contents.
    let listed = copy.run_as_nobody(&["ls", "--json"]).code(0).quiet();
    let objects: Vec<Value> = serde_json::from_slice(&listed.out).unwrap();
    let shmpipe::Object::SysV { shm_id, .. } = shmpipe::inspect(&*name).unwrap().object else {
        panic!("a System V pipe");
    };
    let ours = objects.iter().find(|object| object["shm_id"] == shm_id).unwrap();
    assert_eq!((ours["error"].as_str(), ours["owner"].as_str()), (Some("no_permission"), Some("root")));
    assert_eq!((ours["mode"].as_str(), ours["schema"].as_u64()), (Some("0600"), Some(1)));
    let listed = String::from_utf8(copy.run_as_nobody(&["ls"]).code(0).out).unwrap();
    let address = ours["address"].as_str().unwrap();
    let row = listed.lines().find(|row| row.contains(address)).unwrap();
    assert_eq!(row.split_whitespace().filter(|cell| *cell == "?").count(), 7, "{row}");

    // A pipe of an untrusted user is refused, unless told to trust that user.
    let theirs = Name::new("theirs");
    copy.run_as_nobody(&["create", &theirs, "--mode", "666"]).code(0);
    ask(&["recv", &theirs]).code(8).said(&["65534", "trusted"]);
    run(&["send", &theirs, "--trust-uid", "65534", "--mode", "666"], b"hello\n").code(0).quiet();
    copy.run_as_nobody(&["recv", &theirs, "--mode", "666"]).code(0).quiet().wrote(b"hello\n");
}

/// The JSON object on standard error.
fn error(finished: &Finished) -> Value {
    assert_eq!(finished.err.lines().count(), 1, "{}", finished.err);
    let object: Value = serde_json::from_str(&finished.err).unwrap();
    assert_eq!(object["schema"], 1);
    object
}
