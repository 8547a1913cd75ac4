//! The pages behind a segment: faulted in before they are used, locked, huge; and what is in force.
//!
//! Everything here is asked of the kernel for an address range, whatever made the mapping. What a caller wants is done,
//! or refused with the limit that stands in the way.

mod groups;

use crate::error::SetupError;
use crate::options::Options;
use crate::os::sysvipc::segments;
use crate::protocol::layout::HEADER;
use crate::protocol::sync::{AtomicU64, Ordering};
use crate::segment::Mapping;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, BufRead, BufReader};
use std::ptr::{self, NonNull};

/// Since Linux 6.1 (linux/mman.h); libc has it for glibc only.
const MADV_COLLAPSE: libc::c_int = 25;

/// The memory of a pipe at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memory {
    /// Bytes of a page; those of a huge page if the segment was made of such.
    pub page_size: u64,
    /// Bytes that are in memory. The rest was never touched, is swapped out, or is in its file alone. Who may not write
    /// to a file is told that all of it is.
    pub resident: u64,
    /// Whether all of it stays in memory: it is locked, by this process or by an end that is visible from here, or made
    /// of huge pages, which are never swapped out.
    pub locked: bool,
    /// Bytes that this process, or an end that is visible from here, reaches through huge pages.
    pub huge: u64,
}

/// What a mapping that is to be put on huge pages has to be aligned to; nothing if they are not asked for.
pub(crate) fn alignment(options: &Options) -> Option<u64> {
    options.huge_pages.then(|| collapsed_size().max(huge_page_size())).flatten()
}

/// Does with a mapping as was asked for: huge pages, unless it is on such already, and a lock, unless the segment is locked
/// as such.
///
/// # Errors
/// As for [`make_huge`] and [`lock`].
pub(crate) fn furnish(
    mapping: &Mapping,
    options: &Options,
    on_tmpfs: bool,
    locked: bool,
) -> Result<(), SetupError> {
    let (base, len) = (mapping.base(), mapping.size());
    if options.huge_pages {
        // SAFETY: the segment is mapped for writing, and both ends use it by atomics or single instructions.
        unsafe { make_huge(base, len, on_tmpfs)? };
    }
    if options.lock_memory && !locked { lock(base, len) } else { Ok(()) }
}

/// Faults a segment in, if that is asked for, or if we are `eager` and it does not take much of the memory that is there.
///
/// # Errors
/// As for [`populate`].
pub(crate) fn prefault(mapping: &Mapping, options: &Options, eager: bool) -> Result<(), SetupError> {
    let modest = || available().is_some_and(|bytes| mapping.size() <= bytes / 2);
    if options.prefault.unwrap_or_else(|| eager && modest()) {
        // SAFETY: as in `furnish`.
        unsafe { populate(mapping.base(), mapping.size()) }
    } else {
        Ok(())
    }
}

/// Faults all pages in, for writing, so that no first touch costs anything later. What they hold stays as it is, and others
/// may use them meanwhile.
///
/// It lasts as long as the pages stay: on memory that is not locked until they are swapped out, and on a disk's file system
/// until they are written back, after which each is write-protected again.
///
/// # Errors
/// [`SetupError::Unbacked`] where a touch would be a SIGBUS: the file is shorter than the mapping, or its file system or its
/// pool of huge pages is full.
///
/// # Safety
/// `len` bytes at `base`, which is page-aligned, are mapped for writing; others touch them as atomics do, if at all.
pub(crate) unsafe fn populate(base: NonNull<u8>, len: u64) -> Result<(), SetupError> {
    match advise(base, len, libc::MADV_POPULATE_WRITE) {
        Ok(()) => Ok(()),
        Err(error) => match error.raw_os_error() {
            // Linux before 5.14.
            Some(libc::EINVAL) => {
                // SAFETY: the caller's promises.
                unsafe { touch(base, len) };
                Ok(())
            }
            Some(libc::EFAULT) => Err(SetupError::Unbacked { bytes: len }),
            _ => Err(SetupError::Os { call: "madvise(MADV_POPULATE_WRITE)", source: error }),
        },
    }
}

/// Makes sure that there is memory behind the header of a segment that others have made: of one of huge pages it may be
/// that none were left, and the first look would be a SIGBUS. Linux before 5.14 cannot tell.
///
/// # Errors
/// [`SetupError::Unbacked`].
pub(crate) fn check_start(mapping: &Mapping) -> Result<(), SetupError> {
    match advise(mapping.base(), HEADER, libc::MADV_POPULATE_READ) {
        Err(error) if error.raw_os_error() == Some(libc::EFAULT) => {
            Err(SetupError::Unbacked { bytes: mapping.size() })
        }
        _ => Ok(()),
    }
}

/// Writes the first word of each page with the value that it has, in one atomic step, so that nothing that others write is
/// lost. A page that cannot be had is a SIGBUS here: its backing was allocated before.
///
/// # Safety
/// As for [`populate`].
unsafe fn touch(base: NonNull<u8>, len: u64) {
    for offset in (0..len as usize).step_by(page_size() as usize) {
        // SAFETY: within the mapping, aligned, and touched by others as atomics do.
        let word = unsafe { AtomicU64::from_ptr(base.as_ptr().add(offset).cast()) };
        // Not `fetch_or(0)`, of which x86-64 compilers make a load. Others may be faster any number of times; the page is
        // in memory then, and almost always in our tables: a few attempts do.
        for _ in 0..16 {
            // Relaxed, both: nothing is published by it.
            let value = word.load(Ordering::Relaxed);
            let same = black_box(value);
            if word.compare_exchange(value, same, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                break;
            }
        }
    }
}

/// Locks a mapping in memory, faulting in what is not there: for as long as it is mapped in this process. A child made
/// by fork does not inherit it.
///
/// # Errors
/// [`SetupError::Limit`] with `RLIMIT_MEMLOCK`, unless the process has CAP_IPC_LOCK.
pub(crate) fn lock(base: NonNull<u8>, len: u64) -> Result<(), SetupError> {
    let asked = locked_by_us() + len;
    // SAFETY: locking changes nothing that a program can see of its memory; a range that is not mapped is an error.
    if unsafe { libc::mlock(base.as_ptr().cast(), len as usize) } == 0 {
        return Ok(());
    }
    let source = io::Error::last_os_error();
    // What failed half-way stays locked, and is counted.
    // SAFETY: as above.
    unsafe { libc::munlock(base.as_ptr().cast(), len as usize) };
    let limit = memlock();
    match source.raw_os_error() {
        Some(libc::EPERM) => Err(beyond_memlock(limit, asked)),
        Some(libc::ENOMEM | libc::EAGAIN) if asked > limit => Err(beyond_memlock(limit, asked)),
        // The pages, and not the limit.
        Some(libc::ENOMEM) => Err(SetupError::Unbacked { bytes: len }),
        _ => Err(SetupError::Os { call: "mlock", source }),
    }
}

/// Locks a System V segment, for as long as it exists and whoever has it attached; what is not in memory is not faulted in, but
/// stays once it is. Only its owner and its creator may. On a segment of huge pages it does nothing, and they need nothing.
///
/// # Errors
/// [`SetupError::Limit`] with `RLIMIT_MEMLOCK`, which counts all segments that this user has locked, unless the process has
/// CAP_IPC_LOCK; [`SetupError::Os`] with EPERM for others than owner and creator.
pub(crate) fn lock_segment(shm_id: i32, len: u64) -> Result<(), SetupError> {
    // SAFETY: SHM_LOCK takes no pointer.
    if unsafe { libc::shmctl(shm_id, libc::SHM_LOCK, ptr::null_mut()) } == 0 {
        return Ok(());
    }
    let source = io::Error::last_os_error();
    let limit = memlock();
    match source.raw_os_error() {
        Some(libc::EPERM) if limit == 0 => Err(beyond_memlock(limit, len)),
        Some(libc::ENOMEM) => Err(beyond_memlock(limit, segments_locked_by_us() + len)),
        _ => Err(SetupError::Os { call: "shmctl(SHM_LOCK)", source }),
    }
}

fn beyond_memlock(value: u64, asked: u64) -> SetupError {
    const PLACE: &str =
        "the shell (ulimit -l), in /etc/security/limits.conf (memlock) or in the unit (LimitMEMLOCK)";
    SetupError::Limit { name: "RLIMIT_MEMLOCK", value, asked, place: PLACE }
}

fn memlock() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to one rlimit. It cannot fail; if it did, the limit would be given as 0.
    unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    limit.rlim_cur
}

/// Bytes that this process has locked by mlock.
fn locked_by_us() -> u64 {
    figure("/proc/self/status", "VmLck:").unwrap_or(0) << 10
}

/// Bytes of the segments that this user has locked, as far as they are of this IPC namespace.
fn segments_locked_by_us() -> u64 {
    // SAFETY: the call has no arguments and cannot fail.
    let us = unsafe { libc::geteuid() };
    let rows = segments().unwrap_or_default();
    rows.iter()
        .filter(|row| row.locked && [row.permissions.uid, row.creator].contains(&us))
        .map(|row| row.size)
        .sum()
}

/// Bytes of memory that are there for the asking, by the machine and by the control groups that we are in.
pub(crate) fn available() -> Option<u64> {
    let machine = figure("/proc/meminfo", "MemAvailable:").map(|kib| kib << 10);
    [machine, groups::available()].into_iter().flatten().min()
}

/// Bytes of a page of the pool from which `SHM_HUGETLB` and `MFD_HUGETLB` take theirs; none if the kernel has no such pool.
///
/// What takes from it is mapped, cut, advised (`MADV_DONTFORK`) and unmapped in whole huge pages only: with any other length
/// those calls fail with EINVAL.
pub(crate) fn huge_page_size() -> Option<u64> {
    figure("/proc/meminfo", "Hugepagesize:").map(|kib| kib << 10)
}

/// Why `call` got no `bytes` bytes of huge pages from the pool.
pub(crate) fn no_huge_pages(call: &'static str, source: io::Error, bytes: u64) -> SetupError {
    let Some(size) = huge_page_size() else {
        return SetupError::NoHugePages {
            obstacle: "this kernel keeps no pool of huge pages".to_owned(),
            remedy: "use one with CONFIG_HUGETLBFS",
        };
    };
    match source.raw_os_error() {
        Some(libc::ENOMEM | libc::ENOSPC) => match Pool::now() {
            Some(pool) if pool.taken + bytes.div_ceil(size) > pool.most => SetupError::Limit {
                name: "nr_hugepages",
                value: pool.most,
                asked: pool.taken + bytes.div_ceil(size),
                place: "/proc/sys/vm/nr_hugepages",
            },
            _ => SetupError::Os { call, source },
        },
        // Of shmget only.
        Some(libc::EPERM) => {
            const GROUP: &str = "/proc/sys/vm/hugetlb_shm_group";
            let group = fs::read_to_string(GROUP).unwrap_or_default();
            SetupError::NoHugePages {
                obstacle: format!("{GROUP} is {}, which this process is not in", group.trim()),
                remedy: "write one of its groups there, or give it CAP_IPC_LOCK",
            }
        }
        _ => SetupError::Os { call, source },
    }
}

/// The pool of huge pages, in pages.
struct Pool {
    /// What it may have at most, with what the kernel may add by itself.
    most: u64,
    /// What is used or set aside.
    taken: u64,
}

impl Pool {
    fn now() -> Option<Pool> {
        let count = |name| figure("/proc/meminfo", name);
        let (total, surplus) = (count("HugePages_Total:")?, count("HugePages_Surp:")?);
        let (free, reserved) = (count("HugePages_Free:")?, count("HugePages_Rsvd:")?);
        let beyond =
            fs::read_to_string("/proc/sys/vm/nr_overcommit_hugepages").ok()?.trim().parse::<u64>().ok()?;
        Some(Pool {
            most: (total - surplus).saturating_add(beyond),
            taken: (total + reserved).saturating_sub(free),
        })
    }
}

/// Puts a mapping that does not come from the pool on huge pages: all of it that lies in whole, aligned huge pages. Faults all of
/// it in.
///
/// Where the pages are not huge by themselves (`shmem_enabled` is `never` on most systems), the kernel puts them
/// together at once (`MADV_COLLAPSE`). That empties the tables of others who have them mapped, who fault them in again; so it is
/// for a creator. Pages that are huge already are left alone. On tmpfs it is some ten times as fast where nothing is allocated as yet:
/// the kernel then takes huge pages, instead of copying small ones to them.
///
/// # Errors
/// [`SetupError::NoHugePages`] if some of it is not on huge pages in the end.
///
/// # Safety
/// As for [`populate`].
pub(crate) unsafe fn make_huge(base: NonNull<u8>, len: u64, on_tmpfs: bool) -> Result<(), SetupError> {
    let refused = |obstacle: String, remedy| Err(SetupError::NoHugePages { obstacle, remedy });
    let Some(size) = collapsed_size() else {
        let obstacle = "this kernel makes no huge pages of others".to_owned();
        return refused(obstacle, "use one with CONFIG_TRANSPARENT_HUGEPAGE");
    };
    let (start, end) =
        ((base.as_ptr() as u64).next_multiple_of(size), (base.as_ptr() as u64 + len) / size * size);
    if start >= end {
        let obstacle = format!("no aligned piece of {size} bytes is in the segment, which has {len}");
        return refused(obstacle, "make a larger pipe");
    }
    let before = state(base, len, &[])
        .map_err(|source| SetupError::Os { call: "reading /proc/self/smaps", source })?;
    if before.huge >= end - start {
        return Ok(());
    }
    advise(base, len, libc::MADV_HUGEPAGE)
        .map_err(|source| SetupError::Os { call: "madvise(MADV_HUGEPAGE)", source })?;
    // One small page in each: the kernel fills the rest with zeros, but does not begin with nothing.
    for piece in (start..end).step_by(size as usize) {
        let piece = NonNull::new(piece as *mut u8).expect("the range starts at or above its base");
        // SAFETY: the caller's promises.
        unsafe { populate(piece, page_size())? };
    }
    let whole = NonNull::new(start as *mut u8).expect("the range starts at or above its base");
    let mut collapsed: io::Result<()> = Ok(());
    for _ in 0..8 {
        collapsed = advise(whole, end - start, MADV_COLLAPSE);
        match &collapsed {
            // Somebody else is at one of the pages, or memory is being moved.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY)) => {}
            _ => break,
        }
    }
    // SAFETY: the caller's promises.
    unsafe { populate(base, len)? };
    // Whatever it says, the pages count: those of a file may be huge without it.
    let now = state(base, len, &[])
        .map_err(|source| SetupError::Os { call: "reading /proc/self/smaps", source })?;
    if now.huge >= end - start {
        return Ok(());
    }
    const SHMEM: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    let chosen = fs::read_to_string(SHMEM).ok().and_then(|text| chosen(&text).map(str::to_owned));
    match (collapsed.err().and_then(|error| error.raw_os_error()), chosen.as_deref()) {
        // SAFETY: the call takes no pointers.
        _ if unsafe { libc::prctl(libc::PR_GET_THP_DISABLE, 0, 0, 0, 0) } > 0 => refused(
            "this process was started without them (PR_SET_THP_DISABLE)".to_owned(),
            "start it with them",
        ),
        (Some(libc::ENOMEM), _) => refused(
            format!("free memory is not in pieces of {size} bytes"),
            "write 1 to /proc/sys/vm/compact_memory, or free some",
        ),
        (_, Some(chosen @ ("never" | "deny"))) if on_tmpfs => {
            refused(format!("{SHMEM} is {chosen}"), "write advise to it")
        }
        (_, _) if !on_tmpfs => refused(
            "this file system keeps none of this file".to_owned(),
            "put it on a tmpfs, such as /dev/shm",
        ),
        (_, _) => refused(
            "the kernel did not put them together".to_owned(),
            "try again, or write 1 to /proc/sys/vm/compact_memory",
        ),
    }
}

/// Bytes of a huge page that the kernel makes of small ones; a segment that is to be all of such is a multiple of it long, and
/// mapped at one.
pub(crate) fn collapsed_size() -> Option<u64> {
    fs::read_to_string("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size").ok()?.trim().parse().ok()
}

/// The choice in a file of choices: `always [madvise] never`.
fn chosen(text: &str) -> Option<&str> {
    Some(text.split_once('[')?.1.split_once(']')?.0)
}

/// An address range that is set aside, aligned as asked, for a mapping to be put over it (`MAP_FIXED`, `SHM_REMAP`): the kernel
/// aligns to small pages by itself.
#[derive(Debug)]
pub(crate) struct Place {
    base: NonNull<u8>,
    len: usize,
}

impl Place {
    /// `align` is a power of two and a multiple of the page size.
    pub(crate) fn reserve(len: u64, align: u64) -> io::Result<Place> {
        let (len, align) = (len.next_multiple_of(page_size()) as usize, align as usize);
        let all = len.checked_add(align).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: an anonymous mapping at an address that the kernel chooses, over nothing that exists.
        let start = unsafe { libc::mmap(ptr::null_mut(), all, libc::PROT_NONE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let before = (start as usize).next_multiple_of(align) - start as usize;
        // SAFETY: what is cut off, before and behind, lies in the mapping just made, and nobody knows of it.
        let base = unsafe {
            let base = start.cast::<u8>().add(before);
            if before > 0 {
                libc::munmap(start, before);
            }
            libc::munmap(base.add(len).cast(), all - before - len);
            base
        };
        let base = NonNull::new(base).expect("the kernel maps nothing at 0 by itself");
        Ok(Place { base, len })
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Something was mapped over all of it, which is its owner from now on.
    pub(crate) fn taken(self) {
        std::mem::forget(self);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `reserve`, and nothing was put there, since `taken` was not called.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// What is in force for the mapping of `len` bytes at `base`, and at the `ends`, processes that may have mapped the same; those that
/// we may not look at say nothing. That a System V segment is locked as such is not seen here: its mode says so.
///
/// Reads `/proc/PID/smaps` of each, which takes longer the more a process has mapped.
pub(crate) fn state(base: NonNull<u8>, len: u64, ends: &[u32]) -> io::Result<Memory> {
    let start = base.as_ptr() as u64;
    let ours: Vec<Mapped> =
        mappings("self")?.into_iter().filter(|row| row.start < start + len && row.end > start).collect();
    let Some(first) = ours.first() else { return Err(io::Error::from_raw_os_error(libc::ENOMEM)) };
    let from_pool = first.from_pool;
    let mut locked = from_pool || ours.iter().all(|row| row.locked);
    let mut huge = if from_pool { len } else { ours.iter().map(|row| row.huge).sum() };
    for pid in ends {
        let theirs = mappings(&pid.to_string()).unwrap_or_default();
        let theirs: Vec<&Mapped> = theirs.iter().filter(|row| row.object == first.object).collect();
        locked |= theirs.iter().any(|row| row.locked);
        huge = huge.max(theirs.iter().map(|row| row.huge).sum());
    }
    // Of the pool's pages mincore tells which are in our tables. They are set aside when the segment is made.
    let resident = if from_pool { len } else { resident(base, len)? };
    Ok(Memory { page_size: first.page_size, resident, locked, huge })
}

/// Bytes of a mapping whose pages are in memory, mapped here or not.
fn resident(base: NonNull<u8>, len: u64) -> io::Result<u64> {
    const AT_ONCE: usize = 4096;
    let page = page_size() as usize;
    let mut marks = [0_u8; AT_ONCE];
    let mut resident = 0;
    for offset in (0..len as usize).step_by(AT_ONCE * page) {
        let piece = (len as usize - offset).min(AT_ONCE * page);
        // SAFETY: the kernel writes a byte for each page of the piece, AT_ONCE at most; it fails where nothing is mapped.
        let done =
            unsafe { libc::mincore(base.as_ptr().wrapping_add(offset).cast(), piece, marks.as_mut_ptr()) };
        if done == -1 {
            return Err(io::Error::last_os_error());
        }
        let pages = marks[..piece.div_ceil(page)].iter().filter(|mark| *mark & 1 == 1).count();
        resident += (pages * page) as u64;
    }
    Ok(resident.min(len))
}

/// One mapping of a process, as smaps shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Mapped {
    start: u64,
    end: u64,
    /// Device, inode and what is no file by its name: an inode number may belong to a segment and to a memfd at the same time.
    object: String,
    page_size: u64,
    /// Bytes reached through huge pages that are made of small ones.
    huge: u64,
    locked: bool,
    /// Of huge pages from the pool.
    from_pool: bool,
}

fn mappings(process: &str) -> io::Result<Vec<Mapped>> {
    parse(BufReader::new(File::open(format!("/proc/{process}/smaps"))?))
}

fn parse(text: impl BufRead) -> io::Result<Vec<Mapped>> {
    let mut rows: Vec<Mapped> = Vec::new();
    for line in text.lines() {
        let line = line?;
        let Some((name, rest)) = line.split_once(' ') else { continue };
        if let Some((start, end)) = name.split_once('-') {
            let number = |text| u64::from_str_radix(text, 16);
            if let (Ok(start), Ok(end)) = (number(start), number(end)) {
                let mut words = rest.split_whitespace().skip(2);
                let [device, inode] = [words.next(), words.next()].map(Option::unwrap_or_default);
                // The name of a file is another one to who has made it without one.
                let name = words.next().unwrap_or_default();
                let kind = ["/SYSV", "/memfd:"].into_iter().find(|kind| name.starts_with(kind));
                let object = [device, inode, kind.unwrap_or_default()].join(" ");
                rows.push(Mapped { start, end, object, ..Mapped::default() });
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
        // SAFETY: none of the advices used here changes what the memory holds or takes it away; a range that is not mapped is
        // an error.
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
    // SAFETY: the call takes no pointers; this number is always known.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 }
}

/// The number behind a name at the start of a line.
fn figure(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests;
