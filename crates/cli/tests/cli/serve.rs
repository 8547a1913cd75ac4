//! `serve`: a memfd for those who are given it.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use shmpipe::Role;

use crate::codes::Copy;
use crate::place::{Kind, Place};
use crate::process::{Name, Running, ask, run, start, wait_for_holder};

#[test]
fn a_signal_ends_it_in_order_and_the_socket_goes() {
    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        let mut place = Place::new(Kind::Memfd, "serve-signal");
        let server = place.take_server();
        assert!(Path::new(place.path()).exists());
        server.signal(signal);
        server.finish().code(code).quiet();
        assert!(!Path::new(place.path()).exists());
        ask(&["recv", &place]).code(3).said(&["there is no pipe at", &place]);
    }
}

#[test]
fn who_has_the_pipe_keeps_it_when_the_server_ends() {
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
fn a_killed_servers_socket_is_replaced_and_a_living_ones_is_not() {
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
    // What is no socket stays.
    let _ = fs::remove_file(place.path());
    fs::write(place.path(), b"mine").unwrap();
    ask(&["serve", place.path()]).code(4);
    assert_eq!(fs::read(place.path()).unwrap(), b"mine");
}

#[test]
fn it_takes_the_options_of_create() {
    let place =
        Place::with(Kind::Memfd, "serve-options", &["--capacity", "64K", "--schema", "7", "--wake", "fence"]);
    let pipe = shmpipe::inspect(&*place).unwrap();
    assert_eq!((pipe.capacity, pipe.schema, pipe.wake_mode), (65536, 7, shmpipe::WakeMode::Fence));
    ask(&["recv", &place]).code(7).said(&["0x7"]);
}

#[test]
fn only_trusted_users_are_given_the_pipe() {
    // SAFETY: takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("skipped: only root can be somebody else");
        return;
    }
    let name = Name::new("serve-nobody");
    let copy = Copy::new(&name);
    let as_nobody = |words: &[&str]| Running::start(&mut copy.as_nobody(words)).finish();
    let place = Place::new(Kind::Memfd, "serve-strangers");
    as_nobody(&["recv", &place]).code(8);
    // A server of nobody's, on the other hand.
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
fn a_stranger_who_asks_is_told_of_and_is_given_nothing() {
    // SAFETY: takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
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
