//! Limits and reserves for pipes that are locked in memory or use huge pages.

use std::fs;
use std::io;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use procfs::process::Process;

use super::check::Check;
use super::sizes::PIPE;
use crate::output::units;

/// Bit of the capability that lifts the limit (CAP_IPC_LOCK of linux/capability.h).
const CAP_IPC_LOCK: u64 = 1 << 14;

/// How much memory this process may lock.
pub fn locking() -> Check {
    const NAME: &str = "locked memory";
    match (limit(), may_lock_all()) {
        (Ok(limit), Ok(all)) => judge_locking(limit, all),
        (Err(error), _) | (_, Err(error)) => Check::impossible(NAME, error.to_string()),
    }
}

/// The soft limit on locked memory, if there is one.
fn limit() -> io::Result<Option<u64>> {
    let (limit, _) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    Ok((limit != RLIM_INFINITY).then_some(limit))
}

fn may_lock_all() -> io::Result<bool> {
    let status = Process::myself().and_then(|process| process.status()).map_err(io::Error::other)?;
    Ok(status.capeff & CAP_IPC_LOCK != 0)
}

fn judge_locking(limit: Option<u64>, all: bool) -> Check {
    let mut check = Check::new("locked memory");
    check.fact("memlock_bytes", limit);
    check.fact("may_lock_all", all);
    check.summary(match (all, limit) {
        (true, _) => "no limit for this process (CAP_IPC_LOCK)".to_owned(),
        (_, None) => "no limit".to_owned(),
        (_, Some(limit)) => format!("up to {}", units::show_size(limit)),
    });
    if let Some(limit) = limit.filter(|&limit| limit < PIPE && !all) {
        check.find(
            format!("a process may lock {} in memory (RLIMIT_MEMLOCK)", units::show_size(limit)),
            format!(
                "--lock fails even for a pipe of the default capacity, which takes {}",
                units::show_size(PIPE)
            ),
            format!(
                "ulimit -l {}   # as root; systemd: LimitMEMLOCK=; Docker: --ulimit memlock=-1",
                64 * PIPE / 1024
            ),
        );
    }
    check
}

/// Reserved huge pages, and who may use them. Having none is a choice, not a finding.
pub fn huge_pages() -> Check {
    const NAME: &str = "huge pages";
    let mut check = Check::new(NAME);
    let number = |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let Some(reserved) = number("/proc/sys/vm/nr_hugepages") else {
        check.fact("huge_page_bytes", None::<u64>);
        check.summary("not supported by the kernel");
        return check;
    };
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let of = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let (free, size) = (of("HugePages_Free"), of("Hugepagesize").map(|kib| kib << 10));
    let group = number("/proc/sys/vm/hugetlb_shm_group");
    let shmem = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled").ok();
    let shmem = shmem.as_deref().and_then(chosen);
    check.fact("huge_page_bytes", size);
    check.fact("reserved", reserved);
    check.fact("free", free);
    check.fact("shm_group_gid", group);
    check.fact("transparent_for_shared_memory", shmem);
    let size = size.map_or_else(String::new, |size| format!(" of {}", units::show_size(size)));
    check.summary(match (reserved, free) {
        (0, _) => format!(
            "none{size} reserved (vm.nr_hugepages); transparent ones for shared memory: {}",
            shmem.unwrap_or("unknown")
        ),
        (_, Some(free)) => format!("{free} of {reserved}{size} free"),
        (_, None) => format!("{reserved}{size} reserved"),
    });
    check
}

/// The chosen word of a list such as `always [never] deny`.
fn chosen(text: &str) -> Option<&str> {
    Some(text.split_once('[')?.1.split_once(']')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_too_small_for_a_pipe_is_found_unless_lifted() {
        let found = |limit, all| judge_locking(limit, all).findings.len();
        assert_eq!(found(Some(PIPE - 1), false), 1);
        assert_eq!((found(Some(PIPE), false), found(Some(0), true), found(None, false)), (0, 0, 0));
    }

    #[test]
    fn the_chosen_word_is_in_brackets() {
        assert_eq!(chosen("always within_size advise [never] deny force\n"), Some("never"));
        assert_eq!(chosen("[always] never"), Some("always"));
        assert_eq!(chosen("always never"), None);
    }
}
