//! Shell commands with a timeout.

use super::weave::VARIABLE;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Passed,
    /// With the tests that failed, or the line that reports the failure.
    Failed(String),
    TimedOut,
    /// No such command, or a signal killed it.
    Broken(String),
    /// The user interrupted the harness.
    Interrupted,
}

/// Runs `command` in `folder`, in a process group of its own, with a mutant's name in the environment, until it ends, `timeout`
/// passes or `stop` returns true. Its output goes to `log`.
pub fn run(
    command: &str,
    mutant: Option<&str>,
    folder: &Path,
    log: &Path,
    timeout: Duration,
    stop: &dyn Fn() -> bool,
) -> End {
    let start = || {
        let output = File::create(log)?;
        let mut shell = Command::new("sh");
        match mutant {
            Some(name) => shell.env(VARIABLE, name),
            None => shell.env_remove(VARIABLE),
        };
        shell
            .args(["-c", command])
            .current_dir(folder)
            // The copy has its own target folder, so that its builds do not invalidate ours.
            .env_remove("CARGO_TARGET_DIR")
            // To a harness that runs one instruction at a time, a panic that prints a backtrace seems to hang.
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
    };
    let mut group = match start() {
        Ok(child) => Group(child),
        Err(error) => return End::Broken(format!("sh: {error}")),
    };
    let deadline = Instant::now() + timeout;
    loop {
        match group.0.try_wait() {
            Ok(Some(status)) => return end(status, log),
            Ok(None) if stop() => return End::Interrupted,
            Ok(None) if Instant::now() >= deadline => return End::TimedOut,
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => return End::Broken(format!("sh: {error}")),
        }
    }
}

/// Kills the whole group when dropped: a process left running would disturb the next command.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: no pointers. The group's number is that of its first process, and the kernel does not reuse it while the group
        // has members. An empty group gets no signal: nothing else can have its number, unless the command was reaped a moment ago
        // and the kernel has gone through all numbers since.
        unsafe { libc::killpg(self.0.id() as i32, libc::SIGKILL) };
        let _ = self.0.wait();
    }
}

fn end(status: ExitStatus, log: &Path) -> End {
    match status.code() {
        Some(0) => End::Passed,
        // The shell found no such command, or cannot run it.
        Some(code @ 126..=127) => End::Broken(format!("exit code {code}")),
        Some(_) => End::Failed(what_failed(&std::fs::read(log).unwrap_or_default())),
        None => End::Broken(status.to_string()),
    }
}

/// The failed tests in the output of cargo, or else the last line that reports a failure.
fn what_failed(output: &[u8]) -> String {
    let output = String::from_utf8_lossy(output);
    let failed = |line: &str| {
        let name = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
        Some(name.rsplit("::").next().unwrap_or(name).to_owned())
    };
    let tests: Vec<String> = output.lines().filter_map(failed).collect();
    match &tests[..] {
        [] => output.lines().rfind(|line| line.contains("FAILED")).unwrap_or_default().trim().to_owned(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(command: &str, timeout: Duration) -> End {
        let log =
            std::env::temp_dir().join(format!("shmpipe-command-{}-{}", std::process::id(), command.len()));
        let end = run(command, Some("a/b"), Path::new("/"), &log, timeout, &|| false);
        std::fs::remove_file(log).unwrap();
        end
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn exit_codes_and_signals_map_to_ends() {
        assert_eq!(sh("true", LONG), End::Passed);
        assert_eq!(sh("test $SHMPIPE_MUTANT = a/b", LONG), End::Passed);
        assert_eq!(sh("exit 101", LONG), End::Failed(String::new()));
        assert_eq!(
            sh("echo 'kill: FAILED: lost 3'; exit 1", LONG),
            End::Failed("kill: FAILED: lost 3".into())
        );
        assert_eq!(sh("echo 'test a::b ... FAILED'; exit 101", LONG), End::Failed("b".into()));
        assert_eq!(sh("no-such-command 2>/dev/null", LONG), End::Broken("exit code 127".into()));
        assert!(matches!(sh("kill -9 $$", LONG), End::Broken(_)));
    }

    #[test]
    fn timeout_kills_the_command_with_its_children() {
        let file = std::env::temp_dir().join(format!("shmpipe-group-{}", std::process::id()));
        let command = format!("sleep 1000 & echo $! > {}; wait", file.display());
        assert_eq!(sh(&command, Duration::from_millis(300)), End::TimedOut);
        let pid: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        std::fs::remove_file(file).unwrap();
        let gone = |pid: i32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        shmpipe_testing::until("killed", || gone(pid));
    }
}
