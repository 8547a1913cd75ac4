//! Removing a pipe: with `unlink`, by its last user, and while it is in use.

use shmpipe::{
    CheckError, CloseError, Lost, Options, Pipe, Producer, RecvError, RecvTimeoutError, Role, SendError,
    SetupError, TryRecvError, Wait, WaitError, inspect, unlink, unlink_force, unlink_leftover,
};
use shmpipe_testing::backend::{Backend, Place};
use shmpipe_testing::end::Meet;
use shmpipe_testing::process::{Line, Process};
use shmpipe_testing::{A_WHILE, at_once, end, until, within};
use std::fs;
use std::io::{Read, Seek};
use std::ptr;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

pub fn unlink_refuses_while_a_role_is_held_and_names_the_holder(backend: Backend) {
    let place = backend.place();
    for role in [Role::Producer, Role::Consumer] {
        for kill in [false, true] {
            let holder = match role {
                Role::Producer => end::producer(&place),
                Role::Consumer => end::consumer(&place),
            };
            let error = unlink(&place).unwrap_err();
            let SetupError::RoleTaken { role: taken, pid } = error else { panic!("{error:?}") };
            assert_eq!((taken, pid), (role, Some(holder.pid())));
            assert!(error.to_string().contains(&format!("process {}", holder.pid())), "{error}");
            assert!(!place.is_unused());
            if kill { holder.kill() } else { holder.end() }
        }
        unlink(&place).unwrap();
        assert!(place.is_unused());
    }
    assert!(matches!(unlink(&place).unwrap_err(), SetupError::NotFound { .. }));
    assert!(matches!(unlink_force(&place).unwrap_err(), SetupError::NotFound { .. }));
}

/// Claims the producer of a pipe, with so much memory mapped that to read its page tables takes long.
pub fn hold_with_much_memory(mut line: Line) {
    const BYTES: usize = 2 << 30;
    let pipe = Pipe::open(line.words[0].as_str()).unwrap();
    let _producer = pipe.producer().unwrap();
    let populated = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE | libc::MAP_NORESERVE;
    // Never written to, so all of its pages are the same page of zeros.
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let mapped = unsafe { libc::mmap(ptr::null_mut(), BYTES, libc::PROT_READ, populated, -1, 0) };
    assert_ne!(mapped, libc::MAP_FAILED);
    line.say("ready");
    line.hear();
}

pub fn unlink_waits_for_the_memory_of_a_dead_holder(backend: Backend) {
    // As `ps` and `top` may, a process that reads the memory maps of a dying process keeps its mappings, and with them its locks.
    for reaped in [true, false].into_iter().cycle().take(12) {
        let place = backend.place();
        place.create(&Options::new().capacity(4096)).unwrap();
        let mut holder = Process::start("hold with much memory", &[place.as_str()]);
        assert_eq!(holder.hear(), "ready");
        let (process, is_read) = (format!("/proc/{}", holder.pid()), Barrier::new(2));
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut maps = fs::File::open(format!("{process}/smaps")).unwrap();
                let mut buffer = [0; 4096];
                is_read.wait();
                let has_memory =
                    || fs::read(format!("{process}/statm")).is_ok_and(|memory| !memory.starts_with(b"0 "));
                while has_memory() && maps.rewind().is_ok() {
                    while maps.read(&mut buffer).is_ok_and(|read| read > 0) {}
                }
            });
            is_read.wait();
            thread::sleep(Duration::from_millis(20));
            holder.signal(libc::SIGKILL);
            let is_zombie = || fs::read_to_string(format!("{process}/stat")).unwrap().contains(") Z ");
            let threads = || fs::read_dir(format!("{process}/task")).unwrap().count();
            if reaped {
                holder.kill();
            } else {
                until("a zombie", || is_zombie() && threads() == 1);
            }
            unlink(&place).unwrap_or_else(|error| panic!("reaped: {reaped}: {error}"));
            assert!(place.is_unused());
        });
    }
}

pub fn handles_of_an_unlinked_pipe_are_useless_and_harmless(backend: Backend) {
    let place = backend.place();
    let pipe = place.open_or_create(&Options::new()).unwrap();
    unlink(&place).unwrap();
    assert!(place.is_unused());
    let error = pipe.producer().unwrap_err();
    assert!(matches!(error, SetupError::Lost { lost: Lost::Removed, .. }), "{error:?}");
    assert!(error.to_string().contains(place.as_str()), "{error}");
    let new = place.open_or_create(&Options::new()).unwrap();
    assert_ne!(new.id(), pipe.id());
    drop(pipe);
    drop(new.producer().unwrap());
}

/// A way to take the address from a pipe in use.
type Loss = (&'static str, fn(&Place));

fn losses(backend: Backend) -> impl Iterator<Item = Loss> {
    let all: [Loss; 3] = [
        ("unlink_force", |place| {
            unlink_force(place).unwrap();
            assert!(place.is_unused());
        }),
        ("rm", |place| fs::remove_file(place.path()).unwrap()),
        ("mv of another pipe over it", |place| {
            let other = place.path().with_extension("other");
            Options::new().create(format!("file:{}", other.display())).unwrap();
            fs::rename(other, place.path()).unwrap();
        }),
    ];
    all.into_iter().take(if matches!(backend, Backend::Posix | Backend::File) { 3 } else { 1 })
}

/// Longer than the interval at which a wait checks its pipe.
const NAP: Wait = Wait::Sleep(Duration::from_secs(1));

pub fn a_removed_or_replaced_pipe_works_until_a_call_waits(backend: Backend) {
    at_once([Wait::Spin, Wait::Yield, Wait::Block, NAP], |wait| {
        for (way, lose) in losses(backend) {
            let place = backend.place();
            let pipe = place.create(&Options::new().capacity(4096).wait(wait)).unwrap();
            let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
            lose(&place);
            // The new pipe at the address is independent of the old one.
            let new = place.open_or_create(&Options::new()).unwrap();
            let (mut new_producer, mut new_consumer) = (new.producer().unwrap(), new.consumer().unwrap());
            new_producer.send(b"new").unwrap();

            producer.send(b"old").unwrap();
            assert_eq!(consumer.recv().unwrap().to_vec(), b"old", "{way}");
            assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty, "{way}");
            assert_eq!(consumer.recv().unwrap_err(), RecvError::Lost(Lost::Replaced), "{way}");
            let waited = consumer.recv_deadline(within(A_WHILE)).unwrap_err();
            assert_eq!(waited, RecvTimeoutError::Lost(Lost::Replaced), "{way}");
            while producer.try_send(&[0; 100]).is_ok() {}
            assert_eq!(producer.send(&[0; 100]), Err(SendError::Lost(Lost::Replaced)), "{way}");
            if let Err(error) = consumer.wait_for_peer(None) {
                assert_eq!(error, WaitError::Lost(Lost::Replaced), "{way}");
            }
            for error in [producer.close().unwrap_err(), consumer.close().unwrap_err()] {
                assert!(matches!(error, CloseError::Lost(Lost::Replaced)), "{way}: {error:?}");
            }
            let error = pipe.producer().unwrap_err();
            assert!(matches!(error, SetupError::Lost { lost: Lost::Replaced, .. }), "{way}: {error:?}");
            drop(pipe);
            assert_eq!(new_consumer.recv().unwrap().to_vec(), b"new", "{way}");
            assert!(matches!(new.producer().unwrap_err(), SetupError::RoleTaken { .. }), "{way}");
        }
    });
}

pub fn the_removal_is_the_reason_for_both_sides_whoever_notices_first(backend: Backend) {
    for aborts in [false, true] {
        let place = backend.place();
        let pipe = place.create(&Options::new().capacity(4096)).unwrap();
        let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
        unlink_force(&place).unwrap();
        assert_eq!(consumer.recv().unwrap_err(), RecvError::Lost(Lost::Removed));
        let ended = if aborts { consumer.abort(7) } else { consumer.close() };
        assert!(matches!(ended.unwrap_err(), CloseError::Lost(Lost::Removed)));
        assert_eq!(producer.check(), Err(CheckError::Lost(Lost::Removed)));
        while producer.try_send(&[0; 100]).is_ok() {}
        assert_eq!(producer.send(&[0; 100]), Err(SendError::Lost(Lost::Removed)));

        let place = backend.place();
        let pipe = place.create(&Options::new().capacity(4096)).unwrap();
        let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
        producer.send(b"last").unwrap();
        unlink_force(&place).unwrap();
        assert_eq!(producer.check(), Err(CheckError::Lost(Lost::Removed)));
        let ended = if aborts { producer.abort(7) } else { producer.close() };
        assert!(matches!(ended.unwrap_err(), CloseError::Lost(Lost::Removed)));
        assert_eq!(consumer.recv().unwrap().to_vec(), b"last");
        assert_eq!(consumer.recv().unwrap_err(), RecvError::Lost(Lost::Removed));
    }
}

pub fn a_forced_removal_ends_the_waits_of_other_processes(backend: Backend) {
    let place = backend.place();
    let mut consumer = end::consumer(&place);
    consumer.say("recv");
    thread::sleep(Duration::from_millis(20));
    unlink_force(&place).unwrap();
    assert_eq!(consumer.hear(), "Lost(Removed)");
    let mut producer = end::producer(&place);
    producer.ask("fill");
    producer.say("send more");
    thread::sleep(Duration::from_millis(20));
    unlink_force(&place).unwrap();
    assert_eq!(producer.hear(), "Lost(Removed)");
    producer.end();
    consumer.end();
    assert!(place.is_unused());
}

/// Both ends of a pipe, in processes of their own.
fn killed_pair(place: &Place, unread: bool) {
    let [mut producer, mut consumer] = [end::producer(place), end::consumer(place)];
    assert_eq!(producer.ask("send one"), "sent");
    assert_eq!(consumer.ask("recv"), "\"one\"");
    if unread {
        assert_eq!(producer.ask("send two"), "sent");
    }
    producer.kill();
    consumer.kill();
}

pub fn a_leftover_is_removed_by_the_next_who_opens_or_lists_it(backend: Backend) {
    let options = || Options::new().capacity(4096).remove_leftover(true);
    type Look = fn(&Place) -> bool;
    let looks: [Look; 5] = [
        |place| matches!(Options::new().open(place.as_str()), Err(SetupError::NotFound { .. })),
        |place| place.open_or_create(&Options::new()).unwrap().created(),
        |place| place.create(&Options::new()).unwrap().created(),
        |place| place.open_or_create(&Options::new().schema(7)).unwrap().created(),
        |place| unlink_leftover(place).unwrap(),
    ];
    let ways = ["open", "open or create", "create", "another schema", "unlink"];
    for (way, look) in ways.into_iter().zip(looks) {
        let place = backend.place();
        let pipe = place.create(&options()).unwrap();
        assert!(inspect(&place).unwrap().remove_leftover);
        // Not used yet, then in use, then with a message.
        assert!(!unlink_leftover(&place).unwrap());
        let id = pipe.id();
        drop(pipe);
        assert!(!unlink_leftover(&place).unwrap());
        killed_pair(&place, true);
        assert!(!unlink_leftover(&place).unwrap());
        let pipe = Options::new().open(place.as_str()).unwrap();
        assert_eq!(pipe.id(), id);
        assert_eq!(pipe.consumer().unwrap().recv().unwrap().to_vec(), b"two");
        // A handle is a use.
        assert!(!unlink_leftover(&place).unwrap());
        assert_eq!(Options::new().open(place.as_str()).unwrap().id(), id);
        drop(pipe);
        assert!(unlink_leftover(&place).unwrap());
        drop(place.create(&options()).unwrap());
        killed_pair(&place, false);
        assert!(look(&place), "{way}: {:?}", inspect(&place));
        let _ = unlink_force(&place);
    }
    // A later consumer must hear of a close or an abort.
    for end in [|producer: Producer| producer.close(), |producer: Producer| producer.abort(7)] {
        let place = backend.place();
        let pipe = place.create(&options()).unwrap();
        end(pipe.producer().unwrap()).unwrap();
        drop(pipe);
        assert!(!unlink_leftover(&place).unwrap());
        let mut consumer = place.open_or_create(&Options::new()).unwrap().consumer().unwrap();
        let heard = consumer.recv().unwrap_err();
        assert!(matches!(heard, RecvError::Closed | RecvError::PeerAborted { code: 7 }), "{heard}");
        drop(consumer);
        assert!(unlink_leftover(&place).unwrap());
    }
    // Others stay.
    let place = backend.place();
    drop(place.create(&Options::new().capacity(4096)).unwrap());
    killed_pair(&place, false);
    assert!(!unlink_leftover(&place).unwrap());
    assert!(!place.open_or_create(&Options::new()).unwrap().created());
    unlink(&place).unwrap();
}

pub fn a_duplex_leftover_is_removed_when_both_directions_are_empty(backend: Backend) {
    let place = backend.place();
    let options = Options::new().capacity(4096).duplex(true);
    let pipe = place.create(&options.clone().remove_leftover(true)).unwrap();
    let (mut a, mut b) = (pipe.duplex().unwrap(), pipe.duplex().unwrap());
    b.send(b"to A").unwrap();
    a.send(b"to B").unwrap();
    drop((b, pipe));
    assert_eq!(a.recv().unwrap().to_vec(), b"to A");
    drop(a);
    assert!(!unlink_leftover(&place).unwrap());
    let pipe = options.open(place.as_str()).unwrap();
    let mut b = pipe.duplex_as(shmpipe::DuplexSide::B).unwrap();
    assert_eq!(b.recv().unwrap().to_vec(), b"to B");
    drop((b, pipe));
    assert!(unlink_leftover(&place).unwrap());
    assert!(place.is_unused());
}

pub fn remove_on_close_removes_the_pipe_with_its_last_handle(backend: Backend) {
    let orders = [(true, true), (true, false), (false, true), (false, false)];
    for ((producer_first, ends_first), aborts) in orders.into_iter().zip([false, true, true, false]) {
        let place = backend.place();
        let mut ends = [end::start(), end::start()];
        for i in if producer_first { [0, 1] } else { [1, 0] } {
            ends[i].ask("remove_on_close");
            ends[i].ask(place.opening());
            assert_eq!(ends[i].ask(["producer", "consumer"][i]), "claimed");
        }
        assert!(inspect(&place).unwrap().remove_on_close);
        assert_eq!(ends[0].ask("send one"), "sent");
        let [mut producer, mut consumer] = ends;
        let ended = if aborts { "PeerAborted { code: 3 }" } else { "Closed" };
        if aborts {
            let first = if ends_first { &mut producer } else { &mut consumer };
            assert_eq!(first.ask("abort 3"), "aborted");
        }
        if ends_first {
            producer.end();
            assert!(!place.is_unused(), "the consumer has not closed");
            assert_eq!(consumer.ask("recv"), "\"one\"");
            assert_eq!(consumer.ask("recv"), ended);
            consumer.end();
        } else {
            consumer.end();
            assert!(!place.is_unused(), "the producer has not closed");
            producer.end();
        }
        assert!(place.is_unused());
    }
}

pub fn remove_on_close_waits_for_both_roles_and_all_handles(backend: Backend) {
    let place = backend.place();
    let options = Options::new().remove_on_close(true);
    let pipe = place.create(&options).unwrap();
    drop(pipe);
    assert!(!place.is_unused(), "neither side has attached or closed");
    let (one, other) = (Pipe::open(&place).unwrap(), Pipe::open(&place).unwrap());
    drop(one.producer().unwrap());
    drop(one);
    assert!(!place.is_unused(), "the consumer has not attached");
    drop(other.consumer().unwrap());
    assert!(!place.is_unused(), "a handle is still open");
    // The pipe stays usable.
    let (mut producer, mut consumer) = (other.producer().unwrap(), other.consumer().unwrap());
    producer.send(b"once more").unwrap();
    assert_eq!(consumer.recv().unwrap().to_vec(), b"once more");
    drop((producer, consumer));
    // A clone is the same handle. Opening the pipe again creates another one.
    let clone = other.clone();
    drop(other);
    let second = Pipe::open(&place).unwrap();
    drop(clone);
    assert!(!place.is_unused());
    drop(second);
    assert!(place.is_unused());
}

pub fn remove_on_close_does_not_wait_for_a_handle_that_ended_with_exec(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().capacity(4096).remove_on_close(true)).unwrap();
    let mut gone = end::start();
    gone.ask(place.opening());
    gone.say("exec 60");
    let comm = format!("/proc/{}/comm", gone.pid());
    until("the other program", || std::fs::read_to_string(&comm).unwrap().trim() == "sleep");
    drop((pipe.producer().unwrap(), pipe.consumer().unwrap()));
    drop(pipe);
    assert!(place.is_unused());
}

pub fn remove_on_close_keeps_the_pipe_when_a_side_died(backend: Backend) {
    for died in ["producer", "consumer"] {
        let place = backend.place();
        let pipe = place.create(&Options::new().capacity(4096).remove_on_close(true)).unwrap();
        let (producer, consumer) = (end::producer(&place), end::consumer(&place));
        let (dies, closes) = if died == "producer" { (producer, consumer) } else { (consumer, producer) };
        dies.kill();
        closes.end();
        drop(pipe);
        assert!(!place.is_unused(), "a successor may attach: {died}");
        // Its successor closes, which removes the pipe.
        let successor = if died == "producer" { end::producer(&place) } else { end::consumer(&place) };
        successor.end();
        assert!(place.is_unused(), "{died}");
    }
}

pub fn remove_on_close_works_when_both_sides_close_at_once(backend: Backend) {
    let (mut one, mut other) = (end::start(), end::start());
    for process in [&mut one, &mut other] {
        process.ask("remove_on_close");
    }
    for _ in 0..200 {
        let place = backend.place();
        for (process, role) in [(&mut one, "producer"), (&mut other, "consumer")] {
            process.ask(place.opening());
            assert_eq!(process.ask(role), "claimed");
        }
        one.say("close");
        other.say("close");
        assert_eq!((one.hear(), other.hear()), ("closed".to_owned(), "closed".to_owned()));
        assert!(place.is_unused());
    }
}

pub fn remove_on_close_ignores_a_process_that_inspects(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&Options::new().remove_on_close(true)).unwrap();
    drop((pipe.producer().unwrap(), pipe.consumer().unwrap()));
    let watcher = place.segment();
    drop(pipe);
    drop(watcher);
    assert!(place.is_unused());
}
