//! Fork and exec: a forked child has neither the mapping nor the role, and handles dropped in it do not affect the parent.
//! A program started by exec has neither.

use shmpipe::error::Unsupported;
use shmpipe::{
    Consumer, Lost, Object, Options, Passed, Peer, Pipe, Producer, RecvError, RecvTimeoutError, SendError,
    SetupError, Tap, TryRecvError, TrySendError, inspect, unlink,
};
use shmpipe_testing::backend::Backend;
use shmpipe_testing::process::{Line, Process};
use shmpipe_testing::{LONG, end, until, within};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How a forked child ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    Well,
    Badly(i32),
    BySignal(i32),
}

pub fn in_child(what: impl FnOnce()) -> Ended {
    ended(fork(what))
}

fn fork(what: impl FnOnce()) -> libc::pid_t {
    // SAFETY: `fork_by` says what the child does.
    fork_by(|| unsafe { libc::fork() }, what)
}

/// Forks by the bare system call, which runs no handlers of the C library.
fn fork_bare(what: impl FnOnce()) -> libc::pid_t {
    // SAFETY: as in `fork`; without a stack of its own the child gets a copy of ours.
    fork_by(|| unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) as libc::pid_t }, what)
}

fn fork_by(fork: impl FnOnce() -> libc::pid_t, what: impl FnOnce()) -> libc::pid_t {
    // The child uses the heap, which glibc keeps usable across fork, and prints nothing unless it fails; it ends by _exit,
    // without running destructors of the test program.
    match fork() {
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

pub fn a_child_does_not_inherit_the_mapping(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(4096)).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    producer.send(b"before").unwrap();
    assert_eq!(
        in_child(|| producer.try_send(b"from a child").map(drop).unwrap()),
        Ended::BySignal(libc::SIGSEGV)
    );
    assert_eq!(in_child(|| consumer.try_recv().map(drop).unwrap()), Ended::BySignal(libc::SIGSEGV));
    assert_eq!(consumer.try_recv().unwrap().to_vec(), b"before");
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
}

pub fn handles_dropped_or_closed_in_a_child_do_not_affect_the_parent(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(4096).remove_on_close(true)).unwrap();
    let (producer, consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    let mut handles = Some((producer, consumer, pipe));
    let dropped = in_child(|| {
        let (producer, consumer, pipe) = handles.take().unwrap();
        drop(producer);
        consumer.close().unwrap();
        drop(pipe);
    });
    assert_eq!(dropped, Ended::Well);

    let (mut producer, mut consumer, pipe) = handles.unwrap();
    assert_eq!((producer.peer(), consumer.peer()), (Peer::Open, Peer::Open));
    assert!(matches!(pipe.producer().unwrap_err(), SetupError::RoleTaken { .. }));
    assert!(matches!(pipe.consumer().unwrap_err(), SetupError::RoleTaken { .. }));
    place.attached_by(1);
    producer.send(b"as if nothing had happened").unwrap();
    assert_eq!(consumer.recv().unwrap().to_vec(), b"as if nothing had happened");
    drop(producer);
    assert_eq!(consumer.recv().unwrap_err(), RecvError::Closed);
    drop((consumer, pipe));
    let is_nameless = backend == Backend::Memfd;
    assert!(place.is_unused() || is_nameless, "removed by its last handle, which was in the parent");
}

/// Claims both roles and forks by the bare system call, in a process with one busy thread: a lock of the heap that another thread
/// holds would stay locked in the child.
pub fn fork_barely(mut line: Line) {
    let pipe = Pipe::open(line.words[0].as_str()).unwrap();
    let mut handles = Some((pipe.producer().unwrap(), pipe.consumer().unwrap()));
    let sent = fork_bare(|| handles.as_mut().unwrap().0.try_send(b"from a child").map(|_| ()).unwrap());
    assert_eq!(ended(sent), Ended::BySignal(libc::SIGSEGV));
    let dropped = fork_bare(|| {
        let (producer, consumer) = handles.take().unwrap();
        drop(producer);
        consumer.close().unwrap();
        assert!(matches!(
            pipe.producer().unwrap_err(),
            SetupError::Unsupported(Unsupported::AfterFork { .. })
        ));
    });
    assert_eq!(ended(dropped), Ended::Well);
    let (mut producer, mut consumer) = handles.unwrap();
    assert_eq!((producer.peer(), consumer.peer()), (Peer::Open, Peer::Open));
    producer.send(b"as if nothing had happened").unwrap();
    assert_eq!(consumer.recv().unwrap().to_vec(), b"as if nothing had happened");
    line.say("as it should be");
}

pub fn a_child_of_a_bare_fork_has_neither_the_mapping_nor_the_role(backend: Backend) {
    let place = backend.place();
    place.create(&Options::new().capacity(4096)).unwrap();
    assert_eq!(Process::start("fork barely", &[place.as_str()]).hear(), "as it should be");
}

pub fn a_spawned_program_does_not_prolong_the_role_of_its_parent(backend: Backend) {
    let place = backend.place();
    for role in ["producer", "consumer"] {
        let mut holder = if role == "producer" { end::producer(&place) } else { end::consumer(&place) };
        let spawned = Spawned(holder.ask("spawn 60").parse().unwrap());
        holder.kill();
        assert!(spawned.is_alive());
        let mut successor = end::start();
        successor.ask(format!("open {place}"));
        assert_eq!(successor.ask(role), "claimed");
    }
}

pub fn a_role_lasts_as_long_as_a_process_shares_the_memory_of_its_holder(backend: Backend) {
    // CLONE_VM without CLONE_THREAD. Such a process has the holder's handles, and could use them.
    let place = backend.place();
    let mut holder = end::producer(&place);
    let sharing = Spawned(holder.ask("share_memory").parse().unwrap());
    let pid = holder.pid();
    holder.kill();
    let mut successor = end::start();
    successor.ask(format!("open {place}"));
    let refused = successor.ask("producer");
    assert!(refused.starts_with("RoleTaken") && refused.contains(&pid.to_string()), "{refused}");
    assert!(sharing.is_alive());
    drop(sharing);
    until("a free role", || successor.ask("producer") == "claimed");
}

/// A process that a process with a part has started, killed when dropped.
struct Spawned(libc::pid_t);

impl Spawned {
    fn is_alive(&self) -> bool {
        std::fs::read_to_string(format!("/proc/{}/stat", self.0)).is_ok_and(|stat| !stat.contains(") Z "))
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        // SAFETY: no pointers.
        unsafe { libc::kill(self.0, libc::SIGKILL) };
    }
}

/// The address range of the pipe's mapping in this process.
fn range_of(pipe: &Pipe) -> (*mut u8, usize) {
    let size = inspect(pipe.address()).unwrap().size as usize;
    let inode = match inspect(pipe.address()).unwrap().object {
        Object::SysV { shm_id, .. } => shm_id as u64,
        Object::File { inode, .. } => inode,
        object => panic!("{object:?}"),
    };
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    // The ring is mapped for writing; the pages that hold locks are not.
    let line = maps.lines().find(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields[1] == "rw-s" && fields[4].parse() == Ok(inode)
    });
    let start = line.expect("the mapping").split('-').next().unwrap();
    (usize::from_str_radix(start, 16).unwrap() as *mut u8, size)
}

/// Maps other memory where the ring was in the parent, and checks that `what` does not change it.
fn leaves_what_is_there_now((base, size): (*mut u8, usize), what: impl FnOnce()) {
    let (access, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
    );
    // SAFETY: a new mapping, over nothing that exists.
    let mapped = unsafe { libc::mmap(base.cast(), size, access, flags, -1, 0) };
    assert_eq!(mapped, base.cast(), "the ring is not mapped in a child");
    // SAFETY: the new mapping has this many bytes, and nothing else uses it.
    unsafe { base.write_bytes(0xA5, size) };
    what();
    // SAFETY: as above; `what` is over.
    let after = unsafe { std::slice::from_raw_parts(base, size) };
    let changed = after.iter().filter(|byte| **byte != 0xA5).count();
    assert_eq!(changed, 0, "bytes were changed");
}

/// Each kind of guard, dropped in a child.
fn a_guard_dropped_in_a_child_writes_nothing(
    backend: Backend,
    drop_guard: impl Fn(&mut Producer, &mut Consumer, &dyn Fn(&mut dyn FnMut())),
) {
    for keeps in [false, true] {
        guard_dropped_in_a_child(backend, keeps, &drop_guard);
    }
}

fn guard_dropped_in_a_child(
    backend: Backend,
    keeps: bool,
    drop_guard: &impl Fn(&mut Producer, &mut Consumer, &dyn Fn(&mut dyn FnMut())),
) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(4096).keep_unread_on_panic(keeps)).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    for message in ["one", "two"] {
        producer.send(message).unwrap();
    }
    let range = range_of(&pipe);
    // In the child, which may use the pipe itself.
    for reopens in [false, true] {
        drop_guard(&mut producer, &mut consumer, &|drop_it| {
            let dropped = in_child(|| {
                leaves_what_is_there_now(range, || {
                    let own = reopens.then(|| pipe.reopen().unwrap());
                    drop_it();
                    drop(own);
                });
            });
            assert_eq!(dropped, Ended::Well, "reopened: {reopens}, kept: {keeps}");
        });
    }
    assert_eq!(consumer.recv().unwrap().to_vec(), b"one");
    assert_eq!(consumer.recv().unwrap().to_vec(), b"two");
    producer.send(b"three").unwrap();
    assert_eq!(consumer.recv().unwrap().to_vec(), b"three");
}

pub fn a_message_dropped_in_a_child_writes_nothing(backend: Backend) {
    a_guard_dropped_in_a_child_writes_nothing(backend, |_, consumer, in_child| {
        let mut message = Some(consumer.recv().unwrap());
        in_child(&mut || drop(message.take()));
        message.unwrap().requeue();
        let mut message = Some(consumer.recv().unwrap());
        in_child(&mut || message.take().unwrap().release());
        message.unwrap().requeue();
    });
}

pub fn a_tap_in_a_child_sees_nothing(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().duplex(true)).unwrap();
    pipe.duplex().unwrap().send(b"unread").unwrap();
    let mut tap = Some(Tap::open(&place).unwrap().with_unread());
    let child = || {
        let mut tap = tap.take().unwrap();
        assert!(tap.is_inherited());
        assert_eq!(tap.next(), Ok(None));
        assert_eq!(tap.producer(), Peer::Unknown);
        assert!(tap.back().is_none());
        assert_eq!(tap.with_unread().next(), Ok(None));
    };
    assert_eq!(in_child(child), Ended::Well);
    assert!(matches!(tap.unwrap().next(), Ok(Some(Passed::Message { bytes: b"unread", .. }))));
}

pub fn a_drain_dropped_in_a_child_writes_nothing(backend: Backend) {
    a_guard_dropped_in_a_child_writes_nothing(backend, |_, consumer, in_child| {
        for releases in [false, true] {
            let mut drain = consumer.drain(2);
            while drain.next().unwrap().is_some() {}
            let mut drain = Some(drain);
            in_child(&mut || match drain.take().unwrap() {
                drain if releases => drain.release(),
                drain => drop(drain),
            });
            drain.unwrap().requeue();
        }
    });
}

pub fn a_batch_dropped_in_a_child_writes_nothing(backend: Backend) {
    a_guard_dropped_in_a_child_writes_nothing(backend, |producer, _, in_child| {
        let mut batch = producer.batch();
        batch.push(b"never sent").unwrap();
        let mut batch = Some(batch);
        in_child(&mut || batch = None);
    });
}

pub fn a_reservation_dropped_in_a_child_writes_nothing(backend: Backend) {
    a_guard_dropped_in_a_child_writes_nothing(backend, |producer, _, in_child| {
        let mut space = producer.reserve(100).unwrap();
        space.write(0, b"never sent");
        let mut space = Some(space);
        in_child(&mut || space = None);
    });
}

pub fn an_end_dropped_in_a_child_writes_nothing(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(4096)).unwrap();
    let mut ends = Some((pipe.producer().unwrap(), pipe.consumer().unwrap()));
    let range = range_of(&pipe);
    let dropped = in_child(|| leaves_what_is_there_now(range, || drop(ends.take())));
    assert_eq!(dropped, Ended::Well);
    let aborted = in_child(|| {
        leaves_what_is_there_now(range, || {
            let (producer, consumer) = ends.take().unwrap();
            producer.abort(7).unwrap();
            consumer.close().unwrap();
        });
    });
    assert_eq!(aborted, Ended::Well);
    let (producer, consumer) = ends.unwrap();
    assert_eq!((producer.peer(), consumer.peer()), (Peer::Open, Peer::Open));
}

pub fn a_child_can_open_the_pipe(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(4096)).unwrap();
    let mut consumer = pipe.consumer().unwrap();
    let sent = in_child(|| {
        let mut producer = Pipe::open(pipe.address()).unwrap().producer().unwrap();
        producer.send(b"from a child").unwrap();
        producer.close().unwrap();
    });
    assert_eq!(sent, Ended::Well);
    assert_eq!(consumer.recv().unwrap().to_vec(), b"from a child");
    assert_eq!(consumer.recv().unwrap_err(), RecvError::Closed);
    // The child does not hold the parent's role.
    let refused = in_child(|| {
        let error = Pipe::open(pipe.address()).unwrap().consumer().unwrap_err();
        assert!(matches!(error, SetupError::RoleTaken { .. }), "{error:?}");
    });
    assert_eq!(refused, Ended::Well);
}

pub fn a_child_can_reopen_the_pipe(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(4096)).unwrap();
    let mut producer = pipe.producer().unwrap();
    producer.send(b"from the parent").unwrap();
    let child = fork(|| {
        let again = pipe.reopen().unwrap();
        assert_eq!((again.id(), again.created()), (pipe.id(), false));
        let error = again.producer().unwrap_err();
        assert!(matches!(error, SetupError::RoleTaken { .. }), "the parent holds it: {error:?}");
        let mut consumer = again.consumer().unwrap();
        assert_eq!(consumer.recv().unwrap().to_vec(), b"from the parent");
        assert_eq!(consumer.recv_deadline(within(LONG)).unwrap().to_vec(), b"and more");
        assert_eq!(consumer.recv_deadline(within(LONG)).unwrap_err(), RecvTimeoutError::Closed);
    });
    producer.wait_for_peer(Some(within(LONG))).unwrap();
    let error = pipe.consumer().unwrap_err();
    assert!(matches!(error, SetupError::RoleTaken { .. }), "the child holds it: {error:?}");
    producer.send(b"and more").unwrap();
    producer.close().unwrap();
    assert_eq!(ended(child), Ended::Well);
    drop(pipe.consumer().unwrap());
}

pub fn a_role_of_a_child_ends_with_the_child(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(4096)).unwrap();
    let mut producer = pipe.producer().unwrap();
    for _ in 0..2 {
        let child = fork(|| {
            let _consumer = pipe.reopen().unwrap().consumer().unwrap();
            std::thread::sleep(LONG);
        });
        producer.wait_for_peer(Some(within(LONG))).unwrap();
        // SAFETY: no pointers; the child is ours and was not waited for.
        unsafe { libc::kill(child, libc::SIGKILL) };
        assert_eq!(ended(child), Ended::BySignal(libc::SIGKILL));
        assert_eq!(producer.peer(), Peer::Died);
        while producer.try_send(&[0; 100]).is_ok() {}
        assert_eq!(producer.send(&[0; 100]), Err(SendError::PeerDied));
        let mut consumer = pipe.consumer().unwrap();
        while consumer.try_recv().is_ok() {}
        drop(consumer);
        // The end of this consumer is reported, too.
        assert_eq!(producer.try_send(&[0; 100]), Err(TrySendError::Closed));
    }
}

pub fn a_pipe_can_be_reopened_many_times(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(4096)).unwrap();
    let producer = pipe.producer().unwrap();
    let again: Vec<Pipe> = (0..10).map(|_| pipe.reopen().unwrap()).collect();
    for pipe in &again {
        assert!(matches!(pipe.producer().unwrap_err(), SetupError::RoleTaken { .. }));
    }
    drop(producer);
    drop(pipe);
    let mut producer = again[3].producer().unwrap();
    let mut consumer = again[7].reopen().unwrap().consumer().unwrap();
    drop(again);
    producer.send(b"by any of them").unwrap();
    assert_eq!(consumer.recv().unwrap().to_vec(), b"by any of them");
}

pub fn a_removed_pipe_is_not_reopened(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(4096)).unwrap();
    unlink(&place).unwrap();
    assert!(matches!(pipe.reopen().unwrap_err(), SetupError::Lost { lost: Lost::Removed, .. }));
    // Another pipe at the same address is not mistaken for it.
    let other = place.create(&Options::new().capacity(4096)).unwrap();
    assert!(matches!(pipe.reopen().unwrap_err(), SetupError::Lost { lost: Lost::Removed, .. }));
    drop(other.producer().unwrap());
}

pub fn a_claim_ends_with_the_parent_while_its_child_lives(backend: Backend) {
    let place = backend.place();
    let mut parent = end::producer(&place);
    let child = parent.ask("fork");
    parent.signal(libc::SIGKILL);
    until("the end of the parent", || parent.has_ended().is_some());
    assert!(std::fs::exists(format!("/proc/{child}")).unwrap(), "the child lives");
    place.attached_by(0);
    let mut successor = end::producer(&place);
    assert_eq!(successor.ask("send on"), "sent");
    assert_eq!(inspect(&place).unwrap().producer.epoch, 2);
}

pub fn a_role_cannot_be_claimed_through_a_handle_from_before_the_fork(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(4096)).unwrap();
    let mut holder = end::producer(&place);
    // As daemons do, the parent opens the pipe and ends, and the child stays: then only the holder is attached.
    let mut pipe = Some(pipe);
    let (mut gone, goes) = UnixStream::pair().unwrap();
    let child = fork(|| {
        gone.read_exact(&mut [0]).unwrap();
        place.attached_by(1);
        let error = pipe.as_ref().unwrap().producer().unwrap_err();
        assert!(matches!(error, SetupError::Unsupported(Unsupported::AfterFork { .. })), "{error:?}");
    });
    drop(pipe.take());
    (&goes).write_all(b"!").unwrap();
    assert_eq!(ended(child), Ended::Well);
    assert_eq!(holder.ask("send still"), "sent");
    let error = Pipe::open(&place).unwrap().producer().unwrap_err();
    assert!(matches!(error, SetupError::RoleTaken { .. }), "the holder still has it: {error:?}");
}

pub fn a_process_holds_no_role_after_exec(backend: Backend) {
    for role in ["producer", "consumer"] {
        let place = backend.place();
        let mut holder = if role == "producer" { end::producer(&place) } else { end::consumer(&place) };
        holder.say("exec 60");
        let comm = format!("/proc/{}/comm", holder.pid());
        until("the other program", || std::fs::read_to_string(&comm).unwrap().trim() == "sleep");
        let mut successor = end::start();
        successor.ask(format!("open {place}"));
        assert_eq!(successor.ask(role), "claimed");
        // The end of that process does not affect the claim of its successor.
        holder.kill();
        let mut second = end::start();
        second.ask(format!("open {place}"));
        let refused = second.ask(role);
        assert!(refused.contains(&successor.pid().to_string()), "{refused}");
    }
}
