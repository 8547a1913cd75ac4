//! Pins LAYOUT.md: compares segments with it byte by byte, and runs a reader, a producer and a creator written from it alone.
//! No offset here comes from the library.

use shmpipe::error::{Damage, Mismatch};
use shmpipe::os::unix::OptionsExt;
use shmpipe::{
    Consumer, DuplexSide, Options, PANICKED, Pipe, RecvError, SendError, SetupError, Tagged, TryRecvError,
    WakeMode,
};
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::thread;
use std::time::{Duration, Instant};

/// The time after which a test counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);

// ---------------------------------------------------------------------------------------------------------------------
// System V objects, from the chapter of that name.

const READY: u64 = 0x0065_7069_706d_6873;
const MAKING: u64 = 0x0065_6b61_6d6d_6873;

const INIT: u16 = 0;
const STAGE: u16 = 3;
const ATTACHMENTS: u16 = 7;

/// The words of a side.
const PRODUCER: usize = 640;
const CONSUMER: usize = 1024;

const STAGE_MAKING: i32 = 0x5A4D;
const STAGE_MADE: i32 = 0x5A52;

/// A unique name. Removes the objects under its key when dropped.
struct Name(String);

impl Name {
    /// Always 22 bytes long.
    fn new(purpose: &str) -> Self {
        Name(format!("layout-{purpose:_<7}-{:07}", std::process::id()))
    }

    fn key(&self) -> i32 {
        let hash = self
            .0
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        if hash == 0 { 1 } else { hash as i32 }
    }

    fn segment(&self) -> i32 {
        // SAFETY: the call takes no pointers.
        unsafe { libc::shmget(self.key(), 0, 0) }
    }

    fn set(&self) -> i32 {
        // SAFETY: the call takes no pointers.
        unsafe { libc::semget(self.key(), 0, 0) }
    }

    fn values(&self) -> [u16; 8] {
        let mut values = [0; 8];
        // SAFETY: GETALL writes a u16 for each of the 8 semaphores.
        assert_eq!(unsafe { libc::semctl(self.set(), 0, libc::GETALL, values.as_mut_ptr()) }, 0);
        values
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // SAFETY: IPC_RMID takes no pointer; where there is nothing, it fails.
        unsafe {
            libc::shmctl(self.segment(), libc::IPC_RMID, null_mut());
            libc::semctl(self.set(), 0, libc::IPC_RMID);
        }
    }
}

/// One call of `semop`.
fn operate<const N: usize>(set: i32, operations: [(u16, i16); N]) -> bool {
    let mut operations = operations.map(|(number, change)| {
        let undo = if change == 0 { 0 } else { libc::SEM_UNDO };
        libc::sembuf { sem_num: number, sem_op: change, sem_flg: (libc::IPC_NOWAIT | undo) as i16 }
    });
    // SAFETY: the operations live until the call returns.
    unsafe { libc::semop(set, operations.as_mut_ptr(), N) == 0 }
}

fn take(set: i32, number: u16) -> bool {
    operate(set, [(number, 0), (number, 1)])
}

fn give_back(set: i32, number: u16) {
    assert!(operate(set, [(number, -1)]));
}

fn set_value(set: i32, number: u16, value: i32) {
    // SAFETY: SETVAL takes an int.
    assert_eq!(unsafe { libc::semctl(set, number.into(), libc::SETVAL, value) }, 0);
}

/// A segment attached without the library. Detaches when dropped.
struct Segment {
    base: *mut u8,
    size: usize,
    /// The set in which this attachment is registered.
    set: Option<i32>,
}

impl Segment {
    fn attach(id: i32) -> Self {
        // SAFETY: with a null address the kernel chooses where to map; IPC_STAT writes one structure of integers.
        unsafe {
            let mut status: libc::shmid_ds = std::mem::zeroed();
            assert_eq!(libc::shmctl(id, libc::IPC_STAT, &raw mut status), 0);
            let base = libc::shmat(id, null_mut(), 0);
            assert_ne!(base as isize, -1);
            assert_eq!(libc::madvise(base, status.shm_segsz, libc::MADV_DONTFORK), 0);
            Segment { base: base.cast(), size: status.shm_segsz, set: None }
        }
    }

    /// Registers the attachment: the last step of opening and creating.
    fn enter(mut self, set: i32) -> Self {
        assert!(operate(set, [(ATTACHMENTS, 1)]));
        self.set = Some(set);
        self
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset % 8 == 0 && offset + 8 <= self.size);
        // SAFETY: aligned, and within the segment, which stays mapped as long as `self` exists.
        unsafe { AtomicU64::from_ptr(self.base.add(offset).cast()) }
    }

    fn half(&self, offset: usize) -> &AtomicU32 {
        assert!(offset % 4 == 0 && offset + 4 <= self.size);
        // SAFETY: as in `word`.
        unsafe { AtomicU32::from_ptr(self.base.add(offset).cast()) }
    }

    /// Relaxed: for bytes published by a word that was loaded with Acquire.
    fn bytes(&self, offset: usize, length: usize) -> Vec<u8> {
        let words =
            (offset / 8..(offset + length).div_ceil(8)).map(|i| self.word(i * 8).load(Ordering::Relaxed));
        let bytes: Vec<u8> = words.flat_map(u64::to_ne_bytes).collect();
        bytes[offset % 8..offset % 8 + length].to_vec()
    }

    /// Writes at a multiple of 8, with zeros up to the next one.
    fn write(&self, offset: usize, bytes: &[u8]) {
        for (i, chunk) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(offset + i * 8).store(u64::from_ne_bytes(word), Ordering::Relaxed);
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if let Some(set) = self.set {
            // The set may no longer exist.
            operate(set, [(ATTACHMENTS, -1)]);
        }
        // SAFETY: `attach` attached it, and references into it borrow from `self`.
        unsafe { libc::shmdt(self.base.cast::<c_void>()) };
    }
}

/// What shows that this process has its memory, from "The roles of a System V pipe".
struct Presence {
    id: i32,
    size: usize,
    base: *mut c_void,
}

impl Presence {
    fn create(set: i32) -> Self {
        let size = std::process::id() as usize % 4096 + 1;
        // SAFETY: shmat lets the kernel choose the address, and nothing accesses the page; IPC_RMID takes no pointer.
        unsafe {
            assert!(take(set, INIT));
            set_value(set, 1, 1);
            let id = libc::shmget(libc::IPC_PRIVATE, size, libc::IPC_CREAT | 0o400);
            let base = libc::shmat(id, null_mut(), libc::SHM_RDONLY);
            assert_ne!(base as isize, -1);
            assert_eq!(libc::madvise(base, size, libc::MADV_DONTFORK), 0);
            assert_eq!(libc::shmctl(id, libc::IPC_RMID, null_mut()), 0);
            set_value(set, 1, 0);
            give_back(set, INIT);
            Presence { id, size, base }
        }
    }

    fn claim_word(&self) -> u64 {
        7 << 45 | (self.size as u64) << 32 | self.id as u64
    }

    /// Whether the claim in a role's word stands.
    fn stands(word: u64) -> bool {
        let (id, size) = (word as u32 as i32, (word >> 32 & 0x1FFF) as usize);
        // SAFETY: IPC_STAT writes one structure of integers.
        unsafe {
            let mut status: libc::shmid_ds = std::mem::zeroed();
            libc::shmctl(id, libc::IPC_STAT, &raw mut status) == 0
                && status.shm_segsz == size
                && u32::from(status.shm_perm.mode) & 0o1000 != 0
        }
    }

    fn claim(&self, word: &AtomicU64) -> bool {
        let found = word.load(Ordering::Acquire);
        let free = found == 0 || !Self::stands(found);
        free && word.compare_exchange(found, self.claim_word(), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn give_up(&self, word: &AtomicU64) {
        let given = word.compare_exchange(self.claim_word(), 0, Ordering::Release, Ordering::Relaxed);
        assert!(given.is_ok());
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // SAFETY: `create` attached it.
        unsafe { libc::shmdt(self.base) };
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Both sides, from the chapters "The producer", "The consumer", "Sleeping and waking".

/// One side of a pipe, or of one direction of a duplex pipe, written from the document. The wake mode is 2, fence.
struct ByHand {
    segment: Segment,
    /// The claim to give up at the end, and the offset of its word.
    claim: Option<(Presence, usize)>,
    /// The offset of the header.
    start: usize,
    /// The offset of its words.
    role: usize,
    capacity: u64,
    /// Its position: the tail, or the read position.
    at: u64,
    answered: u32,
}

fn size(length: u64) -> u64 {
    8 + length.div_ceil(8) * 8
}

impl ByHand {
    fn claim(name: &Name, role: usize) -> Self {
        let (segment, capacity) = Self::open(name, 0);
        let presence = Presence::create(name.set());
        assert!(presence.claim(segment.word(role + 40)));
        let mut side = Self::take_over(segment, 0, capacity, role);
        side.claim = Some((presence, role + 40));
        side.begin(side.epoch() + 1);
        side
    }

    /// A side of a duplex pipe: what sends and what receives. The latter holds the role, and must end last.
    fn claim_side(name: &Name, side: char) -> (Self, Self) {
        let role = if side == 'A' { PRODUCER } else { CONSUMER };
        let (segment, capacity) = Self::open(name, 1);
        let presence = Presence::create(name.set());
        assert!(presence.claim(segment.word(role + 40)));
        let back = 4096 + capacity as usize;
        let (out, to_us) = if side == 'A' { (0, back) } else { (back, 0) };
        let mut receiver = Self::take_over(segment, to_us, capacity, CONSUMER);
        let segment = Segment::attach(name.segment());
        let sender = Self::take_over(segment, out, capacity, PRODUCER);
        receiver.claim = Some((presence, role + 40));
        let epoch = receiver.epoch().max(sender.epoch()) + 1;
        receiver.begin(epoch);
        sender.begin(epoch);
        (sender, receiver)
    }

    /// A pipe with these features, and its capacity.
    fn open(name: &Name, expected: u64) -> (Segment, u64) {
        let segment = Segment::attach(name.segment()).enter(name.set());
        assert_eq!(segment.word(0).load(Ordering::Acquire), READY);
        assert_eq!([8, 12, 92].map(|at| segment.half(at).load(Ordering::Relaxed)), [2, 0x0102_0304, 2]);
        let [header_size, capacity, features] =
            [16, 24, 32].map(|at| segment.word(at).load(Ordering::Relaxed));
        assert_eq!((header_size, features), (4096, expected));
        assert_eq!(segment.half(88).load(Ordering::Relaxed) as i32, name.set());
        (segment, capacity)
    }

    fn take_over(segment: Segment, start: usize, capacity: u64, role: usize) -> Self {
        let mut side = ByHand { segment, claim: None, start, role, capacity, at: 0, answered: 0 };
        side.at = side.recover();
        let ticket = side.segment.half(side.own() + 12);
        ticket.store((ticket.load(Ordering::Relaxed) | 1).wrapping_add(1), Ordering::Relaxed);
        side
    }

    fn epoch(&self) -> u64 {
        self.segment.word(self.own()).load(Ordering::Relaxed) / 4
    }

    fn begin(&self, epoch: u64) {
        self.segment.word(self.own()).store(epoch * 4 + 1, Ordering::Release);
        self.wake_anyway();
    }

    fn close(self) {
        self.end(2);
    }

    fn abort(self, code: u32) {
        self.segment.word(self.own() + 32).store(code.into(), Ordering::Release);
        self.end(3);
    }

    fn end(self, phase: u64) {
        let state = self.segment.word(self.own());
        state.store(state.load(Ordering::Relaxed) / 4 * 4 + phase, Ordering::Release);
        self.wake_anyway();
        if let Some((presence, word)) = &self.claim {
            presence.give_up(self.segment.word(*word));
        }
    }

    fn own(&self) -> usize {
        self.start + self.role
    }

    fn other(&self) -> usize {
        self.start + PRODUCER + CONSUMER - self.role
    }

    fn head(&self) -> &AtomicU64 {
        self.segment.word(self.start + 896)
    }

    fn tail(&self) -> &AtomicU64 {
        self.segment.word(self.start + 512)
    }

    fn payload(&self, start: u64) -> usize {
        self.start + 4096 + (start % self.capacity) as usize + 8
    }

    fn ring(&self, position: u64) -> &AtomicU64 {
        self.segment.word(self.payload(position) - 8)
    }

    fn to_end(&self, position: u64) -> u64 {
        self.capacity - position % self.capacity
    }

    fn recover(&self) -> u64 {
        let head = self.head().load(Ordering::Acquire);
        let tail = self.tail().load(Ordering::Acquire);
        if self.role == CONSUMER {
            return head;
        }
        let mut at = if tail.wrapping_sub(head) as i64 > 0 { tail } else { head };
        while let Some((_, _, _, end)) = self.look(at) {
            at = end;
        }
        self.tail().store(at, Ordering::Release);
        at
    }

    /// Position, tag, length and end of the record at `at`.
    fn look(&self, at: u64) -> Option<(u64, u32, u64, u64)> {
        let (mut start, mut word) = (at, self.ring(at).load(Ordering::Acquire));
        if word == 0 {
            return None;
        }
        if word == 0xFFFF_FFFF {
            assert!(self.to_end(at) < self.capacity / 2);
            start = at.wrapping_add(self.to_end(at));
            word = self.ring(start).load(Ordering::Relaxed);
        }
        let length = u64::from((word as u32).wrapping_sub(1));
        assert!(length <= self.capacity / 2 - 8 && size(length) <= self.to_end(start));
        Some((start, (word >> 32) as u32, length, start.wrapping_add(size(length))))
    }

    /// Receives and releases the next message, with its position and its tag.
    fn receive(&mut self) -> Option<(u64, u32, Vec<u8>)> {
        let (start, tag, length, end) = self.look(self.at)?;
        let message = self.segment.bytes(self.payload(start), length as usize);
        self.at = end;
        self.head().store(end, Ordering::Release);
        self.wake();
        Some((start, tag, message))
    }

    /// Sends messages as one batch if there is space for them.
    fn send(&mut self, messages: &[(u32, &[u8])]) -> bool {
        let head = self.head().load(Ordering::Acquire);
        let (tail, mut end, mut commit) = (self.at, self.at, None);
        for (tag, message) in messages {
            let (at, need) = (end, size(message.len() as u64));
            let start = if need > self.to_end(at) { at.wrapping_add(self.to_end(at)) } else { at };
            end = start.wrapping_add(need);
            if end.wrapping_add(8).wrapping_sub(head) > self.capacity {
                return false;
            }
            self.announce(end.wrapping_add(8));
            self.segment.write(self.payload(start), message);
            let mut word = u64::from(*tag) << 32 | (message.len() as u64 + 1);
            if start != at {
                self.ring(start).store(word, Ordering::Relaxed);
                word = 0xFFFF_FFFF;
            }
            match commit {
                None => commit = Some(word),
                Some(_) => self.ring(at).store(word, Ordering::Relaxed),
            }
        }
        self.ring(end).store(0, Ordering::Relaxed);
        self.ring(tail).store(commit.expect("there is a message"), Ordering::Release);
        self.tail().store(end, Ordering::Release);
        self.at = end;
        self.wake();
        true
    }

    /// Announces writes before `end`.
    fn announce(&self, end: u64) {
        let reach = self.segment.word(self.start + 768 + 48);
        if end.wrapping_sub(reach.load(Ordering::Relaxed)) as i64 > 0 {
            reach.store(end, Ordering::Release);
            fence(Ordering::Release);
        }
    }

    /// Wakes the other side if it sleeps. Returns whether the kernel found it asleep.
    fn wake(&mut self) -> bool {
        fence(Ordering::SeqCst);
        let ticket = self.segment.half(self.other() + 12).load(Ordering::Relaxed);
        if ticket % 2 == 0 || ticket == self.answered {
            return false;
        }
        if self.role == CONSUMER {
            fence(Ordering::Acquire);
            let wanted = self.segment.word(self.other() + 16).load(Ordering::Relaxed);
            if (self.at.wrapping_sub(wanted) as i64) < 0 {
                return false;
            }
        }
        self.answered = ticket;
        self.ring_the_bell() > 0
    }

    fn wake_anyway(&self) {
        fence(Ordering::SeqCst);
        if self.segment.half(self.other() + 12).load(Ordering::Relaxed) % 2 == 1 {
            self.ring_the_bell();
        }
    }

    fn ring_the_bell(&self) -> i64 {
        let bell = self.segment.half(self.own() + 8);
        bell.store(bell.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        // SAFETY: the word is mapped; FUTEX_WAKE does not write to it.
        unsafe { libc::syscall(libc::SYS_futex, bell.as_ptr(), libc::FUTEX_WAKE, i32::MAX) }
    }

    /// Waits until the other side announces a sleep that was not answered yet.
    fn wait_for_sleeper(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ticket = self.segment.half(self.other() + 12).load(Ordering::Relaxed);
            if ticket % 2 == 1 && ticket != self.answered {
                return;
            }
            assert!(Instant::now() < deadline, "the other side does not go to sleep");
            thread::yield_now();
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Byte by byte.

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal")).collect()
}

/// `size` bytes, zero except for these parts.
fn image(size: usize, parts: &[(usize, Vec<u8>)]) -> Vec<u8> {
    let mut image = vec![0; size];
    for (offset, bytes) in parts {
        image[*offset..*offset + bytes.len()].copy_from_slice(bytes);
    }
    image
}

/// Cache lines full of `filler` except for their first words, which a producer zeroes ahead of use.
fn cleared_lines(filler: u8, size: usize) -> Vec<u8> {
    (0..size).map(|at| if at % 64 < 8 { 0 } else { filler }).collect()
}

fn assert_same(found: &[u8], expected: &[u8]) {
    assert_eq!(found.len(), expected.len());
    for (row, (found, expected)) in found.chunks(16).zip(expected.chunks(16)).enumerate() {
        assert_eq!(found, expected, "16 bytes at offset {}", row * 16);
    }
}

/// Checks the values that differ in every segment. Replaces the four of the identity by those given, and clears those of the
/// two sides.
fn replace_what_varies(
    image: &mut [u8],
    name: &Name,
    segment_id: u64,
    created_ns: u64,
    boot_id: &[u8],
    set: i32,
) {
    let word = |at: usize| u64::from_le_bytes(image[at..at + 8].try_into().unwrap());
    assert_ne!(word(48), 0, "the segment's random number");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let age = Duration::from_nanos(now.as_nanos() as u64 - word(64));
    assert!(age < PATIENCE, "created {age:?} ago");
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = image[72..88].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digits, text.trim().replace('-', ""), "the boot id");
    assert_eq!(i32::from_le_bytes(image[88..92].try_into().unwrap()), name.set(), "the set");
    for side in [768, 1152] {
        assert_eq!(word(side + 32) as u32, std::process::id(), "the PID of the claimant");
        let namespace = std::fs::metadata("/proc/self/ns/pid").unwrap();
        assert_eq!(word(side + 32) >> 32, std::os::unix::fs::MetadataExt::ino(&namespace), "its namespace");
    }
    for side in [PRODUCER, CONSUMER] {
        assert!(Presence::stands(word(side + 40)), "the claim");
    }
    for at in [680, 800, 1064, 1184] {
        image[at..at + 8].fill(0);
    }
    image[48..56].copy_from_slice(&segment_id.to_le_bytes());
    image[64..72].copy_from_slice(&created_ns.to_le_bytes());
    image[72..88].copy_from_slice(boot_id);
    image[88..92].copy_from_slice(&set.to_le_bytes());
}

#[test]
#[cfg(target_endian = "little")]
fn a_segment_matches_the_document_byte_by_byte() {
    let name = Name::new("golden");
    let options = Options::new().capacity(4096).schema(0xFEED_FACE_CAFE_BEEF).mode(0o640);
    let pipe = options
        .wake_mode(WakeMode::Fence)
        .remove_on_close(true)
        .remove_leftover(true)
        .create(&name.0)
        .unwrap();
    let segment = Segment::attach(name.segment()).enter(name.set());
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());

    producer.send(Tagged(0xA1B2_C3D4, b"x")).unwrap();
    producer.send(b"").unwrap();
    producer.send(Tagged(1, &[b'B'; 2000])).unwrap();
    (0..2).for_each(|_| consumer.recv().unwrap().release());
    producer.send(Tagged(2, &[b'C'; 2040])).unwrap();
    consumer.recv().unwrap().release();
    // 16 bytes are left before the end of the ring: too few for the reservation, enough for the committed bytes.
    let mut reservation = producer.reserve(56).unwrap();
    reservation.write(0, &[0xFF; 56]);
    reservation.tag(0x7FFF_FFFF);
    reservation.commit_len(3);
    let mut batch = producer.batch();
    batch.push(Tagged(5, b"batch")).unwrap();
    batch.push(Tagged(6, b"")).unwrap();
    batch.commit();
    producer.count_dropped(0x0102);

    let mut found = segment.bytes(0, segment.size);
    replace_what_varies(&mut found, &name, 0, 0, &[0; 16], 0);
    let expected = image(
        4096 + 4096,
        &[
            (0, hex("73 68 6d 70 69 70 65 00")),                // ready
            (8, hex("02 00 00 00  04 03 02 01")),               // layout version, byte order
            (16, hex("00 10 00 00 00 00 00 00")),               // header size
            (24, hex("00 10 00 00 00 00 00 00")),               // capacity
            (40, hex("03 00 00 00 00 00 00 00")), // hints: dropped messages are counted, writes are announced
            (56, hex("ef be fe ca ce fa ed fe")), // schema
            (92, hex("02 00 00 00  03 00 00 00  16 00 00 00")), // wake mode, flags, length of the name
            (104, name.0.clone().into_bytes()),
            (512, hex("28 10 00 00 00 00 00 00")),   // tail: 4136
            (640, hex("05 00 00 00 00 00 00 00")),   // producer: epoch 1, open
            (648, hex("00 00 00 00  02 00 00 00")),  // event count, waiter epoch
            (768, hex("07 00 00 00 00 00 00 00")),   // messages
            (776, hex("d1 0f 00 00 00 00 00 00")),   // bytes: 4049
            (808, hex("02 01 00 00 00 00 00 00")),   // dropped
            (816, hex("50 14 00 00 00 00 00 00")),   // reach: 5200
            (896, hex("f0 07 00 00 00 00 00 00")),   // head: 2032
            (1024, hex("05 00 00 00 00 00 00 00")),  // consumer: epoch 1, open
            (1032, hex("00 00 00 00  02 00 00 00")), // event count, waiter epoch
            (1152, hex("03 00 00 00 00 00 00 00")),  // messages
            (1160, hex("d1 07 00 00 00 00 00 00")),  // bytes: 2001
            // The ring, on its second lap. First the record after the wrap, and the batch.
            (4096, hex("04 00 00 00 ff ff ff 7f  ff ff ff 00 00 00 00 00")),
            (4112, hex("06 00 00 00 05 00 00 00  62 61 74 63 68 00 00 00")),
            (4128, hex("01 00 00 00 06 00 00 00")),
            (4136, hex("00 00 00 00 00 00 00 00")), // the word at the tail
            (4144, vec![0xFF; 16]),                 // reserved and not committed
            // The rest of the released message of 2000 times B, with some lines zeroed ahead of use.
            (4160, cleared_lines(b'B', 512)),
            (4672, vec![b'B'; 1456]),
            // The message of 2040 times C, and the wrap after it.
            (6128, hex("f9 07 00 00 02 00 00 00")),
            (6136, vec![b'C'; 2040]),
            (8176, hex("ff ff ff ff 00 00 00 00")),
        ],
    );
    assert_same(&found, &expected);

    consumer.close().unwrap();
    producer.close().unwrap();
    assert_eq!([640, 1024].map(|at| segment.word(at).load(Ordering::Acquire)), [6, 6], "closed");

    pipe.producer().unwrap().abort(0x89ab_cdef).unwrap();
    pipe.consumer().unwrap().abort(PANICKED).unwrap();
    assert_eq!([640, 1024].map(|at| segment.word(at).load(Ordering::Acquire)), [11, 11], "epoch 2, aborted");
    let codes = [640, 1024].map(|at| segment.word(at + 32).load(Ordering::Relaxed));
    assert_eq!(codes, [0x89ab_cdef, 0xffff_ffff]);
}

/// The dump in the document, with its `*` written out.
#[cfg(target_endian = "little")]
fn documented_example() -> Vec<u8> {
    let document = include_str!("../LAYOUT.md");
    let (_, dump) = document.split_once("```text\n0000 ").expect("there is a dump");
    let (dump, _) = dump.split_once("```").expect("it ends");
    let mut image = vec![];
    let mut skipped = false;
    for line in format!("0000 {dump}").lines() {
        if line == "*" {
            skipped = true;
            continue;
        }
        let (offset, bytes) = line.split_once(' ').unwrap_or((line, ""));
        let offset = usize::from_str_radix(offset, 16).expect("an offset");
        while image.len() < offset {
            assert!(skipped, "nothing is missing before {offset:#x}");
            image.extend_from_within(image.len() - 16..);
        }
        skipped = false;
        image.extend(hex(bytes.split_once('|').map_or(bytes, |(bytes, _)| bytes)));
    }
    image
}

#[test]
#[cfg(target_endian = "little")]
fn the_example_in_the_document_matches_a_segment() {
    let name = Name::new("example");
    let options = Options::new().capacity(4096).schema(0x1122_3344_5566_7788).wake_mode(WakeMode::Fence);
    let pipe = options.create(&name.0).unwrap();
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    producer.send(Tagged(1, &[b'A'; 2040])).unwrap();
    producer.send(Tagged(2, &[b'B'; 2000])).unwrap();
    consumer.recv().unwrap().release();
    let last = producer.send(Tagged(3, b"around the end of the ring, at the start")).unwrap();
    assert_eq!(last.get(), 4096);

    let segment = Segment::attach(name.segment()).enter(name.set());
    let mut found = segment.bytes(0, segment.size);
    let boot_id = hex("00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff");
    replace_what_varies(&mut found, &name, 0x0123_4567_89ab_cdef, 1_700_000_000_000_000_000, &boot_id, 7);
    assert_eq!((found[100], &found[104..126]), (22, name.0.as_bytes()));
    found[100] = 5;
    found[104..126].copy_from_slice(b"ticks\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    if std::env::var_os("SHMPIPE_PRINT_EXAMPLE").is_some() {
        print_dump(&found);
    }
    assert_same(&documented_example(), &found);
}

/// Prints the dump for the document.
#[cfg(target_endian = "little")]
fn print_dump(image: &[u8]) {
    let mut last: &[u8] = &[];
    let mut skipping = false;
    for (row, bytes) in image.chunks(16).enumerate() {
        if bytes == last {
            if !std::mem::replace(&mut skipping, true) {
                println!("*");
            }
            continue;
        }
        (last, skipping) = (bytes, false);
        let digits: String = bytes.iter().map(|byte| format!(" {byte:02x}")).collect();
        let printable = |byte: u8| if byte.is_ascii_graphic() || byte == b' ' { byte as char } else { '.' };
        let text: String = bytes.iter().map(|&byte| printable(byte)).collect();
        println!("{:04x} {} {}  |{text}|", row * 16, &digits[..24], &digits[24..]);
    }
    println!("{:04x}", image.len());
}

// ---------------------------------------------------------------------------------------------------------------------
// A reader, a producer and a creator written from the document.

fn small(name: &Name) -> Pipe {
    Options::new().capacity(4096).wake_mode(WakeMode::Fence).create(&name.0).unwrap()
}

/// The tag and bytes of message number `i`: every length up to the longest, and every kind of wrap.
fn message(i: u32) -> (u32, Vec<u8>) {
    let length = i.wrapping_mul(2_654_435_761) >> 8;
    let length = if i % 3 == 0 { length % 2041 } else { length % 70 };
    (i ^ 0xF000_0000, (0..length).map(|k| (k ^ i) as u8).collect())
}

#[test]
fn a_reader_written_from_the_document_receives_every_message() {
    const MESSAGES: u32 = 20_000;
    let name = Name::new("reader");
    let pipe = small(&name);
    let mut reader = ByHand::claim(&name, CONSUMER);
    let mut producer = pipe.producer().unwrap();
    let sending = thread::spawn(move || {
        let mut positions = vec![];
        let mut i = 0;
        while i < MESSAGES {
            // Every seventh message starts a batch of three.
            if i % 7 == 0 && i + 3 <= MESSAGES {
                let mut batch = producer.batch();
                for k in i..i + 3 {
                    let (tag, bytes) = message(k % 5);
                    positions.push(batch.push(Tagged(tag, &bytes)).unwrap().get());
                }
                batch.commit();
                i += 3;
            } else {
                let (tag, bytes) = message(i);
                positions.push(producer.send(Tagged(tag, &bytes)).unwrap().get());
                i += 1;
            }
        }
        producer.close().unwrap();
        positions
    });
    let deadline = Instant::now() + PATIENCE;
    let mut received = vec![];
    let mut i = 0;
    let mut batched = 0;
    while i < MESSAGES {
        let Some((position, tag, bytes)) = reader.receive() else {
            assert!(Instant::now() < deadline, "stuck at message {i}");
            thread::yield_now();
            continue;
        };
        if batched == 0 && i % 7 == 0 && i + 3 <= MESSAGES {
            batched = 3;
        }
        let expected = if batched > 0 { message(i % 5) } else { message(i) };
        batched = u32::saturating_sub(batched, 1);
        assert_eq!((tag, &bytes), (expected.0, &expected.1), "message {i}");
        received.push(position);
        i += 1;
    }
    assert_eq!(sending.join().unwrap(), received);
    assert_eq!(reader.receive(), None);
    assert_eq!(reader.segment.word(640).load(Ordering::Acquire), 6, "the producer has closed");
    assert_eq!(reader.segment.word(768).load(Ordering::Relaxed), MESSAGES.into());
    reader.close();
}

#[test]
fn a_producer_written_from_the_document_is_received() {
    let name = Name::new("writer");
    let pipe = small(&name);
    let mut consumer = pipe.consumer().unwrap();
    let mut next = 0;
    // Three producers, each of which continues where its predecessor stopped.
    for epoch in 1..=3u64 {
        let mut producer = ByHand::claim(&name, PRODUCER);
        assert_eq!(producer.segment.word(640).load(Ordering::Relaxed), epoch * 4 + 1);
        let mut sent = next;
        for _ in 0..2000 {
            let batch: Vec<_> = (sent..sent + sent % 4 + 1).map(|i| message(i % 3)).collect();
            let parts: Vec<_> = batch.iter().map(|(tag, bytes)| (*tag, bytes.as_slice())).collect();
            if producer.send(&parts) {
                sent += parts.len() as u32;
            } else {
                receive_some(&mut consumer, &mut next, sent);
            }
        }
        receive_some(&mut consumer, &mut next, sent);
        assert_eq!(consumer.try_recv().unwrap_err(), TryRecvError::Empty);
        producer.send(&[(9, b"the last one")]);
        producer.close();
        assert_eq!(consumer.recv().unwrap().to_vec(), b"the last one");
        assert_eq!(consumer.recv().unwrap_err(), RecvError::Closed);
    }
    let mut producer = ByHand::claim(&name, PRODUCER);
    producer.send(&[(9, b"the last one")]);
    producer.abort(7);
    assert_eq!(consumer.recv().unwrap().to_vec(), b"the last one");
    assert_eq!(consumer.recv().unwrap_err(), RecvError::PeerAborted { code: 7 });
    // The epoch that was reported.
    let segment = Segment::attach(name.segment()).enter(name.set());
    assert_eq!(segment.word(1024 + 24).load(Ordering::Relaxed), 4);
}

fn receive_some(consumer: &mut Consumer, next: &mut u32, until: u32) {
    while *next < until {
        let received = consumer.try_recv().unwrap();
        let (tag, bytes) = message(*next % 3);
        assert_eq!((received.tag(), received.to_vec()), (tag, bytes), "message {next}");
        *next += 1;
    }
}

#[test]
fn a_side_written_from_the_document_talks_to_the_other() {
    for (side, ours) in [('A', DuplexSide::B), ('B', DuplexSide::A)] {
        let name = Name::new("side");
        let options = Options::new().duplex(true).capacity(4096).wake_mode(WakeMode::Fence);
        let pipe = options.create(&name.0).unwrap();
        let mut duplex = pipe.duplex_as(ours).unwrap();
        let segment = Segment::attach(name.segment()).enter(name.set());
        assert_eq!(segment.bytes(4096 + 4096, 512), [0; 512], "of the second header");
        for epoch in 1..=3u64 {
            let (mut sender, mut receiver) = ByHand::claim_side(&name, side);
            // Every length, and every kind of wrap, in both directions.
            for number in 0..2000 {
                let (tag, bytes) = message(number);
                assert!(sender.send(&[(tag, &bytes)]));
                let received = duplex.recv().unwrap();
                assert_eq!((received.tag(), received.to_vec()), (tag, bytes));
                drop(received);
                let (tag, bytes) = message(number + 7);
                let position = duplex.send(Tagged(tag, &bytes)).unwrap().get();
                assert_eq!(receiver.receive(), Some((position, tag, bytes)));
            }
            // The library's side has one epoch, the one by hand another, each in both directions.
            for (start, by_hand) in [(sender.start, PRODUCER), (receiver.start, CONSUMER)] {
                let words = [by_hand, PRODUCER + CONSUMER - by_hand];
                let states = words.map(|line| segment.word(start + line).load(Ordering::Relaxed));
                assert_eq!(states, [epoch * 4 + 1, 5]);
            }
            // The claims and the holders are in the first header.
            let claims = [PRODUCER, CONSUMER].map(|line| segment.word(line + 40).load(Ordering::Relaxed));
            assert!(claims.iter().all(|&claim| claim != 0));
            for offset in [PRODUCER + 40, CONSUMER + 40, 768 + 32, 1152 + 32] {
                assert_eq!(segment.word(8192 + offset).load(Ordering::Relaxed), 0, "{offset}");
            }
            if epoch < 3 {
                sender.close();
                receiver.close();
                assert_eq!(duplex.recv().unwrap_err(), RecvError::Closed);
                assert_eq!(duplex.send(b"too late"), Err(SendError::Closed));
            } else {
                // An abort in both directions is reported once, and recorded in both.
                let (receives, sends) = (sender.start, receiver.start);
                sender.abort(7);
                receiver.abort(7);
                assert_eq!(duplex.recv().unwrap_err(), RecvError::PeerAborted { code: 7 });
                assert_eq!(duplex.send(b"for a successor").map(drop), Ok(()));
                let reported = [receives + CONSUMER + 24, sends + PRODUCER + 24];
                assert_eq!(reported.map(|at| segment.word(at).load(Ordering::Relaxed)), [3, 3]);
            }
        }
    }
}

#[test]
fn a_producer_written_from_the_document_wakes_a_consumer() {
    let name = Name::new("awaken");
    let pipe = small(&name);
    let mut producer = ByHand::claim(&name, PRODUCER);
    let mut consumer = pipe.consumer().unwrap();
    let receiving = thread::spawn(move || {
        let mut received = 0u32;
        while consumer.recv().is_ok() {
            received += 1;
        }
        received
    });
    // An announced sleep may not have begun. Only the kernel knows.
    let (mut sent, mut woken) = (0, false);
    while !woken {
        assert!(sent < 100, "no wake-up found it asleep");
        producer.wait_for_sleeper();
        let answered = producer.answered;
        assert!(producer.send(&[(0, b"wake up")]));
        assert_ne!(producer.answered, answered);
        sent += 1;
        // `send` answers the first announcement. The next one is answered by `wake`, after enough time to fall asleep.
        producer.wait_for_sleeper();
        thread::sleep(Duration::from_millis(1));
        woken = producer.wake();
    }
    producer.close();
    assert_eq!(receiving.join().unwrap(), sent);
}

#[test]
fn a_reader_written_from_the_document_wakes_a_producer_at_its_threshold() {
    let name = Name::new("space");
    let pipe = small(&name);
    let mut reader = ByHand::claim(&name, CONSUMER);
    let mut producer = pipe.producer().unwrap();
    for _ in 0..4 {
        producer.send(&[1; 1000]).unwrap();
    }
    // This message goes after a wrap, and fits once two records of 1008 bytes are released.
    let sending = thread::spawn(move || producer.send(&[2; 1500]).unwrap().get());
    reader.wait_for_sleeper();
    let wanted = reader.segment.word(640 + 16).load(Ordering::Relaxed);
    assert_eq!(wanted, 4096 + 1512 + 8 - 4096);
    assert_eq!(reader.receive().map(|(position, ..)| position), Some(0));
    assert_eq!(reader.answered, 0, "the threshold is not reached yet");
    assert_eq!(reader.receive().map(|(position, ..)| position), Some(1008));
    assert_ne!(reader.answered, 0);
    assert_eq!(sending.join().unwrap(), 4096);
    reader.close();
}

#[test]
fn a_pipe_created_from_the_document_is_opened() {
    let name = Name::new("making");
    let capacity = 8192;
    // SAFETY: the calls take no pointers.
    let set = unsafe { libc::semget(name.key(), 8, libc::IPC_CREAT | libc::IPC_EXCL | 0o600) };
    assert!(take(set, INIT));
    set_value(set, STAGE, STAGE_MAKING);
    let flags = libc::IPC_CREAT | libc::IPC_EXCL | 0o600;
    // SAFETY: the call takes no pointers.
    let id = unsafe { libc::shmget(name.key(), 4096 + capacity as usize, flags) };
    let segment = Segment::attach(id);
    segment.word(0).store(MAKING, Ordering::Relaxed);
    for (offset, value) in [(8, 2), (12, 0x0102_0304), (88, set as u32), (92, 2), (96, 0), (100, 22)] {
        segment.half(offset).store(value, Ordering::Relaxed);
    }
    for (offset, value) in [(16, 4096), (24, capacity), (48, 4711), (56, 42), (64, 1_000_000_000)] {
        segment.word(offset).store(value, Ordering::Relaxed);
    }
    segment.write(104, name.0.as_bytes());
    for (i, number) in (4..7).enumerate() {
        set_value(set, number, id >> (15 * i) & 0x7FFF);
    }
    segment.word(0).store(READY, Ordering::Release);
    set_value(set, STAGE, STAGE_MADE);
    let _segment = segment.enter(set);
    give_back(set, INIT);

    assert!(matches!(
        Pipe::open(&name.0),
        Err(SetupError::Incompatible(Mismatch::Schema { found: 42, expected: 0 }))
    ));
    let pipe = Options::new().schema(42).open_or_create(&name.0).unwrap();
    assert!(!pipe.created());
    assert_eq!((pipe.capacity(), pipe.id().get(), pipe.wake_mode()), (capacity, 4711, WakeMode::Fence));
    let (mut producer, mut consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    producer.send(b"made by hand").unwrap();
    assert_eq!(consumer.recv().unwrap().to_vec(), b"made by hand");
    let seen = shmpipe::inspect(&name.0).unwrap();
    assert_eq!(
        (seen.name.as_deref(), seen.created),
        (Some(name.0.as_str()), std::time::UNIX_EPOCH + Duration::from_secs(1))
    );
}

// ---------------------------------------------------------------------------------------------------------------------
// The roles.

#[test]
fn the_words_that_claim_the_roles_match_the_document() {
    let name = Name::new("roles");
    let pipe = small(&name);
    let segment = Segment::attach(name.segment());
    let words = || [PRODUCER, CONSUMER].map(|side| segment.word(side + 40).load(Ordering::Acquire));
    assert_eq!(words(), [0, 0]);
    let (producer, consumer) = (pipe.producer().unwrap(), pipe.consumer().unwrap());
    let [first, second] = words();
    assert!(Presence::stands(first) && Presence::stands(second) && first != second);
    assert_eq!(first & ((1 << 45) - 1), second & ((1 << 45) - 1), "a process has one presence");
    drop(consumer);
    assert_eq!(words(), [first, 0]);
    drop(producer);
    assert_eq!(words(), [0, 0]);

    // A role claimed without the library is held, until the memory of its holder is gone.
    let presence = Presence::create(name.set());
    assert!(presence.claim(segment.word(CONSUMER + 40)));
    let us = std::process::id();
    assert!(matches!(pipe.consumer(), Err(SetupError::RoleTaken { pid: Some(pid), .. }) if pid == us));
    let [_, void] = words();
    drop(presence);
    assert_eq!(words(), [0, void]);
    drop(pipe.consumer().unwrap());
    // A word that names no presence claims nothing.
    for void in [void, 1 << 45, u64::MAX, (segment.size as u64) << 32 | name.segment() as u64] {
        segment.word(PRODUCER + 40).store(void, Ordering::Release);
        drop(pipe.producer().unwrap());
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The semaphores.

#[test]
fn the_semaphores_match_the_document_at_each_stage() {
    let name = Name::new("stages");
    let pipe = small(&name);
    let id = name.segment() as u32;
    let [low, middle, high] = [0, 15, 30].map(|shift| (id >> shift & 0x7FFF) as u16);
    let values = |attachments| [0, 0, 0, 0x5A52, low, middle, high, attachments];

    assert_eq!(name.values(), values(1));
    let other = Pipe::open(&name.0).unwrap();
    assert_eq!(name.values(), values(2));
    let producer = other.producer().unwrap();
    drop(other);
    assert_eq!(name.values(), values(2), "an endpoint keeps its pipe open");
    producer.close().unwrap();
    assert_eq!(name.values(), values(1));

    // INIT held without the library blocks every opener.
    assert!(take(name.set(), INIT));
    let address = name.0.clone();
    let opening = thread::spawn(move || Pipe::open(&address).unwrap());
    thread::sleep(Duration::from_millis(50));
    assert!(!opening.is_finished());
    assert_eq!(name.values()[usize::from(ATTACHMENTS)], 1);
    give_back(name.set(), INIT);
    let other = opening.join().unwrap();
    assert_eq!(name.values(), values(2));
    drop((other, pipe));
    assert_eq!(name.values(), values(0));

    shmpipe::unlink(&name.0).unwrap();
    assert_eq!((name.segment(), name.set()), (-1, -1));
}

#[test]
fn an_incomplete_pipe_is_recognised_by_its_stage_and_creator() {
    let name = Name::new("halfway");
    for ready in [0, MAKING] {
        // The state that a creator leaves that dies between the steps 4 and 5, or 5 and 6. The creator is this process.
        // SAFETY: the calls take no pointers.
        unsafe {
            libc::semget(name.key(), 8, libc::IPC_CREAT | 0o600);
            libc::shmget(name.key(), 4096 + 4096, libc::IPC_CREAT | libc::IPC_EXCL | 0o600);
        }
        Segment::attach(name.segment()).word(0).store(ready, Ordering::Relaxed);
        set_value(name.set(), STAGE, STAGE_MAKING);
        assert!(
            matches!(Pipe::open(&name.0), Err(SetupError::Damaged(Damage::Incomplete { pid, .. })) if pid == std::process::id())
        );
        let pipe = Pipe::open_or_create(&name.0).unwrap();
        assert!(pipe.created());
        assert_eq!(i32::from(name.values()[usize::from(STAGE)]), STAGE_MADE);
        drop(pipe);
        shmpipe::unlink(&name.0).unwrap();
    }
    // The same zeros beside an empty set belong to another program.
    // SAFETY: the calls take no pointers.
    unsafe {
        libc::semget(name.key(), 8, libc::IPC_CREAT | 0o600);
        libc::shmget(name.key(), 4096 + 4096, libc::IPC_CREAT | libc::IPC_EXCL | 0o600);
    }
    assert!(matches!(Pipe::open_or_create(&name.0), Err(SetupError::Foreign { .. })));
    assert_eq!(Segment::attach(name.segment()).bytes(0, 8192), vec![0; 8192]);
}
