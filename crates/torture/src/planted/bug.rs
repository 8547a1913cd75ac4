//! Planted bugs as they stand in the files: what is changed, and which commands must notice.

use serde::Deserialize;
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// One file of bugs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bugs {
    /// Stands in for those of its bugs that do not say it themselves.
    build: Option<String>,
    /// The same.
    #[serde(default)]
    runs: Vec<String>,
    bug: Vec<Bug>,
}

/// A bug that can be planted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bug {
    pub name: String,
    /// What is wrong with the code then, in a sentence.
    pub why: String,
    file: Option<String>,
    find: Option<String>,
    replace: Option<String>,
    /// More than one place, or one with a file of its own.
    #[serde(default, rename = "edit")]
    pub edits: Vec<Edit>,
    build: Option<String>,
    #[serde(default)]
    pub runs: Vec<String>,
    /// Seconds that each run may take.
    #[serde(default = "Bug::some_minutes")]
    timeout: u64,
    /// A run that has not ended by then has caught the bug: it makes somebody hang.
    #[serde(default)]
    pub hangs: bool,
    /// Why no run catches it: then each must pass.
    pub survives: Option<String>,
}

/// Text that is replaced by other text.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    pub file: String,
    /// Occurs exactly once.
    pub find: String,
    pub replace: String,
}

impl Bug {
    fn some_minutes() -> u64 {
        300
    }

    /// The command that builds what the runs need.
    pub fn build(&self) -> &str {
        self.build.as_deref().expect("filled in by `read`")
    }

    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// Fills in what may be said in other places, and says what is missing.
    fn complete(&mut self, stem: &str, build: Option<&String>, runs: &[String]) -> Result<(), String> {
        let Bug { file, find, replace, .. } = self;
        match (file.take(), find.take(), replace.take()) {
            (Some(file), Some(find), Some(replace)) => self.edits.insert(0, Edit { file, find, replace }),
            (None, None, None) if !self.edits.is_empty() => {}
            _ => return Err(format!("{stem}/{}: needs file, find and replace", self.name)),
        }
        self.build = self.build.take().or_else(|| build.cloned());
        if self.runs.is_empty() {
            self.runs = runs.to_vec();
        }
        self.name = format!("{stem}/{}", self.name);
        if self.build.is_none() || self.runs.is_empty() {
            return Err(format!("{}: needs a build and runs", self.name));
        }
        Ok(())
    }
}

impl Edit {
    /// The text with the edit made.
    pub fn apply(&self, text: &str) -> Result<String, String> {
        match text.matches(&self.find).count() {
            1 => Ok(text.replacen(&self.find, &self.replace, 1)),
            0 => Err(format!("text not found in {}", self.file)),
            times => Err(format!("text found {times} times in {}", self.file)),
        }
    }
}

/// All bugs of the files in `folder`, named `file/bug`.
pub fn read(folder: &Path) -> Result<Vec<Bug>, String> {
    let error = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut paths = vec![];
    for entry in fs::read_dir(folder).map_err(|e| error(folder, &e))? {
        let path = entry.map_err(|e| error(folder, &e))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut all = vec![];
    for path in paths {
        let text = fs::read_to_string(&path).map_err(|e| error(&path, &e))?;
        let bugs: Bugs = toml::from_str(&text).map_err(|e| error(&path, &e))?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        for mut bug in bugs.bug {
            bug.complete(&stem, bugs.build.as_ref(), &bugs.runs)?;
            all.push(bug);
        }
    }
    let mut names = HashSet::new();
    match all.iter().find(|bug| !names.insert(&bug.name)) {
        Some(twice) => Err(format!("{}: twice", twice.name)),
        None => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(find: &str) -> Edit {
        Edit { file: "f".into(), find: find.into(), replace: "X".into() }
    }

    #[test]
    fn text_is_replaced_only_where_it_occurs_once() {
        assert_eq!(edit("b").apply("abc").unwrap(), "aXc");
        assert_eq!(edit("d").apply("abc").unwrap_err(), "text not found in f");
        assert_eq!(edit("b").apply("abcb").unwrap_err(), "text found 2 times in f");
    }

    #[test]
    fn what_a_bug_does_not_say_its_file_does() {
        let text = "build = 'b'\nruns = ['r']\n[[bug]]\nname = 'n'\nwhy = 'w'\nfile = 'f'\nfind = 'a'\nreplace = 'b'\n";
        let bugs: Bugs = toml::from_str(text).unwrap();
        let mut bug = bugs.bug.into_iter().next().unwrap();
        bug.complete("stem", bugs.build.as_ref(), &bugs.runs).unwrap();
        assert_eq!((bug.name.as_str(), bug.build(), &bug.runs[..]), ("stem/n", "b", &["r".to_owned()][..]));
        assert_eq!(bug.edits.len(), 1);
    }

    #[test]
    fn a_bug_that_changes_nothing_or_runs_nothing_is_refused() {
        for (text, wrong) in [
            ("name = 'n'\nwhy = 'w'\nbuild = 'b'\nruns = ['r']", "needs file, find and replace"),
            (
                "name = 'n'\nwhy = 'w'\nfile = 'f'\nfind = 'a'\nreplace = 'b'\nbuild = 'b'",
                "needs a build and runs",
            ),
            (
                "name = 'n'\nwhy = 'w'\nfile = 'f'\nfind = 'a'\nreplace = 'b'\nruns = ['r']",
                "needs a build and runs",
            ),
        ] {
            let mut bug: Bug = toml::from_str(text).unwrap();
            let error = bug.complete("stem", None, &[]).unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
    }
}
