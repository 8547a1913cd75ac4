//! A TCP connection over the loopback interface.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use super::bytestream::ByteStream;
use super::{Invitation, Invited, Mode, Transport};
use crate::endpoint::Endpoint;
use crate::errors::about;

/// TCP to 127.0.0.1, blocking, `TCP_NODELAY`, buffers sized by the kernel.
pub const TCP: &dyn Transport = &Tcp { name: "tcp", mode: Mode::Sleeps };
/// The same, non-blocking and polled.
pub const TCP_SPIN: &dyn Transport = &Tcp { name: "tcp-spin", mode: Mode::Polls };

struct Tcp {
    name: &'static str,
    mode: Mode,
}

/// Both ends of a new connection of this process with itself.
fn connection() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let ours = TcpStream::connect(listener.local_addr()?)?;
    loop {
        let (theirs, from) = listener.accept()?;
        // rejects any other process that has connected to the port meanwhile
        if from == ours.local_addr()? {
            return Ok((ours, theirs));
        }
    }
}

fn endpoint(socket: TcpStream) -> io::Result<Endpoint> {
    Ok(Endpoint::new(ByteStream { reader: socket.try_clone()?, writer: socket }))
}

impl Transport for Tcp {
    fn name(&self) -> &'static str {
        self.name
    }

    fn mode(&self) -> Mode {
        self.mode
    }

    fn about(&self) -> &'static str {
        match self.mode {
            Mode::Polls => {
                "TCP over loopback, TCP_NODELAY, O_NONBLOCK, read and written again and again; buffers sized by the kernel"
            }
            _ => {
                "TCP over loopback, blocking, TCP_NODELAY, buffers sized by the kernel; one write and one exact read per message"
            }
        }
    }

    fn passes_descriptors(&self) -> bool {
        true
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let (ours, theirs) =
            connection().map_err(|error| about(format_args!("a connection to 127.0.0.1"), error))?;
        for socket in [&ours, &theirs] {
            socket.set_nodelay(true)?;
            socket.set_nonblocking(self.mode == Mode::Polls)?;
        }
        invitation.pass(theirs.into());
        endpoint(ours)
    }

    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        endpoint(invited.descriptor()?.into())
    }
}
