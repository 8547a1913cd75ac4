//! Real sessions with a partner process or thread: their data, their reports, and that they leave nothing.
//!
//! Has its own main function, since the partner is this program again.

mod dying;
mod faulty;
mod left;
mod machine;
mod own;
mod paced;
mod threads;

use std::io::{self, ErrorKind};
use std::mem;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::panic::{self, AssertUnwindSafe};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use shmpipe_measure::{
    Between, Config, Experiment, Machine, Placement, Plan, Session, Settings, Transport, Until, collect,
    collect_in_sessions, latency, serve_if_partner, transports,
};

use crate::left::{System, leave_the_namespace};
use crate::own::PacketSockets;

/// The crate's transports, every kind of shared memory, and a transport of our own.
fn all() -> Vec<&'static dyn Transport> {
    let mut all = [transports::ALL, transports::BACKENDS].concat();
    all.push(&PacketSockets);
    all
}

/// The variable with the role of a victim process; see [`victimise`].
const VICTIM: &str = "TWO_PROCESSES_VICTIM";

macro_rules! tests {
    ($($test:path,)*) => {
        &[$((stringify!($test), $test)),*]
    };
}

const TESTS: &[(&str, fn())] = tests![
    every_transport_delivers_every_byte,
    every_transport_yields_slices,
    checked_stream_reports_its_totals,
    sessions_run_in_sequence,
    every_round_trip_is_timed,
    paced::every_paced_message_is_counted,
    paced::paused_sender_delays_the_messages_due,
    paced::lost_message_is_an_error,
    paced::both_laps_of_every_new_ring_are_counted,
    paced::histograms_are_written_to_files,
    cold_slice_stays_within_one_lap,
    too_long_message_is_refused_and_the_session_continues,
    longest_message_of_every_transport_arrives,
    second_session_is_refused_while_the_first_lives,
    thread_gets_its_cpus_back,
    single_cpu_is_reported,
    description_names_the_machine,
    dead_partner_is_an_error,
    dying::partner_death_during_a_slice_is_an_error,
    machine::every_limit_is_measured,
    machine::sleepers_are_woken_and_pollers_skipped,
    left::leftovers_are_detected,
    threads::only_a_thread_can_take_over_an_end,
    threads::description_names_threads,
    threads::failing_thread_is_an_error,
    threads::failing_session_ends_its_thread,
    threads::stuck_thread_blocks_further_sessions,
    panic_leaves_nothing,
    killed_parent_leaves_nothing,
    interrupted_parent_leaves_nothing,
    aborting_parent_leaves_nothing,
    main_without_serve_if_partner_is_an_error,
];

fn main() {
    if std::env::var_os(VICTIM).is_none_or(|victim| victim != "forgetful") {
        serve_if_partner(&[all(), transports::FIRST_LAPS.to_vec()].concat());
    }
    if let Ok(victim) = std::env::var(VICTIM) {
        return victimise(&victim);
    }
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    if std::env::args().any(|word| word == "--list") {
        return TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
    }
    let alone = leave_the_namespace();
    println!(
        "System V objects and message queues: {}",
        if alone { "in a private namespace" } else { "in the shared namespace" }
    );
    for (name, test) in TESTS {
        if words.is_empty() || words.iter().any(|word| name.contains(word)) {
            let before = System::now();
            test();
            System::settles_to(&before);
            println!("{name} ... ok");
        }
    }
}

const BOTH: [Between; 2] = [Between::Processes, Between::Threads];

fn session() -> Session {
    session_between(Between::Processes)
}

fn session_between(between: Between) -> Session {
    Session::start(&Settings { between, capacity: 1 << 18, ..Settings::default() }, &all()).unwrap()
}

fn every_transport_delivers_every_byte() {
    for between in BOTH {
        deliver_every_byte(&mut session_between(between));
    }
}

fn deliver_every_byte(session: &mut Session) {
    for transport in 0..session.transports().len() {
        for size in [0, 1, 8, 56, 64, 65, 1024, 65536] {
            let name = session.transports()[transport].name();
            if session.fits(transport, size) && (name != "packets" || size > 0) {
                session
                    .check_both_ways(transport, size, 40)
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
            }
        }
    }
}

fn every_transport_yields_slices() {
    for between in BOTH {
        take_slices(&mut session_between(between));
    }
}

fn take_slices(session: &mut Session) {
    for experiment in [Experiment::RoundTrip, Experiment::Streaming] {
        let mut plan = Plan::new(Until::Rounds(2)).with(session, experiment, &[8, 4096]);
        plan.slice = Duration::from_micros(50);
        let collected = collect(session, &plan).unwrap();
        let fitting = |size| (0..all().len()).filter(|&transport| session.fits(transport, size)).count();
        assert_eq!(collected.series.len(), fitting(8) + fitting(4096));
        for series in &collected.series {
            assert_eq!(series.slices.len() as u64 + series.discarded, 2, "{:?}", series.config);
            assert!(series.slices.iter().all(|slice| slice.cost_ns > 0.0 && slice.floor_ns > 0.0));
        }
        let table = collected.table(experiment, "classic");
        assert_eq!(table.lines().count(), 3 + collected.series.len(), "{table}");
        assert!(collected.floor_report().to_string().contains("sessions: 1"));
    }
}

fn checked_stream_reports_its_totals() {
    let mut session = session();
    let shmpipes = ["shmpipe", "shmpipe-spin", "shmpipe-trusted", "shmpipe-reserve", "shmpipe-batch"];
    for name in shmpipes.into_iter().chain(["shmpipe-duplex", "classic", "pipe"]) {
        let transport = session.transport(name).unwrap();
        let checked = session.checked_stream(transport, 20_000, 4000, 7).unwrap();
        assert_eq!((checked.transport.as_str(), checked.messages), (name, 20_000));
        assert!(checked.bytes > 20_000 && checked.messages_per_second() > 0.0, "{checked}");
    }
}

fn sessions_run_in_sequence() {
    let (settings, transports) = (Settings::default(), [transports::CLASSIC, transports::PIPE]);
    let time = Duration::from_secs(3); // two sessions of one and a half
    let collected =
        collect_in_sessions(&settings, &transports, &[(Experiment::Streaming, &[64])], time).unwrap();
    assert_eq!((collected.sessions, collected.series.len()), (2, 2));
    let latencies = latency::collect_in_sessions(&settings, &transports, &[8], time / 10).unwrap();
    assert_eq!(latencies.len(), collected.placements.len() * 3);
}

fn every_round_trip_is_timed() {
    let mut session = session();
    let latencies = latency::collect(&mut session, &[64], Duration::from_millis(50)).unwrap();
    assert_eq!(latencies.len(), 2 * (1 + all().len())); // the floor, and two placements each
    assert!(latencies.iter().any(|latency| !latency.histogram.is_empty()), "{}", latency::table(&latencies));
    assert!(latency::table(&latencies).contains("p99.99"));
}

fn cold_slice_stays_within_one_lap() {
    let settings = Settings { cold: true, capacity: 1 << 16, ..Settings::default() };
    let mut session = Session::start(&settings, &all()).unwrap();
    for transport in 0..session.transports().len() {
        for experiment in [Experiment::Streaming, Experiment::RoundTrip] {
            // with that many messages it would not end
            session.slice(Config { experiment, transport, size: 64 }, u64::MAX).unwrap();
        }
    }
    let mut took = Vec::new();
    while session.each_round_trip(Some(0), 64, u64::MAX, &mut took).unwrap().is_none() {}
    assert!((100..=1024).contains(&took.len()), "{} round trips of 64 bytes in 64 KiB", took.len());
}

fn too_long_message_is_refused_and_the_session_continues() {
    let mut session = session();
    let shmpipe = session.transport("shmpipe").unwrap();
    let config = Config { experiment: Experiment::RoundTrip, transport: shmpipe, size: 1 << 20 };
    assert!(!session.fits(shmpipe, config.size));
    assert_eq!(session.slice(config, 1).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(
        session.slice(Config { transport: 99, ..config }, 1).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    session.slice(Config { size: 64, ..config }, 10).unwrap();
    assert!(session.transport("carrier-pigeon").is_err());
}

fn longest_message_of_every_transport_arrives() {
    const ENOUGH: usize = 1 << 22;
    let settings = Settings { capacity: 1 << 14, ..Settings::default() };
    let mut session = Session::start(&settings, transports::ALL).unwrap();
    for (number, transport) in transports::ALL.iter().enumerate() {
        let (mut longest, mut too_long) = (0, ENOUGH);
        while too_long - longest > 1 {
            let middle = (longest + too_long) / 2;
            if session.fits(number, middle) { longest = middle } else { too_long = middle }
        }
        let name = transport.name();
        let unlimited = longest == ENOUGH - 1;
        assert!(unlimited || session.check_both_ways(number, too_long, 1).is_err(), "{name}");
        let checked = session.check_both_ways(number, longest, 3);
        checked.unwrap_or_else(|error| panic!("{name}, {longest} bytes: {error}"));
    }
}

fn second_session_is_refused_while_the_first_lives() {
    let first = session();
    let second = Session::start(&Settings::default(), transports::ALL);
    assert_eq!(second.unwrap_err().kind(), ErrorKind::ResourceBusy);
    drop(first);
    session();
}

fn thread_gets_its_cpus_back() {
    let cpus = || thread::available_parallelism().unwrap().get();
    let before = cpus();
    let session = session();
    if session.cpus().is_some() {
        assert_eq!(cpus(), 1);
    }
    drop(session);
    assert_eq!(cpus(), before);
}

fn single_cpu_is_reported() {
    // SAFETY: cpu_set_t is an array of integers, for which all zero is a value.
    let mut all_cpus: libc::cpu_set_t = unsafe { mem::zeroed() };
    let size = mem::size_of_val(&all_cpus);
    // SAFETY: a live set of the size given.
    assert_eq!(unsafe { libc::sched_getaffinity(0, size, &mut all_cpus) }, 0);
    // SAFETY: the numbers are below the size of the set.
    let first = (0..1024).find(|&cpu| unsafe { libc::CPU_ISSET(cpu, &all_cpus) }).unwrap();
    // SAFETY: as above.
    let mut one: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the number is below the size of the set.
    unsafe { libc::CPU_SET(first, &mut one) };
    // SAFETY: a live set of the size given.
    assert_eq!(unsafe { libc::sched_setaffinity(0, size, &one) }, 0);
    {
        let mut session = session();
        assert_eq!(session.cpus(), None);
        assert!(Machine::of(&session).to_string().contains("one for both sides"));
        let mut plan = Plan::new(Until::Rounds(1)).with(&session, Experiment::RoundTrip, &[64]);
        plan.slice = Duration::from_micros(1);
        let collected = collect(&mut session, &plan).unwrap();
        assert_eq!(collected.placements, [Placement::OneCpu]);
        // the sender starts while the receiver is not running and has not taken the last message of the floor
        let paced = shmpipe_measure::paced::collect(&mut session, &[64], &[1e4], Duration::ZERO).unwrap();
        assert!(paced.iter().all(|paced| paced.placement == Placement::OneCpu));
    }
    // SAFETY: a live set of the size given.
    assert_eq!(unsafe { libc::sched_setaffinity(0, size, &all_cpus) }, 0);
}

fn description_names_the_machine() {
    let session = session();
    let text = Machine::of(&session).to_string();
    for what in ["cpu ", "cpus ", "kernel ", "ring ", "262144 bytes"] {
        assert!(text.contains(what), "{text}");
    }
}

fn dead_partner_is_an_error() {
    for name in ["classic", "shmpipe", "pipe"] {
        let mut session = session();
        let transport = session.transport(name).unwrap();
        kill(session.partner_id() as i32, libc::SIGKILL);
        let config = Config { experiment: Experiment::RoundTrip, transport, size: 64 };
        let error = session.slice(config, 1000).unwrap_err();
        assert!(error.to_string().contains("the partner process ended early"), "{error}");
        assert_eq!(session.slice(config, 1).unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}

fn panic_leaves_nothing() {
    let before = System::now();
    let panics = AssertUnwindSafe(|| {
        let session = session();
        assert!(System::now() != before, "a session has objects while it lives");
        panic!("with {session:?}");
    });
    assert!(quietly(|| panic::catch_unwind(panics)).is_err());
}

fn killed_parent_leaves_nothing() {
    for what in ["measuring", "threads"] {
        let victim = Victim::start(what);
        kill(victim.0.id() as i32, libc::SIGKILL);
    }
}

fn interrupted_parent_leaves_nothing() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
        let what = if signal == libc::SIGHUP { "threads" } else { "measuring" };
        let mut victim = Victim::start(what);
        kill(-(victim.0.id() as i32), signal); // as a terminal does: the whole group
        assert_eq!(victim.0.wait().unwrap().signal(), Some(signal));
    }
}

fn aborting_parent_leaves_nothing() {
    let mut victim = Victim::start("aborting");
    assert_eq!(victim.0.wait().unwrap().signal(), Some(libc::SIGABRT));
}

fn main_without_serve_if_partner_is_an_error() {
    let start = Instant::now();
    let status = victim("forgetful").stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.unwrap().success());
    assert!(start.elapsed() < Duration::from_secs(10));
}

/// A command that runs this program as a victim.
fn victim(what: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.env(VICTIM, what);
    command
}

/// Calls `call` without the messages of its panics.
fn quietly<T>(call: impl FnOnce() -> T) -> T {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    let result = call();
    panic::set_hook(hook);
    result
}

/// A process with a session, in a process group of its own.
struct Victim(Child);

impl Victim {
    /// Starts it, and waits until its session measures.
    fn start(what: &str) -> Victim {
        let mut child = victim(what).process_group(0).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
        assert_eq!(line, "measuring\n");
        Victim(child)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn victimise(what: &str) {
    // A shell makes background jobs ignore signals, and a child inherits that.
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
        // SAFETY: no handler of ours is replaced: this process has just begun.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    if what == "stuck" {
        return threads::be_stuck();
    }
    let between = if what == "threads" { Between::Threads } else { Between::Processes };
    let started = Session::start(&Settings { between, ..Settings::default() }, &all());
    if what == "forgetful" {
        let error = started.unwrap_err();
        assert!(error.to_string().contains("the partner process ended early"), "{error}");
        return;
    }
    let mut session = started.unwrap();
    let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a live limit.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &no_core) };
    println!("measuring");
    if what == "aborting" {
        std::process::abort();
    }
    loop {
        for transport in 0..session.transports().len() {
            let config = Config { experiment: Experiment::RoundTrip, transport, size: 64 };
            session.slice(config, 100).unwrap();
        }
    }
}

fn kill(process: i32, signal: i32) {
    // SAFETY: a process of this test.
    assert_eq!(unsafe { libc::kill(process, signal) }, 0);
}
