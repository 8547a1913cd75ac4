//! Limits of the machine, and sleeping consumers.

use std::time::Duration;

use shmpipe_measure::limits::{self, Limit, Storing};
use shmpipe_measure::{Mode, Session, Settings, sleeping, transports};

pub fn every_limit_is_measured() {
    for between in super::BOTH {
        let settings = Settings { between, ..Settings::default() };
        let mut session = Session::start(&settings, &[transports::CLASSIC]).unwrap();
        let all = limits::collect(&mut session, &[64, 8192], Duration::ZERO).unwrap();
        // limits without bytes, and one small round trip; limits with bytes, and a stream, in both sizes
        let of_bytes = Limit::ALL.iter().filter(|limit| limit.has_bytes()).count();
        assert_eq!(all.len(), Limit::ALL.len() - of_bytes + 1 + 2 * (of_bytes + 1));
        for measured in &all {
            assert!(measured.slices.len() as u64 + measured.discarded > 0, "{}", measured.name);
            assert!(measured.slices.iter().all(|slice| slice.cost_ns >= 0.0 && slice.floor_ns > 0.0));
        }
        // invalid sizes are refused, and the session continues
        for size in [0, 63, 2 * limits::LONGEST] {
            assert!(session.limit(Limit::Read(Storing::Plain), size, 1).is_err());
        }
        session.limit(Limit::Read(Storing::Plain), 128, 3).unwrap();
        session.check_both_ways(0, 100, 10).unwrap();
    }
}

pub fn sleepers_are_woken_and_pollers_skipped() {
    let all = [transports::SHMPIPE, transports::FUTEX, transports::CLASSIC];
    for between in super::BOTH {
        let settings = Settings { between, ..Settings::default() };
        let mut session = Session::start(&settings, &all).unwrap();
        // on a slow machine, all consumers of a slice may be awake: repeat
        let found = (0..50).any(|_| {
            let woken =
                sleeping::collect(&mut session, &[16], sleeping::PAUSE, Duration::from_millis(50)).unwrap();
            assert!(woken.iter().all(|each| each.transport != "classic"));
            assert!(sleeping::table(&woken, "futex").contains("p50 /futex"));
            ["shmpipe", "futex"].iter().all(|name| {
                woken.iter().any(|each| {
                    each.transport == *name && each.histogram.min() > 0 && !each.histogram.is_empty()
                })
            })
        });
        assert!(found, "no consumer slept");
        assert!(sleeping::collect(&mut session, &[16], Duration::from_micros(1), Duration::ZERO).is_err());
        let idle = sleeping::idle(&mut session, 16, Duration::from_millis(5)).unwrap();
        let names: Vec<_> = idle.iter().map(|(name, mode, _)| (*name, *mode != Mode::Polls)).collect();
        assert_eq!(names, [("shmpipe", true), ("futex", true)]);
    }
}
