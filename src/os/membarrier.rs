//! `membarrier`: a full memory barrier on every processor that runs a registered process, for the price of a system
//! call on the side that wants to sleep. See membarrier(2), `MEMBARRIER_CMD_GLOBAL_EXPEDITED`.

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

/// Whether this kernel lets this process use it.
pub(crate) fn is_available() -> bool {
    let needed = GLOBAL_EXPEDITED | REGISTER_GLOBAL_EXPEDITED;
    let commands = membarrier(QUERY);
    commands >= 0 && commands & needed == needed
}

/// Registers this process, once: from here on the barriers of others reach its processors too.
pub(crate) fn register() -> io::Result<()> {
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    // Relaxed, both: to register once more does no harm.
    if !REGISTERED.load(Ordering::Relaxed) {
        if membarrier(REGISTER_GLOBAL_EXPEDITED) != 0 {
            return Err(io::Error::last_os_error());
        }
        REGISTERED.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// The barrier.
pub(crate) fn everywhere() {
    // It cannot fail in a process for which `register` has succeeded; if it did, a wake-up could come one slice of
    // sleep late.
    membarrier(GLOBAL_EXPEDITED);
}
