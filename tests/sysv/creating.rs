//! Incomplete pipes and their repair, the lock under which pipes are created, and the limits of the system.

use crate::check;
use shmpipe::error::{Damage, MissingFeature, Shortage};
use shmpipe::{Options, Pipe, SetupError, inspect, unlink};
use shmpipe_testing::end;
use shmpipe_testing::layout::semaphore::{PRESENCE, STAGE};
use shmpipe_testing::layout::stage::CREATING;
use shmpipe_testing::layout::{READY, ready};
use shmpipe_testing::name::Name;
use shmpipe_testing::process::{Line, Process};
use shmpipe_testing::raw::{self, Attached};
use std::thread;
use std::time::Duration;

/// Leaves what a creator leaves that dies after this many steps. This process is the creator: a process that finds the leftovers
/// cannot distinguish a dead process from one that does not hold the lock.
fn leave_incomplete(name: &Name, steps: i32) {
    let set = raw::make_set(name.key(), 8);
    if steps >= 1 {
        raw::set_semaphore(set, STAGE, CREATING.into());
    }
    if steps >= 2 {
        raw::make_segment(name.key(), 4096 + 8192, 0o600);
    }
    if steps >= 3 {
        let segment = Attached::new(name.segment().unwrap());
        segment.set(READY, ready::INCOMPLETE);
        // A part of the identity.
        segment.set(8, 0x0102_0304_0000_0001);
        segment.set(24, 8192);
    }
}

/// Leaves what a process leaves that dies while it creates its presence, and lives on with the other things that a process may
/// have.
pub fn leave_presence(mut line: Line) {
    let set: i32 = line.words[0].parse().unwrap();
    raw::set_semaphore(set, PRESENCE, 1);
    let orphan = raw::make_segment(libc::IPC_PRIVATE, 100, 0o400);
    let larger = raw::make_segment(libc::IPC_PRIVATE, 4097, 0o400);
    let writable = raw::make_segment(libc::IPC_PRIVATE, 100, 0o600);
    line.say(format!("{orphan} {larger} {writable}"));
    line.hear();
}

#[test]
fn a_presence_whose_creator_died_is_removed_by_the_next_process() {
    let name = Name::new();
    Options::new().capacity(4096).create(&name).unwrap();
    let set = name.set().unwrap();
    let mut dead = Process::start("leave presence", &[&set.to_string()]);
    let said = dead.hear();
    let ids: Vec<i32> = said.split(' ').map(|id| id.parse().unwrap()).collect();
    let ours = raw::make_segment(libc::IPC_PRIVATE, 100, 0o400);
    // It has no presence yet.
    let mut next = end::start();
    assert!(next.ask(format!("open {name}")).starts_with("pipe"));
    let left: Vec<bool> = ids.iter().map(|&id| raw::status(id).is_some()).collect();
    ids[1..].iter().for_each(|&id| raw::remove_segment(id));
    assert_eq!(left, [false, true, true], "only what can be a presence goes");
    assert_eq!(raw::semaphore(set, PRESENCE), 0);
    assert!(raw::status(ours).is_some(), "nothing of another process goes");
    raw::remove_segment(ours);
    dead.kill();
}

#[test]
fn an_incomplete_pipe_of_a_dead_creator_is_recreated() {
    for steps in 0..=3 {
        for must_be_new in [true, false] {
            let name = Name::new();
            leave_incomplete(&name, steps);
            let error = Pipe::open(&name).unwrap_err();
            if steps < 2 {
                assert!(matches!(error, SetupError::NotFound { .. }), "{steps}: {error:?}");
            } else {
                let pid = std::process::id();
                assert!(
                    matches!(error, SetupError::Damaged(Damage::Incomplete { pid: p, .. }) if p == pid),
                    "{steps}: {error:?}"
                );
                assert!(error.to_string().contains(&pid.to_string()), "{error}");
            }
            let options = Options::new().capacity(65_536);
            let pipe =
                if must_be_new { options.create(&name) } else { options.open_or_create(&name) }.unwrap();
            assert!(pipe.created());
            assert_eq!(pipe.capacity(), 65_536);
            check(&name);
        }
    }
}

#[test]
fn an_incomplete_pipe_of_a_dead_creator_is_reported_and_can_be_removed() {
    for steps in 2..=3 {
        let name = Name::new();
        leave_incomplete(&name, steps);
        let error = inspect(&name).unwrap_err();
        assert!(matches!(error, SetupError::Damaged(Damage::Incomplete { .. })), "{steps}: {error:?}");
        unlink(&name).unwrap();
        assert!(name.is_unused());
    }
    // A remover that dies half-way leaves a set alone.
    let name = Name::new();
    leave_incomplete(&name, 1);
    unlink(&name).unwrap();
    assert!(name.is_unused());
}

#[test]
fn a_creator_that_dies_at_the_last_step_leaves_a_complete_pipe() {
    let name = Name::new();
    let id = Options::new().create(&name).unwrap().id();
    raw::set_semaphore(name.set().unwrap(), STAGE, CREATING.into());
    assert_eq!(Pipe::open_or_create(&name).unwrap().id(), id);
    check(&name);
}

#[test]
fn zeros_of_a_process_other_than_the_recorded_creator_are_not_repaired() {
    let name = Name::new();
    // The process that set the stage is not the one that created the segment.
    raw::make_segment(name.key(), 12_288, 0o600);
    let mut other = end::start();
    let set = raw::make_set(name.key(), 8);
    assert_eq!(other.ask(format!("semaphore {set} {STAGE} {CREATING}")), "set");
    for attempt in [Pipe::open_or_create::<&Name>, Pipe::open] {
        let error = attempt(&name).unwrap_err();
        assert!(matches!(error, SetupError::Foreign { .. }), "{error:?}");
    }
    let segment = Attached::new(name.segment().unwrap());
    assert!(segment.bytes().iter().all(|&byte| byte == 0));
}

/// A second process that holds the lock of a set until the next command.
pub fn lock(mut line: Line) {
    raw::hold_semaphore(line.words[0].parse().unwrap(), 0);
    line.say("locked");
    line.hear();
}

#[test]
fn a_slow_creator_is_named_and_its_death_frees_the_lock() {
    let name = Name::new();
    Pipe::open_or_create(&name).unwrap();
    let mut locker = Process::start("lock", &[&name.set().unwrap().to_string()]);
    assert_eq!(locker.hear(), "locked");
    let error = Pipe::open(&name).unwrap_err();
    let pid = locker.pid();
    assert!(matches!(error, SetupError::Busy { pid: Some(p), .. } if p == pid), "{error:?}");
    assert!(error.to_string().contains(&pid.to_string()), "{error}");
    let waiting = thread::spawn({
        let address = name.to_string();
        move || Pipe::open(address.as_str()).map(drop)
    });
    thread::sleep(Duration::from_millis(20));
    locker.kill();
    waiting.join().unwrap().unwrap();
}

/// Enters a new IPC namespace with its own limits, or reports that it cannot.
fn in_own_namespace(line: &mut Line) -> bool {
    // SAFETY: no pointers.
    let entered = unsafe { libc::unshare(libc::CLONE_NEWIPC) } == 0;
    let writable = entered && std::fs::write("/proc/sys/kernel/shmmni", "4096").is_ok();
    if !writable {
        line.say("no namespace");
    }
    writable
}

pub fn rmid_forced(mut line: Line) {
    if !in_own_namespace(&mut line) {
        return;
    }
    const SYSCTL: &str = "/proc/sys/kernel/shm_rmid_forced";
    let (name, other) = (Name::new(), Name::new());
    let pipe = Options::new().capacity(4096).create(&name).unwrap();
    std::fs::write(SYSCTL, "1").unwrap();
    type Open = fn(&Options, &Name) -> Result<Pipe, SetupError>;
    let open: Open = |options, name| options.open(name);
    let open_or_create: Open = |options, name| options.open_or_create(name);
    let create: Open = |options, name| options.create(name);
    for (call, name) in [(open, &name), (open_or_create, &name), (open_or_create, &other), (create, &other)] {
        let error = call(&Options::new().capacity(4096), name).unwrap_err();
        assert!(
            matches!(&error, SetupError::Kernel(MissingFeature::LastingSegments { address }) if address.to_string() == name.as_str()),
            "{error:?}"
        );
        for part in ["kernel.shm_rmid_forced", "posix:", "(shmpipe keep)", "allow_rmid_forced"] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }
    assert!(other.is_unused());
    // What is open works on, a second time too, as far as its options allow that.
    let allowed = Options::new().capacity(4096).allow_rmid_forced(true);
    allowed.open(&name).unwrap().producer().unwrap().send(b"kept open").unwrap();
    assert_eq!(pipe.consumer().unwrap().recv().unwrap().to_vec(), b"kept open");
    assert_eq!(allowed.open(&name).unwrap().reopen().unwrap().id(), pipe.id());
    // With the last handle goes the segment.
    drop(pipe);
    assert_eq!(name.segment(), None);
    // A thread in another namespace is asked about its own.
    std::thread::spawn(|| {
        // SAFETY: no pointers.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWIPC) }, 0);
        drop(Options::new().capacity(4096).create("sysv:private").unwrap());
    })
    .join()
    .unwrap();
    std::fs::write(SYSCTL, "0").unwrap();
    drop(open_or_create(&Options::new().capacity(4096), &name).unwrap());
    assert!(name.segment().is_some());
    line.say("done");
}

#[test]
fn where_the_kernel_removes_unattached_segments_a_pipe_needs_permission() {
    let mut process = Process::start("rmid forced", &[]);
    match process.hear().as_str() {
        "done" => process.end(),
        _ => eprintln!("where_the_kernel_removes...: skipped, since it needs an IPC namespace"),
    }
}

pub fn limits(mut line: Line) {
    if !in_own_namespace(&mut line) {
        return;
    }
    const SEM: &str = "/proc/sys/kernel/sem";
    let with = |file: &str, value: &str, existing: usize, capacity: u64, expected: (&str, u64, u64)| {
        let default = std::fs::read_to_string(file).unwrap();
        let names: Vec<Name> = (0..=existing).map(|_| Name::new()).collect();
        for name in &names[..existing] {
            Options::new().capacity(4096).create(name).unwrap();
        }
        std::fs::write(file, value).unwrap();
        let refused = &names[existing];
        for address in [refused.as_str(), "sysv:private"] {
            let error = Options::new().capacity(capacity).create(address).unwrap_err();
            let SetupError::Limit(Shortage::System { name, value, requested, raise_in: says }) = error else {
                panic!("{error:?}")
            };
            assert_eq!((name, value, requested), expected, "{error}");
            assert_eq!(says, file);
            for part in [name, &value.to_string(), &requested.to_string(), file] {
                assert!(error.to_string().contains(part), "{error}");
            }
        }
        assert!(refused.is_unused());
        let sets = std::fs::read_to_string("/proc/sysvipc/sem").unwrap();
        assert_eq!(sets.lines().count(), 1 + existing, "{sets}");
        std::fs::write(file, default).unwrap();
    };
    with("/proc/sys/kernel/shmmax", "8192", 0, 65_536, ("SHMMAX", 8192, 65_536 + 4096));
    with("/proc/sys/kernel/shmmni", "2", 2, 4096, ("SHMMNI", 2, 3));
    with("/proc/sys/kernel/shmall", "5", 1, 16_384, ("SHMALL", 5, 2 + 5));
    with(SEM, "250 32000 32 1", 1, 4096, ("SEMMNI", 1, 2));
    with(SEM, "250 20 32 100", 2, 4096, ("SEMMNS", 20, 24));
    line.say("done");
}

#[test]
fn each_limit_of_the_system_is_named_with_its_value_and_its_file() {
    let mut process = Process::start("limits", &[]);
    match process.hear().as_str() {
        "done" => process.end(),
        _ => eprintln!("each_limit_of_the_system...: skipped, since it needs an IPC namespace"),
    }
}

/// Finds a name whose hash is 0, which would be IPC_PRIVATE, and creates a pipe with that name.
pub fn name_of_key_0(mut line: Line) {
    if !in_own_namespace(&mut line) {
        return;
    }
    // FNV-1a can be inverted byte by byte. `before` maps each state from which three more bytes lead to 0 to those bytes.
    const PRIME: u32 = 16_777_619;
    let inverse = (0..5).fold(PRIME, |x, _| x.wrapping_mul(2u32.wrapping_sub(PRIME.wrapping_mul(x))));
    assert_eq!(PRIME.wrapping_mul(inverse), 1);
    let letters = || b'a'..=b'z';
    let threes =
        || letters().flat_map(move |a| letters().flat_map(move |b| letters().map(move |c| [a, b, c])));
    let mut before = std::collections::HashMap::new();
    for end in threes() {
        let state = end.iter().rev().fold(0u32, |hash, &byte| hash.wrapping_mul(inverse) ^ u32::from(byte));
        before.insert(state, end);
    }
    let name = (0..10_000)
        .find_map(|i| {
            threes().find_map(|middle| {
                let start = format!("{i}{}", std::str::from_utf8(&middle).unwrap());
                let state = start
                    .bytes()
                    .fold(2_166_136_261_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(PRIME));
                let end = before.get(&state)?;
                Some(format!("{start}{}", std::str::from_utf8(end).unwrap()))
            })
        })
        .unwrap();
    let pipe = Options::new().capacity(4096).create(name.as_str()).unwrap();
    let seen = inspect(name.as_str()).unwrap();
    assert_ne!(raw::ids(&seen).key, 0);
    assert_eq!(Pipe::open(name.as_str()).unwrap().id(), pipe.id());
    line.say("done");
}

#[test]
fn the_key_of_a_name_is_never_0() {
    let mut process = Process::start("key 0", &[]);
    match process.hear().as_str() {
        "done" => process.end(),
        _ => eprintln!("the_key_of_a_name_is_never_0: skipped, since it needs an IPC namespace"),
    }
}
