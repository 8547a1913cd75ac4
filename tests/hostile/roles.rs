//! Holders that lose or keep a role without the other side being notified.

use crate::attacker::{small, soon};
use shmpipe::{CheckError, Lost, Peer, Pipe, Producer, Role, SendTimeoutError, SetupError, Wait, inspect};
use shmpipe_testing::backend::Backend;
use shmpipe_testing::either::Either;
use shmpipe_testing::end::NOBODY;
use shmpipe_testing::layout::{CONSUMER, PRODUCER, side};
use shmpipe_testing::process::{Line, Process};
use shmpipe_testing::{LONG, end, is_root, reaper, until, within};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

fn fill(producer: &mut Producer) {
    while producer.try_send(&[0; 100]).is_ok() {}
}

/// Row 21: a process that may write to the segment can overwrite a claim. Its holder notices when it waits, also after another
/// process claimed the role in good faith.
pub fn a_held_role_freed_and_claimed_by_another_process(backend: Backend) {
    for wait in [Wait::Block, Wait::Spin] {
        let place = backend.place();
        let pipe = place.create(&small().wait(wait)).unwrap();
        let mut first = pipe.producer().unwrap();
        place.segment().set(PRODUCER + side::CLAIM, 0);
        let mut second = end::producer(&place);
        fill(&mut first);
        assert_eq!(first.send_deadline(&[0; 100], soon()), Err(SendTimeoutError::Lost(Lost::Role)));
        // The second holder continues.
        assert!(second.ask("fill").starts_with("full after"));
        assert_eq!(second.ask("send more 250"), "TimedOut");
        drop(first);
        assert!(matches!(pipe.producer().unwrap_err(), SetupError::RoleTaken { .. }), "the second holds it");
        // An endpoint that lost its role does not close the side of its successor.
        assert_eq!(inspect(&place).unwrap().producer.peer, Peer::Open);

        let place = backend.place();
        let pipe = place.create(&small().wait(wait)).unwrap();
        let mut first = pipe.consumer().unwrap();
        place.segment().set(CONSUMER + side::CLAIM, 0);
        let mut second = end::consumer(&place);
        assert_eq!(first.recv_deadline(soon()).unwrap_err(), shmpipe::RecvTimeoutError::Lost(Lost::Role));
        drop(first);
        assert_eq!(second.ask("recv 250"), "TimedOut");
        assert_eq!(inspect(&place).unwrap().consumer.peer, Peer::Open);
    }
}

/// Claims a role, or opens the pipe only, and leaves its IPC namespace on command.
pub fn move_away(mut line: Line) {
    let [address, role] = line.words.clone().try_into().unwrap();
    // In a child, whose other threads do not stay behind in the old namespace.
    // SAFETY: the child uses the heap, which glibc keeps usable across fork.
    let child = unsafe { libc::fork() };
    if child != 0 {
        // SAFETY: the pointer is null, since the status is not needed.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        return;
    }
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let pipe = Pipe::open(address.as_str()).unwrap();
    let mut producer = (role == "producer").then(|| pipe.producer().unwrap());
    let mut consumer = (role == "consumer").then(|| pipe.consumer().unwrap());
    line.say("open");
    while let Some(command) = line.hear() {
        match command.as_str() {
            "move" => {
                // SAFETY: no pointers.
                let moved = unsafe { libc::unshare(libc::CLONE_NEWIPC) };
                line.say(if moved == 0 { "moved" } else { "not allowed" });
            }
            "leave" => {
                drop((producer.take(), consumer.take()));
                line.say("left");
            }
            "claim" => line.say(format!("{:?}", pipe.producer().map(drop))),
            "try" => match (&mut producer, &mut consumer) {
                (Some(producer), _) => line.say(format!("{:?}", producer.try_send(b"still").map(drop))),
                (_, Some(consumer)) => line.say(format!("{:?}", consumer.try_recv().map(drop))),
                _ => unreachable!(),
            },
            "wait" => match (&mut producer, &mut consumer) {
                (Some(producer), _) => {
                    fill(producer);
                    line.say(format!("{:?}", producer.send(&[0; 100]).map(drop)));
                }
                (_, Some(consumer)) => {
                    while consumer.try_recv().is_ok() {}
                    line.say(format!("{:?}", consumer.recv().map(drop)));
                }
                _ => unreachable!(),
            },
            command => panic!("{command}"),
        }
    }
}

/// `unshare(CLONE_NEWIPC)` leaves the mapping, so the holder could continue beside a successor.
pub fn a_holder_that_moves_to_another_ipc_namespace(backend: Backend) {
    for role in ["producer", "consumer"] {
        let place = backend.place();
        let pipe = place.create(&small()).unwrap();
        let mut holder = Process::start("mover", &[place.as_str(), role]);
        assert_eq!(holder.hear(), "open");
        if holder.ask("move") != "moved" {
            eprintln!("a_holder_that_moves_to_another_ipc_namespace: skipped, since it is not allowed");
            return;
        }
        let claim = || match role {
            "producer" => pipe.producer().map(drop),
            _ => pipe.consumer().map(drop),
        };
        // It can still write or read, so it still holds its role.
        let error = claim().unwrap_err();
        assert!(matches!(error, SetupError::RoleTaken { pid: Some(_), .. }), "{error:?}");
        // It notices when it waits.
        assert_eq!(holder.ask("wait"), "Err(Lost(Removed))");
        holder.kill();
        until("the end of its child", || claim().is_ok());
    }
}

/// It can still store that it closes, so its peer does not take it for dead.
pub fn a_holder_that_moved_away_closes(backend: Backend) {
    for role in ["producer", "consumer"] {
        let place = backend.place();
        let pipe = place.create(&small()).unwrap();
        let mut holder = Process::start("mover", &[place.as_str(), role]);
        assert_eq!(holder.hear(), "open");
        if holder.ask("move") != "moved" {
            eprintln!("a_holder_that_moved_away_closes: skipped, since it is not allowed");
            return;
        }
        let mut peer = match role {
            "producer" => Either::Consumer(pipe.consumer().unwrap()),
            _ => Either::Producer(pipe.producer().unwrap()),
        };
        assert_eq!(holder.ask("wait"), "Err(Lost(Removed))");
        assert_eq!(holder.ask("leave"), "left");
        match &mut peer {
            Either::Consumer(consumer) => {
                while consumer.try_recv().is_ok() {}
                assert_eq!(consumer.check(), Err(CheckError::Closed));
            }
            Either::Producer(producer) => assert_eq!(producer.check(), Err(CheckError::Closed)),
        }
    }
}

/// There, every holder's claim looks void.
pub fn a_handle_that_moves_to_another_ipc_namespace(backend: Backend) {
    let place = backend.place();
    let mut producer = place.create(&small()).unwrap().producer().unwrap();
    let mut mover = Process::start("mover", &[place.as_str(), "none"]);
    assert_eq!(mover.hear(), "open");
    if mover.ask("move") != "moved" {
        eprintln!("a_handle_that_moves_to_another_ipc_namespace: skipped, since it is not allowed");
        return;
    }
    let told = mover.ask("claim");
    assert!(told.starts_with("Err(Lost") && told.ends_with("lost: Removed })"), "{told}");
    // The claim of the holder is as it was.
    producer.check().unwrap();
    let error = Pipe::open(&place).unwrap().producer().unwrap_err();
    assert!(matches!(error, SetupError::RoleTaken { pid: Some(_), .. }), "{error:?}");
}

/// `exec` drops the mapping, and with it the claim.
pub fn a_holder_that_calls_exec(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&small()).unwrap();
    let mut consumer = pipe.consumer().unwrap();
    let mut holder = end::producer(&place);
    holder.say("exec 60");
    let comm = format!("/proc/{}/comm", holder.pid());
    until("the other program", || fs::read_to_string(&comm).unwrap().trim() == "sleep");
    assert_eq!(consumer.recv_deadline(within(LONG)).unwrap_err(), shmpipe::RecvTimeoutError::PeerDied);
    drop(pipe.producer().unwrap());
}

/// A process that claims as root and then becomes another user, as daemons do, may no longer read the pipe's objects. It still
/// learns of the death of its peer, and gives its role back.
pub fn a_holder_that_gives_up_its_rights(backend: Backend) {
    if !is_root("a_holder_that_gives_up_its_rights") {
        return;
    }
    for role in [Role::Producer, Role::Consumer] {
        let place = backend.place();
        let (mut producer, mut consumer) = (end::producer(&place), end::consumer(&place));
        let (peer, holder) = match role {
            Role::Producer => (consumer, &mut producer),
            Role::Consumer => (producer, &mut consumer),
        };
        assert_eq!(holder.ask(format!("become {NOBODY}")), "done");
        assert_eq!(holder.ask("peer"), "Open");
        peer.kill();
        match role {
            Role::Producer => {
                holder.ask("fill");
                assert_eq!(holder.ask("send more"), "PeerDied");
            }
            Role::Consumer => assert_eq!(holder.ask("recv"), "PeerDied"),
        }
        assert_eq!(holder.ask("close"), "closed");
        let pipe = Pipe::open(&place).unwrap();
        drop((pipe.producer().unwrap(), pipe.consumer().unwrap()));
    }
}

/// A seccomp filter forbids the call that asks whether the peer lives: then a wait fails rather than never end.
pub fn a_holder_that_may_not_ask_about_its_peer(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&small()).unwrap();
    let (producer, mut consumer) = (end::producer(&place), end::consumer(&place));
    assert_eq!(consumer.ask("forbid_questions"), "forbidden");
    producer.kill();
    let told = consumer.ask("recv");
    assert!(told.starts_with("Lost(Refused { call: ") && told.ends_with("errno: 1 })"), "{told}");
    assert_eq!(consumer.ask("close"), "closed");
    drop(pipe.consumer().unwrap());
}

/// The holder of a handle calls `exec`, and the producer leaves the IPC namespace: the mappings and the semaphores that count
/// them agree by chance.
pub fn a_handle_that_survives_exec_only_in_an_account(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&small()).unwrap();
    let mut gone = end::start();
    assert!(gone.ask(format!("open {place}")).starts_with("pipe"));
    gone.say("exec 60");
    let mut producer = end::producer(&place);
    for message in ["one", "two", "three"] {
        assert_eq!(producer.ask(format!("send {message}")), "sent");
    }
    if producer.ask("unshare_ipc") != "moved" {
        eprintln!("a_handle_that_survives_exec_only_in_an_account: skipped, since it is not allowed");
        return;
    }
    let error = pipe.producer().unwrap_err();
    assert!(matches!(error, SetupError::RoleTaken { .. }), "{error:?}");
    let mut consumer = pipe.consumer().unwrap();
    for message in ["one", "two", "three"] {
        assert_eq!(consumer.recv().unwrap().to_vec(), message.as_bytes());
    }
}

/// Watchers attach a segment for a moment. They do not make a claim fail.
pub fn claims_beside_many_watchers(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&small()).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    inspect(&place).unwrap();
                }
            });
        }
        let claimed: Result<Vec<()>, _> =
            (0..40).map(|_| pipe.producer().map(drop).and_then(|()| pipe.consumer().map(drop))).collect();
        stop.store(true, Ordering::Relaxed);
        claimed.unwrap();
    });
}

/// A stopped process may continue later, and keeps its role until then.
pub fn a_holder_that_is_stopped(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&small()).unwrap();
    let mut consumer = pipe.consumer().unwrap();
    let mut holder = end::producer(&place);
    holder.signal(libc::SIGSTOP);
    let state = format!("/proc/{}/stat", holder.pid());
    until("a stopped process", || fs::read_to_string(&state).unwrap().contains(") T "));
    let error = consumer.recv_deadline(within(shmpipe_testing::A_WHILE)).unwrap_err();
    assert_eq!(error, shmpipe::RecvTimeoutError::TimedOut);
    assert_eq!(consumer.peer(), Peer::Open);
    let error = pipe.producer().unwrap_err();
    assert!(matches!(error, SetupError::RoleTaken { .. }), "{error:?}");
    holder.signal(libc::SIGCONT);
    assert_eq!(holder.ask("send on"), "sent");
    assert_eq!(consumer.recv().unwrap().to_vec(), b"on");
}

/// The memory of the process that dumps core, in bytes.
const LARGE: usize = 64 << 20;

/// Claims the producer's role and dies of a signal that writes all of its memory to a file.
pub fn be_dumped(mut line: Line) {
    let [address, directory] = line.words.clone().try_into().unwrap();
    std::env::set_current_dir(directory).unwrap();
    let all = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the pointer is to a live rlimit.
    let allowed = unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const all) } == 0;
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    if !allowed || pattern.trim().starts_with(['|', '/', '@']) {
        line.say("no core here");
        return;
    }
    let memory = std::hint::black_box(vec![0x5A_u8; LARGE]);
    let pipe = Pipe::open(address.as_str()).unwrap();
    let _producer = pipe.producer().unwrap();
    line.say("claimed");
    line.hear();
    if memory[LARGE / 2] == 0x5A {
        std::process::abort();
    }
}

/// During a core dump the process still has its memory: the role is free only when the whole dump is written.
pub fn a_holder_that_dumps_core(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&small()).unwrap();
    let mut consumer = pipe.consumer().unwrap();
    let directory = reaper::directory().join(format!("core-{backend:?}"));
    fs::create_dir(&directory).unwrap();
    let mut holder = Process::start("dumped", &[place.as_str(), directory.to_str().unwrap()]);
    if holder.hear() != "claimed" {
        eprintln!(
            "a_holder_that_dumps_core: skipped, since core files are not written to the directory here"
        );
        return;
    }
    holder.say("die");
    assert_eq!(consumer.recv_deadline(within(LONG)).unwrap_err(), shmpipe::RecvTimeoutError::PeerDied);
    let core = fs::read_dir(&directory).unwrap().next().expect("a core file").unwrap();
    let bytes = core.metadata().unwrap().len();
    assert!(bytes >= LARGE as u64, "reported when {bytes} bytes of the core were written");
    fs::remove_dir_all(&directory).unwrap();
    drop(pipe.producer().unwrap());
}
