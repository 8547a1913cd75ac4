//! Sampled latency.

use shmpipe::{Difference, DuplexSide, Latency, Options, Pipe, inspect};
use shmpipe_testing::backend::{Backend, Place};
use shmpipe_testing::layout::{END, RING};
use shmpipe_testing::{LONG, within};
use std::thread;
use std::time::{Duration, Instant};

/// Crossings are 256 bytes apart.
const CAPACITY: u64 = 4096;

fn measuring() -> Options {
    Options::new().capacity(CAPACITY).measure_latency(true)
}

fn latency(place: &Place) -> Latency {
    inspect(place).unwrap().latency.expect("it is measured")
}

pub fn every_crossing_is_sampled_once_however_it_is_sent_and_received(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&measuring()).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    let samples = || latency(&place).samples();
    // The record ends at 128, at 256, at 384.
    for _ in 0..3 {
        producer.send(&[1; 120]).unwrap();
    }
    assert!(latency(&place).quantile(0.5).is_none());
    for _ in 0..3 {
        // A look is not yet a receipt, and counts once.
        consumer.wait_for_message(None).unwrap();
        consumer.wait_for_message(None).unwrap();
        consumer.recv().unwrap().release();
    }
    assert_eq!(samples(), 1);
    let mut reservation = producer.reserve(300).unwrap();
    reservation.write(0, &[2; 300]);
    reservation.commit();
    consumer.recv().unwrap().release();
    assert_eq!(samples(), 2);
    // From 696: a batch with one message over 768 and one over 1024.
    let mut batch = producer.batch();
    for _ in 0..4 {
        batch.push(&[3; 120]).unwrap();
    }
    batch.commit();
    let mut drain = consumer.drain(usize::MAX);
    while drain.next().unwrap().is_some() {}
    drain.release();
    assert_eq!(samples(), 4);
    // From 1208.
    producer.send(&u64::MAX.to_ne_bytes()).unwrap();
    assert_eq!(consumer.recv().unwrap().value::<u64>(), Ok(u64::MAX));
    assert_eq!(samples(), 4);
}

pub fn a_latency_is_the_time_between_commit_and_receipt(backend: Backend) {
    const HELD: Duration = Duration::from_millis(30);
    let place = backend.place();
    let pipe = place.create(&measuring()).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    producer.send(&[1; 1000]).unwrap();
    thread::sleep(HELD);
    consumer.recv().unwrap().release();
    let first = latency(&place);
    assert_eq!(first.samples(), 1);
    assert!(first.max() >= HELD && first.mean() == first.max() && first.quantile(0.0) == Some(first.max()));
    for _ in 0..99 {
        producer.send(&[1; 1000]).unwrap();
        consumer.recv().unwrap().release();
    }
    let all = latency(&place);
    assert_eq!((all.samples(), all.since(&first).samples()), (100, 99));
    assert_eq!(all.buckets().map(|(_, count)| count).sum::<u64>(), 100);
    assert!(all.quantile(1.0).unwrap() >= HELD && all.mean() < all.max());
}

pub fn each_message_that_ends_a_sleep_is_sampled(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&measuring().capacity(1 << 20)).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    thread::scope(|scope| {
        scope.spawn(move || while consumer.recv().map(|message| message.release()).is_ok() {});
        for n in 0..20 {
            let limit = within(LONG);
            while !inspect(&place).unwrap().consumer.may_be_asleep {
                assert!(Instant::now() < limit, "the consumer sleeps");
                thread::sleep(Duration::from_millis(1));
            }
            if n % 2 == 0 {
                producer.send(b"rare").unwrap();
            } else {
                let mut batch = producer.batch();
                (0..2).for_each(|_| assert!(batch.push(b"rarer").is_ok()));
                batch.commit();
            }
        }
        producer.close().unwrap();
    });
    // Its sleeps end by themselves every 100 ms, perhaps just before the message.
    let samples = latency(&place).samples();
    assert!((15..=20).contains(&samples), "{samples}");
}

pub fn both_directions_measure(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&measuring().duplex(true)).unwrap();
    let mut a = pipe.duplex_as(DuplexSide::A).unwrap();
    let mut b = pipe.duplex_as(DuplexSide::B).unwrap();
    b.send(&[0; 600]).unwrap();
    a.recv().unwrap().release();
    let seen = inspect(&place).unwrap();
    assert_eq!(seen.latency.unwrap().samples(), 0);
    assert_eq!(seen.back.unwrap().latency.unwrap().samples(), 1);
}

pub fn nothing_is_measured_unless_asked_for(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(CAPACITY)).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    for _ in 0..100 {
        producer.send(&[1; 1000]).unwrap();
        consumer.recv().unwrap().release();
    }
    assert_eq!(inspect(&place).unwrap().latency, None);
    assert!(place.segment().bytes()[END..RING].iter().all(|&byte| byte == 0));
    let opened = place.open_or_create(&measuring());
    let expected = Difference::MeasureLatency { requested: true, actual: false };
    assert_eq!(opened.map(|pipe: Pipe| pipe.differences().to_vec()).unwrap(), [expected]);
}

pub fn forged_stamps_and_counts_do_no_harm(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&measuring()).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    let hostile = place.segment();
    producer.send(&[1; 300]).unwrap();
    // A time in the future, for a position that is right.
    for stamp in (END..END + 272).step_by(16).filter(|&at| hostile.get(at) == 256) {
        hostile.set(stamp + 8, u64::MAX);
    }
    consumer.recv().unwrap().release();
    assert_eq!(latency(&place).samples(), 0);
    for at in (END..RING).step_by(8) {
        hostile.set(at, u64::MAX);
    }
    for _ in 0..50 {
        producer.send(&[1; 1000]).unwrap();
        consumer.recv().unwrap().release();
    }
    let seen = latency(&place);
    assert!(seen.samples() > 0 && seen.quantile(0.99).is_some() && seen.mean() <= seen.max());
}
