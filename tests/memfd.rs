//! Pipes in memfds: seals, descriptors, and passing them.

use shmpipe::error::{Distrust, Unsupported};
use shmpipe::os::unix::fd_passing::{self, PeerProcess, Server};
use shmpipe::os::unix::{OptionsExt, PipeExt};
use shmpipe::{Options, Pipe, RecvTimeoutError, SetupError, inspect, unlink, unlink_force};
use shmpipe_testing::backend::{Backend, Place};
use shmpipe_testing::end::{self, NOBODY};
use shmpipe_testing::process::part as play;
use shmpipe_testing::raw::{SEALS, make_memfd};
use shmpipe_testing::{LONG, is_root, until, within};
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

#[test]
fn part() {
    play(&[("end", end::play)]);
}

fn small() -> Options {
    Options::new().capacity(4096)
}

fn address_of(descriptor: &impl AsRawFd) -> String {
    format!("fd:{}", descriptor.as_raw_fd())
}

/// A path for a test's own socket.
fn socket() -> (Place, PathBuf) {
    let place = Backend::Memfd.place();
    let path = place.path().to_owned();
    (place, path)
}

/// The bytes of a pipe of 4096 bytes.
fn image() -> Vec<u8> {
    let pipe = small().create("memfd").unwrap();
    let memfd = File::from(pipe.fd().unwrap().try_clone_to_owned().unwrap());
    let mut bytes = vec![0; 8192];
    memfd.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// A memfd created without the library, which starts with these bytes.
fn memfd(size: usize, seals: i32, bytes: &[u8]) -> File {
    let memfd = make_memfd(size, 0);
    memfd.write_all_at(&bytes[..bytes.len().min(size)], 0).unwrap();
    // SAFETY: no pointers.
    assert_eq!(unsafe { libc::fcntl(memfd.as_raw_fd(), libc::F_ADD_SEALS, seals) }, 0);
    memfd
}

#[test]
fn a_memfd_that_can_be_resized_is_refused_with_the_missing_seal() {
    let image = image();
    Pipe::open(address_of(&memfd(8192, SEALS, &image))).unwrap();
    for (missing, name) in [
        (libc::F_SEAL_SHRINK, "F_SEAL_SHRINK"),
        (libc::F_SEAL_GROW, "F_SEAL_GROW"),
        (libc::F_SEAL_SEAL, "F_SEAL_SEAL"),
        (SEALS, "F_SEAL_SHRINK"),
    ] {
        let memfd = memfd(8192, SEALS & !missing, &image);
        for attempt in [Pipe::open(address_of(&memfd)).map(drop), inspect(address_of(&memfd)).map(drop)] {
            let error = attempt.unwrap_err();
            assert!(
                matches!(error, SetupError::Untrusted(Distrust::Unsealed { missing: m, .. }) if m == missing as u32),
                "{name}: {error:?}"
            );
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}

#[test]
fn a_descriptor_of_no_memfd_is_refused() {
    let place = Backend::Posix.place();
    let shared = small().create(&place).unwrap();
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let file = Backend::File.place();
    let file = small().create(&file).unwrap();
    let descriptors: [OwnedFd; 5] = [
        shared.fd().unwrap().try_clone_to_owned().unwrap(),
        file.fd().unwrap().try_clone_to_owned().unwrap(),
        socket.into(),
        File::open("/dev/null").unwrap().into(),
        File::open("/").unwrap().into(),
    ];
    for descriptor in descriptors {
        let error = Pipe::open(address_of(&descriptor)).unwrap_err();
        let SetupError::Untrusted(Distrust::Unsealed { missing, .. }) = error else { panic!("{error:?}") };
        assert_eq!(missing as i32 & (libc::F_SEAL_SHRINK | libc::F_SEAL_GROW), SEALS & !libc::F_SEAL_SEAL);
    }
    let error = Pipe::open("fd:1000000").unwrap_err();
    assert!(matches!(error, SetupError::NotFound { .. }), "{error:?}");
}

#[test]
fn a_write_sealed_memfd_is_refused() {
    let memfd = memfd(8192, SEALS | libc::F_SEAL_WRITE, &image());
    let error = Pipe::open(address_of(&memfd)).unwrap_err();
    assert!(!error.to_string().is_empty());
    // That is enough to inspect the pipe.
    inspect(address_of(&memfd)).unwrap();
}

#[test]
fn each_form_of_address_allows_only_its_own_operations() {
    let pipe = small().create("memfd").unwrap();
    let other = small().open_or_create("memfd").unwrap();
    assert!(pipe.created() && other.created());
    assert_ne!(pipe.id(), other.id(), "new each time");
    assert_eq!(pipe.address().to_string(), address_of(&pipe.fd().unwrap()));
    assert_eq!(Pipe::open(pipe.address()).unwrap().id(), pipe.id());
    assert_eq!(inspect(pipe.address()).unwrap().segment_id, pipe.id());
    let (_place, path) = socket();
    let served = format!("memfd:{}", path.display());
    for error in [Pipe::open("memfd").unwrap_err(), inspect("memfd").unwrap_err()] {
        assert!(matches!(error, SetupError::Unsupported(Unsupported::Open { .. })), "{error:?}");
    }
    for address in [pipe.address().to_string(), served.clone()] {
        let error = small().create(address.as_str()).unwrap_err();
        assert!(matches!(error, SetupError::Unsupported(Unsupported::Create { .. })), "{error:?}");
    }
    for error in [
        unlink("memfd").unwrap_err(),
        unlink(pipe.address()).unwrap_err(),
        unlink_force(pipe.address()).unwrap_err(),
        unlink(served.as_str()).unwrap_err(),
    ] {
        assert!(matches!(error, SetupError::Unsupported(Unsupported::Remove { .. })), "{error:?}");
    }
}

/// Two descriptors of one open file description, as two processes have that received it from a third.
#[test]
fn a_role_has_one_holder_across_duplicated_descriptors() {
    let pipe = small().create("memfd").unwrap();
    let descriptors = [(); 2].map(|()| pipe.fd().unwrap().try_clone_to_owned().unwrap());
    let [one, other] = descriptors.each_ref().map(|descriptor| Pipe::open(address_of(descriptor)).unwrap());
    let mut producer = one.producer().unwrap();
    for pipe in [&pipe, &one, &other] {
        assert!(matches!(pipe.producer().unwrap_err(), SetupError::RoleTaken { .. }));
    }
    let mut consumer = other.consumer().unwrap();
    for pipe in [&pipe, &one, &other] {
        assert!(matches!(pipe.consumer().unwrap_err(), SetupError::RoleTaken { .. }));
    }
    // The pipes do not need the descriptors by which they were opened.
    drop((descriptors, pipe));
    producer.send(b"without the descriptors").unwrap();
    assert_eq!(consumer.recv().unwrap().to_vec(), b"without the descriptors");
    assert!(matches!(one.consumer().unwrap_err(), SetupError::RoleTaken { .. }));
}

#[test]
fn a_child_opens_an_inherited_descriptor_by_its_number() {
    let pipe = small().create("memfd").unwrap();
    let descriptor = pipe.fd().unwrap().try_clone_to_owned().unwrap();
    // SAFETY: no pointers.
    assert_eq!(unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_SETFD, 0) }, 0);
    let mut producer = pipe.producer().unwrap();
    let mut child = end::start();
    assert_eq!(child.ask(format!("open {}", address_of(&descriptor))), format!("pipe {} found", pipe.id()));
    assert_eq!(
        child.ask("producer"),
        format!("RoleTaken {{ role: Producer, pid: Some({}) }}", std::process::id())
    );
    assert_eq!(child.ask("consumer"), "claimed");
    assert!(matches!(pipe.consumer().unwrap_err(), SetupError::RoleTaken { .. }));
    producer.send(b"inherited").unwrap();
    assert_eq!(child.ask("recv"), "\"inherited\"");
    child.kill();
    drop(pipe.consumer().unwrap());
}

/// Whether this process has the memfd with this inode mapped or open.
fn is_here(inode: u64) -> bool {
    let mapped = fs::read_to_string("/proc/self/maps").unwrap();
    let inode_of = |line: &str| line.split_whitespace().nth(4).and_then(|inode| inode.parse().ok());
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
    mapped.lines().any(|line| line.contains("memfd:") && inode_of(line) == Some(inode))
        || open
            .flat_map(|file| fs::metadata(file.path()))
            .any(|found| found.ino() == inode && found.nlink() == 0)
}

#[test]
fn a_memfd_ends_with_its_last_user() {
    let (_place, path) = socket();
    let pipe = small().create("memfd").unwrap();
    let inode = inode_of(&pipe);
    let server = fd_passing::serve(&path, &pipe).unwrap();
    let (producer, consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    let again = pipe.reopen().unwrap();
    assert!(is_here(inode));
    drop((producer, consumer, pipe, again));
    assert!(is_here(inode), "the server has it");
    drop(server);
    assert!(!is_here(inode));
    assert!(!path.exists());
}

fn inode_of(pipe: &Pipe) -> u64 {
    File::from(pipe.fd().unwrap().try_clone_to_owned().unwrap()).metadata().unwrap().ino()
}

// Passing descriptors.

/// A thread that serves `count` clients and returns the result of the last one.
fn serving(server: Server, count: usize) -> JoinHandle<Result<PeerProcess, SetupError>> {
    thread::spawn(move || {
        (1..count).for_each(|_| drop(server.accept()));
        server.accept()
    })
}

#[test]
fn server_and_client_learn_the_identity_of_their_peer() {
    let (_place, path) = socket();
    let pipe = small().create("memfd").unwrap();
    let server = fd_passing::serve(&path, &pipe).unwrap();
    assert_eq!(server.path(), path);
    let accepted = serving(server, 1);
    let mut end = end::start();
    assert_eq!(end.ask(format!("open memfd:{}", path.display())), format!("pipe {} found", pipe.id()));
    let peer = accepted.join().unwrap().unwrap();
    // SAFETY: no arguments, cannot fail.
    let us = unsafe { (libc::getuid(), libc::getgid()) };
    assert_eq!((peer.pid(), peer.uid(), peer.gid()), (end.pid(), us.0, us.1));
    // Where the kernel has pidfds, this one reports the end of that very process.
    if let Some(pidfd) = peer.pidfd() {
        let has_ended = || {
            let mut poll = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd, as said.
            unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
        };
        assert!(!has_ended());
        end.kill();
        assert!(has_ended());
    }

    let accepted = serving(fd_passing::serve(&path, &pipe).unwrap(), 1);
    let (again, server) = fd_passing::connect(&path, &Options::new()).unwrap();
    assert_eq!((again.id(), server.pid(), server.uid()), (pipe.id(), std::process::id(), us.0));
    accepted.join().unwrap().unwrap();
}

#[test]
fn a_received_pipe_can_be_passed_on() {
    let ((_a, first), (_b, second)) = (socket(), socket());
    let pipe = small().create("memfd").unwrap();
    let accepted = serving(fd_passing::serve(&first, &pipe).unwrap(), 1);
    let (given, _) = fd_passing::connect(&first, &Options::new()).unwrap();
    accepted.join().unwrap().unwrap();
    let mut producer = pipe.producer().unwrap();
    drop(pipe);
    let accepted = serving(fd_passing::serve(&second, &given).unwrap(), 1);
    drop(given);
    let (given, _) = fd_passing::connect(&second, &Options::new()).unwrap();
    accepted.join().unwrap().unwrap();
    producer.send(b"passed on").unwrap();
    assert_eq!(given.consumer().unwrap().recv().unwrap().to_vec(), b"passed on");
}

#[test]
fn a_pipe_with_a_name_is_not_passed() {
    let (_place, path) = socket();
    for backend in [Backend::SysV, Backend::Posix, Backend::File] {
        let place = backend.place();
        let error = fd_passing::serve(&path, &place.create(&small()).unwrap()).unwrap_err();
        assert!(matches!(error, SetupError::Unsupported(Unsupported::FdPassing { .. })), "{error:?}");
        assert!(error.to_string().contains(place.as_str()), "{error}");
        assert!(!path.exists());
    }
}

#[test]
fn the_socket_of_a_live_server_is_refused_and_that_of_a_dead_one_replaced() {
    let (place, path) = socket();
    let pipe = small().create("memfd").unwrap();
    let mut other = end::start();
    assert_eq!(other.ask(format!("serve {}", path.display())), "serving");
    let error = fd_passing::serve(&path, &pipe).unwrap_err();
    assert!(matches!(error, SetupError::Exists { .. }), "{error:?}");
    other.kill();
    assert!(path.exists(), "it was killed, and left its socket");
    assert!(matches!(Pipe::open(&place).unwrap_err(), SetupError::NotFound { .. }));
    let accepted = serving(fd_passing::serve(&path, &pipe).unwrap(), 1);
    assert_eq!(Pipe::open(&place).unwrap().id(), pipe.id());
    accepted.join().unwrap().unwrap();
    until("the end of the server", || !path.exists());

    // Anything but a socket is left alone.
    fs::write(&path, "something else").unwrap();
    let error = fd_passing::serve(&path, &pipe).unwrap_err();
    assert!(matches!(error, SetupError::Exists { .. }), "{error:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "something else");
}

#[test]
fn a_server_removes_only_its_own_socket() {
    let (_place, path) = socket();
    let pipe = small().create("memfd").unwrap();
    let first = fd_passing::serve(&path, &pipe).unwrap();
    fs::remove_file(&path).unwrap();
    let second = fd_passing::serve(&path, &pipe).unwrap();
    drop(first);
    assert!(path.exists());
    drop(second);
    assert!(!path.exists());
}

/// The error when another program answers at the socket.
fn answered_by(answer: impl FnOnce(std::os::unix::net::UnixStream) + Send + 'static) -> SetupError {
    let (_place, path) = socket();
    let listener = UnixListener::bind(&path).unwrap();
    let answering = thread::spawn(move || answer(listener.accept().unwrap().0));
    let error = fd_passing::connect(&path, &Options::new()).unwrap_err();
    answering.join().unwrap();
    error
}

#[test]
fn a_socket_of_another_program_is_refused() {
    let error = answered_by(|mut stream| stream.write_all(b"220 mail ready\r\n").unwrap());
    let SetupError::Foreign { found, .. } = error else { panic!("{error:?}") };
    assert_eq!(found, u64::from_le_bytes(*b"220 mail"));
    // The right bytes, without a descriptor.
    let error = answered_by(|mut stream| stream.write_all(&image()[..8]).unwrap());
    assert!(matches!(error, SetupError::Foreign { .. }), "{error:?}");
    let error = answered_by(|mut stream| {
        let _ = stream.set_nonblocking(true);
        let _ = stream.read(&mut [0]);
    });
    assert!(matches!(error, SetupError::PermissionDenied { .. }), "closed without an answer: {error:?}");
}

#[test]
fn connecting_to_a_silent_listener_fails_in_time() {
    let (_place, path) = socket();
    let _listener = UnixListener::bind(&path).unwrap();
    let error = fd_passing::connect(&path, &Options::new()).unwrap_err();
    assert!(!matches!(error, SetupError::NotFound { .. }), "{error:?}");
}

#[test]
fn an_untrusted_client_receives_nothing() {
    if !is_root("an_untrusted_client_receives_nothing") {
        return;
    }
    let (_place, path) = socket();
    let pipe = small().mode(0o666).create("memfd").unwrap();
    let server = fd_passing::serve(&path, &pipe).unwrap();
    // The socket was opened to all users without the server's knowledge.
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    let accepted = serving(server, 1);
    let mut other = end::nobody();
    let refused = other.ask(format!("open memfd:{}", path.display()));
    assert!(!refused.starts_with("pipe"), "{refused}");
    let error = accepted.join().unwrap().unwrap_err();
    let SetupError::Untrusted(Distrust::Peer { uid, pid, .. }) = error else { panic!("{error:?}") };
    assert_eq!((uid, pid), (NOBODY, other.pid()));
    assert!(error.to_string().contains("65534"), "{error}");
}

#[test]
fn an_untrusted_server_is_refused_unless_its_user_is_named() {
    if !is_root("an_untrusted_server_is_refused_unless_its_user_is_named") {
        return;
    }
    let (place, path) = socket();
    let mut other = end::nobody();
    other.ask("capacity 4096");
    assert_eq!(other.ask(format!("serve {}", path.display())), "serving");
    for attempt in [Pipe::open(&place).map(drop), inspect(&place).map(drop)] {
        let error = attempt.unwrap_err();
        let SetupError::Untrusted(Distrust::Peer { uid, pid, .. }) = error else { panic!("{error:?}") };
        assert_eq!((uid, pid), (NOBODY, other.pid()));
    }
    let pipe = small().trust_uid(NOBODY).open(&place).unwrap();
    pipe.producer().unwrap().send(b"trusted").unwrap();
}

#[test]
fn a_memfd_of_an_untrusted_user_is_refused_from_any_server() {
    if !is_root("a_memfd_of_an_untrusted_user_is_refused_from_any_server") {
        return;
    }
    let ((place, path), (relayed, relay)) = (socket(), socket());
    let mut other = end::nobody();
    other.ask("capacity 4096");
    assert_eq!(other.ask(format!("serve {}", path.display())), "serving");
    let pipe = small().trust_uid(NOBODY).open(&place).unwrap();
    let accepted = serving(fd_passing::serve(&relay, &pipe).unwrap(), 1);
    let error = Pipe::open(&relayed).unwrap_err();
    assert!(matches!(error, SetupError::Untrusted(Distrust::Owner { uid: NOBODY, .. })), "{error:?}");
    accepted.join().unwrap().unwrap();
}

#[test]
fn a_connected_pair_reports_close_and_death() {
    let (place, path) = socket();
    let pipe = small().create("memfd").unwrap();
    let server = fd_passing::serve(&path, &pipe).unwrap();
    let accepted = serving(server, 2);
    let mut consumer = pipe.consumer().unwrap();
    for (ending, reported) in [("close", RecvTimeoutError::Closed), ("exit", RecvTimeoutError::PeerDied)] {
        let mut producer = end::start();
        producer.ask(format!("open {place}"));
        assert_eq!(producer.ask("producer"), "claimed");
        assert_eq!(producer.ask("send last"), "sent");
        producer.say(ending);
        assert_eq!(consumer.recv_deadline(within(LONG)).unwrap().to_vec(), b"last");
        assert_eq!(consumer.recv_deadline(within(LONG)).unwrap_err(), reported);
    }
    accepted.join().unwrap().unwrap();
}

/// A program can poll a server together with other descriptors.
#[test]
fn a_server_is_readable_while_a_client_waits() {
    let (place, path) = socket();
    let pipe = small().create("memfd").unwrap();
    let server = fd_passing::serve(&path, &pipe).unwrap();
    let is_readable = || {
        let mut poll = libc::pollfd { fd: server.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, as said.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
    };
    assert!(!is_readable());
    let mut end = end::start();
    end.say(format!("open {place}"));
    until("a client", is_readable);
    server.accept().unwrap();
    assert_eq!(end.hear(), format!("pipe {} found", pipe.id()));
    assert!(!is_readable());
}
