//! Finds leftovers of sessions.

use std::env;
use std::ffi::CString;
use std::fs;
use std::path::PathBuf;
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use shmpipe_measure::{Directory, Session, Settings, transports};

/// Moves to a namespace of its own for System V objects and message queues, where the kernel allows it. Objects of other programs
/// do not disturb the tests there.
pub fn leave_the_namespace() -> bool {
    // SAFETY: unshare takes flags only; this process has one thread.
    let unshared = |flags| unsafe { libc::unshare(flags) } == 0;
    let mounts = libc::CLONE_NEWIPC | libc::CLONE_NEWNS;
    if unshared(mounts) || unshared(mounts | libc::CLONE_NEWUSER) {
        mount_the_queues();
        return true;
    }
    unshared(libc::CLONE_NEWIPC) || unshared(libc::CLONE_NEWUSER | libc::CLONE_NEWIPC)
}

/// Directories of POSIX message queues. The namespace's are mounted there where allowed.
const QUEUES: [&str; 2] = ["/dev/mqueue", "/mnt"];

/// Mounts the message queues of the namespace, in our mount namespace.
fn mount_the_queues() {
    let none = ptr::null();
    // SAFETY: strings with a terminator, or null where an argument is optional.
    unsafe { libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, ptr::null()) };
    for place in QUEUES {
        let place = CString::new(place).unwrap();
        let kind = c"mqueue".as_ptr();
        // SAFETY: as above.
        if unsafe { libc::mount(kind, place.as_ptr(), kind, 0, ptr::null()) } == 0 {
            return;
        }
    }
}

/// System V objects by identifier, and names of files.
#[derive(Debug, PartialEq)]
pub struct System {
    segments: Vec<String>,
    semaphores: Vec<String>,
    queues: Vec<String>,
    /// Of FIFOs, of rings in files, and of POSIX message queues where they can be seen.
    names: Vec<String>,
}

impl System {
    pub fn now() -> System {
        let ids = |file: &str| {
            let text = fs::read_to_string(file).unwrap();
            text.lines().skip(1).map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect()
        };
        let mut names = Vec::new();
        let files = [Directory::Shm, Directory::Disk].map(|directory| PathBuf::from(directory.path()));
        for directory in [env::temp_dir()].into_iter().chain(files).chain(QUEUES.map(PathBuf::from)) {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            names.extend(entries.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        }
        names.retain(|name| name.starts_with("shmpipe-measure."));
        System {
            segments: ids("/proc/sysvipc/shm"),
            semaphores: ids("/proc/sysvipc/sem"),
            queues: ids("/proc/sysvipc/msg"),
            names,
        }
    }

    /// Whether it has something that `before` has not.
    fn has_more_than(&self, before: &System) -> bool {
        let more = |now: &[String], then: &[String]| now.iter().any(|one| !then.contains(one));
        more(&self.segments, &before.segments)
            || more(&self.semaphores, &before.semaphores)
            || more(&self.queues, &before.queues)
            || more(&self.names, &before.names)
    }

    /// Waits until there is nothing more than before.
    pub fn settles_to(before: &System) {
        let start = Instant::now();
        loop {
            let now = System::now();
            if !now.has_more_than(before) {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(5), "left behind: {now:?}, before {before:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Each kind of object that a session could leave is detected.
pub fn leftovers_are_detected() {
    let before = System::now();
    let session = Session::start(&Settings::default(), &[transports::SYSV_QUEUE]).unwrap();
    assert_eq!(System::now().queues.len(), before.queues.len() + 2);
    drop(session);
    let path = env::temp_dir().join(format!("shmpipe-measure.{}.test", std::process::id()));
    fs::write(&path, "").unwrap();
    assert!(System::now().has_more_than(&before));
    fs::remove_file(path).unwrap();
    let name = CString::new(format!("/shmpipe-measure.{}.test", std::process::id())).unwrap();
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR;
    let default: *const libc::mq_attr = ptr::null();
    // SAFETY: the name ends with a zero, and no attributes mean the default ones.
    let queue = unsafe { libc::mq_open(name.as_ptr(), flags, 0o600 as libc::mode_t, default) };
    assert_ne!(queue, -1);
    let seen = System::now().has_more_than(&before);
    // SAFETY: the queue was just opened here, and has that name.
    unsafe {
        libc::mq_close(queue);
        libc::mq_unlink(name.as_ptr());
    }
    if !seen {
        println!("  POSIX message queues cannot be listed here: whether one is left behind is not checked");
    }
}
