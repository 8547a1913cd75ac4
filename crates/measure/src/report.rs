//! The archive of machines: a fixed set of figures for each processor, in files in `benches/results/`.
//!
//! A ratio on one processor need not hold on another. So every measured machine leaves a file, and the figures in the documents
//! are generated from all files, not from the best one.
//!
//! * [`Report`] is one file: one run on one machine in one [`Placement`](crate::Placement). [`Row`] is one figure in it.
//! * [`main`] is `cargo bench --bench report`: it measures, and writes one file for each placement that occurred.
//! * [`Gathered`] computes rows from sessions. Other measuring tools use it to write the same rows.

mod archive;
mod check;
mod gathered;
mod identity;
mod json;
mod measure;
mod options;
mod page;
mod partial;
mod peers;
mod plan;
mod row;
mod summary;

use std::env;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use self::archive::Archive;
pub use self::gathered::{Gathered, Part};
pub use self::identity::{Cpu, Topology};
use self::options::{Options, USAGE};
pub use self::plan::CAPACITY;
pub use self::row::{Accepted, Kind, PlacedRows, Report, Row, Run, SCHEMA, Source};
pub use self::summary::{Cell, Summary};
use crate::partner;
use crate::transports;

/// The main function of the bench. `root` is the folder of the repository.
///
/// `cargo bench` passes `--bench`, and the bench measures. Without it (`cargo test --benches`) a smoke run measures one slice
/// of everything, writes no file and takes seconds.
pub fn main(root: &Path) -> ExitCode {
    partner::serve_if_partner(transports::ALL);
    match Options::parse(env::args().skip(1)).and_then(|options| run(root, &options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(root: &Path, options: &Options) -> io::Result<()> {
    if options.help {
        println!("{USAGE}");
        return Ok(());
    }
    if options.list {
        return Ok(()); // no tests with names of their own
    }
    if !options.measure {
        return measure::smoke();
    }
    if !options.page && !options.check {
        return measure::run(root, options);
    }
    let archive = Archive::read(&root.join(measure::RESULTS))?;
    if options.page {
        for path in page::write(root, &archive)? {
            println!("{path}");
        }
    }
    if options.check { check(root, &archive) } else { Ok(()) }
}

/// Fails with a list of problems.
fn check(root: &Path, archive: &Archive) -> io::Result<()> {
    let mut wrong = check::regressions(archive);
    let stale = page::stale(root, archive)?;
    let remedy = "is not what the archive makes: cargo bench --bench report -- --page";
    wrong.extend(stale.into_iter().map(|path| format!("{path} {remedy}")));
    if wrong.is_empty() {
        println!(
            "{} files; no figure is worse than before, and the generated files are current",
            archive.entries.len()
        );
        return Ok(());
    }
    Err(io::Error::other(wrong.join("\n")))
}
