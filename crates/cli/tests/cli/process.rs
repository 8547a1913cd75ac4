//! Processes and pipes of the tests, ended with the test however it ends.

use shmpipe::error::Mismatch;
use std::fmt::Debug;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Far longer than anything here takes, unless something hangs.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A name that no other test uses; its pipe is removed when the test ends.
pub struct Name(String);

impl Name {
    pub fn new(topic: &str) -> Name {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // Relaxed: it only has to differ each time.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Name(format!("cli-test-{}-{number}-{topic}", std::process::id()))
    }
}

impl std::ops::Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = shmpipe::unlink_force(self.0.as_str());
        let found = shmpipe::inspect(self.0.as_str()).err();
        let gone = matches!(
            found,
            Some(
                shmpipe::SetupError::NotFound { .. }
                    | shmpipe::SetupError::Incompatible(Mismatch::Name { .. })
            )
        );
        assert!(gone || thread::panicking(), "{} is left behind: {found:?}", self.0);
    }
}

/// A directory of its own, removed when the test ends.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new(topic: &str) -> Self {
        let path = std::env::temp_dir().join(&*Name::new(topic));
        fs::create_dir(&path).unwrap();
        Directory(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// The files, in the order of their names.
    pub fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut files: Vec<String> =
            entries.map(|entry| entry.unwrap().path().to_string_lossy().into_owned()).collect();
        files.sort();
        files
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The key and the identifiers of a System V pipe.
pub struct Ids {
    pub key: i32,
    pub shm_id: i32,
    pub sem_id: i32,
}

#[track_caller]
pub fn ids(name: &str) -> Ids {
    match shmpipe::inspect(name).unwrap().object {
        shmpipe::Object::SysV { key, shm_id, sem_id: Some(sem_id) } => Ids { key, shm_id, sem_id },
        other => panic!("{name} is {other:?}"),
    }
}

pub fn shmpipe(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shmpipe"));
    command.args(words);
    // Tests that a shell started in the background ignore signals, and children would inherit that.
    // SAFETY: `signal` may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
                libc::signal(signal, libc::SIG_DFL);
            }
            Ok(())
        });
    }
    command
}

/// The output of a process so far, filled by a thread.
#[derive(Clone, Default)]
struct Stream(Arc<Shared>);

#[derive(Default)]
struct Shared {
    written: Mutex<Written>,
    changed: Condvar,
}

#[derive(Default)]
struct Written {
    bytes: Vec<u8>,
    ended: bool,
}

impl Stream {
    fn of(mut source: impl Read + Send + 'static) -> Stream {
        let stream = Stream::default();
        let Stream(filled) = stream.clone();
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            loop {
                let read = source.read(&mut buffer).unwrap_or(0);
                let mut written = filled.written.lock().unwrap();
                written.bytes.extend_from_slice(&buffer[..read]);
                written.ended = read == 0;
                filled.changed.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        stream
    }

    /// Waits until it is as wanted, or ends.
    fn wait(&self, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let Stream(shared) = self;
        let start = Instant::now();
        let mut written = shared.written.lock().unwrap();
        while !written.ended && !wanted(&written.bytes) {
            let so_far = String::from_utf8_lossy(&written.bytes);
            assert!(start.elapsed() < DEADLINE, "timed out; so far: {so_far:?}");
            written = shared.changed.wait_timeout(written, Duration::from_secs(1)).unwrap().0;
        }
        written.bytes.clone()
    }
}

/// A process, killed when dropped.
pub struct Running {
    pub child: Child,
    out: Option<Stream>,
    err: Option<Stream>,
    what: String,
}

/// How a process ended and what it wrote.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub out: Vec<u8>,
    pub err: String,
    what: String,
}

/// Starts the command line with pipes for all its streams.
pub fn start(words: &[&str]) -> Running {
    Running::start(shmpipe(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()))
}

/// Runs the command line to its end on that input.
pub fn run(words: &[&str], input: &[u8]) -> Finished {
    start(words).feed(input.to_vec()).finish()
}

/// Runs the command line without input.
pub fn ask(words: &[&str]) -> Finished {
    run(words, b"")
}

/// Runs the command line without input; returns its result as a JSON object.
#[track_caller]
pub fn object(words: &[&str]) -> Value {
    serde_json::from_slice(&ask(words).code(0).quiet().out).unwrap()
}

/// All pipes that `ls` lists, as JSON objects.
#[track_caller]
pub fn listed() -> Vec<Value> {
    serde_json::from_slice(&ask(&["ls", "--json"]).code(0).quiet().out).unwrap()
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Runs a script of bash in which `shmpipe` is the command line.
pub fn bash(text: &str) -> Running {
    let mut command = Command::new("bash");
    command.args(["-c", text]);
    Running::start(with_tool(&mut command))
}

/// Runs a shell script in which `shmpipe` is the command line.
pub fn script(text: &str) -> Running {
    let mut command = Command::new("sh");
    command.args(["-c", text]);
    Running::start(with_tool(&mut command))
}

/// Runs a shell script as root in IPC, mount and pid namespaces and with a /dev/shm of its own, so that it sees only its own
/// pipes. `None` where that is not allowed.
pub fn script_apart(text: &str) -> Option<Running> {
    let apart = || {
        let mut command = Command::new("unshare");
        command.args(["--ipc", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command
    };
    if !apart().arg("true").output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: needs namespaces of its own");
        return None;
    }
    let text = format!("set -e; mount -t tmpfs -o size=64m,mode=1777 tmpfs /dev/shm; {text}");
    Some(Running::start(with_tool(apart().args(["sh", "-c", &text]))))
}

fn with_tool(command: &mut Command) -> &mut Command {
    let tool = std::path::Path::new(env!("CARGO_BIN_EXE_shmpipe")).parent().unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(tool.to_owned()).chain(std::env::split_paths(&path));
    command.env("PATH", std::env::join_paths(paths).unwrap());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped())
}

impl Running {
    /// Starts a process, and collects what it writes to its streams that are pipes.
    pub fn start(command: &mut Command) -> Running {
        let what = format!("{:?}", command.get_args().collect::<Vec<_>>());
        let child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
        let mut running = Running::of(child);
        running.what = what;
        running
    }

    /// Collects the output of a process that is already running.
    pub fn of(mut child: Child) -> Running {
        let out = child.stdout.take().map(Stream::of);
        let err = child.stderr.take().map(Stream::of);
        let what = format!("process {}", child.id());
        Running { child, out, err, what }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its input in the background, then closes it.
    pub fn feed(mut self, input: Vec<u8>) -> Running {
        let mut stdin = self.child.stdin.take().unwrap();
        // It may end before it reads everything.
        thread::spawn(move || stdin.write_all(&input));
        self
    }

    pub fn input(&mut self) -> &mut ChildStdin {
        self.child.stdin.as_mut().unwrap()
    }

    /// Waits until its output is as wanted.
    pub fn wait_for_output(&self, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        self.out.as_ref().unwrap().wait(wanted)
    }

    /// Waits until standard error has these words this many times.
    pub fn wait_for_words(&self, words: &str, times: usize) {
        let said = self.err.as_ref().unwrap().wait(|said| count(said, words) >= times);
        assert!(count(&said, words) >= times, "{} said {:?}", self.what, String::from_utf8_lossy(&said));
    }

    /// Waits until standard error has these words, or ends. Returns whether it has.
    pub fn says(&self, words: &str) -> bool {
        count(&self.err.as_ref().unwrap().wait(|said| count(said, words) > 0), words) > 0
    }

    /// Stops it, and waits until it has stopped.
    pub fn stop(&self) {
        self.signal(libc::SIGSTOP);
        let state = || fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        eventually(|| state().rsplit(") ").next()?.starts_with('T').then_some(()));
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: takes numbers; the child is not yet waited for, so the pid is still its own.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Finished {
        self.child.stdin = None;
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < DEADLINE, "{} does not end", self.what);
            thread::sleep(Duration::from_millis(2));
        };
        let all = |stream: &Option<Stream>| stream.as_ref().map(|s| s.wait(|_| false)).unwrap_or_default();
        let err = String::from_utf8_lossy(&all(&self.err)).into_owned();
        Finished { status, out: all(&self.out), err, what: self.what.clone() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Finished {
    /// Asserts that it exited with that code.
    #[track_caller]
    pub fn code(self, code: i32) -> Finished {
        assert_eq!(self.status.code(), Some(code), "{} said {:?}", self.what, self.err);
        self
    }

    /// Asserts that it was killed.
    #[track_caller]
    pub fn killed(self) -> Finished {
        assert_eq!(self.status.signal(), Some(libc::SIGKILL), "{} said {:?}", self.what, self.err);
        self
    }

    /// Asserts that standard output is empty.
    #[track_caller]
    pub fn quiet_on_stdout(self) -> Finished {
        self.wrote(b"")
    }

    /// Asserts that standard error is empty.
    #[track_caller]
    pub fn quiet(self) -> Finished {
        assert_eq!(self.err, "", "{}", self.what);
        self
    }

    /// Asserts that standard error has one line, with all of these parts.
    #[track_caller]
    pub fn said(self, parts: &[&str]) -> Finished {
        assert_eq!(self.err.lines().count(), 1, "{} said {:?}", self.what, self.err);
        assert!(self.err.starts_with("shmpipe: ") || self.err.starts_with('{'), "{}", self.err);
        for part in parts {
            assert!(self.err.contains(part), "{} said {:?}, without {part:?}", self.what, self.err);
        }
        self
    }

    /// Asserts the content of standard output.
    #[track_caller]
    pub fn wrote(self, expected: &[u8]) -> Finished {
        assert_same(&self.out, expected);
        self
    }
}

/// Compares without printing megabytes.
#[track_caller]
pub fn assert_same(found: &[u8], expected: &[u8]) {
    if found != expected {
        let at =
            found.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(found.len().min(expected.len()));
        let near = |bytes: &[u8]| String::from_utf8_lossy(&bytes[at..bytes.len().min(at + 40)]).into_owned();
        panic!(
            "{} bytes, expected {}; from byte {at} on {:?}, expected {:?}",
            found.len(),
            expected.len(),
            near(found),
            near(expected)
        );
    }
}

/// How often it has these words.
fn count(said: &[u8], words: &str) -> usize {
    String::from_utf8_lossy(said).matches(words).count()
}

/// Retries until it succeeds.
#[track_caller]
pub fn eventually<T: Debug>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "it never succeeded");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until the process holds the role.
#[track_caller]
pub fn wait_for_holder(name: &str, role: shmpipe::Role, pid: u32) {
    eventually(|| {
        let snapshot = shmpipe::inspect(name).ok()?;
        let side = match role {
            shmpipe::Role::Producer => snapshot.producer,
            shmpipe::Role::Consumer => snapshot.consumer,
        };
        (side.peer == shmpipe::Peer::Open && side.pid == Some(pid)).then_some(())
    });
}

/// Bytes that look like noise, the same for the same seed.
pub fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // Marsaglia's xorshift.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        bytes.extend_from_slice(&seed.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Lines that contain their own numbers, from `from` on.
pub fn numbered(from: u64, count: u64) -> Vec<u8> {
    (from..from + count).flat_map(|number| format!("{number:07}\n").into_bytes()).collect()
}

/// The numbers of whole lines.
pub fn numbers(output: &[u8]) -> Vec<u64> {
    let whole = output.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    let text = std::str::from_utf8(&output[..whole]).unwrap();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// Asserts that there is neither a gap nor a repetition. Returns the number after the last one.
#[track_caller]
pub fn consecutive(numbers: &[u64]) -> u64 {
    let first = numbers[0];
    for (number, expected) in numbers.iter().zip(first..) {
        assert_eq!(*number, expected, "the numbers from {first} on are not consecutive");
    }
    first + numbers.len() as u64
}
