"""The kernel and the processor: system calls and atomic accesses, by ctypes. Nothing here knows the layout."""

import ctypes
import os
import platform
import struct

libc = ctypes.CDLL(None, use_errno=True)
libatomic = ctypes.CDLL("libatomic.so.1")

# System calls without a function in the C library, and the place of `sem_nsems` in `semid64_ds`.
SYS_FUTEX, SYS_MEMBARRIER, SEM_NSEMS = {"x86_64": (202, 324, 80), "aarch64": (98, 283, 64)}[platform.machine()]

IPC_PRIVATE, IPC_CREAT, IPC_EXCL, IPC_NOWAIT = 0, 0o1000, 0o2000, 0o4000
IPC_RMID, IPC_SET, IPC_STAT, SHM_STAT_ANY = 0, 1, 2, 15
GETPID, GETVAL, SETVAL = 11, 12, 16
SHM_RDONLY, SHM_DEST, SEM_UNDO = 0o10000, 0o1000, 0x1000
MADV_DONTFORK = 10
FUTEX_WAIT, FUTEX_WAKE = 0, 1
GLOBAL_EXPEDITED, REGISTER_GLOBAL_EXPEDITED = 2, 4

RELAXED, ACQUIRE, RELEASE, SEQ_CST = 0, 2, 3, 5

libc.shmat.restype = ctypes.c_void_p
libc.shmat.argtypes = ctypes.c_int, ctypes.c_void_p, ctypes.c_int
libc.shmdt.argtypes = (ctypes.c_void_p,)
libc.shmget.argtypes = ctypes.c_int, ctypes.c_size_t, ctypes.c_int
libc.shmctl.argtypes = ctypes.c_int, ctypes.c_int, ctypes.c_void_p
libc.semget.argtypes = ctypes.c_int, ctypes.c_int, ctypes.c_int
libc.semop.argtypes = ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t
libc.madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
libc.syscall.restype = ctypes.c_long

libatomic.atomic_thread_fence.argtypes = (ctypes.c_int,)
for _size, _type in ((4, ctypes.c_uint32), (8, ctypes.c_uint64)):
    _load = getattr(libatomic, f"__atomic_load_{_size}")
    _load.restype, _load.argtypes = _type, (ctypes.c_void_p, ctypes.c_int)
    _store = getattr(libatomic, f"__atomic_store_{_size}")
    _store.restype, _store.argtypes = None, (ctypes.c_void_p, _type, ctypes.c_int)
    _swap = getattr(libatomic, f"__atomic_compare_exchange_{_size}")
    _swap.restype = ctypes.c_bool
    _swap.argtypes = ctypes.c_void_p, ctypes.c_void_p, _type, ctypes.c_int, ctypes.c_int


def check(result):
    """The result of a C function, or an OSError by errno."""
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


# Atomic accesses

def load_half(address, order=RELAXED):
    return libatomic.__atomic_load_4(address, order)


def load_word(address, order=RELAXED):
    return libatomic.__atomic_load_8(address, order)


def store_half(address, value, order=RELAXED):
    libatomic.__atomic_store_4(address, value & 0xFFFFFFFF, order)


def store_word(address, value, order=RELAXED):
    libatomic.__atomic_store_8(address, value & 0xFFFFFFFF_FFFFFFFF, order)


def compare_and_swap(address, old, new, order):
    """Whether the word at `address` was `old`, and is now `new`."""
    expected = ctypes.c_uint64(old)
    return libatomic.__atomic_compare_exchange_8(address, ctypes.byref(expected), new, order, RELAXED)


fence = libatomic.atomic_thread_fence


# Shared memory

class SegmentStat:
    """What `IPC_STAT` says about a segment (`shmid64_ds`)."""

    def __init__(self, shmid, command=IPC_STAT):
        buffer = ctypes.create_string_buffer(256)
        self.identifier = check(libc.shmctl(shmid, command, buffer))
        self.key, self.uid, self.gid, self.cuid, self.cgid, mode = struct.unpack_from("=iIIIII", buffer)
        self.removed = bool(mode & SHM_DEST)
        self.mode = mode & 0o777
        (self.size,) = struct.unpack_from("=Q", buffer, 48)
        (self.cpid,) = struct.unpack_from("=i", buffer, 80)
        (self.nattch,) = struct.unpack_from("=Q", buffer, 88)


def shmget(key, size, flags):
    return check(libc.shmget(key, size, flags))


def shmat(shmid, flags, size):
    """Maps a segment, and excludes the mapping from `fork`. Returns its address."""
    address = libc.shmat(shmid, None, flags)
    if address == ctypes.c_void_p(-1).value:
        check(-1)
    check(libc.madvise(address, size, MADV_DONTFORK))
    return address


def shmdt(address):
    check(libc.shmdt(address))


def remove_segment(shmid):
    check(libc.shmctl(shmid, IPC_RMID, None))


# Semaphores

class SetStat:
    """What `IPC_STAT` says about a semaphore set (`semid64_ds`)."""

    def __init__(self, semid):
        buffer = ctypes.create_string_buffer(256)
        check(libc.semctl(semid, 0, IPC_STAT, buffer))
        self.key, self.uid, self.gid, self.cuid, self.cgid, self.mode = struct.unpack_from("=iIIIII", buffer)
        (self.nsems,) = struct.unpack_from("=Q", buffer, SEM_NSEMS)


def semget(key, count, flags):
    return check(libc.semget(key, count, flags))


def semop(semid, *operations):
    """Each operation is (number, operation, flags); all happen at once or none."""
    packed = b"".join(struct.pack("=HhH", *operation) for operation in operations)
    check(libc.semop(semid, packed, len(operations)))


def semaphore(semid, number, command=GETVAL):
    return check(libc.semctl(semid, number, command, 0))


def set_semaphore(semid, number, value):
    check(libc.semctl(semid, number, SETVAL, value))


def remove_set(semid):
    check(libc.semctl(semid, 0, IPC_RMID, 0))


# Sleeping and barriers

def futex_wait(address, expected, seconds):
    """Sleeps while the half at `address` is `expected`. Returns whether another process woke it."""
    timeout = struct.pack("=qq", int(seconds), int(seconds % 1 * 1e9))
    return libc.syscall(ctypes.c_long(SYS_FUTEX), ctypes.c_void_p(address), ctypes.c_long(FUTEX_WAIT),
                        ctypes.c_long(expected), timeout, None, ctypes.c_long(0)) == 0


def futex_wake(address):
    """Wakes all that sleep on `address`. Returns their number."""
    return check(libc.syscall(ctypes.c_long(SYS_FUTEX), ctypes.c_void_p(address), ctypes.c_long(FUTEX_WAKE),
                              ctypes.c_long(0x7FFFFFFF), None, None, ctypes.c_long(0)))


def membarrier(command):
    check(libc.syscall(ctypes.c_long(SYS_MEMBARRIER), ctypes.c_long(command), ctypes.c_long(0), ctypes.c_long(0)))
