//! Harnesses that try to break shmpipe. Each prints its seed, runs until it reaches its goal, and ends with a one-line verdict.
//!
//! ```sh
//! cargo run --release -p shmpipe-torture -- kill --rounds 1000000
//! ```
//!
//! To add a harness, write a module with a type that implements [`Harness`], and add a line to the list below.

mod boundary;
mod deaths;
#[cfg(target_arch = "x86_64")]
mod errno;
#[cfg(not(target_arch = "x86_64"))]
#[path = "errno/elsewhere.rs"]
mod errno;
mod fork_server;
mod kill;
mod mutants;
mod mutator;
mod objects;
mod run;
mod sleep;
mod soak;
mod state;
mod step;
mod threads;
mod traffic;
mod verdict;
mod workers;

use clap::{Parser, Subcommand};
use run::{Common, Harness};
use shmpipe_testing::backend::Backend;
use shmpipe_testing::process::{self, Part};
use std::process::ExitCode;

/// Generates the subcommands, and the list of their parts.
macro_rules! harnesses {
    ($($name:ident: $module:ident,)*) => {
        #[derive(Debug, Subcommand)]
        enum Chosen {
            $($name($module::$name),)*
        }

        impl Chosen {
            fn run(&self, common: &Common) -> ExitCode {
                match self {
                    $(Chosen::$name(harness) => run::run(stringify!($module), harness, common),)*
                }
            }
        }

        /// The parts of the processes that harnesses start.
        fn parts() -> Vec<(&'static str, Part)> {
            [$(<$module::$name as Harness>::PARTS,)*].concat()
        }
    };
}

harnesses! {
    Deaths: deaths,
    Boundary: boundary,
    Errno: errno,
    Kill: kill,
    Sleep: sleep,
    Mutator: mutator,
    Soak: soak,
    Mutants: mutants,
    Step: step,
    Threads: threads,
}

/// Tries to break shmpipe.
#[derive(Debug, Parser)]
#[command(name = "shmpipe-torture", after_help = verdict::CODES)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    harness: Chosen,
}

/// Parses the option for a kind of shared memory.
fn backend(name: &str) -> Result<Backend, String> {
    let known = [
        ("sysv", Backend::SysV),
        ("posix", Backend::Posix),
        ("file", Backend::File),
        ("memfd", Backend::Memfd),
    ];
    let found = known.into_iter().find(|(known, _)| *known == name);
    found.map(|(_, backend)| backend).ok_or_else(|| "expected sysv, posix, file or memfd".to_owned())
}

fn main() -> ExitCode {
    if process::part(&parts()) {
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::parse();
    arguments.harness.run(&arguments.common)
}

/// The entry point of processes that tests start.
#[cfg(test)]
#[test]
fn part() {
    process::part(&parts());
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use std::collections::HashSet;

    #[test]
    fn command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn part_names_are_unique() {
        let parts = parts();
        let names: HashSet<_> = parts.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), parts.len());
    }
}
