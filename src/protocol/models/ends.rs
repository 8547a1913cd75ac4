//! Closing and dying: who hears of it, and what is found before.

use super::pipe::{FOREVER, Nothing, Pipe, Role, explore, explore_deaths};
use crate::protocol::bell::WakeMode::{Fence, Never};
use crate::protocol::half::Half;
use crate::protocol::reader::NoMore;
use crate::protocol::sync::{killed_after, spin_loop};
use crate::protocol::writer::Refusal;
use loom::thread;

#[test]
fn a_closing_producer_wakes_a_sleeping_consumer() {
    explore(4, || {
        let (mut producer, mut consumer) = Pipe::used(Fence, 32, &[]);
        let closer = thread::spawn(move || producer.writer.close());
        assert_eq!(consumer.recv_or_sleep(), Err(Nothing::Ever(NoMore::Closed)));
        closer.join().unwrap();
    });
}

#[test]
fn a_closing_consumer_wakes_a_sleeping_producer() {
    explore(4, || {
        let (mut producer, mut consumer) = Pipe::used(Fence, 32, &[]);
        producer.send(&[1; 8]);
        let closer = thread::spawn(move || consumer.reader.close());
        assert_eq!(producer.send_or_sleep(&[2; 8]), Err(Refusal::Closed));
        closer.join().unwrap();
    });
}

#[test]
fn the_last_message_is_received_before_the_close() {
    explore(4, || {
        let (mut producer, mut consumer) = Pipe::used(Never, 64, &[]);
        let closer = thread::spawn(move || {
            producer.send(&[1; 8]);
            producer.writer.close();
        });
        assert_eq!(consumer.recv_or_end().unwrap(), [1; 8]);
        // As often as asked.
        for _ in 0..2 {
            assert_eq!(consumer.recv_or_end(), Err(Nothing::Ever(NoMore::Closed)));
        }
        closer.join().unwrap();
    });
}

#[test]
fn the_last_message_wakes_a_sleeping_consumer_before_the_close() {
    explore(4, || {
        let (mut producer, mut consumer) = Pipe::used(Fence, 64, &[]);
        let closer = thread::spawn(move || {
            producer.send(&[1; 8]);
            producer.writer.close();
        });
        assert_eq!(consumer.recv_or_sleep().unwrap(), [1; 8]);
        assert_eq!(consumer.recv_or_sleep(), Err(Nothing::Ever(NoMore::Closed)));
        closer.join().unwrap();
    });
}

#[test]
fn the_last_release_is_seen_with_the_close() {
    explore(4, || {
        let (mut producer, mut consumer) = Pipe::used(Never, 32, &[]);
        producer.send(&[1; 8]);
        let closer = thread::spawn(move || {
            assert_eq!(consumer.recv(), [1; 8]);
            consumer.reader.close();
        });
        let mut sent = producer.try_send(&[2; 8]);
        while sent == Err(Refusal::Full) {
            spin_loop();
            sent = producer.try_send(&[2; 8]);
        }
        if sent == Err(Refusal::Closed) {
            assert_eq!(producer.writer.free(), Ok(32));
        }
        closer.join().unwrap();
    });
}

#[test]
fn an_orderly_end_of_the_producer_is_not_taken_for_its_death() {
    explore(4, || {
        let (mut producer, mut consumer) = Pipe::used(Never, 32, &[]);
        assert_eq!(consumer.try_recv_or_end(), Err(Nothing::Yet));
        let role = Role::held();
        let held = role.clone();
        let closer = thread::spawn(move || {
            producer.writer.close();
            held.give_back();
        });
        assert_eq!(consumer.look_for_death(|| role.is_free()), Err(Nothing::Yet));
        closer.join().unwrap();
    });
}

#[test]
fn an_orderly_end_of_the_consumer_is_not_taken_for_its_death() {
    explore(4, || {
        let (mut producer, mut consumer) = Pipe::used(Never, 32, &[]);
        producer.send(&[1; 8]);
        let role = Role::held();
        let held = role.clone();
        let closer = thread::spawn(move || {
            consumer.reader.close();
            held.give_back();
        });
        assert_eq!(producer.look_for_death(8, || role.is_free()), Err(Refusal::Full));
        closer.join().unwrap();
    });
}

#[test]
fn what_the_dead_producer_committed_is_found_before_its_death_is_told() {
    explore_deaths(4, |steps| {
        let (mut producer, mut consumer) = Pipe::used(Never, 32, &[]);
        assert_eq!(consumer.try_recv_or_end(), Err(Nothing::Yet));
        let role = Role::held();
        let held = role.clone();
        let victim = thread::spawn(move || {
            let killed = killed_after(steps, || producer.send(&[1; 8]));
            held.give_back();
            (killed, producer.pipe)
        });
        let found = match consumer.try_recv() {
            Err(Nothing::Yet) => consumer.look_for_death(|| role.is_free()),
            other => other,
        };
        let (killed, pipe) = victim.join().unwrap();
        match found {
            Ok(message) => assert_eq!(message, [1; 8]),
            Err(Nothing::Yet) => {}
            Err(Nothing::Ever(NoMore::Abandoned)) => assert_eq!(pipe.producer().writer.tail(), 0),
            Err(other) => panic!("{other:?}"),
        }
        killed
    });
}

#[test]
fn what_the_dead_consumer_released_is_found_before_its_death_is_told() {
    explore_deaths(4, |steps| {
        let (mut producer, mut consumer) = Pipe::used(Never, 32, &[]);
        producer.send(&[1; 8]);
        let role = Role::held();
        let held = role.clone();
        let victim = thread::spawn(move || {
            let killed = killed_after(steps, || drop(consumer.recv()));
            held.give_back();
            (killed, consumer.pipe)
        });
        let found = match producer.try_send(&[2; 8]) {
            Err(Refusal::Full) => producer.look_for_death(8, || role.is_free()),
            sent => sent.map(|_| ()),
        };
        let (killed, pipe) = victim.join().unwrap();
        match found {
            Ok(()) | Err(Refusal::Full) => {}
            Err(Refusal::Abandoned) => assert_eq!(pipe.consumer().reader.head(), 0),
            Err(other) => panic!("{other:?}"),
        }
        killed
    });
}

#[test]
fn a_successor_wakes_the_consumer_for_which_the_dead_producer_did_not_ring() {
    explore_deaths(4, |steps| {
        let (mut producer, mut consumer) = Pipe::used(Fence, 64, &[]);
        assert_eq!(consumer.try_recv_or_end(), Err(Nothing::Yet));
        let first = consumer.reader.peer_state();
        let victim = thread::spawn(move || {
            let killed = killed_after(steps, || producer.send(&[1; 8]));
            (killed, producer.pipe.producer().writer.tail())
        });
        let mut message = consumer.try_recv();
        while message.is_err() {
            let succeeded = consumer.reader.peer_state() != first;
            message = consumer.try_recv();
            if message.is_err() && succeeded {
                break;
            }
            if message.is_err() {
                consumer.reader.sleep(FOREVER);
            }
        }
        let (killed, tail) = victim.join().unwrap();
        assert_eq!(message.is_ok(), tail == 16);
        killed
    });
}

#[test]
fn a_successor_wakes_the_producer_for_which_the_dead_consumer_did_not_ring() {
    explore_deaths(4, |steps| {
        let (mut producer, mut consumer) = Pipe::used(Fence, 32, &[]);
        producer.send(&[1; 8]);
        let victim = thread::spawn(move || {
            let killed = killed_after(steps, || {
                consumer = consumer.pipe.consumer();
                drop(consumer.recv());
            });
            let mut successor = consumer.pipe.consumer();
            // It gets the message again only if it was not released.
            if successor.reader.head() == 0 {
                assert_eq!(successor.recv(), [1; 8]);
            }
            killed
        });
        producer.send_or_sleep(&[2; 8]).unwrap();
        victim.join().unwrap()
    });
}
