//! Closed, aborted and dead peers, between processes: every row of the table in the documentation of `Producer` and `Consumer`.

use shmpipe::{
    CheckError, Lost, Options, PANICKED, Peer, Pipe, RecvError, RecvTimeoutError, SendError,
    SendTimeoutError, TryRecvError, Wait, inspect, unlink_force,
};
use shmpipe_testing::backend::{Backend, Place};
use shmpipe_testing::end::Meet;
use shmpipe_testing::process::Process;
use shmpipe_testing::{A_WHILE, at_once, end, until, within};
use std::fmt::Display;
use std::time::{Duration, Instant};

/// Longer than the interval at which a wait checks its peer.
const NAP: Wait = Wait::Sleep(Duration::from_secs(1));

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Close,
    Drop,
    /// With code 7.
    Abort,
    /// A panic drops it.
    Panic,
    Kill,
    /// It exits without running destructors.
    Exit,
}

use Ending::{Abort, Close, Drop, Exit, Kill, Panic};

const ORDERLY: [Ending; 2] = [Close, Drop];
const ABORTS: [Ending; 2] = [Abort, Panic];
const DEATHS: [Ending; 2] = [Kill, Exit];

impl Ending {
    fn of(self, mut process: Process) {
        match self {
            Close => assert_eq!(process.ask("close"), "closed"),
            Drop => assert_eq!(process.ask("drop"), "dropped"),
            Abort => assert_eq!(process.ask("abort 7"), "aborted"),
            Panic => assert_eq!(process.ask("panic"), "panicked"),
            Kill => return process.kill(),
            Exit => {
                process.say("exit");
                process.wait();
                return;
            }
        }
        process.end();
    }

    fn is_orderly(self) -> bool {
        ORDERLY.contains(&self)
    }

    /// The error that reports it.
    fn report(self) -> &'static str {
        match self {
            Close | Drop => "Closed",
            Abort => "PeerAborted { code: 7 }",
            Panic => "PeerAborted { code: 4294967295 }",
            Kill | Exit => "PeerDied",
        }
    }
}

/// Starts a producer and a consumer of `place`, in either order.
fn both(place: &Place, producer_first: bool) -> (Process, Process) {
    if producer_first {
        let producer = end::producer(place);
        (producer, end::consumer(place))
    } else {
        let consumer = end::consumer(place);
        (end::producer(place), consumer)
    }
}

const ORDERS: [bool; 2] = [true, false];

/// Milliseconds that are longer than any answer should take: several intervals at which a wait checks its peer.
const QUIET: u128 = A_WHILE.as_millis();

fn recv_waits(consumer: &mut Process) {
    assert_eq!(consumer.ask(format!("recv {QUIET}")), "TimedOut");
}

/// For a pipe that is full.
fn send_waits(producer: &mut Process) {
    assert_eq!(producer.ask(format!("send 12345678 {QUIET}")), "TimedOut");
}

/// How many messages of 8 bytes fit into a ring of 4096.
const FULL: usize = 255;

fn fill(producer: &mut Process) {
    assert_eq!(producer.ask("fill"), format!("full after {FULL}"));
}

/// A message still gets through, whatever happened before.
fn a_message_passes(producer: &mut Process, consumer: &mut Process, message: impl Display) {
    assert_eq!(producer.ask(format!("send {message}")), "sent");
    assert_eq!(consumer.ask("recv"), format!("{:?}", message.to_string()));
}

pub fn recv_waits_for_the_first_producer(backend: Backend) {
    let place = backend.place();
    let mut consumer = end::consumer(&place);
    assert_eq!(consumer.ask("peer"), "NeverCame");
    recv_waits(&mut consumer);
    assert_eq!(consumer.ask("try_recv"), "Empty");
    consumer.say("recv");
    let mut producer = end::producer(&place);
    assert_eq!(producer.ask("send first"), "sent");
    assert_eq!(consumer.hear(), "\"first\"");
}

pub fn recv_waits_for_an_idle_producer(backend: Backend) {
    let place = backend.place();
    for producer_first in ORDERS {
        let (mut producer, mut consumer) = both(&place, producer_first);
        recv_waits(&mut consumer);
        assert_eq!(consumer.ask("peer"), "Open");
        // A stopped process is alive.
        producer.signal(libc::SIGSTOP);
        recv_waits(&mut consumer);
        producer.signal(libc::SIGCONT);
        a_message_passes(&mut producer, &mut consumer, "again");
    }
}

pub fn after_a_close_recv_delivers_the_rest_and_then_reports_closed_every_time(backend: Backend) {
    at_once(ORDERLY, |ending| {
        let place = backend.place();
        for (producer_first, round) in ORDERS.into_iter().zip(0..).cycle().take(4) {
            let (mut producer, mut consumer) = both(&place, producer_first);
            assert_eq!(producer.ask(format!("send one{round}")), "sent");
            assert_eq!(producer.ask("send two"), "sent");
            ending.of(producer);
            assert_eq!(consumer.ask("recv"), format!("\"one{round}\""));
            assert_eq!(consumer.ask("try_recv"), "\"two\"");
            for _ in 0..3 {
                assert_eq!(consumer.ask("recv"), "Closed");
                assert_eq!(consumer.ask("try_recv"), "Closed");
            }
            assert_eq!(consumer.ask("peer"), "Closed");
            // Until a new producer attaches.
            let mut producer = end::producer(&place);
            assert_eq!(consumer.ask("try_recv"), "Empty");
            recv_waits(&mut consumer);
            a_message_passes(&mut producer, &mut consumer, "three");
            ending.of(producer);
            assert_eq!(consumer.ask("recv"), "Closed");
            consumer.end();
        }
    });
}

pub fn a_producer_may_end_before_the_consumer_attaches(backend: Backend) {
    let place = backend.place();
    for ending in ORDERLY.into_iter().chain(ABORTS).chain(DEATHS) {
        for round in 0..2 {
            let mut producer = end::producer(&place);
            assert_eq!(producer.ask(format!("send early{round}")), "sent");
            ending.of(producer);
            let mut consumer = end::consumer(&place);
            assert_eq!(consumer.ask("recv"), format!("\"early{round}\""));
            assert_eq!(consumer.ask("recv"), ending.report());
            if !ending.is_orderly() {
                recv_waits(&mut consumer);
            }
            consumer.end();
        }
    }
}

pub fn after_a_death_recv_delivers_what_was_committed_and_then_reports_peer_died_once(backend: Backend) {
    at_once(DEATHS, |ending| {
        let place = backend.place();
        for (producer_first, round) in ORDERS.into_iter().zip(0..).cycle().take(4) {
            let (mut producer, mut consumer) = both(&place, producer_first);
            assert_eq!(producer.ask(format!("send one{round}")), "sent");
            assert_eq!(producer.ask("send two"), "sent");
            assert_eq!(producer.ask("reserve 100"), "reserved");
            ending.of(producer);
            assert_eq!(consumer.ask("peer"), "Died");
            assert_eq!(consumer.ask("recv"), format!("\"one{round}\""));
            assert_eq!(consumer.ask("recv"), "\"two\"");
            assert_eq!(consumer.ask("try_recv"), "Empty", "a try makes no system call");
            assert_eq!(consumer.ask("recv"), "PeerDied");
            recv_waits(&mut consumer);
            assert_eq!(consumer.ask("try_recv"), "Empty");
            // The next call waits for a successor.
            consumer.say("recv");
            let mut successor = end::producer(&place);
            assert_eq!(successor.ask("send three"), "sent");
            assert_eq!(consumer.hear(), "\"three\"");
            recv_waits(&mut consumer);
            ending.of(successor);
            assert_eq!(consumer.ask("recv"), "PeerDied", "of the successor, once as well");
            recv_waits(&mut consumer);
            consumer.end();
        }
    });
}

pub fn after_an_abort_recv_delivers_the_rest_and_then_reports_its_code_once(backend: Backend) {
    at_once(ABORTS, |ending| {
        let place = backend.place();
        for (producer_first, round) in ORDERS.into_iter().zip(0..).cycle().take(4) {
            let (mut producer, mut consumer) = both(&place, producer_first);
            assert_eq!(producer.ask(format!("send one{round}")), "sent");
            assert_eq!(producer.ask("send two"), "sent");
            assert_eq!(producer.ask("reserve 100"), "reserved");
            ending.of(producer);
            let state = if ending == Abort { "Aborted { code: 7 }" } else { "Aborted { code: 4294967295 }" };
            assert_eq!(consumer.ask("peer"), state);
            assert_eq!(consumer.ask("recv"), format!("\"one{round}\""));
            assert_eq!(consumer.ask("try_recv"), "\"two\"");
            // By whichever call comes first.
            let first = ["recv", "try_recv", "check"][round % 3];
            assert_eq!(consumer.ask(first), ending.report());
            assert_eq!(consumer.ask("peer"), state);
            recv_waits(&mut consumer);
            assert_eq!(consumer.ask("try_recv"), "Empty");
            assert_eq!(consumer.ask("check"), "fine");
            // The next call waits for a successor.
            consumer.say("recv");
            let mut successor = end::producer(&place);
            assert_eq!(successor.ask("send three"), "sent");
            assert_eq!(consumer.hear(), "\"three\"");
            recv_waits(&mut consumer);
            ending.of(successor);
            assert_eq!(consumer.ask("recv"), ending.report(), "of the successor, once as well");
            recv_waits(&mut consumer);
            consumer.end();
        }
    });
}

pub fn a_death_or_an_abort_before_a_successor_is_not_reported(backend: Backend) {
    let place = backend.place();
    for ending in DEATHS.into_iter().chain(ABORTS) {
        let (mut producer, mut consumer) = both(&place, true);
        assert_eq!(producer.ask("send one"), "sent");
        ending.of(producer);
        let mut successor = end::producer(&place);
        assert_eq!(consumer.ask("recv"), "\"one\"");
        recv_waits(&mut consumer);
        a_message_passes(&mut successor, &mut consumer, "two");

        fill(&mut successor);
        ending.of(consumer);
        let mut consumer = end::consumer(&place);
        send_waits(&mut successor);
        assert_eq!(consumer.ask("empty"), format!("empty after {FULL}"));
        a_message_passes(&mut successor, &mut consumer, "three");
        successor.end();
        assert_eq!(consumer.ask("recv"), "Closed");
        consumer.end();
    }
}

pub fn an_end_reported_to_a_consumer_is_not_reported_to_its_successor(backend: Backend) {
    at_once([Close, Drop, Abort, Kill, Exit], |ending| {
        for own_ending in [Close, Abort, Kill] {
            let place = backend.place();
            for producer_first in ORDERS {
                let (producer, mut consumer) = both(&place, producer_first);
                ending.of(producer);
                assert_eq!(consumer.ask("recv"), ending.report());
                own_ending.of(consumer);
                let mut successor = end::consumer(&place);
                assert_eq!(successor.ask("try_recv"), "Empty");
                recv_waits(&mut successor);
                let mut producer = end::producer(&place);
                a_message_passes(&mut producer, &mut successor, "fresh");
                Close.of(producer);
                assert_eq!(successor.ask("recv"), "Closed");
                successor.end();
            }
        }
    });
}

pub fn send_waits_for_the_first_consumer(backend: Backend) {
    let place = backend.place();
    let mut producer = end::producer(&place);
    assert_eq!(producer.ask("peer"), "NeverCame");
    fill(&mut producer);
    send_waits(&mut producer);
    assert_eq!(producer.ask("try_send 12345678"), "Full");
    producer.say("send last");
    let mut consumer = end::consumer(&place);
    assert_eq!(consumer.ask("recv"), "\"00000000\"");
    assert_eq!(producer.hear(), "sent");
    assert_eq!(consumer.ask("empty"), format!("empty after {FULL}"));
}

pub fn send_waits_for_an_idle_consumer(backend: Backend) {
    let place = backend.place();
    for producer_first in ORDERS {
        let (mut producer, mut consumer) = both(&place, producer_first);
        fill(&mut producer);
        send_waits(&mut producer);
        consumer.signal(libc::SIGSTOP);
        send_waits(&mut producer);
        consumer.signal(libc::SIGCONT);
        assert_eq!(consumer.ask("empty"), format!("empty after {FULL}"));
        a_message_passes(&mut producer, &mut consumer, "again");
    }
}

pub fn after_the_consumer_closes_send_reports_closed_even_with_space_left(backend: Backend) {
    for ending in ORDERLY {
        let place = backend.place();
        for (producer_first, is_full) in ORDERS.into_iter().flat_map(|order| [(order, false), (order, true)])
        {
            let (mut producer, consumer) = both(&place, producer_first);
            if is_full {
                fill(&mut producer);
            }
            ending.of(consumer);
            for _ in 0..3 {
                assert_eq!(producer.ask("send more"), "Closed");
                assert_eq!(producer.ask("try_send more"), "Closed");
            }
            assert_eq!(producer.ask("peer"), "Closed");
            // Until a new consumer attaches. It receives the messages left.
            let mut consumer = end::consumer(&place);
            assert_eq!(consumer.ask("empty"), format!("empty after {}", if is_full { FULL } else { 0 }));
            a_message_passes(&mut producer, &mut consumer, "again");
            producer.end();
            assert_eq!(consumer.ask("recv"), "Closed");
            consumer.end();
        }
    }
}

pub fn a_consumer_that_closed_before_the_producer_attached_is_not_reported(backend: Backend) {
    let place = backend.place();
    for ending in ORDERLY {
        for _ in 0..2 {
            ending.of(end::consumer(&place));
            let mut producer = end::producer(&place);
            fill(&mut producer);
            send_waits(&mut producer);
            let mut consumer = end::consumer(&place);
            assert_eq!(consumer.ask("empty"), format!("empty after {FULL}"));
            a_message_passes(&mut producer, &mut consumer, "late");
            producer.end();
            assert_eq!(consumer.ask("recv"), "Closed");
            consumer.end();
        }
    }
}

pub fn after_the_consumer_dies_send_reports_peer_died_once_when_full(backend: Backend) {
    at_once(DEATHS, |ending| {
        let place = backend.place();
        for producer_first in ORDERS {
            let (mut producer, consumer) = both(&place, producer_first);
            assert_eq!(producer.ask("send 12345678"), "sent");
            ending.of(consumer);
            assert_eq!(producer.ask("peer"), "Died");
            assert_eq!(producer.ask("send 12345678"), "sent", "with space left, no call checks the peer");
            assert_eq!(producer.ask("fill"), format!("full after {}", FULL - 2));
            assert_eq!(producer.ask("send more"), "PeerDied");
            send_waits(&mut producer);
            assert_eq!(producer.ask("try_send more"), "Full");
            // The next call waits for a successor.
            producer.say("send more");
            let mut successor = end::consumer(&place);
            assert_eq!(successor.ask("recv"), "\"12345678\"");
            assert_eq!(producer.hear(), "sent");
            assert_eq!(successor.ask("empty"), format!("empty after {FULL}"));

            fill(&mut producer);
            ending.of(successor);
            assert_eq!(producer.ask("send more"), "PeerDied", "of the successor, once as well");
            send_waits(&mut producer);
            producer.end();
            let mut consumer = end::consumer(&place);
            assert_eq!(consumer.ask("empty"), format!("Closed after {FULL}"));
            consumer.end();
        }
    });
}

pub fn after_the_consumer_aborts_send_reports_its_code_once_even_with_space(backend: Backend) {
    at_once(ABORTS, |ending| {
        let place = backend.place();
        for (producer_first, round) in ORDERS.into_iter().zip(0..).cycle().take(4) {
            let (mut producer, consumer) = both(&place, producer_first);
            assert_eq!(producer.ask("send 12345678"), "sent");
            ending.of(consumer);
            let first = ["send more", "try_send more", "check"][round % 3];
            assert_eq!(producer.ask(first), ending.report());
            assert_eq!(producer.ask("check"), "fine");
            assert_eq!(producer.ask("fill"), format!("full after {}", FULL - 1));
            send_waits(&mut producer);
            assert_eq!(producer.ask("try_send more"), "Full");
            // The next call waits for a successor.
            producer.say("send more");
            let mut successor = end::consumer(&place);
            assert_eq!(successor.ask("recv"), "\"12345678\"");
            assert_eq!(producer.hear(), "sent");

            ending.of(successor);
            assert_eq!(producer.ask("send more"), ending.report(), "of the successor, once as well");
            send_waits(&mut producer);
            producer.end();
            let mut consumer = end::consumer(&place);
            assert_eq!(consumer.ask("empty"), format!("Closed after {FULL}"));
            consumer.end();
        }
    });
}

pub fn an_end_reported_to_a_producer_is_not_reported_to_its_successor(backend: Backend) {
    at_once([Close, Drop, Abort, Kill, Exit], |ending| {
        for own_ending in [Close, Abort, Kill] {
            let place = backend.place();
            for producer_first in ORDERS {
                let (mut producer, consumer) = both(&place, producer_first);
                fill(&mut producer);
                ending.of(consumer);
                assert_eq!(producer.ask("send more"), ending.report());
                own_ending.of(producer);
                let mut successor = end::producer(&place);
                assert_eq!(successor.ask("try_send 12345678"), "Full");
                send_waits(&mut successor);
                let mut consumer = end::consumer(&place);
                assert_eq!(consumer.ask("empty"), format!("empty after {FULL}"));
                a_message_passes(&mut successor, &mut consumer, "fresh");
                Close.of(consumer);
                assert_eq!(successor.ask("send more"), "Closed");
                successor.end();
            }
        }
    });
}

pub fn an_unreported_death_is_reported_once_to_the_next_producer(backend: Backend) {
    let place = backend.place();
    for ending in DEATHS {
        let (mut producer, consumer) = both(&place, true);
        fill(&mut producer);
        ending.of(consumer);
        Close.of(producer);
        let mut producer = end::producer(&place);
        assert_eq!(producer.ask("send more"), "PeerDied");
        send_waits(&mut producer);
        producer.end();
        let mut consumer = end::consumer(&place);
        assert_eq!(consumer.ask("empty"), format!("Closed after {FULL}"));
        consumer.end();
    }
}

pub fn an_unreported_abort_is_reported_once_to_the_next_producer(backend: Backend) {
    let place = backend.place();
    for ending in ABORTS {
        let (producer, consumer) = both(&place, true);
        Close.of(producer);
        ending.of(consumer);
        let mut producer = end::producer(&place);
        assert_eq!(producer.ask("send more"), ending.report());
        assert_eq!(producer.ask("send more"), "sent");
        Kill.of(producer);
        let mut producer = end::producer(&place);
        assert_eq!(producer.ask("send more"), "sent", "it was reported to the predecessor");
        producer.end();
        let mut consumer = end::consumer(&place);
        assert_eq!(consumer.ask("empty"), "Closed after 2");
        consumer.end();
    }
}

pub fn check_reports_a_death_once_and_after_every_message(backend: Backend) {
    at_once(DEATHS, |ending| {
        let place = backend.place();
        let (mut producer, mut consumer) = both(&place, true);
        assert_eq!(producer.ask("check"), "fine");
        assert_eq!(consumer.ask("check"), "fine");
        assert_eq!(producer.ask("send last"), "sent");
        ending.of(producer);
        assert_eq!(consumer.ask("check"), "fine", "there is a message");
        assert_eq!(consumer.ask("try_recv"), "\"last\"");
        assert_eq!(consumer.ask("try_recv"), "Empty", "a try makes no system call");
        assert_eq!(consumer.ask("check"), "PeerDied");
        assert_eq!(consumer.ask("check"), "fine");
        recv_waits(&mut consumer);

        let mut producer = end::producer(&place);
        assert_eq!(consumer.ask("check"), "fine", "there is a successor");
        assert_eq!(producer.ask("check"), "fine");
        ending.of(consumer);
        assert_eq!(producer.ask("try_send more"), "sent", "a try makes no system call");
        assert_eq!(producer.ask("check"), "PeerDied", "with space left");
        assert_eq!(producer.ask("check"), "fine");
        assert_eq!(producer.ask("fill"), format!("full after {}", FULL - 1));
        send_waits(&mut producer);

        let mut consumer = end::consumer(&place);
        assert_eq!(producer.ask("check"), "fine", "there is a successor");
        assert_eq!(consumer.ask("empty"), format!("empty after {FULL}"));
        for (ending, times) in [(Close, 2), (Abort, 1)] {
            ending.of(producer);
            (0..times).for_each(|_| assert_eq!(consumer.ask("check"), ending.report()));
            producer = end::producer(&place);
            assert_eq!(consumer.ask("check"), "fine");
        }
        for (ending, times) in [(Close, 2), (Abort, 1)] {
            ending.of(consumer);
            (0..times).for_each(|_| assert_eq!(producer.ask("check"), ending.report()));
            consumer = end::consumer(&place);
            assert_eq!(producer.ask("check"), "fine");
        }
    });
}

pub fn check_reports_a_removed_pipe(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(4096)).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    unlink_force(&place).unwrap();
    producer.try_send(b"to no consumer").unwrap();
    assert_eq!(producer.check(), Err(CheckError::Lost(Lost::Removed)));
    assert_eq!(consumer.check(), Ok(()), "there is a message");
    consumer.try_recv().unwrap().release();
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
    assert_eq!(consumer.check(), Err(CheckError::Lost(Lost::Removed)));
}

pub fn only_an_endpoint_from_before_the_panic_aborts(backend: Backend) {
    struct OnDrop<F: FnMut()>(F);

    impl<F: FnMut()> std::ops::Drop for OnDrop<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }

    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(4096)).unwrap();
    let peers = || {
        let seen = inspect(&place).unwrap();
        (seen.producer.peer, seen.consumer.peer)
    };
    let aborted = Peer::Aborted { code: PANICKED };
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _claims = OnDrop(|| {
            assert_eq!(peers(), (aborted, Peer::Closed));
            // Claimed during the panic: a destructor that sends, for instance.
            let (producer, consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
            drop((producer, consumer));
            assert_eq!(peers(), (Peer::Closed, Peer::Closed));
            pipe.producer().unwrap().abort(8).unwrap();
        });
        let producer = pipe.producer().unwrap();
        // What ends in order, or explicitly, does so also during a panic.
        let mut consumer = pipe.consumer().ok();
        let _closes = OnDrop(|| consumer.take().unwrap().close().unwrap());
        let _producer = producer;
        std::panic::resume_unwind(Box::new("without a message"));
    }));
    assert!(panicked.is_err());
    assert_eq!(peers(), (Peer::Aborted { code: 8 }, Peer::Closed));
}

pub fn a_name_is_reusable_after_every_kind_of_end(backend: Backend) {
    let place = backend.place();
    let mut number = 0;
    for _ in 0..2 {
        for (producer_first, producer_ends_first) in
            [(true, true), (true, false), (false, true), (false, false)]
        {
            let endings = [Close, Abort, Kill];
            for (ending, other) in endings.into_iter().flat_map(|one| endings.map(|other| (one, other))) {
                let (mut producer, mut consumer) = both(&place, producer_first);
                number += 1;
                // The abort of a predecessor that was not reported comes first.
                let _ = producer.ask("check");
                a_message_passes(&mut producer, &mut consumer, number);
                assert_eq!(producer.ask("send left"), "sent");
                if producer_ends_first {
                    ending.of(producer);
                    other.of(consumer);
                } else {
                    other.of(consumer);
                    ending.of(producer);
                }
                // The next consumer receives what is left, and the end that was not reported yet.
                let mut consumer = end::consumer(&place);
                assert_eq!(consumer.ask("recv"), "\"left\"");
                assert_eq!(consumer.ask("recv"), ending.report());
                consumer.end();
            }
        }
    }
}

pub fn unreleased_messages_are_received_again_with_the_same_positions(backend: Backend) {
    let place = backend.place();
    for ending in DEATHS {
        let (mut producer, mut consumer) = both(&place, true);
        let mut positions = vec![];
        for i in 0..5 {
            let sent = producer.ask(format!("send_at m{i}"));
            positions.push(sent.strip_prefix("sent at ").unwrap().to_owned());
        }
        assert_eq!(consumer.ask("recv_at"), format!("\"m0\" at {}", positions[0]));
        assert_eq!(consumer.ask("take 3"), "took 3");
        ending.of(consumer);
        let mut successor = end::consumer(&place);
        assert_eq!(successor.ask("keep"), "\"m1\"");
        ending.of(successor);
        let mut successor = end::consumer(&place);
        for (i, position) in positions.iter().enumerate().skip(1) {
            assert_eq!(successor.ask("recv_at"), format!("\"m{i}\" at {position}"));
        }
        assert_eq!(successor.ask("try_recv"), "Empty");
        producer.end();
        assert_eq!(successor.ask("recv"), "Closed");
        successor.end();
    }
}

pub fn a_second_endpoint_is_refused_with_the_pid_of_the_holder(backend: Backend) {
    let place = backend.place();
    let (producer, consumer) = both(&place, true);
    let mut other = end::start();
    other.ask(format!("open {place}"));
    for (role, holder) in [("Producer", producer.pid()), ("Consumer", consumer.pid())] {
        let refused = format!("RoleTaken {{ role: {role}, pid: Some({holder}) }}");
        assert_eq!(other.ask(role.to_lowercase()), refused);
    }
    // The role is free as soon as its holder is gone.
    producer.kill();
    assert_eq!(other.ask("producer"), "claimed");
    consumer.kill();
    assert_eq!(other.ask("consumer"), "claimed");
}

/// How long after `act` the `process` gives the expected answer.
fn delay(process: &mut Process, expected: &str, act: impl FnOnce()) -> Duration {
    let start = Instant::now();
    act();
    assert_eq!(process.hear(), expected);
    start.elapsed()
}

/// The shortest of several delays, since chance can lengthen any of them.
fn best(trial: impl FnMut(i32) -> Duration) -> Duration {
    (0..5).map(trial).min().unwrap()
}

/// Waits until a side of the pipe counts another wait, and then long enough for it to fall asleep.
fn asleep(place: &Place, waits: impl Fn(&shmpipe::Snapshot) -> u64, before: u64) {
    until("a wait", || waits(&shmpipe::inspect(place).unwrap()) > before);
    std::thread::sleep(Duration::from_millis(10));
}

pub fn a_sleeper_notices_the_end_of_its_peer(backend: Backend) {
    // A close or an abort wakes the sleeper. It notices a death when it checks its peer, every 100 ms. Without the wake-up, a close
    // would take until the end of such an interval, of which 10 ms are over when the peer closes.
    for (ending, bound) in [
        (Close, Duration::from_millis(60)),
        (Abort, Duration::from_millis(60)),
        (Kill, Duration::from_millis(300)),
    ] {
        let report = ending.report();
        let place = backend.place();
        let receiving = best(|round| {
            let (producer, mut consumer) = both(&place, round % 2 == 0);
            let before = shmpipe::inspect(&place).unwrap().consumer.waits;
            consumer.say("recv");
            asleep(&place, |seen| seen.consumer.waits, before);
            delay(&mut consumer, report, || match ending {
                Kill => producer.kill(),
                _ => drop(end_without_waiting(producer, ending)),
            })
        });
        assert!(receiving < bound, "recv: {ending:?} after {receiving:?}");

        let place = backend.place();
        let sending = best(|round| {
            let (mut producer, mut consumer) = both(&place, round % 2 == 0);
            consumer.ask("empty");
            fill(&mut producer);
            let before = shmpipe::inspect(&place).unwrap().producer.waits;
            producer.say("send more");
            asleep(&place, |seen| seen.producer.waits, before);
            delay(&mut producer, report, || match ending {
                Kill => consumer.kill(),
                _ => drop(end_without_waiting(consumer, ending)),
            })
        });
        assert!(sending < bound, "send: {ending:?} after {sending:?}");
    }
}

fn end_without_waiting(mut process: Process, ending: Ending) -> Process {
    match ending {
        Abort => assert_eq!(process.ask("abort 7"), "aborted"),
        _ => assert_eq!(process.ask("close"), "closed"),
    }
    process
}

pub fn a_sleeper_notices_a_peer_that_attaches(backend: Backend) {
    for role in ["producer", "consumer"] {
        let delay = best(|_| {
            let place = backend.place();
            let mut waiting = end::start();
            waiting.ask("capacity 4096");
            waiting.ask(place.opening());
            assert_eq!(waiting.ask(role), "claimed");
            assert_eq!(waiting.ask("wait_for_peer 20"), "TimedOut");
            let other = Pipe::open(&place).unwrap();
            waiting.say("wait_for_peer");
            std::thread::sleep(Duration::from_millis(10));
            let start = Instant::now();
            let (producer, consumer) = match role {
                "producer" => (None, other.consumer().ok()),
                _ => (other.producer().ok(), None),
            };
            assert_eq!(waiting.hear(), "there");
            assert_eq!(waiting.ask("peer"), "Open");
            drop((producer, consumer));
            start.elapsed()
        });
        assert!(delay < Duration::from_millis(60), "{role}: {delay:?}");
    }
}

pub fn every_blocked_call_notices_the_end_of_its_peer_with_each_strategy(backend: Backend) {
    for strategy in [Wait::Spin, Wait::Yield, Wait::Block, NAP] {
        let place = backend.place();
        let open = || place.open_or_create(&Options::new().capacity(4096).wait(strategy)).unwrap();
        for ending in [Close, Abort, Kill] {
            let mut consumer = open().consumer().unwrap();
            let producer = end::producer(&place);
            let waiting = std::thread::spawn(move || {
                let ended = consumer.recv().map(drop);
                (consumer, ended)
            });
            std::thread::sleep(Duration::from_millis(20));
            ending.of(producer);
            let (consumer, ended) = waiting.join().unwrap();
            let expected = match ending {
                Close => RecvError::Closed,
                Abort => RecvError::PeerAborted { code: 7 },
                _ => RecvError::PeerDied,
            };
            assert_eq!(ended, Err(expected), "{strategy:?}");
            drop(consumer);

            let mut producer = open().producer().unwrap();
            let consumer = end::consumer(&place);
            while producer.try_send(&[0; 100]).is_ok() {}
            let waiting = std::thread::spawn(move || {
                let sent = producer.send(&[0; 100]);
                let reserved = producer.reserve_deadline(100, within(Duration::from_millis(20))).map(drop);
                (producer, sent, reserved)
            });
            std::thread::sleep(Duration::from_millis(20));
            ending.of(consumer);
            let (producer, sent, reserved) = waiting.join().unwrap();
            let expected = match ending {
                Close => (Err(SendError::Closed), Err(SendTimeoutError::Closed)),
                Abort => (Err(SendError::PeerAborted { code: 7 }), Err(SendTimeoutError::TimedOut)),
                _ => (Err(SendError::PeerDied), Err(SendTimeoutError::TimedOut)),
            };
            assert_eq!((sent, reserved), expected, "{strategy:?}");
            drop(producer);
            let mut consumer = open().consumer().unwrap();
            while consumer.try_recv().is_ok() {}
        }
    }
}

pub fn even_an_expired_deadline_reports_a_death(backend: Backend) {
    let place = backend.place();
    let (mut producer, consumer) = both(&place, true);
    fill(&mut producer);
    consumer.kill();
    assert_eq!(producer.ask("send 12345678 0"), "PeerDied");
    assert_eq!(producer.ask("send 12345678 0"), "TimedOut");
    let mut consumer = end::consumer(&place);
    assert_eq!(consumer.ask("empty"), format!("empty after {FULL}"));
    producer.kill();
    assert_eq!(consumer.ask("recv 0"), "PeerDied");
    assert_eq!(consumer.ask("recv 0"), "TimedOut");
}

pub fn a_zombie_holds_no_role(backend: Backend) {
    let place = backend.place();
    for role in ["producer", "consumer"] {
        let (producer, consumer) = both(&place, true);
        let (dead, mut other) = if role == "producer" { (producer, consumer) } else { (consumer, producer) };
        dead.signal(libc::SIGKILL);
        // Once all of its threads have ended: the first one may end before the others.
        let process = format!("/proc/{}", dead.pid());
        let is_zombie = || std::fs::read_to_string(format!("{process}/stat")).unwrap().contains(") Z ");
        let threads = || std::fs::read_dir(format!("{process}/task")).unwrap().count();
        until("a zombie", || is_zombie() && threads() == 1);
        assert_eq!(other.ask("peer"), "Died");
        let mut successor = end::start();
        successor.ask(format!("open {place}"));
        assert_eq!(successor.ask(role), "claimed");
        assert_eq!(other.ask("peer"), "Open");
    }
}

pub fn a_role_outlives_the_thread_that_claimed_it(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(4096)).unwrap();
    let claim = || (pipe.producer().unwrap(), pipe.consumer().unwrap());
    let (mut producer, mut consumer) = std::thread::scope(|scope| scope.spawn(claim).join().unwrap());
    let mut other = end::start();
    other.ask(format!("open {place}"));
    for role in ["producer", "consumer"] {
        let refused = other.ask(role);
        assert!(refused.starts_with("RoleTaken"), "{refused}");
    }
    producer.send(b"still here").unwrap();
    assert_eq!(consumer.recv().unwrap().to_vec(), b"still here");
    assert_eq!(consumer.recv_deadline(within(A_WHILE)).unwrap_err(), RecvTimeoutError::TimedOut);
}
