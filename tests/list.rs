//! The listing of pipes in files and memfds. It has its own test program, since a listing briefly opens every pipe that it
//! finds, and other tests count the pipes that their process has open.

use shmpipe::Lost;
use shmpipe::{Listed, Location, Object, Options, SetupError, inspect, list, unlink};
use shmpipe_testing::backend::Backend;
use std::fs;
use std::os::unix::fs::MetadataExt;

fn small() -> Options {
    Options::new().capacity(4096)
}

#[test]
fn a_listing_shows_files_by_address_with_the_processes_that_have_them_open() {
    let find = |id| {
        let listed = list().pipes;
        listed
            .into_iter()
            .find(|listed| listed.snapshot.as_ref().is_ok_and(|snapshot| snapshot.segment_id == id))
    };
    let here = std::process::id();
    for backend in [Backend::Posix, Backend::File] {
        let place = backend.place();
        let pipe = place.create(&small()).unwrap();
        let (id, address) = (pipe.id(), pipe.address().clone());
        let open = find(id).expect("listed");
        assert_eq!(open.location, Location::Address(address.clone()));
        assert_eq!((&open.pids[..], open.is_open), (&[here][..], true));
        assert!(inspect(&address).unwrap().is_open);

        fs::remove_file(place.path()).unwrap();
        let is_removed = |listed: &Listed| match &listed.location {
            Location::Removed { path, pid, .. } => *pid == here && place.path().starts_with(path),
            _ => false,
        };
        let removed = list().pipes.into_iter().find(is_removed).expect("still open");
        assert!(matches!(removed.snapshot, Err(SetupError::Lost { lost: Lost::Removed, .. })), "{removed:?}");
        drop(pipe);

        drop(place.create(&small()).unwrap());
        assert!(!inspect(&address).unwrap().is_open);
        // A listing finds a closed file only in /dev/shm.
        let id = inspect(&address).unwrap().segment_id;
        assert_eq!(find(id).map(|listed| listed.is_open), (backend == Backend::Posix).then_some(false));
        unlink(&address).unwrap();
    }
}

#[test]
fn a_listing_shows_a_memfd_by_a_descriptor_of_a_process_that_has_it_open() {
    let pipe = small().create("memfd").unwrap();
    let is_it =
        |listed: &Listed| listed.snapshot.as_ref().is_ok_and(|snapshot| snapshot.segment_id == pipe.id());
    let listed = list().pipes.into_iter().find(is_it).expect("listed");
    let Location::Descriptor { pid, fd } = listed.location else { panic!("{:?}", listed.location) };
    assert_eq!(pid, std::process::id());
    let found = fs::metadata(format!("/proc/{pid}/fd/{fd}")).unwrap();
    assert_eq!(listed.object, Object::File { device: found.dev(), inode: found.ino() });
    assert!(listed.is_open && listed.pids == [pid]);
}
