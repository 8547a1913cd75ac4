//! The semaphore set beside a segment: lost, recreated, foreign, created by another user.

use shmpipe::error::Distrust;
use shmpipe::os::unix::OptionsExt;
use shmpipe::{Options, Pipe, SetupError, inspect, unlink, unlink_force};
use shmpipe_testing::end::{self, NOBODY};
use shmpipe_testing::is_root;
use shmpipe_testing::name::{Name, Objects};
use shmpipe_testing::{raw, until};

#[test]
fn remove_on_close_removes_segment_and_set_of_a_private_pipe() {
    let pipe = Options::new().remove_on_close(true).create("sysv:private").unwrap();
    let objects = Objects::of(&pipe);
    let seen = inspect(pipe.address()).unwrap();
    drop((pipe.producer().unwrap(), pipe.consumer().unwrap()));
    drop(pipe);
    // A process that lists all pipes attaches each for a moment.
    until("the segment is gone", || raw::status(raw::ids(&seen).shm_id).is_none());
    assert_eq!(raw::semaphore(raw::ids(&seen).sem_id, 0), -1);
    drop(objects);
}

/// The set of a pipe is removed while the pipe is in use, as systemd-logind does with RemoveIPC.
#[test]
fn a_pair_that_lost_its_set_keeps_its_roles_and_gets_another_set() {
    let name = Name::new();
    let (mut producer, mut consumer) = (end::producer(&name), end::consumer(&name));
    let id = inspect(&name).unwrap().segment_id;
    let lost = name.set().unwrap();
    raw::remove_set(lost);
    assert_eq!(producer.ask("send one"), "sent");
    assert_eq!(consumer.ask("recv"), "\"one\"");
    assert_eq!((producer.ask("peer"), consumer.ask("peer")), ("Open".into(), "Open".into()));
    let seen = inspect(&name).unwrap();
    assert_eq!((seen.producer.pid, seen.consumer.pid), (Some(producer.pid()), Some(consumer.pid())));
    assert!(
        matches!(unlink(&name).unwrap_err(), SetupError::RoleTaken { pid, .. } if pid == Some(producer.pid()))
    );
    assert_eq!(name.set(), None);

    let pipe = Pipe::open(&name).unwrap();
    assert_eq!((pipe.id(), pipe.created()), (id, false));
    assert!(name.set().is_some_and(|set| set != lost));
    assert_eq!(Some(raw::ids(&inspect(&name).unwrap()).sem_id), name.set());
    for (claimed, holder) in
        [(pipe.producer().map(drop), producer.pid()), (pipe.consumer().map(drop), consumer.pid())]
    {
        assert!(matches!(claimed.unwrap_err(), SetupError::RoleTaken { pid, .. } if pid == Some(holder)));
    }
    // The death of one is noticed, and its successor continues.
    producer.kill();
    assert_eq!(consumer.ask("recv"), "PeerDied");
    let mut successor = pipe.producer().unwrap();
    successor.send(b"two").unwrap();
    assert_eq!(consumer.ask("recv"), "\"two\"");
    assert_eq!(consumer.ask("close"), "closed");
    successor.close().unwrap();
}

#[test]
fn a_private_pipe_that_lost_its_set_gets_another() {
    let pipe = Options::new().capacity(4096).create("sysv:private").unwrap();
    let _objects = Objects::of(&pipe);
    let address = pipe.address().clone();
    let seen = inspect(&address).unwrap();
    let consumer = pipe.consumer().unwrap();
    raw::remove_set(raw::ids(&seen).sem_id);
    let adopted = Pipe::open(&address).unwrap();
    let _new_objects = Objects::of(&adopted);
    let second = Pipe::open(&address).unwrap();
    let named = raw::ids(&inspect(&address).unwrap()).sem_id;
    assert!(named != raw::ids(&seen).sem_id && raw::semaphore(named, 7) == 2, "both use the same new set");
    assert!(matches!(second.consumer().unwrap_err(), SetupError::RoleTaken { .. }));
    let producer = adopted.producer().unwrap();
    assert!(matches!(second.producer().unwrap_err(), SetupError::RoleTaken { .. }));
    drop((producer, consumer, adopted, second, pipe));
    unlink(&address).unwrap();
    // A watcher may still be attached for a moment.
    until("the end of the segment", || raw::status(raw::ids(&seen).shm_id).is_none());
}

#[test]
fn a_pipe_that_lost_its_set_can_be_removed_by_force() {
    let name = Name::new();
    let mut consumer = end::consumer(&name);
    raw::remove_set(name.set().unwrap());
    unlink_force(&name).unwrap();
    assert!(name.is_unused());
    assert_eq!(consumer.ask("recv"), "Lost(Removed)");
    consumer.end();
}

#[test]
fn a_set_recreated_under_a_live_pair_does_not_give_its_roles_away() {
    // Another program created a new set beside a segment in use.
    let name = Name::new();
    let consumer = end::consumer(&name);
    raw::remove_set(name.set().unwrap());
    raw::make_set(name.key(), 8);
    let pipe = Pipe::open(&name).unwrap();
    let error = pipe.consumer().unwrap_err();
    assert!(matches!(error, SetupError::RoleTaken { pid, .. } if pid == Some(consumer.pid())), "{error:?}");
    drop(pipe.producer().unwrap());
}

#[test]
fn removal_ignores_the_set_that_a_hostile_header_names() {
    let name = Name::new();
    let bystander = Pipe::open_or_create(&name).unwrap();
    let producer = bystander.producer().unwrap();
    let hostile = Options::new().capacity(4096).create("sysv:private").unwrap();
    let _objects = Objects::of(&hostile);
    let seen = inspect(hostile.address()).unwrap();
    // The identifier of the set is at byte 88.
    raw::Attached::new(raw::ids(&seen).shm_id).set_u32(88, name.set().unwrap() as u32);
    let address = hostile.address().clone();
    drop(hostile);
    unlink_force(&address).unwrap();
    raw::remove_set(raw::ids(&seen).sem_id);
    assert!(matches!(bystander.producer().unwrap_err(), SetupError::RoleTaken { .. }));
    drop(producer);
    drop(bystander.producer().unwrap());
}

#[test]
fn a_foreign_set_is_left_unchanged_and_gets_no_segment() {
    // A set of another size, and a set of the same size with another use.
    for (count, values, found, expected) in
        [(3, vec![5, 0, 7], 3, 8), (8, vec![0, 0, 0, 77, 0, 0, 0, 1], 77, 0)]
    {
        let name = Name::new();
        let set = raw::make_set(name.key(), count);
        (0..).zip(&values).for_each(|(number, &value)| raw::set_semaphore(set, number, value));
        for created in [Pipe::open_or_create(&name), Options::new().create(&name)] {
            let error = created.unwrap_err();
            assert!(
                matches!(error, SetupError::Foreign { found: f, expected: e, .. } if (f, e) == (found, expected)),
                "{error:?}"
            );
        }
        for done in
            [Pipe::open(&name).map(drop), inspect(&name).map(drop), unlink(&name), unlink_force(&name)]
        {
            let error = done.unwrap_err();
            assert!(matches!(error, SetupError::NotFound { .. }), "{error:?}");
        }
        assert_eq!(name.segment(), None);
        assert_eq!(name.set(), Some(set));
        let after: Vec<i32> = (0..).take(values.len()).map(|number| raw::semaphore(set, number)).collect();
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

#[test]
fn a_set_created_in_advance_by_another_user_is_refused() {
    if !is_root("a_set_created_in_advance_by_another_user_is_refused") {
        return;
    }
    let name = Name::new();
    let mut other = end::nobody();
    assert_eq!(other.ask(format!("make_set {} 8", name.key())), "made");
    let error = Pipe::open_or_create(&name).unwrap_err();
    assert!(matches!(error, SetupError::Untrusted(Distrust::Owner { uid: NOBODY, .. })), "{error:?}");
    assert_eq!(name.segment(), None);
    Options::new().trust_uid(NOBODY).open_or_create(&name).unwrap();
}

#[test]
fn a_permission_error_names_the_key() {
    if !is_root("a_permission_error_names_the_key") {
        return;
    }
    let name = Name::new();
    Options::new().create(&name).unwrap();
    let private = Options::new().create("sysv:private").unwrap();
    let _objects = Objects::of(&private);
    let mut other = end::nobody();
    for (address, key) in [(name.to_string(), name.key()), (private.address().to_string(), 0)] {
        let refused = other.ask(format!("open {address}"));
        assert!(
            refused.contains("PermissionDenied") && refused.contains(&format!("Some({key})")),
            "{refused}"
        );
    }
}

#[test]
fn a_pipe_given_away_is_still_distrusted_for_its_creator() {
    if !is_root("a_pipe_given_away_is_still_distrusted_for_its_creator") {
        return;
    }
    // The creator of a segment can change it for as long as it exists, even after its owner changes.
    let name = Name::new();
    let mut other = end::nobody();
    other.ask("mode 666");
    other.ask(format!("create {name}"));
    let segment = name.segment().unwrap();
    let mut status = raw::status(segment).unwrap();
    status.shm_perm.uid = 0;
    // SAFETY: IPC_SET reads one shmid_ds.
    assert_eq!(unsafe { libc::shmctl(segment, libc::IPC_SET, &raw mut status) }, 0);
    let error = Pipe::open(&name).unwrap_err();
    assert!(
        matches!(error, SetupError::Untrusted(Distrust::Owner { uid: 0, creator: NOBODY, .. })),
        "{error:?}"
    );
}
