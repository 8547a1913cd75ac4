//! Dying at each step: how a successor recovers, while the other side continues.

use super::pipe::{Nothing, Pipe, Producer, explore, explore_deaths};
use crate::protocol::half::Half;
use crate::protocol::sync::{Ordering, killed_after};
use crate::protocol::wakeup::WakeMode::Never;
use loom::thread;
use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

const LAST: [u8; 5] = [9; 5];

/// Kills a producer during its `work`. Its successor sends one more message. Meanwhile the consumer continues, and often gets ahead of
/// the tail that the dead producer left in the header. Before the successor's message, it receives one of the `outcomes`, which depends
/// on the tail that the successor found: nothing, the whole work, or a part of it that is valid alone. Each outcome occurs.
fn loses_nothing(
    capacity: u64,
    before: &'static [&'static [u8]],
    work: fn(&mut Producer),
    outcomes: &'static [(u64, &'static [&'static [u8]])],
) {
    let occurred = Arc::new(Mutex::new(BTreeSet::new()));
    let tails = occurred.clone();
    explore_deaths(3, move |steps| {
        let (mut producer, mut consumer) = Pipe::used(Never, capacity, before);
        let victim = thread::spawn(move || {
            let killed = killed_after(steps, || work(&mut producer));
            let mut successor = producer.pipe.producer();
            let tail = successor.writer.tail();
            successor.send(&LAST);
            (killed, tail)
        });
        let mut received = vec![];
        loop {
            let message = consumer.recv();
            if message == LAST {
                break;
            }
            received.push(message);
        }
        let (killed, tail) = victim.join().unwrap();
        let (_, expected) = outcomes.iter().find(|outcome| outcome.0 == tail).expect("a possible tail");
        assert_eq!(received, *expected);
        tails.lock().unwrap().insert(tail);
        killed
    });
    assert_eq!(occurred.lock().unwrap().len(), outcomes.len());
}

#[test]
fn a_record_is_complete_or_absent_wherever_its_producer_is_killed() {
    loses_nothing(64, &[], |producer| producer.send(&[1; 13]), &[(0, &[]), (24, &[&[1; 13]])]);
}

#[test]
fn a_record_after_a_wrap_is_complete_or_absent_wherever_its_producer_is_killed() {
    let before: &[&[u8]] = &[&[0xEE; 24], &[0xEE; 8]];
    loses_nothing(64, before, |producer| producer.send(&[1; 16]), &[(48, &[]), (88, &[&[1; 16]])]);
}

#[test]
fn a_shorter_commit_is_complete_or_absent_wherever_its_producer_is_killed() {
    let work = |producer: &mut Producer| producer.send_shorter(24, 0xFF, &[1; 3]);
    loses_nothing(64, &[], work, &[(0, &[]), (16, &[&[1; 3]])]);
}

#[test]
fn a_batch_is_complete_or_absent_wherever_its_producer_is_killed() {
    let work = |producer: &mut Producer| producer.send_batch(&[&[1; 8], &[2; 8]]);
    loses_nothing(64, &[], work, &[(0, &[]), (32, &[&[1; 8], &[2; 8]])]);
}

#[test]
fn a_batch_with_a_wrap_inside_is_complete_or_absent_wherever_its_producer_is_killed() {
    let work = |producer: &mut Producer| producer.send_batch(&[&[1; 8], &[2; 16]]);
    loses_nothing(64, &[&[0xEE; 24]], work, &[(32, &[]), (88, &[&[1; 8], &[2; 16]])]);
}

#[test]
fn a_batch_with_a_wrap_before_it_is_complete_or_absent_wherever_its_producer_is_killed() {
    let work = |producer: &mut Producer| producer.send_batch(&[&[1; 16], &[2; 8]]);
    loses_nothing(64, &[&[0xEE; 24], &[0xEE; 8]], work, &[(48, &[]), (104, &[&[1; 16], &[2; 8]])]);
}

#[test]
fn a_prefix_of_the_messages_is_complete_wherever_their_producer_is_killed() {
    let work = |producer: &mut Producer| {
        producer.send(&[1; 8]);
        producer.send(&[2; 8]);
    };
    loses_nothing(64, &[], work, &[(0, &[]), (16, &[&[1; 8]]), (32, &[&[1; 8], &[2; 8]])]);
}

#[test]
fn a_recovery_killed_at_any_step_can_be_repeated() {
    let occurred = Arc::new(AtomicBool::new(false));
    let tail_was_behind_head = occurred.clone();
    explore_deaths(3, move |steps| {
        let (mut producer, mut consumer) = Pipe::used(Never, 64, &[]);
        // Killed between the commit and the store of the tail: announcement, next header word, padding, payload, header word.
        assert!(killed_after(5, || producer.send(&[1; 8])));
        assert_eq!(producer.pipe.header().tail.0.load(Ordering::Relaxed), 0);
        let tail_was_behind_head = tail_was_behind_head.clone();
        let victim = thread::spawn(move || {
            if producer.pipe.header().head.0.load(Ordering::Relaxed) > 0 {
                tail_was_behind_head.store(true, Ordering::Relaxed);
            }
            let killed = killed_after(steps, || {
                producer = producer.pipe.producer();
                producer.send(&[2; 8]);
            });
            let mut successor = producer.pipe.producer();
            if successor.writer.tail() == 16 {
                successor.send(&[2; 8]);
            }
            assert_eq!(successor.writer.tail(), 32);
            killed
        });
        for n in 1..=2 {
            assert_eq!(consumer.recv(), [n; 8]);
        }
        victim.join().unwrap()
    });
    assert!(occurred.load(Ordering::Relaxed));
}

#[test]
fn producers_killed_one_after_the_other_lose_nothing() {
    // Message n is at 16 * (n - 1).
    fn next(producer: &Producer) -> u8 {
        (producer.writer.tail() / 16) as u8 + 1
    }
    fn begin_and_send(pipe: &Pipe) {
        let mut producer = pipe.producer();
        let n = next(&producer);
        producer.send(&[n; 8]);
    }
    explore_deaths(3, |steps| {
        let pipe = Pipe::new(Never, 32);
        let mut consumer = pipe.consumer();
        // Two victims first, so that the tail in the header lags behind as far as it can; then one while the consumer continues.
        let mut n = 1;
        for _ in 0..2 {
            killed_after(steps, || begin_and_send(&pipe));
            if let Ok(message) = consumer.try_recv() {
                assert_eq!(message, [n; 8]);
                n += 1;
            }
        }
        let victim = thread::spawn(move || {
            let killed = killed_after(steps, || begin_and_send(&pipe));
            let mut successor = pipe.producer();
            let n = next(&successor);
            successor.send(&LAST);
            (killed, n)
        });
        loop {
            let message = consumer.recv();
            if message == LAST {
                break;
            }
            assert_eq!(message, [n; 8]);
            n += 1;
        }
        let (killed, last) = victim.join().unwrap();
        assert_eq!(n, last);
        killed
    });
}

#[test]
fn messages_that_a_killed_consumer_did_not_release_are_received_again() {
    explore_deaths(2, |steps| {
        let (mut producer, mut consumer) = Pipe::used(Never, 64, &[]);
        let victim = thread::spawn(move || {
            let killed = killed_after(steps, || {
                consumer = consumer.pipe.consumer();
                for n in 1..=2 {
                    assert_eq!(consumer.recv(), [n; 8]);
                }
            });
            let mut successor = consumer.pipe.consumer();
            // Message n is at 16 * (n - 1).
            let released = (successor.reader.head() / 16) as u8;
            for n in released + 1..=2 {
                assert_eq!(successor.recv(), [n; 8]);
            }
            killed
        });
        for n in 1..=2 {
            producer.send(&[n; 8]);
        }
        victim.join().unwrap()
    });
}

#[test]
fn a_successor_overwrites_only_what_was_released() {
    explore(4, || {
        // As in `a_full_ring_is_overwritten_only_where_it_was_released`.
        let (mut producer, mut consumer) = Pipe::used(Never, 64, &[&[]]);
        producer.send(&[1; 24]);
        let sender = thread::spawn(move || {
            let mut successor = producer.pipe.producer();
            successor.send(&[2; 24]);
        });
        for n in 1..=2 {
            assert_eq!(consumer.recv(), [n; 24]);
        }
        sender.join().unwrap();
    });
}

#[test]
fn a_dead_producers_message_is_seen_with_its_successor() {
    explore_deaths(4, |steps| {
        let (mut producer, mut consumer) = Pipe::used(Never, 64, &[]);
        let first = consumer.reader.peer_state();
        let victim = thread::spawn(move || {
            let killed = killed_after(steps, || producer.send(&[1; 8]));
            (killed, producer.pipe.producer().writer.tail())
        });
        // No polling: in loom, a thread that has yielded cannot read an older value again.
        let mut found = consumer.try_recv();
        let succeeded = consumer.reader.peer_state() != first;
        if found == Err(Nothing::Yet) {
            found = consumer.try_recv();
        }
        let (killed, tail) = victim.join().unwrap();
        match found {
            Ok(message) => assert_eq!((message, tail), (vec![1; 8], 16)),
            Err(nothing) => {
                assert_eq!(nothing, Nothing::Yet);
                assert!(!succeeded || tail == 0);
            }
        }
        killed
    });
}
