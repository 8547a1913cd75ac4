//! A C program at one side of a pipe, Rust at the other.

use crate::compiler::{C99, compile, run};
use shmpipe::{Consumer, Options, RecvTimeoutError, Tagged};
use shmpipe_testing::LONG;
use shmpipe_testing::name::Name;
use shmpipe_testing::running::Running;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// The bytes of message number `i`, as tests/c/side.c makes them too.
fn message(i: u64) -> Vec<u8> {
    let length = 8 + i * 37 % 1500;
    let rest = (8..length).map(|at| (i + at) as u8);
    i.to_ne_bytes().into_iter().chain(rest).collect()
}

const MESSAGES: u64 = 2000;

fn side(name: &str, part: &str, address: &Name, messages: u64) -> Command {
    let mut command = Command::new(compile(C99, "tests/c/side.c", name));
    command.args([part, address.as_str(), &messages.to_string()]);
    command
}

/// Receives what the program sends.
fn receive(consumer: &mut Consumer, messages: u64) {
    for i in 0..messages {
        let received = consumer.recv_timeout(LONG).unwrap();
        assert_eq!((u64::from(received.tag()), received.to_vec()), (i, message(i)));
    }
}

#[test]
fn c_sends_and_rust_receives() {
    let name = Name::new();
    let pipe = Options::new().capacity(4096).create(&name).unwrap();
    let mut consumer = pipe.consumer().unwrap();
    let c = Running::start(&mut side("side-sends", "send", &name, MESSAGES));
    receive(&mut consumer, MESSAGES);
    assert_eq!(consumer.recv_timeout(LONG).unwrap_err(), RecvTimeoutError::Closed);
    c.end();
}

#[test]
fn rust_sends_and_c_receives() {
    let name = Name::new();
    let pipe = Options::new().capacity(4096).create(&name).unwrap();
    let mut producer = pipe.producer().unwrap();
    let sender = std::thread::spawn(move || {
        for i in 0..MESSAGES {
            producer.send_timeout(Tagged(i as u32, &message(i)), LONG).unwrap();
        }
    });
    run(&mut side("side-receives", "recv", &name, MESSAGES));
    sender.join().unwrap();
}

#[test]
fn killed_c_producer_loses_nothing_and_leaves_a_usable_pipe() {
    let name = Name::new();
    let pipe = Options::new().create(&name).unwrap();
    let mut consumer = pipe.consumer().unwrap();
    let mut c = Running::start(side("side-holds", "hold", &name, 10).stdout(Stdio::piped()));
    let mut said = String::new();
    BufReader::new(c.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "held\n");
    c.kill();
    receive(&mut consumer, 10);
    assert_eq!(consumer.recv_timeout(LONG).unwrap_err(), RecvTimeoutError::PeerDied);
    // A successor, in C again.
    let c = Running::start(&mut side("side-succeeds", "send", &name, 10));
    receive(&mut consumer, 10);
    assert_eq!(consumer.recv_timeout(LONG).unwrap_err(), RecvTimeoutError::Closed);
    c.end();
}
