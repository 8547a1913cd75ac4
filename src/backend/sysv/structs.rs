//! Differences between the C libraries, or in how the libc crate declares them.

/// The status of a semaphore set.
#[cfg(not(target_env = "musl"))]
pub(super) use libc::semid_ds as SemidDs;

/// The status of a semaphore set: `struct semid_ds` of musl's bits/sem.h, which the libc crate lacks. The kernel writes and reads
/// exactly this layout.
#[cfg(target_env = "musl")]
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "the kernel's layout")]
pub(super) struct SemidDs {
    pub(super) sem_perm: libc::ipc_perm,
    sem_otime: i64,
    #[cfg(target_arch = "x86_64")]
    unused_1: u64,
    sem_ctime: i64,
    #[cfg(target_arch = "x86_64")]
    unused_2: u64,
    pub(super) sem_nsems: u64,
    unused_3: [u64; 2],
}

#[cfg(target_env = "musl")]
const _: () = assert!(cfg!(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")));

/// The key of an object: the first field of its permissions, whose name differs.
pub(super) fn key_of(permissions: &libc::ipc_perm) -> libc::key_t {
    // SAFETY: in every C library the struct starts with a key_t.
    unsafe { *(&raw const *permissions).cast::<libc::key_t>() }
}

/// The mode of an object, whose type differs.
#[allow(clippy::useless_conversion, reason = "it is a u32 in some C libraries")]
pub(super) fn mode_of(permissions: &libc::ipc_perm) -> u32 {
    u32::from(permissions.mode)
}
