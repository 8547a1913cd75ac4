//! Makes each system call of each operation on a pipe fail with each error that it can return, the first, second and third time.
//! The operation returns a fitting error, or succeeds. Nothing stays open, held or incomplete. Right after, the same operation
//! succeeds.

mod scenario;
mod table;

use crate::objects;
use crate::run::{Harness, Run};
use crate::verdict::{Failure, Outcome};
use crate::workers;
use clap::{Args, ValueEnum};
use scenario::Scenario;
use shmpipe::os::unix::fd_passing;
use shmpipe::{Options, unlink};
use shmpipe_testing::backend::{Backend, Place};
use shmpipe_testing::process::Part;
use shmpipe_testing::traced::{Stop, Traced};
use std::collections::BTreeMap;
use std::slice;
use std::sync::Mutex;
use std::thread;
use table::TABLE;

/// Makes each system call fail with each error that it can return
#[derive(Debug, Args)]
pub struct Errno {
    /// Only this scenario
    #[arg(long)]
    only: Option<Scenario>,
    /// Print each failure, and continue
    #[arg(long)]
    keep_going: bool,
}

const BACKENDS: [Backend; 4] = [Backend::SysV, Backend::Posix, Backend::File, Backend::Memfd];

/// Each of the first calls of a kind fails, up to this number.
const TIMES: usize = 3;

/// One failure of one call.
#[derive(Clone, Copy, Debug)]
struct Case {
    scenario: Scenario,
    backend: Backend,
    /// The call's number in the table.
    entry: usize,
    errno: i32,
    /// The number of the call among those of its kind.
    time: usize,
}

impl Harness for Errno {
    const PARTS: &'static [(&'static str, Part)] = &[("errno: scenario", scenario::play)];

    fn run(&self, run: &Run) -> Outcome {
        objects::isolate(run);
        let mut cases = vec![];
        for &scenario in self.only.as_ref().map_or(Scenario::value_variants(), slice::from_ref) {
            for backend in BACKENDS.into_iter().filter(|&backend| is_meant(scenario, backend)) {
                cases.extend(cases_of(scenario, backend)?);
            }
        }
        run.goal(cases.len() as u64, "failures of system calls");
        let failures = Mutex::new(0);
        workers::run(run, workers::processors(), 1, |pieces| {
            for piece in pieces {
                let case = cases[piece.first as usize];
                match case.run() {
                    Ok(End::Error) => run.count("returned an error", 1),
                    Ok(End::Done) => run.count("succeeded nevertheless", 1),
                    Ok(End::NotReached) => run.count("not reached", 1),
                    Err(why) if self.keep_going => {
                        run.note(&why);
                        *failures.lock().expect("nothing fails under the lock") += 1;
                    }
                    Err(why) => return Err(Failure::Failed(why)),
                }
                run.advance(1);
            }
            Ok(())
        })?;
        match failures.into_inner().expect("nothing fails under the lock") {
            0 => objects::must_be_none(),
            failures => Err(Failure::Failed(format!("{failures} of them were wrong"))),
        }
    }
}

impl Case {
    fn run(self) -> Result<End, String> {
        let Case { scenario, backend, entry, errno, time } = self;
        let trial = Trial::new(scenario, backend).map_err(|failure| format!("{failure:?}"));
        trial.and_then(|trial| trial.run(self)).map_err(|why| {
            let (name, error) = (TABLE[entry].name, std::io::Error::from_raw_os_error(errno));
            format!("{scenario:?}, {backend:?}: {name} number {time} fails ({error}): {why}")
        })
    }
}

/// Whether the scenario exists for that kind of memory. Only a memfd is passed on, and it is never removed.
fn is_meant(scenario: Scenario, backend: Backend) -> bool {
    match scenario {
        Scenario::Serve | Scenario::Accept => backend == Backend::Memfd,
        Scenario::OpenOrCreate | Scenario::LeaveLast | Scenario::Unlink | Scenario::UnlinkForce => {
            backend != Backend::Memfd
        }
        _ => true,
    }
}

/// The failures of each call that the scenario makes when nothing fails.
fn cases_of(scenario: Scenario, backend: Backend) -> Result<Vec<Case>, Failure> {
    let trial = Trial::new(scenario, backend)?;
    let mut counts = BTreeMap::new();
    trial
        .each_call(|traced| {
            if let Some(entry) = table::find(traced, traced.call()) {
                *counts.entry(entry).or_insert(0) += 1;
            }
            None
        })
        .map_err(Failure::Failed)?;
    let times =
        counts.into_iter().flat_map(|(entry, count)| (1..=TIMES.min(count)).map(move |time| (entry, time)));
    let cases = times.flat_map(|(entry, time)| {
        TABLE[entry].errnos.iter().map(move |&errno| Case { scenario, backend, entry, errno, time })
    });
    Ok(cases.collect())
}

/// The result of an operation with a failed call.
enum End {
    Error,
    Done,
    NotReached,
}

/// A process that is about to play a scenario with a pipe of its own.
struct Trial {
    scenario: Scenario,
    traced: Traced,
    place: Place,
}

impl Trial {
    fn new(scenario: Scenario, backend: Backend) -> Result<Self, Failure> {
        let place = backend.place();
        if scenario.needs_pipe() {
            place.create(&Options::new().capacity(4096))?;
        }
        let address = match scenario {
            Scenario::Create => place.making(),
            _ => place.as_str(),
        };
        let socket = match backend {
            Backend::Memfd => place.path().display().to_string(),
            _ => String::new(),
        };
        let mut traced = Traced::start("errno: scenario", &[&format!("{scenario:?}"), address, &socket])
            .ok_or_else(Failure::untraceable)?;
        traced.prepare("go");
        Ok(Trial { scenario, traced, place })
    }

    /// Runs it to its mark. Before each call, `choose` may return a failure: an error, and whether the call takes effect.
    fn each_call(&self, mut choose: impl FnMut(&Traced) -> Option<(i32, bool)>) -> Result<(), String> {
        if self.scenario == Scenario::Accept {
            // A client to accept. It ends with the process.
            let path = self.place.path().to_owned();
            thread::spawn(move || fd_passing::connect(path, &Options::new()).is_ok());
        }
        loop {
            let fails = match self.next()? {
                true => choose(&self.traced),
                false => return Ok(()),
            };
            if let Some((_, false)) = fails {
                self.traced.skip_call();
            }
            if !self.next()? {
                return Ok(());
            }
            if let Some((errno, _)) = fails {
                self.traced.answer(errno);
            }
        }
    }

    /// Whether it stopped at a call, not at its mark.
    fn next(&self) -> Result<bool, String> {
        match self.traced.next_stop() {
            Stop::Call => Ok(true),
            Stop::Mark => Ok(false),
            Stop::Signal(libc::SIGALRM) => Err("it hangs".to_owned()),
            Stop::Signal(libc::SIGABRT) => Err("it panics".to_owned()),
            Stop::Signal(signal) => Err(format!("it gets signal {signal}")),
        }
    }

    fn run(mut self, case: Case) -> Result<End, String> {
        let (mut time, mut reached) = (0, false);
        self.each_call(|traced| {
            if table::find(traced, traced.call()) != Some(case.entry) {
                return None;
            }
            time += 1;
            reached |= time == case.time;
            (time == case.time).then_some((case.errno, TABLE[case.entry].is_done))
        })?;
        let said = self.traced.result();
        let end = judge(&said, case.errno)?;
        let is_signal = case.errno == libc::EINTR && matches!(end, End::Error);
        if is_signal && !table::REPORT_SIGNALS.contains(&TABLE[case.entry].name) {
            return Err(format!("it fails by a signal: {said}"));
        }
        if matches!((self.scenario, &end), (Scenario::Create | Scenario::OpenOrCreate, End::Error))
            && !self.place.is_unused()
        {
            return Err(format!("it has left something behind, and returned: {said}"));
        }
        match self.traced.result().as_str() {
            "well" => {}
            why => return Err(format!("it returned {said}, and then: {why}")),
        }
        drop(self.traced);
        if self.place.backend() != Backend::Memfd {
            let pipe = self.place.open_or_create(&Options::new().capacity(4096));
            let pipe = pipe.map_err(|error| format!("opened by another process afterwards: {error}"))?;
            pipe.producer().and(pipe.consumer()).map_err(|error| format!("claimed afterwards: {error}"))?;
            drop(pipe);
            unlink(&self.place).map_err(|error| format!("removed afterwards: {error}"))?;
            if !self.place.is_unused() {
                return Err("something is left over".to_owned());
            }
        }
        Ok(if reached { end } else { End::NotReached })
    }
}

/// Judges the result of an operation with a failed call.
fn judge(said: &str, errno: i32) -> Result<End, String> {
    let mut words = said.split(' ');
    let (variant, number) =
        (words.next().unwrap_or_default(), words.next().and_then(|word| word.parse().ok()));
    match variant {
        // The end of a wait.
        "ok" | "TimedOut" => Ok(End::Done),
        _ if number == Some(errno) || table::says(errno, variant) => Ok(End::Error),
        _ => Err(format!("another error: {said}")),
    }
}
