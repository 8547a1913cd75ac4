//! Partners that are threads.

use std::fs;
use std::io::ErrorKind;
use std::panic::{self, AssertUnwindSafe};
use std::process::Command;

use shmpipe_measure::{Between, Config, Experiment, Machine, Session, Settings, Transport, transports};

use crate::faulty::{Failing, Kind};
use crate::own::Mpsc;
use crate::{VICTIM, session_between};

pub(crate) fn an_end_is_handed_to_a_thread_only() {
    let error = Session::start(&Settings::default(), &[&Mpsc]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let settings = Settings { between: Between::Threads, ..Settings::default() };
    // both kinds in one session, so that they can be compared
    let mut session = Session::start(&settings, &[&Mpsc, transports::SHMPIPE, transports::PIPE]).unwrap();
    for transport in 0..3 {
        session.check_both_ways(transport, 1000, 100).unwrap();
        assert!(session.checked_stream(transport, 1000, 500, 3).unwrap().bytes > 0);
    }
}

pub(crate) fn threads_are_told_in_the_description() {
    let session = session_between(Between::Threads);
    assert_eq!(session.partner_id(), std::process::id());
    if session.cpus().is_some() {
        assert!(Machine::of(&session).to_string().contains("one thread pinned to each"));
    }
}

const FAILING: [&dyn Transport; 6] = [
    &Failing { kind: Kind::Mpsc, theirs: false, panics: false },
    &Failing { kind: Kind::Mpsc, theirs: false, panics: true },
    &Failing { kind: Kind::Packets, theirs: false, panics: false },
    &Failing { kind: Kind::Shmpipe, theirs: false, panics: false },
    &Failing { kind: Kind::Polled, theirs: false, panics: false },
    &Failing { kind: Kind::Sleeps, theirs: false, panics: false },
];

const FAILING_THERE: [&dyn Transport; 6] = [
    &Failing { kind: Kind::Mpsc, theirs: true, panics: false },
    &Failing { kind: Kind::Mpsc, theirs: true, panics: true },
    &Failing { kind: Kind::Packets, theirs: true, panics: false },
    &Failing { kind: Kind::Shmpipe, theirs: true, panics: false },
    &Failing { kind: Kind::Polled, theirs: true, panics: false },
    &Failing { kind: Kind::Sleeps, theirs: true, panics: false },
];

/// A session between threads over one transport.
pub(crate) fn one(transport: &'static dyn Transport) -> Session {
    let settings = Settings { between: Between::Threads, capacity: 4096, ..Settings::default() };
    Session::start(&settings, &[transport]).unwrap()
}

const ROUND_TRIP: Config = Config { experiment: Experiment::RoundTrip, transport: 0, size: 64 };

pub(crate) fn a_failing_thread_is_an_error() {
    for transport in FAILING_THERE {
        let mut session = one(transport);
        let quiet = panic::take_hook();
        panic::set_hook(Box::new(|_| ()));
        let failed = session.slice(ROUND_TRIP, 1000);
        panic::set_hook(quiet);
        let error = failed.unwrap_err();
        let expected =
            if transport.about() == "panics" { "it panicked" } else { "the other end has had enough" };
        let text = error.to_string();
        assert!(text.contains("the partner thread ended early") && text.contains(expected), "{text}");
        assert_eq!(session.slice(ROUND_TRIP, 1).unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}

pub(crate) fn a_failing_session_ends_its_thread() {
    for transport in FAILING {
        let quiet = panic::take_hook();
        panic::set_hook(Box::new(|_| ()));
        let failed = panic::catch_unwind(AssertUnwindSafe(|| one(transport).slice(ROUND_TRIP, 1000)));
        panic::set_hook(quiet);
        match failed {
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

pub(crate) fn a_thread_that_does_not_end_is_the_last() {
    let mut victim = Command::new("/proc/self/exe").env(VICTIM, "stuck").spawn().unwrap();
    assert!(victim.wait().unwrap().success());
}

pub(crate) fn be_stuck() {
    let mut session = one(&Failing { kind: Kind::Parks, theirs: false, panics: false });
    assert!(session.slice(ROUND_TRIP, 1000).is_err());
    drop(session);
    assert_eq!(threads(), 2);
    let again = Session::start(&Settings::default(), &[transports::CLASSIC]);
    assert_eq!(again.unwrap_err().kind(), ErrorKind::ResourceBusy);
}
