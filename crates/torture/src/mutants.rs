//! Mutants of the library: does each check fail when it should?
//!
//! A check that has never failed proves little. The files in `mutants/` hold mutants, each with the commands that must catch
//! it. This harness applies them one by one to a copy of the repository in `target/mutants/tree`. It builds each mutant first,
//! so that a compile error does not count as a catch. Then each of the mutant's commands must fail.
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
//! Commands run in a shell at the root of the copy, which has its own `target/`.

mod command;
mod mutant;
#[cfg(test)]
mod orderings;
mod tree;

use crate::run::{Harness, Run};
use crate::verdict::{Failure, Outcome};
use clap::Args;
use command::End;
use mutant::Mutant;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tree::Tree;

/// Applies mutants to a copy of the repository: its tests must catch each
#[derive(Debug, Args)]
pub struct Mutants {
    /// Only mutants whose name matches: `orderings/*`
    #[arg(long, value_name = "GLOB", default_value = "*")]
    only: glob::Pattern,
    /// List the mutants
    #[arg(long)]
    list: bool,
    /// Only check that each still applies
    #[arg(long, conflicts_with = "list")]
    check: bool,
}

impl Harness for Mutants {
    fn run(&self, run: &Run) -> Outcome {
        let mut mutants =
            mutant::read(&repository().join("crates/torture/mutants")).map_err(Failure::Failed)?;
        mutants.retain(|mutant| self.only.matches(&mutant.name));
        if mutants.is_empty() {
            return Err(Failure::Failed(format!("no mutant is called {}", self.only)));
        }
        run.goal(mutants.len() as u64, if self.list { "mutants listed" } else { "mutants" });
        let act = match (self.list, self.check) {
            (true, _) => list,
            (_, true) => check,
            _ => {
                Bench::new().and_then(|bench| bench.try_all(&mutants, run)).map_err(Failure::Failed)?;
                return verdict(run);
            }
        };
        mutants.iter().for_each(|mutant| act(mutant, run));
        verdict(run)
    }
}

/// The count of mutants with another fate than their file says.
const WRONG: &str = "not as said";

fn verdict(run: &Run) -> Outcome {
    match run.counted(WRONG) {
        0 => Ok(()),
        wrong => Err(Failure::Failed(format!("{wrong} {WRONG}"))),
    }
}

/// The fate of a mutant.
enum Fate {
    Caught(String),
    /// As its file says.
    Survived,
    Interrupted,
}

/// Enough for a full build on a slow machine.
const BUILDING: Duration = Duration::from_secs(3600);

/// The repository that this program was built from.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn list(mutant: &Mutant, run: &Run) {
    println!("{}: {}", mutant.name, mutant.why);
    mutant.runs.iter().for_each(|command| println!("    {command}"));
    mutant.survives.iter().for_each(|why| println!("    survives: {why}"));
    run.advance(1);
}

fn check(mutant: &Mutant, run: &Run) {
    if let Err(reason) = applies(mutant) {
        println!("{}: DOES NOT APPLY: {reason}", mutant.name);
        run.count(WRONG, 1);
    }
    run.advance(1);
}

/// Whether the edits apply.
fn applies(mutant: &Mutant) -> Result<(), String> {
    let mut texts = BTreeMap::new();
    for edit in &mutant.edits {
        let path = repository().join(&edit.file);
        let text = match texts.remove(&path) {
            Some(text) => text,
            None => fs::read_to_string(&path).map_err(|e| format!("{}: {e}", edit.file))?,
        };
        texts.insert(path, edit.apply(&text)?);
    }
    Ok(())
}

/// The copy, and the folder for the output of the commands.
struct Bench {
    tree: Tree,
    logs: PathBuf,
}

impl Bench {
    fn new() -> Result<Self, String> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        let mutants = target.unwrap_or_else(|| repository().join("target")).join("mutants");
        let logs = mutants.join("log");
        fs::create_dir_all(&logs).map_err(|e| format!("{}: {e}", logs.display()))?;
        Ok(Bench { tree: Tree::copy(&repository(), &mutants.join("tree"))?, logs })
    }

    fn try_all(&self, mutants: &[Mutant], run: &Run) -> Result<(), String> {
        // Skips those that the interrupted run has done.
        let mutants = &mutants[run.done() as usize..];
        self.run_without(mutants, run)?;
        for mutant in mutants {
            if run.is_over() {
                break;
            }
            let begun = Instant::now();
            let fate = self.try_one(mutant, run);
            let seconds = begun.elapsed().as_secs_f32();
            let what = match fate {
                Ok(Fate::Interrupted) => break,
                Ok(Fate::Caught(by)) => {
                    run.count("caught", 1);
                    format!("caught by {by}")
                }
                Ok(Fate::Survived) => {
                    run.count("survived as said", 1);
                    "survived, as said".to_owned()
                }
                Err(what) => {
                    run.count(WRONG, 1);
                    what
                }
            };
            run.note(&format!("{}: {what}, {seconds:.0} s", mutant.name));
            run.advance(1);
        }
        Ok(())
    }

    fn log(&self, mutant: &str, what: &str) -> PathBuf {
        self.logs.join(format!("{}-{what}", mutant.replace('/', "-")))
    }

    fn command(&self, command: &str, log: &Path, timeout: Duration, run: &Run) -> End {
        command::run(command, &self.tree.root, log, timeout, &|| run.is_over())
    }

    /// Runs every command without a mutant: a command that always fails catches nothing.
    fn run_without(&self, mutants: &[Mutant], run: &Run) -> Result<(), String> {
        let builds: BTreeSet<_> = mutants.iter().map(|mutant| (mutant.build(), BUILDING)).collect();
        let runs =
            mutants.iter().flat_map(|mutant| mutant.runs.iter().map(|run| (run.as_str(), mutant.timeout())));
        let runs: BTreeSet<_> = runs.collect();
        for (n, (command, timeout)) in builds.into_iter().chain(runs).enumerate() {
            let (begun, log) = (Instant::now(), self.log("without", &n.to_string()));
            match self.command(command, &log, timeout, run) {
                End::Passed => {}
                End::Interrupted => return Ok(()),
                end => return Err(format!("without a mutant: {command}: {end:?}, see {}", log.display())),
            }
            run.note(&format!("without a mutant: {command}: passed, {:.0} s", begun.elapsed().as_secs_f32()));
        }
        Ok(())
    }

    fn try_one(&self, mutant: &Mutant, run: &Run) -> Result<Fate, String> {
        let _edited = self.tree.edit(&mutant.edits).map_err(|reason| format!("DOES NOT APPLY: {reason}"))?;
        let log = self.log(&mutant.name, "build");
        match self.command(mutant.build(), &log, BUILDING, run) {
            End::Passed => {}
            End::Interrupted => return Ok(Fate::Interrupted),
            _ => return Err(format!("DOES NOT BUILD, see {}", log.display())),
        }
        let mut catches = vec![];
        for (n, command) in mutant.runs.iter().enumerate() {
            let log = self.log(&mutant.name, &n.to_string());
            let caught = match (self.command(command, &log, mutant.timeout(), run), &mutant.survives) {
                (End::Passed, Some(_)) => continue,
                (End::Passed, None) => return Err(format!("SURVIVED {command}")),
                (End::Failed(what), None) => what,
                (End::TimedOut, None) if mutant.hangs => format!("no end within {:?}", mutant.timeout()),
                (End::Failed(what), Some(_)) => return Err(format!("DID NOT SURVIVE {command}: {what}")),
                (End::TimedOut, _) => return Err(format!("NO END of {command}, see {}", log.display())),
                (End::Broken(what), _) => {
                    return Err(format!("BROKEN: {command}: {what}, see {}", log.display()));
                }
                (End::Interrupted, _) => return Ok(Fate::Interrupted),
            };
            catches.push(if caught.is_empty() { command.clone() } else { caught });
        }
        Ok(if mutant.survives.is_some() { Fate::Survived } else { Fate::Caught(catches.join("; ")) })
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
        for mutant in mutant::read(&repository().join("crates/torture/mutants")).unwrap() {
            for run in mutant.runs.iter().filter(|run| run.contains("cargo test ")) {
                let words: Vec<_> = run.split_whitespace().collect();
                let tests = words.iter().position(|word| *word == "--test").map(|at| words[at + 1]);
                let tests = tests.map_or("src".to_owned(), |name| format!("tests/{name}"));
                let tests = text(&repository().join(tests));
                let filter = words.last().filter(|word| !word.starts_with('-')).copied().unwrap_or_default();
                let missing = filter.split("::").find(|part| !tests.contains(part));
                assert_eq!(missing, None, "{}: {run}", mutant.name);
            }
        }
    }

    #[test]
    fn every_mutant_applies() {
        let mutants = mutant::read(&repository().join("crates/torture/mutants")).unwrap();
        let wrong: Vec<_> = mutants
            .iter()
            .filter_map(|mutant| applies(mutant).err().map(|why| (&mutant.name, why)))
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
