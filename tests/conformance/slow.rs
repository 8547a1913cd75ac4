//! Slow readers, loggers, streams of bytes: what an endpoint does beside sending and receiving one message.

use shmpipe::{
    FlushError, Options, RecvError, SendError, TryRecvError, TrySendError, Wait, WakeMode, inspect,
};
use shmpipe_testing::backend::Backend;
use shmpipe_testing::layout::{PRODUCED, counters, identity};
use shmpipe_testing::{LONG, end, within};
use std::thread;
use std::time::{Duration, Instant};

pub fn a_producer_ahead_of_its_consumer_sleeps_once_per_share(backend: Backend) {
    const MESSAGES: u64 = 1000;
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(1 << 16)).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    thread::scope(|scope| {
        scope.spawn(move || (0..MESSAGES).map(|_| producer.send(&[7; 248]).unwrap()).count());
        for _ in 0..MESSAGES {
            consumer.recv().unwrap().release();
            thread::sleep(Duration::from_micros(100));
        }
    });
    // A share is 64 messages.
    let woken = inspect(&place).unwrap().consumer.wakeups;
    assert!(woken < MESSAGES / 8, "woken {woken} times for {MESSAGES} messages");
}

pub fn a_napping_consumer_is_never_woken(backend: Backend) {
    for mode in [WakeMode::Membarrier, WakeMode::Fence, WakeMode::Never] {
        let place = backend.place();
        let nap = Options::new().wake_mode(mode).wait(Wait::Sleep(Duration::from_millis(2)));
        let pipe = place.create(&nap).unwrap();
        let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
        thread::scope(|scope| {
            scope.spawn(move || {
                for _ in 0..20 {
                    thread::sleep(Duration::from_millis(5));
                    producer.send(b"a line").unwrap();
                }
            });
            (0..20).for_each(|_| assert_eq!(consumer.recv().unwrap().to_vec(), b"a line"));
        });
        let seen = inspect(&place).unwrap();
        // Closing wakes a sleeper without counting it.
        assert_eq!((seen.producer.wakeups, seen.consumer.wakeups), (0, 0), "{mode}");
        assert_ne!(seen.consumer.waits, 0);
    }
}

pub fn dropped_messages_are_counted_in_the_segment(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(4096)).unwrap();
    let mut producer = pipe.producer().unwrap();
    let mut dropped = 0;
    for _ in 0..300 {
        match producer.try_send(&[1; 8]) {
            Err(TrySendError::Full) => {
                producer.count_dropped(1);
                dropped += 1;
            }
            sent => drop(sent.unwrap()),
        }
    }
    assert_eq!((dropped, inspect(&place).unwrap().dropped), (45, 45));
    // A successor continues the count.
    drop(producer);
    let mut producer = pipe.producer().unwrap();
    producer.count_dropped(1000);
    assert_eq!(inspect(&place).unwrap().dropped, 1045);
    producer.finish().unwrap();
    producer.count_dropped(1);
    assert_eq!(inspect(&place).unwrap().dropped, 1045, "the word is the next producer's");
}

pub fn a_pipe_that_does_not_count_dropped_messages_stays_as_it_is(backend: Backend) {
    let place = backend.place();
    let _pipe = place.create(&Options::new()).unwrap();
    place.segment().set(identity::HINTS, 0);
    let mut producer = Options::new().open(&place).unwrap().producer().unwrap();
    producer.count_dropped(7);
    assert_eq!(inspect(&place).unwrap().dropped, 0);
    assert_eq!(place.segment().get(PRODUCED + counters::DROPPED), 0);
}

pub fn a_finished_producer_sends_nothing_more(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(4096)).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    producer.send(b"the last one").unwrap();
    producer.finish().unwrap();
    let mut successor = pipe.producer().unwrap();
    for _ in 0..2 {
        assert_eq!(producer.try_send(b"too late"), Err(TrySendError::Closed));
        assert_eq!(producer.send(b"too late"), Err(SendError::Closed));
        assert_eq!(producer.send(&[1; 1000]), Err(SendError::Closed));
        assert_eq!(producer.reserve(8).unwrap_err(), SendError::Closed);
        assert_eq!(producer.batch().push(b"too late"), Err(SendError::Closed));
        assert_eq!(producer.flush(Some(within(LONG))), Err(FlushError::Closed));
        assert_eq!(producer.is_drained(), Ok(false));
        producer.finish().unwrap();
    }
    successor.send(b"of the successor").unwrap();
    for expected in [b"the last one".as_slice(), b"of the successor"] {
        assert_eq!(consumer.recv().unwrap().to_vec(), expected);
    }
    assert_eq!(producer.is_drained(), Ok(true));
    drop(producer);
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty, "the successor has not closed");
    successor.finish().unwrap();
    assert_eq!(consumer.recv().unwrap_err(), RecvError::Closed);
}

pub fn a_finished_consumer_receives_nothing_more(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(4096)).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    producer.send(b"for the successor").unwrap();
    consumer.finish().unwrap();
    assert_eq!(producer.send(b"too late"), Err(SendError::Closed));
    let mut successor = pipe.consumer().unwrap();
    for _ in 0..2 {
        assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Closed);
        assert_eq!(consumer.recv().unwrap_err(), RecvError::Closed);
        assert_eq!(consumer.drain(10).next().map(|record| record.is_some()), Ok(false));
        consumer.finish().unwrap();
    }
    drop(consumer);
    producer.send(b"another").unwrap();
    for expected in [b"for the successor".as_slice(), b"another"] {
        assert_eq!(successor.recv().unwrap().to_vec(), expected);
    }
}

pub fn a_flush_waits_until_everything_is_released(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(4096)).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    producer.flush(None).unwrap();
    for _ in 0..3 {
        producer.send(b"a line").unwrap();
    }
    let deadline = within(Duration::from_millis(20));
    assert_eq!(producer.flush(Some(deadline)), Err(FlushError::TimedOut));
    assert!(Instant::now() >= deadline, "too early");
    let consumer = thread::scope(|scope| {
        let receiving = scope.spawn(|| {
            for _ in 0..3 {
                thread::sleep(Duration::from_millis(5));
                consumer.recv().unwrap().release();
            }
            consumer
        });
        producer.flush(Some(within(LONG))).unwrap();
        assert_eq!(producer.is_drained(), Ok(true));
        receiving.join().unwrap()
    });
    // One wake-up, and not one for each message.
    assert!(inspect(&place).unwrap().consumer.wakeups <= 1);
    producer.cancel_handle().cancel();
    producer.flush(None).unwrap();
    producer.send(b"a line").unwrap();
    assert_eq!(producer.flush(None), Err(FlushError::Cancelled));
    consumer.close().unwrap();
    assert_eq!(producer.flush(None), Err(FlushError::Closed));
}

pub fn a_flush_ends_when_the_consumer_does(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(4096)).unwrap();
    let mut producer = pipe.producer().unwrap();
    let consumer = end::consumer(&place);
    producer.send(b"a line").unwrap();
    thread::scope(|scope| {
        let flushing = scope.spawn(|| producer.flush(Some(within(LONG))));
        thread::sleep(Duration::from_millis(5));
        consumer.kill();
        assert_eq!(flushing.join().unwrap(), Err(FlushError::PeerDied));
    });
    let mut consumer = end::consumer(&place);
    assert_eq!(consumer.ask("recv"), "\"a line\"");
    producer.flush(None).unwrap();
    producer.send(b"another").unwrap();
    assert_eq!(consumer.ask("abort 7"), "aborted");
    assert_eq!(producer.flush(None), Err(FlushError::PeerAborted { code: 7 }));
    consumer.end();
    // What has been received before the consumer closed is not reported.
    let mut consumer = pipe.consumer().unwrap();
    consumer.recv().unwrap().release();
    consumer.close().unwrap();
    producer.flush(None).unwrap();
}
