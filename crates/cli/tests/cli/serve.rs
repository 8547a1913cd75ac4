//! `serve`: a memfd for the processes that receive it.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use shmpipe::Role;

use crate::codes::Copy;
use crate::place::{Kind, Place};
use crate::process::{Name, Running, ask, is_root, run, start, wait_for_holder};

#[test]
fn a_signal_ends_serve_in_order_and_removes_the_socket() {
    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        let mut place = Place::new(Kind::Memfd, "serve-signal");
        let server = place.take_server();
        assert!(Path::new(place.path()).exists());
        server.signal(signal);
        server.finish().code(code).quiet();
        assert!(!Path::new(place.path()).exists());
        ask(&["recv", &place]).code(3).said(&["no pipe at", &place]);
    }
}

#[test]
fn the_pipe_outlives_its_server() {
    let mut place = Place::new(Kind::Memfd, "serve-kept");
    let mut send = start(&["send", &place]);
    let recv = start(&["recv", &place]);
    wait_for_holder(&place, Role::Producer, send.id());
    wait_for_holder(&place, Role::Consumer, recv.id());
    let server = place.take_server();
    server.signal(libc::SIGTERM);
    server.finish().code(143);
    send.input().write_all(b"still here\n").unwrap();
    send.finish().code(0).quiet();
    recv.finish().code(0).quiet().wrote(b"still here\n");
}

#[test]
fn a_receiver_without_a_producer_notices_another_pipe_at_the_socket() {
    let mut place = Place::new(Kind::Memfd, "serve-another");
    let first = start(&["recv", &place, "--follow"]);
    wait_for_holder(&place, Role::Consumer, first.id());
    run(&["send", &place], b"from the first\n").code(0);
    first.wait_for_output(|said| said.ends_with(b"\n"));
    let server = place.take_server();
    server.signal(libc::SIGKILL);
    server.finish().killed();
    let server = start(&["serve", place.path()]);
    server.wait_for_output(|said| said.ends_with(b"\n"));
    first.finish().code(3).wrote(b"from the first\n").said(&["another server", "run recv again"]);
    // The same server hands out the same pipe; and with a producer, the server does not matter.
    let mut send = start(&["send", &place]);
    let second = start(&["recv", &place, "--follow", "--count", "1"]);
    wait_for_holder(&place, Role::Producer, send.id());
    wait_for_holder(&place, Role::Consumer, second.id());
    drop(server);
    let server = start(&["serve", place.path()]);
    server.wait_for_output(|said| said.ends_with(b"\n"));
    std::thread::sleep(std::time::Duration::from_millis(1500));
    send.input().write_all(b"from the second\n").unwrap();
    second.finish().code(0).wrote(b"from the second\n");
    send.finish();
}

#[test]
fn the_socket_of_a_killed_server_is_replaced_and_of_a_live_one_not() {
    let mut place = Place::new(Kind::Memfd, "serve-again");
    ask(&["serve", place.path()]).code(4).quiet_on_stdout().said(&["already", &place]);
    let server = place.take_server();
    server.signal(libc::SIGKILL);
    server.finish().killed();
    let server = start(&["serve", place.path(), "--json"]);
    let said = server.wait_for_output(|said| said.ends_with(b"\n"));
    let made: serde_json::Value = serde_json::from_slice(&said).unwrap();
    assert_eq!((&made["address"], &made["kind"]), (&(&*place).into(), &"memfd".into()));
    run(&["send", &place], b"x\n").code(0);
    ask(&["recv", &place]).code(0).wrote(b"x\n");
    drop(server);
    // Another kind of file is kept.
    let _ = fs::remove_file(place.path());
    fs::write(place.path(), b"mine").unwrap();
    ask(&["serve", place.path()]).code(4);
    assert_eq!(fs::read(place.path()).unwrap(), b"mine");
}

#[test]
fn serve_takes_the_options_of_create() {
    let place =
        Place::with(Kind::Memfd, "serve-options", &["--capacity", "64K", "--schema", "7", "--wake", "fence"]);
    let pipe = shmpipe::inspect(&*place).unwrap();
    assert_eq!((pipe.capacity, pipe.schema, pipe.wake_mode), (65536, 7, shmpipe::WakeMode::Fence));
    ask(&["recv", &place]).code(7).said(&["0x7"]);
}

#[test]
fn only_trusted_users_receive_the_pipe() {
    if !is_root() {
        eprintln!("skipped: needs root, to run as another user");
        return;
    }
    let name = Name::new("serve-nobody");
    let copy = Copy::new(&name);
    let as_nobody = |words: &[&str]| Running::start(&mut copy.as_nobody(words)).finish();
    let place = Place::new(Kind::Memfd, "serve-strangers");
    as_nobody(&["recv", &place]).code(8);
    // The other way round: a server of that user.
    let theirs = std::env::temp_dir().join(format!("{}-theirs", &*name));
    let path = theirs.to_str().unwrap();
    let address = format!("memfd:{path}");
    let server = Running::start(&mut copy.as_nobody(&["serve", path]));
    server.wait_for_output(|said| said.ends_with(b"\n"));
    let refused = ask(&["recv", &address]);
    run(&["send", &address, "--trust-uid", "65534"], b"hello\n").code(0);
    let received = as_nobody(&["recv", &address]);
    drop(server);
    let _ = fs::remove_file(&theirs);
    refused.code(8).said(&["65534"]);
    received.code(0).wrote(b"hello\n");

    let trusting = Place::with(Kind::Memfd, "serve-trusting", &["--trust-uid", "65534"]);
    let sent = as_nobody(&["recv", &trusting, "--trust-uid", "0", "--timeout", "100ms"]);
    sent.code(5);
}

#[test]
fn an_untrusted_user_is_refused_and_reported() {
    if !is_root() {
        return;
    }
    let place = Place::with(Kind::Memfd, "serve-other-stranger", &["--trust-uid", "65533"]);
    let name = Name::new("serve-65534");
    let copy = Copy::new(&name);
    let mut command: Command = copy.as_nobody(&["recv", &place]);
    command.uid(65534).stdout(Stdio::piped());
    let finished = Running::start(&mut command).finish();
    assert_ne!(finished.status.code(), Some(0));
    place.server().wait_for_words("65534", 1);
}
