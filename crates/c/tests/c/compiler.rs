//! Compiles programs, links them with the library that cargo has just built, and runs them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The file beside the tests that cargo built: `libshmpipe_c.so` or `libshmpipe_c.a`.
pub fn built(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let built = tests.with_file_name(name);
    assert!(built.exists(), "{} was not built", built.display());
    built
}

/// A folder with the shared library under the names that `make install` gives it.
pub fn libraries() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c-libraries");
        fs::create_dir_all(&folder).unwrap();
        for name in ["libshmpipe.so", &soname()] {
            let link = folder.join(name);
            let _ = fs::remove_file(&link);
            symlink(built("libshmpipe_c.so"), link).unwrap();
        }
        folder
    })
}

pub fn soname() -> String {
    let version: Vec<_> = env!("CARGO_PKG_VERSION").split('.').collect();
    let compatible = if version[0] == "0" { 2 } else { 1 };
    format!("libshmpipe.so.{}", version[..compatible].join("."))
}

pub const C99: &[&str] = &["cc", "-std=c99", "-D_XOPEN_SOURCE=700"];
pub const CXX17: &[&str] = &["c++", "-std=c++17"];
pub const STRICT: &[&str] = &["-Wall", "-Wextra", "-Werror", "-pedantic", "-pthread", "-g"];

/// Whether a tool is there. Reports a skipped test if not.
pub fn has(tool: &str, test: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok();
    if !found {
        eprintln!("{test}: skipped, there is no {tool}");
    }
    found
}

/// Compiles a source file of this crate into a program, with the shared library. `None` if the compiler cannot.
pub fn compile_if_possible(
    compiler: &[&str],
    source: &str,
    name: &str,
    flags: &[&str],
) -> Result<PathBuf, String> {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let output = Command::new(compiler[0])
        .args(&compiler[1..])
        .args(STRICT)
        .args(flags)
        .arg("-I")
        .arg(folder().join("include"))
        .arg(folder().join(source))
        .arg("-o")
        .arg(&program)
        .arg("-L")
        .arg(libraries())
        .arg("-lshmpipe")
        .arg(format!("-Wl,-rpath,{}", libraries().display()))
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", compiler[0]));
    if output.status.success() {
        Ok(program)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

pub fn compile(compiler: &[&str], source: &str, name: &str) -> PathBuf {
    compile_if_possible(compiler, source, name, &[]).unwrap_or_else(|error| panic!("{source}:\n{error}"))
}

/// Runs a command that must succeed. Returns what it prints.
pub fn run(command: &mut Command) -> String {
    shmpipe_testing::running::run(command).stdout
}
