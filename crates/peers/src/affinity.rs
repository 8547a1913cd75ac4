//! The helper threads that some peers start: they must not stay on the CPU of the thread that starts them.

use std::io;
use std::mem;

/// Does `start` while the calling thread may run on every CPU; the threads that it starts inherit that, and this one gets
/// its own CPUs back.
///
/// # Errors
/// Those of the system and of `start`.
pub fn unpinned<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    // SAFETY: cpu_set_t is an array of integers, for which all zero (no CPU) is a value.
    let (mut before, mut every): (libc::cpu_set_t, libc::cpu_set_t) = unsafe { mem::zeroed() };
    let len = mem::size_of::<libc::cpu_set_t>();
    // SAFETY: `before` is a live set of the size given; 0 names the calling thread.
    if unsafe { libc::sched_getaffinity(0, len, &mut before) } == -1 {
        return Err(io::Error::last_os_error());
    }
    for cpu in 0..libc::CPU_SETSIZE as usize {
        // SAFETY: the number is below CPU_SETSIZE, the number of bits in the set.
        unsafe { libc::CPU_SET(cpu, &mut every) };
    }
    set(&every)?; // the kernel leaves out those that this process may not use
    let started = start();
    set(&before)?;
    started
}

fn set(cpus: &libc::cpu_set_t) -> io::Result<()> {
    // SAFETY: a live set of the size given; 0 names the calling thread.
    match unsafe { libc::sched_setaffinity(0, mem::size_of_val(cpus), cpus) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
