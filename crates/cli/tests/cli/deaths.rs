//! Either side killed: no sent message is lost.

use std::io::{Read, Write};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use shmpipe::Role;

use crate::process::{
    Name, Running, ask, consecutive, eventually, numbered, numbers, shmpipe, start, wait_for_holder,
};

#[test]
fn a_killed_producer_is_6_after_its_messages() {
    let name = Name::new("producer-killed");
    for round in 0..2 {
        let mut send = start(&["send", &name]);
        send.input().write_all(b"1\n2\n3\n").unwrap();
        let recv = start(&["recv", &name]);
        recv.wait_for_output(|output| output == b"1\n2\n3\n");
        send.input().write_all(b"4\n").unwrap();
        recv.wait_for_output(|output| output.ends_with(b"4\n"));
        send.signal(libc::SIGKILL);
        send.finish().killed();
        recv.finish()
            .code(6)
            .said(&["the producer died", "run recv again, or use --follow"])
            .wrote(b"1\n2\n3\n4\n");
        // Reported once: the next consumer waits for a new producer.
        if round == 0 {
            ask(&["recv", &name, "--timeout", "300ms"]).code(5);
        }
    }
}

#[test]
fn follow_waits_for_the_successor_of_a_killed_producer() {
    let name = Name::new("follow-killed");
    let recv = start(&["recv", &name, "--follow", "-n", "3"]);
    let mut send = start(&["send", &name]);
    send.input().write_all(b"1\n").unwrap();
    recv.wait_for_output(|output| output == b"1\n");
    send.signal(libc::SIGKILL);
    send.finish().killed();
    recv.wait_for_words("the producer died", 1);
    let mut send = start(&["send", &name]);
    send.input().write_all(b"2\n3\n").unwrap();
    recv.finish().code(0).wrote(b"1\n2\n3\n");
    send.finish().code(0);
}

#[test]
fn send_waits_for_the_successor_of_a_killed_consumer() {
    let name = Name::new("consumer-killed");
    let input = numbered(0, 20_000);
    let mut send = start(&["send", &name, "--capacity", "4KiB"]);
    wait_for_holder(&name, Role::Producer, send.id());
    let recv = start(&["recv", &name]);
    send.input().write_all(&numbered(0, 10)).unwrap();
    recv.wait_for_output(|output| output == numbered(0, 10));
    recv.signal(libc::SIGKILL);
    recv.finish().killed();
    let send = send.feed(input[10 * 8..].to_vec());
    send.wait_for_words("the consumer died; waiting for the next one", 1);
    let second = ask(&["recv", &name]).code(0).quiet();
    send.finish().code(0).said(&["the consumer died"]);
    // The first ten were written, and perhaps not released.
    assert_eq!(continues(&numbers(&second.out), 10, 10), 20_000);
}

#[test]
fn an_idle_send_reports_a_killed_consumer() {
    let name = Name::new("killed-while-idle");
    let send = start(&["send", &name, "--capacity", "4KiB"]);
    wait_for_holder(&name, Role::Producer, send.id());
    for death in 1..=2 {
        let recv = start(&["recv", &name]);
        wait_for_holder(&name, Role::Consumer, recv.id());
        // Long enough to be seen alive.
        thread::sleep(Duration::from_millis(1100));
        recv.signal(libc::SIGKILL);
        recv.finish().killed();
        send.wait_for_words("the consumer died", death);
    }
    // Now the pipe fills, which shows the same death again; send must not report it twice.
    let send = send.feed(numbered(0, 1000));
    eventually(|| (shmpipe::inspect(&*name).ok()?.producer.waits > 0).then_some(()));
    thread::sleep(Duration::from_millis(500));
    ask(&["recv", &name]).code(0).wrote(&numbered(0, 1000));
    let said = send.finish().code(0).err;
    assert_eq!(said.matches("the consumer died").count(), 2, "{said}");
}

#[test]
fn killing_recv_loses_nothing() {
    const LINES: u64 = 300_000;
    /// More than a batch of `recv`, in lines of eight bytes.
    const BATCH: u64 = (64 << 10) / 8;
    let name = Name::new("recv-killed");
    let send = start(&["send", &name, "--capacity", "64KiB"]).feed(numbered(0, LINES));
    wait_for_holder(&name, Role::Producer, send.id());
    let mut next = 0;
    for kill in 0..12 {
        let mut recv = shmpipe(&["recv", &name]).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = recv.stdout.take().unwrap();
        let recv = Running::of(recv);
        // A reader that is sometimes slow, so that recv is killed in all its states.
        let mut found = vec![0; 10_000 + 9_000 * kill];
        output.read_exact(&mut found).unwrap();
        thread::sleep(Duration::from_millis(kill as u64 % 3));
        recv.signal(libc::SIGKILL);
        recv.finish().killed();
        output.read_to_end(&mut found).unwrap();
        next = continues(&numbers(&found), next, BATCH);
    }
    let last = ask(&["recv", &name]).code(0);
    assert_eq!(continues(&numbers(&last.out), next, BATCH), LINES);
    // It may or may not have noticed each death.
    let ended = send.finish().code(0);
    assert!(ended.err.lines().all(|line| line.contains("the consumer died")), "{}", ended.err);
}

/// Asserts that the numbers continue where the last ones ended, or repeat at most `batch` of them. Returns the next number.
#[track_caller]
fn continues(numbers: &[u64], next: u64, batch: u64) -> u64 {
    let Some(&first) = numbers.first() else { return next };
    assert!(first <= next, "{} lines are lost: {next} to {first}", first - next);
    assert!(next - first <= batch, "{} lines are repeated, more than {batch}", next - first);
    next.max(consecutive(numbers))
}
