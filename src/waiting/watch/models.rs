//! Loom models of a set beyond its first members: the waiting thread sleeps on a bell, which a watching thread rings.

use super::{Shared, Subject};
use crate::protocol::models::pipe::{Consumer, Nothing, Pipe, explore};
use crate::protocol::sync::{Bucket, Futex};
use crate::protocol::wakeup::WakeMode::Fence;
use crate::protocol::wakeup::before_sleeping;
use crate::waiting::bell::Bell;
use loom::thread;
use std::sync::Arc;
use std::time::Duration;

/// The word of a pipe that is watched for the thread that waits at a bell.
struct Far {
    pipe: Pipe,
    bell: Arc<Bell>,
}

impl Subject for Far {
    type Notice = Arc<Bell>;

    fn word(&self) -> &Futex {
        &self.pipe.header().producer.0.event_count
    }

    fn notice(&self) -> Arc<Bell> {
        self.bell.clone()
    }

    fn send(bell: Arc<Bell>) {
        bell.ring(0);
    }
}

/// Receives `count` messages, and sleeps at the bell meanwhile.
fn receive(consumer: &mut Consumer, bell: &Bell, count: usize) -> Vec<Vec<u8>> {
    let mut taken = vec![];
    loop {
        let seen = bell.seen();
        bell.take(&mut vec![]);
        while let Ok(message) = consumer.try_recv_or_end() {
            taken.push(message);
        }
        if taken.len() == count {
            return taken;
        }
        let sleep = consumer.reader.announce_for_record();
        before_sleeping(Fence);
        if sleep.is_pending() {
            seen.wait(Duration::MAX);
        }
    }
}

#[test]
fn a_message_in_a_watched_pipe_wakes_the_thread_at_the_bell() {
    explore(2, || {
        let bucket = Bucket::new();
        let pipe = Pipe::in_bucket(Fence, 64, Some(&bucket));
        let (mut producer, mut consumer) = (pipe.producer(), pipe.consumer());
        let bell = Arc::new(Bell::new());
        let watch = Arc::new(Shared::new(Futex::in_bucket(&bucket)));
        watch.insert(0, Far { pipe, bell: bell.clone() });
        let running = watch.clone();
        let watching = thread::spawn(move || running.run());
        let sender = thread::spawn(move || {
            producer.send(&[1; 8]);
            producer
        });
        assert_eq!(receive(&mut consumer, &bell, 1), [[1; 8]]);
        sender.join().unwrap();
        watch.end();
        watching.join().unwrap();
    });
}

#[test]
fn a_pipe_that_joins_late_is_watched_and_one_that_left_is_not() {
    explore(2, || {
        let bucket = Bucket::new();
        let pipe = Pipe::in_bucket(Fence, 64, Some(&bucket));
        let (mut producer, mut consumer) = (pipe.producer(), pipe.consumer());
        let bell = Arc::new(Bell::new());
        let watch = Arc::new(Shared::new(Futex::in_bucket(&bucket)));
        let running = watch.clone();
        let watching = thread::spawn(move || running.run());
        watch.insert(0, Far { pipe, bell: bell.clone() });
        assert_eq!(consumer.try_recv_or_end(), Err(Nothing::Yet));
        let sleep = consumer.reader.announce_for_record();
        before_sleeping(Fence);
        assert!(sleep.is_pending());
        producer.send(&[1; 8]);
        assert_eq!(receive(&mut consumer, &bell, 1), [[1; 8]]);
        watch.replace(0, None);
        watch.end();
        watching.join().unwrap();
    });
}
