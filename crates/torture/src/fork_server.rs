//! A process that does nothing but start others. One that has little to copy forks in a fifth of the time that `exec` takes, and
//! who has not opened a pipe hands nothing of one on: what it starts is as unrelated to its siblings as two programs are.

use crate::verdict::words_of_panic;
use shmpipe_testing::process::{Line, Process};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::panic::catch_unwind;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// What a process does that a fork_server has started, with the words that were said to it.
pub type Child = fn(&[String]);

/// Between the words of a line.
const SEPARATOR: char = '\t';

/// What a line begins with by which a child tells why it fails.
const FAILED: &str = "failed: ";

/// The fork_server's own part: starts a child for every line that it hears.
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

/// Forks; the child is not ours, but our parent's, who can wait for it.
fn fork_sibling() -> io::Result<i32> {
    let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
    // SAFETY: without a stack of its own, the child goes on with a copy of ours, as after fork. This process has one thread
    // and has registered no handlers for forks, so that there is nothing that the C library would have to put in order.
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
    let (_, child) = children.iter().find(|(name, _)| *name == words[0]).expect("a part that is known");
    if let Err(payload) = catch_unwind(|| child(&words[1..])) {
        line.say(format!("{FAILED}{}", words_of_panic(payload.as_ref())));
        std::process::exit(101);
    }
    std::process::exit(0)
}

/// The handle of a fork_server. It ends when this is dropped.
#[derive(Debug)]
pub struct ForkServer(Process);

impl ForkServer {
    /// Starts one; `part` is what calls [`play`].
    pub fn start(part: &str) -> Self {
        ForkServer(Process::start(part, &[]))
    }

    /// Has a child started.
    pub fn spawn(&mut self, name: &str, words: &[&str]) -> Forked {
        let mut command = String::from(name);
        for word in words {
            assert!(!word.contains([SEPARATOR, '\n']), "{word:?}");
            command.push(SEPARATOR);
            command.push_str(word);
        }
        let answer = self.0.ask(command);
        match answer.parse() {
            Ok(pid) => Forked { pid, ended: None },
            // An older child may have failed before it was born.
            Err(_) => panic!("{answer}"),
        }
    }

    /// Why a child has ended that was to go on.
    pub fn why(&mut self, ended: ExitStatus) -> String {
        match ended.code() {
            Some(101) => self.0.hear().trim_start_matches(FAILED).to_owned(),
            _ => ended.to_string(),
        }
    }
}

/// A child of ours that a fork_server has started. It is killed when this is dropped.
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
            // SAFETY: no pointers; the process is ours and not waited for yet, so that the number is still its own.
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

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.wait_for(libc::WNOHANG)
    }

    /// Waits until it has ended by itself, for so long.
    pub fn ends_within(&mut self, time: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + time;
        while self.has_ended().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(100));
        }
        self.ended
    }

    /// Sends SIGKILL and waits until it is gone, with whatever it held.
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
