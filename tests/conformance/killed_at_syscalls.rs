//! One end is stopped or killed before and after each of its system calls.

use shmpipe::error::Damage;
use shmpipe::{Options, Pipe, RecvError, SetupError, WakeMode, unlink};
use shmpipe_testing::backend::Backend;
use shmpipe_testing::end;
use shmpipe_testing::process::Line;
use shmpipe_testing::traced::{Traced, be_traced, mark};

pub fn a_wait_sees_what_a_peer_did_before_it_died(backend: Backend) {
    let (died, mut longest) = (RecvError::PeerDied.to_string(), 0);
    // The waiting side runs this many halves of the system calls of its wait. Then its peer acts and dies.
    for halves in 0..16 {
        let place = backend.place();
        place.create(&Options::new().capacity(4096)).unwrap();
        let Some(mut traced) = Traced::start("asked", &[place.as_str(), "consumer"]) else { return };
        let mut producer = end::producer(&place);
        traced.prepare("recv");
        let ran = (0..halves).take_while(|_| traced.next_call()).count();
        longest = longest.max(ran);
        assert_eq!(producer.ask("send last"), "sent");
        producer.kill();
        assert_eq!(traced.finish(), "4 bytes", "after {halves} halves of system calls");
        traced.prepare("recv");
        assert_eq!(traced.finish(), died);
        drop(traced);

        let place = backend.place();
        place.create(&Options::new().capacity(4096)).unwrap();
        let mut traced = Traced::start("asked", &[place.as_str(), "producer"]).unwrap();
        let mut consumer = end::consumer(&place);
        while shmpipe::inspect(&place).unwrap().used < 4000 {
            traced.prepare("send");
            assert_eq!(traced.finish(), "100 bytes");
        }
        traced.prepare("send");
        (0..halves).all(|_| traced.next_call());
        let taken = consumer.ask("empty");
        assert!(taken.starts_with("empty after "), "{taken}");
        consumer.kill();
        assert_eq!(traced.finish(), "100 bytes", "after {halves} halves of system calls");
    }
    assert!(longest > 8, "{longest}");
}

/// Without membarrier: a process with several threads takes ten milliseconds to register for it, and this test runs
/// hundreds of processes.
fn quick() -> Options {
    Options::new().capacity(4096).wake_mode(WakeMode::Fence)
}

/// Creates a pipe, uses it, and removes it.
pub fn live(mut line: Line) {
    let address = line.words[0].clone();
    be_traced(&mut line);
    mark();
    let pipe = quick().open_or_create(address.as_str()).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    producer.send(b"alive").unwrap();
    consumer.recv().unwrap().release();
    consumer.close().unwrap();
    producer.close().unwrap();
    drop(pipe);
    // Opens it a second time, this time without creating it.
    drop(Pipe::open(address.as_str()).unwrap());
    unlink(address.as_str()).unwrap();
    mark();
}

pub fn a_kill_around_any_syscall_leaves_a_usable_pipe(backend: Backend) {
    let mut calls = 0;
    loop {
        let place = backend.place();
        let Some(traced) = Traced::start("life", &[place.as_str()]) else { return };
        let is_over = !(0..calls).all(|_| traced.next_call());
        drop(traced);
        // A different operation comes next each time.
        match calls % 4 {
            0 => drop(place.open_or_create(&quick()).unwrap()),
            1 => match place.create(&quick()) {
                Ok(_) | Err(SetupError::Exists { .. }) => {}
                Err(error) => panic!("create after {calls}: {error:?}"),
            },
            2 => match Pipe::open(&place) {
                Ok(_) | Err(SetupError::NotFound { .. } | SetupError::Damaged(Damage::Incomplete { .. })) => {
                }
                Err(error) => panic!("open after {calls}: {error:?}"),
            },
            _ => match unlink(&place) {
                Ok(()) => assert!(place.is_unused()),
                // A set of zeros may be left, which cannot be attributed to a pipe.
                Err(SetupError::NotFound { .. }) => assert!(!place.exists()),
                Err(error) => panic!("unlink after {calls}: {error:?}"),
            },
        }
        let pipe = place.open_or_create(&quick()).unwrap();
        let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
        while consumer.try_recv().is_ok() {}
        producer.send(b"well").unwrap();
        assert_eq!(consumer.recv().unwrap().to_vec(), b"well", "after {calls}");
        drop((producer, consumer, pipe));
        place.attached_by(0);
        unlink(&place).unwrap();
        assert!(place.is_unused());
        if is_over {
            break;
        }
        calls += 1;
    }
    assert!(calls > 60, "{calls} calls");
}
