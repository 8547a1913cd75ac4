"""The two ends: LAYOUT.md from "The producer" to "Closing and death"."""

import time

import kernel
from kernel import ACQUIRE, RELEASE, SEQ_CST
from layout import (ABORT_CODE, ABORTED, BYTES, CLOSED, CONSUMER, EVENT_COUNT, FENCE, HEAD, LAST_EPOCH, MEMBARRIER,
                    MESSAGES, NO_SLEEP, OPEN, PRODUCER, REACH, REPORTED, STATE, TAIL, U64, WAITER_EPOCH, WAITS, WAKE_THRESHOLD, WAKEUPS,
                    WRAP, Corrupt, Record, difference, epoch_and_phase, max_length, record_word, up8)
from sysv import Removed, Role, WrongNamespace, presence_exists, removed, role_is_free

SLICE = 0.1  # seconds: how often a participant that waits checks what does not wake it


class Closed(Exception):
    """The other side has closed."""


class Aborted(Exception):
    """The other side has aborted, with the code in `args[0]`."""


class Died(Exception):
    """The other side has died."""


class RoleLost(Exception):
    """A process took this role by force."""


class NoEpochLeft(Exception):
    """This side of the pipe was claimed as often as it can be."""


class TimedOut(Exception):
    """The deadline passed."""


class End:
    """What both ends share."""

    own, other = None, None

    def __init__(self, pipe):
        self.pipe, self.memory, self.wake_mode = pipe, pipe.memory, pipe.identity.wake_mode
        self.role = Role(pipe, self.own)
        try:
            self.find_position()
            epoch, _ = epoch_and_phase(self.load(self.own, STATE, ACQUIRE))
            if epoch == LAST_EPOCH:
                raise NoEpochLeft
        except BaseException:
            self.role.give_up()
            raise
        self.answered, self.known = 0, 0
        self.reported = self.no_news = self.load(self.own, REPORTED)
        self.note_end_before_claim()
        self.store_half(self.own, WAITER_EPOCH, (self.load_half(self.own, WAITER_EPOCH) | 1) + 1)
        self.state = epoch + 1 << 2 | OPEN
        self.store(self.own, STATE, self.state, RELEASE)
        self.wake(whatever_it_waits_for=True)

    def note_end_before_claim(self):
        pass

    # The words of the two sides

    def load(self, side, word, order=kernel.RELAXED):
        return self.memory.load(side.words + word, order)

    def store(self, side, word, value, order=kernel.RELAXED):
        self.memory.store(side.words + word, value, order)

    def load_half(self, side, word, order=kernel.RELAXED):
        return self.memory.load_half(side.words + word, order)

    def store_half(self, side, word, value, order=kernel.RELAXED):
        self.memory.store_half(side.words + word, value, order)

    def count(self, counter, n=1):
        offset = self.own.counters + counter
        self.memory.store(offset, self.memory.load(offset) + n)

    # Sleeping and waking

    def barrier_before_sleeping(self):
        if self.wake_mode == MEMBARRIER:
            kernel.membarrier(kernel.GLOBAL_EXPEDITED)
        else:
            kernel.fence(SEQ_CST)

    def barrier_before_waking(self):
        if self.wake_mode == FENCE:
            kernel.fence(SEQ_CST)

    def sleep(self, attempt, threshold, seconds):
        """Sleeps for a slice, unless `attempt` finds something. Returns what it finds, or None."""
        if self.wake_mode == NO_SLEEP:
            time.sleep(min(seconds, 0.001))
            return None
        seen = self.load_half(self.other, EVENT_COUNT, ACQUIRE)
        self.store(self.own, WAKE_THRESHOLD, threshold)
        epoch = self.load_half(self.own, WAITER_EPOCH) + 1 | 1
        self.store_half(self.own, WAITER_EPOCH, epoch, RELEASE)
        self.barrier_before_sleeping()
        result = attempt()
        if result is not None or self.load(self.other, STATE) != self.known:
            return result
        self.park(seen, seconds)
        return None

    def park(self, seen, seconds):
        """Returns whether another process woke this one."""
        return kernel.futex_wait(self.memory.address + self.other.words + EVENT_COUNT, seen, seconds)

    def wake(self, whatever_it_waits_for=False):
        self.barrier_before_waking()
        epoch = self.load_half(self.other, WAITER_EPOCH)
        if epoch % 2 == 0 or self.wake_mode == NO_SLEEP:
            return
        if not whatever_it_waits_for:
            if epoch == self.answered or not self.reached_threshold():
                return
            self.count(WAKEUPS)
        self.store_half(self.own, EVENT_COUNT, self.load_half(self.own, EVENT_COUNT) + 1, RELEASE)
        self.notify()
        self.answered = epoch

    def notify(self):
        return kernel.futex_wake(self.memory.address + self.own.words + EVENT_COUNT)

    def reached_threshold(self):
        return True

    def wait(self, attempt, threshold, deadline=None):
        """What `attempt` finds, as soon as it finds something other than None; else the end of the other side, or TimedOut."""
        result = attempt()
        if result is not None:
            return result
        self.count(WAITS)
        checked = time.monotonic()
        while True:
            self.report_end(attempt)
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                raise TimedOut
            if now - checked >= SLICE:
                checked = now
                self.check_own_role()
                self.report_end(attempt, ask_role=True)
            left = SLICE if deadline is None else min(SLICE, deadline - now)
            result = self.sleep(attempt, threshold, left)
            if result is None:
                result = attempt()
            if result is not None:
                return result

    # Closing and death

    def check_own_role(self):
        if not presence_exists(self.role.claim):
            raise WrongNamespace
        if removed(self.memory.shmid):
            raise Removed
        if not self.role.is_ours() or self.load(self.own, STATE) != self.state:
            raise RoleLost

    def end_of_other(self, ask_role):
        """The end of the other side that this side has to report: None, or an exception and the epoch."""
        while True:
            state = self.load(self.other, STATE, ACQUIRE)
            epoch, phase = epoch_and_phase(state)
            if epoch < self.known >> 2:
                raise Corrupt("an epoch went back")
            self.known = state
            if epoch <= self.no_news:
                return None
            if phase == CLOSED:
                return Closed(), epoch
            if epoch <= self.reported:
                return None
            if phase == ABORTED:
                code = self.load(self.other, ABORT_CODE, ACQUIRE) & 0xFFFFFFFF
                if self.load(self.other, STATE) == state:
                    return Aborted(code), epoch
            elif ask_role and role_is_free(self.memory, self.other):
                if self.load(self.other, STATE, ACQUIRE) == state:
                    return Died(), epoch
            else:
                return None

    def report_end(self, attempt, ask_role=False):
        """Raises the end of the other side, unless `attempt` still finds something, which the caller finds too."""
        end = self.end_of_other(ask_role)
        if end is None or attempt() is not None:
            return
        error, epoch = end
        self.reported = epoch
        self.store(self.own, REPORTED, epoch)
        raise error

    def wait_for_successor(self, deadline=None):
        """Waits until a successor of the other side, whose end was reported, has claimed."""
        self.no_news = max(self.no_news, self.reported)
        self.wait(lambda: self.load(self.other, STATE) >> 2 > self.no_news or None, self.threshold_of_no_space(), deadline)

    def threshold_of_no_space(self):
        return 0

    def close(self):
        self.end(CLOSED)

    def abort(self, code):
        self.end(ABORTED, code)

    def end(self, phase, code=0):
        if not self.role.is_ours() or self.load(self.own, STATE) != self.state:
            raise RoleLost
        if phase == ABORTED:
            self.store(self.own, ABORT_CODE, code, RELEASE)
        self.state = self.state & ~3 | phase
        self.store(self.own, STATE, self.state, RELEASE)
        self.wake(whatever_it_waits_for=True)
        self.role.give_up()


class Producer(End):
    own, other = PRODUCER, CONSUMER

    def find_position(self):
        """Recovers, which gives the tail."""
        head, tail = self.memory.load(HEAD, ACQUIRE), self.memory.load(TAIL, ACQUIRE)
        capacity = self.memory.capacity
        if head % 8 or tail % 8 or not -capacity <= difference(tail, head) <= capacity - 8:
            raise Corrupt("head and tail")
        at = head if difference(head, tail) > 0 else tail
        while (record := self.memory.record_at(at)) is not None:
            at = record.end
            if difference(at + 8, head) > capacity:
                raise Corrupt("more than one capacity")
        self.head, self.tail = head, at
        self.memory.store(TAIL, at, RELEASE)

    def note_end_before_claim(self):
        """A consumer that has already closed does not concern this producer."""
        epoch, phase = epoch_and_phase(self.load(self.other, STATE, ACQUIRE))
        if phase == CLOSED:
            self.no_news = max(self.no_news, epoch)

    def place(self, tail, length, tag):
        """Step 1: where a message of `length` bytes goes."""
        to_end = self.memory.to_end(tail)
        start = tail + to_end if 8 + up8(length) > to_end else tail
        return Record(start, length, tag)

    def has_room(self, end):
        """Step 2."""
        if difference(end + 8, self.head) <= self.memory.capacity:
            return True
        head = self.memory.load(HEAD, ACQUIRE)
        if head % 8 or difference(head, self.head) < 0 or difference(head, self.tail) > 0:
            raise Corrupt("head")
        self.head = head
        return difference(end + 8, self.head) <= self.memory.capacity

    def write(self, tail, record, payload):
        """Steps 3 and 6: all of the record but its first word, which is returned."""
        self.announce(record.end + 8)
        self.memory.write_payload(record, payload)
        word = record_word(record.length, record.tag)
        if record.start != tail:
            self.memory.store_ring_word(record.start, word)
            return WRAP
        return word

    def announce(self, end):
        reach = self.own.counters + REACH
        if difference(end, self.memory.load(reach)) > 0:
            self.memory.store(reach, end % U64, RELEASE)
            kernel.fence(RELEASE)

    def publish(self, end, first_word, messages, size):
        """Steps 5, 7, 8 and 9."""
        self.memory.store_ring_word(end, 0)
        self.commit(first_word)
        self.memory.store(TAIL, end, RELEASE)
        self.tail = end
        self.count(MESSAGES, messages)
        self.count(BYTES, size)
        self.wake()

    def commit(self, first_word):
        self.memory.store_ring_word(self.tail, first_word, RELEASE)

    def wait_for_room(self, end, deadline):
        if self.load(self.other, STATE) != self.known:
            self.report_end(lambda: None)
        threshold = (end + 8 - self.memory.capacity) % U64
        self.wait(lambda: self.has_room(end) or None, threshold, deadline)

    def threshold_of_no_space(self):
        """What `head` never reaches: for a wait for something else than space."""
        return (self.tail + self.memory.capacity) % U64

    def send(self, payload, tag=0, deadline=None):
        if len(payload) > max_length(self.memory.capacity):
            raise ValueError("the message is too long")
        record = self.place(self.tail, len(payload), tag)
        self.wait_for_room(record.end, deadline)
        self.publish(record.end, self.write(self.tail, record, payload), 1, len(payload))

    def send_batch(self, payloads, tag=0, deadline=None):
        """Sends messages in as few commits as the space allows."""
        payloads = list(payloads)
        while payloads:
            tail, first_word, sent, size = self.tail, 0, 0, 0
            for payload in payloads:
                record = self.place(tail, len(payload), tag)
                if not sent:
                    self.wait_for_room(record.end, deadline)
                elif not self.has_room(record.end) or difference(record.end + 8, self.tail) > self.memory.capacity:
                    break
                word = self.write(tail, record, payload)
                if sent:
                    self.memory.store_ring_word(tail, word)
                else:
                    first_word = word
                tail, sent, size = record.end, sent + 1, size + len(payload)
            self.publish(tail, first_word, sent, size)
            del payloads[:sent]


class Consumer(End):
    own, other = CONSUMER, PRODUCER

    def find_position(self):
        head, tail = self.memory.load(HEAD, ACQUIRE), self.memory.load(TAIL, ACQUIRE)
        if head % 8 or tail % 8 or abs(difference(head, tail)) > self.memory.capacity:
            raise Corrupt("head and tail")
        self.head = self.next = head
        self.taken = []

    def take(self):
        """Steps 1 to 4: the next record, or None."""
        record = self.memory.record_at(self.next)
        if record is not None and difference(record.end + 8, self.head) > self.memory.capacity:
            raise Corrupt("more than one capacity")
        return record

    def receive(self, deadline=None):
        """The next record. The caller reads its payload and then calls `release`. Several may be taken before."""
        record = self.wait(self.take, 0, deadline)
        self.next = record.end
        self.taken.append(record)
        return record

    def try_receive(self):
        """The next record, or None."""
        return self.receive() if self.take() else None

    def release(self):
        """Step 5, for all records taken."""
        self.memory.store(HEAD, self.next, RELEASE)
        self.head = self.next
        self.count(MESSAGES, len(self.taken))
        self.count(BYTES, sum(record.length for record in self.taken))
        self.taken = []
        self.wake()

    def reached_threshold(self):
        kernel.fence(ACQUIRE)
        return difference(self.head, self.load(self.other, WAKE_THRESHOLD)) >= 0
