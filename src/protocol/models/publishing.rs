//! Publishing and releasing: what one side may conclude from the words that the other side has stored.

use super::pipe::{Nothing, Pipe, explore};
use crate::protocol::record;
use crate::protocol::sync::spin_loop;
use crate::protocol::wakeup::WakeMode::Never;
use loom::thread;

#[test]
fn messages_arrive_whole_and_in_order_across_the_wrap() {
    explore(4, || {
        // The next record goes to 32, and a record of 24 bytes does not fit after it.
        let (mut producer, mut consumer) = Pipe::used(Never, 64, &[&[0xEE; 24]]);
        let sender = thread::spawn(move || {
            producer.send(&[1; 13]);
            producer.send(&[2; 16]);
            assert_eq!(producer.writer.tail(), 88);
        });
        assert_eq!(consumer.recv(), [1; 13]);
        assert_eq!(consumer.recv(), [2; 16]);
        assert_eq!(consumer.reader.head(), 88);
        sender.join().unwrap();
    });
}

#[test]
fn a_full_ring_is_overwritten_only_where_it_was_released() {
    explore(4, || {
        // The second record does not fit after the first, and at the start of the ring it overlaps the first.
        let (mut producer, mut consumer) = Pipe::used(Never, 64, &[&[]]);
        producer.try_send(&[1; 24]).unwrap();
        let sender = thread::spawn(move || {
            producer.send(&[2; 24]);
            assert_eq!(producer.writer.tail(), 96);
        });
        for n in 1..=2 {
            assert_eq!(consumer.recv(), [n; 24]);
        }
        sender.join().unwrap();
    });
}

#[test]
fn the_smallest_ring_passes_one_record_at_a_time() {
    explore(4, || {
        // One record and the header word after it fill the ring.
        let (mut producer, mut consumer) = Pipe::used(Never, 32, &[]);
        let sender = thread::spawn(move || {
            for n in 1..=3 {
                producer.send(&[n; 8]);
            }
        });
        for n in 1..=3 {
            assert_eq!(consumer.recv(), [n; 8]);
        }
        sender.join().unwrap();
    });
}

#[test]
fn stale_bytes_of_the_last_lap_are_not_a_message() {
    explore(4, || {
        // The payload of the first message is a header word, at index 8.
        let phantom = record::header(0, 7).to_ne_bytes();
        let (mut producer, mut consumer) = Pipe::used(Never, 32, &[&phantom, &[], &[]]);
        let sender = thread::spawn(move || {
            producer.send(&[]);
            producer.send(&[2; 8]);
        });
        assert_eq!(consumer.recv(), b"");
        assert_eq!(consumer.recv(), [2; 8]);
        assert_eq!(consumer.try_recv(), Err(Nothing::Yet));
        sender.join().unwrap();
    });
}

#[test]
fn a_shorter_commit_leaves_no_trace_of_the_longer_reservation() {
    explore(4, || {
        let (mut producer, mut consumer) = Pipe::used(Never, 64, &[]);
        let sender = thread::spawn(move || {
            producer.send_shorter(24, 0xFF, &[1; 3]);
            producer.send(&[2; 8]);
        });
        assert_eq!(consumer.recv(), [1; 3]);
        // The padding is zero too.
        assert_eq!(consumer.word(8).to_ne_bytes(), [1, 1, 1, 0, 0, 0, 0, 0]);
        assert_eq!(consumer.recv(), [2; 8]);
        sender.join().unwrap();
    });
}

/// Four records that fill a ring of 128 bytes. None of their words that start a line is zero.
const A_LAP: &[&[u8]] = &[&[0xEE_u8; 24] as &[u8]; 4];

#[test]
fn stale_bytes_after_the_runway_are_not_a_message() {
    explore(3, || {
        let (mut producer, mut consumer) = Pipe::used(Never, 128, A_LAP);
        let sender = thread::spawn(move || {
            // The first message leaves a runway for the second one. The third one would end where that runway ends, at the start of a
            // line.
            (1..=3).for_each(|n| producer.send(&[n; 8]));
        });
        for n in 1..=3 {
            assert_eq!(consumer.recv(), [n; 8]);
        }
        assert_eq!(consumer.try_recv(), Err(Nothing::Yet));
        sender.join().unwrap();
    });
}

#[test]
fn an_abandoned_reservation_leaves_no_message() {
    explore(3, || {
        let (mut producer, mut consumer) = Pipe::used(Never, 128, A_LAP);
        let sender = thread::spawn(move || {
            // Sending this message clears the lines after it.
            producer.send(&[1; 8]);
            producer.give_up_reservation(24, 0xFF);
            // The second empty message ends at the start of a line that the reservation has written to.
            producer.send(&[]);
            producer.send(&[]);
        });
        assert_eq!(consumer.recv(), [1; 8]);
        assert_eq!(consumer.recv(), b"");
        assert_eq!(consumer.recv(), b"");
        assert_eq!(consumer.try_recv(), Err(Nothing::Yet));
        sender.join().unwrap();
    });
}

#[test]
fn a_shorter_commit_after_a_wrap_is_found() {
    explore(3, || {
        // The next record goes to 112, where the runway is one word long.
        let before: &[&[u8]] = &[&[0xEE; 24], &[0xEE; 24], &[0xEE; 8], &[0xEE; 8], &[0xEE; 8]];
        let (mut producer, mut consumer) = Pipe::used(Never, 64, before);
        let sender = thread::spawn(move || {
            // The reservation does not fit before the end of the ring. The committed message would.
            producer.send_part(16, &[]);
            producer.send(&[2; 8]);
            assert_eq!(producer.writer.tail(), 152);
        });
        assert_eq!(consumer.recv(), b"");
        assert_eq!(consumer.reader.head(), 136);
        assert_eq!(consumer.recv(), [2; 8]);
        sender.join().unwrap();
    });
}

/// Checks that the whole batch arrives as soon as any part of it does.
fn arrives_at_once(before: &'static [&'static [u8]], batch: &'static [&'static [u8]], end: u64) {
    explore(4, move || {
        let (mut producer, mut consumer) = Pipe::used(Never, 64, before);
        let sender = thread::spawn(move || {
            producer.send_batch(batch);
            assert_eq!(producer.writer.tail(), end);
        });
        let mut taken = consumer.peek(consumer.reader.head());
        while taken == Err(Nothing::Yet) {
            spin_loop();
            taken = consumer.peek(consumer.reader.head());
        }
        let (mut found, mut message) = taken.unwrap();
        for (n, expected) in batch.iter().enumerate() {
            assert_eq!(message, *expected);
            if n + 1 < batch.len() {
                (found, message) = consumer.peek(found.end).expect("the rest of the batch");
            }
        }
        assert_eq!(consumer.peek(found.end), Err(Nothing::Yet));
        consumer.reader.release(found.end, found.limit, batch.len() as u64, 0);
        assert_eq!(found.end, end);
        sender.join().unwrap();
    });
}

#[test]
fn a_batch_arrives_all_at_once() {
    arrives_at_once(&[], &[&[1; 8], &[], &[3; 8]], 40);
}

#[test]
fn a_batch_with_a_wrap_inside_arrives_all_at_once() {
    arrives_at_once(&[&[0xEE; 24]], &[&[1; 8], &[2; 16]], 88);
}

#[test]
fn a_batch_with_a_wrap_before_its_first_record_arrives_all_at_once() {
    arrives_at_once(&[&[0xEE; 24], &[0xEE; 8]], &[&[1; 16], &[2; 8]], 104);
}

#[test]
fn a_batch_waits_halfway_for_released_space() {
    explore(4, || {
        // There is space for the first record of the batch. The second one goes where the earlier message is.
        let (mut producer, mut consumer) = Pipe::used(Never, 64, &[&[0xEE; 8]]);
        producer.try_send(&[1; 16]).unwrap();
        let sender = thread::spawn(move || {
            producer.send_batch(&[&[2; 8], &[3; 24]]);
            assert_eq!(producer.writer.tail(), 96);
        });
        assert_eq!(consumer.recv(), [1; 16]);
        let mut taken = consumer.drain(9);
        while taken.is_empty() {
            spin_loop();
            taken = consumer.drain(9);
        }
        assert_eq!(taken, [vec![2; 8], vec![3; 24]]);
        sender.join().unwrap();
    });
}

#[test]
fn an_abandoned_batch_leaves_no_message() {
    explore(4, || {
        let (mut producer, mut consumer) = Pipe::used(Never, 64, &[]);
        let sender = thread::spawn(move || {
            // Sending this message clears the lines after it.
            producer.send(&[1; 8]);
            // The second record of the abandoned batch starts a line, where the next message ends.
            producer.give_up_batch(&[&[0xFF; 8], &[0xFF; 8]]);
            producer.send(&[2; 8]);
        });
        assert_eq!(consumer.recv(), [1; 8]);
        assert_eq!(consumer.recv(), [2; 8]);
        assert_eq!(consumer.try_recv(), Err(Nothing::Yet));
        sender.join().unwrap();
    });
}

#[test]
fn records_released_together_are_overwritten_only_after_their_release() {
    explore(4, || {
        // The ring holds two records. The third overlaps the first.
        let (mut producer, mut consumer) = Pipe::used(Never, 64, &[&[]]);
        producer.try_send(&[1; 16]).unwrap();
        producer.try_send(&[2; 8]).unwrap();
        let sender = thread::spawn(move || producer.send(&[3; 24]));
        let mut taken = consumer.drain(2);
        while taken.len() < 3 {
            spin_loop();
            taken.extend(consumer.drain(2));
        }
        assert_eq!(taken, [vec![1; 16], vec![2; 8], vec![3; 24]]);
        sender.join().unwrap();
    });
}
