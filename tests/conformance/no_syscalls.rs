//! A message costs no system call while neither side sleeps.

use crate::stream::strategy;
use shmpipe::{Options, Pipe, TryRecvError, TrySendError, inspect};
use shmpipe_testing::backend::Backend;
use shmpipe_testing::process::{Line, Process};
use shmpipe_testing::seccomp::{run_without_system_calls, without_system_calls};
use shmpipe_testing::{LONG, within};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsRawFd, FromRawFd};

const MESSAGES: u64 = 40_000;

pub fn sealed_producer(mut line: Line) {
    let mut producer = Pipe::open(line.words[0].as_str()).unwrap().producer().unwrap();
    let message = [7; 200];
    without_system_calls(&mut line, || {
        let mut number = 0;
        while number < MESSAGES {
            let length = number as usize % 200;
            let sent = match number % 4 {
                0 => producer.try_reserve(200).map(|mut space| {
                    space.write(0, &message[..length]);
                    space.tag(number as u32);
                    space.commit_len(length)
                }),
                1 => producer.try_reserve(length).map(|mut space| {
                    space.write(0, &message[..length]);
                    space.tag(number as u32);
                    space.commit()
                }),
                _ => producer.try_send(&message[..length]),
            };
            match sent {
                Ok(_) => number += 1,
                Err(TrySendError::Full) => std::hint::spin_loop(),
                Err(_) => std::process::abort(),
            }
        }
    })
}

pub fn sealed_consumer(mut line: Line) {
    let mut consumer = Pipe::open(line.words[0].as_str()).unwrap().consumer().unwrap();
    let mut bytes = [0; 200];
    without_system_calls(&mut line, || {
        let mut number = 0;
        while number < MESSAGES {
            if number % 1000 == 0 {
                let mut drain = consumer.drain(10);
                while let Ok(Some(record)) = drain.next() {
                    if record.copy_to(&mut bytes) != Ok(number as usize % 200) {
                        std::process::abort();
                    }
                    number += 1;
                }
                continue;
            }
            match consumer.try_recv() {
                Ok(message) if message.copy_to(&mut bytes) == Ok(number as usize % 200) => number += 1,
                Err(TryRecvError::Empty) => std::hint::spin_loop(),
                _ => std::process::abort(),
            }
        }
    })
}

pub fn try_calls_make_no_system_call(backend: Backend) {
    let place = backend.place();
    place.create(&Options::new().capacity(16_384)).unwrap();
    let mut ends = ["sealed producer", "sealed consumer"].map(|part| Process::start(part, &[place.as_str()]));
    run_without_system_calls(&mut ends);
    let seen = inspect(&place).unwrap();
    assert_eq!((seen.producer.messages, seen.consumer.messages), (MESSAGES, MESSAGES));
}

const ROUND_TRIPS: u64 = 2000;

/// Sends a stream, and then single messages, each after the answer to the last one.
pub fn stream(line: Line) {
    let [there, back, wait] = line.words.as_slice() else { panic!() };
    let open = |address: &String| Options::new().wait(strategy(wait)).open(address.as_str()).unwrap();
    let mut producer = open(there).producer().unwrap();
    let mut answers = open(back).consumer().unwrap();
    for number in 0..MESSAGES + ROUND_TRIPS {
        producer.send_deadline(&number.to_le_bytes(), within(LONG)).unwrap();
        if number >= MESSAGES {
            let answer = answers.recv_deadline(within(LONG)).unwrap();
            assert_eq!(answer.value::<u64>(), Ok(number));
        }
    }
}

pub fn sink(line: Line) {
    let [there, back, wait] = line.words.as_slice() else { panic!() };
    let open = |address: &String| Options::new().wait(strategy(wait)).open(address.as_str()).unwrap();
    let mut consumer = open(there).consumer().unwrap();
    let mut answers = open(back).producer().unwrap();
    for number in 0..MESSAGES + ROUND_TRIPS {
        let got: u64 = consumer.recv_deadline(within(LONG)).unwrap().value().unwrap();
        assert_eq!(got, number);
        if number >= MESSAGES {
            answers.send_deadline(&got.to_le_bytes(), within(LONG)).unwrap();
        }
    }
}

/// An unnamed file that another process can write to.
fn unnamed() -> (File, String) {
    // SAFETY: the name is a string with a terminator; the descriptor is owned by the file from here on.
    let file = unsafe { File::from_raw_fd(libc::memfd_create(c"trace".as_ptr(), libc::MFD_CLOEXEC)) };
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    (file, path)
}

/// The count of these calls in a summary of strace.
fn calls(summary: &str, names: &[&str]) -> u64 {
    let lines = summary.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let counts = lines.filter_map(|cells| {
        let name = cells.last()?;
        names.contains(name).then(|| cells[3].parse::<u64>().unwrap())
    });
    counts.sum()
}

const WATCHED: &str = "trace=futex,semop,semtimedop,semctl,membarrier";

/// Whether strace exists and may trace.
fn can_trace() -> bool {
    let (mut file, path) = unnamed();
    let run = std::process::Command::new("strace")
        .args(["-f", "-c", "-e", "trace=execve", "-o", &path, "true"])
        .stderr(std::process::Stdio::null())
        .status();
    let mut output = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut output).unwrap();
    run.is_ok_and(|status| status.success()) && output.contains("execve")
}

pub fn a_stream_and_a_ping_pong_make_no_call_per_message_while_both_ends_are_awake(backend: Backend) {
    let traced = can_trace();
    if !traced {
        eprintln!(
            "no_syscalls: strace is missing or may not trace, so only the counters of the pipe are checked"
        );
    }
    for wait in ["spin", "yield"] {
        let (there, back) = (backend.place(), backend.place());
        for place in [&there, &back] {
            place.create(&Options::new().capacity(65_536)).unwrap();
        }
        let words = [there.as_str(), back.as_str(), wait];
        let ends = ["sink", "stream"].map(|part| {
            let (file, path) = unnamed();
            let strace = ["strace", "-f", "-c", "-e", WATCHED, "-o", &path];
            let process = Process::start_under(if traced { &strace } else { &[] }, part, &words);
            (part, file, process)
        });
        for (part, mut file, process) in ends {
            let status = process.wait();
            assert!(status.success(), "{part}: {status}");
            let mut summary = String::new();
            file.rewind().unwrap();
            file.read_to_string(&mut summary).unwrap();
            if traced {
                assert!(
                    summary.contains("futex") || summary.contains("semop"),
                    "{part}: no summary: {summary}"
                );
                // Calls by the threads of the test program and by the set-up.
                let all = calls(&summary, &["futex", "semop", "semtimedop", "membarrier"]);
                assert!(all < 300, "{part}, {wait}: {all} calls for {MESSAGES} messages\n{summary}");
                // A wait of more than 100 us checks whether the peer is alive. A peer without a core takes that long.
                let checks = calls(&summary, &["semctl"]);
                assert!(checks < MESSAGES / 10, "{part}, {wait}: {checks} checks for {MESSAGES} messages");
            }
        }
        for place in [&there, &back] {
            let seen = inspect(place).unwrap();
            assert_eq!((seen.producer.wakeups, seen.consumer.wakeups), (0, 0));
        }
        assert_eq!(inspect(&there).unwrap().consumer.messages, MESSAGES + ROUND_TRIPS);
    }
}
