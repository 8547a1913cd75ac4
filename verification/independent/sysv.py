"""System V pipes: LAYOUT.md's "System V objects", "The roles of a System V pipe" and "Creating, opening, removing"."""

import errno
import os
import random
import time

import kernel
from kernel import ACQUIRE, RELEASE, IPC_CREAT, IPC_EXCL, IPC_NOWAIT, SEM_UNDO, SHM_RDONLY
from layout import (ABORTED, CLAIM, CLOSED, COMPLETE, CREATING, HEADER_SIZE, HOLDER, MEMBARRIER, PRODUCER, CONSUMER, READY,
                    REMOVED_WHEN_CLOSED, SEM_ID, STATE, Foreign, Identity, Memory, epoch_and_phase, valid_name)

GONE = errno.EINVAL, errno.EIDRM


class NotFound(Exception):
    """There is no such pipe, or it is being removed."""


class Incomplete(Exception):
    """The process that created the pipe died meanwhile."""


class Removed(Exception):
    """The pipe was removed."""


class Taken(Exception):
    """Another process holds the role."""


class Busy(Exception):
    """INIT, or a leftover, stays with another process."""


class WrongNamespace(Exception):
    """This thread does not see the presence of its process."""


class Again(Exception):
    """Another process changed the objects: start again."""


# Addresses

def key_of(name):
    if not valid_name(name):
        raise ValueError(f"{name!r} is not a name")
    key = 0x811C9DC5
    for byte in name.encode():
        key = (key ^ byte) * 0x01000193 & 0xFFFFFFFF
    key = key or 1
    return key - (1 << 32) if key >> 31 else key


def trusted(user):
    return user in (0, os.geteuid())


def rmid_forced():
    with open("/proc/sys/kernel/shm_rmid_forced") as file:
        return file.read().strip() == "1"


# The semaphores

INIT, PRESENCE, STAGE, SEGMENT, ATTACHMENTS, SEMAPHORES = 0, 1, 3, 4, 7, 8
STAGE_CREATING, STAGE_CREATED = 0x5A4D, 0x5A52


class Set:
    """The semaphore set of a pipe, as any system call on it."""

    def __init__(self, semid):
        self.semid = semid
        stat = kernel.SetStat(semid)
        if stat.nsems != SEMAPHORES or self.stage() not in (0, STAGE_CREATING, STAGE_CREATED):
            raise Foreign("its semaphore set")
        if not (trusted(stat.uid) and trusted(stat.cuid)):
            raise Foreign("the user of its semaphore set")

    @classmethod
    def find(cls, key):
        """The set under the key, or None."""
        try:
            return cls(kernel.semget(key, SEMAPHORES, 0))
        except OSError as error:
            if error.errno == errno.ENOENT or error.errno == errno.EIDRM:
                return None
            if error.errno == errno.EINVAL:
                raise Foreign("its semaphore set") from error
            raise

    @classmethod
    def create(cls, key, mode):
        try:
            return cls(kernel.semget(key, SEMAPHORES, IPC_CREAT | IPC_EXCL | mode))
        except OSError as error:
            if error.errno in (errno.EEXIST, *GONE):
                raise Again from error
            raise

    def stage(self):
        return kernel.semaphore(self.semid, STAGE)

    def stager(self):
        return kernel.semaphore(self.semid, STAGE, kernel.GETPID)

    def set(self, number, value):
        kernel.set_semaphore(self.semid, number, value)

    def segment(self):
        low, middle, high = (kernel.semaphore(self.semid, SEGMENT + n) for n in range(3))
        return low | middle << 15 | high << 30

    def set_segment(self, shmid):
        for n in range(3):
            self.set(SEGMENT + n, shmid >> 15 * n & 0x7FFF)

    def register(self):
        kernel.semop(self.semid, (ATTACHMENTS, 1, SEM_UNDO))

    def unregister(self):
        kernel.semop(self.semid, (ATTACHMENTS, -1, SEM_UNDO | IPC_NOWAIT))

    def guards(self, shmid):
        return self.stage() == STAGE_CREATED and self.segment() == shmid


class Init:
    """INIT of a set, locked: `with Init(set):`. Again, if the set is gone."""

    def __init__(self, set, patience=10):
        self.set, self.patience = set, patience

    def __enter__(self):
        end = time.monotonic() + self.patience
        while True:
            try:
                kernel.semop(self.set.semid, (INIT, 0, IPC_NOWAIT), (INIT, 1, SEM_UNDO | IPC_NOWAIT))
                return self
            except OSError as error:
                if error.errno in GONE:
                    raise Again from error
                if error.errno != errno.EAGAIN:
                    raise
            if time.monotonic() > end:
                raise Busy("INIT stays locked")
            time.sleep(0.002)

    def __exit__(self, kind, error, trace):
        try:
            kernel.semop(self.set.semid, (INIT, -1, SEM_UNDO | IPC_NOWAIT))
        except OSError as gone:
            if gone.errno not in GONE:
                raise


# The roles of a System V pipe

class Presence:
    """A segment that exists exactly as long as this process has its memory."""

    of_this_process = None

    def __init__(self, set):
        """The caller holds INIT of `set`."""
        self.pid = os.getpid()
        if kernel.semaphore(set.semid, PRESENCE):
            remove_leftovers(kernel.semaphore(set.semid, PRESENCE, kernel.GETPID))
        set.set(PRESENCE, 1)
        while True:
            self.size = random.randint(1, 4096)
            self.shmid = kernel.shmget(kernel.IPC_PRIVATE, self.size, 0o400)
            try:
                kernel.shmat(self.shmid, SHM_RDONLY, self.size)
                break
            except OSError as error:
                if error.errno not in GONE:
                    raise
        kernel.remove_segment(self.shmid)
        set.set(PRESENCE, 0)

    @classmethod
    def have(cls, set):
        if cls.of_this_process is None or cls.of_this_process.pid != os.getpid():
            cls.of_this_process = cls(set)
        return cls.of_this_process

    def claim(self):
        return self.shmid | self.size << 32 | random.getrandbits(19) << 45


def remove_leftovers(creator):
    """Removes what a process left that died while it created its presence."""
    with open("/proc/sysvipc/shm") as file:
        columns = file.readline().split()
        segments = [dict(zip(columns, line.split())) for line in file]
    for segment in segments:
        if (int(segment["key"]) == 0 and int(segment["perms"], 8) == 0o400 and int(segment["size"]) <= 4096
                and int(segment["nattch"]) == 0 and int(segment["cpid"]) == creator):
            try:
                kernel.remove_segment(int(segment["shmid"]))
            except OSError as error:
                if error.errno not in GONE:
                    raise


def presence_exists(claim):
    shmid, size = claim & 0xFFFFFFFF, claim >> 32 & 0x1FFF
    try:
        stat = kernel.SegmentStat(shmid)
    except OSError as error:
        if error.errno in GONE:
            return False
        if error.errno != errno.EACCES:
            raise
        try:
            stat = kernel.SegmentStat(shmid, kernel.SHM_STAT_ANY)
        except OSError as other:
            if other.errno in GONE:
                return False
            raise
        if stat.identifier != shmid:
            return False
    return stat.key == 0 and stat.removed and stat.size == size


class Role:
    """A role, held: the word `claim` of a side names this process."""

    def __init__(self, pipe, side):
        self.pipe, self.word = pipe, side.words + CLAIM
        self.holder = side.counters + HOLDER
        self.claim = Presence.have(pipe.set).claim()
        if not presence_exists(self.claim):
            raise WrongNamespace
        self.take()
        if removed(pipe.memory.shmid):
            self.give_up()
            raise Removed
        pipe.memory.store(self.holder, os.getpid() | os.stat("/proc/self/ns/pid").st_ino << 32)

    def take(self):
        memory, start = self.pipe.memory, time.monotonic()
        while True:
            other = memory.load(self.word, ACQUIRE)
            if not other or not presence_exists(other):
                if memory.swap(self.word, other, self.claim, ACQUIRE):
                    return
            elif time.monotonic() - start > self.patience():
                raise Taken
            else:
                time.sleep(0.002)

    def patience(self):
        """For how long the holder may be a process that is gone, or a remover."""
        holder = self.pipe.memory.load(self.holder)
        pid, namespace = holder & 0xFFFFFFFF, holder >> 32
        if holder == 0:
            return 0.1
        return 1 if namespace == os.stat("/proc/self/ns/pid").st_ino and not os.path.exists(f"/proc/{pid}") else 0

    def is_ours(self):
        return self.pipe.memory.load(self.word, ACQUIRE) == self.claim

    def give_up(self):
        if self.is_ours():
            self.pipe.memory.store(self.holder, 0)
        self.pipe.memory.swap(self.word, self.claim, 0, RELEASE)


def role_is_free(memory, side):
    claim = memory.load(side.words + CLAIM, ACQUIRE)
    return not claim or not presence_exists(claim)


# Creating, opening, removing

class Parameters:
    """What a pipe is created with."""

    def __init__(self, capacity=1 << 20, mode=0o600, wake_mode=MEMBARRIER, flags=0):
        self.capacity, self.mode, self.wake_mode, self.flags = capacity, mode, wake_mode, flags


class Pipe:
    """An open handle of a pipe."""

    def __init__(self, name, set, memory, identity):
        self.name, self.set, self.memory, self.identity = name, set, memory, identity
        memory.capacity = identity.capacity

    def leave(self):
        """Closes the handle; the last one removes the pipe, if it was created so."""
        memory, set = self.memory, self.set
        try:
            if not self.identity.flags & REMOVED_WHEN_CLOSED:
                set.unregister()
            else:
                with Init(set):
                    if is_last(memory, set) and ended(memory):
                        kernel.remove_segment(memory.shmid)
                        kernel.remove_set(set.semid)
                    else:
                        set.unregister()
        except Again:
            pass
        except OSError as error:
            if error.errno not in (errno.EAGAIN, *GONE):
                raise
        memory.detach()


def is_last(memory, set):
    return kernel.semaphore(set.semid, ATTACHMENTS) == 1 or kernel.SegmentStat(memory.shmid).nattch == 1


def ended(memory):
    sides = PRODUCER, CONSUMER
    phases = [epoch_and_phase(memory.load(side.words + STATE, ACQUIRE))[1] for side in sides]
    return all(phase in (CLOSED, ABORTED) for phase in phases) and all(role_is_free(memory, side) for side in sides)


def removed(shmid):
    try:
        return kernel.SegmentStat(shmid).removed
    except OSError as error:
        if error.errno in GONE:
            return True
        raise


def find_segment(key):
    """The identifier and `IPC_STAT` of the segment under a key; None if there is none."""
    try:
        shmid = kernel.shmget(key, 0, 0)
        stat = kernel.SegmentStat(shmid)
    except OSError as error:
        if error.errno in (errno.ENOENT, *GONE):
            return None
        raise
    if stat.removed:
        return None
    if not (trusted(stat.cuid) and trusted(stat.uid)):
        raise Foreign("the user of its segment")
    return shmid, stat


def examine(shmid, name):
    """`ready`, and the identity if that says complete. Attaches the segment for a moment, read-only."""
    try:
        memory = Memory(shmid, SHM_RDONLY)
    except OSError as error:
        if error.errno in GONE:
            raise Again from error
        raise
    try:
        if memory.size < HEADER_SIZE:
            raise Foreign("segment too small")
        ready = memory.load(READY, ACQUIRE)
        if ready not in (COMPLETE, CREATING, 0):
            raise Foreign("another program's segment, or another byte order")
        return ready, read_identity(memory, name) if ready == COMPLETE else None
    finally:
        memory.detach()


def read_identity(memory, name):
    data = memory.copy(Identity.OFFSET, Identity.FIELDS.size)
    return Identity.unpack(data, memory.size, name)


def open_pipe(name, parameters=None):
    """Opens the pipe `name`; creates it if there is none and `parameters` are given."""
    if rmid_forced():
        raise Foreign("kernel.shm_rmid_forced = 1")
    while True:
        try:
            return try_open(name, parameters)
        except Again:
            time.sleep(0.001)


def try_open(name, parameters):
    key = key_of(name)
    found = find_segment(key)
    if found is None and parameters is None:
        raise NotFound
    complete = found is not None and examine(found[0], name)[0] == COMPLETE
    set = Set.find(key)
    created = set is None
    if created:
        if found and not complete:
            raise Foreign("an incomplete segment without a set")
        set = Set.create(key, found[1].mode if found else parameters.mode)
    with Init(set):
        try:
            return open_locked(name, key, set, parameters)
        except BaseException:
            if created and set.stage() == 0:
                kernel.remove_set(set.semid)
            raise


def open_locked(name, key, set, parameters):
    """INIT is held."""
    found = find_segment(key)
    if found is None:
        if parameters is None:
            raise NotFound
        return create(name, key, set, parameters)
    shmid, stat = found
    ready, identity = examine(shmid, name)
    if ready == COMPLETE:
        return join(name, set, shmid, stat, identity)
    require_incomplete(ready, set, stat)
    if parameters is None:
        raise Incomplete
    remove_incomplete(shmid)
    return create(name, key, set, parameters)


def require_incomplete(ready, set, stat):
    """INIT is held, so that its creator is dead, if the segment belongs to a pipe at all."""
    if ready == 0 and not (set.stage() == STAGE_CREATING and set.stager() == stat.cpid):
        raise Foreign("a segment without identity")


def remove_incomplete(shmid):
    """Watchers have a second to leave."""
    end = time.monotonic() + 1.5
    while kernel.SegmentStat(shmid).nattch:
        if time.monotonic() > end:
            raise Busy("an incomplete segment stays attached")
        time.sleep(0.002)
    kernel.remove_segment(shmid)


def create(name, key, set, parameters):
    """Steps 3 to 10. INIT is held."""
    shmid = None
    try:
        set.set(STAGE, STAGE_CREATING)
        shmid = create_segment(key, parameters)
        memory = Memory(shmid)
        identity = Identity(name, parameters.capacity, parameters.wake_mode, parameters.flags, set.semid)
        memory.store(READY, CREATING)
        memory.fill(Identity.OFFSET, identity.pack())
        set.set_segment(shmid)
        memory.store(READY, COMPLETE, RELEASE)
        set.set(STAGE, STAGE_CREATED)
        return enter(Pipe(name, set, memory, identity))
    except BaseException:
        if shmid is not None:
            kernel.remove_segment(shmid)
        set.set(STAGE, 0)
        raise


def create_segment(key, parameters):
    try:
        return kernel.shmget(key, HEADER_SIZE + parameters.capacity, IPC_CREAT | IPC_EXCL | parameters.mode)
    except OSError as error:
        if error.errno == errno.EEXIST:
            raise Again from error
        raise


def join(name, set, shmid, stat, identity):
    """Steps 5 to 7 of opening. INIT is held."""
    if stat.nattch == 0:
        set.set(ATTACHMENTS, 0)
    memory = Memory(shmid)
    try:
        if not (set.guards(shmid) and identity.sem_id == set.semid):
            adopt(memory, set)
        return enter(Pipe(name, set, memory, identity))
    except BaseException:
        memory.detach()
        raise


def adopt(memory, set):
    """The segment lost its set: it gets this one."""
    set.set_segment(memory.shmid)
    seen = memory.load(SEM_ID)
    if not memory.swap(SEM_ID, seen, seen & 0xFFFFFFFF_00000000 | set.semid, ACQUIRE):
        raise Again
    set.set(STAGE, STAGE_CREATED)


def enter(pipe):
    if pipe.identity.wake_mode == MEMBARRIER:
        kernel.membarrier(kernel.REGISTER_GLOBAL_EXPEDITED)
    pipe.set.register()
    Presence.have(pipe.set)
    return pipe


def remove_pipe(name):
    while True:
        try:
            return try_remove(name)
        except Again:
            time.sleep(0.001)


def try_remove(name):
    try:
        pipe = open_pipe(name)
    except NotFound:
        remove_set_without_segment(key_of(name))
        raise
    except Incomplete:
        return remove_incomplete_pipe(name)
    try:
        with Init(pipe.set):
            claim_both(pipe)
            kernel.remove_segment(pipe.memory.shmid)
            kernel.remove_set(pipe.set.semid)
    finally:
        pipe.leave()


def claim_both(pipe):
    producer = Role(pipe, PRODUCER)
    try:
        Role(pipe, CONSUMER)
    except BaseException:
        producer.give_up()
        raise


def remove_set_without_segment(key):
    """What a remover left that died."""
    set = Set.find(key)
    if set is None or set.stage() == 0:
        return
    with Init(set):
        if find_segment(key) is None:
            kernel.remove_set(set.semid)


def remove_incomplete_pipe(name):
    set = Set.find(key_of(name))
    with Init(set):
        shmid, stat = find_segment(key_of(name))
        ready, _ = examine(shmid, name)
        if ready == COMPLETE:
            raise Again
        require_incomplete(ready, set, stat)
        remove_incomplete(shmid)
        kernel.remove_set(set.semid)


def watch(name):
    """The memory and identity of a complete pipe, read-only. Detach it."""
    found = find_segment(key_of(name))
    if found is None:
        raise NotFound
    memory = Memory(found[0], SHM_RDONLY)
    try:
        if memory.load(READY, ACQUIRE) != COMPLETE:
            raise NotFound
        identity = read_identity(memory, name)
    except BaseException:
        memory.detach()
        raise
    memory.capacity = identity.capacity
    return memory, identity
