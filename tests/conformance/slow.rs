//! Slow readers, loggers, streams of bytes: what an endpoint does beside sending and receiving one message.

use shmpipe::{
    ByteReader, ByteWriter, FlushError, Options, RecvError, SendError, TryRecvError, TrySendError, Wait,
    WakeMode, inspect,
};
use shmpipe_testing::backend::Backend;
use shmpipe_testing::layout::{PRODUCED, counters, identity};
use shmpipe_testing::{LONG, end, within};
use std::io::{BufRead, ErrorKind, Read, Write};
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
            assert_eq!(consumer.iter().map(|line| assert_eq!(line.unwrap(), b"a line")).count(), 20);
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
        assert_eq!(consumer.iter().count(), 0);
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

pub fn bytes_written_are_read_whatever_the_messages(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(4096)).unwrap();
    let bytes: Vec<u8> = (0..100_000u32).map(|i| (i * 31 + i / 256) as u8).collect();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    thread::scope(|scope| {
        let bytes = &bytes;
        scope.spawn(move || {
            let mut writer = ByteWriter::new(&mut producer);
            assert_eq!(writer.write(&[]).unwrap(), 0);
            let mut rest = &bytes[..];
            for size in [1, 8, 2040, 2041, 10_000].into_iter().cycle() {
                let (now, later) = rest.split_at(rest.len().min(size));
                writer.write_all(now).unwrap();
                writer.flush().unwrap();
                // An empty message is no end.
                writer.get_mut().send(&[]).unwrap();
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            drop(producer);
        });
        let mut reader = ByteReader::new(&mut consumer);
        let mut read = vec![0; 33];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(reader.read(&mut []).unwrap(), 0);
        reader.read_to_end(&mut read).unwrap();
        assert!(read == *bytes, "{} bytes", read.len());
        assert_eq!((reader.read(&mut [0]).unwrap(), reader.buffer().len()), (0, 0));
    });
    // After a new producer the stream goes on.
    let mut reader = ByteReader::new(consumer);
    pipe.producer().unwrap().send(b"two\nlines").unwrap();
    assert_eq!(reader.by_ref().lines().collect::<Result<Vec<_>, _>>().unwrap(), ["two", "lines"]);
    reader.into_inner().close().unwrap();
}

pub fn ends_and_errors_of_a_stream_of_bytes_have_a_kind(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new()).unwrap();
    let mut reader = ByteReader::new(pipe.consumer().unwrap());
    let mut byte = [0];
    let mut producer = end::producer(&place);
    assert_eq!(producer.ask("send x"), "sent");
    producer.kill();
    assert_eq!(reader.read(&mut byte).unwrap(), 1);
    let error = reader.read(&mut byte).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(error.downcast::<RecvError>().unwrap(), RecvError::PeerDied);
    pipe.producer().unwrap().abort(3).unwrap();
    let error = reader.read(&mut byte).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    let mut writer = ByteWriter::new(pipe.producer().unwrap());
    reader.get_mut().cancel_handle().cancel();
    assert_eq!(reader.read(&mut byte).unwrap_err().kind(), ErrorKind::Other);
    drop(reader);
    let error = writer.write_all(b"too late").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    assert_eq!(error.downcast::<SendError>().unwrap(), SendError::Closed);
}

pub fn a_consumer_is_an_iterator_until_its_producer_closes(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new()).unwrap();
    let mut consumer = pipe.consumer().unwrap();
    pipe.producer().unwrap().send(b"one").unwrap();
    let mut messages = consumer.iter();
    assert_eq!(messages.next(), Some(Ok(b"one".to_vec())));
    assert_eq!((messages.next(), messages.next()), (None, None));
    let mut producer = pipe.producer().unwrap();
    producer.send(b"two").unwrap();
    producer.abort(7).unwrap();
    let mut messages = consumer.into_iter();
    assert_eq!(messages.next(), Some(Ok(b"two".to_vec())));
    assert_eq!(messages.next(), Some(Err(RecvError::PeerAborted { code: 7 })));
    // The next producer continues.
    pipe.producer().unwrap().send(b"three").unwrap();
    assert_eq!(messages.next(), Some(Ok(b"three".to_vec())));
    assert_eq!(messages.next(), None);
}
