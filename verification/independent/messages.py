"""Numbered messages: number, length, content and position of each follow from a seed."""

import random
import struct

from layout import max_length, up8


class Messages:
    def __init__(self, seed, capacity, total):
        self.capacity, self.total = capacity, total
        luck = random.Random(seed)
        self.block = luck.randbytes(2 * capacity)
        longest = max_length(capacity)
        self.lengths = [self.some_length(luck, longest) for _ in range(total)]
        # positions[n] is the end of the message before n, where n is looked for; starts[n] is after the wrap, if there is one.
        self.positions, self.starts = [0], []
        for length in self.lengths:
            tail = self.positions[-1]
            to_end = capacity - tail % capacity
            size = 8 + up8(length)
            start = tail if size <= to_end else tail + to_end
            self.starts.append(start)
            self.positions.append(start + size)
        self.numbers = {position: number for number, position in enumerate(self.positions)}

    @staticmethod
    def some_length(luck, longest):
        if luck.random() < 0.7:
            return luck.randrange(100)
        return luck.choice((0, luck.randrange(17), luck.randrange(300), luck.randrange(longest + 1), longest))

    def content(self, number):
        length = self.lengths[number]
        at = number * 7919 % self.capacity
        return (struct.pack("<Q", number) + self.block[at:at + max(0, length - 8)])[:length]

    def place(self, number):
        """Where the record of a message starts, and its length."""
        return self.starts[number], self.lengths[number]

    def number_at(self, position):
        """The number of the message after `position`; None if no message ends there."""
        return self.numbers.get(position)
