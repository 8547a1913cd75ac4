//! Requests one way, replies the other: a pipe for each. The tag tells which reply belongs to which request.
//!
//! `cargo run --example request_reply serve` and `cargo run --example request_reply ask 6 7`, in either order.

use shmpipe::{Options, Pipe, RecvError, SetupError, Tagged};
use std::error::Error;

fn open(address: &str) -> Result<Pipe, SetupError> {
    Options::new().capacity(4096).remove_on_close(true).open_or_create(address)
}

const REQUESTS: &str = "example-requests";
const REPLIES: &str = "example-replies";

fn serve() -> Result<(), Box<dyn Error>> {
    let mut requests = open(REQUESTS)?.consumer()?;
    let mut replies = open(REPLIES)?.producer()?;
    loop {
        let (tag, [a, b]) = match requests.recv() {
            Ok(request) => (request.tag(), request.value::<[u64; 2]>()?),
            Err(RecvError::Closed) => break,
            // The client died; its successor may come.
            Err(RecvError::PeerDied) => continue,
            Err(error) => return Err(error.into()),
        };
        replies.send(Tagged(tag, &a.wrapping_mul(b).to_ne_bytes()))?;
    }
    requests.close()?;
    replies.close()?;
    Ok(())
}

fn ask(numbers: &[u64]) -> Result<(), Box<dyn Error>> {
    let mut requests = open(REQUESTS)?.producer()?;
    let mut replies = open(REPLIES)?.consumer()?;
    for (tag, pair) in (1..).zip(numbers.windows(2)) {
        requests.send(Tagged(tag, bytemuck::cast_slice(pair)))?;
        let reply = replies.recv()?;
        if reply.tag() != tag {
            return Err(format!("reply {} to request {tag}", reply.tag()).into());
        }
        println!("{} * {} = {}", pair[0], pair[1], reply.value::<u64>()?);
    }
    requests.close()?;
    replies.close()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("serve") => serve(),
        Some("ask") => {
            let numbers: Result<Vec<u64>, _> = arguments[1..].iter().map(|n| n.parse()).collect();
            ask(&numbers?)
        }
        _ => Err("usage: request_reply serve | request_reply ask NUMBER NUMBER...".into()),
    }
}
