//! The pages behind a segment: prefaulting, locking, huge pages, and their current state.
//!
//! Everything here works on an address range, whichever call mapped it. A request that the kernel refuses is an error that names
//! the limit in the way.

mod cgroup;

use crate::error::{Damage, SetupError, Shortage, failed, os};
use crate::options::Options;
use crate::protocol::layout::HEADER;
use crate::protocol::sync::Ordering;
use crate::segment::Mapping;
use crate::sys::limits::Resource;
use crate::sys::sysvipc::segments;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, BufRead, BufReader};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

/// Since Linux 6.1 (linux/mman.h); libc has it for glibc only.
const MADV_COLLAPSE: libc::c_int = 25;

/// The memory of a pipe at one moment.
///
/// ```
/// let pipe = shmpipe::Options::new().prefault(true).create("memfd")?;
/// let snapshot = shmpipe::inspect(pipe.address())?;
/// if let Some(memory) = snapshot.memory {
///     println!("{} of {} bytes are resident", memory.resident, snapshot.size);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memory {
    /// Bytes of a page; of a huge page if the segment was created from the huge page pool.
    pub page_size: u64,
    /// Bytes in memory. The rest was never touched, is swapped out, or is only in its file. For a process that may not write to
    /// the file, the kernel reports all of it as resident.
    pub resident: u64,
    /// Whether all of it stays in memory: because it is locked, by this process or by an end that is visible from here, or
    /// because it lies in the huge page pool, which is never swapped out.
    pub locked: bool,
    /// Bytes that this process, or an end that is visible from here, maps through huge pages.
    pub huge: u64,
}

/// The alignment of a mapping for huge pages; `None` if the options do not request them.
pub(crate) fn alignment(options: &Options) -> Option<u64> {
    options.huge_pages.then(|| thp_size().max(huge_page_size())).flatten()
}

/// The alignment of a mapping of a file of this length on tmpfs, if it consists of whole huge pages. So does one that was created on
/// huge pages, and only an aligned mapping of it gets them, without further cost.
pub(crate) fn alignment_of(length: u64) -> Option<u64> {
    thp_size().filter(|&size| length > 0 && length % size == 0)
}

/// Applies the options to a mapping: moves it to huge pages unless it is on huge pages already, and locks it unless the segment
/// itself is locked.
///
/// # Errors
/// As for [`make_huge`] and [`lock`].
pub(crate) fn apply_options(
    mapping: &Mapping,
    options: &Options,
    on_tmpfs: bool,
    locked: bool,
) -> Result<(), SetupError> {
    let (base, len) = (mapping.base(), mapping.size());
    if options.huge_pages {
        // SAFETY: the segment is mapped for writing, and both ends access it by atomics or single instructions.
        unsafe { make_huge(base, len, on_tmpfs)? };
    }
    if options.lock_memory && !locked { lock(base, len) } else { Ok(()) }
}

/// Faults a segment in if the options request it; if they leave it open, when `eager` and it takes at most half of the available
/// memory.
///
/// # Errors
/// As for [`populate`].
pub(crate) fn prefault(mapping: &Mapping, options: &Options, eager: bool) -> Result<(), SetupError> {
    let fits = || available().is_some_and(|bytes| mapping.size() <= bytes / 2);
    if options.prefault.unwrap_or_else(|| eager && fits()) {
        // SAFETY: as in `apply_options`.
        unsafe { populate(mapping.base(), mapping.size()) }
    } else {
        Ok(())
    }
}

/// Faults in all pages for writing, so that no first access costs a page fault later. The contents do not change, and other
/// threads and processes may use the pages meanwhile.
///
/// The effect lasts while the pages stay in the page tables: memory that is not locked loses it when it is swapped out, and a
/// file on disk when a page is written back, since the kernel then write-protects the page again.
///
/// # Errors
/// [`Damage::Unbacked`] where an access would raise SIGBUS: the file is shorter than the mapping, or its file system or its pool
/// of huge pages is full.
///
/// # Safety
/// `len` bytes at `base`, which is page-aligned, are mapped for writing. Other threads access them only as atomics do.
pub(crate) unsafe fn populate(base: NonNull<u8>, len: u64) -> Result<(), SetupError> {
    match advise(base, len, libc::MADV_POPULATE_WRITE) {
        Ok(()) => Ok(()),
        Err(error) => match error.raw_os_error() {
            // Linux before 5.14.
            Some(libc::EINVAL) => {
                // SAFETY: the caller upholds the contract of `populate`, which is that of `touch`.
                unsafe { touch(base, len) };
                Ok(())
            }
            Some(libc::EFAULT) => Err(SetupError::Damaged(Damage::Unbacked { bytes: len })),
            _ => Err(os("madvise(MADV_POPULATE_WRITE)", error)),
        },
    }
}

/// Checks that there is memory behind the header of a segment that another process created. If the pool had no huge page left for
/// it, the first access would raise SIGBUS. Linux before 5.14 cannot tell.
///
/// # Errors
/// [`Damage::Unbacked`].
pub(crate) fn check_header_backed(mapping: &Mapping) -> Result<(), SetupError> {
    match advise(mapping.base(), HEADER, libc::MADV_POPULATE_READ) {
        Err(error) if error.raw_os_error() == Some(libc::EFAULT) => {
            Err(SetupError::Damaged(Damage::Unbacked { bytes: mapping.size() }))
        }
        _ => Ok(()),
    }
}

/// Atomically rewrites the first word of each page with its current value, so that no concurrent write is lost. A page without
/// backing raises SIGBUS here; its backing was allocated before.
///
/// # Safety
/// As for [`populate`].
unsafe fn touch(base: NonNull<u8>, len: u64) {
    for offset in (0..len as usize).step_by(page_size() as usize) {
        // SAFETY: within the mapping, aligned, and accessed by others only as atomics do.
        let word = unsafe { AtomicU64::from_ptr(base.as_ptr().add(offset).cast()) };
        // Not `fetch_or(0)`, which compilers for x86-64 turn into a load. Other writers may win every attempt; but then the page
        // is in memory, and almost always in our page tables, so a few attempts are enough.
        for _ in 0..16 {
            // Relaxed, both: the exchange publishes nothing.
            let value = word.load(Ordering::Relaxed);
            let same = black_box(value);
            if word.compare_exchange(value, same, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                break;
            }
        }
    }
}

/// Locks a mapping in memory and faults in its missing pages. The lock lasts while this process has it mapped; a forked child
/// does not inherit it.
///
/// # Errors
/// [`SetupError::Limit`] with `RLIMIT_MEMLOCK`, unless the process has CAP_IPC_LOCK.
pub(crate) fn lock(base: NonNull<u8>, len: u64) -> Result<(), SetupError> {
    let requested = locked_by_process() + len;
    // SAFETY: locking has no effect on the contents of memory; a range that is not mapped is an error.
    if unsafe { libc::mlock(base.as_ptr().cast(), len as usize) } == 0 {
        return Ok(());
    }
    let source = io::Error::last_os_error();
    // A failed call leaves a part locked, which counts towards the limit.
    // SAFETY: as above.
    unsafe { libc::munlock(base.as_ptr().cast(), len as usize) };
    let limit = Resource::LockedMemory.limit();
    match source.raw_os_error() {
        Some(libc::EPERM) => Err(memlock_exceeded(limit, requested)),
        Some(libc::ENOMEM | libc::EAGAIN) if requested > limit => Err(memlock_exceeded(limit, requested)),
        // Within the limit: a page could not be faulted in.
        Some(libc::ENOMEM) => Err(SetupError::Damaged(Damage::Unbacked { bytes: len })),
        _ => Err(os("mlock", source)),
    }
}

/// Locks a System V segment for as long as it exists, whichever processes attach it. Missing pages are not faulted in, but stay
/// in memory once they are. Only the owner and the creator may lock it. On a segment of huge pages it does nothing, and they do
/// not need it.
///
/// # Errors
/// [`SetupError::Limit`] with `RLIMIT_MEMLOCK`, which counts all segments that this user has locked, unless the process has
/// CAP_IPC_LOCK; [`SetupError::Os`] with EPERM if we are neither owner nor creator.
pub(crate) fn lock_segment(shm_id: i32, len: u64) -> Result<(), SetupError> {
    // SAFETY: SHM_LOCK takes no pointer.
    if unsafe { libc::shmctl(shm_id, libc::SHM_LOCK, ptr::null_mut()) } == 0 {
        return Ok(());
    }
    let source = io::Error::last_os_error();
    let limit = Resource::LockedMemory.limit();
    match source.raw_os_error() {
        Some(libc::EPERM) if limit == 0 => Err(memlock_exceeded(limit, len)),
        Some(libc::ENOMEM) => Err(memlock_exceeded(limit, segments_locked_by_user() + len)),
        _ => Err(os("shmctl(SHM_LOCK)", source)),
    }
}

fn memlock_exceeded(value: u64, requested: u64) -> SetupError {
    const RAISE_IN: &str =
        "the shell (ulimit -l), in /etc/security/limits.conf (memlock) or in the unit (LimitMEMLOCK)";
    SetupError::Limit(Shortage::System { name: "RLIMIT_MEMLOCK", value, requested, raise_in: RAISE_IN })
}

/// Bytes that this process has locked with mlock.
fn locked_by_process() -> u64 {
    number_after("/proc/self/status", "VmLck:").unwrap_or(0) << 10
}

/// Bytes of the segments in this IPC namespace that this user has locked.
fn segments_locked_by_user() -> u64 {
    // SAFETY: the call has no arguments and cannot fail.
    let uid = unsafe { libc::geteuid() };
    let rows = segments().unwrap_or_default();
    rows.iter()
        .filter(|row| row.locked && [row.permissions.uid, row.creator].contains(&uid))
        .map(|row| row.size)
        .sum()
}

/// Bytes of available memory, as limited by the machine and by our control groups.
pub(crate) fn available() -> Option<u64> {
    let machine = number_after("/proc/meminfo", "MemAvailable:").map(|kib| kib << 10);
    [machine, cgroup::available()].into_iter().flatten().min()
}

/// The page size of the pool that `SHM_HUGETLB` and `MFD_HUGETLB` take pages from; `None` if the kernel has no such pool.
///
/// Objects in the pool are mapped, truncated, advised (`MADV_DONTFORK`) and unmapped in whole huge pages only. With any other
/// length those calls fail with EINVAL.
pub(crate) fn huge_page_size() -> Option<u64> {
    number_after("/proc/meminfo", "Hugepagesize:").map(|kib| kib << 10)
}

/// The error of `call`, which could not get `bytes` bytes of huge pages from the pool.
pub(crate) fn no_huge_pages(call: &'static str, source: io::Error, bytes: u64) -> SetupError {
    let Some(size) = huge_page_size() else {
        return SetupError::Limit(Shortage::HugePages {
            obstacle: "this kernel has no pool of huge pages".to_owned(),
            remedy: "use one with CONFIG_HUGETLBFS",
        });
    };
    match source.raw_os_error() {
        Some(libc::ENOMEM | libc::ENOSPC) => match Pool::now() {
            Some(pool) if pool.used + bytes.div_ceil(size) > pool.max => {
                SetupError::Limit(Shortage::System {
                    name: "nr_hugepages",
                    value: pool.max,
                    requested: pool.used + bytes.div_ceil(size),
                    raise_in: "/proc/sys/vm/nr_hugepages",
                })
            }
            _ => os(call, source),
        },
        // From shmget only.
        Some(libc::EPERM) => {
            const GROUP: &str = "/proc/sys/vm/hugetlb_shm_group";
            let group = fs::read_to_string(GROUP).unwrap_or_default();
            SetupError::Limit(Shortage::HugePages {
                obstacle: format!("{GROUP} is {}, and this process is not in that group", group.trim()),
                remedy: "write a group of this process there, or grant it CAP_IPC_LOCK",
            })
        }
        _ => os(call, source),
    }
}

/// The pool of huge pages, in pages.
struct Pool {
    /// Its maximum, including surplus pages that the kernel may add.
    max: u64,
    /// Pages in use or reserved.
    used: u64,
}

impl Pool {
    fn now() -> Option<Pool> {
        let count = |name| number_after("/proc/meminfo", name);
        let (total, surplus) = (count("HugePages_Total:")?, count("HugePages_Surp:")?);
        let (free, reserved) = (count("HugePages_Free:")?, count("HugePages_Rsvd:")?);
        let overcommit =
            fs::read_to_string("/proc/sys/vm/nr_overcommit_hugepages").ok()?.trim().parse::<u64>().ok()?;
        Some(Pool {
            max: (total - surplus).saturating_add(overcommit),
            used: (total + reserved).saturating_sub(free),
        })
    }
}

/// Moves a mapping outside the pool to transparent huge pages: the part that consists of whole, aligned huge pages. Faults all of
/// it in.
///
/// Where the kernel does not use huge pages by itself (`shmem_enabled` is `never` on most systems), it collapses the small pages
/// at once (`MADV_COLLAPSE`). That clears the page table entries of every other process that has them mapped, which must fault
/// them in again; so it is best done by the creator. Pages that are huge already are left alone. On tmpfs it is about ten times
/// as fast before anything is allocated: the kernel then allocates huge pages instead of copying small ones.
///
/// # Errors
/// [`Shortage::HugePages`] if some of it is not on huge pages in the end.
///
/// # Safety
/// As for [`populate`].
pub(crate) unsafe fn make_huge(base: NonNull<u8>, len: u64, on_tmpfs: bool) -> Result<(), SetupError> {
    let refused = |obstacle: String, remedy| Err(SetupError::Limit(Shortage::HugePages { obstacle, remedy }));
    let Some(size) = thp_size() else {
        let obstacle = "this kernel has no transparent huge pages".to_owned();
        return refused(obstacle, "use one with CONFIG_TRANSPARENT_HUGEPAGE");
    };
    let (start, end) =
        ((base.as_ptr() as u64).next_multiple_of(size), (base.as_ptr() as u64 + len) / size * size);
    if start >= end {
        let obstacle = format!("the segment of {len} bytes contains no aligned block of {size} bytes");
        return refused(obstacle, "create a larger pipe");
    }
    let before = state(base, len, &[]).map_err(failed("reading /proc/self/smaps"))?;
    if before.huge >= end - start {
        return Ok(());
    }
    advise(base, len, libc::MADV_HUGEPAGE).map_err(failed("madvise(MADV_HUGEPAGE)"))?;
    // One small page per huge page: the kernel fills the rest with zeros, but does not collapse an empty range.
    for block in (start..end).step_by(size as usize) {
        let block = NonNull::new(block as *mut u8).expect("the range starts at or above its base");
        // SAFETY: the caller upholds the contract of `populate` for the whole mapping.
        unsafe { populate(block, page_size())? };
    }
    let whole = NonNull::new(start as *mut u8).expect("the range starts at or above its base");
    let mut collapsed: io::Result<()> = Ok(());
    for _ in 0..8 {
        collapsed = advise(whole, end - start, MADV_COLLAPSE);
        match &collapsed {
            // Another process is using one of the pages, or the kernel is moving it.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY)) => {}
            _ => break,
        }
    }
    // SAFETY: the caller upholds the contract of `populate`.
    unsafe { populate(base, len)? };
    // The result of the call does not matter if the pages are huge: those of a file may be huge without it.
    let now = state(base, len, &[]).map_err(failed("reading /proc/self/smaps"))?;
    if now.huge >= end - start {
        return Ok(());
    }
    const SHMEM: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    let setting = fs::read_to_string(SHMEM).ok().and_then(|text| selected(&text).map(str::to_owned));
    match (collapsed.err().and_then(|error| error.raw_os_error()), setting.as_deref()) {
        // SAFETY: the call takes no pointers.
        _ if unsafe { libc::prctl(libc::PR_GET_THP_DISABLE, 0, 0, 0, 0) } > 0 => refused(
            "they are disabled for this process (PR_SET_THP_DISABLE)".to_owned(),
            "start it with them enabled",
        ),
        (Some(libc::ENOMEM), _) => refused(
            format!("free memory has no contiguous blocks of {size} bytes"),
            "write 1 to /proc/sys/vm/compact_memory, or free memory",
        ),
        (_, Some(setting @ ("never" | "deny"))) if on_tmpfs => {
            refused(format!("{SHMEM} is {setting}"), "write advise to it")
        }
        (_, _) if !on_tmpfs => refused(
            "this file system does not support them for this file".to_owned(),
            "put it on a tmpfs, such as /dev/shm",
        ),
        (_, _) => refused(
            "the kernel did not collapse the small pages".to_owned(),
            "retry, or write 1 to /proc/sys/vm/compact_memory",
        ),
    }
}

/// The size of a transparent huge page. A segment that consists only of huge pages has a multiple of it as its size and as its
/// address.
pub(crate) fn thp_size() -> Option<u64> {
    fs::read_to_string("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size").ok()?.trim().parse().ok()
}

/// The selected value in a sysfs file such as `always [madvise] never`.
fn selected(text: &str) -> Option<&str> {
    Some(text.split_once('[')?.1.split_once(']')?.0)
}

/// A reserved, aligned address range, to be replaced by a mapping (`MAP_FIXED`, `SHM_REMAP`). Without it the kernel aligns only
/// to small pages.
#[derive(Debug)]
pub(crate) struct ReservedRange {
    base: NonNull<u8>,
    len: usize,
}

impl ReservedRange {
    /// `align` is a power of two and a multiple of the page size.
    pub(crate) fn reserve(len: u64, align: u64) -> io::Result<ReservedRange> {
        let (len, align) = (len.next_multiple_of(page_size()) as usize, align as usize);
        let all = len.checked_add(align).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: an anonymous mapping at an address that the kernel chooses, over nothing that exists.
        let start = unsafe { libc::mmap(ptr::null_mut(), all, libc::PROT_NONE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let before = (start as usize).next_multiple_of(align) - start as usize;
        // SAFETY: both parts that are unmapped lie in the new mapping, which nothing else refers to yet.
        let base = unsafe {
            let base = start.cast::<u8>().add(before);
            if before > 0 {
                libc::munmap(start, before);
            }
            libc::munmap(base.add(len).cast(), all - before - len);
            base
        };
        let base = NonNull::new(base).expect("the kernel maps nothing at 0 by itself");
        Ok(ReservedRange { base, len })
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Another mapping has replaced all of the range and owns it from now on.
    pub(crate) fn mapped_over(self) {
        std::mem::forget(self);
    }
}

impl Drop for ReservedRange {
    fn drop(&mut self) {
        // SAFETY: `reserve` mapped the range, and no mapping has replaced it, since `mapped_over` was not called.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// The state of the mapping of `len` bytes at `base`, here and in the `ends`: processes that may have mapped the same object.
/// Those that we may not inspect are ignored. Does not see whether a System V segment itself is locked; its mode tells.
///
/// Reads `/proc/PID/smaps` of each process, which takes longer the more it has mapped.
pub(crate) fn state(base: NonNull<u8>, len: u64, ends: &[u32]) -> io::Result<Memory> {
    let start = base.as_ptr() as u64;
    let ours: Vec<SmapsRow> =
        mappings("self")?.into_iter().filter(|row| row.start < start + len && row.end > start).collect();
    let Some(first) = ours.first() else { return Err(io::Error::from_raw_os_error(libc::ENOMEM)) };
    let from_pool = first.from_pool;
    let mut locked = from_pool || ours.iter().all(|row| row.locked);
    let mut huge = if from_pool { len } else { ours.iter().map(|row| row.huge).sum() };
    for pid in ends {
        let theirs = mappings(&pid.to_string()).unwrap_or_default();
        let theirs: Vec<&SmapsRow> = theirs.iter().filter(|row| row.object == first.object).collect();
        locked |= theirs.iter().any(|row| row.locked);
        huge = huge.max(theirs.iter().map(|row| row.huge).sum());
    }
    // For pages of the pool, mincore reports only those in our page tables. But all of them are reserved at creation.
    let resident = if from_pool { len } else { resident(base, len)? };
    Ok(Memory { page_size: first.page_size, resident, locked, huge })
}

/// Bytes of a mapping whose pages are in memory, whether or not they are in our page tables.
fn resident(base: NonNull<u8>, len: u64) -> io::Result<u64> {
    const PAGES_PER_CALL: usize = 4096;
    let page = page_size() as usize;
    let mut marks = [0_u8; PAGES_PER_CALL];
    let mut resident = 0;
    for offset in (0..len as usize).step_by(PAGES_PER_CALL * page) {
        let part = (len as usize - offset).min(PAGES_PER_CALL * page);
        // SAFETY: the kernel writes one byte per page of the part, PAGES_PER_CALL at most; it fails where nothing is mapped.
        let done =
            unsafe { libc::mincore(base.as_ptr().wrapping_add(offset).cast(), part, marks.as_mut_ptr()) };
        if done == -1 {
            return Err(io::Error::last_os_error());
        }
        let pages = marks[..part.div_ceil(page)].iter().filter(|mark| *mark & 1 == 1).count();
        resident += (pages * page) as u64;
    }
    Ok(resident.min(len))
}

/// One mapping of a process, from smaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct SmapsRow {
    start: u64,
    end: u64,
    /// Device, inode, and for a segment or memfd its kind: the two may have the same inode number at the same time.
    object: String,
    page_size: u64,
    /// Bytes mapped through transparent huge pages.
    huge: u64,
    locked: bool,
    /// Whether its pages come from the huge page pool.
    from_pool: bool,
}

fn mappings(process: &str) -> io::Result<Vec<SmapsRow>> {
    parse(BufReader::new(File::open(format!("/proc/{process}/smaps"))?))
}

fn parse(text: impl BufRead) -> io::Result<Vec<SmapsRow>> {
    let mut rows: Vec<SmapsRow> = Vec::new();
    // The name of a mapped file need not be UTF-8.
    for line in text.split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        let Some((name, rest)) = line.split_once(' ') else { continue };
        if let Some((start, end)) = name.split_once('-') {
            let number = |text| u64::from_str_radix(text, 16);
            if let (Ok(start), Ok(end)) = (number(start), number(end)) {
                let mut words = rest.split_whitespace().skip(2);
                let [device, inode] = [words.next(), words.next()].map(Option::unwrap_or_default);
                // Not the whole name: a file created without one shows different names in different processes.
                let name = words.next().unwrap_or_default();
                let kind = ["/SYSV", "/memfd:"].into_iter().find(|kind| name.starts_with(kind));
                let object = [device, inode, kind.unwrap_or_default()].join(" ");
                rows.push(SmapsRow { start, end, object, ..SmapsRow::default() });
                continue;
            }
        }
        let Some(row) = rows.last_mut() else { continue };
        let kib = || rest.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10;
        match name {
            "KernelPageSize:" => row.page_size = kib(),
            "ShmemPmdMapped:" | "FilePmdMapped:" => row.huge += kib(),
            "VmFlags:" => {
                row.locked = rest.split_whitespace().any(|flag| flag == "lo");
                row.from_pool = rest.split_whitespace().any(|flag| flag == "ht");
            }
            _ => {}
        }
    }
    Ok(rows)
}

fn advise(base: NonNull<u8>, len: u64, advice: libc::c_int) -> io::Result<()> {
    loop {
        // SAFETY: no advice used here changes the contents of memory or unmaps it; a range that is not mapped is an error.
        if unsafe { libc::madvise(base.as_ptr().cast(), len as usize, advice) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

pub(crate) fn page_size() -> u64 {
    // SAFETY: the call takes no pointers. The page size is always known.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 }
}

/// The number that follows `name` at the start of a line of a file.
fn number_after(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests;
