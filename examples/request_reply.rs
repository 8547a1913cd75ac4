//! Requests one way and replies the other, with a pipe for each. The tag matches a reply to its request.
//!
//! `cargo run --example request_reply serve` and `cargo run --example request_reply ask 6 7`, in either order.

use shmpipe::{Options, Pipe, RecvError, SetupError, Tagged, Value};
use std::error::Error;
use std::time::Duration;

const REQUESTS: &str = "example-requests";
const REPLIES: &str = "example-replies";

fn open(address: &str) -> Result<Pipe, SetupError> {
    Options::new().capacity(4096).remove_on_close(true).open_or_create(address)
}

fn serve() -> Result<(), Box<dyn Error>> {
    let mut requests = open(REQUESTS)?.consumer()?;
    let mut replies = open(REPLIES)?.producer()?;
    loop {
        let (tag, [a, b]) = match requests.recv() {
            Ok(request) => (request.tag(), request.value::<[u64; 2]>()?),
            Err(RecvError::Closed) => break,
            // The client died or failed. The next call waits for its successor.
            Err(RecvError::PeerAborted { .. } | RecvError::PeerDied) => continue,
            Err(error) => return Err(error.into()),
        };
        replies.send(Tagged(tag, Value(&a.wrapping_mul(b))))?;
    }
    requests.close()?;
    Ok(replies.close()?)
}

fn ask(numbers: &[u64]) -> Result<(), Box<dyn Error>> {
    let mut requests = open(REQUESTS)?.producer()?;
    let mut replies = open(REPLIES)?.consumer()?;
    for (tag, pair) in (1..).zip(numbers.windows(2)) {
        requests.send(Tagged(tag, Value(&[pair[0], pair[1]])))?;
        let reply = replies.recv_timeout(Duration::from_secs(30))?;
        if reply.tag() != tag {
            return Err(format!("reply {} to request {tag}", reply.tag()).into());
        }
        println!("{} * {} = {}", pair[0], pair[1], reply.value::<u64>()?);
    }
    requests.close()?;
    Ok(replies.close()?)
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
