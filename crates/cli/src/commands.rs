//! The commands, a file each, and what several of them share.

mod bench;
mod create;
mod demo;
mod doctor;
mod duplex;
pub mod external;
mod framing;
mod help;
mod keep;
mod ls;
mod metrics;
mod record;
mod recording;
mod recv;
mod replay;
mod rm;
mod role;
mod send;
mod serve;
mod server;
mod stat;
mod tap;
mod top;
mod watched;

use crate::args::Command;
use crate::exit::Outcome;
use crate::output::report::Report;

/// Runs a command.
pub fn run(command: &Command, report: Report) -> Outcome {
    match command {
        Command::Send(arguments) => send::run(arguments, report),
        Command::Recv(arguments) => recv::run(arguments, report),
        Command::Duplex(arguments) => duplex::run(arguments, report),
        Command::Create(arguments) => create::run(arguments, report),
        Command::Keep(arguments) => keep::run(arguments, report),
        Command::Serve(arguments) => serve::run(arguments, report),
        Command::Ls => ls::run(report),
        Command::Stat(arguments) => stat::run(arguments, report),
        Command::Tap(arguments) => tap::run(arguments, report),
        Command::Top(arguments) => top::run(arguments, report),
        Command::Metrics(arguments) => metrics::run(arguments, report),
        Command::Record(arguments) => record::run(arguments, report),
        Command::Replay(arguments) => replay::run(arguments, report),
        Command::Rm { addresses, force, stale: true } => rm::stale::run(addresses, *force, report),
        Command::Rm { addresses, force, stale: false } => rm::run(addresses, *force, report),
        Command::Doctor { address } => doctor::run(address.as_ref(), report),
        Command::Demo(arguments) => demo::run(arguments, report),
        Command::Bench(arguments) => bench::run(arguments, report),
        Command::Completions { shell } => help::completions(*shell),
        Command::Man { directory } => help::man(directory),
    }
}
