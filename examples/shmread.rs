//! The reader of the classic System V tutorial, without its races: prints each line of `shmwrite` as soon as it is sent.
//! The line "end" ends both.

use shmpipe::{Options, RecvError};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let pipe = Options::new().remove_on_close(true).open_or_create("sysv:1234")?;
    let mut consumer = pipe.consumer()?;
    loop {
        let line = match consumer.recv() {
            Ok(message) => message.to_vec(),
            Err(RecvError::Closed) => break,
            // Every line that the writer sent was printed. The next call waits for another writer.
            Err(RecvError::PeerDied) => continue,
            Err(error) => return Err(error.into()),
        };
        println!("You read: {}", String::from_utf8_lossy(&line));
        if line == b"end" {
            break;
        }
    }
    Ok(consumer.close()?)
}
