//! Whether a lock of an open file description lives as long as a mapping of it: roles of pipes in files rest on it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr;

use super::check::Check;

const NAME: &str = "locks";

/// When the lock of a closed description was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    while_mapped: bool,
    after: bool,
}

pub fn check() -> Check {
    match probe() {
        Ok(seen) => judge(seen),
        Err(error) => Check::impossible(NAME, error.to_string()),
    }
}

fn judge(seen: Seen) -> Check {
    let mut check = Check::new(NAME);
    check.fact("held_while_mapped", seen.while_mapped);
    check.fact("freed_by_munmap", !seen.after);
    let wrong = match seen {
        Seen { while_mapped: true, after: false } => {
            check.summary("a file's lock lives exactly as long as the mapping that carries it");
            return check;
        }
        Seen { while_mapped: false, .. } => "a file's lock goes before the mapping that carries it",
        Seen { after: true, .. } => "a file's lock stays after the mapping that carried it",
    };
    check.summary(wrong);
    check.find(
        wrong,
        match seen.while_mapped {
            false => "two producers, or two consumers, could use one pipe in a file at the same time",
            true => "the role of a producer or consumer that has ended stays taken",
        },
        "use a System V address (a name, sysv:...) instead of memfd:, posix: or file:",
    );
    check
}

/// Locks a byte of a memory file through one description, which is then closed but stays mapped; asks through another.
fn probe() -> io::Result<Seen> {
    // SAFETY: a string with a terminator, and a number.
    let file = match unsafe { libc::memfd_create(c"shmpipe-doctor".as_ptr(), libc::MFD_CLOEXEC) } {
        -1 => return Err(io::Error::last_os_error()),
        // SAFETY: just made, and nobody else's.
        file => unsafe { File::from_raw_fd(file) },
    };
    let page = super::page_size();
    file.set_len(page)?;
    let ours = File::options().read(true).write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    lock(&ours, libc::F_OFD_SETLK)?;
    // SAFETY: a new mapping, at an address of the kernel's choice.
    let base = unsafe {
        libc::mmap(ptr::null_mut(), page as usize, libc::PROT_READ, libc::MAP_SHARED, ours.as_raw_fd(), 0)
    };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    drop(ours);
    let while_mapped = lock(&file, libc::F_OFD_GETLK);
    // SAFETY: the mapping just made, which nothing refers to.
    unsafe { libc::munmap(base, page as usize) };
    Ok(Seen { while_mapped: while_mapped?, after: lock(&file, libc::F_OFD_GETLK)? })
}

/// Locks the first byte, or asks whether it is locked.
fn lock(file: &File, command: i32) -> io::Result<bool> {
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open, and `lock` is live.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &mut lock) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(lock.l_type != libc::F_UNLCK as i16),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::check::Verdict;

    #[test]
    fn this_kernel_ties_a_lock_to_its_mapping() {
        assert_eq!(probe().unwrap(), Seen { while_mapped: true, after: false });
    }

    #[test]
    fn a_kernel_that_does_not_is_a_finding() {
        let verdict = |while_mapped, after| judge(Seen { while_mapped, after }).verdict();
        assert_eq!(verdict(true, false), Verdict::Ok);
        assert!(
            [(false, false), (true, true), (false, true)]
                .iter()
                .all(|&(a, b)| verdict(a, b) == Verdict::Finding)
        );
    }
}
