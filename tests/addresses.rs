//! Addresses: each form leads to the segment it names, in this process and in another.

use shmpipe::error::{Mismatch, Unsupported};
use shmpipe::{Address, AddressError, AddressKind, Options, Pipe, SetupError, inspect, unlink};
use shmpipe_testing::name::{Name, Objects, key_of};
use shmpipe_testing::process::part as play;
use shmpipe_testing::{end, raw};
use std::collections::HashMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

#[test]
fn part() {
    play(&[("end", end::play)]);
}

/// Sends through `address` from another process to `pipe`.
fn is_reached(pipe: &Pipe, address: &str) {
    let mut consumer = pipe.consumer().unwrap();
    let mut producer = end::start();
    assert_eq!(producer.ask(format!("open {address}")), format!("pipe {} found", pipe.id()));
    assert_eq!(producer.ask("producer"), "claimed");
    assert_eq!(producer.ask(format!("send {address}")), "sent");
    assert_eq!(consumer.recv().unwrap().to_vec(), address.as_bytes());
    producer.end();
}

#[test]
fn a_name_maps_to_the_key_that_is_its_hash() {
    let name = Name::new();
    let pipe = Options::new().capacity(4096).create(&name).unwrap();
    let seen = inspect(&name).unwrap();
    assert_eq!(
        (raw::ids(&seen).key, Some(raw::ids(&seen).shm_id), Some(raw::ids(&seen).sem_id)),
        (name.key(), name.segment(), name.set())
    );
    is_reached(&pipe, name.as_str());
}

#[test]
fn a_key_is_accepted_in_decimal_and_hexadecimal() {
    let name = Name::new();
    let key = name.key();
    let pipe = Options::new().capacity(4096).create(format!("sysv:{key:#x}")).unwrap();
    assert_eq!(raw::ids(&inspect(pipe.address()).unwrap()).key, key);
    assert_eq!(name.segment(), Some(raw::ids(&inspect(pipe.address()).unwrap()).shm_id));
    for address in [format!("sysv:{key}"), format!("sysv:{key:#x}"), format!("sysv:{}", key as u32)] {
        is_reached(&pipe, &address);
        assert_eq!(address.parse::<Address>().unwrap(), *pipe.address());
    }
    // It has no name, so a name with the same key does not find it.
    let error = Pipe::open(&name).unwrap_err();
    let SetupError::Incompatible(Mismatch::Name { requested, found }) = &error else { panic!("{error:?}") };
    assert_eq!((requested.as_str(), found.as_str()), (name.as_str(), ""));
    assert!(error.to_string().contains(name.as_str()), "{error}");
}

#[test]
fn a_pipe_created_by_name_is_found_by_its_key() {
    let name = Name::new();
    let pipe = Options::new().capacity(4096).create(&name).unwrap();
    is_reached(&pipe, &format!("sysv:{}", name.key()));
}

#[test]
fn an_ftok_address_uses_the_key_of_ftok() {
    let path = std::env::current_exe().unwrap();
    let text = CString::new(path.as_os_str().as_bytes()).unwrap();
    // One of the 255 projects whose key is unused.
    let free = |project: &i32| {
        // SAFETY: the path is a string with a terminator.
        let key = unsafe { libc::ftok(text.as_ptr(), *project) };
        assert_ne!(key, -1);
        raw::find_segment(key).is_none() && raw::find_set(key).is_none()
    };
    let project = (1..=255).find(free).unwrap();
    // SAFETY: as above.
    let key = unsafe { libc::ftok(text.as_ptr(), project) };
    let address = format!("sysv:ftok:{}:{project}", path.display());
    let pipe = Options::new().capacity(4096).create(address.as_str()).unwrap();
    let _objects = Objects::of(&pipe);
    assert_eq!(raw::ids(&inspect(address.as_str()).unwrap()).key, key);
    assert_eq!(pipe.address().to_string(), address);
    assert_eq!(pipe.address().key().unwrap(), Some(key));
    is_reached(&pipe, &address);
    is_reached(&pipe, &format!("sysv:{key:#x}"));
}

#[test]
fn an_ftok_address_of_a_missing_file_is_an_error() {
    let address: Address = "sysv:ftok:/no/such/file:65".parse().unwrap();
    let error = Pipe::open_or_create(&address).unwrap_err();
    assert!(matches!(error, SetupError::Os { call: "ftok", .. }), "{error:?}");
    assert!(error.to_string().contains("ftok"), "{error}");
    assert!(address.key().is_err());
}

#[test]
fn an_identifier_opens_its_segment_and_creates_none() {
    let name = Name::new();
    let pipe = Options::new().capacity(4096).create(&name).unwrap();
    let address = format!("sysv:id:{}", name.segment().unwrap());
    is_reached(&pipe, &address);
    let error = Options::new().create(address.as_str()).unwrap_err();
    assert!(matches!(error, SetupError::Unsupported(Unsupported::Create { .. })), "{error:?}");
    unlink(address.as_str()).unwrap();
    assert!(name.is_unused());
    for open in [Pipe::open, Pipe::open_or_create] {
        let error = open(address.as_str()).unwrap_err();
        assert!(matches!(error, SetupError::NotFound { .. }), "{error:?}");
    }
}

#[test]
fn each_private_pipe_is_new_and_found_by_its_identifier() {
    let pipe = Options::new().capacity(4096).create("sysv:private").unwrap();
    let _objects = Objects::of(&pipe);
    let other = Options::new().capacity(4096).open_or_create("sysv:private").unwrap();
    let _other_objects = Objects::of(&other);
    assert_ne!(pipe.id(), other.id());
    let address = pipe.address().to_string();
    assert!(address.starts_with("sysv:id:"), "{address}");
    assert_eq!(raw::ids(&inspect(pipe.address()).unwrap()).key, 0);
    is_reached(&pipe, &address);

    let error = Pipe::open("sysv:private").unwrap_err();
    assert!(matches!(error, SetupError::Unsupported(Unsupported::Open { .. })), "{error:?}");
    let error = unlink("sysv:private").unwrap_err();
    assert!(matches!(error, SetupError::Unsupported(Unsupported::Remove { .. })), "{error:?}");
    unlink(other.address()).unwrap();
    Pipe::open(other.address()).unwrap_err();
}

#[test]
fn two_names_with_the_same_hash_are_distinguished() {
    // With 2^32 hashes, about a hundred thousand names contain a collision.
    let prefix = Name::new();
    let mut seen = HashMap::new();
    let (first, second) = (0u32..)
        .find_map(|i| {
            let name = format!("{prefix}.{i}");
            let earlier = seen.insert(key_of(&name), name.clone())?;
            Some((earlier, name))
        })
        .unwrap();
    let pipe = Options::new().capacity(4096).create(first.as_str()).unwrap();
    let _objects = Objects::of(&pipe);
    type Attempt = fn(&str) -> Result<(), SetupError>;
    let attempts: [Attempt; 5] = [
        |name| Pipe::open(name).map(drop),
        |name| Pipe::open_or_create(name).map(drop),
        |name| Options::new().create(name).map(drop),
        |name| inspect(name).map(drop),
        |name| unlink(name),
    ];
    for attempt in attempts {
        let error = attempt(&second).unwrap_err();
        let SetupError::Incompatible(Mismatch::Name { requested, found }) = &error else {
            panic!("{error:?}")
        };
        assert_eq!((requested, found), (&second, &first));
        assert!(error.to_string().contains(&first) && error.to_string().contains(&second), "{error}");
    }
    let error = shmpipe::unlink_force(second.as_str()).unwrap_err();
    assert!(matches!(error, SetupError::Incompatible(Mismatch::Name { .. })), "{error:?}");
    is_reached(&pipe, &first);
}

#[test]
fn an_invalid_address_is_refused_with_the_reason() {
    for (text, expected) in [
        ("", AddressError::Empty),
        ("sysv:0", AddressError::KeyZero),
        ("sysv:0x0", AddressError::KeyZero),
        ("tcp:x", AddressError::UnknownKind { found: "tcp".into() }),
        ("sysv:4d2", AddressError::Number { found: "4d2".into() }),
        ("a\nb", AddressError::NameCharacter { found: '\n' }),
    ] {
        let error = Pipe::open(text).unwrap_err();
        let SetupError::Address(found) = &error else { panic!("{error:?}") };
        assert_eq!(*found, expected);
        assert_eq!(error.to_string(), expected.to_string());
    }
    let longest = "n".repeat(64);
    assert_eq!(longest.parse::<Address>().unwrap().to_string(), longest);
    let error = format!("{longest}n").parse::<Address>().unwrap_err();
    assert_eq!(error, AddressError::NameTooLong { length: 65, longest: 64 });
    assert!(error.to_string().contains("65") && error.to_string().contains("64"), "{error}");
}

#[test]
fn a_name_of_64_bytes_is_stored_in_full() {
    let name = Name::new();
    let longest = format!("{name}{}", "é".repeat((64 - name.as_str().len()) / 2));
    let pipe = Options::new().capacity(4096).create(longest.as_str()).unwrap();
    let _objects = Objects::of(&pipe);
    assert_eq!(inspect(longest.as_str()).unwrap().name.as_deref(), Some(longest.as_str()));
    is_reached(&pipe, &longest);
}

#[test]
fn an_address_reports_its_kind_key_and_path() {
    use AddressKind::{File, Memfd, Posix, SysV};
    let name = Name::new();
    let text = name.to_string();
    let directory = std::env::current_dir().unwrap();
    for (text, kind, key, path) in [
        (text.as_str(), SysV, Some(name.key()), None),
        ("sysv:0xffffffff", SysV, Some(-1), None),
        ("sysv:id:7", SysV, None, None),
        ("sysv:private", SysV, None, None),
        ("posix:/a", Posix, None, Some("/dev/shm/a".into())),
        ("file:/a", File, None, Some("/a".into())),
        ("file:a", File, None, Some(directory.join("a"))),
        ("memfd", Memfd, None, None),
        ("memfd:/a", Memfd, None, None),
        ("fd:3", Memfd, None, None),
    ] {
        let address: Address = text.parse().unwrap();
        assert_eq!(address.kind(), kind, "{text}");
        assert_eq!((address.key().unwrap(), address.path().unwrap()), (key, path), "{text}");
    }
}
