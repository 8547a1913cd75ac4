//! The system calls of a traced thread: which one it is about to make, and having it fail instead. On x86-64 alone.

use super::Traced;
use std::ptr::null_mut;

/// A system call as a thread enters it.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub number: i64,
    pub arguments: [u64; 6],
}

impl Traced {
    fn registers(&self) -> libc::user_regs_struct {
        // SAFETY: all fields are integers.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        // SAFETY: the request writes one user_regs_struct to the pointer.
        let done =
            unsafe { libc::ptrace(libc::PTRACE_GETREGS, self.thread, null_mut::<u8>(), &raw mut registers) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        registers
    }

    fn set_registers(&self, registers: libc::user_regs_struct) {
        // SAFETY: the request reads one user_regs_struct from the pointer.
        let done = unsafe {
            libc::ptrace(libc::PTRACE_SETREGS, self.thread, null_mut::<u8>(), &raw const registers)
        };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }

    /// The call that it stands before.
    pub fn call(&self) -> Call {
        let now = self.registers();
        let arguments = [now.rdi, now.rsi, now.rdx, now.r10, now.r8, now.r9];
        Call { number: now.orig_rax as i64, arguments }
    }

    /// The word at an address of its memory.
    pub fn peek(&self, address: u64) -> u64 {
        // SAFETY: the request reads of the other process; a bad address is an error, which looks like a word.
        unsafe { libc::ptrace(libc::PTRACE_PEEKDATA, self.thread, address, null_mut::<u8>()) as u64 }
    }

    /// Takes the call that it stands before from it.
    pub fn skip_call(&self) {
        self.set_registers(libc::user_regs_struct { orig_rax: u64::MAX, ..self.registers() });
    }

    /// Has the call that it stands behind return an error.
    pub fn answer(&self, errno: i32) {
        self.set_registers(libc::user_regs_struct { rax: -i64::from(errno) as u64, ..self.registers() });
    }
}
