//! Provides the compiler's version for the description of the machine, which omits an unknown one.
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTC");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    if let Ok(output) = Command::new(rustc).arg("--version").output() {
        println!("cargo::rustc-env=MEASURE_RUSTC={}", String::from_utf8_lossy(&output.stdout).trim());
    }
}
