//! An object that is no pipe, or no pipe that this version can use, is refused with the reason and left unchanged.

use shmpipe::error::{Damage, Mismatch};
use shmpipe::{Options, Pipe, SetupError, inspect, list, unlink, unlink_force};
use shmpipe_testing::backend::{Backend, Place};
use shmpipe_testing::layout::READY;
use shmpipe_testing::layout::identity::{
    BYTE_ORDER, CAPACITY, FEATURES, HEADER_SIZE, HINTS, LAYOUT_VERSION, NAME, NAME_LENGTH, WAKE_MODE,
};
use shmpipe_testing::raw::Attached;
use shmpipe_testing::rng::Rng;
use std::fmt::Debug;

/// An operation on an address, with its name for error messages.
type Attempt = (&'static str, fn(&Place) -> Result<(), SetupError>);

/// Every way to open an existing object. For a memfd, only `open`: the others always create a new one.
fn opening(backend: Backend) -> impl Iterator<Item = Attempt> {
    let all: [Attempt; 3] = [
        ("open", |place| Pipe::open(place).map(drop)),
        ("open_or_create", |place| place.open_or_create(&Options::new()).map(drop)),
        ("create", |place| place.create(&Options::new()).map(drop)),
    ];
    all.into_iter().take(if backend == Backend::Memfd { 1 } else { 3 })
}

/// Every way to remove an existing object, which needs a name.
fn removing(backend: Backend) -> impl Iterator<Item = Attempt> {
    let all: [Attempt; 2] =
        [("unlink", |place| unlink(place)), ("unlink_force", |place| unlink_force(place))];
    all.into_iter().filter(move |_| backend != Backend::Memfd)
}

const INSPECTING: Attempt = ("inspect", |place| inspect(place).map(drop));

fn every_attempt(backend: Backend) -> impl Iterator<Item = Attempt> {
    opening(backend).chain(removing(backend)).chain([INSPECTING])
}

/// All that is visible of the object from outside.
fn state(place: &Place) -> impl Debug + PartialEq + use<> {
    (place.segment().bytes(), place.status())
}

fn stays_unchanged(place: &Place, attempts: impl Iterator<Item = Attempt>, check: impl Fn(&str, SetupError)) {
    let before = state(place);
    // As the owner may have it attached.
    let _owner = place.segment();
    place.attached_by(1);
    for (what, attempt) in attempts {
        let error = attempt(place).map_or_else(|error| error, |()| panic!("{what}: succeeded"));
        check(what, error);
        place.attached_by(1);
        assert_eq!(state(place), before, "{what}");
    }
    assert!(list().sysv_error.is_none());
    place.attached_by(1);
    assert_eq!(state(place), before, "a listing");
}

pub fn a_foreign_segment_is_refused_and_left_unchanged(backend: Backend) {
    let text = b"something else altogether. ".repeat(800);
    let mut rng = Rng::of_this_run("foreign");
    let mut contents = vec![("text", text), ("zeros", vec![0; 20_000]), ("ones", vec![0xFF; 20_000])];
    contents.extend([4096, 4097, 8191, 8192, 20_000].map(|size| {
        let mut bytes = vec![0; size];
        rng.fill(&mut bytes);
        ("random bytes", bytes)
    }));
    for (kind, bytes) in contents {
        let place = backend.foreign(bytes.len(), 0o600);
        place.segment().fill(|i| bytes[i]);
        let word = u64::from_le_bytes(*bytes.first_chunk().unwrap());
        stays_unchanged(&place, every_attempt(backend), |what, error| {
            let SetupError::Foreign { found, what: word_named, .. } = error else {
                panic!("{what}, {} {kind}: {error:?}", bytes.len())
            };
            assert_eq!((found, word_named), (word, "the first word"), "{what}, {} {kind}", bytes.len());
            let text = error.to_string();
            assert!(text.contains(place.as_str()) && text.contains(&format!("{word:#x}")), "{text}");
        });
    }
}

pub fn a_segment_smaller_than_a_header_is_foreign(backend: Backend) {
    for size in [1, 8, 2052, 4095] {
        let place = backend.foreign(size, 0o666);
        place.segment().fill(|i| i as u8);
        stays_unchanged(&place, every_attempt(backend), |what, error| {
            assert!(
                matches!(error, SetupError::Foreign { found, expected: 4096, .. } if found == size as u64),
                "{what}, {size} bytes: {error:?}"
            );
        });
    }
}

/// The first bytes of a valid pipe of 8192 bytes.
pub fn a_truncated_pipe_is_refused_with_both_sizes(backend: Backend) {
    let pipe = backend.place();
    pipe.create(&Options::new().capacity(4096)).unwrap();
    let image = pipe.segment().bytes();
    for size in [0, 1, 4095, 4096, 8191] {
        let place = backend.foreign(size, 0o600);
        let is_right = |error: &SetupError| match error {
            SetupError::Foreign { found, expected: 4096, .. } => size < 4096 && *found == size as u64,
            SetupError::Damaged(Damage::TooSmall { size: found, needed: 8192 }) => {
                size >= 4096 && *found == size as u64
            }
            _ => false,
        };
        let check =
            |what: &str, error: SetupError| assert!(is_right(&error), "{what}, {size} bytes: {error:?}");
        if size == 0 {
            // Cannot be mapped.
            every_attempt(backend).for_each(|(what, attempt)| check(what, attempt(&place).unwrap_err()));
            continue;
        }
        place.segment().fill(|i| image[i]);
        let attempts = opening(backend).chain([INSPECTING]).chain(removing(backend).take(1));
        stays_unchanged(&place, attempts, check);
    }
}

/// A pipe with a patched header is refused by every operation, with the right error.
fn refused(backend: Backend, patch: impl Fn(&Attached), check: impl Fn(&SetupError) -> bool, parts: &[&str]) {
    let place = backend.place();
    place.create(&Options::new().capacity(4096)).unwrap();
    patch(&place.segment());
    let attempts = opening(backend).chain([INSPECTING]).chain(removing(backend).take(1));
    stays_unchanged(&place, attempts, |what, error| {
        assert!(check(&error), "{what}: {error:?}");
        for part in parts {
            assert!(error.to_string().contains(part), "{what}: {error}");
        }
    });
    // A removal by force succeeds.
    for (_, remove) in removing(backend).skip(1) {
        remove(&place).unwrap();
        assert!(place.is_unused());
    }
}

pub fn another_byte_order_is_refused(backend: Backend) {
    let is_order = |error: &SetupError| matches!(error, SetupError::Incompatible(Mismatch::ByteOrder));
    // A segment of another byte order differs in every word. The first word is enough to detect it.
    refused(
        backend,
        |segment| segment.set(READY, segment.get(READY).swap_bytes()),
        is_order,
        &["byte order"],
    );
    refused(backend, |segment| segment.set_u32(BYTE_ORDER, 0x0403_0201), is_order, &["byte order"]);
}

pub fn another_layout_version_is_refused_with_both_versions(backend: Backend) {
    refused(
        backend,
        |segment| segment.set_u32(LAYOUT_VERSION, 7),
        |error| matches!(error, SetupError::Incompatible(Mismatch::LayoutVersion { found: 7, expected: 2 })),
        &["version 7", "expected 2"],
    );
}

pub fn unknown_features_are_refused_and_unknown_hints_are_accepted(backend: Backend) {
    refused(
        backend,
        |segment| segment.set(FEATURES, 0x20),
        |error| matches!(error, SetupError::Incompatible(Mismatch::Features { unknown: 0x20 })),
        &["0x20"],
    );
    let place = backend.place();
    place.create(&Options::new()).unwrap();
    place.segment().set(HINTS, u64::MAX);
    Pipe::open(&place).unwrap();
}

pub fn an_invalid_header_word_is_refused_by_name(backend: Backend) {
    let malformed = |word: &'static str, value: u64| {
        move |error: &SetupError| {
            let SetupError::Damaged(Damage::Header { word: named, found }) = error else { return false };
            (*named, *found) == (word, value)
        }
    };
    for size in [0, 2048, 8192, u64::MAX] {
        refused(
            backend,
            |segment| segment.set(HEADER_SIZE, size),
            malformed("header size", size),
            &["header size"],
        );
    }
    for capacity in [0, 1, 2048, 3000, 4095, 1 << 41, u64::MAX] {
        let number = capacity.to_string();
        refused(
            backend,
            |segment| segment.set(CAPACITY, capacity),
            malformed("capacity", capacity),
            &["capacity", &number],
        );
    }
    for mode in [0, 4, u32::MAX] {
        refused(
            backend,
            |segment| segment.set_u32(WAKE_MODE, mode),
            malformed("wake mode", mode.into()),
            &["wake mode"],
        );
    }
    let is_about_name = |error: &SetupError| {
        let SetupError::Damaged(Damage::Header { word, .. }) = error else { return false };
        word.contains("name")
    };
    for length in [65, u32::MAX] {
        refused(backend, |segment| segment.set_u32(NAME_LENGTH, length), is_about_name, &["name"]);
    }
    // Invalid UTF-8, and characters that are dangerous to print.
    for bytes in [*b"\xFF\xFF\xFF\xFF", *b"\x1b[2J", *b"a/b:"] {
        refused(
            backend,
            |segment| {
                segment.set_u32(NAME_LENGTH, 4);
                segment.set_u32(NAME, u32::from_le_bytes(bytes));
            },
            is_about_name,
            &["name"],
        );
    }
}

pub fn a_segment_smaller_than_its_header_says_is_refused_with_both_sizes(backend: Backend) {
    refused(
        backend,
        |segment| segment.set(CAPACITY, 8192),
        |error| matches!(error, SetupError::Damaged(Damage::TooSmall { size: 8192, needed: 12_288 })),
        &["8192", "12288"],
    );
}
