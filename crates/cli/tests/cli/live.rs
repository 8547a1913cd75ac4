//! `stat --watch` and `top`: pipes live.

use std::io::Write;

use serde_json::Value;

use crate::place::{Kind, Place};
use crate::process::{Name, Running, ask, eventually, object, run, script, start};

/// The JSON objects printed so far, a line each.
fn objects(said: &[u8]) -> Vec<Value> {
    let whole = said.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    let lines = std::str::from_utf8(&said[..whole]).unwrap().lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits for a line that is as wanted.
fn wait_for(watch: &Running, wanted: impl Fn(&Value) -> bool) -> Value {
    let said = watch.wait_for_output(|said| objects(said).iter().any(&wanted));
    objects(&said).into_iter().find(|line| wanted(line)).unwrap_or_else(|| {
        panic!("nothing as wanted in {}", String::from_utf8_lossy(&said));
    })
}

fn watch(name: &str) -> Running {
    start(&["stat", name, "--watch=50ms", "--json"])
}

#[test]
fn a_line_has_rates_and_what_the_sides_do() {
    let name = Name::new("watch");
    let mut send = start(&["send", &name, "--capacity", "4096"]);
    eventually(|| shmpipe::inspect(&*name).ok());
    let watch = watch(&name);
    wait_for(&watch, |line| line["consumer"] == "never came" && line["sent_messages_per_second"] == 0.0);
    let line: Vec<u8> = std::iter::repeat_n(b'x', 1016).chain([b'\n']).collect();
    send.input().write_all(&line).unwrap();
    // A kilobyte in 50 ms or somewhat more.
    let sent = wait_for(&watch, |line| line["sent_messages_per_second"].as_f64().unwrap() > 0.0);
    let (messages, bytes) =
        (sent["sent_messages_per_second"].as_f64(), sent["sent_bytes_per_second"].as_f64());
    assert!((bytes.unwrap() / messages.unwrap() - 1016.0).abs() < 1e-6, "{sent}");
    assert_eq!(
        (&sent["producer_doing"], &sent["unread_messages"]),
        (&Value::from("working"), &Value::from(1))
    );
    let recv = start(&["recv", &name]);
    let waits = wait_for(&watch, |line| line["consumer_doing"] == "sleeping");
    assert_eq!((&waits["used_bytes"], &waits["highest_used_bytes"]), (&Value::from(0), &Value::from(1024)));
    recv.signal(libc::SIGSTOP);
    wait_for(&watch, |line| line["consumer_doing"] == "stopped");
    recv.signal(libc::SIGKILL);
    let died = wait_for(&watch, |line| line["deaths"] == 1);
    assert_eq!((&died["consumer"], &died["takeovers"]), (&Value::from("died"), &Value::from(1)));
    let _successor = start(&["recv", &name]);
    wait_for(&watch, |line| line["takeovers"] == 2 && line["consumer"] == "alive" && line["deaths"] == 1);
    watch.signal(libc::SIGINT);
    watch.finish().code(130).quiet();
}

#[test]
fn latency_is_shown_of_the_interval_and_since_the_start() {
    let name = Name::new("watch-latency");
    ask(&["create", &name, "--measure-latency", "--capacity", "4KiB"]).code(0);
    let watch = watch(&name);
    let none = wait_for(&watch, |_| true);
    assert_eq!((&none["latency_samples"], &none["latency_p99_nanoseconds"]), (&Value::from(0), &Value::Null));
    // 50 records of 24 bytes cross 1200 / 256 steps.
    run(&["send", &name], &b"0123456789abcde\n".repeat(50)).code(0);
    run(&["recv", &name], b"").code(0);
    let some = wait_for(&watch, |line| line["latency_samples"] != 0);
    assert!(some["latency_p50_nanoseconds"].as_u64() <= some["latency_max_nanoseconds"].as_u64(), "{some}");
    wait_for(&watch, |line| line["latency_samples"] == 0 && line["released_messages_per_second"] == 0.0);
    watch.signal(libc::SIGINT);
    watch.finish().code(130).quiet();
    let all = object(&["stat", &name, "--json"]);
    assert_eq!((&all["latency_samples"], &all["back_latency_samples"]), (&Value::from(4), &Value::Null));
    let text = String::from_utf8(ask(&["stat", &name]).code(0).out).unwrap();
    let line = text.lines().find(|line| line.starts_with("latency")).unwrap();
    assert!(line.contains("p50 ") && line.contains("p99.99 ") && line.ends_with("of 4 samples"), "{line}");
}

#[test]
fn lines_of_text_repeat_their_header() {
    let name = Name::new("watch-text");
    ask(&["create", &name]).code(0);
    let watch = start(&["stat", &name, "--watch=10ms"]);
    let said = watch.wait_for_output(|said| String::from_utf8_lossy(said).matches("WAITS").count() >= 2);
    let said = String::from_utf8(said).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("  MSG/S   BYTES/S"), "{said}");
    assert_eq!(lines[1], "      0         0        0    0%    0%        0        -  no producer");
    assert_eq!(lines[21], lines[0]);
    watch.signal(libc::SIGTERM);
    watch.finish().code(143).quiet();
}

#[test]
fn a_watch_ends_with_its_pipe_and_with_its_reader() {
    let name = Name::new("watch-end");
    ask(&["stat", &name, "--watch"]).code(3).said(&[&name]);
    ask(&["create", &name]).code(0);
    let watch = watch(&name);
    wait_for(&watch, |_| true);
    shmpipe::unlink_force(&*name).unwrap();
    watch.finish().code(3).said(&["no pipe"]);
    ask(&["create", &name]).code(0);
    let text = format!("shmpipe stat {} --watch=10ms | head -n 2", &*name);
    let finished = script(&text).finish().code(0).quiet();
    assert_eq!(finished.out.iter().filter(|&&byte| byte == b'\n').count(), 2);
}

#[test]
fn another_pipe_in_the_place_is_noted_and_watched() {
    let name = Name::new("watch-again");
    ask(&["create", &name, "--capacity", "4096"]).code(0);
    let noted = |_| {
        let watch = start(&["stat", &name, "--watch=50ms", "--json"]);
        let before = wait_for(&watch, |_| true)["segment_id"].clone();
        watch.stop();
        shmpipe::unlink_force(&*name).unwrap();
        ask(&["create", &name, "--capacity", "8192"]).code(0);
        watch.signal(libc::SIGCONT);
        let is_noted = watch.says("another one is in its place");
        if is_noted {
            wait_for(&watch, |line| line["capacity_bytes"] == 8192 && line["segment_id"] != before);
            watch.signal(libc::SIGINT);
            watch.finish().code(130).said(&["another one is in its place"]);
        }
        is_noted
    };
    // It may have been stopped in the middle of a look, which then finds nothing: that ends it.
    assert!((0..10).any(noted));
}

#[test]
fn intervals_too_short_to_measure_are_refused() {
    let name = Name::new("watch-interval");
    for interval in ["--watch=0", "--watch=9ms", "--watch=x"] {
        ask(&["stat", &name, interval]).code(2).quiet_on_stdout();
    }
    ask(&["top", "--interval", "1ms"]).code(2).quiet_on_stdout();
}

#[test]
fn top_prints_an_interval_as_one_object() {
    let (name, missing) = (Name::new("top"), Name::new("top-missing"));
    run(&["send", &name], b"four\n").code(0);
    let tick = object(&["top", &name, &missing, "--json", "--once", "--interval", "20ms"]);
    assert_eq!((&tick["schema"], &tick["interval_seconds"]), (&Value::from(1), &Value::from(0.02)));
    let pipes = tick["pipes"].as_array().unwrap();
    assert_eq!(pipes.len(), 1, "{tick}");
    for (key, value) in [
        ("address", Value::from(&*name)),
        ("used_bytes", 16.into()),
        ("unread_messages", 1.into()),
        ("producer", "closed".into()),
        ("direction", Value::Null),
    ] {
        assert_eq!(pipes[0][key], value, "{key}");
    }
    let unreadable = &tick["unreadable"].as_array().unwrap()[0];
    assert_eq!(
        (&unreadable["address"], &unreadable["error"]),
        (&Value::from(&*missing), &Value::from("not_found"))
    );
}

#[test]
fn top_prints_an_interval_as_text_and_an_object_per_tick() {
    let name = Name::new("top-text");
    ask(&["create", &name]).code(0);
    let finished = ask(&["top", &name, "--once", "--interval", "20ms"]).code(0).quiet();
    let text = String::from_utf8(finished.out).unwrap();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<Vec<String>> = text.lines().map(words).collect();
    assert_eq!(lines[0], ["PIPE", "MSG/S", "BYTES/S", "FILL", "HIGH", "P99", "WAITS", "EVENTS"]);
    assert_eq!(lines[1], [&*name, "0", "0", "0%", "0%", "-", "no", "producer"]);
    let top = start(&["top", "--json", "--interval", "20ms"]);
    let said = top.wait_for_output(|said| objects(said).len() >= 3);
    let of_ours =
        |tick: &Value| tick["pipes"].as_array().unwrap().iter().any(|pipe| pipe["address"] == *name);
    assert!(objects(&said).iter().all(of_ours), "all pipes are on the board");
    top.signal(libc::SIGTERM);
    top.finish().code(143).quiet();
}

#[test]
fn top_shows_a_memfd_for_as_long_as_any_process_has_it_open() {
    let mut place = Place::new(Kind::Memfd, "top-memfd");
    let id = object(&["stat", &place, "--json"])["segment_id"].clone();
    let server = place.take_server();
    let mut send = start(&["send", &place]);
    send.input().write_all(b"four\n").unwrap();
    eventually(|| (shmpipe::inspect(&*place).ok()?.producer.messages == 1).then_some(()));
    let top = start(&["top", "--json", "--interval", "20ms"]);
    let ours = |tick: &Value| {
        let mut pipes = tick["pipes"].as_array().unwrap().iter();
        pipes.find(|pipe| pipe["segment_id"] == id).cloned()
    };
    // It is looked at several times before the next search.
    let said = top.wait_for_output(|said| objects(said).len() >= 5);
    for tick in objects(&said) {
        let found = ours(&tick).unwrap_or_else(|| panic!("it is missing in {tick}"));
        assert_eq!((&found["address"], &found["used_bytes"]), (&Value::Null, &16.into()), "{tick}");
        assert!(found["found_at"].as_str().unwrap().starts_with("/proc/"), "{tick}");
    }
    let recv = start(&["recv", &place]);
    recv.wait_for_output(|said| said == b"four\n");
    server.signal(libc::SIGTERM);
    server.finish().code(143);
    let others = [send.id(), recv.id()].map(|pid| format!("/proc/{pid}/fd/"));
    let is_other =
        |pipe: &Value| others.iter().any(|other| pipe["found_at"].as_str().unwrap().starts_with(other));
    let last = wait_for(&top, |tick| ours(tick).as_ref().is_some_and(is_other));
    let last = ours(&last).unwrap();
    assert_eq!((&last["used_bytes"], &last["highest_used_bytes"]), (&0.into(), &16.into()), "{last}");
}

#[test]
fn top_without_a_terminal_is_wrong_usage() {
    ask(&["top"]).code(2).quiet_on_stdout().said(&["needs a terminal", "--once", "--json"]);
}
