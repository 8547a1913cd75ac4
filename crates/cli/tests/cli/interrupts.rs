//! Signals and readers that leave: orderly ends at any moment.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use shmpipe::{Peer, Role};

use crate::place::{Kind, Place};
use crate::process::{
    Name, Running, ask, consecutive, eventually, numbered, numbers, run, shmpipe, start, wait_for_holder,
};

#[test]
fn a_signal_ends_a_waiting_recv_in_order() {
    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143), (libc::SIGHUP, 129)] {
        let name = Name::new("recv-interrupted");
        let recv = start(&["recv", &name]);
        let mut send = start(&["send", &name]);
        send.input().write_all(b"1\n").unwrap();
        recv.wait_for_output(|output| output == b"1\n");
        recv.signal(signal);
        recv.finish().code(code).said(&["closed: SIG", "messages not yet written stay"]).wrote(b"1\n");
        assert_eq!(shmpipe::inspect(&*name).unwrap().consumer.peer, Peer::Closed);
        // It may have noticed already.
        let _ = send.input().write_all(b"2\n");
        send.finish().code(6).said(&["the consumer closed"]);
    }
}

#[test]
fn a_signal_ends_a_following_recv_in_order() {
    let name = Name::new("follow-interrupted");
    run(&["send", &name], b"1\n").code(0);
    let recv = start(&["recv", &name, "--follow"]);
    recv.wait_for_output(|output| output == b"1\n");
    recv.signal(libc::SIGINT);
    recv.finish().code(130).said(&["closed: SIGINT ended recv"]);
    assert_eq!(shmpipe::inspect(&*name).unwrap().consumer.peer, Peer::Closed);
}

#[test]
fn a_signal_ends_a_send_waiting_for_input_in_order() {
    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143), (libc::SIGHUP, 129)] {
        let name = Name::new("send-interrupted");
        let recv = start(&["recv", &name]);
        let mut send = start(&["send", &name]);
        send.input().write_all(b"1\n2").unwrap();
        recv.wait_for_output(|output| output == b"1\n");
        send.signal(signal);
        let aborted = format!("aborted with code {code}");
        send.finish().code(code).said(&[&aborted, "SIG", "before the end of the input"]);
        recv.finish().code(6).said(&["the producer", &aborted]).wrote(b"1\n");
        // Reported once.
        ask(&["recv", &name, "--timeout", "100ms"]).code(5);
    }
}

#[test]
fn a_signal_ends_a_send_waiting_for_space_in_order() {
    let name = Name::new("full-interrupted");
    let send = start(&["send", &name, "--capacity", "4KiB"]).feed(numbered(0, 10_000));
    eventually(|| (shmpipe::inspect(&*name).ok()?.producer.waits > 0).then_some(()));
    send.signal(libc::SIGINT);
    send.finish().code(130).said(&["aborted with code 130: SIGINT"]);
    let recv = ask(&["recv", &name]).code(6).said(&["the producer aborted with code 130"]);
    assert!(numbered(0, 10_000).starts_with(&recv.out));
}

#[test]
fn a_signal_ignored_at_the_start_stays_ignored() {
    let name = Name::new("nohup");
    let mut command = shmpipe(&["recv", &name]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: signal may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
            Ok(())
        });
    }
    let recv = Running::start(&mut command);
    wait_for_holder(&name, Role::Consumer, recv.id());
    recv.signal(libc::SIGHUP);
    run(&["send", &name], b"still there\n").code(0);
    recv.finish().code(0).wrote(b"still there\n");
}

/// Both ends of a new pipe of one page.
pub fn small_pipe() -> (File, File) {
    let mut ends = [0; 2];
    // SAFETY: there is room for the two descriptors.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    // SAFETY: the kernel has just opened both for this test.
    let (output, input) = unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) };
    // SAFETY: takes numbers.
    assert_eq!(unsafe { libc::fcntl(output.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) }, 4096);
    (output, input)
}

/// A `recv` whose output is a pipe of one page, and the reading end of that.
fn recv_into_a_small_pipe(words: &[&str]) -> (Running, File) {
    let (output, input) = small_pipe();
    (Running::start(shmpipe(words).stdout(input).stderr(Stdio::piped())), output)
}

/// Bytes in a pipe.
fn held(pipe: RawFd) -> usize {
    let mut held: libc::c_int = 0;
    // SAFETY: `held` is live.
    assert_eq!(unsafe { libc::ioctl(pipe, libc::FIONREAD, &mut held) }, 0);
    held as usize
}

/// Waits until the writer has filled the pipe and sleeps.
fn wait_until_stuck(recv: &Running, pipe: RawFd) {
    let mut asleep = 0;
    eventually(|| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", recv.id())).unwrap();
        let state = stat.rsplit(") ").next().unwrap().chars().next();
        asleep = if state == Some('S') && held(pipe) > 0 { asleep + 1 } else { 0 };
        (asleep == 20).then_some(())
    });
}

/// The messages of `numbered`, as `recv --length-prefixed` writes them.
fn prefixed(start: u64, count: u64) -> Vec<u8> {
    let lines = numbered(start, count);
    lines
        .split_inclusive(|&byte| byte == b'\n')
        .flat_map(|line| [&[7, 0, 0, 0], &line[..7]].concat())
        .collect()
}

#[test]
fn a_pipe_is_left_with_whole_messages_however_recv_ends() {
    type Framed = fn(u64, u64) -> Vec<u8>;
    let framings: [(&[&str], Framed, usize); 2] =
        [(&[], numbered, 8), (&["--length-prefixed"], prefixed, 11)];
    for (options, framed, size) in framings {
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGKILL] {
            let name = Name::new("stuck-interrupted");
            run(&["send", &name], &numbered(0, 5_000)).code(0);
            let (recv, mut output) = recv_into_a_small_pipe(&[&["recv", &name], options].concat());
            // Not a multiple of a message.
            let mut first = vec![0; 5001];
            output.read_exact(&mut first).unwrap();
            wait_until_stuck(&recv, output.as_raw_fd());
            recv.signal(signal);
            let finished = recv.finish();
            output.read_to_end(&mut first).unwrap();
            let count = (first.len() / size) as u64;
            assert!(first.len() > 5001 && count < 5_000, "{count}");
            assert_eq!(first, framed(0, count), "signal {signal}");
            // A signal repeats nothing; a kill, what was not released yet.
            let next = match signal {
                libc::SIGKILL => {
                    finished.killed();
                    0
                }
                _ => {
                    finished.code(128 + signal).said(&["closed: SIG"]);
                    count
                }
            };
            ask(&[&["recv", &name], options].concat()).code(0).wrote(&framed(next, 5_000 - next));
        }
    }
}

/// A message longer than a pipe of one page, between two short ones.
fn long_message() -> Vec<u8> {
    [&b"first\n"[..], &[b'x'; 20_000], b"\nlast\n"].concat()
}

#[test]
fn the_rest_of_a_long_message_is_written_after_a_signal() {
    let name = Name::new("long-interrupted");
    run(&["send", &name], &long_message()).code(0);
    let (recv, mut output) = recv_into_a_small_pipe(&["recv", &name]);
    wait_until_stuck(&recv, output.as_raw_fd());
    recv.signal(libc::SIGTERM);
    let mut written = Vec::new();
    output.read_to_end(&mut written).unwrap();
    recv.finish().code(143).said(&["closed: SIGTERM"]);
    let message = long_message();
    let (whole, rest) = message.split_at(6 + 20_001);
    assert_eq!(written, whole);
    ask(&["recv", &name]).code(0).wrote(rest);
}

#[test]
fn a_long_message_that_is_not_read_after_a_signal_is_repeated_whole() {
    let name = Name::new("long-unread");
    run(&["send", &name], &long_message()).code(0);
    let (recv, mut output) = recv_into_a_small_pipe(&["recv", &name]);
    let mut first = [0; 6];
    output.read_exact(&mut first).unwrap();
    wait_until_stuck(&recv, output.as_raw_fd());
    recv.signal(libc::SIGTERM);
    recv.finish().code(143).said(&["closed: SIGTERM"]);
    let mut written = Vec::new();
    output.read_to_end(&mut written).unwrap();
    assert!((1..=4096).contains(&written.len()) && written.iter().all(|&byte| byte == b'x'));
    ask(&["recv", &name]).code(0).wrote(&long_message()[6..]);
}

#[test]
fn a_file_that_cannot_grow_is_left_with_whole_messages() {
    for (options, size) in [(&[][..], 8), (&["--length-prefixed"], 11), (&["--raw"], 7)] {
        let name = Name::new("short-file");
        run(&["send", &name], &numbered(0, 5_000)).code(0);
        let place = Place::new(Kind::File, "short-file-output");
        let append = || File::options().create(true).append(true).open(place.path()).unwrap();
        let mut limited = shmpipe(&[&["recv", &name], options].concat());
        limited.stdout(append()).stderr(Stdio::piped());
        // SAFETY: both may be called between fork and exec, and the limit lives until the call returns.
        unsafe {
            limited.pre_exec(|| {
                let limit = libc::rlimit { rlim_cur: 10_001, rlim_max: 10_001 };
                libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
                assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
                Ok(())
            });
        }
        Running::start(&mut limited).finish().code(1).said(&["File too large"]);
        let whole = std::fs::read(place.path()).unwrap();
        assert_eq!(whole.len(), 10_001 / size * size);
        let mut rest = shmpipe(&[&["recv", &name], options].concat());
        Running::start(rest.stdout(append()).stderr(Stdio::piped())).finish().code(0).quiet();
        let all = std::fs::read(place.path()).unwrap();
        let again = Name::new("short-file-again");
        run(&["send", &again], &numbered(0, 5_000)).code(0);
        ask(&[&["recv", &again], options].concat()).code(0).wrote(&all);
    }
}

#[test]
fn a_signal_ends_a_recv_whose_output_is_full() {
    let name = Name::new("brimful-interrupted");
    run(&["send", &name], b"1\n2\n").code(0);
    let (output, mut input) = small_pipe();
    input.write_all(&[0; 4096]).unwrap();
    let recv = Running::start(shmpipe(&["recv", &name]).stdout(input).stderr(Stdio::piped()));
    wait_for_holder(&name, Role::Consumer, recv.id());
    wait_until_stuck(&recv, output.as_raw_fd());
    recv.signal(libc::SIGTERM);
    recv.finish().code(143).said(&["closed: SIGTERM"]);
    drop(output);
    ask(&["recv", &name]).code(0).wrote(b"1\n2\n");
}

#[test]
fn a_reader_that_leaves_is_not_a_failure_and_releases_nothing_unwritten() {
    let name = Name::new("head");
    const LINES: u64 = 40_000;
    let send = start(&["send", &name]).feed(numbered(0, LINES));
    send.finish().code(0);
    let (recv, mut output) = recv_into_a_small_pipe(&["recv", &name]);
    let mut taken = vec![0; 100_001];
    output.read_exact(&mut taken).unwrap();
    wait_until_stuck(&recv, output.as_raw_fd());
    let accepted = taken.len() + held(output.as_raw_fd());
    drop(output);
    recv.finish().code(0).quiet();
    let rest = numbers(&ask(&["recv", &name]).code(0).out);
    assert_eq!(consecutive(&rest), LINES);
    assert!(rest[0] <= accepted as u64 / 8, "{} was released, the pipe took {accepted} bytes", rest[0]);
    // Only the last batch may be repeated.
    assert!(rest[0] >= (accepted as u64).saturating_sub(64 << 10) / 8, "{} is repeated", rest[0]);
}

#[test]
fn recv_into_head_is_quiet() {
    let name = Name::new("into-head");
    let send = start(&["send", &name]).feed(numbered(0, 100_000));
    let line =
        format!("'{}' recv '{}' | head -n 3; echo ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_shmpipe"), &*name);
    let mut bash = std::process::Command::new("bash");
    let shell = Running::start(bash.args(["-c", &line]).stdout(Stdio::piped()).stderr(Stdio::piped()));
    shell.finish().code(0).quiet().wrote(b"0000000\n0000001\n0000002\n0\n");
    // Its consumer closed in order, unless everything was sent by then.
    let ended = send.finish();
    assert!(matches!(ended.status.code(), Some(0 | 6)), "{}", ended.err);
}

#[test]
fn printing_to_a_reader_that_left_is_not_a_failure() {
    for words in [&["ls"][..], &["ls", "--json"], &["--help"]] {
        let mut child = shmpipe(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        Running::of(child).finish().code(0).quiet();
    }
}
