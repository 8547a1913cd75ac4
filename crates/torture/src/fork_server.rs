//! A process that only forks others. It is small, so a fork takes a fifth of the time of an `exec`. It opens no pipe, so its
//! children are as unrelated as two programs.

use crate::verdict::words_of_panic;
use shmpipe_testing::process::{Line, Process};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::panic::catch_unwind;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// The main function of a child, with its arguments.
pub type Child = fn(&[String]);

/// Separates the words of a line.
const SEPARATOR: char = '\t';

/// The prefix of a line with the failure of a child.
const FAILED: &str = "failed: ";

/// The part of the fork server: forks a child for each line.
pub fn play(mut line: Line, children: &[(&str, Child)]) {
    // SAFETY: no arguments.
    let parent = unsafe { libc::getppid() };
    while let Some(command) = line.hear() {
        let words: Vec<String> = command.split(SEPARATOR).map(str::to_owned).collect();
        match fork_sibling() {
            Ok(0) => be_child(&mut line, parent, &words, children),
            Ok(pid) => line.say(pid),
            Err(error) => line.say(format!("{FAILED}clone: {error}")),
        }
    }
}

/// Forks a sibling: our parent is its parent, and can wait for it.
fn fork_sibling() -> io::Result<i32> {
    let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
    // SAFETY: without a stack of its own, the child continues on a copy of ours, as after fork. This process has one thread and
    // no fork handlers, so the C library has no state to repair.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if pid == -1 { Err(io::Error::last_os_error()) } else { Ok(pid as i32) }
}

fn be_child(line: &mut Line, parent: i32, words: &[String], children: &[(&str, Child)]) -> ! {
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    // SAFETY: no arguments.
    if unsafe { libc::getppid() } != parent {
        std::process::exit(1);
    }
    let (_, child) = children.iter().find(|(name, _)| *name == words[0]).expect("a known child");
    if let Err(payload) = catch_unwind(|| child(&words[1..])) {
        line.say(format!("{FAILED}{}", words_of_panic(payload.as_ref())));
        std::process::exit(101);
    }
    std::process::exit(0)
}

/// The handle of a fork server. Dropping it kills the server.
#[derive(Debug)]
pub struct ForkServer(Process);

impl ForkServer {
    /// Starts a fork server. `part` must call [`play`].
    pub fn start(part: &str) -> Self {
        ForkServer(Process::start(part, &[]))
    }

    /// Forks a child.
    pub fn spawn(&mut self, name: &str, words: &[String]) -> Forked {
        let mut command = String::from(name);
        for word in words {
            assert!(!word.contains([SEPARATOR, '\n']), "{word:?}");
            command.push(SEPARATOR);
            command.push_str(word);
        }
        let answer = self.0.ask(command);
        match answer.parse() {
            Ok(pid) => Forked { pid, ended: None },
            // The failure of an older child, or of the fork.
            Err(_) => panic!("{answer}"),
        }
    }

    /// Why a child ended early.
    pub fn why(&mut self, ended: ExitStatus) -> String {
        match ended.code() {
            Some(101) => self.0.hear().trim_start_matches(FAILED).to_owned(),
            _ => ended.to_string(),
        }
    }
}

/// The handle of a child. Dropping it kills the child.
#[derive(Debug)]
pub struct Forked {
    pid: i32,
    ended: Option<ExitStatus>,
}

impl Forked {
    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub fn signal(&self, signal: i32) {
        if self.ended.is_none() {
            // SAFETY: no pointers. Our child is not waited for yet, so the number is still its own.
            unsafe { libc::kill(self.pid, signal) };
        }
    }

    fn wait_for(&mut self, options: i32) -> Option<ExitStatus> {
        let mut status = 0;
        // SAFETY: the pointer is to one int.
        if self.ended.is_none() && unsafe { libc::waitpid(self.pid, &raw mut status, options) } == self.pid {
            self.ended = Some(ExitStatus::from_raw(status));
        }
        self.ended
    }

    /// The exit status, once it has ended by itself.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.wait_for(libc::WNOHANG)
    }

    /// Waits until it ends by itself, for at most `time`.
    pub fn ends_within(&mut self, time: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + time;
        while self.has_ended().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(100));
        }
        self.ended
    }

    /// Sends SIGKILL and waits for the end, when the kernel has freed all that the child held.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.signal(libc::SIGKILL);
        self.wait_for(0);
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        self.end();
    }
}
