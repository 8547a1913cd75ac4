use super::*;
use crate::error::{Damage, SetupError, Shortage};
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
        // SAFETY: the name is a C string; the call returns a new descriptor or -1.
        let file = unsafe { libc::memfd_create(c"pages".as_ptr(), flags) };
        if file == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, and nothing else owns it.
        let file = unsafe { OwnedFd::from_raw_fd(file) };
        // SAFETY: no pointers.
        if unsafe { libc::ftruncate(file.as_raw_fd(), len as i64) } == -1 {
            return Err(io::Error::last_os_error());
        }
        Shared::of(file, len)
    }

    fn of(file: OwnedFd, len: u64) -> io::Result<Shared> {
        let range = ReservedRange::reserve(len, 2 * MIB)?;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED);
        let at = range.base().as_ptr().cast();
        // SAFETY: the mapping replaces the reserved range, which nothing uses.
        if unsafe { libc::mmap(at, len as usize, protection, flags, file.as_raw_fd(), 0) } == libc::MAP_FAILED
        {
            return Err(io::Error::last_os_error());
        }
        let base = range.base();
        range.mapped_over();
        Ok(Shared { base, len, file })
    }

    fn remap(&self) -> Shared {
        Shared::of(self.file.try_clone().unwrap(), self.len).unwrap()
    }

    fn truncate(&self, len: u64) {
        // SAFETY: no pointers.
        assert_eq!(unsafe { libc::ftruncate(self.file.as_raw_fd(), len as i64) }, 0);
    }

    fn word(&self, offset: u64) -> &AtomicU64 {
        assert!(offset < self.len && offset % 8 == 0);
        // SAFETY: within the mapping, aligned, and accessed only as atomics.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset as usize).cast()) }
    }

    /// The first words of all pages.
    fn words(&self) -> impl Iterator<Item = &AtomicU64> {
        (0..self.len).step_by(page_size() as usize).map(|offset| self.word(offset))
    }

    fn populate(&self) -> Result<(), SetupError> {
        // SAFETY: mapped for writing, and accessed only as atomics.
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

// SAFETY: it gives access only to atomics in the mapping.
unsafe impl Sync for Shared {}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and consists of whole huge pages if it is from the pool.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len as usize) };
    }
}

/// Minor page faults of this thread.
fn faults() -> i64 {
    // SAFETY: the struct consists of integers, for which all zeros is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to one rusage.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) }, 0);
    usage.ru_minflt
}

/// Page faults that a store to every page causes.
fn faults_of_stores(memory: &Shared) -> i64 {
    let before = faults();
    memory.words().for_each(|word| word.store(2, Ordering::Relaxed));
    faults() - before
}

#[test]
fn populating_prevents_faults_and_keeps_the_contents() {
    type Way = fn(&Shared);
    for (name, way) in [("populate", (|memory| memory.populate().unwrap()) as Way), ("touch", Shared::touch)]
    {
        let untouched = Shared::new(MIB, 0).unwrap();
        assert!(faults_of_stores(&untouched) > 0, "otherwise this test shows nothing");
        let memory = Shared::new(MIB, 0).unwrap();
        memory.word(8 * 4096).store(77, Ordering::Relaxed);
        way(&memory);
        assert_eq!(memory.word(8 * 4096).load(Ordering::Relaxed), 77, "{name}");
        assert_eq!(memory.state().resident, MIB, "{name}");
        assert_eq!(faults_of_stores(&memory), 0, "{name}");
    }
}

#[test]
fn populating_loses_no_concurrent_write() {
    const TIMES: u64 = 100_000;
    for way in [|memory: &Shared| memory.populate().unwrap(), Shared::touch] {
        // One page, so that both threads write the same word.
        let memory = Shared::new(page_size(), 0).unwrap();
        let other = memory.remap();
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
fn memory_without_backing_is_an_error_and_no_signal() {
    let memory = Shared::new(MIB, 0).unwrap();
    memory.truncate(MIB / 2);
    assert!(matches!(memory.populate(), Err(SetupError::Damaged(Damage::Unbacked { bytes: MIB }))));
    assert!(matches!(lock(memory.base, MIB), Err(SetupError::Damaged(Damage::Unbacked { bytes: MIB }))));
}

#[test]
fn resident_counts_pages_that_only_another_mapping_touched() {
    // More pages than one call of mincore queries.
    let memory = Shared::new(40 * MIB, 0).unwrap();
    let page = page_size();
    assert_eq!(memory.state(), Memory { page_size: page, resident: 0, locked: false, huge: 0 });
    for number in [0, 4095, 4096, 40 * MIB / page - 1] {
        memory.word(number * page).store(1, Ordering::Relaxed);
    }
    assert_eq!(
        memory.remap().state(),
        Memory { page_size: page, resident: 4 * page, locked: false, huge: 0 }
    );
}

/// Runs a test again in its own process, prepared by `prepare`. Returns true there and false here.
fn in_own_process(test: &str, prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static) -> bool {
    const IN_OWN_PROCESS: &str = "SHMPIPE_TEST_PROCESS";
    if env::var(IN_OWN_PROCESS).as_deref() == Ok(test) {
        return true;
    }
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", &format!("{}::{test}", module_path!().split_once("::").unwrap().1)])
        .env(IN_OWN_PROCESS, test);
    // SAFETY: the callers' closures only make system calls.
    unsafe { command.pre_exec(prepare) };
    let output = command.output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "{stdout}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

/// Limits what this process may lock, even if it is root's.
fn limit_locking(bytes: u64) -> io::Result<()> {
    const CAP_IPC_LOCK: libc::c_ulong = 14;
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: the pointer is to one rlimit, and prctl takes none. Dropping the capability fails in a process without privileges,
    // which does not have it.
    unsafe {
        libc::prctl(libc::PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0);
        match libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Asserts that RLIMIT_MEMLOCK was exceeded, and that the text names the limit and its remedies.
fn assert_memlock_exceeded(result: Result<(), SetupError>, expected: (u64, u64)) {
    let error = result.unwrap_err();
    let SetupError::Limit(Shortage::System { name: "RLIMIT_MEMLOCK", value, requested, raise_in }) = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!((*value, *requested), expected, "{error}");
    let text = error.to_string();
    let parts =
        ["RLIMIT_MEMLOCK", &value.to_string(), &requested.to_string(), raise_in, "ulimit -l", "LimitMEMLOCK"];
    assert!(parts.iter().all(|part| text.contains(part)), "{text}");
}

#[test]
fn locking_faults_in_and_stays_until_it_is_unmapped() {
    if in_own_process("locking_faults_in_and_stays_until_it_is_unmapped", || limit_locking(MIB)) {
        let memory = Shared::new(MIB, 0).unwrap();
        lock(memory.base, MIB).unwrap();
        assert_eq!((memory.state().locked, memory.state().resident), (true, MIB));
        drop(memory);
        assert_eq!(locked_by_process(), 0);
    }
}

#[test]
fn locking_beyond_the_limit_names_it() {
    const LIMIT: u64 = 256 << 10;
    if in_own_process("locking_beyond_the_limit_names_it", || limit_locking(LIMIT)) {
        let first = Shared::new(LIMIT / 2, 0).unwrap();
        lock(first.base, first.len).unwrap();
        let second = Shared::new(MIB, 0).unwrap();
        assert_memlock_exceeded(lock(second.base, MIB), (LIMIT, LIMIT / 2 + MIB));
        assert!(!second.state().locked);
        second.truncate(4096);
        // Within the limit, but the second page has no backing.
        assert!(matches!(lock(second.base, LIMIT / 2), Err(SetupError::Damaged(Damage::Unbacked { .. }))));
        assert_eq!(locked_by_process(), LIMIT / 2, "a failed call leaves nothing locked");
    }
}

#[test]
fn locking_without_any_right_to_names_the_limit() {
    if in_own_process("locking_without_any_right_to_names_the_limit", || limit_locking(0)) {
        let memory = Shared::new(4096, 0).unwrap();
        assert_memlock_exceeded(lock(memory.base, 4096), (0, 4096));
        let segment = Segment::new(4096, 0).unwrap();
        assert_memlock_exceeded(lock_segment(segment.0, 4096), (0, 4096));
    }
}

#[test]
fn a_mapping_that_one_end_locks_is_locked() {
    let memory = Shared::new(MIB, 0).unwrap();
    let unlocked = memory.remap();
    let own_pid = std::process::id();
    lock(memory.base, MIB).unwrap_or_else(|error| panic!("every default allows a mebibyte: {error}"));
    assert!(!unlocked.state().locked, "the mapping itself is not locked");
    assert!(state(unlocked.base, MIB, &[own_pid]).unwrap().locked);
    let other = Shared::new(MIB, 0).unwrap();
    assert!(!state(other.base, MIB, &[own_pid]).unwrap().locked, "another object");
    assert!(!state(unlocked.base, MIB, &[u32::MAX]).unwrap().locked, "no such process");
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
    if in_own_process("locking_segments_counts_all_that_are_locked", || limit_locking(LIMIT)) {
        // Segments that other tests lock count too: use a separate user where possible.
        // SAFETY: no pointers.
        unsafe { libc::setuid(1_000_000 + std::process::id()) };
        let (first, second) = (Segment::new(LIMIT / 2, 0).unwrap(), Segment::new(MIB, 0).unwrap());
        lock_segment(first.0, LIMIT / 2).unwrap();
        assert!(first.is_locked() && !second.is_locked());
        assert_memlock_exceeded(lock_segment(second.0, MIB), (LIMIT, segments_locked_by_user() + MIB));
        assert!(segments_locked_by_user() >= LIMIT / 2);
        let gone = second.0;
        drop(second);
        let source = lock_segment(gone, MIB).unwrap_err();
        assert!(matches!(source, SetupError::Os { call: "shmctl(SHM_LOCK)", .. }), "{source:?}");
    }
}

#[test]
fn requesting_more_huge_pages_than_the_pool_has_names_it() {
    let Some(size) = huge_page_size() else {
        return eprintln!(
            "requesting_more_huge_pages_than_the_pool_has_names_it: skipped, this kernel has no pool"
        );
    };
    // More than any machine has, so that a concurrent change of the pool does not matter.
    let (pages, max) = (1 << 24, Pool::now().unwrap().max);
    let source = Shared::new(pages * size, libc::MFD_HUGETLB).map(|_| ()).unwrap_err();
    let error = no_huge_pages("mmap", source, pages * size);
    let SetupError::Limit(Shortage::System { name: "nr_hugepages", value, requested, raise_in }) = error
    else {
        panic!("{error:?}")
    };
    assert!(value.abs_diff(max) < 1 << 16 && requested >= pages, "{value} {requested}");
    assert_eq!(raise_in, "/proc/sys/vm/nr_hugepages");
    // Other errors are not the pool's.
    let other = no_huge_pages("mmap", io::Error::from_raw_os_error(libc::EACCES), pages * size);
    assert!(matches!(other, SetupError::Os { call: "mmap", .. }), "{other:?}");
}

#[test]
fn segments_of_huge_pages_need_the_group() {
    const NOBODY: u32 = 65_534;
    let prepare = || {
        // SAFETY: the only pointer is null, with a length of 0.
        unsafe {
            libc::setgroups(0, ptr::null());
            libc::setgid(NOBODY);
        }
        limit_locking(MIB)
    };
    if in_own_process("segments_of_huge_pages_need_the_group", prepare) {
        // SAFETY: the call has no arguments and cannot fail.
        if unsafe { libc::getgid() } == 0 || huge_page_size().is_none() {
            return;
        }
        let Err(source) = Segment::new(MIB, libc::SHM_HUGETLB) else { return };
        let error = no_huge_pages("shmget", source, MIB);
        let SetupError::Limit(Shortage::HugePages { obstacle, remedy }) = &error else { panic!("{error:?}") };
        assert!(obstacle.contains("hugetlb_shm_group") && remedy.contains("CAP_IPC_LOCK"), "{error}");
    }
}

/// Memory from the pool, after adding pages for it. Retries, since another process may take the pages first.
fn from_pool(len: u64, pages: u64) -> io::Result<(Shared, HugePages)> {
    let attempt = || {
        let added = HugePages::add(pages)?;
        Ok((Shared::new(len, libc::MFD_HUGETLB)?, added))
    };
    (0..10).find_map(|_| attempt().ok()).map_or_else(attempt, Ok)
}

#[test]
fn pages_from_the_pool_are_huge_and_stay_in_memory() {
    let name = "pages_from_the_pool_are_huge_and_stay_in_memory";
    let Some(size) = huge_page_size() else { return eprintln!("{name}: skipped, this kernel has no pool") };
    let (memory, _pages) = match from_pool(2 * size, 2) {
        Ok(memory) => memory,
        Err(error) => return eprintln!("{name}: skipped, {error}"),
    };
    memory.populate().unwrap();
    let expected = Memory { page_size: size, resident: 2 * size, locked: true, huge: 2 * size };
    assert_eq!(memory.state(), expected);
    assert_eq!(faults_of_stores(&memory), 0);
    assert_eq!(memory.remap().state(), expected, "although it has touched no page");
}

#[test]
fn small_pages_are_collapsed_to_huge_ones() {
    let name = "small_pages_are_collapsed_to_huge_ones";
    for populated in [false, true] {
        // Two huge pages and a remainder.
        let memory = Shared::new(5 * MIB, 0).unwrap();
        let other = memory.remap();
        memory.word(3 * MIB).store(77, Ordering::Relaxed);
        if populated {
            memory.populate().unwrap();
        }
        match memory.make_huge() {
            Ok(()) => {}
            Err(error @ SetupError::Limit(Shortage::HugePages { .. })) => {
                assert!(
                    advise(memory.base, memory.len, MADV_COLLAPSE).is_err(),
                    "collapsing works, but: {error}"
                );
                return eprintln!("{name}: skipped, {error}");
            }
            Err(error) => panic!("{error:?}"),
        }
        let expected = Memory { page_size: page_size(), resident: 5 * MIB, locked: false, huge: 4 * MIB };
        assert_eq!(memory.state(), expected);
        assert_eq!((memory.word(3 * MIB).load(Ordering::Relaxed), faults_of_stores(&memory)), (77, 0));
        other.make_huge().unwrap();
        assert_eq!(other.state().huge, 4 * MIB);
        assert_eq!(faults_of_stores(&memory), 0, "the other mapping keeps its huge pages");
    }
}

#[test]
fn a_range_too_small_for_huge_pages_is_refused() {
    let Some(size) = thp_size() else { return };
    let error = Shared::new(size - 4096, 0).unwrap().make_huge().unwrap_err();
    let SetupError::Limit(Shortage::HugePages { obstacle, .. }) = &error else { panic!("{error:?}") };
    assert!(obstacle.contains(&size.to_string()), "{error}");
}

#[test]
fn huge_pages_disabled_for_the_process_are_named_as_the_obstacle() {
    let prepare = || {
        // SAFETY: no pointers. The setting survives exec.
        match unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    if thp_size().is_some()
        && in_own_process("huge_pages_disabled_for_the_process_are_named_as_the_obstacle", prepare)
    {
        let error = Shared::new(4 * MIB, 0).unwrap().make_huge().unwrap_err();
        let SetupError::Limit(Shortage::HugePages { obstacle, .. }) = &error else { panic!("{error:?}") };
        assert!(obstacle.contains("PR_SET_THP_DISABLE"), "{error}");
    }
}

#[test]
fn a_reserved_range_is_aligned_and_maps_nothing_beside_it() {
    if in_own_process("a_reserved_range_is_aligned_and_maps_nothing_beside_it", || Ok(())) {
        let mapped = || number_after("/proc/self/status", "VmSize:").unwrap() << 10;
        for align in [4096, 2 * MIB, 64 * MIB] {
            let before = mapped();
            let range = ReservedRange::reserve(3 * 4096, align).unwrap();
            assert_eq!(range.base().as_ptr() as u64 % align, 0);
            assert_eq!(mapped(), before + 3 * 4096, "{align}");
            drop(range);
            assert_eq!(mapped(), before, "{align}");
        }
    }
}

#[test]
fn smaps_is_parsed_as_the_kernel_writes_it() {
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
    let row = |start, end, object: &str, page_size, huge, locked, from_pool| SmapsRow {
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
    assert_eq!(selected("always within_size advise [never] deny force"), Some("never"));
    assert_eq!(selected("?"), None);
}
