//! What is System V alone: its semaphore set, its limits, its listing.

mod making;
mod sets;
mod watching;

#[path = "../support/mod.rs"]
mod support;

use shmpipe::{Pipe, inspect};
use support::end;
use support::name::Name;
use support::process::part as play;

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
        (Some(support::raw::ids(&seen).shm_id), Some(support::raw::ids(&seen).sem_id)),
        (name.segment(), name.set())
    );
    assert_eq!(seen.segment_id, pipe.id());
}
