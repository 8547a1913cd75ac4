//! Reads the next system call of a traced thread, and makes it fail. Only on x86-64.

use super::Traced;
use std::ptr::null_mut;

/// A system call at its entry.
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

    /// The call that the thread is about to enter.
    pub fn call(&self) -> Call {
        let now = self.registers();
        let arguments = [now.rdi, now.rsi, now.rdx, now.r10, now.r8, now.r9];
        Call { number: now.orig_rax as i64, arguments }
    }

    /// The word at an address in the thread's memory.
    pub fn peek(&self, address: u64) -> u64 {
        // SAFETY: the request reads memory of the other process. A bad address is an error, and returned as if it were a word.
        unsafe { libc::ptrace(libc::PTRACE_PEEKDATA, self.thread, address, null_mut::<u8>()) as u64 }
    }

    /// Cancels the call that the thread is about to enter.
    pub fn skip_call(&self) {
        self.set_registers(libc::user_regs_struct { orig_rax: u64::MAX, ..self.registers() });
    }

    /// Makes the call that the thread is leaving return an error.
    pub fn answer(&self, errno: i32) {
        self.set_registers(libc::user_regs_struct { rax: -i64::from(errno) as u64, ..self.registers() });
    }
}
