//! Kills the producer, the publisher, the server, the subscriber and the consumer in random order with `kill -9`, cuts the network,
//! delivers what is on its way late, and checks that each message arrives once, in order.
//!
//! ```sh
//! cargo test --release --test chaos -- --seconds 1200 --seed 7
//! ```
//!
//! Both bridges reach the server through a proxy of this program. Message n is a function of n, and so is the place where it lies in
//! each pipe. So a producer that follows a killed one knows what comes next, and a consumer that follows a killed one knows which
//! message must lie where it begins. Producers also close and abort in between, at messages that both know.

mod support;

use shmpipe::{Consumer, Options, Pipe, Position, RecvError, Tagged};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use support::{Name, Process, Server};

/// Bytes of the rings: the two pipes have different places for the same message.
const SOURCE: u64 = 256 << 10;
const SINK: u64 = 128 << 10;

/// Of the last message.
const LAST: u32 = u32::MAX;

/// After a fault ends, the stream moves on within this time.
const STALLED: Duration = Duration::from_secs(60);

fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ x >> 31
}

/// The bytes of a message: a few words, and now and then more than a frame.
fn length(number: u64) -> usize {
    match mix(number) % 500 {
        0 => (mix(number) >> 20) as usize % 60_000,
        1..50 => 0,
        _ => (mix(number) >> 20) as usize % 200,
    }
}

fn tag(number: u64) -> u32 {
    (mix(number) >> 32) as u32 & !(1 << 31)
}

fn fill(number: u64, message: &mut Vec<u8>) {
    message.clear();
    let length = length(number);
    let mut word = number;
    while message.len() < length {
        message.extend_from_slice(&mix(word).to_le_bytes());
        word = word.wrapping_add(0x1_0000_0001);
    }
    message.truncate(length);
}

/// How the producer ends before this message, at some of them.
fn end_before(number: u64) -> Option<RecvError> {
    match mix(!number) % 20_000 {
        0 => Some(RecvError::Closed),
        // A code that belongs to this message alone.
        1 => Some(RecvError::PeerAborted { code: 1 << 20 | number as u32 }),
        _ => None,
    }
}

/// The number of the message at this position.
fn number_at(pipe: &Pipe, position: Position) -> u64 {
    let (mut at, mut number) = (Position::default(), 0);
    while at < position {
        at = pipe.position_after(at, length(number));
        number += 1;
    }
    assert_eq!(at, position, "no message ends there");
    number
}

/// Sends what comes next, until it is killed; or some more, and the last one.
fn producer(address: &str, is_last: bool) {
    let pipe = Pipe::open(address).unwrap();
    let mut producer = pipe.producer().unwrap();
    let mut number = number_at(&pipe, producer.position());
    let mut message = Vec::new();
    let end = number + 1000;
    let mut begun_at = number;
    while !is_last || number < end {
        if number > begun_at
            && let Some(how) = end_before(number)
        {
            match how {
                RecvError::PeerAborted { code } => producer.abort(code).unwrap(),
                _ => producer.close().unwrap(),
            }
            // Time to receive the rest and the end: the next producer takes its place.
            thread::sleep(Duration::from_millis(100));
            producer = pipe.producer().unwrap();
            begun_at = number;
        }
        fill(number, &mut message);
        match producer.send(Tagged(tag(number), &message)) {
            Ok(_) => number += 1,
            // The publisher was stopped or killed; the next one comes.
            Err(shmpipe::SendError::Closed) => producer.wait_for_peer(None).unwrap(),
            Err(shmpipe::SendError::PeerAborted { .. } | shmpipe::SendError::PeerDied) => {}
            Err(error) => panic!("{error}"),
        }
        // Bursts, and pauses in which frames are small.
        if mix(number).is_multiple_of(4096) {
            thread::sleep(Duration::from_millis(mix(number) >> 32 & 15));
        } else if number.is_multiple_of(64) {
            thread::sleep(Duration::from_micros(300));
        }
    }
    while producer.send(Tagged(LAST, b"")).is_err() {}
    producer.close().unwrap();
}

/// Receives and checks all, and writes how many there are to a file when the last one has come. Each end goes to another file.
fn consumer(address: &str, count: &Path, ends: &Path) {
    let mut ends = File::options().create(true).append(true).open(ends).unwrap();
    let pipe = Pipe::open(address).unwrap();
    let mut consumer = pipe.consumer().unwrap();
    let mut number = number_at(&pipe, consumer.position());
    let mut expected = Vec::new();
    loop {
        fill(number, &mut expected);
        match consumer.recv().map(|message| (message.tag(), message.to_vec())) {
            Ok((LAST, message)) => {
                assert!(message.is_empty());
                break;
            }
            Ok((found, message)) => {
                let is_right = found == tag(number) && message == expected;
                assert!(
                    is_right,
                    "message {number}: tag {found}, {} bytes, not {}",
                    message.len(),
                    expected.len()
                );
                number += 1;
            }
            // The producer or the subscriber was killed.
            Err(RecvError::PeerAborted { code: 137 } | RecvError::PeerDied) => {
                consumer.wait_for_peer(None).unwrap();
            }
            Err(end @ (RecvError::Closed | RecvError::PeerAborted { .. })) => {
                assert_eq!(Some(end), end_before(number), "before message {number}");
                writeln!(ends, "{number}").unwrap();
                consumer.wait_for_peer(None).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
    wait_for_close(&mut consumer);
    std::fs::write(count, number.to_string()).unwrap();
}

fn wait_for_close(consumer: &mut Consumer) {
    loop {
        match consumer.recv().map(|message| message.len()) {
            Ok(length) => panic!("{length} bytes behind the last message"),
            Err(RecvError::Closed) => return,
            Err(RecvError::PeerAborted { .. } | RecvError::PeerDied) => consumer.wait_for_peer(None).unwrap(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Passes bytes between the bridges and the server, cuts them off, and keeps them back.
struct Proxy {
    port: u16,
    connections: Arc<Mutex<Vec<Connection>>>,
}

struct Connection {
    ends: [TcpStream; 2],
    flow: Arc<AtomicU8>,
}

/// What happens to the bytes of a connection.
const PASSES: u8 = 0;
/// Those of the client are kept back, and those of the server thrown away.
const HOLDS: u8 = 1;
/// What was kept back goes to the server at last, and that is the end.
const DELIVERS: u8 = 2;

impl Proxy {
    fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::<Mutex<Vec<Connection>>>::default();
        let all = connections.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                }
                let flow = Arc::new(AtomicU8::new(PASSES));
                let ends = || [&client, &server].map(|end| end.try_clone().unwrap());
                let [(up_flow, up), (down_flow, down)] = [(flow.clone(), ends()), (flow.clone(), ends())];
                all.lock().unwrap().push(Connection { ends: ends(), flow });
                thread::spawn(move || pass_up(up, &up_flow));
                thread::spawn(move || pass_down(down, &down_flow));
            }
        });
        Proxy { port, connections }
    }

    /// Ends all connections, wherever in a frame they are.
    fn cut(&self) {
        for connection in self.connections.lock().unwrap().drain(..) {
            end(&connection.ends);
        }
    }

    // Relaxed, here and where it is read: a moment earlier or later makes no difference.
    fn set(&self, from: u8, to: u8) {
        for connection in self.connections.lock().unwrap().iter() {
            let _ = connection.flow.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

fn end(ends: &[TcpStream]) {
    for end in ends {
        let _ = end.shutdown(Shutdown::Both);
    }
}

/// From the client to the server. What is kept back arrives late, when the client may have gone and sent it again over another connection.
fn pass_up(ends: [TcpStream; 2], flow: &AtomicU8) {
    let [client, server] = &ends;
    let (mut client, mut server) = (client, server);
    client.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut buffer = vec![0; 16 << 10];
    let mut kept = Vec::new();
    let mut is_open = true;
    loop {
        match is_open.then(|| client.read(&mut buffer)) {
            Some(Ok(read @ 1..)) => kept.extend_from_slice(&buffer[..read]),
            Some(Err(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Some(_) => is_open = false,
            None => thread::sleep(Duration::from_millis(5)),
        }
        let flow = flow.load(Ordering::Relaxed);
        if flow == HOLDS {
            continue;
        }
        let written = server.write_all(&kept);
        kept.clear();
        if written.is_err() || !is_open || flow == DELIVERS {
            // The server reads what it has before it sees the end.
            let _ = server.shutdown(Shutdown::Write);
            let _ = client.shutdown(Shutdown::Both);
            return;
        }
    }
}

/// From the server to the client.
fn pass_down(ends: [TcpStream; 2], flow: &AtomicU8) {
    let [client, server] = &ends;
    let (mut client, mut server) = (client, server);
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = server.read(&mut buffer) {
        if flow.load(Ordering::Relaxed) == PASSES && client.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    if flow.load(Ordering::Relaxed) == PASSES {
        end(&ends);
    }
}

/// One of the processes, which is started again when it was killed.
struct Part {
    name: &'static str,
    command: Box<dyn Fn() -> Command>,
    process: Option<Process>,
    restart_at: Instant,
    kills: u64,
}

impl Part {
    fn new(name: &'static str, command: impl Fn() -> Command + 'static) -> Self {
        Part { name, command: Box::new(command), process: None, restart_at: Instant::now(), kills: 0 }
    }

    fn start(&mut self, folder: &Path) {
        self.process =
            Some(Process::start(&mut (self.command)(), &folder.join(format!("{}.log", self.name))));
    }

    /// Kills it; an end of its own before that is a failure.
    fn kill(&mut self, restart_in: Duration) -> Result<(), String> {
        if let Some(mut process) = self.process.take() {
            let status = process.kill();
            if status.signal() != Some(libc::SIGKILL) {
                return Err(format!("the {} ended with {status}: {}", self.name, process.said()));
            }
            self.kills += 1;
        }
        self.restart_at = Instant::now() + restart_in;
        Ok(())
    }

    /// Starts it again when it is time; an end of its own is a failure.
    fn tend(&mut self, folder: &Path) -> Result<(), String> {
        match &mut self.process {
            None if Instant::now() >= self.restart_at => self.start(folder),
            None => {}
            Some(process) => {
                if let Some(status) = process.has_ended() {
                    return Err(format!("the {} ended with {status}: {}", self.name, process.said()));
                }
            }
        }
        Ok(())
    }
}

fn option(arguments: &[String], name: &str, default: u64) -> u64 {
    let value = arguments.iter().position(|word| word == name).and_then(|at| arguments.get(at + 1));
    value.map_or(default, |value| value.parse().expect("a number"))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("producer") => producer(&arguments[1], arguments.len() > 2),
        Some("consumer") => consumer(&arguments[1], Path::new(&arguments[2]), Path::new(&arguments[3])),
        Some("--list") => println!("chaos: test"),
        _ => {
            let seconds = option(&arguments, "--seconds", 10);
            let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            let seed = option(&arguments, "--seed", time.as_nanos() as u64 % 1_000_000_007);
            println!("chaos: seed {seed}, {seconds} s");
            match chaos(Duration::from_secs(seconds), seed) {
                Ok(()) => println!("1 passed, 0 failed"),
                Err(why) => {
                    println!("seed {seed}: {why}\n0 passed, 1 failed");
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    ExitCode::SUCCESS
}

fn chaos(time: Duration, seed: u64) -> Result<(), String> {
    let Some(mut server) = Server::start() else { return Ok(()) };
    let (from, to) = (Name::new(), Name::new());
    Options::new().capacity(SOURCE).create(&*from).unwrap();
    Options::new().capacity(SINK).create(&*to).unwrap();
    let folder = server.folder.path().to_owned();
    let (count, ends) = (folder.join("count"), folder.join("ends"));
    let proxy = Proxy::start(server.port);
    let url = format!("nats://127.0.0.1:{}", proxy.port);
    let this = std::env::current_exe().unwrap();
    let own = |words: &[&str]| {
        let (this, words) = (this.clone(), words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
        move || {
            let mut command = Command::new(&this);
            command.args(&words);
            command
        }
    };
    let bridge = |words: &[&str]| {
        let (url, folder) = (url.clone(), folder.clone());
        let words = words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        move || {
            let mut command = support::command(&url, &folder);
            command.args(&words);
            command
        }
    };
    let frame = ["--frame-size", "16KiB", "--ack-timeout", "700ms"];
    let mut parts = [
        Part::new("producer", own(&["producer", &from])),
        Part::new(
            "publisher",
            bridge(&[&["publish", &from, "--stream", "S", "--follow"], &frame[..]].concat()),
        ),
        Part::new("subscriber", bridge(&["subscribe", &to, "--stream", "S", "--follow"])),
        Part::new("consumer", own(&["consumer", &to, count.to_str().unwrap(), ends.to_str().unwrap()])),
    ];
    let mut state = seed;
    let mut random = |below: u64| {
        state = mix(state);
        state % below
    };
    let start = Instant::now();
    let (mut server_kills, mut cuts, mut holds) = (0, 0, 0);
    let mut server_at = None;
    let mut holds_until = None;
    let mut next_fault = start + Duration::from_millis(500);
    let mut progress = Progress::new();
    while start.elapsed() < time {
        for part in &mut parts {
            part.tend(&folder)?;
        }
        if let Some(why) = server.failure() {
            return Err(why);
        }
        let now = Instant::now();
        if server_at.is_some_and(|at| now >= at) {
            server.restart();
            server_at = None;
        }
        if holds_until.is_some_and(|until| now >= until) {
            proxy.set(HOLDS, DELIVERS);
            holds_until = None;
        }
        if now >= next_fault {
            let pause = Duration::from_millis(random(300));
            match random(12) {
                0..2 => parts[0].kill(pause)?,
                2..5 => parts[1].kill(pause)?,
                5..8 => parts[2].kill(pause)?,
                8 => parts[3].kill(pause)?,
                9 => {
                    if server_at.is_none() {
                        server.kill();
                        server_kills += 1;
                        server_at = Some(now + pause);
                    }
                }
                10 => {
                    proxy.cut();
                    cuts += 1;
                }
                _ => {
                    // Often for longer than a publisher waits for an acknowledgement.
                    proxy.set(PASSES, HOLDS);
                    holds_until = Some(now + 5 * pause);
                    holds += 1;
                }
            }
            next_fault = now + Duration::from_millis(30 + random(500));
        }
        progress.check(&to)?;
        thread::sleep(Duration::from_millis(5));
    }
    if server_at.is_some() {
        server.restart();
    }
    proxy.cut();
    // No more faults: the last producer sends the rest, and the consumer counts.
    parts[0].kill(Duration::ZERO)?;
    parts[0].command = Box::new(own(&["producer", &from, "last"]));
    parts[0].start(&folder);
    while !count.exists() {
        for part in &mut parts[1..3] {
            part.tend(&folder)?;
        }
        let consumer = &mut parts[3];
        if consumer.process.as_mut().and_then(Process::has_ended).is_none_or(|status| !status.success()) {
            consumer.tend(&folder)?;
        }
        progress.check(&to).map_err(|why| {
            let said =
                |name: &str| std::fs::read_to_string(folder.join(format!("{name}.log"))).unwrap_or_default();
            format!("{why}\n{}\n{}\n{}", said("publisher"), said("subscriber"), said("producer"))
        })?;
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_millis(50));
    let counted: u64 = std::fs::read_to_string(&count).unwrap().parse().map_err(|_| "no count".to_owned())?;
    let pipe = Pipe::open(&*from).unwrap();
    // The last message follows the numbered ones.
    let mut at = Position::default();
    for number in 0..counted {
        at = pipe.position_after(at, length(number));
    }
    let sent = shmpipe::inspect(&*from).unwrap().producer.position;
    if pipe.position_after(at, 0).get() != sent {
        return Err(format!("{counted} messages arrived, which end at {at}, and {sent} was sent"));
    }
    // A consumer that follows a killed one may receive an end again.
    let mut ends: Vec<String> =
        std::fs::read_to_string(&ends).unwrap_or_default().lines().map(str::to_owned).collect();
    ends.dedup();
    if ends.is_empty() && time >= Duration::from_secs(20) {
        return Err("no end of a producer arrived".to_owned());
    }
    let kills = parts
        .iter()
        .map(|part| format!("{} of the {}", part.kills, part.name))
        .collect::<Vec<_>>()
        .join(", ");
    println!(
        "{counted} messages arrived once, in order, and {} ends of producers where they belong; kills: {kills}, {server_kills} of the server; {cuts} cuts, {holds} times bytes \
         kept back",
        ends.len()
    );
    Ok(())
}

/// Notices a stream that does not move on.
struct Progress {
    position: u64,
    since: Instant,
}

impl Progress {
    fn new() -> Self {
        Progress { position: 0, since: Instant::now() }
    }

    fn check(&mut self, sink: &str) -> Result<(), String> {
        let position = shmpipe::inspect(sink).map_err(|error| error.to_string())?.consumer.position;
        if position != self.position {
            *self = Progress { position, since: Instant::now() };
        }
        match self.since.elapsed() > STALLED {
            true => Err(format!(
                "nothing has arrived for {STALLED:?}, at position {position} of the receiving pipe"
            )),
            false => Ok(()),
        }
    }
}
