//! `ls`, `stat`, `create` and `rm`, as text and as JSON.

use std::io::Write;

use serde_json::Value;
use shmpipe::Role;

use crate::process::{Finished, Name, ask, eventually, run, start, wait_for_holder};

/// The JSON object on standard output.
fn object(finished: &Finished) -> Value {
    let text = std::str::from_utf8(&finished.out).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    let object: Value = serde_json::from_str(text).unwrap();
    check(&object);
    object
}

/// Asserts that it is flat and has the version.
fn check(object: &Value) {
    let object = object.as_object().unwrap();
    assert_eq!(object["schema"], 1, "{object:?}");
    assert!(object.values().all(|value| !value.is_object() && !value.is_array()), "{object:?}");
}

#[test]
fn stat_prints_the_state_as_json() {
    let name = Name::new("stat");
    let mut send = start(&["send", &name, "--capacity", "60000", "--mode", "640", "--schema", "7"]);
    send.input().write_all(b"four\nfives\n").unwrap();
    eventually(|| (shmpipe::inspect(&*name).ok()?.producer.messages == 2).then_some(()));
    let pipe = object(&ask(&["stat", &name, "--json"]).code(0).quiet());
    for (key, value) in [
        ("name", Value::from(&*name)),
        ("capacity_bytes", 65536.into()),
        ("segment_bytes", (65536 + 4096).into()),
        ("used_bytes", 32.into()),
        ("unread_messages", 2.into()),
        ("kind", "sysv".into()),
        ("stale", false.into()),
        ("max_message_bytes", 32760.into()),
        ("user_schema", 7.into()),
        ("mode", "0640".into()),
        ("producer", "alive".into()),
        ("producer_alive", true.into()),
        ("producer_pid", send.id().into()),
        ("producer_claims", 1.into()),
        ("producer_messages", 2.into()),
        ("producer_payload_bytes", 9.into()),
        ("producer_position_bytes", 32.into()),
        ("consumer", "never came".into()),
        ("consumer_alive", false.into()),
        ("consumer_pid", Value::Null),
        ("consumer_messages", 0.into()),
    ] {
        assert_eq!(pipe[key], value, "{key}");
    }
    // Listings of other tests may be attached too.
    assert!(pipe["attached_processes"].as_u64().unwrap() >= 1);
    assert!((0.0..600.0).contains(&pipe["age_seconds"].as_f64().unwrap()));
    assert!(pipe["address"].as_str().unwrap().starts_with("sysv:0x"));
    // It is a valid address.
    ask(&["stat", pipe["address"].as_str().unwrap()]).code(0);
    send.signal(libc::SIGKILL);
    send.finish().killed();
    ask(&["recv", &name, "--schema", "7"]).code(6);
    let pipe = object(&ask(&["stat", &name, "--json"]).code(0));
    assert_eq!((pipe["producer"].as_str(), pipe["consumer"].as_str()), (Some("died"), Some("closed")));
    assert_eq!((pipe["used_bytes"].as_u64(), pipe["consumer_messages"].as_u64()), (Some(0), Some(2)));
}

#[test]
fn stat_prints_the_state_as_text() {
    let name = Name::new("stat-text");
    run(&["send", &name], b"x\n").code(0);
    let text = String::from_utf8(ask(&["stat", &name]).code(0).quiet().out).unwrap();
    for part in
        [&*name, "1 MiB (1048576 bytes)", "524280 bytes", "0600", "closed", "never came", "1 messages"]
    {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn ls_lists_pipes_with_both_sides() {
    let (quiet, busy) = (Name::new("ls-quiet"), Name::new("ls-busy"));
    ask(&["create", &quiet, "--capacity", "4K"]).code(0);
    let recv = start(&["recv", &busy]);
    wait_for_holder(&busy, Role::Consumer, recv.id());

    let listed = ask(&["ls", "--json"]).code(0).quiet();
    let objects: Vec<Value> = serde_json::from_slice(&listed.out).unwrap();
    objects.iter().for_each(check);
    let find = |name: &str| objects.iter().find(|object| object["name"] == name).unwrap();
    assert_eq!(find(&quiet)["capacity_bytes"], 4096);
    assert_eq!(find(&quiet)["consumer"], "never came");
    assert_eq!(
        (&find(&busy)["consumer"], &find(&busy)["consumer_pid"]),
        (&"alive".into(), &recv.id().into())
    );

    let text = String::from_utf8(ask(&["ls"]).code(0).quiet().out).unwrap();
    let heads =
        ["NAME", "ADDRESS", "CAPACITY", "FILL", "UNREAD", "PRODUCER", "CONSUMER", "OWNER", "MODE", "AGE"];
    let first = text.lines().next().unwrap();
    assert_eq!(first.split_whitespace().collect::<Vec<_>>(), heads);
    let row = text.lines().find(|row| row.starts_with(&*quiet)).unwrap();
    for (head, cell) in [("CAPACITY", "4 KiB"), ("FILL", "0%"), ("PRODUCER", "never came"), ("MODE", "0600")]
    {
        let column = first.find(head).unwrap();
        assert!(row[column..].starts_with(cell), "{head} is {cell} in\n{text}");
    }
    let row = text.lines().find(|row| row.starts_with(&*busy)).unwrap();
    assert!(row.contains(&format!("alive ({})", recv.id())), "{row}");
}

#[test]
fn a_pipe_without_a_name_is_listed_and_opened_by_its_identifier() {
    let made = object(&ask(&["create", "sysv:private", "--json"]).code(0).quiet());
    let address = made["address"].as_str().unwrap().to_owned();
    let cleaner = Remove(address.clone());
    assert_eq!(
        (address.as_str(), &made["name"]),
        (format!("sysv:id:{}", made["shm_id"]).as_str(), &Value::Null)
    );
    run(&["send", &address], b"hello\n").code(0).quiet();
    let text = String::from_utf8(ask(&["ls"]).code(0).out).unwrap();
    assert!(text.lines().any(|row| row.starts_with('-') && row.contains(&address)), "{text}");
    ask(&["recv", &address]).code(0).wrote(b"hello\n");
    ask(&["rm", &address]).code(0).quiet();
    ask(&["rm", &address]).code(3);
    drop(cleaner);
}

/// Removes a pipe without a name.
struct Remove(String);

impl Drop for Remove {
    fn drop(&mut self) {
        let _ = shmpipe::unlink_force(self.0.as_str());
    }
}

#[test]
fn create_applies_its_options() {
    let name = Name::new("create");
    let words = [
        "create",
        &name,
        "--json",
        "--capacity",
        "5000",
        "--wake",
        "fence",
        "--remove-on-close",
        "--schema",
        "0xff",
    ];
    let made = object(&ask(&words).code(0).quiet());
    assert_eq!((&made["name"], &made["capacity_bytes"]), (&Value::from(&*name), &8192.into()));
    assert_eq!((&made["wake_mode"], &made["remove_on_close"]), (&"fence".into(), &true.into()));
    assert_eq!((&made["user_schema"], &made["producer"]), (&255.into(), &"never came".into()));
    run(&["send", &name, "--schema", "255"], b"x\n").code(0).quiet();
    ask(&["recv", &name, "--schema", "255"]).code(0).wrote(b"x\n");
    // Both sides have closed.
    ask(&["stat", &name]).code(3);
}

#[test]
fn rm_continues_after_a_failure() {
    let (first, missing, last) = (Name::new("rm-first"), Name::new("rm-missing"), Name::new("rm-last"));
    ask(&["create", &first]).code(0);
    ask(&["create", &last]).code(0);
    let finished = ask(&["rm", "--json", &first, &missing, &last]).code(3).said(&[&missing]);
    let removed: Vec<Value> = finished
        .out
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    removed.iter().for_each(check);
    assert_eq!(removed.iter().map(|object| &object["removed"]).collect::<Vec<_>>(), [&*first, &*last]);
}
