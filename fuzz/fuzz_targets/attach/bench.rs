//! Real pipes of each kind, with raw access to their segments, semaphores and locks.

use shmpipe::os::unix::PipeExt;
use shmpipe::{Object, Options, Pipe, Tagged, WakeMode};
use shmpipe_fuzz::model::Image;
use shmpipe_testing::backend::{Backend, Place};
use shmpipe_testing::layout::{self, identity, lock, semaphore, stage};
use shmpipe_testing::raw::{self, Attached};
use shmpipe_testing::reaper;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

/// Twice the smallest, so that a header can also give a smaller ring than the segment has.
const CAPACITY: u64 = 8192;

/// The values of a set.
pub type Values = [u16; semaphore::COUNT];

/// The semaphores with the identifier of the segment.
const SEGMENT: std::ops::Range<usize> = semaphore::SEGMENT as usize..semaphore::ATTACHMENTS as usize;

/// The largest value of a semaphore.
pub const LARGEST: u16 = 32767;

/// The identifiers of the objects to remove at the end: segment and set of the two pipes, and the foreign set.
static OBJECTS: [AtomicI32; 5] = [const { AtomicI32::new(-1) }; 5];

/// Moves this process to an IPC namespace of its own, in which it leaves nothing and no other process creates or removes objects.
/// Where that is not allowed, the process removes its objects at exit. Objects that a crash of the fuzzer leaves then have to be
/// removed manually (see the README). Another process removes its files, however it ends.
pub fn confine() -> bool {
    // SAFETY: the calls take no pointers.
    let alone = unsafe {
        libc::unshare(libc::CLONE_NEWIPC) == 0 || libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWIPC) == 0
    };
    // SAFETY: the function makes system calls only.
    unsafe { libc::atexit(remove_all) };
    // Before there is a segment: its process would inherit the attachment.
    reaper::directory();
    alone
}

extern "C" fn remove_all() {
    let ids = [0, 1, 2, 3, 4].map(|i: usize| OBJECTS[i].load(Relaxed));
    [ids[0], ids[2]].into_iter().for_each(raw::remove_segment);
    [ids[1], ids[3], ids[4]].into_iter().for_each(raw::remove_set);
}

/// The numbers of segments and sets in this namespace.
pub fn census() -> (i32, i32) {
    // SAFETY: both consist of integers.
    let (mut shm, mut sem): ([libc::c_ulong; 8], libc::seminfo) = unsafe { std::mem::zeroed() };
    const SHM_INFO: i32 = 14;
    // SAFETY: both calls write one structure: `shm_info` is smaller than the array, and starts with an int.
    unsafe {
        libc::shmctl(0, SHM_INFO, shm.as_mut_ptr().cast());
        libc::semctl(0, 0, libc::SEM_INFO, &raw mut sem);
    }
    (shm[0] as i32, sem.semusz)
}

/// The values of a set's semaphores.
pub fn values(set: i32) -> io::Result<Values> {
    let mut values = Values::default();
    // SAFETY: GETALL writes a u16 for each semaphore, and every set here has 8.
    match unsafe { libc::semctl(set, 0, libc::GETALL, values.as_mut_ptr()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(values),
    }
}

/// Whether these are the values of a complete pipe in segment `id`.
pub fn guards(values: &Values, id: i32) -> bool {
    let segment = values[SEGMENT].iter().rev().fold(0, |id, &value| id << 15 | u64::from(value));
    values[usize::from(semaphore::STAGE)] == stage::CREATED && segment == id as u64
}

/// Objects that no run may affect.
pub struct Others {
    pub pipe: Bench,
    /// The set of that pipe.
    pub set: i32,
    /// A set of the size of ours that belongs to no pipe.
    pub foreign: i32,
}

const FOREIGN: Values = [0, 1, 0, 7, 0, 0, 0, 3];

impl Others {
    pub fn make() -> Self {
        let pipe = Bench::sysv(1);
        let set = pipe.set().expect("a System V pipe").id;
        let foreign = raw::make_set(libc::IPC_PRIVATE, FOREIGN.len() as i32);
        OBJECTS[4].store(foreign, Relaxed);
        set_values(foreign, &FOREIGN);
        Others { pipe, set, foreign }
    }

    pub fn check(&self) {
        assert!(self.pipe.is_there(), "another pipe was removed");
        self.pipe.check_resting();
        assert_eq!(values(self.foreign).ok(), Some(FOREIGN), "a foreign set");
    }
}

fn set_values(set: i32, values: &Values) {
    // SAFETY: SETALL reads a u16 for each semaphore, and every set here has 8.
    unsafe { libc::semctl(set, 0, libc::SETALL, values.as_ptr()) };
}

/// What holds a segment and its roles.
enum Held {
    /// A segment without a key.
    SysV {
        id: i32,
        set: Set,
    },
    /// A file with a name. `is_lasting` if its file system outlives the machine.
    File {
        place: Place,
        file: File,
        is_lasting: bool,
    },
    Memfd(File),
}

/// A semaphore set.
#[derive(Clone, Copy)]
pub struct Set {
    pub id: i32,
    /// Its values while no handle is open.
    resting: Values,
}

/// A pipe with no end attached.
pub struct Bench {
    held: Held,
    /// See [`number`].
    pub number: (u64, u64),
    pub fresh: Image,
    pub used: Image,
    /// Memory for two images, reused by all runs.
    pub scratch: [Image; 2],
    memory: Option<Attached>,
}

/// Whether a file system outlives the machine.
fn is_lasting(file: &File) -> bool {
    // SAFETY: all fields are integers.
    let mut status: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the call writes one statfs.
    assert_eq!(unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut status) }, 0);
    status.f_type != libc::TMPFS_MAGIC
}

impl Bench {
    /// Creates System V pipe number 0 or 1.
    pub fn sysv(which: usize) -> Self {
        let pipe = options().create("sysv:private").expect("a pipe");
        let seen = shmpipe::inspect(pipe.address()).expect("a snapshot");
        let Object::SysV { shm_id: id, sem_id: Some(set), .. } = seen.object else { panic!("{seen:?}") };
        OBJECTS[which * 2].store(id, Relaxed);
        OBJECTS[which * 2 + 1].store(set, Relaxed);
        Self::new(pipe, number(seen.object), Held::SysV { id, set: Set { id: set, resting: [0; 8] } })
    }

    /// Creates a pipe in a named file.
    pub fn file() -> Self {
        let place = Backend::File.place();
        let pipe = place.create(&options()).expect("a pipe");
        let file = File::options().read(true).write(true).open(place.path()).expect("its file");
        let is_lasting = is_lasting(&file);
        Self::new(pipe, number_of(&file), Held::File { place, file, is_lasting })
    }

    /// Creates a pipe in a memfd.
    pub fn memfd() -> Self {
        let pipe = options().create("memfd").expect("a pipe");
        let file = File::from(pipe.fd().expect("a memfd").try_clone_to_owned().expect("a second descriptor"));
        Self::new(pipe, number_of(&file), Held::Memfd(file))
    }

    fn new(pipe: Pipe, number: (u64, u64), held: Held) -> Self {
        let zeros = Image(vec![0; layout::RING + CAPACITY as usize]);
        let mut bench = Bench {
            held,
            number,
            fresh: zeros.clone(),
            used: zeros.clone(),
            scratch: [zeros.clone(), zeros],
            memory: None,
        };
        bench.attach();
        bench.fresh = bench.image();
        // An attachment that is no guest makes claims fail.
        bench.detach();
        use_it(&pipe);
        bench.attach();
        bench.used = bench.image();
        drop(pipe);
        if let Held::SysV { set, .. } = &mut bench.held {
            set.resting = values(set.id).expect("the set");
        }
        bench
    }

    pub fn address(&self) -> String {
        match &self.held {
            Held::SysV { id, .. } => format!("sysv:id:{id}"),
            Held::File { place, .. } => place.to_string(),
            Held::Memfd(file) => format!("fd:{}", file.as_raw_fd()),
        }
    }

    /// The segment and the set of a System V pipe.
    fn ids(&self) -> Option<(i32, Set)> {
        match self.held {
            Held::SysV { id, set } => Some((id, set)),
            _ => None,
        }
    }

    /// The set of a System V pipe.
    pub fn set(&self) -> Option<Set> {
        self.ids().map(|(_, set)| set)
    }

    /// The identifier of a System V segment.
    pub fn id(&self) -> Option<i32> {
        self.ids().map(|(id, _)| id)
    }

    /// Whether an open by address finds this image outdated while no role is held.
    pub fn is_stale(&self, image: &Image) -> bool {
        let boot_id = |image: &Image| [0, 8].map(|at| image.word(identity::BOOT_ID + at));
        matches!(self.held, Held::File { is_lasting: true, .. })
            && boot_id(image) != boot_id(&self.fresh)
            && ![boot_id(image), boot_id(&self.fresh)].contains(&[0; 2])
    }

    /// Maps the segment, if it exists.
    pub fn attach(&mut self) -> bool {
        self.memory = match &self.held {
            Held::SysV { id, .. } => raw::status(*id).map(|_| Attached::new(*id)),
            Held::File { file, .. } | Held::Memfd(file) => Some(Attached::map(file)),
        };
        self.memory.is_some()
    }

    pub fn detach(&mut self) {
        self.memory = None;
    }

    fn memory(&self) -> &Attached {
        self.memory.as_ref().expect("the segment is attached")
    }

    /// The bytes of the segment.
    pub fn image(&self) -> Image {
        let mut image = self.used.clone();
        self.read(&mut image);
        image
    }

    pub fn read(&self, image: &mut Image) {
        self.memory().copy_to(0, &mut image.0);
    }

    pub fn write(&self, image: &Image) {
        self.memory().copy_from(0, &image.0);
    }

    /// Restores the semaphores.
    pub fn reset(&self) {
        if let Some(set) = self.set() {
            set_values(set.id, &set.resting);
        }
    }

    /// Whether it exists, and no part of it was removed.
    pub fn is_there(&self) -> bool {
        match &self.held {
            Held::SysV { id, set } => {
                let status = raw::status(*id);
                status.is_some_and(|status| status.shm_perm.mode & 0o1000 == 0) && values(set.id).is_ok()
            }
            Held::File { file, .. } => file.metadata().is_ok_and(|file| file.nlink() > 0),
            Held::Memfd(_) => true,
        }
    }

    /// The number of attachments of a System V segment.
    pub fn attached(&self) -> u64 {
        self.id().and_then(raw::status).map_or(0, |status| status.shm_nattch)
    }

    /// Checks that no semaphore has changed since no handle is open, or that no lock and no byte of a file is left.
    pub fn check_resting(&self) {
        match &self.held {
            Held::SysV { set, .. } => {
                assert_eq!(values(set.id).ok(), Some(set.resting), "the semaphores");
            }
            Held::File { file, .. } | Held::Memfd(file) => {
                let locked = [lock::GUESTS, lock::PRODUCER, lock::CONSUMER, lock::REMOVER]
                    .map(|byte| raw::is_locked(file.as_fd(), byte));
                assert_eq!(locked, [false; 4], "locks");
                assert_eq!(file.metadata().expect("a file").size(), self.fresh.0.len() as u64, "the size");
            }
        }
    }

    /// Removes a System V pipe, if it still exists. The others end with their descriptors.
    pub fn remove(&mut self) {
        self.detach();
        if let Some((id, set)) = self.ids() {
            raw::remove_segment(id);
            raw::remove_set(set.id);
        }
    }
}

fn options() -> Options {
    Options::new().capacity(CAPACITY).wake_mode(WakeMode::Fence)
}

/// What distinguishes a segment from all others. The set does not: the header may name another one.
pub fn number(object: Object) -> (u64, u64) {
    match object {
        Object::SysV { shm_id, .. } => (0, shm_id as u64),
        Object::File { device, inode } => (device, inode),
        other => panic!("{other:?}"),
    }
}

fn number_of(file: &File) -> (u64, u64) {
    let file = file.metadata().expect("a file");
    (file.dev(), file.ino())
}

/// Sends more than a lap, and leaves records of all kinds in the ring, one of them behind a wrap.
fn use_it(pipe: &Pipe) {
    let (mut producer, mut consumer) =
        (pipe.producer().expect("a free role"), pipe.consumer().expect("a free role"));
    for (fill, length) in (b'a'..).zip([0, 1, 8, 100, 2000, 3000, 2000, 40]) {
        producer.try_send(&vec![fill; length]).expect("space");
        consumer.try_recv().expect("a message").release();
    }
    let mut batch = producer.batch();
    for (tag, length) in (0..).zip([1000, 0, 1500, 7, 17, 1024]) {
        batch.push(Tagged(tag, &vec![b'A' + tag as u8; length])).expect("space");
    }
    batch.commit();
}
