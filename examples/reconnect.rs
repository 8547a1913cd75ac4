//! A reader that outlives its writers: when one closes or dies, it waits for the next and continues.
//!
//! ```sh
//! cargo run --example reconnect &
//! echo one | shmpipe send ticks
//! echo two | shmpipe send ticks
//! ```

use shmpipe::{Pipe, RecvError};
use std::error::Error;
use std::io::{Write, stdout};

fn main() -> Result<(), Box<dyn Error>> {
    let mut consumer = Pipe::open_or_create("ticks")?.consumer()?;
    loop {
        // `to_vec` copies the message, so that no borrow of the consumer is left in the arms.
        match consumer.recv().map(|message| message.to_vec()) {
            Ok(mut line) => {
                line.push(b'\n');
                stdout().write_all(&line)?;
            }
            // Every message that this writer sent was received.
            Err(RecvError::Closed | RecvError::PeerAborted { .. } | RecvError::PeerDied) => {
                consumer.wait_for_peer(None)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}
