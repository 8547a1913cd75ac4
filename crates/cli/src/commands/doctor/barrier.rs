//! Whether the kernel runs memory barriers for sleepers (`membarrier`), so that messages need none.

use std::io;

use super::check::Check;

const NAME: &str = "membarrier";

/// The commands that pipes need.
const NEEDED: libc::c_long =
    (libc::MEMBARRIER_CMD_GLOBAL_EXPEDITED | libc::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED) as libc::c_long;

pub fn check() -> Check {
    // SAFETY: the call takes no pointers.
    let commands = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_QUERY, 0, 0) };
    judge(match commands {
        -1 => Err(io::Error::last_os_error()),
        commands => Ok(commands),
    })
}

fn judge(commands: io::Result<libc::c_long>) -> Check {
    let mut check = Check::new(NAME);
    let missing = match &commands {
        Ok(commands) if commands & NEEDED == NEEDED => None,
        Ok(_) => Some("the kernel has no membarrier(GLOBAL_EXPEDITED), which came with 4.16".to_owned()),
        Err(error) => Some(format!("membarrier fails: {error}")),
    };
    check.fact("global_expedited", missing.is_none());
    let Some(missing) = missing else {
        check.summary("sleepers pay for the barrier, messages do not");
        return check;
    };
    check.summary("every message pays for a fence");
    let fix = match commands {
        Ok(_) => "uname -r   # a kernel of 4.16 or newer",
        Err(_) => "docker run --security-opt seccomp=PROFILE ...   # a profile that allows membarrier",
    };
    check.find(
        missing,
        "new pipes use fences, which cost more than a message; pipes created with membarrier are refused",
        fix,
    );
    check
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::check::Verdict;

    #[test]
    fn both_commands_are_needed() {
        assert_eq!(judge(Ok(0b110)).verdict(), Verdict::Ok);
        for commands in [Ok(0), Ok(0b010), Ok(0b100), Err(io::Error::from_raw_os_error(libc::ENOSYS))] {
            assert_eq!(judge(commands).findings.len(), 1);
        }
    }
}
