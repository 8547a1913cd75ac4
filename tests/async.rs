//! Awaited calls, in several executors and in none.

use futures_util::{SinkExt, StreamExt};
use shmpipe::{
    AsyncConsumer, AsyncProducer, Lost, Options, Peer, Pipe, RecvError, SendError, SetupError, WakeMode,
    error, inspect, unlink_force,
};
use shmpipe_testing::backend::Backend;
use shmpipe_testing::end;
use shmpipe_testing::process::{Line, Process, part as play};
use shmpipe_testing::seccomp::{run_without_system_calls, without_system_calls};
use shmpipe_testing::until;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

#[test]
fn part() {
    play(&[("end", end::play), ("sealed tasks", sealed_tasks)]);
}

fn small() -> Options {
    Options::new().capacity(4096)
}

fn pair() -> (AsyncProducer, AsyncConsumer) {
    let pipe = small().create("memfd").unwrap();
    (pipe.producer().unwrap().into_async().unwrap(), pipe.consumer().unwrap().into_async().unwrap())
}

/// An executor of a few lines: the thread parks while its future is pending.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>, waker: &Arc<Count>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&Waker::from(waker.clone())))
}

/// Sends numbers there and back. The ring holds a few of them, so both sides wait for messages and for space.
async fn there_and_back(
    (mut out, mut back): (AsyncProducer, AsyncConsumer),
    count: u64,
    answers: impl Future<Output = ()>,
) {
    let asking = async {
        for number in 0..count {
            out.send(&number.to_le_bytes()).await.unwrap();
            if number % 10 == 0 {
                assert_eq!(back.recv().await.unwrap().value::<u64>().unwrap(), number);
            }
        }
    };
    futures_util::join!(asking, answers);
}

async fn answer((mut questions, mut back): (AsyncConsumer, AsyncProducer), count: u64) {
    for number in 0..count {
        let asked = questions.recv().await.unwrap().value::<u64>().unwrap();
        assert_eq!(asked, number);
        if number % 10 == 0 {
            back.send(&asked.to_le_bytes()).await.unwrap();
        }
    }
}

async fn converse() {
    const COUNT: u64 = 5000;
    let ((out, questions), (answers, back)) = (pair(), pair());
    there_and_back((out, back), COUNT, answer((questions, answers), COUNT)).await;
}

#[test]
fn tasks_converse_in_tokio_with_many_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..4).map(|_| tokio::spawn(converse())).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn tasks_converse_in_tokio_with_one_thread() {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(converse());
}

#[test]
fn tasks_converse_in_smol() {
    let executor = smol::Executor::new();
    let tasks: Vec<_> = (0..4).map(|_| executor.spawn(converse())).collect();
    smol::block_on(executor.run(async {
        for task in tasks {
            task.await;
        }
    }));
}

#[test]
fn tasks_converse_in_an_executor_of_a_few_lines() {
    block_on(converse());
}

#[test]
fn threads_converse_each_with_its_own_executor() {
    let ((out, questions), (answers, back)) = (pair(), pair());
    let answering = thread::spawn(move || block_on(answer((questions, answers), 5000)));
    block_on(there_and_back((out, back), 5000, async {}));
    answering.join().unwrap();
}

#[test]
fn a_receive_dropped_at_any_poll_loses_nothing() {
    const COUNT: u64 = 20_000;
    let (mut producer, mut consumer) = pair();
    let sending = thread::spawn(move || {
        for number in 0..COUNT {
            block_on(producer.send(&number.to_le_bytes())).unwrap();
        }
        producer
    });
    let waker = Arc::new(Count::default());
    let mut dropped = 0;
    for number in 0..COUNT {
        let polls = number % 4;
        loop {
            let mut receive = pin!(consumer.recv());
            let mut received = Poll::Pending;
            for _ in 0..=polls {
                received = poll_once(receive.as_mut(), &waker).map(|message| message.unwrap().value::<u64>());
                if received.is_ready() {
                    break;
                }
            }
            match received {
                Poll::Ready(found) => break assert_eq!(found.unwrap(), number),
                Poll::Pending => dropped += 1,
            }
        }
    }
    assert!(dropped > 0, "no receive was dropped");
    sending.join().unwrap();
}

#[test]
fn a_send_dropped_at_any_poll_sends_nothing() {
    let (mut producer, mut consumer) = pair();
    let waker = Arc::new(Count::default());
    while poll_once(pin!(producer.send(&[1; 1000])), &waker).is_ready() {}
    for _ in 0..3 {
        let mut send = pin!(producer.send(&[2; 1000]));
        assert!(poll_once(send.as_mut(), &waker).is_pending());
        assert!(poll_once(send.as_mut(), &waker).is_pending());
    }
    assert!(poll_once(pin!(producer.reserve(1000)), &waker).is_pending());
    let before = waker.get();
    while let Ok(message) = consumer.get_mut().try_recv() {
        assert_eq!(message.to_vec(), [1; 1000]);
    }
    assert!(poll_once(pin!(producer.send(&[3; 1000])), &waker).is_ready());
    assert_eq!(block_on(consumer.recv()).unwrap().to_vec(), [3; 1000]);
    assert_eq!(waker.get(), before, "a future that was dropped was woken");
}

#[test]
fn a_dropped_future_leaves_no_sleeper() {
    let place = Backend::SysV.place();
    let pipe = place.create(&small()).unwrap();
    let (mut producer, mut consumer) =
        (pipe.producer().unwrap(), pipe.consumer().unwrap().into_async().unwrap());
    let waker = Arc::new(Count::default());
    assert!(poll_once(pin!(consumer.recv()), &waker).is_pending());
    producer.send(b"hello").unwrap();
    assert_eq!(inspect(place.as_str()).unwrap().producer.wakeups, 0);
    assert_eq!(waker.get(), 0);
    assert_eq!(block_on(consumer.recv()).unwrap().to_vec(), b"hello");
}

#[test]
fn only_the_latest_waker_is_woken() {
    let (producer, mut consumer) = pair();
    let mut producer = producer.into_blocking();
    let (first, second) = (Arc::new(Count::default()), Arc::new(Count::default()));
    let mut receive = pin!(consumer.recv());
    assert!(poll_once(receive.as_mut(), &first).is_pending());
    assert!(poll_once(receive.as_mut(), &second).is_pending());
    producer.send(b"hello").unwrap();
    until("the second waker is woken", || second.get() == 1);
    assert_eq!(first.get(), 0);
    assert!(poll_once(receive.as_mut(), &first).is_ready());
}

#[test]
fn every_end_reaches_a_task() {
    for ending in ["close", "abort 7", "kill", "remove"] {
        let place = Backend::SysV.place();
        let pipe = place.open_or_create(&small()).unwrap();
        let mut consumer = pipe.consumer().unwrap().into_async().unwrap();
        let mut peer = end::producer(&place);
        assert_eq!(peer.ask("send hello"), "sent");
        let waker = Arc::new(Count::default());
        block_on(consumer.wait_for_peer()).unwrap();
        assert_eq!(block_on(consumer.recv()).unwrap().to_vec(), b"hello");
        assert!(poll_once(pin!(consumer.recv()), &waker).is_pending());
        let expected = match ending {
            "close" => {
                assert_eq!(peer.ask("close"), "closed");
                assert_eq!(block_on(consumer.closed()), Ok(Peer::Closed));
                RecvError::Closed
            }
            "abort 7" => {
                assert_eq!(peer.ask("abort 7"), "aborted");
                assert_eq!(block_on(consumer.closed()), Ok(Peer::Aborted { code: 7 }));
                RecvError::PeerAborted { code: 7 }
            }
            "kill" => {
                peer.kill();
                assert_eq!(block_on(consumer.closed()), Ok(Peer::Died));
                RecvError::PeerDied
            }
            _ => {
                unlink_force(place.as_str()).unwrap();
                assert_eq!(block_on(consumer.closed()), Err(Lost::Removed));
                RecvError::Lost(Lost::Removed)
            }
        };
        assert_eq!(block_on(consumer.recv()).unwrap_err(), expected);
    }
}

#[test]
fn the_end_of_a_consumer_reaches_a_task_that_sends() {
    let place = Backend::SysV.place();
    let pipe = place.open_or_create(&small()).unwrap();
    let mut producer = pipe.producer().unwrap().into_async().unwrap();
    let waker = Arc::new(Count::default());
    assert!(poll_once(pin!(producer.wait_for_peer()), &waker).is_pending());
    let consumer = end::consumer(&place);
    block_on(producer.wait_for_peer()).unwrap();
    while poll_once(pin!(producer.send(&[0; 1000])), &waker).is_ready() {}
    consumer.kill();
    assert_eq!(block_on(producer.send(&[0; 1000])), Err(SendError::PeerDied));
    // It waits for the successor.
    assert!(poll_once(pin!(producer.send(&[0; 1000])), &waker).is_pending());
    assert_eq!(
        block_on(producer.reserve(4000)).map(|_| ()).unwrap_err(),
        SendError::TooLarge { length: 4000, max: 2040 }
    );
    let consumer = end::consumer(&place);
    block_on(producer.wait_for_peer()).unwrap();
    drop(consumer);
}

#[test]
fn a_stream_and_a_sink_carry_messages_to_their_end() {
    let (mut producer, consumer) = pair();
    let sending = thread::spawn(move || {
        block_on(async {
            for number in 0..1000u64 {
                SinkExt::<Vec<u8>>::feed(&mut producer, vec![number as u8; 100]).await.unwrap();
            }
            SinkExt::<Vec<u8>>::flush(&mut producer).await.unwrap();
        });
    });
    let received: Vec<_> = block_on(consumer.collect());
    assert_eq!(received.len(), 1000);
    for (number, message) in received.into_iter().enumerate() {
        assert_eq!(message.unwrap(), [number as u8; 100]);
    }
    sending.join().unwrap();
}

#[test]
fn an_abort_is_an_item_of_a_stream() {
    let (producer, mut consumer) = pair();
    producer.into_blocking().abort(7).unwrap();
    assert_eq!(block_on(consumer.next()), Some(Err(RecvError::PeerAborted { code: 7 })));
    let waker = Arc::new(Count::default());
    assert!(poll_once(pin!(consumer.next()), &waker).is_pending());
}

fn sealed_tasks(mut line: Line) {
    let (mut producer, mut consumer) = pair();
    let waker = Arc::new(Count::default());
    // Both have waited before.
    assert!(poll_once(pin!(consumer.recv()), &waker).is_pending());
    while poll_once(pin!(producer.send(&[1; 100])), &waker).is_ready() {}
    let mut is_received = || matches!(poll_once(pin!(consumer.recv()), &waker), Poll::Ready(Ok(_)));
    while is_received() {}
    let mut is_sent = |is_in_place| match is_in_place {
        true => match poll_once(pin!(producer.reserve(100)), &waker) {
            Poll::Ready(Ok(space)) => {
                space.commit();
                true
            }
            _ => false,
        },
        false => matches!(poll_once(pin!(producer.send(&[2; 100])), &waker), Poll::Ready(Ok(_))),
    };
    let mut round = || is_sent(true) && is_sent(false) && is_received() && is_received();
    // Answers the sleeps of before.
    assert!(round());
    without_system_calls(&mut line, || {
        if !(0..1000).all(|_| round()) {
            std::process::abort();
        }
    })
}

#[test]
fn a_poll_that_finds_what_it_awaits_makes_no_system_call() {
    run_without_system_calls(&mut [Process::start("sealed tasks", &[])]);
}

#[test]
fn many_endpoints_share_a_few_threads() {
    let mut ends: Vec<_> = (0..300).map(|_| pair()).collect();
    let wakers: Vec<_> = ends.iter().map(|_| Arc::new(Count::default())).collect();
    let mut receives: Vec<_> = vec![];
    let mut producers = vec![];
    for (producer, consumer) in &mut ends {
        producers.push(producer);
        receives.push(Box::pin(consumer.recv()));
    }
    for (receive, waker) in receives.iter_mut().zip(&wakers) {
        assert!(poll_once(receive.as_mut(), waker).is_pending());
    }
    for index in [0, 63, 64, 126, 127, 200, 299] {
        block_on(producers[index].send(b"hello")).unwrap();
        until("woken", || wakers[index].get() == 1);
        assert!(poll_once(receives[index].as_mut(), &wakers[index]).is_ready());
    }
    assert_eq!(wakers.iter().map(|waker| waker.get()).sum::<usize>(), 7);
}

#[test]
fn a_forked_child_has_a_driver_of_its_own() {
    let (mut producer, mut consumer) = pair();
    let waker = Arc::new(Count::default());
    assert!(poll_once(pin!(consumer.recv()), &waker).is_pending());
    // SAFETY: the child uses the heap, which glibc keeps usable, and exits without running the parent's destructors.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: no pointers. Ends a child that hangs.
            unsafe { libc::alarm(30) };
            drop((producer, consumer));
            let ((out, questions), (answers, back)) = (pair(), pair());
            block_on(there_and_back((out, back), 100, answer((questions, answers), 100)));
            // SAFETY: ends the process.
            unsafe { libc::_exit(0) }
        }
        child => {
            let mut status = 0;
            // SAFETY: the pointer is to one int.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0);
        }
    }
    block_on(producer.send(b"hello")).unwrap();
    assert_eq!(block_on(consumer.recv()).unwrap().to_vec(), b"hello");
}

#[test]
fn a_pipe_that_wakes_no_one_is_refused() {
    let pipe: Pipe = small().wake_mode(WakeMode::Never).create("memfd").unwrap();
    assert!(matches!(
        pipe.consumer().unwrap().into_async(),
        Err(SetupError::Unsupported(error::Unsupported::Block))
    ));
}
