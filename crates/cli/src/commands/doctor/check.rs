//! The checks of the doctor, and their findings.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use crate::output::columns;
use crate::output::printable;
use crate::output::report::{self, SCHEMA};

/// A problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The problem.
    pub what: String,
    /// Why it matters.
    pub why: String,
    /// The command that fixes it.
    pub fix: String,
}

/// The result of one check.
#[derive(Debug)]
pub struct Check {
    name: &'static str,
    /// The state that it found, in a few words.
    summary: String,
    /// The same as values, for programs.
    facts: Vec<(&'static str, Value)>,
    pub findings: Vec<Finding>,
    /// Why it could not be made, or only in part.
    unknown: Option<String>,
}

/// The result of a check, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    Finding,
    /// No findings, but the check could not be made in full.
    Unknown,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Finding => "finding",
            Verdict::Unknown => "unknown",
        }
    }
}

impl Check {
    pub fn new(name: &'static str) -> Self {
        Check { name, summary: String::new(), facts: Vec::new(), findings: Vec::new(), unknown: None }
    }

    /// A check that could not be made.
    pub fn impossible(name: &'static str, because: impl Into<String>) -> Self {
        let mut check = Check::new(name);
        check.unknown(because);
        check
    }

    pub fn summary(&mut self, summary: impl Into<String>) {
        self.summary = summary.into();
    }

    pub fn fact(&mut self, key: &'static str, value: impl Into<Value>) {
        self.facts.push((key, value.into()));
    }

    pub fn find(&mut self, what: impl Into<String>, why: impl Into<String>, fix: impl Into<String>) {
        self.findings.push(Finding { what: what.into(), why: why.into(), fix: fix.into() });
    }

    /// A part of the check could not be made. The first reason counts.
    pub fn unknown(&mut self, because: impl Into<String>) {
        self.unknown.get_or_insert(because.into());
    }

    pub fn verdict(&self) -> Verdict {
        match (&self.findings[..], &self.unknown) {
            ([_, ..], _) => Verdict::Finding,
            ([], Some(_)) => Verdict::Unknown,
            ([], None) => Verdict::Ok,
        }
    }

    fn row(&self) -> Vec<String> {
        let text = match (&*self.summary, &self.unknown) {
            ("", Some(because)) => format!("cannot check: {because}"),
            (summary, Some(because)) => format!("{summary}; cannot check in full: {because}"),
            (summary, None) => summary.to_owned(),
        };
        vec![self.name.to_owned(), self.verdict().word().to_owned(), text]
    }
}

/// All checks as text: one line each, then the findings.
pub fn text(checks: &[Check]) -> String {
    let rows: Vec<_> = checks.iter().map(Check::row).collect();
    let mut text = columns::align(&rows);
    let mut number = 0;
    for check in checks {
        for Finding { what, why, fix } in &check.findings {
            number += 1;
            let [what, why, fix] = [what, why, fix].map(|text| printable(text));
            text += &format!("\n{number}. {}: {what}\n   why: {why}\n   fix: {fix}\n", check.name);
        }
    }
    text
}

/// All checks as JSON: one flat object per line.
pub fn json(checks: &[Check], address: Option<String>) -> String {
    let count = |verdict| checks.iter().filter(|check| check.verdict() == verdict).count();
    let head = Object(vec![
        ("kind", "doctor".into()),
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("address", address.into()),
        ("checks", checks.len().into()),
        ("findings", checks.iter().map(|check| check.findings.len()).sum::<usize>().into()),
        ("unknown", count(Verdict::Unknown).into()),
    ]);
    let mut lines = vec![report::json(&head)];
    for check in checks {
        let mut object = vec![
            ("kind", "check".into()),
            ("check", check.name.into()),
            ("verdict", check.verdict().word().into()),
            ("summary", check.summary.clone().into()),
            ("unknown_because", check.unknown.clone().into()),
        ];
        object.extend(check.facts.iter().cloned());
        lines.push(report::json(&Object(object)));
        lines.extend(check.findings.iter().map(|finding| {
            report::json(&Object(vec![
                ("kind", "finding".into()),
                ("check", check.name.into()),
                ("what", finding.what.clone().into()),
                ("why", finding.why.clone().into()),
                ("mend", finding.fix.clone().into()),
            ]))
        }));
    }
    lines.join("\n") + "\n"
}

/// A flat object whose keys keep their order.
struct Object(Vec<(&'static str, Value)>);

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len() + 1))?;
        map.serialize_entry("schema", &SCHEMA)?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks() -> Vec<Check> {
        let mut fine = Check::new("fine");
        fine.summary("all of it");
        let mut bad = Check::new("bad");
        bad.fact("left_bytes", 7);
        bad.unknown("not this");
        bad.find("7 bytes are left", "a message has 8", "rm x");
        vec![fine, bad, Check::impossible("dark", "no light")]
    }

    #[test]
    fn text_has_a_line_per_check_and_then_the_findings() {
        let text = text(&checks());
        assert_eq!(
            text,
            "fine  ok       all of it\n\
             bad   finding  cannot check: not this\n\
             dark  unknown  cannot check: no light\n\
             \n\
             1. bad: 7 bytes are left\n   why: a message has 8\n   fix: rm x\n"
        );
    }

    #[test]
    fn json_has_flat_objects_with_a_kind() {
        let text = json(&checks(), Some("ticks".to_owned()));
        let objects: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let kinds: Vec<_> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["doctor", "check", "check", "finding", "check"]);
        assert_eq!((&objects[0]["findings"], &objects[0]["unknown"]), (&1.into(), &1.into()));
        assert_eq!((&objects[2]["left_bytes"], &objects[2]["verdict"]), (&7.into(), &"finding".into()));
        assert_eq!((&objects[3]["check"], &objects[3]["mend"]), (&"bad".into(), &"rm x".into()));
        assert!(objects.iter().all(|object| object["schema"] == 1));
    }
}
