//! A typed market-data feed: `ticks feed` sends quotes as plain values, and `ticks watch` receives each as a copy of its type.
//!
//! `cargo run --release --example ticks feed` and `cargo run --release --example ticks watch`, in either order.

use bytemuck::{Pod, Zeroable};
use shmpipe::{Options, Pipe, RecvTimeoutError, SetupError, Value};
use std::error::Error;
use std::time::{Duration, Instant};

/// One quote. `Pod`: no padding, no pointers, and every bit pattern is a value, so its bytes can cross processes.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Tick {
    instrument: u32,
    size: u32,
    price: i64,
}

/// Changes with `Tick`: a program with another definition is refused, and never reads nonsense.
const SCHEMA: u64 = 2;
const TIMEOUT: Duration = Duration::from_secs(30);

fn open() -> Result<Pipe, SetupError> {
    Options::new().capacity(256 << 10).schema(SCHEMA).remove_on_close(true).open_or_create("ticks-example")
}

fn feed() -> Result<(), Box<dyn Error>> {
    let mut producer = open()?.producer()?;
    producer.wait_for_peer(Some(Instant::now() + TIMEOUT))?;
    for i in 0..1_000_000 {
        let tick = Tick { instrument: i % 8, size: 100 + i % 7, price: 1_000_000 + i64::from(i % 500) };
        producer.send(Value(&tick))?;
    }
    Ok(producer.close()?)
}

fn watch() -> Result<(), Box<dyn Error>> {
    let mut consumer = open()?.consumer()?;
    let (mut ticks, mut volume, mut last) = (0u64, 0u64, [0i64; 8]);
    loop {
        let tick: Tick = match consumer.recv_timeout(TIMEOUT) {
            Ok(message) => message.value()?,
            Err(RecvTimeoutError::Closed) => break,
            Err(error) => return Err(error.into()),
        };
        ticks += 1;
        volume += u64::from(tick.size);
        last[tick.instrument as usize % last.len()] = tick.price;
    }
    println!("{ticks} ticks, volume {volume}, last prices {last:?}");
    Ok(consumer.close()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1).as_deref() {
        Some("feed") => feed(),
        Some("watch") => watch(),
        _ => Err("usage: ticks feed | ticks watch".into()),
    }
}
