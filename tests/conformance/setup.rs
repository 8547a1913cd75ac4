//! Creating a pipe: simultaneous creators, creators that die, failures, ownership and wake modes.

use shmpipe::error::MissingFeature;
use shmpipe::os::unix::OptionsExt;
use shmpipe::{Lost, Options, Pipe, SetupError, WakeMode, inspect, unlink, unlink_force};
use shmpipe_testing::backend::{Backend, Place};
use shmpipe_testing::end::Meet;
use shmpipe_testing::process::{Line, Process};
use shmpipe_testing::rng::Rng;
use shmpipe_testing::{LONG, end, is_root, seccomp, within};
use std::collections::BTreeSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Checks that the pipe at `place` works: both roles can be claimed, and a message gets through.
fn check(place: &Place) {
    let pipe = Pipe::open(place).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    producer.send(b"good").unwrap();
    assert_eq!(consumer.recv().unwrap().to_vec(), b"good");
    let seen = inspect(place).unwrap();
    assert_eq!(seen.segment_id, pipe.id());
}

pub fn processes_that_start_at_once_share_one_pipe(backend: Backend) {
    let mut crowd: Vec<Process> = (0..20).map(|_| end::start()).collect();
    for _ in 0..20 {
        let place = backend.place();
        for process in &mut crowd {
            process.say(place.opening());
        }
        let answers: Vec<String> = crowd.iter_mut().map(Process::hear).collect();
        let ids: BTreeSet<&str> = answers.iter().map(|said| said.split(' ').nth(1).unwrap()).collect();
        assert_eq!(ids.len(), 1, "{answers:?}");
        assert_eq!(answers.iter().filter(|said| said.ends_with(" made")).count(), 1, "{answers:?}");
        place.attached_by(20);
        check(&place);
        for process in &mut crowd {
            assert_eq!(process.ask("drop"), "dropped");
        }
        unlink(&place).unwrap();
        assert!(place.is_unused());
    }
}

pub fn threads_that_start_at_once_share_one_pipe(backend: Backend) {
    let barrier = Barrier::new(16);
    for round in 0..40 {
        let place = backend.place();
        let open = || {
            barrier.wait();
            // In every other round all of them call `create`, which succeeds for one of them.
            match round % 2 {
                0 => place.open_or_create(&Options::new()),
                _ => place.create(&Options::new()).or_else(|error| match error {
                    SetupError::Exists { .. } => Pipe::open(&place),
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
        check(&place);
        unlink(&place).unwrap();
    }
}

pub fn one_of_many_simultaneous_claims_succeeds(backend: Backend) {
    let place = backend.place();
    let shared = place.open_or_create(&Options::new()).unwrap();
    let barrier = Barrier::new(8);
    let claim = |own_handle: bool| {
        let opened = own_handle.then(|| Pipe::open(&place));
        barrier.wait();
        // A thread fails only after the barriers: before, the others would wait for it.
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

pub fn concurrent_openers_and_removers_never_see_an_incomplete_pipe(backend: Backend) {
    let place = backend.place();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for i in 0..3 {
            let (place, done) = (&place, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let pipe = place.open_or_create(&Options::new()).unwrap();
                    let claimed = if i == 0 { pipe.producer().map(drop) } else { pipe.consumer().map(drop) };
                    match claimed {
                        Ok(())
                        | Err(
                            SetupError::RoleTaken { .. }
                            | SetupError::Lost { lost: Lost::Removed, .. }
                            | SetupError::Lost { lost: Lost::Replaced, .. },
                        ) => {}
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
            match if round % 2 == 0 { unlink(&place) } else { unlink_force(&place) } {
                Ok(()) => removed += 1,
                Err(SetupError::NotFound { .. } | SetupError::RoleTaken { .. }) => {}
                Err(error) => stop_on(Some(format!("unlink: {error:?}"))),
            }
            match inspect(&place) {
                Ok(_) | Err(SetupError::NotFound { .. }) => {}
                Err(error) => stop_on(Some(format!("inspect: {error:?}"))),
            }
            if removed == 100 {
                break;
            }
            stop_on((Instant::now() > deadline).then(|| format!("{removed} removed")));
        }
        done.store(true, Ordering::Relaxed);
    });
}

pub fn create_and_remove(mut line: Line) {
    let address = line.words[0].clone();
    line.say("started");
    loop {
        // Registering for membarrier would take longer than all the rest.
        let _ = Options::new().capacity(4096).wake_mode(WakeMode::Fence).open_or_create(address.as_str());
        let _ = unlink(address.as_str());
    }
}

pub fn a_creator_or_remover_killed_at_any_time_leaves_a_usable_address(backend: Backend) {
    let place = backend.place();
    let mut rng = Rng::of_this_run("setup");
    for round in 0..120 {
        let mut victim = Process::start("create and remove", &[place.as_str()]);
        victim.hear();
        thread::sleep(Duration::from_micros(rng.below(1500)));
        victim.kill();
        match round % 3 {
            0 => drop(place.open_or_create(&Options::new()).unwrap()),
            1 => match place.create(&Options::new()) {
                Ok(_) | Err(SetupError::Exists { .. }) => {}
                Err(error) => panic!("{error:?}"),
            },
            _ => match unlink(&place) {
                Ok(()) | Err(SetupError::NotFound { .. }) => drop(place.create(&Options::new()).unwrap()),
                Err(error) => panic!("{error:?}"),
            },
        }
        check(&place);
        unlink(&place).unwrap();
        assert!(place.is_unused());
    }
}

pub fn a_failed_create_leaves_nothing_behind(backend: Backend) {
    let place = backend.place();
    for options in [
        Options::new().capacity(u64::MAX),
        Options::new().wake_mode(WakeMode::Never).wait(shmpipe::Wait::Block),
        // More memory than any machine has.
        Options::new().capacity(1 << 40),
    ] {
        let Err(error) = place.create(&options) else { continue };
        assert!(!error.to_string().is_empty());
        assert!(place.is_unused(), "{error}");
    }
}

pub fn a_new_pipe_has_the_requested_owner_and_group(backend: Backend) {
    if !is_root("a_new_pipe_has_the_requested_owner_and_group") {
        return;
    }
    let place = backend.place();
    place.create(&Options::new().uid(65_533).gid(65_532).mode(0o660)).unwrap();
    let seen = inspect(&place).unwrap();
    assert_eq!((seen.permissions.uid, seen.permissions.gid, seen.permissions.mode), (65_533, 65_532, 0o660));
    // A file does not record its creator.
    assert_eq!(seen.creator, if backend == Backend::SysV { 0 } else { 65_533 });
    // The roles belong to the new owner as well.
    let mut owner = end::start();
    assert_eq!(owner.ask("become 65533"), "done");
    let opened = owner.ask(format!("open {place}"));
    assert!(opened.starts_with("pipe "), "{opened}");
    assert_eq!(owner.ask("producer"), "claimed");
}

pub fn no_membarrier(mut line: Line) {
    seccomp::forbid(libc::SYS_membarrier, None, libc::ENOSYS);
    let [existing, new] = line.words.clone().try_into().unwrap();
    let error = Pipe::open(existing.as_str()).unwrap_err();
    assert!(
        matches!(error, SetupError::Kernel(MissingFeature::Wake { mode: WakeMode::Membarrier, .. })),
        "{error:?}"
    );
    assert!(error.to_string().contains("membarrier"), "{error}");
    assert!(std::error::Error::source(&error).is_some());
    // It can use a pipe that it creates itself.
    let pipe = Pipe::open_or_create(new.as_str()).unwrap();
    assert_eq!(pipe.wake_mode(), WakeMode::Fence);
    line.say("done");
}

pub fn a_process_without_the_wake_mode_of_the_pipe_is_refused(backend: Backend) {
    let (existing, new) = (backend.place(), backend.place());
    let pipe = existing.create(&Options::new()).unwrap();
    if pipe.wake_mode() != WakeMode::Membarrier {
        return eprintln!(
            "a_process_without_the_wake_mode_of_the_pipe_is_refused: this kernel has no membarrier"
        );
    }
    let mut other = Process::start("no membarrier", &[existing.as_str(), new.making()]);
    assert_eq!(other.hear(), "done");
    other.end();
}
