//! One thread that sleeps on several pipes. As in `sleeping.rs`, a lost wake-up is a deadlock.

use super::pipe::{Consumer, Nothing, Pipe, Producer, explore, sleep_for_any};
use crate::protocol::sync::Bucket;
use crate::protocol::wakeup::WakeMode::Fence;
use loom::thread;

/// Both ends of several pipes, whose peers have attached.
fn pipes<const N: usize>() -> [(Producer, Consumer); N] {
    let bucket = Bucket::new();
    std::array::from_fn(|_| {
        let pipe = Pipe::in_bucket(Fence, 64, Some(&bucket));
        (pipe.producer(), pipe.consumer())
    })
}

/// Receives `count` messages from several pipes, in one thread that sleeps on all of them.
fn collect(consumers: &mut [Consumer], count: usize) -> Vec<Vec<u8>> {
    let mut taken = vec![];
    loop {
        for consumer in consumers.iter_mut() {
            match consumer.try_recv_or_end() {
                Ok(message) => taken.push(message),
                Err(Nothing::Yet | Nothing::Ever(_)) => {}
                Err(Nothing::PeerDied) => unreachable!("no model kills"),
            }
        }
        if taken.len() == count {
            return taken;
        }
        let readers: Vec<_> = consumers.iter().map(|consumer| &consumer.reader).collect();
        sleep_for_any(&readers);
    }
}

#[test]
fn a_message_in_either_of_two_pipes_wakes_their_consumer() {
    explore(3, || {
        let [(mut one, first), (mut two, second)] = pipes();
        let other = thread::spawn(move || {
            two.send(&[2; 8]);
            two
        });
        let sender = thread::spawn(move || {
            one.send(&[1; 8]);
            one
        });
        let mut taken = collect(&mut [first, second], 2);
        taken.sort();
        assert_eq!(taken, [[1; 8], [2; 8]]);
        (sender.join().unwrap(), other.join().unwrap());
    });
}

#[test]
fn two_messages_in_one_of_two_pipes_wake_their_consumer_each() {
    explore(3, || {
        let [(mut one, first), (_two, second)] = pipes();
        let sender = thread::spawn(move || {
            one.send(&[1; 8]);
            one.send(&[2; 8]);
            one
        });
        let taken = collect(&mut [first, second], 2);
        assert_eq!(taken, [[1; 8], [2; 8]]);
        sender.join().unwrap();
    });
}

#[test]
fn a_message_in_each_of_three_pipes_wakes_their_consumer() {
    explore(2, || {
        let [(mut one, first), (mut two, second), (mut three, third)] = pipes();
        let sender = thread::spawn(move || {
            one.send(&[1; 8]);
            two.send(&[2; 8]);
            three.send(&[3; 8]);
            (one, two, three)
        });
        let mut taken = collect(&mut [first, second, third], 3);
        taken.sort();
        assert_eq!(taken, [[1; 8], [2; 8], [3; 8]]);
        sender.join().unwrap();
    });
}
