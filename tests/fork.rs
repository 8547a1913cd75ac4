//! A forked child has neither the mapping nor the claim, and what it drops there does nothing here.

mod support;

use shmpipe::{Options, Peer, Pipe, RecvError, SetupError, inspect};
use std::panic::{AssertUnwindSafe, catch_unwind};
use support::name::{Name, Objects};
use support::process::part as play;
use support::{attached_by, end, raw, until};

#[test]
fn part() {
    play(&[("end", end::play)]);
}

/// How a forked child ended that did `what`.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Well,
    Badly(i32),
    BySignal(i32),
}

fn in_child(what: impl FnOnce()) -> Ended {
    ended(fork(what))
}

fn fork(what: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child uses the heap, which glibc keeps usable across fork, and prints nothing unless it fails; it ends
    // by _exit, without a destructor of the test program.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: no pointers but one to a live rlimit.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::alarm(30);
                libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
            }
            let done = catch_unwind(AssertUnwindSafe(what));
            // SAFETY: ends the process.
            unsafe { libc::_exit(if done.is_ok() { 0 } else { 1 }) }
        }
        child => child,
    }
}

fn ended(child: libc::pid_t) -> Ended {
    let mut status = 0;
    // SAFETY: the pointer is to one int.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    match libc::WIFSIGNALED(status) {
        true => Ended::BySignal(libc::WTERMSIG(status)),
        false if libc::WEXITSTATUS(status) == 0 => Ended::Well,
        false => Ended::Badly(libc::WEXITSTATUS(status)),
    }
}

#[test]
fn the_mapping_is_not_inherited() {
    let pipe = Options::new().capacity(4096).create("sysv:private").unwrap();
    let _objects = Objects::of(&pipe);
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    producer.send(b"before").unwrap();
    assert_eq!(
        in_child(|| producer.try_send(b"from a child").map(drop).unwrap()),
        Ended::BySignal(libc::SIGSEGV)
    );
    assert_eq!(in_child(|| consumer.try_recv().map(drop).unwrap()), Ended::BySignal(libc::SIGSEGV));
    assert_eq!(consumer.try_recv().unwrap().to_vec(), b"before");
    assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Empty);
}

#[test]
fn handles_dropped_or_closed_in_a_child_do_nothing_here() {
    let name = Name::new();
    let pipe = Options::new().capacity(4096).remove_on_close(true).create(&name).unwrap();
    let (producer, consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    let guests = raw::semaphore(name.set().unwrap(), 7);
    let mut kept = Some((producer, consumer, pipe));
    let dropped = in_child(|| {
        let (producer, consumer, pipe) = kept.take().unwrap();
        drop(producer);
        consumer.close().unwrap();
        drop(pipe);
    });
    assert_eq!(dropped, Ended::Well);

    let (mut producer, mut consumer, pipe) = kept.unwrap();
    assert_eq!((producer.peer(), consumer.peer()), (Peer::Open, Peer::Open));
    assert!(matches!(pipe.producer().unwrap_err(), SetupError::RoleTaken { .. }));
    assert!(matches!(pipe.consumer().unwrap_err(), SetupError::RoleTaken { .. }));
    attached_by(name.segment().unwrap(), 1);
    assert_eq!(raw::semaphore(name.set().unwrap(), 7), guests);
    producer.send(b"as if nothing had happened").unwrap();
    assert_eq!(consumer.recv().unwrap().to_vec(), b"as if nothing had happened");
    drop(producer);
    assert_eq!(consumer.recv().unwrap_err(), RecvError::Closed);
    drop((consumer, pipe));
    assert!(name.is_unused(), "removed by its last handle, which was here");
}

#[test]
fn a_child_takes_part_by_opening_the_pipe_anew() {
    let pipe = Options::new().capacity(4096).create("sysv:private").unwrap();
    let _objects = Objects::of(&pipe);
    let mut consumer = pipe.consumer().unwrap();
    let sent = in_child(|| {
        let mut producer = Pipe::open(pipe.address()).unwrap().producer().unwrap();
        producer.send(b"from a child").unwrap();
        producer.close().unwrap();
    });
    assert_eq!(sent, Ended::Well);
    assert_eq!(consumer.recv().unwrap().to_vec(), b"from a child");
    assert_eq!(consumer.recv().unwrap_err(), RecvError::Closed);
    // Nor is a role of the parent one of the child's.
    let refused = in_child(|| {
        let error = Pipe::open(pipe.address()).unwrap().consumer().unwrap_err();
        assert!(matches!(error, SetupError::RoleTaken { .. }), "{error:?}");
    });
    assert_eq!(refused, Ended::Well);
}

#[test]
fn a_claim_ends_with_the_parent_also_while_its_child_lives() {
    let name = Name::new();
    let mut parent = end::producer(&name);
    let child = parent.ask("fork");
    parent.signal(libc::SIGKILL);
    until("the end of the parent", || parent.has_ended().is_some());
    assert!(std::fs::exists(format!("/proc/{child}")).unwrap(), "the child lives");
    attached_by(name.segment().unwrap(), 0);
    let mut successor = end::producer(&name);
    assert_eq!(successor.ask("send on"), "sent");
    assert_eq!(inspect(&name).unwrap().producer.epoch, 2);
}

#[test]
fn a_role_cannot_be_claimed_through_a_handle_from_before_the_fork() {
    let name = Name::new();
    let pipe = Options::new().capacity(4096).create(&name).unwrap();
    let mut holder = end::producer(&name);
    // A parent that opens and goes, and a child that stays, as daemons do: then nobody is attached but the holder.
    let segment = name.segment().unwrap();
    let mut pipe = Some(pipe);
    let child = fork(|| {
        until("the parent has gone", || raw::attached(segment) == 1);
        let error = pipe.as_ref().unwrap().producer().unwrap_err();
        assert!(matches!(error, SetupError::Forked { .. }), "{error:?}");
    });
    drop(pipe.take());
    assert_eq!(ended(child), Ended::Well);
    assert_eq!(raw::semaphore(name.set().unwrap(), 1), 1, "the holder still holds");
    assert_eq!(holder.ask("send still"), "sent");
}
