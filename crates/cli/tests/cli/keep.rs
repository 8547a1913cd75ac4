//! `keep`, and machines where the kernel removes a System V pipe with the last process that has it open.

use shmpipe::Peer;

use crate::place::{Kind, Place};
use crate::process::{Running, ask, run, script_apart, start};

/// Starts a keeper, which has the pipe open when this returns.
fn keeper(place: &Place) -> Running {
    let keeper = start(&["keep", place]);
    keeper.wait_for_words("until interrupted", 1);
    assert_eq!(keeper.wait_for_output(|said| said.ends_with(b"\n")), format!("{}\n", &**place).into_bytes());
    keeper
}

#[test]
fn a_keeper_has_the_pipe_open_without_a_role_until_a_signal_ends_it() {
    for kind in Kind::ALL {
        let place = Place::new(kind, "keep");
        for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
            let keeper = keeper(&place);
            let seen = shmpipe::inspect(&*place).unwrap();
            assert!(
                seen.is_open
                    && [seen.producer.peer, seen.consumer.peer].iter().all(|&peer| peer != Peer::Open)
            );
            run(&["send", &place], b"kept\n").code(0).quiet();
            ask(&["recv", &place]).code(0).quiet().wrote(b"kept\n");
            keeper.signal(signal);
            keeper.finish().code(code).said(&["keeping the pipe at", &place]);
        }
    }
    ask(&["keep", "memfd"]).code(2).said(&["shmpipe serve"]);
}

#[test]
fn a_keeper_ends_when_its_pipe_is_removed() {
    for kind in Kind::NAMED {
        let place = Place::new(kind, "keep-removed");
        let keeper = keeper(&place);
        ask(&["rm", &place]).code(0);
        let finished = keeper.finish().code(3);
        assert!(finished.err.contains("the pipe was removed"), "{}", finished.err);
    }
}

/// Sets the sysctl in the IPC namespace of a script, and starts a keeper of `kept` whose process is `$keeper`.
const FORCED: &str = "echo 1 > /proc/sys/kernel/shm_rmid_forced; ";
const KEEP: &str =
    "shmpipe keep kept > said 2> /dev/null & keeper=$!; until [ -s said ]; do sleep 0.05; done; ";

/// Runs a script in a directory of its own.
fn script(text: &str) -> Option<Running> {
    script_apart(&format!("cd $(mktemp -d -p /dev/shm); {text}"))
}

#[test]
fn a_pipe_that_would_not_outlive_its_last_user_is_refused() {
    for command in ["send pipe", "recv pipe", "create pipe", "send sysv:0x4d2", "send sysv:private"] {
        let Some(refused) = script(&format!("{FORCED} exec shmpipe {command}")) else { return };
        refused.finish().code(7).wrote(b"").said(&[
            "shm_rmid_forced is 1",
            "posix:",
            "shmpipe keep",
            "allow_rmid_forced",
        ]);
    }
    // An existing pipe too, which is left as it was. Other kinds do not depend on it.
    let script = script(&format!(
        "{KEEP} {FORCED} ! shmpipe recv kept 2> /dev/null; shmpipe stat kept > /dev/null; \
         echo other | shmpipe send posix:/other; shmpipe recv posix:/other; \
         echo 0 > /proc/sys/kernel/shm_rmid_forced; echo second | shmpipe send kept; shmpipe recv kept"
    ));
    script.unwrap().finish().code(0).quiet().wrote(b"other\nsecond\n");
}

#[test]
fn a_keeper_keeps_messages_where_the_kernel_removes_pipes() {
    let Some(kept) = script(&format!(
        "{FORCED} {KEEP} ! echo 1 | shmpipe send kept 2> /dev/null; \
         echo 2 | shmpipe send kept --allow-rmid-forced; shmpipe recv kept --allow-rmid-forced; \
         kill $keeper; wait $keeper || [ $? = 143 ]; shmpipe stat kept 2> /dev/null || echo $?"
    )) else {
        return;
    };
    kept.finish().code(0).quiet().wrote(b"2\n3\n");
    // What is refused for: without a keeper the message is gone.
    let lost = script(&format!(
        "{FORCED} echo lost | shmpipe send kept --allow-rmid-forced; \
         shmpipe recv kept --allow-rmid-forced --timeout 50ms 2> /dev/null || echo $?"
    ));
    lost.unwrap().finish().code(0).quiet().wrote(b"5\n");
}

#[test]
fn demo_works_where_the_kernel_removes_pipes() {
    let Some(demo) = script(&format!("{FORCED} shmpipe demo --messages 1000 --time 1s > /dev/null")) else {
        return;
    };
    demo.finish().code(0);
}

#[test]
fn a_kernel_that_removes_pipes_is_found_and_fixed() {
    let Some(doctor) = script(&format!("{FORCED} shmpipe doctor --json || [ $? = 10 ]")) else { return };
    let objects = String::from_utf8(doctor.finish().code(0).quiet().out).unwrap();
    let mut objects = objects.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let finding = objects.find(|object| object["check"] == "shm_rmid_forced" && object["kind"] == "finding");
    let fix = finding.expect("a finding")["mend"].as_str().unwrap().to_owned();
    let script = script(&format!("{FORCED} {fix}\nshmpipe doctor; echo 1 | shmpipe send pipe"));
    script.unwrap().finish().code(0);
}
