//! `mutants/orderings.toml` is complete: exactly one mutant weakens each ordering of the library that is not Relaxed.

use super::mutant::{self, Mutant};
use super::{MUTANTS, repository};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Files to skip: the models, and their stand-ins for the kernel and for death.
const MODELS: [&str; 4] = [
    "src/protocol/models",
    "src/protocol/models.rs",
    "src/protocol/sync/loom.rs",
    "src/protocol/sync/mortal.rs",
];

const ORDERINGS: [(&str, u32); 4] =
    [("Ordering::Acquire", 1), ("Ordering::Release", 1), ("Ordering::AcqRel", 2), ("Ordering::SeqCst", 3)];

/// The orderings in a text that are not Relaxed and not in a comment, each with its strength.
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

fn weakens(mutant: &Mutant, file: &Path, text: &str, at: &Range<usize>) -> bool {
    let strength = |text: &str| strong(text).iter().map(|(_, strength)| strength).sum::<u32>();
    mutant.edits.iter().any(|edit| {
        file.ends_with(&edit.file)
            && strong(&edit.find).len() == 1
            && strength(&edit.replace) < strength(&edit.find)
            && text
                .find(&edit.find)
                .is_some_and(|start| start <= at.start && at.end <= start + edit.find.len())
    })
}

#[test]
fn exactly_one_mutant_weakens_each_ordering() {
    let mut mutants = mutant::read(&repository().join(MUTANTS)).unwrap();
    mutants.retain(|mutant| mutant.name.starts_with("orderings/"));
    let mut files = vec![];
    sources(&repository().join("src"), &mut files);
    let mut seen = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        assert!(
            !text.contains("Ordering::{") && !text.contains("Ordering::*"),
            "{}: write orderings as `Ordering::Acquire`",
            file.display()
        );
        for (at, _) in strong(&text) {
            let line = text[..at.start].lines().count();
            let times = mutants.iter().filter(|mutant| weakens(mutant, &file, &text, &at)).count();
            assert_eq!(times, 1, "{}:{line}: mutants that weaken it", file.display());
            seen += 1;
        }
    }
    assert!(seen > 30, "only {seen} orderings found");
}

#[test]
fn orderings_in_comments_do_not_count() {
    let text = "a(Ordering::Acquire);\n  // b(Ordering::SeqCst)\nc(Ordering::Relaxed, Ordering::SeqCst)";
    assert_eq!(strong(text).iter().map(|(_, strength)| *strength).collect::<Vec<_>>(), [1, 3]);
}
