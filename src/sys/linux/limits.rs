//! Limits of this process, and which of them made a call fail.

use std::fs;
use std::io;

/// A limit on a resource of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    AddressSpace,
    Descriptors,
    FileSize,
    LockedMemory,
}

impl Resource {
    /// The limit; `u64::MAX` if there is none.
    pub(crate) fn limit(self) -> u64 {
        let resource = match self {
            Resource::AddressSpace => libc::RLIMIT_AS,
            Resource::Descriptors => libc::RLIMIT_NOFILE,
            Resource::FileSize => libc::RLIMIT_FSIZE,
            Resource::LockedMemory => libc::RLIMIT_MEMLOCK,
        };
        let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: the pointer is to one rlimit. The call cannot fail for these limits.
        unsafe { libc::getrlimit(resource, &raw mut limit) };
        limit.rlim_cur
    }
}

/// A limit that is too low.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exceeded {
    pub(crate) name: &'static str,
    pub(crate) value: u64,
    pub(crate) requested: u64,
    pub(crate) raise_in: &'static str,
}

/// The limit behind the error of a call that would have mapped this many bytes, if it is one of those that any call can meet. The
/// kernel says only EMFILE or ENOMEM. (The limit behind ENFILE could not be read: that takes a file, of which there are too many.)
pub(crate) fn exceeded(error: &io::Error, bytes: u64) -> Option<Exceeded> {
    match error.raw_os_error()? {
        libc::EMFILE => {
            let value = Resource::Descriptors.limit();
            let raise_in = "the shell (ulimit -n) or in the unit (LimitNOFILE)";
            Some(Exceeded { name: "RLIMIT_NOFILE", value, requested: value.saturating_add(1), raise_in })
        }
        libc::ENOMEM => {
            let value = Resource::AddressSpace.limit();
            let requested = address_space().unwrap_or(0).saturating_add(bytes);
            if requested > value {
                let raise_in = "the shell (ulimit -v) or in the unit (LimitAS)";
                return Some(Exceeded { name: "RLIMIT_AS", value, requested, raise_in });
            }
            const MAX_MAP_COUNT: &str = "/proc/sys/vm/max_map_count";
            let value = number(MAX_MAP_COUNT)?;
            let maps = fs::read("/proc/self/maps").ok()?;
            // A mapping may split another one.
            let requested = maps.iter().filter(|&&byte| byte == b'\n').count() as u64 + 2;
            let raise_in = MAX_MAP_COUNT;
            (requested > value).then_some(Exceeded { name: "vm.max_map_count", value, requested, raise_in })
        }
        _ => None,
    }
}

/// Bytes of address space that this process uses.
fn address_space() -> Option<u64> {
    let pages: u64 = fs::read_to_string("/proc/self/statm").ok()?.split(' ').next()?.parse().ok()?;
    // SAFETY: the call takes no pointers. The page size is always known.
    Some(pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 })
}

fn number(file: &str) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}
