//! Making a pipe: any number of starters at once, creators that died on the way, wishes and limits of the system.

mod support;

use shmpipe::{Options, Pipe, SetupError, WakeMode, inspect, unlink, unlink_force};
use std::collections::BTreeSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::name::Name;
use support::process::{Line, Process, part as play};
use support::raw::{self, Attached};
use support::rng::Rng;
use support::{LONG, attached_by, end, is_root, until, within};

#[test]
fn part() {
    play(&[
        ("end", end::play),
        ("make and remove", make_and_remove),
        ("limits", limits),
        ("key 0", name_of_key_0),
        ("no membarrier", no_membarrier),
        ("lock", lock),
    ]);
}

/// Whether the pipe at `name` is good: both roles can be had, and a message gets through.
fn is_good(name: &Name) {
    let pipe = Pipe::open(name).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    producer.send(b"good").unwrap();
    assert_eq!(consumer.recv().unwrap().to_vec(), b"good");
    let seen = inspect(name).unwrap();
    assert_eq!((Some(raw::ids(&seen).shm_id), Some(raw::ids(&seen).sem_id)), (name.segment(), name.set()));
    assert_eq!(seen.segment_id, pipe.id());
}

#[test]
fn any_number_of_processes_that_start_at_once_share_one_good_pipe() {
    let mut crowd: Vec<Process> = (0..20).map(|_| end::start()).collect();
    for _ in 0..50 {
        let name = Name::new();
        for process in &mut crowd {
            process.say(format!("open_or_create {name}"));
        }
        let answers: Vec<String> = crowd.iter_mut().map(Process::hear).collect();
        let ids: BTreeSet<&str> = answers.iter().map(|said| said.split(' ').nth(1).unwrap()).collect();
        assert_eq!(ids.len(), 1, "{answers:?}");
        assert_eq!(answers.iter().filter(|said| said.ends_with(" made")).count(), 1, "{answers:?}");
        attached_by(name.segment().unwrap(), 20);
        is_good(&name);
        for process in &mut crowd {
            assert_eq!(process.ask("drop"), "dropped");
        }
        unlink(&name).unwrap();
        assert!(name.is_unused());
    }
}

#[test]
fn any_number_of_threads_that_start_at_once_share_one_good_pipe() {
    let barrier = Barrier::new(16);
    for round in 0..100 {
        let name = Name::new();
        let open = || {
            barrier.wait();
            // Some of them insist on a new one, and at most one of those gets it.
            match round % 2 {
                0 => Pipe::open_or_create(&name),
                _ => Options::new().create(&name).or_else(|error| match error {
                    SetupError::Exists { .. } => Pipe::open(&name),
                    error => Err(error),
                }),
            }
        };
        let pipes: Vec<Pipe> = thread::scope(|scope| {
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect()
        });
        assert_eq!(pipes.iter().map(|pipe| pipe.id()).collect::<BTreeSet<_>>().len(), 1);
        assert_eq!(pipes.iter().filter(|pipe| pipe.created()).count(), 1);
        is_good(&name);
        unlink(&name).unwrap();
    }
}

#[test]
fn of_many_claims_at_once_one_succeeds() {
    let name = Name::new();
    let shared = Pipe::open_or_create(&name).unwrap();
    let barrier = Barrier::new(8);
    let claim = |own_handle: bool| {
        let opened = own_handle.then(|| Pipe::open(&name));
        barrier.wait();
        // Whoever fails does so behind the barriers, at which the others would wait for it.
        let claimed = match &opened {
            Some(Ok(own)) => own.producer(),
            _ => shared.producer(),
        };
        barrier.wait();
        assert!(opened.is_none_or(|opened| opened.is_ok()));
        claimed.is_ok()
    };
    for _ in 0..200 {
        let claimed: Vec<bool> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|i| scope.spawn(move || claim(i % 2 == 0))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(claimed.iter().filter(|&&claimed| claimed).count(), 1);
    }
}

#[test]
fn starters_and_removers_at_once_never_see_half_a_pipe() {
    let name = Name::new();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for i in 0..3 {
            let (name, done) = (&name, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let pipe = Pipe::open_or_create(name).unwrap();
                    let claimed = if i == 0 { pipe.producer().map(drop) } else { pipe.consumer().map(drop) };
                    match claimed {
                        Ok(()) | Err(SetupError::RoleTaken { .. } | SetupError::Removed { .. }) => {}
                        Err(error) => panic!("claim: {error:?}"),
                    }
                }
            });
        }
        let stop_on = |failure: Option<String>| {
            if let Some(failure) = failure {
                done.store(true, Ordering::Relaxed);
                panic!("{failure}");
            }
        };
        let mut removed = 0;
        let deadline = within(LONG);
        for round in 0u64.. {
            match if round % 2 == 0 { unlink(&name) } else { unlink_force(&name) } {
                Ok(()) => removed += 1,
                Err(SetupError::NotFound { .. } | SetupError::RoleTaken { .. }) => {}
                Err(error) => stop_on(Some(format!("unlink: {error:?}"))),
            }
            match inspect(&name) {
                Ok(_) | Err(SetupError::NotFound { .. }) => {}
                Err(error) => stop_on(Some(format!("inspect: {error:?}"))),
            }
            if removed == 300 {
                break;
            }
            stop_on((Instant::now() > deadline).then(|| format!("{removed} removed")));
        }
        done.store(true, Ordering::Relaxed);
    });
}

fn make_and_remove(mut line: Line) {
    let name = line.words[0].clone();
    line.say("begun");
    loop {
        let _ = Pipe::open_or_create(name.as_str());
        let _ = unlink(name.as_str());
    }
}

#[test]
fn a_creator_or_remover_killed_at_any_instant_leaves_nothing_that_the_next_one_cannot_mend() {
    let name = Name::new();
    let mut rng = Rng::of_this_run("setup");
    for round in 0..300 {
        let mut victim = Process::start("make and remove", &[name.as_str()]);
        victim.hear();
        thread::sleep(Duration::from_micros(rng.below(1500)));
        victim.kill();
        match round % 3 {
            0 => drop(Pipe::open_or_create(&name).unwrap()),
            1 => match Options::new().create(&name) {
                Ok(_) | Err(SetupError::Exists { .. }) => {}
                Err(error) => panic!("{error:?}"),
            },
            _ => match unlink(&name) {
                Ok(()) | Err(SetupError::NotFound { .. }) => drop(Options::new().create(&name).unwrap()),
                Err(error) => panic!("{error:?}"),
            },
        }
        is_good(&name);
        unlink(&name).unwrap();
        assert!(name.is_unused());
    }
}

/// Semaphores of a set, and stages of the making, as a creator leaves them behind.
const STAGE: i32 = 3;
const MAKING: i32 = 0x5a4d;

/// What is left of a creator that died, by the steps it had done. We are the creator, since a process that died and one
/// that does not hold the lock are the same to the one that finds it.
fn died_after(name: &Name, steps: i32) {
    let set = raw::make_set(name.key(), 8);
    if steps >= 1 {
        raw::set_semaphore(set, STAGE, MAKING);
    }
    if steps >= 2 {
        raw::make_segment(name.key(), 4096 + 8192, 0o600);
    }
    if steps >= 3 {
        let segment = Attached::new(name.segment().unwrap());
        segment.set(0, u64::from_le_bytes(*b"shmmake\0"));
        // Part of an identity.
        segment.set(8, 0x0102_0304_0000_0001);
        segment.set(24, 8192);
    }
}

#[test]
fn what_a_dead_creator_left_is_repaired_by_whoever_may_make() {
    for steps in 0..=3 {
        for must_be_new in [true, false] {
            let name = Name::new();
            died_after(&name, steps);
            let error = Pipe::open(&name).unwrap_err();
            if steps < 2 {
                assert!(matches!(error, SetupError::NotFound { .. }), "{steps}: {error:?}");
            } else {
                let pid = std::process::id();
                assert!(
                    matches!(error, SetupError::HalfMade { pid: p, .. } if p == pid),
                    "{steps}: {error:?}"
                );
                assert!(error.to_string().contains(&pid.to_string()), "{error}");
            }
            let options = Options::new().capacity(65_536);
            let pipe =
                if must_be_new { options.create(&name) } else { options.open_or_create(&name) }.unwrap();
            assert!(pipe.created());
            assert_eq!(pipe.capacity(), 65_536);
            is_good(&name);
        }
    }
}

#[test]
fn what_a_dead_creator_left_can_be_looked_at_and_removed() {
    for steps in 2..=3 {
        let name = Name::new();
        died_after(&name, steps);
        let error = inspect(&name).unwrap_err();
        assert!(matches!(error, SetupError::HalfMade { .. }), "{steps}: {error:?}");
        unlink(&name).unwrap();
        assert!(name.is_unused());
    }
    // A set alone is what a remover leaves that died half-way.
    let name = Name::new();
    died_after(&name, 1);
    unlink(&name).unwrap();
    assert!(name.is_unused());
}

#[test]
fn a_creator_that_died_at_the_last_step_has_made_a_pipe() {
    let name = Name::new();
    let id = Options::new().create(&name).unwrap().id();
    raw::set_semaphore(name.set().unwrap(), STAGE, MAKING);
    assert_eq!(Pipe::open_or_create(&name).unwrap().id(), id);
    is_good(&name);
}

#[test]
fn zeros_made_by_somebody_else_than_the_process_that_said_so_are_not_repaired() {
    let name = Name::new();
    // The stage was set by a process that has not made the segment.
    raw::make_segment(name.key(), 12_288, 0o600);
    let mut other = end::start();
    let set = raw::make_set(name.key(), 8);
    assert_eq!(other.ask(format!("semaphore {set} {STAGE} {MAKING}")), "set");
    for attempt in [Pipe::open_or_create::<&Name>, Pipe::open] {
        let error = attempt(&name).unwrap_err();
        assert!(matches!(error, SetupError::Foreign { .. }), "{error:?}");
    }
    let segment = Attached::new(name.segment().unwrap());
    assert!(segment.bytes().iter().all(|&byte| byte == 0));
}

#[test]
fn a_failed_attempt_leaves_nothing_behind() {
    let name = Name::new();
    for options in [
        Options::new().capacity(u64::MAX),
        Options::new().wake_mode(WakeMode::Never).wait(shmpipe::Wait::Block),
        // More memory than there is.
        Options::new().capacity(1 << 40),
    ] {
        let Err(error) = options.create(&name) else { continue };
        assert!(!error.to_string().is_empty());
        assert!(name.is_unused(), "{error}");
    }
}

#[test]
fn a_new_pipe_belongs_to_whom_it_is_given() {
    if !is_root("a_new_pipe_belongs_to_whom_it_is_given") {
        return;
    }
    let name = Name::new();
    Options::new().uid(65_533).gid(65_532).mode(0o660).create(&name).unwrap();
    let seen = inspect(&name).unwrap();
    assert_eq!((seen.permissions.uid, seen.permissions.gid, seen.permissions.mode), (65_533, 65_532, 0o660));
    assert_eq!(seen.creator, 0);
    // The set as well.
    let mut owner = end::start();
    assert_eq!(owner.ask("become 65533"), "done");
    let opened = owner.ask(format!("open {name}"));
    assert!(opened.starts_with("pipe "), "{opened}");
    assert_eq!(owner.ask("producer"), "claimed");
}

/// A second process that holds the lock of a set until it is told to go on.
fn lock(mut line: Line) {
    raw::hold_semaphore(line.words[0].parse().unwrap(), 0);
    line.say("locked");
    line.hear();
}

#[test]
fn who_sets_up_for_too_long_is_named_and_its_death_lets_the_next_one_in() {
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

/// A filter that lets every system call through but `forbidden`, which fails with ENOSYS.
fn forbid(forbidden: libc::c_long) {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let jump = |k: u32| libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: 0,
        jf: 1,
        k,
    };
    let filter = [
        // The first word of struct seccomp_data is the number of the call.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        jump(forbidden as u32),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program and its filter live until the call returns.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}

fn no_membarrier(mut line: Line) {
    forbid(libc::SYS_membarrier);
    let [existing, new] = line.words.clone().try_into().unwrap();
    let error = Pipe::open(existing.as_str()).unwrap_err();
    assert!(matches!(error, SetupError::CannotWake { mode: WakeMode::Membarrier, .. }), "{error:?}");
    assert!(error.to_string().contains("membarrier"), "{error}");
    assert!(std::error::Error::source(&error).is_some());
    // What it makes itself, it can use.
    let pipe = Pipe::open_or_create(new.as_str()).unwrap();
    assert_eq!(pipe.wake_mode(), WakeMode::Fence);
    line.say("done");
}

#[test]
fn a_process_that_cannot_wake_as_the_pipe_demands_is_refused() {
    let (existing, new) = (Name::new(), Name::new());
    let pipe = Pipe::open_or_create(&existing).unwrap();
    if pipe.wake_mode() != WakeMode::Membarrier {
        return eprintln!(
            "a_process_that_cannot_wake_as_the_pipe_demands_is_refused: this kernel has no membarrier"
        );
    }
    let mut other = Process::start("no membarrier", &[existing.as_str(), new.as_str()]);
    assert_eq!(other.hear(), "done");
    other.end();
    assert_eq!(Pipe::open(&new).unwrap().wake_mode(), WakeMode::Fence);
}

/// Enters an IPC namespace of its own, with limits of its own; says so if that cannot be had.
fn in_own_namespace(line: &mut Line) -> bool {
    // SAFETY: no pointers.
    let entered = unsafe { libc::unshare(libc::CLONE_NEWIPC) } == 0;
    let writable = entered && std::fs::write("/proc/sys/kernel/shmmni", "4096").is_ok();
    if !writable {
        line.say("no namespace");
    }
    writable
}

fn limits(mut line: Line) {
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
            let SetupError::Limit { name, value, asked, file: says } = error else { panic!("{error:?}") };
            assert_eq!((name, value, asked), expected, "{error}");
            assert_eq!(says, file);
            for part in [name, &value.to_string(), &asked.to_string(), file] {
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
        _ => eprintln!("each_limit_of_the_system...: left out, since it needs an IPC namespace"),
    }
}

/// Finds a name whose hash is 0, which would be IPC_PRIVATE, and makes a pipe of that name.
fn name_of_key_0(mut line: Line) {
    if !in_own_namespace(&mut line) {
        return;
    }
    // FNV-1a can be undone byte by byte: the states from which three more bytes lead to 0, and three bytes from the start.
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
        _ => eprintln!("the_key_of_a_name_is_never_0: left out, since it needs an IPC namespace"),
    }
}

#[test]
fn a_role_kept_over_exec_by_a_process_without_the_mapping_is_void() {
    for role in ["producer", "consumer"] {
        let name = Name::new();
        let mut holder = if role == "producer" { end::producer(&name) } else { end::consumer(&name) };
        holder.say("exec 60");
        let comm = format!("/proc/{}/comm", holder.pid());
        until("another program", || std::fs::read_to_string(&comm).unwrap().trim() == "sleep");
        let semaphore = if role == "producer" { 1 } else { 2 };
        assert_eq!(raw::semaphore(name.set().unwrap(), semaphore), 1, "the kernel keeps the claim");

        let mut successor = end::start();
        successor.ask(format!("open {name}"));
        assert_eq!(successor.ask(role), "claimed");
        // Nor does the end of that process touch the claim of its successor.
        holder.kill();
        let mut second = end::start();
        second.ask(format!("open {name}"));
        let refused = second.ask(role);
        assert!(refused.contains(&successor.pid().to_string()), "{refused}");
    }
}
