//! The header is what cbindgen makes of the crate, and describes the structs as the library has them.

use crate::compiler::{C99, CXX17, compile, compile_if_possible, folder, has, run};
use shmpipe_c::*;
use std::fmt::Write as _;
use std::fs;
use std::mem::offset_of;
use std::path::Path;
use std::process::Command;

fn generated() -> String {
    let config = cbindgen::Config::from_file(folder().join("cbindgen.toml")).unwrap();
    let builder = cbindgen::Builder::new().with_config(config).with_src(folder().join("src/lib.rs"));
    let mut text = Vec::new();
    builder.generate().unwrap().write(&mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn header_is_current() {
    let path = folder().join("include/shmpipe.h");
    let generated = generated();
    if std::env::var_os("UPDATE_HEADER").is_some() {
        fs::write(&path, &generated).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == generated,
        "{} is not what cbindgen makes of the crate; `UPDATE_HEADER=1 cargo test -p shmpipe-c --test c header` writes it",
        path.display()
    );
}

#[test]
fn header_compiles_alone() {
    for standard in ["c99", "c11", "c17"] {
        compile(&["cc", &format!("-std={standard}")], "tests/c/alone.c", &format!("alone-{standard}"));
    }
    if has("c++", "header_compiles_alone as C++") {
        for standard in ["c++17", "c++20"] {
            let compiler = ["c++", &format!("-std={standard}"), "-x", "c++"];
            compile_if_possible(&compiler, "tests/c/alone.c", &format!("alone-{standard}"), &[]).unwrap();
        }
    }
}

/// Each struct that a program has in its own memory, with its members.
macro_rules! members {
    ($($name:ident { $($member:ident),* })*) => {{
        let (mut source, mut expected) = (String::new(), String::new());
        $($(
            let size = size_of_member(|it: &$name| &raw const it.$member);
            writeln!(source, "MEMBER({}, {});", stringify!($name), stringify!($member)).unwrap();
            writeln!(expected, "{}.{} {} {size}", stringify!($name), stringify!($member), offset_of!($name, $member)).unwrap();
        )*)*
        (source, expected)
    }};
}

fn size_of_member<T, M>(_: impl Fn(&T) -> *const M) -> usize {
    size_of::<M>()
}

#[test]
fn structs_lie_in_memory_as_the_library_has_them() {
    let (source, expected) = members! {
        shmpipe_pipe_info { id, capacity, max_len, schema, mode, wake_mode, fd, created, duplex }
        shmpipe_message { data, length, position, tag }
        shmpipe_event { user_data, readiness, end, abort_code }
        shmpipe_side_stats { peer, pid, epoch, position, messages, bytes, waits, wakeups }
        shmpipe_direction_stats { used, unread, dropped, producer, consumer }
        shmpipe_latency { samples, p50, p90, p99, p999, p9999, max }
        shmpipe_passed { data, length, position, tag, missed }
        shmpipe_stats {
            id, capacity, size, schema, max_len, forth, back, uid, gid, mode, wake_mode, duplex, open, stale, remove_on_close,
            remove_leftover, measure_latency, forth_latency, back_latency
        }
    };
    let include = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c-members");
    fs::create_dir_all(&include).unwrap();
    fs::write(include.join("members.h"), source).unwrap();
    let include = format!("-I{}", include.display());
    let program = compile_if_possible(C99, "tests/c/layout.c", "layout", &[&include]).unwrap();
    assert_eq!(run(&mut Command::new(program)), expected);
    if has("c++", "structs_lie_in_memory_as_the_library_has_them in C++") {
        let compiler = [CXX17, &["-x", "c++"]].concat();
        let program = compile_if_possible(&compiler, "tests/c/layout.c", "layout++", &[&include]).unwrap();
        assert_eq!(run(&mut Command::new(program)), expected);
    }
}
