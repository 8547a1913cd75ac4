//! Holders of a role who lose it, or keep it, in ways that nobody told the other side about.

use crate::attacker::{small, soon};
use shmpipe::{Lost, Peer, Pipe, Producer, SendTimeoutError, SetupError, Wait, inspect};
use shmpipe_testing::backend::Backend;
use shmpipe_testing::process::{Line, Process};
use shmpipe_testing::{LONG, end, raw, reaper, until, within};
use std::fs;

fn fill(producer: &mut Producer) {
    while producer.try_send(&[0; 100]).is_ok() {}
}

/// Row 21: whoever may write to the set can free a role. Who held it finds out when it waits, also after somebody else has claimed it
/// in good faith, so that the semaphore looks as it did.
pub fn a_held_role_freed_and_claimed_by_another_process(backend: Backend) {
    for wait in [Wait::Block, Wait::Spin] {
        let place = backend.place();
        let pipe = place.create(&small().wait(wait)).unwrap();
        let mut first = pipe.producer().unwrap();
        raw::set_semaphore(place.set().unwrap(), 1, 0);
        let mut second = end::producer(&place);
        fill(&mut first);
        assert_eq!(first.send_deadline(&[0; 100], soon()), Err(SendTimeoutError::Lost(Lost::Role)));
        // The other one holds it, and goes on.
        assert!(second.ask("fill").starts_with("full after"));
        assert_eq!(second.ask("send more 250"), "TimedOut");
        drop(first);
        assert!(matches!(pipe.producer().unwrap_err(), SetupError::RoleTaken { .. }), "that of the second");
        // Nor does one that has lost its role close the side that is another's now.
        assert_eq!(inspect(&place).unwrap().producer.peer, Peer::Open);

        let place = backend.place();
        let pipe = place.create(&small().wait(wait)).unwrap();
        let mut first = pipe.consumer().unwrap();
        raw::set_semaphore(place.set().unwrap(), 2, 0);
        let mut second = end::consumer(&place);
        assert_eq!(first.recv_deadline(soon()).unwrap_err(), shmpipe::RecvTimeoutError::Lost(Lost::Role));
        drop(first);
        assert_eq!(second.ask("recv 250"), "TimedOut");
        assert_eq!(inspect(&place).unwrap().consumer.peer, Peer::Open);
    }
}

/// Takes a role and takes it along.
pub fn move_away(mut line: Line) {
    let [address, role] = line.words.clone().try_into().unwrap();
    // With a second thread, the kernel would free the role when that ends too.
    // SAFETY: the child uses the heap, which glibc keeps usable across fork.
    let child = unsafe { libc::fork() };
    if child != 0 {
        // SAFETY: a null pointer, for a status that nobody wants.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        return;
    }
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let pipe = Pipe::open(address.as_str()).unwrap();
    let mut producer = (role == "producer").then(|| pipe.producer().unwrap());
    let mut consumer = (role == "consumer").then(|| pipe.consumer().unwrap());
    line.say("claimed");
    while let Some(command) = line.hear() {
        match command.as_str() {
            "move" => {
                // SAFETY: no pointers.
                let moved = unsafe { libc::unshare(libc::CLONE_NEWIPC) };
                line.say(if moved == 0 { "moved" } else { "not allowed" });
            }
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

/// `unshare(CLONE_NEWIPC)`: the kernel frees the role and leaves the mapping, so that its holder could go on beside a successor.
pub fn a_holder_that_moves_to_another_ipc_namespace(backend: Backend) {
    for role in ["producer", "consumer"] {
        let place = backend.place();
        let pipe = place.create(&small()).unwrap();
        let mut holder = Process::start("mover", &[place.as_str(), role]);
        assert_eq!(holder.hear(), "claimed");
        if holder.ask("move") != "moved" {
            eprintln!("a_holder_that_moves_to_another_ipc_namespace: left out, since it is not allowed");
            return;
        }
        let semaphore = if role == "producer" { 1 } else { 2 };
        assert_eq!(raw::semaphore(place.set().unwrap(), semaphore), 0, "the kernel has freed the role");
        place.attached_by(2);
        let claim = || match role {
            "producer" => pipe.producer().map(drop),
            _ => pipe.consumer().map(drop),
        };
        // It still writes, or reads, and so nobody takes its place, or any.
        let error = claim().unwrap_err();
        assert!(matches!(error, SetupError::Unaccounted { attached: 1.., .. }), "{error:?}");
        assert_eq!(raw::semaphore(place.set().unwrap(), semaphore), 0, "given back");
        // It finds out when it waits.
        assert_eq!(holder.ask("wait"), "Err(Lost(Removed))");
        holder.kill();
        until("an end of its child", || claim().is_ok());
    }
}

/// `exec` keeps a semaphore and drops the mapping: until the program ends the kernel says that the role is held. A lock on a byte is
/// gone with the mapping.
pub fn a_holder_that_calls_exec(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&small()).unwrap();
    let mut consumer = pipe.consumer().unwrap();
    let mut holder = end::producer(&place);
    holder.say("exec 60");
    let comm = format!("/proc/{}/comm", holder.pid());
    until("another program", || fs::read_to_string(&comm).unwrap().trim() == "sleep");
    if place.set().is_some() {
        let newcomer = Pipe::open(&place).unwrap();
        let error = consumer.recv_deadline(within(shmpipe_testing::A_WHILE)).unwrap_err();
        assert_eq!(error, shmpipe::RecvTimeoutError::TimedOut, "nobody knows yet");
        let error = newcomer.producer().unwrap_err();
        assert!(matches!(error, SetupError::RoleTaken { pid, .. } if pid == Some(holder.pid())), "{error:?}");
        holder.kill();
    }
    assert_eq!(consumer.recv_deadline(within(LONG)).unwrap_err(), shmpipe::RecvTimeoutError::PeerDied);
    drop(pipe.producer().unwrap());
}

/// One that is stopped may go on: it keeps its role, for as long as it takes.
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

/// Bytes of memory of the one that dumps core.
const LARGE: usize = 64 << 20;

/// Takes the producer's role and dies of a signal that writes all of its memory to a file.
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

/// A core dump shows the memory of a process that still has it: the role is freed when all of it is written, and not before.
pub fn a_holder_that_dumps_core(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&small()).unwrap();
    let mut consumer = pipe.consumer().unwrap();
    let directory = reaper::directory().join(format!("core-{backend:?}"));
    fs::create_dir(&directory).unwrap();
    let mut holder = Process::start("dumped", &[place.as_str(), directory.to_str().unwrap()]);
    if holder.hear() != "claimed" {
        eprintln!(
            "a_holder_that_dumps_core: left out, since core files are not written to the directory here"
        );
        return;
    }
    holder.say("die");
    assert_eq!(consumer.recv_deadline(within(LONG)).unwrap_err(), shmpipe::RecvTimeoutError::PeerDied);
    let core = fs::read_dir(&directory).unwrap().next().expect("a core file").unwrap();
    let bytes = core.metadata().unwrap().len();
    assert!(bytes >= LARGE as u64, "told when {bytes} bytes of the core were written");
    fs::remove_dir_all(&directory).unwrap();
    drop(pipe.producer().unwrap());
}
