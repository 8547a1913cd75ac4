//! Processes with a part: this test program again, started by exec, as unrelated as two programs can be.
//!
//! The two exchange lines through a socket, descriptor 0 of the new process. Dropping the handle kills the process. So does the
//! kernel when the thread that started it ends.

use super::LONG;
use std::env;
use std::fmt::Display;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// The environment variable with the name of the part.
const PART: &str = "SHMPIPE_TEST_PART";

/// The process's own end of the socket.
#[derive(Debug)]
pub struct Line {
    from: BufReader<UnixStream>,
    to: UnixStream,
    pub words: Vec<String>,
}

impl Line {
    /// The next line. None when the parent is gone.
    pub fn hear(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.from.read_line(&mut line).unwrap_or(0);
        (read > 0).then(|| line.trim_end().to_owned())
    }

    pub fn say(&mut self, line: impl Display) {
        // Fails only if the parent is gone, and then it does not matter.
        let _ = self.to.write_all(format!("{line}\n").as_bytes());
    }
}

/// The main function of a process that a test starts.
pub type Part = fn(Line);

/// Plays the part for which this process was started, if any, and returns whether it did. A test program that starts processes
/// needs a test named `part` that only calls this.
pub fn part(parts: &[(&str, Part)]) -> bool {
    let Ok(part) = env::var(PART) else { return false };
    // Again: another command may have started us for our parent.
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let mut words = part.split('\n').map(str::to_owned);
    let name = words.next().unwrap();
    let (_, play) = parts.iter().find(|(known, _)| *known == name).expect("a known part");
    // SAFETY: `Process::start` has passed the socket as descriptor 0, and nothing else in this process uses it.
    let to = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    let from = BufReader::new(to.try_clone().unwrap());
    play(Line { from, to, words: words.collect() });
    true
}

/// The handle of a process with a part.
#[derive(Debug)]
pub struct Process {
    child: Child,
    from: BufReader<UnixStream>,
    to: UnixStream,
}

impl Process {
    pub fn start(part: &str, words: &[&str]) -> Self {
        Self::start_under(&[], part, words)
    }

    /// Starts it under another command, as its last argument.
    pub fn start_under(command: &[&str], part: &str, words: &[&str]) -> Self {
        let program = env::current_exe().unwrap();
        let start = match command {
            [] => Command::new(program),
            [first, rest @ ..] => {
                let mut start = Command::new(first);
                start.args(rest).arg(program);
                start
            }
        };
        Self::start_by(start, part, words)
    }

    /// Starts it from another build of this program.
    pub fn start_from(program: &Path, part: &str, words: &[&str]) -> Self {
        Self::start_by(Command::new(program), part, words)
    }

    fn start_by(mut start: Command, part: &str, words: &[&str]) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(LONG)).unwrap();
        start
            .args(["--exact", "part", "--nocapture", "--test-threads=1", "--quiet"])
            .env(PART, [&[part], words].concat().join("\n"))
            .stdin(OwnedFd::from(theirs))
            // Shields it from the terminal's signals to the parent.
            .process_group(0)
            .stdout(Stdio::null());
        // SAFETY: between fork and exec the closure makes one system call.
        unsafe {
            start.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = start.spawn().unwrap();
        Process { child, from: BufReader::new(ours.try_clone().unwrap()), to: ours }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn say(&mut self, line: impl Display) {
        self.to.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// The next line from the process, within a minute.
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        let read = self.from.read_line(&mut line);
        let read = read.unwrap_or_else(|error| panic!("process {} says nothing: {error}", self.child.id()));
        assert!(read > 0, "process {} has ended: {:?}", self.child.id(), self.child.wait());
        line.trim_end().to_owned()
    }

    pub fn ask(&mut self, line: impl Display) -> String {
        self.say(line);
        self.hear()
    }

    /// Sends SIGKILL and waits for the end, when the kernel has freed all that the process held.
    pub fn kill(mut self) {
        self.signal(libc::SIGKILL);
        self.child.wait().unwrap();
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: no pointers. Our child is not waited for yet, so the number is still its own.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// The CPU time used.
    pub fn processor_time(&self) -> Duration {
        let mut clock = 0;
        // SAFETY: all zero is a time.
        let mut time: libc::timespec = unsafe { std::mem::zeroed() };
        // SAFETY: the pointers are to a clock and to a time.
        unsafe {
            if libc::clock_getcpuclockid(self.child.id() as i32, &raw mut clock) == 0 {
                libc::clock_gettime(clock, &raw mut time);
            }
        }
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    /// The exit status, once it has ended by itself.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self) -> ExitStatus {
        // The socket closes when the process ends.
        let mut line = String::new();
        while self.from.read_line(&mut line).expect("an end within a minute") > 0 {}
        self.child.wait().unwrap()
    }

    /// Closes the socket, waits, and checks that it succeeds.
    pub fn end(self) {
        self.to.shutdown(std::net::Shutdown::Write).unwrap();
        let status = self.wait();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
