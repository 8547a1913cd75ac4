//! Shared by all harnesses: seed, goal, counts, progress bar, saved state and verdict.

use crate::state::{self, State};
use crate::verdict::{Failure, Outcome, Verdict};
use clap::{Args, value_parser};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use shmpipe_testing::process::Part;
use shmpipe_testing::rng::Rng;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::fmt::Debug;
use std::io::Write;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The interval between two saves of the state.
const SAVED_EVERY: Duration = Duration::from_secs(2);

/// Options that every harness has.
#[derive(Debug, Args)]
pub struct Common {
    /// Repeat the run that printed this seed
    #[arg(long, global = true, value_name = "N", conflicts_with = "resume", value_parser = value_parser!(u64).range(..=i64::MAX as u64))]
    seed: Option<u64>,
    /// Continue the last, interrupted run with the same options
    #[arg(long, global = true)]
    resume: bool,
    /// File for the progress of the run [default: in $XDG_STATE_HOME/shmpipe-torture]
    #[arg(long, global = true, value_name = "FILE")]
    state: Option<PathBuf>,
}

/// A harness, with its options.
pub trait Harness: Debug {
    /// The parts of the processes that it starts.
    const PARTS: &'static [(&'static str, Part)] = &[];

    /// Sets a goal, and works on the rest of it, [`Run::to_do`], until [`Run::is_over`]. Fails by error or panic.
    fn run(&self, run: &Run) -> Outcome;
}

/// A run of a harness, shared by its threads.
#[derive(Debug)]
pub struct Run {
    seed: u64,
    file: PathBuf,
    bar: ProgressBar,
    is_over: Arc<AtomicBool>,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    state: State,
    /// A number and its unit.
    goal: Option<(u64, &'static str)>,
    /// Seconds of the runs that this one continues.
    before: f64,
    since: Instant,
    saved: Instant,
}

impl Run {
    /// Starts or resumes a run. `what` is the harness with its options.
    fn begin(name: &str, what: &str, common: &Common) -> Result<Self, String> {
        let file = common.state.clone().unwrap_or_else(|| state::default_file(name, what));
        let seed = common.seed.unwrap_or_else(new_seed);
        let state = match common.resume {
            true => resumed(&file, what)?,
            false => State { what: what.to_owned(), seed, ..State::default() },
        };
        let is_over = Arc::new(AtomicBool::new(false));
        handle_signals(&is_over).map_err(|error| format!("cannot handle signals: {error}"))?;
        let now = Instant::now();
        let (seed, before) = (state.seed, state.seconds);
        let progress = Progress { state, goal: None, before, since: now, saved: now };
        // The bar is hidden where standard error is no terminal.
        Ok(Run { seed, file, bar: ProgressBar::no_length(), is_over, progress: Mutex::new(progress) })
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        // Works even after another thread has panicked.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the goal: `number` of `unit`, including those of the runs that this one continues.
    pub fn goal(&self, number: u64, unit: &'static str) {
        let template = "{elapsed_precise} [{wide_bar}] {human_pos}/{human_len} {msg} {per_sec} {eta}";
        self.bar.set_style(ProgressStyle::with_template(template).expect("a template of known keys"));
        self.bar.set_length(number);
        self.bar.set_message(unit);
        let mut progress = self.progress();
        progress.goal = Some((number, unit));
        let done = progress.state.done;
        self.bar.set_position(done);
        self.bar.reset_eta();
    }

    /// The part of the goal that is done.
    pub fn done(&self) -> u64 {
        self.progress().state.done
    }

    /// The part of the goal that is left.
    pub fn to_do(&self) -> Range<u64> {
        let progress = self.progress();
        progress.state.done..progress.goal.map_or(0, |(goal, _)| goal)
    }

    /// Adds to the part of the goal that is done. Call it after counting what belongs to it.
    pub fn advance(&self, more: u64) {
        self.bar.inc(more);
        let mut progress = self.progress();
        progress.state.done += more;
        if progress.saved.elapsed() >= SAVED_EVERY {
            self.save(&mut progress);
        }
    }

    fn save(&self, progress: &mut Progress) {
        progress.saved = Instant::now();
        progress.state.seconds = progress.before + progress.since.elapsed().as_secs_f64();
        if let Err(error) = progress.state.save(&self.file) {
            self.note(&format!("{}: {error}", self.file.display()));
        }
    }

    /// Adds to a count of the verdict, which lists the counts in the order of their first use.
    pub fn count(&self, what: &str, more: u64) {
        *self.progress().state.count(what) += more;
    }

    /// Raises a count of the verdict to `value` if it is larger.
    pub fn keep_largest(&self, what: &str, value: u64) {
        let mut progress = self.progress();
        let largest = progress.state.count(what);
        *largest = value.max(*largest);
    }

    /// The value of a count.
    pub fn counted(&self, what: &str) -> u64 {
        *self.progress().state.count(what)
    }

    /// Whether a signal asks it to end early.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// The generator of piece `number` of the run.
    pub fn rng(&self, number: u64) -> Rng {
        Rng::of_part(self.seed, number)
    }

    /// Prints a line on standard error, above the bar.
    pub fn note(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// Goal, counts and time, for the verdict.
    fn figures(&self) -> String {
        let mut progress = self.progress();
        let seconds = progress.before + progress.since.elapsed().as_secs_f64();
        progress.state.seconds = seconds;
        let goal = progress.goal.map(|(goal, unit)| match progress.state.done {
            done if done == goal => format!("{} {unit}", HumanCount(done)),
            done => format!("{} of {} {unit}", HumanCount(done), HumanCount(goal)),
        });
        let counts =
            progress.state.counts.iter().map(|count| format!("{} {}", HumanCount(count.number), count.what));
        let figures: Vec<String> =
            goal.into_iter().chain(counts).chain([format!("{seconds:.1} s")]).collect();
        figures.join(", ")
    }

    /// Ends the run.
    fn end(&self, outcome: Outcome) -> Verdict {
        self.bar.finish_and_clear();
        let mut progress = self.progress();
        let is_done = progress.goal.is_none_or(|(goal, _)| progress.state.done >= goal);
        match outcome {
            Ok(()) if !is_done => {
                self.save(&mut progress);
                if self.is_over() {
                    Verdict::Interrupted
                } else {
                    Verdict::Not(Failure::Failed("it ended before its goal".to_owned()))
                }
            }
            outcome => {
                let _ = std::fs::remove_file(&self.file);
                outcome.map_or_else(Verdict::Not, |()| Verdict::Passed)
            }
        }
    }
}

/// Runs a harness to its verdict.
pub fn run<H: Harness>(name: &str, harness: &H, common: &Common) -> ExitCode {
    let run = match Run::begin(name, &format!("{harness:?}"), common) {
        Ok(run) => run,
        Err(why) => {
            eprintln!("{name}: {why}");
            return ExitCode::from(2);
        }
    };
    eprintln!("{name}: seed {}", run.seed);
    let outcome = catch_unwind(AssertUnwindSafe(|| harness.run(&run)));
    let outcome = outcome.unwrap_or_else(|payload| Err(Failure::of_panic(payload.as_ref())));
    let verdict = run.end(outcome);
    // Fails if the reader has closed the output.
    let _ = writeln!(std::io::stdout(), "{name}: {verdict}: {}; seed {}", run.figures(), run.seed);
    verdict.code()
}

/// The state of an interrupted run with the same options.
fn resumed(file: &Path, what: &str) -> Result<State, String> {
    let state = State::load(file);
    let state = state.map_err(|error| format!("nothing to resume: {}: {error}", file.display()))?;
    if state.what != what {
        return Err(format!("{} belongs to a run with other options: {}", file.display(), state.what));
    }
    Ok(state)
}

fn new_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Short enough to type.
    Rng(now.as_nanos() as u64 ^ u64::from(std::process::id())).word() >> 32
}

/// Makes the first SIGINT or SIGTERM set `is_over`, and the second one exit.
fn handle_signals(is_over: &Arc<AtomicBool>) -> std::io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, is_over.clone())?;
        signal_hook::flag::register(signal, is_over.clone())?;
    }
    Ok(())
}
