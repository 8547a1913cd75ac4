//! Other programs that a test starts: examples, compilers, the other side of a pipe in another language.

use super::LONG;
use std::io::Read;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// What such a program may take, even under valgrind on a busy machine.
const LIMIT: Duration = LONG.saturating_mul(2);

/// A program that runs. It is killed when this is dropped, and after a time that only one that hangs takes: then a reader of its output
/// gets to the end, and a wait for it returns the signal.
#[derive(Debug)]
pub struct Running {
    child: Arc<Mutex<Child>>,
    what: String,
    pub stdin: Option<ChildStdin>,
    pub stdout: Option<ChildStdout>,
    pub stderr: Option<ChildStderr>,
    /// Ends the watch when it is dropped.
    _watched: Sender<()>,
}

/// What a program has said.
#[derive(Debug)]
pub struct Said {
    pub stdout: String,
    pub stderr: String,
}

impl Running {
    /// Starts a program. What it says is [`Said`] at its end, unless the command has other places for it.
    pub fn start(command: &mut Command) -> Self {
        Self::start_for(LIMIT, command)
    }

    fn start_for(limit: Duration, command: &mut Command) -> Self {
        let what = format!("{command:?}");
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let child = Arc::new(Mutex::new(child));
        let (_watched, ended) = mpsc::channel();
        thread::spawn({
            let child = child.clone();
            move || {
                if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                    // Does nothing to a process that was waited for.
                    let _ = child.lock().unwrap_or_else(PoisonError::into_inner).kill();
                }
            }
        });
        Running { child, what, stdin, stdout, stderr, _watched }
    }

    /// The exit status, once it has ended.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait().unwrap()
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> ExitStatus {
        loop {
            // The watch needs the child too.
            if let Some(status) = self.has_ended() {
                return status;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until it has succeeded. Returns the rest of what it says.
    pub fn end(mut self) -> Said {
        drop(self.stdin.take());
        let stderr = self.stderr.take().map(|stderr| thread::spawn(|| read(stderr)));
        let stdout = self.stdout.take().map_or_else(String::new, read);
        let stderr = stderr.map_or_else(String::new, |reading| reading.join().unwrap());
        let status = self.wait();
        assert!(status.success(), "{}: {status}\n{stdout}{stderr}", self.what);
        Said { stdout, stderr }
    }

    /// Kills it, and waits until all that it held is free.
    pub fn kill(&mut self) {
        let _ = self.child.lock().unwrap_or_else(PoisonError::into_inner).kill();
        self.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) -> Said {
    Running::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped())).end()
}

fn read(mut from: impl Read) -> String {
    let mut bytes = vec![];
    from.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn what_a_program_says_is_returned() {
        let said = run(Command::new("sh").args(["-c", "echo out; echo err >&2"]));
        assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("out\n", "err\n"));
    }

    #[test]
    fn a_program_that_hangs_is_killed() {
        let mut hanging = Running::start_for(
            Duration::from_millis(10),
            Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()),
        );
        assert_eq!(read(hanging.stdout.take().unwrap()), "");
        assert_eq!(hanging.wait().signal(), Some(libc::SIGKILL));
    }

    #[test]
    fn a_program_is_killed_with_its_guard() {
        let running = Running::start(Command::new("cat").stdin(Stdio::piped()));
        let child = running.child.clone();
        drop(running);
        assert_eq!(child.lock().unwrap().try_wait().unwrap().unwrap().signal(), Some(libc::SIGKILL));
    }
}
