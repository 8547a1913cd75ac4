//! Every command with every kind of shared memory.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;

use serde_json::Value;
use shmpipe::Role;

use crate::place::{Kind, Place};
use crate::process::{
    Name, ask, eventually, listed, numbered, object, run, script, script_apart, start, wait_for_holder,
};

/// This pipe in `ls`, which lists it once.
#[track_caller]
fn listed_once(segment_id: &Value) -> Value {
    let mut found: Vec<Value> =
        listed().into_iter().filter(|pipe| &pipe["segment_id"] == segment_id).collect();
    assert_eq!(found.len(), 1);
    found.remove(0)
}

#[test]
fn messages_arrive_whichever_side_starts_first() {
    for kind in Kind::ALL {
        let input = numbered(0, 5000);
        let place = Place::with(kind, "kinds-order", &["--capacity", "4KiB"]);
        let recv = start(&["recv", &place, "--capacity", "4KiB"]);
        wait_for_holder(&place, Role::Consumer, recv.id());
        run(&["send", &place], &input).code(0).quiet();
        recv.finish().code(0).quiet().wrote(&input);
        // Messages that fit wait for a later consumer.
        run(&["send", &place], b"for later\n").code(0);
        ask(&["recv", &place]).code(0).wrote(b"for later\n");
    }
}

#[test]
fn a_killed_producer_is_reported_and_its_successor_continues() {
    for kind in Kind::ALL {
        let place = Place::new(kind, "kinds-killed");
        let mut send = start(&["send", &place]);
        send.input().write_all(b"one\n").unwrap();
        eventually(|| (shmpipe::inspect(&*place).ok()?.producer.messages == 1).then_some(()));
        ask(&["send", &place]).code(4).said(&["producer", &send.id().to_string()]);
        send.signal(libc::SIGKILL);
        send.finish().killed();
        assert_eq!(object(&["stat", &place, "--json"])["producer"], "died", "{kind:?}");
        run(&["send", &place], b"two\n").code(0);
        ask(&["recv", &place]).code(0).wrote(b"one\ntwo\n");
    }
}

#[test]
fn stat_and_ls_describe_a_pipe_and_ls_lists_it_once() {
    for kind in Kind::ALL {
        let place = Place::created(kind, "kinds-listed", &["--capacity", "8KiB", "--mode", "640"]);
        run(&["send", &place], b"1\n22\n").code(0);
        let recv = start(&["recv", &place, "--follow"]);
        let send = start(&["send", &place]);
        wait_for_holder(&place, Role::Consumer, recv.id());
        wait_for_holder(&place, Role::Producer, send.id());
        recv.signal(libc::SIGSTOP);
        let pipe = object(&["stat", &place, "--json"]);
        for (key, value) in [
            ("kind", Value::from(kind.word())),
            ("capacity_bytes", 8192.into()),
            ("mode", "0640".into()),
            ("producer", "alive".into()),
            ("producer_pid", send.id().into()),
            ("consumer_pid", recv.id().into()),
            ("producer_messages", 2.into()),
            ("stale", false.into()),
            ("page_bytes", 4096.into()),
            ("resident_bytes", (8192 + 4096).into()),
            ("locked", false.into()),
        ] {
            assert_eq!(pipe[key], value, "{key} of {kind:?}");
        }
        let is_file = kind != Kind::Name;
        assert_eq!((pipe["inode"].is_u64(), pipe["shm_id"].is_null()), (is_file, is_file), "{kind:?}");
        let listed = listed_once(&pipe["segment_id"]);
        assert_eq!((&listed["kind"], &listed["producer_pid"]), (&pipe["kind"], &pipe["producer_pid"]));
        let text = String::from_utf8(ask(&["ls"]).code(0).quiet().out).unwrap();
        match kind {
            Kind::Memfd => {
                assert_eq!((&pipe["address"], &listed["address"]), (&Value::from(&*place), &Value::Null));
                let found_at = listed["found_at"].as_str().unwrap();
                assert!(
                    text.lines().any(|row| row.contains(found_at) && row.contains(&send.id().to_string())),
                    "{text}"
                );
                // It can be opened where it was found.
                let copy = script(&format!("shmpipe stat fd:9 --json 9<>{found_at}")).finish().code(0);
                let copy: Value = serde_json::from_slice(&copy.out).unwrap();
                assert_eq!(copy["segment_id"], pipe["segment_id"]);
            }
            _ => {
                assert_eq!((&listed["address"], &listed["found_at"]), (&pipe["address"], &Value::Null));
                let address = listed["address"].as_str().unwrap();
                assert!(text.lines().any(|row| row.contains(address)), "{text}");
            }
        }
    }
}

#[test]
fn a_file_is_listed_by_its_name_through_its_creator() {
    for kind in [Kind::Posix, Kind::File] {
        let place = Place::new(kind, "kinds-maker");
        let recv = start(&["recv", &place]);
        wait_for_holder(&place, Role::Consumer, recv.id());
        let pipe = object(&["stat", &place, "--json"]);
        let listed = listed_once(&pipe["segment_id"]);
        assert_eq!((&listed["address"], &listed["consumer_pid"]), (&Value::from(&*place), &recv.id().into()));
    }
}

#[test]
fn rm_removes_pipes_with_a_name_and_refuses_those_without_with_the_reason() {
    for kind in Kind::ALL {
        let place = Place::new(kind, "kinds-rm");
        let recv = start(&["recv", &place]);
        wait_for_holder(&place, Role::Consumer, recv.id());
        if kind == Kind::Memfd {
            for words in [&["rm", &*place][..], &["rm", "--force", &place], &["rm", "fd:0"]] {
                ask(words)
                    .code(2)
                    .quiet_on_stdout()
                    .said(&["a memfd disappears with the last process that has it"]);
            }
            continue;
        }
        let pid = recv.id().to_string();
        ask(&["rm", &place]).code(4).quiet_on_stdout().said(&[&place, &pid, "consumer", "--force"]);
        ask(&["stat", &place]).code(0);
        let forced = ask(&["rm", "--force", &place]).code(0).quiet_on_stdout();
        forced.said(&[&place, "removed while", &pid, "consumer"]);
        ask(&["stat", &place]).code(3);
        recv.finish().code(3).said(&["removed"]);
        ask(&["rm", &place]).code(3).said(&["no pipe at"]);
        ask(&["create", &place]).code(0);
        ask(&["create", &place]).code(4).said(&["already", &place]);
        ask(&["rm", &place]).code(0).quiet().quiet_on_stdout();
    }
}

#[test]
fn rm_stale_distinguishes_left_pipes_from_pipes_in_use() {
    for kind in Kind::NAMED {
        let place = Place::new(kind, "kinds-stale");
        let stale = |words: &[&str]| {
            let finished = ask(&[&["rm", "--stale", &place], words].concat()).code(0).quiet();
            String::from_utf8(finished.out)
                .unwrap()
                .strip_prefix(&format!("{}: ", &*place))
                .unwrap()
                .to_owned()
        };
        let mut send = start(&["send", &place]);
        send.input().write_all(b"one\n").unwrap();
        eventually(|| (shmpipe::inspect(&*place).ok()?.producer.messages == 1).then_some(()));
        assert_eq!(stale(&["--force"]), "kept, a process has it open\n", "{kind:?}");
        send.signal(libc::SIGKILL);
        send.finish().killed();
        assert!(stale(&[]).starts_with("kept, 1 message is unread"), "{kind:?}");
        ask(&["recv", &place]).code(6).wrote(b"one\n");
        assert_eq!(stale(&[]), "removed\n", "{kind:?}");
        run(&["send", &place], b"two\n").code(0);
        assert_eq!(stale(&["--force"]), "removed\n", "{kind:?}");
        ask(&["stat", &place]).code(3);
        // A handle without a role counts as open.
        let pipe = shmpipe::Pipe::open_or_create(&*place).unwrap();
        assert_eq!(stale(&[]), "kept, a process has it open\n", "{kind:?}");
        drop(pipe);
        assert!(stale(&[]).starts_with("kept, it was never used"), "{kind:?}");
        assert_eq!(stale(&["--force"]), "removed\n", "{kind:?}");
    }
    let memfd = Place::new(Kind::Memfd, "kinds-stale");
    let finished = ask(&["rm", "--stale", &memfd]).code(0).quiet();
    assert_eq!(finished.out, format!("{}: kept, a process has it open\n", &*memfd).as_bytes());
}

#[test]
fn closed_pipes_are_found_in_dev_shm_and_not_in_other_directories() {
    let Some(apart) = script_apart(
        "cd /dev/shm; shmpipe send posix:/empty < /dev/null; echo x | shmpipe send posix:/full; mkdir sub; shmpipe create file:sub/file; \
         echo shmpipe > other; ln -s empty link; mkfifo fifo; echo; shmpipe ls; shmpipe rm --stale; rm -r full sub other link fifo",
    ) else {
        return;
    };
    let finished = apart.finish().code(0).quiet();
    let text = String::from_utf8(finished.out).unwrap();
    let (_, text) = text.split_once("\n\n").unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines.len() == 5 && lines[1].contains("posix:/empty") && lines[2].contains("posix:/full"),
        "{text}"
    );
    assert_eq!(lines[3], "posix:/empty: removed");
    assert!(lines[4].starts_with("posix:/full: kept, 1 message is unread"), "{text}");
}

#[test]
fn a_file_removed_while_open_is_listed_by_a_descriptor() {
    for kind in [Kind::Posix, Kind::File] {
        let place = Place::new(kind, "kinds-unlinked");
        let recv = start(&["recv", &place]);
        wait_for_holder(&place, Role::Consumer, recv.id());
        recv.signal(libc::SIGSTOP);
        fs::remove_file(place.path()).unwrap();
        let all = listed();
        let at = format!("/proc/{}/fd/", recv.id());
        let ours =
            all.iter().find(|pipe| pipe["found_at"].as_str().is_some_and(|found| found.starts_with(&at)));
        let ours = ours.unwrap();
        assert_eq!((&ours["error"], &ours["kind"]), (&"not_found".into(), &kind.word().into()));
        // As the creator of the file it shows only the directory.
        let directory = std::path::Path::new(place.path()).parent().unwrap().to_str().unwrap();
        let doctor = String::from_utf8(ask(&["doctor"]).code(10).quiet().out).unwrap();
        let found = format!("removed from {directory} is still open: process {} ", recv.id());
        assert!(doctor.contains(&found), "{doctor}");
    }
}

#[test]
fn a_pipe_from_before_the_last_boot_is_7_and_recreated_on_request() {
    let place = Place::new(Kind::File, "kinds-boot");
    run(&["send", &place], b"lost\n").code(0);
    if !place.make_stale() {
        return;
    }
    for command in ["send", "recv"] {
        ask(&[command, &place]).code(7).wrote(b"").said(&["before the last boot"]);
    }
    let pipe = object(&["stat", &place, "--json"]);
    assert_eq!((&pipe["stale"], &pipe["unread_messages"]), (&true.into(), &1.into()));
    let kept = ask(&["rm", "--stale", &place]).code(0);
    assert!(String::from_utf8(kept.out).unwrap().contains("1 message is unread"));
    run(&["send", &place, "--recreate-stale"], b"found\n").code(0);
    ask(&["recv", &place]).code(0).wrote(b"found\n");
    place.make_stale();
    assert_eq!(ask(&["rm", "--stale", &place]).code(0).out, format!("{}: removed\n", &*place).as_bytes());
}

#[test]
fn addresses_that_cannot_be_a_pipe_are_refused_with_the_reason() {
    let place = Place::new(Kind::File, "kinds-odd");
    let path = place.path().to_owned();
    ask(&["create", &place]).code(0);
    let link = format!("{path}-link");
    symlink(&path, &link).unwrap();
    let refused = ask(&["recv", &format!("file:{link}")]);
    fs::remove_file(&link).unwrap();
    refused.code(7).said(&["a symbolic link"]);
    ask(&["recv", "file:/tmp"]).code(7).said(&["a directory"]);
    ask(&["recv", "file:/dev/null"]).code(7).said(&["a device"]);
    ask(&["stat", "file:/proc/version"]).code(7);
    fs::write(&path, [b'x'; 10_000]).unwrap();
    ask(&["recv", &place]).code(7).said(&["is not a pipe"]);
    for words in [
        &["recv", "posix:ticks"][..],
        &["recv", "posix:/a/b"],
        &["recv", "file:"],
        &["recv", "fd:x"],
        &["create", "memfd"],
        &["create", "fd:0"],
        &["stat", "memfd"],
    ] {
        ask(words).code(2).wrote(b"");
    }
    ask(&["recv", "fd:999"]).code(3);
    script("shmpipe recv fd:9 9< /dev/null").finish().code(7).said(&["memfd"]);
}

#[test]
fn a_full_file_system_is_1_with_the_space_needed() {
    let Some(full) = script_apart(
        "mount -t tmpfs -o size=1m tmpfs /mnt; (shmpipe create file:/mnt/x || echo $?); \
         mount -o remount,size=1m /dev/shm; shmpipe create posix:/x || echo $?; ls /mnt /dev/shm",
    ) else {
        return;
    };
    let finished = full.finish().code(0);
    assert_eq!(finished.out, b"1\n1\n/dev/shm:\n\n/mnt:\n");
    assert_eq!(
        finished.err.lines().filter(|line| line.contains("needs 1052672 bytes")).count(),
        2,
        "{}",
        finished.err
    );
}

#[test]
fn a_memfd_without_a_server_is_noted_with_the_remedy() {
    let send = run(&["send", "memfd"], b"x\n").code(0).quiet_on_stdout();
    send.said(&["can be reached only as", "/proc/", "serve"]);
}

#[test]
fn control_characters_of_an_address_are_escaped() {
    let name = Name::new("kinds-escape");
    let path = std::path::Path::new("/dev/shm").join(format!("{}\u{1b}[2J", &*name));
    let address = format!("posix:/{}\u{1b}[2J", &*name);
    ask(&["create", &address]).code(0);
    let listed = String::from_utf8(ask(&["ls"]).code(0).out).unwrap();
    let stat = String::from_utf8(ask(&["stat", &address]).code(0).out).unwrap();
    let removed = String::from_utf8(ask(&["rm", "--stale", "--force", &address]).code(0).out).unwrap();
    let failed = ask(&["stat", &address]).code(3).err.clone();
    let _ = fs::remove_file(path);
    let escaped = format!("posix:/{}\\u{{1b}}[2J", &*name);
    for text in [listed, stat, removed, failed] {
        assert!(text.contains(&escaped) && !text.contains('\u{1b}'), "{text}");
    }
}
