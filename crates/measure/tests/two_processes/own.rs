//! A transport over sockets, and one over channels, as another crate would write them.

use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::mpsc;

use shmpipe_measure::{Channel, Endpoint, Invitation, Invited, Mode, Transport};

/// A pair of Unix sockets that keep message boundaries.
pub(crate) struct PacketSockets;

pub(crate) struct Packets(pub(crate) fs::File);

impl Channel for Packets {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        io::Write::write_all(&mut self.0, message)
    }

    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        io::Read::read(&mut self.0, buffer)
    }
}

pub(crate) fn packet_sockets() -> (OwnedFd, OwnedFd) {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    let made = unsafe {
        libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, ends.as_mut_ptr())
    };
    assert_eq!(made, 0);
    // SAFETY: the kernel has just opened both.
    unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) }
}

impl Transport for PacketSockets {
    fn name(&self) -> &'static str {
        "packets"
    }

    fn mode(&self) -> Mode {
        Mode::Sleeps
    }

    fn about(&self) -> &'static str {
        "Unix sequenced-packet socketpair"
    }

    fn passes_descriptors(&self) -> bool {
        true
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let (ours, theirs) = packet_sockets();
        invitation.pass(theirs);
        Ok(Endpoint::new(Packets(ours.into())))
    }

    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        Ok(Endpoint::new(Packets(invited.descriptor()?.into())))
    }
}

/// Two channels of the standard library: between threads only.
pub(crate) struct Mpsc;

pub(crate) struct Boxes {
    pub(crate) out: mpsc::Sender<Vec<u8>>,
    pub(crate) back: mpsc::Receiver<Vec<u8>>,
}

impl Boxes {
    pub(crate) fn pair() -> (Boxes, Boxes) {
        let ((a_out, b_back), (b_out, a_back)) = (mpsc::channel(), mpsc::channel());
        (Boxes { out: a_out, back: a_back }, Boxes { out: b_out, back: b_back })
    }
}

impl Channel for Boxes {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.out.send(message.to_vec()).map_err(io::Error::other)
    }

    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let message = self.back.recv().map_err(io::Error::other)?;
        buffer[..message.len()].copy_from_slice(&message);
        Ok(message.len())
    }
}

impl Transport for Mpsc {
    fn name(&self) -> &'static str {
        "mpsc"
    }

    fn mode(&self) -> Mode {
        Mode::PollsThenSleeps
    }

    fn about(&self) -> &'static str {
        "std::sync::mpsc::channel each way, a boxed message each time"
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let (ours, theirs) = Boxes::pair();
        invitation.hand_over(theirs)?;
        Ok(Endpoint::new(ours))
    }
}
