#!/usr/bin/env python3
"""Writes segments.json, from LAYOUT.md alone: segments as bytes, and what a reader must find in them.

    verification/vectors/make.py            writes segments.json
    verification/vectors/make.py --check    exits with 1 if it would be another one
"""

import json
import struct
import sys
from pathlib import Path

FILE = Path(__file__).with_name("segments.json")
CAPACITY, HEADER = 4096, 4096
WRAP = 0xFFFF_FFFF
NEVER, OPEN, CLOSED, ABORTED = range(4)
TAIL, HEAD = 512, 896
PRODUCER, CONSUMER = 640, 1024
STATE, REPORTED, ABORT_CODE = 0, 24, 32


def up8(length):
    return (length + 7) & ~7


class Segment:
    """The bytes of a complete segment, all zero but for its identity."""

    def __init__(self, capacity=CAPACITY, features=0):
        directions = 2 if features & 1 else 1
        self.capacity, self.bytes = capacity, bytearray(directions * (HEADER + capacity))
        self.base = 0
        self.word(0, int.from_bytes(b"shmpipe\0", "little"))
        self.half(8, 2)
        self.half(12, 0x0102_0304)
        self.word(16, HEADER)
        self.word(24, capacity)
        self.word(32, features)
        self.word(48, 0x0123_4567_89AB_CDEF)
        self.word(64, 1_700_000_000_000_000_000)
        struct.pack_into("<i", self.bytes, 88, -1)
        self.half(92, 2)

    def word(self, offset, value):
        struct.pack_into("<Q", self.bytes, self.base + offset, value % (1 << 64))

    def half(self, offset, value):
        struct.pack_into("<I", self.bytes, self.base + offset, value)

    def ring(self, position, value):
        self.word(HEADER + position % self.capacity, value)

    def record(self, position, payload, tag=0):
        """Writes a record at this position, and returns its end."""
        self.ring(position, tag << 32 | len(payload) + 1)
        at = self.base + HEADER + position % self.capacity + 8
        self.bytes[at : at + len(payload)] = payload
        return position + 8 + up8(len(payload))

    def state(self, side, epoch, phase):
        self.word(side + STATE, epoch * 4 + phase)

    def back(self):
        """The same segment, seen from the header of the direction from B to A."""
        self.base = HEADER + self.capacity
        return self


def message(position, payload, tag=0):
    return {"position": position % (1 << 64), "tag": tag, "payload": payload.hex()}


VECTORS = []


def vector(name, why, segment, **expected):
    data, pieces, at = bytes(segment.bytes), {}, 0
    # Everything else is zero.
    while at < len(data):
        if any(data[at : at + 8]):
            end = at
            while any(data[end : end + 8]):
                end += 8
            pieces[str(at)] = data[at:end].hex()
            at = end
        at += 8
    VECTORS.append({"name": name, "why": why, "size": len(data), "bytes": pieces} | expected)


def readable():
    vector("empty", "No process has claimed a role.", Segment(), messages=[], end="none", tail=0)

    s = Segment()
    s.record(s.record(s.record(0, b"one"), b"", tag=7), b"thirteen byte", tag=0xFFFF_FFFF)
    s.word(TAIL, 48)
    s.state(PRODUCER, 1, CLOSED)
    three = [message(0, b"one"), message(16, b"", 7), message(24, b"thirteen byte", 0xFFFF_FFFF)]
    vector("closed", "Three messages, one of them empty, and a close.", s, messages=three, end="closed", tail=48)

    s.state(PRODUCER, 1, ABORTED)
    s.word(PRODUCER + ABORT_CODE, 7)
    vector("aborted", "The end of a stream that is cut.", s, messages=three, end="aborted 7", tail=48)

    s.state(PRODUCER, 1, OPEN)
    vector("died", "The producer holds no role and its state says open.", s, messages=three, end="died", tail=48)

    s.state(CONSUMER, 3, CLOSED)
    s.word(CONSUMER + REPORTED, 1)
    vector("reported", "An earlier consumer has reported that end.", s, messages=three, end="none", tail=48)

    s.word(HEAD, 24)
    vector("released", "Two of the messages are released.", s, messages=three[2:], end="none", tail=48)

    s = Segment()
    at = 0
    for payload in (b"committed", b"but the tail", b"was not stored"):
        at = s.record(at, payload)
    s.word(TAIL, 24)
    s.state(PRODUCER, 1, OPEN)
    found = [message(0, b"committed"), message(24, b"but the tail"), message(48, b"was not stored")]
    vector("tail behind", "The producer died within a batch: a successor walks.", s, messages=found, end="died", tail=72)

    s.word(HEAD, 72)
    vector("tail behind the head", "A consumer that was quicker than the store of the tail.", s, messages=[], end="died", tail=72)

    s = Segment()
    longest = bytes(number % 251 for number in range(CAPACITY // 2 - 8))
    s.word(TAIL, s.record(0, longest))
    s.state(PRODUCER, 1, CLOSED)
    vector("longest", "A message of the greatest length.", s, messages=[message(0, longest)], end="closed", tail=2048)

    s = Segment()
    s.ring(4056, WRAP)
    end = s.record(4096, b"around the end of the ring, at the start", tag=3)
    s.word(HEAD, 4056)
    s.word(TAIL, end)
    s.state(PRODUCER, 1, CLOSED)
    vector(
        "wrap",
        "A record that does not fit before the end of the ring lies at index 0.",
        s,
        messages=[message(4096, b"around the end of the ring, at the start", 3)],
        end="closed",
        tail=4144,
    )

    s = Segment()
    s.ring(4088, WRAP)
    s.word(HEAD, 4088)
    s.word(TAIL, s.record(4096, b"x"))
    vector(
        "wrap in the last word",
        "Eight bytes are left before the end of the ring.",
        s,
        messages=[message(4096, b"x")],
        end="none",
        tail=4112,
    )

    s = Segment()
    lap = 10 * CAPACITY
    for index in range(0, CAPACITY, 8):
        s.ring(index, 0xDEAD_BEEF_DEAD_BEEF)
    end = s.record(lap + 1000, b"between what has no meaning")
    s.ring(end, 0)
    s.word(HEAD, lap + 1000)
    s.word(TAIL, end)
    vector(
        "old bytes",
        "After some laps: beyond the tail, only its own word has a meaning.",
        s,
        messages=[message(lap + 1000, b"between what has no meaning")],
        end="none",
        tail=end,
    )

    s = Segment()
    start = (1 << 64) - 16
    end = s.record(s.record(start, b"before"), b"after")
    s.word(HEAD, start)
    s.word(TAIL, end)
    vector(
        "positions wrap",
        "Positions are compared modulo 2^64.",
        s,
        messages=[message(start, b"before"), message(0, b"after")],
        end="none",
        tail=end % (1 << 64),
    )

    s = Segment()
    s.word(40, 1 | 1 << 63)
    s.word(TAIL, s.record(0, b"x"))
    vector("unknown hint", "Hints that you do not know are ignored.", s, messages=[message(0, b"x")], end="none", tail=16)

    s = Segment(features=1)
    s.word(TAIL, s.record(0, b"there"))
    s.state(PRODUCER, 2, CLOSED)
    s.back()
    s.word(TAIL, s.record(0, b"and back"))
    s.state(PRODUCER, 2, OPEN)
    vector(
        "duplex",
        "Two directions; messages are those from A to B, back those from B to A.",
        s,
        messages=[message(0, b"there")],
        back=[message(0, b"and back")],
        end="closed",
        tail=16,
    )


def refused():
    def refuse(name, why, change):
        segment = Segment()
        change(segment)
        vector(name, why, segment, refuse=True)

    refuse("foreign", "`ready` is another word.", lambda s: s.word(0, int.from_bytes(b"anything", "little")))
    refuse("byte order", "The creator had the other byte order.", lambda s: s.word(0, int.from_bytes(b"\0epipmhs", "little")))
    refuse("byte order of the halves", "`byte_order` differs.", lambda s: s.half(12, 0x0403_0201))
    refuse("version", "Another layout version.", lambda s: s.half(8, 3))
    refuse("feature", "A feature that you do not know.", lambda s: s.word(32, 1 << 63))
    refuse("header size", "Another size of the header.", lambda s: s.word(16, 8192))
    refuse("capacity", "No power of two.", lambda s: s.word(24, 4095))
    refuse("small capacity", "Less than the smallest.", lambda s: s.word(24, 2048))
    refuse("large capacity", "More than the segment holds.", lambda s: s.word(24, 8192))
    refuse("duplex capacity", "Two directions do not fit.", lambda s: s.word(32, 1))
    refuse("wake mode", "There is no such mode.", lambda s: s.half(92, 4))
    refuse("name length", "Longer than a name may be.", lambda s: s.half(100, 65))


def corrupt():
    def spoil(name, why, first=(), change=lambda _: None, **expected):
        segment, at = Segment(), 0
        for payload in first:
            at = segment.record(at, payload)
        segment.word(TAIL, at)
        change(segment)
        found, at = [], 0
        for payload in first:
            found.append(message(at, payload))
            at += 8 + up8(len(payload))
        vector(name, why, segment, messages=found, end="corrupt", **expected)

    spoil("too long", "A length beyond the greatest.", [b"fine"], lambda s: s.ring(16, 2042))
    spoil("over the end", "A record that crosses the end of the ring.", [bytes(2000), bytes(1000)], lambda s: s.ring(3016, 1100))
    spoil("early wrap", "A wrap where every record fits.", [b"fine"], lambda s: s.ring(16, WRAP))

    def twice(s):
        s.word(HEAD, 4080)
        s.word(TAIL, 4080)
        s.ring(4080, WRAP)
        s.ring(4096, WRAP)

    spoil("wrap after wrap", "A wrap leads to a record.", change=twice)
    spoil("state", "Phase never, in an epoch.", [b"fine"], lambda s: s.word(PRODUCER + STATE, 4))

    for name, why, head, tail in [
        ("head", "`head` is no multiple of 8.", 4, 8),
        ("tail", "`tail` is no multiple of 8.", 0, 12),
        ("distance", "More than a capacity lies between `head` and `tail`.", 0, 8192),
    ]:
        s = Segment()
        s.word(HEAD, head)
        s.word(TAIL, tail)
        vector(name, why, s, claim="corrupt")


def main():
    readable()
    refused()
    corrupt()
    text = json.dumps(VECTORS, indent=1) + "\n"
    if sys.argv[1:] == ["--check"]:
        if FILE.read_text() != text:
            sys.exit(f"{FILE}: not what {sys.argv[0]} writes")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        FILE.write_text(text)


if __name__ == "__main__":
    main()
