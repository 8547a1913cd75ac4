//! Other users: permissions and trust.

use shmpipe::error::Distrust;
use shmpipe::os::unix::OptionsExt;
use shmpipe::{Address, Options, Pipe, SetupError, inspect};
use shmpipe_testing::backend::Backend;
use shmpipe_testing::end::{self, NOBODY};
use shmpipe_testing::is_root;

pub fn a_permission_error_names_the_owner_and_the_mode(backend: Backend) {
    if !is_root("a_permission_error_names_the_owner_and_the_mode") {
        return;
    }
    let mut other = end::nobody();
    let place = backend.place();
    let _pipe = place.create(&Options::new().mode(0o600)).unwrap();
    for attempt in ["open", "inspect"] {
        let refused = other.ask(format!("{attempt} {place}"));
        for part in ["PermissionDenied", &format!("{:?}", Address::from(&place)), "uid: 0, gid: 0, mode: "] {
            assert!(refused.contains(part), "{attempt}: {refused}");
        }
    }
    place.attached_by(1);
}

pub fn a_user_without_permission_cannot_create_or_remove_a_pipe(backend: Backend) {
    if !is_root("a_user_without_permission_cannot_create_or_remove_a_pipe") {
        return;
    }
    let mut other = end::nobody();
    let place = backend.place();
    let pipe = place.create(&Options::new().mode(0o600)).unwrap();
    for attempt in ["open_or_create", "create", "unlink", "unlink_force"] {
        let refused = other.ask(format!("{attempt} {place}"));
        for part in ["PermissionDenied", "uid: 0, gid: 0, mode: 384"] {
            assert!(refused.contains(part), "{attempt}: {refused}");
        }
    }
    assert_eq!(Pipe::open(&place).unwrap().id(), pipe.id());
}

pub fn a_user_with_read_permission_can_only_inspect(backend: Backend) {
    if !is_root("a_user_with_read_permission_can_only_inspect") {
        return;
    }
    let place = backend.place();
    let pipe = place.create(&Options::new().mode(0o644)).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    producer.send(b"seen").unwrap();
    let mut watcher = end::nobody();
    assert_eq!(
        watcher.ask(format!("inspect {place}")),
        "producer Open, consumer Open, 16 used",
        "roles included"
    );
    assert_eq!(watcher.ask(format!("tap {place}")), "seen");
    for attempt in ["open", "open_or_create"] {
        let refused = watcher.ask(format!("{attempt} {place}"));
        assert!(refused.starts_with("PermissionDenied"), "{refused}");
    }
    assert_eq!(consumer.recv().unwrap().to_vec(), b"seen");
}

pub fn a_pipe_of_root_is_usable_by_permitted_users(backend: Backend) {
    if !is_root("a_pipe_of_root_is_usable_by_permitted_users") {
        return;
    }
    let place = backend.place();
    let pipe = place.create(&Options::new().mode(0o666)).unwrap();
    let mut consumer = pipe.consumer().unwrap();
    let mut producer = end::nobody();
    producer.ask("mode 666");
    producer.ask(format!("open {place}"));
    assert_eq!(producer.ask("producer"), "claimed");
    assert_eq!(producer.ask("send hello"), "sent");
    assert_eq!(consumer.recv().unwrap().to_vec(), b"hello");
    // The death of a process frees its role, whatever its user.
    assert!(matches!(pipe.producer().unwrap_err(), SetupError::RoleTaken { .. }));
    producer.kill();
    pipe.producer().unwrap();
}

pub fn a_denied_removal_leaves_the_pipe_unchanged(backend: Backend) {
    if !is_root("a_denied_removal_leaves_the_pipe_unchanged") {
        return;
    }
    let place = backend.place();
    let open_to_all = Options::new().mode(0o666);
    let pipe = place.create(&open_to_all).unwrap();
    pipe.producer().unwrap().send(b"still here").unwrap();
    let mut other = end::nobody();
    for attempt in ["unlink", "unlink_force"] {
        let refused = other.ask(format!("{attempt} {place}"));
        assert!(refused.starts_with("PermissionDenied"), "{attempt}: {refused}");
        let again = open_to_all.open(&place).unwrap();
        assert_eq!(again.id(), pipe.id());
        let mut consumer = again.consumer().unwrap();
        consumer.recv().unwrap().requeue();
        drop(again.producer().unwrap());
    }
    // A denied removal does not free a role that is held.
    let producer = pipe.producer().unwrap();
    let refused = other.ask(format!("unlink_force {place}"));
    assert!(refused.starts_with("PermissionDenied"), "{refused}");
    assert!(matches!(
        open_to_all.open(&place).unwrap().producer().unwrap_err(),
        SetupError::RoleTaken { .. }
    ));
    drop(producer);
}

pub fn only_pipes_of_root_ourselves_and_named_users_are_trusted(backend: Backend) {
    if !is_root("only_pipes_of_root_ourselves_and_named_users_are_trusted") {
        return;
    }
    let place = backend.place();
    let mut other = end::nobody();
    other.ask("mode 666");
    let created = other.ask(format!("create {place}"));
    assert!(created.ends_with(" made"), "{created}");
    for error in [Pipe::open(&place), place.open_or_create(&Options::new())].map(Result::unwrap_err) {
        let SetupError::Untrusted(Distrust::Owner { uid, creator, .. }) = error else { panic!("{error:?}") };
        assert_eq!((uid, creator), (NOBODY, NOBODY));
        let text = error.to_string();
        assert!(text.contains("65534") && text.contains(place.as_str()), "{text}");
    }
    place.attached_by(1);
    let error = Options::new().trust_uid(NOBODY - 1).open(&place).unwrap_err();
    assert!(matches!(error, SetupError::Untrusted(Distrust::Owner { .. })), "{error:?}");
    let trusting = Options::new().trust_uid(NOBODY - 1).trust_uid(NOBODY);
    assert!(matches!(trusting.open(&place), Err(SetupError::Untrusted(Distrust::WorldWritable { .. }))));
    let pipe = trusting.mode(0o666).open(&place).unwrap();
    assert_eq!(other.ask("producer"), "claimed");
    assert_eq!(other.ask("send hello"), "sent");
    assert_eq!(pipe.consumer().unwrap().recv().unwrap().to_vec(), b"hello");
    // Its creator trusts it.
    let mut second = end::nobody();
    second.ask("mode 666");
    assert!(second.ask(format!("open {place}")).ends_with(" found"));
    // Inspecting needs no trust.
    assert_eq!(inspect(&place).unwrap().creator, NOBODY);
}
