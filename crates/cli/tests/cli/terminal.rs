//! The progress line, on a pseudo-terminal.

use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::Stdio;

use crate::process::{Name, Running, ask, eventually, run, shmpipe};

/// The two ends of a new pseudo-terminal: ours, and the terminal.
pub fn terminal() -> (File, File) {
    // SAFETY: takes numbers.
    let ours =
        unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC | libc::O_NONBLOCK) };
    assert!(ours >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: it was just opened for this test.
    let ours = unsafe { File::from_raw_fd(ours) };
    let mut name = [0; 100];
    // SAFETY: takes numbers, and a buffer with its length.
    let failed = unsafe {
        libc::grantpt(ours.as_raw_fd())
            | libc::unlockpt(ours.as_raw_fd())
            | libc::ptsname_r(ours.as_raw_fd(), name.as_mut_ptr(), name.len())
    };
    assert_eq!(failed, 0);
    // SAFETY: ptsname_r has written a string with a terminator.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_str().unwrap().to_owned();
    let mut options = File::options();
    std::os::unix::fs::OpenOptionsExt::custom_flags(options.read(true).write(true), libc::O_NOCTTY);
    (ours, options.open(name).unwrap())
}

/// Reads until that is shown.
pub fn wait_for(screen: &mut File, seen: &mut Vec<u8>, wanted: &str) {
    eventually(|| {
        let mut buffer = [0; 4096];
        if let Ok(read) = screen.read(&mut buffer) {
            seen.extend_from_slice(&buffer[..read]);
        }
        String::from_utf8_lossy(seen).contains(wanted).then_some(())
    });
}

#[test]
fn progress_is_shown_on_a_terminal() {
    let name = Name::new("progress");
    let ((mut screen, theirs), mut seen) = (terminal(), Vec::new());
    let mut command = shmpipe(&["send", &name, "--capacity", "4KiB"]);
    let mut send = Running::start(command.stdin(Stdio::piped()).stderr(theirs));
    // The last copy of the terminal in this process.
    drop(command);
    send.input().write_all(&[b'x'; 2040]).unwrap();
    send.input().write_all(b"\n").unwrap();
    wait_for(&mut screen, &mut seen, "2.0 KiB, 1 messages, ");
    wait_for(&mut screen, &mut seen, " messages/s, ");
    wait_for(&mut screen, &mut seen, "ring 50% full");
    send.finish().code(0);
    // At the end, the totals.
    wait_for(&mut screen, &mut seen, "2.0 KiB, 1 messages in ");

    let ((mut screen, theirs), mut seen) = (terminal(), Vec::new());
    let mut command = shmpipe(&["recv", &name, "--follow"]);
    let recv = Running::start(command.stdout(Stdio::piped()).stderr(theirs));
    drop(command);
    wait_for(&mut screen, &mut seen, "2.0 KiB, 1 messages, ");
    wait_for(&mut screen, &mut seen, "ring 0% full");
    recv.signal(libc::SIGINT);
    recv.finish().code(130).wrote(&[&[b'x'; 2040][..], b"\n"].concat());
}

#[test]
fn lines_on_the_same_terminal_are_not_mixed_with_progress() {
    let name = Name::new("progress-beside");
    let ((mut screen, theirs), mut seen) = (terminal(), Vec::new());
    let mut command = shmpipe(&["recv", &name, "--follow"]);
    let recv = Running::start(command.stdout(theirs.try_clone().unwrap()).stderr(theirs));
    drop(command);
    wait_for(&mut screen, &mut seen, "0 B, 0 messages, ");
    run(&["send", &name], b"data\n").code(0);
    // The line is cleared first.
    wait_for(&mut screen, &mut seen, "\r\u{1b}[2Kdata\r\n");
    recv.signal(libc::SIGINT);
    recv.finish().code(130);
}

#[test]
fn no_progress_is_shown_without_a_terminal() {
    let name = Name::new("no-progress");
    run(&["send", &name], b"x\n").code(0).quiet();
    ask(&["recv", &name, "--follow", "--timeout", "1s"]).code(5).said(&["until the deadline"]);
}
