//! Waiting for many pipes in one thread.

use shmpipe::{
    AddError, CheckError, DuplexSide, Interest, Key, Lost, Member, Options, Pipe, Producer, Readiness, Role,
    TryRecvError, Wait, WaitSet, WaitSetError, WakeMode, unlink_force,
};
use shmpipe_testing::backend::{Backend, Place};
use shmpipe_testing::either::Either;
use shmpipe_testing::end;
use shmpipe_testing::layout::RING;
use shmpipe_testing::process::{Line, Process};
use shmpipe_testing::{A_WHILE, LONG, seccomp, until, within};
use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

fn small() -> Options {
    Options::new().capacity(4096)
}

fn pipes(backend: Backend, count: usize) -> Vec<(Place, Pipe)> {
    let place = || {
        let place = backend.place();
        let pipe = place.create(&small()).unwrap();
        (place, pipe)
    };
    (0..count).map(|_| place()).collect()
}

/// What one wait found.
fn found<M: Member>(set: &mut WaitSet<M>, deadline: Instant) -> Vec<(Key, Readiness)> {
    let mut found = vec![];
    match set.wait(Some(deadline)) {
        Err(WaitSetError::TimedOut) => {}
        ready => {
            let mut ready = ready.unwrap();
            while let Some(event) = ready.next() {
                found.push((event.key(), event.readiness()));
            }
        }
    }
    found
}

fn nothing<M: Member>(set: &mut WaitSet<M>) {
    assert_eq!(found(set, within(A_WHILE)), []);
}

fn only<M: Member>(set: &mut WaitSet<M>) -> (Key, Readiness) {
    let found = found(set, within(LONG));
    assert_eq!(found.len(), 1, "{found:?}");
    found[0]
}

pub fn a_set_finds_messages_space_and_nothing_else(backend: Backend) {
    let pipes = pipes(backend, 3);
    let mut set = WaitSet::new();
    let keys: Vec<Key> = pipes[..2]
        .iter()
        .map(|(_, pipe)| set.add(Either::Consumer(pipe.consumer().unwrap()), Interest::Message).unwrap())
        .collect();
    let (mut first, mut second) = (pipes[0].1.producer().unwrap(), pipes[1].1.producer().unwrap());
    let mut full = pipes[2].1.producer().unwrap();
    let mut consumer = pipes[2].1.consumer().unwrap();
    while full.try_send(&[0; 100]).is_ok() {}
    let waiting = set.add(Either::Producer(full), Interest::Space(1000)).unwrap();
    nothing(&mut set);

    second.send(b"two").unwrap();
    assert_eq!(only(&mut set), (keys[1], Readiness::Message));
    // It stays ready until it is received.
    assert_eq!(only(&mut set), (keys[1], Readiness::Message));
    first.send(b"one").unwrap();
    let both: BTreeSet<Key> = found(&mut set, within(LONG)).into_iter().map(|(key, _)| key).collect();
    assert_eq!(both, keys.iter().copied().collect());
    for (key, message) in keys.iter().zip([b"one", b"two"]) {
        let Some(Either::Consumer(consumer)) = set.get_mut(*key) else { panic!("no consumer") };
        assert_eq!(consumer.try_recv().unwrap().to_vec(), message);
    }
    nothing(&mut set);

    // One message makes too little space.
    consumer.recv().unwrap().release();
    nothing(&mut set);
    let mut drain = consumer.drain(20);
    while drain.next().unwrap().is_some() {}
    drop(drain);
    assert_eq!(only(&mut set), (waiting, Readiness::Space));
}

pub fn a_sleeping_set_is_woken_by_each_of_its_pipes(backend: Backend) {
    let pipes = pipes(backend, 4);
    let mut set = WaitSet::new();
    for (_, pipe) in &pipes {
        set.add(pipe.consumer().unwrap(), Interest::Message).unwrap();
    }
    let mut producers: Vec<Producer> = pipes.iter().map(|(_, pipe)| pipe.producer().unwrap()).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..100u32 {
                // Often long enough that the set sleeps.
                thread::sleep(Duration::from_micros(u64::from(round % 10) * 50));
                producers[round as usize % 4].send(&round.to_le_bytes()).unwrap();
            }
        });
        let mut taken = vec![];
        while taken.len() < 100 {
            let mut ready = set.wait(Some(within(LONG))).unwrap();
            while let Some(mut event) = ready.next() {
                assert_eq!(event.readiness(), Readiness::Message);
                while let Ok(message) = event.member().try_recv() {
                    taken.push(message.value::<u32>().unwrap());
                }
            }
        }
        taken.sort_unstable();
        assert_eq!(taken, (0..100).collect::<Vec<_>>());
    });
}

pub fn a_sleeping_set_is_woken_by_space(backend: Backend) {
    let pipes = pipes(backend, 3);
    let mut set = WaitSet::new();
    let mut consumers = vec![];
    for (_, pipe) in &pipes {
        let mut producer = pipe.producer().unwrap();
        while producer.try_send(&[0; 100]).is_ok() {}
        set.add(producer, Interest::Space(100)).unwrap();
        consumers.push(pipe.consumer().unwrap());
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..90 {
                thread::sleep(Duration::from_micros(round % 10 * 50));
                consumers[round as usize % 3].recv().unwrap().release();
            }
        });
        let mut sent = 0;
        while sent < 60 {
            let mut ready = set.wait(Some(within(LONG))).unwrap();
            while let Some(mut event) = ready.next() {
                assert_eq!(event.readiness(), Readiness::Space);
                event.member().try_send(&[0; 100]).unwrap();
                sent += 1;
            }
        }
    });
}

pub fn a_set_uses_every_wake_mode_and_strategy(backend: Backend) {
    for strategy in [Wait::Spin, Wait::Yield, Wait::Block] {
        let mut set = WaitSet::with_wait(strategy);
        let mut producers = vec![];
        for mode in [WakeMode::Membarrier, WakeMode::Fence, WakeMode::Never] {
            let place = backend.place();
            let pipe = place.create(&small().wake_mode(mode)).unwrap();
            set.add(pipe.consumer().unwrap(), Interest::Message).unwrap();
            producers.push((place, pipe.producer().unwrap()));
        }
        for (_, producer) in &mut producers {
            thread::scope(|scope| {
                scope.spawn(|| {
                    thread::sleep(Duration::from_millis(2));
                    producer.send(b"hello").unwrap();
                });
                let mut ready = set.wait(Some(within(LONG))).unwrap();
                assert_eq!(ready.next().unwrap().member().try_recv().unwrap().to_vec(), b"hello");
            });
        }
    }
}

pub fn a_set_reports_every_end_once(backend: Backend) {
    let endings = ["close", "abort 7", "kill", "remove"];
    for role in [Role::Producer, Role::Consumer] {
        for ending in endings {
            let place = backend.place();
            if ending == "remove" && backend == Backend::Memfd {
                continue;
            }
            let pipe = place.open_or_create(&small()).unwrap();
            let (member, mut peer) = match role {
                Role::Consumer => (Either::Consumer(pipe.consumer().unwrap()), end::producer(&place)),
                Role::Producer => (Either::Producer(pipe.producer().unwrap()), end::consumer(&place)),
            };
            let mut set = WaitSet::new();
            let key = set.add(member, Interest::End).unwrap();
            nothing(&mut set);
            let expected = match ending {
                "close" => {
                    assert_eq!(peer.ask("close"), "closed");
                    CheckError::Closed
                }
                "abort 7" => {
                    assert_eq!(peer.ask("abort 7"), "aborted");
                    CheckError::PeerAborted { code: 7 }
                }
                "kill" => {
                    peer.kill();
                    CheckError::PeerDied
                }
                _ => {
                    unlink_force(place.as_str()).unwrap();
                    CheckError::Lost(Lost::Removed)
                }
            };
            assert_eq!(only(&mut set), (key, Readiness::Ended(expected)), "{role} {ending}");
            nothing(&mut set);
        }
    }
}

pub fn an_end_that_was_not_looked_at_comes_again(backend: Backend) {
    let pipes = pipes(backend, 2);
    let mut set = WaitSet::new();
    let keys: Vec<Key> =
        pipes.iter().map(|(_, pipe)| set.add(pipe.consumer().unwrap(), Interest::Message).unwrap()).collect();
    for (_, pipe) in &pipes {
        pipe.producer().unwrap().abort(7).unwrap();
    }
    drop(set.wait(Some(within(LONG))).unwrap());
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        let mut ready = set.wait(Some(within(LONG))).unwrap();
        let event = ready.next().unwrap();
        assert_eq!(event.readiness(), Readiness::Ended(CheckError::PeerAborted { code: 7 }));
        assert!(seen.insert(event.key()), "told twice");
    }
    assert_eq!(seen, keys.into_iter().collect());
    nothing(&mut set);
}

pub fn messages_come_before_the_end_and_a_successor_is_heard(backend: Backend) {
    let pipes = pipes(backend, 1);
    let pipe = &pipes[0].1;
    let mut set = WaitSet::new();
    let key = set.add(pipe.consumer().unwrap(), Interest::End).unwrap();
    let mut producer = pipe.producer().unwrap();
    producer.send(b"the last one").unwrap();
    producer.close().unwrap();
    // The message hides the end, and is not asked for.
    nothing(&mut set);
    assert!(set.set_interest(key, Interest::Message).unwrap());
    // At once, although it slept for something else.
    assert_eq!(found(&mut set, Instant::now()), [(key, Readiness::Message)]);
    assert_eq!(set.get_mut(key).unwrap().try_recv().unwrap().to_vec(), b"the last one");
    assert_eq!(only(&mut set), (key, Readiness::Ended(CheckError::Closed)));
    nothing(&mut set);
    assert_eq!(set.get_mut(key).unwrap().try_recv().unwrap_err(), TryRecvError::Closed);

    let mut producer = pipe.producer().unwrap();
    producer.send(b"from a successor").unwrap();
    assert_eq!(only(&mut set), (key, Readiness::Message));
    assert_eq!(set.get_mut(key).unwrap().try_recv().unwrap().to_vec(), b"from a successor");
    producer.close().unwrap();
    assert_eq!(only(&mut set), (key, Readiness::Ended(CheckError::Closed)));
}

pub fn a_flood_in_one_pipe_starves_no_other(backend: Backend) {
    let pipes = pipes(backend, 5);
    let mut set = WaitSet::new();
    let mut keys = vec![];
    for (_, pipe) in &pipes {
        keys.push(set.add(pipe.consumer().unwrap(), Interest::Message).unwrap());
    }
    // All but the first sleep.
    let mut producers: Vec<Producer> = pipes.iter().map(|(_, pipe)| pipe.producer().unwrap()).collect();
    nothing(&mut set);
    for round in 0..1000 {
        while producers[0].try_send(b"flood").is_ok() {}
        let quiet = 1 + round % 4;
        producers[quiet].send(b"drop").unwrap();
        let found = found(&mut set, within(LONG));
        assert!(found.contains(&(keys[0], Readiness::Message)), "{found:?}");
        assert!(found.contains(&(keys[quiet], Readiness::Message)), "{found:?}");
        set.get_mut(keys[0]).unwrap().try_recv().unwrap().release();
        set.get_mut(keys[quiet]).unwrap().try_recv().unwrap().release();
    }
}

pub fn a_flood_hides_no_death(backend: Backend) {
    let pipes = pipes(backend, 1);
    let place = backend.place();
    let pipe = place.open_or_create(&small()).unwrap();
    let mut set = WaitSet::new();
    set.add(pipes[0].1.consumer().unwrap(), Interest::Message).unwrap();
    let key = set.add(pipe.consumer().unwrap(), Interest::Message).unwrap();
    let mut flood = pipes[0].1.producer().unwrap();
    flood.send(b"never received").unwrap();
    end::producer(&place).kill();
    let deadline = within(LONG);
    until("the death", || {
        assert!(Instant::now() < deadline);
        found(&mut set, deadline).contains(&(key, Readiness::Ended(CheckError::PeerDied)))
    });
}

pub fn members_join_and_leave_at_any_time(backend: Backend) {
    let pipes = pipes(backend, 3);
    let mut set = WaitSet::new();
    assert_eq!(set.wait(None).unwrap_err(), WaitSetError::Empty);
    let first = set.add(pipes[0].1.consumer().unwrap(), Interest::Message).unwrap();
    nothing(&mut set);
    let second = set.add(pipes[1].1.consumer().unwrap(), Interest::Message).unwrap();
    pipes[1].1.producer().unwrap().send(b"hello").unwrap();
    assert_eq!(only(&mut set), (second, Readiness::Message));
    let mut consumer = set.remove(second).unwrap();
    assert_eq!(consumer.recv().unwrap().to_vec(), b"hello");
    assert!(set.remove(second).is_none() && set.get_mut(second).is_none());
    assert!(!set.set_interest(second, Interest::End).unwrap());
    let third = set.add(pipes[2].1.consumer().unwrap(), Interest::Message).unwrap();
    assert!(third != second && set.get_mut(second).is_none());
    assert_eq!(set.keys().collect::<Vec<_>>(), [first, third]);
    // An event takes its member out.
    pipes[2].1.producer().unwrap().send(b"hello").unwrap();
    let mut ready = set.wait(Some(within(LONG))).unwrap();
    let mut consumer = ready.next().unwrap().remove();
    assert_eq!(consumer.recv().unwrap().to_vec(), b"hello");
    assert_eq!(set.len(), 1);
    // References can be members, too.
    let mut borrowing = WaitSet::new();
    borrowing.add(&mut consumer, Interest::Message).unwrap();
    assert_eq!(only(&mut borrowing).1, Readiness::Ended(CheckError::Closed));
}

pub fn an_interest_that_does_not_fit_is_refused_and_the_member_returned(backend: Backend) {
    let pipes = pipes(backend, 1);
    let pipe = &pipes[0].1;
    let mut set = WaitSet::new();
    let refused = set.add(Either::Consumer(pipe.consumer().unwrap()), Interest::Space(1)).unwrap_err();
    assert!(matches!(
        refused.reason,
        AddError::Interest { role: Role::Consumer, interest: Interest::Space(1) }
    ));
    let Either::Consumer(mut consumer) = refused.member else { panic!("another member") };
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
    let producer = || Either::Producer(pipe.producer().unwrap());
    let refused = set.add(producer(), Interest::Message).unwrap_err();
    assert!(matches!(refused.reason, AddError::Interest { role: Role::Producer, .. }));
    drop(refused);
    let refused = set.add(producer(), Interest::Space(2041)).unwrap_err();
    assert!(matches!(refused.reason, AddError::TooLarge { length: 2041, max: 2040 }), "{refused:?}");
    drop(refused);
    let key = set.add(producer(), Interest::Space(2040)).unwrap();
    assert!(matches!(set.set_interest(key, Interest::Space(2041)), Err(AddError::TooLarge { .. })));
    // It waits for what it waited for before.
    assert_eq!(only(&mut set), (key, Readiness::Space));
}

pub fn a_cancel_handle_ends_the_wait_of_a_set(backend: Backend) {
    let pipes = pipes(backend, 2);
    let mut set = WaitSet::new();
    for (_, pipe) in &pipes {
        set.add(pipe.consumer().unwrap(), Interest::Message).unwrap();
    }
    let cancel = set.cancel_handle();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(5));
            cancel.cancel();
        });
        assert_eq!(set.wait(None).unwrap_err(), WaitSetError::Cancelled);
    });
    // What is there is found all the same.
    pipes[0].1.producer().unwrap().send(b"hello").unwrap();
    assert_eq!(only(&mut set).1, Readiness::Message);
}

/// Waits in a set where `futex_waitv` fails.
pub fn wait_without_waitv(mut line: Line) {
    let [address, errno] = line.words.clone().try_into().unwrap();
    let errno: i32 = errno.parse().unwrap();
    seccomp::forbid(libc::SYS_futex_waitv, None, errno);
    let refused = shmpipe::os::unix::can_sleep_on_many().unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(errno));
    let mut set = WaitSet::new();
    set.add(Pipe::open(address.as_str()).unwrap().consumer().unwrap(), Interest::Message).unwrap();
    line.say("waiting");
    let mut ready = set.wait(Some(within(LONG))).unwrap();
    let received = ready.next().unwrap().member().try_recv().unwrap().to_vec();
    line.say(String::from_utf8(received).unwrap());
}

pub fn a_set_waits_by_a_timer_where_the_kernel_refuses_the_call(backend: Backend) {
    for errno in [libc::ENOSYS, libc::EPERM] {
        let place = backend.place();
        let pipe = place.create(&small()).unwrap();
        let mut producer = pipe.producer().unwrap();
        let mut other = Process::start("wait without waitv", &[place.as_str(), &errno.to_string()]);
        assert_eq!(other.hear(), "waiting");
        thread::sleep(Duration::from_millis(5));
        producer.send(b"hello").unwrap();
        assert_eq!(other.hear(), "hello");
    }
}

pub fn a_sleeping_set_uses_no_cpu_time(backend: Backend) {
    fn used() -> Duration {
        // SAFETY: all fields are integers.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer is to one rusage.
        assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) }, 0);
        let of = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
        of(usage.ru_utime) + of(usage.ru_stime)
    }
    let pipes = pipes(backend, 5);
    let mut set = WaitSet::new();
    for (_, pipe) in &pipes {
        set.add(pipe.consumer().unwrap(), Interest::Message).unwrap();
    }
    // Neither members that are waited for, nor what was reported, keep it awake.
    pipes[0].1.producer().unwrap().close().unwrap();
    pipes[1].1.producer().unwrap().abort(7).unwrap();
    pipes[2].0.segment().set(RING, u64::MAX / 2);
    let keys: Vec<Key> = set.keys().collect();
    let _unread = pipes[3].1.producer().unwrap().send(b"unread").unwrap();
    assert!(set.set_interest(keys[3], Interest::End).unwrap());
    let mut ends = vec![];
    while ends.len() < 3 {
        ends.extend(found(&mut set, within(LONG)));
    }
    ends.sort_by_key(|(key, _)| *key);
    assert_eq!(ends[0], (keys[0], Readiness::Ended(CheckError::Closed)));
    assert_eq!(ends[1], (keys[1], Readiness::Ended(CheckError::PeerAborted { code: 7 })));
    assert!(matches!(ends[2].1, Readiness::Ended(CheckError::Corrupt(_))), "{ends:?}");
    let before = used();
    assert_eq!(found(&mut set, within(4 * A_WHILE)), []);
    let spent = used() - before;
    assert!(spent < A_WHILE / 2, "{spent:?} of {:?}", 4 * A_WHILE);
}

pub fn sides_of_duplex_pipes_are_members(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&small().duplex(true)).unwrap();
    let mut server = WaitSet::new();
    let key = server.add(pipe.duplex_as(DuplexSide::A).unwrap(), Interest::Message).unwrap();
    nothing(&mut server);
    let mut client = pipe.duplex_as(DuplexSide::B).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(2));
            client.send(b"6 times 7?").unwrap();
        });
        assert_eq!(only(&mut server), (key, Readiness::Message));
    });
    let member = server.get_mut(key).unwrap();
    assert_eq!(member.recv().unwrap().to_vec(), b"6 times 7?");
    while member.try_send(&[0; 1000]).is_ok() {}

    // The halves wait for messages and for space.
    let (producer, consumer) = server.remove(key).unwrap().split();
    let mut halves = WaitSet::new();
    let space = halves.add(Either::Producer(producer), Interest::Space(1000)).unwrap();
    let messages = halves.add(Either::Consumer(consumer), Interest::Message).unwrap();
    nothing(&mut halves);
    while client.try_recv().is_ok() {}
    assert_eq!(only(&mut halves), (space, Readiness::Space));
    assert!(halves.set_interest(space, Interest::End).unwrap());
    client.send(b"so it is").unwrap();
    assert_eq!(only(&mut halves), (messages, Readiness::Message));
    let Either::Consumer(consumer) = halves.get_mut(messages).unwrap() else { panic!("no consumer") };
    consumer.recv().unwrap().release();
    client.close().unwrap();
    let mut ended = vec![];
    while ended.len() < 2 {
        ended.extend(found(&mut halves, within(LONG)));
    }
    ended.sort_by_key(|(key, _)| *key);
    let closed = Readiness::Ended(CheckError::Closed);
    assert_eq!(ended, [(space, closed), (messages, closed)]);
    nothing(&mut halves);
}
