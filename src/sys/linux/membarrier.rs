//! `membarrier`: a full memory barrier on every processor that runs a registered process, at the cost of one system call by the
//! side that is about to sleep. See membarrier(2), `MEMBARRIER_CMD_GLOBAL_EXPEDITED`.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

// From include/uapi/linux/membarrier.h.
const QUERY: libc::c_long = 0;
const GLOBAL_EXPEDITED: libc::c_long = 1 << 1;
const REGISTER_GLOBAL_EXPEDITED: libc::c_long = 1 << 2;

fn membarrier(command: libc::c_long) -> libc::c_long {
    // SAFETY: the call takes no pointers.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) }
}

/// Whether this kernel has the commands and lets this process use them.
pub(crate) fn is_available() -> bool {
    let needed = GLOBAL_EXPEDITED | REGISTER_GLOBAL_EXPEDITED;
    let commands = membarrier(QUERY);
    commands >= 0 && commands & needed == needed
}

/// Registers this process, once. From then on the barriers of other processes reach its processors too.
pub(crate) fn register() -> io::Result<()> {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    // Relaxed, both: registering twice does no harm.
    if !REGISTERED.load(Ordering::Relaxed) {
        if membarrier(REGISTER_GLOBAL_EXPEDITED) != 0 {
            return Err(io::Error::last_os_error());
        }
        REGISTERED.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// Runs the barrier.
pub(crate) fn everywhere() {
    // Cannot fail in a process that `register` registered. If it did, a wake-up could come one slice of sleep late.
    membarrier(GLOBAL_EXPEDITED);
}
