//! The arguments of `--against`: commits of this repository, or directories with copies of it.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::manifest;
use crate::errors::{about, unfit};

/// The root of the tree from which this program was built.
pub(super) const THIS_TREE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// One revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Revision {
    /// Its name in the tables: `shmpipe@LABEL`.
    pub(super) label: String,
    pub(super) source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The full hash of a commit.
    Commit(String),
    /// The root of a working copy.
    Directory(PathBuf),
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Commit(id) => write!(f, "@{}: commit {}", self.label, &id[..12.min(id.len())]),
            Source::Directory(path) => write!(f, "@{}: directory {}", self.label, path.display()),
        }
    }
}

/// The revisions of these words.
///
/// # Errors
/// `InvalidInput` for a word that names no revision, and for two with the same label.
pub(super) fn parse_all(words: &[String]) -> io::Result<Vec<Revision>> {
    let revisions = words.iter().map(|word| parse(word)).collect::<io::Result<Vec<_>>>()?;
    let mut labels = HashSet::new();
    for Revision { label, .. } in &revisions {
        if !labels.insert(label) {
            return Err(unfit(format!(
                "--against: two revisions are called {label}; give one another name: NAME=REV"
            )));
        }
    }
    Ok(revisions)
}

fn parse(word: &str) -> io::Result<Revision> {
    let (label, name) = split(word);
    if name.is_empty() || name.starts_with('-') {
        return Err(unfit(format!("--against {word}: expected a revision or a directory")));
    }
    let source = match commit(name)? {
        Some(id) => Source::Commit(id),
        None => Source::Directory(directory(name)?),
    };
    let label = label.map_or_else(|| label_of(name, &source), str::to_owned);
    Ok(Revision { label, source })
}

/// The two parts of `NAME=REV`. Text before an `=` that is no valid name belongs to the revision.
fn split(word: &str) -> (Option<&str>, &str) {
    match word.split_once('=') {
        Some((label, name)) if !label.is_empty() && label.chars().all(fits_label) => (Some(label), name),
        _ => (None, word),
    }
}

/// A label is part of one word of a table, and of a file name.
fn fits_label(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "._~^@-".contains(letter)
}

/// The revision as written, or the last part of the directory's path.
fn label_of(name: &str, source: &Source) -> String {
    let text = match source {
        Source::Commit(_) => name.to_owned(),
        Source::Directory(path) => {
            path.file_name().map_or_else(|| name.to_owned(), |last| last.to_string_lossy().into_owned())
        }
    };
    text.chars().map(|letter| if fits_label(letter) { letter } else { '-' }).collect()
}

/// The hash of the commit with this name, if it exists.
fn commit(name: &str) -> io::Result<Option<String>> {
    let mut git = git();
    git.args(["rev-parse", "--verify", "--quiet", "--end-of-options", &format!("{name}^{{commit}}")]);
    match git.output() {
        Ok(output) if output.status.success() => {
            Ok(Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()))
        }
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(about(format_args!("git rev-parse {name}"), error)),
    }
}

/// The root of the working copy there.
fn directory(name: &str) -> io::Result<PathBuf> {
    let path = Path::new(name);
    if !path.exists() {
        return Err(unfit(format!(
            "--against {name}: neither a revision that git knows in {} nor a directory; expected one of the two, as in \
             --against HEAD~3 or --against ../copy",
            shown(Path::new(THIS_TREE))
        )));
    }
    let path = path.canonicalize().map_err(|error| about(format_args!("--against {name}"), error))?;
    manifest(&path).map_err(|error| about(format_args!("--against {name}"), error))?;
    Ok(path)
}

/// The manifest of the tree at `root`.
///
/// # Errors
/// An error if it is no tree of this library.
pub(super) fn manifest(root: &Path) -> io::Result<String> {
    let path = root.join("Cargo.toml");
    let text = fs::read_to_string(&path).map_err(|error| {
        about(format_args!("{}: expected the manifest of package shmpipe", shown(&path)), error)
    })?;
    match manifest::package_name(&text) {
        Some("shmpipe") => Ok(text),
        found => Err(unfit(format!(
            "{} is the manifest of {}, expected package shmpipe; name the root of a working copy of this repository",
            shown(&path),
            found.map_or_else(|| "no package".to_owned(), |name| format!("package {name}"))
        ))),
    }
}

fn shown(path: &Path) -> String {
    path.canonicalize().unwrap_or_else(|_| path.to_owned()).display().to_string()
}

fn git() -> Command {
    let mut git = Command::new("git");
    git.arg("-C").arg(THIS_TREE);
    git
}

/// Exports the files of a commit below `trees`, unless an earlier run did. Returns the folder.
pub(super) fn export(id: &str, trees: &Path) -> io::Result<PathBuf> {
    let (tree, part) = (trees.join(id), trees.join(format!("{id}.part")));
    if tree.is_dir() {
        return Ok(tree);
    }
    let _ = fs::remove_dir_all(&part); // half an export of a run that was killed, if there is one
    fs::create_dir_all(&part)?;
    let index = part.join(".index");
    let run = |words: &[&str]| {
        let output = git().args(words).env("GIT_INDEX_FILE", &index).output()?;
        if output.status.success() {
            return Ok(());
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(io::Error::other(format!("git {}: {message}", words.join(" "))))
    };
    run(&["read-tree", id])?;
    run(&["checkout-index", "--all", "--force", &format!("--prefix={}/", part.display())])?;
    fs::remove_file(&index)?;
    fs::rename(&part, &tree)?;
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_precedes_the_equals_sign() {
        assert_eq!(split("old=HEAD~3"), (Some("old"), "HEAD~3"));
        assert_eq!(split("HEAD"), (None, "HEAD"));
        assert_eq!(split("=HEAD"), (None, "=HEAD"));
        assert_eq!(split("HEAD^{/a=b}"), (None, "HEAD^{/a=b}"));
        assert_eq!(split("old=../a=b"), (Some("old"), "../a=b"));
    }

    #[test]
    fn label_is_one_word_and_fits_a_file_name() {
        let commit = Source::Commit("abc".to_owned());
        assert_eq!(label_of("HEAD~3", &commit), "HEAD~3");
        assert_eq!(label_of("feature/fast path", &commit), "feature-fast-path");
        assert_eq!(label_of("..", &Source::Directory("/home/copy".into())), "copy");
    }

    #[test]
    fn directory_is_recognized() {
        let revision = parse(&format!("here={THIS_TREE}")).unwrap();
        let root = Path::new(THIS_TREE).canonicalize().unwrap();
        assert_eq!(revision, Revision { label: "here".to_owned(), source: Source::Directory(root) });
    }

    #[test]
    fn unknown_revision_is_refused_with_what_was_expected() {
        let error = |word: &str| parse(word).unwrap_err().to_string();
        let unknown = error("no-such-revision");
        assert!(unknown.contains("no-such-revision: neither a revision"), "{unknown}");
        let other = error(env!("CARGO_MANIFEST_DIR"));
        assert!(other.contains("package shmpipe-measure, expected package shmpipe"), "{other}");
        let without = error(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
        assert!(without.contains("expected the manifest of package shmpipe"), "{without}");
        assert!(error("").contains("expected a revision"));
        assert!(error("--help").contains("expected a revision"));
    }

    #[test]
    fn revisions_need_different_names() {
        let here = format!("a={THIS_TREE}");
        let error = parse_all(&[here.clone(), here]).unwrap_err().to_string();
        assert!(error.contains("two revisions are called a"), "{error}");
    }
}
