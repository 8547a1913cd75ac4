//! Kills a process at random instructions and system calls while it creates, opens, uses, leaves and removes a pipe. The SIGKILL is
//! real, so the state of the kernel counts, not the bytes alone. The next process soon gets what it requests, and nothing is left
//! over.

mod scenario;

use crate::objects;
use crate::run::{Harness, Run};
use crate::verdict::{Failure, Outcome};
use crate::workers;
use clap::{Args, ValueEnum};
use scenario::Scenario;
use shmpipe::error::Damage;
use shmpipe::os::unix::fd_passing;
use shmpipe::{Options, Pipe, SetupError, unlink, unlink_force};
use shmpipe_testing::backend::{Backend, Place};
use shmpipe_testing::process::Part;
use shmpipe_testing::rng::Rng;
use shmpipe_testing::traced::Traced;
use std::fs;
use std::os::unix::net::UnixListener;
use std::slice;
use std::thread;
use std::time::{Duration, Instant};

/// Kills a process at random instructions while it creates, opens, uses and removes a pipe
#[derive(Debug, Args)]
pub struct Boundary {
    /// Number of kills
    #[arg(long, value_name = "N", default_value_t = 1000)]
    kills: u64,
    /// Only this scenario
    #[arg(long)]
    only: Option<Scenario>,
}

/// Within this, the next process gets what it requests, on a machine with an idle processor.
const AT_ONCE: Duration = Duration::from_secs(1);

/// After this, it is stuck on any machine: the longest time that the library waits for others.
const STUCK: Duration = Duration::from_secs(5);

/// The most instructions after a system call.
const INSTRUCTIONS: u64 = 8192;

impl Harness for Boundary {
    const PARTS: &'static [(&'static str, Part)] = &[("boundary: scenario", scenario::play)];

    fn run(&self, run: &Run) -> Outcome {
        run.goal(self.kills, "kills");
        objects::isolate(run);
        let mut scenarios = vec![];
        for &scenario in self.only.as_ref().map_or(Scenario::value_variants(), slice::from_ref) {
            for &backend in scenario.backends() {
                scenarios.push((scenario, backend, length(scenario, backend)?));
            }
        }
        // A traced process and its tracer take turns, so one worker for each processor.
        workers::run(run, workers::processors(), 1, |pieces| {
            for piece in pieces {
                let mut rng = run.rng(piece.first);
                let (scenario, backend, length) = scenarios[piece.first as usize % scenarios.len()];
                let (calls, instructions) = (rng.below(length), rng.log_uniform(INSTRUCTIONS));
                let round = Round { scenario, backend, calls, instructions };
                round.run(run, &mut rng).map_err(|failure| match failure {
                    Failure::Failed(why) => {
                        Failure::Failed(format!("kill {}, {round:?}: {why}", piece.first))
                    }
                    other => other,
                })?;
                run.advance(1);
            }
            Ok(())
        })?;
        objects::must_be_none()
    }
}

/// The number of entries to and exits from system calls in a scenario.
fn length(scenario: Scenario, backend: Backend) -> Result<u64, Failure> {
    let place = backend.place();
    let traced = start(scenario, &place, "default")?;
    let mut length = 1;
    while traced.next_call() {
        length += 1;
    }
    Ok(length)
}

/// Starts a scenario in a traced process.
fn start(scenario: Scenario, place: &Place, wake_mode: &str) -> Result<Traced, Failure> {
    if scenario.needs_pipe() {
        place.create(&options())?;
    }
    if scenario == Scenario::Replace {
        // The socket of a server that is dead.
        drop(UnixListener::bind(place.path())?);
    }
    Traced::start("boundary: scenario", &[&format!("{scenario:?}"), place.as_str(), wake_mode])
        .ok_or_else(Failure::untraceable)
}

/// A scenario, and where to kill it: after a number of entries to and exits from system calls, and then of instructions.
#[derive(Clone, Copy, Debug)]
struct Round {
    scenario: Scenario,
    backend: Backend,
    calls: u64,
    instructions: u64,
}

/// A small pipe, to be fast.
fn options() -> Options {
    Options::new().capacity(4096)
}

impl Round {
    fn run(&self, run: &Run, rng: &mut Rng) -> Outcome {
        let place = self.backend.place();
        let traced = start(self.scenario, &place, if rng.below(2) == 0 { "fence" } else { "default" })?;
        let lived =
            (0..self.calls).all(|_| traced.next_call()) && (0..self.instructions).all(|_| traced.step());
        drop(traced);
        run.count(if lived { "in the middle of it" } else { "at the end" }, 1);
        match self.scenario {
            Scenario::Serve | Scenario::Replace => self.next_server(run, &place),
            _ => self.next_end(run, rng, &place),
        }
    }

    /// Opens, creates or removes the pipe. Then uses and removes it.
    fn next_end(&self, run: &Run, rng: &mut Rng, place: &Place) -> Outcome {
        let at_once = |what: &str, since: Instant| {
            let took = since.elapsed();
            run.keep_largest("ms at most until the next process had it", took.as_millis() as u64);
            if took > AT_ONCE {
                run.count("times it took more than a second", 1);
            }
            match took <= STUCK {
                true => Ok(()),
                false => Err(Failure::Failed(format!("{what} took {took:?}"))),
            }
        };
        let since = Instant::now();
        let (what, first) = match rng.below(if self.backend == Backend::Memfd { 1 } else { 5 }) {
            0 => ("open", Pipe::open(place).map(drop)),
            1 => ("create", place.create(&options()).map(drop)),
            2 => ("unlink", unlink(place)),
            3 => ("unlink_force", unlink_force(place)),
            _ => ("inspect", shmpipe::inspect(place).map(drop)),
        };
        match first {
            // It gives a creator that may be alive one second.
            Err(SetupError::Damaged(Damage::Incomplete { .. })) if what == "inspect" => {}
            Ok(())
            | Err(
                SetupError::NotFound { .. }
                | SetupError::Exists { .. }
                | SetupError::Damaged(Damage::Incomplete { .. }),
            ) => {
                at_once(what, since)?;
            }
            Err(error) => return Err(Failure::Failed(format!("{what}: {error:?}"))),
        }

        let since = Instant::now();
        let pipe = place.open_or_create(&options())?;
        let (mut producer, mut consumer) = (pipe.producer()?, pipe.consumer()?);
        at_once("opening and claiming", since)?;
        while consumer.try_recv().is_ok() {}
        producer.send(b"well")?;
        if consumer.recv()?.to_vec() != b"well" {
            return Err(Failure::Failed("another message".to_owned()));
        }
        drop((producer, consumer, pipe));
        if self.backend == Backend::Memfd {
            return Ok(());
        }
        // With remove_on_close it may be gone already.
        if place.exists() || self.scenario != Scenario::Leave {
            place.attached_by(0);
            unlink(place)?;
        }
        clean(place)
    }

    /// Serves another memfd at the path of the killed server.
    fn next_server(&self, run: &Run, place: &Place) -> Outcome {
        let pipe = options().create("memfd")?;
        let since = Instant::now();
        // A process that another worker has just forked holds a copy of the socket until its exec.
        let server = loop {
            match fd_passing::serve(place.path(), &pipe) {
                Err(SetupError::Exists { .. }) if since.elapsed() < STUCK => {
                    run.count("times a child of another worker held a dead socket", 1);
                    thread::sleep(Duration::from_millis(1));
                }
                served => break served?,
            }
        };
        drop(server);
        if self.scenario == Scenario::Replace {
            // A new socket gets a temporary name, which is exchanged with the dead socket's, whose temporary name is then removed.
            // A kill before the exchange or the removal leaves a file, which the next server removes.
            let beside = fs::read_dir(place.path().parent().expect("a directory"))?.flatten();
            if let Some(left) =
                beside.into_iter().find(|file| file.file_name().as_encoded_bytes().starts_with(b".shmpipe."))
            {
                return Err(Failure::Failed(format!("{} is left over", left.path().display())));
            }
        }
        clean(place)
    }
}

/// Fails if something is left over.
fn clean(place: &Place) -> Outcome {
    if place.is_unused() {
        return Ok(());
    }
    let beside = match place.backend() {
        Backend::SysV | Backend::Posix => vec![],
        _ => fs::read_dir(place.path().parent().expect("a directory"))?
            .flatten()
            .map(|file| file.path())
            .collect(),
    };
    Err(Failure::Failed(format!("something is left over {beside:?}")))
}
