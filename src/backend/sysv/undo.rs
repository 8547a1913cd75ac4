//! Whether the kernel takes back what a process did to a semaphore (`SEM_UNDO`) when it ends, which is what roles rest on.
//! Sandboxes that make system calls of their own may accept the flag and do nothing; gVisor does so.

use super::LOOKING;
use super::semaphores::InitLock;
use std::ffi::{c_int, c_void};
use std::io;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

static KEPT: OnceLock<bool> = OnceLock::new();

/// Bytes of stack for a child that makes one system call.
const STACK: usize = 64 << 10;

/// Whether it does; looked at once in a process. The caller holds the lock of a set, which is what is looked at, so that nothing
/// has to be made, and nothing is left behind wherever we are killed. If no child can be had, nothing speaks against it.
///
/// Costs about what starting and ending a process costs: 80 us.
pub(super) fn is_kept(lock: &InitLock) -> bool {
    if let Some(&kept) = KEPT.get() {
        return kept;
    }
    // A second thread that comes meanwhile looks too.
    look(lock).is_none_or(|kept| *KEPT.get_or_init(|| kept))
}

/// Whether it was looked at and is not so.
pub(super) fn is_known_to_be_lost() -> bool {
    KEPT.get() == Some(&false)
}

/// Has a child count the lock once more, with undo, and end.
fn look(lock: &InitLock) -> Option<bool> {
    in_child(lock).ok()?;
    // Ours was undone before we came here. But somebody may have been killed while he looked, whose child ends later.
    let deadline = Instant::now() + LOOKING;
    while lock.count().ok()? > 1 {
        if Instant::now() >= deadline {
            lock.give_back_one().ok()?;
            return Some(false);
        }
        thread::sleep(Duration::from_micros(100));
    }
    Some(true)
}

extern "C" fn count_once_more(lock: *mut c_void) -> c_int {
    // SAFETY: `in_child` passes a lock that outlives the child, and nobody changes it.
    let lock = unsafe { &*lock.cast::<InitLock>() };
    lock.count_once_more().is_err().into()
}

/// Makes a child that shares our memory, while this thread waits, and that has undos of its own; as `posix_spawn` makes
/// one. Returns when it has ended and was undone: the kernel tells a parent after that.
fn in_child(lock: &InitLock) -> io::Result<()> {
    let mut stack = vec![0_u128; STACK / size_of::<u128>()];
    let mut all = core::mem::MaybeUninit::uninit();
    let mut before = core::mem::MaybeUninit::uninit();
    let mut status = 0;
    let lock = std::ptr::from_ref(lock).cast_mut().cast();
    // No handler of ours is to run in the child. No signal at its end: nobody else is to hear of it, nor to wait for it.
    // SAFETY: the sets are written before they are read. The child has a stack of its own, whose end is given since it grows
    // down, and what it uses of our memory stays as it is: this thread goes on when it has ended (CLONE_VFORK). It makes one
    // system call, allocates nothing and takes no lock.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        let top = stack.as_mut_ptr_range().end.cast();
        let child = libc::clone(count_once_more, top, libc::CLONE_VM | libc::CLONE_VFORK, lock);
        let cloned = if child == -1 { Err(io::Error::last_os_error()) } else { Ok(()) };
        while child != -1 && libc::waitpid(child, &raw mut status, libc::__WALL) == -1 {
            if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                break;
            }
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
        cloned?;
    }
    if status == 0 { Ok(()) } else { Err(io::Error::other("semop failed in a child")) }
}
