//! The writer of the classic System V tutorial, without its races: sends each line typed to `shmread`. The line "end" ends both.
//!
//! `cargo run --example shmwrite` in one terminal, `cargo run --example shmread` in another, in either order.

use shmpipe::{Options, SendError};
use std::error::Error;
use std::io::stdin;

fn main() -> Result<(), Box<dyn Error>> {
    // Key 1234 as in the tutorial, but with access for this user only, and removed when both have ended.
    let pipe = Options::new().remove_on_close(true).open_or_create("sysv:1234")?;
    let mut producer = pipe.producer()?;
    for line in stdin().lines() {
        let line = line?;
        loop {
            match producer.send(&line) {
                Ok(_) => break,
                // The pipe is full and its reader died. The next call waits for another reader.
                Err(SendError::PeerDied) => eprintln!("(the reader died; waiting for another)"),
                Err(error) => return Err(error.into()),
            }
        }
        eprintln!("You wrote: {line}");
        if line == "end" {
            break;
        }
    }
    Ok(producer.close()?)
}
