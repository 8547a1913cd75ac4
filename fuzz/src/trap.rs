//! Changes a word of the segment in the middle of a call, after the n-th access of the call to the segment.
//!
//! The library's mapping is made inaccessible, so each access raises SIGSEGV. The handler makes the mapping accessible for one
//! instruction. The SIGTRAP after that instruction counts the access, and makes the mapping inaccessible again. So a word can change
//! between check and use, at every point where a real peer could change it, and at the same point in every run of an input. For a
//! single thread only.

#![cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, unused_imports, reason = "single steps need x86-64")
)]

use crate::bare::Bare;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// A change of a word.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// The number of accesses before the change.
    pub after: u32,
    pub offset: usize,
    pub word: u64,
}

/// The result of a call with a change.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// The number of accesses before the change, or of all accesses.
    pub accesses: u32,
    /// Whether the call made enough accesses for the change.
    pub changed: bool,
}

static START: AtomicUsize = AtomicUsize::new(0);
static END: AtomicUsize = AtomicUsize::new(0);
static TARGET: AtomicUsize = AtomicUsize::new(0);
static WORD: AtomicU64 = AtomicU64::new(0);
static AFTER: AtomicU32 = AtomicU32::new(0);
static ACCESSES: AtomicU32 = AtomicU32::new(0);
static IS_ARMED: AtomicBool = AtomicBool::new(false);
static HAS_CHANGED: AtomicBool = AtomicBool::new(false);

/// Calls `call`, and makes the change in its middle.
#[cfg(target_arch = "x86_64")]
pub fn during<T>(bare: &Bare, change: Change, call: impl FnOnce() -> T) -> (T, Seen) {
    static HANDLERS: Once = Once::new();
    HANDLERS.call_once(x86_64::install);
    let view = bare.view();
    assert!(change.offset % 8 == 0 && change.offset < view.len());
    START.store(view.start, Relaxed);
    END.store(view.end, Relaxed);
    TARGET.store(bare.own().as_ptr() as usize + change.offset, Relaxed);
    WORD.store(change.word, Relaxed);
    AFTER.store(change.after, Relaxed);
    ACCESSES.store(0, Relaxed);
    HAS_CHANGED.store(false, Relaxed);
    IS_ARMED.store(true, Relaxed);
    x86_64::protect(libc::PROT_NONE);
    let result = call();
    IS_ARMED.store(false, Relaxed);
    x86_64::protect(libc::PROT_READ | libc::PROT_WRITE);
    (result, Seen { accesses: ACCESSES.load(Relaxed), changed: HAS_CHANGED.load(Relaxed) })
}

/// Calls `call`. On other processors nothing changes meanwhile.
#[cfg(not(target_arch = "x86_64"))]
pub fn during<T>(_: &Bare, _: Change, call: impl FnOnce() -> T) -> (T, Seen) {
    (call(), Seen::default())
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use super::*;
    use std::mem::{MaybeUninit, zeroed};
    use std::ptr::null_mut;

    /// The flag that makes the processor trap after each instruction.
    const TRAP_FLAG: i64 = 1 << 8;

    /// The previous SIGSEGV handler. Written once, before any handler of ours runs.
    static mut BEFORE: MaybeUninit<libc::sigaction> = MaybeUninit::uninit();

    pub fn install() {
        for (signal, handler) in
            [(libc::SIGSEGV, on_access as *const () as usize), (libc::SIGTRAP, on_step as *const () as usize)]
        {
            // SAFETY: the structures are live and of the right type. The handlers only make system calls and use atomics.
            unsafe {
                let mut action: libc::sigaction = zeroed();
                action.sa_sigaction = handler;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK;
                let before = if signal == libc::SIGSEGV { (&raw mut BEFORE).cast() } else { null_mut() };
                assert_eq!(libc::sigaction(signal, &action, before), 0);
            }
        }
    }

    pub fn protect(protection: i32) {
        let (start, end) = (START.load(Relaxed), END.load(Relaxed));
        // SAFETY: the range is the library's mapping, and this thread is its only user. While it is inaccessible, each access ends
        // in `on_access`.
        unsafe { libc::mprotect(start as *mut _, end - start, protection) };
    }

    fn flags(context: *mut libc::c_void) -> &'static mut i64 {
        // SAFETY: the kernel passed the context to the handler that calls this, which uses it only while it runs.
        unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_EFL as usize] }
    }

    extern "C" fn on_access(_: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
        // SAFETY: the kernel provides the address of the access.
        let address = unsafe { (*info).si_addr() } as usize;
        if !IS_ARMED.load(Relaxed) || !(START.load(Relaxed)..END.load(Relaxed)).contains(&address) {
            // A real fault. The instruction runs again, now with the previous handler.
            // SAFETY: the action that `install` saved.
            unsafe { libc::sigaction(libc::SIGSEGV, (&raw const BEFORE).cast(), null_mut()) };
            return;
        }
        if ACCESSES.load(Relaxed) == AFTER.load(Relaxed) {
            change();
            return;
        }
        protect(libc::PROT_READ | libc::PROT_WRITE);
        *flags(context) |= TRAP_FLAG;
    }

    extern "C" fn on_step(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
        *flags(context) &= !TRAP_FLAG;
        ACCESSES.fetch_add(1, Relaxed);
        protect(libc::PROT_NONE);
    }

    /// Makes the change right before an access. The rest of the call runs without traps.
    fn change() {
        // SAFETY: a word of our own mapping, which is accessible.
        unsafe { (TARGET.load(Relaxed) as *mut u64).write_volatile(WORD.load(Relaxed)) };
        HAS_CHANGED.store(true, Relaxed);
        IS_ARMED.store(false, Relaxed);
        protect(libc::PROT_READ | libc::PROT_WRITE);
    }
}
