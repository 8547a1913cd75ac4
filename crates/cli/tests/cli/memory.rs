//! `--huge-pages`, `--lock`, `--prefault`: in effect and shown, or refused with the reason.

use std::os::unix::process::CommandExt;

use serde_json::Value;
use shmpipe::Role;
use shmpipe_measure::HugePages;

use crate::codes::Copy;
use crate::place::{Kind, Place};
use crate::process::{Name, Running, ask, is_root, listed, object, script_apart, start, wait_for_holder};

#[test]
fn a_locked_pipe_is_shown_as_locked() {
    for kind in Kind::ALL {
        let place = Place::new(kind, "memory-locked");
        let recv = start(&["recv", &place, "--lock"]);
        wait_for_holder(&place, Role::Consumer, recv.id());
        assert_eq!(object(&["stat", &place, "--json"])["locked"], true, "{kind:?}");
        let text = String::from_utf8(ask(&["stat", &place]).code(0).out).unwrap();
        let row = text.lines().find(|row| row.starts_with("memory")).unwrap();
        assert!(row.ends_with(", locked"), "{row}");
    }
}

#[test]
fn a_lock_above_the_limit_is_refused_with_the_limit() {
    if !is_root() {
        eprintln!("skipped: needs root, to run as a user who may not lock");
        return;
    }
    let name = Name::new("memory-limit");
    let copy = Copy::new(&name);
    let mut command = copy.as_nobody(&["create", &name, "--lock"]);
    // SAFETY: `setrlimit` may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: 64 << 10, rlim_max: 64 << 10 };
            libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit);
            Ok(())
        });
    }
    Running::start(&mut command).finish().code(1).quiet_on_stdout().said(&["RLIMIT_MEMLOCK", "65536"]);
}

#[test]
fn pages_are_resident_from_the_start_unless_disabled() {
    for kind in Kind::NAMED {
        let place = Place::created(kind, "memory-prefault", &["--capacity", "1MiB"]);
        assert_eq!(object(&["stat", &place, "--json"])["resident_bytes"], (1 << 20) + 4096, "{kind:?}");
    }
    // A file always takes its space.
    let place =
        Place::created(Kind::Name, "memory-lazy", &["--capacity", "1MiB", "--prefault", "--no-prefault"]);
    let lazy = object(&["stat", &place, "--json"])["resident_bytes"].as_u64().unwrap();
    assert!(lazy < 1 << 20, "{lazy}");
}

#[test]
fn huge_pages_are_used_or_refused() {
    let too_large = Name::new("memory-too-large");
    ask(&["create", &too_large, "--huge-pages", "--capacity", "1TiB"]).code(1).quiet_on_stdout();
    let pool = match HugePages::add(8) {
        Ok(pool) => pool,
        Err(error) => {
            eprintln!("skipped: {error}");
            return;
        }
    };
    for kind in [Kind::Name, Kind::Memfd] {
        let place = Place::created(kind, "memory-huge", &["--huge-pages", "--capacity", "1MiB"]);
        let pipe = object(&["stat", &place, "--json"]);
        assert_eq!((&pipe["page_bytes"], &pipe["locked"]), (&(2 << 20).into(), &true.into()), "{kind:?}");
        let text = String::from_utf8(ask(&["stat", &place]).code(0).out).unwrap();
        assert!(text.contains("pages of 2 MiB"), "{text}");
        let is_it = |found: &&Value| found["segment_id"] == pipe["segment_id"];
        assert_eq!(listed().iter().filter(is_it).count(), 1, "{kind:?}");
    }
    drop(pool);
}

#[test]
fn a_plain_opener_follows_the_huge_pages_of_the_creator() {
    let place = Place::new(Kind::Posix, "memory-follow");
    let created = ask(&["create", &place, "--huge-pages", "--capacity", "4MiB"]);
    if !created.status.success() {
        eprintln!("skipped: {}", created.err);
        return;
    }
    let recv = start(&["recv", &place, "--prefault"]);
    wait_for_holder(&place, Role::Consumer, recv.id());
    let pipe = object(&["stat", &place, "--json"]);
    assert_eq!(pipe["huge_bytes"], pipe["segment_bytes"], "{pipe}");
}

#[test]
fn missing_huge_pages_are_an_error_that_names_the_pool() {
    let Some(apart) =
        script_apart("cat /proc/sys/vm/nr_hugepages; shmpipe create sysv:private --huge-pages || echo $?")
    else {
        return;
    };
    let finished = apart.finish().code(0);
    // Another test may have reserved some at this moment.
    if finished.out == b"0\n1\n" {
        assert!(finished.err.contains("nr_hugepages is 0"), "{}", finished.err);
    }
}
