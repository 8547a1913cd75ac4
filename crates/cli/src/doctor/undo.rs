//! Whether the kernel undoes what a process did to a semaphore when it ends: roles of System V pipes rest on it, and
//! sandboxes that make their own system calls (gVisor) accept the flag and do nothing.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::check::Check;

const NAME: &str = "undo";

/// Far longer than the kernel takes between the end of a thread and the undoing.
const PATIENCE: Duration = Duration::from_secs(2);

pub fn check() -> Check {
    // In a thread of its own, which leaves its namespace behind.
    let probed =
        thread::Builder::new().spawn(probe).map(|thread| thread.join().expect("the probe does not panic"));
    match probed.and_then(|probed| probed) {
        Ok(undone) => judge(undone),
        Err(error) => Check::impossible(NAME, error.to_string()),
    }
}

fn judge(undone: bool) -> Check {
    let mut check = Check::new(NAME);
    check.fact("undone", undone);
    match undone {
        true => check.summary("the kernel gives back what a process held that has ended"),
        false => {
            check.summary("the kernel does not give back what a process held that has ended");
            check.find(
                "semaphores keep what a process did that has ended (SEM_UNDO does nothing)",
                "the role of a producer or consumer that is killed stays taken: the other side waits for ever",
                "use memfd:, posix: or file: addresses here, or another container runtime than gVisor (runsc)",
            );
        }
    }
    check
}

/// Whether a value is undone. In an IPC namespace of its own where that is allowed, so that nothing is left behind
/// even if we are killed here.
fn probe() -> io::Result<bool> {
    // SAFETY: takes a number; concerns this thread alone, which ends soon.
    let _ = unsafe { libc::unshare(libc::CLONE_NEWIPC) };
    let set = Set::new()?;
    match thread::scope(|scope| scope.spawn(|| raise_apart(&set)).join().expect("it does not panic")) {
        Ok(()) => {}
        // A thread may not have undos of its own here. A process always has.
        Err(_) => raise_in_child(&set)?,
    }
    let start = Instant::now();
    loop {
        match set.value()? {
            0 => return Ok(true),
            _ if start.elapsed() > PATIENCE => return Ok(false),
            _ => thread::sleep(Duration::from_micros(200)),
        }
    }
}

/// Raises the semaphore in this thread, to be undone when it ends.
fn raise_apart(set: &Set) -> io::Result<()> {
    // SAFETY: takes a number; concerns this thread alone.
    match unsafe { libc::unshare(libc::CLONE_SYSVSEM) } {
        -1 => Err(io::Error::last_os_error()),
        _ => set.raise(),
    }
}

/// Raises the semaphore in a child, to be undone when it ends.
fn raise_in_child(set: &Set) -> io::Result<()> {
    // SAFETY: the child makes two system calls, which is allowed after fork whatever other threads do.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let failed = set.raise().is_err();
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(failed.into()) }
        }
        child => {
            let mut status = 0;
            // SAFETY: our own child, and room for its status.
            while unsafe { libc::waitpid(child, &mut status, 0) } == -1 {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            match status {
                0 => Ok(()),
                _ => Err(io::Error::other("semop failed in a child")),
            }
        }
    }
}

/// One semaphore that nobody else knows, removed when dropped.
struct Set(i32);

impl Set {
    fn new() -> io::Result<Self> {
        // SAFETY: takes numbers.
        match unsafe { libc::semget(libc::IPC_PRIVATE, 1, libc::IPC_CREAT | 0o600) } {
            -1 => Err(io::Error::last_os_error()),
            id => Ok(Set(id)),
        }
    }

    fn raise(&self) -> io::Result<()> {
        let mut operation =
            libc::sembuf { sem_num: 0, sem_op: 1, sem_flg: (libc::SEM_UNDO | libc::IPC_NOWAIT) as i16 };
        // SAFETY: one operation, which is live.
        match unsafe { libc::semop(self.0, &mut operation, 1) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    fn value(&self) -> io::Result<i32> {
        // SAFETY: GETVAL takes no pointer.
        match unsafe { libc::semctl(self.0, 0, libc::GETVAL) } {
            -1 => Err(io::Error::last_os_error()),
            value => Ok(value),
        }
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        // SAFETY: IPC_RMID takes no pointer.
        unsafe { libc::semctl(self.0, 0, libc::IPC_RMID) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::Verdict;

    #[test]
    fn this_kernel_undoes_what_a_thread_and_what_a_child_did() {
        let set = Set::new().unwrap();
        for raise in [raise_apart, raise_in_child] {
            thread::scope(|scope| scope.spawn(|| raise(&set)).join().unwrap().unwrap());
            let start = Instant::now();
            while set.value().unwrap() != 0 {
                assert!(start.elapsed() < Duration::from_secs(60), "never undone");
                thread::yield_now();
            }
        }
        // Apart, since it leaves our namespace behind, and `set` with it.
        assert!(thread::scope(|scope| scope.spawn(probe).join().unwrap().unwrap()));
    }

    #[test]
    fn a_kernel_that_does_not_is_a_finding() {
        assert_eq!((judge(true).verdict(), judge(false).verdict()), (Verdict::Ok, Verdict::Finding));
    }
}
