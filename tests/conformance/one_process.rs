//! Both ends in one process: each operation, message by message.

use shmpipe::error::{Mismatch, Shortage, Unsupported};
use shmpipe::os::unix::{OptionsExt, PipeExt};
use shmpipe::{
    CancelHandle, Consumer, Difference, Message, Options, PANICKED, Peer, Pipe, Producer, RecvError,
    RecvTimeoutError, Role, SendError, SendTimeoutError, SetupError, Tagged, TryRecvError, TrySendError,
    Value, Vectored, Wait, WaitError, WakeMode, WrongSize, inspect,
};
use shmpipe_testing::backend::{Backend, Place};
use shmpipe_testing::{A_WHILE, LONG, until, within};
use std::cell::{Cell, OnceCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;
use std::time::{Duration, Instant};

const CAPACITY: u64 = 4096;
const MAX: usize = 2040;

const NAP: Wait = Wait::Sleep(Duration::from_micros(200));

/// Both ends of a new pipe of 4096 bytes, whose longest message has 2040 bytes, and the place that removes it.
fn pair(backend: Backend) -> (Producer, Consumer, Place) {
    pair_with(backend, &Options::new())
}

fn pair_with(backend: Backend, options: &Options) -> (Producer, Consumer, Place) {
    let place = backend.place();
    let pipe = place.create(&options.clone().capacity(CAPACITY)).unwrap();
    (pipe.producer().unwrap(), pipe.consumer().unwrap(), place)
}

/// Cancels the waits of an endpoint in another thread, so that a failing test does not wait for that thread.
struct CancelOnDrop(CancelHandle);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn received<P>(consumer: &mut Consumer<P>) -> Vec<u8> {
    consumer.try_recv().unwrap().to_vec()
}

/// Sends messages of 8 bytes until the pipe is full.
fn fill<P>(producer: &mut Producer<P>) -> u64 {
    let mut count = 0u64;
    while producer.try_send(&count.to_le_bytes()).is_ok() {
        count += 1;
    }
    count
}

pub fn messages_arrive_in_order_and_whole(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    for round in 0..10_000usize {
        let message: Vec<u8> = (0..round % 700).map(|i| (i + round) as u8).collect();
        let sent = producer.send(Tagged(round as u32, &message)).unwrap();
        let received = consumer.recv().unwrap();
        assert_eq!((received.position(), received.tag()), (sent, round as u32));
        assert_eq!(received.to_vec(), message);
    }
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
}

pub fn every_length_arrives_as_sent(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    let bytes: Vec<u8> = (0..MAX).map(|i| (i * 31 + 7) as u8).collect();
    for length in 0..=MAX {
        producer.try_send(&bytes[..length]).unwrap();
        let message = consumer.try_recv().unwrap();
        assert_eq!(message.len(), length);
        assert_eq!(message.to_vec(), bytes[..length]);
    }
}

pub fn positions_count_the_bytes_of_the_ring(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    assert_eq!(producer.send(&[1; 10]).unwrap().get(), 0);
    assert_eq!(producer.send(&[2; 8]).unwrap().get(), 24, "8 of header and 10 padded to 16");
    assert_eq!(producer.send(&[]).unwrap().get(), 40);
    assert_eq!(producer.position().get(), 48);
    assert_eq!(consumer.position().get(), 0);
    for expected in [0, 24, 40] {
        assert_eq!(consumer.try_recv().unwrap().position().get(), expected);
    }
    assert_eq!(consumer.position().get(), 48);
    producer.send(&[3; MAX]).unwrap();
    received(&mut consumer);
    assert_eq!(
        producer.send(&[4; MAX]).unwrap().get(),
        4096,
        "2040 bytes at the end of the ring are skipped"
    );
    assert_eq!(consumer.try_recv().unwrap().position().get(), 4096);
}

pub fn a_commit_sends_its_reservation(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    let mut space = producer.reserve(5).unwrap();
    assert_eq!((space.len(), space.is_empty()), (5, false));
    space.write(3, b"lo");
    space.write(0, b"hel");
    space.tag(7);
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
    let position = space.commit();
    let message = consumer.try_recv().unwrap();
    assert_eq!((message.to_vec(), message.tag(), message.position()), (b"hello".to_vec(), 7, position));
}

pub fn a_shorter_commit_sends_its_length_and_frees_the_rest(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    let before = producer.free().unwrap();
    let mut space = producer.reserve(1000).unwrap();
    space.write(0, &[0xFF; 1000]);
    space.commit_len(10);
    assert_eq!(before - producer.free().unwrap(), 24);
    assert_eq!(received(&mut consumer), [0xFF; 10]);
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty, "0xFF after the message is no record");
    producer.reserve(1000).unwrap().commit_len(0);
    assert_eq!(received(&mut consumer), []);
}

pub fn a_shorter_commit_works_at_every_ring_offset(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    for round in 0..5000 {
        let (reserved, committed) = (round * 37 % (MAX + 1), round * 11 % 300);
        let mut space = producer.reserve(reserved).unwrap();
        space.write(0, &vec![0xFF; reserved]);
        space.commit_len(committed.min(reserved));
        assert_eq!(received(&mut consumer), vec![0xFF; committed.min(reserved)]);
        assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
    }
}

pub fn a_shorter_commit_starts_where_its_reservation_did(backend: Backend) {
    // With `left` bytes before the end of the ring, the reservation wraps. The bytes committed would fit before the end.
    for left in (16..=512).step_by(8) {
        let (mut producer, mut consumer, _place) = pair(backend);
        producer.send(&[0; 2000]).unwrap();
        producer.send(&vec![0; 2056 - left]).unwrap();
        received(&mut consumer);
        received(&mut consumer);
        // The producer learns of the free space ahead by sending something there.
        producer.send(&[1; 16]).unwrap();
        received(&mut consumer);
        assert_eq!(producer.position().get(), CAPACITY - left as u64);
        let mut space = producer.reserve(600).unwrap();
        space.write(0, &[2; 8]);
        let sent = space.commit_len(8);
        assert_eq!(sent.get(), CAPACITY);
        let message = consumer.try_recv().unwrap();
        assert_eq!((message.position(), message.to_vec()), (sent, vec![2; 8]));
        message.release();
        producer.send(b"next").unwrap();
        assert_eq!(received(&mut consumer), b"next");
    }
}

pub fn a_dropped_reservation_sends_nothing(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    for round in 0..1000 {
        let before = (producer.free().unwrap(), producer.position());
        let mut space = producer.reserve(500).unwrap();
        space.write(0, &[0xFF; 500]);
        drop(space);
        assert_eq!((producer.free().unwrap(), producer.position()), before);
        assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
        producer.send(&[round as u8; 7]).unwrap();
        assert_eq!(received(&mut consumer), [round as u8; 7]);
        assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
    }
}

pub fn bytes_that_were_never_sent_are_never_received(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    // As a record header, a word of 2 means one byte. The last message but one ends at every offset in a cache line.
    let left_behind = [2, 0, 0, 0, 0, 0, 0, 0].repeat(65);
    for round in 0..2000usize {
        for length in [round % 60, round / 60 * 8 % 520] {
            match round % 4 {
                0 => producer.reserve(512).unwrap().write(0, &left_behind[..512]),
                1 => {
                    let mut reservation = producer.reserve(512).unwrap();
                    reservation.write(0, &left_behind[..512]);
                    reservation.commit_len(length);
                    assert_eq!(received(&mut consumer).len(), length);
                }
                2 => {
                    let mut batch = producer.batch();
                    (0..3).for_each(|_| assert!(batch.push(&left_behind[..length]).is_ok()));
                    batch.commit();
                    (0..3).for_each(|_| assert_eq!(received(&mut consumer), left_behind[..length]));
                }
                _ => {
                    let mut batch = producer.batch();
                    (0..3).for_each(|_| assert!(batch.push(&left_behind[..168]).is_ok()));
                }
            }
            assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
            producer.send(&[7; 520][..length]).unwrap();
            assert_eq!(received(&mut consumer), [7; 520][..length]);
            assert_eq!(
                consumer.try_recv().unwrap_err(),
                TryRecvError::Empty,
                "round {round}, {length} bytes"
            );
        }
    }
}

pub fn unread_messages_stay_intact_however_full_the_pipe_is(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    let mut waiting = std::collections::VecDeque::new();
    for round in 0..20_000usize {
        let length = [8, 56, 250, 1000, 1][round % 5] + round / 500;
        let message = vec![round as u8 | 1; length.min(MAX)];
        while producer.try_send(&message).is_err() {
            assert_eq!(Some(received(&mut consumer)), waiting.pop_front(), "round {round}");
        }
        waiting.push_back(message);
    }
}

pub fn writing_beyond_a_reservation_panics_and_writes_nothing(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    let outside = |producer: &mut Producer, at: usize, bytes: &[u8]| {
        let mut space = producer.reserve(4).unwrap();
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| space.write(at, bytes))).is_err()
    };
    assert!(outside(&mut producer, 0, b"12345"));
    assert!(outside(&mut producer, 4, b"1"));
    assert!(outside(&mut producer, usize::MAX, b"12"));
    assert!(!outside(&mut producer, 4, b""));
    let space = producer.reserve(4).unwrap();
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| space.commit_len(5))).is_err());
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
    producer.send(b"after").unwrap();
    assert_eq!(received(&mut consumer), b"after");
}

pub fn a_vectored_send_is_one_message(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    producer.send(Tagged(5, Vectored(&[b"one", b"", b" and ", b"two"]))).unwrap();
    let message = consumer.try_recv().unwrap();
    assert_eq!((message.to_vec(), message.tag()), (b"one and two".to_vec(), 5));
    drop(message);
    producer.send(Tagged(6, Vectored(&[]))).unwrap();
    assert!(consumer.try_recv().unwrap().is_empty());
    let half = [0; MAX / 2];
    producer.send(Vectored(&[&half, &half])).unwrap();
    assert_eq!(received(&mut consumer).len(), MAX);
    let too_large = producer.send(Vectored(&[&half, &half, &[0]]));
    assert_eq!(too_large, Err(SendError::TooLarge { length: MAX + 1, max: MAX }));
}

pub fn every_tag_arrives_with_its_message(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    for tag in [0, 1, 0x7FFF_FFFF, 0x8000_0000, u32::MAX] {
        for length in [0, 1, MAX] {
            producer.send(Tagged(tag, &vec![1; length])).unwrap();
            let message = consumer.try_recv().unwrap();
            assert_eq!((message.tag(), message.len()), (tag, length));
        }
    }
    producer.send(b"untagged").unwrap();
    assert_eq!(consumer.try_recv().unwrap().tag(), 0);
}

#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Quote {
    bid: f64,
    ask: f64,
    volume: u32,
    flags: u32,
}

pub fn a_value_is_received_only_from_a_message_of_its_size(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    let quote = Quote { bid: 1.0842, ask: 1.0843, volume: 1_000_000, flags: 3 };
    producer.send(Value(&quote)).unwrap();
    assert_eq!(consumer.try_recv().unwrap().value::<Quote>(), Ok(quote));
    for length in [0, 23, 25] {
        producer.send(&vec![0; length]).unwrap();
        let message = consumer.try_recv().unwrap();
        assert_eq!(message.value::<Quote>(), Err(WrongSize { message: length, expected: 24 }));
    }
    producer.send(Value(&[1u16, 2, 3])).unwrap();
    assert_eq!(consumer.try_recv().unwrap().value::<[u16; 3]>(), Ok([1, 2, 3]));
}

pub fn a_batch_becomes_visible_all_at_once(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    let mut positions = vec![];
    let mut batch = producer.batch();
    assert!(batch.is_empty());
    for i in 0..20u8 {
        positions.push(batch.push(Tagged(i.into(), &vec![i; usize::from(i) * 3])).unwrap());
        assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
    }
    assert_eq!((batch.len(), batch.is_empty()), (20, false));
    batch.commit();
    for (i, position) in (0..20u8).zip(positions) {
        let message = consumer.try_recv().unwrap();
        assert_eq!((message.position(), message.tag()), (position, u32::from(i)));
        assert_eq!(message.to_vec(), vec![i; usize::from(i) * 3]);
    }
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
}

pub fn a_dropped_batch_sends_nothing(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    for _ in 0..300 {
        let before = producer.position();
        let mut batch = producer.batch();
        for length in [3, 200, 0, 41] {
            batch.push(&vec![0xFF; length]).unwrap();
        }
        drop(batch);
        assert_eq!(producer.position(), before);
        producer.batch().commit();
        assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
        producer.send(&[1; 50]).unwrap();
        assert_eq!(received(&mut consumer), [1; 50]);
        assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
    }
}

pub fn batches_wrap_at_every_ring_offset(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    let mut sent = 0u32;
    for round in 0..3000u32 {
        let mut batch = producer.batch();
        for i in 0..round % 7 {
            batch
                .push(Tagged(sent + i, &vec![(sent + i) as u8; (round * 13 + i * 29) as usize % 350]))
                .unwrap();
        }
        batch.commit();
        for i in 0..round % 7 {
            let message = consumer.try_recv().unwrap();
            assert_eq!(message.tag(), sent + i);
            assert_eq!(message.to_vec(), vec![(sent + i) as u8; (round * 13 + i * 29) as usize % 350]);
        }
        sent += round % 7;
        assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
    }
}

pub fn a_push_that_can_never_fit_is_refused_and_the_batch_keeps_its_messages(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    let mut batch = producer.batch();
    batch.push(&[1; 2000]).unwrap();
    batch.push(&[2; 2000]).unwrap();
    // 2 * 2008 bytes leave 80, of which the header word after the batch takes 8.
    assert_eq!(batch.push(&[3; 65]), Err(SendError::TooLarge { length: 4016 + 80 + 8, max: 4096 }));
    assert_eq!(batch.push(&[3; MAX + 1]), Err(SendError::TooLarge { length: MAX + 1, max: MAX }));
    assert_eq!(batch.len(), 2);
    batch.push(&[4; 64]).unwrap();
    batch.commit();
    assert_eq!(producer.try_send(&[]), Err(TrySendError::Full));
    assert_eq!(received(&mut consumer), [1; 2000]);
    assert_eq!(received(&mut consumer), [2; 2000]);
    assert_eq!(received(&mut consumer), [4; 64]);
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
}

pub fn a_batch_waits_for_space(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    let old = fill(&mut producer);
    thread::scope(|scope| {
        let _cancel = CancelOnDrop(producer.cancel_handle());
        scope.spawn(move || {
            let mut batch = producer.batch();
            for i in 0..3 {
                batch.push(Tagged(i, &[0; 1000])).unwrap();
            }
            batch.commit();
        });
        for _ in 0..old {
            consumer.recv().unwrap().release();
        }
        for i in 0..3 {
            assert_eq!(consumer.recv().unwrap().tag(), i);
        }
    });
}

pub fn an_empty_message_is_received(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
    producer.send(b"").unwrap();
    let message = consumer.try_recv().unwrap();
    assert_eq!((message.len(), message.is_empty(), message.to_vec()), (0, true, vec![]));
    drop(message);
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
}

pub fn the_longest_message_fits_at_every_ring_offset(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    let pipe = producer.pipe().clone();
    assert_eq!((pipe.max_len(), producer.max_len(), consumer.max_len()), (MAX, MAX, MAX));
    assert_eq!((pipe.capacity(), producer.capacity(), consumer.capacity()), (CAPACITY, CAPACITY, CAPACITY));
    for index in 0..CAPACITY / 8 {
        producer.try_send(&vec![1; index as usize * 5 % 48]).unwrap();
        received(&mut consumer);
        producer.try_send(&[2; MAX]).unwrap();
        assert_eq!(received(&mut consumer), [2; MAX]);
    }
}

pub fn a_message_that_is_too_large_is_refused_with_both_sizes(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    let error = SendError::TooLarge { length: MAX + 1, max: MAX };
    let message = [0; MAX + 1];
    let at_once = TrySendError::TooLarge { length: MAX + 1, max: MAX };
    assert_eq!(producer.try_send(&message), Err(at_once));
    assert_eq!(producer.send(&message), Err(error));
    assert_eq!(producer.send_deadline(&message, Instant::now()), Err(error.into()));
    assert_eq!(producer.send(Tagged(1, &message)), Err(error));
    assert_eq!(producer.send(Value(&message)), Err(error));
    assert_eq!(producer.try_reserve(MAX + 1).unwrap_err(), at_once);
    assert_eq!(
        producer.reserve(usize::MAX).unwrap_err(),
        SendError::TooLarge { length: usize::MAX, max: MAX }
    );
    assert_eq!(producer.reserve_deadline(MAX + 1, Instant::now()).unwrap_err(), error.into());
    assert!(error.to_string().contains("2041") && error.to_string().contains("2040"), "{error}");
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
}

pub fn a_drain_takes_up_to_its_limit_and_releases_all_at_once(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    for i in 0..10u32 {
        producer.send(Tagged(i, &i.to_le_bytes())).unwrap();
    }
    let free = producer.free().unwrap();
    let mut drain = consumer.drain(4);
    for i in 0..4 {
        let record = drain.next().unwrap().unwrap();
        assert_eq!((record.tag(), record.value::<u32>()), (i, Ok(i)));
        assert_eq!(producer.free().unwrap(), free, "not released yet");
    }
    assert!(drain.next().unwrap().is_none(), "the limit");
    assert_eq!(drain.taken(), 4);
    drain.release();
    assert_eq!(producer.free().unwrap(), free + 4 * 16);

    let mut drain = consumer.drain(usize::MAX);
    let mut taken = 0;
    while let Some(record) = drain.next().unwrap() {
        assert_eq!(record.tag(), 4 + taken);
        taken += 1;
    }
    assert_eq!((taken, drain.taken()), (6, 6));
    producer.send(Tagged(10, b"late")).unwrap();
    assert_eq!(drain.next().unwrap().unwrap().to_vec(), b"late");
    drop(drain);
    assert_eq!(producer.free().unwrap(), CAPACITY - 8);
    let mut drain = consumer.drain(1);
    assert!(drain.next().unwrap().is_none());
}

pub fn a_requeued_drain_is_received_again(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    // Also across the end of the ring.
    producer.send(&[0; MAX]).unwrap();
    received(&mut consumer);
    for i in 0..3 {
        producer.send(Tagged(i, &[i as u8; 900])).unwrap();
    }
    for _ in 0..3 {
        let mut drain = consumer.drain(10);
        let mut seen = vec![];
        while let Some(record) = drain.next().unwrap() {
            assert_eq!(record.to_vec(), [record.tag() as u8; 900]);
            seen.push((record.tag(), record.position().get()));
        }
        assert_eq!(seen, [(0, 2048), (1, 2960), (2, 4096)]);
        drain.requeue();
    }
    let mut drain = consumer.drain(0);
    assert!(drain.next().unwrap().is_none());
    drop(drain);
    assert_eq!(consumer.try_recv().unwrap().tag(), 0);
}

pub fn a_requeued_message_is_received_again_with_the_same_position(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    producer.send(b"first").unwrap();
    let position = producer.send(b"second").unwrap();
    received(&mut consumer);
    for _ in 0..3 {
        let message = consumer.try_recv().unwrap();
        assert_eq!((message.to_vec(), message.position()), (b"second".to_vec(), position));
        message.requeue();
    }
    consumer.try_recv().unwrap().release();
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
}

pub fn a_message_is_copied_into_the_callers_vector_or_slice(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    producer.send(b"shared").unwrap();
    let mut vector = Vec::with_capacity(64);
    vector.extend_from_slice(b"it is ");
    let before = vector.as_ptr();
    let message = consumer.try_recv().unwrap();
    message.append_to(&mut vector);
    assert_eq!((vector.as_slice(), vector.as_ptr()), (b"it is shared".as_slice(), before));

    let mut slice = [b'.'; 8];
    assert_eq!(message.copy_to(&mut slice), Ok(6));
    assert_eq!(&slice, b"shared..");
    assert_eq!(message.copy_to(&mut slice[..6]), Ok(6));
    assert_eq!(message.copy_to(&mut slice[..5]), Err(WrongSize { message: 6, expected: 5 }));
    assert_eq!(&slice, b"shared..");
    message.requeue();
    assert_eq!(received(&mut consumer), b"shared", "a slice that is too short loses nothing");
}

pub fn an_owned_message_is_released_and_borrows_nothing(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    for round in 0..3 * CAPACITY / 16 {
        producer.try_send(&round.to_ne_bytes()).expect("space, since the last message was released");
        match round % 2 {
            0 => assert_eq!(consumer.recv().map(|message| message.value::<u64>()), Ok(Ok(round))),
            _ => {
                assert_eq!(consumer.recv().map(|message| message.to_vec()), Ok(round.to_ne_bytes().to_vec()))
            }
        }
    }
    producer.send(b"123").unwrap();
    let wrong = consumer.try_recv().map(|message| {
        let value = message.value::<u32>();
        message.requeue();
        value
    });
    assert_eq!(wrong, Ok(Err(WrongSize { message: 3, expected: 4 })));
    assert_eq!(received(&mut consumer), b"123", "a value of the wrong size loses nothing");

    drop(producer);
    // The error arm can use the consumer: an owned result borrows nothing.
    match consumer.recv().map(|message| message.to_vec()) {
        Ok(message) => panic!("{message:?}"),
        Err(RecvError::Closed) => {
            let error = consumer.wait_for_peer(Some(Instant::now())).unwrap_err();
            assert_eq!(error, WaitError::TimedOut);
        }
        Err(error) => panic!("{error}"),
    }
}

pub fn a_full_pipe_accepts_one_message_for_each_one_released(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    let count = fill(&mut producer);
    assert_eq!(count, (CAPACITY - 8) / 16, "16 bytes each, and 8 always stay free");
    assert_eq!(producer.free().unwrap(), CAPACITY - 8 - count * 16);
    assert_eq!(producer.try_send(b"12345678"), Err(TrySendError::Full));
    assert_eq!(producer.try_reserve(1).unwrap_err(), TrySendError::Full);
    for i in 0..1000 {
        assert_eq!(consumer.try_recv().unwrap().value::<u64>(), Ok(i));
        producer.try_send(&(count + i).to_le_bytes()).unwrap();
        assert_eq!(producer.try_send(b"12345678"), Err(TrySendError::Full));
    }
    for i in 1000..1000 + count {
        assert_eq!(consumer.try_recv().unwrap().value::<u64>(), Ok(i));
    }
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
}

pub fn a_message_holds_its_space_until_it_is_released(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    producer.send(&[1; MAX]).unwrap();
    let message = consumer.try_recv().unwrap();
    assert_eq!(producer.try_send(&[2; MAX]), Err(TrySendError::Full));
    assert_eq!(message.to_vec(), [1; MAX]);
    drop(message);
    producer.try_send(&[2; MAX]).unwrap();
}

pub fn deadlines_and_timeouts_end_waits_and_only_waits(backend: Backend) {
    const SHORT: Duration = Duration::from_millis(30);
    fn lasts<E>(wait: impl FnOnce() -> E) -> E {
        let start = Instant::now();
        let error = wait();
        assert!(start.elapsed() >= SHORT, "too early");
        error
    }
    for strategy in [Wait::Spin, Wait::Yield, Wait::Block, NAP] {
        let (mut producer, mut consumer, _place) = pair_with(backend, &Options::new().wait(strategy));
        let empty = RecvTimeoutError::TimedOut;
        assert_eq!(lasts(|| consumer.recv_deadline(within(SHORT)).unwrap_err()), empty, "{strategy:?}");
        assert_eq!(lasts(|| consumer.recv_timeout(SHORT).unwrap_err()), empty, "{strategy:?}");
        assert_eq!(consumer.recv_timeout(Duration::ZERO).unwrap_err(), empty);
        // A call that need not wait ignores how much time is left.
        let past = Instant::now() - SHORT;
        producer.send_deadline(b"sent", past).unwrap();
        consumer.recv_deadline(past).unwrap().release();
        producer.send_timeout(b"sent", Duration::ZERO).unwrap();
        consumer.recv_timeout(Duration::ZERO).unwrap().release();
        producer.reserve_timeout(8, Duration::ZERO).unwrap().commit();
        consumer.recv_timeout(Duration::MAX).unwrap().release();

        fill(&mut producer);
        let full = SendTimeoutError::TimedOut;
        let sent = lasts(|| producer.send_deadline(b"12345678", within(SHORT)));
        assert_eq!(sent, Err(full), "{strategy:?}");
        assert_eq!(lasts(|| producer.send_timeout(b"12345678", SHORT)), Err(full), "{strategy:?}");
        assert_eq!(producer.reserve_deadline(8, Instant::now()).unwrap_err(), full);
        assert_eq!(producer.reserve_timeout(8, Duration::ZERO).unwrap_err(), full);
        drop(consumer.try_recv().unwrap());
        producer.reserve_deadline(8, past).unwrap().commit();
        thread::scope(|scope| {
            let receiver = scope.spawn(move || {
                thread::sleep(SHORT);
                drop(consumer.try_recv().unwrap());
                consumer
            });
            producer.send_timeout(b"12345678", Duration::MAX).unwrap();
            receiver.join().unwrap()
        });
    }
}

pub fn a_batch_push_waits_until_its_deadline(backend: Backend) {
    const SHORT: Duration = Duration::from_millis(30);
    let (mut producer, mut consumer, _place) = pair(backend);
    let filled = fill(&mut producer);
    let mut batch = producer.batch();
    assert_eq!(batch.try_push(b"12345678"), Err(TrySendError::Full));
    let start = Instant::now();
    assert_eq!(batch.push_timeout(b"12345678", SHORT), Err(SendTimeoutError::TimedOut));
    assert_eq!(batch.push_deadline(b"12345678", within(SHORT)), Err(SendTimeoutError::TimedOut));
    assert!(start.elapsed() >= 2 * SHORT, "too early");
    assert!(batch.is_empty());
    (0..3).for_each(|_| consumer.try_recv().unwrap().release());
    batch.try_push(b"1").unwrap();
    batch.push_timeout(b"2", Duration::ZERO).unwrap();
    batch.push_deadline(b"3", start).unwrap();
    batch.commit();
    (3..filled).for_each(|_| consumer.try_recv().unwrap().release());
    for expected in [b"1", b"2", b"3"] {
        assert_eq!(received(&mut consumer), expected);
    }
}

pub fn waiting_for_a_message_leaves_it_in_the_pipe(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    let short = within(Duration::from_millis(30));
    assert_eq!(consumer.wait_for_message(Some(short)), Err(RecvTimeoutError::TimedOut));
    assert!(Instant::now() >= short, "too early");
    let sending = thread::spawn(move || {
        thread::sleep(Duration::from_millis(30));
        producer.send(b"waited for").unwrap();
        producer
    });
    for _ in 0..3 {
        consumer.wait_for_message(None).unwrap();
    }
    consumer.wait_for_message(Some(Instant::now())).unwrap();
    assert_eq!(received(&mut consumer), b"waited for");
    drop(sending.join().unwrap());
    assert_eq!(consumer.wait_for_message(None), Err(RecvTimeoutError::Closed));
    consumer.cancel_handle().cancel();
    let _producer = consumer.pipe().producer().unwrap();
    assert_eq!(consumer.wait_for_message(None), Err(RecvTimeoutError::Cancelled));
}

pub fn both_ends_wait_with_each_strategy_and_wake_mode(backend: Backend) {
    const MESSAGES: u32 = 20_000;
    let modes = [
        (WakeMode::Membarrier, [Wait::Spin, Wait::Yield, Wait::Block, NAP].as_slice()),
        (WakeMode::Fence, &[Wait::Spin, Wait::Yield, Wait::Block, NAP]),
        (WakeMode::Never, &[Wait::Spin, Wait::Yield, NAP]),
    ];
    for (mode, strategies) in modes {
        for &strategy in strategies {
            let (mut producer, mut consumer, _place) =
                pair_with(backend, &Options::new().wait(strategy).wake_mode(mode));
            let pipe = producer.pipe().clone();
            assert_eq!(pipe.wake_mode(), mode);
            thread::scope(|scope| {
                let _cancel = CancelOnDrop(producer.cancel_handle());
                scope.spawn(move || {
                    for i in 0..MESSAGES {
                        producer.send(Tagged(i, &vec![i as u8; i as usize % 99])).unwrap();
                    }
                });
                for i in 0..MESSAGES {
                    let message = consumer.recv().unwrap();
                    assert_eq!(message.tag(), i, "{mode} {strategy:?}");
                    assert_eq!(message.to_vec(), vec![i as u8; i as usize % 99]);
                }
                assert_eq!(consumer.recv().unwrap_err(), RecvError::Closed);
            });
        }
    }
}

pub fn sleepers_are_woken_in_both_directions(backend: Backend) {
    const ROUNDS: u64 = 100;
    for mode in [WakeMode::Membarrier, WakeMode::Fence] {
        let (mut questions, mut asked, _there) = pair_with(backend, &Options::new().wake_mode(mode));
        let (mut replies, mut answered, _back) = pair_with(backend, &Options::new().wake_mode(mode));
        let addresses = [questions.pipe().address().clone(), replies.pipe().address().clone()];
        thread::scope(|scope| {
            scope.spawn(move || {
                while let Ok(message) = asked.recv() {
                    // The other side falls asleep meanwhile.
                    thread::sleep(Duration::from_millis(1));
                    replies.send(&message.to_vec()).unwrap();
                }
            });
            for i in 0..ROUNDS {
                questions.send(&i.to_le_bytes()).unwrap();
                assert_eq!(answered.recv().unwrap().value::<u64>(), Ok(i));
                thread::sleep(Duration::from_millis(1));
            }
            // A wait that ended at its interval of 100 ms, without a wake-up, does not count here. On a busy machine a
            // message can also arrive before its receiver falls asleep.
            for address in &addresses {
                let woken = inspect(address).unwrap().producer.wakeups;
                assert!(woken > ROUNDS / 10 && woken <= ROUNDS, "{mode}: {woken} of {ROUNDS}");
            }
            drop(questions);
        });
    }
}

pub fn a_sleeping_producer_is_woken_when_its_message_fits(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    let pipe = producer.pipe().clone();
    for round in 1..=5 {
        let count = fill(&mut producer);
        thread::scope(|scope| {
            let cancel = CancelOnDrop(producer.cancel_handle());
            let sending = scope.spawn(|| producer.send(&[7; 1000]).unwrap());
            until("a wait", || inspect(pipe.address()).unwrap().producer.waits >= round);
            thread::sleep(Duration::from_millis(5));
            for _ in 0..count {
                drop(consumer.recv().unwrap());
            }
            sending.join().unwrap();
            // Only a failure needs it, and the producer waits again.
            std::mem::forget(cancel);
            assert_eq!(consumer.recv().unwrap().to_vec(), [7; 1000]);
        });
        let seen = inspect(pipe.address()).unwrap();
        assert_eq!(seen.producer.waits, round);
        assert!(seen.consumer.wakeups <= round, "{} wake-ups for {round} sleeps", seen.consumer.wakeups);
    }
}

pub fn a_sleeper_uses_no_cpu_time(backend: Backend) {
    fn used() -> Duration {
        // SAFETY: all fields are integers.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to one rusage.
        assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) }, 0);
        let of = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
        of(usage.ru_utime) + of(usage.ru_stime)
    }
    let (mut producer, mut consumer, _place) = pair(backend);
    let before = used();
    assert_eq!(consumer.recv_deadline(within(2 * A_WHILE)).unwrap_err(), RecvTimeoutError::TimedOut);
    fill(&mut producer);
    assert_eq!(producer.send_deadline(b"12345678", within(2 * A_WHILE)), Err(SendTimeoutError::TimedOut));
    let spent = used() - before;
    assert!(spent < A_WHILE / 2, "{spent:?} of {:?}", 4 * A_WHILE);
}

pub fn a_cancel_handle_ends_every_wait_from_another_thread(backend: Backend) {
    for strategy in [Wait::Spin, Wait::Yield, Wait::Block, NAP] {
        let (mut producer, mut consumer, _place) = pair_with(backend, &Options::new().wait(strategy));
        let cancel_soon = |handle: CancelHandle| {
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(20));
                handle.cancel();
            })
        };
        let handle = consumer.cancel_handle();
        assert!(!handle.is_cancelled());
        cancel_soon(handle.clone());
        assert_eq!(consumer.recv().unwrap_err(), RecvError::Cancelled);
        assert!(handle.is_cancelled());
        assert_eq!(consumer.recv().unwrap_err(), RecvError::Cancelled, "once cancelled, always cancelled");
        producer.send(b"sent without a wait").unwrap();
        consumer.recv().unwrap().release();

        fill(&mut producer);
        cancel_soon(producer.cancel_handle());
        assert_eq!(producer.send(b"12345678"), Err(SendError::Cancelled));
        assert_eq!(producer.reserve(8).unwrap_err(), SendError::Cancelled);
        assert_eq!(producer.batch().push(b"12345678"), Err(SendError::Cancelled));
        assert_eq!(consumer.try_recv().unwrap().value::<u64>(), Ok(0));
        producer.send(b"12345678").unwrap();
    }
}

pub fn a_cancel_handle_ends_the_wait_for_a_peer(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new()).unwrap();
    let mut producer = pipe.producer().unwrap();
    let handle = producer.cancel_handle();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        handle.cancel();
    });
    assert_eq!(producer.wait_for_peer(None), Err(WaitError::Cancelled));
    drop(producer);
    let mut consumer = pipe.consumer().unwrap();
    // The end of the last producer is reported once.
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Closed);
    consumer.cancel_handle().cancel();
    assert_eq!(consumer.wait_for_peer(None), Err(WaitError::Cancelled));
}

thread_local! {
    // For the signal handlers below, in the thread that receives the signal.
    static CANCELLED_BY_SIGNAL: OnceCell<CancelHandle> = const { OnceCell::new() };
    static SIGNALS: Cell<u32> = const { Cell::new(0) };
}

extern "C" fn cancel_wait(_: libc::c_int) {
    CANCELLED_BY_SIGNAL.with(|handle| handle.get().unwrap().cancel());
}

extern "C" fn count_signal(_: libc::c_int) {
    SIGNALS.set(SIGNALS.get() + 1);
}

/// Installs a handler after which system calls are not restarted. Returns the thread that must receive the signal.
fn handle(signal: i32, handler: extern "C" fn(libc::c_int)) -> i32 {
    // SAFETY: all zero is an empty mask and no flags.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    // SAFETY: the handlers above are async-signal-safe: they access what this thread set before, and call `cancel`.
    assert_eq!(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) }, 0);
    // SAFETY: no arguments.
    unsafe { libc::gettid() }
}

fn signal(thread: i32, signal: i32) {
    // SAFETY: no pointers.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) };
}

pub fn a_cancel_handle_ends_a_wait_from_a_signal_handler(backend: Backend) {
    let (_producer, mut consumer, _place) = pair(backend);
    CANCELLED_BY_SIGNAL.with(|handle| handle.set(consumer.cancel_handle()).unwrap());
    let waiter = handle(libc::SIGUSR1, cancel_wait);
    let signalling = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        signal(waiter, libc::SIGUSR1);
    });
    assert_eq!(consumer.recv_deadline(within(LONG)).unwrap_err(), RecvTimeoutError::Cancelled);
    signalling.join().unwrap();
}

pub fn signals_that_cancel_nothing_do_not_end_a_wait(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    let waiter = handle(libc::SIGUSR2, count_signal);
    let signalling = thread::spawn(move || {
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(2));
            signal(waiter, libc::SIGUSR2);
        }
        producer.send(b"at last").unwrap();
        producer
    });
    assert_eq!(consumer.recv().unwrap().to_vec(), b"at last");
    assert!(SIGNALS.get() > 0);
    drop(signalling.join().unwrap());
}

pub fn messages_of_a_trusted_peer_are_read_and_written_in_place(backend: Backend) {
    let (producer, consumer, _place) = pair(backend);
    // SAFETY: both ends are in this process, and no other process has the segment attached.
    let (mut producer, mut consumer) = unsafe { (producer.trust_peer(), consumer.trust_peer()) };
    for round in 0..2000usize {
        let length = round * 7 % 900;
        let mut space = producer.reserve(length).unwrap();
        space.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i ^ round) as u8);
        assert_eq!(space.len(), length);
        space.tag(round as u32);
        let position = space.commit();
        let message = consumer.recv().unwrap();
        let bytes: &[u8] = &message;
        assert_eq!((bytes.len(), message.tag(), message.position()), (length, round as u32, position));
        assert!(bytes.iter().enumerate().all(|(i, &byte)| byte == (i ^ round) as u8));
    }
    let mut space = producer.reserve(100).unwrap();
    space.fill(0xFF);
    space.commit_len(3);
    let mut drain = consumer.drain(10);
    assert_eq!(*drain.next().unwrap().unwrap(), [0xFF; 3]);
    assert!(drain.next().unwrap().is_none());
    drain.release();
    producer.send(b"other calls are unchanged").unwrap();
    assert_eq!(&**consumer.try_recv().unwrap(), b"other calls are unchanged");
}

pub fn a_role_has_one_holder_and_is_free_after_it(backend: Backend) {
    let place = backend.place();
    let pipe = place.open_or_create(&Options::new()).unwrap();
    let again = Pipe::open(&place).unwrap();
    let us = std::process::id();
    for _ in 0..3 {
        let (producer, consumer) = (pipe.producer().unwrap(), again.consumer().unwrap());
        for pipe in [&pipe, &again] {
            let error = pipe.producer().unwrap_err();
            assert!(
                matches!(error, SetupError::RoleTaken { role: Role::Producer, pid } if pid == Some(us)),
                "{error}"
            );
            assert!(error.to_string().contains(&us.to_string()), "{error}");
            let error = pipe.consumer().unwrap_err();
            assert!(
                matches!(error, SetupError::RoleTaken { role: Role::Consumer, pid } if pid == Some(us)),
                "{error}"
            );
        }
        producer.close().unwrap();
        drop(consumer);
    }
}

pub fn endpoints_outlive_the_pipe_handle_they_were_claimed_from(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    let pipe = producer.pipe().clone();
    let id = pipe.id();
    drop(pipe);
    producer.send(b"still here").unwrap();
    assert_eq!(received(&mut consumer), b"still here");
    assert_eq!((producer.pipe().id(), consumer.pipe().id()), (id, id));
}

pub fn a_default_pipe_has_one_mebibyte_and_mode_0600(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new()).unwrap();
    assert_eq!((pipe.capacity(), pipe.mode(), pipe.schema(), pipe.created()), (1 << 20, 0o600, 0, true));
    assert_eq!(pipe.differences(), []);
    let seen = inspect(&place).unwrap();
    assert_eq!((seen.capacity, seen.size, seen.permissions.mode), (1 << 20, (1 << 20) + 4096, 0o600));
    assert_eq!((seen.segment_id, seen.remove_on_close), (pipe.id(), false));
    let age = seen.created.elapsed().unwrap();
    assert!(age < LONG, "{age:?}");
}

pub fn capacity_is_rounded_up_to_a_power_of_two(backend: Backend) {
    for (requested, actual) in [(0, 4096), (1, 4096), (4096, 4096), (4097, 8192), (100_000, 131_072)] {
        let place = backend.place();
        let pipe = place.create(&Options::new().capacity(requested)).unwrap();
        assert_eq!(pipe.capacity(), actual, "requested {requested}");
        assert_eq!(pipe.max_len() as u64, actual / 2 - 8);
    }
    let place = backend.place();
    let error = place.create(&Options::new().capacity((1 << 40) + 1)).unwrap_err();
    assert!(
        matches!(error, SetupError::Limit(Shortage::Capacity { requested, largest }) if requested == largest + 1),
        "{error:?}"
    );
    place.create(&Options::new().capacity(u64::MAX)).unwrap_err();
    assert!(place.is_unused());
}

pub fn requests_that_an_existing_pipe_does_not_meet_are_reported(backend: Backend) {
    let place = backend.place();
    let created =
        place.create(&Options::new().capacity(8192).mode(0o640).wake_mode(WakeMode::Fence)).unwrap();
    let same = Options::new().capacity(8000).mode(0o640).wake_mode(WakeMode::Fence).remove_on_close(false);
    assert_eq!(place.open_or_create(&same).unwrap().differences(), []);
    assert_eq!(
        Options::new().open(&place).unwrap().differences(),
        [],
        "without a request there is no difference"
    );
    let other = Options::new()
        .capacity(100_000)
        .mode(0o600)
        .uid(4711)
        .gid(4712)
        .wake_mode(WakeMode::Never)
        .remove_on_close(true);
    let found = place.open_or_create(&other).unwrap();
    assert!(!found.created());
    assert_eq!(found.id(), created.id());
    assert_eq!((found.capacity(), found.mode(), found.wake_mode()), (8192, 0o640, WakeMode::Fence));
    // SAFETY: no arguments, cannot fail.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    assert_eq!(
        found.differences(),
        [
            Difference::Capacity { requested: 131_072, actual: 8192 },
            Difference::Mode { requested: 0o600, actual: 0o640 },
            Difference::Uid { requested: 4711, actual: uid },
            Difference::Gid { requested: 4712, actual: gid },
            Difference::WakeMode { requested: WakeMode::Never, actual: WakeMode::Fence },
            Difference::RemoveOnClose { requested: true, actual: false },
        ]
    );
    let texts: Vec<String> = found.differences().iter().map(ToString::to_string).collect();
    assert!(texts[0].contains("131072") && texts[0].contains("8192"), "{texts:?}");
    assert!(texts[1].contains("0600") && texts[1].contains("0640"), "{texts:?}");
}

pub fn another_schema_is_refused_with_both_values(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().schema(0xABCD)).unwrap();
    assert_eq!(pipe.schema(), 0xABCD);
    Options::new().schema(0xABCD).open(&place).unwrap();
    for options in [Options::new(), Options::new().schema(1)] {
        let error = place.open_or_create(&options).unwrap_err();
        assert!(
            matches!(error, SetupError::Incompatible(Mismatch::Schema { found: 0xABCD, .. })),
            "{error:?}"
        );
        assert!(error.to_string().contains("0xabcd"), "{error}");
    }
}

pub fn a_pipe_with_wake_mode_never_refuses_blocking_waits(backend: Backend) {
    let place = backend.place();
    let options = Options::new().wake_mode(WakeMode::Never);
    let error = place.create(&options.clone().wait(Wait::Block)).unwrap_err();
    assert!(matches!(error, SetupError::Unsupported(Unsupported::Block)), "{error:?}");
    assert!(place.is_unused());
    place.create(&options).unwrap();
    let error = Options::new().wait(Wait::Block).open(&place).unwrap_err();
    assert!(matches!(error, SetupError::Unsupported(Unsupported::Block)), "{error:?}");
    // Without a requested strategy it yields.
    let mut consumer = Pipe::open(&place).unwrap().consumer().unwrap();
    assert_eq!(
        consumer.recv_deadline(within(Duration::from_millis(5))).unwrap_err(),
        RecvTimeoutError::TimedOut
    );
}

pub fn create_requires_a_new_pipe_and_open_an_existing_one(backend: Backend) {
    let place = backend.place();
    let error = Pipe::open(&place).unwrap_err();
    assert!(matches!(error, SetupError::NotFound { .. }), "{error:?}");
    assert!(error.to_string().contains(place.as_str()), "{error}");
    assert!(place.is_unused());
    let pipe = place.create(&Options::new()).unwrap();
    let error = place.create(&Options::new()).unwrap_err();
    assert!(matches!(error, SetupError::Exists { .. }), "{error:?}");
    assert!(error.to_string().contains(place.as_str()), "{error}");
    assert_eq!(Pipe::open(&place).unwrap().id(), pipe.id());
    assert_eq!(place.open_or_create(&Options::new()).unwrap().id(), pipe.id());
}

pub fn counters_record_what_each_side_did(backend: Backend) {
    let (mut producer, mut consumer, _place) = pair(backend);
    let pipe = producer.pipe().clone();
    let snapshot = || inspect(pipe.address()).unwrap();
    for length in [10, 0, 100] {
        producer.send(&vec![0; length]).unwrap();
    }
    let mut batch = producer.batch();
    batch.push(&[0; 5]).unwrap();
    batch.push(&[0; 5]).unwrap();
    batch.commit();
    producer.reserve(50).unwrap().commit_len(1);
    drop(producer.reserve(50).unwrap());
    let seen = snapshot();
    assert_eq!((seen.producer.messages, seen.producer.bytes), (6, 121));
    assert_eq!((seen.consumer.messages, seen.consumer.bytes), (0, 0));
    assert_eq!(seen.producer.position, producer.position().get());
    assert_eq!(seen.used, producer.position().get());

    drop(consumer.recv().unwrap());
    consumer.recv().unwrap().requeue();
    let mut drain = consumer.drain(2);
    while drain.next().unwrap().is_some() {}
    drop(drain);
    let seen = snapshot();
    assert_eq!((seen.consumer.messages, seen.consumer.bytes), (3, 110));
    assert_eq!(seen.consumer.position, consumer.position().get());
    assert_eq!((seen.producer.epoch, seen.consumer.epoch), (1, 1));
    let us = Some(std::process::id());
    assert_eq!((seen.producer.peer, seen.producer.pid, seen.consumer.pid), (Peer::Open, us, us));
    assert_eq!((seen.producer.waits, seen.consumer.waits), (0, 0));

    while let Ok(message) = consumer.try_recv() {
        drop(message);
    }
    consumer.recv_deadline(Instant::now()).unwrap_err();
    assert_eq!(snapshot().consumer.waits, 1);
    fill(&mut producer);
    producer.send_deadline(&[0; 8], Instant::now()).unwrap_err();
    assert_eq!(snapshot().producer.waits, 1);

    drop((producer, consumer));
    let seen = snapshot();
    assert_eq!((seen.producer.peer, seen.producer.pid), (Peer::Closed, None));
    drop(pipe.producer().unwrap());
    assert_eq!(snapshot().producer.epoch, 2);
}

pub fn inspecting_shows_which_side_may_be_asleep(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(CAPACITY)).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    let asleep = || {
        let seen = inspect(&place).unwrap();
        (seen.producer.may_be_asleep, seen.consumer.may_be_asleep)
    };
    // Asserts nothing itself: a panic would wait for the thread that sleeps.
    let becomes = |wanted| {
        let start = Instant::now();
        while asleep() != wanted && start.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(1));
        }
        asleep() == wanted
    };
    assert_eq!(asleep(), (false, false));
    thread::scope(|scope| {
        let receiving = scope.spawn(|| drop(consumer.recv().unwrap()));
        let slept = becomes((false, true));
        producer.send(b"wake up").unwrap();
        receiving.join().unwrap();
        assert!(slept);
    });
    fill(&mut producer);
    // There is something to receive.
    assert_eq!(asleep(), (false, false));
    thread::scope(|scope| {
        let sending = scope.spawn(|| producer.send(&[0; 8]).unwrap());
        let slept = becomes((true, false));
        while consumer.try_recv().is_ok() {}
        sending.join().unwrap();
        assert!(slept);
    });
    drop((producer, consumer));
    assert_eq!(asleep(), (false, false));
}

pub fn inspecting_changes_nothing(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(CAPACITY)).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    producer.send(b"inspected").unwrap();
    let bytes = place.segment().bytes();
    for _ in 0..10 {
        inspect(&place).unwrap();
    }
    assert_eq!(place.segment().bytes(), bytes);
    place.attached_by(1);
    assert_eq!(received(&mut consumer), b"inspected");
}

pub fn each_end_sees_the_state_of_its_peer(backend: Backend) {
    let place = backend.place();
    let pipe = place.open_or_create(&Options::new()).unwrap();
    let mut producer = pipe.producer().unwrap();
    assert_eq!(producer.peer(), Peer::NeverCame);
    assert_eq!(producer.wait_for_peer(Some(within(Duration::from_millis(20)))), Err(WaitError::TimedOut));
    let mut consumer = pipe.consumer().unwrap();
    assert_eq!((producer.peer(), consumer.peer()), (Peer::Open, Peer::Open));
    producer.wait_for_peer(Some(Instant::now())).unwrap();
    consumer.wait_for_peer(None).unwrap();
    drop(producer);
    assert_eq!(consumer.peer(), Peer::Closed);
    // A producer was attached, and its end is not reported yet: there is something to receive.
    consumer.wait_for_peer(None).unwrap();
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Closed);
    assert_eq!(consumer.wait_for_peer(Some(within(Duration::from_millis(20)))), Err(WaitError::TimedOut));
    let mut producer = pipe.producer().unwrap();
    assert_eq!(consumer.peer(), Peer::Open);
    drop(consumer);
    assert_eq!(producer.peer(), Peer::Closed);
    // A consumer that attaches wakes a producer that waits for one.
    let coming = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        pipe.consumer().unwrap()
    });
    producer.wait_for_peer(None).unwrap();
    drop(coming.join().unwrap());
}

pub fn endpoints_can_move_between_threads(backend: Backend) {
    // Messages sent or released in one thread are visible in the next.
    let (mut producer, mut consumer, _place) = pair(backend);
    for i in 0..50u8 {
        (producer, consumer) = thread::spawn(move || {
            producer.send(&[i; 100]).unwrap();
            assert_eq!(received(&mut consumer), [i; 100]);
            (producer, consumer)
        })
        .join()
        .unwrap();
    }
    assert_eq!(producer.free().unwrap(), CAPACITY - 8);
}

/// Runs `what` in a thread that panics then, and drops what is left in the course.
fn in_a_panic(what: impl FnOnce()) {
    let panicked = catch_unwind(AssertUnwindSafe(what));
    assert!(panicked.is_err());
}

fn panics() {
    resume_unwind(Box::new("without a message on stderr"));
}

pub fn a_message_that_a_panic_drops_is_released_or_kept_as_chosen(backend: Backend) {
    struct ReleaseOnDrop<'a>(Option<Message<'a>>);

    impl Drop for ReleaseOnDrop<'_> {
        fn drop(&mut self) {
            assert!(std::thread::panicking());
            self.0.take().unwrap().release();
        }
    }

    for keeps in [false, true] {
        let place = backend.place();
        let pipe = place.create(&Options::new().capacity(4096).keep_unread_on_panic(keeps)).unwrap();
        let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
        for number in 0..6u8 {
            producer.send(&[number]).unwrap();
        }
        let mut expected = 0u8;
        let lost = u8::from(!keeps);

        in_a_panic(|| {
            let message = consumer.recv().unwrap();
            assert_eq!(message.to_vec(), [expected]);
            panics();
        });
        expected += lost;
        in_a_panic(|| {
            let mut drain = consumer.drain(2);
            while drain.next().unwrap().is_some() {}
            assert_eq!(drain.taken(), 2);
            panics();
        });
        expected += 2 * lost;
        // The default, which a normal drop and an explicit release follow in any case.
        assert_eq!(consumer.recv().unwrap().to_vec(), [expected]);
        expected += 1;
        in_a_panic(|| {
            let _message = ReleaseOnDrop(Some(consumer.recv().unwrap()));
            panics();
        });
        expected += 1;
        // With its consumer.
        in_a_panic(move || {
            let mut consumer = consumer;
            let message = consumer.recv().unwrap();
            assert_eq!(message.to_vec(), [expected]);
            panics();
        });
        expected += lost;
        assert_eq!(producer.peer(), Peer::Aborted { code: PANICKED });
        let mut successor = pipe.consumer().unwrap();
        producer.send(b"last").unwrap();
        for number in expected..6 {
            assert_eq!(successor.recv().unwrap().to_vec(), [number]);
        }
        assert_eq!(successor.recv().unwrap().to_vec(), b"last");
    }
}
