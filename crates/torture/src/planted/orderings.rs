//! `planted/orderings.toml` is complete: each ordering of the library that is not Relaxed is weakened by a bug of its own.

use super::bug::{self, Bug};
use super::repository;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What is not the library: the models, and what stands for the kernel and for death in them.
const MODELS: [&str; 4] = [
    "src/protocol/models",
    "src/protocol/models.rs",
    "src/protocol/sync/loom.rs",
    "src/protocol/sync/mortal.rs",
];

const ORDERINGS: [(&str, u32); 4] =
    [("Ordering::Acquire", 1), ("Ordering::Release", 1), ("Ordering::AcqRel", 2), ("Ordering::SeqCst", 3)];

/// Where the orderings that are not Relaxed stand in a text, outside of comments, and how strong each is.
fn strong(text: &str) -> Vec<(Range<usize>, u32)> {
    let mut found = vec![];
    for (name, strength) in ORDERINGS {
        for (at, _) in text.match_indices(name) {
            let line = &text[text[..at].rfind('\n').map_or(0, |end| end + 1)..at];
            if !line.trim_start().starts_with("//") {
                found.push((at..at + name.len(), strength));
            }
        }
    }
    found
}

fn sources(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_model = MODELS.iter().any(|model| path.ends_with(model));
        if path.is_dir() && !is_model {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !is_model {
            all.push(path);
        }
    }
}

fn weakens(bug: &Bug, file: &Path, text: &str, at: &Range<usize>) -> bool {
    let strength = |text: &str| strong(text).iter().map(|(_, strength)| strength).sum::<u32>();
    bug.edits.iter().any(|edit| {
        file.ends_with(&edit.file)
            && strong(&edit.find).len() == 1
            && strength(&edit.replace) < strength(&edit.find)
            && text
                .find(&edit.find)
                .is_some_and(|start| start <= at.start && at.end <= start + edit.find.len())
    })
}

#[test]
fn every_ordering_is_weakened_by_a_bug_of_its_own() {
    let mut bugs = bug::read(&repository().join("crates/torture/planted")).unwrap();
    bugs.retain(|bug| bug.name.starts_with("orderings/"));
    let mut files = vec![];
    sources(&repository().join("src"), &mut files);
    let mut seen = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        assert!(
            !text.contains("Ordering::{") && !text.contains("Ordering::*"),
            "{}: by their full names",
            file.display()
        );
        for (at, _) in strong(&text) {
            let line = text[..at.start].lines().count();
            let times = bugs.iter().filter(|bug| weakens(bug, &file, &text, &at)).count();
            assert_eq!(times, 1, "{}:{line}: bugs that weaken it", file.display());
            seen += 1;
        }
    }
    assert!(seen > 30, "only {seen} orderings found");
}

#[test]
fn an_ordering_in_a_comment_is_none() {
    let text = "a(Ordering::Acquire);\n  // b(Ordering::SeqCst)\nc(Ordering::Relaxed, Ordering::SeqCst)";
    assert_eq!(strong(text).iter().map(|(_, strength)| *strength).collect::<Vec<_>>(), [1, 3]);
}
