//! A typed market-data feed: `ticks feed` sends quotes as plain values, `ticks watch` receives them in place.
//!
//! `cargo run --release --example ticks feed` and `cargo run --release --example ticks watch`, in either order.

use bytemuck::{Pod, Zeroable};
use shmpipe::{Options, Pipe, RecvError, SetupError, Value};
use std::error::Error;
use std::time::{Duration, Instant};

/// One quote. `Pod`: no padding, no pointers, every bit pattern is a value, so that its bytes may cross processes.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Tick {
    instrument: u32,
    size: u32,
    price: i64,
    sent_ns: u64,
}

/// Changes whenever `Tick` does, so that a program with another idea of it is refused instead of reading nonsense.
const SCHEMA: u64 = 1;

fn open() -> Result<Pipe, SetupError> {
    Options::new().capacity(256 << 10).schema(SCHEMA).remove_on_close(true).open_or_create("ticks-example")
}

fn feed(start: Instant) -> Result<(), Box<dyn Error>> {
    let mut producer = open()?.producer()?;
    producer.wait_for_peer(Some(Instant::now() + Duration::from_secs(30)))?;
    for i in 0..1_000_000u32 {
        let sent_ns = start.elapsed().as_nanos() as u64;
        let tick =
            Tick { instrument: i % 8, size: 100 + i % 7, price: 1_000_000 + i64::from(i % 500), sent_ns };
        producer.send(Value(&tick))?;
    }
    producer.close()?;
    Ok(())
}

fn watch() -> Result<(), Box<dyn Error>> {
    let mut consumer = open()?.consumer()?;
    let (mut ticks, mut volume, mut last) = (0u64, 0u64, [0i64; 8]);
    loop {
        let tick = match consumer.recv() {
            Ok(message) => message.value::<Tick>()?,
            Err(RecvError::Closed) => break,
            Err(error) => return Err(error.into()),
        };
        ticks += 1;
        volume += u64::from(tick.size);
        last[tick.instrument as usize % last.len()] = tick.price;
    }
    println!("{ticks} ticks, volume {volume}, last prices {last:?}");
    consumer.close()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1).as_deref() {
        Some("feed") => feed(Instant::now()),
        Some("watch") => watch(),
        _ => Err("usage: ticks feed | ticks watch".into()),
    }
}
