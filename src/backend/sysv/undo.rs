//! Whether the kernel undoes the semaphore operations of a process when it ends (`SEM_UNDO`), which the lock of a set depends on. Sandboxes
//! that implement system calls themselves may accept the flag and ignore it, as gVisor does.

use super::INSPECTION_TIME;
use super::semaphores::InitLock;
use std::ffi::{c_int, c_void};
use std::io;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

static SUPPORTED: OnceLock<bool> = OnceLock::new();

/// Bytes of stack for a child that makes one system call.
const STACK: usize = 64 << 10;

/// Whether it does; tested once per process. The test uses the lock of a set, which the caller holds: so it creates nothing, and
/// leaves nothing behind wherever we are killed. If no child can be created, the answer is yes.
///
/// Costs about as much as creating and ending a process: 80 us.
pub(super) fn is_supported(lock: &InitLock) -> bool {
    if let Some(&supported) = SUPPORTED.get() {
        return supported;
    }
    // A second thread may run the test at the same time.
    probe(lock).is_none_or(|supported| *SUPPORTED.get_or_init(|| supported))
}

/// Lets a child increment the lock's semaphore with undo, and exit.
fn probe(lock: &InitLock) -> Option<bool> {
    in_child(lock).ok()?;
    // Our child's increment was undone before we came here. But another process may have been killed during its test, and its
    // child may end later.
    let deadline = Instant::now() + INSPECTION_TIME;
    while lock.count().ok()? > 1 {
        if Instant::now() >= deadline {
            lock.decrement().ok()?;
            return Some(false);
        }
        thread::sleep(Duration::from_micros(100));
    }
    Some(true)
}

extern "C" fn increment(lock: *mut c_void) -> c_int {
    // SAFETY: `in_child` passes a lock that outlives the child and that nothing changes meanwhile.
    let lock = unsafe { &*lock.cast::<InitLock>() };
    lock.increment().is_err().into()
}

/// Runs `increment` in a child that shares our memory and has its own undo list, as `posix_spawn` creates one, while this thread
/// waits. Returns after the child has ended and its operations were undone: the kernel reports an exit only after that.
fn in_child(lock: &InitLock) -> io::Result<()> {
    let mut stack = vec![0_u128; STACK / size_of::<u128>()];
    let mut all = core::mem::MaybeUninit::uninit();
    let mut before = core::mem::MaybeUninit::uninit();
    let mut status = 0;
    let lock = std::ptr::from_ref(lock).cast_mut().cast();
    // All signals are blocked so that no handler of ours runs in the child. The child sends no signal when it ends, so that no
    // other code notices it or waits for it.
    // SAFETY: the sets are written before they are read. The child has its own stack, whose end is passed since it grows down.
    // The memory of ours that it uses does not change or go away: this thread continues only after the child has ended
    // (CLONE_VFORK). The child makes one system call, allocates nothing and takes no lock.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        let top = stack.as_mut_ptr_range().end.cast();
        let child = libc::clone(increment, top, libc::CLONE_VM | libc::CLONE_VFORK, lock);
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
