//! Transports that fail, stop or lose messages.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::FromRawFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use shmpipe_measure::{Channel, Endpoint, Invitation, Leftover, Mode, Patience, Transport};

use crate::own::{Boxes, Packets, packet_sockets};

/// How the two ends of a [`Failing`] transport wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Mpsc,
    Packets,
    Shmpipe,
    /// In a loop with [`Patience`].
    Polled,
    /// In a system call that only a signal ends.
    Sleeps,
    /// Without end.
    Parks,
}

/// One end fails after more messages than a starting session sends.
pub(crate) struct Failing {
    pub(crate) kind: Kind,
    /// The partner's end fails.
    pub(crate) theirs: bool,
    /// It panics instead of returning an error.
    pub(crate) panics: bool,
}

pub(crate) struct Fuse<C> {
    channel: C,
    sends: u32,
    panics: bool,
}

impl<C: Channel> Channel for Fuse<C> {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        if self.sends == 0 {
            assert!(!self.panics, "the other end has had enough");
            return Err(io::Error::other("the other end has had enough"));
        }
        self.sends -= 1;
        self.channel.send(message)
    }

    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.channel.recv(buffer)
    }

    fn max_len(&self) -> usize {
        self.channel.max_len()
    }
}

impl Failing {
    fn ends<C: Channel + Send + 'static>(
        &self,
        ours: C,
        theirs: C,
        invitation: &mut Invitation<'_>,
    ) -> io::Result<Endpoint> {
        let sends = |fails: bool| if fails { 100 } else { u32::MAX };
        let panics = self.panics;
        invitation.hand_over(Fuse { channel: theirs, sends: sends(self.theirs), panics })?;
        Ok(Endpoint::new(Fuse { channel: ours, sends: sends(!self.theirs), panics }))
    }
}

impl Transport for Failing {
    fn name(&self) -> &'static str {
        "failing"
    }

    fn mode(&self) -> Mode {
        Mode::Polls
    }

    fn about(&self) -> &'static str {
        if self.panics { "panics" } else { "fails" }
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        match self.kind {
            Kind::Mpsc => {
                let (ours, theirs) = Boxes::pair();
                self.ends(ours, theirs, invitation)
            }
            Kind::Packets => {
                let (ours, theirs) = packet_sockets();
                self.ends(Packets(ours.into()), Packets(theirs.into()), invitation)
            }
            Kind::Shmpipe => {
                let mut pipe = || {
                    let pipe = shmpipe::Options::new().capacity(4096).create("sysv:private").unwrap();
                    let snapshot = shmpipe::inspect(pipe.address()).unwrap();
                    let shmpipe::Object::SysV { shm_id, sem_id: Some(sem_id), .. } = snapshot.object else {
                        unreachable!()
                    };
                    invitation.leaves(Leftover::Segment(shm_id))?;
                    invitation.leaves(Leftover::Semaphores(sem_id))?;
                    io::Result::Ok((pipe.producer().unwrap(), pipe.consumer().unwrap()))
                };
                let ((a_out, b_back), (b_out, a_back)) = (pipe()?, pipe()?);
                self.ends(Shm(a_out, a_back), Shm(b_out, b_back), invitation)
            }
            Kind::Polled => {
                let (ours, theirs) = Boxes::pair();
                self.ends(Polling(ours), Polling(theirs), invitation)
            }
            Kind::Sleeps => {
                let (ours, theirs) = Boxes::pair();
                let (a, b) = (eventfd(), eventfd());
                let ours = Sleeping { boxes: ours, out: a.clone(), back: b.clone() };
                self.ends(ours, Sleeping { boxes: theirs, out: b, back: a }, invitation)
            }
            Kind::Parks => {
                let (ours, theirs) = Boxes::pair();
                self.ends(Parking(ours), Parking(theirs), invitation)
            }
        }
    }
}

/// A shmpipe each way.
pub(crate) struct Shm(shmpipe::Producer, shmpipe::Consumer);

impl Channel for Shm {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.0.send(message).map(drop).map_err(io::Error::other)
    }

    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1.recv().map_err(io::Error::other)?.copy_to(buffer).map_err(io::Error::other)
    }

    fn max_len(&self) -> usize {
        self.0.max_len()
    }
}

/// Waits without end when the other end is gone.
pub(crate) struct Parking(Boxes);

impl Channel for Parking {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.0.send(message)
    }

    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.recv(buffer) {
            Ok(len) => Ok(len),
            Err(_) => loop {
                thread::park();
            },
        }
    }
}

/// Sleeps on an eventfd that both ends hold, so that the end of one does not close it.
struct Sleeping {
    boxes: Boxes,
    out: Arc<File>,
    back: Arc<File>,
}

fn eventfd() -> Arc<File> {
    // SAFETY: takes numbers only.
    let raw = unsafe { libc::eventfd(0, libc::EFD_SEMAPHORE | libc::EFD_CLOEXEC) };
    assert!(raw >= 0);
    // SAFETY: the kernel has just opened it.
    Arc::new(unsafe { File::from_raw_fd(raw) })
}

impl Channel for Sleeping {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.boxes.send(message)?;
        (&*self.out).write_all(&1_u64.to_ne_bytes())
    }

    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = [0; 8];
        // not read_exact, which continues after a signal
        let _ = (&*self.back).read(&mut count)?;
        self.boxes.recv(buffer)
    }
}

/// Polls, and ignores that the other end is gone.
pub(crate) struct Polling(Boxes);

impl Channel for Polling {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.0.send(message).or(Ok(()))
    }

    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut patience = Patience::new();
        loop {
            if let Ok(message) = self.0.back.try_recv() {
                buffer[..message.len()].copy_from_slice(&message);
                return Ok(message.len());
            }
            patience.pause()?;
        }
    }
}

/// A transport between threads whose sender drops a message if `fault` of its number returns true.
pub(crate) struct Faulty {
    name: &'static str,
    about: &'static str,
    fault: fn(u32) -> bool,
}

/// Stops for 2 ms before every 200th message.
pub(crate) static PAUSING: Faulty = Faulty {
    name: "pausing",
    about: "its sender pauses",
    fault: |number| {
        if number % 200 == 0 {
            thread::sleep(Duration::from_millis(2));
        }
        false
    },
};

/// Loses every 1000th message.
pub(crate) static LOSING: Faulty =
    Faulty { name: "losing", about: "it loses messages", fault: |number| number % 1000 == 0 };

struct FaultyChannel {
    boxes: Boxes,
    sent: u32,
    fault: fn(u32) -> bool,
}

impl Channel for FaultyChannel {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.sent += 1;
        if (self.fault)(self.sent) { Ok(()) } else { self.boxes.send(message) }
    }

    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.boxes.recv(buffer)
    }
}

impl Transport for Faulty {
    fn name(&self) -> &'static str {
        self.name
    }

    fn mode(&self) -> Mode {
        Mode::PollsThenSleeps
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let (ours, theirs) = Boxes::pair();
        invitation.hand_over(FaultyChannel { boxes: theirs, sent: 0, fault: self.fault })?;
        Ok(Endpoint::new(ours))
    }
}
