//! One-way delays at a given rate, and histograms in files.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use shmpipe_measure::{Between, Session, Settings, first_lap, latency, paced, transports};

use crate::faulty::{LOSING, PAUSING};
use crate::{BOTH, all, session_between};

pub(crate) fn every_paced_message_is_counted() {
    for between in BOTH {
        let mut session = session_between(between);
        let paced = paced::collect(&mut session, &[16, 100], &[1e5], Duration::ZERO).unwrap();
        assert_eq!(paced.len(), 2 * (1 + 2 * all().len())); // two placements each, the floor among them
        let slices: u64 = paced.iter().map(|paced| paced.slices).sum();
        assert!(slices > 0, "{}", paced::table(&paced));
        for paced in &paced {
            assert_eq!(paced.histogram.len(), 1000 * paced.slices, "{}", paced.transport); // 10 ms
            assert!(paced.kept_up <= paced.slices && paced.early <= paced.histogram.len());
        }
        for (sizes, rate) in [(&[15][..], 1e5), (&[64], 0.1)] {
            let error = paced::collect(&mut session, sizes, &[rate], Duration::ZERO).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
    }
}

/// Repeats a measurement until it is `enough`: on a busy machine, all slices of a short run may be discarded.
fn until_enough<T>(mut what: impl FnMut() -> T, enough: impl Fn(&T) -> bool) -> T {
    for _ in 0..100 {
        let found = what();
        if enough(&found) {
            return found;
        }
    }
    panic!("no slice counts, a hundred times");
}

/// At 100,000 messages a second, a send now and then takes 2 ms. Only one of 200 messages is slow to send, but those due meanwhile
/// are late too.
pub(crate) fn paused_sender_delays_the_messages_due() {
    let settings = Settings { between: Between::Threads, ..Settings::default() };
    let mut session = Session::start(&settings, &[&PAUSING]).unwrap();
    let pausing = until_enough(
        || {
            let all = paced::collect(&mut session, &[16], &[1e5], Duration::from_millis(50)).unwrap();
            all.into_iter().find(|paced| paced.transport == "pausing" && paced.slices > 0)
        },
        Option::is_some,
    );
    let median = pausing.unwrap().histogram.value_at_quantile(0.5);
    assert!(median > 500_000, "the median is {median} ns: messages behind the late one must count");
}

pub(crate) fn lost_message_is_an_error() {
    let settings = Settings { between: Between::Threads, ..Settings::default() };
    let error = paced::collect_in_sessions(&settings, &[&LOSING], &[16], &[1e5], Duration::ZERO).unwrap_err();
    assert!(error.to_string().contains("expected message"), "{error}");
}

pub(crate) fn both_laps_of_every_new_ring_are_counted() {
    let settings = Settings { capacity: 1 << 14, ..Settings::default() };
    let rings = &transports::FIRST_LAPS[..3];
    let collect = |size| first_lap::collect(&settings, rings, transports::CLASSIC, size, Duration::ZERO);
    let found = until_enough(|| collect(64).unwrap(), |found| found.left_out < found.laps);
    assert_eq!(found.laps, 2 * rings.len() as u64);
    let laps = || found.rows.iter().flat_map(|row| row.laps.iter().zip(row.rings));
    assert_eq!(laps().map(|(_, rings)| rings).sum::<u64>(), found.laps - found.left_out);
    for (lap, rings) in laps() {
        assert_eq!(lap.len(), rings * ((1 << 14) / 72));
    }
    let table = first_lap::table(&found.rows);
    let both = found.rows.iter().filter(|row| row.rings.iter().all(|&rings| rings > 0)).count();
    assert_eq!(table.lines().count(), 2 + both, "{table}");
    assert_eq!(collect(1 << 14).unwrap_err().kind(), ErrorKind::InvalidInput);
}

pub(crate) fn histograms_are_written_to_files() {
    let directory = std::env::temp_dir().join(format!("shmpipe-measure-{}", std::process::id()));
    let mut session = Session::start(&Settings::default(), &[transports::CLASSIC]).unwrap();
    let time = Duration::from_millis(50);
    let measure = || {
        latency::save(&latency::collect(&mut session, &[64], time).unwrap(), &directory).unwrap();
        paced::save(&paced::collect(&mut session, &[64], &[1e5], time).unwrap(), &directory).unwrap();
        fs::read_dir(&directory).map_or(Vec::new(), |files| files.map(|file| file.unwrap().path()).collect())
    };
    let written = |stem: &str| {
        ["near", "far", "one-cpu"].iter().any(|place| directory.join(format!("{stem}-{place}.hgrm")).exists())
    };
    let stems = ["classic-64-bytes", "classic-64-bytes-100000-a-second", "floor-0-bytes"];
    let files: Vec<PathBuf> = until_enough(measure, |_| stems.into_iter().all(written));
    for file in files {
        assert!(fs::read_to_string(&file).unwrap().contains("1.000000000000"), "{file:?}");
    }
    fs::remove_dir_all(&directory).unwrap();
}
