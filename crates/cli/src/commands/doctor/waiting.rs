//! Whether the kernel lets a thread sleep on many pipes (`futex_waitv`).

use std::io;

use super::check::Check;

const NAME: &str = "futex_waitv";

pub fn check() -> Check {
    judge(shmpipe::os::unix::can_sleep_on_many())
}

fn judge(can: io::Result<()>) -> Check {
    let mut check = Check::new(NAME);
    check.fact("futex_waitv", can.is_ok());
    let Err(error) = can else {
        check.summary("a thread can sleep on many pipes");
        return check;
    };
    check.summary("sets of pipes wait by a timer");
    let fix = match error.raw_os_error() {
        Some(libc::EPERM) => {
            "docker run --security-opt seccomp=PROFILE ...   # a profile that allows futex_waitv"
        }
        _ => "uname -r   # a kernel of 5.16 or newer, and a seccomp profile that allows futex_waitv",
    };
    check.find(
        format!("futex_waitv fails: {error}"),
        "a program that waits for many pipes, in a set, in futures or by a descriptor, looks at them every millisecond",
        fix,
    );
    check
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::check::Verdict;

    #[test]
    fn a_refusal_is_found_with_its_error() {
        assert_eq!(judge(Ok(())).verdict(), Verdict::Ok);
        for errno in [libc::ENOSYS, libc::EPERM] {
            let check = judge(Err(io::Error::from_raw_os_error(errno)));
            assert_eq!(check.findings.len(), 1);
        }
    }
}
