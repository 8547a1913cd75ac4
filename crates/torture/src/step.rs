//! Runs each end one instruction at a time under ptrace, through all of its operations. After every instruction that changes the
//! segment, successors get a copy of the state that a kill would leave there. A message must be there as a whole or not at all, and
//! the ring must work. An instruction that changes nothing leaves the state that was judged before.

mod act;
mod judge;
mod plan;
mod ring;
#[cfg(test)]
mod tests;

use crate::run::{Harness, Run};
use crate::verdict::{Failure, Outcome};
use clap::{Args, value_parser};
use plan::{Plan, Stopped};
use shmpipe_testing::process::Part;
use shmpipe_testing::traced::{be_asked, share_a_core};
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Kills each end after every instruction, and lets successors judge what it leaves
#[derive(Debug, Args)]
pub struct Step {
    /// Number of instructions after which to judge the state
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    boundaries: u64,
    /// Optimization levels of the ends, in turn; each is built first [default: that of this program]
    #[arg(long, value_name = "0|2|3", value_delimiter = ',', value_parser = value_parser!(u8).range(..=3))]
    opt_levels: Vec<u8>,
}

/// A count that also tells a resumed run where to continue.
const RINGS: &str = "rings";

impl Harness for Step {
    const PARTS: &'static [(&'static str, Part)] =
        &[("step: producer", act::produce), ("step: consumer", act::consume), ("asked", be_asked)];

    fn run(&self, run: &Run) -> Outcome {
        let programs = match self.opt_levels.as_slice() {
            [] => vec![env::current_exe()?],
            levels => levels.iter().map(|&level| built(level)).collect::<Result<_, _>>()?,
        };
        run.goal(self.boundaries, "boundaries");
        share_a_core();
        let plan = Plan::new(run.rng(0).word());
        while run.done() < self.boundaries && !run.is_over() {
            let (turn, left) = (run.counted(RINGS), self.boundaries - run.done());
            let (ring, program) = (turn / programs.len() as u64, turn as usize % programs.len());
            let is_over = |done: ring::Done| done.boundaries >= left || run.is_over();
            match plan.work(ring, &programs[program], is_over) {
                Ok(done) => {
                    run.count(RINGS, 1);
                    run.count("states judged", done.states);
                    if !run.is_over() && (turn + 1) % (Plan::rings_for_all() * programs.len() as u64) == 0 {
                        run.count("times every size from 0 to 320 and every place of the ring", 1);
                    }
                    run.advance(done.boundaries.min(left));
                }
                Err(Stopped::Torn(why)) => {
                    let level = self
                        .opt_levels
                        .get(program)
                        .map_or(String::new(), |level| format!(" at level {level}"));
                    return Err(Failure::Failed(format!("ring {ring}{level}: {why}")));
                }
                Err(Stopped::Other(failure)) => return Err(failure),
            }
        }
        Ok(())
    }
}

/// Builds this program at an optimization level, with the profile `step-N`.
fn built(level: u8) -> Result<PathBuf, Failure> {
    let profile = format!("step-{level}");
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "build",
            "--locked",
            "--quiet",
            "--message-format=json-render-diagnostics",
            "--profile",
            &profile,
            "--manifest-path",
        ])
        .arg(manifest)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // The program is built last, and libraries have no executable.
    let program = text.rsplit_once(r#""executable":""#).and_then(|(_, path)| path.split('"').next());
    match program {
        Some(program) if output.status.success() => Ok(program.into()),
        _ => Err(Failure::Failed(format!("{profile}: {}", String::from_utf8_lossy(&output.stderr)))),
    }
}
