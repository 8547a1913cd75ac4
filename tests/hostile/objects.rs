//! The kernel's objects behind a System V pipe, in the hands of somebody who may write to them, or of a stranger.

use crate::attacker::{CAPACITY, list_alone};
use shmpipe::error::Distrust;
use shmpipe::os::unix::OptionsExt;
use shmpipe::{
    Lost, Options, Pipe, RecvTimeoutError, SendTimeoutError, SetupError, inspect, list, unlink, unlink_force,
};
use shmpipe_testing::end::{self, NOBODY};
use shmpipe_testing::name::Name;
use shmpipe_testing::process::{Line, Process};
use shmpipe_testing::{A_WHILE, at_once, is_root, raw, within};

/// Row 21: any value in any semaphore, the largest included, which nothing can be added to. A service is denied, with an error that
/// says so; nothing that was sent is lost, and no call fails otherwise than by an error.
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
            // Ours, or nobody's, or the other one's.
            let waited = consumer.recv_deadline(within(A_WHILE)).unwrap_err();
            let expected = match (number, value) {
                (2, 0) => RecvTimeoutError::Lost(Lost::Role),
                (1, 0) => RecvTimeoutError::PeerDied,
                _ => RecvTimeoutError::TimedOut,
            };
            assert_eq!(waited, expected, "{what}");
            while producer.try_send(&[7; 1000]).is_ok() {}
            let waited = producer.send_deadline(&[7; 1000], within(A_WHILE));
            let expected = match (number, value) {
                (1, 0) => SendTimeoutError::Lost(Lost::Role),
                (2, 0) => SendTimeoutError::PeerDied,
                _ => SendTimeoutError::TimedOut,
            };
            assert_eq!(waited, Err(expected), "{what}");
            let _ = (inspect(&name).map(drop), list_alone());
            // Who opens it now waits for the lock for some seconds, or is refused. One of them is enough.
            if number > 0 || value == 32_767 {
                match Pipe::open(&name) {
                    Ok(_)
                    | Err(
                        SetupError::Busy { .. }
                        | SetupError::Unaccounted { .. }
                        | SetupError::Foreign { .. }
                        | SetupError::Os { call: "semop", .. },
                    ) => {}
                    Err(error) => panic!("{what}: {error:?}"),
                }
            }
            drop((producer, consumer, pipe));
            // Nobody else is there, and it is as good as new, or goes by force.
            raw::set_semaphore(name.set().unwrap(), number, 0);
            match number {
                3.. => drop(unlink_force(&name)),
                _ => unlink(&name).unwrap(),
            }
        }
    });
}

/// Row 16: a stranger's set under our key, made when ours was lost and never to be unlocked again, keeps us from nothing but
/// the roles.
#[test]
fn another_users_set_does_not_block_removal_of_our_segment() {
    if !is_root("another_users_set_does_not_block_removal_of_our_segment") {
        return;
    }
    let name = Name::new();
    drop(Options::new().capacity(CAPACITY).create(&name).unwrap());
    raw::remove_set(name.set().unwrap());
    let mut stranger = end::nobody();
    assert_eq!(stranger.ask(format!("make_set {} 8", name.key())), "made");
    let set = name.set().unwrap();
    raw::set_semaphore(set, 0, 1);
    let error = Pipe::open(&name).unwrap_err();
    assert!(matches!(error, SetupError::Untrusted(Distrust::Owner { uid: NOBODY, .. })), "{error:?}");
    unlink(&name).unwrap();
    assert_eq!(name.segment(), None);
    // Nor is a stranger's set ours to remove.
    assert_eq!(name.set(), Some(set));
}

/// Row 17: a set that anybody may write to lets anybody take roles away, whoever may write to the segment.
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

/// Somebody is attached who has not entered through the set, and might use a role. Claims wait for a second, since it may be
/// somebody who only takes a look, and fail then: not defended, as a service goes. What is claimed stays so.
#[test]
fn an_unaccounted_attachment() {
    let name = Name::new();
    let pipe = Options::new().capacity(CAPACITY).create(&name).unwrap();
    let mut consumer = pipe.consumer().unwrap();
    let attached = raw::Attached::unaccounted(name.segment().unwrap());
    let error = pipe.producer().unwrap_err();
    // And of those who look just now.
    assert!(matches!(error, SetupError::Unaccounted { attached: 1.., .. }), "{error:?}");
    assert_eq!(raw::semaphore(name.set().unwrap(), 1), 0, "given back");
    let error = consumer.recv_deadline(within(A_WHILE)).unwrap_err();
    assert_eq!(error, RecvTimeoutError::TimedOut, "the consumer holds its role");
    // Who goes in time is waited for.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(A_WHILE);
            drop(attached);
        });
        let mut producer = pipe.producer().unwrap();
        producer.send(b"on").unwrap();
        assert_eq!(consumer.recv().unwrap().to_vec(), b"on");
    });
}

/// Looks at a pipe, and opens it.
pub fn look(mut line: Line) {
    let address = line.words[0].clone();
    line.say(format!("{:?}", inspect(address.as_str()).map(drop)));
    line.say(format!("{:?}", list().sysv_error.map_or(Ok(()), Err)));
    line.say(format!("{:?}", Pipe::open(address.as_str()).map(drop)));
    line.say(format!("{:?}", Pipe::open_or_create(address.as_str()).map(drop)));
}

/// A segment of huge pages of which there are none: the first look at it would be a SIGBUS.
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
        eprintln!("a_segment_without_backing_memory: left out, since it cannot be made here");
        return;
    }
    let mut looker = Process::start("looker", &[name.as_str()]);
    for _ in 0..4 {
        let said = looker.hear();
        assert!(said.starts_with("Err(Damaged(Unbacked") || said == "Ok(())", "{said}");
    }
    looker.end();
}
