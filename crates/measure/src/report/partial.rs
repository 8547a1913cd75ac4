//! The results of an interrupted run: a file whose first line identifies the run, and whose other lines are sessions. A last
//! line without an end is incomplete, and ignored.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::gathered::Part;
use super::identity::Cpu;
use crate::errors::about;

/// The key of a run, which must match to resume it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Key {
    pub(super) schema: u32,
    pub(super) commit: String,
    /// A hash of all differences from the commit in the measured and the measuring code.
    pub(super) changes: u64,
    pub(super) cpu: Cpu,
    pub(super) kernel: String,
    pub(super) compiler: String,
    pub(super) seconds: f64,
    pub(super) cpus: Option<(usize, usize)>,
    pub(super) near_below_ns: Option<f64>,
}

/// A session: its group in the plan, its duration including the start, and its results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Step {
    pub(super) group: usize,
    pub(super) seconds: f64,
    pub(super) part: Part,
}

/// The file.
pub(super) struct Partial {
    path: PathBuf,
    file: File,
}

impl Partial {
    /// Resumes the file with this key, or starts a new one. Returns the sessions in it.
    pub(super) fn open(path: &Path, key: &Key, fresh: bool) -> io::Result<(Partial, Vec<Step>)> {
        let failed = |error| about(format_args!("{}", path.display()), error);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let text = if fresh { String::new() } else { fs::read_to_string(path).unwrap_or_default() };
        let (steps, length) = parse(&text, key);
        let file = OpenOptions::new().create(true).truncate(false).append(true).open(path);
        let mut file = file.map_err(failed)?;
        file.set_len(length as u64).map_err(failed)?;
        if length == 0 {
            file.write_all((serde_json::to_string(key)? + "\n").as_bytes()).map_err(failed)?;
        }
        Ok((Partial { path: path.to_owned(), file }, steps))
    }

    /// Adds a session.
    pub(super) fn add(&mut self, step: &Step) -> io::Result<()> {
        let line = serde_json::to_string(step)? + "\n";
        let written = self.file.write_all(line.as_bytes());
        written.map_err(|error| about(format_args!("{}", self.path.display()), error))
    }

    /// Removes the file at the end of the run.
    pub(super) fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path).map_err(|error| about(format_args!("{}", self.path.display()), error))
    }
}

/// The sessions of a file with this key, and their length in bytes. None for another key.
fn parse(text: &str, key: &Key) -> (Vec<Step>, usize) {
    let (mut steps, mut length) = (Vec::new(), 0);
    for line in text.split_inclusive('\n') {
        // a line without an end is incomplete
        let Some(whole) = line.strip_suffix('\n') else { break };
        if length == 0 {
            if serde_json::from_str::<Key>(whole).ok().as_ref() != Some(key) {
                break;
            }
        } else {
            let Ok(step) = serde_json::from_str(whole) else { break };
            steps.push(step);
        }
        length += line.len();
    }
    (steps, length)
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::Folder;
    use super::*;

    fn key(commit: &str) -> Key {
        Key {
            schema: 1,
            commit: commit.to_owned(),
            changes: 7,
            cpu: Cpu::default(),
            kernel: "Linux 6.18".to_owned(),
            compiler: "rustc 1.85".to_owned(),
            seconds: 330.0,
            cpus: None,
            near_below_ns: None,
        }
    }

    fn step(group: usize) -> Step {
        Step { group, seconds: 1.5, part: Part { discarded: 3, ..Part::default() } }
    }

    #[test]
    fn run_resumes_where_it_stopped() {
        let folder = Folder::new("report");
        let path = folder.join("partial");
        let (mut partial, before) = Partial::open(&path, &key("a"), false).unwrap();
        assert_eq!(before, []);
        partial.add(&step(1)).unwrap();
        partial.add(&step(2)).unwrap();
        drop(partial);
        // as if killed while it wrote a third
        let mut text = fs::read_to_string(&path).unwrap();
        text += "{\"group\":3,\"seconds\":1.";
        fs::write(&path, &text).unwrap();
        let (mut partial, before) = Partial::open(&path, &key("a"), false).unwrap();
        assert_eq!(before, [step(1), step(2)]);
        partial.add(&step(3)).unwrap();
        drop(partial);
        let (partial, before) = Partial::open(&path, &key("a"), false).unwrap();
        assert_eq!(before, [step(1), step(2), step(3)]);
        drop(partial);
        let (_, before) = Partial::open(&path, &key("a"), true).unwrap();
        assert_eq!(before, [], "started over");
        let (partial, before) = Partial::open(&path, &key("b"), false).unwrap();
        assert_eq!(before, [], "another commit");
        partial.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn file_of_another_run_is_ignored() {
        let first = serde_json::to_string(&key("a")).unwrap() + "\n";
        let text = first.clone() + &serde_json::to_string(&step(1)).unwrap() + "\n";
        assert_eq!(parse(&text, &key("a")), (vec![step(1)], text.len()));
        assert_eq!(parse(&text, &Key { seconds: 60.0, ..key("a") }), (vec![], 0));
        assert_eq!(parse(&text.replace("\"seconds\":1.5", "x"), &key("a")), (vec![], first.len()));
        assert_eq!(parse("nonsense", &key("a")), (vec![], 0));
    }
}
