//! Limits of the process: the message names the limit, its value, and how to raise it.

use crate::place::{Kind, Place};
use crate::process::bash;

#[test]
fn too_few_descriptors_are_reported_as_such_wherever_they_run_out() {
    let place = |kind| Place::new(kind, "few-descriptors");
    let places = Kind::ALL.map(place);
    let mut failures = 0;
    for place in &places {
        for command in ["create", "send", "recv --timeout 0s", "stat", "rm"] {
            for descriptors in 3..12 {
                let text =
                    format!("ulimit -n {descriptors} && exec shmpipe {command} '{}' </dev/null", &**place);
                let finished = bash(&text).finish();
                let is_of_limit = finished.err.contains("RLIMIT_NOFILE");
                if finished.err.contains("ulimit") || is_of_limit {
                    failures += 1;
                    let err = &finished.err;
                    assert!(
                        err.contains(&format!("is {descriptors},")) && err.contains("ulimit -n"),
                        "{text}: {err}"
                    );
                    assert_eq!(finished.status.code(), Some(1), "{text}: {err}");
                }
                // The loader needs one too.
                let is_ours = !finished.err.contains("shared libraries");
                assert!(!is_ours || !finished.err.contains("os error 24"), "{text}: {}", finished.err);
            }
        }
        let _ = shmpipe::unlink_force(&**place);
    }
    assert!(failures >= 4, "{failures}");
}

#[test]
fn too_little_address_space_is_reported_as_such() {
    for kind in Kind::NAMED {
        let place = Place::new(kind, "little-address-space");
        // In KiB: enough for the program, and not for the ring.
        let create = format!("shmpipe create '{}' --capacity 16MiB --no-prefault", &*place);
        let limited = |command: &str| bash(&format!("ulimit -v 20000 && exec {command}")).finish();
        let said = ["RLIMIT_AS is 20480000,", "ulimit -v"];
        limited(&create).code(1).said(&said);
        bash(&create).finish().code(0);
        limited(&format!("shmpipe recv '{}'", &*place)).code(1).said(&said);
        let _ = shmpipe::unlink_force(&*place);
    }
}
