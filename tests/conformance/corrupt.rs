//! A peer that breaks the protocol: what it writes is detected and reported, and does no harm.

use shmpipe::error::{Damage, Shortage};
use shmpipe::{
    Consumer, Corruption, Options, Pipe, Producer, RecvError, RecvTimeoutError, Role, SendError,
    SendTimeoutError, SetupError, TryRecvError, TrySendError,
};
use shmpipe_testing::backend::{Backend, Place};
use shmpipe_testing::errors::{AnyRecvError, AnySendError};
use shmpipe_testing::layout::{CONSUMER, HEAD, PRODUCER, RING, TAIL, WRAP, side};
use shmpipe_testing::raw::Attached;
use shmpipe_testing::rng::Rng;
use shmpipe_testing::within;
use std::time::{Duration, Instant};

const PRODUCER_STATE: usize = PRODUCER + side::STATE;
const CONSUMER_STATE: usize = CONSUMER + side::STATE;

const CAPACITY: u64 = 4096;
const MAX: u64 = 2040;

struct Pair {
    producer: Producer,
    consumer: Consumer,
    pipe: Pipe,
    /// The access of a hostile process.
    hostile: Attached,
    _place: Place,
}

fn pair(backend: Backend) -> Pair {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(CAPACITY)).unwrap();
    Pair {
        producer: pipe.producer().unwrap(),
        consumer: pipe.consumer().unwrap(),
        hostile: place.segment(),
        pipe,
        _place: place,
    }
}

fn is(corruption: &Corruption, word: &str, position: u64, found: u64) {
    assert_eq!((corruption.word(), corruption.position(), corruption.found()), (word, position, found));
    let text = corruption.to_string();
    for part in [word, &position.to_string(), &format!("{found:#x}")] {
        assert!(text.contains(part), "{text}");
    }
}

/// Every call of a poisoned consumer returns the same error, whatever the word holds by then.
fn poisoned(consumer: &mut Consumer, word: &str, position: u64, found: u64) {
    let error = consumer.try_recv().unwrap_err();
    let TryRecvError::Corrupt(corruption) = error else { panic!("{error:?}") };
    is(&corruption, word, position, found);
    for _ in 0..3 {
        assert_eq!(consumer.try_recv().unwrap_err(), error);
        assert_eq!(consumer.recv().unwrap_err(), RecvError::Corrupt(corruption));
        let late = consumer.recv_deadline(Instant::now()).unwrap_err();
        assert_eq!(late, RecvTimeoutError::Corrupt(corruption));
        assert_eq!(consumer.drain(10).next().unwrap_err(), corruption);
    }
}

/// The same for a producer.
fn poisoned_producer(producer: &mut Producer, corruption: Corruption) {
    for _ in 0..3 {
        assert_eq!(producer.try_send(b"1"), Err(TrySendError::Corrupt(corruption)));
        assert_eq!(producer.send(b"1"), Err(SendError::Corrupt(corruption)));
        let late = producer.send_deadline(b"", Instant::now());
        assert_eq!(late, Err(SendTimeoutError::Corrupt(corruption)));
        assert_eq!(producer.try_reserve(1).unwrap_err(), TrySendError::Corrupt(corruption));
        assert_eq!(producer.batch().push(b"1"), Err(SendError::Corrupt(corruption)));
        assert_eq!(producer.free(), Err(corruption));
    }
}

pub fn an_invalid_record_header_poisons_the_consumer(backend: Backend) {
    // Too long for the ring, by one and by far. A wrap that would skip half the ring.
    for word in [MAX + 2, 0x7FFF_FFFF, WRAP, WRAP | 5 << 32, 7 << 32, u64::MAX] {
        let mut pair = pair(backend);
        pair.producer.send(b"good").unwrap();
        pair.hostile.set(RING + 16, word);
        pair.consumer.try_recv().unwrap().release();
        poisoned(&mut pair.consumer, "record header", 16, word);
        pair.hostile.set(RING + 16, 0);
        let error = pair.consumer.recv().unwrap_err();
        assert!(matches!(error, RecvError::Corrupt(_)), "permanently: {error:?}");
        // A successor starts clean.
        drop(pair.consumer);
        let mut successor = pair.pipe.consumer().unwrap();
        pair.producer.send(b"again").unwrap();
        assert_eq!(successor.recv().unwrap().to_vec(), b"again");
    }
}

pub fn a_record_past_the_end_of_the_ring_poisons_the_consumer(backend: Backend) {
    let mut pair = pair(backend);
    pair.producer.send(&[0; MAX as usize]).unwrap();
    pair.producer.send(&[0; 2000]).unwrap();
    pair.consumer.recv().unwrap().release();
    pair.consumer.recv().unwrap().release();
    // 40 bytes are left before the end: 33 bytes of payload are one too many.
    pair.hostile.set(RING + 4056, 34);
    poisoned(&mut pair.consumer, "record header", 4056, 34);
}

pub fn an_invalid_record_after_a_wrap_poisons_the_consumer(backend: Backend) {
    for word in [0, WRAP, MAX + 2, u64::MAX] {
        let mut pair = pair(backend);
        pair.producer.send(&[0; MAX as usize]).unwrap();
        pair.producer.send(&[0; 2000]).unwrap();
        pair.consumer.recv().unwrap().release();
        pair.consumer.recv().unwrap().release();
        pair.hostile.set(RING, word);
        pair.hostile.set(RING + 4056, WRAP);
        poisoned(&mut pair.consumer, "record header", 4096, word);
    }
}

pub fn a_drain_and_a_claim_in_an_endless_ring_end(backend: Backend) {
    let mut pair = pair(backend);
    for at in (0..CAPACITY as usize).step_by(8) {
        // An empty record everywhere.
        pair.hostile.set(RING + at, 1);
    }
    let mut drain = pair.consumer.drain(usize::MAX);
    let mut taken = 0;
    let corruption = loop {
        match drain.next() {
            Ok(Some(record)) => {
                assert!(record.is_empty());
                taken += 1;
            }
            Ok(None) => panic!("the ring has no end"),
            Err(corruption) => break corruption,
        }
    };
    assert_eq!(taken, CAPACITY / 8 - 1, "all records but the one in the word that stays free");
    drop(drain);
    assert_eq!(pair.consumer.try_recv().unwrap_err(), TryRecvError::Corrupt(corruption));
    // The claim of a new producer walks over the same ring.
    drop((pair.producer, pair.consumer));
    pair.hostile.set(HEAD, 0);
    let error = pair.pipe.producer().unwrap_err();
    assert!(matches!(error, SetupError::Damaged(Damage::Ring(_))), "{error:?}");
}

pub fn an_invalid_producer_state_poisons_the_consumer(backend: Backend) {
    // Invalid phases, an epoch of 0, an epoch that went back, an epoch that is over.
    for state in [3, 0, 1, 2, 4, 7] {
        let mut pair = pair(backend);
        drop(pair.producer);
        let mut producer = pair.pipe.producer().unwrap();
        producer.send(b"first").unwrap();
        pair.consumer.recv().unwrap().release();
        assert_eq!(pair.consumer.try_recv().unwrap_err(), TryRecvError::Empty);
        assert_eq!(pair.hostile.get(PRODUCER_STATE), 2 << 2 | 1);
        pair.hostile.set(PRODUCER_STATE, state);
        poisoned(&mut pair.consumer, "state", 0, state);
        drop(producer);
    }
}

pub fn a_role_claimed_as_often_as_an_epoch_counts_is_refused_with_that_number(backend: Backend) {
    const LAST: u64 = (1 << 62) - 1;
    for (role, word) in [(Role::Producer, PRODUCER_STATE), (Role::Consumer, CONSUMER_STATE)] {
        let claim = |pipe: &Pipe| match role {
            Role::Producer => pipe.producer().map(drop),
            Role::Consumer => pipe.consumer().map(drop),
        };
        let pair = pair(backend);
        drop((pair.producer, pair.consumer));
        // The last claim, and its end; then a holder of the last claim that died.
        pair.hostile.set(word, (LAST - 1) << 2 | 2);
        claim(&pair.pipe).unwrap();
        assert_eq!(pair.hostile.get(word), LAST << 2 | 2);
        for phase in [2, 1] {
            pair.hostile.set(word, LAST << 2 | phase);
            let error = claim(&pair.pipe).unwrap_err();
            assert!(
                matches!(error, SetupError::Limit(Shortage::Claims { role: of, most: LAST }) if of == role),
                "{error:?}"
            );
            let text = error.to_string();
            assert!(text.contains("4611686018427387903 times") && text.contains(&role.to_string()), "{text}");
        }
        // The failed claims do not hold the role.
        pair.hostile.set(word, 0);
        claim(&pair.pipe).unwrap();
    }
}

pub fn an_invalid_consumer_state_poisons_the_producer(backend: Backend) {
    for state in [3, 0, 2, 4, 7] {
        let mut pair = pair(backend);
        drop(pair.consumer);
        let _consumer = pair.pipe.consumer().unwrap();
        pair.producer.send(b"first").unwrap();
        pair.hostile.set(CONSUMER_STATE, state);
        let error = pair.producer.try_send(b"second").unwrap_err();
        let TrySendError::Corrupt(corruption) = error else { panic!("{error:?}") };
        is(&corruption, "state", 0, state);
        pair.hostile.set(CONSUMER_STATE, 2 << 2 | 1);
        poisoned_producer(&mut pair.producer, corruption);
    }
}

pub fn an_invalid_read_position_poisons_the_producer(backend: Backend) {
    // Below what was released, above what was sent, inside a word.
    for head in [0, 16, 4096 + 24, 2056, 2049, u64::MAX - 7, 1 << 63] {
        let mut pair = pair(backend);
        pair.producer.send(&[0; MAX as usize]).unwrap();
        pair.consumer.recv().unwrap().release();
        // The producer has seen 2048 released.
        assert_eq!(pair.producer.free(), Ok(CAPACITY - 8));
        pair.producer.send(&[0; 1000]).unwrap();
        let sent = pair.producer.position().get();
        if head == 2056 {
            // Indistinguishable from the start of a record.
            continue;
        }
        pair.hostile.set(HEAD, head);
        let corruption = pair.producer.free().unwrap_err();
        is(&corruption, "head", sent, head);
        pair.hostile.set(HEAD, 2048);
        poisoned_producer(&mut pair.producer, corruption);
    }
}

pub fn messages_sent_before_the_poison_are_received_also_from_a_batch(backend: Backend) {
    let mut pair = pair(backend);
    let mut sent = 24;
    (0..sent).for_each(|number| assert!(pair.producer.send(&[number; 56]).is_ok()));
    let mut batch = pair.producer.batch();
    // The batch fills the space that the producer knew of. Then it loads `head` again, and finds the corruption.
    pair.hostile.set(HEAD, 4);
    let error = loop {
        match batch.push(&[sent; 56]) {
            Ok(_) => sent += 1,
            Err(error) => break error,
        }
    };
    let SendError::Corrupt(corruption) = error else { panic!("{error:?}") };
    batch.commit();
    poisoned_producer(&mut pair.producer, corruption);
    for number in 0..sent {
        assert_eq!(pair.consumer.try_recv().unwrap().to_vec(), [number; 56]);
    }
    assert_eq!(pair.consumer.try_recv().unwrap_err(), TryRecvError::Empty);
}

pub fn a_batch_that_finds_corruption_accepts_nothing_more(backend: Backend) {
    let mut pair = pair(backend);
    pair.producer.send(b"sent").unwrap();
    let mut batch = pair.producer.batch();
    batch.push(&[1; MAX as usize]).unwrap();
    pair.hostile.set(HEAD, 4);
    // This message does not fit, so the producer loads `head` and finds the corruption. The next message would fit.
    let error = batch.push(&[2; 2024]).unwrap_err();
    let SendError::Corrupt(corruption) = error else { panic!("{error:?}") };
    pair.hostile.set(HEAD, 0);
    for _ in 0..3 {
        assert_eq!(batch.push(b"3"), Err(error));
    }
    batch.commit();
    poisoned_producer(&mut pair.producer, corruption);
    assert_eq!(pair.consumer.try_recv().unwrap().to_vec(), b"sent");
    assert_eq!(pair.consumer.try_recv().unwrap().to_vec(), [1; MAX as usize]);
    assert_eq!(pair.consumer.try_recv().unwrap_err(), TryRecvError::Empty);
}

pub fn a_drain_that_finds_corruption_takes_nothing_more(backend: Backend) {
    for requeue in [false, true] {
        let mut pair = pair(backend);
        pair.producer.send(b"first").unwrap();
        pair.producer.send(b"second").unwrap();
        let good = pair.hostile.get(RING + 16);
        pair.hostile.set(RING + 16, u64::MAX);
        let mut drain = pair.consumer.drain(10);
        assert_eq!(drain.next().unwrap().unwrap().to_vec(), b"first");
        let error = drain.next().unwrap_err();
        // The record is valid again, but the drain no longer trusts the ring.
        pair.hostile.set(RING + 16, good);
        for _ in 0..3 {
            assert_eq!(drain.next().unwrap_err(), error);
        }
        if requeue {
            drain.requeue();
        } else {
            drain.release();
        }
        poisoned(&mut pair.consumer, "record header", 16, u64::MAX);
    }
}

pub fn a_claim_fails_on_words_that_no_correct_peer_writes(backend: Backend) {
    type Claim = fn(&Pipe) -> Result<(), SetupError>;
    let producer: Claim = |pipe| pipe.producer().map(drop);
    let consumer: Claim = |pipe| pipe.consumer().map(drop);
    for (claim, offset, value, word) in [
        (producer, HEAD, 4, "head"),
        (producer, HEAD, 1 << 40, "tail"),
        (producer, TAIL, 4, "tail"),
        (producer, TAIL, 1 << 40, "tail"),
        (producer, TAIL, CAPACITY, "tail"),
        (producer, RING, MAX + 2, "record header"),
        (producer, RING, WRAP, "record header"),
        (producer, PRODUCER_STATE, 3, "state"),
        (producer, PRODUCER_STATE, 1, "state"),
        (consumer, HEAD, 4, "head"),
        (consumer, HEAD, 1 << 40, "tail"),
        (consumer, TAIL, 1 << 40, "tail"),
        (consumer, CONSUMER_STATE, 3, "state"),
    ] {
        let place = backend.place();
        let pipe = place.create(&Options::new().capacity(CAPACITY)).unwrap();
        let hostile = place.segment();
        hostile.set(offset, value);
        let error = claim(&pipe).unwrap_err();
        let SetupError::Damaged(Damage::Ring(corruption)) = error else {
            panic!("{offset} {value:#x}: {error:?}")
        };
        assert_eq!(corruption.word(), word, "{offset} {value:#x}: {corruption}");
        // The failed claim does not hold the role.
        hostile.set(offset, 0);
        claim(&pipe).unwrap();
    }
}

pub fn every_call_returns_whatever_a_hostile_process_writes(backend: Backend) {
    let mut rng = Rng::of_this_run("corrupt");
    let end = within(Duration::from_secs(2));
    let mut outcomes = [0u32; 3];
    while Instant::now() < end {
        let Pair { mut producer, mut consumer, pipe, hostile, _place } = pair(backend);
        for _ in 0..200 {
            for _ in 0..rng.below(3) {
                let value = match rng.below(4) {
                    0 => rng.word(),
                    1 => rng.below(2 * CAPACITY),
                    2 => rng.below(16),
                    _ => WRAP,
                };
                let at = match rng.below(8) {
                    0 => [TAIL, HEAD, PRODUCER_STATE, CONSUMER_STATE][rng.below(4) as usize],
                    1 => TAIL + 8 * rng.below(100) as usize,
                    _ => RING + 8 * rng.below(CAPACITY / 8) as usize,
                };
                hostile.set(at, value);
            }
            let soon = within(Duration::from_micros(200));
            let length = rng.log_uniform(MAX) as usize;
            let sent = match rng.below(4) {
                0 => {
                    let sent = producer.try_reserve(length).map(|space| space.commit_len(length / 2));
                    sent.map(drop).map_err(AnySendError::from)
                }
                // A push waits for space, which the consumer in this same thread would never release.
                1 if producer.free().is_ok_and(|free| free < 2 * MAX) => Err(AnySendError::Full),
                1 => {
                    let mut batch = producer.batch();
                    let pushed = batch.push(&vec![1; length]).map(drop);
                    batch.commit();
                    pushed.map_err(AnySendError::from)
                }
                2 => producer.send_deadline(&vec![1; length], soon).map(drop).map_err(AnySendError::from),
                _ => producer.try_send(&vec![1; length]).map(drop).map_err(AnySendError::from),
            };
            let received = match rng.below(3) {
                0 => consumer.recv_deadline(soon).map(|message| message.to_vec()).map_err(AnyRecvError::from),
                1 => consumer.try_recv().map(|message| message.to_vec()).map_err(AnyRecvError::from),
                _ => {
                    let mut drain = consumer.drain(usize::MAX);
                    loop {
                        match drain.next() {
                            Ok(Some(record)) => assert!(record.to_vec().len() as u64 <= MAX),
                            Ok(None) => break Ok(vec![]),
                            Err(corruption) => break Err(corruption.into()),
                        }
                    }
                }
            };
            assert!(received.as_ref().map_or(0, Vec::len) as u64 <= MAX);
            outcomes[0] += u32::from(sent.is_ok() && received.is_ok());
            outcomes[1] += u32::from(matches!(sent, Err(AnySendError::Corrupt(_))));
            outcomes[2] += u32::from(matches!(received, Err(AnyRecvError::Corrupt(_))));
            if rng.below(20) == 0 {
                drop(consumer);
                let Ok(successor) = pipe.consumer() else { break };
                consumer = successor;
            }
            if rng.below(20) == 0 {
                drop(producer);
                let Ok(successor) = pipe.producer() else { break };
                producer = successor;
            }
        }
    }
    assert!(outcomes.iter().all(|&outcome| outcome > 0), "{outcomes:?}");
}
