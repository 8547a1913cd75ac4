//! Looking at messages without taking part.

use shmpipe::error::Unsupported;
use shmpipe::{Consumer, Options, Passed, Peer, Producer, SetupError, Tagged, Tap};
use shmpipe_testing::backend::Backend;
use shmpipe_testing::layout::{HEAD, PRODUCED, TAIL, counters, identity};
use shmpipe_testing::rng::Rng;
use shmpipe_testing::within;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const CAPACITY: u64 = 4096;

/// A message as it was sent.
type Sent = (u64, u32, Vec<u8>);

fn message(passed: Passed<'_>) -> Sent {
    let Passed::Message { position, tag, bytes, .. } = passed else { panic!("{passed:?}") };
    (position.get(), tag, bytes.to_vec())
}

/// Sends messages in one of the ways there are.
fn send(producer: &mut Producer, rng: &mut Rng) -> Vec<Sent> {
    let mut tagged = |longest: u64| {
        let (tag, length) = (rng.word() as u32, rng.log_uniform(longest) as usize);
        (tag, vec![tag as u8; length])
    };
    let (tag, bytes) = tagged(CAPACITY / 2 - 8);
    match tag % 3 {
        0 => vec![(producer.try_send(Tagged(tag, &bytes[..])).unwrap().get(), tag, bytes)],
        1 => {
            let mut reservation = producer.try_reserve(bytes.len()).unwrap();
            reservation.write(0, &bytes);
            reservation.tag(tag);
            let length = bytes.len() / 2;
            let position = reservation.commit_len(length).get();
            vec![(position, tag, bytes[..length].to_vec())]
        }
        _ => {
            let mut batch = producer.batch();
            let sent = [tagged(500), tagged(500), tagged(500)]
                .map(|(tag, bytes)| (batch.try_push(Tagged(tag, &bytes[..])).unwrap().get(), tag, bytes));
            batch.commit();
            sent.into()
        }
    }
}

fn receive_all(consumer: &mut Consumer) {
    while let Ok(message) = consumer.try_recv() {
        message.release();
    }
}

pub fn a_tap_sees_every_message_whole_and_in_order(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(CAPACITY)).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    producer.send(b"before").unwrap();
    let mut tap = Tap::open(&place).unwrap();
    receive_all(&mut consumer);
    let mut rng = Rng::of_this_run("tap");
    for _ in 0..2000 {
        assert_eq!(tap.next(), Ok(None));
        for sent in send(&mut producer, &mut rng) {
            assert_eq!(message(tap.next().unwrap().expect("a message")), sent);
        }
        receive_all(&mut consumer);
    }
}

pub fn a_tap_begins_with_what_is_sent_next_or_with_what_is_unread(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(CAPACITY)).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    producer.send(b"released").unwrap();
    consumer.recv().unwrap().release();
    // The ring is full, and stays so.
    let filler = [b'u'; 500];
    let mut sent = Vec::new();
    while let Ok(position) = producer.try_send(&filler) {
        sent.push(position.get());
    }
    let [mut next, mut unread] = [Tap::open(&place).unwrap(), Tap::open(&place).unwrap().with_unread()];
    assert_eq!(next.next(), Ok(None));
    for position in sent {
        assert_eq!(message(unread.next().unwrap().expect("unread")), (position, 0, filler.to_vec()));
    }
    assert_eq!(unread.next(), Ok(None));
    assert_eq!(unread.position(), next.position());
}

pub fn what_a_tap_missed_is_counted(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(1 << 16)).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    let mut pass = |messages: u64| {
        for _ in 0..messages {
            producer.send(&[7; 248]).unwrap();
            consumer.recv().unwrap().release();
        }
    };
    let mut tap = Tap::open(&place).unwrap();
    pass(1000);
    assert!(matches!(tap.next(), Ok(Some(Passed::Missed { bytes: 256_000, .. }))));
    assert_eq!(tap.next(), Ok(None));
    // It may be three quarters of the ring behind.
    pass(192);
    for n in 1000..1192 {
        assert_eq!(message(tap.next().unwrap().unwrap()), (n * 256, 0, vec![7; 248]));
    }
    assert_eq!(tap.next(), Ok(None));
    // Less than the ring, but the producer has cleared lines ahead of its next message.
    pass(255);
    assert!(matches!(tap.next(), Ok(Some(Passed::Missed { bytes: 65_280, .. }))));
}

/// The bytes of a message are words of its number, so that those of two messages differ.
pub fn a_tap_beside_a_stream_shows_only_what_was_sent(backend: Backend) {
    const MESSAGES: u64 = 100_000;
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(1 << 14)).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    let mut tap = Tap::open(&place).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(move || {
            for n in 1..=MESSAGES {
                let length = (n * 7919 % 120) as usize;
                producer.send(&n.to_ne_bytes().repeat(length)).unwrap();
            }
        });
        scope.spawn(|| {
            (0..MESSAGES).for_each(|_| consumer.recv().unwrap().release());
            is_over.store(true, Ordering::Release);
        });
        let (mut at, mut last, mut seen, mut missed) = (tap.position().get(), 0, 0u64, 0u64);
        loop {
            let was_over = is_over.load(Ordering::Acquire);
            match tap.next().unwrap() {
                Some(Passed::Message { position, bytes, .. }) => {
                    // Bytes are skipped only before the end of the ring.
                    let skipped = position.get() - at;
                    assert!(skipped == 0 || position.get() % (1 << 14) == 0, "{at} {position}");
                    at = position.get() + 8 + bytes.len() as u64;
                    seen += 1;
                    let Some(first) = bytes.first_chunk() else { continue };
                    let n = u64::from_ne_bytes(*first);
                    assert!(
                        n > last && bytes.chunks(8).all(|word| word == *first),
                        "{n} after {last}: {bytes:?}"
                    );
                    assert_eq!(bytes.len() as u64, n * 7919 % 120 * 8);
                    last = n;
                }
                Some(Passed::Missed { bytes, .. }) => (at, missed) = (at + bytes, missed + bytes),
                None if was_over => break,
                // Behind by more than the ring, now and then.
                None => thread::sleep(Duration::from_millis(1)),
                Some(_) => unreachable!(),
            }
        }
        assert_eq!(at, tap.position().get());
        assert!(seen > 0 && missed > 0, "{seen} seen, {missed} bytes missed");
    });
}

pub fn a_tap_changes_nothing(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(CAPACITY)).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    producer.send(b"tapped").unwrap();
    let bytes = place.segment().bytes();
    let mut tap = Tap::open(&place).unwrap().with_unread();
    assert_eq!(message(tap.next().unwrap().unwrap()).2, b"tapped");
    assert_eq!(tap.next(), Ok(None));
    assert_eq!(tap.producer(), Peer::Open);
    assert!(tap.back().is_none());
    assert_eq!(place.segment().bytes(), bytes);
    drop(tap);
    place.attached_by(1);
    assert_eq!(consumer.recv().unwrap().to_vec(), b"tapped");
}

pub fn both_directions_of_a_duplex_pipe_are_tapped(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().duplex(true).capacity(CAPACITY)).unwrap();
    let (mut a, mut b) = (pipe.duplex().unwrap(), pipe.duplex().unwrap());
    let mut forth = Tap::open(&place).unwrap();
    let mut back = forth.back().expect("two directions");
    a.send(b"to B").unwrap();
    b.send(b"to A").unwrap();
    assert_eq!(message(forth.next().unwrap().unwrap()).2, b"to B");
    assert_eq!(message(back.next().unwrap().unwrap()).2, b"to A");
    assert_eq!((forth.next(), back.next()), (Ok(None), Ok(None)));
    drop(b);
    assert_eq!((forth.producer(), back.producer()), (Peer::Open, Peer::Closed));
}

pub fn a_pipe_whose_producers_announce_nothing_is_not_tapped(backend: Backend) {
    let place = backend.place();
    let _pipe = place.create(&Options::new()).unwrap();
    // Only bit 0, as before there were taps.
    place.segment().set(identity::HINTS, 1);
    let error = Tap::open(&place).unwrap_err();
    assert!(matches!(error, SetupError::Unsupported(Unsupported::Tap { .. })), "{error:?}");
    assert!(error.to_string().contains("recreate the pipe"), "{error}");
}

pub fn a_producer_that_announces_too_little_is_corrupt(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(CAPACITY)).unwrap();
    let mut producer = pipe.producer().unwrap();
    let mut tap = Tap::open(&place).unwrap();
    producer.send(b"announced").unwrap();
    place.segment().set(PRODUCED + counters::REACH, 8);
    let corruption = tap.next().unwrap_err();
    assert_eq!((corruption.word(), corruption.found()), ("reach", 8));
}

pub fn a_tap_returns_whatever_a_hostile_process_writes(backend: Backend) {
    let mut rng = Rng::of_this_run("hostile tap");
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(CAPACITY)).unwrap();
    let mut producer = pipe.producer().unwrap();
    while producer.try_send(&[1; 100]).is_ok() {}
    let hostile = place.segment();
    let mut outcomes = [0u32; 4];
    let end: Instant = within(Duration::from_secs(1));
    while Instant::now() < end {
        let mut tap = Tap::open(&place).unwrap();
        if rng.below(2) == 0 {
            tap = tap.with_unread();
        }
        for _ in 0..20 {
            let value = match rng.below(4) {
                0 => rng.word(),
                1 => 8 * rng.below(CAPACITY / 4),
                2 => rng.below(64),
                _ => 0xFFFF_FFFF,
            };
            let at = match rng.below(6) {
                0 => TAIL,
                1 => HEAD,
                2 => PRODUCED + counters::REACH,
                _ => 4096 + 8 * rng.below(CAPACITY / 8) as usize,
            };
            hostile.set(at, value);
            let outcome = match tap.next() {
                Ok(None) => 0,
                Ok(Some(Passed::Message { bytes, .. })) => {
                    assert!(bytes.len() as u64 <= CAPACITY / 2 - 8);
                    1
                }
                Ok(Some(_)) => 2,
                Err(_) => 3,
            };
            outcomes[outcome] += 1;
        }
    }
    assert!(outcomes.iter().all(|&outcome| outcome > 0), "{outcomes:?}");
}
