//! Mutants of the library: does each check fail when it should?
//!
//! A check that has never failed proves little. The files in `mutants/` hold mutants, each with the commands that must catch
//! it. This harness applies all of them to a copy of the repository in `target/mutants/tree`, where an environment variable
//! selects one: see [`weave`]. So each build command runs once, and each mutant's commands must then fail with that mutant selected.
//! A mutant that cannot be selected at run time is applied and built alone, after the others.
//!
//! ```toml
//! # Defaults for the mutants in this file.
//! build = "cargo build --release -p shmpipe-torture"   # must succeed with the mutant
//! runs = ["target/release/shmpipe-torture kill --rounds 2000"]   # each must fail with the mutant, and pass without
//!
//! [[mutant]]
//! name = "tail-before-commit"
//! why = "The tail is stored before the commit: killed between them, a producer leaves a tail ahead of a hole."
//! file = "src/protocol/ring.rs"
//! find = """
//!         ring.word(start).store(first, Ordering::Release);
//! """              # occurs exactly once
//! replace = ""
//! timeout = 60     # seconds for each run; default 300
//! hangs = true     # a run that exceeds the timeout caught the mutant; by default it did not
//!
//! [[mutant.edit]]  # one more place, any number of times, with or without the one above
//! file = "src/protocol/ring.rs"
//! find = "..."
//! replace = "..."
//!
//! [[mutant]]
//! name = "..."
//! same = "kill/tail-before-commit"   # the edits and the reason of another mutant
//! runs = ["..."]
//!
//! [[mutant]]
//! name = "..."     # the rest as above
//! survives = "Why no run catches it: each run must pass."
//! ```
//!
//! Commands run in a shell at the root of the copy, which has its own `target/`. To run one by hand there, with a mutant:
//! `SHMPIPE_MUTANT=step/no-tail target/release/shmpipe-torture step`.
//!
//! Each fate is kept in `target/mutants/results.toml`. A later run repeats it only if the sources or the mutant have changed.

mod command;
mod mutant;
#[cfg(test)]
mod orderings;
mod results;
mod tree;
mod weave;

use crate::run::{Harness, Run};
use crate::verdict::{Failure, Outcome};
use clap::Args;
use command::End;
use mutant::Mutant;
use results::{Fate, Record, Results};
use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tree::Tree;
use weave::Woven;

/// Applies mutants to a copy of the repository: its tests must catch each
#[derive(Debug, Args)]
pub struct Mutants {
    /// Only mutants whose name matches: `orderings/*`
    #[arg(long, value_name = "GLOB", default_value = "*")]
    only: glob::Pattern,
    /// List the mutants, and the last result of each
    #[arg(long)]
    list: bool,
    /// Only check that they apply and compile
    #[arg(long, conflicts_with = "list")]
    check: bool,
    /// Run those again whose result is known
    #[arg(long, conflicts_with_all = ["list", "check"])]
    again: bool,
}

impl Harness for Mutants {
    fn run(&self, run: &Run) -> Outcome {
        let all = mutant::read(&repository().join(MUTANTS)).map_err(Failure::Failed)?;
        let chosen: Vec<_> = all.iter().filter(|mutant| self.only.matches(&mutant.name)).collect();
        if chosen.is_empty() {
            return Err(Failure::Failed(format!("no mutant is called {}", self.only)));
        }
        run.goal(chosen.len() as u64, if self.list { "mutants listed" } else { "mutants" });
        let woven = weave::weave(&repository(), &all).map_err(Failure::Failed)?;
        if self.list {
            list(&chosen, &woven, run);
            return Ok(());
        }
        let mut bench = Bench::new(woven, self.again).map_err(Failure::Failed)?;
        let done = if self.check { bench.check(&chosen, run) } else { bench.try_all(&chosen, run) };
        done.map_err(Failure::Failed)?;
        match run.counted(WRONG) {
            0 => Ok(()),
            wrong => Err(Failure::Failed(format!("{wrong} {WRONG}"))),
        }
    }
}

/// Where the files of mutants are.
const MUTANTS: &str = "crates/torture/mutants";

/// The count of mutants with another fate than their file says.
const WRONG: &str = "not as said";

/// Enough for a full build on a slow machine.
const BUILDING: Duration = Duration::from_secs(3600);

/// Compile everything that mutants change, with and without the models.
const CHECKS: [&str; 2] = [
    "cargo check --lib --locked",
    r#"RUSTFLAGS="--cfg shmpipe_loom --cfg shmpipe_portable" cargo check --lib --target-dir target/loom --locked"#,
];

/// Names no mutant.
const UNKNOWN: &str = "none/unknown";

/// The repository that this program was built from.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The folder for the copy, the results and the output of the commands.
fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| repository().join("target")).join("mutants")
}

fn list(mutants: &[&Mutant], woven: &Woven, run: &Run) {
    let results = Results::load(&folder().join(RESULTS));
    for mutant in mutants {
        let own = if woven.alone.contains_key(&mutant.name) { " (its own build)" } else { "" };
        println!("{}{own}: {}", mutant.name, mutant.why);
        mutant.runs.iter().for_each(|command| println!("    {command}"));
        mutant.survives.iter().for_each(|why| println!("    survives: {why}"));
        results.last(&mutant.name).iter().for_each(|last| println!("    last: {}", last.words()));
        run.advance(1);
    }
}

/// The file with the results, in [`folder`].
const RESULTS: &str = "results.toml";

impl Record {
    fn words(&self) -> String {
        let what = match self.fate {
            Fate::Caught => format!("caught by {}", self.by),
            Fate::Survived => "survived, as said".to_owned(),
            Fate::Wrong => self.by.clone(),
        };
        format!("{what}, {} s", self.seconds)
    }

    fn count(&self) -> &'static str {
        match self.fate {
            Fate::Caught => "caught",
            Fate::Survived => "survived as said",
            Fate::Wrong => WRONG,
        }
    }
}

/// The copy with all mutants, and what is known of them.
struct Bench {
    tree: Tree,
    logs: PathBuf,
    woven: Woven,
    /// Stands for the sources.
    fingerprint: u64,
    results: Results,
    again: bool,
}

impl Bench {
    fn new(woven: Woven, again: bool) -> Result<Self, String> {
        let folder = folder();
        let logs = folder.join("log");
        fs::create_dir_all(&logs).map_err(|e| format!("{}: {e}", logs.display()))?;
        Ok(Bench {
            tree: Tree::copy(&repository(), &folder.join("tree"), &woven.texts)?,
            logs,
            woven,
            fingerprint: tree::fingerprint(&repository())?,
            results: Results::load(&folder.join(RESULTS)),
            again,
        })
    }

    /// Compiles all mutants.
    fn check(&mut self, mutants: &[&Mutant], run: &Run) -> Result<(), String> {
        for (n, command) in CHECKS.iter().enumerate() {
            let log = self.log("check", &n.to_string());
            match self.command(command, None, &log, BUILDING, run) {
                End::Passed => {}
                End::Interrupted => return Ok(()),
                end => return Err(format!("{command}: {end:?}, see {}", log.display())),
            }
        }
        run.advance(mutants.len() as u64);
        Ok(())
    }

    fn try_all(&mut self, mutants: &[&Mutant], run: &Run) -> Result<(), String> {
        // Skips those that the interrupted run has done. Those that need their own build are last: it replaces the others' build.
        let mut mutants = mutants.to_vec();
        mutants.sort_by_key(|mutant| self.is_alone(mutant));
        let (mut known, mut unknown) = (vec![], vec![]);
        for mutant in mutants.drain(..).skip(run.done() as usize) {
            let record = self.results.get(&mutant.name, &self.key(|state| mutant.hash(state))).cloned();
            match record.filter(|_| !self.again) {
                Some(record) => known.push((mutant, record)),
                None => unknown.push(mutant),
            }
        }
        for (mutant, record) in known {
            run.note(&format!("{}: {} (known)", mutant.name, record.words()));
            run.count(record.count(), 1);
            run.advance(1);
        }
        self.run_without(&unknown, run)?;
        for mutant in unknown {
            if run.is_over() {
                break;
            }
            let begun = Instant::now();
            let (fate, by) = match self.try_one(mutant, run) {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(wrong) => (Fate::Wrong, wrong),
            };
            let key = self.key(|state| mutant.hash(state));
            let record = Record { key, fate, by, seconds: begun.elapsed().as_secs() };
            run.note(&format!("{}: {}", mutant.name, record.words()));
            run.count(record.count(), 1);
            run.advance(1);
            self.results.add(&mutant.name, record)?;
        }
        Ok(())
    }

    fn is_alone(&self, mutant: &Mutant) -> bool {
        self.woven.alone.contains_key(&mutant.name)
    }

    /// Stands for the sources and what `more` hashes.
    fn key(&self, more: impl FnOnce(&mut DefaultHasher)) -> String {
        let mut hasher = DefaultHasher::new();
        self.fingerprint.hash(&mut hasher);
        more(&mut hasher);
        format!("{:016x}", hasher.finish())
    }

    fn log(&self, mutant: &str, what: &str) -> PathBuf {
        self.logs.join(format!("{}-{what}", mutant.replace('/', "-")))
    }

    fn command(&self, command: &str, mutant: Option<&str>, log: &Path, timeout: Duration, run: &Run) -> End {
        command::run(command, mutant, &self.tree.root, log, timeout, &|| run.is_over())
    }

    /// Builds what the mutants need, and runs every command without a mutant: a command that always fails catches nothing. With a
    /// name that is no mutant's it must fail: else what it runs contains no mutants.
    fn run_without(&mut self, mutants: &[&Mutant], run: &Run) -> Result<(), String> {
        let builds: BTreeSet<_> = mutants.iter().map(|mutant| (mutant.build(), BUILDING)).collect();
        let runs =
            mutants.iter().flat_map(|mutant| mutant.runs.iter().map(|run| (run.as_str(), mutant.timeout())));
        let runs: BTreeSet<_> = runs.collect();
        let all = builds.iter().map(|build| (build, true)).chain(runs.iter().map(|run| (run, false)));
        for (n, (&(command, timeout), is_build)) in all.enumerate() {
            let (name, key) = (format!("without: {command}"), self.key(|state| timeout.hash(state)));
            if !is_build && self.results.get(&name, &key).is_some() {
                continue;
            }
            let (begun, log) = (Instant::now(), self.log("without", &n.to_string()));
            match self.command(command, None, &log, timeout, run) {
                End::Passed => {}
                End::Interrupted => return Ok(()),
                end => return Err(format!("without a mutant: {command}: {end:?}, see {}", log.display())),
            }
            let seconds = begun.elapsed().as_secs();
            run.note(&format!("without a mutant: {command}: passed, {seconds} s"));
            if is_build {
                continue;
            }
            match self.command(command, Some(UNKNOWN), &log, timeout, run) {
                End::Failed(_) | End::Broken(_) => {}
                End::Interrupted => return Ok(()),
                end => return Err(format!("with a mutant that does not exist: {command}: {end:?}")),
            }
            self.results.add(&name, Record { key, fate: Fate::Survived, by: String::new(), seconds })?;
        }
        Ok(())
    }

    /// Returns the fate of a mutant, and what caught it. None if interrupted.
    fn try_one(&self, mutant: &Mutant, run: &Run) -> Result<Option<(Fate, String)>, String> {
        let _replaced = match self.woven.alone.get(&mutant.name) {
            Some(texts) => {
                let replaced = self.tree.replace(texts)?;
                let log = self.log(&mutant.name, "build");
                match self.command(mutant.build(), None, &log, BUILDING, run) {
                    End::Passed => Some(replaced),
                    End::Interrupted => return Ok(None),
                    _ => return Err(format!("DOES NOT BUILD, see {}", log.display())),
                }
            }
            None => None,
        };
        let selected = (!self.is_alone(mutant)).then_some(mutant.name.as_str());
        let mut catches = vec![];
        for (n, command) in mutant.runs.iter().enumerate() {
            let log = self.log(&mutant.name, &n.to_string());
            let end = self.command(command, selected, &log, mutant.timeout(), run);
            let caught = match (end, &mutant.survives) {
                (End::Passed, Some(_)) => continue,
                (End::Passed, None) => return Err(format!("SURVIVED {command}")),
                (End::Failed(what), None) => what,
                (End::TimedOut, None) if mutant.hangs => format!("no end within {:?}", mutant.timeout()),
                (End::Failed(what), Some(_)) => return Err(format!("DID NOT SURVIVE {command}: {what}")),
                (End::TimedOut, _) => return Err(format!("NO END of {command}, see {}", log.display())),
                (End::Broken(what), _) => {
                    return Err(format!("BROKEN: {command}: {what}, see {}", log.display()));
                }
                (End::Interrupted, _) => return Ok(None),
            };
            catches.push(if caught.is_empty() { command.clone() } else { caught });
        }
        let fate = if mutant.survives.is_some() { Fate::Survived } else { Fate::Caught };
        Ok(Some((fate, catches.join("; "))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of a file, or of all files in a folder.
    fn text(path: &Path) -> String {
        match fs::read_dir(path) {
            Ok(folder) => folder.map(|entry| text(&entry.unwrap().path())).collect(),
            Err(_) => fs::read_to_string(path).unwrap(),
        }
    }

    /// A filter without a match runs no test, so the mutant would survive.
    #[test]
    fn test_filters_of_runs_match_tests() {
        for mutant in mutant::read(&repository().join(MUTANTS)).unwrap() {
            for run in mutant.runs.iter().filter(|run| run.contains("cargo test ")) {
                let words: Vec<_> = run.split_whitespace().collect();
                let tests = words.iter().position(|word| *word == "--test").map(|at| words[at + 1]);
                let tests = tests.map_or("src".to_owned(), |name| format!("tests/{name}"));
                let path = repository().join(tests);
                let tests = text(&if path.exists() { path } else { path.with_extension("rs") });
                let filter = words.last().filter(|word| !word.starts_with('-')).copied().unwrap_or_default();
                let missing = filter.split("::").find(|part| !tests.contains(part));
                assert_eq!(missing, None, "{}: {run}", mutant.name);
            }
        }
    }

    #[test]
    fn every_mutant_applies() {
        let mutants = mutant::read(&repository().join(MUTANTS)).unwrap();
        weave::weave(&repository(), &mutants).unwrap();
    }
}
