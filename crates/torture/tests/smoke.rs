//! Runs each harness for a moment, to its verdict.

use std::env;
use std::fs;
use std::process::{Command, Output};

/// Runs a harness with a state file of its own.
fn run(name: &str, options: &[&str]) -> Output {
    let state = env::temp_dir().join(format!("shmpipe-torture-{name}-{}.toml", std::process::id()));
    let mut harness = Command::new(env!("CARGO_BIN_EXE_shmpipe-torture"));
    let output = harness.arg(name).args(options).arg("--state").arg(&state).output().unwrap();
    assert!(fs::metadata(&state).is_err(), "the verdict must remove the state: {output:?}");
    output
}

/// Runs a harness, which must pass.
fn passes(name: &str, options: &[&str]) {
    let output = run(name, options);
    let verdict = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{verdict}{}", String::from_utf8_lossy(&output.stderr));
    assert!(verdict.starts_with(&format!("{name}: PASSED: ")), "{verdict}");
    assert_eq!(verdict.lines().count(), 1, "{verdict}");
}

#[test]
fn kill() {
    passes("kill", &["--rounds", "800"]);
}

#[test]
fn sleep() {
    passes("sleep", &["--sleeps", "400"]);
}

#[test]
fn threads() {
    passes("threads", &["--messages", "20000"]);
}

#[test]
fn soak() {
    passes("soak", &["--minutes", "0.1"]);
}

#[test]
fn step() {
    passes("step", &["--boundaries", "3000"]);
}

#[test]
fn errno() {
    passes("errno", &["--only", "ClaimProducer"]);
}

#[test]
fn boundary() {
    passes("boundary", &["--kills", "100"]);
}
