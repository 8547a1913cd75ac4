//! Notes and errors on standard error, as text or as JSON, in the form of shmpipe's command line.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use serde::Serialize;

use crate::exit::Failure;

/// The version of all JSON objects.
pub const SCHEMA: u32 = 1;

/// Where a bridge reports to.
#[derive(Clone, Debug)]
pub struct Report {
    json: bool,
    /// The name of the bridge, if there are several.
    about: Option<Arc<str>>,
}

#[derive(Serialize)]
struct Line<'a> {
    schema: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    bridge: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

impl Report {
    pub fn new(json: bool) -> Self {
        Report { json, about: None }
    }

    /// The same, about one of several bridges.
    pub fn about(&self, bridge: &str) -> Self {
        Report { about: Some(bridge.into()), ..self.clone() }
    }

    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Reports why something failed.
    pub fn failure(&self, failure: &Failure) {
        let Failure { code, message } = failure;
        self.write(message, None, Some((code.name(), *code as u8)));
    }

    /// Reports something worth knowing that is not a failure.
    pub fn note(&self, note: impl fmt::Display) {
        self.write(&note.to_string(), Some(()), None);
    }

    fn write(&self, text: &str, note: Option<()>, error: Option<(&'static str, u8)>) {
        let bridge = self.about.as_deref();
        let line = if self.json {
            json(&Line {
                schema: SCHEMA,
                bridge,
                note: note.map(|()| text),
                error: error.map(|(name, _)| name),
                exit_code: error.map(|(_, code)| code),
                message: error.map(|_| text),
            }) + "\n"
        } else {
            let about = bridge.map(|bridge| format!("{bridge}: ")).unwrap_or_default();
            format!("shmpipe-nats: {}\n", printable(&(about + text)))
        };
        // There is nowhere to report a closed standard error.
        let _ = io::stderr().write_all(line.as_bytes());
    }
}

/// Text that is safe to print on a terminal: a server, or another user, chose parts of it.
pub fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// An object on one line.
pub fn json(object: &impl Serialize) -> String {
    serde_json::to_string(object).expect("numbers, text and lists of these always serialize")
}
