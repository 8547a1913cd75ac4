//! The loops of a slice, compiled for each transport: one virtual call per slice, none per message.

use std::hint::black_box;
use std::io;
use std::time::Instant;

use crate::channel::Channel;
use crate::checked::Messages;

/// One process's end of a transport, with its kind forgotten.
pub struct Endpoint(pub(crate) Box<dyn Work>);

impl Endpoint {
    /// The end that talks through `channel`.
    pub fn new<C: Channel + 'static>(channel: C) -> Endpoint {
        Endpoint(Box::new(Loops { channel, buffer: Vec::new() }))
    }
}

/// What either process does with its end during a slice. Asking pairs with answering, out with in.
pub(crate) trait Work {
    fn max_len(&self) -> usize;
    fn ask(&mut self, size: usize, count: u64) -> io::Result<()>;
    fn ask_each(&mut self, size: usize, count: u64, took: &mut Vec<u64>) -> io::Result<()>;
    fn answer(&mut self, size: usize, count: u64) -> io::Result<()>;
    fn stream_out(&mut self, size: usize, count: u64) -> io::Result<()>;
    fn stream_in(&mut self, size: usize, count: u64) -> io::Result<()>;
    /// Both give the bytes of the messages.
    fn send_checked(&mut self, messages: Messages, max: usize, count: u64) -> io::Result<u64>;
    fn receive_checked(&mut self, messages: Messages, max: usize, count: u64) -> io::Result<u64>;
}

struct Loops<C> {
    channel: C,
    /// What is sent comes from here, and what is received goes here. Only ever grows.
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

/// Receives a message of just the size of `buffer`, and does not let the compiler drop the copy.
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
        for _ in 0..count {
            channel.send(buffer)?;
        }
        Ok(())
    }

    fn stream_in(&mut self, size: usize, count: u64) -> io::Result<()> {
        let (channel, buffer) = self.parts(size);
        for _ in 0..count {
            receive(channel, buffer)?;
        }
        Ok(())
    }

    fn send_checked(&mut self, mut messages: Messages, max: usize, count: u64) -> io::Result<u64> {
        let (channel, buffer) = self.parts(max);
        let mut bytes = 0;
        for _ in 0..count {
            let message = messages.draw();
            channel.send(message.fill(buffer))?;
            bytes += message.len as u64;
        }
        Ok(bytes)
    }

    fn receive_checked(&mut self, mut messages: Messages, max: usize, count: u64) -> io::Result<u64> {
        let (channel, buffer) = self.parts(max);
        let mut bytes = 0;
        for _ in 0..count {
            let message = messages.draw();
            let about = |error: io::Error| {
                io::Error::new(error.kind(), format!("message {}: {error}", message.sequence))
            };
            let found = channel.recv(&mut buffer[..message.len]).map_err(about)?;
            message.check(&buffer[..found])?;
            bytes += message.len as u64;
        }
        Ok(bytes)
    }
}
