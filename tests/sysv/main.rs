//! System V only: its semaphore sets, its limits, its listing.

mod creating;
mod sets;
// Uses LD_PRELOAD, which has no effect on a statically linked program.
mod listing;
#[cfg(not(target_feature = "crt-static"))]
mod undo;

use shmpipe::{Pipe, inspect};
use shmpipe_testing::end;
use shmpipe_testing::name::Name;
use shmpipe_testing::process::part as play;

#[test]
fn part() {
    play(&[
        ("end", end::play),
        ("limits", creating::limits),
        ("rmid forced", creating::rmid_forced),
        ("key 0", creating::name_of_key_0),
        ("lock", creating::lock),
        ("leave presence", creating::leave_presence),
    ]);
}

/// Checks that the pipe at `name` works: both roles can be claimed, and a message gets through.
fn check(name: &Name) {
    let pipe = Pipe::open(name).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    producer.send(b"good").unwrap();
    assert_eq!(consumer.recv().unwrap().to_vec(), b"good");
    let seen = inspect(name).unwrap();
    assert_eq!(
        (Some(shmpipe_testing::raw::ids(&seen).shm_id), Some(shmpipe_testing::raw::ids(&seen).sem_id)),
        (name.segment(), name.set())
    );
    assert_eq!(seen.segment_id, pipe.id());
}
