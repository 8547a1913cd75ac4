//! The two halves of one side of a duplex pipe, which is a ring in each direction.

use crate::protocol::half::Half;
use crate::protocol::liveness::TakeoverError;
use crate::protocol::reader::Reader;
use crate::protocol::writer::Writer;

/// Opens both halves, which were taken over, and makes them one: only one of them reports an abort or a death of the peer.
pub(crate) fn open(reader: &mut Reader, writer: &mut Writer) -> Result<(), TakeoverError> {
    // The same in both directions, so that a half can tell the other one whose end it has reported.
    let epoch = reader.next_epoch()?.max(writer.next_epoch()?);
    reader.join(Some(*writer.ring()));
    writer.join(Some(*reader.ring()));
    // The writer last: a peer that waits for us sees the writer open, and may then send at once.
    reader.open(epoch);
    writer.open(epoch);
    Ok(())
}

/// Makes the halves independent, for two threads.
pub(crate) fn part(reader: &mut Reader, writer: &mut Writer) {
    reader.join(None);
    writer.join(None);
}
