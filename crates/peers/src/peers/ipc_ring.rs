//! ipc_ring: a ring of length-prefixed messages in a mapped file, with an event each way that every message signals.

use std::fs;
use std::io;
use std::path::PathBuf;

use ipc_ring::{IpcError, RingReader, RingWriter};
use shmpipe_measure::{Channel, Endpoint, Invitation, Invited, Mode, Transport};

use crate::errors::{refused, wrong_len};
use crate::late::Late;
use crate::scratch;

/// A ring each way, blocking.
pub const IPC_RING: &dyn Transport = &IpcRing;

struct IpcRing;

impl Transport for IpcRing {
    fn name(&self) -> &'static str {
        "ipc_ring"
    }

    fn mode(&self) -> Mode {
        Mode::Sleeps
    }

    fn about(&self) -> &'static str {
        "ipc_ring 0.2; push and pop without a timeout (pop fills a Vec, from which the message is copied once more)"
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let (there, back) = (scratch::path("ipc_ring")?, scratch::path("ipc_ring")?);
        let capacity = invitation.capacity();
        invitation.tell(capacity);
        invitation.tell(there.display());
        invitation.tell(back.display());
        let writer = RingWriter::create(there, capacity).map_err(refused)?;
        Ok(endpoint(writer, Late::new(move || reader(back)), capacity))
    }

    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        let capacity = invited.word()?;
        let (there, back): (PathBuf, PathBuf) = (invited.word()?, invited.word()?);
        let reader = Late::ready(reader(there)?);
        Ok(endpoint(RingWriter::create(back, capacity).map_err(refused)?, reader, capacity))
    }
}

/// Opens, and takes the file's name away: no other process is to come.
fn reader(path: PathBuf) -> io::Result<RingReader> {
    let reader = RingReader::open(&path).map_err(refused)?;
    fs::remove_file(path)?;
    Ok(reader)
}

fn endpoint(writer: RingWriter, reader: Late<RingReader>, capacity: usize) -> Endpoint {
    Endpoint::new(Ends { writer, reader, popped: Vec::new(), capacity })
}

struct Ends {
    writer: RingWriter,
    reader: Late<RingReader>,
    popped: Vec<u8>,
    capacity: usize,
}

impl Channel for Ends {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        loop {
            match self.writer.push(message, None) {
                // a reader that rests for half a second between slices is no error
                Err(IpcError::PeerStalled) => {}
                done => return done.map_err(refused),
            }
        }
    }

    #[inline(always)]
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.reader.get()?.pop(&mut self.popped, None).map_err(refused)?;
        let room = buffer.get_mut(..len).ok_or_else(|| wrong_len(len, self.capacity))?;
        room.copy_from_slice(&self.popped);
        Ok(len)
    }

    /// So much fits wherever the message starts, the rest of the ring that it skips included.
    fn max_len(&self) -> usize {
        self.capacity / 2 - 8
    }
}
