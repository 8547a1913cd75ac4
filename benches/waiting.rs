//! Waiting for many pipes: the time to wake a thread that sleeps on them, what idle pipes and ready ones cost, a collector of many
//! producers, and round trips through futures. Beside a bare futex, epoll over eventfds and over Unix pipes, Unix sockets and a channel.
//!
//! `cargo bench --features async --bench waiting`
//!
//! Both sides are threads of this process; everything under comparison takes turns, so that it meets the same machine.

use shmpipe::{Consumer, Interest, Options, Producer, WaitSet};
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type Pipes = (Vec<Producer>, Vec<Consumer>);

fn pipes(count: usize, capacity: u64) -> Pipes {
    let pipe = || {
        let pipe = Options::new().capacity(capacity).create("memfd").expect("a pipe");
        (pipe.producer().expect("a free role"), pipe.consumer().expect("a free role"))
    };
    (0..count).map(|_| pipe()).unzip()
}

fn set(consumers: Vec<Consumer>) -> WaitSet<Consumer> {
    let mut set = WaitSet::new();
    for consumer in consumers {
        set.add(consumer, Interest::Message).expect("a thread");
    }
    set
}

fn descriptor(result: libc::c_int) -> OwnedFd {
    assert_ne!(result, -1, "{}", std::io::Error::last_os_error());
    // SAFETY: a system call has just returned it.
    unsafe { OwnedFd::from_raw_fd(result) }
}

fn eventfds(count: usize) -> Vec<OwnedFd> {
    // SAFETY: no pointers.
    (0..count).map(|_| descriptor(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })).collect()
}

/// Writing and reading ends.
fn unix_pipes(count: usize) -> (Vec<OwnedFd>, Vec<OwnedFd>) {
    let pipe = || {
        let mut ends = [0; 2];
        // SAFETY: the pointer is to two ints.
        assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
        (descriptor(ends[1]), descriptor(ends[0]))
    };
    (0..count).map(|_| pipe()).unzip()
}

fn epoll(descriptors: &[OwnedFd]) -> OwnedFd {
    // SAFETY: no pointers.
    let epoll = descriptor(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) });
    for (index, watched) in descriptors.iter().enumerate() {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: index as u64 };
        let (epoll, watched) = (epoll.as_raw_fd(), watched.as_raw_fd());
        // SAFETY: the pointer is to one event.
        assert_eq!(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, watched, &raw mut event) }, 0);
    }
    epoll
}

fn epoll_wait(epoll: &OwnedFd, events: &mut [libc::epoll_event]) -> usize {
    // SAFETY: the pointer is to that many events.
    let found = unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), events.len() as i32, -1) };
    found.try_into().expect("events")
}

const NO_EVENT: libc::epoll_event = libc::epoll_event { events: 0, u64: 0 };

fn read(from: &OwnedFd, to: &mut [u8]) -> usize {
    // SAFETY: the pointer is to that many bytes.
    unsafe { libc::read(from.as_raw_fd(), to.as_mut_ptr().cast(), to.len()) }.try_into().expect("bytes")
}

fn write(to: &OwnedFd, from: &[u8]) {
    // SAFETY: the pointer is to that many bytes.
    let written = unsafe { libc::write(to.as_raw_fd(), from.as_ptr().cast(), from.len()) };
    assert_eq!(written, from.len() as isize);
}

fn quantile(sorted: &[u64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize] as f64 / 1000.0
}

fn row(name: &str, mut nanoseconds: Vec<u64>) {
    nanoseconds.sort_unstable();
    let [quarter, half, three, most] = [0.25, 0.5, 0.75, 0.99].map(|share| quantile(&nanoseconds, share));
    println!("  {name:34} {half:9.2} {quarter:9.2} {three:9.2} {most:9.2}   n = {}", nanoseconds.len());
}

/// A sleeper in a thread of its own, and what wakes it.
struct Way {
    name: &'static str,
    wake: Box<dyn FnMut(usize)>,
    returned: Arc<AtomicU64>,
    times: Vec<u64>,
}

static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();

fn now() -> u64 {
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

impl Way {
    fn new(
        name: &'static str,
        mut wait: impl FnMut() -> bool + Send + 'static,
        wake: impl FnMut(usize) + 'static,
    ) -> Self {
        let returned = Arc::new(AtomicU64::new(0));
        let theirs = returned.clone();
        thread::spawn(move || {
            while wait() {
                // ORDERING: Release, pairs with the Acquire load in `measure`.
                theirs.store(now(), Ordering::Release);
            }
        });
        Way { name, wake: Box::new(wake), returned, times: vec![] }
    }

    fn measure(&mut self, index: usize) {
        let before = self.returned.load(Ordering::Acquire);
        let since = now();
        (self.wake)(index);
        let mut after = before;
        while after == before {
            // A sender that polls would keep one of two processors from the threads that wake each other.
            thread::sleep(Duration::from_micros(500));
            after = self.returned.load(Ordering::Acquire);
        }
        self.times.push(after - since);
    }
}

fn futex_way() -> Way {
    let word = Arc::new(AtomicU32::new(0));
    let theirs = word.clone();
    let mut seen = 0;
    let wait = move || {
        while theirs.load(Ordering::Acquire) == seen {
            // SAFETY: the word lives as long as the thread.
            unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    theirs.as_ptr(),
                    libc::FUTEX_WAIT,
                    seen,
                    std::ptr::null::<u8>(),
                )
            };
        }
        seen += 1;
        seen < u32::MAX
    };
    let wake = move |_| {
        word.fetch_add(1, Ordering::Release);
        // SAFETY: the word lives as long as this closure.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
    };
    Way::new("bare futex", wait, wake)
}

fn blocking_way() -> Way {
    let (mut producers, mut consumers) = pipes(1, 4096);
    let wait = move || consumers[0].recv().is_ok();
    Way::new("shmpipe, a call that blocks", wait, move |_| {
        producers[0].send(&[1; 8]).expect("space");
    })
}

fn set_way(count: usize) -> Way {
    let (mut producers, consumers) = pipes(count, 4096);
    let mut set = set(consumers);
    let wait = move || {
        let mut ready = set.wait(None).expect("a message");
        let mut is_open = true;
        while let Some(mut event) = ready.next() {
            is_open &= event.member().try_recv().is_ok();
        }
        is_open
    };
    Way::new("shmpipe, WaitSet", wait, move |index| {
        producers[index].send(&[1; 8]).expect("space");
    })
}

fn descriptor_way(count: usize) -> Way {
    let (mut producers, consumers) = pipes(count, 4096);
    let mut consumers: Vec<_> =
        consumers.into_iter().map(|consumer| consumer.with_descriptor().expect("a descriptor")).collect();
    let descriptors: Vec<OwnedFd> = consumers
        .iter()
        // SAFETY: no pointers.
        .map(|consumer| descriptor(unsafe { libc::dup(consumer.as_raw_fd()) }))
        .collect();
    for consumer in &mut consumers {
        assert!(consumer.try_recv().expect("no end").is_none());
    }
    let epoll = epoll(&descriptors);
    let wait = move || {
        let mut events = [NO_EVENT; 64];
        loop {
            let mut received = 0;
            let found = epoll_wait(&epoll, &mut events);
            for event in &events[..found] {
                loop {
                    match consumers[event.u64 as usize].try_recv() {
                        Ok(Some(_)) => received += 1,
                        Ok(None) => break,
                        Err(_) => return false,
                    }
                }
            }
            if received > 0 {
                return true;
            }
        }
    };
    Way::new("shmpipe, descriptors in epoll", wait, move |index| {
        producers[index].send(&[1; 8]).expect("space");
    })
}

/// The number that ends a sleeper at an eventfd.
static END: u64 = 1 << 40;

/// What wakes a sleeper, and ends it when dropped.
struct Ends(Vec<OwnedFd>);

impl Drop for Ends {
    fn drop(&mut self) {
        for end in &self.0 {
            // The first one ends the sleeper, which may close the others' reading ends.
            // SAFETY: the pointer is to 8 bytes.
            unsafe { libc::write(end.as_raw_fd(), (&raw const END).cast(), 8) };
        }
    }
}

fn epoll_way(name: &'static str, written: Vec<OwnedFd>, watched: Vec<OwnedFd>) -> Way {
    let epoll = epoll(&watched);
    let wait = move || {
        let mut events = [NO_EVENT; 64];
        let found = epoll_wait(&epoll, &mut events);
        // Of a pipe whose writer is gone, nothing; of an eventfd, the last number.
        let read = |event: &libc::epoll_event| {
            let mut word = [0; 8];
            read(&watched[event.u64 as usize], &mut word) == 8 && u64::from_ne_bytes(word) != END
        };
        events[..found].iter().all(read)
    };
    let ends = Ends(written);
    Way::new(name, wait, move |index| write(&ends.0[index], &1u64.to_ne_bytes()))
}

fn eventfd_way(count: usize) -> Way {
    let watched = eventfds(count);
    // SAFETY: no pointers.
    let written = watched.iter().map(|fd| descriptor(unsafe { libc::dup(fd.as_raw_fd()) })).collect();
    epoll_way("eventfds in epoll", written, watched)
}

fn pipe_way(count: usize) -> Way {
    let (written, watched) = unix_pipes(count);
    epoll_way("Unix pipes in epoll", written, watched)
}

fn wakeups(rounds: usize) {
    println!("waking a thread that sleeps on N pipes, one of which gets a message: microseconds");
    println!("  {:34} {:>9} {:>9} {:>9} {:>9}", "", "p50", "p25", "p75", "p99");
    for count in [1, 8, 100, 1000, 10_000] {
        println!(" N = {count}");
        let mut ways = vec![set_way(count)];
        // The others need more descriptors than many a machine allows.
        if count <= 1000 {
            ways.extend([descriptor_way(count), eventfd_way(count), pipe_way(count)]);
        }
        if count == 1 {
            ways.splice(0..0, [futex_way(), blocking_way()]);
        }
        let mut random = 1u64;
        for _ in 0..rounds {
            for way in &mut ways {
                // Long enough that the sleeper sleeps.
                thread::sleep(Duration::from_micros(400));
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                way.measure((random >> 33) as usize % count);
            }
        }
        for way in ways {
            row(way.name, way.times);
        }
    }
}

fn processor_time() -> Duration {
    // SAFETY: all fields are integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to one rusage.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) }, 0);
    let of = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    of(usage.ru_utime) + of(usage.ru_stime)
}

fn idle() {
    println!("processor time while nothing happens, in percent of one processor");
    for count in [1, 100, 1000, 10_000] {
        let (_producers, consumers) = pipes(count, 4096);
        let mut set = set(consumers);
        let _ = set.wait(Some(Instant::now() + Duration::from_millis(300)));
        let (before, since) = (processor_time(), Instant::now());
        let _ = set.wait(Some(Instant::now() + Duration::from_secs(3)));
        let used = (processor_time() - before).as_secs_f64() / since.elapsed().as_secs_f64();
        println!("  {:34} {:9.3}", format!("WaitSet of {count}"), 100.0 * used);
    }
}

fn ready_pipes(rounds: usize) {
    const COUNT: usize = 64;
    println!("{COUNT} pipes with a message each: nanoseconds a message, from the wait to the last receive");
    let (mut producers, consumers) = pipes(COUNT, 4096);
    let mut set = set(consumers);
    let (written, watched) = unix_pipes(COUNT);
    let epoll = epoll(&watched);
    let [mut ours, mut theirs] = [vec![], vec![]];
    for _ in 0..rounds {
        for producer in &mut producers {
            producer.send(&[1; 64]).expect("space");
        }
        let since = Instant::now();
        let mut ready = set.wait(None).expect("messages");
        while let Some(mut event) = ready.next() {
            let mut buffer = [0; 64];
            event.member().try_recv().expect("a message").copy_to(&mut buffer).expect("64 bytes");
            black_box(buffer);
        }
        ours.push(since.elapsed().as_nanos() as u64 * 1000 / COUNT as u64);
        for pipe in &written {
            write(pipe, &[1; 64]);
        }
        let since = Instant::now();
        let mut events = [NO_EVENT; COUNT];
        let found = epoll_wait(&epoll, &mut events);
        for event in &events[..found] {
            let mut buffer = [0; 64];
            read(&watched[event.u64 as usize], &mut buffer);
            black_box(buffer);
        }
        theirs.push(since.elapsed().as_nanos() as u64 * 1000 / COUNT as u64);
    }
    row("shmpipe, WaitSet", ours);
    row("Unix pipes in epoll", theirs);
}

const PRODUCERS: usize = 64;
const EACH: usize = 20_000;

fn collector(rounds: usize) {
    println!("{PRODUCERS} producers, {EACH} messages of 64 bytes each, one collector: nanoseconds a message");
    let mut times: [Vec<u64>; 3] = Default::default();
    for _ in 0..rounds {
        for (times, run) in times.iter_mut().zip([collect_set, collect_pipes, collect_channel]) {
            let since = Instant::now();
            run();
            times.push(since.elapsed().as_nanos() as u64 * 1000 / (PRODUCERS * EACH) as u64);
        }
    }
    let names = ["shmpipe, WaitSet", "Unix pipes in epoll", "tokio mpsc, fed by threads"];
    for (name, times) in names.into_iter().zip(times) {
        row(name, times);
    }
}

fn collect_set() {
    let (producers, consumers) = pipes(PRODUCERS, 1 << 16);
    let mut set = set(consumers);
    thread::scope(|scope| {
        for mut producer in producers {
            scope.spawn(move || {
                for _ in 0..EACH {
                    producer.send(&[1; 64]).expect("a consumer");
                }
            });
        }
        let mut received = 0;
        while received < PRODUCERS * EACH {
            let mut ready = set.wait(None).expect("messages");
            while let Some(mut event) = ready.next() {
                let mut drain = event.member().drain(256);
                while let Some(record) = drain.next().expect("a correct producer") {
                    let mut buffer = [0; 64];
                    record.copy_to(&mut buffer).expect("64 bytes");
                    black_box(buffer);
                    received += 1;
                }
            }
        }
    });
}

fn collect_pipes() {
    let (written, watched) = unix_pipes(PRODUCERS);
    let epoll = epoll(&watched);
    thread::scope(|scope| {
        for pipe in written {
            scope.spawn(move || {
                for _ in 0..EACH {
                    write(&pipe, &[1; 64]);
                }
            });
        }
        let mut received = 0;
        let mut buffer = [0; 64 * 256];
        while received < PRODUCERS * EACH * 64 {
            let mut events = [NO_EVENT; PRODUCERS];
            let found = epoll_wait(&epoll, &mut events);
            for event in &events[..found] {
                received += read(&watched[event.u64 as usize], &mut buffer);
                black_box(&buffer);
            }
        }
    });
}

fn collect_channel() {
    let (to, mut from) = tokio::sync::mpsc::channel::<[u8; 64]>(1000);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    thread::scope(|scope| {
        for _ in 0..PRODUCERS {
            let to = to.clone();
            scope.spawn(move || {
                for _ in 0..EACH {
                    to.blocking_send([1; 64]).expect("a receiver");
                }
            });
        }
        drop(to);
        runtime.block_on(async {
            while let Some(message) = from.recv().await {
                black_box(message);
            }
        });
    });
}

fn round_trips(rounds: usize) {
    println!(
        "round trips of 64 bytes between two tasks of a tokio runtime with two threads, or two threads: microseconds"
    );
    println!("  {:34} {:>9} {:>9} {:>9} {:>9}", "", "p50", "p25", "p75", "p99");
    let mut times: [Vec<u64>; 4] = Default::default();
    for _ in 0..rounds {
        for (times, run) in
            times.iter_mut().zip([trips_async, trips_socket, trips_blocking, trips_blocking_socket])
        {
            times.extend(run());
        }
    }
    let names = [
        "shmpipe, tokio",
        "Unix socket, tokio",
        "shmpipe, calls that block",
        "Unix socket, calls that block",
    ];
    for (name, times) in names.into_iter().zip(times) {
        row(name, times);
    }
}

const TRIPS: usize = 2000;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_io().build().expect("a runtime")
}

fn trips_async() -> Vec<u64> {
    let (mut producers, mut consumers) = pipes(2, 1 << 16);
    let mut end = || {
        let (producer, consumer) = (producers.pop().unwrap(), consumers.remove(0));
        (producer.into_async().unwrap(), consumer.into_async().unwrap())
    };
    let ((mut out, mut back), (mut answers, mut questions)) = (end(), end());
    runtime().block_on(async {
        let answering = tokio::spawn(async move {
            for _ in 0..TRIPS {
                let question = questions.recv().await.unwrap().value::<[u8; 64]>().unwrap();
                answers.send(&question).await.unwrap();
            }
            (answers, questions)
        });
        let asking = tokio::spawn(async move {
            let mut times = vec![];
            for _ in 0..TRIPS {
                let since = Instant::now();
                out.send(&[1; 64]).await.unwrap();
                back.recv().await.unwrap().release();
                times.push(since.elapsed().as_nanos() as u64);
            }
            times
        });
        let times = asking.await.unwrap();
        answering.await.unwrap();
        times
    })
}

fn trips_socket() -> Vec<u64> {
    runtime().block_on(async {
        let (mut asker, mut answerer) = tokio::net::UnixStream::pair().unwrap();
        let answering = tokio::spawn(async move {
            let mut buffer = [0; 64];
            for _ in 0..TRIPS {
                answerer.read_exact(&mut buffer).await.unwrap();
                answerer.write_all(&buffer).await.unwrap();
            }
        });
        let asking = tokio::spawn(async move {
            let mut times = vec![];
            let mut buffer = [1; 64];
            for _ in 0..TRIPS {
                let since = Instant::now();
                asker.write_all(&buffer).await.unwrap();
                asker.read_exact(&mut buffer).await.unwrap();
                times.push(since.elapsed().as_nanos() as u64);
            }
            times
        });
        answering.await.unwrap();
        asking.await.unwrap()
    })
}

fn trips_blocking() -> Vec<u64> {
    let (mut producers, mut consumers) = pipes(2, 1 << 16);
    let (mut out, mut questions) = (producers.remove(0), consumers.remove(0));
    let (mut answers, mut back) = (producers.remove(0), consumers.remove(0));
    thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..TRIPS {
                let question = questions.recv().unwrap().value::<[u8; 64]>().unwrap();
                answers.send(&question).unwrap();
            }
        });
        let mut times = vec![];
        for _ in 0..TRIPS {
            let since = Instant::now();
            out.send(&[1; 64]).unwrap();
            back.recv().unwrap().release();
            times.push(since.elapsed().as_nanos() as u64);
        }
        times
    })
}

fn trips_blocking_socket() -> Vec<u64> {
    let (mut asker, mut answerer) = std::os::unix::net::UnixStream::pair().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut buffer = [0; 64];
            for _ in 0..TRIPS {
                answerer.read_exact(&mut buffer).unwrap();
                answerer.write_all(&buffer).unwrap();
            }
        });
        let mut times = vec![];
        let mut buffer = [1; 64];
        for _ in 0..TRIPS {
            let since = Instant::now();
            asker.write_all(&buffer).unwrap();
            asker.read_exact(&mut buffer).unwrap();
            times.push(since.elapsed().as_nanos() as u64);
        }
        times
    })
}

/// A thousand pipes of each kind need more descriptors than a process may usually have.
fn raise_descriptors() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointers are to one rlimit.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
}

fn main() {
    raise_descriptors();
    // As a smoke test, `cargo test --benches` runs it without `--bench`.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let rounds = |bench, smoke| if is_bench { bench } else { smoke };
    wakeups(rounds(1000, 2));
    if is_bench {
        idle();
    }
    ready_pipes(rounds(2000, 2));
    if is_bench {
        collector(9);
    }
    round_trips(rounds(20, 1));
}
