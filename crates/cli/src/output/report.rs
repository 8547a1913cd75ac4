//! What is said on standard error and standard output, to people or, under `--json`, to programs.
//!
//! Under `--json` every object is flat, has `"schema": 1`, and has units in its keys.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;

use crate::exit::{End, Failure};

/// The version of all objects under `--json`. It changes when a key changes or goes, not when one is added.
pub const SCHEMA: u32 = 1;

/// Who reads what a command says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    People,
    Programs,
}

#[derive(Serialize)]
struct Error<'a> {
    schema: u32,
    error: &'a str,
    exit_code: u8,
    message: &'a str,
}

#[derive(Serialize)]
struct Note<'a> {
    schema: u32,
    note: &'a str,
}

impl Report {
    pub fn is_json(self) -> bool {
        self == Report::Programs
    }

    /// Says why the command failed.
    pub fn failure(self, failure: &Failure) {
        let Failure { code, message } = failure;
        let error = Error { schema: SCHEMA, error: code.name(), exit_code: *code as u8, message };
        self.say(message, &error);
    }

    /// Says something worth knowing that is no failure.
    pub fn note(self, note: impl fmt::Display) {
        let note = note.to_string();
        self.say(&note, &Note { schema: SCHEMA, note: &note });
    }

    fn say(self, text: &str, object: &impl Serialize) {
        let line = match self {
            Report::People => format!("shmpipe: {text}\n"),
            Report::Programs => json(object) + "\n",
        };
        // Whoever closed standard error does not want to know.
        let _ = io::stderr().write_all(line.as_bytes());
    }
}

/// One object on one line.
pub fn json(object: &impl Serialize) -> String {
    serde_json::to_string(object).expect("numbers, text and lists of these can always be written")
}

/// Puts the answer of a command on standard output. A reader that has left is no failure.
pub fn answer(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::io("writing to standard output", &error))
        }
        _ => Ok(()),
    }
}

/// The same, as the end of a command.
pub fn answer_and_end(text: &str) -> Result<End, Failure> {
    answer(text).map(|()| End::Done)
}
