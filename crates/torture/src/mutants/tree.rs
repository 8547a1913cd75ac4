//! A copy of the repository to edit.

use super::mutant::Edit;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The copy. Its `target/` stays from run to run, so that cargo builds only what changes.
#[derive(Debug)]
pub struct Tree {
    pub root: PathBuf,
}

impl Tree {
    /// Updates the copy at `root` with the files of `repository` that git tracks or does not ignore. Does not write files that
    /// are unchanged, so that cargo does not build them again.
    pub fn copy(repository: &Path, root: &Path) -> Result<Self, String> {
        let files = files(repository)?;
        fs::create_dir_all(root).map_err(|e| format!("{}: {e}", root.display()))?;
        let tree = Tree { root: root.to_owned() };
        tree.remove_others(root, &files).map_err(|e| format!("{}: {e}", root.display()))?;
        for file in &files {
            let (from, to) = (repository.join(file), root.join(file));
            let copy = || {
                let text = fs::read(&from)?;
                if fs::read(&to).is_ok_and(|old| old == text) {
                    return Ok(());
                }
                fs::create_dir_all(to.parent().expect("in the tree"))?;
                fs::write(&to, text)?;
                fs::set_permissions(&to, fs::metadata(&from)?.permissions())
            };
            copy().map_err(|e: io::Error| format!("{}: {e}", from.display()))?;
        }
        Ok(tree)
    }

    /// Removes files of an earlier copy that are not in `files`, except everything named `target`.
    fn remove_others(&self, folder: &Path, files: &HashSet<PathBuf>) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name == "target") {
                continue;
            }
            if path.is_dir() {
                self.remove_others(&path, files)?;
            } else if !files.contains(path.strip_prefix(&self.root).expect("in the tree")) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Applies the edits until the returned value is dropped.
    pub fn edit(&self, edits: &[Edit]) -> Result<Edited, String> {
        let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
        for edit in edits {
            let path = self.root.join(&edit.file);
            if !after.contains_key(&path) {
                let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", edit.file))?;
                before.insert(path.clone(), text.clone());
                after.insert(path.clone(), text);
            }
            let text = edit.apply(&after[&path])?;
            after.insert(path, text);
        }
        let edited = Edited { before };
        for (path, text) in after {
            fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        Ok(edited)
    }
}

/// Restores the edited files when dropped.
#[derive(Debug)]
pub struct Edited {
    before: BTreeMap<PathBuf, String>,
}

impl Drop for Edited {
    fn drop(&mut self) {
        for (path, text) in &self.before {
            fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
    }
}

/// The files of `repository` that git tracks or does not ignore, and that exist.
fn files(repository: &Path) -> Result<HashSet<PathBuf>, String> {
    let mut git = Command::new("git");
    git.arg("-C").arg(repository).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = git.output().map_err(|e| format!("git ls-files: {e}"))?;
    if !output.status.success() {
        return Err(format!("git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let names = String::from_utf8(output.stdout).map_err(|e| format!("git ls-files: {e}"))?;
    let files = names.split_terminator('\0').map(PathBuf::from);
    Ok(files.filter(|file| repository.join(file).is_file()).collect())
}
