//! The programs beside this file: each checks one part of the interface, and once more under valgrind and the address sanitizer.

use crate::compiler::{C99, compile, compile_if_possible, has, run};
use crate::exports::declared;
use std::process::Command;

fn passes(program: &str) {
    run(&mut Command::new(compile(C99, &format!("tests/c/{program}.c"), program)));
}

/// Whether a program may leak memory.
#[derive(Clone, Copy, PartialEq)]
enum Leaks {
    None,
    /// A panic leaks its text.
    Some,
}

/// Runs a program under valgrind, which must find no error.
fn passes_under_valgrind(program: &str, leaks: Leaks, test: &str) {
    if !has("valgrind", test) {
        return;
    }
    let name = format!("{program}-valgrind");
    let program = compile(C99, &format!("tests/c/{program}.c"), &name);
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--error-exitcode=9"]);
    if leaks == Leaks::None {
        valgrind.args(["--leak-check=full", "--errors-for-leak-kinds=definite"]);
    }
    run(valgrind.arg(program));
}

/// Runs a program with the address sanitizer, which must find no error.
fn passes_sanitized(program: &str, leaks: Leaks, test: &str) {
    let name = format!("{program}-sanitized");
    let source = format!("tests/c/{program}.c");
    let flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    match compile_if_possible(C99, &source, &name, &flags) {
        Ok(program) => {
            let looks_for_leaks = u8::from(leaks == Leaks::None);
            let mut command = Command::new(program);
            run(command.env("ASAN_OPTIONS", format!("detect_leaks={looks_for_leaks}")));
        }
        Err(error) if error.contains("asan") || error.contains("ubsan") => {
            eprintln!("{test}: skipped, the compiler has no sanitizer libraries");
        }
        Err(error) => panic!("{error}"),
    }
}

macro_rules! programs {
    ($($program:ident: $valgrind:ident, $sanitized:ident;)*) => {$(
        #[test]
        fn $program() {
            passes(stringify!($program));
        }

        #[test]
        fn $valgrind() {
            passes_under_valgrind(stringify!($program), Leaks::None, stringify!($valgrind));
        }

        #[test]
        fn $sanitized() {
            passes_sanitized(stringify!($program), Leaks::None, stringify!($sanitized));
        }
    )*};
}

programs! {
    one_process: one_process_under_valgrind, one_process_sanitized;
    misuse: misuse_under_valgrind, misuse_sanitized;
    set: set_under_valgrind, set_sanitized;
    descriptor: descriptor_under_valgrind, descriptor_sanitized;
    threads: threads_under_valgrind, threads_sanitized;
    fork: fork_under_valgrind, fork_sanitized;
}

/// Functions that do nothing in which a panic could arise.
const CANNOT_PANIC: [&str; 7] = [
    "shmpipe_abi_version",
    "shmpipe_abort_code",
    "shmpipe_layout_version",
    "shmpipe_pipe_address",
    "shmpipe_pipe_differences",
    "shmpipe_strerror",
    "shmpipe_version",
];

/// Whether functions panic on request. Reports a skipped test if not.
fn can_panic(test: &str) -> bool {
    if !cfg!(debug_assertions) {
        eprintln!("{test}: skipped, the hook exists only with debug assertions");
    }
    cfg!(debug_assertions)
}

#[test]
fn panics_under_valgrind() {
    if can_panic("panics_under_valgrind") {
        passes_under_valgrind("panics", Leaks::Some, "panics_under_valgrind");
    }
}

#[test]
fn panics_sanitized() {
    if can_panic("panics_sanitized") {
        passes_sanitized("panics", Leaks::Some, "panics_sanitized");
    }
}

#[test]
fn no_function_lets_a_panic_out() {
    if !can_panic("no_function_lets_a_panic_out") {
        return;
    }
    let source = include_str!("panics.c");
    let untried: Vec<_> = declared()
        .into_iter()
        .filter(|name| !CANNOT_PANIC.contains(&name.as_str()))
        .filter(|name| {
            let tried = ["PANICS", "PRODUCER", "CONSUMER", "RETURNS_FROM"];
            !tried.iter().any(|with| source.contains(&format!("{with}({name}(")))
        })
        .collect();
    assert!(untried.is_empty(), "panics.c does not make these panic: {untried:?}");
    let program = compile(C99, "tests/c/panics.c", "panics");
    let panicked: usize = run(&mut Command::new(program)).trim().parse().unwrap();
    assert!(panicked >= declared().len() - CANNOT_PANIC.len(), "{panicked} calls");
}

#[test]
fn wrapper() {
    if has("c++", "wrapper") {
        for standard in ["c++17", "c++20"] {
            let compiler = ["c++", &format!("-std={standard}")];
            run(&mut Command::new(compile(&compiler, "tests/c/wrapper.cpp", &format!("wrapper-{standard}"))));
        }
    }
}
