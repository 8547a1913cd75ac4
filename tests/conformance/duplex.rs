//! Duplex pipes: two directions, one address, one role for each side.

use crate::fork::{Ended, in_child};
use shmpipe::error::{Damage, Mismatch, Shortage, Unsupported};
use shmpipe::{
    CheckError, Duplex, DuplexSide, Lost, Options, PANICKED, Peer, Pipe, RecvError, RecvTimeoutError,
    SendError, SendTimeoutError, SetupError, TryRecvError, TrySendError, Wait, WaitError, WakeMode, inspect,
    unlink, unlink_force,
};
use shmpipe_testing::backend::{Backend, Place};
use shmpipe_testing::layout::{CONSUMER, HEAD, PRODUCER, RING, TAIL, identity, side};
use shmpipe_testing::process::Process;
use shmpipe_testing::{A_WHILE, LONG, at_once, end, until, within};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use DuplexSide::{A, B};

const CAPACITY: u64 = 4096;

/// The offset of the header of the direction from B to A.
const BACK: usize = RING + CAPACITY as usize;

fn options() -> Options {
    Options::new().duplex(true).capacity(CAPACITY)
}

fn pipe(place: &Place) -> Pipe {
    place.create(&options()).unwrap()
}

fn pair(pipe: &Pipe) -> (Duplex, Duplex) {
    (pipe.duplex_as(A).unwrap(), pipe.duplex_as(B).unwrap())
}

/// Fills the ring to the other side.
fn fill(duplex: &mut Duplex) {
    while duplex.try_send(&[0; 100]).is_ok() {}
    assert_eq!(duplex.try_send(&[0; 100]), Err(TrySendError::Full));
}

fn recv_waits(duplex: &mut Duplex) {
    assert_eq!(duplex.recv_timeout(A_WHILE).unwrap_err(), RecvTimeoutError::TimedOut);
}

/// A message passes in each direction.
fn both_ways(a: &mut Duplex, b: &mut Duplex) {
    a.send(b"from A").unwrap();
    b.send(b"from B").unwrap();
    assert_eq!(b.recv().unwrap().to_vec(), b"from A");
    assert_eq!(a.recv().unwrap().to_vec(), b"from B");
}

pub fn messages_pass_both_ways_in_order_and_whole(backend: Backend) {
    let place = backend.place();
    let pipe = pipe(&place);
    let (mut a, mut b) = pair(&pipe);
    let message = |number: u32, salt: u8| vec![number as u8 ^ salt; (number as usize * 37) % 2041];
    for number in 0..2000 {
        a.send(&message(number, 0)[..]).unwrap();
        b.send(&message(number, 0x55)[..]).unwrap();
        assert_eq!(b.recv().unwrap().to_vec(), message(number, 0));
        assert_eq!(a.recv().unwrap().to_vec(), message(number, 0x55));
    }
    // The directions are apart: one that is full does not fill the other.
    fill(&mut a);
    b.send(&message(55, 0)[..]).unwrap();
    assert_eq!(a.try_recv().unwrap().to_vec(), message(55, 0));
    assert_eq!((a.max_len(), b.max_len(), pipe.capacity()), (2040, 2040, CAPACITY));
}

pub fn both_sides_wait_with_each_strategy_and_wake_mode(backend: Backend) {
    let modes = [
        (WakeMode::Membarrier, [Wait::Spin, Wait::Yield, Wait::Block].as_slice()),
        (WakeMode::Fence, &[Wait::Yield, Wait::Block]),
        (WakeMode::Never, &[Wait::Yield]),
    ];
    for (mode, strategies) in modes {
        for &strategy in strategies {
            let place = backend.place();
            let pipe = place.create(&options().wait(strategy).wake_mode(mode)).unwrap();
            let (mut a, mut b) = pair(&pipe);
            thread::scope(|scope| {
                scope.spawn(move || {
                    while let Ok(request) = b.recv().map(|request| request.to_vec()) {
                        // Now and then so late that the other side sleeps.
                        if request[0] % 32 == 0 {
                            thread::sleep(Duration::from_millis(1));
                        }
                        b.send(&request[..]).unwrap();
                    }
                });
                for number in 0..500u32 {
                    a.send(&[number as u8; 8]).unwrap();
                    assert_eq!(a.recv_deadline(within(LONG)).unwrap().to_vec(), [number as u8; 8]);
                }
                a.close().unwrap();
            });
        }
    }
}

pub fn the_first_free_side_is_taken_or_the_one_asked_for(backend: Backend) {
    let place = backend.place();
    let pipe = pipe(&place);
    let (first, second) = (pipe.duplex().unwrap(), pipe.duplex().unwrap());
    assert_eq!((first.side(), second.side()), (A, B));
    let us = std::process::id();
    for (error, taken) in [
        (pipe.duplex().unwrap_err(), B),
        (pipe.duplex_as(A).unwrap_err(), A),
        (pipe.duplex_as(B).unwrap_err(), B),
    ] {
        assert!(
            matches!(error, SetupError::SideTaken { side, pid: Some(pid) } if side == taken && pid == us)
        );
        assert!(error.to_string().contains(&format!("process {us} already holds {taken}")), "{error}");
    }
    drop(first);
    let again = pipe.duplex().unwrap();
    assert_eq!(again.side(), A);
    drop((again, second));
    assert_eq!(pipe.duplex_as(B).unwrap().side(), B);
}

pub fn a_pipe_of_the_other_kind_is_refused(backend: Backend) {
    let (one_way, two_way) = (backend.place(), backend.place());
    let plain = one_way.create(&Options::new().capacity(CAPACITY)).unwrap();
    let duplex = pipe(&two_way);
    assert_eq!((plain.is_duplex(), duplex.is_duplex()), (false, true));
    let refused = |place: &Place, options: Options| match options.open(place).unwrap_err() {
        SetupError::Incompatible(Mismatch::Directions { duplex }) => duplex,
        error => panic!("{error:?}"),
    };
    assert!(!refused(&one_way, options()));
    assert!(refused(&two_way, Options::new()));
    let error = options().open(&one_way).unwrap_err();
    assert!(error.to_string().contains("has one direction, expected two"), "{error}");

    for error in [duplex.producer().unwrap_err(), duplex.consumer().unwrap_err()] {
        assert!(matches!(error, SetupError::Unsupported(Unsupported::TwoWay { .. })), "{error:?}");
    }
    for error in [plain.duplex().unwrap_err(), plain.duplex_as(B).unwrap_err()] {
        assert!(matches!(error, SetupError::Unsupported(Unsupported::OneWay { .. })), "{error:?}");
    }
    // Nothing was claimed.
    assert_eq!(inspect(&one_way).unwrap().producer.peer, Peer::NeverCame);
    assert_eq!(inspect(&two_way).unwrap().producer.peer, Peer::NeverCame);
    // Another program's duplex pipe does not become one of ours by its header alone.
    one_way.segment().set(identity::FEATURES, 1);
    let error = options().open(&one_way).unwrap_err();
    assert!(
        matches!(error, SetupError::Damaged(Damage::TooSmall { size: 8192, needed: 16_384 })),
        "{error:?}"
    );
}

pub fn both_directions_are_inspected(backend: Backend) {
    let place = backend.place();
    let pipe = pipe(&place);
    let (mut a, mut b) = pair(&pipe);
    a.send(b"12345").unwrap();
    (0..3).for_each(|_| assert!(b.send(b"123456789").is_ok()));
    drop(a.recv().unwrap());
    let seen = inspect(&place).unwrap();
    let back = seen.back.as_ref().unwrap();
    assert!(seen.duplex && seen.size >= 16_384);
    assert_eq!((seen.capacity, seen.max_len), (CAPACITY, 2040));
    assert_eq!((seen.used, back.used, back.unread(), seen.unread()), (16, 48, 2, 3));
    assert_eq!((seen.producer.messages, seen.consumer.messages), (1, 0));
    assert_eq!((back.producer.messages, back.consumer.messages), (3, 1));
    let us = Some(std::process::id());
    for side in [&seen.producer, &seen.consumer, &back.producer, &back.consumer] {
        assert_eq!((side.peer, side.pid, side.epoch), (Peer::Open, us, 1));
    }
    a.close().unwrap();
    let seen = inspect(&place).unwrap();
    let back = seen.back.as_ref().unwrap();
    assert_eq!((seen.producer.peer, back.consumer.peer), (Peer::Closed, Peer::Closed));
    assert_eq!((seen.consumer.peer, back.producer.peer), (Peer::Open, Peer::Open));
}

/// Starts side B in a process of its own.
fn b_elsewhere(place: &Place) -> Process {
    end::side(place, B)
}

/// What reports the death or the abort of the other side.
type Finder = (&'static str, fn(&mut Duplex) -> String);

/// The ring to the other side must be full for the second to find a death.
const FINDERS: [Finder; 4] = [
    ("recv", |duplex| format!("{:?}", duplex.recv().unwrap_err())),
    ("send", |duplex| format!("{:?}", duplex.send(&[0; 100]).unwrap_err())),
    ("check", |duplex| format!("{:?}", duplex.check().unwrap_err())),
    ("recv_deadline", |duplex| format!("{:?}", duplex.recv_deadline(within(LONG)).unwrap_err())),
];

pub fn a_death_or_an_abort_is_reported_once_for_both_directions(backend: Backend) {
    type Ending = (fn(Process), &'static str);
    let endings: [Ending; 3] = [
        (Process::kill, "PeerDied"),
        (|mut process| assert_eq!(process.ask("abort 7"), "aborted"), "PeerAborted { code: 7 }"),
        (|mut process| assert_eq!(process.ask("panic"), "panicked"), "PeerAborted { code: 4294967295 }"),
    ];
    at_once(FINDERS.into_iter().flat_map(|finder| endings.map(|ending| (finder, ending))), |case| {
        let ((name, find), (end, report)) = case;
        let place = backend.place();
        let pipe = pipe(&place);
        let mut a = pipe.duplex_as(A).unwrap();
        let mut b = b_elsewhere(&place);
        assert_eq!(b.ask("send before"), "sent");
        assert_eq!(a.recv().unwrap().to_vec(), b"before");
        fill(&mut a);
        end(b);
        assert_eq!(find(&mut a), report, "{name}");
        // From now on as if it had never come, in both directions.
        assert_eq!(a.check(), Ok(()), "{name}");
        assert_eq!(a.try_send(&[0; 100]), Err(TrySendError::Full), "{name}");
        assert_eq!(a.try_recv().unwrap_err(), TryRecvError::Empty, "{name}");
        recv_waits(&mut a);
        assert_eq!(a.send_timeout(&[0; 100], A_WHILE), Err(SendTimeoutError::TimedOut), "{name}");
        assert_eq!(a.wait_for_peer(Some(within(A_WHILE))), Err(WaitError::TimedOut), "{name}");
        // Nor does our own successor hear of it again.
        drop(a);
        let mut a = pipe.duplex_as(A).unwrap();
        assert_eq!(a.check(), Ok(()), "{name}");
        recv_waits(&mut a);
        // A successor works as if nothing had happened.
        let mut b = pipe.duplex_as(B).unwrap();
        while b.try_recv().is_ok() {}
        both_ways(&mut a, &mut b);
        // And its failure is news.
        b.abort(9).unwrap();
        assert_eq!(a.recv().unwrap_err(), RecvError::PeerAborted { code: 9 }, "{name}");
        assert_eq!(a.check(), Ok(()), "{name}");
    });
}

pub fn an_unreported_failure_is_reported_once_to_the_next_holder(backend: Backend) {
    at_once([true, false], |killed| {
        let place = backend.place();
        let pipe = pipe(&place);
        let mut b = b_elsewhere(&place);
        assert_eq!(b.ask("send left"), "sent");
        match killed {
            true => b.kill(),
            false => assert_eq!(b.ask("abort 7"), "aborted"),
        }
        let mut a = pipe.duplex_as(A).unwrap();
        assert_eq!(a.recv().unwrap().to_vec(), b"left");
        let report = if killed { RecvError::PeerDied } else { RecvError::PeerAborted { code: 7 } };
        assert_eq!(a.recv().unwrap_err(), report);
        assert_eq!(a.check(), Ok(()));
        recv_waits(&mut a);
    });
}

pub fn after_a_split_each_half_reports_a_failure(backend: Backend) {
    at_once([true, false], |killed| {
        let place = backend.place();
        let pipe = pipe(&place);
        let mut b = b_elsewhere(&place);
        let (mut sender, mut receiver) = pipe.duplex_as(A).unwrap().split();
        while sender.try_send(&[0; 100]).is_ok() {}
        let (sent, received) = thread::scope(|scope| {
            let sending = scope.spawn(|| sender.send_deadline(&[0; 100], within(LONG)).unwrap_err());
            let receiving = scope.spawn(|| receiver.recv_deadline(within(LONG)).map(drop).unwrap_err());
            match killed {
                true => b.kill(),
                false => assert_eq!(b.ask("abort 7"), "aborted"),
            }
            (sending.join().unwrap(), receiving.join().unwrap())
        });
        let (sends, receives) = match killed {
            true => (SendTimeoutError::PeerDied, RecvTimeoutError::PeerDied),
            false => (SendTimeoutError::PeerAborted { code: 7 }, RecvTimeoutError::PeerAborted { code: 7 }),
        };
        assert_eq!((sent, received), (sends, receives));
        assert_eq!((sender.check(), receiver.check()), (Ok(()), Ok(())));
    });
}

pub fn a_failure_reported_before_a_split_is_not_reported_by_its_halves(backend: Backend) {
    let place = backend.place();
    let pipe = pipe(&place);
    let mut a = pipe.duplex_as(A).unwrap();
    let b = b_elsewhere(&place);
    fill(&mut a);
    b.kill();
    assert_eq!(a.recv().unwrap_err(), RecvError::PeerDied);
    let (mut sender, mut receiver) = a.split();
    assert_eq!((sender.check(), receiver.check()), (Ok(()), Ok(())));
    assert_eq!(sender.send_timeout(&[0; 100], A_WHILE), Err(SendTimeoutError::TimedOut));
}

pub fn a_close_is_reported_in_both_directions_until_a_successor_attaches(backend: Backend) {
    let place = backend.place();
    let pipe = pipe(&place);
    let (mut a, mut b) = pair(&pipe);
    b.send(b"last").unwrap();
    b.close().unwrap();
    assert_eq!(a.check(), Err(CheckError::Closed));
    assert_eq!(a.recv().unwrap().to_vec(), b"last");
    for _ in 0..3 {
        assert_eq!(a.recv().unwrap_err(), RecvError::Closed);
        assert_eq!(a.send(b"too late"), Err(SendError::Closed));
        assert_eq!(a.check(), Err(CheckError::Closed));
        assert_eq!(a.peer(), Peer::Closed);
    }
    let mut b = pipe.duplex_as(B).unwrap();
    assert_eq!((a.check(), a.peer()), (Ok(()), Peer::Open));
    both_ways(&mut a, &mut b);
}

pub fn a_half_that_ends_closes_its_direction_and_leaves_the_other(backend: Backend) {
    let place = backend.place();
    let pipe = pipe(&place);
    // The sending half ends first, or the receiving one.
    for sender_first in [true, false] {
        let (mut a, b) = pair(&pipe);
        let (mut sender, mut receiver) = b.split();
        let taken = |pipe: &Pipe| matches!(pipe.duplex_as(B), Err(SetupError::SideTaken { side: B, .. }));
        if sender_first {
            sender.send(b"last").unwrap();
            sender.close().unwrap();
            assert_eq!(a.recv().unwrap().to_vec(), b"last");
            assert_eq!(a.recv().unwrap_err(), RecvError::Closed);
            assert_eq!((a.check(), a.peer()), (Err(CheckError::Closed), Peer::Open));
            a.send(b"still there").unwrap();
            assert_eq!(receiver.recv().unwrap().to_vec(), b"still there");
            assert!(taken(&pipe));
            drop(receiver);
            assert_eq!(a.send(b"too late"), Err(SendError::Closed));
        } else {
            drop(receiver);
            assert_eq!(a.send(b"too late"), Err(SendError::Closed));
            recv_waits(&mut a);
            sender.send(b"still there").unwrap();
            assert_eq!(a.recv().unwrap().to_vec(), b"still there");
            assert!(taken(&pipe));
            sender.close().unwrap();
            assert_eq!(a.recv().unwrap_err(), RecvError::Closed);
        }
        assert_eq!(a.peer(), Peer::Closed);
        drop(pipe.duplex_as(B).unwrap());
    }
}

pub fn a_death_after_a_half_close_is_reported_in_the_other_direction(backend: Backend) {
    let place = backend.place();
    let pipe = pipe(&place);
    let mut a = pipe.duplex_as(A).unwrap();
    let mut b = b_elsewhere(&place);
    assert_eq!(b.ask("split"), "split");
    assert_eq!(b.ask("send last"), "sent");
    assert_eq!(b.ask("close producer"), "closed");
    assert_eq!(a.recv().unwrap().to_vec(), b"last");
    assert_eq!(a.recv().unwrap_err(), RecvError::Closed);
    assert_eq!(a.check(), Err(CheckError::Closed));
    fill(&mut a);
    b.kill();
    assert_eq!(a.peer(), Peer::Died);
    assert_eq!(a.send(&[0; 100]), Err(SendError::PeerDied));
    assert_eq!(a.recv().unwrap_err(), RecvError::Closed, "that direction ended in order");
    // A death that another direction reported does not hide a close from our successor.
    let mut b = b_elsewhere(&place);
    assert_eq!(b.ask("split"), "split");
    assert_eq!(b.ask("send last"), "sent");
    assert_eq!(b.ask("close producer"), "closed");
    b.kill();
    assert_eq!(a.send(&[0; 100]), Err(SendError::PeerDied));
    drop(a);
    let mut a = pipe.duplex_as(A).unwrap();
    assert_eq!(a.recv().unwrap().to_vec(), b"last");
    assert_eq!(a.recv_deadline(within(LONG)).unwrap_err(), RecvTimeoutError::Closed);
}

pub fn a_peer_that_was_waited_for_can_be_sent_to_at_once(backend: Backend) {
    let place = backend.place();
    let pipe = pipe(&place);
    let mut a = pipe.duplex_as(A).unwrap();
    let (go, turns) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            for () in turns {
                let mut b = pipe.duplex_as(B).unwrap();
                let message = b.recv_deadline(within(LONG)).unwrap().to_vec();
                b.send(&message[..]).unwrap();
                b.close().unwrap();
            }
        });
        // Dropped before the scope waits for the thread.
        let go = go;
        for number in 0..1000u32 {
            // The last one has closed both directions, and we know.
            go.send(()).unwrap();
            a.wait_for_peer(Some(within(LONG))).unwrap();
            a.send(&number.to_le_bytes()).unwrap();
            assert_eq!(a.recv_deadline(within(LONG)).unwrap().to_vec(), number.to_le_bytes());
            assert_eq!(a.recv_deadline(within(LONG)).unwrap_err(), RecvTimeoutError::Closed);
        }
    });
}

pub fn what_a_killed_side_left_is_received_in_both_directions(backend: Backend) {
    let place = backend.place();
    let pipe = pipe(&place);
    let mut a = pipe.duplex_as(A).unwrap();
    let mut b = b_elsewhere(&place);
    for number in 0..10 {
        a.send(format!("to {number}").as_str()).unwrap();
        assert_eq!(b.ask(format!("send from{number}")), "sent");
    }
    assert_eq!(b.ask("recv"), "\"to 0\"");
    assert_eq!(b.ask("take 3"), "took 3");
    b.kill();
    // Taken and not released: again.
    let mut b = pipe.duplex_as(B).unwrap();
    for number in 0..10 {
        assert_eq!(a.recv().unwrap().to_vec(), format!("from{number}").as_bytes());
        if number > 0 {
            assert_eq!(b.recv().unwrap().to_vec(), format!("to {number}").as_bytes());
        }
    }
    both_ways(&mut a, &mut b);
}

pub fn a_side_killed_within_its_claim_is_reported_once(backend: Backend) {
    // It has opened the direction to it, and not the one from it.
    for first_claim in [true, false] {
        let place = backend.place();
        let pipe = pipe(&place);
        if !first_claim {
            drop(pipe.duplex_as(B).unwrap());
        }
        let mut a = pipe.duplex_as(A).unwrap();
        fill(&mut a);
        let epoch = if first_claim { 1 } else { 2 };
        place.segment().set(CONSUMER + side::STATE, epoch << 2 | 1);
        assert_eq!(a.send(&[0; 100]), Err(SendError::PeerDied));
        assert_eq!(a.check(), if first_claim { Ok(()) } else { Err(CheckError::Closed) });
        // The next claim has the same epoch in both directions again.
        let mut b = pipe.duplex_as(B).unwrap();
        let states = [CONSUMER, BACK + PRODUCER].map(|line| place.segment().get(line + side::STATE));
        assert_eq!(states, [(epoch + 1) << 2 | 1; 2]);
        while b.try_recv().is_ok() {}
        both_ways(&mut a, &mut b);
        fill(&mut a);
        b.abort(3).unwrap();
        assert_eq!(a.recv().unwrap_err(), RecvError::PeerAborted { code: 3 });
        assert_eq!(a.check(), Ok(()));
    }
}

pub fn a_claim_fails_if_either_direction_is_corrupt_and_changes_nothing(backend: Backend) {
    const LAST: u64 = (1 << 62) - 1;
    for (offset, claimed) in [(0, A), (0, B), (BACK, A), (BACK, B)] {
        let own = if (offset == 0) == (claimed == A) { PRODUCER } else { CONSUMER };
        // A read position inside a word, a phase without an epoch, the last epoch.
        for (at, value) in [(HEAD, 4), (own + side::STATE, 2), (own + side::STATE, LAST << 2 | 2)] {
            let place = backend.place();
            let pipe = pipe(&place);
            drop(pair(&pipe));
            let segment = place.segment();
            let good = segment.get(offset + at);
            segment.set(offset + at, value);
            let states = [PRODUCER, CONSUMER, BACK + PRODUCER, BACK + CONSUMER];
            let words = || states.map(|line| segment.get(line + side::STATE));
            let before = words();
            match pipe.duplex_as(claimed).unwrap_err() {
                SetupError::Damaged(Damage::Ring(_)) => assert_ne!(value >> 2, LAST),
                SetupError::Limit(Shortage::Claims { most, .. }) => {
                    assert_eq!((most, value >> 2), (LAST, LAST))
                }
                error => panic!("{error:?}"),
            }
            assert_eq!(words(), before);
            // Whatever is there, it can be looked at.
            assert!(inspect(&place).unwrap().back.is_some());
            // The failed claim does not hold the side.
            segment.set(offset + at, good);
            drop(pipe.duplex_as(claimed).unwrap());
        }
    }
}

pub fn inspecting_reports_no_nonsense_from_either_direction(backend: Backend) {
    let place = backend.place();
    let pipe = pipe(&place);
    let _held = pair(&pipe);
    let segment = place.segment();
    for offset in [0, BACK] {
        for at in [TAIL, HEAD, PRODUCER + side::STATE, CONSUMER + side::STATE] {
            let good = segment.get(offset + at);
            for value in [u64::MAX, 1 << 63, 5, CAPACITY * 3] {
                segment.set(offset + at, value);
                let seen = inspect(&place).unwrap();
                assert!(
                    seen.used <= CAPACITY && seen.back.unwrap().used <= CAPACITY,
                    "{offset} {at} {value}"
                );
            }
            segment.set(offset + at, good);
        }
    }
}

pub fn a_forged_report_hides_no_later_failure_from_the_next_holder(backend: Backend) {
    let place = backend.place();
    let pipe = pipe(&place);
    let forge = || {
        for line in [PRODUCER, BACK + CONSUMER] {
            place.segment().set(line + side::REPORTED, u64::MAX);
        }
    };
    // The end of this one is forged away.
    b_elsewhere(&place).kill();
    forge();
    let mut a = pipe.duplex_as(A).unwrap();
    let b = b_elsewhere(&place);
    fill(&mut a);
    b.kill();
    assert_eq!(a.send_deadline(&[0; 100], within(LONG)), Err(SendTimeoutError::PeerDied));
    forge();
    drop(a);
    let mut a = pipe.duplex_as(A).unwrap();
    b_elsewhere(&place).kill();
    assert_eq!(a.recv_deadline(within(LONG)).unwrap_err(), RecvTimeoutError::PeerDied);
}

pub fn corruption_poisons_one_direction(backend: Backend) {
    let place = backend.place();
    let pipe = pipe(&place);
    let (mut a, mut b) = pair(&pipe);
    place.segment().set(BACK + RING, u64::MAX);
    assert!(matches!(a.recv().unwrap_err(), RecvError::Corrupt(_)));
    assert!(matches!(a.check(), Err(CheckError::Corrupt(_))));
    a.send(b"the other way").unwrap();
    assert_eq!(b.recv().unwrap().to_vec(), b"the other way");
}

pub fn a_cancel_handle_ends_the_waits_of_both_halves(backend: Backend) {
    let place = backend.place();
    let pipe = pipe(&place);
    // The handle of the whole, given out before the split.
    let a = pipe.duplex_as(A).unwrap();
    let cancel = a.cancel_handle();
    let (mut sender, mut receiver) = a.split();
    while sender.try_send(&[0; 100]).is_ok() {}
    thread::scope(|scope| {
        let sending = scope.spawn(|| sender.send(&[0; 100]).unwrap_err());
        let receiving = scope.spawn(|| receiver.recv().map(drop).unwrap_err());
        thread::sleep(Duration::from_millis(20));
        assert!(!cancel.is_cancelled());
        cancel.cancel();
        assert_eq!(sending.join().unwrap(), SendError::Cancelled);
        assert_eq!(receiving.join().unwrap(), RecvError::Cancelled);
    });
    assert!(cancel.is_cancelled());
    drop((sender, receiver));
    // A half's own cancels that half.
    let a = pipe.duplex_as(A).unwrap();
    let cancel = a.cancel_handle();
    let (mut sender, mut receiver) = a.split();
    receiver.cancel_handle().cancel();
    assert_eq!(receiver.recv().unwrap_err(), RecvError::Cancelled);
    let soon = Duration::from_millis(1);
    assert_eq!(sender.send_timeout(&[0; 100], soon), Err(SendTimeoutError::TimedOut));
    assert!(!cancel.is_cancelled());
    drop((sender, receiver));
    // Without a split.
    let mut a = pipe.duplex_as(A).unwrap();
    a.cancel_handle().cancel();
    assert_eq!(a.recv().unwrap_err(), RecvError::Cancelled);
    assert_eq!(a.send(&[0; 100]), Err(SendError::Cancelled));
    assert_eq!(a.wait_for_peer(None), Err(WaitError::Cancelled));
}

pub fn an_endpoint_that_a_panic_drops_aborts_both_directions(backend: Backend) {
    let place = backend.place();
    let pipe = pipe(&place);
    let (a, mut b) = pair(&pipe);
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        let _a = a;
        resume_unwind(Box::new("without a message on stderr"));
    }));
    assert!(panicked.is_err());
    let seen = inspect(&place).unwrap();
    let aborted = Peer::Aborted { code: PANICKED };
    assert_eq!((seen.producer.peer, seen.back.unwrap().consumer.peer, b.peer()), (aborted, aborted, aborted));
    assert_eq!(b.send(b"to nobody"), Err(SendError::PeerAborted { code: PANICKED }));
    assert_eq!(b.check(), Ok(()));
}

pub fn a_forked_child_has_no_side_and_changes_none(backend: Backend) {
    let place = backend.place();
    let pipe = pipe(&place);
    let (a, mut b) = pair(&pipe);
    let mut held = Some((a, pipe));
    let dropped = in_child(|| {
        let (a, pipe) = held.take().unwrap();
        let (sender, receiver) = a.split();
        drop(sender);
        receiver.close().unwrap();
        let claimed = pipe.duplex_as(A);
        assert!(matches!(claimed.unwrap_err(), SetupError::Unsupported(Unsupported::AfterFork { .. })));
        let reopened = pipe.reopen().unwrap();
        assert!(matches!(reopened.duplex().unwrap_err(), SetupError::SideTaken { .. }));
    });
    assert_eq!(dropped, Ended::Well);
    let (mut a, pipe) = held.unwrap();
    assert_eq!((a.peer(), b.peer()), (Peer::Open, Peer::Open));
    both_ways(&mut a, &mut b);
    // A child takes a side over, and dies with it.
    b.send(b"request").unwrap();
    drop(a);
    let answered = in_child(|| {
        let mut a = pipe.reopen().unwrap().duplex().unwrap();
        assert_eq!(a.side(), A);
        let request = a.recv().unwrap().to_vec();
        a.send(&request[..]).unwrap();
        std::mem::forget(a);
    });
    assert_eq!(answered, Ended::Well);
    assert_eq!(b.recv().unwrap().to_vec(), b"request");
    assert_eq!(b.recv().unwrap_err(), RecvError::PeerDied);
}

pub fn exec_gives_a_side_back(backend: Backend) {
    let place = backend.place();
    let pipe = pipe(&place);
    let mut a = pipe.duplex_as(A).unwrap();
    let mut b = b_elsewhere(&place);
    b.say("exec 60");
    assert_eq!(a.recv().unwrap_err(), RecvError::PeerDied);
    let mut b = pipe.duplex_as(B).unwrap();
    both_ways(&mut a, &mut b);
}

pub fn unlink_refuses_while_a_side_is_held(backend: Backend) {
    let place = backend.place();
    let pipe = pipe(&place);
    for side in [A, B] {
        let holder = end::side(&place, side);
        let error = unlink(&place).unwrap_err();
        let SetupError::SideTaken { side: taken, pid } = error else { panic!("{error:?}") };
        assert_eq!((taken, pid), (side, Some(holder.pid())));
        holder.kill();
    }
    let mut a = pipe.duplex_as(A).unwrap();
    unlink_force(&place).unwrap();
    assert_eq!(a.check(), Err(CheckError::Lost(Lost::Removed)));
    assert_eq!(a.recv().unwrap_err(), RecvError::Lost(Lost::Removed));
    a.close().unwrap_err();
    assert!(place.is_unused());
}

pub fn remove_on_close_removes_a_duplex_pipe_when_both_directions_are_closed(backend: Backend) {
    let place = backend.place();
    let create = || place.create(&options().remove_on_close(true)).unwrap();
    let pipe = create();
    let (a, b) = pair(&pipe);
    drop(pipe);
    a.close().unwrap();
    let (sender, receiver) = b.split();
    sender.close().unwrap();
    assert!(!place.is_unused(), "a half has it open");
    receiver.close().unwrap();
    assert!(place.is_unused());
    // One direction of a side that died is open.
    let pipe = create();
    let mut b = b_elsewhere(&place);
    assert_eq!(b.ask("split"), "split");
    assert_eq!(b.ask("close consumer"), "closed");
    b.kill();
    drop((pipe.duplex_as(A).unwrap(), pipe));
    assert!(!place.is_unused());
    unlink(&place).unwrap();
}

pub fn a_sleeping_side_notices_a_peer_that_attaches(backend: Backend) {
    let place = backend.place();
    let _pipe = pipe(&place);
    let mut a = end::side(&place, A);
    a.say("wait_for_peer");
    thread::sleep(Duration::from_millis(20));
    let mut b = b_elsewhere(&place);
    assert_eq!(a.hear(), "there");
    assert_eq!(b.ask("wait_for_peer"), "there");
    until("both are open", || a.ask("peer") == "Open" && b.ask("peer") == "Open");
}
