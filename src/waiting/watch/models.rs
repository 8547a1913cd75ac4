//! Loom models of a set beyond its first members: the waiting thread sleeps on a bell, which a watching thread rings.

use super::{Shared, Subject};
use crate::protocol::models::pipe::{Consumer, Nothing, Pipe, Producer, explore};
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

/// Runs `model` with a pipe whose peers have attached, the bell that is rung for it, and a function that has it watched.
fn watched(model: impl FnOnce(Producer, Consumer, &Bell, &dyn Fn())) {
    let bucket = Bucket::new();
    let pipe = Pipe::in_bucket(Fence, 64, Some(&bucket));
    let (producer, consumer) = (pipe.producer(), pipe.consumer());
    let bell = Arc::new(Bell::new());
    let watch = Arc::new(Shared::new(Futex::in_bucket(&bucket)));
    let running = watch.clone();
    let watching = thread::spawn(move || running.run());
    model(producer, consumer, &bell, &|| watch.insert(0, Far { pipe: pipe.clone(), bell: bell.clone() }));
    watch.end();
    watching.join().unwrap();
}

#[test]
fn a_message_in_a_watched_pipe_wakes_the_thread_at_the_bell() {
    explore(2, || {
        watched(|mut producer, mut consumer, bell, watch| {
            watch();
            let sender = thread::spawn(move || {
                producer.send(&[1; 8]);
                producer
            });
            assert_eq!(receive(&mut consumer, bell, 1), [[1; 8]]);
            sender.join().unwrap();
        });
    });
}

#[test]
fn a_pipe_that_joins_while_the_thread_sleeps_is_watched() {
    explore(2, || {
        watched(|mut producer, mut consumer, bell, watch| {
            watch();
            assert_eq!(consumer.try_recv_or_end(), Err(Nothing::Yet));
            let seen = bell.seen();
            let sleep = consumer.reader.announce_for_record();
            before_sleeping(Fence);
            assert!(sleep.is_pending());
            producer.send(&[1; 8]);
            // Nothing else rings it.
            seen.wait(Duration::MAX);
            assert_eq!(consumer.recv(), [1; 8]);
        });
    });
}
