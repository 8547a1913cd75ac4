//! Which limit of the system was exceeded. The kernel only says ENOSPC, EINVAL or ENOMEM.

use crate::error::{SetupError, Shortage, os};
use crate::sys::sysvipc::{segments, sets};
use std::fs;
use std::io;

const SHMMAX: &str = "/proc/sys/kernel/shmmax";
const SHMALL: &str = "/proc/sys/kernel/shmall";
const SHMMNI: &str = "/proc/sys/kernel/shmmni";
/// Four numbers: SEMMSL, SEMMNS, SEMOPM, SEMMNI.
const SEM: &str = "/proc/sys/kernel/sem";

/// The error for a segment of `size` bytes that could not be created.
pub(super) fn of_segments(source: io::Error, size: u64) -> SetupError {
    let exceeded = match source.raw_os_error() {
        Some(libc::EINVAL) => {
            number(SHMMAX, 0).filter(|&max| size > max).map(|max| ("SHMMAX", max, size, SHMMAX))
        }
        Some(libc::ENOSPC) => {
            let count = segments().map_or(0, |rows| rows.len() as u64);
            match number(SHMMNI, 0) {
                Some(max) if count >= max => Some(("SHMMNI", max, count + 1, SHMMNI)),
                _ => number(SHMALL, 0).map(|pages| ("SHMALL", pages, all_pages() + pages_of(size), SHMALL)),
            }
        }
        _ => None,
    };
    limit(exceeded, "shmget", source)
}

/// The error for a semaphore set that could not be created.
pub(super) fn of_sets(source: io::Error) -> SetupError {
    let rows = sets().unwrap_or_default();
    let semaphores: u64 = rows.iter().map(|row| row.size).sum();
    let exceeded = match number(SEM, 3) {
        _ if source.raw_os_error() == Some(libc::EINVAL) => {
            number(SEM, 0).filter(|&max| max < super::COUNT).map(|max| ("SEMMSL", max, super::COUNT, SEM))
        }
        Some(max) if rows.len() as u64 >= max => Some(("SEMMNI", max, rows.len() as u64 + 1, SEM)),
        _ => number(SEM, 1).map(|max| ("SEMMNS", max, semaphores + super::COUNT, SEM)),
    };
    limit(exceeded, "semget", source)
}

/// The error for one handle more than a set can count.
pub(super) fn of_handles() -> SetupError {
    SetupError::Limit(Shortage::Handles { max: HANDLES })
}

/// The largest value of a semaphore (SEMVMX).
const HANDLES: u64 = 32767;

fn limit(
    exceeded: Option<(&'static str, u64, u64, &'static str)>,
    call: &'static str,
    source: io::Error,
) -> SetupError {
    match exceeded {
        Some((name, value, requested, raise_in)) => {
            SetupError::Limit(Shortage::System { name, value, requested, raise_in })
        }
        None => os(call, source),
    }
}

/// The number in column `index` of a file.
fn number(file: &str, index: usize) -> Option<u64> {
    fs::read_to_string(file).ok()?.split_whitespace().nth(index)?.parse().ok()
}

fn pages_of(size: u64) -> u64 {
    size.div_ceil(4096)
}

/// Pages of all segments in this IPC namespace.
fn all_pages() -> u64 {
    segments().map_or(0, |rows| rows.iter().map(|row| pages_of(row.size)).sum())
}
