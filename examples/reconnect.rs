//! A reader that outlives its writers: when one closes or dies, it waits for the next and reads on.
//!
//! ```sh
//! cargo run --example reconnect &
//! echo one | shmpipe send ticks; echo two | shmpipe send ticks
//! ```

use shmpipe::{Pipe, RecvError};
use std::error::Error;
use std::io::{Write, stdout};

fn main() -> Result<(), Box<dyn Error>> {
    let mut consumer = Pipe::open_or_create("ticks")?.consumer()?;
    let mut message = Vec::new();
    loop {
        match consumer.recv_into(&mut message) {
            Ok(_) => {
                message.push(b'\n');
                stdout().write_all(&message)?;
            }
            // What it had sent before it went was received.
            Err(RecvError::Closed | RecvError::Abandoned) => consumer.wait_for_peer(None)?,
            Err(error) => return Err(error.into()),
        }
    }
}
