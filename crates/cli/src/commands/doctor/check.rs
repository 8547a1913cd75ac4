//! What the doctor says: checks, and what they have found.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use crate::output::columns;
use crate::output::report::{self, SCHEMA};

/// Something that stands, or will stand, in the way of a pipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was found.
    pub what: String,
    /// Why it matters.
    pub why: String,
    /// The command that mends it.
    pub mend: String,
}

/// One thing looked at.
#[derive(Debug)]
pub struct Check {
    name: &'static str,
    /// What it is like, in a few words.
    summary: String,
    /// The same in figures, for programs.
    facts: Vec<(&'static str, Value)>,
    pub findings: Vec<Finding>,
    /// Why it, or a part of it, could not be looked at.
    unknown: Option<String>,
}

/// How a check ended, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    Finding,
    /// Nothing was found, and not everything could be looked at.
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

    /// A check that could not be made at all.
    pub fn impossible(name: &'static str, because: impl Into<String>) -> Self {
        let mut check = Check::new(name);
        check.cannot_tell(because);
        check
    }

    pub fn summary(&mut self, summary: impl Into<String>) {
        self.summary = summary.into();
    }

    pub fn fact(&mut self, key: &'static str, value: impl Into<Value>) {
        self.facts.push((key, value.into()));
    }

    pub fn find(&mut self, what: impl Into<String>, why: impl Into<String>, mend: impl Into<String>) {
        self.findings.push(Finding { what: what.into(), why: why.into(), mend: mend.into() });
    }

    /// Some of it could not be looked at. The first reason stands.
    pub fn cannot_tell(&mut self, because: impl Into<String>) {
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
            ("", Some(because)) => format!("cannot be told: {because}"),
            (summary, Some(because)) => format!("{summary}; cannot be told in full: {because}"),
            (summary, None) => summary.to_owned(),
        };
        vec![self.name.to_owned(), self.verdict().word().to_owned(), text]
    }
}

/// All checks for people: one line each, then the findings.
pub fn for_people(checks: &[Check]) -> String {
    let rows: Vec<_> = checks.iter().map(Check::row).collect();
    let mut text = columns::align(&rows);
    let mut number = 0;
    for check in checks {
        for Finding { what, why, mend } in &check.findings {
            number += 1;
            text += &format!("\n{number}. {}: {what}\n   why:  {why}\n   mend: {mend}\n", check.name);
        }
    }
    text
}

/// The same for programs: one flat object per line.
pub fn for_programs(checks: &[Check], address: Option<String>) -> String {
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
                ("mend", finding.mend.clone().into()),
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
        bad.cannot_tell("not this");
        bad.find("7 bytes are left", "a message has 8", "rm x");
        vec![fine, bad, Check::impossible("dark", "no light")]
    }

    #[test]
    fn people_read_a_line_per_check_and_then_the_findings() {
        let text = for_people(&checks());
        assert_eq!(
            text,
            "fine  ok       all of it\n\
             bad   finding  cannot be told: not this\n\
             dark  unknown  cannot be told: no light\n\
             \n\
             1. bad: 7 bytes are left\n   why:  a message has 8\n   mend: rm x\n"
        );
    }

    #[test]
    fn programs_read_flat_objects_told_apart_by_kind() {
        let text = for_programs(&checks(), Some("ticks".to_owned()));
        let objects: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let kinds: Vec<_> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["doctor", "check", "check", "finding", "check"]);
        assert_eq!((&objects[0]["findings"], &objects[0]["unknown"]), (&1.into(), &1.into()));
        assert_eq!((&objects[2]["left_bytes"], &objects[2]["verdict"]), (&7.into(), &"finding".into()));
        assert_eq!((&objects[3]["check"], &objects[3]["mend"]), (&"bad".into(), &"rm x".into()));
        assert!(objects.iter().all(|object| object["schema"] == 1));
    }
}
