//! A watcher that copies records while the producer overwrites them.

use super::pipe::{Consumer, Pipe, Producer, explore};
use crate::protocol::tap::{Seen, Tap};
use crate::protocol::wakeup::WakeMode::Never;
use loom::thread;

/// Follows a pipe while `pass` passes messages through it. The payload of each is 8 bytes of its number, from 1 on.
fn tap_while(capacity: u64, pass: impl FnOnce(&mut Producer, &mut Consumer) + Send + 'static) {
    let (mut producer, mut consumer) = Pipe::used(Never, capacity, &[&[0xEE; 8]]);
    let pipe = producer.pipe.clone();
    producer.try_send(&[1; 8]).unwrap();
    let mut tap = Tap::at_unread(pipe.ring());
    let passing = thread::spawn(move || pass(&mut producer, &mut consumer));
    let (mut payload, mut last) = (Vec::new(), 0);
    // A bounded number of looks: the model ends with whatever they found.
    for _ in 0..2 {
        if let Seen::Record { tag, .. } = tap.next(&mut payload).expect("a correct pipe") {
            assert_eq!(payload, [payload[0]; 8], "the bytes of one message");
            assert!(payload[0] > last && payload[0] < 0xEE, "in order: {} after {last}", payload[0]);
            assert_eq!(tag, 0);
            last = payload[0];
        }
    }
    passing.join().unwrap();
}

#[test]
fn a_tap_shows_no_byte_of_a_later_lap() {
    explore(4, || {
        // One record fills the ring, so that the second overwrites the first.
        tap_while(32, |producer, consumer| {
            assert_eq!(consumer.recv(), [1; 8]);
            producer.send(&[2; 8]);
        });
    });
}

#[test]
fn a_tap_shows_no_byte_of_a_batch_that_is_not_committed() {
    explore(3, || {
        tap_while(64, |producer, consumer| {
            assert_eq!(consumer.recv(), [1; 8]);
            producer.send_batch(&[&[2; 8], &[3; 8], &[4; 8]]);
        });
    });
}
