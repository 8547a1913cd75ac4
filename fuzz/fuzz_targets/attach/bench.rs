//! Real pipes with raw access to their segments and semaphores.

use shmpipe::{Object, Options, Pipe, Tagged, WakeMode};
use shmpipe_fuzz::model::Image;
use shmpipe_testing::layout::{self, semaphore, stage};
use shmpipe_testing::raw::{self, Attached};
use std::io;
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
/// removed manually (see the README).
pub fn confine() -> bool {
    // SAFETY: the calls take no pointers.
    let alone = unsafe {
        libc::unshare(libc::CLONE_NEWIPC) == 0 || libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWIPC) == 0
    };
    // SAFETY: the function makes system calls only.
    unsafe { libc::atexit(remove_all) };
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
    /// A set of the size of ours that belongs to no pipe.
    pub foreign: i32,
}

const FOREIGN: Values = [0, 1, 0, 7, 0, 0, 0, 3];

impl Others {
    pub fn make() -> Self {
        let pipe = Bench::make(1);
        let foreign = raw::make_set(libc::IPC_PRIVATE, FOREIGN.len() as i32);
        OBJECTS[4].store(foreign, Relaxed);
        set_values(foreign, &FOREIGN);
        Others { pipe, foreign }
    }

    pub fn check(&self) {
        assert!(self.pipe.is_there(), "another pipe was removed");
        assert_eq!(values(self.pipe.set).ok(), Some(self.pipe.resting), "another pipe's semaphores");
        assert_eq!(values(self.foreign).ok(), Some(FOREIGN), "a foreign set");
    }
}

fn set_values(set: i32, values: &Values) {
    // SAFETY: SETALL reads a u16 for each semaphore, and every set here has 8.
    unsafe { libc::semctl(set, 0, libc::SETALL, values.as_ptr()) };
}

/// A pipe without a key, with no end attached.
pub struct Bench {
    pub id: i32,
    pub set: i32,
    /// The semaphores while no handle is open.
    pub resting: Values,
    pub fresh: Image,
    pub used: Image,
    /// Memory for two images, reused by all runs.
    pub scratch: [Image; 2],
    memory: Option<Attached>,
}

impl Bench {
    /// Creates pipe number 0 or 1.
    pub fn make(number: usize) -> Self {
        let pipe = Options::new()
            .capacity(CAPACITY)
            .wake_mode(WakeMode::Fence)
            .create("sysv:private")
            .expect("a pipe");
        let seen = shmpipe::inspect(pipe.address()).expect("a snapshot");
        let Object::SysV { shm_id: id, sem_id: Some(set), .. } = seen.object else { panic!("{seen:?}") };
        OBJECTS[number * 2].store(id, Relaxed);
        OBJECTS[number * 2 + 1].store(set, Relaxed);
        let zeros = Image(vec![0; layout::RING + CAPACITY as usize]);
        let mut bench = Bench {
            id,
            set,
            resting: [0; 8],
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
        bench.resting = values(bench.set).expect("the set");
        bench
    }

    /// Attaches the segment, if it exists.
    pub fn attach(&mut self) -> bool {
        self.memory = raw::status(self.id).map(|_| Attached::new(self.id));
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

    pub fn set_values(&self, values: &Values) {
        set_values(self.set, values);
    }

    pub fn set_value(&self, number: u8, value: u16) {
        raw::set_semaphore(self.set, number.into(), value.into());
    }

    /// Whether segment and set exist, and neither was removed.
    pub fn is_there(&self) -> bool {
        let status = raw::status(self.id);
        status.is_some_and(|status| status.shm_perm.mode & 0o1000 == 0) && values(self.set).is_ok()
    }

    /// The number of attachments of the segment.
    pub fn attached(&self) -> u64 {
        raw::status(self.id).map_or(0, |status| status.shm_nattch)
    }

    /// Removes both, if they still exist.
    pub fn remove(&mut self) {
        self.detach();
        raw::remove_segment(self.id);
        raw::remove_set(self.set);
    }
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
