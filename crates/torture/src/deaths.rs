//! Measures how long the kernel holds the role of a process that dies in various ways, and how long after that its sleeping peer
//! gets the error. Prints a table. Fails if a role is freed too early or never, or if the peer gets no error.

use crate::run::{Harness, Run};
use crate::verdict::{Failure, Outcome};
use clap::Args;
use shmpipe::os::unix::PipeExt;
use shmpipe::{Consumer, Options, Pipe, RecvTimeoutError};
use shmpipe_testing::backend::{Backend, Place};
use shmpipe_testing::layout::{self, lock, side};
use shmpipe_testing::process::{Line, Part, Process};
use shmpipe_testing::{LONG, raw, reaper, within};
use std::fs;
use std::hint::black_box;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// Measures how long the kernel holds a dead process's role, and how soon its peer knows
#[derive(Debug, Args)]
pub struct Deaths {
    /// Deaths of each kind
    #[arg(long, value_name = "N", default_value_t = 100)]
    rounds: u64,
    /// Memory of processes that die with much memory, or dump it
    #[arg(long, value_name = "MIB", default_value_t = 200)]
    memory: usize,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    Killed,
    /// Stopped before.
    KilledStopped,
    /// With much memory to free.
    KilledLarge,
    Aborted,
    /// With much memory, which goes to a core file.
    Dumped,
    /// Runs another program, which is killed later.
    Exec,
}

const DEATHS: [(Death, &str); 6] = [
    (Death::Killed, "SIGKILL"),
    (Death::KilledStopped, "SIGKILL, stopped by SIGSTOP before"),
    (Death::KilledLarge, "SIGKILL, much memory"),
    (Death::Aborted, "abort, no core"),
    (Death::Dumped, "abort, a core of much memory"),
    (Death::Exec, "exec, then SIGKILL"),
];

/// One backend with semaphores, and one with file locks, which are the same for all kinds of files.
const BACKENDS: [Backend; 2] = [Backend::SysV, Backend::Posix];

/// How long the other program runs after `exec`.
const PROGRAM: Duration = Duration::from_millis(150);

impl Harness for Deaths {
    const PARTS: &'static [(&'static str, Part)] = &[("deaths: victim", die)];

    fn run(&self, run: &Run) -> Outcome {
        let kinds: Vec<_> =
            BACKENDS.into_iter().flat_map(|backend| DEATHS.map(|death| (backend, death))).collect();
        run.goal(self.rounds * kinds.len() as u64, "deaths");
        let mut table = Table::default();
        for number in run.to_do() {
            if run.is_over() {
                break;
            }
            let (backend, (death, name)) = kinds[(number % kinds.len() as u64) as usize];
            let measured = Scene::new(backend, death, self.memory)?.play(run.rng(number).below(100_000))?;
            table.enter(backend, name, measured);
            run.keep_largest("us at most until the peer knew", measured.noticed.as_micros() as u64);
            run.advance(1);
        }
        // A resumed run prints only its own deaths.
        print!("{table}");
        Ok(())
    }
}

/// The times of one death.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// From the signal, or the `exec`, until the kernel freed the role.
    held: Duration,
    /// From there until the sleeping peer got the error.
    noticed: Duration,
}

/// A producer that will die, and a consumer that waits for it.
struct Scene {
    death: Death,
    place: Place,
    pipe: Pipe,
    consumer: Option<Consumer>,
    victim: Process,
    directory: PathBuf,
    memory: usize,
}

impl Scene {
    fn new(backend: Backend, death: Death, memory: usize) -> Result<Self, Failure> {
        let place = backend.place();
        let pipe = place.create(&Options::new().capacity(4096))?;
        let consumer = Some(pipe.consumer()?);
        let directory = reaper::directory().join("core");
        fs::create_dir_all(&directory)?;
        let megabytes = if matches!(death, Death::KilledLarge | Death::Dumped) { memory } else { 0 };
        let end = match death {
            Death::Aborted => "abort",
            Death::Dumped => "dump",
            Death::Exec => "exec",
            _ => "wait",
        };
        let words =
            [place.as_str(), end, &megabytes.to_string(), directory.to_str().expect("a path of text")];
        let mut victim = Process::start("deaths: victim", &words);
        match victim.hear().as_str() {
            "claimed" => Ok(Scene { death, place, pipe, consumer, victim, directory, memory }),
            said => Err(Failure::CannotRunHere(said.to_owned())),
        }
    }

    fn is_held(&self) -> bool {
        match self.place.set() {
            Some(_) => raw::claim_stands(self.place.segment().get(layout::PRODUCER + side::CLAIM)),
            None => raw::is_locked(self.pipe.fd().expect("a file"), lock::PRODUCER),
        }
    }

    /// The victim's state from `/proc`: R, S, Z and so on.
    fn state(&self) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.victim.pid())).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        let start = Instant::now();
        while !condition(self) {
            if start.elapsed() > LONG {
                return Err(Failure::Failed(format!("{:?} on {}: {what}: never", self.death, self.place)));
            }
            // Leaves the processor to the kernel, which has to write the core.
            thread::sleep(Duration::from_micros(20));
        }
        Ok(())
    }

    /// Makes it die some microseconds after its peer went to sleep, anywhere between two checks by the peer.
    fn play(mut self, microseconds: u64) -> Result<Measured, Failure> {
        let mut consumer = self.consumer.take().expect("taken once");
        let sleeper = thread::spawn(move || {
            let said = consumer.recv_deadline(within(LONG)).map(drop);
            (said, Instant::now())
        });
        thread::sleep(Duration::from_millis(2) + Duration::from_micros(microseconds));
        if !self.is_held() {
            return Err(Failure::Failed(format!("{:?}: the role of a living process is free", self.death)));
        }
        let mut start = Instant::now();
        match self.death {
            Death::Killed | Death::KilledLarge => self.victim.signal(libc::SIGKILL),
            Death::KilledStopped => {
                self.victim.signal(libc::SIGSTOP);
                self.until("stopped", |scene| scene.state() == Some('T'))?;
                start = Instant::now();
                self.victim.signal(libc::SIGKILL);
            }
            Death::Aborted | Death::Dumped => self.victim.say("die"),
            Death::Exec => {
                self.victim.say("die");
                if self.place.set().is_some() {
                    let comm = format!("/proc/{}/comm", self.victim.pid());
                    self.until("another program", |_| {
                        fs::read_to_string(&comm).is_ok_and(|comm| comm.trim() == "sleep")
                    })?;
                    thread::sleep(PROGRAM);
                    if !self.is_held() {
                        return Err(Failure::Failed("a semaphore does not survive exec here".to_owned()));
                    }
                    start = Instant::now();
                    self.victim.signal(libc::SIGKILL);
                }
            }
        }
        self.until("a free role", |scene| !scene.is_held())?;
        let freed = Instant::now();
        let core = self.core()?;
        let (said, noticed) = sleeper.join().expect("it does not panic");
        if said != Err(RecvTimeoutError::PeerDied) {
            return Err(Failure::Failed(format!("{:?} on {}: {said:?}", self.death, self.place)));
        }
        if self.death == Death::Dumped && core < (self.memory as u64) << 20 {
            return Err(Failure::Failed(format!("freed when only {core} bytes of the core were written")));
        }
        // We have not waited for it, so it is a zombie. A zombie holds no role.
        if self.death != Death::Exec || self.place.set().is_some() {
            self.until("a zombie", |scene| scene.state() == Some('Z'))?;
        }
        if self.is_held() {
            return Err(Failure::Failed("a zombie holds a role".to_owned()));
        }
        Ok(Measured { held: freed - start, noticed: noticed.saturating_duration_since(freed) })
    }

    /// Removes the core file, and returns its size.
    fn core(&self) -> io::Result<u64> {
        let mut bytes = 0;
        for file in fs::read_dir(&self.directory)? {
            let file = file?;
            bytes = file.metadata()?.len();
            fs::remove_file(file.path())?;
        }
        Ok(bytes)
    }
}

/// The main function of the victim.
fn die(mut line: Line) {
    let [address, end, megabytes, directory] = line.words.clone().try_into().unwrap();
    std::env::set_current_dir(directory).unwrap();
    let core = if end == "dump" { libc::RLIM_INFINITY } else { 0 };
    let limit = libc::rlimit { rlim_cur: core, rlim_max: core };
    // SAFETY: the pointer is to a live rlimit.
    let allowed = unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const limit) } == 0;
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if !allowed || end == "dump" && pattern.trim().starts_with(['|', '/', '@']) {
        line.say("core files do not go to the working directory here");
        return;
    }
    let memory = black_box(vec![0x5A_u8; megabytes.parse::<usize>().unwrap() << 20]);
    let pipe = Pipe::open(address.as_str()).unwrap();
    let producer = pipe.producer().unwrap();
    line.say("claimed");
    line.hear();
    match end.as_str() {
        "exec" => panic!("{}", Command::new("sleep").arg("60").exec()),
        "abort" | "dump" => std::process::abort(),
        _ => {}
    }
    drop((memory, producer));
}

/// The times of each kind of death.
#[derive(Debug, Default)]
struct Table(Vec<(Backend, &'static str, Vec<Measured>)>);

impl Table {
    fn enter(&mut self, backend: Backend, death: &'static str, measured: Measured) {
        match self.0.iter_mut().find(|row| (row.0, row.1) == (backend, death)) {
            Some((_, _, all)) => all.push(measured),
            None => self.0.push((backend, death, vec![measured])),
        }
    }
}

/// "median (largest)" in milliseconds.
fn summary(mut times: Vec<Duration>) -> String {
    times.sort();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    format!("{:.2} ({:.2})", milliseconds(times[times.len() / 2]), milliseconds(times[times.len() - 1]))
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "| | death | n | role held, ms: median (largest) | then until the peer knew, ms: median (largest) |"
        )?;
        writeln!(f, "|---|---|---|---|---|")?;
        for (backend, death, all) in &self.0 {
            let held = summary(all.iter().map(|one| one.held).collect());
            let noticed = summary(all.iter().map(|one| one.noticed).collect());
            writeln!(f, "| {backend:?} | {death} | {} | {held} | {noticed} |", all.len())?;
        }
        Ok(())
    }
}
