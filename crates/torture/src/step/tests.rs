//! One of each act, in a fixed order, and a close in the middle of a receive.

use super::act::{Act, Way, content};
use super::judge::Judge;
use super::ring::{Receiving, Sending, Setting};
use crate::verdict::Failure;
use shmpipe::{Options, RecvError, TryRecvError, WakeMode};
use shmpipe_testing::name::Name;
use shmpipe_testing::traced::{Traced, share_a_core};
use std::env;

const CAPACITY: usize = 4096;

/// Runs a test, unless tracing is forbidden here.
fn with_ring(test: impl FnOnce(Setting<'_>, &Judge) -> Result<(), Failure>) {
    share_a_core();
    let program = env::current_exe().unwrap();
    let setting =
        Setting { program: &program, capacity: CAPACITY, wake_mode: WakeMode::Membarrier, position: 0 };
    match test(setting, &Judge::new(CAPACITY)) {
        Ok(()) => {}
        Err(Failure::CannotRunHere(why)) => eprintln!("steps: skipped: {why}"),
        Err(Failure::Failed(why)) => panic!("{why}"),
    }
}

/// The acts of the producer, with the lengths of its messages.
const SENDS: [(Way, &[usize]); 20] = [
    (Way::Claim, &[]),
    (Way::SendTagged, &[5]),
    (Way::SendTagged, &[0]),
    (Way::Reserve, &[200]),
    (Way::Shorter, &[400, 10]),
    (Way::Dropped, &[400]),
    (Way::Batch, &[8, 0, 50]),
    (Way::Send, &[1700]),
    // Wraps.
    (Way::SendTagged, &[2040]),
    // From here on the ring is full of old bytes.
    (Way::Batch, &[100, 1, 300]),
    (Way::Shorter, &[400, 3]),
    (Way::SendGathered, &[1000]),
    // Wraps with its first record. The next batch wraps with a later one.
    (Way::Batch, &[900, 20]),
    (Way::SendTagged, &[2040]),
    (Way::Batch, &[500, 700]),
    (Way::Shorter, &[400, 0]),
    (Way::Close, &[]),
    (Way::Claim, &[]),
    (Way::SendTagged, &[7]),
    (Way::Abort, &[]),
];

#[test]
fn producer_killed_at_any_instruction_has_sent_all_or_nothing() {
    with_ring(|setting, judge| {
        let mut sending = Sending::new(setting, judge)?;
        for (number, (way, lengths)) in (0..).zip(SENDS) {
            // Now and then leaves the last messages in the ring, where there is space.
            if !matches!(number, 2 | 3 | 5 | 6 | 10) {
                sending.take().unwrap();
            }
            sending.step(&Act::new(way, number * 16, lengths)).unwrap();
        }
        sending.take().unwrap();
        assert!(sending.ring.done.states > 300, "{:?}", sending.ring.done);
        Ok(())
    });
}

/// The acts of the consumer.
const TAKES: [(Way, usize); 12] = [
    (Way::Claim, 0),
    (Way::Recv, 1),
    (Way::Keep, 0),
    (Way::Drain, 3),
    (Way::DrainKept, 2),
    (Way::Append, 1),
    (Way::TryRecv, 1),
    (Way::Drain, 3),
    (Way::Close, 0),
    (Way::Claim, 0),
    (Way::Recv, 1),
    (Way::Abort, 0),
];

#[test]
fn consumer_killed_at_any_instruction_has_released_all_or_nothing() {
    with_ring(|setting, judge| {
        let mut receiving = Receiving::new(setting, judge)?;
        let mut tag = 0;
        for (way, limit) in TAKES {
            // With these lengths some messages wrap.
            while receiving.there() < 4 {
                tag += 1;
                receiving.send((0, vec![]));
                receiving.send((tag, content(tag, 300 + 20 * tag as usize % 200)));
            }
            receiving.step(&Act::new(way, 0, [limit])).unwrap();
        }
        // Few instructions of a consumer change the segment.
        assert!(receiving.ring.done.states > 20, "{:?}", receiving.ring.done);
        Ok(())
    });
}

#[test]
fn last_message_is_received_before_the_close_at_any_instruction() {
    let name = Name::new();
    let pipe = Options::new().capacity(CAPACITY as u64).create(&name).unwrap();
    share_a_core();
    let Some(mut traced) = Traced::start("asked", &[name.as_str(), "consumer"]) else { return };
    let (empty, closed) = (TryRecvError::Empty.to_string(), RecvError::Closed.to_string());
    // Without optimization one instruction of a release build becomes dozens.
    for steps in (0..).step_by(if cfg!(debug_assertions) { 16 } else { 1 }) {
        let mut producer = pipe.producer().unwrap();
        traced.prepare("try_recv");
        let over = !(0..steps).all(|_| traced.step());
        producer.send(&[1; 100]).unwrap();
        producer.close().unwrap();
        let mut results = vec![if over { traced.result() } else { traced.finish() }];
        while results.last() != Some(&closed) {
            traced.prepare("try_recv");
            results.push(traced.finish());
        }
        results.retain(|result| *result != empty);
        assert_eq!(results, ["100 bytes", &closed], "after {steps} instructions");
        if over {
            assert!(steps > 20);
            break;
        }
    }
}
