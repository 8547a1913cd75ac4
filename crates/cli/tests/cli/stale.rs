//! `rm --stale`: what nobody has open and nobody has anything left to read in.

use std::io::Write;

use serde_json::Value;
use shmpipe::Role;

use crate::process::{Name, Running, ask, eventually, ids, run, script_apart, start, wait_for_holder};

/// What became of pipes: (removed or kept, messages).
fn fates(words: &[&str]) -> Vec<(String, u64)> {
    let finished = ask(&[&["rm", "--stale", "--json"], words].concat()).code(0).quiet();
    let text = String::from_utf8(finished.out).unwrap();
    let objects = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    objects
        .map(|object| {
            assert_eq!(object["schema"], 1);
            match &object["removed"] {
                Value::Null => (
                    object["because"].as_str().unwrap().to_owned(),
                    object["unread_messages"].as_u64().unwrap(),
                ),
                _ => ("removed".to_owned(), 0),
            }
        })
        .collect()
}

fn fate(words: &[&str]) -> (String, u64) {
    let mut fates = fates(words);
    assert_eq!(fates.len(), 1, "{fates:?}");
    fates.remove(0)
}

#[test]
fn only_what_nobody_has_open_and_nobody_can_read_is_removed() {
    let name = Name::new("stale");
    let mut send = start(&["send", &name]);
    send.input().write_all(b"one\ntwo\nthree\n").unwrap();
    eventually(|| (shmpipe::inspect(&*name).ok()?.producer.messages == 3).then_some(()));
    assert_eq!(fate(&[&name]), ("in_use".to_owned(), 0));
    assert_eq!(fate(&[&name, "--force"]), ("in_use".to_owned(), 0), "not even by force");
    send.signal(libc::SIGKILL);
    send.finish().killed();
    assert_eq!(fate(&[&name]), ("unread".to_owned(), 3));
    let text = String::from_utf8(ask(&["rm", "--stale", &name]).code(0).quiet().out).unwrap();
    assert_eq!(text, format!("{}: kept, 3 messages are unread (--force removes it all the same)\n", &*name));
    // What was looked at is as it was.
    ask(&["recv", &name, "--count", "2"]).code(0).wrote(b"one\ntwo\n");
    assert_eq!(fate(&[&name]), ("unread".to_owned(), 1));
    ask(&["recv", &name]).code(6).wrote(b"three\n");
    assert_eq!(fate(&[&name]), ("removed".to_owned(), 0));
    ask(&["rm", "--stale", &name]).code(3).said(&[&name, "there is no pipe"]);
}

#[test]
fn unread_messages_go_by_force() {
    let name = Name::new("stale-force");
    run(&["send", &name], b"x\n").code(0);
    let text = String::from_utf8(ask(&["rm", "--stale", "--force", &name]).code(0).quiet().out).unwrap();
    assert_eq!(text, format!("{}: removed\n", &*name));
    ask(&["stat", &name]).code(3);
}

#[test]
fn a_pipe_that_is_open_without_a_role_is_in_use() {
    let name = Name::new("stale-open");
    let pipe = shmpipe::Pipe::open_or_create(&*name).unwrap();
    assert_eq!(fate(&[&name]), ("in_use".to_owned(), 0));
    drop(pipe);
    assert_eq!(fate(&[&name]), ("unused".to_owned(), 0));
}

#[test]
fn a_pipe_made_for_others_who_have_not_come_yet_is_spared() {
    let name = Name::new("stale-unused");
    ask(&["create", &name]).code(0);
    assert_eq!(fate(&[&name]), ("unused".to_owned(), 0));
    let text = String::from_utf8(ask(&["rm", "--stale", &name]).code(0).quiet().out).unwrap();
    assert_eq!(text, format!("{}: kept, nobody has used it yet (--force removes it all the same)\n", &*name));
    ask(&["stat", &name]).code(0);
    assert_eq!(fate(&[&name, "--force"]), ("removed".to_owned(), 0));
}

#[test]
fn a_pipe_with_another_schema_is_removed_all_the_same() {
    let name = Name::new("stale-schema");
    run(&["send", &name, "--schema", "7", "--wake", "never"], b"").code(0);
    assert_eq!(fate(&[&name]), ("removed".to_owned(), 0));
}

#[test]
fn a_message_that_was_committed_and_not_counted_is_not_thrown_away() {
    let name = Name::new("stale-uncounted");
    run(&["send", &name], b"the last\n").code(0);
    // As a producer leaves it that is killed right behind the commit: its position does not tell of the message.
    let pipe = ids(&name);
    // SAFETY: an address of the kernel's choice; the positions stand where LAYOUT.md says, and nobody else is attached.
    unsafe {
        let base = libc::shmat(pipe.shm_id, std::ptr::null(), 0);
        assert!(base as isize != -1);
        base.cast::<u8>().add(512).cast::<u64>().write(0);
        libc::shmdt(base);
    }
    assert_eq!(shmpipe::inspect(&*name).unwrap().producer.position, 0);
    assert_eq!(fate(&[&name]), ("unread".to_owned(), 1));
    ask(&["recv", &name]).code(0).wrote(b"the last\n");
    assert_eq!(fate(&[&name]), ("removed".to_owned(), 0));
}

#[test]
fn without_addresses_all_pipes_are_looked_at() {
    let Some(apart) = script_apart(
        "shmpipe send empty < /dev/null; shmpipe create sysv:private; echo x | shmpipe send full; \
         shmpipe recv busy > /dev/null & busy=$!; until shmpipe stat busy 2>&1 | grep -q 'consumer *alive'; do sleep 0.05; done; \
         echo rm; shmpipe rm --stale; shmpipe rm --stale --force;  shmpipe ls; kill $busy",
    ) else {
        return;
    };
    let finished = apart.finish().code(0);
    let text = String::from_utf8(finished.out).unwrap();
    let (_, text) = text.split_once("rm\n").unwrap();
    let mut lines: Vec<&str> = text.lines().take(4).collect();
    lines.sort_unstable();
    assert!(
        lines[0].starts_with("empty: removed") && lines[1].starts_with("full: kept, 1 message is"),
        "{text}"
    );
    assert!(lines[2].starts_with("full: removed") && lines[3].starts_with("sysv:id:"), "{text}");
    assert!(text.lines().last().unwrap().starts_with("busy "), "{text}");
}

#[test]
fn what_was_left_by_a_pair_killed_together_goes_when_it_is_read() {
    let name = Name::new("stale-pair");
    let (send, recv) = (start(&["send", &name]), start(&["recv", &name]));
    wait_for_holder(&name, Role::Producer, send.id());
    wait_for_holder(&name, Role::Consumer, recv.id());
    // Before either can hear of the other's death.
    for process in [&send, &recv] {
        process.signal(libc::SIGSTOP);
    }
    for process in [send, recv] {
        process.signal(libc::SIGKILL);
        Running::finish(process).killed();
    }
    assert_eq!(fate(&[&name]), ("removed".to_owned(), 0));
}
