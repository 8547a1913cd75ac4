//! `shmpipe completions` and `shmpipe man`: generated from the definition of the arguments.

use std::fs;
use std::io;
use std::iter;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::args::Arguments;
use crate::exit::{End, Failure, Outcome};
use crate::output::report;
use crate::output::show_path;

/// Prints the completion script for a shell.
pub fn completions(shell: Shell) -> Outcome {
    let mut command = Arguments::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    report::print_and_end(&String::from_utf8_lossy(&script))
}

/// Writes the man pages, one for each command, to a directory.
pub fn man(directory: &Path) -> Outcome {
    write_pages(directory)
        .map_err(|error| Failure::io(&format!("writing man pages to {}", show_path(directory)), &error))?;
    Ok(End::Done)
}

fn write_pages(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut all = Arguments::command().disable_help_subcommand(true);
    all.build();
    let source = all.render_version();
    for command in iter::once(&all).chain(all.get_subcommands()) {
        Man::new(command.clone()).source(source.trim()).generate_to(directory)?;
    }
    Ok(())
}
