//! Writes results to standard output and messages to standard error, as text or as JSON.
//!
//! Every JSON object has `"schema": 1` and units in its keys. It is flat, except for a tick of `top`, which has a list of pipes.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;

use crate::exit::{End, Failure};
use crate::output::printable;
use crate::system::stdio;

/// The version of all JSON objects. It changes when a key changes or is removed, not when one is added.
pub const SCHEMA: u32 = 1;

/// The format of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// For people.
    Text,
    /// For programs (`--json`).
    Json,
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
        self == Report::Json
    }

    /// Reports why the command failed.
    pub fn failure(self, failure: &Failure) {
        let Failure { code, message } = failure;
        let error = Error { schema: SCHEMA, error: code.name(), exit_code: *code as u8, message };
        self.write(message, &error);
    }

    /// Reports something worth knowing that is not a failure.
    pub fn note(self, note: impl fmt::Display) {
        let note = note.to_string();
        self.write(&note, &Note { schema: SCHEMA, note: &note });
    }

    fn write(self, text: &str, object: &impl Serialize) {
        let line = match self {
            Report::Text => format!("shmpipe: {}\n", printable(text)),
            Report::Json => json(object) + "\n",
        };
        // There is nowhere to report a closed standard error.
        let _ = io::stderr().write_all(line.as_bytes());
    }
}

/// An object on one line.
pub fn json(object: &impl Serialize) -> String {
    serde_json::to_string(object).expect("numbers, text and lists of these always serialize")
}

/// Writes the result of a command to standard output. A reader that left is not a failure.
pub fn print(text: &str) -> Result<(), Failure> {
    print_to_reader(text).map(drop)
}

/// [`print`] as one of many steps: returns whether there is still a reader.
pub fn print_to_reader(text: &str) -> Result<bool, Failure> {
    match stdio::standard_output()?.write_all(text.as_bytes()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::io("writing to standard output", &error)),
    }
}

/// [`print`] as the last step of a command.
pub fn print_and_end(text: &str) -> Result<End, Failure> {
    print(text).map(|()| End::Done)
}
