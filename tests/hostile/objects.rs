//! The kernel's objects behind a System V pipe, changed by a process that may write to them, or created by another user.

use crate::attacker::{CAPACITY, list_alone};
use shmpipe::error::{Distrust, Shortage};
use shmpipe::os::unix::OptionsExt;
use shmpipe::{
    Options, Pipe, RecvTimeoutError, SendTimeoutError, SetupError, inspect, list, unlink, unlink_force,
};
use shmpipe_testing::end::{self, NOBODY};
use shmpipe_testing::name::Name;
use shmpipe_testing::process::{Line, Process};
use shmpipe_testing::{A_WHILE, at_once, is_root, raw, within};

/// Row 21: any value in any semaphore, including the largest, which cannot be incremented. Service is denied, with an error
/// that says so. No message sent is lost, and each failure is an error.
#[test]
fn any_value_in_any_semaphore() {
    at_once(0..8, |number| {
        for value in [0, 1, 2, 32_767] {
            let what = format!("{value} in semaphore {number}");
            let name = Name::new();
            let pipe = Options::new().capacity(CAPACITY).create(&name).unwrap();
            let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
            raw::set_semaphore(name.set().unwrap(), number, value);
            for _ in 0..20 {
                producer.send(&[7; 1000]).unwrap();
                assert_eq!(consumer.recv().unwrap().to_vec(), [7; 1000], "{what}");
            }
            // The roles do not depend on it.
            let waited = consumer.recv_deadline(within(A_WHILE)).unwrap_err();
            assert_eq!(waited, RecvTimeoutError::TimedOut, "{what}");
            while producer.try_send(&[7; 1000]).is_ok() {}
            let waited = producer.send_deadline(&[7; 1000], within(A_WHILE));
            assert_eq!(waited, Err(SendTimeoutError::TimedOut), "{what}");
            let _ = (inspect(&name).map(drop), list_alone());
            // To open it now takes a lock timeout of some seconds, or fails. One such wait is enough.
            if number > 0 || value == 32_767 {
                match Pipe::open(&name) {
                    Ok(_)
                    | Err(
                        SetupError::Busy { .. }
                        | SetupError::Foreign { .. }
                        | SetupError::Limit(Shortage::Handles { max: 32_767 }),
                    ) => {}
                    Err(error) => panic!("{what}: {error:?}"),
                }
            }
            drop((producer, consumer, pipe));
            // With no user left the pipe works again, or is removed by force.
            raw::set_semaphore(name.set().unwrap(), number, 0);
            match number {
                3.. => drop(unlink_force(&name)),
                _ => unlink(&name).unwrap(),
            }
        }
    });
}

/// Row 16: another user's set under our key, created after ours was lost and locked forever, denies the roles and nothing
/// else.
#[test]
fn another_users_set_does_not_block_removal_of_our_segment() {
    if !is_root("another_users_set_does_not_block_removal_of_our_segment") {
        return;
    }
    let name = Name::new();
    drop(Options::new().capacity(CAPACITY).create(&name).unwrap());
    raw::remove_set(name.set().unwrap());
    let mut other = end::nobody();
    assert_eq!(other.ask(format!("make_set {} 8", name.key())), "made");
    let set = name.set().unwrap();
    raw::set_semaphore(set, 0, 1);
    let error = Pipe::open(&name).unwrap_err();
    assert!(matches!(error, SetupError::Untrusted(Distrust::Owner { uid: NOBODY, .. })), "{error:?}");
    unlink(&name).unwrap();
    assert_eq!(name.segment(), None);
    // The other user's set stays.
    assert_eq!(name.set(), Some(set));
}

/// Row 17: a world-writable set lets any process free roles, even one that may not write to the segment.
#[test]
fn a_world_writable_set() {
    let name = Name::new();
    let pipe = Options::new().capacity(CAPACITY).mode(0o600).create(&name).unwrap();
    raw::set_mode_of_set(name.set().unwrap(), 0o602);
    for error in [Pipe::open(&name), Pipe::open_or_create(&name), pipe.reopen()].map(Result::unwrap_err) {
        let SetupError::Untrusted(Distrust::WorldWritable { what, permissions, .. }) = error else {
            panic!("{error:?}")
        };
        assert_eq!((what, permissions.mode), ("semaphore set", 0o602));
    }
    Options::new().mode(0o602).open(&name).unwrap();
}

/// A process stays attached without taking part, or locks a part of the segment in memory, which the kernel counts as one more
/// attachment.
#[test]
fn any_number_of_attachments() {
    let name = Name::new();
    let pipe = Options::new().capacity(CAPACITY).create(&name).unwrap();
    let segment = name.segment().unwrap();
    let others: Vec<_> = (0..5).map(|_| raw::Attached::new(segment)).collect();
    // SAFETY: the page is within the mapping. Locking changes no bytes.
    assert_eq!(unsafe { libc::mlock(others[0].as_ptr().add(4096).cast(), 4096) }, 0);
    assert!(raw::attached(segment) > 6);
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    producer.send(b"on").unwrap();
    assert_eq!(consumer.recv().unwrap().to_vec(), b"on");
    drop((producer, consumer));
    unlink(&name).unwrap();
}

/// Inspects a pipe, and opens it.
pub fn look(mut line: Line) {
    let address = line.words[0].clone();
    line.say(format!("{:?}", inspect(address.as_str()).map(drop)));
    line.say(format!("{:?}", list().sysv_error.map_or(Ok(()), Err)));
    line.say(format!("{:?}", Pipe::open(address.as_str()).map(drop)));
    line.say(format!("{:?}", Pipe::open_or_create(address.as_str()).map(drop)));
}

/// A segment of huge pages when the pool is empty: the first access would be a SIGBUS.
#[test]
fn a_segment_without_backing_memory() {
    const NO_RESERVE: i32 = 0o10_000;
    let name = Name::new();
    let flags = libc::IPC_CREAT | libc::IPC_EXCL | 0o600 | libc::SHM_HUGETLB | NO_RESERVE;
    // SAFETY: no pointers.
    let segment = unsafe { libc::shmget(name.key(), 2 << 20, flags) };
    let free = std::fs::read_to_string("/proc/meminfo").unwrap();
    let has_pages = !free.lines().any(|line| line.split_whitespace().eq(["HugePages_Free:", "0"]));
    if segment == -1 || has_pages {
        eprintln!("a_segment_without_backing_memory: skipped, since it cannot be created here");
        return;
    }
    let mut inspector = Process::start("inspector", &[name.as_str()]);
    for _ in 0..4 {
        let result = inspector.hear();
        assert!(result.starts_with("Err(Damaged(Unbacked") || result == "Ok(())", "{result}");
    }
    inspector.end();
}
