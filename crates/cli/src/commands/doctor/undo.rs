//! Whether the kernel undoes what a process did to a semaphore when it ends: roles of System V pipes rest on it, and
//! sandboxes that make their own system calls (gVisor) accept the flag and do nothing.

use super::check::Check;
use nix::sched::{CloneFlags, unshare};
use shmpipe::{Options, SetupError};
use std::thread;

const NAME: &str = "undo";

pub fn check() -> Check {
    // In a thread of its own, which leaves its namespace behind.
    let made = thread::Builder::new().spawn(make_one).map(|thread| thread.join().expect("it does not panic"));
    match made.map_err(|error| error.to_string()) {
        Ok(Ok(())) => judge(true),
        Ok(Err(SetupError::NoUndo { .. })) => judge(false),
        Ok(Err(error)) => Check::impossible(NAME, error.to_string()),
        Err(error) => Check::impossible(NAME, error),
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
                "the role of a producer or consumer that is killed would stay taken: System V pipes are refused here",
                "use memfd:, posix: or file: addresses here, or another container runtime than gVisor (runsc)",
            );
        }
    }
    check
}

/// Makes a pipe, which looks whether its kernel undoes. In an IPC namespace of its own where that is allowed, so that
/// nothing is left behind even if we are killed here.
fn make_one() -> Result<(), SetupError> {
    // Concerns this thread alone, which ends soon.
    let _ = unshare(CloneFlags::CLONE_NEWIPC);
    let pipe = Options::new().capacity(4096).create("sysv:private")?;
    shmpipe::unlink(pipe.address())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::check::Verdict;

    #[test]
    fn this_kernel_undoes() {
        assert_eq!(check().verdict(), Verdict::Ok);
    }

    #[test]
    fn a_kernel_that_does_not_is_a_finding() {
        assert_eq!((judge(true).verdict(), judge(false).verdict()), (Verdict::Ok, Verdict::Finding));
    }
}
