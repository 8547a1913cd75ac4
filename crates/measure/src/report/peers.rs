//! Other queues, built and measured by the program `crates/peers`.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use super::options::Options;
use super::row::PlacedRows;
use crate::errors::about;

/// The best of them, and ours in the same run.
const PEERS: &str = "classic,shmpipe,shmpipe-spin,ringfire,shaq,shmem-ipc,iceoryx2";
const SIZES: &str = "8,64,256,1024,8192";

/// The most lines of an error.
const KEPT: usize = 3;

/// Builds the program, which takes minutes the first time, and runs it.
///
/// # Errors
/// Why there are no rows, in a few lines.
pub(super) fn measure(root: &Path, options: &Options, near_below_ns: f64) -> io::Result<Vec<PlacedRows>> {
    let manifest = root.join("crates/peers/Cargo.toml");
    let rows = root.join("target/report/peers.json");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    eprintln!("report: builds crates/peers, which takes minutes the first time");
    let mut build = Command::new(&cargo);
    build.args(["build", "--release", "--no-default-features", "--manifest-path"]).arg(&manifest);
    succeed("building crates/peers", &mut build)?;
    let seconds = options.seconds / 5.0;
    eprintln!("report: the peers, {:.0} s", 2.0 * seconds);
    let mut measure = Command::new(&cargo);
    measure.args(["run", "--quiet", "--release", "--no-default-features", "--manifest-path"]).arg(&manifest);
    measure.args(["--", "--company", "processes", "--peers", PEERS, "--sizes", SIZES, "--seconds"]);
    measure.arg(seconds.to_string()).arg("--near-below").arg(near_below_ns.to_string());
    if let Some((a, b)) = options.cpus {
        measure.arg("--cpus").arg(format!("{a},{b}"));
    }
    measure.arg("--json").arg(&rows).stdout(Stdio::null());
    succeed("measuring the peers", &mut measure)?;
    let failed = |error| about(format_args!("{}", rows.display()), error);
    let text = fs::read_to_string(&rows).map_err(failed)?;
    serde_json::from_str(&text).map_err(|error| failed(error.into()))
}

/// Runs it, and copies its standard error to ours. An error contains the first error lines.
fn succeed(what: &str, command: &mut Command) -> io::Result<()> {
    let failed = |error| about(format_args!("{what}"), error);
    let mut child = command.stderr(Stdio::piped()).spawn().map_err(failed)?;
    let mut words = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines() {
            let line = line.map_err(failed)?;
            eprintln!("{line}");
            words.push(line);
        }
    }
    let status = child.wait().map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{what} failed ({status}): {}", why(&words))))
}

/// The lines that start with `error`, or else the last ones.
fn why(words: &[String]) -> String {
    let errors: Vec<&str> =
        words.iter().map(|line| line.trim()).filter(|line| line.starts_with("error")).take(KEPT).collect();
    if !errors.is_empty() {
        return errors.join("; ");
    }
    let full: Vec<&str> = words.iter().map(|line| line.trim()).filter(|line| !line.is_empty()).collect();
    if full.is_empty() {
        return "without a word on standard error".to_owned();
    }
    full[full.len().saturating_sub(KEPT)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_has_few_lines() {
        let words = |text: &str| why(&text.lines().map(str::to_owned).collect::<Vec<_>>());
        let text = "   Compiling a\nerror: failed to get `shaq`\nCaused by:\n  no network\nerror: and more\n";
        assert_eq!(words(text), "error: failed to get `shaq`; error: and more");
        assert_eq!(words("a\nb\nc\n\nd\n"), "b; c; d");
        assert_eq!(words(""), "without a word on standard error");
    }

    #[test]
    fn failing_program_is_an_error_with_its_output() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'error: no such crate' >&2; exit 3"]);
        let error = succeed("building", &mut command).unwrap_err().to_string();
        assert_eq!(error, "building failed (exit status: 3): error: no such crate");
        let error = succeed("building", &mut Command::new("/no/such/cargo")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        succeed("nothing", &mut Command::new("true")).unwrap();
    }
}
