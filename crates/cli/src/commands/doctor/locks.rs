//! Whether the lock of an open file description lives as long as a mapping of it: the roles of pipes in files rely on it.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::check::Check;
use super::sizes::page_size;

const NAME: &str = "locks";

/// When another description saw the lock of a closed one.
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
            check.summary("a file lock lives exactly as long as the mapping that carries it");
            return check;
        }
        Seen { while_mapped: false, .. } => "a file lock is dropped before the mapping that carries it",
        Seen { after: true, .. } => "a file lock outlives the mapping that carried it",
    };
    check.summary(wrong);
    check.find(
        wrong,
        match seen.while_mapped {
            false => "two producers, or two consumers, could use one pipe in a file at the same time",
            true => "the role of a producer or consumer that ended stays taken",
        },
        "use a System V address (a name, sysv:...) instead of memfd:, posix: or file:",
    );
    check
}

/// Locks a byte of a memfd through one open file description, which is then closed but stays mapped; asks through another.
fn probe() -> io::Result<Seen> {
    let file = File::from(memfd_create(c"shmpipe-doctor", MFdFlags::MFD_CLOEXEC)?);
    let page = page_size();
    file.set_len(page)?;
    let length = NonZeroUsize::new(page as usize).expect("a page has bytes");
    let mapped =
        File::options().read(true).write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    fcntl(&mapped, FcntlArg::F_OFD_SETLK(&first_byte()))?;
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let base = unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, &mapped, 0) }?;
    drop(mapped);
    let while_mapped = is_locked(&file);
    // SAFETY: the mapping just made; no reference into it exists.
    unsafe { munmap(base, length.get()) }?;
    Ok(Seen { while_mapped: while_mapped?, after: is_locked(&file)? })
}

/// Whether another open file description has the first byte locked.
fn is_locked(file: &File) -> io::Result<bool> {
    let mut lock = first_byte();
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(lock.l_type != libc::F_UNLCK as i16)
}

/// A lock of the first byte for writing.
fn first_byte() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 1,
        l_pid: 0,
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
