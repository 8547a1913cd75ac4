//! What the libraries export.

use crate::compiler::{built, folder, has, run, soname};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

/// The functions that the header declares.
pub fn declared() -> BTreeSet<String> {
    let header = fs::read_to_string(folder().join("include/shmpipe.h")).unwrap();
    let code: String =
        header.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let words = code.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '(');
    let calls = words.filter_map(|word| word.split_once('(')).map(|(name, _)| name.to_owned());
    calls.filter(|name| name.starts_with("shmpipe_")).collect()
}

/// The symbols that `nm` finds defined.
fn defined(options: &[&str], library: &str) -> BTreeSet<String> {
    let symbols = run(Command::new("nm").args(options).arg("--defined-only").arg(built(library)));
    symbols.lines().filter_map(|line| line.split(' ').nth(2)).map(str::to_owned).collect()
}

#[test]
fn shared_library_exports_what_the_header_declares_and_nothing_else() {
    if !has("nm", "shared_library_exports_what_the_header_declares_and_nothing_else") {
        return;
    }
    let mut expected = declared();
    assert!(expected.len() > 80, "{expected:?}");
    if cfg!(debug_assertions) {
        expected.insert("shmpipe_test_panic".into());
    }
    assert_eq!(defined(&["--dynamic"], "libshmpipe_c.so"), expected);
}

#[test]
fn static_library_has_what_the_header_declares() {
    if !has("nm", "static_library_has_what_the_header_declares") {
        return;
    }
    let defined = defined(&[], "libshmpipe_c.a");
    let missing: Vec<_> = declared().into_iter().filter(|name| !defined.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn soname_names_the_compatible_version() {
    if !has("readelf", "soname_names_the_compatible_version") {
        return;
    }
    let found = run(Command::new("readelf").arg("--dynamic").arg(built("libshmpipe_c.so")));
    assert!(found.contains(&format!("Library soname: [{}]", soname())), "{found}");
}
