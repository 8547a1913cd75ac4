//! Sets of more members than a thread can sleep on.

use shmpipe::{Consumer, Interest, Key, Options, Pipe, Producer, Readiness, WaitSet};
use shmpipe_testing::{A_WHILE, LONG, within};
use std::thread;
use std::time::Duration;

/// Three threads' worth.
const MANY: usize = 300;

fn pipe() -> Pipe {
    Options::new().capacity(4096).create("memfd").unwrap()
}

/// A set of consumers, with their producers.
fn many() -> (WaitSet<Consumer>, Vec<Key>, Vec<Producer>) {
    let mut set = WaitSet::new();
    let (mut keys, mut producers) = (vec![], vec![]);
    for _ in 0..MANY {
        let pipe = pipe();
        keys.push(set.add(pipe.consumer().unwrap(), Interest::Message).unwrap());
        producers.push(pipe.producer().unwrap());
    }
    (set, keys, producers)
}

#[test]
fn every_member_of_a_large_set_wakes_it() {
    let (mut set, keys, mut producers) = many();
    let round_of = |index: usize| {
        let mut ready = set.wait(Some(within(LONG))).unwrap();
        assert_eq!(ready.len(), 1);
        let mut event = ready.next().unwrap();
        assert_eq!((event.key(), event.readiness()), (keys[index], Readiness::Message));
        assert_eq!(event.member().try_recv().unwrap().to_vec(), b"hello");
    };
    thread::scope(|scope| {
        let (go, wait_for_go) = std::sync::mpsc::channel();
        scope.spawn(move || {
            for index in wait_for_go {
                // Long enough that the set sleeps.
                thread::sleep(Duration::from_millis(1));
                let producer: &mut Producer = &mut producers[index];
                producer.send(b"hello").unwrap();
            }
            // Until the last wait has ended.
            producers
        });
        let mut round_of = round_of;
        for index in (0..MANY).chain([0, 126, 127, 253, 254, 299]) {
            go.send(index).unwrap();
            round_of(index);
        }
    });
}

#[test]
fn members_of_a_large_set_leave_and_their_slots_are_used_again() {
    let (mut set, keys, mut producers) = many();
    assert!(set.wait(Some(within(A_WHILE / 10))).is_err());
    for key in keys.iter().step_by(2) {
        set.remove(*key).unwrap();
    }
    assert_eq!(set.len(), MANY / 2);
    let pipe = pipe();
    let added = set.add(pipe.consumer().unwrap(), Interest::Message).unwrap();
    assert!(!keys.contains(&added));
    assert!(set.wait(Some(within(A_WHILE / 10))).is_err_and(|error| error.to_string().contains("deadline")));
    producers.push(pipe.producer().unwrap());
    for index in [1, 299, 300] {
        producers[index].send(b"hello").unwrap();
        let mut ready = set.wait(Some(within(LONG))).unwrap();
        assert_eq!(ready.next().unwrap().member().try_recv().unwrap().to_vec(), b"hello");
    }
    drop(set);
}

#[test]
fn a_large_set_dropped_in_a_forked_child_does_nothing() {
    let (mut set, keys, mut producers) = many();
    assert!(set.wait(Some(within(A_WHILE / 10))).is_err());
    // SAFETY: the child drops the set and exits.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: no pointers. Ends a child that hangs.
            unsafe { libc::alarm(30) };
            drop(set);
            // SAFETY: ends the process.
            unsafe { libc::_exit(0) }
        }
        child => {
            let mut status = 0;
            // SAFETY: the pointer is to one int.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0);
        }
    }
    producers[299].send(b"hello").unwrap();
    let mut ready = set.wait(Some(within(LONG))).unwrap();
    assert_eq!(ready.next().unwrap().key(), keys[299]);
}
