//! Programs of their own: `shmpipe NAME` runs `shmpipe-NAME`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::process::{Finished, Running, shmpipe};

/// Runs with a PATH in which there is `shmpipe-hello`, which prints its arguments, and `shmpipe-locked`, which cannot be run.
fn with_programs(words: &[&str]) -> Finished {
    let folder = Folder::new();
    let text = "#!/bin/sh\nprintf '%s|' \"$@\"\nexit 42\n";
    for (name, mode) in [("shmpipe-hello", 0o755), ("shmpipe-locked", 0o644)] {
        let path = folder.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    }
    let mut command: Command = shmpipe(words);
    command.env("PATH", &folder.0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Running::start(&mut command).finish()
}

/// A folder that is removed when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // Relaxed: it only has to differ each time.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("shmpipe-external-{}-{number}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_program_in_path_gets_the_arguments_and_gives_the_exit_code() {
    with_programs(&["hello", "a b", "--help", "--json", "-x"])
        .code(42)
        .quiet()
        .wrote(b"a b|--help|--json|-x|");
    with_programs(&["--json", "hello", "a"]).code(42).quiet().wrote(b"--json|a|");
}

#[test]
fn a_command_that_does_not_exist_is_wrong_usage() {
    let error = with_programs(&["sned", "ticks"]).code(2).quiet_on_stdout().err;
    assert!(error.contains("unrecognized subcommand 'sned'") && error.contains("'send'"), "{error}");
    with_programs(&["--json", "sned"]).code(2).quiet_on_stdout().said(&["\"error\":\"usage\"", "sned"]);
    // Not a name in PATH.
    with_programs(&["hello/../hello"]).code(2).quiet_on_stdout();
}

#[test]
fn a_program_that_cannot_be_run_says_why() {
    with_programs(&["locked"]).code(8).quiet_on_stdout().said(&["shmpipe-locked", "ermission denied"]);
}
