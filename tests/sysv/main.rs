//! What is System V alone: its semaphore set, its limits, its listing.

mod making;
mod sets;
// By LD_PRELOAD, which a program that is linked statically does not heed.
#[cfg(not(target_feature = "crt-static"))]
mod undo;
mod watching;

use shmpipe::{Pipe, inspect};
use shmpipe_testing::end;
use shmpipe_testing::name::Name;
use shmpipe_testing::process::part as play;

#[test]
fn part() {
    play(&[
        ("end", end::play),
        ("limits", making::limits),
        ("key 0", making::name_of_key_0),
        ("lock", making::lock),
    ]);
}

/// Whether the pipe at `name` is good: both roles can be had, and a message gets through.
fn is_good(name: &Name) {
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
