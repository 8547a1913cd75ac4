//! `rm --stale`: pipes that no process has open and that are empty.

use std::io::Write;

use serde_json::Value;
use shmpipe::Role;

use crate::process::{
    Name, Running, ask, eventually, ids, object, run, script_apart, start, wait_for_holder,
};

/// The result for each pipe: "removed" or why it was kept, and its unread messages.
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
fn only_closed_and_empty_pipes_are_removed() {
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
    assert_eq!(text, format!("{}: kept, 3 messages are unread (--force removes it anyway)\n", &*name));
    // Its messages are unchanged.
    ask(&["recv", &name, "--count", "2"]).code(0).wrote(b"one\ntwo\n");
    assert_eq!(fate(&[&name]), ("unread".to_owned(), 1));
    ask(&["recv", &name]).code(6).wrote(b"three\n");
    assert_eq!(fate(&[&name]), ("removed".to_owned(), 0));
    ask(&["rm", "--stale", &name]).code(3).said(&[&name, "no pipe at"]);
}

#[test]
fn a_pipe_that_was_never_used_is_kept() {
    let name = Name::new("stale-unused");
    ask(&["create", &name]).code(0);
    assert_eq!(fate(&[&name]), ("unused".to_owned(), 0));
    let text = String::from_utf8(ask(&["rm", "--stale", &name]).code(0).quiet().out).unwrap();
    assert_eq!(text, format!("{}: kept, it was never used (--force removes it anyway)\n", &*name));
    ask(&["stat", &name]).code(0);
    assert_eq!(fate(&[&name, "--force"]), ("removed".to_owned(), 0));
}

#[test]
fn a_pipe_with_another_schema_is_removed_too() {
    let name = Name::new("stale-schema");
    run(&["send", &name, "--schema", "7", "--wake", "never"], b"").code(0);
    assert_eq!(fate(&[&name]), ("removed".to_owned(), 0));
}

#[test]
fn a_committed_message_that_is_not_counted_is_kept() {
    let name = Name::new("stale-uncounted");
    run(&["send", &name], b"the last\n").code(0);
    // The state after a producer is killed right after a commit: its position does not include the message.
    let pipe = ids(&name);
    // SAFETY: an address that the kernel chooses; the position is at the offset of LAYOUT.md, and no other process is attached.
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
fn without_addresses_all_pipes_are_examined() {
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
fn a_leftover_that_was_created_so_is_removed_by_who_looks() {
    for look in ["ls", "doctor"] {
        let (tidy, plain) = (Name::new("leftover-tidy"), Name::new("leftover-plain"));
        ask(&["create", &tidy, "--remove-leftover"]).code(0);
        assert_eq!(object(&["stat", &tidy, "--json"])["remove_leftover"], true);
        ask(&["create", &plain]).code(0);
        for name in [&tidy, &plain] {
            let (send, recv) = (start(&["send", name]), start(&["recv", name]));
            wait_for_holder(name, Role::Producer, send.id());
            wait_for_holder(name, Role::Consumer, recv.id());
            ask(&[look]);
            // Stopped first, so that neither notices the other's death.
            for process in [&send, &recv] {
                process.signal(libc::SIGSTOP);
            }
            for process in [send, recv] {
                process.signal(libc::SIGKILL);
                Running::finish(process).killed();
            }
        }
        let listed = String::from_utf8(ask(&[look]).out).unwrap();
        assert!(!listed.contains(&*tidy), "{listed}");
        ask(&["stat", &tidy]).code(3);
        ask(&["stat", &plain]).code(0);
    }
    let name = Name::new("leftover-again");
    run(&["send", &name, "--remove-leftover"], b"1\n").code(0).quiet();
    ask(&["ls"]).code(0);
    ask(&["recv", &name]).code(0).quiet().wrote(b"1\n");
    run(&["send", &name, "--remove-leftover"], b"2\n").code(0).quiet();
    assert_eq!(object(&["stat", &name, "--json"])["producer_position_bytes"], 16, "it is a new one");
}

#[test]
fn who_only_reads_leaves_a_leftover_alone() {
    let name = Name::new("leftover-read");
    let leave = "shmpipe create $name --remove-leftover; shmpipe recv $name --follow & echo 1 | shmpipe send $name; \
                 until shmpipe stat $name --json | grep -q '\"consumer_messages\":1,'; do :; done; \
                 kill -9 $!; wait $! || true; ";
    let look = "shmpipe metrics; shmpipe top --once --interval 10ms; shmpipe top --once --json --interval 10ms; \
                timeout -s INT 1 shmpipe stat $name --watch=10ms || true; shmpipe stat $name | head -n 1; \
                echo ls; shmpipe ls; shmpipe stat $name || echo removed";
    let Some(running) = script_apart(&format!("name={}; {leave}{look}", &*name)) else { return };
    let said = String::from_utf8(running.finish().code(0).out).unwrap();
    let (looked, listed) = said.split_once("ls\n").unwrap();
    assert!(looked.contains(&format!("shmpipe_readable{{pipe=\"{}\"}} 1", &*name)), "{said}");
    assert!(looked.contains(&format!("\n{} ", &*name)), "{said}");
    assert!(looked.contains(&format!("\"address\":\"{}\"", &*name)), "{said}");
    assert!(!listed.contains(&*name) && listed.ends_with("removed\n"), "{said}");
}

#[test]
fn the_empty_pipe_of_a_pair_killed_together_is_removed() {
    let name = Name::new("stale-pair");
    let (send, recv) = (start(&["send", &name]), start(&["recv", &name]));
    wait_for_holder(&name, Role::Producer, send.id());
    wait_for_holder(&name, Role::Consumer, recv.id());
    // Stopped first, so that neither notices the other's death.
    for process in [&send, &recv] {
        process.signal(libc::SIGSTOP);
    }
    for process in [send, recv] {
        process.signal(libc::SIGKILL);
        Running::finish(process).killed();
    }
    assert_eq!(fate(&[&name]), ("removed".to_owned(), 0));
}
