//! A copy of the repository to edit.

use super::weave::Texts;
use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The copy. Its `target/` stays from run to run, so that cargo builds only what changes.
#[derive(Debug)]
pub struct Tree {
    pub root: PathBuf,
}

impl Tree {
    /// Updates the copy at `root` with the files of `repository` that git tracks or does not ignore, and with `texts` in place of
    /// some. Does not write files that are unchanged, so that cargo does not build them again.
    pub fn copy(repository: &Path, root: &Path, texts: &Texts) -> Result<Self, String> {
        let mut files = files(repository)?;
        files.extend(texts.keys().cloned());
        fs::create_dir_all(root).map_err(|e| format!("{}: {e}", root.display()))?;
        let tree = Tree { root: root.to_owned() };
        tree.remove_others(root, &files).map_err(|e| format!("{}: {e}", root.display()))?;
        for file in &files {
            let (from, to) = (repository.join(file), root.join(file));
            let copy = || {
                let text = texts.get(file).map_or_else(|| fs::read(&from), |text| Ok(text.clone().into()))?;
                if fs::read(&to).is_ok_and(|old| old == text) {
                    return Ok(());
                }
                fs::create_dir_all(to.parent().expect("in the tree"))?;
                fs::write(&to, text)?;
                match fs::metadata(&from) {
                    Ok(metadata) => fs::set_permissions(&to, metadata.permissions()),
                    Err(_) => Ok(()),
                }
            };
            copy().map_err(|e: io::Error| format!("{}: {e}", from.display()))?;
        }
        Ok(tree)
    }

    /// Removes files of an earlier copy that are not in `files`, except everything named `target`.
    fn remove_others(&self, folder: &Path, files: &BTreeSet<PathBuf>) -> io::Result<()> {
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

    /// Replaces files until the returned value is dropped.
    pub fn replace(&self, texts: &Texts) -> Result<Replaced, String> {
        let mut replaced = Replaced(vec![]);
        for (file, text) in texts {
            let path = self.root.join(file);
            let swap = || {
                let before = fs::read(&path)?;
                fs::write(&path, text)?;
                Ok(before)
            };
            let before = swap().map_err(|e: io::Error| format!("{}: {e}", path.display()))?;
            replaced.0.push((path, before));
        }
        Ok(replaced)
    }
}

/// Restores the replaced files when dropped.
#[derive(Debug)]
pub struct Replaced(Vec<(PathBuf, Vec<u8>)>);

impl Drop for Replaced {
    fn drop(&mut self) {
        for (path, text) in &self.0 {
            fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
    }
}

/// A number for the files of `repository`, without documents, the mutants and what runs them.
pub fn fingerprint(repository: &Path) -> Result<u64, String> {
    let mut hasher = DefaultHasher::new();
    for file in files(repository)? {
        let is_document = file.extension().is_some_and(|extension| extension == "md");
        let is_ours =
            ["crates/torture/mutants", "crates/torture/src/mutants", "crates/torture/src/mutants.rs"];
        if !is_document && !is_ours.iter().any(|ours| file.starts_with(ours)) {
            let text = fs::read(repository.join(&file)).map_err(|e| format!("{}: {e}", file.display()))?;
            (file, text).hash(&mut hasher);
        }
    }
    Ok(hasher.finish())
}

/// The files of `repository` that git tracks or does not ignore, and that exist.
fn files(repository: &Path) -> Result<BTreeSet<PathBuf>, String> {
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
