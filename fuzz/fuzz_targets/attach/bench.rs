//! Genuine pipes, laid bare: the segment attached by hand, so that its bytes can be anything.

use shmpipe::{Object, Options, Pipe, WakeMode};
use shmpipe_fuzz::model::Image;
use shmpipe_testing::layout::{self, semaphore, stage};
use std::io;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

/// Twice the smallest one, so that a header may also tell of a smaller ring than there is.
const CAPACITY: u64 = 8192;

/// What the semaphores of a set hold.
pub type Values = [u16; semaphore::COUNT];

/// The three that hold the identifier of the segment.
const SEGMENT: std::ops::Range<usize> = semaphore::SEGMENT as usize..semaphore::GUESTS as usize;

/// The largest value of a semaphore.
pub const LARGEST: u16 = 32767;

/// The identifiers of what is to be removed at the end: segment and set of the two pipes, and the foreign set.
static OBJECTS: [AtomicI32; 5] = [const { AtomicI32::new(-1) }; 5];

/// Moves this process into an IPC namespace of its own, where it can leave nothing behind and where nobody else makes
/// or removes anything. Where that is not allowed, what was made is removed at the exit of the process; only
/// what a crash of the fuzzer leaves behind then has to be removed by hand (see the README).
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
    [ids[0], ids[2]].into_iter().for_each(remove_segment);
    [ids[1], ids[3], ids[4]].into_iter().for_each(remove_set);
}

fn remove_segment(id: i32) {
    // SAFETY: IPC_RMID takes no pointer.
    unsafe { libc::shmctl(id, libc::IPC_RMID, null_mut()) };
}

pub fn remove_set(id: i32) {
    // SAFETY: IPC_RMID takes no pointer.
    unsafe { libc::semctl(id, 0, libc::IPC_RMID) };
}

/// How many segments and sets there are in this namespace.
pub fn census() -> (i32, i32) {
    // SAFETY: both are made of integers.
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
    // SAFETY: GETALL writes one u16 for each semaphore, and every set here has 8.
    match unsafe { libc::semctl(set, 0, libc::GETALL, values.as_mut_ptr()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(values),
    }
}

/// Whether these are the semaphores of a complete pipe in segment `id`.
pub fn guards(values: &Values, id: i32) -> bool {
    let segment = values[SEGMENT].iter().rev().fold(0, |id, &value| id << 15 | u64::from(value));
    values[usize::from(semaphore::STAGE)] == stage::CREATED && segment == id as u64
}

/// What must not suffer from anything.
pub struct Others {
    pub pipe: Bench,
    /// A set of as many semaphores as a pipe has, which is none of ours.
    pub foreign: i32,
}

const FOREIGN: Values = [0, 1, 0, 7, 0, 0, 0, 3];

impl Others {
    pub fn make() -> Self {
        let pipe = Bench::make(1);
        // SAFETY: the call takes no pointers.
        let foreign = unsafe { libc::semget(libc::IPC_PRIVATE, FOREIGN.len() as i32, 0o600) };
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
    // SAFETY: SETALL reads one u16 for each semaphore, and every set here has 8.
    unsafe { libc::semctl(set, 0, libc::SETALL, values.as_ptr()) };
}

/// A pipe without a key, of which both sides are gone.
pub struct Bench {
    pub id: i32,
    pub set: i32,
    /// The semaphores when nobody has the pipe open.
    pub resting: Values,
    pub fresh: Image,
    pub used: Image,
    /// Memory for two images, kept from run to run.
    pub scratch: [Image; 2],
    base: *mut u8,
}

impl Bench {
    /// Makes number 0 or 1.
    pub fn make(number: usize) -> Self {
        let pipe = Options::new()
            .capacity(CAPACITY)
            .wake_mode(WakeMode::Fence)
            .create("sysv:private")
            .expect("a pipe can be made");
        let seen = shmpipe::inspect(pipe.address()).expect("it can be looked at");
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
            base: null_mut(),
        };
        bench.attach();
        bench.fresh = bench.image();
        // Who is attached and no guest keeps others from claiming.
        bench.detach();
        use_it(&pipe);
        bench.attach();
        bench.used = bench.image();
        drop(pipe);
        bench.resting = values(bench.set).expect("the set is there");
        bench
    }

    /// Attaches the segment, if it is there.
    pub fn attach(&mut self) -> bool {
        // SAFETY: with a null address the kernel chooses where to map, over nothing that exists.
        let base = unsafe { libc::shmat(self.id, null(), 0) };
        self.base = if base as isize == -1 { null_mut() } else { base.cast() };
        !self.base.is_null()
    }

    pub fn detach(&mut self) {
        // SAFETY: it was attached here, and nobody holds a reference into it.
        unsafe { libc::shmdt(self.base.cast()) };
        self.base = null_mut();
    }

    /// What is in the segment now.
    pub fn image(&self) -> Image {
        let mut image = self.used.clone();
        self.read(&mut image);
        image
    }

    pub fn read(&self, image: &mut Image) {
        assert!(!self.base.is_null());
        // SAFETY: the segment is attached and as long as every image; no other thread uses it.
        unsafe { image.0.as_mut_ptr().copy_from_nonoverlapping(self.base, image.0.len()) };
    }

    pub fn write(&self, image: &Image) {
        assert!(!self.base.is_null());
        // SAFETY: as in `read`.
        unsafe { self.base.copy_from_nonoverlapping(image.0.as_ptr(), image.0.len()) };
    }

    pub fn set_values(&self, values: &Values) {
        set_values(self.set, values);
    }

    pub fn set_value(&self, number: u8, value: u16) {
        // SAFETY: SETVAL takes an int.
        unsafe { libc::semctl(self.set, number.into(), libc::SETVAL, i32::from(value)) };
    }

    /// Whether the segment and its set are there and neither was removed.
    pub fn is_there(&self) -> bool {
        // SAFETY: IPC_STAT writes one structure of integers.
        let status = unsafe {
            let mut status: libc::shmid_ds = std::mem::zeroed();
            (libc::shmctl(self.id, libc::IPC_STAT, &raw mut status) == 0).then_some(status)
        };
        status.is_some_and(|status| status.shm_perm.mode & 0o1000 == 0) && values(self.set).is_ok()
    }

    /// How many attachments the segment has.
    pub fn attached(&self) -> u64 {
        // SAFETY: IPC_STAT writes one structure of integers.
        unsafe {
            let mut status: libc::shmid_ds = std::mem::zeroed();
            libc::shmctl(self.id, libc::IPC_STAT, &raw mut status);
            status.shm_nattch
        }
    }

    /// Removes what is left of it.
    pub fn remove(&mut self) {
        self.detach();
        remove_segment(self.id);
        remove_set(self.set);
    }
}

/// Sends more than a lap, of which some is left: records of all kinds, one of them behind a wrap.
fn use_it(pipe: &Pipe) {
    let (mut producer, mut consumer) =
        (pipe.producer().expect("nobody is there"), pipe.consumer().expect("nobody is there"));
    for (fill, length) in (b'a'..).zip([0, 1, 8, 100, 2000, 3000, 2000, 40]) {
        producer.try_send(&vec![fill; length]).expect("there is room");
        consumer.try_recv().expect("there is a message").release();
    }
    let mut batch = producer.batch();
    for (tag, length) in (0..).zip([1000, 0, 1500, 7, 17, 1024]) {
        batch.push_tagged(tag, &vec![b'A' + tag as u8; length]).expect("there is room");
    }
    batch.commit();
}
