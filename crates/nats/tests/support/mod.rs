//! Servers, bridges and pipes of the tests, all ended and removed with the test however it ends.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Far longer than anything here takes, unless something hangs.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The server's program; `None` if there is none, which the test then says. `SHMPIPE_NATS_REQUIRED` makes that a failure.
pub fn server_program() -> Option<PathBuf> {
    let named = std::env::var_os("NATS_SERVER").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/bin".into()]);
    let found = named.or_else(|| folders.map(|folder| folder.join("nats-server")).find(|path| path.exists()));
    if found.is_none() {
        assert!(std::env::var_os("SHMPIPE_NATS_REQUIRED").is_none(), "there is no nats-server");
        eprintln!(
            "skipped: there is no nats-server in PATH (Debian: apt install nats-server), nor in NATS_SERVER"
        );
    }
    found
}

/// Ends with the thread that starts it.
fn dies_with_us(command: &mut Command) -> &mut Command {
    // SAFETY: the function is async-signal-safe and takes numbers.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        })
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A process that is killed when this is dropped.
pub struct Process {
    child: Child,
    /// Where its standard error goes.
    log: PathBuf,
}

impl Process {
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).unwrap();
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        Process { child: dies_with_us(command).spawn().unwrap(), log: log.to_owned() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: no pointers; the child is not waited for yet, so the number is its.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// Kills it, unless it has ended by itself, which its status shows.
    pub fn kill(&mut self) -> ExitStatus {
        self.child.kill().unwrap();
        self.child.wait().unwrap()
    }

    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end, and returns its exit code.
    #[track_caller]
    pub fn code(&mut self) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.has_ended() {
                return status.code().unwrap_or(-1);
            }
            assert!(start.elapsed() < DEADLINE, "it does not end: {}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it wrote to standard error.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has written this.
    #[track_caller]
    pub fn wait_until_said(&self, words: &str) {
        wait_until(words, || self.said().contains(words));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A server with JetStream and a store of its own.
pub struct Server {
    program: PathBuf,
    pub folder: tempfile::TempDir,
    pub port: u16,
    settings: String,
    /// Of JetStream.
    sync: &'static str,
    process: Option<Process>,
}

impl Server {
    /// `None` where there is no program.
    pub fn start() -> Option<Self> {
        Self::start_with("")
    }

    /// With more settings.
    pub fn start_with(settings: &str) -> Option<Self> {
        Self::start_as(settings, "")
    }

    /// One that syncs before it acknowledges; `None` where the program cannot (before 2.10).
    pub fn start_syncing() -> Option<Self> {
        let version = Command::new(server_program()?).arg("--version").output().unwrap();
        let version = String::from_utf8(version.stdout).unwrap();
        let minor = version.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
        if version.contains("v2.") && minor.is_some_and(|minor| minor < 10) {
            eprintln!("skipped: {} has no sync_interval", version.trim());
            return None;
        }
        Self::start_as("", "sync_interval: always")
    }

    fn start_as(settings: &str, sync: &'static str) -> Option<Self> {
        let program = server_program()?;
        let folder = tempfile::tempdir().unwrap();
        let mut server =
            Server { program, folder, port: free_port(), settings: settings.to_owned(), sync, process: None };
        server.restart();
        Some(server)
    }

    /// The running server.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("the server runs")
    }

    /// Its status and what it said, if it runs no more and was not killed.
    pub fn failure(&mut self) -> Option<String> {
        let process = self.process.as_mut()?;
        let status = process.has_ended()?;
        Some(format!("the server ended with {status}: {}", process.said()))
    }

    pub fn restart(&mut self) {
        let folder = self.folder.path();
        let store = folder.join("store");
        let config = folder.join("server.conf");
        let text = format!(
            "listen: 127.0.0.1:{}\njetstream {{ store_dir: \"{}\", {} }}\n{}\n",
            self.port,
            store.display(),
            self.sync,
            self.settings
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(&config);
        self.process = Some(Process::start(&mut command, &folder.join("server.log")));
        let mut tries = 0;
        wait_until("the server listens", || {
            tries += 1;
            let process = self.process.as_mut().unwrap();
            assert!(process.has_ended().is_none(), "{}", process.said());
            TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }
}

/// The address of a pipe that no other test uses; it is removed when this is dropped.
pub struct Name(String);

impl Default for Name {
    fn default() -> Self {
        Self::new()
    }
}

impl Name {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // Relaxed: it only has to differ each time.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Name(format!("posix:/nats-test-{}-{number}", std::process::id()))
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
    }
}

/// The bridge with these arguments. Its notes are in a folder of the server's.
pub fn bridge(server: &Server, arguments: &[&str]) -> Process {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    // Relaxed: it only has to differ each time.
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let log = server.folder.path().join(format!("bridge-{number}.log"));
    Process::start(command(&server.url(), server.folder.path()).args(arguments), &log)
}

/// The bridge, without the login of the user who runs the tests.
pub fn command(url: &str, folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shmpipe-nats"));
    for name in ["NATS_CONTEXT", "NATS_USER", "NATS_PASSWORD", "NATS_TOKEN", "NATS_CREDS"] {
        command.env_remove(name);
    }
    command.env("NATS_URL", url).env("STATE_DIRECTORY", folder.join("notes")).env("XDG_CONFIG_HOME", folder);
    command
}
