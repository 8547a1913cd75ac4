//! The tutorial's reader, done right: prints each line that `shmwrite` sends, as soon as it is sent; "end" ends both.

use shmpipe::{Options, RecvError};
use std::error::Error;
use std::io::{Write, stdout};

fn main() -> Result<(), Box<dyn Error>> {
    let pipe = Options::new().remove_on_close(true).open_or_create("sysv:1234")?;
    let mut consumer = pipe.consumer()?;
    loop {
        let text = match consumer.recv() {
            Ok(message) => message.to_vec(),
            Err(RecvError::Closed) => break,
            // What the writer had sent was printed; another one may take its place.
            Err(RecvError::PeerDied) => continue,
            Err(error) => return Err(error.into()),
        };
        let mut out = stdout().lock();
        out.write_all(b"You read: ")?;
        out.write_all(&text)?;
        out.write_all(b"\n")?;
        if text == b"end" {
            break;
        }
    }
    consumer.close()?;
    Ok(())
}
