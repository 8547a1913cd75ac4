//! The figures of docs/bridge.md: throughput, processor time and added latency of the bridge on loopback, beside publishing each message
//! by itself with async-nats.
//!
//! ```sh
//! cargo bench --bench figures                      # --seconds 2 for each figure; the server in PATH or in NATS_SERVER
//! ```

#[path = "../tests/support/mod.rs"]
mod support;

use async_nats::jetstream;
use hdrhistogram::Histogram;
use shmpipe::{Options, Pipe, Value};
use std::collections::VecDeque;
use std::future::IntoFuture;
use std::thread;
use std::time::{Duration, Instant};
use support::{Name, Process, Server, bridge, wait_until};

const RING: u64 = 4 << 20;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if !arguments.iter().any(|word| word == "--bench") {
        // As a test: a moment of each.
        return all(Duration::from_millis(100));
    }
    let seconds = arguments.iter().position(|word| word == "--seconds").and_then(|at| arguments.get(at + 1));
    all(Duration::from_secs_f64(seconds.map_or(3.0, |seconds| seconds.parse().expect("a number"))));
}

fn all(time: Duration) {
    println!(
        "| server syncs | bytes | publishing | subscribing | end to end | CPU per message: publisher, server, subscriber |"
    );
    println!("|---|---|---|---|---|---|");
    for (sync, start) in
        [("every 2 min", Server::start as fn() -> Option<Server>), ("each frame", Server::start_syncing)]
    {
        for size in [64, 1024] {
            let Some(server) = start() else { continue };
            throughput(&server, sync, size, time);
        }
    }
    println!("\n| messages/s | linger | server syncs | p50 | p90 | p99 | p99.9 | longest | messages |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for (sync, start) in
        [("every 2 min", Server::start as fn() -> Option<Server>), ("each frame", Server::start_syncing)]
    {
        for rate in [1_000, 100_000] {
            let Some(server) = start() else { continue };
            latency(&server, sync, rate, time);
        }
    }
    println!("\n| each message by itself, 64 bytes | messages/s |");
    println!("|---|---|");
    let Some(server) = Server::start() else { return };
    alone(&server, time);
}

/// Nanoseconds of processor time that a process has used.
fn processor_time(process: &Process) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |field: usize| fields[field].parse::<f64>().unwrap();
    // SAFETY: no pointers.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    (ticks(11) + ticks(12)) / per_second * 1e9
}

fn rate(count: u64, size: usize, time: Duration) -> String {
    let per_second = count as f64 / time.as_secs_f64();
    format!("{:.2} M/s, {:.2} GB/s", per_second / 1e6, per_second * size as f64 / 1e9)
}

/// Sends for this long, and returns how many.
fn send(pipe: &Pipe, size: usize, time: Duration) -> u64 {
    let mut producer = pipe.producer().unwrap();
    let message = vec![7; size];
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < time {
        for _ in 0..1000 {
            producer.send(&message).unwrap();
        }
        count += 1000;
    }
    producer.close().unwrap();
    count
}

/// Receives until the producer closes. Returns how many, and the time from the first to the last.
fn receive(pipe: &Pipe) -> (u64, Duration) {
    let mut consumer = pipe.consumer().unwrap();
    let (mut count, mut first, mut last) = (0, None, Instant::now());
    while consumer.recv().is_ok() {
        count += 1;
        if count % 64 == 0 || first.is_none() {
            last = Instant::now();
            first.get_or_insert(last);
        }
    }
    (count, last - first.unwrap_or(last))
}

fn pipes() -> [(Name, Pipe); 2] {
    [(); 2].map(|()| {
        let name = Name::new();
        let pipe = Options::new().capacity(RING).create(&*name).unwrap();
        (name, pipe)
    })
}

fn throughput(server: &Server, sync: &str, size: usize, time: Duration) {
    let [(from, source), (to, sink)] = pipes();
    let mut publisher = bridge(server, &["publish", &from, "--stream", "A"]);
    publisher.wait_until_said("one copy");
    let start = Instant::now();
    let sent = send(&source, size, time);
    assert_eq!(publisher.code(), 0, "{}", publisher.said());
    let publishing = rate(sent, size, start.elapsed());

    let mut subscriber = bridge(server, &["subscribe", &to, "--stream", "A"]);
    let (received, took) = receive(&sink);
    assert_eq!((received, subscriber.code()), (sent, 0), "{}", subscriber.said());
    let subscribing = rate(received, size, took);

    let [(from, source), (to, sink)] = pipes();
    let publisher = bridge(server, &["publish", &from, "--stream", "B", "--follow"]);
    publisher.wait_until_said("one copy");
    let subscriber = bridge(server, &["subscribe", &to, "--stream", "B", "--follow"]);
    let processes = [&publisher, server.process(), &subscriber];
    let before = processes.map(processor_time);
    let start = Instant::now();
    let receiver = thread::spawn(move || receive(&sink));
    let sent = send(&source, size, time);
    let (received, _) = receiver.join().unwrap();
    let took = start.elapsed();
    assert_eq!(sent, received);
    let after = processes.map(processor_time);
    let used: Vec<_> = before
        .iter()
        .zip(after)
        .map(|(before, after)| format!("{:.0}", (after - before) / sent as f64))
        .collect();
    let end_to_end = rate(received, size, took);
    println!("| {sync} | {size} | {publishing} | {subscribing} | {end_to_end} | {} ns |", used.join(", "));
}

/// Nanoseconds of a clock that all processes share.
fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a pointer to a local.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn latency(server: &Server, sync: &str, rate: u64, time: Duration) {
    let [(from, source), (to, sink)] = pipes();
    let publisher = bridge(server, &["publish", &from, "--stream", "A", "--follow"]);
    publisher.wait_until_said("one copy");
    let _subscriber = bridge(server, &["subscribe", &to, "--stream", "A", "--follow"]);
    let receiver = thread::spawn(move || {
        let mut consumer = sink.consumer().unwrap();
        let mut delays = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        loop {
            match consumer.recv().map(|message| message.value::<[u64; 8]>().unwrap()[0]) {
                // The first ones open connections.
                Ok(0) => {}
                Ok(due) => delays.record(now_ns().saturating_sub(due)).unwrap(),
                Err(shmpipe::RecvError::Closed) => return delays,
                Err(error) => panic!("{error}"),
            }
        }
    });
    let mut producer = source.producer().unwrap();
    producer.send(Value(&[0u64; 8])).unwrap();
    wait_until("it arrives", || shmpipe::inspect(&*to).unwrap().consumer.messages == 1);
    let count = (time.as_secs_f64() * 3.0 * rate as f64) as u64;
    let start = now_ns() + 1_000_000;
    for number in 0..count {
        // From when it should be sent: a wait for a full pipe counts.
        let due = start + number * 1_000_000_000 / rate;
        while let Some(left) = due.checked_sub(now_ns()).filter(|left| *left > 0) {
            thread::sleep(Duration::from_nanos(left.min(1_000_000)));
        }
        producer.send(Value(&[due; 8])).unwrap();
    }
    producer.close().unwrap();
    let delays = receiver.join().unwrap();
    let at = |quantile| format!("{:.2} ms", delays.value_at_quantile(quantile) as f64 / 1e6);
    println!(
        "| {rate} | 1 ms | {sync} | {} | {} | {} | {} | {} | {} |",
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0),
        delays.len()
    );
}

/// Each message is published by itself, with 1000 acknowledgements on their way, and with one.
fn alone(server: &Server, time: Duration) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let client = async_nats::connect(server.url()).await.unwrap();
        let context = jetstream::new(client);
        let config = jetstream::stream::Config {
            name: "ALONE".to_owned(),
            subjects: vec!["alone".to_owned()],
            ..Default::default()
        };
        context.create_stream(config).await.unwrap();
        for window in [1, 1000] {
            let mut waiting = VecDeque::new();
            let (start, mut count) = (Instant::now(), 0u64);
            while start.elapsed() < time {
                waiting.push_back(context.publish("alone", vec![7; 64].into()).await.unwrap());
                if waiting.len() >= window {
                    waiting.pop_front().unwrap().into_future().await.unwrap();
                    count += 1;
                }
            }
            let per_second = count as f64 / start.elapsed().as_secs_f64();
            println!("| acknowledged, {window} on their way | {:.3} M/s |", per_second / 1e6);
        }
    });
}
