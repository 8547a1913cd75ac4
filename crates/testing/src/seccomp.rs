//! Makes system calls fail as on another kernel or in a container, or kill the thread that makes them.

use super::process::{Line, Process};

/// Selects calls by the bits of an argument.
#[derive(Clone, Copy, Debug)]
pub struct Argument {
    pub number: u32,
    pub mask: u32,
    pub value: u32,
}

/// Makes `call` fail with `errno`, in this thread and in all that it starts. With `argument`, only calls with that argument fail.
pub fn forbid(call: libc::c_long, argument: Option<Argument>, errno: i32) {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    // Continues with the next statement if equal; else skips to the last one, which allows the call.
    let only = |k: u32, skip: u8| libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: 0,
        jf: skip,
        k,
    };
    let load = |offset: u32| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    let refuse = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32);
    let allow = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW);
    // struct seccomp_data: the call's number, the architecture, the instruction pointer, and from byte 16 the arguments with 8
    // bytes each, lower half first on little-endian machines.
    let filter = match argument {
        None => vec![load(0), only(call as u32, 1), refuse, allow],
        Some(Argument { number, mask, value }) => vec![
            load(0),
            only(call as u32, 4),
            load(16 + 8 * number),
            statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask),
            only(value, 1),
            refuse,
            allow,
        ],
    };
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program and its filter live until the call returns.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}

/// Runs `act` in a thread that the kernel kills at every system call, except read, write and exit: this one. Begins when the parent
/// says so, reports when it is done, and waits to be killed.
pub fn without_system_calls(line: &mut Line, act: impl FnOnce()) -> ! {
    line.say("ready");
    assert_eq!(line.hear().as_deref(), Some("go"));
    // SAFETY: no pointers.
    let sealed = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT, 0, 0, 0) };
    assert_eq!(sealed, 0, "{}", std::io::Error::last_os_error());
    act();
    let word = b"done\n";
    let mut byte = 0u8;
    // SAFETY: the two buffers are live.
    unsafe {
        libc::write(0, word.as_ptr().cast(), word.len());
        loop {
            libc::read(0, (&raw mut byte).cast(), 1);
        }
    }
}

/// Starts the parts together, and waits until each is done [without system calls](without_system_calls).
pub fn run_without_system_calls(parts: &mut [Process]) {
    for part in &mut *parts {
        assert_eq!(part.hear(), "ready");
    }
    for part in &mut *parts {
        part.say("go");
    }
    for part in parts {
        assert_eq!(part.hear(), "done");
    }
}
