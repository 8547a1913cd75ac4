//! Closing, aborting and dying: what the peer finds first, and how it learns of the end.

use super::pipe::{Nothing, Pipe, Role, explore, explore_deaths, sleep_for_record};
use crate::protocol::half::Half;
use crate::protocol::liveness::{End, PeerDied};
use crate::protocol::reader::RecvEnd;
use crate::protocol::sync::{killed_after, spin_loop};
use crate::protocol::wakeup::WakeMode::{Fence, Never};
use crate::protocol::writer::ReserveError;
use loom::thread;

#[test]
fn a_closing_producer_wakes_a_sleeping_consumer() {
    explore(4, || {
        let (mut producer, mut consumer) = Pipe::used(Fence, 32, &[]);
        let closer = thread::spawn(move || producer.writer.end(End::Closed));
        assert_eq!(consumer.recv_or_sleep(), Err(Nothing::Ever(RecvEnd::Ended(End::Closed))));
        closer.join().unwrap();
    });
}

#[test]
fn a_closing_consumer_wakes_a_sleeping_producer() {
    explore(4, || {
        let (mut producer, mut consumer) = Pipe::used(Fence, 32, &[]);
        producer.send(&[1; 8]);
        let closer = thread::spawn(move || consumer.reader.end(End::Closed));
        assert_eq!(producer.send_or_sleep(&[2; 8]), Err(ReserveError::Ended(End::Closed)));
        closer.join().unwrap();
    });
}

#[test]
fn the_last_message_is_received_before_the_close() {
    explore(4, || {
        let (mut producer, mut consumer) = Pipe::used(Never, 64, &[]);
        let closer = thread::spawn(move || {
            producer.send(&[1; 8]);
            producer.writer.end(End::Closed);
        });
        assert_eq!(consumer.recv_or_end().unwrap(), [1; 8]);
        // Every time.
        for _ in 0..2 {
            assert_eq!(consumer.recv_or_end(), Err(Nothing::Ever(RecvEnd::Ended(End::Closed))));
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
            producer.writer.end(End::Closed);
        });
        assert_eq!(consumer.recv_or_sleep().unwrap(), [1; 8]);
        assert_eq!(consumer.recv_or_sleep(), Err(Nothing::Ever(RecvEnd::Ended(End::Closed))));
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
            consumer.reader.end(End::Closed);
        });
        let mut sent = producer.try_send(&[2; 8]);
        while sent == Err(ReserveError::Full) {
            spin_loop();
            sent = producer.try_send(&[2; 8]);
        }
        if sent == Err(ReserveError::Ended(End::Closed)) {
            assert_eq!(producer.writer.free(), Ok(24));
        }
        closer.join().unwrap();
    });
}

#[test]
fn an_aborting_producer_wakes_a_sleeping_consumer() {
    explore(4, || {
        let (mut producer, mut consumer) = Pipe::used(Fence, 32, &[]);
        let aborter = thread::spawn(move || producer.writer.end(End::Aborted { code: 7 }));
        assert_eq!(consumer.recv_or_sleep(), Err(Nothing::Ever(RecvEnd::Ended(End::Aborted { code: 7 }))));
        aborter.join().unwrap();
    });
}

#[test]
fn an_aborting_consumer_wakes_a_sleeping_producer() {
    explore(4, || {
        let (mut producer, mut consumer) = Pipe::used(Fence, 32, &[]);
        producer.send(&[1; 8]);
        let aborter = thread::spawn(move || consumer.reader.end(End::Aborted { code: 7 }));
        assert_eq!(producer.send_or_sleep(&[2; 8]), Err(ReserveError::Ended(End::Aborted { code: 7 })));
        aborter.join().unwrap();
    });
}

#[test]
fn the_last_message_is_received_before_the_abort() {
    explore(4, || {
        let (mut producer, mut consumer) = Pipe::used(Never, 64, &[]);
        let aborter = thread::spawn(move || {
            producer.send(&[1; 8]);
            producer.writer.end(End::Aborted { code: 7 });
        });
        assert_eq!(consumer.recv_or_end().unwrap(), [1; 8]);
        assert_eq!(consumer.recv_or_end(), Err(Nothing::Ever(RecvEnd::Ended(End::Aborted { code: 7 }))));
        // Once.
        assert_eq!(consumer.try_recv_or_end(), Err(Nothing::Yet));
        aborter.join().unwrap();
    });
}

#[test]
fn an_orderly_end_of_the_producer_is_not_reported_as_its_death() {
    explore(4, || {
        let (mut producer, mut consumer) = Pipe::used(Never, 32, &[]);
        assert_eq!(consumer.try_recv_or_end(), Err(Nothing::Yet));
        let role = Role::held();
        let held = role.clone();
        let closer = thread::spawn(move || {
            producer.writer.end(End::Closed);
            held.give_back();
        });
        assert_eq!(consumer.check_for_death(|| role.is_free()), Err(Nothing::Yet));
        closer.join().unwrap();
    });
}

#[test]
fn an_orderly_end_of_the_consumer_is_not_reported_as_its_death() {
    explore(4, || {
        let (mut producer, mut consumer) = Pipe::used(Never, 32, &[]);
        producer.send(&[1; 8]);
        let role = Role::held();
        let held = role.clone();
        let closer = thread::spawn(move || {
            consumer.reader.end(End::Closed);
            held.give_back();
        });
        assert_eq!(producer.check_for_death(8, || role.is_free()), Ok(Err(ReserveError::Full)));
        closer.join().unwrap();
    });
}

#[test]
fn a_dead_producers_message_is_found_before_its_death_is_reported() {
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
            Err(Nothing::Yet) => consumer.check_for_death(|| role.is_free()),
            other => other,
        };
        let (killed, pipe) = victim.join().unwrap();
        match found {
            Ok(message) => assert_eq!(message, [1; 8]),
            Err(Nothing::Yet) => {}
            Err(Nothing::PeerDied) => assert_eq!(pipe.producer().writer.tail(), 0),
            Err(other) => panic!("{other:?}"),
        }
        killed
    });
}

#[test]
fn a_dead_consumers_release_is_found_before_its_death_is_reported() {
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
            Err(ReserveError::Full) => {
                producer.check_for_death(8, || role.is_free()).map(|slot| slot.map(drop))
            }
            sent => Ok(sent.map(drop)),
        };
        let (killed, pipe) = victim.join().unwrap();
        match found {
            Ok(Ok(()) | Err(ReserveError::Full)) => {}
            Err(PeerDied) => assert_eq!(pipe.consumer().reader.head(), 0),
            Ok(Err(error)) => panic!("{error:?}"),
        }
        killed
    });
}

#[test]
fn a_successor_wakes_the_consumer_that_a_dead_producer_did_not_notify() {
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
                sleep_for_record(&consumer.reader);
            }
        }
        let (killed, tail) = victim.join().unwrap();
        assert_eq!(message.is_ok(), tail == 16);
        killed
    });
}

#[test]
fn a_successor_wakes_the_producer_that_a_dead_consumer_did_not_notify() {
    explore_deaths(4, |steps| {
        let (mut producer, mut consumer) = Pipe::used(Fence, 32, &[]);
        producer.send(&[1; 8]);
        let victim = thread::spawn(move || {
            let killed = killed_after(steps, || {
                consumer = consumer.pipe.consumer();
                drop(consumer.recv());
            });
            let mut successor = consumer.pipe.consumer();
            // It receives the message again only if its predecessor did not release it.
            if successor.reader.head() == 0 {
                assert_eq!(successor.recv(), [1; 8]);
            }
            killed
        });
        producer.send_or_sleep(&[2; 8]).unwrap();
        victim.join().unwrap()
    });
}
