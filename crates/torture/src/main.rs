//! Harnesses that try to break shmpipe. Each prints its seed, runs for as long as it is told, and ends with one line of verdict.
//!
//! ```sh
//! cargo run --release -p shmpipe-torture -- kill --rounds 1000000
//! ```
//!
//! A harness is a module with a type that implements [`Harness`], and a line below.

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

/// Makes the subcommands, and what they have in common.
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

        /// What the processes that harnesses start may be.
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

/// A kind of shared memory, as an option has it.
fn backend(name: &str) -> Result<Backend, String> {
    let known = [
        ("sysv", Backend::SysV),
        ("posix", Backend::Posix),
        ("file", Backend::File),
        ("memfd", Backend::Memfd),
    ];
    let found = known.into_iter().find(|(known, _)| *known == name);
    found.map(|(_, backend)| backend).ok_or_else(|| "one of sysv, posix, file, memfd".to_owned())
}

fn main() -> ExitCode {
    if process::part(&parts()) {
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::parse();
    arguments.harness.run(&arguments.common)
}

/// Plays the parts of the processes that tests start.
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
    fn the_definitions_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn no_two_parts_have_the_same_name() {
        let parts = parts();
        let names: HashSet<_> = parts.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), parts.len());
    }
}
