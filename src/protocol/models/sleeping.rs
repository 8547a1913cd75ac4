//! Sleeping and waking. The modelled futex has no timeout, so a lost wake-up is a deadlock, which loom reports.

use super::pipe::{Nothing, Pipe, explore, sleep_for_peer, sleep_for_record, sleep_for_space};
use crate::protocol::half::Half;
use crate::protocol::liveness::{Phase, State};
use crate::protocol::sync::{Ordering, killed_after};
use crate::protocol::wakeup::WakeMode::Fence;
use loom::thread;

#[test]
fn messages_wake_a_sleeping_consumer() {
    explore(4, || {
        let (mut producer, mut consumer) = Pipe::used(Fence, 64, &[]);
        let sender = thread::spawn(move || {
            producer.send(&[1; 8]);
            producer.send(&[2; 8]);
        });
        for n in 1..=2 {
            assert_eq!(consumer.recv_or_sleep().unwrap(), [n; 8]);
        }
        sender.join().unwrap();
        let wakeups = consumer.pipe.header().produced.0.wakeups.load(Ordering::Relaxed);
        assert!(wakeups <= consumer.sleeps, "more than one wake-up for a sleep");
    });
}

#[test]
fn released_space_wakes_a_sleeping_producer() {
    explore(4, || {
        let (mut producer, mut consumer) = Pipe::used(Fence, 64, &[]);
        for n in 1..=3 {
            producer.send(&[n; 8]);
        }
        let sender = thread::spawn(move || {
            // The record goes to the start of the ring, so the consumer must release the first message and the second.
            assert_eq!(producer.send_or_sleep(&[4; 16]), Ok(64));
        });
        for n in 1..=2 {
            assert_eq!(consumer.recv(), [n; 8]);
        }
        sender.join().unwrap();
        let wakeups = consumer.pipe.header().consumed.0.wakeups.load(Ordering::Relaxed);
        assert!(wakeups <= 1, "woken before there was space");
    });
}

#[test]
fn a_producer_sleeps_once_for_a_share_of_the_ring() {
    explore(3, || {
        // These fill the ring. A share is there once the three short ones are released.
        let lengths = [8, 8, 8, 120, 56];
        let (mut producer, mut consumer) = Pipe::used(Fence, 256, &[]);
        for length in lengths {
            producer.send(&vec![1; length]);
        }
        let sender = thread::spawn(move || {
            for _ in 0..3 {
                producer.send_or_sleep_for_share(&[2; 8]).unwrap();
            }
        });
        for length in lengths.into_iter().chain([8; 3]) {
            assert_eq!(consumer.recv().len(), length);
        }
        sender.join().unwrap();
        let wakeups = consumer.pipe.header().consumed.0.wakeups.load(Ordering::Relaxed);
        // One of them may come too late for a sleep that did not happen.
        assert!(wakeups <= 2, "woken before there was a share");
    });
}

#[test]
fn a_batch_asks_for_no_more_than_can_become_free() {
    explore(3, || {
        // The batch takes all but the last three words: a share on top of it is more than the ring.
        let (mut producer, mut consumer) = Pipe::used(Fence, 128, &[]);
        producer.send(&[1; 8]);
        let sender = thread::spawn(move || {
            producer.send_batch_or_sleep_for_share(&[&[2; 56], &[3; 24], &[], &[]]);
        });
        for length in [8, 56, 24, 0, 0] {
            assert_eq!(consumer.recv().len(), length);
        }
        sender.join().unwrap();
    });
}

#[test]
fn both_sides_sleep_and_wake_each_other() {
    explore(3, || {
        // There is space for one message at a time.
        let (mut producer, mut consumer) = Pipe::used(Fence, 32, &[]);
        let sender = thread::spawn(move || {
            for n in 1..=3 {
                producer.send_or_sleep(&[n; 8]).unwrap();
            }
        });
        for n in 1..=3 {
            assert_eq!(consumer.recv_or_sleep().unwrap(), [n; 8]);
        }
        sender.join().unwrap();
    });
}

#[test]
fn both_sides_sleep_between_batches_and_drains() {
    explore(3, || {
        // The last record goes to the start of the ring, so the consumer must release the whole first batch.
        let (mut producer, mut consumer) = Pipe::used(Fence, 64, &[]);
        let sender = thread::spawn(move || {
            producer.send_batch_or_sleep(&[&[1; 8], &[2; 8]]);
            producer.send_batch_or_sleep(&[&[3; 8], &[4; 16]]);
        });
        let mut taken = vec![];
        while taken.len() < 4 {
            taken.extend(consumer.drain_or_sleep(2));
        }
        assert_eq!(taken, [vec![1; 8], vec![2; 8], vec![3; 8], vec![4; 16]]);
        sender.join().unwrap();
    });
}

#[test]
fn a_producer_that_waited_for_a_peer_wakes_for_space() {
    explore(4, || {
        let (mut producer, mut consumer) = Pipe::used(Fence, 32, &[]);
        producer.send(&[1; 8]);
        // It waited for a consumer before, with a threshold that no head reaches.
        sleep_for_peer(&producer.writer, State::IMPOSSIBLE);
        let sender = thread::spawn(move || {
            producer.send_or_sleep(&[2; 8]).unwrap();
        });
        assert_eq!(consumer.recv(), [1; 8]);
        sender.join().unwrap();
    });
}

#[test]
fn an_attaching_consumer_wakes_a_waiting_producer() {
    explore(4, || {
        let pipe = Pipe::new(Fence, 32);
        let producer = pipe.producer();
        let waiting = thread::spawn(move || {
            let never = State::new(0, Phase::Never);
            while producer.writer.peer_state() == never {
                sleep_for_peer(&producer.writer, never);
            }
        });
        let _consumer = pipe.consumer();
        waiting.join().unwrap();
    });
}

#[test]
fn an_attaching_producer_wakes_a_waiting_consumer() {
    explore(4, || {
        let pipe = Pipe::new(Fence, 32);
        let consumer = pipe.consumer();
        let waiting = thread::spawn(move || {
            let never = State::new(0, Phase::Never);
            while consumer.reader.peer_state() == never {
                sleep_for_peer(&consumer.reader, never);
            }
        });
        let _producer = pipe.producer();
        waiting.join().unwrap();
    });
}

#[test]
fn a_consumer_wakes_after_its_predecessor_died_asleep() {
    explore(4, || {
        let (mut producer, mut consumer) = Pipe::used(Fence, 64, &[]);
        assert_eq!(consumer.try_recv_or_end(), Err(Nothing::Yet));
        // Killed after storing its waiter epoch.
        assert!(killed_after(1, || sleep_for_record(&consumer.reader)));
        let sender = thread::spawn(move || {
            producer.send(&[1; 8]);
            producer.send(&[2; 8]);
        });
        let mut successor = consumer.pipe.consumer();
        for n in 1..=2 {
            assert_eq!(successor.recv_or_sleep().unwrap(), [n; 8]);
        }
        sender.join().unwrap();
    });
}

#[test]
fn a_producer_wakes_after_its_predecessor_died_asleep() {
    explore(4, || {
        let (mut producer, mut consumer) = Pipe::used(Fence, 32, &[]);
        producer.send(&[1; 8]);
        // Killed after storing its threshold and its waiter epoch.
        let at = producer.writer.tail();
        assert!(killed_after(2, || sleep_for_space(&producer.writer, at, 8)));
        let receiver = thread::spawn(move || {
            for n in 1..=3 {
                assert_eq!(consumer.recv(), [n; 8]);
            }
        });
        let mut successor = producer.pipe.producer();
        for n in 2..=3 {
            successor.send_or_sleep(&[n; 8]).unwrap();
        }
        receiver.join().unwrap();
    });
}

#[test]
fn a_predecessors_waiter_epoch_causes_no_wakeup() {
    explore(4, || {
        let (mut producer, mut consumer) = Pipe::used(Fence, 32, &[]);
        assert_eq!(consumer.try_recv_or_end(), Err(Nothing::Yet));
        assert!(killed_after(1, || sleep_for_record(&consumer.reader)));
        let sender = thread::spawn(move || {
            // It may notify the dead consumer. Then it dies in its own sleep.
            producer.send(&[1; 8]);
            let at = producer.writer.tail();
            killed_after(2, || sleep_for_space(&producer.writer, at, 8));
            producer.pipe.producer()
        });
        let pipe = consumer.pipe.clone();
        let mut consumer = pipe.consumer();
        let mut producer = sender.join().unwrap();
        let header = pipe.header();
        let wakeups =
            || [&header.produced.0, &header.consumed.0].map(|side| side.wakeups.load(Ordering::Relaxed));
        let before = wakeups();
        assert_eq!(consumer.recv(), [1; 8]);
        producer.send(&[2; 8]);
        assert_eq!(wakeups(), before);
    });
}
