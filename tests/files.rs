//! Pipes in files: other objects at the path, changes to the file, stale files, and file systems.

use shmpipe::error::{Damage, FileProblem, Shortage};
use shmpipe::os::unix::PipeExt;
use shmpipe::{Object, Options, Pipe, SetupError, TryRecvError, inspect, unlink, unlink_force};
use shmpipe_testing::backend::{Backend, Place};
use shmpipe_testing::end::{self, NOBODY};
use shmpipe_testing::is_root;
use shmpipe_testing::layout::{identity, lock};
use shmpipe_testing::process::{Line, Process, part as play};
use shmpipe_testing::raw::{self, Attached};
use shmpipe_testing::seccomp::{self, Argument};
use shmpipe_testing::traced::{Traced, be_traced, mark};
use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

#[test]
fn part() {
    play(&[
        ("end", end::play),
        ("no unnamed files", without_unnamed_files),
        ("remove slowly", remove_slowly),
    ]);
}

const BOTH: [Backend; 2] = [Backend::Posix, Backend::File];

fn small() -> Options {
    Options::new().capacity(4096)
}

/// The errors of all operations on an address.
fn every_attempt(place: &Place) -> [(&'static str, SetupError); 6] {
    [
        ("open", Pipe::open(place).unwrap_err()),
        ("open_or_create", Pipe::open_or_create(place).unwrap_err()),
        ("create", small().create(place).unwrap_err()),
        ("inspect", inspect(place).unwrap_err()),
        ("unlink", unlink(place).unwrap_err()),
        ("unlink_force", unlink_force(place).unwrap_err()),
    ]
}

fn create_node(path: &Path, mode: u32, device: u64) -> bool {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path is a string with a terminator.
    unsafe { libc::mknod(path.as_ptr(), mode | 0o666, device) == 0 }
}

#[test]
fn anything_but_a_regular_file_is_refused_by_kind_and_left_alone() {
    // To open a FIFO or a device could block or have side effects.
    let target = Backend::File.place();
    small().create(&target).unwrap();
    type Create<'a> = &'a dyn Fn(&Path) -> bool;
    let kinds: [(&str, Create<'_>); 6] = [
        ("a symbolic link", &|path| symlink("/proc/version", path).is_ok()),
        ("a symbolic link", &|path| symlink(target.path(), path).is_ok()),
        ("a directory", &|path| fs::create_dir(path).is_ok()),
        ("a FIFO", &|path| create_node(path, libc::S_IFIFO, 0)),
        ("a socket", &|path| UnixListener::bind(path).is_ok()),
        ("a device", &|path| create_node(path, libc::S_IFCHR, libc::makedev(1, 3))),
    ];
    for backend in BOTH {
        for (kind, create) in kinds {
            let place = backend.place();
            if !create(place.path()) {
                eprintln!("anything_but_a_regular_file...: {kind} skipped, since it needs root");
                continue;
            }
            let before = place.status();
            for (attempt, error) in every_attempt(&place) {
                assert!(
                    matches!(error, SetupError::File(FileProblem::NotRegular { found, .. }) if found == kind),
                    "{attempt}: {error:?}"
                );
                let text = error.to_string();
                assert!(text.contains(kind) && text.contains(place.as_str()), "{text}");
            }
            assert_eq!(place.status(), before);
            let _ = fs::remove_dir(place.path());
        }
    }
    Pipe::open(&target).unwrap();
}

#[test]
fn a_symbolic_link_in_the_directory_part_is_followed() {
    // Only a link at the end of the path can be a trap of another user.
    let place = Backend::File.place();
    let directory = place.path().parent().unwrap();
    let link = directory.with_extension("link");
    symlink(directory, &link).unwrap();
    let pipe = small().create(format!("file:{}/pipe", link.display())).unwrap();
    assert_eq!(Pipe::open(&place).unwrap().id(), pipe.id());
    fs::remove_file(link).unwrap();
}

#[test]
fn a_file_with_two_hard_links_is_refused_until_one_is_removed() {
    let place = Backend::File.place();
    let pipe = small().create(&place).unwrap();
    let second = place.path().with_extension("second");
    fs::hard_link(place.path(), &second).unwrap();
    for attempt in
        [Pipe::open(&place).map(drop), Pipe::open_or_create(&place).map(drop), inspect(&place).map(drop)]
    {
        let error = attempt.unwrap_err();
        assert!(
            matches!(
                error,
                SetupError::File(FileProblem::NotRegular { found: "a file with several names", .. })
            ),
            "{error:?}"
        );
    }
    fs::remove_file(second).unwrap();
    assert_eq!(Pipe::open(&place).unwrap().id(), pipe.id());
}

#[test]
fn a_sparse_copy_is_filled_before_use() {
    // `cp --sparse` leaves holes for zeros. A store to a hole on a full file system would kill the process.
    let place = Backend::File.place();
    Options::new().capacity(1 << 20).create(&place).unwrap();
    let header = fs::read(place.path()).unwrap()[..4096].to_vec();
    fs::remove_file(place.path()).unwrap();
    fs::write(place.path(), header).unwrap();
    let copy = File::options().write(true).open(place.path()).unwrap();
    copy.set_len(4096 + (1 << 20)).unwrap();
    assert!(copy.metadata().unwrap().blocks() * 512 < 1 << 20, "the copy has holes");
    let pipe = Options::new().prefault(false).open(&place).unwrap();
    assert!(copy.metadata().unwrap().blocks() * 512 >= 4096 + (1 << 20), "no holes are left");
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    producer.send(b"good").unwrap();
    assert_eq!(consumer.recv().unwrap().to_vec(), b"good");
}

#[test]
fn the_umask_does_not_change_the_mode() {
    for backend in BOTH {
        let place = backend.place();
        let mut end = end::start();
        end.ask("umask 077");
        end.ask("mode 664");
        let created = end.ask(format!("create {place}"));
        assert!(created.ends_with(" made"), "{created}");
        assert_eq!(fs::metadata(place.path()).unwrap().mode() & 0o7777, 0o664);
        assert_eq!(Pipe::open(&place).unwrap().mode(), 0o664);
    }
}

#[test]
fn an_owner_without_write_permission_learns_the_mode() {
    if !is_root("an_owner_without_write_permission_learns_the_mode") {
        return;
    }
    for backend in BOTH {
        let place = backend.place();
        let mut owner = end::nobody();
        owner.ask(format!("create {place}"));
        owner.ask("drop");
        fs::set_permissions(place.path(), Permissions::from_mode(0o400)).unwrap();
        let refused = owner.ask(format!("open {place}"));
        assert!(refused.starts_with("PermissionDenied"), "{refused}");
        for part in [format!("uid: {NOBODY}"), format!("mode: {}", 0o400)] {
            assert!(refused.contains(&part), "{refused}");
        }
        assert!(owner.ask(format!("inspect {place}")).starts_with("producer NeverCame"));
    }
}

#[test]
fn a_posix_name_is_shared_with_shm_open() {
    let place = Backend::Posix.place();
    let pipe = small().create(&place).unwrap();
    let name = CString::new(place.as_str().strip_prefix("posix:").unwrap()).unwrap();
    // SAFETY: the name is a string with a terminator.
    let descriptor = unsafe { libc::shm_open(name.as_ptr(), libc::O_RDWR, 0) };
    assert_ne!(descriptor, -1);
    // SAFETY: the kernel has just opened it for us.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
    let found = file.metadata().unwrap();
    let Object::File { device, inode } = inspect(&place).unwrap().object else { panic!("no file") };
    assert_eq!((found.dev(), found.ino()), (device, inode));
    assert_eq!(Attached::map(&file).get(48), pipe.id().get());
    // SAFETY: as above.
    assert_eq!(unsafe { libc::shm_unlink(name.as_ptr()) }, 0);
    assert!(matches!(Pipe::open(&place).unwrap_err(), SetupError::NotFound { .. }));
}

#[test]
fn a_relative_path_is_resolved_once() {
    let place = Backend::File.place();
    let directory = place.path().parent().unwrap().display();
    let mut end = end::start();
    end.ask(format!("chdir {directory}"));
    end.ask("remove_on_close");
    let created = end.ask("create file:pipe");
    assert!(created.ends_with(" made"), "{created}");
    end.ask("chdir /");
    for role in ["producer", "consumer"] {
        assert_eq!(end.ask(role), "claimed");
    }
    assert!(place.exists());
    assert_eq!(end.ask("drop"), "dropped");
    assert!(place.is_unused(), "removed where it was created");
}

#[test]
fn a_directory_without_room_for_a_file_is_named() {
    let place = Backend::File.place();
    let missing = place.path().parent().unwrap().join("missing");
    let address = format!("file:{}", missing.join("pipe").display());
    assert!(matches!(Pipe::open(&address).unwrap_err(), SetupError::NotFound { .. }));
    let error = Pipe::open_or_create(&address).unwrap_err();
    assert!(
        matches!(&error, SetupError::File(FileProblem::Directory { directory, .. }) if *directory == missing),
        "{error:?}"
    );
    assert!(error.to_string().contains(missing.to_str().unwrap()), "{error}");

    // The directory is a file.
    small().create(&place).unwrap();
    let error = Pipe::open_or_create(format!("{place}/pipe")).unwrap_err();
    assert!(!matches!(error, SetupError::Foreign { .. }), "{error:?}");
}

// Changes to the file.

#[test]
fn the_last_to_close_does_not_remove_another_file_at_the_path() {
    for removed in [true, false] {
        let place = Backend::File.place();
        let pipe = small().remove_on_close(true).create(&place).unwrap();
        drop((pipe.producer().unwrap(), pipe.consumer().unwrap()));
        match removed {
            true => fs::remove_file(place.path()).unwrap(),
            false => fs::rename(place.path(), place.path().with_extension("old")).unwrap(),
        }
        let new = small().create(&place).unwrap();
        drop(pipe);
        assert_eq!(Pipe::open(&place).unwrap().id(), new.id(), "removed: {removed}");
    }
}

/// Removes a pipe, one system call at a time.
fn remove_slowly(mut line: Line) {
    be_traced(&mut line);
    mark();
    // Succeeds, or finds the new pipe.
    let _ = unlink(line.words[0].as_str());
    mark();
}

#[test]
fn a_remover_does_not_remove_a_pipe_created_meanwhile() {
    let (mut halves, mut tried) = (0, 0);
    loop {
        let place = Backend::File.place();
        let old = small().create(&place).unwrap();
        let Some(traced) = Traced::start("remove slowly", &[place.as_str()]) else { return };
        if !(0..halves).all(|_| traced.next_call()) {
            break;
        }
        halves += 1;
        // From here on it holds the lock that excludes other removers.
        if place.exists() && raw::is_locked(old.fd().unwrap(), lock::REMOVER) {
            continue;
        }
        tried += 1;
        match unlink_force(&place) {
            Ok(()) | Err(SetupError::NotFound { .. }) => {}
            Err(error) => panic!("after {halves} halves of system calls: {error:?}"),
        }
        let new = small().create(&place).unwrap();
        let producer = new.producer().unwrap();
        traced.go_on();
        assert_eq!(Pipe::open(&place).unwrap().id(), new.id(), "after {halves} halves of system calls");
        drop(producer);
    }
    assert!(tried > 10, "{tried} of {halves}");
}

/// Changes the boot id of a pipe, as if the machine had rebooted.
fn age(place: &Place) {
    let segment = place.segment();
    segment.set(identity::BOOT_ID, segment.get(identity::BOOT_ID) ^ 1);
}

#[test]
fn a_pipe_from_before_the_last_boot_is_stale_and_recreated_on_request() {
    let place = Backend::File.place();
    let old = small().create(&place).unwrap();
    old.producer().unwrap().send(b"left").unwrap();
    let id = old.id();
    drop(old);
    assert!(!inspect(&place).unwrap().stale);
    age(&place);
    assert!(inspect(&place).unwrap().stale);
    let recreate = small().recreate_stale(true);
    for attempt in [small().open(&place), small().open_or_create(&place), recreate.open(&place)] {
        let error = attempt.unwrap_err();
        assert!(matches!(error, SetupError::Damaged(Damage::Stale { .. })), "{error:?}");
        assert!(error.to_string().contains(place.as_str()), "{error}");
    }
    let new = recreate.open_or_create(&place).unwrap();
    assert!(new.created());
    assert_ne!(new.id(), id);
    assert!(!inspect(&place).unwrap().stale);
    let mut consumer = new.consumer().unwrap();
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
    // A pipe that is not stale stays.
    assert_eq!(recreate.open_or_create(&place).unwrap().id(), new.id());
}

#[test]
fn a_pipe_with_a_held_role_is_not_stale_whatever_its_boot_id() {
    // As in a container with its own boot id.
    let place = Backend::File.place();
    let mut producer = end::producer(&place);
    let id = inspect(&place).unwrap().segment_id;
    age(&place);
    assert!(!inspect(&place).unwrap().stale);
    assert_eq!(Pipe::open(&place).unwrap().id(), id);
    assert_eq!(small().recreate_stale(true).open_or_create(&place).unwrap().id(), id);
    assert_eq!(producer.ask("send on"), "sent");
    producer.end();
    assert!(matches!(Pipe::open(&place).unwrap_err(), SetupError::Damaged(Damage::Stale { .. })));
    assert!(small().recreate_stale(true).open_or_create(&place).unwrap().created());
}

#[test]
fn a_pipe_in_memory_is_never_stale() {
    let place = Backend::Posix.place();
    let id = small().create(&place).unwrap().id();
    age(&place);
    assert!(!inspect(&place).unwrap().stale);
    assert_eq!(small().recreate_stale(true).open_or_create(&place).unwrap().id(), id);
}

#[test]
fn a_stale_pipe_can_be_removed() {
    for remove in [|place: &Place| unlink(place), |place: &Place| unlink_force(place)] {
        let place = Backend::File.place();
        small().create(&place).unwrap();
        age(&place);
        remove(&place).unwrap();
        assert!(place.is_unused());
    }
}

#[test]
fn processes_that_recreate_at_once_share_one_pipe() {
    let place = Backend::File.place();
    for _ in 0..20 {
        small().recreate_stale(true).open_or_create(&place).unwrap();
        age(&place);
        let opened: Vec<Pipe> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| small().recreate_stale(true).open_or_create(&place).unwrap()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(opened.iter().all(|pipe| pipe.id() == opened[0].id()));
        assert_eq!(opened.iter().filter(|pipe| pipe.created()).count(), 1);
    }
}

// File systems.

/// A process in its own mount namespace, where the file system of the command `mount` covers the directory of the place.
fn over(place: &Place, mount: &str) -> Option<Process> {
    let directory = place.path().parent().unwrap().display();
    let script = format!("{} && exec \"$@\"", mount.replace("DIR", &directory.to_string()));
    let command = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let tried = std::process::Command::new(command[0]).args(&command[1..]).arg("true").output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        eprintln!("files: skipped, since this fails here: {mount}");
        return None;
    }
    Some(Process::start_under(&command, "end", &[]))
}

const ONE_MEBIBYTE: &str = "mount -t tmpfs -o size=1m none DIR";

#[test]
fn a_pipe_larger_than_the_free_space_is_refused_with_both_sizes() {
    for backend in BOTH {
        let place = backend.place();
        let directory = place.path().parent().unwrap().display();
        let Some(mut end) = over(&place, ONE_MEBIBYTE) else { return };
        end.ask("capacity 1048576");
        for attempt in ["create", "open_or_create"] {
            let refused = end.ask(format!("{attempt} {place}"));
            assert!(
                refused.starts_with("Limit(Space") && refused.contains("needed: 1052672, free: 1048576"),
                "{refused}"
            );
        }
        assert_eq!(end.ask(format!("list {directory}")), "[]");
        // As large as the free space.
        end.ask("capacity 524288");
        let created = end.ask(format!("create {place}"));
        assert!(created.ends_with(" made"), "{created}");
        let refused = end.ask(format!("create {place}.2"));
        assert!(
            refused.starts_with("Limit(Space") && refused.contains("needed: 528384, free: 520192"),
            "{refused}"
        );
        assert_eq!(end.ask(format!("unlink {place}")), "unlinked");
        assert_eq!(end.ask(format!("list {directory}")), "[]");
    }
}

#[test]
fn a_created_pipe_needs_no_more_space() {
    for prefault in ["on", "off"] {
        let place = Backend::File.place();
        let directory = place.path().parent().unwrap().display();
        let Some(mut end) = over(&place, ONE_MEBIBYTE) else { return };
        end.ask("capacity 524288");
        end.ask(format!("prefault {prefault}"));
        let created = end.ask(format!("create {place}"));
        assert!(created.ends_with(" made"), "{created}");
        assert_eq!(end.ask(format!("hog {directory}/hog")), "full");
        for role in ["producer", "consumer"] {
            assert_eq!(end.ask(role), "claimed");
        }
        // Uses every page. A missing one would be a SIGBUS.
        for _ in 0..2 {
            assert_eq!(end.ask("fill"), "full after 32767");
            assert_eq!(end.ask("empty"), "empty after 32767");
        }
    }
}

#[test]
fn space_is_not_reserved_in_vain() {
    // To take all free space, even for a moment, would take it from all other processes.
    for backend in [Backend::Posix, Backend::File, Backend::Memfd] {
        let place = backend.place();
        let error = place.create(&Options::new().capacity(1 << 40)).unwrap_err();
        let SetupError::Limit(Shortage::Space { needed, free, .. }) = error else { panic!("{error:?}") };
        assert_eq!(needed, (1 << 40) + 4096);
        assert!(free > 0 && free < needed, "{free}");
        assert!(error.to_string().contains(&needed.to_string()), "{error}");
        assert!(place.is_unused());
    }
}

#[test]
fn the_file_size_limit_is_named() {
    let place = Backend::File.place();
    let script = "ulimit -f 64 && exec \"$@\"";
    let mut end = Process::start_under(&["sh", "-c", script, "sh"], "end", &[]);
    end.ask("capacity 1048576");
    let refused = end.ask(format!("create {place}"));
    assert!(refused.starts_with("Limit(System") && refused.contains("RLIMIT_FSIZE"), "{refused}");
    assert!(place.is_unused());
    end.ask("capacity 4096");
    let created = end.ask(format!("create {place}"));
    assert!(created.ends_with(" made"), "{created}");
}

#[test]
fn an_unknown_file_system_is_refused_by_name_or_number() {
    for (file, magic, name) in [
        ("/proc/version", 0x9fa0, Some("procfs")),
        ("/sys/kernel/profiling", 0x6265_6572, Some("sysfs")),
        ("/sys/fs/cgroup/cgroup.procs", 0x6367_7270, None),
    ] {
        let Ok(found) = fs::metadata(file) else { continue };
        assert!(!found.file_type().is_fifo());
        let directory = Path::new(file).parent().unwrap();
        let mut attempts = vec![
            small().create(format!("file:{}/shmpipe", directory.display())).map(drop),
            Pipe::open_or_create(format!("file:{}/shmpipe", directory.display())).map(drop),
        ];
        if found.permissions().mode() & 0o200 != 0 {
            attempts.push(Pipe::open(format!("file:{file}")).map(drop));
        }
        for attempt in attempts {
            let error = attempt.unwrap_err();
            assert!(
                matches!(error, SetupError::File(FileProblem::FileSystem { magic: m, name: n, .. }) if (m, n) == (magic, name)),
                "{file}: {error:?}"
            );
            let text = error.to_string();
            assert!(
                name.is_none_or(|name| text.contains(name)) && text.contains(&format!("{magic:#x}")),
                "{text}"
            );
        }
    }
}

#[test]
fn a_file_system_that_cannot_reserve_space_or_hold_locks_is_refused() {
    // ramfs cannot reserve space. On an overlay the mapping refers to the file of a lower layer, and so holds no lock.
    let place = Backend::File.place();
    if let Some(mut end) = over(&place, "mount -t ramfs none DIR") {
        let refused = end.ask(format!("create {place}"));
        assert!(refused.starts_with("File(FileSystem") && refused.contains("ramfs"), "{refused}");
    }
    let mount = "mount -t tmpfs none DIR && mkdir DIR/l DIR/u DIR/w \
                 && mount -t overlay none -o lowerdir=DIR/l,upperdir=DIR/u,workdir=DIR/w DIR && cd DIR";
    let Some(mut end) = over(&place, mount) else { return };
    let refused = end.ask(format!("create {place}"));
    assert!(refused.starts_with("File(FileSystem") && refused.contains("overlay"), "{refused}");
}

#[test]
fn a_read_only_mount_is_reported() {
    let place = Backend::File.place();
    small().create(&place).unwrap();
    let mount = "mount --bind DIR DIR && mount -o remount,ro,bind DIR";
    let Some(mut end) = over(&place, mount) else { return };
    let refused = end.ask(format!("open {place}"));
    assert!(refused.starts_with("File(ReadOnly"), "{refused}");
    // That is enough to inspect the pipe.
    assert_eq!(end.ask(format!("inspect {place}")), "producer NeverCame, consumer NeverCame, 0 used");
}

#[test]
fn a_pipe_on_ext4_works_like_one_on_tmpfs() {
    let place = Backend::File.place();
    let directory = place.path().parent().unwrap().display();
    let mount = "mount -t tmpfs none DIR && truncate -s 64m DIR/image && mkfs.ext4 -q DIR/image && mkdir DIR/m \
                 && mount -o loop DIR/image DIR/m && mount --bind DIR/m DIR";
    let Some(mut end) = over(&place, mount) else { return };
    end.ask("capacity 4096");
    let created = end.ask(format!("create {place}"));
    assert!(created.ends_with(" made"), "{created}");
    for role in ["producer", "consumer"] {
        assert_eq!(end.ask(role), "claimed");
    }
    assert_eq!(end.ask("fill"), "full after 255");
    assert_eq!(end.ask("empty"), "empty after 255");
    let refused = end.ask("producer");
    assert!(refused.starts_with("RoleTaken"), "{refused}");
    assert_eq!(end.ask("drop"), "dropped");
    assert_eq!(end.ask(format!("unlink {place}")), "unlinked");
    assert!(!end.ask(format!("list {directory}")).contains("pipe"));
}

/// A process without O_TMPFILE, as on some kernels and file systems.
fn without_unnamed_files(mut line: Line) {
    let flag = Argument { number: 2, mask: libc::O_TMPFILE as u32, value: libc::O_TMPFILE as u32 };
    seccomp::forbid(libc::SYS_openat, Some(flag), libc::EOPNOTSUPP);
    // musl calls this one.
    #[cfg(target_arch = "x86_64")]
    seccomp::forbid(libc::SYS_open, Some(Argument { number: 1, ..flag }), libc::EOPNOTSUPP);
    line.say("forbidden");
    end::play(line);
}

#[test]
fn a_file_system_without_unnamed_files_is_refused() {
    // A named file would stay there if its creator were killed.
    for backend in BOTH {
        let place = backend.place();
        let mut end = Process::start("no unnamed files", &[]);
        assert_eq!(end.hear(), "forbidden");
        for attempt in ["create", "open_or_create"] {
            let refused = end.ask(format!("{attempt} {place}"));
            assert!(refused.starts_with("File(Directory") && refused.contains("code: 95"), "{refused}");
            assert!(place.is_unused());
        }
        // An existing pipe can still be opened.
        small().create(&place).unwrap();
        let found = end.ask(format!("open {place}"));
        assert!(found.ends_with(" found"), "{found}");
    }
}

#[test]
fn the_descriptor_refers_to_the_file_and_holds_no_lock() {
    for backend in [Backend::Posix, Backend::File, Backend::Memfd] {
        let place = backend.place();
        let pipe = place.create(&small()).unwrap();
        let file = File::from(pipe.fd().unwrap().try_clone_to_owned().unwrap());
        let Object::File { device, inode } = inspect(&place).unwrap().object else { panic!("no file") };
        let found = file.metadata().unwrap();
        assert_eq!((found.dev(), found.ino()), (device, inode));
        // SAFETY: no pointers.
        let flags = unsafe { libc::fcntl(pipe.fd().unwrap().as_raw_fd(), libc::F_GETFD) };
        assert_eq!(flags, libc::FD_CLOEXEC);
        // Closing it, or any other descriptor of the file, does not free a role.
        let producer = pipe.producer().unwrap();
        drop(file);
        drop(
            File::options()
                .read(true)
                .write(true)
                .open(format!("/proc/self/fd/{}", pipe.fd().unwrap().as_raw_fd())),
        );
        let error = Pipe::open(&place).unwrap().producer().unwrap_err();
        assert!(matches!(error, SetupError::RoleTaken { .. }), "{error:?}");
        drop(producer);
    }
    let place = Backend::SysV.place();
    assert!(place.create(&small()).unwrap().fd().is_none());
}
