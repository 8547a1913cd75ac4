//! Whether the kernel removes System V segments that no process has attached (`kernel.shm_rmid_forced`).

use std::fs;

use super::check::Check;

const NAME: &str = "shm_rmid_forced";

const PATH: &str = "/proc/sys/kernel/shm_rmid_forced";

pub fn check() -> Check {
    match fs::read_to_string(PATH) {
        Ok(value) => judge(value.trim() != "0"),
        Err(error) => Check::impossible(NAME, format!("{PATH}: {error}")),
    }
}

fn judge(forced: bool) -> Check {
    let mut check = Check::new(NAME);
    check.fact("forced", forced);
    match forced {
        false => check.summary("System V segments stay when no process has them attached"),
        true => {
            check.summary("the kernel removes System V segments that no process has attached");
            check.find(
                "kernel.shm_rmid_forced is 1",
                "a System V pipe would vanish with the last process that has it open, unread messages included, so such pipes are \
                 refused here",
                "sysctl -w kernel.shm_rmid_forced=0   # or: posix:, file: or memfd: addresses; or shmpipe keep ADDRESS",
            );
        }
    }
    check
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::check::Verdict;

    #[test]
    fn a_kernel_that_removes_segments_is_a_finding() {
        assert_eq!((judge(false).verdict(), judge(true).verdict()), (Verdict::Ok, Verdict::Finding));
    }
}
