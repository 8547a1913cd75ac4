//! Processes that play a part: this test program once more, started by exec, as unrelated as two programs can be.
//!
//! The two talk in lines through a socket, which is the descriptor 0 of the started one. It is killed when its handle is
//! dropped, and by the kernel when the thread that started it ends.

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

/// The environment variable that names the part to play.
const PART: &str = "SHMPIPE_TEST_PART";

/// The other end of a [`Process`]'s handle, in the process itself.
#[derive(Debug)]
pub struct Line {
    from: BufReader<UnixStream>,
    to: UnixStream,
    pub words: Vec<String>,
}

impl Line {
    /// The next line; nothing when whoever started us is gone.
    pub fn hear(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.from.read_line(&mut line).unwrap_or(0);
        (read > 0).then(|| line.trim_end().to_owned())
    }

    pub fn say(&mut self, line: impl Display) {
        // It fails if whoever started us is gone, and then it does not matter.
        let _ = self.to.write_all(format!("{line}\n").as_bytes());
    }
}

/// What a process does that was started for it.
pub type Part = fn(Line);

/// Plays the part that this process was started for, if it was, and says whether it was. Every test program that starts
/// processes has a test of the name `part` that does nothing else.
pub fn part(parts: &[(&str, Part)]) -> bool {
    let Ok(part) = env::var(PART) else { return false };
    // Also if somebody stands between us and the process that started us.
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let mut words = part.split('\n').map(str::to_owned);
    let name = words.next().unwrap();
    let (_, play) = parts.iter().find(|(known, _)| *known == name).expect("a part that is known");
    // SAFETY: descriptor 0 is the socket that `Process::start` has put there, and nothing else in this process uses it.
    let to = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    let from = BufReader::new(to.try_clone().unwrap());
    play(Line { from, to, words: words.collect() });
    true
}

/// A process that plays a part.
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

    /// Starts it as the last argument of another command.
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
            // What a terminal sends to whoever started it, it does not hear.
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

    /// The next line that it says. It has a minute.
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

    /// Sends SIGKILL and waits until it is gone, with whatever it held.
    pub fn kill(mut self) {
        self.signal(libc::SIGKILL);
        self.child.wait().unwrap();
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: no pointers; the process is ours and not waited for yet, so that the number is still its own.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// The processor time that it has used.
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

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self) -> ExitStatus {
        // Its end of the socket is closed when it ends.
        let mut line = String::new();
        while self.from.read_line(&mut line).expect("an end within a minute") > 0 {}
        self.child.wait().unwrap()
    }

    /// Lets it end in good order.
    pub fn end(mut self) {
        self.to.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = String::new();
        while self.from.read_line(&mut rest).expect("an end within a minute") > 0 {}
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
