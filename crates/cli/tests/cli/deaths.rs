//! Either side killed without a word: nothing that was sent is lost.

use std::io::{Read, Write};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use shmpipe::Role;

use crate::process::{
    Name, Running, ask, consecutive, eventually, numbered, numbers, shmpipe, start, wait_for_holder,
};

#[test]
fn a_producer_that_was_killed_is_6_after_what_it_sent() {
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
        recv.finish().code(6).said(&["the producer has died"]).wrote(b"1\n2\n3\n4\n");
        // Told once: whoever comes next waits for a successor.
        if round == 0 {
            ask(&["recv", &name, "--timeout", "300ms"]).code(5);
        }
    }
}

#[test]
fn a_producer_that_was_killed_before_recv_came_is_6_after_what_it_sent() {
    let name = Name::new("killed-before");
    let mut send = start(&["send", &name]);
    send.input().write_all(b"1\n2\n").unwrap();
    eventually(|| (shmpipe::inspect(&*name).ok()?.producer.messages == 2).then_some(()));
    send.signal(libc::SIGKILL);
    send.finish().killed();
    ask(&["recv", &name]).code(6).wrote(b"1\n2\n");
}

#[test]
fn follow_waits_for_the_successor_of_a_producer_that_was_killed() {
    let name = Name::new("follow-killed");
    let recv = start(&["recv", &name, "--follow", "-n", "3"]);
    let mut send = start(&["send", &name]);
    send.input().write_all(b"1\n").unwrap();
    recv.wait_for_output(|output| output == b"1\n");
    send.signal(libc::SIGKILL);
    send.finish().killed();
    recv.wait_for_words("the producer has died", 1);
    let mut send = start(&["send", &name]);
    send.input().write_all(b"2\n3\n").unwrap();
    recv.finish().code(0).wrote(b"1\n2\n3\n");
    send.finish().code(0);
}

#[test]
fn send_waits_for_the_successor_of_a_consumer_that_was_killed() {
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
    send.wait_for_words("the consumer has died; waiting for its successor", 1);
    let second = ask(&["recv", &name]).code(0).quiet();
    send.finish().code(0).said(&["the consumer has died"]);
    // The first ten were written out, and perhaps not released yet.
    assert_eq!(continues(&numbers(&second.out), 10, 10), 20_000);
}

#[test]
fn send_tells_of_a_killed_consumer_also_while_there_is_nothing_to_send() {
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
        send.wait_for_words("the consumer has died", death);
    }
    // Now the pipe fills, which tells of the same death again; it need not be said again.
    let send = send.feed(numbered(0, 1000));
    eventually(|| (shmpipe::inspect(&*name).ok()?.producer.waits > 0).then_some(()));
    thread::sleep(Duration::from_millis(500));
    ask(&["recv", &name]).code(0).wrote(&numbered(0, 1000));
    let said = send.finish().code(0).err;
    assert_eq!(said.matches("the consumer has died").count(), 2, "{said}");
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
        // A reader that sometimes takes its time, so that recv is killed in all its moods.
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
    // It may or may not have noticed one of the deaths.
    let ended = send.finish().code(0);
    assert!(ended.err.lines().all(|line| line.contains("the consumer has died")), "{}", ended.err);
}

/// Checks that the numbers go on where the last ones ended, or repeat `batch` of them at most. Gives the next one.
#[track_caller]
fn continues(numbers: &[u64], next: u64, batch: u64) -> u64 {
    let Some(&first) = numbers.first() else { return next };
    assert!(first <= next, "{} lines are lost: {next} to {first}", first - next);
    assert!(next - first <= batch, "{} lines come again, {batch} at most may", next - first);
    next.max(consecutive(numbers))
}
