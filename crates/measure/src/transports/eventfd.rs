//! A ring in shared memory whose ends wake each other with eventfds.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;

use super::records::{Records, record_len};
use super::{Invitation, Invited, Mode, Transport};
use crate::channel::Channel;
use crate::endpoint::Endpoint;
use crate::errors::{failed, unfit};
use crate::segment::Segment;
use crate::watchdog;

/// A ring of bytes each way, with an eventfd for written bytes and another for released bytes.
///
/// The kernel's counters are the only shared positions. The producer adds the bytes of each record to one, and the consumer adds
/// the bytes it has read to the other. Each takes the whole count when it has used up the last one.
pub const EVENTFD: &dyn Transport = &Eventfd;

struct Eventfd;

impl Transport for Eventfd {
    fn name(&self) -> &'static str {
        "eventfd"
    }

    fn mode(&self) -> Mode {
        Mode::Sleeps
    }

    fn about(&self) -> &'static str {
        "ring in shared memory, woken by eventfd: one write per message, one read per batch found; \
         room goes back half a ring at a time"
    }

    fn passes_descriptors(&self) -> bool {
        true
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let capacity = invitation.capacity();
        if !capacity.is_power_of_two() || capacity < 64 {
            return Err(unfit(format!("a ring of {capacity} bytes: not a power of two from 64 on")));
        }
        let segment = Rc::new(Segment::create(2 * capacity)?);
        invitation.tell(capacity);
        invitation.tell(segment.id());
        let (out, back) = (Counters::new()?, Counters::new()?);
        for counter in [&out.there, &out.free, &back.there, &back.free] {
            invitation.pass(counter.0.try_clone()?);
        }
        Ok(Endpoint::new(Ends::new(&segment, capacity, (0, out), (1, back))))
    }

    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        let capacity = invited.word()?;
        let segment = Rc::new(Segment::join(invited.word()?, 2 * capacity)?);
        let mut counters = || {
            let (there, free) = (Counter(invited.descriptor()?), Counter(invited.descriptor()?));
            Ok::<_, io::Error>(Counters { there, free })
        };
        let (back, out) = (counters()?, counters()?);
        Ok(Endpoint::new(Ends::new(&segment, capacity, (1, out), (0, back))))
    }
}

/// An eventfd: a counter in the kernel, on which a reader sleeps while it is 0.
struct Counter(OwnedFd);

impl Counter {
    fn new() -> io::Result<Counter> {
        // SAFETY: only uses numbers.
        let made = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if made == -1 {
            return Err(failed(format_args!("eventfd")));
        }
        // SAFETY: the kernel has just opened it, so it has no other owner.
        Ok(Counter(unsafe { OwnedFd::from_raw_fd(made) }))
    }

    #[inline(always)]
    fn add(&self, number: usize) -> io::Result<()> {
        let number = (number as u64).to_ne_bytes();
        loop {
            // SAFETY: eight readable bytes. It does not block, since no counter gets near 2^64.
            let written = unsafe { libc::write(self.0.as_raw_fd(), number.as_ptr().cast(), number.len()) };
            if written != -1 {
                return Ok(());
            }
            watchdog::interrupted(io::Error::last_os_error())?;
        }
    }

    /// Waits for a count, and takes it.
    #[inline(always)]
    fn take(&self) -> io::Result<usize> {
        let mut number = [0; 8];
        loop {
            // SAFETY: eight writable bytes.
            let read = unsafe { libc::read(self.0.as_raw_fd(), number.as_mut_ptr().cast(), number.len()) };
            if read != -1 {
                return Ok(u64::from_ne_bytes(number) as usize);
            }
            watchdog::interrupted(io::Error::last_os_error())?;
        }
    }
}

/// The two counters of one direction.
struct Counters {
    /// Bytes of records that were written and not yet taken.
    there: Counter,
    /// Bytes that were released and not yet taken.
    free: Counter,
}

impl Counters {
    fn new() -> io::Result<Counters> {
        Ok(Counters { there: Counter::new()?, free: Counter::new()? })
    }
}

/// The producer's end.
struct Out {
    records: Records,
    counters: Counters,
    tail: usize,
    free: usize,
}

/// The consumer's end.
struct In {
    records: Records,
    counters: Counters,
    head: usize,
    there: usize,
    /// Bytes read and not yet released.
    read: usize,
}

/// The two ends of one process.
struct Ends {
    out: Out,
    back: In,
}

impl Ends {
    /// Each direction is given by the number of its half of the segment, and its counters.
    fn new(segment: &Rc<Segment>, capacity: usize, out: (usize, Counters), back: (usize, Counters)) -> Ends {
        let records = |number| Records::at(segment, number * capacity, capacity);
        Ends {
            out: Out { records: records(out.0), counters: out.1, tail: 0, free: capacity },
            back: In { records: records(back.0), counters: back.1, head: 0, there: 0, read: 0 },
        }
    }
}

impl Channel for Ends {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let Out { records, counters, tail, free } = &mut self.out;
        let need = record_len(message.len());
        let unused = records.unused(*tail, need);
        let taken = unused + need;
        while *free < taken {
            *free += counters.free.take()?;
        }
        // SAFETY: the last record ended at the tail. The consumer has read the bytes there and then added them to the counter,
        // and the kernel orders these.
        unsafe { records.write(*tail, unused, message) };
        *tail += taken;
        *free -= taken;
        counters.there.add(taken)
    }

    #[inline(always)]
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let In { records, counters, head, there, read } = &mut self.back;
        while *there == 0 {
            *there = counters.there.take()?;
        }
        // SAFETY: the producer wrote a record there and then added it to the counter, and the kernel orders these. It writes
        // there again only after we have released the bytes.
        let (len, taken) = unsafe { records.read(*head, buffer)? };
        *head += taken;
        *there -= taken;
        *read += taken;
        if *read >= records.capacity() / 2 {
            counters.free.add(*read)?;
            *read = 0;
        }
        Ok(len)
    }

    /// A record of this length, and the unused bytes before it, fit the half of the ring that the consumer always releases.
    fn max_len(&self) -> usize {
        self.out.records.capacity() / 4 - record_len(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_all_lengths_wrap_and_release_their_space() {
        let segment = Rc::new(Segment::create(2 * 256).unwrap());
        let counters = Counters::new().unwrap();
        let again = Counters {
            there: Counter(counters.there.0.try_clone().unwrap()),
            free: Counter(counters.free.0.try_clone().unwrap()),
        };
        // both ends of one direction in this process
        let mut ends = Ends::new(&segment, 256, (0, counters), (0, again));
        let longest = ends.max_len();
        let mut buffer = vec![0; longest];
        for round in 0..2000 {
            let message = vec![round as u8; round % (longest + 1)];
            ends.send(&message).unwrap();
            assert_eq!(ends.recv(&mut buffer).unwrap(), message.len());
            assert_eq!(buffer[..message.len()], message);
        }
    }
}
