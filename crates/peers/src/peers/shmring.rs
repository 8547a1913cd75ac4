//! shmring: a ring of bytes in POSIX shared memory with a futex on each position.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use shmpipe_measure::{Channel, Endpoint, Invitation, Invited, Mode, Transport};
use shmring::backend::ShmStorage;
use shmring::{Options, Reader, Writer, create_shm, open_shm};

use crate::errors::refused;
use crate::late::Late;
use crate::scratch;

/// A ring each way, blocking.
pub const SHMRING: &dyn Transport = &Shmring;

struct Shmring;

impl Transport for Shmring {
    fn name(&self) -> &'static str {
        "shmring"
    }

    fn mode(&self) -> Mode {
        Mode::Sleeps
    }

    fn about(&self) -> &'static str {
        "shmring 0.4, a stream of bytes; one write_all and one read_exact per message, default options"
    }

    fn make(&self, invitation: &mut Invitation<'_>) -> io::Result<Endpoint> {
        let (there, back) = (scratch::name("shmring")?, scratch::name("shmring")?);
        let capacity = invitation.capacity() as u64;
        invitation.tell(capacity);
        invitation.tell(&there);
        invitation.tell(&back);
        let reader = Late::new(move || reader(&back, capacity));
        Ok(Endpoint::new(Stream { writer: writer(&there, capacity)?, reader }))
    }

    fn join(&self, invited: &mut Invited<'_>) -> io::Result<Endpoint> {
        let capacity = invited.word()?;
        let (there, back): (String, String) = (invited.word()?, invited.word()?);
        let reader = Late::ready(reader(&there, capacity)?);
        Ok(Endpoint::new(Stream { writer: writer(&back, capacity)?, reader }))
    }
}

fn writer(name: &str, capacity: u64) -> io::Result<Writer<ShmStorage>> {
    create_shm(name, capacity, Options::default()).map_err(refused)
}

/// Opens, and takes the name away: no other process is to come.
fn reader(name: &str, capacity: u64) -> io::Result<Reader<ShmStorage>> {
    let reader = open_shm(name, capacity, Options::default()).map_err(refused)?;
    fs::remove_file(Path::new("/dev/shm").join(name))?;
    Ok(reader)
}

struct Stream {
    writer: Writer<ShmStorage>,
    reader: Late<Reader<ShmStorage>>,
}

impl Channel for Stream {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.writer.write_all(message)
    }

    #[inline(always)]
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.get()?.read_exact(buffer)?;
        Ok(buffer.len())
    }
}
