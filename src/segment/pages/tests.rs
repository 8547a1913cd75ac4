use super::*;
use shmpipe_measure::HugePages;
use std::env;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

const MIB: u64 = 1 << 20;

/// A mapped memfd, unmapped when dropped.
struct Shared {
    base: NonNull<u8>,
    len: u64,
    file: OwnedFd,
}

impl Shared {
    fn new(len: u64, flags: u32) -> io::Result<Shared> {
        // SAFETY: the name is a string; what is returned is ours, or -1.
        let file = unsafe { libc::memfd_create(c"pages".as_ptr(), flags) };
        if file == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, and nobody else's.
        let file = unsafe { OwnedFd::from_raw_fd(file) };
        // SAFETY: no pointers.
        if unsafe { libc::ftruncate(file.as_raw_fd(), len as i64) } == -1 {
            return Err(io::Error::last_os_error());
        }
        Shared::of(file, len)
    }

    fn of(file: OwnedFd, len: u64) -> io::Result<Shared> {
        let place = Place::reserve(len, 2 * MIB)?;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED);
        let at = place.base().as_ptr().cast();
        // SAFETY: over the range set aside, which nobody uses.
        if unsafe { libc::mmap(at, len as usize, protection, flags, file.as_raw_fd(), 0) } == libc::MAP_FAILED
        {
            return Err(io::Error::last_os_error());
        }
        let base = place.base();
        place.taken();
        Ok(Shared { base, len, file })
    }

    fn again(&self) -> Shared {
        Shared::of(self.file.try_clone().unwrap(), self.len).unwrap()
    }

    fn cut(&self, len: u64) {
        // SAFETY: no pointers.
        assert_eq!(unsafe { libc::ftruncate(self.file.as_raw_fd(), len as i64) }, 0);
    }

    fn word(&self, offset: u64) -> &AtomicU64 {
        assert!(offset < self.len && offset % 8 == 0);
        // SAFETY: within the mapping and aligned; used as atomics alone.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset as usize).cast()) }
    }

    /// The first words of all pages.
    fn words(&self) -> impl Iterator<Item = &AtomicU64> {
        (0..self.len).step_by(page_size() as usize).map(|offset| self.word(offset))
    }

    fn populate(&self) -> Result<(), SetupError> {
        // SAFETY: mapped for writing, and touched as atomics.
        unsafe { populate(self.base, self.len) }
    }

    fn touch(&self) {
        // SAFETY: as above.
        unsafe { touch(self.base, self.len) }
    }

    fn make_huge(&self) -> Result<(), SetupError> {
        // SAFETY: as above.
        unsafe { make_huge(self.base, self.len, true) }
    }

    fn state(&self) -> Memory {
        state(self.base, self.len, &[]).unwrap()
    }
}

// SAFETY: it hands out atomics of the mapping, and nothing else.
unsafe impl Sync for Shared {}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours; whole huge pages, where it is of such.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len as usize) };
    }
}

/// Page faults of this thread that needed no disk.
fn faults() -> i64 {
    // SAFETY: plain numbers, for which all zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to one rusage.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) }, 0);
    usage.ru_minflt
}

/// What storing to every page costs in faults.
fn faults_of_stores(memory: &Shared) -> i64 {
    let before = faults();
    memory.words().for_each(|word| word.store(2, Ordering::Relaxed));
    faults() - before
}

#[test]
fn nothing_faults_after_populating_and_nothing_changes() {
    type Way = fn(&Shared);
    for (name, way) in [("populate", (|memory| memory.populate().unwrap()) as Way), ("touch", Shared::touch)]
    {
        let untouched = Shared::new(MIB, 0).unwrap();
        assert!(faults_of_stores(&untouched) > 0, "or this test would show nothing");
        let memory = Shared::new(MIB, 0).unwrap();
        memory.word(8 * 4096).store(77, Ordering::Relaxed);
        way(&memory);
        assert_eq!(memory.word(8 * 4096).load(Ordering::Relaxed), 77, "{name}");
        assert_eq!(memory.state().resident, MIB, "{name}");
        assert_eq!(faults_of_stores(&memory), 0, "{name}");
    }
}

#[test]
fn populating_loses_nothing_that_others_write_meanwhile() {
    const TIMES: u64 = 100_000;
    for way in [|memory: &Shared| memory.populate().unwrap(), Shared::touch] {
        // One page, so that the two meet.
        let memory = Shared::new(page_size(), 0).unwrap();
        let other = memory.again();
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for _ in 0..TIMES {
                    other.word(0).fetch_add(1, Ordering::Relaxed);
                }
            });
            while !writer.is_finished() {
                way(&memory);
            }
        });
        assert_eq!(memory.word(0).load(Ordering::Relaxed), TIMES);
    }
}

#[test]
fn what_has_nothing_behind_it_is_an_error_and_no_signal() {
    let memory = Shared::new(MIB, 0).unwrap();
    memory.cut(MIB / 2);
    assert!(matches!(memory.populate(), Err(SetupError::Unbacked { bytes: MIB })));
    assert!(matches!(lock(memory.base, MIB), Err(SetupError::Unbacked { bytes: MIB })));
}

#[test]
fn resident_is_what_is_in_memory_whoever_mapped_it() {
    // More than the kernel is asked about at once.
    let memory = Shared::new(40 * MIB, 0).unwrap();
    let page = page_size();
    assert_eq!(memory.state(), Memory { page_size: page, resident: 0, locked: false, huge: 0 });
    for number in [0, 4095, 4096, 40 * MIB / page - 1] {
        memory.word(number * page).store(1, Ordering::Relaxed);
    }
    assert_eq!(
        memory.again().state(),
        Memory { page_size: page, resident: 4 * page, locked: false, huge: 0 }
    );
}

/// Runs a test once more, in a process of its own to which `prepare` is done, and gives true there.
fn apart(test: &str, prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static) -> bool {
    const APART: &str = "SHMPIPE_TEST_APART";
    if env::var(APART).as_deref() == Ok(test) {
        return true;
    }
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", &format!("{}::{test}", module_path!().split_once("::").unwrap().1)])
        .env(APART, test);
    // SAFETY: what the callers do there are system calls.
    unsafe { command.pre_exec(prepare) };
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

/// Lets this process lock that much and no more, root's or not.
fn limit_locking(bytes: u64) -> io::Result<()> {
    const CAP_IPC_LOCK: libc::c_ulong = 14;
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: the pointer is to one rlimit, and the other call takes none. It fails for who has no privilege to lose.
    unsafe {
        libc::prctl(libc::PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0);
        match libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Asserts that RLIMIT_MEMLOCK stood in the way, and that the text says all that helps.
fn beyond(result: Result<(), SetupError>, expected: (u64, u64)) {
    let error = result.unwrap_err();
    let SetupError::Limit { name: "RLIMIT_MEMLOCK", value, asked, place } = &error else {
        panic!("{error:?}")
    };
    assert_eq!((*value, *asked), expected, "{error}");
    let text = error.to_string();
    let parts =
        ["RLIMIT_MEMLOCK", &value.to_string(), &asked.to_string(), place, "ulimit -l", "LimitMEMLOCK"];
    assert!(parts.iter().all(|part| text.contains(part)), "{text}");
}

#[test]
fn locking_faults_in_and_stays_until_it_is_unmapped() {
    if apart("locking_faults_in_and_stays_until_it_is_unmapped", || limit_locking(MIB)) {
        let memory = Shared::new(MIB, 0).unwrap();
        lock(memory.base, MIB).unwrap();
        assert_eq!((memory.state().locked, memory.state().resident), (true, MIB));
        drop(memory);
        assert_eq!(locked_by_us(), 0);
    }
}

#[test]
fn locking_beyond_the_limit_names_it() {
    const LIMIT: u64 = 256 << 10;
    if apart("locking_beyond_the_limit_names_it", || limit_locking(LIMIT)) {
        let first = Shared::new(LIMIT / 2, 0).unwrap();
        lock(first.base, first.len).unwrap();
        let second = Shared::new(MIB, 0).unwrap();
        beyond(lock(second.base, MIB), (LIMIT, LIMIT / 2 + MIB));
        assert!(!second.state().locked);
        second.cut(4096);
        // Within the limit, and refused all the same: for what is missing.
        assert!(matches!(lock(second.base, LIMIT / 2), Err(SetupError::Unbacked { .. })));
        assert_eq!(locked_by_us(), LIMIT / 2, "nothing is left locked by what failed");
    }
}

#[test]
fn locking_without_any_right_to_names_the_limit() {
    if apart("locking_without_any_right_to_names_the_limit", || limit_locking(0)) {
        let memory = Shared::new(4096, 0).unwrap();
        beyond(lock(memory.base, 4096), (0, 4096));
        let segment = Segment::new(4096, 0).unwrap();
        beyond(lock_segment(segment.0, 4096), (0, 4096));
    }
}

#[test]
fn a_mapping_that_an_end_has_locked_is_locked() {
    let memory = Shared::new(MIB, 0).unwrap();
    let unlocked = memory.again();
    let us = std::process::id();
    lock(memory.base, MIB).unwrap_or_else(|error| panic!("a mebibyte is within every default: {error}"));
    assert!(!unlocked.state().locked, "by itself it is not");
    assert!(state(unlocked.base, MIB, &[us]).unwrap().locked);
    let other = Shared::new(MIB, 0).unwrap();
    assert!(!state(other.base, MIB, &[us]).unwrap().locked, "another object");
    assert!(!state(unlocked.base, MIB, &[u32::MAX]).unwrap().locked, "nobody there");
}

/// A System V segment, removed when dropped.
struct Segment(i32);

impl Segment {
    fn new(len: u64, flags: i32) -> io::Result<Segment> {
        // SAFETY: no pointers.
        match unsafe { libc::shmget(libc::IPC_PRIVATE, len as usize, libc::IPC_CREAT | 0o600 | flags) } {
            -1 => Err(io::Error::last_os_error()),
            id => Ok(Segment(id)),
        }
    }

    fn is_locked(&self) -> bool {
        segments().unwrap().iter().any(|row| row.id == self.0 && row.locked)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: IPC_RMID takes no pointer.
        unsafe { libc::shmctl(self.0, libc::IPC_RMID, ptr::null_mut()) };
    }
}

#[test]
fn locking_segments_counts_all_that_are_locked() {
    const LIMIT: u64 = 256 << 10;
    if apart("locking_segments_counts_all_that_are_locked", || limit_locking(LIMIT)) {
        // What other tests lock counts too: as a user of our own, where that is possible.
        // SAFETY: no pointers.
        unsafe { libc::setuid(1_000_000 + std::process::id()) };
        let (first, second) = (Segment::new(LIMIT / 2, 0).unwrap(), Segment::new(MIB, 0).unwrap());
        lock_segment(first.0, LIMIT / 2).unwrap();
        assert!(first.is_locked() && !second.is_locked());
        beyond(lock_segment(second.0, MIB), (LIMIT, segments_locked_by_us() + MIB));
        assert!(segments_locked_by_us() >= LIMIT / 2);
        let gone = second.0;
        drop(second);
        let source = lock_segment(gone, MIB).unwrap_err();
        assert!(matches!(source, SetupError::Os { call: "shmctl(SHM_LOCK)", .. }), "{source:?}");
    }
}

#[test]
fn more_huge_pages_than_the_pool_has_name_it() {
    let Some(size) = huge_page_size() else {
        return eprintln!("more_huge_pages_than_the_pool_has_name_it: left out, this kernel has no pool");
    };
    // More than any machine has, so that nobody who changes the pool meanwhile matters.
    let (pages, most) = (1 << 24, Pool::now().unwrap().most);
    let source = Shared::new(pages * size, libc::MFD_HUGETLB).map(|_| ()).unwrap_err();
    let error = no_huge_pages("mmap", source, pages * size);
    let SetupError::Limit { name: "nr_hugepages", value, asked, place } = error else { panic!("{error:?}") };
    assert!(value.abs_diff(most) < 1 << 16 && asked >= pages, "{value} {asked}");
    assert_eq!(place, "/proc/sys/vm/nr_hugepages");
    // Other errors are not the pool's.
    let other = no_huge_pages("mmap", io::Error::from_raw_os_error(libc::EACCES), pages * size);
    assert!(matches!(other, SetupError::Os { call: "mmap", .. }), "{other:?}");
}

#[test]
fn segments_of_huge_pages_need_the_group() {
    const NOBODY: u32 = 65_534;
    let prepare = || {
        // SAFETY: no pointers but the null one, which goes with the length 0.
        unsafe {
            libc::setgroups(0, ptr::null());
            libc::setgid(NOBODY);
        }
        limit_locking(MIB)
    };
    if apart("segments_of_huge_pages_need_the_group", prepare) {
        // SAFETY: the call has no arguments and cannot fail.
        if unsafe { libc::getgid() } == 0 || huge_page_size().is_none() {
            return;
        }
        let Err(source) = Segment::new(MIB, libc::SHM_HUGETLB) else { return };
        let error = no_huge_pages("shmget", source, MIB);
        let SetupError::NoHugePages { obstacle, remedy } = &error else { panic!("{error:?}") };
        assert!(obstacle.contains("hugetlb_shm_group") && remedy.contains("CAP_IPC_LOCK"), "{error}");
    }
}

/// Memory of the pool, to which pages are added for it; others, who take without adding, may be faster once in a while.
fn from_pool(len: u64, pages: u64) -> io::Result<(Shared, HugePages)> {
    let attempt = || {
        let added = HugePages::add(pages)?;
        Ok((Shared::new(len, libc::MFD_HUGETLB)?, added))
    };
    (0..10).find_map(|_| attempt().ok()).map_or_else(attempt, Ok)
}

#[test]
fn pages_from_the_pool_are_huge_and_stay() {
    let name = "pages_from_the_pool_are_huge_and_stay";
    let Some(size) = huge_page_size() else { return eprintln!("{name}: left out, this kernel has no pool") };
    let (memory, _pages) = match from_pool(2 * size, 2) {
        Ok(had) => had,
        Err(error) => return eprintln!("{name}: left out, {error}"),
    };
    memory.populate().unwrap();
    let expected = Memory { page_size: size, resident: 2 * size, locked: true, huge: 2 * size };
    assert_eq!(memory.state(), expected);
    assert_eq!(faults_of_stores(&memory), 0);
    assert_eq!(memory.again().state(), expected, "nothing of which it has touched");
}

#[test]
fn small_pages_are_put_together() {
    let name = "small_pages_are_put_together";
    for populated in [false, true] {
        // Two huge pages and a remainder.
        let memory = Shared::new(5 * MIB, 0).unwrap();
        let other = memory.again();
        memory.word(3 * MIB).store(77, Ordering::Relaxed);
        if populated {
            memory.populate().unwrap();
        }
        match memory.make_huge() {
            Ok(()) => {}
            Err(error @ SetupError::NoHugePages { .. }) => {
                assert!(advise(memory.base, memory.len, MADV_COLLAPSE).is_err(), "and yet: {error}");
                return eprintln!("{name}: left out, {error}");
            }
            Err(error) => panic!("{error:?}"),
        }
        let expected = Memory { page_size: page_size(), resident: 5 * MIB, locked: false, huge: 4 * MIB };
        assert_eq!(memory.state(), expected);
        assert_eq!((memory.word(3 * MIB).load(Ordering::Relaxed), faults_of_stores(&memory)), (77, 0));
        other.make_huge().unwrap();
        assert_eq!(other.state().huge, 4 * MIB);
        assert_eq!(faults_of_stores(&memory), 0, "who had them keeps them");
    }
}

#[test]
fn what_is_too_small_for_huge_pages_is_refused() {
    let Some(size) = collapsed_size() else { return };
    let error = Shared::new(size - 4096, 0).unwrap().make_huge().unwrap_err();
    let SetupError::NoHugePages { obstacle, .. } = &error else { panic!("{error:?}") };
    assert!(obstacle.contains(&size.to_string()), "{error}");
}

#[test]
fn a_process_that_has_switched_huge_pages_off_is_told_so() {
    let prepare = || {
        // SAFETY: no pointers. It is kept over exec.
        match unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    if collapsed_size().is_some() && apart("a_process_that_has_switched_huge_pages_off_is_told_so", prepare) {
        let error = Shared::new(4 * MIB, 0).unwrap().make_huge().unwrap_err();
        let SetupError::NoHugePages { obstacle, .. } = &error else { panic!("{error:?}") };
        assert!(obstacle.contains("PR_SET_THP_DISABLE"), "{error}");
    }
}

#[test]
fn a_place_is_aligned_and_keeps_nothing_beside_it() {
    if apart("a_place_is_aligned_and_keeps_nothing_beside_it", || Ok(())) {
        let mapped = || figure("/proc/self/status", "VmSize:").unwrap() << 10;
        for align in [4096, 2 * MIB, 64 * MIB] {
            let before = mapped();
            let place = Place::reserve(3 * 4096, align).unwrap();
            assert_eq!(place.base().as_ptr() as u64 % align, 0);
            assert_eq!(mapped(), before + 3 * 4096, "{align}");
            drop(place);
            assert_eq!(mapped(), before, "{align}");
        }
    }
}

#[test]
fn smaps_is_read_as_the_kernel_writes_it() {
    let text = "\
7f6c06a00000-7f6c06c00000 rw-s 00000000 00:11 36110393                   /SYSV00000000 (deleted)
Size:               2048 kB
KernelPageSize:     2048 kB
MMUPageSize:        2048 kB
ShmemPmdMapped:        0 kB
FilePmdMapped:         0 kB
VmFlags: rd wr sh mr mw me ms dc de ht
7fb684a00000-7fb684e00000 rw-s 00000000 00:01 465391                     /memfd:a b-c: (deleted)
KernelPageSize:        4 kB
ShmemPmdMapped:     4096 kB
FilePmdMapped:      2048 kB
VmFlags: rd wr sh mr mw me ms lo hg
7ffd1000-7ffd2000 rw-p 00000000 00:00 0
KernelPageSize:        4 kB
VmFlags: rd wr
";
    let row = |start, end, object: &str, page_size, huge, locked, from_pool| Mapped {
        start,
        end,
        object: object.to_owned(),
        page_size,
        huge,
        locked,
        from_pool,
    };
    assert_eq!(
        parse(text.as_bytes()).unwrap(),
        [
            row(0x7f6c_06a0_0000, 0x7f6c_06c0_0000, "00:11 36110393 /SYSV", 2 * MIB, 0, false, true),
            row(0x7fb6_84a0_0000, 0x7fb6_84e0_0000, "00:01 465391 /memfd:", 4096, 6 * MIB, true, false),
            row(0x7ffd_1000, 0x7ffd_2000, "00:00 0 ", 4096, 0, false, false),
        ]
    );
    assert_eq!(chosen("always within_size advise [never] deny force"), Some("never"));
    assert_eq!(chosen("?"), None);
}
