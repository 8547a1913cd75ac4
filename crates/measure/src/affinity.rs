//! The processors of the two processes, and pinning.

use std::io;
use std::mem;

use crate::errors::{failed, unfit};

/// The processors that a thread was allowed to run on.
pub(crate) struct Affinity(libc::cpu_set_t);

impl Affinity {
    /// The calling thread's processors now.
    pub(crate) fn current() -> io::Result<Affinity> {
        // SAFETY: cpu_set_t is an array of integers, for which all zero (no processor) is a value.
        let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
        // SAFETY: `set` is a live set of the size given; 0 names the calling thread.
        if unsafe { libc::sched_getaffinity(0, mem::size_of_val(&set), &mut set) } == -1 {
            return Err(failed(format_args!("sched_getaffinity")));
        }
        Ok(Affinity(set))
    }

    /// Their numbers, in ascending order.
    pub(crate) fn cpus(&self) -> Vec<usize> {
        // SAFETY: the numbers tested are below CPU_SETSIZE, the number of bits in the set.
        (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &self.0) }).collect()
    }

    /// Allows the calling thread to run on these processors again.
    pub(crate) fn restore(&self) -> io::Result<()> {
        // SAFETY: the set is live and of the size given; 0 names the calling thread.
        if unsafe { libc::sched_setaffinity(0, mem::size_of_val(&self.0), &self.0) } == -1 {
            return Err(failed(format_args!("sched_setaffinity")));
        }
        Ok(())
    }
}

/// The processors that the calling thread may run on, in ascending order.
///
/// # Errors
/// Those of the system.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    Affinity::current().map(|now| now.cpus())
}

/// Pins the calling thread to one processor.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(unfit(format!("cpu {cpu} is beyond the {} that can be named", libc::CPU_SETSIZE)));
    }
    // SAFETY: cpu_set_t is an array of integers, for which all zero (no processor) is a value.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the number was compared with CPU_SETSIZE above.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    Affinity(set)
        .restore()
        .map_err(|error| crate::errors::about(format_args!("cannot run on cpu {cpu}"), error))
}

/// The processors to measure on: those requested, or else the first two allowed. `None` if there is only one.
pub(crate) fn choose(wish: Option<(usize, usize)>, allowed: &[usize]) -> io::Result<Option<(usize, usize)>> {
    match (wish, allowed) {
        (Some((a, b)), _) if a == b => {
            Err(unfit(format!("both processes on cpu {a}: name two different ones")))
        }
        (Some(pair), _) => Ok(Some(pair)),
        (None, &[a, b, ..]) => Ok(Some((a, b))),
        (None, _) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_is_the_first_two_allowed_cpus() {
        assert_eq!(choose(None, &[3, 5, 6]).unwrap(), Some((3, 5)));
        assert_eq!(choose(None, &[3]).unwrap(), None);
    }

    #[test]
    fn requested_cpus_must_differ() {
        assert_eq!(choose(Some((6, 1)), &[0, 1]).unwrap(), Some((6, 1)));
        assert!(choose(Some((1, 1)), &[0, 1]).is_err());
    }
}
