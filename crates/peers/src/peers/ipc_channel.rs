//! ipc-channel: Servo's channels, on Linux over Unix sockets.
//!
//! Its channels of plain bytes, which skip serialization. The two processes find each other by its one-shot server.

use std::io;

use ipc_channel::ipc::{IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcSender, bytes_channel};
use shmpipe_measure::{Channel, Endpoint, Invitation, Invited, Mode, Transport};

use crate::errors::{refused, wrong_len};
use crate::late::Late;

/// A channel of bytes each way, blocking.
pub const IPC_CHANNEL: &dyn Transport = &IpcChannel;

struct IpcChannel;

impl Transport for IpcChannel {
    fn name(&self) -> &'static str {
        "ipc-channel"
    }

    fn mode(&self) -> Mode {
        Mode::Sleeps
    }

    fn about(&self) -> &'static str {
        "ipc-channel 0.23, bytes_channel; recv allocates a Vec, from which the message is copied once more"
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let (server, name) = IpcOneShotServer::<Ends>::new()?;
        invitation.tell(name);
        Ok(Endpoint::new(Bytes(Late::new(move || Ok(server.accept().map_err(refused)?.1)))))
    }

    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        let introduction = IpcSender::<Ends>::connect(invited.word()?)?;
        let (there_sender, there_receiver) = bytes_channel()?;
        let (back_sender, back_receiver) = bytes_channel()?;
        introduction.send((there_sender, back_receiver)).map_err(refused)?;
        Ok(Endpoint::new(Bytes(Late::ready((back_sender, there_receiver)))))
    }
}

type Ends = (IpcBytesSender, IpcBytesReceiver);

struct Bytes(Late<Ends>);

impl Channel for Bytes {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.0.get()?.0.send(message)
    }

    #[inline(always)]
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let message = self.0.get()?.1.recv().map_err(refused)?;
        let expected = buffer.len();
        let room = buffer.get_mut(..message.len()).ok_or_else(|| wrong_len(message.len(), expected))?;
        room.copy_from_slice(&message);
        Ok(message.len())
    }
}
