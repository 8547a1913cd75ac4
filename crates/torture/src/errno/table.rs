//! The system calls to fail, and their errors by the manual pages.

use libc::{
    E2BIG, EACCES, EADDRINUSE, EAGAIN, EBUSY, ECONNABORTED, ECONNREFUSED, ECONNRESET, EDQUOT, EEXIST, EFAULT,
    EFBIG, EIDRM, EINTR, EINVAL, EIO, ELOOP, EMFILE, EMLINK, ENFILE, ENOBUFS, ENODEV, ENOENT, ENOLCK, ENOMEM,
    ENOSPC, ENOSYS, ENOTDIR, ENXIO, EOPNOTSUPP, EPERM, EPIPE, EROFS, ETIMEDOUT, EXDEV,
};
use shmpipe_testing::traced::Traced;
use shmpipe_testing::traced::calls::Call;

/// A system call, or one of its operations.
pub struct Entry {
    pub name: &'static str,
    number: i64,
    is_meant: fn(&Traced, &[u64; 6]) -> bool,
    pub errnos: &'static [i32],
    /// The call takes effect although it fails.
    pub is_done: bool,
}

const fn any(_: &Traced, _: &[u64; 6]) -> bool {
    true
}

const fn entry(name: &'static str, number: i64, errnos: &'static [i32]) -> Entry {
    Entry { name, number, is_meant: any, errnos, is_done: false }
}

const fn part(
    name: &'static str,
    number: i64,
    is_meant: fn(&Traced, &[u64; 6]) -> bool,
    errnos: &'static [i32],
) -> Entry {
    Entry { name, number, is_meant, errnos, is_done: false }
}

/// `IPC_CREAT` of shmget and semget.
fn makes(_: &Traced, arguments: &[u64; 6]) -> bool {
    arguments[2] as i32 & libc::IPC_CREAT != 0
}

fn finds(traced: &Traced, arguments: &[u64; 6]) -> bool {
    !makes(traced, arguments)
}

/// The command of shmctl.
fn shmctl<const COMMAND: i32>(_: &Traced, arguments: &[u64; 6]) -> bool {
    arguments[1] as i32 & 0xff == COMMAND
}

/// The command of semctl.
fn semctl<const COMMAND: i32>(_: &Traced, arguments: &[u64; 6]) -> bool {
    arguments[2] as i32 & 0xff == COMMAND
}

/// The command of fcntl.
fn fcntl<const COMMAND: i32>(_: &Traced, arguments: &[u64; 6]) -> bool {
    arguments[1] as i32 == COMMAND
}

/// The advice of madvise.
fn madvise<const ADVICE: i32>(_: &Traced, arguments: &[u64; 6]) -> bool {
    arguments[2] as i32 == ADVICE
}

/// The operation of futex, without its flags.
fn waits(_: &Traced, arguments: &[u64; 6]) -> bool {
    arguments[1] as i32 & 0x7f == libc::FUTEX_WAIT
}

/// Whether the first operation of a semop takes something. An operation that gives back cannot fail while the set exists.
fn takes(traced: &Traced, arguments: &[u64; 6]) -> bool {
    (traced.peek(arguments[1]) >> 16) as i16 >= 0
}

/// Whether it locks. An unlock cannot fail.
fn locks(traced: &Traced, arguments: &[u64; 6]) -> bool {
    fcntl::<{ libc::F_OFD_SETLK }>(traced, arguments)
        && traced.peek(arguments[2]) as i16 != libc::F_UNLCK as i16
}

/// Omits calls that cannot fail: those that unmap, close a directory, or return our ids. Also omits `brk`: Rust aborts a program
/// that is out of memory.
pub const TABLE: &[Entry] = &[
    part("shmget", libc::SYS_shmget, finds, &[EACCES, ENOENT, ENFILE, EPERM]),
    part("shmget(IPC_CREAT)", libc::SYS_shmget, makes, &[EEXIST, EINVAL, ENFILE, ENOMEM, ENOSPC, EPERM]),
    entry("shmat", libc::SYS_shmat, &[EACCES, EIDRM, EINVAL, ENOMEM]),
    part("shmctl(IPC_STAT)", libc::SYS_shmctl, shmctl::<{ libc::IPC_STAT }>, &[EACCES, EIDRM, EINVAL]),
    part("shmctl(IPC_RMID)", libc::SYS_shmctl, shmctl::<{ libc::IPC_RMID }>, &[EIDRM, EINVAL, EPERM]),
    part("semget", libc::SYS_semget, finds, &[EACCES, ENOENT, ENOMEM]),
    part("semget(IPC_CREAT)", libc::SYS_semget, makes, &[EEXIST, EINVAL, ENOMEM, ENOSPC]),
    part("semctl(IPC_STAT)", libc::SYS_semctl, semctl::<{ libc::IPC_STAT }>, &[EACCES, EIDRM, EINVAL]),
    part("semctl(IPC_RMID)", libc::SYS_semctl, semctl::<{ libc::IPC_RMID }>, &[EIDRM, EINVAL, EPERM]),
    part("semctl(GETVAL)", libc::SYS_semctl, semctl::<{ libc::GETVAL }>, &[EACCES, EIDRM, EINVAL]),
    part("semctl(GETPID)", libc::SYS_semctl, semctl::<{ libc::GETPID }>, &[EACCES, EIDRM, EINVAL]),
    part("semctl(SETVAL)", libc::SYS_semctl, semctl::<{ libc::SETVAL }>, &[EACCES, EIDRM, EINVAL]),
    part("semop", libc::SYS_semop, takes, &[E2BIG, EACCES, EAGAIN, EIDRM, EINTR, EINVAL, ENOMEM, ENOSPC]),
    part(
        "semtimedop",
        libc::SYS_semtimedop,
        takes,
        &[E2BIG, EACCES, EAGAIN, EIDRM, EINTR, EINVAL, ENOMEM, ENOSPC],
    ),
    entry("mmap", libc::SYS_mmap, &[EACCES, EAGAIN, ENFILE, ENODEV, ENOMEM, EPERM]),
    part(
        "madvise(MADV_DONTFORK)",
        libc::SYS_madvise,
        madvise::<{ libc::MADV_DONTFORK }>,
        &[EAGAIN, EINVAL, ENOMEM],
    ),
    part(
        "madvise(MADV_WIPEONFORK)",
        libc::SYS_madvise,
        madvise::<{ libc::MADV_WIPEONFORK }>,
        &[EINVAL, ENOMEM],
    ),
    part(
        "madvise(MADV_POPULATE_WRITE)",
        libc::SYS_madvise,
        madvise::<{ libc::MADV_POPULATE_WRITE }>,
        &[EAGAIN, EFAULT, EINVAL, ENOMEM],
    ),
    entry(
        "openat",
        libc::SYS_openat,
        &[
            EACCES, EINTR, EIO, ELOOP, EMFILE, ENFILE, ENODEV, ENOENT, ENOMEM, ENOSPC, ENOTDIR, ENXIO,
            EOPNOTSUPP, EPERM, EROFS,
        ],
    ),
    entry("statx", libc::SYS_statx, &[EACCES, ELOOP, ENOENT, ENOMEM, ENOSYS, ENOTDIR]),
    entry("newfstatat", libc::SYS_newfstatat, &[EACCES, ELOOP, ENOENT, ENOMEM, ENOTDIR]),
    entry("fstat", libc::SYS_fstat, &[EACCES, ENOMEM]),
    entry("fstatfs", libc::SYS_fstatfs, &[EINTR, EIO, ENOMEM, ENOSYS]),
    entry("lseek", libc::SYS_lseek, &[EINVAL, ENXIO]),
    entry("fallocate", libc::SYS_fallocate, &[EFBIG, EINTR, EIO, ENODEV, ENOSPC, ENOSYS, EOPNOTSUPP, EPERM]),
    entry("fchmod", libc::SYS_fchmod, &[EACCES, EIO, EPERM, EROFS]),
    entry("chmod", libc::SYS_chmod, &[EACCES, EIO, ENOENT, EPERM, EROFS]),
    part("fcntl(F_OFD_SETLK)", libc::SYS_fcntl, locks, &[EACCES, EAGAIN, EINTR, ENOLCK, ENOMEM]),
    part("fcntl(F_OFD_GETLK)", libc::SYS_fcntl, fcntl::<{ libc::F_OFD_GETLK }>, &[EINTR, ENOLCK, ENOMEM]),
    part("fcntl(F_GET_SEALS)", libc::SYS_fcntl, fcntl::<{ libc::F_GET_SEALS }>, &[EINVAL]),
    part("fcntl(F_ADD_SEALS)", libc::SYS_fcntl, fcntl::<{ libc::F_ADD_SEALS }>, &[EBUSY, EINVAL, EPERM]),
    part("fcntl(F_DUPFD_CLOEXEC)", libc::SYS_fcntl, fcntl::<{ libc::F_DUPFD_CLOEXEC }>, &[EMFILE]),
    entry(
        "linkat",
        libc::SYS_linkat,
        &[EACCES, EDQUOT, EEXIST, EIO, EMLINK, ENOENT, ENOMEM, ENOSPC, EPERM, EROFS, EXDEV],
    ),
    entry("unlink", libc::SYS_unlink, &[EACCES, EBUSY, EIO, ENOENT, ENOMEM, EPERM, EROFS]),
    entry("pread64", libc::SYS_pread64, &[EAGAIN, EINTR, EIO]),
    entry("read", libc::SYS_read, &[EAGAIN, EINTR, EIO]),
    entry("getrandom", libc::SYS_getrandom, &[EAGAIN, EINTR, ENOSYS]),
    entry("membarrier", libc::SYS_membarrier, &[EINVAL, ENOSYS, EPERM]),
    entry("memfd_create", libc::SYS_memfd_create, &[EACCES, EINVAL, EMFILE, ENFILE, ENOMEM, EPERM]),
    entry("clone3", libc::SYS_clone3, &[EAGAIN, ENOMEM, ENOSPC, EPERM]),
    part("futex(FUTEX_WAIT)", libc::SYS_futex, waits, &[EAGAIN, EINTR, ETIMEDOUT]),
    entry("clock_nanosleep", libc::SYS_clock_nanosleep, &[EINTR]),
    entry("socket", libc::SYS_socket, &[EACCES, EMFILE, ENFILE, ENOBUFS, ENOMEM]),
    entry("setsockopt", libc::SYS_setsockopt, &[EINVAL, ENOMEM]),
    entry("connect", libc::SYS_connect, &[EACCES, EAGAIN, ECONNREFUSED, EINTR, ENOENT, ENOTDIR, EPERM]),
    entry("getsockopt", libc::SYS_getsockopt, &[EINVAL, ENOBUFS, ENOMEM]),
    entry("recvmsg", libc::SYS_recvmsg, &[EAGAIN, ECONNRESET, EINTR, ENOMEM]),
    entry("sendmsg", libc::SYS_sendmsg, &[EAGAIN, ECONNRESET, EINTR, ENOBUFS, ENOMEM, EPIPE]),
    entry("accept4", libc::SYS_accept4, &[ECONNABORTED, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM]),
    entry("bind", libc::SYS_bind, &[EACCES, EADDRINUSE, EIO, ELOOP, ENOENT, ENOMEM, ENOTDIR, EROFS]),
    entry("listen", libc::SYS_listen, &[EADDRINUSE]),
    entry("renameat2", libc::SYS_renameat2, &[EACCES, EINVAL, EIO, ENOENT, ENOMEM, ENOSPC, EPERM, EROFS]),
    Entry {
        name: "close",
        number: libc::SYS_close,
        is_meant: any,
        errnos: &[EINTR, EIO, ENOSPC],
        is_done: true,
    },
];

/// The index of a call in the table.
pub fn find(traced: &Traced, call: Call) -> Option<usize> {
    TABLE.iter().position(|entry| entry.number == call.number && (entry.is_meant)(traced, &call.arguments))
}

/// Calls whose interruption by a signal the library may report: calls that never wait, and the one whose caller waits for signals.
pub const REPORT_SIGNALS: [&str; 8] = [
    "semop",
    "semtimedop",
    "fcntl(F_OFD_SETLK)",
    "fcntl(F_OFD_GETLK)",
    "getrandom",
    "fstatfs",
    "sendmsg",
    "accept4",
];

/// Whether an error variant has the meaning of an error number, without containing it.
pub fn says(errno: i32, error: &str) -> bool {
    let variants: &[&str] = match errno {
        // For a lock, both mean that another process has it.
        EACCES => &["PermissionDenied", "RoleTaken", "Busy"],
        EPERM => &["PermissionDenied"],
        ENOENT | ENOTDIR => &["NotFound", "Removed"],
        EEXIST => &["Exists", "Busy"],
        EAGAIN => &["RoleTaken", "Busy"],
        EIDRM => &["NotFound", "Removed", "Replaced", "Role", "RemovedSegments"],
        // Also for a descriptor without seals.
        EINVAL => &["NotFound", "Removed", "Replaced", "Role", "RemovedSegments", "System", "Unsealed"],
        ENOSPC => &["Space", "System"],
        ENOMEM => &["System", "Unbacked"],
        EMFILE => &["System"],
        EFAULT => &["Unbacked"],
        EROFS => &["ReadOnly"],
        ECONNREFUSED => &["NotFound"],
        EADDRINUSE => &["Exists"],
        _ => &[],
    };
    variants.contains(&error)
}
