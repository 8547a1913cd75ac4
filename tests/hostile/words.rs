//! Words of the header and of the ring with values that a hostile process wrote.

use crate::attacker::{
    ABORT_CODE, Attacked, CAPACITY, CONSUMED, CONSUMER, EVENT_COUNT, HEAD, MAX, PRODUCED, PRODUCER, REPORTED,
    RING, STATE, TAIL, WAITER_EPOCH, WAKE_THRESHOLD, WRAP, edges,
};
use shmpipe::{
    Consumer, Lost, Options, Pipe, Producer, RecvTimeoutError, SendTimeoutError, Tagged, TryRecvError, Wait,
    WakeMode,
};
use shmpipe_testing::backend::Backend;
use shmpipe_testing::errors::{AnyRecvError, AnySendError};
use shmpipe_testing::{A_WHILE, within};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A word, or half a word, that changes while a pipe is in use.
#[derive(Clone, Copy, Debug)]
enum Word {
    Whole(usize),
    Half(usize),
}

fn words() -> Vec<Word> {
    let mut words = vec![Word::Whole(TAIL), Word::Whole(HEAD)];
    for side in [PRODUCER, CONSUMER] {
        words.extend([STATE, WAKE_THRESHOLD, REPORTED, ABORT_CODE].map(|at| Word::Whole(side + at)));
        words.extend([EVENT_COUNT, WAITER_EPOCH].map(|at| Word::Half(side + at)));
    }
    for counters in [PRODUCED, CONSUMED] {
        words.extend((0..5).map(|number| Word::Whole(counters + 8 * number)));
    }
    words
}

impl Word {
    fn value(self, attacked: &Attacked) -> u64 {
        match self {
            Word::Whole(at) => attacked.hostile.get(at),
            Word::Half(at) => attacked.hostile.get(at & !7) >> (8 * (at & 7)) & u64::from(u32::MAX),
        }
    }

    fn set(self, attacked: &Attacked, value: u64) {
        match self {
            Word::Whole(at) => attacked.hostile.set(at, value),
            Word::Half(at) => attacked.hostile.set_u32(at, value as u32),
        }
    }

    fn bytes(self) -> Range<usize> {
        match self {
            Word::Whole(at) => at..at + 8,
            Word::Half(at) => at..at + 4,
        }
    }
}

/// Every way to send. Each call returns, with the same error once the pipe is corrupt.
fn use_producer(producer: &mut Producer, what: &dyn Fn() -> String) {
    let mut corrupt = None;
    let mut check_result = |result: Result<(), AnySendError>| {
        match result {
            Ok(()) => assert_eq!(corrupt, None, "{}: poison is permanent", what()),
            Err(error @ AnySendError::Corrupt(_)) => {
                assert_eq!(*corrupt.get_or_insert(error), error, "{}: the same error each time", what());
            }
            Err(
                AnySendError::Full
                | AnySendError::TimedOut
                | AnySendError::Closed
                | AnySendError::PeerAborted { .. }
                | AnySendError::PeerDied,
            ) => {}
            // Its own state belongs to another claim.
            Err(AnySendError::Lost(Lost::Role)) => {}
            Err(error) => panic!("{}: {error:?}", what()),
        };
    };
    for _ in 0..2 {
        let free = producer.free();
        check_result(
            free.map(|free| assert!(free <= CAPACITY, "{}: {free} free", what())).map_err(Into::into),
        );
        check_result(producer.try_send(&[1; 100]).map(drop).map_err(Into::into));
        let reserved = producer.try_reserve(MAX as usize).map(|space| space.commit_len(9));
        check_result(reserved.map(drop).map_err(Into::into));
        // `push` waits without a limit, so only when there is space.
        if producer.free().is_ok_and(|free| free > 2 * MAX) {
            let mut batch = producer.batch();
            let pushed = batch.push(&[2; 30]).and_then(|_| batch.push(&[3; 500]));
            batch.commit();
            check_result(pushed.map(drop).map_err(Into::into));
        }
        let _ = producer.peer();
        let _ = producer.check();
        check_result(producer.send_deadline(&[4; 1000], Instant::now()).map(drop).map_err(Into::into));
    }
}

/// Every way to receive.
fn use_consumer(consumer: &mut Consumer, what: &dyn Fn() -> String) {
    let mut corrupt = None;
    let mut check_result = |result: Result<(), AnyRecvError>| match result {
        Ok(()) => assert_eq!(corrupt, None, "{}: poison is permanent", what()),
        Err(error @ AnyRecvError::Corrupt(_)) => {
            assert_eq!(*corrupt.get_or_insert(error), error, "{}: the same error each time", what());
        }
        Err(
            AnyRecvError::Empty
            | AnyRecvError::TimedOut
            | AnyRecvError::Closed
            | AnyRecvError::PeerAborted { .. }
            | AnyRecvError::PeerDied,
        ) => {}
        Err(AnyRecvError::Lost(Lost::Role)) => {}
        Err(error) => panic!("{}: {error:?}", what()),
    };
    for _ in 0..2 {
        check_result(consumer.try_recv().map(|message| check(&message)).map_err(Into::into));
        let mut drain = consumer.drain(usize::MAX);
        let drained = loop {
            match drain.next() {
                Ok(Some(record)) => check(&record),
                Ok(None) => break Ok(()),
                Err(corruption) => break Err(corruption.into()),
            }
        };
        assert!(drain.taken() as u64 <= CAPACITY / 8, "{}: {} taken", what(), drain.taken());
        drop(drain);
        if drained.is_err() {
            check_result(drained);
        }
        let _ = consumer.peer();
        let _ = consumer.check();
        check_result(
            consumer.recv_deadline(Instant::now()).map(|message| check(&message)).map_err(Into::into),
        );
    }
}

/// A record is copied to memory of its length, and no byte after it is written.
fn check(record: &shmpipe::Record<'_>) {
    let length = record.len();
    assert!(length as u64 <= MAX, "{length} bytes");
    let mut to = [0xEE; MAX as usize + 64];
    assert_eq!(record.copy_to(&mut to[..length]), Ok(length));
    assert!(to[length..].iter().all(|&byte| byte == 0xEE), "written after the {length} bytes requested");
    assert_eq!(record.to_vec().len(), length);
}

/// Rows 1 and 2 of the table, and the words for sleeping, for close and death, and for statistics.
pub fn any_edge_value_in_any_word_of_the_header(backend: Backend) {
    let attacked = Attacked::with(backend, &Options::new().wait(Wait::Spin));
    let (mut producer, mut consumer) = attacked.ends();
    // Some laps later, with messages in the ring.
    for _ in 0..30 {
        producer.send(&[7; 500]).unwrap();
        consumer.recv().unwrap().release();
    }
    (0..3).for_each(|_| assert!(producer.send(&[8; 300]).is_ok()));
    drop((producer, consumer));
    let image = attacked.image();
    for word in words() {
        for value in edges(word.value(&attacked)) {
            for victim in [PRODUCER, CONSUMER] {
                let what = || format!("{value:#x} in {word:?}, and {victim} continues");
                attacked.hostile.copy_from(0, &image);
                // Written after the claim, and before it.
                for claims_first in [true, false] {
                    if !claims_first {
                        word.set(&attacked, value);
                    }
                    let (producer, consumer) = match victim {
                        PRODUCER => (attacked.pipe.producer().map(Some), Ok(None)),
                        _ => (Ok(None), attacked.pipe.consumer().map(Some)),
                    };
                    if let Some(error) = producer.as_ref().err().or(consumer.as_ref().err()) {
                        assert!(!claims_first, "{}: not claimed: {error:?}", what());
                        continue;
                    }
                    let (mut producer, mut consumer) = (producer.unwrap(), consumer.unwrap());
                    if claims_first {
                        word.set(&attacked, value);
                    }
                    let mut before = attacked.image();
                    producer.as_mut().into_iter().for_each(|producer| use_producer(producer, &what));
                    consumer.as_mut().into_iter().for_each(|consumer| use_consumer(consumer, &what));
                    let own = match victim {
                        PRODUCER => [TAIL..TAIL + 8, PRODUCER..PRODUCED + 128],
                        _ => [HEAD..HEAD + 8, CONSUMER..CONSUMED + 128],
                    };
                    let mut after = attacked.image();
                    for bytes in own.into_iter().chain([word.bytes(), RING..after.len()]) {
                        before[bytes.clone()].fill(0);
                        after[bytes].fill(0);
                    }
                    assert!(before == after, "{}: wrote words it does not own", what());
                }
            }
        }
    }
}

/// Row 3: lengths of 0, too large, and across the end of the ring, at every offset.
pub fn any_length_at_any_record(backend: Backend) {
    let attacked = Attacked::new(backend);
    let (mut producer, mut consumer) = attacked.ends();
    let mut at = 0u64;
    // Visits every index once.
    for _ in 0..CAPACITY / 8 {
        let index = at % CAPACITY;
        let to_end = CAPACITY - index;
        let lengths = [0, 1, to_end - 8, to_end - 7, to_end, MAX, MAX + 1, 1 << 31, u64::from(u32::MAX) - 2];
        for length in lengths {
            let word = length + 1;
            attacked.hostile.set(RING + index as usize, word);
            let is_right = length <= MAX && 8 + length.next_multiple_of(8) <= to_end;
            let taken = consumer.try_recv().map(|message| {
                check(&message);
                let found = message.len() as u64;
                message.requeue();
                found
            });
            match taken {
                Ok(found) => assert!(is_right && found == length, "{length} bytes at {index}: {found}"),
                Err(TryRecvError::Corrupt(corruption)) => {
                    assert!(!is_right, "{length} bytes at {index}: {corruption}");
                    assert_eq!((corruption.word(), corruption.found()), ("record header", word));
                    attacked.hostile.set(RING + index as usize, 0);
                    consumer = successor(consumer, &attacked.pipe);
                }
                Err(error) => panic!("{length} bytes at {index}: {error:?}"),
            }
        }
        attacked.hostile.set(RING + index as usize, 0);
        // The next index.
        producer.send(b"").unwrap();
        consumer.recv().unwrap().release();
        at += 8;
        if at % 512 == 0 {
            producer = successor_of(producer, &attacked.pipe);
        }
    }
}

fn successor(consumer: Consumer, pipe: &Pipe) -> Consumer {
    drop(consumer);
    pipe.consumer().unwrap()
}

fn successor_of(producer: Producer, pipe: &Pipe) -> Producer {
    drop(producer);
    pipe.producer().unwrap()
}

/// Row 7: a wrap that leads to a wrap, to no record, or to itself, at every offset.
pub fn a_chain_of_wraps(backend: Backend) {
    let attacked = Attacked::new(backend);
    let (mut producer, mut consumer) = attacked.ends();
    for at in 0..CAPACITY / 8 {
        let index = RING + 8 * at as usize;
        // Every word is a wrap.
        (RING..RING + CAPACITY as usize).step_by(8).for_each(|word| attacked.hostile.set(word, WRAP));
        let error = consumer.try_recv().unwrap_err();
        let TryRecvError::Corrupt(corruption) = error else { panic!("{at}: {error:?}") };
        assert_eq!((corruption.word(), corruption.found()), ("record header", WRAP), "{at}");
        drop(consumer);
        // The next producer does not follow them either.
        drop(producer);
        assert!(attacked.pipe.producer().is_err(), "{at}");
        (RING..RING + CAPACITY as usize).step_by(8).for_each(|word| attacked.hostile.set(word, 0));
        // A wrap to no record.
        attacked.hostile.set(index, WRAP);
        consumer = attacked.pipe.consumer().unwrap();
        assert!(matches!(consumer.try_recv().unwrap_err(), TryRecvError::Corrupt(_)), "{at}");
        attacked.hostile.set(index, 0);
        drop(consumer);
        (producer, consumer) = attacked.ends();
        producer.send(b"").unwrap();
        assert_eq!(consumer.recv().unwrap().to_vec(), b"", "{at}");
    }
}

/// Row 8: an endless stream is received in pieces: one message per call, and at most one ring per drain.
pub fn a_stream_that_never_ends(backend: Backend) {
    let attacked = Attacked::new(backend);
    (0..CAPACITY as usize).step_by(8).for_each(|at| attacked.hostile.set(RING + at, 1));
    let mut consumer = attacked.pipe.consumer().unwrap();
    for _ in 0..10_000 {
        assert!(consumer.try_recv().unwrap().is_empty());
    }
    for _ in 0..10 {
        let mut drain = consumer.drain(usize::MAX);
        let mut taken = 0;
        while taken < CAPACITY && matches!(drain.next(), Ok(Some(_))) {
            taken += 1;
        }
        assert!(taken < CAPACITY / 8, "{taken} records in a ring of {CAPACITY} bytes");
        drop(drain);
        // The next consumer finds consistent positions.
        attacked.hostile.set(TAIL, attacked.hostile.get(HEAD));
        consumer = successor(consumer, &attacked.pipe);
    }
    drop(consumer);
    // A claim walks over the ring once, and finds too many records.
    assert!(attacked.pipe.producer().is_err());
}

/// Repeats `attack` in another thread while `body` runs.
pub fn meanwhile<T>(attack: impl FnMut() + Send, body: impl FnOnce() -> T) -> T {
    struct EndOnDrop<'a>(&'a AtomicBool);
    impl Drop for EndOnDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let is_over = AtomicBool::new(false);
    let mut attack = attack;
    thread::scope(|scope| {
        let _end = EndOnDrop(&is_over);
        let over = &is_over;
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                attack();
            }
        });
        body()
    })
}

/// Row 23: a peer that always announces a sleep costs a system call per message. A peer that always notifies keeps us awake.
/// Neither loses a message, or ends a wait early or late.
pub fn wake_words_that_are_always_set_or_always_changing(backend: Backend) {
    for mode in [WakeMode::Membarrier, WakeMode::Fence] {
        let attacked = Attacked::with(backend, &Options::new().wait(Wait::Block).wake_mode(mode));
        let (mut producer, mut consumer) = attacked.ends();
        let mut epoch = 1u32;
        let hostile = &attacked.hostile;
        let spam = || {
            epoch = epoch.wrapping_add(2);
            for side in [PRODUCER, CONSUMER] {
                hostile.set_u32(side + WAITER_EPOCH, epoch);
                hostile.set_u32(side + EVENT_COUNT, epoch);
                hostile.set(side + WAKE_THRESHOLD, u64::from(epoch) << 40);
            }
        };
        meanwhile(spam, || {
            for number in 0..2000u32 {
                producer.send(Tagged(number, &[1; 20])).unwrap();
                assert_eq!(consumer.recv().unwrap().tag(), number);
            }
            for _ in 0..3 {
                let start = Instant::now();
                let soon = within(Duration::from_millis(30));
                assert_eq!(consumer.recv_deadline(soon).unwrap_err(), RecvTimeoutError::TimedOut);
                assert!(start.elapsed() >= Duration::from_millis(30), "before its deadline");
            }
            while producer.try_send(&[1; 500]).is_ok() {}
            let soon = within(Duration::from_millis(30));
            assert_eq!(producer.send_deadline(&[1; 500], soon), Err(SendTimeoutError::TimedOut));
        });
    }
}

/// A sleeper finds a message even if its peer never notifies or wakes it.
pub fn a_peer_that_never_wakes(backend: Backend) {
    let attacked = Attacked::with(backend, &Options::new().wait(Wait::Block));
    let mut consumer = attacked.pipe.consumer().unwrap();
    thread::scope(|scope| {
        let received = scope.spawn(|| {
            let message = consumer.recv().unwrap().to_vec();
            (message, consumer)
        });
        thread::sleep(A_WHILE);
        // A message of a foreign producer, without a notification.
        attacked.hostile.set(RING + 8, u64::from_le_bytes(*b"silently"));
        attacked.hostile.set(RING, 9);
        let (message, consumer) = received.join().unwrap();
        assert_eq!(message, b"silently");
        assert_eq!(attacked.hostile.get(PRODUCER + EVENT_COUNT) as u32, 0, "there was no notification");
        drop(consumer);
    });
}
