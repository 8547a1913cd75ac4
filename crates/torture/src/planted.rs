//! Planted bugs: does each check fail where it should?
//!
//! A check that has never failed proves little. The files in `planted/` hold bugs, each with the commands that must notice
//! it. Here each is planted in a copy of the repository, in `target/planted/tree`; what it needs is built, so that no
//! error of the compiler is taken for a catch; and each of its commands must fail.
//!
//! ```toml
//! # Of every bug in this file that does not say it itself.
//! build = "cargo build --release -p shmpipe-torture"   # must succeed with the bug
//! runs = ["target/release/shmpipe-torture kill --rounds 2000"]   # each must fail with the bug, and pass without
//!
//! [[bug]]
//! name = "tail-before-commit"
//! why = "The tail is stored before the commit: killed between them, a producer leaves a tail ahead of a hole."
//! file = "src/protocol/ring.rs"
//! find = """
//!         ring.word(start).store(first, Ordering::Release);
//! """              # occurs exactly once
//! replace = ""
//! timeout = 60     # seconds for each run; 300 if it is left out
//! hangs = true     # a run that takes longer has caught it; else it has not
//!
//! [[bug.edit]]     # another place, and as many more as it takes; a bug may do with these alone
//! file = "src/protocol/ring.rs"
//! find = "..."
//! replace = "..."
//!
//! [[bug]]
//! name = "..."     # the rest as above
//! survives = "Why nothing notices it: each run must pass."
//! ```
//!
//! Commands are the shell's and start at the root of the copy, which has a `target/` of its own.

mod bug;
mod command;
#[cfg(test)]
mod orderings;
mod tree;

use crate::run::{Harness, Run};
use crate::verdict::{Failure, Outcome};
use bug::Bug;
use clap::Args;
use command::End;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tree::Tree;

/// Plants bugs in a copy of the repository: each must be noticed
#[derive(Debug, Args)]
pub struct Planted {
    /// Those whose name matches: `orderings/*`
    #[arg(long, value_name = "GLOB", default_value = "*")]
    only: glob::Pattern,
    /// List them
    #[arg(long)]
    list: bool,
    /// See whether each can still be planted, and do no more
    #[arg(long, conflicts_with = "list")]
    check: bool,
}

impl Harness for Planted {
    fn run(&self, run: &Run) -> Outcome {
        let mut bugs = bug::read(&repository().join("crates/torture/planted")).map_err(Failure::Failed)?;
        bugs.retain(|bug| self.only.matches(&bug.name));
        if bugs.is_empty() {
            return Err(Failure::Failed(format!("no bug is called {}", self.only)));
        }
        run.goal(bugs.len() as u64, if self.list { "bugs listed" } else { "bugs" });
        let act = match (self.list, self.check) {
            (true, _) => list,
            (_, true) => check,
            _ => {
                Bench::new().and_then(|bench| bench.plant_all(&bugs, run)).map_err(Failure::Failed)?;
                return verdict(run);
            }
        };
        bugs.iter().for_each(|bug| act(bug, run));
        verdict(run)
    }
}

/// What is counted of the bugs that did not fare as they should.
const WRONG: &str = "not as said";

fn verdict(run: &Run) -> Outcome {
    match run.counted(WRONG) {
        0 => Ok(()),
        wrong => Err(Failure::Failed(format!("{wrong} {WRONG}"))),
    }
}

/// What became of a bug that was planted.
enum Fate {
    Caught(String),
    /// As was said.
    Survived,
    Interrupted,
}

/// Long enough to build everything from nothing on a slow machine.
const BUILDING: Duration = Duration::from_secs(3600);

/// The repository that this program was built from.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn list(bug: &Bug, run: &Run) {
    println!("{}: {}", bug.name, bug.why);
    bug.runs.iter().for_each(|command| println!("    {command}"));
    bug.survives.iter().for_each(|why| println!("    survives: {why}"));
    run.advance(1);
}

fn check(bug: &Bug, run: &Run) {
    if let Err(reason) = applies(bug) {
        println!("{}: DOES NOT APPLY: {reason}", bug.name);
        run.count(WRONG, 1);
    }
    run.advance(1);
}

/// Whether the edits can be made.
fn applies(bug: &Bug) -> Result<(), String> {
    let mut texts = BTreeMap::new();
    for edit in &bug.edits {
        let path = repository().join(&edit.file);
        let text = match texts.remove(&path) {
            Some(text) => text,
            None => fs::read_to_string(&path).map_err(|e| format!("{}: {e}", edit.file))?,
        };
        texts.insert(path, edit.apply(&text)?);
    }
    Ok(())
}

/// The copy, and where the commands write.
struct Bench {
    tree: Tree,
    logs: PathBuf,
}

impl Bench {
    fn new() -> Result<Self, String> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        let planted = target.unwrap_or_else(|| repository().join("target")).join("planted");
        let logs = planted.join("log");
        fs::create_dir_all(&logs).map_err(|e| format!("{}: {e}", logs.display()))?;
        Ok(Bench { tree: Tree::copy(&repository(), &planted.join("tree"))?, logs })
    }

    fn plant_all(&self, bugs: &[Bug], run: &Run) -> Result<(), String> {
        // An earlier run may have done some already.
        let bugs = &bugs[run.done() as usize..];
        self.run_without(bugs, run)?;
        for bug in bugs {
            if run.is_over() {
                break;
            }
            let begun = Instant::now();
            let fate = self.plant(bug, run);
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
            run.note(&format!("{}: {what}, {seconds:.0} s", bug.name));
            run.advance(1);
        }
        Ok(())
    }

    fn log(&self, bug: &str, what: &str) -> PathBuf {
        self.logs.join(format!("{}-{what}", bug.replace('/', "-")))
    }

    fn command(&self, command: &str, log: &Path, timeout: Duration, run: &Run) -> End {
        command::run(command, &self.tree.root, log, timeout, &|| run.is_over())
    }

    /// Runs everything without any bug: a command that fails anyway catches nothing.
    fn run_without(&self, bugs: &[Bug], run: &Run) -> Result<(), String> {
        let builds: BTreeSet<_> = bugs.iter().map(|bug| (bug.build(), BUILDING)).collect();
        let runs = bugs.iter().flat_map(|bug| bug.runs.iter().map(|run| (run.as_str(), bug.timeout())));
        let runs: BTreeSet<_> = runs.collect();
        for (n, (command, timeout)) in builds.into_iter().chain(runs).enumerate() {
            let (begun, log) = (Instant::now(), self.log("without", &n.to_string()));
            match self.command(command, &log, timeout, run) {
                End::Passed => {}
                End::Interrupted => return Ok(()),
                end => return Err(format!("without a bug: {command}: {end:?}, see {}", log.display())),
            }
            run.note(&format!("without a bug: {command}: passed, {:.0} s", begun.elapsed().as_secs_f32()));
        }
        Ok(())
    }

    fn plant(&self, bug: &Bug, run: &Run) -> Result<Fate, String> {
        let _planted = self.tree.plant(&bug.edits).map_err(|reason| format!("DOES NOT APPLY: {reason}"))?;
        let log = self.log(&bug.name, "build");
        match self.command(bug.build(), &log, BUILDING, run) {
            End::Passed => {}
            End::Interrupted => return Ok(Fate::Interrupted),
            _ => return Err(format!("DOES NOT BUILD, see {}", log.display())),
        }
        let mut catches = vec![];
        for (n, command) in bug.runs.iter().enumerate() {
            let log = self.log(&bug.name, &n.to_string());
            let caught = match (self.command(command, &log, bug.timeout(), run), &bug.survives) {
                (End::Passed, Some(_)) => continue,
                (End::Passed, None) => return Err(format!("SURVIVED {command}")),
                (End::Failed(what), None) => what,
                (End::TimedOut, None) if bug.hangs => format!("no end within {:?}", bug.timeout()),
                (End::Failed(what), Some(_)) => return Err(format!("DID NOT SURVIVE {command}: {what}")),
                (End::TimedOut, _) => return Err(format!("NO END of {command}, see {}", log.display())),
                (End::Broken(what), _) => {
                    return Err(format!("BROKEN: {command}: {what}, see {}", log.display()));
                }
                (End::Interrupted, _) => return Ok(Fate::Interrupted),
            };
            catches.push(if caught.is_empty() { command.clone() } else { caught });
        }
        Ok(if bug.survives.is_some() { Fate::Survived } else { Fate::Caught(catches.join("; ")) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_can_still_be_planted() {
        let bugs = bug::read(&repository().join("crates/torture/planted")).unwrap();
        let wrong: Vec<_> =
            bugs.iter().filter_map(|bug| applies(bug).err().map(|why| (&bug.name, why))).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
