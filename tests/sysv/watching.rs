//! What only System V can be asked: which pipes there are, and who is attached.

use shmpipe::{Options, Pipe};
use shmpipe_testing::name::{Name, Objects};
use shmpipe_testing::raw;

const CAPACITY: u64 = 4096;

#[test]
fn a_listing_has_every_pipe_by_its_name_and_attaches_no_other_segment() {
    let (name, foreign) = (Name::new(), Name::new());
    let pipe = Options::new().capacity(CAPACITY).create(&name).unwrap();
    let private = Options::new().capacity(CAPACITY).create("sysv:private").unwrap();
    let _objects = Objects::of(&private);
    let segment = raw::make_segment(foreign.key(), 8192, 0o600);
    let before = raw::status(segment).unwrap();

    let listed = shmpipe::list().unwrap();
    let find = |pipe: &Pipe| {
        let ours = |listed: &&shmpipe::Listed| {
            listed.snapshot.as_ref().is_ok_and(|snapshot| snapshot.segment_id == pipe.id())
        };
        listed.iter().find(ours).expect("listed").snapshot.as_ref().unwrap()
    };
    let (by_name, by_id) = (find(&pipe), find(&private));
    assert_eq!(
        (by_name.address.to_string(), by_name.name.as_deref()),
        (name.to_string(), Some(name.as_str()))
    );
    assert_eq!((&by_id.address, by_id.name.as_deref()), (private.address(), None));
    assert!(listed.iter().all(|listed| listed.shm_id != segment));
    let after = raw::status(segment).unwrap();
    assert_eq!((after.shm_atime, after.shm_lpid), (before.shm_atime, before.shm_lpid), "never attached");
}
