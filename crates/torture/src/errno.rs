//! Each system call of whatever a program does with a pipe is made to fail with each error that it can return, the first, the second
//! and the third time: what comes of it is an error that says so, or what was asked for; nothing is left open, taken or half made; and the same
//! succeeds right after.

mod scenario;
mod table;

use crate::run::{Harness, Run};
use crate::verdict::{Failure, Outcome};
use crate::workers;
use clap::Args;
use scenario::Scenario;
use shmpipe::{Options, handoff, unlink};
use shmpipe_testing::backend::{Backend, Place};
use shmpipe_testing::process::Part;
use shmpipe_testing::traced::{Stop, Traced};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;
use table::TABLE;

/// Makes each system call fail with each error that it can return
#[derive(Debug, Args)]
pub struct Errno {
    /// Only what is done so: `Create`, `ClaimProducer`, ...
    #[arg(long, value_name = "SCENARIO")]
    only: Option<String>,
    /// Name each failure, and go on
    #[arg(long)]
    keep_going: bool,
}

const BACKENDS: [Backend; 4] = [Backend::SysV, Backend::Posix, Backend::File, Backend::Memfd];

/// How often a call succeeds at most before it fails, and once more.
const TIMES: usize = 3;

/// One failure of one call.
#[derive(Clone, Copy, Debug)]
struct Case {
    scenario: Scenario,
    backend: Backend,
    /// The call's number in the table.
    entry: usize,
    errno: i32,
    /// Which of such calls it is.
    time: usize,
}

impl Harness for Errno {
    const PARTS: &'static [(&'static str, Part)] = &[("errno: scenario", scenario::play)];

    fn run(&self, run: &Run) -> Outcome {
        let mut cases = vec![];
        let scenarios = scenario::ALL
            .iter()
            .filter(|scenario| self.only.as_ref().is_none_or(|only| *only == format!("{scenario:?}")));
        for &scenario in scenarios {
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
                    Ok(End::Told) => run.count("told by an error", 1),
                    Ok(End::Done) => run.count("done all the same", 1),
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
            0 => Ok(()),
            failures => Err(Failure::Failed(format!("{failures} of them not as they should"))),
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

/// Whether it can be done with that kind of memory. What is handed over is a memfd, which nobody removes.
fn is_meant(scenario: Scenario, backend: Backend) -> bool {
    match scenario {
        Scenario::Serve | Scenario::Accept => backend == Backend::Memfd,
        Scenario::OpenOrCreate | Scenario::LeaveLast | Scenario::Unlink | Scenario::UnlinkForce => {
            backend != Backend::Memfd
        }
        _ => true,
    }
}

/// Each failure of each call that it makes when nothing fails.
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

/// What came of a call that failed.
enum End {
    Told,
    Done,
    NotReached,
}

/// A process that is about to do something with a pipe of its own.
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
            .ok_or_else(|| Failure::CannotRunHere("nobody may be traced here".to_owned()))?;
        traced.prepare("go");
        Ok(Trial { scenario, traced, place })
    }

    /// Runs it to its mark. Before each call, `choose` may say how that is to fail: by which error, and whether it is done.
    fn each_call(&self, mut choose: impl FnMut(&Traced) -> Option<(i32, bool)>) -> Result<(), String> {
        if self.scenario == Scenario::Accept {
            // Somebody to be accepted. It ends when the process does.
            let path = self.place.path().to_owned();
            thread::spawn(move || handoff::connect(path, &Options::new()).is_ok());
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

    /// Whether it is at a call, and not at its mark.
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
        let told = self.traced.result();
        let end = judge(&told, case.errno)?;
        let is_signal = case.errno == libc::EINTR && matches!(end, End::Told);
        if is_signal && !table::TELL_SIGNALS.contains(&TABLE[case.entry].name) {
            return Err(format!("a signal fails it: {told}"));
        }
        if matches!((self.scenario, &end), (Scenario::Create | Scenario::OpenOrCreate, End::Told))
            && !self.place.is_unused()
        {
            return Err(format!("it has left something behind, and said: {told}"));
        }
        match self.traced.result().as_str() {
            "well" => {}
            why => return Err(format!("it said {told}, and then: {why}")),
        }
        drop(self.traced);
        if self.place.backend() != Backend::Memfd {
            let pipe = self.place.open_or_create(&Options::new().capacity(4096));
            let pipe = pipe.map_err(|error| format!("opened by another process afterwards: {error}"))?;
            pipe.producer().and(pipe.consumer()).map_err(|error| format!("claimed afterwards: {error}"))?;
            drop(pipe);
            unlink(&self.place).map_err(|error| format!("removed afterwards: {error}"))?;
            if !self.place.is_unused() {
                return Err("something is left behind".to_owned());
            }
        }
        Ok(if reached { end } else { End::NotReached })
    }
}

/// Whether what was said is an answer to the error.
fn judge(told: &str, errno: i32) -> Result<End, String> {
    let mut words = told.split(' ');
    let (variant, number) =
        (words.next().unwrap_or_default(), words.next().and_then(|word| word.parse().ok()));
    match variant {
        // The end of a wait.
        "ok" | "TimedOut" => Ok(End::Done),
        _ if number == Some(errno) || table::says(errno, variant) => Ok(End::Told),
        _ => Err(format!("an error that says something else: {told}")),
    }
}
