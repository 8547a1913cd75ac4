//! Other users: whom the system lets in, and whom we trust.

mod support;

use shmpipe::{Options, Pipe, SetupError, inspect};
use support::name::{Name, Objects};
use support::process::{Process, part as play};
use support::{attached_by, end, is_root, raw};

#[test]
fn part() {
    play(&[("end", end::play)]);
}

/// A user without any right.
const NOBODY: u32 = 65_534;

/// A process of that user.
fn nobody() -> Process {
    let mut process = end::start();
    assert_eq!(process.ask(format!("become {NOBODY}")), "done");
    process
}

#[test]
fn who_has_no_permission_is_told_the_key_the_owner_and_the_mode() {
    if !is_root("who_has_no_permission_is_told_the_key_the_owner_and_the_mode") {
        return;
    }
    let mut stranger = nobody();
    let name = Name::new();
    let pipe = Options::new().mode(0o600).create(&name).unwrap();
    let refused = format!(
        "PermissionDenied {{ address: {:?}, key: Some({}), permissions: Some(Permissions {{ uid: 0, gid: 0, mode: 384 }}) }}",
        pipe.address(),
        name.key()
    );
    for attempt in ["open", "open_or_create", "create", "inspect", "unlink", "unlink_force"] {
        assert_eq!(stranger.ask(format!("{attempt} {name}")), refused, "{attempt}");
    }
    // Without a key.
    let private = Options::new().create("sysv:private").unwrap();
    let _objects = Objects::of(&private);
    let refused = stranger.ask(format!("open {}", private.address()));
    assert!(refused.starts_with("PermissionDenied") && refused.contains("key: Some(0)"), "{refused}");
    attached_by(name.segment().unwrap(), 1);
}

#[test]
fn the_text_of_a_denial_has_all_of_it() {
    let error = SetupError::PermissionDenied {
        address: "ticks".parse().unwrap(),
        key: Some(0x4d2),
        permissions: Some(shmpipe::Permissions { uid: 1000, gid: 100, mode: 0o640 }),
    };
    for part in ["ticks", "0x4d2", "1000", "100", "0640", "read and write"] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn who_may_only_read_may_only_watch() {
    if !is_root("who_may_only_read_may_only_watch") {
        return;
    }
    let name = Name::new();
    let pipe = Options::new().mode(0o644).create(&name).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    producer.send(b"seen").unwrap();
    let mut watcher = nobody();
    assert_eq!(
        watcher.ask(format!("inspect {name}")),
        "producer Open, consumer Open, 16 used",
        "roles and all"
    );
    for attempt in ["open", "open_or_create"] {
        let refused = watcher.ask(format!("{attempt} {name}"));
        assert!(refused.starts_with("PermissionDenied"), "{refused}");
    }
    assert_eq!(consumer.recv().unwrap().to_vec(), b"seen");
}

#[test]
fn roots_pipe_is_everybodys_who_may() {
    if !is_root("roots_pipe_is_everybodys_who_may") {
        return;
    }
    let name = Name::new();
    let pipe = Options::new().mode(0o666).create(&name).unwrap();
    let mut consumer = pipe.consumer().unwrap();
    let mut producer = nobody();
    producer.ask(format!("open {name}"));
    assert_eq!(producer.ask("producer"), "claimed");
    assert_eq!(producer.ask("send hello"), "sent");
    assert_eq!(consumer.recv().unwrap().to_vec(), b"hello");
    // A claim knows no users: the death of that process gives it back.
    assert!(matches!(pipe.producer().unwrap_err(), SetupError::RoleTaken { .. }));
    producer.kill();
    pipe.producer().unwrap();
}

#[test]
fn who_may_write_and_not_remove_leaves_the_pipe_as_it_was() {
    if !is_root("who_may_write_and_not_remove_leaves_the_pipe_as_it_was") {
        return;
    }
    let name = Name::new();
    let pipe = Options::new().mode(0o666).create(&name).unwrap();
    pipe.producer().unwrap().send(b"still here").unwrap();
    let mut stranger = nobody();
    for attempt in ["unlink", "unlink_force"] {
        let refused = stranger.ask(format!("{attempt} {name}"));
        assert!(refused.starts_with("PermissionDenied"), "{attempt}: {refused}");
        let again = Pipe::open(&name).unwrap();
        assert_eq!(again.id(), pipe.id());
        let mut consumer = again.consumer().unwrap();
        consumer.recv().unwrap().keep();
        drop(again.producer().unwrap());
    }
    // Nor does it take away a role that somebody holds.
    let producer = pipe.producer().unwrap();
    let refused = stranger.ask(format!("unlink_force {name}"));
    assert!(refused.starts_with("PermissionDenied"), "{refused}");
    assert!(matches!(Pipe::open(&name).unwrap().producer().unwrap_err(), SetupError::RoleTaken { .. }));
    drop(producer);
}

#[test]
fn only_roots_and_our_own_pipes_are_trusted_and_those_of_whom_we_name() {
    if !is_root("only_roots_and_our_own_pipes_are_trusted_and_those_of_whom_we_name") {
        return;
    }
    let name = Name::new();
    let mut stranger = nobody();
    stranger.ask("mode 666");
    let made = stranger.ask(format!("create {name}"));
    assert!(made.ends_with(" made"), "{made}");
    for open in [Pipe::open::<&Name>, Pipe::open_or_create] {
        let error = open(&name).unwrap_err();
        let SetupError::Untrusted { uid, creator, .. } = error else { panic!("{error:?}") };
        assert_eq!((uid, creator), (NOBODY, NOBODY));
        let text = error.to_string();
        assert!(text.contains("65534") && text.contains(name.as_str()), "{text}");
    }
    attached_by(name.segment().unwrap(), 1);
    let error = Options::new().trust_uid(NOBODY - 1).open(&name).unwrap_err();
    assert!(matches!(error, SetupError::Untrusted { .. }), "{error:?}");
    let pipe = Options::new().trust_uid(NOBODY - 1).trust_uid(NOBODY).open(&name).unwrap();
    assert_eq!(stranger.ask("producer"), "claimed");
    assert_eq!(stranger.ask("send hello"), "sent");
    assert_eq!(pipe.consumer().unwrap().recv().unwrap().to_vec(), b"hello");
    // To its maker it is its own.
    let mut second = nobody();
    assert!(second.ask(format!("open {name}")).ends_with(" found"));
    // To look, no trust is needed.
    assert_eq!(inspect(&name).unwrap().creator, NOBODY);
}

#[test]
fn a_pipe_given_away_is_still_its_makers() {
    if !is_root("a_pipe_given_away_is_still_its_makers") {
        return;
    }
    // Who has made a segment may change it for ever, whomever it belongs to now.
    let name = Name::new();
    let mut stranger = nobody();
    stranger.ask("mode 666");
    stranger.ask(format!("create {name}"));
    let segment = name.segment().unwrap();
    let mut status = raw::status(segment).unwrap();
    status.shm_perm.uid = 0;
    // SAFETY: IPC_SET reads one shmid_ds.
    assert_eq!(unsafe { libc::shmctl(segment, libc::IPC_SET, &raw mut status) }, 0);
    let error = Pipe::open(&name).unwrap_err();
    assert!(matches!(error, SetupError::Untrusted { uid: 0, creator: NOBODY, .. }), "{error:?}");
}

#[test]
fn a_set_that_a_stranger_has_put_there_beforehand_guards_no_pipe_of_ours() {
    if !is_root("a_set_that_a_stranger_has_put_there_beforehand_guards_no_pipe_of_ours") {
        return;
    }
    let name = Name::new();
    let mut stranger = nobody();
    assert_eq!(stranger.ask(format!("make_set {} 8", name.key())), "made");
    let error = Pipe::open_or_create(&name).unwrap_err();
    assert!(matches!(error, SetupError::Untrusted { uid: NOBODY, .. }), "{error:?}");
    assert_eq!(name.segment(), None);
    Options::new().trust_uid(NOBODY).open_or_create(&name).unwrap();
}
