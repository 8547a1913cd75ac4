//! A short demo.

use std::process::Stdio;

use serde_json::Value;

use crate::bench::left_by;
use crate::process::{Running, ask, eventually, shmpipe};

#[test]
fn the_demo_shows_all_transports_and_leaves_nothing() {
    let demo = Running::start(
        shmpipe(&["demo", "--messages", "3000", "--time", "1s"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    );
    let pid = demo.id();
    let demo = demo.finish().code(0);
    let text = String::from_utf8(demo.out).unwrap();
    let checked = "3000 messages of 0 to 4096 bytes through shmpipe: none lost, every byte as sent";
    for part in [checked, "messages/s", "GB/s", "The segments are removed."] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    // While other tests keep the machine busy, some of it may not be measured, and the demo reports that.
    for part in ["Throughput", "Round trips", "p50", "p99.99", "pipe", "unix"] {
        assert!(text.contains(part) || demo.err.contains("too busy"), "{part} is not in\n{text}");
    }
    // A listing of all pipes keeps a removed segment for a moment.
    eventually(|| left_by(pid).is_empty().then_some(()));
}

#[test]
fn the_demo_prints_json() {
    let demo = ask(&["demo", "--messages", "1000", "--time", "1s", "--json"]).code(0);
    let text = String::from_utf8(demo.out).unwrap();
    let objects: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(objects.iter().all(|object| object["schema"] == 1));
    assert_eq!((&objects[0]["kind"], &objects[0]["messages"]), (&"checked".into(), &1000.into()));
    for transport in ["shmpipe", "pipe", "unix"] {
        let of = |kind: &'static str| {
            objects.iter().filter(move |object| object["kind"] == kind && object["transport"] == transport)
        };
        assert!(of("throughput").all(|object| object["messages_per_second"].as_f64().unwrap() > 0.0));
        assert!(of("throughput").count() >= 3 || demo.err.contains("the throughput of"), "{text}");
        assert!(of("round_trip").all(|object| object["p99_99_nanoseconds"].as_u64().unwrap() > 0));
        assert!(of("round_trip").count() > 0 || demo.err.contains("the latency of"), "{text}");
    }
}
