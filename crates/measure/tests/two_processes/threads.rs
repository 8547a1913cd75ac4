//! Partners that are threads.

use std::fs;
use std::io::ErrorKind;
use std::panic::{self, AssertUnwindSafe};

use shmpipe_measure::{Between, Config, Experiment, Machine, Session, Settings, Transport, transports};

use crate::faulty::{Failing, Kind};
use crate::own::Mpsc;
use crate::{quietly, session_between, victim};

pub(crate) fn only_a_thread_can_take_over_an_end() {
    let error = Session::start(&Settings::default(), &[&Mpsc]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let settings = Settings { between: Between::Threads, ..Settings::default() };
    // one session can compare both kinds
    let mut session = Session::start(&settings, &[&Mpsc, transports::SHMPIPE, transports::PIPE]).unwrap();
    for transport in 0..3 {
        session.check_both_ways(transport, 1000, 100).unwrap();
        assert!(session.checked_stream(transport, 1000, 500, 3).unwrap().bytes > 0);
    }
}

pub(crate) fn description_names_threads() {
    let session = session_between(Between::Threads);
    assert_eq!(session.partner_id(), std::process::id());
    if session.cpus().is_some() {
        assert!(Machine::of(&session).to_string().contains("one thread pinned to each"));
    }
}

static FAILING: [Failing; 6] = failing(false);
static FAILING_THERE: [Failing; 6] = failing(true);

const fn failing(theirs: bool) -> [Failing; 6] {
    [
        Failing { kind: Kind::Mpsc, theirs, panics: false },
        Failing { kind: Kind::Mpsc, theirs, panics: true },
        Failing { kind: Kind::Packets, theirs, panics: false },
        Failing { kind: Kind::Shmpipe, theirs, panics: false },
        Failing { kind: Kind::Polled, theirs, panics: false },
        Failing { kind: Kind::Sleeps, theirs, panics: false },
    ]
}

/// A session between threads over one transport.
pub(crate) fn one(transport: &'static dyn Transport) -> Session {
    let settings = Settings { between: Between::Threads, capacity: 4096, ..Settings::default() };
    Session::start(&settings, &[transport]).unwrap()
}

const ROUND_TRIP: Config = Config { experiment: Experiment::RoundTrip, transport: 0, size: 64 };

pub(crate) fn failing_thread_is_an_error() {
    for transport in &FAILING_THERE {
        let mut session = one(transport);
        let error = quietly(|| session.slice(ROUND_TRIP, 1000)).unwrap_err();
        let expected =
            if transport.about() == "panics" { "it panicked" } else { "the other end has had enough" };
        let text = error.to_string();
        assert!(text.contains("the partner thread ended early") && text.contains(expected), "{text}");
        assert_eq!(session.slice(ROUND_TRIP, 1).unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}

pub(crate) fn failing_session_ends_its_thread() {
    for transport in &FAILING {
        let slice = AssertUnwindSafe(|| one(transport).slice(ROUND_TRIP, 1000));
        match quietly(|| panic::catch_unwind(slice)) {
            Ok(error) => assert!(error.unwrap_err().to_string().contains("had enough")),
            Err(_) => assert_eq!(transport.about(), "panics"),
        }
        assert_eq!(threads(), 1, "{} leaves a thread", transport.name()); // and the next session starts
    }
}

/// The threads of this process.
pub(crate) fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

pub(crate) fn stuck_thread_blocks_further_sessions() {
    assert!(victim("stuck").status().unwrap().success());
}

pub(crate) fn be_stuck() {
    let mut session = one(&Failing { kind: Kind::Parks, theirs: false, panics: false });
    assert!(session.slice(ROUND_TRIP, 1000).is_err());
    drop(session);
    assert_eq!(threads(), 2);
    let again = Session::start(&Settings::default(), &[transports::CLASSIC]);
    assert_eq!(again.unwrap_err().kind(), ErrorKind::ResourceBusy);
}
