"""The bytes of a segment: LAYOUT.md from "The header" to "The ring", and "Limits"."""

import os
import struct
import time
import unicodedata

import kernel
from kernel import ACQUIRE, RELAXED


class Corrupt(Exception):
    """No correct peer writes this."""


class Foreign(Exception):
    """Not a pipe, or not one that may be used: refused."""


# Conventions

U64 = 1 << 64


def up8(n):
    return (n + 7) & ~7


def difference(a, b):
    """`a - b` of two positions, by the sign of their difference modulo 2^64."""
    d = (a - b) % U64
    return d - U64 if d >> 63 else d


# The header

READY, TAIL, HEAD, HEADER_SIZE = 0, 512, 896, 4096


class Side:
    """Where the words and the counters of a side are."""

    def __init__(self, name, words, counters):
        self.name, self.words, self.counters = name, words, counters


PRODUCER, CONSUMER = Side("producer", 640, 768), Side("consumer", 1024, 1152)

COMPLETE, CREATING = (int.from_bytes(text, "little") for text in (b"shmpipe\0", b"shmmake\0"))
REVERSED = int.from_bytes(COMPLETE.to_bytes(8, "little"), "big")

# The words of a side, from its first

STATE, EVENT_COUNT, WAITER_EPOCH, WAKE_THRESHOLD, REPORTED, ABORT_CODE, CLAIM = 0, 8, 12, 16, 24, 32, 40
NEVER, OPEN, CLOSED, ABORTED = range(4)
MESSAGES, BYTES, WAITS, WAKEUPS, HOLDER, DROPPED, REACH = 0, 8, 16, 24, 32, 40, 48

# The bits of `hints` that give DROPPED and REACH a meaning. This producer never drops a message.
COUNTS_DROPPED, ANNOUNCES_WRITES = 1, 2
LAST_EPOCH = (1 << 62) - 1


def epoch_and_phase(state):
    epoch, phase = state >> 2, state & 3
    if (phase == NEVER) != (epoch == 0):
        raise Corrupt(f"state {state:#x}")
    return epoch, phase


# Limits

MIN_CAPACITY, MAX_CAPACITY, MAX_NAME = 1 << 12, 1 << 40, 64


def allowed(capacity):
    return MIN_CAPACITY <= capacity <= MAX_CAPACITY and capacity & (capacity - 1) == 0


def max_length(capacity):
    return min(capacity // 2 - 8, (1 << 32) - 24)


def valid_name(name):
    return (1 <= len(name.encode()) <= MAX_NAME and not name.startswith("-") and "/" not in name and ":" not in name
            and not any(c.isspace() or unicodedata.category(c) == "Cc" for c in name))


# Identity

MEMBARRIER, FENCE, NO_SLEEP = 1, 2, 3
REMOVED_WHEN_CLOSED = 1
SEM_ID = 88


class Identity:
    """The words from `layout_version` on."""

    FIELDS = struct.Struct("=IIQQQQQQQ16siIII64s")
    OFFSET = 8

    def __init__(self, name, capacity, wake_mode, flags, sem_id):
        self.layout_version, self.byte_order, self.header_size = 2, 0x01020304, HEADER_SIZE
        self.capacity, self.features, self.hints, self.schema = capacity, 0, COUNTS_DROPPED | ANNOUNCES_WRITES, 0
        self.segment_id = int.from_bytes(os.urandom(8), "little")
        self.created_ns = time.time_ns()
        self.boot_id = boot_id()
        self.sem_id, self.wake_mode, self.flags, self.name = sem_id, wake_mode, flags, name.encode()

    def pack(self):
        return self.FIELDS.pack(
            self.layout_version, self.byte_order, self.header_size, self.capacity, self.features, self.hints,
            self.segment_id, self.schema, self.created_ns, self.boot_id, self.sem_id, self.wake_mode, self.flags,
            len(self.name), self.name)

    @classmethod
    def unpack(cls, data, segment_size, requested):
        """Reads an identity, or refuses it, in the order of the page."""
        it = cls.__new__(cls)
        (it.layout_version, it.byte_order, it.header_size, it.capacity, it.features, it.hints, it.segment_id, it.schema,
         it.created_ns, it.boot_id, it.sem_id, it.wake_mode, it.flags, length, name) = cls.FIELDS.unpack(data)
        it.name = name[:length]
        refusals = (
            (it.byte_order != 0x01020304 or it.layout_version != 2, "byte order or layout version"),
            (it.features != 0, "features"),
            (it.header_size != HEADER_SIZE, "header size"),
            (not allowed(it.capacity), "capacity"),
            (segment_size < HEADER_SIZE + it.capacity, "segment too small"),
            (it.wake_mode not in (MEMBARRIER, FENCE, NO_SLEEP), "wake mode"),
            (length > MAX_NAME or length > 0 and not valid_bytes(it.name), "name"),
            (it.name != requested.encode(), "another pipe's name"),
            (it.schema != 0, "schema"),
        )
        for refused, reason in refusals:
            if refused:
                raise Foreign(reason)
        return it


def valid_bytes(name):
    try:
        return valid_name(name.decode())
    except UnicodeDecodeError:
        return False


def boot_id():
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return bytes.fromhex(file.read().strip().replace("-", ""))
    except OSError:
        return bytes(16)


# The ring

WRAP = 0xFFFFFFFF


def record_word(length, tag):
    return tag << 32 | length + 1


class Record:
    """A committed record, or the space for one."""

    def __init__(self, start, length, tag):
        self.start, self.length, self.tag = start % U64, length, tag
        self.end = (start + 8 + up8(length)) % U64


class Memory:
    """A mapped segment: its header and its ring."""

    def __init__(self, shmid, flags=0):
        self.shmid = shmid
        self.size = kernel.SegmentStat(shmid).size
        self.address = kernel.shmat(shmid, flags, self.size)
        self.capacity = 0

    def detach(self):
        if self.address:
            kernel.shmdt(self.address)
            self.address = 0

    def copy(self, offset, size):
        return kernel.ctypes.string_at(self.address + offset, size)

    def fill(self, offset, data):
        kernel.ctypes.memmove(self.address + offset, data, len(data))

    def load(self, offset, order=RELAXED):
        return kernel.load_word(self.address + offset, order)

    def store(self, offset, value, order=RELAXED):
        kernel.store_word(self.address + offset, value, order)

    def load_half(self, offset, order=RELAXED):
        return kernel.load_half(self.address + offset, order)

    def store_half(self, offset, value, order=RELAXED):
        kernel.store_half(self.address + offset, value, order)

    def swap(self, offset, old, new, order):
        return kernel.compare_and_swap(self.address + offset, old, new, order)

    # The ring: addressed by positions

    def index(self, position):
        return position & (self.capacity - 1)

    def to_end(self, position):
        return self.capacity - self.index(position)

    def word(self, position, order=RELAXED):
        return self.load(HEADER_SIZE + self.index(position), order)

    def store_ring_word(self, position, value, order=RELAXED):
        self.store(HEADER_SIZE + self.index(position), value, order)

    def payload(self, record):
        return self.copy(HEADER_SIZE + self.index(record.start) + 8, record.length)

    def write_payload(self, record, payload):
        padding = bytes(up8(len(payload)) - len(payload))
        self.fill(HEADER_SIZE + self.index(record.start) + 8, payload + padding)

    def record_at(self, position):
        """The record at `position`, by the steps 1 to 4 of "To receive"; None if there is none."""
        w, start = self.word(position, ACQUIRE), position
        if w == 0:
            return None
        if w == WRAP:
            to_end = self.to_end(position)
            if to_end >= self.capacity // 2:
                raise Corrupt("a wrap in the first half of the ring")
            start = position + to_end
            w = self.word(start)
        length = (w & 0xFFFFFFFF) - 1
        if not 0 <= length <= max_length(self.capacity) or 8 + up8(length) > self.to_end(start):
            raise Corrupt(f"record word {w:#x} at {start}")
        return Record(start, length, w >> 32)
