//! Removing a pipe: by hand, by its last user, and by others behind everybody's back.

mod support;

use shmpipe::{Options, Pipe, RecvError, Role, SendError, SetupError, Wait, inspect, unlink, unlink_force};
use std::thread;
use std::time::Duration;
use support::name::{Name, Objects};
use support::process::part as play;
use support::raw;
use support::{A_WHILE, at_once, end, within};

#[test]
fn part() {
    play(&[("end", end::play)]);
}

#[test]
fn unlink_refuses_while_a_role_is_held_and_names_the_holder() {
    let name = Name::new();
    for role in [Role::Producer, Role::Consumer] {
        for kill in [false, true] {
            let holder = match role {
                Role::Producer => end::producer(&name),
                Role::Consumer => end::consumer(&name),
            };
            let error = unlink(&name).unwrap_err();
            let SetupError::RoleTaken { role: taken, pid } = error else { panic!("{error:?}") };
            assert_eq!((taken, pid), (role, Some(holder.pid())));
            assert!(error.to_string().contains(&format!("process {}", holder.pid())), "{error}");
            assert!(!name.is_unused());
            if kill { holder.kill() } else { holder.end() }
        }
        unlink(&name).unwrap();
        assert!(name.is_unused());
    }
    assert!(matches!(unlink(&name).unwrap_err(), SetupError::NotFound { .. }));
    assert!(matches!(unlink_force(&name).unwrap_err(), SetupError::NotFound { .. }));
}

#[test]
fn unlink_of_an_open_pipe_without_roles_leaves_its_handles_useless_and_harmless() {
    let name = Name::new();
    let pipe = Pipe::open_or_create(&name).unwrap();
    unlink(&name).unwrap();
    assert!(name.is_unused());
    let error = pipe.producer().unwrap_err();
    assert!(matches!(error, SetupError::Removed { .. }), "{error:?}");
    assert!(error.to_string().contains(name.as_str()), "{error}");
    let new = Pipe::open_or_create(&name).unwrap();
    assert_ne!(new.id(), pipe.id());
    drop(pipe);
    drop(new.producer().unwrap());
}

#[test]
fn a_pipe_removed_by_force_goes_on_until_somebody_waits() {
    at_once([Wait::Spin, Wait::Yield, Wait::Block], |wait| {
        let name = Name::new();
        let pipe = Options::new().capacity(4096).wait(wait).create(&name).unwrap();
        let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
        unlink_force(&name).unwrap();
        assert!(name.is_unused());
        // A new pipe of the same name has nothing to do with it.
        let new = Pipe::open_or_create(&name).unwrap();
        let (mut new_producer, mut new_consumer) = (new.producer().unwrap(), new.consumer().unwrap());
        new_producer.send(b"new").unwrap();

        producer.send(b"old").unwrap();
        assert_eq!(consumer.recv().unwrap().to_vec(), b"old");
        assert_eq!(consumer.try_recv().unwrap_err(), RecvError::Empty);
        assert_eq!(consumer.recv().unwrap_err(), RecvError::Removed);
        assert_eq!(consumer.recv_deadline(within(A_WHILE)).unwrap_err(), RecvError::Removed);
        while producer.try_send(&[0; 100]).is_ok() {}
        assert_eq!(producer.send(&[0; 100]), Err(SendError::Removed));
        assert_eq!(
            consumer.wait_for_peer(None).map_or_else(|error| error, |()| RecvError::Removed),
            RecvError::Removed
        );
        for error in [producer.close().unwrap_err(), consumer.close().unwrap_err()] {
            assert!(matches!(error, SetupError::Removed { .. }), "{error:?}");
        }
        assert_eq!(new_consumer.recv().unwrap().to_vec(), b"new");
        assert!(matches!(new.producer().unwrap_err(), SetupError::RoleTaken { .. }));
    });
}

#[test]
fn a_removal_by_force_ends_the_waits_of_other_processes() {
    let name = Name::new();
    let mut consumer = end::consumer(&name);
    consumer.say("recv");
    thread::sleep(Duration::from_millis(20));
    unlink_force(&name).unwrap();
    assert_eq!(consumer.hear(), "Removed");
    let mut producer = end::producer(&name);
    producer.ask("fill");
    producer.say("send more");
    thread::sleep(Duration::from_millis(20));
    unlink_force(&name).unwrap();
    assert_eq!(producer.hear(), "Removed");
    producer.end();
    consumer.end();
    assert!(name.is_unused());
}

#[test]
fn a_pipe_to_be_removed_on_close_is_removed_by_the_last_handle_of_both() {
    for (producer_first, ends_first) in [(true, true), (true, false), (false, true), (false, false)] {
        let name = Name::new();
        let mut ends = [end::start(), end::start()];
        for i in if producer_first { [0, 1] } else { [1, 0] } {
            ends[i].ask("remove_on_close");
            ends[i].ask(format!("open_or_create {name}"));
            assert_eq!(ends[i].ask(["producer", "consumer"][i]), "claimed");
        }
        assert!(inspect(&name).unwrap().remove_on_close);
        assert_eq!(ends[0].ask("send one"), "sent");
        let [producer, mut consumer] = ends;
        if ends_first {
            producer.end();
            assert!(!name.is_unused(), "the consumer has not closed");
            assert_eq!(consumer.ask("recv"), "\"one\"");
            assert_eq!(consumer.ask("recv"), "Closed");
            consumer.end();
        } else {
            consumer.end();
            assert!(!name.is_unused(), "the producer has not closed");
            producer.end();
        }
        assert!(name.is_unused());
    }
}

#[test]
fn a_pipe_to_be_removed_on_close_waits_for_everybody() {
    let name = Name::new();
    let options = Options::new().remove_on_close(true);
    let pipe = options.create(&name).unwrap();
    drop(pipe);
    assert!(!name.is_unused(), "nobody has closed it: nobody has come");
    let (one, other) = (Pipe::open(&name).unwrap(), Pipe::open(&name).unwrap());
    drop(one.producer().unwrap());
    drop(one);
    assert!(!name.is_unused(), "the consumer has never come");
    drop(other.consumer().unwrap());
    assert!(!name.is_unused(), "a handle is still open");
    // Which can still be used.
    let (mut producer, mut consumer) = (other.producer().unwrap(), other.consumer().unwrap());
    producer.send(b"once more").unwrap();
    assert_eq!(consumer.recv().unwrap().to_vec(), b"once more");
    drop((producer, consumer));
    // A clone counts as the same handle, a second opening as another.
    let clone = other.clone();
    drop(other);
    let second = Pipe::open(&name).unwrap();
    drop(clone);
    assert!(!name.is_unused());
    drop(second);
    assert!(name.is_unused());
}

#[test]
fn a_pipe_to_be_removed_on_close_stays_when_a_side_died() {
    for died in ["producer", "consumer"] {
        let name = Name::new();
        let pipe = Options::new().capacity(4096).remove_on_close(true).create(&name).unwrap();
        let (producer, consumer) = (end::producer(&name), end::consumer(&name));
        let (dies, closes) = if died == "producer" { (producer, consumer) } else { (consumer, producer) };
        dies.kill();
        closes.end();
        drop(pipe);
        assert!(!name.is_unused(), "its successor may come: {died}");
        // Its successor closes, and that is the end.
        let successor = if died == "producer" { end::producer(&name) } else { end::consumer(&name) };
        successor.end();
        assert!(name.is_unused(), "{died}");
    }
}

#[test]
fn two_that_close_at_the_same_time_remove_the_pipe_all_the_same() {
    let (mut one, mut other) = (end::start(), end::start());
    for process in [&mut one, &mut other] {
        process.ask("remove_on_close");
    }
    for _ in 0..200 {
        let name = Name::new();
        for (process, role) in [(&mut one, "producer"), (&mut other, "consumer")] {
            process.ask(format!("open_or_create {name}"));
            assert_eq!(process.ask(role), "claimed");
        }
        one.say("close");
        other.say("close");
        assert_eq!((one.hear(), other.hear()), ("closed".to_owned(), "closed".to_owned()));
        assert!(name.is_unused());
    }
}

#[test]
fn watchers_do_not_keep_a_pipe_from_being_removed_on_close() {
    let name = Name::new();
    let pipe = Options::new().remove_on_close(true).create(&name).unwrap();
    drop((pipe.producer().unwrap(), pipe.consumer().unwrap()));
    let watcher = raw::Attached::new(name.segment().unwrap());
    drop(pipe);
    drop(watcher);
    assert!(name.is_unused());
}

#[test]
fn a_private_pipe_to_be_removed_on_close_leaves_neither_segment_nor_set() {
    let pipe = Options::new().remove_on_close(true).create("sysv:private").unwrap();
    let objects = Objects::of(&pipe);
    let seen = inspect(pipe.address()).unwrap();
    drop((pipe.producer().unwrap(), pipe.consumer().unwrap()));
    drop(pipe);
    assert!(raw::status(raw::ids(&seen).shm_id).is_none());
    assert_eq!(raw::semaphore(raw::ids(&seen).sem_id, 0), -1);
    drop(objects);
}

/// The set of a pipe is removed while it is used, as systemd-logind does under RemoveIPC.
#[test]
fn a_pipe_that_lost_its_set_is_refused_while_anybody_is_attached_and_adopted_afterwards() {
    let name = Name::new();
    let (mut producer, mut consumer) = (end::producer(&name), end::consumer(&name));
    let id = inspect(&name).unwrap().segment_id;
    raw::remove_set(name.set().unwrap());
    // The pair goes on.
    assert_eq!(producer.ask("send one"), "sent");
    assert_eq!(consumer.ask("recv"), "\"one\"");
    assert_eq!(producer.ask("send two"), "sent");
    assert_eq!(consumer.ask("peer"), "Unknown");
    // A newcomer cannot know whether they hold roles.
    for open in [Pipe::open::<&Name>, Pipe::open_or_create] {
        let error = open(&name).unwrap_err();
        assert!(matches!(error, SetupError::ClaimsLost { attached: 2, .. }), "{error:?}");
        assert!(error.to_string().contains(name.as_str()) && error.to_string().contains('2'), "{error}");
    }
    let error = unlink(&name).unwrap_err();
    assert!(matches!(error, SetupError::ClaimsLost { attached: 2, .. }), "{error:?}");
    // They learn of it when they wait.
    assert_eq!(consumer.ask("recv"), "\"two\"");
    assert_eq!(consumer.ask("recv"), "Removed");
    assert_eq!(producer.ask("send three"), "sent");
    assert_eq!(producer.ask("close"), format!("Removed {{ address: {:?} }}", shmpipe::Address::from(&name)));
    producer.end();
    let error = Pipe::open(&name).unwrap_err();
    assert!(matches!(error, SetupError::ClaimsLost { attached: 1, .. }), "{error:?}");
    consumer.kill();

    let pipe = Pipe::open(&name).unwrap();
    assert_eq!((pipe.id(), pipe.created()), (id, false));
    let (_producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    assert_eq!(consumer.recv().unwrap().to_vec(), b"three", "what was left is still there");
    let seen = inspect(&name).unwrap();
    assert_eq!((Some(raw::ids(&seen).sem_id), seen.producer.pid), (name.set(), Some(std::process::id())));
    assert_eq!(raw::semaphore(name.set().unwrap(), 1), 1);
}

#[test]
fn a_private_pipe_that_lost_its_set_gets_another_when_nobody_is_attached() {
    let pipe = Options::new().capacity(4096).create("sysv:private").unwrap();
    let _objects = Objects::of(&pipe);
    let address = pipe.address().clone();
    let seen = inspect(&address).unwrap();
    raw::remove_set(raw::ids(&seen).sem_id);
    let error = Pipe::open(&address).unwrap_err();
    assert!(matches!(error, SetupError::ClaimsLost { attached: 1, .. }), "{error:?}");
    drop(pipe);
    let adopted = Pipe::open(&address).unwrap();
    let _new_objects = Objects::of(&adopted);
    let second = Pipe::open(&address).unwrap();
    let producer = adopted.producer().unwrap();
    assert!(matches!(second.producer().unwrap_err(), SetupError::RoleTaken { .. }));
    drop((producer, adopted, second));
    unlink(&address).unwrap();
    assert!(raw::status(raw::ids(&seen).shm_id).is_none());
}

#[test]
fn a_pipe_that_lost_its_set_can_be_removed_by_force() {
    let name = Name::new();
    let mut consumer = end::consumer(&name);
    raw::remove_set(name.set().unwrap());
    unlink_force(&name).unwrap();
    assert!(name.is_unused());
    assert_eq!(consumer.ask("recv"), "Removed");
    consumer.end();
}

#[test]
fn a_set_made_again_behind_a_living_pair_does_not_give_its_roles_away() {
    // Somebody, or an earlier version of us, has put a new set beside a segment that is in use.
    let name = Name::new();
    let _consumer = end::consumer(&name);
    raw::remove_set(name.set().unwrap());
    let set = raw::make_set(name.key(), 8);
    let error = Pipe::open(&name).unwrap_err();
    assert!(matches!(error, SetupError::ClaimsLost { attached: 1, .. }), "{error:?}");
    assert_eq!(raw::semaphore(set, 2), 0);
}

#[test]
fn the_set_that_a_hostile_header_names_is_not_removed_with_it() {
    let name = Name::new();
    let bystander = Pipe::open_or_create(&name).unwrap();
    let producer = bystander.producer().unwrap();
    let hostile = Options::new().capacity(4096).create("sysv:private").unwrap();
    let _objects = Objects::of(&hostile);
    let seen = inspect(hostile.address()).unwrap();
    // The identifier of the set is at byte 88.
    raw::Attached::new(raw::ids(&seen).shm_id).set_u32(88, name.set().unwrap() as u32);
    let address = hostile.address().clone();
    drop(hostile);
    unlink_force(&address).unwrap();
    raw::remove_set(raw::ids(&seen).sem_id);
    assert!(matches!(bystander.producer().unwrap_err(), SetupError::RoleTaken { .. }));
    drop(producer);
    drop(bystander.producer().unwrap());
}
