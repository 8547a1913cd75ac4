//! `shmpipe bench`: compares the ring with other transports on this machine.

mod archive;
mod bar;
mod chart;
#[cfg(test)]
#[allow(dead_code, reason = "the tests of the whole command use all of it")]
#[path = "../../tests/cli/markup.rs"]
mod markup;
mod measured;
mod page;
mod plan;
mod results;
#[cfg(test)]
mod sample;
mod summary;
mod text;

use std::env;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::SystemTime;

use crate::args;
use crate::exit::{End, Failure, Outcome};
use crate::output::report::{self, Report};
use crate::output::{shell, show_path};
use crate::system::signals;

use bar::Bar;
use plan::Plan;
use results::Results;

pub fn run(arguments: &args::Bench, report: Report) -> Outcome {
    let plan = Plan::new(arguments)?;
    if let Some(path) = &arguments.html {
        check_writable(path)?;
    }
    signals::install()?;
    let when = SystemTime::now();
    let bar = Bar::new(plan.time);
    let measured = measured::measure(&plan, &bar);
    drop(bar);
    let measured = match (measured, signals::received()) {
        (_, Some(signal)) => return Ok(End::Signal(signal)),
        (Err(error), None) => return Err(Failure::io("measuring failed", &error)),
        (Ok(measured), None) => measured,
    };
    let results = Results::new(&plan, &measured, command(), when);
    report::print(&match report {
        Report::Text => text::render(&results),
        Report::Json => results.json(),
    })?;
    if let Some(path) = &arguments.html {
        let written = fs::write(path, page::render(&results));
        written.map_err(|error| Failure::io(&format!("writing {}", show_path(path)), &error))?;
    }
    Ok(End::Done)
}

/// Checks before measuring that the file can be written. A file that did not exist is not left behind.
fn check_writable(path: &Path) -> Result<(), Failure> {
    let checked = match File::options().write(true).create_new(true).open(path) {
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match fs::metadata(path) {
            Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) if found.is_file() => File::options().write(true).open(path).map(drop),
            other => other.map(drop), // a terminal, say
        },
        Err(error) => Err(error),
    };
    checked.map_err(|error| Failure::io(&format!("--html {}", show_path(path)), &error))
}

/// The command line, quoted for a shell.
fn command() -> String {
    let words = env::args_os().skip(1).map(shell);
    ["shmpipe".to_owned()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}
