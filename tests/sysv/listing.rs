//! What only System V reports: all pipes, and the processes attached to them.

use shmpipe::{Object, Options, Pipe, sysvipc};
use shmpipe_testing::name::{Name, Objects};
use shmpipe_testing::raw::Attached;
use shmpipe_testing::{attached_by, raw};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const CAPACITY: u64 = 4096;

/// Held by each test: a listing briefly attaches the segments of other tests, which count attachments.
static LISTING: Mutex<()> = Mutex::new(());

#[test]
fn a_listing_names_every_pipe_and_attaches_no_other_segment() {
    let _alone = LISTING.lock().unwrap_or_else(PoisonError::into_inner);
    let (name, foreign) = (Name::new(), Name::new());
    let pipe = Options::new().capacity(CAPACITY).create(&name).unwrap();
    let private = Options::new().capacity(CAPACITY).create("sysv:private").unwrap();
    let _objects = Objects::of(&private);
    let segment = raw::make_segment(foreign.key(), 8192, 0o600);

    let listing = shmpipe::list();
    assert!(listing.sysv_error.is_none());
    let find = |pipe: &Pipe| {
        let ours = |listed: &&shmpipe::Listed| {
            listed.snapshot.as_ref().is_ok_and(|snapshot| snapshot.segment_id == pipe.id())
        };
        listing.pipes.iter().find(ours).expect("listed").snapshot.as_ref().unwrap()
    };
    let (by_name, by_id) = (find(&pipe), find(&private));
    assert_eq!(
        (by_name.address.to_string(), by_name.name.as_deref()),
        (name.to_string(), Some(name.as_str()))
    );
    assert_eq!((&by_id.address, by_id.name.as_deref()), (private.address(), None));
    let is_foreign =
        |listed: &shmpipe::Listed| matches!(listed.object, Object::SysV { shm_id, .. } if shm_id == segment);
    assert!(!listing.pipes.iter().any(is_foreign));
    // Other processes may list at the same time, and attach it.
    let last = raw::status(segment).unwrap().shm_lpid;
    assert_ne!(last, std::process::id() as i32, "attached by this process");
}

#[test]
fn a_pipe_without_its_set_is_only_in_the_unguarded_listing() {
    let _alone = LISTING.lock().unwrap_or_else(PoisonError::into_inner);
    let name = Name::new();
    let pipe = Options::new().capacity(CAPACITY).create(&name).unwrap();
    let is_it = |listed: &&shmpipe::Listed| {
        listed.snapshot.as_ref().is_ok_and(|snapshot| snapshot.segment_id == pipe.id())
    };
    assert!(!shmpipe::list_unguarded().unwrap().iter().any(|listed| is_it(&listed)));
    raw::remove_set(name.set().unwrap());
    assert!(!shmpipe::list().pipes.iter().any(|listed| is_it(&listed)));
    let unguarded = shmpipe::list_unguarded().unwrap();
    let found = unguarded.iter().find(is_it).expect("listed");
    let expected = Object::SysV { key: name.key(), shm_id: name.segment().unwrap(), sem_id: None };
    assert_eq!((found.object, found.location.to_string()), (expected, name.to_string()));
    assert_eq!((found.is_open, &found.pids[..]), (true, &[std::process::id()][..]));
}

#[test]
fn a_listing_does_not_wait_for_segments_that_are_marked_as_being_created() {
    let _alone = LISTING.lock().unwrap_or_else(PoisonError::into_inner);
    let names = [Name::new(), Name::new(), Name::new()];
    for name in &names {
        let segment = Attached::new(raw::make_segment(name.key(), 8192, 0o600));
        segment.copy_from(0, b"shmmake\0");
    }
    let start = Instant::now();
    shmpipe::list_unguarded().unwrap();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn objects_show_what_a_set_guards_and_who_uses_a_removed_segment() {
    let _alone = LISTING.lock().unwrap_or_else(PoisonError::into_inner);
    let name = Name::new();
    let pipe = Options::new().capacity(CAPACITY).create(&name).unwrap();
    let (segment, set) = (name.segment().unwrap(), name.set().unwrap());
    let objects = sysvipc::objects().unwrap();
    let of_pipe = objects.sets.iter().find(|listed| listed.id == set).expect("listed");
    let guarded = of_pipe.pipe.expect("a pipe's");
    assert_eq!((of_pipe.key, of_pipe.semaphores), (name.key(), sysvipc::SEMAPHORES));
    assert_eq!((guarded.segment, guarded.is_complete, guarded.is_locked), (segment, true, false));
    let listed = objects.segment(segment).expect("listed");
    assert_eq!((listed.key, listed.size, listed.is_removed), (name.key(), CAPACITY + 4096, false));

    raw::remove_segment(segment);
    // Other processes may list at the same time.
    attached_by(segment, 1);
    let objects = sysvipc::objects().unwrap();
    let listed = objects.segment(segment).expect("this process has it attached");
    assert_eq!((listed.key, listed.is_removed, listed.attached), (0, true, 1));
    assert_eq!((&listed.pids[..], listed.created_under), (&[std::process::id()][..], Some(name.key())));
    drop(pipe);
    raw::remove_set(set);
}
