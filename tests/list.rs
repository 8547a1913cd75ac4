//! The listing of pipes in files and memfds. It has its own test program, since a listing briefly opens every pipe that it
//! finds, and other tests count the pipes that their process has open.

use shmpipe::error::{Distrust, Shortage};
use shmpipe::{
    Address, Listed, Listing, Location, Lost, Object, Options, SetupError, inspect, inspect_at, list, unlink,
};
use shmpipe_testing::backend::Backend;
use shmpipe_testing::process::{Line, Process, part as play};
use shmpipe_testing::raw::{Attached, make_memfd};
use std::collections::HashSet;
use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

fn small() -> Options {
    Options::new().capacity(4096)
}

#[test]
fn a_listing_shows_files_by_address_with_the_processes_that_have_them_open() {
    let _turn = turn();
    let find = |id| {
        let listed = list().pipes;
        listed
            .into_iter()
            .find(|listed| listed.snapshot.as_ref().is_ok_and(|snapshot| snapshot.segment_id == id))
    };
    let here = std::process::id();
    for backend in [Backend::Posix, Backend::File] {
        let place = backend.place();
        let pipe = place.create(&small()).unwrap();
        let (id, address) = (pipe.id(), pipe.address().clone());
        let open = find(id).expect("listed");
        assert_eq!(open.location, Location::Address(address.clone()));
        assert_eq!((&open.pids[..], open.is_open), (&[here][..], true));
        assert!(inspect(&address).unwrap().is_open);

        fs::remove_file(place.path()).unwrap();
        let is_removed = |listed: &Listed| match &listed.location {
            Location::Removed { path, pid, .. } => *pid == here && place.path().starts_with(path),
            _ => false,
        };
        let removed = list().pipes.into_iter().find(is_removed).expect("still open");
        assert!(matches!(removed.snapshot, Err(SetupError::Lost { lost: Lost::Removed, .. })), "{removed:?}");
        drop(pipe);

        drop(place.create(&small()).unwrap());
        assert!(!inspect(&address).unwrap().is_open);
        // A listing finds a closed file only in /dev/shm.
        let id = inspect(&address).unwrap().segment_id;
        assert_eq!(find(id).map(|listed| listed.is_open), (backend == Backend::Posix).then_some(false));
        unlink(&address).unwrap();
    }
}

#[test]
fn a_listing_shows_a_memfd_by_a_descriptor_of_a_process_that_has_it_open() {
    let _turn = turn();
    let pipe = small().create("memfd").unwrap();
    let is_it =
        |listed: &Listed| listed.snapshot.as_ref().is_ok_and(|snapshot| snapshot.segment_id == pipe.id());
    let listed = list().pipes.into_iter().find(is_it).expect("listed");
    let Location::Descriptor { pid, fd } = listed.location else { panic!("{:?}", listed.location) };
    assert_eq!(pid, std::process::id());
    let found = fs::metadata(format!("/proc/{pid}/fd/{fd}")).unwrap();
    assert_eq!(listed.object, Object::File { device: found.dev(), inode: found.ino() });
    assert!(listed.is_open && listed.pids == [pid]);
}

#[test]
fn a_pipe_without_an_address_is_inspected_where_it_was_found() {
    let _turn = turn();
    let pipe = small().create("memfd").unwrap();
    let is_it =
        |listed: &Listed| listed.snapshot.as_ref().is_ok_and(|snapshot| snapshot.segment_id == pipe.id());
    let location = list().pipes.into_iter().find(is_it).expect("listed").location;
    pipe.producer().unwrap().send(b"one").unwrap();
    let snapshot = inspect_at(&location).unwrap();
    assert_eq!((snapshot.segment_id, snapshot.producer.messages), (pipe.id(), 1));
    assert_eq!(snapshot.address.to_string(), format!("file:{location}"));
    let nothing = |location: &Location| {
        let error = inspect_at(location).unwrap_err();
        assert!(matches!(error, SetupError::NotFound { .. }), "{location}: {error:?}");
    };
    drop(pipe);
    nothing(&location);
    // What the descriptor may be by then.
    for other in ["/proc/self/exe", "/dev/null"] {
        let other = File::open(other).unwrap();
        nothing(&Location::Descriptor { pid: std::process::id(), fd: other.as_raw_fd() as u32 });
    }
}

/// Held by each test: a listing briefly maps the pipes of other tests, which then have one more process.
static LISTING: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    LISTING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pipes of a listing that this process has open, `count` of them.
fn ours(listing: Listing, count: usize) -> Vec<Listed> {
    let here = std::process::id();
    let ours: Vec<_> = listing.pipes.into_iter().filter(|listed| listed.pids.contains(&here)).collect();
    assert_eq!(ours.len(), count, "{ours:?}");
    ours
}

/// Runs a test in a process of its own, since it counts what that has open, or may block.
fn alone(part: &str) {
    let _turn = turn();
    let mut process = Process::start(part, &[]);
    assert_eq!(process.hear(), "done");
    process.end();
}

#[test]
fn part() {
    play(&[
        ("no address", no_address),
        ("few descriptors", few_descriptors),
        ("no answer", no_answer),
        ("device", device),
    ]);
}

#[test]
fn a_file_that_no_address_leads_to_is_listed_by_a_path() {
    alone("no address");
}

fn no_address(mut line: Line) {
    // Moved to another directory than its creator knows.
    let (place, elsewhere) = (Backend::File.place(), Backend::File.place());
    let pipe = place.create(&small()).unwrap();
    fs::rename(place.path(), elsewhere.path()).unwrap();
    let [moved] = &ours(list(), 1)[..] else { unreachable!() };
    let Location::Path(path) = &moved.location else { panic!("{moved:?}") };
    let found = fs::metadata(path).unwrap();
    assert_eq!(moved.object, Object::File { device: found.dev(), inode: found.ino() });
    let snapshot = moved.snapshot.as_ref().unwrap();
    assert_eq!((snapshot.segment_id, moved.is_open), (pipe.id(), true));
    assert_eq!((moved.location.address(), &snapshot.address), (None, &address_of(path)));
    assert_eq!(inspect_at(&moved.location).unwrap().segment_id, pipe.id());
    drop(pipe);

    // Not UTF-8, open and closed.
    let place = Backend::Posix.place();
    let pipe = place.create(&small()).unwrap();
    let mut path = place.path().as_os_str().to_owned();
    path.push(OsStr::from_bytes(b"\xff"));
    fs::rename(place.path(), &path).unwrap();
    let id = pipe.id();
    let state = || {
        let pipes = list().pipes.into_iter();
        let mut found = pipes.filter(|listed| listed.snapshot.as_ref().is_ok_and(|it| it.segment_id == id));
        found.next().map(|listed| (listed.location, listed.is_open))
    };
    let open = state();
    drop(pipe);
    let closed = state();
    fs::remove_file(&path).unwrap();
    let name = [place.path().file_name().unwrap().as_bytes(), b"\xff"].concat();
    let address = Address::try_from(OsStr::from_bytes(&[b"posix:/", &*name].concat())).unwrap();
    let location = Location::Address(address);
    assert_eq!((open, closed), (Some((location.clone(), true)), Some((location, false))));
    line.say("done");
}

fn address_of(path: &Path) -> Address {
    format!("file:{}", path.display()).parse().unwrap()
}

#[test]
fn a_listing_has_one_pipe_open_at_a_time_and_reports_a_lack_of_descriptors() {
    alone("few descriptors");
}

fn few_descriptors(mut line: Line) {
    let places: Vec<_> = (0..20).map(|_| Backend::Posix.place()).collect();
    let ids = places.iter().map(|place| place.create(&small()).unwrap().id()).collect::<HashSet<_>>();
    let free = File::open("/dev/null").unwrap().as_raw_fd() as libc::rlim_t;
    let list_with = |descriptors| {
        let limit = libc::rlimit { rlim_cur: free + descriptors, rlim_max: 1000 };
        // SAFETY: the pointer is to a limit that lives until the call returns.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
        list()
    };
    let listing = list_with(8);
    assert!(listing.files_error.is_none(), "{:?}", listing.files_error);
    let found = listing.pipes.iter().filter_map(|listed| Some(listed.snapshot.as_ref().ok()?.segment_id));
    assert_eq!(found.filter(|id| ids.contains(id)).count(), ids.len());
    let error = list_with(0).files_error;
    let is_lack = |error: &SetupError| {
        matches!(error, SetupError::Limit(Shortage::System { name: "RLIMIT_NOFILE", .. }))
    };
    assert!(error.as_ref().is_some_and(is_lack), "{error:?}");
    let _ = list_with(100);
    line.say("done");
}

#[test]
fn a_listing_does_not_touch_a_file_system_that_never_answers() {
    alone("no answer");
}

fn no_answer(mut line: Line) {
    let _pipe = small().create("memfd").unwrap();
    let directory = Backend::File.place();
    let directory = directory.path().parent().unwrap();
    if let Ok(server) = File::options().read(true).write(true).open("/dev/fuse") {
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        let [path, options] =
            [directory.as_os_str().as_bytes(), options.as_bytes()].map(|text| CString::new(text).unwrap());
        let (none, fuse, private) = (std::ptr::null(), c"fuse".as_ptr(), libc::MS_REC | libc::MS_PRIVATE);
        // SAFETY: all pointers are null or strings that live until the calls return.
        let mounted = unsafe {
            libc::unshare(libc::CLONE_NEWNS) == 0
                && libc::mount(none, c"/".as_ptr(), none, private, none.cast()) == 0
                && libc::mount(
                    fuse,
                    path.as_ptr(),
                    fuse,
                    libc::MS_NOSUID | libc::MS_NODEV,
                    options.as_ptr().cast(),
                ) == 0
        };
        if mounted {
            let root = File::options().read(true).custom_flags(libc::O_PATH).open(directory).unwrap();
            ours(list(), 1);
            drop((root, server));
        }
    }
    line.say("done");
}

#[test]
fn a_listing_never_opens_a_fifo_that_takes_the_place_of_a_file() {
    alone("device");
}

fn device(mut line: Line) {
    let place = Backend::File.place();
    let path = CString::new(place.path().as_os_str().as_bytes()).unwrap();
    // SAFETY: the path is a string that lives until the call returns.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    let fifo = File::options().read(true).custom_flags(libc::O_PATH).open(place.path()).unwrap();
    // A listing meets a file by its slot first.
    let slots: Vec<File> = (0..200).map(|_| make_memfd(4096, 0)).collect();
    let files: Vec<File> = slots.iter().map(|slot| slot.try_clone().unwrap()).collect();
    let _mapped: Vec<Attached> = slots.iter().map(Attached::map).collect();
    let (is_over, is_opened) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                for (slot, file) in slots.iter().zip(&files) {
                    for other in [&fifo, file] {
                        // SAFETY: both descriptors stay open, and a slot is used for nothing else.
                        unsafe { libc::dup2(other.as_raw_fd(), slot.as_raw_fd()) };
                    }
                }
            }
        });
        // Waits until the FIFO is opened for reading.
        scope.spawn(|| {
            let writer = File::options().write(true).open(place.path());
            is_opened.store(true, Relaxed);
            writer
        });
        for _ in 0..50 {
            let _ = list();
        }
        let was_opened = is_opened.load(Relaxed);
        is_over.store(true, Relaxed);
        let _reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(place.path());
        while !is_opened.load(Relaxed) {
            thread::yield_now();
        }
        assert!(!was_opened);
    });
    line.say("done");
}

#[test]
fn an_error_names_the_descriptor_of_the_process_that_has_the_pipe_open() {
    let _turn = turn();
    let file = make_memfd(8192, 0);
    let mapped = Attached::map(&file);
    mapped.copy_from(0, b"shmpipe\0");
    let object = file.metadata().unwrap();
    let object = Object::File { device: object.dev(), inode: object.ino() };
    let listed = list().pipes.into_iter().find(|listed| listed.object == object).expect("listed");
    let at = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    assert_eq!(listed.location.to_string(), at);
    let Err(SetupError::Untrusted(Distrust::Unsealed { address, .. })) = listed.snapshot else {
        panic!("{:?}", listed.snapshot)
    };
    assert_eq!(address.to_string(), format!("file:{at}"));
}
