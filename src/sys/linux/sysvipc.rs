//! `/proc/sysvipc`: what there is, without touching it.

use crate::permissions::Permissions;
use std::fs;
use std::io;

/// One line of `/proc/sysvipc/shm` or `/proc/sysvipc/sem`, as far as both have the same columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: i32,
    pub(crate) id: i32,
    pub(crate) permissions: Permissions,
    pub(crate) creator: u32,
    /// The process that created a segment, 0 if it is not visible from here; 0 for a set.
    pub(crate) creator_pid: u32,
    /// Bytes of a segment, semaphores of a set.
    pub(crate) size: u64,
    /// How often a segment is attached; 0 for a set.
    pub(crate) attached: u64,
    /// Whether a segment is locked in memory.
    pub(crate) locked: bool,
    /// Whether a segment was removed and lives on for the processes that have it attached. Its key is 0 then.
    pub(crate) removed: bool,
}

/// Bit of a segment's mode that says that it is locked in memory (SHM_LOCKED of linux/shm.h).
pub(crate) const LOCKED: u32 = 0o2000;

/// Bit of a segment's mode that says that it was removed and goes when the last process detaches (SHM_DEST of linux/shm.h).
pub(crate) const REMOVED: u32 = 0o1000;

/// All segments of this IPC namespace.
pub(crate) fn segments() -> io::Result<Vec<Row>> {
    Ok(parse(&fs::read_to_string("/proc/sysvipc/shm")?))
}

/// All semaphore sets of this IPC namespace.
pub(crate) fn sets() -> io::Result<Vec<Row>> {
    Ok(parse(&fs::read_to_string("/proc/sysvipc/sem")?))
}

/// Columns are found by their names in the first line.
fn parse(text: &str) -> Vec<Row> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let rows = lines.filter_map(|line| {
        let cells: Vec<&str> = line.split_whitespace().collect();
        let cell = |name| cells.get(names.iter().position(|n| *n == name)?).copied();
        let number = |name| cell(name)?.parse().ok();
        let mode = u32::from_str_radix(cell("perms")?, 8).ok()?;
        Some(Row {
            key: cell("key")?.parse().ok()?,
            id: cell("shmid").or_else(|| cell("semid"))?.parse().ok()?,
            permissions: Permissions { uid: number("uid")?, gid: number("gid")?, mode: mode & 0o777 },
            creator: number("cuid")?,
            creator_pid: cell("cpid").map_or(Some(0), |cell| cell.parse().ok())?,
            size: cell("size").or_else(|| cell("nsems"))?.parse().ok()?,
            attached: cell("nattch").map_or(Some(0), |cell| cell.parse().ok())?,
            locked: mode & LOCKED != 0,
            removed: mode & REMOVED != 0,
        })
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tables_are_read_by_their_column_names() {
        let shm = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n\
                   \x20     1234         42  2600                  8192    11    12      2 70000  1001     0     0          0          0          0                  4096                     0\n\
                   \x20        0         43  1600                  8192    11    12      1  1000  1001     0     0          0          0          0                  4096                     0\n";
        let sem = "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n\
                   \x20       -7          3   640          8     1     2     1     2          0          0\n";
        let permissions = Permissions { uid: 70_000, gid: 1001, mode: 0o600 };
        let locked = Row {
            key: 1234,
            id: 42,
            permissions,
            creator: 0,
            creator_pid: 11,
            size: 8192,
            attached: 2,
            locked: true,
            removed: false,
        };
        let permissions = Permissions { uid: 1000, gid: 1001, mode: 0o600 };
        let removed =
            Row { key: 0, id: 43, permissions, attached: 1, locked: false, removed: true, ..locked };
        assert_eq!(parse(shm), [locked, removed]);
        let permissions = Permissions { uid: 1, gid: 2, mode: 0o640 };
        let set = Row {
            key: -7,
            id: 3,
            permissions,
            creator: 1,
            creator_pid: 0,
            size: 8,
            attached: 0,
            locked: false,
            removed: false,
        };
        assert_eq!(parse(sem), [set]);
    }
}
