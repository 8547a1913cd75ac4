//! System V objects: all that there are, without touching them, and what a semaphore set says.

use std::fs;
use std::io;

/// One line of `/proc/sysvipc/shm` or `/proc/sysvipc/sem`, as far as both have the same columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub key: i32,
    pub id: i32,
    pub uid: u32,
    /// Bytes of a segment, semaphores of a set.
    pub size: u64,
    /// How often a segment is attached; 0 for a set.
    pub attached: u64,
    /// A segment that was removed and lives on for those who have it attached. Its key is 0 then.
    pub removed: bool,
}

/// Bit of a segment's mode that says that it was removed (SHM_DEST of linux/shm.h).
const REMOVED: u32 = 0o1000;

/// All segments of this IPC namespace.
pub fn segments() -> io::Result<Vec<Row>> {
    Ok(parse(&fs::read_to_string("/proc/sysvipc/shm")?))
}

/// All semaphore sets of this IPC namespace.
pub fn sets() -> io::Result<Vec<Row>> {
    Ok(parse(&fs::read_to_string("/proc/sysvipc/sem")?))
}

/// Columns are found by their names in the first line.
fn parse(text: &str) -> Vec<Row> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let rows = lines.filter_map(|line| {
        let cells: Vec<&str> = line.split_whitespace().collect();
        let cell = |name| cells.get(names.iter().position(|n| *n == name)?).copied();
        Some(Row {
            key: cell("key")?.parse().ok()?,
            id: cell("shmid").or_else(|| cell("semid"))?.parse().ok()?,
            uid: cell("uid")?.parse().ok()?,
            size: cell("size").or_else(|| cell("nsems"))?.parse().ok()?,
            attached: cell("nattch").map_or(Some(0), |cell| cell.parse().ok())?,
            removed: u32::from_str_radix(cell("perms")?, 8).ok()? & REMOVED != 0,
        })
    });
    rows.collect()
}

/// What the semaphore set of a pipe says; LAYOUT.md has the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    /// The segment that it guards.
    pub segment: i32,
    /// The segment is complete; else somebody is making it, or has died at it.
    pub made: bool,
    /// Somebody is making, opening or removing the pipe.
    pub locked: bool,
}

/// How many semaphores the set of a pipe has.
const COUNT: u64 = 8;

const INIT: i32 = 0;
const STAGE: i32 = 3;
const SEGMENT: [i32; 3] = [6, 5, 4];
const GUESTS: i32 = 7;
const MAKING: i32 = 0x5a4d;
const MADE: i32 = 0x5a52;

impl Set {
    /// `None` if the set is none of a pipe, is gone, or may not be read.
    pub fn of(row: &Row) -> Option<Set> {
        let stage = (row.size == COUNT).then(|| value(row.id, STAGE)).flatten()?;
        if stage != MAKING && stage != MADE {
            return None;
        }
        let segment =
            SEGMENT.iter().try_fold(0, |id, &semaphore| Some(id << 15 | value(row.id, semaphore)?))?;
        Some(Set { segment, made: stage == MADE, locked: value(row.id, INIT)? != 0 })
    }
}

/// How many handles of the pipe with that set are open; watchers do not count. Nothing if it may not be read.
pub fn guests(set: i32) -> Option<i32> {
    value(set, GUESTS)
}

fn value(id: i32, semaphore: i32) -> Option<i32> {
    // SAFETY: GETVAL takes no pointer.
    let value = unsafe { libc::semctl(id, semaphore, libc::GETVAL) };
    (value >= 0).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tables_are_read_by_their_column_names() {
        let shm = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n\
                   \x20        0         42  1600                  8192    11    12      2  70000  1001     0     0          0          0          0                  4096                     0\n";
        let sem = "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n\
                   \x20       -7          3   640          8     1     2     1     2          0          0\n";
        let segment = Row { key: 0, id: 42, uid: 70_000, size: 8192, attached: 2, removed: true };
        assert_eq!(parse(shm), [segment]);
        let set = Row { key: -7, id: 3, uid: 1, size: 8, attached: 0, removed: false };
        assert_eq!(parse(sem), [set]);
    }
}
