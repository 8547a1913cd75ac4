//! Endpoints with a descriptor, in event loops.

use shmpipe::{
    Consumer, Lost, Options, Pipe, Producer, RecvError, SendError, SetupError, WakeMode, WithDescriptor,
    error, unlink_force,
};
use shmpipe_testing::backend::Backend;
use shmpipe_testing::end;
use shmpipe_testing::process::{Line, Process, part as play};
use shmpipe_testing::{A_WHILE, LONG};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

#[test]
fn part() {
    play(&[("end", end::play), ("no descriptors", no_descriptors)]);
}

/// Asks for a descriptor where there can be no more.
fn no_descriptors(mut line: Line) {
    let consumer = Pipe::open(line.words[0].as_str()).unwrap().consumer().unwrap();
    const MOST: u64 = 64;
    let limit = libc::rlimit { rlim_cur: MOST, rlim_max: MOST };
    // SAFETY: the pointer is to one rlimit.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    let open: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    let error = consumer.with_descriptor().unwrap_err();
    drop(open);
    let SetupError::Limit(error::Shortage::System { name: "RLIMIT_NOFILE", value, .. }) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*value, MOST);
    line.say(error);
}

#[test]
fn a_process_that_may_have_no_more_descriptors_gets_the_limit() {
    let place = Backend::SysV.place();
    let _pipe = place.create(&small()).unwrap();
    let said = Process::start("no descriptors", &[place.as_str()]).hear();
    assert!(said.contains("RLIMIT_NOFILE") && said.contains("ulimit -n"), "{said}");
}

fn small() -> Options {
    Options::new().capacity(4096)
}

fn pair() -> (Producer, WithDescriptor<Consumer>) {
    let pipe = small().create("memfd").unwrap();
    (pipe.producer().unwrap(), pipe.consumer().unwrap().with_descriptor().unwrap())
}

/// Whether the descriptor becomes readable in time.
fn is_readable(descriptor: &impl AsRawFd, within: Duration) -> bool {
    let mut entry = libc::pollfd { fd: descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: the pointer is to one pollfd.
    let found = unsafe { libc::poll(&raw mut entry, 1, within.as_millis() as i32) };
    assert!(found >= 0, "{}", std::io::Error::last_os_error());
    found == 1
}

fn becomes_readable(descriptor: &impl AsRawFd) {
    assert!(is_readable(descriptor, LONG), "not readable");
}

fn received(consumer: &mut WithDescriptor<Consumer>) -> Vec<Vec<u8>> {
    let mut all = vec![];
    while let Some(message) = consumer.try_recv().unwrap() {
        all.push(message.to_vec());
    }
    all
}

#[test]
fn a_consumer_is_readable_while_it_has_something_to_do() {
    let (mut producer, mut consumer) = pair();
    // The first look is the caller's.
    becomes_readable(&consumer);
    assert_eq!(received(&mut consumer), [[0; 0]; 0]);
    assert!(!is_readable(&consumer, A_WHILE));
    for round in 0..100u8 {
        producer.send(&[round]).unwrap();
        producer.send(&[round]).unwrap();
        becomes_readable(&consumer);
        // It stays so until everything is received.
        assert_eq!(consumer.try_recv().unwrap().unwrap().to_vec(), [round]);
        assert!(is_readable(&consumer, Duration::ZERO));
        assert_eq!(received(&mut consumer), [[round]]);
        assert!(!is_readable(&consumer, Duration::from_millis(1)));
    }
}

#[test]
fn a_producer_is_readable_once_there_is_space() {
    let pipe = small().create("memfd").unwrap();
    let mut consumer = pipe.consumer().unwrap();
    let mut producer = pipe.producer().unwrap().with_descriptor().unwrap();
    for round in 0..20 {
        let size = 100 + 50 * round;
        while producer.try_send(&vec![7; size]).unwrap().is_some() {}
        assert!(!is_readable(&producer, Duration::from_millis(1)));
        while consumer.try_recv().is_ok() {}
        becomes_readable(&producer);
    }
    let refused = producer.try_send(&[0; 2041]);
    assert_eq!(refused, Err(SendError::TooLarge { length: 2041, max: 2040 }));
}

#[test]
fn every_end_makes_a_descriptor_readable() {
    for ending in ["close", "abort 7", "kill", "remove"] {
        for backend in [Backend::SysV, Backend::Posix, Backend::File] {
            let place = backend.place();
            let pipe = place.open_or_create(&small()).unwrap();
            let mut consumer = pipe.consumer().unwrap().with_descriptor().unwrap();
            let mut peer = end::producer(&place);
            assert_eq!(received(&mut consumer), [[0; 0]; 0]);
            assert!(!is_readable(&consumer, A_WHILE));
            let expected = match ending {
                "close" => {
                    assert_eq!(peer.ask("close"), "closed");
                    RecvError::Closed
                }
                "abort 7" => {
                    assert_eq!(peer.ask("abort 7"), "aborted");
                    RecvError::PeerAborted { code: 7 }
                }
                "kill" => {
                    peer.kill();
                    RecvError::PeerDied
                }
                _ => {
                    unlink_force(place.as_str()).unwrap();
                    RecvError::Lost(Lost::Removed)
                }
            };
            becomes_readable(&consumer);
            assert_eq!(consumer.try_recv().unwrap_err(), expected, "{backend:?} {ending}");
        }
    }
}

#[test]
fn the_end_of_a_consumer_makes_a_full_producer_readable() {
    let place = Backend::SysV.place();
    let pipe = place.open_or_create(&small()).unwrap();
    let mut producer = pipe.producer().unwrap().with_descriptor().unwrap();
    let consumer = end::consumer(&place);
    while producer.try_send(&[0; 1000]).unwrap().is_some() {}
    assert!(!is_readable(&producer, A_WHILE));
    consumer.kill();
    becomes_readable(&producer);
    assert_eq!(producer.try_send(&[0; 1000]), Err(SendError::PeerDied));
}

/// An epoll instance that watches descriptors, each as its own number.
fn epoll(descriptors: &[&dyn AsFdObject], flags: i32) -> OwnedFd {
    // SAFETY: no pointers; the descriptor is new.
    let epoll = unsafe { OwnedFd::from_raw_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC)) };
    for (index, descriptor) in descriptors.iter().enumerate() {
        let mut event = libc::epoll_event { events: (libc::EPOLLIN | flags) as u32, u64: index as u64 };
        // SAFETY: the pointer is to one event.
        let added = unsafe {
            libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, descriptor.raw(), &raw mut event)
        };
        assert_eq!(added, 0);
    }
    epoll
}

trait AsFdObject {
    fn raw(&self) -> i32;
}

impl<T: AsFd> AsFdObject for T {
    fn raw(&self) -> i32 {
        self.as_fd().as_raw_fd()
    }
}

fn next_event(epoll: &OwnedFd) -> Option<usize> {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: the pointer is to one event.
    let found = unsafe { libc::epoll_wait(epoll.as_raw_fd(), &raw mut event, 1, LONG.as_millis() as i32) };
    (found == 1).then_some(event.u64 as usize)
}

#[test]
fn one_loop_serves_many_pipes_by_level_and_by_edge() {
    const PIPES: usize = 8;
    const MESSAGES: u64 = 500;
    for flags in [0, libc::EPOLLET] {
        let (mut producers, mut consumers): (Vec<_>, Vec<_>) = (0..PIPES).map(|_| pair()).unzip();
        let watched: Vec<&dyn AsFdObject> =
            consumers.iter().map(|consumer| consumer as &dyn AsFdObject).collect();
        let epoll = epoll(&watched, flags);
        let sending = thread::spawn(move || {
            for number in 0..MESSAGES {
                for producer in &mut producers {
                    producer.send(&number.to_le_bytes()).unwrap();
                }
                if number % 50 == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        let mut next = [0; PIPES];
        let mut open = PIPES;
        while open > 0 {
            let index = next_event(&epoll).expect("an event");
            let descriptor = consumers[index].as_raw_fd();
            loop {
                match consumers[index].try_recv() {
                    Ok(Some(message)) => {
                        assert_eq!(message.value::<u64>().unwrap(), next[index]);
                        next[index] += 1;
                    }
                    Ok(None) => break,
                    Err(RecvError::Closed) => {
                        // SAFETY: no event is needed to delete one.
                        let deleted = unsafe {
                            let (epoll, none) = (epoll.as_raw_fd(), std::ptr::null_mut());
                            libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, descriptor, none)
                        };
                        assert_eq!(deleted, 0);
                        open -= 1;
                        break;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
        assert_eq!(next, [MESSAGES; PIPES]);
        sending.join().unwrap();
    }
}

#[test]
fn a_pipe_that_wakes_no_one_has_no_descriptor() {
    let pipe: Pipe = small().wake_mode(WakeMode::Never).create("memfd").unwrap();
    let refused = pipe.consumer().unwrap().with_descriptor();
    assert!(matches!(refused, Err(SetupError::Unsupported(error::Unsupported::Block))));
}
