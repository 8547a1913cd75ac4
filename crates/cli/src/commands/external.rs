//! `shmpipe NAME`, where NAME is no command: the program `shmpipe-NAME`, as git finds its own.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::exit::Failure;
use crate::output::show_path;

/// Becomes the program, so that its exit code and its signals are those of this process. Returns `None` if there is no such program.
///
/// `words` are the arguments of this process, whose first command is not known; the options before it go to the program, too.
pub fn run(words: impl Iterator<Item = OsString>) -> Option<Failure> {
    let (mut options, mut rest) = (Vec::new(), words);
    let name = rest.find(|word| {
        let is_option = word.as_bytes().starts_with(b"-");
        if is_option {
            options.push(word.clone());
        }
        !is_option
    })?;
    // A slash would name a file anywhere, instead of a program in PATH.
    if name.as_bytes().contains(&b'/') {
        return None;
    }
    let mut program = OsString::from("shmpipe-");
    program.push(name);
    let error = Command::new(&program).args(options).args(rest).exec();
    (error.kind() != io::ErrorKind::NotFound).then(|| Failure::io(&show_path(&program), &error))
}
