//! The loops of a slice, compiled for each transport, with one virtual call per slice and none per message.

use std::hint::black_box;
use std::io;
use std::time::{Duration, Instant};

use crate::channel::{Channel, Incoming, Outgoing};
use crate::checked::{Generated, Messages};
use crate::clock;
use crate::paced::{Arrivals, Schedule, Stamp};
use crate::slow::Slow;

/// One process's end of a transport, with its type erased.
pub struct Endpoint(pub(crate) Box<dyn Work>);

impl Endpoint {
    /// An end that uses `channel`.
    pub fn new<C: Channel + 'static>(channel: C) -> Endpoint {
        Endpoint(Box::new(Loops { channel, buffer: Vec::new() }))
    }

    /// An end for another thread.
    pub(crate) fn handed<C: Channel + Send + 'static>(channel: C) -> Handed {
        Box::new(Loops { channel, buffer: Vec::new() })
    }
}

/// An end on its way to another thread.
pub(crate) type Handed = Box<dyn Work + Send>;

/// The operations of a process with its end during a slice. Asking pairs with answering, out with in.
pub(crate) trait Work {
    fn max_len(&self) -> usize;
    fn ask(&mut self, size: usize, count: u64) -> io::Result<()>;
    fn ask_each(&mut self, size: usize, count: u64, took: &mut Vec<u64>) -> io::Result<()>;
    fn answer(&mut self, size: usize, count: u64) -> io::Result<()>;
    fn stream_out(&mut self, size: usize, count: u64) -> io::Result<()>;
    fn stream_in(&mut self, size: usize, count: u64) -> io::Result<()>;
    /// Sends a message at each time of `schedule`, or as soon as possible after it.
    fn pace_out(&mut self, size: usize, schedule: Schedule) -> io::Result<()>;
    /// Receives or sends a message at each time of `schedule`, or as soon as possible after it. Returns the time spent in the calls.
    fn at_times(&mut self, size: usize, slow: Slow, schedule: Schedule) -> io::Result<Duration>;
    /// Compares the time at which each message was due with its arrival.
    fn pace_in(&mut self, size: usize, count: u64, arrivals: &mut Arrivals) -> io::Result<()>;
    /// Both return the bytes of the messages.
    fn send_checked(&mut self, messages: Messages, max: usize, count: u64) -> io::Result<u64>;
    fn receive_checked(&mut self, messages: Messages, max: usize, count: u64) -> io::Result<u64>;
}

struct Loops<C> {
    channel: C,
    /// The buffer for sent and received messages. It never shrinks.
    buffer: Vec<u8>,
}

impl<C: Channel> Loops<C> {
    fn parts(&mut self, size: usize) -> (&mut C, &mut [u8]) {
        if self.buffer.len() < size {
            self.buffer.resize(size, 7);
        }
        (&mut self.channel, &mut self.buffer[..size])
    }
}

/// Receives a message of the size of `buffer`, with a copy that the compiler cannot remove.
#[inline(always)]
fn receive<C: Channel>(channel: &mut C, buffer: &mut [u8]) -> io::Result<()> {
    let found = channel.recv(buffer)?;
    black_box(&mut *buffer);
    if found == buffer.len() { Ok(()) } else { Err(wrong_size(found, buffer.len())) }
}

#[cold]
fn wrong_size(found: usize, expected: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a message of {found} bytes, expected {expected}"))
}

#[cold]
fn wrong_stamp(found: u64, expected: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("message {found} came, expected message {expected}"))
}

impl<C: Channel> Work for Loops<C> {
    fn max_len(&self) -> usize {
        self.channel.max_len()
    }

    fn ask(&mut self, size: usize, count: u64) -> io::Result<()> {
        let (channel, buffer) = self.parts(size);
        for _ in 0..count {
            channel.send(buffer)?;
            receive(channel, buffer)?;
        }
        Ok(())
    }

    fn ask_each(&mut self, size: usize, count: u64, took: &mut Vec<u64>) -> io::Result<()> {
        let (channel, buffer) = self.parts(size);
        let mut start = Instant::now();
        for _ in 0..count {
            channel.send(buffer)?;
            receive(channel, buffer)?;
            let end = Instant::now();
            took.push((end - start).as_nanos() as u64);
            start = end;
        }
        Ok(())
    }

    fn answer(&mut self, size: usize, count: u64) -> io::Result<()> {
        let (channel, buffer) = self.parts(size);
        for _ in 0..count {
            receive(channel, buffer)?;
            channel.send(buffer)?;
        }
        Ok(())
    }

    fn stream_out(&mut self, size: usize, count: u64) -> io::Result<()> {
        let (channel, buffer) = self.parts(size);
        channel.send_all(&mut Same { buffer, left: count })
    }

    fn stream_in(&mut self, size: usize, count: u64) -> io::Result<()> {
        let (channel, buffer) = self.parts(size);
        channel.recv_all(&mut Same { buffer, left: count })
    }

    fn pace_out(&mut self, size: usize, schedule: Schedule) -> io::Result<()> {
        let (channel, buffer) = self.parts(size);
        for stamp in schedule.stamps() {
            stamp.write(buffer);
            stamp.wait();
            channel.send(buffer)?;
        }
        Ok(())
    }

    fn at_times(&mut self, size: usize, slow: Slow, schedule: Schedule) -> io::Result<Duration> {
        let (channel, buffer) = self.parts(size);
        let mut spent = Duration::ZERO;
        for stamp in schedule.stamps() {
            stamp.wait();
            let start = Instant::now();
            match slow {
                Slow::Consumer => receive(channel, buffer)?,
                Slow::Producer => channel.send(buffer)?,
            }
            spent += start.elapsed();
        }
        Ok(spent)
    }

    fn pace_in(&mut self, size: usize, count: u64, arrivals: &mut Arrivals) -> io::Result<()> {
        let (channel, buffer) = self.parts(size);
        for sequence in 0..count {
            receive(channel, buffer)?;
            let now = clock::now();
            let stamp = Stamp::read(buffer);
            if stamp.sequence != sequence {
                return Err(wrong_stamp(stamp.sequence, sequence));
            }
            arrivals.record(stamp.intended, now);
        }
        Ok(())
    }

    fn send_checked(&mut self, messages: Messages, max: usize, count: u64) -> io::Result<u64> {
        let (channel, buffer) = self.parts(max);
        let mut generated = Generated::new(messages, buffer, count);
        channel.send_all(&mut generated)?;
        Ok(generated.bytes())
    }

    fn receive_checked(&mut self, messages: Messages, max: usize, count: u64) -> io::Result<u64> {
        let (channel, buffer) = self.parts(max);
        let mut generated = Generated::new(messages, buffer, count);
        channel.recv_all(&mut generated).map_err(|error| generated.explain(error))?;
        Ok(generated.bytes())
    }
}

/// The same message, repeated from the same buffer.
struct Same<'a> {
    buffer: &'a mut [u8],
    left: u64,
}

impl Outgoing for Same<'_> {
    #[inline(always)]
    fn next(&mut self) -> Option<&[u8]> {
        self.left = self.left.checked_sub(1)?;
        Some(self.buffer)
    }
}

impl Incoming for Same<'_> {
    #[inline(always)]
    fn left(&self) -> u64 {
        self.left
    }

    #[inline(always)]
    fn room(&mut self) -> &mut [u8] {
        self.buffer
    }

    #[inline(always)]
    fn arrived(&mut self, len: usize) -> io::Result<()> {
        self.left -= 1;
        black_box(&mut *self.buffer); // the compiler does not drop the copy
        if len == self.buffer.len() { Ok(()) } else { Err(wrong_size(len, self.buffer.len())) }
    }
}
