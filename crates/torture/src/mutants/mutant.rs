//! The files of mutants: edits, and the commands that must catch them.

use super::weave::Texts;
use serde::Deserialize;
use std::collections::HashSet;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One file of mutants.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutants {
    /// The default for its mutants.
    build: Option<String>,
    /// Also a default.
    #[serde(default)]
    runs: Vec<String>,
    mutant: Vec<Mutant>,
}

/// A change of the sources that some check must catch.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutant {
    pub name: String,
    /// What it breaks, in a sentence.
    #[serde(default)]
    pub why: String,
    /// The mutant with the same edits and reason, for other runs.
    same: Option<String>,
    file: Option<String>,
    find: Option<String>,
    replace: Option<String>,
    /// More places to edit.
    #[serde(default, rename = "edit")]
    pub edits: Vec<Edit>,
    build: Option<String>,
    #[serde(default)]
    pub runs: Vec<String>,
    /// Seconds that each run may take.
    #[serde(default = "Mutant::some_minutes")]
    timeout: u64,
    /// A timeout counts as a catch: the mutant makes a process hang.
    #[serde(default)]
    pub hangs: bool,
    /// Why no run catches it. Each run must pass.
    pub survives: Option<String>,
}

/// A text to replace.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    pub file: String,
    /// Must occur exactly once.
    pub find: String,
    pub replace: String,
}

impl Mutant {
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

    /// The files that the edits change, with the edits. `read` returns the text of a file.
    pub fn apply(&self, read: &dyn Fn(&Path) -> Result<String, String>) -> Result<Texts, String> {
        let mut texts = Texts::new();
        for edit in &self.edits {
            let file = PathBuf::from(&edit.file);
            let text = match texts.remove(&file) {
                Some(text) => text,
                None => read(&file)?,
            };
            texts.insert(file, edit.apply(&text)?);
        }
        Ok(texts)
    }

    /// Hashes what the fate of the mutant depends on, besides the sources.
    pub fn hash(&self, state: &mut impl Hasher) {
        self.edits.iter().for_each(|edit| (&edit.file, &edit.find, &edit.replace).hash(state));
        (&self.build, &self.runs, self.timeout, self.hangs, self.survives.is_some()).hash(state);
    }

    /// Fills in the defaults of the file, and reports missing fields.
    fn complete(&mut self, stem: &str, build: Option<&String>, runs: &[String]) -> Result<(), String> {
        let Mutant { file, find, replace, .. } = self;
        match (file.take(), find.take(), replace.take()) {
            (Some(file), Some(find), Some(replace)) => self.edits.insert(0, Edit { file, find, replace }),
            (None, None, None) if self.edits.is_empty() != self.same.is_none() => {}
            _ => return Err(format!("{stem}/{}: needs file, find and replace", self.name)),
        }
        if self.why.is_empty() != self.same.is_some() {
            return Err(format!("{stem}/{}: needs a reason", self.name));
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
    /// Applies the edit to a text.
    pub fn apply(&self, text: &str) -> Result<String, String> {
        match text.matches(&self.find).count() {
            1 => Ok(text.replacen(&self.find, &self.replace, 1)),
            0 => Err(format!("text not found in {}", self.file)),
            times => Err(format!("text found {times} times in {}", self.file)),
        }
    }
}

/// Reads the mutants of all files in `folder`. Their names are `file/mutant`.
pub fn read(folder: &Path) -> Result<Vec<Mutant>, String> {
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
        let mutants: Mutants = toml::from_str(&text).map_err(|e| error(&path, &e))?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        for mut mutant in mutants.mutant {
            mutant.complete(&stem, mutants.build.as_ref(), &mutants.runs)?;
            all.push(mutant);
        }
    }
    for at in 0..all.len() {
        let Some(same) = all[at].same.take() else { continue };
        let original = all.iter().find(|mutant| mutant.name == same && !mutant.edits.is_empty());
        let original = original.ok_or_else(|| format!("{}: no mutant {same}", all[at].name))?;
        (all[at].edits, all[at].why) = (original.edits.clone(), original.why.clone());
    }
    let mut names = HashSet::new();
    match all.iter().find(|mutant| !names.insert(&mutant.name)) {
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
    fn edit_requires_exactly_one_match() {
        assert_eq!(edit("b").apply("abc").unwrap(), "aXc");
        assert_eq!(edit("d").apply("abc").unwrap_err(), "text not found in f");
        assert_eq!(edit("b").apply("abcb").unwrap_err(), "text found 2 times in f");
    }

    #[test]
    fn file_gives_defaults_to_its_mutants() {
        let text = "build = 'b'\nruns = ['r']\n[[mutant]]\nname = 'n'\nwhy = 'w'\nfile = 'f'\nfind = 'a'\nreplace = 'b'\n";
        let mutants: Mutants = toml::from_str(text).unwrap();
        let mut mutant = mutants.mutant.into_iter().next().unwrap();
        mutant.complete("stem", mutants.build.as_ref(), &mutants.runs).unwrap();
        assert_eq!(
            (mutant.name.as_str(), mutant.build(), &mutant.runs[..]),
            ("stem/n", "b", &["r".to_owned()][..])
        );
        assert_eq!(mutant.edits.len(), 1);
    }

    #[test]
    fn mutant_without_edits_or_runs_is_refused() {
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
            let mut mutant: Mutant = toml::from_str(text).unwrap();
            let error = mutant.complete("stem", None, &[]).unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
    }
}
