//! Files that lose their size or their bytes.

use crate::attacker::{Attacked, RING, small, soon};
use crate::words::meanwhile;
use shmpipe::os::unix::{OptionsExt, PipeExt};
use shmpipe::{Lost, Pipe, RecvTimeoutError, SendTimeoutError, SetupError, TryRecvError, TrySendError};
use shmpipe_testing::backend::Backend;
use shmpipe_testing::layout::lock;
use shmpipe_testing::process::{Line, Process};
use shmpipe_testing::raw::SEALS;
use shmpipe_testing::{LONG, end, within};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

/// Sends a message on command.
pub fn be_truncated(mut line: Line) {
    let pipe = Pipe::open(line.words[0].as_str()).unwrap();
    let mut producer = pipe.producer().unwrap();
    line.say("claimed");
    while line.hear().is_some() {
        line.say(format!("{:?}", producer.try_send(b"on")));
    }
}

/// Row 9, documented as not defended: a process that may write to the file can kill every process that has it mapped.
pub fn a_file_truncated_under_the_pair_is_a_sigbus(backend: Backend) {
    let place = backend.place();
    let _pipe = place.create(&small()).unwrap();
    let mut victim = Process::start("victim of a truncation", &[place.as_str()]);
    assert_eq!(victim.hear(), "claimed");
    File::options().write(true).open(place.path()).unwrap().set_len(0).unwrap();
    victim.say("send");
    assert_eq!(victim.wait().signal(), Some(libc::SIGBUS));
    // A later opener gets an error.
    let error = Pipe::open(&place).unwrap_err();
    assert!(matches!(error, SetupError::Foreign { found: 0, .. }), "{error:?}");
}

/// Row 10: a file that is truncated and extended again is full of zeros, and no process gets a signal.
pub fn a_file_truncated_and_extended_again_is_noticed(backend: Backend) {
    let truncate = |file: &File| {
        let size = file.metadata().unwrap().len();
        file.set_len(0).unwrap();
        file.set_len(size).unwrap();
    };
    // Without a peer, the endpoint notices by its own words.
    for is_paired in [true, false] {
        let place = backend.place();
        let pipe = place.create(&small()).unwrap();
        let file = File::options().read(true).write(true).open(place.path()).unwrap();
        let mut producer = pipe.producer().unwrap();
        let consumer = is_paired.then(|| pipe.consumer().unwrap());
        producer.send(b"one").unwrap();
        truncate(&file);
        let error = loop {
            if let Err(error) = producer.send_deadline(&[0; 100], soon()) {
                break error;
            }
        };
        assert!(
            matches!(error, SendTimeoutError::Corrupt(_) | SendTimeoutError::Lost(Lost::Role)),
            "{error:?}"
        );
        drop((producer, consumer));

        let place = backend.place();
        let pipe = place.create(&small()).unwrap();
        let file = File::options().read(true).write(true).open(place.path()).unwrap();
        let mut consumer = pipe.consumer().unwrap();
        if is_paired {
            pipe.producer().unwrap().send(b"one").unwrap();
            assert_eq!(consumer.recv().unwrap().to_vec(), b"one");
        }
        truncate(&file);
        let error = consumer.recv_deadline(soon()).unwrap_err();
        assert!(
            matches!(error, RecvTimeoutError::Corrupt(_) | RecvTimeoutError::Lost(Lost::Role)),
            "{error:?}"
        );
    }
}

/// Row 9 for a memfd: the kernel refuses, through any descriptor.
pub fn a_sealed_memfd_cannot_be_resized(backend: Backend) {
    let place = backend.place();
    let pipe = place.create(&small()).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    let descriptor = pipe.fd().unwrap();
    let again =
        File::options().read(true).write(true).open(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
    // SAFETY: no pointers.
    assert_eq!(unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_GET_SEALS) } & SEALS, SEALS);
    for file in [File::from(descriptor.try_clone_to_owned().unwrap()), again.unwrap()] {
        for size in [0, 4096, 8191, 8193, 1 << 20] {
            assert_eq!(file.set_len(size).unwrap_err().kind(), io::ErrorKind::PermissionDenied, "{size}");
        }
        for seal in [libc::F_SEAL_WRITE, libc::F_SEAL_FUTURE_WRITE] {
            // SAFETY: no pointers.
            let added = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seal) };
            assert_eq!(added, -1, "no further seal can make the stores of others fail");
        }
        producer.send(b"on").unwrap();
        assert_eq!(consumer.recv().unwrap().to_vec(), b"on");
    }
}

/// Row 12: holes are zeros, like any other invalid words. They kill no process, since there is memory to fill them.
pub fn holes_punched_under_the_pair(backend: Backend) {
    let attacked = Attacked::new(backend);
    let mut rounds = 0;
    let mut turn = 0;
    let punch = || {
        turn += 1;
        match turn % 4 {
            0 => attacked.hostile.punch(0, 4096),
            _ => attacked.hostile.punch(RING, 4096),
        }
    };
    let image = attacked.image();
    meanwhile(punch, || {
        let until = Instant::now() + Duration::from_millis(500);
        while Instant::now() < until || rounds < 10 {
            rounds += 1;
            // The words of the sides may be invalid now, and then a claim fails.
            attacked.hostile.copy_from(512, &image[512..RING]);
            let (producer, consumer) = (attacked.pipe.producer(), attacked.pipe.consumer());
            let (Ok(mut producer), Ok(mut consumer)) = (producer, consumer) else { continue };
            for _ in 0..200 {
                let sent = producer.try_send(&[1; 300]);
                assert!(
                    matches!(
                        sent,
                        Ok(_)
                            | Err(TrySendError::Full
                                | TrySendError::Corrupt(_)
                                | TrySendError::Closed
                                | TrySendError::PeerAborted { .. })
                    ),
                    "{sent:?}"
                );
                match consumer.try_recv() {
                    // Intact, or with zeros from the hole on.
                    Ok(message) => assert!(message.to_vec().iter().all(|&byte| byte <= 1)),
                    Err(error) => assert!(
                        matches!(
                            error,
                            TryRecvError::Empty
                                | TryRecvError::Corrupt(_)
                                | TryRecvError::Closed
                                | TryRecvError::PeerAborted { .. }
                        ),
                        "{error:?}"
                    ),
                }
            }
        }
    });
}

/// Row 22, documented as not defended: a process that may only read a file can lock its bytes, and so prevent a claim. It
/// cannot take a held role away, or make a dead holder look alive.
#[test]
fn a_role_locked_by_a_process_with_read_permission_only() {
    for backend in [Backend::Posix, Backend::File] {
        let place = backend.place();
        let pipe = place.create(&small().mode(0o644)).unwrap();
        let mut consumer = pipe.consumer().unwrap();
        let reader = File::open(place.path()).unwrap();
        let set_lock = |kind: i32, byte: i64| {
            let (l_type, l_whence) = (kind as i16, libc::SEEK_SET as i16);
            let range = libc::flock { l_type, l_whence, l_start: byte, l_len: 1, l_pid: 0 };
            // SAFETY: the pointer is to a lock.
            unsafe { libc::fcntl(reader.as_raw_fd(), libc::F_OFD_SETLK, &raw const range) }
        };
        assert_eq!(set_lock(libc::F_RDLCK, lock::CONSUMER), -1, "the consumer holds its lock");
        assert_eq!(set_lock(libc::F_WRLCK, lock::PRODUCER), -1, "a write lock needs write permission");
        assert_eq!(set_lock(libc::F_RDLCK, lock::PRODUCER), 0);
        let error = pipe.producer().unwrap_err();
        assert!(matches!(error, SetupError::RoleTaken { .. }), "{error:?}");
        assert_eq!(
            consumer.peer(),
            shmpipe::Peer::NeverCame,
            "a read lock does not make a producer look alive"
        );
        assert_eq!(set_lock(libc::F_UNLCK, lock::PRODUCER), 0);
        let mut producer = pipe.producer().unwrap();
        assert_eq!(set_lock(libc::F_RDLCK, lock::PRODUCER), -1, "the producer holds its lock");
        producer.send(b"on").unwrap();
        assert_eq!(consumer.recv().unwrap().to_vec(), b"on");
        // A death is reported although a reader can lock the byte.
        drop(producer);
        let holder = end::producer(&place);
        consumer.wait_for_peer(Some(within(LONG))).unwrap();
        holder.kill();
        assert_eq!(set_lock(libc::F_RDLCK, lock::PRODUCER), 0);
        assert_eq!(consumer.recv_deadline(within(LONG)).unwrap_err(), RecvTimeoutError::PeerDied);
    }
}
