//! A global logger for a hot loop: a line costs some ten nanoseconds beside its formatting, and never a system call or a wait.
//!
//! ```sh
//! cargo run --release --example logger work &   # logs a million lines, and says what a line took
//! cargo run --release --example logger ship     # writes them to standard output
//! ```
//!
//! Both take the address of another pipe than `logger-example`, if one is given.
//!
//! * Bounded: the pipe holds 1 MiB of lines. When it is full, lines are dropped and counted; `shmpipe stat logger-example` shows how many.
//! * The shipper looks every millisecond, so the program never has to wake it.
//! * The shipper may be killed (`kill -9`) and started again. The lines wait in the pipe, and those that it had not yet released come
//!   again.
//! * At its end the program gives the shipper a second to receive the rest. What is left then stays in the pipe too.

use log::{LevelFilter, Log, Metadata, Record};
use shmpipe::{FlushError, Options, Pipe, Producer, RecvError, SetupError, Wait};
use std::cell::RefCell;
use std::error::Error;
use std::fmt::Write as _;
use std::io::{Write as _, stdout};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

fn open(address: &str) -> Result<Pipe, SetupError> {
    // Only the shipper waits.
    Options::new().wait(Wait::Sleep(Duration::from_millis(1))).open_or_create(address)
}

struct PipeLogger(Mutex<Producer>);

static LOGGER: OnceLock<PipeLogger> = OnceLock::new();

impl PipeLogger {
    fn with<T>(&self, use_it: impl FnOnce(&mut Producer) -> T) -> T {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives the shipper until `deadline` to receive everything, also if it dies and another one comes.
    fn flush_until(&self, deadline: Instant) -> Result<(), FlushError> {
        self.with(|producer| {
            loop {
                match producer.flush(Some(deadline)) {
                    Err(FlushError::PeerDied | FlushError::PeerAborted { .. }) => {}
                    flushed => return flushed,
                }
            }
        })
    }
}

impl Log for PipeLogger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        thread_local! {
            static LINE: RefCell<String> = const { RefCell::new(String::new()) };
        }
        LINE.with_borrow_mut(|line| {
            line.clear();
            let formatted = writeln!(line, "{} {}: {}", record.level(), record.target(), record.args());
            self.with(|producer| {
                let end = line.len().min(producer.max_len());
                // Full, or the shipper closed: the program goes on.
                if formatted.is_err() || producer.try_send(&line.as_bytes()[..end]).is_err() {
                    producer.count_dropped(1);
                }
            });
        });
    }

    fn flush(&self) {
        // Some time for what should take a millisecond or two.
        let _ = self.flush_until(Instant::now() + Duration::from_millis(100));
    }
}

fn work(address: &str) -> Result<(), Box<dyn Error>> {
    let producer = open(address)?.producer()?;
    let logger = LOGGER.get_or_init(|| PipeLogger(Mutex::new(producer)));
    log::set_logger(logger)?;
    log::set_max_level(LevelFilter::Info);

    const LINES: u32 = 1_000_000;
    let start = Instant::now();
    for order in 0..LINES {
        log::info!("order {order} filled at {}", 10_842 + order % 7);
    }
    let took = start.elapsed();

    let flushed = logger.flush_until(Instant::now() + Duration::from_secs(1));
    logger.with(Producer::finish)?;
    let dropped = shmpipe::inspect(address)?.dropped;
    eprintln!(
        "{} ns a line; {dropped} lines dropped since the pipe was created",
        took.as_nanos() / u128::from(LINES)
    );
    if let Err(error) = flushed {
        eprintln!("{error}; the rest stays in the pipe");
    }
    Ok(())
}

fn ship(address: &str) -> Result<(), Box<dyn Error>> {
    let mut consumer = open(address)?.consumer()?;
    let mut lines = Vec::new();
    loop {
        match consumer.wait_for_message(None).map_err(|error| error.without_timeout()) {
            Ok(()) => {}
            Err(Some(RecvError::PeerDied | RecvError::PeerAborted { .. })) => continue,
            Err(Some(RecvError::Closed)) => return Ok(()),
            Err(error) => return Err(error.map_or("no deadline".into(), Into::into)),
        }
        lines.clear();
        let mut drain = consumer.drain(1024);
        while let Some(line) = drain.next()? {
            line.append_to(&mut lines);
        }
        // A shipper that dies here leaves the lines to the next one.
        stdout().write_all(&lines)?;
        drain.release();
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let (what, address) = (words.next(), words.next());
    let address = address.as_deref().unwrap_or("logger-example");
    match what.as_deref() {
        Some("work") => work(address),
        Some("ship") => ship(address),
        _ => Err("usage: logger work|ship [ADDRESS]".into()),
    }
}
