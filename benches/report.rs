//! The archive of machines: measures a fixed set of figures and writes them to `benches/results/`, one file for each placement of
//! the two processors. `--page` generates `docs/machines.md` from all files, and `--check` looks for regressions.
//!
//! `cargo bench --bench report -- --help` lists the options.
use std::path::Path;
use std::process::ExitCode;

use shmpipe_measure::report;

fn main() -> ExitCode {
    report::main(Path::new(env!("CARGO_MANIFEST_DIR")))
}
