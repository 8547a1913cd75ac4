//! What is no pipe, or none that this version can use, is refused with the reason and left as it was.

mod support;

use shmpipe::{Options, Pipe, SetupError, inspect, list, unlink, unlink_force};
use std::fmt::Debug;
use support::attached_by;
use support::name::Name;
use support::raw::{self, Attached};

/// Everything that can be done at an address. The name says which attempt an error is of.
type Attempt = (&'static str, fn(&Name) -> Result<(), SetupError>);

const OPENING: [Attempt; 3] = [
    ("open", |name| Pipe::open(name).map(drop)),
    ("open_or_create", |name| Pipe::open_or_create(name).map(drop)),
    ("create", |name| Options::new().create(name).map(drop)),
];
const REMOVING: [Attempt; 2] = [("unlink", |name| unlink(name)), ("unlink_force", |name| unlink_force(name))];
const LOOKING: Attempt = ("inspect", |name| inspect(name).map(drop));

fn every_attempt() -> impl Iterator<Item = Attempt> {
    OPENING.into_iter().chain(REMOVING).chain([LOOKING])
}

/// What can be known of a foreign segment from outside.
fn state(segment: i32) -> impl Debug + PartialEq {
    let status = raw::status(segment).expect("still there");
    let permissions = status.shm_perm;
    (Attached::new(segment).bytes(), permissions.mode, permissions.uid, permissions.gid, status.shm_ctime)
}

fn stays_as_it_is(name: &Name, attempts: impl Iterator<Item = Attempt>, check: impl Fn(&str, SetupError)) {
    let segment = name.segment().unwrap();
    let set = name.set();
    let before = state(segment);
    // Somebody who has it attached, as its owner might.
    let _owner = Attached::new(segment);
    attached_by(segment, 1);
    for (what, attempt) in attempts {
        let error = attempt(name).map_or_else(|error| error, |()| panic!("{what}: done"));
        check(what, error);
        attached_by(segment, 1);
        assert_eq!(name.set(), set, "{what}: a semaphore set");
    }
    list().unwrap();
    attached_by(segment, 1);
    assert_eq!(state(segment), before);
}

#[test]
fn a_foreign_segment_is_left_as_it_was_byte_for_byte() {
    type Pattern = fn(usize) -> u8;
    let patterns: [(&str, Pattern); 3] =
        [("text", |i| b"something else altogether. "[i % 27]), ("zeros", |_| 0), ("ones", |_| 0xFF)];
    for (pattern, byte) in patterns {
        let name = Name::new();
        Attached::new(raw::make_segment(name.key(), 20_000, 0o600)).fill(byte);
        let word = u64::from_le_bytes(std::array::from_fn(byte));
        stays_as_it_is(&name, every_attempt(), |what, error| {
            let SetupError::Foreign { found, what: word_named, .. } = error else {
                panic!("{what} {pattern}: {error:?}")
            };
            assert_eq!((found, word_named), (word, "the first word"), "{what} {pattern}");
            let text = error.to_string();
            assert!(text.contains(name.as_str()) && text.contains(&format!("{word:#x}")), "{text}");
        });
    }
}

#[test]
fn a_segment_smaller_than_a_header_is_foreign() {
    let name = Name::new();
    Attached::new(raw::make_segment(name.key(), 2052, 0o666)).fill(|i| i as u8);
    stays_as_it_is(&name, every_attempt(), |what, error| {
        assert!(
            matches!(error, SetupError::Foreign { found: 2052, expected: 4096, .. }),
            "{what}: {error:?}"
        );
    });
}

#[test]
fn a_foreign_set_is_left_as_it_was_and_gets_no_segment() {
    // One of another size, and one of the same size that is used otherwise.
    for (count, values, found, expected) in
        [(3, vec![5, 0, 7], 3, 8), (8, vec![0, 0, 0, 77, 0, 0, 0, 1], 77, 0)]
    {
        let name = Name::new();
        let set = raw::make_set(name.key(), count);
        (0..).zip(&values).for_each(|(number, &value)| raw::set_semaphore(set, number, value));
        for (what, attempt) in &OPENING[1..] {
            let error = attempt(&name).unwrap_err();
            assert!(
                matches!(error, SetupError::Foreign { found: f, expected: e, .. } if (f, e) == (found, expected)),
                "{what}: {error:?}"
            );
        }
        for (what, attempt) in REMOVING.into_iter().chain([OPENING[0], LOOKING]) {
            let error = attempt(&name).unwrap_err();
            assert!(matches!(error, SetupError::NotFound { .. }), "{what}: {error:?}");
        }
        assert_eq!(name.segment(), None);
        assert_eq!(name.set(), Some(set));
        let after: Vec<i32> = (0..count).map(|number| raw::semaphore(set, number)).collect();
        assert_eq!(after, values);
    }
}

#[test]
fn a_pipe_beside_a_foreign_set_is_not_opened() {
    let name = Name::new();
    Options::new().create(&name).unwrap();
    raw::remove_set(name.set().unwrap());
    let set = raw::make_set(name.key(), 2);
    let error = Pipe::open(&name).unwrap_err();
    assert!(matches!(error, SetupError::Foreign { found: 2, .. }), "{error:?}");
    assert_eq!((raw::semaphore(set, 0), raw::semaphore(set, 1)), (0, 0));
}

/// Offsets in the header.
const READY: usize = 0;
const VERSION: usize = 8;
const BYTE_ORDER: usize = 12;
const HEADER_SIZE: usize = 16;
const CAPACITY: usize = 24;
const FEATURES: usize = 32;
const HINTS: usize = 40;
const WAKE_MODE: usize = 92;
const NAME_LENGTH: usize = 100;
const NAME: usize = 104;

/// A header that something is wrong with is refused by every attempt to use it, for that reason.
fn refused(patch: impl Fn(&Attached), check: impl Fn(&SetupError) -> bool, said: &[&str]) {
    let name = Name::new();
    Options::new().capacity(4096).create(&name).unwrap();
    patch(&Attached::new(name.segment().unwrap()));
    let attempts = OPENING.into_iter().chain([LOOKING, REMOVING[0]]);
    stays_as_it_is(&name, attempts, |what, error| {
        assert!(check(&error), "{what}: {error:?}");
        for part in said {
            assert!(error.to_string().contains(part), "{what}: {error}");
        }
    });
    // Whoever insists can remove it.
    unlink_force(&name).unwrap();
    assert!(name.is_unused());
}

#[test]
fn another_byte_order_is_refused() {
    let is_order = |error: &SetupError| matches!(error, SetupError::ByteOrder);
    // Everything else is in that order as well; the first word is enough to tell.
    refused(|segment| segment.set(READY, segment.get(READY).swap_bytes()), is_order, &["byte order"]);
    refused(|segment| segment.set_u32(BYTE_ORDER, 0x0403_0201), is_order, &["byte order"]);
}

#[test]
fn another_layout_version_is_refused_with_both_versions() {
    refused(
        |segment| segment.set_u32(VERSION, 7),
        |error| matches!(error, SetupError::LayoutVersion { found: 7, expected: 1 }),
        &["version 7", "expected 1"],
    );
}

#[test]
fn unknown_features_are_refused_with_their_bits_and_unknown_hints_are_not() {
    refused(
        |segment| segment.set(FEATURES, 0x20),
        |error| matches!(error, SetupError::Features { unknown: 0x20 }),
        &["0x20"],
    );
    let name = Name::new();
    Options::new().create(&name).unwrap();
    Attached::new(name.segment().unwrap()).set(HINTS, u64::MAX);
    Pipe::open(&name).unwrap();
}

#[test]
fn header_words_that_no_creator_writes_are_refused_with_the_word() {
    let malformed = |word: &'static str, value: u64| move |error: &SetupError| matches!(error, SetupError::Malformed { word: w, found } if *w == word && *found == value);
    for size in [0, 2048, 8192, u64::MAX] {
        refused(|segment| segment.set(HEADER_SIZE, size), malformed("header size", size), &["header size"]);
    }
    for capacity in [0, 1, 2048, 3000, 4095, 1 << 41, u64::MAX] {
        let said = capacity.to_string();
        refused(
            |segment| segment.set(CAPACITY, capacity),
            malformed("capacity", capacity),
            &["capacity", &said],
        );
    }
    for mode in [0, 4, u32::MAX] {
        refused(
            |segment| segment.set_u32(WAKE_MODE, mode),
            malformed("wake mode", mode.into()),
            &["wake mode"],
        );
    }
    let is_about_name =
        |error: &SetupError| matches!(error, SetupError::Malformed { word, .. } if word.contains("name"));
    for length in [65, u32::MAX] {
        refused(|segment| segment.set_u32(NAME_LENGTH, length), is_about_name, &["name"]);
    }
    // Not UTF-8, and what would be dangerous to print.
    for bytes in [*b"\xFF\xFF\xFF\xFF", *b"\x1b[2J", *b"a/b:"] {
        refused(|segment| segment.set_u32(NAME, u32::from_le_bytes(bytes)), is_about_name, &["name"]);
    }
}

#[test]
fn a_segment_smaller_than_its_header_says_is_refused_with_both_sizes() {
    refused(
        |segment| segment.set(CAPACITY, 8192),
        |error| matches!(error, SetupError::TooSmall { size: 8192, needed: 12_288 }),
        &["8192", "12288"],
    );
}
