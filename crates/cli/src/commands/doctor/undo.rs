//! Whether the kernel undoes the semaphore operations of a process that ends: the locks of System V pipes rely on it. Sandboxes
//! that implement system calls themselves (gVisor) accept the flag and do nothing.

use super::check::Check;
use nix::sched::{CloneFlags, unshare};
use shmpipe::error::MissingFeature;
use shmpipe::{Options, SetupError};
use std::thread;

const NAME: &str = "undo";

pub fn check() -> Check {
    // In a thread of its own, which leaves its namespace behind.
    let created = thread::Builder::new()
        .spawn(create_and_remove)
        .map(|thread| thread.join().expect("it does not panic"));
    match created.map_err(|error| error.to_string()) {
        Ok(Ok(())) => judge(true),
        Ok(Err(SetupError::Kernel(MissingFeature::Undo { .. }))) => judge(false),
        Ok(Err(error)) => Check::impossible(NAME, error.to_string()),
        Err(error) => Check::impossible(NAME, error),
    }
}

fn judge(undone: bool) -> Check {
    let mut check = Check::new(NAME);
    check.fact("undone", undone);
    match undone {
        true => check.summary("the kernel undoes the semaphore operations of a process that ends"),
        false => {
            check.summary("the kernel does not undo the semaphore operations of a process that ends");
            check.find(
                "semaphores keep the operations of a process that ended (SEM_UNDO has no effect)",
                "a process killed while it creates, opens or removes a System V pipe would leave it locked, so they are refused here",
                "use memfd:, posix: or file: addresses here, accept that (--allow-missing-undo), or use another container runtime than gVisor (runsc)",
            );
        }
    }
    check
}

/// Creates a pipe, which checks that its kernel undoes. In an IPC namespace of its own where that is allowed, so that a kill
/// at this point leaves nothing behind.
fn create_and_remove() -> Result<(), SetupError> {
    // Concerns this thread alone, which ends soon.
    let _ = unshare(CloneFlags::CLONE_NEWIPC);
    let pipe = Options::new().capacity(4096).allow_rmid_forced(true).create("sysv:private")?;
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
