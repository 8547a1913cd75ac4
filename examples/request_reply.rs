//! Requests one way and replies the other, through one duplex pipe. The tag matches a reply to its request.
//!
//! `cargo run --example request_reply serve` and `cargo run --example request_reply ask 6 7`, in either order.

use shmpipe::{Duplex, DuplexSide, Options, RecvError, SetupError, Tagged, Value};
use std::error::Error;
use std::time::Duration;

fn claim(side: DuplexSide) -> Result<Duplex, SetupError> {
    let options = Options::new().duplex(true).capacity(4096).remove_on_close(true);
    options.open_or_create("example-requests")?.duplex_as(side)
}

fn serve() -> Result<(), Box<dyn Error>> {
    let mut client = claim(DuplexSide::A)?;
    loop {
        let (tag, [a, b]) = match client.recv() {
            Ok(request) => (request.tag(), request.value::<[u64; 2]>()?),
            Err(RecvError::Closed) => break,
            // The client died or failed. The next call waits for its successor.
            Err(RecvError::PeerAborted { .. } | RecvError::PeerDied) => continue,
            Err(error) => return Err(error.into()),
        };
        client.send(Tagged(tag, Value(&a.wrapping_mul(b))))?;
    }
    Ok(client.close()?)
}

fn ask(numbers: &[u64]) -> Result<(), Box<dyn Error>> {
    let mut server = claim(DuplexSide::B)?;
    for (tag, pair) in (1..).zip(numbers.windows(2)) {
        server.send(Tagged(tag, Value(&[pair[0], pair[1]])))?;
        let reply = server.recv_timeout(Duration::from_secs(30))?;
        if reply.tag() != tag {
            return Err(format!("reply {} to request {tag}", reply.tag()).into());
        }
        println!("{} * {} = {}", pair[0], pair[1], reply.value::<u64>()?);
    }
    Ok(server.close()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((verb, [])) if verb == "serve" => serve(),
        Some((verb, numbers)) if verb == "ask" => {
            let numbers: Result<Vec<u64>, _> = numbers.iter().map(|number| number.parse()).collect();
            ask(&numbers?)
        }
        _ => Err("usage: request_reply serve | request_reply ask NUMBER NUMBER...".into()),
    }
}
