//! Succession: what one side learns about two processes that hold the other role one after the other, epoch by epoch.

use super::pipe::{Consumer, Nothing, Pipe, Role, explore, explore_deaths, sleep_for_peer};
use crate::protocol::half::Half;
use crate::protocol::liveness::{End, PeerDied, Phase};
use crate::protocol::reader::RecvEnd;
use crate::protocol::sync::{Ordering, killed_after, spin_loop};
use crate::protocol::wakeup::WakeMode::{Fence, Never};
use crate::protocol::writer::ReserveError;
use loom::thread;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

const LAST: [u8; 5] = [9; 5];

/// Takes messages up to `LAST`, and checks for the producer's death whenever there is no message. Returns the messages, and how many of
/// them came before the death was reported.
fn receive_and_mourn(consumer: &mut Consumer, role: &Role) -> (Vec<Vec<u8>>, Option<usize>) {
    let (mut received, mut death) = (vec![], None);
    loop {
        let found = match consumer.try_recv_or_end() {
            Err(Nothing::Yet) => consumer.check_for_death(|| role.is_free()),
            found => found,
        };
        match found {
            Ok(message) if message == LAST => return (received, death),
            Ok(message) => received.push(message),
            Err(Nothing::Yet) => spin_loop(),
            Err(Nothing::PeerDied) => {
                assert_eq!(death, None, "reported twice");
                death = Some(received.len());
            }
            Err(nothing) => panic!("{nothing:?}"),
        }
    }
}

#[test]
fn the_death_of_a_producer_is_reported_at_most_once_and_after_its_messages() {
    let told = Arc::new(AtomicU32::new(0));
    let count = told.clone();
    explore_deaths(3, move |steps| {
        let (mut producer, mut consumer) = Pipe::used(Never, 64, &[]);
        assert_eq!(consumer.try_recv_or_end(), Err(Nothing::Yet));
        let role = Role::held();
        let held = role.clone();
        let victim = thread::spawn(move || {
            let killed = killed_after(steps, || producer.send(&[1; 8]));
            held.give_back();
            held.claim();
            let mut successor = producer.pipe.producer();
            let tail = successor.writer.tail();
            successor.send(&LAST);
            (killed, tail)
        });
        let (received, death) = receive_and_mourn(&mut consumer, &role);
        let (killed, tail) = victim.join().unwrap();
        assert_eq!(received, vec![vec![1; 8]; tail as usize / 16]);
        if let Some(before) = death {
            assert_eq!(before, received.len(), "reported before its last message");
            count.fetch_add(1, Ordering::Relaxed);
        }
        killed
    });
    assert!(told.load(Ordering::Relaxed) > 0);
}

#[test]
fn the_death_of_a_consumer_is_reported_at_most_once() {
    let told = Arc::new(AtomicU32::new(0));
    let count = told.clone();
    explore_deaths(3, move |steps| {
        let (mut producer, mut consumer) = Pipe::used(Never, 32, &[]);
        producer.send(&[1; 8]);
        let role = Role::held();
        let held = role.clone();
        let victim = thread::spawn(move || {
            let killed = killed_after(steps, || drop(consumer.recv()));
            held.give_back();
            held.claim();
            let mut successor = consumer.pipe.consumer();
            // A message that was not released is received again.
            if successor.reader.head() == 0 {
                assert_eq!(successor.recv(), [1; 8]);
            }
            assert_eq!(successor.recv(), [2; 8]);
            killed
        });
        let mut deaths = 0;
        loop {
            let sent = match producer.try_send(&[2; 8]) {
                Err(ReserveError::Full) => {
                    producer.check_for_death(8, || role.is_free()).map(|_| Err(ReserveError::Full))
                }
                sent => Ok(sent),
            };
            match sent {
                Ok(Ok(_)) => break,
                Ok(Err(ReserveError::Full)) => spin_loop(),
                Ok(Err(error)) => panic!("{error:?}"),
                Err(PeerDied) => deaths += 1,
            }
        }
        assert!(deaths <= 1, "reported twice");
        count.fetch_add(deaths, Ordering::Relaxed);
        victim.join().unwrap()
    });
    assert!(told.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_successors_messages_arrive_after_a_close() {
    explore(4, || {
        let (mut producer, mut consumer) = Pipe::used(Never, 64, &[]);
        let sender = thread::spawn(move || {
            producer.send(&[1; 8]);
            producer.writer.end(End::Closed);
            let mut successor = producer.pipe.producer();
            successor.send(&[2; 8]);
            successor.writer.end(End::Closed);
        });
        for n in 1..=2 {
            let mut found = consumer.recv_or_end();
            while found == Err(Nothing::Ever(RecvEnd::Ended(End::Closed))) {
                // Closed by the first producer, whose message was received.
                assert_eq!(n, 2);
                spin_loop();
                found = consumer.recv_or_end();
            }
            assert_eq!(found.unwrap(), [n; 8]);
        }
        assert_eq!(consumer.reader.peer_state().epoch(), 2, "a consumer that has its message sees its epoch");
        sender.join().unwrap();
        assert_eq!(consumer.recv_or_end(), Err(Nothing::Ever(RecvEnd::Ended(End::Closed))));
    });
}

#[test]
fn the_code_of_an_abort_is_that_of_its_epoch() {
    let first_codes = Arc::new(AtomicU32::new(0));
    let count = first_codes.clone();
    explore(4, move || {
        let (mut producer, mut consumer) = Pipe::used(Never, 32, &[]);
        let aborter = thread::spawn(move || {
            producer.writer.end(End::Aborted { code: 1 });
            let mut successor = producer.pipe.producer();
            successor.writer.end(End::Aborted { code: 2 });
        });
        loop {
            match consumer.try_recv_or_end() {
                Err(Nothing::Yet) => spin_loop(),
                Err(Nothing::Ever(RecvEnd::Ended(End::Aborted { code }))) => {
                    let reported = &consumer.pipe.header().consumer.0.reported;
                    // Relaxed: this side wrote it.
                    assert_eq!(reported.load(Ordering::Relaxed), u64::from(code));
                    if code == 2 {
                        break;
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
                other => panic!("{other:?}"),
            }
        }
        aborter.join().unwrap();
    });
    assert!(first_codes.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_successor_wakes_a_consumer_that_saw_a_close() {
    explore(4, || {
        let (mut producer, mut consumer) = Pipe::used(Fence, 64, &[]);
        producer.writer.end(End::Closed);
        assert_eq!(consumer.recv_or_sleep(), Err(Nothing::Ever(RecvEnd::Ended(End::Closed))));
        let closed = consumer.reader.peer_state();
        let successor = thread::spawn(move || {
            let mut successor = producer.pipe.producer();
            successor.send(&[1; 8]);
        });
        while consumer.reader.peer_state() == closed {
            sleep_for_peer(&consumer.reader, closed);
        }
        assert_eq!(consumer.recv_or_sleep().unwrap(), [1; 8]);
        successor.join().unwrap();
    });
}

#[test]
fn a_consumer_that_closes_as_a_producer_attaches_does_not_leave_it_asleep() {
    explore(3, || {
        let (mut producer, mut consumer) = Pipe::used(Fence, 32, &[]);
        producer.send(&[1; 8]);
        producer.writer.end(End::Closed);
        let pipe = producer.pipe.clone();
        let closer = thread::spawn(move || {
            consumer.reader.end(End::Closed);
            let mut successor = consumer.pipe.consumer();
            assert_eq!(successor.recv(), [1; 8]);
        });
        // Either the close is reported to it, or it attached after the close. In both cases there is a next consumer.
        let mut successor = pipe.producer();
        match successor.send_or_sleep(&[2; 8]) {
            Ok(at) => assert_eq!(at, 16),
            Err(refusal) => {
                assert_eq!(refusal, ReserveError::Ended(End::Closed));
                assert_ne!(successor.writer.peer_state().phase(), Some(Phase::Never));
            }
        }
        closer.join().unwrap();
    });
}

/// Kills both ends, the consumer after `consumers_steps` steps of receiving. Both have successors at the same time.
fn both_are_succeeded_at_once(consumers_steps: u32) {
    explore_deaths(2, move |steps| {
        let (mut producer, mut consumer) = Pipe::used(Never, 64, &[]);
        producer.send(&[1; 8]);
        let victim = thread::spawn(move || {
            let killed = killed_after(steps, || producer.send(&[2; 8]));
            let mut successor = producer.pipe.producer();
            let tail = successor.writer.tail();
            successor.send(&LAST);
            (killed, tail)
        });
        assert!(killed_after(consumers_steps, || drop(consumer.recv())));
        let mut successor = consumer.pipe.consumer();
        let mut n = successor.reader.head() / 16 + 1;
        assert_eq!(n, if consumers_steps == 0 { 1 } else { 2 });
        loop {
            let message = successor.recv();
            if message == LAST {
                break;
            }
            assert_eq!(message, [n as u8; 8]);
            n += 1;
        }
        let (killed, tail) = victim.join().unwrap();
        assert_eq!(tail, 16 * (n - 1));
        killed
    });
}

#[test]
fn both_are_succeeded_at_once_before_the_release() {
    both_are_succeeded_at_once(0);
}

#[test]
fn both_are_succeeded_at_once_after_the_release() {
    both_are_succeeded_at_once(1);
}
