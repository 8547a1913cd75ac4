//! The tutorial's writer, done right: each line typed goes to `shmread`, "end" ends both.
//!
//! `cargo run --example shmwrite` in one terminal, `cargo run --example shmread` in another, in either order.

use shmpipe::{Options, SendError};
use std::error::Error;
use std::io::{Write, stderr, stdin};

fn main() -> Result<(), Box<dyn Error>> {
    // Key 1234 as in the tutorial, but readable and writable for ourselves alone, and gone when both have ended.
    let pipe = Options::new().remove_on_close(true).open_or_create("sysv:1234")?;
    let mut producer = pipe.producer()?;
    let mut line = String::new();
    loop {
        write!(stderr(), "You wrote: ")?;
        line.clear();
        if stdin().read_line(&mut line)? == 0 {
            break;
        }
        let text = line.trim_end_matches('\n');
        match producer.send(text.as_bytes()) {
            Ok(_) => {}
            // Neither side hangs because the other one was killed.
            Err(SendError::PeerDied) => writeln!(stderr(), "(the reader died; waiting for another)")?,
            Err(error) => return Err(error.into()),
        }
        if text == "end" {
            break;
        }
    }
    producer.close()?;
    Ok(())
}
